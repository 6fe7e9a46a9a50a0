//! A replica's word that it holds a chain (`spec/06 §8`).
//!
//! In: what a replica verified and stored. Out: a signed statement that names one head. Always true:
//! it covers the whole chain up to that head and nothing after it, and says how safely it is kept.
//! What acknowledgements add up to is for [`crate::judge`] to say.

use bield_envelope::{Digest, Statement, Time};
use minicbor::{Decode, Encode};

use crate::{CapsuleName, Head, WriterId};

/// *I hold the chain of this writer from 0 to `seq` without a gap, every signature verified.*
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Acknowledgement {
    /// Which capsule.
    #[n(0)]
    pub capsule: CapsuleName,
    /// Whose chain.
    #[n(1)]
    pub writer: WriterId,
    /// Through which position.
    #[n(2)]
    pub seq: u64,
    /// Header hash there.
    #[n(3)]
    pub hash: Digest,
    /// How safely.
    #[n(4)]
    pub kept: Kept,
    /// When, by the replica's clock.
    #[n(5)]
    pub at: Time,
}

impl Acknowledgement {
    /// Says that the chain is held through `head`.
    #[must_use]
    pub const fn of(capsule: CapsuleName, head: Head, kept: Kept, at: Time) -> Self {
        Self {
            capsule,
            writer: head.writer,
            seq: head.seq,
            hash: head.hash,
            kept,
            at,
        }
    }

    /// The head it covers.
    #[must_use]
    pub const fn head(&self) -> Head {
        Head {
            writer: self.writer,
            seq: self.seq,
            hash: self.hash,
        }
    }
}

impl Statement for Acknowledgement {
    const DOMAIN: &'static str = "bield capsule acknowledgement v1";
    const BYTES_MAX: usize = 256;
}

/// How safely a replica keeps what it acknowledges.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum Kept {
    /// In memory: gone with the process.
    #[n(0)]
    Memory,
    /// Written to its disk: gone with the machine's power.
    #[n(1)]
    Written,
    /// Synced to its disk.
    #[n(2)]
    Synced,
}

impl Kept {
    /// What requests and metrics call it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Written => "written",
            Self::Synced => "synced",
        }
    }

    /// The level with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Memory, Self::Written, Self::Synced]
            .into_iter()
            .find(|kept| kept.name() == name)
    }
}

#[cfg(test)]
mod tests {
    use bield_envelope::wire;

    use super::*;

    #[test]
    fn the_largest_acknowledgement_fits_and_survives_its_bytes() {
        let head = Head {
            writer: WriterId::from_bytes([2; 32]),
            seq: u64::MAX,
            hash: Digest::from_bytes([3; 32]),
        };
        for kept in [Kept::Memory, Kept::Written, Kept::Synced] {
            let capsule = CapsuleName::from_bytes([1; 32]);
            let said = Acknowledgement::of(capsule, head, kept, Time::from_millis(u64::MAX));
            let bytes = wire::encode(&said);
            let again = wire::decode(&bytes, Acknowledgement::BYTES_MAX);
            assert_eq!(again, Ok(said.clone()));
            assert_eq!(said.head(), head);
            assert_eq!(Kept::from_name(kept.name()), Some(kept));
        }
    }
}
