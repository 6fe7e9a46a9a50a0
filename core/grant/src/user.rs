//! Which users: one, or the members of a group.

use core::fmt;
use core::str::FromStr;

use bield_envelope::Principal;
use minicbor::{Decode, Encode};

use crate::GroupName;

/// Which users a grant covers.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Encode, Decode)]
#[cbor(flat)]
pub enum UserSelector {
    /// This one.
    #[n(0)]
    Principal(#[n(0)] Principal),
    /// Whoever is a member of the owner's group of this name when the decision is made.
    #[n(1)]
    Group(#[n(0)] GroupName),
}

/// `ed25519:…` or `group:NAME`.
impl fmt::Display for UserSelector {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Principal(principal) => fmt::Display::fmt(principal, out),
            Self::Group(name) => write!(out, "{GROUP}{name}"),
        }
    }
}

impl FromStr for UserSelector {
    type Err = InvalidUserSelector;

    fn from_str(text: &str) -> Result<Self, InvalidUserSelector> {
        match text.strip_prefix(GROUP) {
            Some(name) => name
                .parse()
                .map(Self::Group)
                .map_err(|_| InvalidUserSelector),
            None => text
                .parse()
                .map(Self::Principal)
                .map_err(|_| InvalidUserSelector),
        }
    }
}

/// The text selects no user; whoever wrote it writes it anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("users are selected as `ed25519:` and 64 hexadecimal digits, or `group:` and a name")]
pub struct InvalidUserSelector;

const GROUP: &str = "group:";
