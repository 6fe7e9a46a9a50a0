//! What the key service knows, and everything that can happen to it.
//!
//! ```text
//! Ask ──check (&self)──▶ Checked { entries, answer }         refused: nothing changed
//!                            │ apply (&mut self), at once and again at every replay
//!                            ▼
//!                   one record of the log ──committed──▶ the answer is said
//! ```
//!
//! Always true: the state after the entries of a log is the same however it was reached (live, replayed, from a
//! snapshot), byte for byte of [`State::encode`]; an entry that does not fit ends in [`Inconsistent`]; a refusal
//! leaves everything as it was; every table has its limit (`limits`). No clock, no randomness, no I/O, no
//! threads: time arrives with what is asked and with each record.
//!
//! Rooms: `people` (principals, successions), `packages` (and audience keys), `groups`, `grants` (indexes) and
//! `granting` (orders), `candidates` and
//! `leases` (and quotas), `holds` (functions' states), `administration`, `audit`, `reading`, `snapshot`.
//!
//! Left to others: signatures and sessions (`service`), order, durability and everything that waits (the program).
//!
//! On paper: an order is a few searches in trees; 10⁶ grants take under 600 MB, their snapshot 330 MB.

mod administration;
mod ask;
mod audit;
mod candidates;
mod entry;
mod granting;
mod grants;
mod groups;
mod holds;
mod index;
mod kept;
mod leases;
mod limits;
mod packages;
mod people;
mod reading;
pub(crate) mod refuse;
mod snapshot;

use std::collections::{BTreeMap, BTreeSet};

use bield_envelope::{Digest, Secret, Time};
use bield_package::PackageName;
use bield_protocol::refusal::Refusal;

pub use ask::{Answer, Ask, Checked, Inconsistent, Limits, Order, PackagePut, RecoveryLimits};
pub use audit::{AuditPlan, AuditedRecord, Reference};
pub use entry::{ENTRY_BYTES_MAX, Entry, Started};
pub use limits::*;
pub use reading::Counts;
pub use snapshot::NotAState;

use administration::Administration;
use grants::Grants;
use holds::Holds;
use kept::Verifying;
use leases::Leases;
use packages::Package;
use people::People;

/// Everything the service must not forget, and the root that its keys derive from.
pub struct State {
    root: Secret,
    limits: Limits,
    people: People,
    packages: BTreeMap<Digest, Package>,
    /// What a person calls so, in the order of registration.
    names: BTreeMap<(u32, PackageName), BTreeSet<(u64, Digest)>>,
    /// Registrations of packages so far.
    serial: u64,
    grants: Grants,
    /// Groups, and their members, of everybody.
    groups: usize,
    members: usize,
    /// A member and a group, by [`index::Index`]: which groups somebody belongs to.
    by_member: BTreeSet<(u64, u64)>,
    leases: Leases,
    holds: Holds,
    administration: Administration,
    place: Option<Place>,
    verifying: Verifying,
}

/// Where the newest entry stands in the log.
#[derive(Clone, Copy)]
struct Place {
    record: u64,
    position: u32,
}

impl State {
    /// A service that knows nobody yet.
    #[must_use]
    pub fn new(root: Secret, limits: Limits) -> Self {
        let grants = Grants::new(&root);
        Self {
            root,
            limits,
            people: People::default(),
            packages: BTreeMap::new(),
            names: BTreeMap::new(),
            serial: 0,
            grants,
            groups: 0,
            members: 0,
            by_member: BTreeSet::new(),
            leases: Leases::default(),
            holds: Holds::default(),
            administration: Administration::default(),
            place: None,
            verifying: Verifying::default(),
        }
    }

    /// Decides what follows from something that is asked, now. Changes nothing.
    ///
    /// # Errors
    /// Why not, and whose move it is.
    pub fn check(&self, ask: &Ask, now: Time) -> Result<Checked, Refusal> {
        match ask {
            Ask::Order { by, order } => self.check_order(*by, order, now),
            Ask::Lease { appraised, request } => self.check_lease(appraised, request, now),
            Ask::Return {
                appraised,
                returned,
            } => Ok(self.check_return(appraised, returned)),
            Ask::State { appraised, request } => self.check_state(appraised, request, now),
            Ask::Started(started) => Ok(Checked::done(Entry::Started(*started))),
            Ask::Recovered(recovered) => Ok(Checked::done(Entry::Recovered(recovered.clone()))),
        }
    }

    fn check_order(
        &self,
        by: bield_envelope::Principal,
        order: &Order,
        now: Time,
    ) -> Result<Checked, Refusal> {
        match order {
            Order::Register => self.check_register(by),
            Order::PutPackage(put) => self.check_put_package(by, put),
            Order::Grant(grant) => self.check_grant(by, grant, now),
            Order::Revoke(ids) => self.check_revoke(by, ids),
            Order::PutGroup(group) => self.check_put_group(by, group),
            Order::DeleteGroup(name) => self.check_delete_group(by, name),
            Order::DeletePackage(package) => self.check_delete_package(by, *package),
            Order::RotateAudience { package, at_once } => {
                self.check_rotate_audience(by, *package, *at_once, now)
            }
            Order::Succeed(succession) => self.check_succeed(by, succession, now),
            Order::Unregister => self.check_unregister(by, now),
            Order::RotateIdentity => self.check_rotate_identity(by, now),
            Order::AdmitCode(code) => self.check_admit_code(by, code),
            Order::WithdrawCode(code) => self.check_withdraw_code(by, code),
            Order::MakeShares {
                holders,
                threshold,
                shares,
            } => self.check_make_shares(by, holders, *threshold, shares),
        }
    }

    /// Applies an entry of record `record` (its leaf in the log's tree), made at `at`: the record's own clock,
    /// the same for all its entries. Entries arrive in the order of the log.
    ///
    /// # Errors
    /// [`Inconsistent`]: the log does not fit, and the state is not to be used any more.
    pub fn apply(&mut self, entry: &Entry, record: u64, at: Time) -> Result<(), Inconsistent> {
        self.go_to(entry, record)?;
        self.change(entry, at)?;
        if let Some(concerned) = self.concerned(entry)
            && let Some(audited) = entry.audited(record, at)
        {
            let place = self.reference();
            self.people
                .person_mut(&concerned)?
                .audit
                .note(&audited, place);
        }
        self.clear_grants(at);
        self.leases.clear(at);
        Ok(())
    }

    fn change(&mut self, entry: &Entry, at: Time) -> Result<(), Inconsistent> {
        match entry {
            Entry::Registered(by) => self.apply_registered(*by),
            Entry::PackagePut {
                header,
                inputs,
                outputs,
                key,
            } => self.apply_package_put(header, (inputs, outputs), key, at),
            Entry::Granted(grant) => self.apply_granted(grant),
            Entry::Revoked { by, ids } => self.apply_revoked(by, ids),
            Entry::GroupPut(group) => self.apply_group_put(group),
            Entry::GroupDeleted { by, name } => self.apply_group_deleted(by, name),
            Entry::PackageDeleted { by, package, .. } => self.apply_package_deleted(by, package),
            Entry::AudienceRotated {
                package,
                generation,
                before_until,
                ..
            } => self.apply_audience_rotated(package, *generation, *before_until, at),
            Entry::Succeeded(succeeded) => self.apply_succeeded(succeeded),
            Entry::Unregistered(by) => self.apply_unregistered(*by),
            Entry::Leased {
                package,
                code,
                until,
                lease,
                allotments,
                ..
            } => self.apply_leased(package, code, *until, *lease, allotments),
            Entry::Returned { lease, unused, .. } => self.apply_returned(*lease, unused),
            Entry::StateTaken {
                package,
                capsule,
                writer,
                token,
                until,
                ..
            } => self.apply_state_taken(package, *capsule, *writer, *token, *until),
            Entry::StateAnchored {
                package,
                capsule,
                token,
                until,
                heads,
                covered,
                ..
            } => self.apply_state_anchored(package, *capsule, (*token, *until), heads, covered),
            Entry::IdentityRotated { succeeded, .. } => self.apply_identity_rotated(succeeded),
            Entry::CodeAdmitted { code, .. } => {
                self.administration.withdrawn.remove(code);
                self.administration.admitted.insert(code.clone());
                Ok(())
            }
            Entry::CodeWithdrawn { code, .. } => {
                self.administration.admitted.remove(code);
                self.administration.withdrawn.insert(code.clone());
                Ok(())
            }
            Entry::SharesMade {
                holders,
                threshold,
                shares,
                ..
            } => self.apply_shares_made(holders, *threshold, shares),
            Entry::Started(started) => {
                self.administration.started = Some(*started);
                Ok(())
            }
            Entry::Recovered(recovered) => self.apply_recovered(recovered),
            Entry::Closed => {
                self.administration.closed = true;
                Ok(())
            }
        }
    }

    /// Counts the entry's place: records never go back, except into the log that a recovery begins.
    fn go_to(&mut self, entry: &Entry, record: u64) -> Result<(), Inconsistent> {
        let begins = matches!(entry, Entry::Recovered(_));
        self.place = Some(match self.place {
            Some(place) if place.record == record && !begins => Place {
                record,
                position: place
                    .position
                    .checked_add(1)
                    .ok_or(Inconsistent("a record too long"))?,
            },
            Some(place) if place.record > record && !begins => {
                return Err(Inconsistent("a record that is older"));
            }
            _ => Place {
                record,
                position: 0,
            },
        });
        Ok(())
    }

    fn reference(&self) -> Reference {
        let place = self.place.unwrap_or(Place {
            record: 0,
            position: 0,
        });
        Reference {
            epoch: self.administration.epoch,
            record: place.record,
            position: place.position,
        }
    }
}

#[cfg(test)]
mod tests;
