//! Who may open what, as a person would write it down: plain lists, searched from end to end.
//!
//! In: what was ordered, by whom, when. Out: whether it counts, and who may open what from then on. Always
//! true: nothing here comes from the service but the rules; a model is a value, so that what *may* have
//! happened is two models. Users, owners and code are small numbers, packages and grants their digests.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use bield_envelope::{Digest, Time};

use crate::cast::{ADMINISTRATOR, HOUR};

/// How long a grant that ended is still told of.
const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);

/// Versions that a grant for a name covers.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Range {
    Any,
    One,
    ExactlyTwo,
}

#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Which {
    This(Digest),
    Called(&'static str, Range),
}

#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Who {
    One(u8),
    Group(&'static str),
}

#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Code {
    Exactly(u8),
    AtLeast(u8),
}

/// A grant.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Word {
    pub(crate) by: u8,
    pub(crate) id: u8,
    pub(crate) which: Which,
    pub(crate) who: Who,
    pub(crate) code: Code,
    pub(crate) isolation: u8,
    pub(crate) from: Time,
    pub(crate) until: Time,
    pub(crate) left: Option<u64>,
    pub(crate) digest: Digest,
    pub(crate) revoked: bool,
}

#[derive(Clone, PartialEq, Debug)]
struct Package {
    by: u8,
    name: &'static str,
    version: &'static str,
    generation: u32,
    /// Earlier generations, newest first, and until when they open.
    before: Vec<(u32, Time)>,
    codes: BTreeSet<u8>,
}

#[derive(Clone, PartialEq, Debug)]
struct Held {
    package: Digest,
    code: u8,
    until: Time,
    allotted: BTreeMap<Digest, u64>,
}

/// What is ordered.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Register,
    Unregister,
    Put(Digest, &'static str, &'static str),
    Delete(Digest),
    Grant(Word),
    Revoke(Vec<u8>),
    PutGroup(&'static str, u64, BTreeSet<u8>),
    DeleteGroup(&'static str),
    Rotate(Digest, bool),
    Succeed(u8),
    RotateIdentity,
}

/// What a lease must be.
#[derive(PartialEq, Debug)]
pub(crate) struct Expected {
    pub(crate) id: u64,
    pub(crate) issued: Time,
    pub(crate) until: Time,
    pub(crate) grants: BTreeSet<Digest>,
    pub(crate) allotted: BTreeMap<Digest, u64>,
    /// Ends of the audience keys; the current one has none and comes first.
    pub(crate) keys: Vec<Option<Time>>,
}

#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct Model {
    /// The clock of the newest record.
    newest: Time0,
    people: BTreeSet<u8>,
    /// Who takes whose place.
    after: BTreeMap<u8, u8>,
    packages: BTreeMap<Digest, Package>,
    words: Vec<Word>,
    groups: BTreeMap<(u8, &'static str), (u64, BTreeSet<u8>)>,
    held: BTreeMap<u64, Held>,
    leases: u64,
    /// Entries of each person's audit.
    audits: BTreeMap<u8, u64>,
}

/// A time that begins at the beginning.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Time0(Time);

impl Default for Time0 {
    fn default() -> Self {
        Self(Time::from_millis(0))
    }
}

impl Model {
    /// The service's clock: never before its newest record.
    pub(crate) fn now(&self, host: Time) -> Time {
        host.max(self.newest.0)
    }

    /// Something was written.
    pub(crate) fn counts(&mut self, host: Time) {
        let now = self.now(host);
        self.newest = Time0(now);
        self.words.retain(|word| {
            now < match word.revoked {
                true => word.until,
                false => word.until.plus(WEEK),
            }
        });
        self.held.retain(|_, held| {
            now < match held.allotted.is_empty() {
                true => held.until,
                false => held.until.plus(HOUR),
            }
        });
    }

    fn current(&self, key: u8) -> u8 {
        let mut key = key;
        while let Some(next) = self.after.get(&key) {
            key = *next;
        }
        key
    }

    /// A key and all those that it took the place of.
    fn stands_for(&self, key: u8) -> Vec<u8> {
        let mut line = vec![key];
        while let Some((before, _)) = self
            .after
            .iter()
            .find(|(_, to)| **to == line[line.len() - 1])
        {
            line.push(*before);
        }
        line
    }

    /// The key that took this one's place.
    pub(crate) fn replaced(&self, key: u8) -> Option<u8> {
        self.after.get(&key).copied()
    }

    pub(crate) fn people(&self) -> &BTreeSet<u8> {
        &self.people
    }

    pub(crate) fn audit(&self, of: u8) -> Option<u64> {
        self.audits.get(&of).copied()
    }

    /// What a person's listing of grants shows: digest, and what is left.
    pub(crate) fn listed(&self, of: u8) -> BTreeMap<Digest, Option<u64>> {
        let own = self
            .words
            .iter()
            .filter(|word| self.current(word.by) == of && !word.revoked);
        own.map(|word| (word.digest, word.left)).collect()
    }

    fn audited(&mut self, of: u8, host: Time) {
        *self.audits.entry(of).or_default() += 1;
        self.counts(host);
    }

    fn owns(&self, by: u8, package: &Digest) -> bool {
        let package = self.packages.get(package);
        package.is_some_and(|package| self.current(package.by) == by)
    }

    fn has_any(&self, key: u8) -> bool {
        self.packages
            .values()
            .any(|package| self.current(package.by) == key)
            || self.groups.keys().any(|(by, _)| *by == key)
    }

    /// Orders something; tells whether it is accepted.
    pub(crate) fn order(&mut self, by: u8, op: &Op, host: Time) -> bool {
        if let Op::Succeed(to) = op {
            return self.succeed(by, *to, host);
        }
        if self.after.contains_key(&by) {
            return false;
        }
        match op {
            Op::Register if self.people.insert(by) => self.audited(by, host),
            Op::Register => {}
            Op::Unregister if !self.people.contains(&by) => {}
            _ if !self.people.contains(&by) => return false,
            Op::Unregister => {
                if self.has_any(by) {
                    return false;
                }
                self.people.remove(&by);
                self.audits.remove(&by);
                let gone = self.words.iter().map(|word| self.current(word.by) != by);
                let keep: Vec<bool> = gone.collect();
                let mut keep = keep.iter();
                self.words.retain(|_| *keep.next().unwrap());
                self.counts(host);
            }
            Op::Put(digest, name, version) => {
                if !self.packages.contains_key(digest) {
                    let package = Package {
                        by,
                        name,
                        version,
                        generation: 0,
                        before: Vec::new(),
                        codes: BTreeSet::new(),
                    };
                    self.packages.insert(*digest, package);
                    self.audited(by, host);
                }
            }
            Op::Delete(digest) => {
                if !self.owns(by, digest) {
                    return false;
                }
                self.packages.remove(digest);
                self.words.retain(|word| word.which != Which::This(*digest));
                self.held.retain(|_, held| held.package != *digest);
                self.audited(by, host);
            }
            Op::Grant(word) => return self.grant(by, word, host),
            Op::Revoke(ids) => return self.revoke(by, ids, host),
            Op::PutGroup(name, revision, members) => {
                let new = (*revision, members.clone());
                match self.groups.get(&(by, *name)) {
                    Some(known) if *known == new => return true,
                    Some((known, _)) if revision <= known => return false,
                    _ => {}
                }
                self.groups.insert((by, name), new);
                self.audited(by, host);
            }
            Op::DeleteGroup(name) => {
                if self.groups.remove(&(by, *name)).is_none() {
                    return false;
                }
                self.audited(by, host);
            }
            Op::Rotate(digest, at_once) => {
                if !self.owns(by, digest) {
                    return false;
                }
                let now = self.now(host);
                let package = self.packages.get_mut(digest).unwrap();
                package
                    .before
                    .insert(0, (package.generation, now.plus(HOUR)));
                if *at_once {
                    package.before.clear();
                }
                package.before.retain(|(_, until)| now < *until);
                package.before.truncate(7);
                package.generation += 1;
                self.audited(by, host);
            }
            Op::RotateIdentity => {
                if by != ADMINISTRATOR {
                    return false;
                }
                self.audited(by, host);
            }
            Op::Succeed(_) => unreachable!(),
        }
        true
    }

    fn grant(&mut self, by: u8, word: &Word, host: Time) -> bool {
        if let Which::This(digest) = &word.which
            && !self.owns(by, digest)
        {
            return false;
        }
        if word.until <= self.now(host) || word.until <= word.from {
            return false;
        }
        let namesakes = |known: &&Word| self.current(known.by) == by && known.id == word.id;
        let known: Vec<&Word> = self.words.iter().filter(namesakes).collect();
        if known.iter().any(|known| known.revoked) {
            return false;
        }
        if known.iter().any(|known| known.digest == word.digest) {
            return true;
        }
        if known
            .iter()
            .any(|known| known.which != word.which || known.who != word.who)
        {
            return false;
        }
        self.words.push(word.clone());
        self.audited(by, host);
        true
    }

    fn revoke(&mut self, by: u8, ids: &[u8], host: Time) -> bool {
        let mut ending = Vec::new();
        for id in ids {
            let own = (0..self.words.len())
                .filter(|at| self.current(self.words[*at].by) == by && self.words[*at].id == *id);
            let own: Vec<usize> = own.collect();
            if own.is_empty() {
                return false;
            }
            ending.extend(own.into_iter().filter(|at| !self.words[*at].revoked));
        }
        if !ending.is_empty() {
            for at in ending {
                self.words[at].revoked = true;
            }
            self.audited(by, host);
        }
        true
    }

    fn succeed(&mut self, from: u8, to: u8, host: Time) -> bool {
        if self.after.get(&from) == Some(&to) {
            return true;
        }
        let taken = self.after.values().any(|known| *known == to);
        // Who stepped back does not come back, and nobody is the successor of two.
        if !self.people.contains(&from) || taken || self.after.contains_key(&to) {
            return false;
        }
        let granted = self.words.iter().any(|word| self.current(word.by) == to);
        if granted || self.has_any(to) || self.stands_for(from).len() > 16 {
            return false;
        }
        self.people.remove(&from);
        self.people.insert(to);
        self.after.insert(from, to);
        let groups = std::mem::take(&mut self.groups).into_iter();
        self.groups = groups
            .map(|((by, name), group)| ((if by == from { to } else { by }, name), group))
            .collect();
        let audit = self.audits.remove(&from).unwrap_or_default();
        self.audits.insert(to, audit);
        self.audited(to, host);
        true
    }

    /// The owner's words for a package in this code, whatever the time and the user.
    fn covering(&self, package: Digest, code: u8) -> Vec<&Word> {
        let Some(known) = self.packages.get(&package) else {
            return Vec::new();
        };
        let covers = |word: &&Word| {
            let which = match word.which {
                Which::This(digest) => digest == package,
                Which::Called(name, range) => {
                    name == known.name
                        && match range {
                            Range::Any => true,
                            Range::One => known.version.starts_with("1."),
                            Range::ExactlyTwo => known.version == "2.0.0",
                        }
                }
            };
            let code = match word.code {
                Code::Exactly(wanted) => code == wanted,
                Code::AtLeast(version) => code >= version,
            };
            which && code && self.current(word.by) == self.current(known.by) && !word.revoked
        };
        self.words.iter().filter(covers).collect()
    }

    fn allowing(&self, package: Digest, code: u8, now: Time) -> Vec<&Word> {
        let covering = self.covering(package, code).into_iter();
        covering
            .filter(|word| word.from <= now && now < word.until)
            .collect()
    }

    /// Which generation of the audience key a user is told for this code; `None` when there is none.
    pub(crate) fn found(&self, package: Digest, code: u8, host: Time) -> Option<u32> {
        let known = self.packages.get(&package)?;
        let allowing = self.allowing(package, code, self.now(host));
        let mut fits = allowing.iter().filter(|word| match word.code {
            Code::Exactly(_) => true,
            // The version of code that never leased is not known.
            Code::AtLeast(_) => known.codes.contains(&code),
        });
        fits.next().map(|_| known.generation)
    }

    /// Gives a lease, if code may hold one.
    pub(crate) fn lease(&mut self, package: Digest, code: u8, host: Time) -> Option<Expected> {
        let now = self.now(host);
        let allowing = self.allowing(package, code, now);
        let last = allowing.iter().map(|word| word.until).max()?;
        let until = last.min(now.plus(Duration::from_secs(600)));
        let told = self.covering(package, code).into_iter();
        let told: Vec<Word> = told
            .filter(|word| now < word.until.plus(WEEK))
            .cloned()
            .collect();
        let mut allotted = BTreeMap::new();
        for word in self.words.iter_mut().filter(|word| told.contains(word)) {
            let matters = now < word.until && word.from < until;
            if let (Some(left), true) = (&mut word.left, matters) {
                // Half of what is left, so that another runtime finds some too.
                let share = left.div_ceil(2).min(1000);
                *left -= share;
                if share > 0 {
                    allotted.insert(word.digest, share);
                }
            }
        }
        let id = self.leases;
        self.leases += 1;
        let held = Held {
            package,
            code,
            until,
            allotted: allotted.clone(),
        };
        let known = self.packages.get_mut(&package)?;
        known.codes.insert(code);
        let before = known.before.iter().map(|(_, until)| Some(*until));
        let keys = core::iter::once(None)
            .chain(before.filter(|until| Some(now) < *until))
            .collect();
        let owner = known.by;
        self.held.insert(id, held);
        self.audited(self.current(owner), host);
        Some(Expected {
            id,
            issued: now,
            until,
            grants: told.iter().map(|word| word.digest).collect(),
            allotted,
            keys,
        })
    }

    /// Takes back what a lease did not use: once, from the code that has it, no more than it has.
    pub(crate) fn take_back(&mut self, id: u64, code: u8, unused: &[(Digest, u64)], host: Time) {
        let Some(held) = self.held.get(&id).filter(|held| held.code == code) else {
            return;
        };
        let had = |grant| held.allotted.get(grant).copied().unwrap_or_default();
        if unused
            .iter()
            .any(|(grant, requests)| *requests > had(grant))
        {
            return;
        }
        let owner = self.packages[&held.package].by;
        self.held.remove(&id);
        for (grant, requests) in unused {
            for word in self.words.iter_mut().filter(|word| word.digest == *grant) {
                word.left = word.left.map(|left| left + requests);
            }
        }
        self.audited(self.current(owner), host);
    }

    /// Whether a user's request, sealed to this generation of the key, is served at `now` under a lease
    /// that was given when this model was made, with these allotments.
    pub(crate) fn serves(
        &self,
        (package, code): (Digest, u8),
        allotted: &[Digest],
        (user, generation): (u8, u32),
        now: Time,
    ) -> bool {
        let Some(known) = self.packages.get(&package) else {
            return false;
        };
        let mut before = known.before.iter();
        let opens = generation == known.generation
            || before.any(|(old, until)| *old == generation && now < *until);
        if !opens || self.after.contains_key(&user) {
            return false;
        }
        let names = self.stands_for(user);
        let owner = self.current(known.by);
        let allowing = self.allowing(package, code, now).into_iter();
        let theirs: Vec<&Word> = allowing
            .filter(|word| match word.who {
                Who::One(named) => names.contains(&named),
                Who::Group(group) => {
                    let group = self.groups.get(&(owner, group));
                    group
                        .is_some_and(|(_, members)| names.iter().any(|name| members.contains(name)))
                }
            })
            .collect();
        // The strictest isolation decides; where its quota is used up, only one as strict serves.
        let strictest = theirs.iter().map(|word| word.isolation).max();
        let mut deciding = theirs
            .iter()
            .filter(|word| Some(word.isolation) == strictest);
        deciding.any(|word| word.left.is_none() || allotted.contains(&word.digest))
    }
}
