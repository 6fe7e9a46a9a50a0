//! Orders about grants: register, revoke, and forgetting what ended.

use bield_envelope::Principal;
use bield_envelope::{Signed, Time, Verified};
use bield_grant::{Grant, PackageSelector, UserSelector};
use bield_protocol::refusal::{Refusal, Retry};
use bield_protocol::service::{GRANTS_PER_LEASE_MAX, GROUPS_PER_LEASE_MAX, GrantId};

use super::ask::{Checked, Inconsistent};
use super::entry::Entry;
use super::grants::{Cover, Handle, Kept, Stage};
use super::index::{Class, Target};
use super::limits::{
    CLEARED_AT_ONCE, GRANTS_EACH_MAX, GRANTS_MAX, KINDS_MAX, RANGES_MAX, RENEWALS_MAX,
};
use super::people::Person;
use super::refuse::{self, Whose};
use super::{State, kept};

impl State {
    pub(super) fn check_grant(
        &self,
        by: Principal,
        grant: &Verified<Grant>,
        now: Time,
    ) -> Result<Checked, Refusal> {
        let person = self.ordering(by)?;
        if grant.signer() != by {
            return Err(refuse::not_owner(by, "the grant"));
        }
        if let PackageSelector::Digest(digest) = &grant.package {
            let package = self.package(digest)?;
            if self.people.current(package.owner) != by {
                return Err(refuse::not_owner(by, &format!("package {digest}")));
            }
        }
        if grant.not_after <= now || grant.not_after <= grant.not_before {
            return Err(refuse::ended(grant.not_after, now));
        }
        let mut renewed = 0;
        for handle in person.named(GrantId(grant.id)) {
            let Some(known) = self.grants.get(handle) else {
                continue;
            };
            if known.stage == Stage::Revoked {
                return Err(revoked(grant));
            }
            if *known.signed == *grant.as_bytes() {
                return Ok(Checked::already());
            }
            let says = known.says();
            if says.package != grant.package || says.user != grant.user {
                let message = "a grant of other packages or another user has this id; a renewal keeps both, \
                    any other grant takes a new id";
                return Err(Refusal::new("grant-id-taken", message, Retry::Never));
            }
            renewed += 1;
        }
        refuse::room(
            renewed,
            RENEWALS_MAX,
            "statements under one id",
            Whose::Signer,
        )?;
        let what = "grants of a principal, counting those remembered until they would have ended,";
        refuse::room(person.grants.len(), GRANTS_EACH_MAX, what, Whose::Signer)?;
        refuse::room(self.grants.len(), GRANTS_MAX, "grants", Whose::Operator)?;
        self.fits_leases(person, grant)?;
        self.verifying.remember(grant);
        Ok(Checked::done(Entry::Granted(grant.as_signed().clone())))
    }

    /// Refuses a grant with which the grants for some package and code would fit no lease any more.
    fn fits_leases(&self, person: &Person, grant: &Grant) -> Result<(), Refusal> {
        let index = &self.grants.index;
        let class = index.class(&grant.code);
        let target = index.target(person.number, &grant.package);
        let kinds = self
            .grants
            .classes(target)
            .filter(|kind| *kind != class)
            .count();
        let what = "measurements in grants for one package or name";
        refuse::room(kinds, KINDS_MAX, what, Whose::Signer)?;
        let others = self.grants.total(target).map_or(0, |total| {
            let known = total.ranges.contains_key(&grant.package);
            total.ranges.len() - usize::from(known)
        });
        let what = "ranges of versions in grants for one name";
        refuse::room(others, RANGES_MAX, what, Whose::Signer)?;
        let group = match &grant.user {
            UserSelector::Group(group) => Some(index.group(person.number, group)),
            UserSelector::Principal(_) => None,
        };
        let fits = |targets: &[Target; 2], class: Class| {
            let Cover { grants, mut groups } = self.grants.cover(targets, class);
            groups.extend(group);
            let what = "grants that cover one package and one code";
            refuse::room(grants, GRANTS_PER_LEASE_MAX, what, Whose::Signer)?;
            let what = "groups in grants that cover one package and one code";
            refuse::room(
                groups.len().saturating_sub(1),
                GROUPS_PER_LEASE_MAX,
                what,
                Whose::Signer,
            )
        };
        let packages: Vec<[Target; 2]> = match &grant.package {
            PackageSelector::Digest(digest) => vec![self.targets(digest)?],
            PackageSelector::Named(name, _) => {
                let named = index.named(person.number, name);
                // Those without grants of their own are as the one that may yet be registered.
                let has = |digest: &bield_envelope::Digest| {
                    self.grants.total(index.package(digest)).is_some()
                };
                let packages = self.named(person.number, name).filter(has);
                let targets = packages.map(|digest| [index.package(&digest), named]);
                // Also the package that may yet be registered under this name.
                targets.chain([[named, index.package(&NOBODYS)]]).collect()
            }
        };
        for targets in &packages {
            if class == Class::SIGNERS {
                for target in targets {
                    for class in self.grants.classes(*target) {
                        fits(targets, class)?;
                    }
                }
            }
            fits(targets, class)?;
        }
        Ok(())
    }

    pub(super) fn check_revoke(&self, by: Principal, ids: &[GrantId]) -> Result<Checked, Refusal> {
        let person = self.ordering(by)?;
        let mut ending = Vec::new();
        for id in ids {
            let mut known = false;
            let mut alive = false;
            for handle in person.named(*id) {
                known = true;
                let stage = self.grants.get(handle).map(|kept| kept.stage);
                alive |= stage != Some(Stage::Revoked);
            }
            if !known {
                let message = format!(
                    "{by} has no grant {} here; none of the grants named was revoked",
                    hex(id)
                );
                return Err(Refusal::new("unknown-grant", message, Retry::AfterChange));
            }
            if alive {
                ending.push(*id);
            }
        }
        if ending.is_empty() {
            return Ok(Checked::already());
        }
        ending.sort_unstable();
        ending.dedup();
        Ok(Checked::done(Entry::Revoked { by, ids: ending }))
    }

    pub(super) fn apply_granted(&mut self, signed: &Signed<Grant>) -> Result<(), Inconsistent> {
        let by = kept::signer(signed.as_bytes()).ok_or(Inconsistent("a grant of nobody"))?;
        let says: Grant = kept::says(signed.as_bytes()).ok_or(Inconsistent("no grant"))?;
        let person = self.people.person_mut(&by)?;
        let kept = Kept {
            signed: signed.as_bytes().into(),
            owner: person.number,
            stage: Stage::Live,
            metered: says.requests.is_some(),
        };
        let handle = self.grants.insert(kept, &says, says.requests);
        person.grants.insert((GrantId(says.id), handle));
        Ok(())
    }

    pub(super) fn apply_revoked(
        &mut self,
        by: &Principal,
        ids: &[GrantId],
    ) -> Result<(), Inconsistent> {
        let person = self.people.person(by)?;
        for handle in ids.iter().flat_map(|id| person.named(*id)) {
            self.grants.advance(handle, Stage::Revoked);
        }
        Ok(())
    }

    /// Moves on what ended by `now`, a bounded number at a time: the same in every replay.
    pub(super) fn clear_grants(&mut self, now: Time) {
        for _ in 0..CLEARED_AT_ONCE {
            let Some(handle) = self.grants.due(now) else {
                return;
            };
            match self.grants.get(handle).map(|kept| kept.stage) {
                Some(Stage::Live) => self.grants.advance(handle, Stage::Ended),
                _ => self.forget_grant(handle),
            }
        }
    }

    /// Removes a grant from its owner and from the indexes.
    pub(super) fn forget_grant(&mut self, handle: Handle) {
        if let Some(kept) = self.grants.remove(handle)
            && let Some(key) = self.people.by_number.get(&kept.owner)
            && let Some(person) = self.people.by_key.get_mut(key)
        {
            person.grants.remove(&(kept.id(), handle));
        }
    }
}

impl Person {
    /// Handles of this person's statements under one id.
    pub(super) fn named(&self, id: GrantId) -> impl Iterator<Item = Handle> {
        self.grants
            .range((id, 0)..=(id, Handle::MAX))
            .map(|(_, handle)| *handle)
    }
}

fn revoked(grant: &Grant) -> Refusal {
    let message = format!(
        "grant {} was revoked; granting again takes a new id",
        hex(&GrantId(grant.id))
    );
    Refusal::new("grant-revoked", message, Retry::Never)
}

pub(super) fn hex(id: &GrantId) -> String {
    use core::fmt::Write as _;
    id.0.iter()
        .fold(String::with_capacity(32), |mut text, byte| {
            write!(text, "{byte:02x}").expect("writing to memory cannot fail");
            text
        })
}

/// Stands for a package that nobody registered.
const NOBODYS: bield_envelope::Digest = bield_envelope::Digest::from_bytes([0; 32]);
