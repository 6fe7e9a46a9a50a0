//! What concerns the service as a whole: its identity, code that may join, recovery shares.
//!
//! Always true: only administrators of the measured configuration, or who succeeded them, order any of this.
//! Recovery shares go to holders whom that configuration names, or to who succeeded them, and no fewer than it
//! says are enough. Each identity key signed the one after it.
//!
//! Not true of everything here: whoever lets code join lets it have the root. Where the configuration lets
//! administrators do that (`admits_code`), one of them together with a host can run code that gives them all keys
//! of all owners; the log says that it was admitted, and owners see it in nobody's audit but the administrator's.

use std::collections::BTreeSet;

use bield_envelope::{Principal, Signed, SigningKey, Time};
use bield_evidence::Measurement;
use bield_grant::{Succeeded, Succession, VerifiedSuccession};
use bield_protocol::refusal::Refusal;
use bield_protocol::service::{HOLDERS_MAX, Recovered, Share};

use super::State;
use super::ask::{Checked, Inconsistent};
use super::entry::{Entry, Started};
use super::limits::{ADMITTED_MAX, IDENTITIES_MAX, KNOWN_CODES_MAX};
use super::people::Person;
use super::refuse::{self, Whose};

/// What administrators and the program have said.
#[derive(Default)]
pub(super) struct Administration {
    /// Generation of the identity key.
    pub(super) identity: u32,
    /// How each identity key handed over to the next, the newest last; the oldest are dropped.
    pub(super) identities: Vec<Succeeded>,
    pub(super) admitted: BTreeSet<Measurement>,
    /// Withdrawn and not admitted since, whoever had named it.
    pub(super) withdrawn: BTreeSet<Measurement>,
    pub(super) shares: Option<Shares>,
    /// Recoveries, oldest first.
    pub(super) recovered: Vec<Recovered>,
    /// How often it was recovered: the log epoch.
    pub(super) epoch: u32,
    /// The newest start.
    pub(super) started: Option<Started>,
    /// The log of this epoch was ended, and the next one has not begun.
    pub(super) closed: bool,
}

/// The newest recovery shares.
pub(super) struct Shares {
    pub(super) generation: u32,
    pub(super) threshold: u8,
    pub(super) holders: Vec<Principal>,
    /// One for each holder, in order.
    pub(super) shares: Vec<Share>,
}

impl State {
    /// Who signs workers' certificates.
    #[must_use]
    pub fn service(&self) -> Principal {
        self.identity().principal()
    }

    /// Who signed them first: the service's unchanging name.
    #[must_use]
    pub fn first_service(&self) -> Principal {
        self.identity_key(0).principal()
    }

    /// The key that signs workers' certificates.
    #[must_use]
    pub fn identity(&self) -> SigningKey {
        self.identity_key(self.administration.identity)
    }

    /// How the identity keys handed over to each other, the newest last.
    #[must_use]
    pub fn identity_successions(&self) -> &[Succeeded] {
        &self.administration.identities
    }

    /// Whether key-service code of this measurement may join, beside the program's own.
    #[must_use]
    pub fn is_admitted(&self, code: &Measurement) -> bool {
        self.administration.admitted.contains(code)
    }

    /// Whether an administrator withdrew this code and none has admitted it since: it may not join, even where a
    /// member's own configuration names it.
    #[must_use]
    pub fn is_withdrawn(&self, code: &Measurement) -> bool {
        self.administration.withdrawn.contains(code)
    }

    /// The other code that may join.
    pub fn admitted(&self) -> impl Iterator<Item = &Measurement> {
        self.administration.admitted.iter()
    }

    /// The generation that the next recovery shares must have: they count from 1.
    #[must_use]
    pub fn next_shares(&self) -> u32 {
        let newest = self.administration.shares.as_ref();
        newest
            .map_or(0, |shares| shares.generation)
            .saturating_add(1)
    }

    /// Generation, threshold and holders of the newest recovery shares.
    #[must_use]
    pub fn shares(&self) -> Option<(u32, u8, &[Principal])> {
        let newest = self.administration.shares.as_ref()?;
        Some((newest.generation, newest.threshold, &newest.holders))
    }

    /// All of the newest recovery shares, for a rehearsal to compare with.
    #[must_use]
    pub fn all_shares(&self) -> &[Share] {
        let newest = self.administration.shares.as_ref();
        newest.map_or(&[], |shares| shares.shares.as_slice())
    }

    /// Recoveries so far, oldest first.
    #[must_use]
    pub fn recoveries(&self) -> &[Recovered] {
        &self.administration.recovered
    }

    /// Which log this is: recoveries begin the next.
    #[must_use]
    pub fn epoch(&self) -> u32 {
        self.administration.epoch
    }

    /// The newest start that was committed.
    #[must_use]
    pub fn started(&self) -> Option<Started> {
        self.administration.started
    }

    /// Whether holders of shares ended this log to go on in the next epoch: nobody serves from it.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.administration.closed
    }

    /// Whether a principal is an administrator, or succeeded one.
    #[must_use]
    pub fn is_administrator(&self, by: Principal) -> bool {
        let administrators = &self.limits.administrators;
        administrators
            .iter()
            .any(|named| self.people.current(*named) == by)
    }

    /// The share of a holder, or of whoever succeeded one; registered or not, so that who unregistered
    /// since can still help to recover.
    ///
    /// # Errors
    /// Not a holder of the newest shares.
    pub fn share(&self, by: Principal) -> Result<Share, Refusal> {
        let newest = self.administration.shares.as_ref();
        let found = newest.and_then(|newest| {
            let is = |holder: &Principal| self.people.current(*holder) == by;
            let at = newest.holders.iter().position(is)?;
            newest.shares.get(at).cloned()
        });
        found.ok_or_else(|| refuse::not_holder(by))
    }

    /// Whether a principal holds one of the newest shares, or may by the configuration.
    pub(super) fn holds(&self, by: Principal) -> bool {
        let may = self.limits.recovery.iter();
        let may = may.flat_map(|recovery| &recovery.holders);
        let does = self.administration.shares.iter();
        let does = does.flat_map(|shares| &shares.holders);
        may.chain(does)
            .any(|holder| self.people.current(*holder) == by)
    }

    /// The share of a holder who orders it.
    ///
    /// # Errors
    /// Not registered, replaced by another key, or not a holder of the newest shares.
    pub fn take_share(&self, by: Principal) -> Result<Share, Refusal> {
        self.ordering(by)?;
        self.share(by)
    }

    fn administering(&self, by: Principal) -> Result<&Person, Refusal> {
        let person = self.ordering(by)?;
        match self.is_administrator(by) {
            true => Ok(person),
            false => Err(refuse::not_administrator(by)),
        }
    }

    fn identity_key(&self, generation: u32) -> SigningKey {
        let generation = generation.to_be_bytes();
        SigningKey::from_seed(self.root.derive(IDENTITY_KEY, &[&generation]))
    }

    pub(super) fn check_rotate_identity(
        &self,
        by: Principal,
        now: Time,
    ) -> Result<Checked, Refusal> {
        self.administering(by)?;
        let succeeded = self.handed_over(now);
        let succeeded = succeeded.ok_or_else(|| refuse::malformed("no further identity key"))?;
        Ok(Checked::done(Entry::IdentityRotated {
            by,
            succeeded: succeeded.to_succeeded(),
        }))
    }

    /// The old key's word for the new one, and the new one's for the old.
    fn handed_over(&self, at: Time) -> Option<VerifiedSuccession> {
        let old = self.identity();
        let new = self.identity_key(self.administration.identity.checked_add(1)?);
        let says = Succession {
            from: old.principal(),
            to: new.principal(),
            at,
        };
        let by_old = Signed::sign(&old, says.clone());
        VerifiedSuccession::new(by_old, Signed::sign(&new, says)).ok()
    }

    pub(super) fn apply_identity_rotated(
        &mut self,
        succeeded: &Succeeded,
    ) -> Result<(), Inconsistent> {
        let verified = succeeded.clone().verify();
        let verified = verified.map_err(|_| Inconsistent("an identity that nobody signed"))?;
        let ours = self.handed_over(verified.at());
        if ours.is_none_or(|ours| (ours.from(), ours.to()) != (verified.from(), verified.to())) {
            return Err(Inconsistent("an identity of another service"));
        }
        let all = &mut self.administration;
        all.identity += 1;
        all.identities.push(succeeded.clone());
        let drop = all.identities.len().saturating_sub(IDENTITIES_MAX);
        all.identities.drain(..drop);
        Ok(())
    }

    pub(super) fn check_admit_code(
        &self,
        by: Principal,
        code: &Measurement,
    ) -> Result<Checked, Refusal> {
        self.administering(by)?;
        if !self.limits.admits_code {
            return Err(refuse::not_configured("no other code may join"));
        }
        let admitted = &self.administration.admitted;
        if admitted.contains(code) {
            return Ok(Checked::already());
        }
        refuse::room(
            admitted.len(),
            ADMITTED_MAX,
            "admitted codes",
            Whose::Signer,
        )?;
        self.room_for_code(code)?;
        let code = code.clone();
        Ok(Checked::done(Entry::CodeAdmitted { by, code }))
    }

    pub(super) fn check_withdraw_code(
        &self,
        by: Principal,
        code: &Measurement,
    ) -> Result<Checked, Refusal> {
        self.administering(by)?;
        if self.is_withdrawn(code) {
            return Ok(Checked::already());
        }
        // One that nobody admitted may be named by the configuration of members.
        self.room_for_code(code)?;
        let code = code.clone();
        Ok(Checked::done(Entry::CodeWithdrawn { by, code }))
    }

    /// What was admitted or withdrawn once keeps its place, so that taking it back never lacks one.
    fn room_for_code(&self, code: &Measurement) -> Result<(), Refusal> {
        let all = &self.administration;
        if all.admitted.contains(code) || all.withdrawn.contains(code) {
            return Ok(());
        }
        let known = all.admitted.len() + all.withdrawn.len();
        refuse::room(known, KNOWN_CODES_MAX, "known codes", Whose::Operator)
    }

    pub(super) fn check_make_shares(
        &self,
        by: Principal,
        holders: &[Principal],
        threshold: u8,
        shares: &[Share],
    ) -> Result<Checked, Refusal> {
        self.administering(by)?;
        let each: BTreeSet<_> = holders.iter().collect();
        let count = holders.len();
        let enough = threshold >= 2 || (threshold == 1 && count == 1);
        if !(1..=HOLDERS_MAX).contains(&count)
            || each.len() != count
            || usize::from(threshold) > count
            || !enough
        {
            let what = format!(
                "recovery shares have 1 to {HOLDERS_MAX} holders, each once, and a threshold of 2 to their \
                 number (1 for a single one)"
            );
            return Err(refuse::malformed(&what));
        }
        self.allows_shares(holders, threshold)?;
        if let Some(gone) = holders
            .iter()
            .find(|holder| self.not_succeeded(**holder).is_err())
        {
            return Err(refuse::succeeded(*gone, self.people.current(*gone)));
        }
        let generation = self.next_shares();
        let right = |(at, share): (usize, &Share)| {
            usize::from(share.number) == at + 1
                && share.generation == generation
                && share.threshold == threshold
        };
        if shares.len() != count || !shares.iter().enumerate().all(right) {
            return Err(refuse::malformed(
                "the shares are not those that were ordered; order again",
            ));
        }
        Ok(Checked::done(Entry::SharesMade {
            by,
            holders: holders.to_vec(),
            threshold,
            shares: shares.to_vec(),
        }))
    }

    /// Refuses holders and thresholds that the measured configuration does not allow.
    fn allows_shares(&self, holders: &[Principal], threshold: u8) -> Result<(), Refusal> {
        let Some(recovery) = &self.limits.recovery else {
            return Err(refuse::not_configured("no recovery shares are made"));
        };
        let named = |holder: &Principal| {
            let of =
                |named: &Principal| self.people.current(*named) == self.people.current(*holder);
            recovery.holders.iter().any(of)
        };
        if let Some(other) = holders.iter().find(|holder| !named(holder)) {
            let what = format!("{other} is not among the holders of recovery shares");
            return Err(refuse::not_configured(&what));
        }
        // Whatever was written there: one of several holders never recovers alone.
        let least = match recovery.holders.len() {
            1 => recovery.threshold_min.max(1),
            _ => recovery.threshold_min.max(2),
        };
        match threshold >= least {
            true => Ok(()),
            false => Err(refuse::not_configured(&format!(
                "fewer than {least} recovery shares are never enough"
            ))),
        }
    }

    pub(super) fn apply_shares_made(
        &mut self,
        holders: &[Principal],
        threshold: u8,
        shares: &[Share],
    ) -> Result<(), Inconsistent> {
        let generation = self.next_shares();
        let right = shares.iter().all(|share| share.generation == generation);
        if !right || shares.len() != holders.len() {
            return Err(Inconsistent("shares of another generation"));
        }
        self.administration.shares = Some(Shares {
            generation,
            threshold,
            holders: holders.to_vec(),
            shares: shares.to_vec(),
        });
        Ok(())
    }

    pub(super) fn apply_recovered(&mut self, recovered: &Recovered) -> Result<(), Inconsistent> {
        let all = &mut self.administration;
        all.epoch = all
            .epoch
            .checked_add(1)
            .ok_or(Inconsistent("no further epoch"))?;
        all.recovered.push(recovered.clone());
        all.closed = false;
        // The records that are gone may have given leases: their numbers are not given again.
        let first = u64::from(all.epoch) << LEASES_SHIFT;
        self.leases.next = self.leases.next.max(first);
        Ok(())
    }
}

const IDENTITY_KEY: &str = "bield key service identity v2";
/// A million million leases an epoch.
const LEASES_SHIFT: u32 = 40;
