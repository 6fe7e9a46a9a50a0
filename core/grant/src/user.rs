//! Which users: one, or the members of a group.

use core::fmt;
use core::str::FromStr;

use bield_envelope::Principal;
use minicbor::{Decode, Encode};

use crate::GroupName;

/// Which users a grant covers.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Encode, Decode)]
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

#[cfg(test)]
mod tests {
    use bield_envelope::wire;

    use super::*;
    use crate::cast::{one, team, user};

    #[test]
    fn selectors_survive_their_text_and_their_cbor() {
        for selector in [one(1), team()] {
            assert_eq!(selector.to_string().parse(), Ok(selector.clone()));
            assert_eq!(wire::decode(&wire::encode(&selector), 99), Ok(selector));
        }
        for bad in ["team", "group:", "group:Team", "group:group:a", "*"] {
            assert_eq!(
                bad.parse::<UserSelector>(),
                Err(InvalidUserSelector),
                "{bad}"
            );
        }
        let unknown = [&[0x82, 0x02, 0x81][..], &wire::encode(&user(1))].concat();
        assert!(
            wire::decode::<UserSelector>(&unknown, 99).is_err(),
            "kind 2 is nobody"
        );
    }
}
