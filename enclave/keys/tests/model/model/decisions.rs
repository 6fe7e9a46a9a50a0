//! Who may open what by what was ordered, and what leases hold of quotas.

use super::*;

impl Model {
    /// The owner's words for a package in this code, whatever the time and the user.
    pub(super) fn covering(&self, package: Digest, code: u8) -> Vec<&Word> {
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

    pub(super) fn allowing(&self, package: Digest, code: u8, now: Time) -> Vec<&Word> {
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
