//! Leases: who may hold keys now, and what of metered grants they hold.
//!
//! ```text
//! evidence, package ──candidates (indexes)──▶ grants, verified ──admit_lease──▶ Admitted<Lease> ──▶ keys
//!                                                                     └──▶ entry: number, end, allotments
//! ```
//!
//! Always true: no key is handed out without an `Admitted<Lease>`; what is left of a quota and what running
//! leases hold of it never exceed the quota; a lease returns at most what it was allotted, once, and only
//! from the code it was given to.
//!
//! On paper: a lease under 8000 grants reads and compares each once, 5 ms; 250 bytes while it runs.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use bield_envelope::{Digest, Principal, Secret, Signed, Time, Verified};
use bield_evidence::{Appraised, Measurement};
use bield_grant::{
    Admitted, Allotment, CodeIdentity, Grant, Group, GroupName, Lease, LeaseTerms, Succeeded,
    UserSelector, admit_lease,
};
use bield_protocol::refusal::Refusal;
use bield_protocol::service::{
    GRANTS_PER_LEASE_MAX, GROUPS_PER_LEASE_MAX, LeaseRequest, LeasedKeys, Reply, Returned,
};

use super::State;
use super::ask::{Answer, Checked, Inconsistent};
use super::entry::Entry;
use super::limits::{
    ALLOTMENTS_EACH_MAX, CLEARED_AT_ONCE, LEASES_EACH_MAX, LEASES_MAX, RETURN_SECS,
};
use super::packages::Package;
use super::refuse;

/// A lease that runs, or that may still return something.
pub(super) struct KeptLease {
    /// The person whose package it is.
    pub(super) owner: u32,
    pub(super) package: Digest,
    /// The registration of the package that it is of.
    pub(super) serial: u64,
    pub(super) code: Measurement,
    pub(super) until: Time,
    /// Sorted by grant.
    pub(super) allotments: Vec<Allotment>,
}

/// All of them.
#[derive(Default)]
pub(super) struct Leases {
    pub(super) by_id: BTreeMap<u64, KeptLease>,
    ends: BTreeSet<(Time, u64)>,
    by_package: BTreeSet<(u64, Time, u64)>,
    by_owner: BTreeMap<u32, Held>,
    pub(super) next: u64,
}

/// What is kept of leases.
#[derive(Default, Clone, Copy)]
struct Held {
    leases: usize,
    allotments: usize,
}

impl Leases {
    pub(super) fn insert(&mut self, id: u64, lease: KeptLease) {
        self.ends.insert((lease.forgotten(), id));
        self.by_package.insert((lease.serial, lease.until, id));
        let held = self.by_owner.entry(lease.owner).or_default();
        held.leases += 1;
        held.allotments += lease.allotments.len();
        self.by_id.insert(id, lease);
    }

    fn remove(&mut self, id: u64) -> Option<KeptLease> {
        let lease = self.by_id.remove(&id)?;
        self.ends.remove(&(lease.forgotten(), id));
        self.by_package.remove(&(lease.serial, lease.until, id));
        if let Some(held) = self.by_owner.get_mut(&lease.owner) {
            held.leases -= 1;
            held.allotments -= lease.allotments.len();
            if held.leases == 0 {
                self.by_owner.remove(&lease.owner);
            }
        }
        Some(lease)
    }

    /// Refuses one more lease of this owner's packages beside those that are kept; one that is given back with
    /// it, with `credit` allotments, makes room first.
    fn room(&self, owner: u32, gives_back: bool, credit: usize) -> Result<(), Refusal> {
        let back = usize::from(gives_back);
        if self.by_id.len() - back >= LEASES_MAX {
            return Err(refuse::busy(LEASES_MAX, "leases run in all"));
        }
        let held = self.by_owner.get(&owner).copied().unwrap_or_default();
        if held.leases - back >= LEASES_EACH_MAX {
            let what = "leases of this owner's packages run";
            return Err(refuse::busy(LEASES_EACH_MAX, what));
        }
        if held.allotments.saturating_sub(credit) >= ALLOTMENTS_EACH_MAX {
            let what = "parts of quotas of this owner's grants are with runtimes; they must return some, or \
                the owner must grant with fewer quotas: at most";
            return Err(refuse::full(what, ALLOTMENTS_EACH_MAX));
        }
        Ok(())
    }

    /// How many run of one registration of a package.
    pub(super) fn running(&self, serial: u64, now: Time) -> usize {
        let after = (serial, now.plus(Duration::from_millis(1)), 0);
        self.by_package
            .range(after..(serial + 1, Time::from_secs(0), 0))
            .count()
    }

    /// Forgets what ended by `now`, a bounded number at a time: the same in every replay.
    pub(super) fn clear(&mut self, now: Time) {
        for _ in 0..CLEARED_AT_ONCE {
            match self.ends.first() {
                Some((at, id)) if *at <= now => {
                    let id = *id;
                    self.remove(id);
                }
                _ => return,
            }
        }
    }
}

impl KeptLease {
    fn forgotten(&self) -> Time {
        match self.allotments.is_empty() {
            true => self.until,
            false => self.until.plus(Duration::from_secs(RETURN_SECS)),
        }
    }
}

impl State {
    pub(super) fn check_lease(
        &self,
        appraised: &Appraised,
        request: &LeaseRequest,
        now: Time,
    ) -> Result<Checked, Refusal> {
        let code = CodeIdentity::of(appraised.claims());
        let returned = request.returned.as_ref();
        let returned = returned.and_then(|returned| self.returning(&code, returned));
        let (given, credit) = match &returned {
            Some(Entry::Returned { lease, unused, .. }) => (Some(*lease), unused.as_slice()),
            _ => (None, &[][..]),
        };
        match self.leased(appraised, request.package, given, credit, now) {
            Ok((leased, entry)) => Ok(Checked {
                entries: returned.into_iter().chain([entry]).collect(),
                answer: Answer::Reply(Box::new(Reply::Lease(leased))),
            }),
            Err(refusal) => match returned {
                None => Err(refusal),
                Some(returned) => Ok(Checked {
                    entries: vec![returned],
                    answer: Answer::Reply(Box::new(Reply::Refused(refusal))),
                }),
            },
        }
    }

    /// Takes back what a lease did not use. What does not fit a lease of this code is ignored: it was returned
    /// before, or ended long ago, and counts as used.
    pub(super) fn check_return(&self, appraised: &Appraised, returned: &Returned) -> Checked {
        let code = CodeIdentity::of(appraised.claims());
        match self.returning(&code, returned) {
            Some(entry) => Checked::done(entry),
            None => Checked::already(),
        }
    }

    fn returning(&self, code: &CodeIdentity, returned: &Returned) -> Option<Entry> {
        let lease = self.leases.by_id.get(&returned.lease)?;
        let serial = self.packages.get(&lease.package)?.serial;
        if lease.code != code.measurement || lease.serial != serial {
            return None;
        }
        let mut unused: Vec<Allotment> = returned.unused.clone();
        unused.sort_unstable_by_key(|unused| unused.grant);
        let fits = unused
            .iter()
            .all(|unused| unused.requests <= allotted(&lease.allotments, &unused.grant));
        let each_once = unused.windows(2).all(|pair| pair[0].grant != pair[1].grant);
        (fits && each_once).then_some(Entry::Returned {
            package: lease.package,
            lease: returned.lease,
            unused,
        })
    }

    fn leased(
        &self,
        appraised: &Appraised,
        digest: Digest,
        returned: Option<u64>,
        credit: &[Allotment],
        now: Time,
    ) -> Result<(LeasedKeys, Entry), Refusal> {
        let package = self.package(&digest)?;
        let owner = self.ordering(self.people.current(package.owner))?.number;
        let back = returned.and_then(|lease| self.leases.by_id.get(&lease));
        let back = back.filter(|lease| lease.owner == owner);
        let kept = back.map_or(0, |lease| lease.allotments.len());
        self.leases.room(owner, back.is_some(), kept)?;
        let targets = self.targets(&digest)?;
        let class = self.grants.index.measured(appraised.measurement());
        let candidates = self.candidates(&targets, class);
        let terms = LeaseTerms {
            id: self.leases.next,
            now,
            time: Duration::from_secs(u64::from(self.limits.lease_secs)),
        };
        let facts = package.facts(digest);
        let (successions, revoked) = (&self.people.successions, candidates.revoked());
        let admitted = admit_lease(
            appraised,
            facts,
            candidates.iter(),
            successions,
            revoked,
            terms,
        )
        .map_err(|refused| Refusal::from(&refused))?;
        let grants: Vec<&Verified<Grant>> = admitted
            .relevant(candidates.iter(), successions, revoked, now)
            .take(GRANTS_PER_LEASE_MAX)
            .collect();
        let (grants, groups, successions) = self.whole(package, grants, now);
        let allotments = self.allot(&grants, &admitted, credit, now);
        let statements = (grants, groups, successions);
        Ok(self.hand_out(admitted, package, statements, allotments, now))
    }

    /// The only way keys leave: it takes the admission as an argument.
    fn hand_out(
        &self,
        admitted: Admitted<Lease>,
        package: &Package,
        (grants, groups, successions): Statements<'_>,
        allotments: Vec<Allotment>,
        now: Time,
    ) -> (LeasedKeys, Entry) {
        let lease = admitted.into_inner();
        let entry = Entry::Leased {
            package: lease.package,
            code: lease.code.clone(),
            simulated: lease.simulated,
            until: lease.not_after,
            lease: lease.id,
            allotments: allotments.clone(),
        };
        let code = &lease.code.measurement;
        let leased = LeasedKeys {
            package_key: Secret::from_bytes(*package.key.expose()),
            audience_keys: self.audience_keys(lease.package, package, code, now),
            grants: grants
                .iter()
                .map(|grant| grant.as_signed().clone())
                .collect(),
            issued: now,
            successions,
            groups,
            allotments,
            lease,
        };
        (leased, entry)
    }

    /// What a lease may hold of the metered grants that can matter while it runs.
    fn allot(
        &self,
        grants: &[&Verified<Grant>],
        lease: &Lease,
        credit: &[Allotment],
        now: Time,
    ) -> Vec<Allotment> {
        let mut allotments: Vec<Allotment> = grants
            .iter()
            .filter(|grant| grant.requests.is_some())
            .filter(|grant| now < grant.not_after && grant.not_before < lease.not_after)
            .filter_map(|grant| {
                let digest = grant.digest();
                let returned = allotted(credit, &digest);
                let left = self.grants.left(&digest)?.saturating_add(returned);
                let requests = Allotment::share(left);
                (requests > 0).then_some(Allotment {
                    grant: digest,
                    requests,
                })
            })
            .collect();
        allotments.sort_unstable_by_key(|allotment| allotment.grant);
        allotments.dedup_by_key(|allotment| allotment.grant);
        allotments
    }

    /// Of these grants and the groups they name, those that fit a lease together with every succession that they
    /// need: what does not fit is left out, never a succession of something that is there. Those that have
    /// not ended come first.
    fn whole<'g>(
        &self,
        package: &Package,
        grants: Vec<&'g Verified<Grant>>,
        now: Time,
    ) -> Statements<'g> {
        let mut from = self.people.needed([package.owner]);
        let mut fits = |needed: BTreeSet<Principal>| {
            let more = needed.difference(&from).count();
            let fits = from.len() + more <= SUCCESSIONS_PER_LEASE_MAX;
            if fits {
                from.extend(needed);
            }
            fits
        };
        let (live, ended): (Vec<_>, Vec<_>) =
            grants.into_iter().partition(|grant| now < grant.not_after);
        let (mut kept, mut groups, mut seen) = (Vec::new(), Vec::new(), BTreeSet::new());
        for grants in [live, ended] {
            let named = grants.iter().filter_map(|grant| match &grant.user {
                UserSelector::Group(name) => Some(name),
                UserSelector::Principal(_) => None,
            });
            let named: BTreeSet<_> = named.collect();
            kept.extend(grants.iter().filter(|grant| match &grant.user {
                UserSelector::Principal(user) => fits(self.people.needed([*user])),
                UserSelector::Group(_) => true,
            }));
            for name in named {
                let group = self.group_of(package, name);
                if let Some((signed, members)) = group
                    && groups.len() < GROUPS_PER_LEASE_MAX
                    && seen.insert(name)
                    && fits(self.people.needed(members))
                {
                    groups.push(signed);
                }
            }
        }
        (kept, groups, self.people.told(&from))
    }

    /// A group of the owner of a package, and its members.
    fn group_of(
        &self,
        package: &Package,
        name: &GroupName,
    ) -> Option<(Signed<Group>, Vec<Principal>)> {
        let owner = self.people.current(package.owner);
        let group = self.people.by_key.get(&owner)?.groups.get(name)?;
        Some((group.signed.clone(), group.says()?.members().to_vec()))
    }

    pub(super) fn apply_leased(
        &mut self,
        digest: &Digest,
        code: &CodeIdentity,
        until: Time,
        lease: u64,
        allotments: &[Allotment],
    ) -> Result<(), Inconsistent> {
        if lease != self.leases.next {
            return Err(Inconsistent("a lease with another number"));
        }
        let package = self
            .packages
            .get_mut(digest)
            .ok_or(Inconsistent("no such package"))?;
        for Allotment { grant, requests } in allotments {
            let left = self
                .grants
                .left(grant)
                .ok_or(Inconsistent("no such quota"))?;
            let left = left
                .checked_sub(*requests)
                .ok_or(Inconsistent("a quota overdrawn"))?;
            self.grants.set_left(grant, left);
        }
        package.leased(code, lease);
        self.leases.next = lease
            .checked_add(1)
            .ok_or(Inconsistent("no further lease"))?;
        let owner = self.people.current(package.owner);
        let owner = self.people.person(&owner)?.number;
        let kept = KeptLease {
            owner,
            package: *digest,
            serial: package.serial,
            code: code.measurement.clone(),
            until,
            allotments: allotments.to_vec(),
        };
        self.leases.insert(lease, kept);
        Ok(())
    }

    pub(super) fn apply_returned(
        &mut self,
        lease: u64,
        unused: &[Allotment],
    ) -> Result<(), Inconsistent> {
        let kept = self
            .leases
            .remove(lease)
            .ok_or(Inconsistent("no such lease"))?;
        for Allotment { grant, requests } in unused {
            if *requests > allotted(&kept.allotments, grant) {
                return Err(Inconsistent("more returned than was allotted"));
            }
            if let Some(left) = self.grants.left(grant) {
                self.grants.set_left(grant, left.saturating_add(*requests));
            }
        }
        Ok(())
    }
}

/// What a lease brings along: grants, the groups they name, and the successions of all whom these name.
type Statements<'g> = (Vec<&'g Verified<Grant>>, Vec<Signed<Group>>, Vec<Succeeded>);

/// How much of a grant there is in a list that is sorted by grant.
fn allotted(allotments: &[Allotment], grant: &Digest) -> u64 {
    let at = allotments.binary_search_by_key(grant, |allotment| allotment.grant);
    at.map_or(0, |at| allotments[at].requests)
}

/// The most successions of a lease; with all else at its limit it still fits a message.
pub(super) const SUCCESSIONS_PER_LEASE_MAX: usize = 2_000;

const _: () = assert!(
    GRANTS_PER_LEASE_MAX * (bield_grant::GRANT_BYTES_MAX + 200)
        + GROUPS_PER_LEASE_MAX * (bield_grant::GROUP_BYTES_MAX + 200)
        + SUCCESSIONS_PER_LEASE_MAX * 500
        < bield_protocol::service::MESSAGE_BYTES_MAX
);
