//! The grant: one sentence an owner signs.
//!
//! "These *users* may use these *packages* inside this *code*, kept apart like *so*, from then until
//! then, so many times." The statement is CBOR with integer keys inside a COSE_Sign1 (`spec/04 §3`); the signer
//! is not repeated inside, because whether the signer owns the package is for the verifier to say.

use core::fmt;

use bield_envelope::{Digest, Statement, Time};
use bield_evidence::Measurement;
use minicbor::{Decode, Encode};

use crate::{CodeSelector, PackageSelector, UserSelector};

/// Longest encoded statement in bytes, before signing: under 350 with the longest selectors of
/// today, with room for longer ones.
pub const GRANT_BYTES_MAX: usize = 512;

/// What an owner allows (`spec/04 §3`).
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Grant {
    /// Random name chosen by the owner; a revocation names the grant by it.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub id: [u8; 16],
    /// The packages that may be used.
    #[n(1)]
    pub package: PackageSelector,
    /// The users who may use them.
    #[n(2)]
    pub user: UserSelector,
    /// The only code that may hold them in the clear.
    #[n(3)]
    pub code: CodeSelector,
    /// How each of these users is kept apart from others inside that code.
    #[n(4)]
    pub isolation: Isolation,
    /// First moment at which the grant holds.
    #[n(5)]
    pub not_before: Time,
    /// First moment at which the grant no longer holds.
    #[n(6)]
    pub not_after: Time,
    /// How many requests it allows in its whole life, of all its users together; `None`: no bound.
    #[n(7)]
    pub requests: Option<u64>,
}

impl Statement for Grant {
    const DOMAIN: &'static str = "bield grant v2";
    const BYTES_MAX: usize = GRANT_BYTES_MAX;
}

/// How one user's requests are kept apart from another's, from weakest to strictest.
///
/// A value this version does not know fails to decode, so it is never served as a weaker one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum Isolation {
    /// Engine sessions and buffers serve all users; what one leaves in them lies there until it is overwritten.
    #[n(0)]
    Shared,
    /// When the answer is out, nothing of the request is left: not in the engine, not in freed memory.
    #[n(1)]
    Wiped,
    /// One user per instance, which ends afterwards; keys are fetched and the model is opened for every request, and
    /// answers are padded.
    #[n(2)]
    Dedicated,
}

impl fmt::Display for Isolation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Shared => "shared",
            Self::Wiped => "wiped",
            Self::Dedicated => "dedicated",
        })
    }
}

impl core::str::FromStr for Isolation {
    type Err = UnknownIsolation;

    fn from_str(text: &str) -> Result<Self, UnknownIsolation> {
        match text {
            "shared" => Ok(Self::Shared),
            "wiped" => Ok(Self::Wiped),
            "dedicated" => Ok(Self::Dedicated),
            _ => Err(UnknownIsolation),
        }
    }
}

/// The word names no isolation that this version can provide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown isolation; write one of: shared, wiped, dedicated")]
pub struct UnknownIsolation;

/// Names the audience "this package inside this code": requests are sealed to it, and only code
/// with this measurement is leased its key (`spec/04 §2`).
pub fn audience(package: Digest, code: &Measurement) -> Digest {
    Digest::of(
        AUDIENCE_DOMAIN,
        &[package.as_bytes(), code.to_string().as_bytes()],
    )
}

const AUDIENCE_DOMAIN: &str = "bield audience v1";

#[cfg(test)]
mod tests {
    use bield_envelope::wire;
    use bield_evidence::TeeKind;

    use super::*;
    use crate::CodeSigner;

    #[test]
    fn every_isolation_survives_its_text_and_its_cbor() {
        for isolation in [Isolation::Shared, Isolation::Wiped, Isolation::Dedicated] {
            assert_eq!(isolation.to_string().parse(), Ok(isolation));
            assert_eq!(wire::decode(&wire::encode(&isolation), 1), Ok(isolation));
        }
    }

    #[test]
    fn the_longest_selectors_fit() {
        let longest = "n".repeat(63);
        let range = format!("={longest}").parse().unwrap();
        let signer = CodeSigner::new(TeeKind::Sgx, &[0xff; 32], Some(u16::MAX), u32::MAX).unwrap();
        let grant = Grant {
            id: [0xff; 16],
            package: PackageSelector::Named(longest.parse().unwrap(), range),
            user: UserSelector::Group(longest.parse().unwrap()),
            code: CodeSelector::Signed(signer),
            isolation: Isolation::Dedicated,
            not_before: Time::from_millis(u64::MAX),
            not_after: Time::from_millis(u64::MAX),
            requests: Some(u64::MAX),
        };
        let bytes = wire::encode(&grant);
        assert!(bytes.len() < 350, "{} bytes", bytes.len());
        assert_eq!(wire::decode(&bytes, GRANT_BYTES_MAX), Ok(grant));
    }

    #[test]
    fn an_unknown_isolation_is_refused_and_not_weakened() {
        assert_eq!("Shared".parse::<Isolation>(), Err(UnknownIsolation));
        for unknown in 3..24u8 {
            assert!(wire::decode::<Isolation>(&[unknown], 1).is_err());
        }
    }
}
