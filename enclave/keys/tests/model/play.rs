//! One case: a service, what may be true of it, and chance.
//!
//! ```text
//! chance ──▶ order, replay, swap, crash, clock ──▶ service ──▶ reply ──▶ models that agree stay
//!                                                    └──▶ leases, admissions, lists, audits: the same
//! ```
//!
//! Always true: at least one model agrees with all that was answered since the last start; there is more
//! than one only after an answer that left open whether a change counts.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use bield_envelope::{AudiencePublicKey, Digest, Secret, Signed, Time};
use bield_grant::{Allotment, CodeSelector, Grant, Isolation, PackageSelector, UserSelector};
use bield_keys::service::Conversation;
use bield_ledger::Fault;
use bield_package::PackageHeader;
use bield_protocol::service::{
    AUDIT_START, GrantId, LeasedKeys, Listing, ListingPage, Operation, Request, Returned, chained,
};

use crate::cast::material::{Material, seal};
use crate::cast::{self, ADMINISTRATOR, HOUR, MINUTE, World, key, principal};
use crate::model::{Code, Expected, Model, Op, Range, Which, Who, Word};
use crate::random::Random;

const OWNERS: [u8; 3] = [1, 2, 3];
const USERS: [u8; 3] = [11, 12, 13];
const CODES: [u8; 2] = [5, 6];
const NAMES: [&str; 2] = ["atlas", "birch"];
const VERSIONS: [&str; 3] = ["1.0.0", "1.4.0", "2.0.0"];
const GROUPS: [&str; 2] = ["readers", "staff"];
/// The first key that takes the place of another.
const SUCCESSORS: u8 = 100;

/// A key configuration that a user was told.
struct Told {
    package: Digest,
    code: u8,
    generation: u32,
    audience: Digest,
    key: AudiencePublicKey,
}

/// A lease that a runtime holds, and the model it was given by.
struct Kept {
    material: Material,
    model: Model,
    package: Digest,
    code: u8,
}

/// How often something happened: a case in which nobody may open anything proves nothing.
#[derive(Default)]
pub(crate) struct Seen {
    /// Leases given, of those asked for.
    pub(crate) leased: (u64, u64),
    /// Requests served, of those sealed.
    pub(crate) served: (u64, u64),
    /// Orders accepted, of those given.
    pub(crate) ordered: (u64, u64),
    /// Answers that left something open, and starts.
    pub(crate) open: u64,
    pub(crate) starts: u64,
}

fn count(what: &mut (u64, u64), yes: bool) {
    what.0 += u64::from(yes);
    what.1 += 1;
}

pub(crate) struct Play {
    random: Random,
    world: World,
    models: Vec<Model>,
    sessions: Vec<Conversation>,
    captured: Vec<Vec<u8>>,
    packages: Vec<Digest>,
    keys: Vec<u8>,
    told: Vec<Told>,
    leases: Vec<Kept>,
    /// What each person keeps of its audit.
    audits: BTreeMap<u8, (u64, Digest)>,
    checkpoint: Option<String>,
    /// Steps since an answer left something open.
    open: Option<u8>,
    pub(crate) seen: Seen,
    pub(crate) journal: Vec<String>,
}

impl Play {
    pub(crate) fn new(seed: u64) -> Self {
        let world = World::started();
        let mut first = Model::default();
        first.counts(world.now());
        let mut play = Self {
            random: Random::new(seed),
            world,
            models: vec![first],
            sessions: Vec::new(),
            captured: Vec::new(),
            packages: Vec::new(),
            keys: [&OWNERS[..], &USERS, &[ADMINISTRATOR]].concat(),
            told: Vec::new(),
            leases: Vec::new(),
            audits: BTreeMap::new(),
            checkpoint: None,
            open: None,
            seen: Seen::default(),
            journal: Vec::new(),
        };
        play.sessions = (0..3).map(|_| cast::session()).collect();
        for by in [1, 2, 11, ADMINISTRATOR] {
            play.order(by, &Op::Register);
        }
        for by in [1, 2] {
            play.put(by, NAMES[0], VERSIONS[0]);
            let op = play.granting(by);
            play.order(by, &op);
        }
        play
    }

    /// Plays to the end, and compares everything once more.
    pub(crate) fn run(&mut self, steps: usize) {
        for _ in 0..steps {
            self.step();
            self.look();
        }
        self.restart();
        self.look_at_all();
    }

    fn now(&self) -> Time {
        self.models[0].now(self.world.now())
    }

    fn note(&mut self, what: String) {
        self.journal.push(what);
    }

    // What happens.

    fn step(&mut self) {
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

    fn some_order(&mut self) {
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

    fn some_key(&mut self) -> u8 {
        self.random.one_of(&self.keys.clone())
    }

    /// Mostly one of few, so that some are granted much.
    fn some_user(&mut self) -> u8 {
        match self.random.once_in(3) {
            true => self.some_key(),
            false => self.random.one_of(&USERS[..2]),
        }
    }

    fn some_id(&mut self) -> u8 {
        1 + u8::try_from(self.random.below(5)).unwrap()
    }

    /// Mostly one of the first, so that there is much to say about some.
    fn some_package(&mut self) -> Digest {
        let packages = self.packages.clone();
        let few = packages.len().min(3);
        match self.random.once_in(3) {
            true => self.random.one_of(&packages),
            false => self.random.one_of(&packages[..few]),
        }
    }

    /// Who is this one now, as far as is known.
    fn newest_of(&self, key: u8) -> u8 {
        let mut key = key;
        while let Some(next) = self.models[0].replaced(key) {
            key = next;
        }
        key
    }

    fn put(&mut self, by: u8, name: &'static str, version: &'static str) {
        let digest = PackageHeader::package(&cast::header(&key(by), name, version));
        if !self.packages.contains(&digest) {
            self.packages.push(digest);
        }
        self.order(by, &Op::Put(digest, name, version));
    }

    /// Some grant; `by` may not be allowed to give it.
    fn granting(&mut self, by: u8) -> Op {
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
        let digest = signed(&word).digest();
        Op::Grant(Word { digest, ..word })
    }

    fn wait(&mut self) {
        let time = match self.random.below(12) {
            0 => Duration::from_secs(8 * 24 * 3600),
            1..3 => HOUR * 2,
            _ => MINUTE * u32::try_from(1 + self.random.below(15)).unwrap(),
        };
        self.world.pass(time);
        self.note(format!("{time:?} pass"));
    }

    fn set_back(&mut self) {
        let minutes = u32::try_from(1 + self.random.below(300)).unwrap();
        self.world
            .set_clock(self.world.now().minus(MINUTE * minutes));
        self.note(format!("the host sets its clock back by {minutes} minutes"));
    }

    /// Plans that some write soon fails, or that power is lost in it.
    fn fault(&mut self) {
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
    fn settle(&mut self) {
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

    fn restart(&mut self) {
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

    // What is said.

    fn request(&self, session: usize, by: u8, op: &Op, ahead: u64) -> Vec<u8> {
        let session = Conversation {
            runtime: None,
            binding: self.sessions[session].binding,
            sequence: self.sessions[session].sequence + ahead,
        };
        let command = |operation| cast::sign(&session, &key(by), operation);
        let request = match op {
            Op::Put(_, name, version) => {
                let header = cast::header(&key(by), name, version);
                let key = Secret::from_bytes([9; 32]);
                Request::PutPackage(command(cast::offer(&header, 9)), key)
            }
            other => Request::Command(command(operation(by, other, self.world.now()))),
        };
        request.encode().to_vec()
    }

    fn order(&mut self, by: u8, op: &Op) {
        let session = self.random.below(self.sessions.len());
        let request = self.request(session, by, op, 0);
        let answer = self.say(session, &request);
        self.note(format!("{by}: {op:?} -> {answer:?}"));
        self.captured.push(request);
        self.ordered(by, op, &answer);
    }

    fn say(&mut self, session: usize, request: &[u8]) -> Result<(), String> {
        let request = Request::decode(request).unwrap();
        let answer = self.world.say(&mut self.sessions[session], request);
        answer.map(drop)
    }

    fn ordered(&mut self, by: u8, op: &Op, answer: &Result<(), String>) {
        let host = self.world.now();
        count(&mut self.seen.ordered, answer.is_ok());
        self.heard(answer, |model| model.order(by, op, host));
        if answer.is_ok() || is_open(answer) {
            match op {
                Op::Unregister => drop(self.audits.remove(&by)),
                Op::Succeed(to) => {
                    self.audits.remove(to);
                    if let Some(kept) = self.audits.remove(&by)
                        && answer.is_ok()
                    {
                        self.audits.insert(*to, kept);
                    }
                }
                Op::Delete(package) => self.told.retain(|told| told.package != *package),
                _ => {}
            }
        }
    }

    /// Keeps the models that agree with an answer; both when it left open whether the change counts.
    fn heard(&mut self, answer: &Result<(), String>, change: impl Fn(&mut Model) -> bool) {
        let before = std::mem::take(&mut self.models);
        for model in before {
            let mut changed = model.clone();
            let accepted = change(&mut changed);
            let open = is_open(answer);
            if open || answer.is_ok() == accepted {
                self.keep(changed);
            }
            if open {
                self.keep(model);
            }
        }
        if is_open(answer) {
            self.seen.open += 1;
            self.open = self.open.or(Some(0));
        }
        assert!(!self.models.is_empty(), "no model agrees: {answer:?}");
    }

    fn keep(&mut self, model: Model) {
        if !self.models.contains(&model) {
            self.models.push(model);
        }
    }

    fn agree(&mut self, what: &str, agrees: impl Fn(&Model) -> bool) {
        let before = self.models.len();
        if let Some(last) = (!self.models.iter().any(&agrees)).then(|| self.models[0].clone()) {
            panic!("{what}: none of {before} models agrees, for instance {last:#?}");
        }
        self.models.retain(agrees);
    }

    /// Somebody who saw an earlier message says it again, in its session and in others.
    fn replay(&mut self) {
        let at = self.random.below(self.captured.len());
        let request = self.captured[at].clone();
        self.note(format!("message {at} again"));
        for session in 0..self.sessions.len() {
            let again = self.say(session, &request).unwrap_err();
            let refused = ["other-session", "out-of-order"].contains(&again.as_str());
            assert!(refused, "a command said again: {again}");
        }
        let mut runtime = cast::runtime(5);
        let again = self
            .world
            .say(&mut runtime, Request::decode(&request).unwrap());
        assert_eq!(again.map(drop), Err("other-session".to_owned()));
    }

    /// Two messages of a session arrive in the other order, and the first of them twice.
    fn swap(&mut self) {
        let (by, then) = (self.newest_of(1), self.newest_of(2));
        let (first, second) = (self.granting(by), Op::Revoke(vec![self.some_id()]));
        let messages = [
            self.request(0, by, &first, 0),
            self.request(0, then, &second, 1),
        ];
        self.note(format!("swapped: {by} {first:?}, {then} {second:?}"));
        assert_eq!(self.say(0, &messages[1]), Err("out-of-order".to_owned()));
        let answer = self.say(0, &messages[0]);
        self.ordered(by, &first, &answer);
        assert_eq!(self.say(0, &messages[0]), Err("out-of-order".to_owned()));
        let answer = self.say(0, &messages[1]);
        self.ordered(then, &second, &answer);
        self.captured.extend(messages);
    }

    // Who may open what.

    /// Compares a few decisions, after each step.
    fn look(&mut self) {
        if self.open.is_some() {
            return;
        }
        for _ in 0..3 {
            let (package, code) = (self.some_package(), self.random.one_of(&CODES));
            self.find(package, code);
        }
        let (package, code) = (self.some_package(), self.random.one_of(&CODES));
        self.lease(package, code);
    }

    /// Compares every decision.
    fn look_at_all(&mut self) {
        for package in self.packages.clone() {
            for code in CODES {
                if self.open.is_none() {
                    self.find(package, code);
                    self.lease(package, code);
                }
            }
        }
    }

    /// A user asks what to seal to.
    fn find(&mut self, package: Digest, code: u8) {
        let found = self.world.find(package, cast::exactly(code));
        let (host, generation) = (
            self.world.now(),
            found.as_ref().ok().map(|it| it.generation),
        );
        self.agree("a key configuration", |model| {
            model.found(package, code, host) == generation
        });
        let Ok(found) = found else { return };
        assert_eq!(found.code.measurement, cast::code(code));
        let known = |told: &Told| {
            (told.package, told.code, told.generation) == (package, code, found.generation)
        };
        if self.models.len() == 1 && !self.told.iter().any(known) {
            self.told.push(Told {
                package,
                code,
                generation: found.generation,
                audience: found.audience,
                key: found.key,
            });
        }
    }

    /// A runtime asks for keys; sometimes it returns what it has of an earlier lease.
    fn lease(&mut self, package: Digest, code: u8) {
        let earlier = self.random.below(8);
        let fits = |kept: &Kept| kept.code == code;
        let earlier = self
            .leases
            .get(earlier)
            .is_some_and(fits)
            .then_some(earlier);
        let earlier = earlier.map(|at| self.leases.remove(at));
        let returned = earlier.map(|kept| self.unused(&kept));
        let mut session = cast::runtime(code);
        let leased = self.world.lease_in(&mut session, package, returned.clone());
        self.note(format!(
            "lease {package:?} {code} -> {:?}",
            leased.as_ref().map(|it| it.lease.id)
        ));
        count(&mut self.seen.leased, leased.is_ok());
        let host = self.world.now();
        let back = |model: &mut Model| {
            if let Some(returned) = &returned {
                let unused: Vec<_> = returned
                    .unused
                    .iter()
                    .map(|it| (it.grant, it.requests))
                    .collect();
                model.take_back(returned.lease, code, &unused, host);
            }
        };
        let leased = match leased {
            Ok(leased) => leased,
            Err(refused) => {
                return self.heard(&Err(refused), |model| {
                    back(model);
                    model.lease(package, code, host).is_some()
                });
            }
        };
        let shown = shown(&leased);
        self.heard(&Ok(()), |model| {
            back(model);
            model.lease(package, code, host).as_ref() == Some(&shown)
        });
        assert_eq!(leased.lease.code.measurement, cast::code(code));
        let material = Material::new(leased);
        let [model] = &self.models[..] else { return };
        let kept = Kept {
            material,
            model: model.clone(),
            package,
            code,
        };
        let now = kept.material.issued;
        let user = self.some_user();
        self.serve(&kept, now, &[user, USERS[0]]);
        if self.leases.len() == 8 {
            self.leases.remove(0);
        }
        self.leases.push(kept);
    }

    /// Part of what a lease was allotted.
    fn unused(&mut self, kept: &Kept) -> Returned {
        let part = |it: &Allotment, random: &mut Random| Allotment {
            requests: random.below(it.requests as usize + 2) as u64,
            ..*it
        };
        let unused = kept.material.allotments.iter();
        Returned {
            lease: kept.material.lease.id,
            unused: unused.map(|it| part(it, &mut self.random)).collect(),
        }
    }

    /// A runtime returns what it did not use, once or twice.
    fn take_back(&mut self) {
        let at = self.random.below(8);
        let Some(kept) = self.leases.get(at) else {
            return;
        };
        let (code, id) = (kept.code, kept.material.lease.id);
        let kept = self.leases.remove(at);
        let returned = self.unused(&kept);
        let unused: Vec<_> = returned
            .unused
            .iter()
            .map(|it| (it.grant, it.requests))
            .collect();
        for from in [code, if code == 5 { 6 } else { 5 }, code] {
            let answer = self
                .world
                .say(&mut cast::runtime(from), Request::Return(returned.clone()));
            let (answer, host) = (answer.map(drop), self.world.now());
            self.note(format!(
                "lease {id} back from {from}: {unused:?} -> {answer:?}"
            ));
            self.heard(&answer, |model| {
                model.take_back(id, from, &unused, host);
                true
            });
        }
    }

    fn serve_under_an_old_lease(&mut self) {
        let at = self.random.below(8);
        if at >= self.leases.len() {
            return;
        }
        let kept = self.leases.remove(at);
        let now = self.world.now().max(kept.material.issued);
        let keys = self.keys.clone();
        self.serve(&kept, now, &keys);
        self.leases.insert(at, kept);
    }

    /// Compares who is served under a lease with its model.
    fn serve(&mut self, kept: &Kept, now: Time, users: &[u8]) {
        let allotted: Vec<Digest> = kept.material.allotments.iter().map(|it| it.grant).collect();
        for told in self.told.iter().filter(|told| told.package == kept.package) {
            for user in users {
                let sealed = seal(&told.key, told.audience, told.package, &key(*user), now);
                let served = kept.material.serve(&sealed, now);
                let place = (kept.package, kept.code);
                let may = told.code == kept.code
                    && now < kept.material.lease.not_after
                    && kept
                        .model
                        .serves(place, &allotted, (*user, told.generation), now);
                count(&mut self.seen.served, may);
                assert_eq!(
                    served.is_ok(),
                    may,
                    "{user}, generation {}: {served:?}",
                    told.generation
                );
            }
        }
    }

    // What is remembered.

    /// Compares everybody's audit and list of grants, and the audit with the one kept.
    fn observe(&mut self) {
        for by in self.keys.clone() {
            self.observe_audit(by);
            let grants = Listing::Grants {
                package: None,
                user: None,
                after: None,
            };
            let rows = match self.world.list(&key(by), grants) {
                Ok(ListingPage::Grants(rows, false)) => rows,
                Ok(_) => panic!("another page"),
                Err(_) => continue,
            };
            let shown: BTreeMap<Digest, Option<u64>> = rows
                .into_iter()
                .map(|row| (row.grant.verify_claimed().unwrap().digest(), row.left))
                .collect();
            self.agree("a list of grants", |model| model.listed(by) == shown);
        }
        self.ask_for_freshness();
    }

    fn observe_audit(&mut self, by: u8) {
        let start = (0, Digest::from_bytes(AUDIT_START));
        let (count, digest) = self.audits.get(&by).copied().unwrap_or(start);
        let Ok(page) = self.world.audit(&key(by), count) else {
            return self.agree("nobody's audit", |model| !model.people().contains(&by));
        };
        self.agree("an audit", |model| model.audit(by) == Some(page.count));
        assert_eq!(
            (page.from, page.before),
            (count, digest),
            "the audit of {by} was changed"
        );
        let now = page
            .entries
            .iter()
            .fold(digest, |before, entry| chained(&before, entry));
        assert_eq!(now, page.digest, "the audit of {by} does not chain");
        self.audits.insert(by, (page.count, now));
    }

    fn ask_for_freshness(&mut self) {
        let fresh = self.world.freshness(self.checkpoint.as_deref());
        match fresh {
            Ok(fresh) => self.checkpoint = Some(fresh.checkpoint),
            Err(refused) => assert_eq!(refused, "not-durable"),
        }
    }
}

/// Whether the answer leaves open if the change counts.
fn is_open(answer: &Result<(), String>) -> bool {
    answer == &Err("not-durable".to_owned())
}

fn shown(leased: &LeasedKeys) -> Expected {
    let grants = leased.grants.iter();
    let digest = |grant: &Signed<Grant>| grant.clone().verify_claimed().unwrap().digest();
    let allotted = leased.allotments.iter();
    Expected {
        id: leased.lease.id,
        issued: leased.issued,
        until: leased.lease.not_after,
        grants: grants.map(digest).collect::<BTreeSet<_>>(),
        allotted: allotted.map(|it| (it.grant, it.requests)).collect(),
        keys: leased
            .audience_keys
            .iter()
            .map(|key| key.not_after)
            .collect(),
    }
}

fn signed(word: &Word) -> bield_envelope::Verified<Grant> {
    let isolations = [Isolation::Shared, Isolation::Wiped, Isolation::Dedicated];
    let grant = Grant {
        id: [word.id; 16],
        package: match word.which {
            Which::This(digest) => PackageSelector::Digest(digest),
            Which::Called(name, range) => {
                let range = match range {
                    Range::Any => "*",
                    Range::One => "^1",
                    Range::ExactlyTwo => "=2.0.0",
                };
                PackageSelector::Named(name.parse().unwrap(), range.parse().unwrap())
            }
        },
        user: match word.who {
            Who::One(user) => UserSelector::Principal(principal(user)),
            Who::Group(name) => UserSelector::Group(name.parse().unwrap()),
        },
        code: match word.code {
            Code::Exactly(number) => CodeSelector::Measurement(cast::code(number)),
            Code::AtLeast(number) => cast::from_version(number),
        },
        isolation: isolations[usize::from(word.isolation)],
        not_before: word.from,
        not_after: word.until,
        requests: word.left,
    };
    Signed::sign(&key(word.by), grant)
}

fn operation(by: u8, op: &Op, host: Time) -> Operation {
    match op {
        Op::Register => Operation::Register,
        Op::Unregister => Operation::Unregister,
        Op::Put(..) => unreachable!("it travels with a key"),
        Op::Delete(package) => Operation::DeletePackage(*package),
        Op::Grant(word) => Operation::Grant(signed(word).into_signed()),
        Op::Revoke(ids) => Operation::Revoke(ids.iter().map(|id| GrantId([*id; 16])).collect()),
        Op::PutGroup(name, revision, members) => {
            let members: Vec<u8> = members.iter().copied().collect();
            Operation::PutGroup(cast::group(&key(by), name, *revision, &members))
        }
        Op::DeleteGroup(name) => Operation::DeleteGroup((*name).to_owned()),
        Op::Rotate(package, at_once) => Operation::RotateAudience {
            package: *package,
            at_once: *at_once,
        },
        Op::Succeed(to) => Operation::Succeed(cast::succession(&key(by), &key(*to), host)),
        Op::RotateIdentity => Operation::RotateIdentity,
    }
}
