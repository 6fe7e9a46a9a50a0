//! What capsules, writers and positions are called.
//!
//! In and out: 32-byte digests under distinct types, so that a capsule's name cannot stand where a
//! writer's id belongs. Always true: a name is the hash of what it names (`spec/06 §2, §3`).

use core::fmt;
use core::str::FromStr;

use bield_envelope::{Digest, ParseDigestError};
use minicbor::{Decode, Encode};

macro_rules! named_by_digest {
    ($(#[$docs:meta])* $name:ident) => {
        $(#[$docs])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
        #[cbor(transparent)]
        pub struct $name(#[n(0)] Digest);

        impl $name {
            /// Takes 32 bytes as they are.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(Digest::from_bytes(bytes))
            }

            /// The 32 bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 32] {
                self.0.as_bytes()
            }

            /// The digest it is.
            #[must_use]
            pub const fn digest(&self) -> Digest {
                self.0
            }

            /// The first 12 hexadecimal digits, for people; never for comparison.
            #[must_use]
            pub fn short(&self) -> String {
                self.0.short()
            }
        }

        impl From<Digest> for $name {
            fn from(digest: Digest) -> Self {
                Self(digest)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl FromStr for $name {
            type Err = ParseDigestError;

            fn from_str(text: &str) -> Result<Self, ParseDigestError> {
                text.parse().map(Self)
            }
        }
    };
}

named_by_digest! {
    /// A capsule: the hash of its metadata; prints as 64 hexadecimal digits.
    CapsuleName
}

named_by_digest! {
    /// A writer's incarnation: the hash of its public key; prints as 64 hexadecimal digits.
    WriterId
}

/// A position in a writer's chain and the record there: everything before it is fixed by `hash`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Head {
    /// Whose chain.
    pub writer: WriterId,
    /// Position, from 0.
    pub seq: u64,
    /// Header hash of the record there.
    pub hash: Digest,
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}/{} {}",
            self.writer.short(),
            self.seq,
            self.hash.short()
        )
    }
}

/// `[writer, seq, hash]`.
impl<C> Encode<C> for Head {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        context: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.array(3)?.encode_with(self.writer, context)?;
        e.u64(self.seq)?.encode_with(self.hash, context)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Head {
    fn decode(
        d: &mut minicbor::Decoder<'b>,
        context: &mut C,
    ) -> Result<Self, minicbor::decode::Error> {
        if d.array()? != Some(3) {
            return Err(minicbor::decode::Error::message("a head is an array of 3"));
        }
        Ok(Self {
            writer: d.decode_with(context)?,
            seq: d.u64()?,
            hash: d.decode_with(context)?,
        })
    }
}

/// Hybrid logical time: milliseconds since 1970 (48 bits) and a counter (16 bits).
///
/// The host sets a writer's clock, so this orders records and bounds certificates; it proves no
/// moment. Prints as `milliseconds.counter`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Clock(u64);

impl Clock {
    /// The moment `time`, counter zero.
    #[must_use]
    pub const fn at(time: bield_envelope::Time) -> Self {
        Self((time.as_millis() & MILLIS_MAX) << COUNTER_BITS)
    }

    /// Takes the 64 bits of the wire.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The 64 bits of the wire.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Its physical part.
    #[must_use]
    pub const fn time(self) -> bield_envelope::Time {
        bield_envelope::Time::from_millis(self.0 >> COUNTER_BITS)
    }

    /// The next value at `now`: the present when that is later than `self`, else `self` and one.
    #[must_use]
    pub fn next(self, now: bield_envelope::Time) -> Self {
        Self::at(now).max(Self(self.0.saturating_add(1)))
    }
}

impl fmt::Display for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.time().as_millis(), self.0 & COUNTER_MAX)
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

const COUNTER_BITS: u32 = 16;
const COUNTER_MAX: u64 = (1 << COUNTER_BITS) - 1;
const MILLIS_MAX: u64 = (1 << 48) - 1;

#[cfg(test)]
mod tests {
    use super::*;
    use bield_envelope::Time;

    #[test]
    fn a_clock_never_runs_backwards() {
        let clock = Clock::at(Time::from_millis(5000));
        assert_eq!(clock.next(Time::from_millis(4000)).bits(), clock.bits() + 1);
        assert_eq!(clock.next(Time::from_millis(6000)).time().as_millis(), 6000);
        assert_eq!(
            Clock::from_bits(u64::MAX).next(Time::from_millis(1)).bits(),
            u64::MAX
        );
    }

    #[test]
    fn a_head_survives_its_own_encoding() {
        let head = Head {
            writer: WriterId::from_bytes([1; 32]),
            seq: 77,
            hash: Digest::from_bytes([2; 32]),
        };
        let bytes = bield_envelope::wire::encode(&head);
        assert_eq!(bield_envelope::wire::decode::<Head>(&bytes, 128), Ok(head));
    }
}
