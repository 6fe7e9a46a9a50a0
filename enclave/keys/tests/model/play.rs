//! One case: a service, what may be true of it, and chance.
//!
//! ```text
//! chance ──▶ order, replay, swap, crash, clock ──▶ service ──▶ reply ──▶ models that agree stay
//!                                                    └──▶ leases, admissions, lists, audits: the same
//! ```
//!
//! Always true: at least one model agrees with all that was answered since the last start; there is more
//! than one only after an answer that left open whether a change counts.

mod chance;
mod keeping;
mod looking;
mod saying;

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
}

/// Whether the answer leaves open if the change counts.
fn is_open(answer: &Result<(), String>) -> bool {
    answer == &Err("not-durable".to_owned())
}
