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

use bield_envelope::{Digest, Secret, Signed, Time, Verified};
use bield_evidence::{Appraised, Measurement};
use bield_grant::{
    Admitted, Allotment, CodeIdentity, Grant, Group, Lease, LeaseTerms, UserSelector, admit_lease,
};
use bield_protocol::refusal::{Refusal, Retry};
use bield_protocol::service::{
    GRANTS_PER_LEASE_MAX, GROUPS_PER_LEASE_MAX, LeaseRequest, LeasedKeys, Reply, Returned,
};

use super::State;
use super::ask::{Answer, Checked, Inconsistent};
use super::entry::Entry;
use super::limits::{CLEARED_AT_ONCE, LEASES_MAX, RETURN_SECS};
use super::packages::Package;

/// A lease that runs, or that may still return something.
pub(super) struct KeptLease {
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
    pub(super) next: u64,
}

impl Leases {
    pub(super) fn insert(&mut self, id: u64, lease: KeptLease) {
        self.ends.insert((lease.forgotten(), id));
        self.by_package.insert((lease.serial, lease.until, id));
        self.by_id.insert(id, lease);
    }

    fn remove(&mut self, id: u64) -> Option<KeptLease> {
        let lease = self.by_id.remove(&id)?;
        self.ends.remove(&(lease.forgotten(), id));
        self.by_package.remove(&(lease.serial, lease.until, id));
        Some(lease)
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
        let credit = match &returned {
            Some(Entry::Returned { unused, .. }) => unused.as_slice(),
            _ => &[],
        };
        match self.leased(appraised, request.package, credit, now) {
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
        credit: &[Allotment],
        now: Time,
    ) -> Result<(LeasedKeys, Entry), Refusal> {
        let package = self.package(&digest)?;
        if self.leases.by_id.len() >= LEASES_MAX {
            let message = format!("{LEASES_MAX} leases run and no more are given; try again");
            return Err(Refusal::new("busy", message, Retry::After(5000)));
        }
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
        let allotments = self.allot(&grants, &admitted, credit, now);
        Ok(self.hand_out(admitted, package, &grants, allotments, now))
    }

    /// The only way keys leave: it takes the admission as an argument.
    fn hand_out(
        &self,
        admitted: Admitted<Lease>,
        package: &Package,
        grants: &[&Verified<Grant>],
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
        let groups = self.groups_of(package, grants);
        let members = groups
            .iter()
            .filter_map(|group| super::kept::says::<Group>(group.as_bytes()));
        let members = members.flat_map(|group| group.members().to_vec());
        let users = grants.iter().filter_map(|grant| match &grant.user {
            UserSelector::Principal(user) => Some(*user),
            UserSelector::Group(_) => None,
        });
        let named = core::iter::once(package.owner).chain(users).chain(members);
        let code = &lease.code.measurement;
        let leased = LeasedKeys {
            package_key: Secret::from_bytes(*package.key.expose()),
            audience_keys: self.audience_keys(lease.package, package, code, now),
            grants: grants
                .iter()
                .map(|grant| grant.as_signed().clone())
                .collect(),
            issued: now,
            successions: self.successions_of(named, SUCCESSIONS_PER_LEASE_MAX),
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

    /// The groups that grants name, as far as they exist.
    fn groups_of(&self, package: &Package, grants: &[&Verified<Grant>]) -> Vec<Signed<Group>> {
        let names: BTreeSet<_> = grants
            .iter()
            .filter_map(|grant| match &grant.user {
                UserSelector::Group(name) => Some(name),
                UserSelector::Principal(_) => None,
            })
            .collect();
        let Some(owner) = self.people.by_key.get(&self.people.current(package.owner)) else {
            return Vec::new();
        };
        let known = names.into_iter().filter_map(|name| owner.groups.get(name));
        known
            .map(|group| group.signed.clone())
            .take(GROUPS_PER_LEASE_MAX)
            .collect()
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
        let kept = KeptLease {
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

/// How much of a grant there is in a list that is sorted by grant.
fn allotted(allotments: &[Allotment], grant: &Digest) -> u64 {
    let at = allotments.binary_search_by_key(grant, |allotment| allotment.grant);
    at.map_or(0, |at| allotments[at].requests)
}

/// The most successions of a lease; with all else at its limit it still fits a message.
const SUCCESSIONS_PER_LEASE_MAX: usize = 2_000;

const _: () = assert!(
    GRANTS_PER_LEASE_MAX * (bield_grant::GRANT_BYTES_MAX + 200)
        + GROUPS_PER_LEASE_MAX * (bield_grant::GROUP_BYTES_MAX + 200)
        + SUCCESSIONS_PER_LEASE_MAX * 500
        < bield_protocol::service::MESSAGE_BYTES_MAX
);
