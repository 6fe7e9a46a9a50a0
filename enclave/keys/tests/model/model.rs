//! Who may open what, as a person would write it down: plain lists, searched from end to end.
//!
//! In: what was ordered, by whom, when. Out: whether it counts, and who may open what from then on. Always
//! true: nothing here comes from the service but the rules; a model is a value, so that what *may* have
//! happened is two models. Users, owners and code are small numbers, packages and grants their digests.

mod decisions;

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
    newest: Option<Time>,
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

impl Model {
    /// The service's clock: never before its newest record.
    pub(crate) fn now(&self, host: Time) -> Time {
        self.newest.map_or(host, |newest| host.max(newest))
    }

    /// Something was written.
    pub(crate) fn counts(&mut self, host: Time) {
        let now = self.now(host);
        self.newest = Some(now);
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
                let now = self.now(host);
                let mut own = self.words.iter();
                if self.has_any(by)
                    || own.any(|word| self.current(word.by) == by && now < word.until)
                {
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
                // A package that comes back brings back no grant.
                let words = self.words.iter_mut();
                words
                    .filter(|word| word.which == Which::This(*digest))
                    .for_each(|word| word.revoked = true);
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
}
