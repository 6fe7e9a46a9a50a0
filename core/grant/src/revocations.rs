//! Grants taken back before their end.
//!
//! A revocation names an owner and a grant id, so it also stops every renewal under that id, and
//! no owner can revoke another's grant by choosing the same id. Kept by the key service; a
//! revocation reaches a runtime at the latest when its lease ends (`spec/04 §6`).

use std::collections::BTreeSet;

use bield_envelope::{Principal, Verified};

use crate::Grant;

/// Most revocations held, in entries of 48 bytes: about 5 MB of memory. More than that are a sign
/// of grants that should have been given shorter lives.
pub const REVOCATIONS_MAX: usize = 65_536;

/// The set of revoked grants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Revocations(BTreeSet<(Principal, [u8; 16])>);

impl Revocations {
    /// Makes an empty set: nothing is revoked.
    pub fn new() -> Self {
        Self::default()
    }

    /// Revokes every grant that `owner` signed under `id`; doing it twice is the same as once.
    ///
    /// # Errors
    /// [`RevocationsFull`] when [`REVOCATIONS_MAX`] entries are held: nothing was revoked.
    pub fn revoke(&mut self, owner: Principal, id: [u8; 16]) -> Result<(), RevocationsFull> {
        if self.0.len() >= REVOCATIONS_MAX && !self.0.contains(&(owner, id)) {
            return Err(RevocationsFull);
        }
        self.0.insert((owner, id));
        Ok(())
    }

    /// Tells whether this grant was revoked by its signer.
    pub fn contains(&self, grant: &Verified<Grant>) -> bool {
        self.0.contains(&(grant.signer(), grant.id))
    }
}

/// The set of revocations is full; the grant is still in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{REVOCATIONS_MAX} revocations are held and no more fit, so the grant is still in force; \
     the operator rotates the package key to end all grants at once"
)]
pub struct RevocationsFull;
