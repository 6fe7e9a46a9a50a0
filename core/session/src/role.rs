//! What an end of a session is there for.

use core::fmt;

use minicbor::{Decode, Encode};

/// The part an end plays; unknown parts do not decode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(index_only)]
#[non_exhaustive]
pub enum Role {
    /// A user's or owner's program: runs anywhere, proves nothing about itself here.
    #[n(0)]
    Client,
    /// `bield-keys`: hands out keys.
    #[n(1)]
    KeyService,
    /// `bield-runtime`: opens requests and models.
    #[n(2)]
    Runtime,
}

impl Role {
    /// The name that goes into signatures and messages for people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::KeyService => "key-service",
            Self::Runtime => "runtime",
        }
    }

    /// Whether an end in this role must prove its code.
    #[must_use]
    pub const fn is_attested(self) -> bool {
        !matches!(self, Self::Client)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
