//! Grants taken back before their end.
//!
//! A revocation names the signer of a grant and its id, so it also stops every renewal under that
//! id, and no owner can revoke another's grant by choosing the same id. Kept by the key service as
//! long as a grant under that id could still hold; a revocation reaches a runtime at the latest when
//! its lease ends (`spec/04 §9`).
//!
//! Left to the holder: a bound. This set grows with what is put in; [`Revocations::forget`] takes
//! out what has become pointless. 56 bytes an entry.

use std::collections::BTreeMap;

use bield_envelope::{Principal, Time, Verified};

use crate::Grant;

/// The set of revoked grants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Revocations(BTreeMap<(Principal, [u8; 16]), Time>);

impl Revocations {
    /// Makes an empty set: nothing is revoked.
    #[must_use]
    pub const fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// Counts the revocations kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Tells whether nothing is revoked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Revokes every grant that `signer` signed under `id`, and remembers it until then: the latest
    /// `not_after` of those grants. Doing it twice keeps the later time.
    pub fn revoke(&mut self, signer: Principal, id: [u8; 16], until: Time) {
        let kept = self.0.entry((signer, id)).or_insert(until);
        *kept = until.max(*kept);
    }

    /// Tells whether this grant was revoked.
    #[must_use]
    pub fn contains(&self, grant: &Verified<Grant>) -> bool {
        self.0.contains_key(&(grant.signer(), grant.id))
    }

    /// Forgets what was to be remembered until `now` or less.
    pub fn forget(&mut self, now: Time) {
        self.0.retain(|_, until| now < *until);
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::*;
    use crate::cast::{NOON, granted, owner};

    #[test]
    fn a_revocation_is_kept_until_the_last_grant_under_its_id_has_ended() {
        let (by, one) = (owner(1).principal(), Duration::from_millis(1));
        let mut revoked = Revocations::new();
        revoked.revoke(by, [7; 16], NOON.plus(one));
        revoked.revoke(by, [7; 16], NOON);
        revoked.forget(NOON);
        assert!(revoked.contains(&granted(|_| ())), "the later end counts");
        assert_eq!(revoked.len(), 1);
        revoked.forget(NOON.plus(one));
        assert!(revoked.is_empty() && !revoked.contains(&granted(|_| ())));
    }
}
