//! Signed statements as the state keeps them: their bytes, believed because the seal of the log is.
//!
//! ```text
//! Verified<T> ──▶ log, snapshot (sealed) ──▶ bytes ──says──▶ T          to find, list and count
//!                                            bytes ──verify──▶ Verified<T>   before a key depends on it
//! ```
//!
//! Always true: what a decision about keys rests on was verified again in this process ([`Verifying`]); what is
//! read here without that serves indexes, lists and limits only.
//!
//! On paper: reading a grant 0.5 µs, verifying one 50 µs, finding it verified 0.4 µs (one digest).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bield_envelope::{Digest, Principal, Signed, Verified};
use bield_grant::Grant;
use bield_package::PackageHeader;
use minicbor::{Decode, Decoder};

/// What a statement says whose bytes were authenticated otherwise; `None` when it is not one.
pub(super) fn says<T: for<'b> Decode<'b, ()>>(signed: &[u8]) -> Option<T> {
    minicbor::decode(payload(signed)?).ok()
}

/// The first field of what a statement says, when that is a map that begins with key 0.
pub(super) fn first<T: for<'b> Decode<'b, ()>>(signed: &[u8]) -> Option<T> {
    let mut d = Decoder::new(payload(signed)?);
    d.map().ok()?;
    (d.u8().ok()? == 0).then(|| d.decode().ok())?
}

fn payload(signed: &[u8]) -> Option<&[u8]> {
    let mut d = Decoder::new(signed);
    d.tag().ok()?;
    d.array().ok()?;
    d.bytes().ok()?;
    d.map().ok()?;
    d.bytes().ok()
}

/// Identifies a statement with its signature: [`Verified::digest`].
pub(super) fn digest(signed: &[u8]) -> Digest {
    Digest::of("bield statement v1", &[signed])
}

/// A package's digest and header; verified again, there are few.
pub(super) fn package(header: &Signed<PackageHeader>) -> Option<(Digest, Verified<PackageHeader>)> {
    let header = header.clone().verify_claimed().ok()?;
    Some((PackageHeader::package(&header), header))
}

/// Grants that were verified lately, so that a lease does not verify thousands of them again.
///
/// Two generations of at most [`VERIFIED_MAX`] each: the younger fills, then takes the elder's place.
#[derive(Default)]
pub(super) struct Verifying(Mutex<Generations>);

#[derive(Default)]
struct Generations {
    young: HashMap<Digest, Arc<Verified<Grant>>>,
    old: HashMap<Digest, Arc<Verified<Grant>>>,
}

impl Verifying {
    /// Remembers what was verified on its way in.
    pub(super) fn remember(&self, grant: &Verified<Grant>) {
        self.put(grant.digest(), Arc::new(grant.clone()));
    }

    /// The statement behind these bytes, if its signature holds.
    pub(super) fn verified(&self, signed: &[u8]) -> Option<Arc<Verified<Grant>>> {
        let digest = digest(signed);
        if let Some(known) = self.find(&digest) {
            return Some(known);
        }
        let grant = Signed::<Grant>::decode(signed).ok()?;
        let grant = Arc::new(grant.verify_claimed().ok()?);
        self.put(digest, Arc::clone(&grant));
        Some(grant)
    }

    fn find(&self, digest: &Digest) -> Option<Arc<Verified<Grant>>> {
        let both = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = both.young.get(digest).or_else(|| both.old.get(digest));
        known.map(Arc::clone)
    }

    fn put(&self, digest: Digest, grant: Arc<Verified<Grant>>) {
        let mut both = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if both.young.len() >= VERIFIED_MAX {
            both.old = core::mem::take(&mut both.young);
        }
        both.young.insert(digest, grant);
    }
}

/// The key that the structure names as its signer; authenticated with the rest.
pub(super) fn signer(signed: &[u8]) -> Option<Principal> {
    let mut d = Decoder::new(signed);
    d.tag().ok()?;
    d.array().ok()?;
    let mut protected = Decoder::new(d.bytes().ok()?);
    protected.map().ok()?;
    protected.skip().ok()?; // alg
    protected.skip().ok()?;
    protected.skip().ok()?; // kid
    protected.decode().ok()
}

/// The most grants of a generation: what two of the largest leases need, 1.2 kB each.
const VERIFIED_MAX: usize = 16_384;

#[cfg(test)]
mod tests {
    use bield_envelope::{Secret, SigningKey, Time};
    use bield_grant::Succession;

    use super::*;

    #[test]
    fn what_is_read_without_verifying_is_what_was_signed() {
        let key = SigningKey::from_seed(Secret::from_bytes([1; 32]));
        let says_so = Succession {
            from: key.principal(),
            to: SigningKey::from_seed(Secret::from_bytes([2; 32])).principal(),
            at: Time::from_secs(7),
        };
        let signed = Signed::sign(&key, says_so.clone());
        assert_eq!(says::<Succession>(signed.as_bytes()), Some(says_so));
        assert_eq!(signer(signed.as_bytes()), Some(key.principal()));
        assert_eq!(digest(signed.as_bytes()), signed.digest());
        assert_eq!(says::<Succession>(b""), None);
    }
}
