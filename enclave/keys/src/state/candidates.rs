//! The grants that a decision about one package in one code looks at.
//!
//! Always true: each of them was verified in this process; all that could allow are among them, as far as a
//! lease could carry them (orders of grants see to it that it can). Those that only explain a refusal are few.

use std::sync::Arc;

use bield_envelope::Verified;
use bield_grant::{Grant, Revocations};
use bield_protocol::service::GRANTS_PER_LEASE_MAX;

use super::State;
use super::grants::Stage;
use super::index::{Class, Target};

/// Grants that decide about a package in some code, or explain why none does.
pub(super) struct Candidates {
    grants: Vec<Arc<Verified<Grant>>>,
    revoked: Revocations,
}

impl Candidates {
    pub(super) fn iter(&self) -> impl Iterator<Item = &Verified<Grant>> + Clone {
        self.grants.iter().map(|grant| &**grant)
    }

    pub(super) fn revoked(&self) -> &Revocations {
        &self.revoked
    }
}

impl State {
    /// Grants for a package in code of this class: those that live, those that ended lately, some that were
    /// revoked, and one for each of some other kinds of code, to say in a refusal.
    pub(super) fn candidates(&self, targets: &[Target; 2], class: Class) -> Candidates {
        let mut handles = Vec::new();
        let all = GRANTS_PER_LEASE_MAX;
        for (stage, max) in [
            (Stage::Live, all),
            (Stage::Ended, all),
            (Stage::Revoked, all + EXPLAINED_MAX),
        ] {
            for target in targets {
                for class in [class, Class::SIGNERS] {
                    let room = max.saturating_sub(handles.len());
                    handles.extend(self.grants.find(*target, class, stage).take(room));
                }
            }
        }
        for target in targets {
            let others = self.grants.classes(*target);
            let others = others.filter(|other| *other != class && *other != Class::SIGNERS);
            for other in others.take(EXPLAINED_MAX) {
                handles.extend(self.grants.find(*target, other, Stage::Live).next());
            }
        }
        let mut candidates = Candidates {
            grants: Vec::with_capacity(handles.len()),
            revoked: Revocations::new(),
        };
        for handle in handles {
            let Some(kept) = self.grants.get(handle) else {
                continue;
            };
            // A statement that does not verify is nobody's word, however it came to be kept.
            let Some(grant) = self.verifying.verified(&kept.signed) else {
                continue;
            };
            if kept.stage == Stage::Revoked {
                candidates
                    .revoked
                    .revoke(grant.signer(), grant.id, grant.not_after);
            }
            candidates.grants.push(grant);
        }
        candidates
    }
}

/// The most grants of each kind that only explain a refusal.
const EXPLAINED_MAX: usize = 16;
