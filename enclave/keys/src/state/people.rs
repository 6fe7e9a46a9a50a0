//! Principals, and who stands for whom.
//!
//! ```text
//! Register ──▶ Person ──Succeed──▶ the same Person under another key ──▶ …
//!                │ grants, groups, packages, audit: all stay
//! ```
//!
//! Always true: a person is known by one key at a time, the newest; a key that was succeeded never orders
//! anything again and never becomes a person again; the number of a person is never given twice.

use std::collections::{BTreeMap, BTreeSet};

use bield_envelope::{Digest, Principal, Time};
use bield_grant::{GroupName, Succeeded, Successions, VerifiedSuccession};
use bield_protocol::refusal::{Refusal, Retry};
use bield_protocol::service::{GrantId, PrincipalRow};

use super::ask::{Checked, Inconsistent};
use super::audit::Audit;
use super::entry::Entry;
use super::grants::Handle;
use super::groups::KeptGroup;
use super::limits::{PRINCIPALS_MAX, SUCCESSIONS_KEPT_MAX};
use super::refuse::{self, Whose};
use super::{State, kept};

/// A registered principal and what is its own.
#[derive(Default)]
pub(super) struct Person {
    /// Names the person in indexes, whatever its key is.
    pub(super) number: u32,
    /// The keys it had before, oldest first.
    pub(super) before: Vec<Principal>,
    pub(super) packages: BTreeSet<Digest>,
    pub(super) grants: BTreeSet<(GrantId, Handle)>,
    pub(super) groups: BTreeMap<GroupName, KeptGroup>,
    pub(super) audit: Audit,
}

/// All principals.
#[derive(Default)]
pub(super) struct People {
    pub(super) by_key: BTreeMap<Principal, Person>,
    /// From a person's number to its newest key.
    pub(super) by_number: BTreeMap<u32, Principal>,
    pub(super) next_number: u32,
    pub(super) successions: Successions,
    /// By the key that stepped back.
    pub(super) statements: BTreeMap<Principal, Succeeded>,
    /// The direct successor of a key.
    pub(super) after: BTreeMap<Principal, Principal>,
}

impl People {
    /// The key that stands for this one now.
    pub(super) fn current(&self, principal: Principal) -> Principal {
        let mut current = principal;
        // Lines are whole and short: `Successions::check` saw to it.
        while let Some(next) = self.after.get(&current) {
            current = *next;
        }
        current
    }

    pub(super) fn person(&self, by: &Principal) -> Result<&Person, Inconsistent> {
        self.by_key
            .get(by)
            .ok_or(Inconsistent("an order of nobody"))
    }

    pub(super) fn person_mut(&mut self, by: &Principal) -> Result<&mut Person, Inconsistent> {
        self.by_key
            .get_mut(by)
            .ok_or(Inconsistent("an order of nobody"))
    }

    /// Whose person this number is.
    pub(super) fn key_of(&self, number: u32) -> Option<&Principal> {
        self.by_number.get(&number)
    }

    /// All keys of the person who uses this one now: itself and those before, the newest first.
    pub(super) fn line(&self, current: Principal) -> Vec<Principal> {
        let before = self
            .by_key
            .get(&current)
            .map(|person| person.before.as_slice());
        let before = before.unwrap_or_default().iter().rev().copied();
        core::iter::once(current).chain(before).collect()
    }

    /// The keys whose successions somebody needs who compares these principals with others: those before and
    /// after each of them.
    pub(super) fn needed(
        &self,
        principals: impl IntoIterator<Item = Principal>,
    ) -> BTreeSet<Principal> {
        let mut from = BTreeSet::new();
        if self.after.is_empty() {
            return from;
        }
        for principal in principals {
            let current = self.current(principal);
            from.extend(self.line(current).into_iter().skip(1));
            let mut step = principal;
            while let Some(next) = self.after.get(&step) {
                from.insert(step);
                step = *next;
            }
        }
        from
    }

    /// The successions of these keys.
    pub(super) fn told(&self, from: &BTreeSet<Principal>) -> Vec<Succeeded> {
        let told = from.iter().filter_map(|from| self.statements.get(from));
        told.cloned().collect()
    }

    /// Keeps a succession that was checked once.
    pub(super) fn keep(&mut self, succeeded: &Succeeded, verified: &VerifiedSuccession) {
        let (from, to) = (verified.from(), verified.to());
        self.successions.add(verified);
        self.after.insert(from, to);
        self.statements.insert(from, succeeded.clone());
    }

    fn register(&mut self, principal: Principal) -> Result<(), Inconsistent> {
        if self.by_key.contains_key(&principal) || self.after.contains_key(&principal) {
            return Err(Inconsistent("a principal registered again"));
        }
        let number = self.next_number;
        self.next_number = number
            .checked_add(1)
            .ok_or(Inconsistent("more principals than numbers"))?;
        // Who unregistered and comes back still stands for those it succeeded.
        let line = self.successions.stands_for(principal, FOREVER);
        let person = Person {
            number,
            before: line.into_iter().skip(1).rev().collect(),
            ..Person::default()
        };
        self.by_key.insert(principal, person);
        self.by_number.insert(number, principal);
        Ok(())
    }
}

impl State {
    /// The person behind a signature, if it may order anything.
    pub(super) fn ordering(&self, by: Principal) -> Result<&Person, Refusal> {
        self.not_succeeded(by)?;
        self.people
            .by_key
            .get(&by)
            .ok_or_else(|| refuse::not_registered(by))
    }

    /// Refuses a key that was replaced.
    pub(super) fn not_succeeded(&self, by: Principal) -> Result<(), Refusal> {
        match self.people.after.get(&by) {
            Some(_) => Err(refuse::succeeded(by, self.people.current(by))),
            None => Ok(()),
        }
    }

    pub(super) fn check_register(&self, by: Principal) -> Result<Checked, Refusal> {
        self.not_succeeded(by)?;
        if self.people.by_key.contains_key(&by) {
            return Ok(Checked::already());
        }
        let have = self.people.by_key.len();
        refuse::room(have, PRINCIPALS_MAX, "principals", Whose::Operator)?;
        Ok(Checked::done(Entry::Registered(by)))
    }

    pub(super) fn check_unregister(&self, by: Principal, now: Time) -> Result<Checked, Refusal> {
        self.not_succeeded(by)?;
        let Some(person) = self.people.by_key.get(&by) else {
            return Ok(Checked::already());
        };
        if !person.packages.is_empty() || !person.groups.is_empty() {
            let message = format!(
                "{by} has {} packages and {} groups here; delete them first",
                person.packages.len(),
                person.groups.len()
            );
            return Err(Refusal::new("still-owns", message, Retry::AfterChange));
        }
        // Who left and came back would find revoked grants and used quotas forgotten.
        let mut ends = person.grants.iter().filter_map(|(_, handle)| {
            let kept = self.grants.get(*handle)?;
            Some(kept.says().not_after)
        });
        if let Some(end) = ends.find(|end| now < *end) {
            let message = format!(
                "a grant of {by} ends at {end}, or would have if it were not revoked, and is remembered until \
                 then; unregister after the last such"
            );
            return Err(Refusal::new("still-owns", message, Retry::AfterChange));
        }
        Ok(Checked::done(Entry::Unregistered(by)))
    }

    pub(super) fn check_succeed(
        &self,
        by: Principal,
        succession: &VerifiedSuccession,
        now: Time,
    ) -> Result<Checked, Refusal> {
        let (from, to) = (succession.from(), succession.to());
        if by != from {
            let message = format!("only {from} can order that {to} takes its place");
            return Err(Refusal::new("other-principal", message, Retry::Never));
        }
        if self.people.after.get(&from) == Some(&to) {
            return Ok(Checked::already());
        }
        self.ordering(from)?;
        if now < succession.at() {
            let message = format!(
                "the succession begins at {}, and it is {now}; order it then",
                succession.at()
            );
            let wait = u64::try_from(succession.at().since(now).as_millis()).unwrap_or(u64::MAX);
            return Err(Refusal::new(
                "succession-early",
                message,
                Retry::After(wait),
            ));
        }
        // It would stand between two persons: what is this one's could be ordered by neither.
        if self.people.after.contains_key(&to) {
            let message = format!(
                "{to} was replaced by {}; let a fresh key succeed {from}",
                self.people.current(to)
            );
            return Err(Refusal::new("succession-refused", message, Retry::Never));
        }
        self.people
            .successions
            .check(succession)
            .map_err(|refused| Refusal::new("succession-refused", refused, Retry::Never))?;
        let own = self.people.by_key.get(&to).is_some_and(|successor| {
            !(successor.packages.is_empty()
                && successor.grants.is_empty()
                && successor.groups.is_empty()
                && self.holds.count(successor.number) == 0)
        });
        if own {
            let message = format!(
                "{to} has packages, grants, groups or functions' states of its own; let a fresh key succeed {from}"
            );
            return Err(Refusal::new("successor-owns", message, Retry::Never));
        }
        // Their two shares would be one person's, and could be given by nobody apart.
        if self.holds(from) && self.holds(to) {
            let message = format!(
                "{from} and {to} both hold recovery shares; let a key that holds none succeed {from}"
            );
            return Err(Refusal::new("successor-holds", message, Retry::Never));
        }
        let have = self.people.statements.len();
        refuse::room(have, SUCCESSIONS_KEPT_MAX, "successions", Whose::Operator)?;
        Ok(Checked::done(Entry::Succeeded(succession.to_succeeded())))
    }

    pub(super) fn apply_registered(&mut self, by: Principal) -> Result<(), Inconsistent> {
        self.people.register(by)
    }

    pub(super) fn apply_unregistered(&mut self, by: Principal) -> Result<(), Inconsistent> {
        let person = self
            .people
            .by_key
            .remove(&by)
            .ok_or(Inconsistent("nobody unregistered"))?;
        if !person.packages.is_empty() || !person.groups.is_empty() {
            return Err(Inconsistent("an owner unregistered"));
        }
        self.people.by_number.remove(&person.number);
        self.holds.forget(person.number);
        for (_, handle) in &person.grants {
            self.grants.remove(*handle);
        }
        Ok(())
    }

    pub(super) fn apply_succeeded(&mut self, succeeded: &Succeeded) -> Result<(), Inconsistent> {
        let verified = succeeded.clone().verify();
        let verified = verified.map_err(|_| Inconsistent("a succession that does not verify"))?;
        let (from, to) = (verified.from(), verified.to());
        let breaks = self.people.successions.check(&verified).is_err();
        if breaks || self.people.after.contains_key(&to) {
            return Err(Inconsistent("a succession that breaks a line"));
        }
        let mut person = self
            .people
            .by_key
            .remove(&from)
            .ok_or(Inconsistent("nobody succeeded"))?;
        // A successor that registered before has nothing of its own, and goes on as the one it succeeds.
        if let Some(fresh) = self.people.by_key.remove(&to) {
            self.people.by_number.remove(&fresh.number);
        }
        person.before.push(from);
        self.people.by_number.insert(person.number, to);
        self.people.by_key.insert(to, person);
        self.people.keep(succeeded, &verified);
        Ok(())
    }

    /// What the service knows of a principal itself.
    pub(super) fn principal_row(&self, by: Principal) -> PrincipalRow {
        let person = self.people.by_key.get(&by);
        PrincipalRow {
            principal: by,
            succeeds: person
                .map(|person| person.before.clone())
                .unwrap_or_default(),
            registered: person.is_some(),
            administrator: self.is_administrator(by),
            holder: self.share(by).is_ok(),
        }
    }

    /// Whose audit an entry stands in.
    pub(super) fn concerned(&self, entry: &Entry) -> Option<Principal> {
        Some(match entry {
            Entry::Registered(by) => *by,
            Entry::PackagePut { header, .. } => kept::signer(header.as_bytes())?,
            Entry::Granted(grant) => kept::signer(grant.as_bytes())?,
            Entry::GroupPut(group) => kept::signer(group.as_bytes())?,
            Entry::Revoked { by, .. }
            | Entry::GroupDeleted { by, .. }
            | Entry::PackageDeleted { by, .. }
            | Entry::AudienceRotated { by, .. }
            | Entry::IdentityRotated { by, .. }
            | Entry::CodeAdmitted { by, .. }
            | Entry::CodeWithdrawn { by, .. }
            | Entry::SharesMade { by, .. } => *by,
            Entry::Succeeded(succeeded) => self
                .people
                .current(kept::signer(succeeded.by_old.as_bytes())?),
            Entry::Leased { package, .. }
            | Entry::Returned { package, .. }
            | Entry::StateTaken { package, .. }
            | Entry::StateAnchored { package, .. } => {
                self.people.current(self.packages.get(package)?.owner)
            }
            Entry::Unregistered(_) | Entry::Started(_) | Entry::Recovered(_) | Entry::Closed => {
                return None;
            }
        })
    }
}

/// By then every succession has begun.
const FOREVER: Time = Time::from_millis(u64::MAX);
