//! Witnesses in the same process: silent, ahead, lying; what counts as cosigned.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;

use bield_envelope::{Secret, Time};
use bield_tlog::{Checkpoint, LogKey, LogVerifier, Origin, Tree, Witness, WitnessKey};

use super::*;

impl Pipe for UnixStream {
    fn limit_waits(&self, wait: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(wait))?;
        self.set_write_timeout(Some(wait))
    }
}

/// Witnesses in this process, each behind a socket pair and a thread; some do not answer.
pub(crate) struct Village {
    witnesses: BTreeMap<u8, Arc<Mutex<Witness>>>,
    silent: Mutex<Vec<u8>>,
}

impl Village {
    pub(crate) fn of(count: u8, log: &LogVerifier) -> Arc<Self> {
        let made =
            (0..count).map(|number| (number, Arc::new(Mutex::new(Witness::new(key(number))))));
        let village = Self {
            witnesses: made.collect(),
            silent: Mutex::default(),
        };
        village.follow(log);
        Arc::new(village)
    }

    /// All of them follow this log, too.
    pub(crate) fn follow(&self, log: &LogVerifier) {
        for witness in self.witnesses.values() {
            let origin: Origin = log.name().into();
            lock(witness)
                .follow(origin, vec![log.clone()], None)
                .unwrap();
        }
    }

    pub(crate) fn silence(&self, numbers: &[u8]) {
        *lock(&self.silent) = numbers.to_vec();
    }
}

pub(crate) fn key(number: u8) -> WitnessKey {
    let name = format!("w{number}.example").parse().unwrap();
    WitnessKey::new(name, &Secret::from_bytes([100 + number; 32]))
}

impl Dial for Village {
    fn dial(&self, witness: u8) -> Result<Box<dyn Pipe>, String> {
        if lock(&self.silent).contains(&witness) {
            return Err("it cannot be reached".into());
        }
        let (near, far) = UnixStream::pair().unwrap();
        let witness = Arc::clone(&self.witnesses[&witness]);
        std::thread::spawn(move || answer(&witness, far));
        Ok(Box::new(near))
    }
}

/// Answers one request and closes, as a witness that keeps no connection does.
fn answer(witness: &Mutex<Witness>, mut far: UnixStream) {
    let mut text = String::new();
    let mut byte = [0; 512];
    let body = loop {
        let Ok(count @ 1..) = far.read(&mut byte) else {
            return;
        };
        text.push_str(std::str::from_utf8(&byte[..count]).unwrap());
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let length = head.split("content-length: ").nth(1).unwrap();
        if body.len() == length.trim().parse::<usize>().unwrap() {
            break body.to_owned();
        }
    };
    let mut witness = lock(witness);
    let (status, said) = match witness.decide(body.as_bytes(), Time::from_secs(1_800_000_000)) {
        Ok(cosign) => (200, cosign.persisted().to_string()),
        Err(refusal) => (refusal.status(), refusal.body()),
    };
    let head = format!(
        "HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n",
        said.len()
    );
    drop(far.write_all((head + &said).as_bytes()));
}

struct Log {
    key: LogKey,
    tree: Mutex<Tree>,
}

impl Proofs for Log {
    fn consistency(&self, old: u64, new: u64) -> Option<Vec<Hash>> {
        lock(&self.tree).consistency_proof(old, new).ok()
    }
}

impl Log {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            key: LogKey::new("log.example".parse().unwrap(), &Secret::from_bytes([1; 32])),
            tree: Mutex::default(),
        })
    }

    fn with(entries: &[&str]) -> Arc<Self> {
        let log = Self::new();
        log.grow(entries);
        log
    }

    fn grow(&self, entries: &[&str]) {
        for entry in entries {
            lock(&self.tree).append(entry.as_bytes());
        }
    }

    fn checkpoint(&self) -> VerifiedCheckpoint {
        let tree = lock(&self.tree);
        Checkpoint::new(self.key.verifier().name().into(), tree.size(), tree.root()).sign(&self.key)
    }
}

fn start(village: &Arc<Village>, needed: usize) -> Witnesses {
    let keys = village.witnesses.keys();
    let keys = keys.map(|number| key(*number).verifier().clone()).collect();
    let dial: Arc<dyn Dial> = Arc::clone(village) as _;
    Witnesses::start(keys, needed, &dial)
}

fn cosign(witnesses: &Witnesses, log: &Arc<Log>) -> Result<VerifiedCheckpoint, NotCosigned> {
    let proofs: Arc<dyn Proofs> = Arc::clone(log) as _;
    witnesses.cosign(log.checkpoint(), &proofs)
}

fn cosigners(checkpoint: &VerifiedCheckpoint) -> usize {
    let by = |number: &u8| {
        let last = key(*number).verifier().last_cosigned(checkpoint.note());
        last.unwrap().is_some()
    };
    (0..5).filter(by).count()
}

#[test]
fn a_growing_log_is_cosigned_at_each_size_and_again_at_the_same() {
    let log = Log::with(&["a", "b"]);
    let village = Village::of(3, log.key.verifier());
    let witnesses = start(&village, 2);
    assert!(cosigners(&cosign(&witnesses, &log).unwrap()) >= 2);
    assert!(cosigners(&cosign(&witnesses, &log).unwrap()) >= 2);
    log.grow(&["c", "d", "e"]);
    assert!(cosigners(&cosign(&witnesses, &log).unwrap()) >= 2);
}

#[test]
fn a_witness_that_was_away_catches_up_by_the_size_it_names() {
    let log = Log::with(&["a"]);
    let village = Village::of(3, log.key.verifier());
    let witnesses = start(&village, 3);
    cosign(&witnesses, &log).unwrap();
    village.silence(&[1]);
    log.grow(&["b", "c"]);
    let failed = cosign(&witnesses, &log).unwrap_err();
    let NotCosigned::TooFew {
        cosigned: 2,
        needed: 3,
        why,
    } = failed
    else {
        panic!("{failed}");
    };
    assert!(why.contains("w1.example"), "{why}");
    village.silence(&[]);
    log.grow(&["d"]);
    assert_eq!(cosigners(&cosign(&witnesses, &log).unwrap()), 3);
}

#[test]
fn a_log_that_was_set_back_is_told_how_far() {
    let log = Log::with(&["a", "b", "c", "d", "e"]);
    let village = Village::of(3, log.key.verifier());
    cosign(&start(&village, 2), &log).unwrap();
    let older = Log::with(&["a", "b"]);
    let refused = cosign(&start(&village, 2), &older).unwrap_err();
    assert!(
        matches!(refused, NotCosigned::RolledBack { behind: 3, .. }),
        "{refused}"
    );
}

#[test]
fn a_second_history_is_a_fork_also_at_the_same_size() {
    let log = Log::with(&["a", "b", "c"]);
    let village = Village::of(3, log.key.verifier());
    let witnesses = start(&village, 2);
    cosign(&witnesses, &log).unwrap();
    for other in [&["a", "b", "x"][..], &["a", "b", "x", "y"]] {
        let clone = Log::with(other);
        let refused = cosign(&start(&village, 2), &clone).unwrap_err();
        assert!(matches!(refused, NotCosigned::Forked { .. }), "{refused}");
    }
    log.grow(&["d"]);
    cosign(&witnesses, &log).unwrap();
}

#[test]
fn of_two_instances_that_go_on_from_one_state_one_stops() {
    let (one, two) = (Log::with(&["a"]), Log::with(&["a"]));
    let village = Village::of(3, one.key.verifier());
    let (first, second) = (start(&village, 2), start(&village, 2));
    cosign(&first, &one).unwrap();
    cosign(&second, &two).unwrap();
    one.grow(&["started as one"]);
    two.grow(&["started as two"]);
    cosign(&first, &one).unwrap();
    let refused = cosign(&second, &two).unwrap_err();
    assert!(matches!(refused, NotCosigned::Forked { .. }), "{refused}");
}

#[test]
fn a_cosignature_of_a_stranger_does_not_count() {
    let log = Log::with(&["a"]);
    let village = Village::of(3, log.key.verifier());
    let strangers = (3..6).map(|number| key(number).verifier().clone());
    let dial: Arc<dyn Dial> = Arc::clone(&village) as _;
    let witnesses = Witnesses::start(strangers.collect(), 2, &dial);
    let refused = cosign(&witnesses, &log).unwrap_err();
    assert!(
        matches!(refused, NotCosigned::TooFew { cosigned: 0, .. }),
        "{refused}"
    );
}
