//! What happens: orders, time, faults, starts.

use super::*;

impl Play {
    pub(super) fn step(&mut self) {
        if self.open.is_some_and(|steps| steps >= 2) {
            return self.settle();
        }
        self.open = self.open.map(|steps| steps + 1);
        match self.random.below(100) {
            0..66 => self.some_order(),
            66..72 => self.wait(),
            72..74 => self.set_back(),
            74..76 => self.restart(),
            76..79 => self.fault(),
            79..86 => self.replay(),
            86..90 => self.swap(),
            90..94 => self.take_back(),
            94..98 => self.serve_under_an_old_lease(),
            _ => self.ask_for_freshness(),
        }
    }

    pub(super) fn some_order(&mut self) {
        let by = match self.random.once_in(6) {
            true => self.some_key(),
            false => {
                let owner = self.random.one_of(&OWNERS[..2]);
                self.newest_of(owner)
            }
        };
        let package = self.some_package();
        let op = match self.random.below(66) {
            0..5 => {
                let by = self.some_key();
                return self.order(by, &Op::Register);
            }
            5..12 => {
                let (name, version) = (self.random.one_of(&NAMES), self.random.one_of(&VERSIONS));
                return self.put(by, name, version);
            }
            12..14 => Op::Delete(package),
            14..34 => self.granting(by),
            34..41 => Op::Revoke((0..=self.random.below(2)).map(|_| self.some_id()).collect()),
            41..49 => {
                let members = (0..self.random.below(4))
                    .map(|_| self.some_user())
                    .collect();
                let revision = self.random.below(8) as u64;
                Op::PutGroup(self.random.one_of(&GROUPS), revision, members)
            }
            49..51 => Op::DeleteGroup(self.random.one_of(&GROUPS)),
            51..57 => Op::Rotate(package, self.random.once_in(3)),
            57..62 => {
                let from = self.some_key();
                let to = match self.random.once_in(3) {
                    true => self.some_key(),
                    false => SUCCESSORS + u8::try_from(self.keys.len()).unwrap(),
                };
                if from == to || [from, to].contains(&ADMINISTRATOR) {
                    return;
                }
                if !self.keys.contains(&to) {
                    self.keys.push(to);
                }
                return self.order(from, &Op::Succeed(to));
            }
            62..64 => {
                let by = self.some_key();
                return self.order(by, &Op::Unregister);
            }
            _ => Op::RotateIdentity,
        };
        let by = if matches!(op, Op::RotateIdentity) {
            ADMINISTRATOR
        } else {
            by
        };
        self.order(by, &op);
    }

    pub(super) fn some_key(&mut self) -> u8 {
        self.random.one_of(&self.keys.clone())
    }

    /// Mostly one of few, so that some are granted much.
    pub(super) fn some_user(&mut self) -> u8 {
        match self.random.once_in(3) {
            true => self.some_key(),
            false => self.random.one_of(&USERS[..2]),
        }
    }

    pub(super) fn some_id(&mut self) -> u8 {
        1 + u8::try_from(self.random.below(5)).unwrap()
    }

    /// Mostly one of the first, so that there is much to say about some.
    pub(super) fn some_package(&mut self) -> Digest {
        let packages = self.packages.clone();
        let few = packages.len().min(3);
        match self.random.once_in(3) {
            true => self.random.one_of(&packages),
            false => self.random.one_of(&packages[..few]),
        }
    }

    /// Who is this one now, as far as is known.
    pub(super) fn newest_of(&self, key: u8) -> u8 {
        let mut key = key;
        while let Some(next) = self.models[0].replaced(key) {
            key = next;
        }
        key
    }

    pub(super) fn put(&mut self, by: u8, name: &'static str, version: &'static str) {
        let digest = PackageHeader::package(&cast::header(&key(by), name, version));
        if !self.packages.contains(&digest) {
            self.packages.push(digest);
        }
        self.order(by, &Op::Put(digest, name, version));
    }

    /// Some grant; `by` may not be allowed to give it.
    pub(super) fn granting(&mut self, by: u8) -> Op {
        let now = self.now();
        let minutes = |count: usize| MINUTE * u32::try_from(count).unwrap();
        let who = match self.random.once_in(3) {
            true => Who::Group(self.random.one_of(&GROUPS)),
            false => Who::One(self.some_user()),
        };
        let which = match self.random.once_in(3) {
            true => {
                let ranges = [Range::Any, Range::One, Range::ExactlyTwo];
                Which::Called(self.random.one_of(&NAMES), self.random.one_of(&ranges))
            }
            false => Which::This(self.some_package()),
        };
        let number = self.random.one_of(&CODES);
        let word = Word {
            by,
            id: self.some_id(),
            which,
            who,
            code: match self.random.once_in(3) {
                true => Code::AtLeast(number),
                false => Code::Exactly(number),
            },
            isolation: u8::try_from(self.random.below(3)).unwrap(),
            from: match self.random.once_in(6) {
                true => now.plus(minutes(5)),
                false => now.minus(MINUTE),
            },
            until: now.plus(minutes(self.random.below(120))),
            left: self.random.once_in(3).then(|| self.random.below(5) as u64),
            digest: Digest::from_bytes([0; 32]),
            revoked: false,
        };
        let digest = saying::signed(&word).digest();
        Op::Grant(Word { digest, ..word })
    }

    pub(super) fn wait(&mut self) {
        let time = match self.random.below(12) {
            0 => Duration::from_secs(8 * 24 * 3600),
            1..3 => HOUR * 2,
            _ => MINUTE * u32::try_from(1 + self.random.below(15)).unwrap(),
        };
        self.world.pass(time);
        self.note(format!("{time:?} pass"));
    }

    pub(super) fn set_back(&mut self) {
        let minutes = u32::try_from(1 + self.random.below(300)).unwrap();
        self.world
            .set_clock(self.world.now().minus(MINUTE * minutes));
        self.note(format!("the host sets its clock back by {minutes} minutes"));
    }

    /// Plans that some write soon fails, or that power is lost in it.
    pub(super) fn fault(&mut self) {
        let write = self.world.disk.writes() + self.random.below(3) as u64;
        let bytes = self.random.below(700) as u64;
        let fault = match self.random.below(6) {
            0 => Fault::Refuse { write },
            1 => Fault::LoseAnswer { write },
            _ => Fault::Crash { write, bytes },
        };
        self.world.disk.fail(fault);
        self.note(format!("planned: {fault:?}"));
    }

    /// After an answer that left something open: waits until it is stored, or starts again.
    pub(super) fn settle(&mut self) {
        if self.world.disk.crashed() || self.random.once_in(2) {
            return self.restart();
        }
        self.note("waiting until it is stored".to_owned());
        while self.world.inspect().trouble.is_some() {
            if self.world.disk.crashed() {
                return self.restart();
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        self.open = None;
        self.observe();
    }

    pub(super) fn restart(&mut self) {
        let good = self.open.is_none() && !self.world.disk.crashed() && self.random.once_in(2);
        let snapshot = good && self.world.service().snapshot();
        match self.random.once_in(2) && good {
            true => self.world.end(),
            false => self.world.kill(),
        }
        self.world.disk.restart();
        self.note(format!(
            "a restart, in good order: {good}, with a snapshot: {snapshot}"
        ));
        let write = self.world.disk.writes();
        match self.random.below(12) {
            0 => self.world.disk.fail(Fault::Refuse { write }),
            1 => self.world.disk.fail(Fault::LoseAnswer { write }),
            _ => {}
        }
        if let Err(refused) = self.world.start() {
            // The host refused a write that a start needs: it says so, and the next start goes on.
            assert!(refused.contains("then retry"), "{refused}");
            self.note(format!("not started: {refused}"));
            self.world.start().unwrap();
        }
        self.sessions = (0..3).map(|_| cast::session()).collect();
        self.seen.starts += 1;
        let host = self.world.now();
        self.models.iter_mut().for_each(|model| model.counts(host));
        self.open = None;
        self.observe();
        self.look_at_all();
    }
}
