//! Two runtimes over one directory, and a key service that lets one of them hold a state.

use std::collections::HashMap;

use bield_capsule::{Change, GenerationKey, Suite, Writer, WriterCertificate};
use bield_envelope::{Secret, Seeded, Signed, SigningKey};
use bield_ledger::MemoryFiles;
use bield_package::{FunctionLimits, StateKeys};
use bield_protocol::refusal::Retry;

use super::*;
use crate::key_service::states::Begun;
use crate::leases::KeysError;
use crate::testing::PlayedClock;

pub(crate) const HOLD: Duration = Duration::from_secs(STATE_HOLD_SECS);

/// Who holds what, until when.
struct Service {
    key: SigningKey,
    clock: Arc<PlayedClock>,
    held: Mutex<HashMap<CapsuleName, Hold>>,
    asked: Mutex<u32>,
}

struct Hold {
    writer: WriterId,
    token: u64,
    ends: Duration,
    heads: Vec<Head>,
}

impl Service {
    fn ask(&self, request: &StateRequest) -> Result<Held, StateError> {
        *lock(&self.asked) += 1;
        let now = self.clock.running();
        let mut held = lock(&self.held);
        let entry = held.entry(request.capsule).or_insert(Hold {
            writer: request.writer,
            token: 0,
            ends: now,
            heads: Vec::new(),
        });
        if entry.writer != request.writer || entry.token == 0 {
            if !matches!(request.act, StateAct::Hold) {
                return Err(StateError::Taken);
            }
            if entry.ends > now {
                return Err(StateError::Held(entry.ends - now));
            }
            (entry.writer, entry.token) = (request.writer, entry.token + 1);
        }
        entry.ends = now + HOLD;
        if let StateAct::Anchor(anchors) | StateAct::Release(anchors) = &request.act {
            let gone = |head: &Head| {
                let own = anchors.heads.iter().any(|own| own.writer == head.writer);
                own || anchors.covered.contains(&head.writer)
            };
            entry.heads.retain(|head| !gone(head));
            entry.heads.extend(&anchors.heads);
        }
        if matches!(request.act, StateAct::Release(_)) {
            entry.ends = now;
        }
        Ok(Held {
            token: entry.token,
            ends: entry.ends.saturating_sub(Duration::from_secs(1)),
            heads: entry.heads.clone(),
        })
    }
}

/// The service, as one of the runtimes reaches it.
struct Asks(Arc<Service>);

impl StateKeeper for Asks {
    fn ask_states(
        &self,
        requests: &[StateRequest],
    ) -> Result<Vec<Result<Held, StateError>>, KeysError> {
        Ok(requests.iter().map(|request| self.0.ask(request)).collect())
    }

    fn begin_state(&self, hold: &StateRequest) -> Result<Result<Begun, StateError>, KeysError> {
        let held = match self.0.ask(hold) {
            Ok(held) => held,
            Err(error) => return Ok(Err(error)),
        };
        let now = self.0.clock.host();
        let certificate = WriterCertificate {
            capsule: hold.capsule,
            writer: hold.writer,
            code: None,
            simulated: false,
            not_before: now.minus(HOLD),
            not_after: now.plus(HOLD * 10_000),
        };
        let signed = Signed::sign(&self.0.key, certificate);
        Ok(Ok((held, signed.as_bytes().to_vec())))
    }
}

struct OneDisk(MemoryFiles);

impl Storage for OneDisk {
    fn files(&self) -> Box<dyn Files> {
        Box::new(self.0.clone())
    }
}

/// A function with a counter, and runtimes that may hold its state.
pub(crate) struct Stage {
    pub(crate) clock: Arc<PlayedClock>,
    service: Arc<Service>,
    pub(crate) disk: MemoryFiles,
    pub(crate) function: FunctionSpec,
}

impl Stage {
    pub(crate) fn new() -> Self {
        let clock = Arc::new(PlayedClock::new());
        let entropy = &mut Seeded::new(1);
        let key = SigningKey::from_seed(Secret::from_bytes([9; 32]));
        let owner = WriterKey::generate(Suite::Ed25519, entropy);
        let now = clock.host();
        let metadata = Metadata::new(owner.public(), None, now, entropy).unwrap();
        let generation = GenerationKey::generate(1, entropy);
        let changes = [
            Change::Certify(key.principal()),
            Change::Generation {
                number: 1,
                commitment: generation.commitment(&metadata),
            },
        ];
        let (_, config) = Writer::owner(owner, &metadata, &changes, now).unwrap();
        let mut ring = KeyRing::new();
        ring.insert(generation).unwrap();
        let state = StateSpec {
            metadata: metadata.as_bytes().to_vec(),
            keyring: StateKeys::new(&ring.encode_secret()),
            config: vec![config.into_bytes().into()],
        };
        Self {
            service: Arc::new(Service {
                key,
                clock: Arc::clone(&clock),
                held: Mutex::default(),
                asked: Mutex::default(),
            }),
            clock,
            disk: MemoryFiles::new(),
            function: FunctionSpec {
                component: [0; 32],
                limits: FunctionLimits::MAX,
                buckets: Vec::new(),
                models: Vec::new(),
                state: Some(state),
            },
        }
    }

    pub(crate) fn runtime(&self) -> States {
        States::new(
            Box::new(OneDisk(self.disk.clone())),
            Box::new(Asks(Arc::clone(&self.service))),
            Arc::clone(&self.clock) as _,
            false,
        )
    }

    pub(crate) fn lend(&self, runtime: &States) -> Result<Arc<HeldState>, Refusal> {
        self.lend_to(runtime, 1)
    }

    /// As [`lend`](Self::lend), for a package of that number, of an owner of that number.
    fn lend_to(&self, runtime: &States, number: u8) -> Result<Arc<HeldState>, Refusal> {
        let (owner, package) = ([number; 32], [number; 32]);
        let (owner, package) = (Principal::from_bytes(owner), Digest::from_bytes(package));
        let lent = runtime.lend(owner, package, &self.function);
        lent.map(Option::unwrap)
    }

    fn asked(&self) -> u32 {
        std::mem::take(&mut *lock(&self.service.asked))
    }
}

#[test]
fn while_another_holds_it_the_key_service_is_asked_once_a_second_and_says_for_how_long() {
    let stage = Stage::new();
    let (one, other) = (stage.runtime(), stage.runtime());
    drop(stage.lend(&one).unwrap());
    assert_eq!(stage.asked(), 1);
    let mut asked = 0;
    for tenth in 0..40_u64 {
        let refusal = stage.lend(&other).err().unwrap();
        let left = 30_000 - 100 * tenth;
        let expected = ("state-held", Retry::After(left));
        assert_eq!((&*refusal.code, refusal.retry), expected);
        asked += stage.asked();
        stage.clock.pass(Duration::from_millis(100));
    }
    assert_eq!(asked, 4);
    // The holder lets go: within a second, the other has it.
    one.let_all_go(Duration::ZERO);
    stage.clock.pass(ELSEWHERE);
    stage.lend(&other).unwrap();
    let refused = stage.lend(&one).err().unwrap();
    assert_eq!(refused.code, "state-held");
}

#[test]
fn after_a_holder_that_died_the_next_one_has_the_state_when_its_hold_is_over_and_not_before() {
    let stage = Stage::new();
    let (dead, next) = (stage.runtime(), stage.runtime());
    let held = stage.lend(&dead).unwrap();
    let before = held.state().heads();
    let mut waited = Duration::ZERO;
    let lent = loop {
        match stage.lend(&next) {
            Ok(lent) => break lent,
            Err(refusal) => {
                let Retry::After(millis) = refusal.retry else {
                    panic!("{refusal}");
                };
                let wait = Duration::from_millis(millis).min(ELSEWHERE);
                stage.clock.pass(wait);
                waited += wait;
            }
        }
    };
    assert_eq!(waited, HOLD);
    assert!(lent.state().request(&before).is_ok(), "it has all that was");
    // Whoever comes back from the dead answers nothing and anchors nothing.
    let late = of_files(&held.state().request(&[]).err().unwrap());
    assert_eq!(
        (&*late.code, late.retry),
        ("state-held", Retry::After(AGAIN_MS))
    );
    drop(held);
    dead.tend();
    assert_eq!(stage.lend(&dead).err().unwrap().code, "state-held");
}

/// Clocks drift: what is answered in a hold's last second might be answered when another holds the state.
#[test]
fn a_second_before_its_hold_ends_a_runtime_answers_nothing() {
    let stage = Stage::new();
    let one = stage.runtime();
    let held = stage.lend(&one).unwrap();
    let request = held.state().request(&[]).unwrap();
    stage.clock.pass(HOLD - Duration::from_secs(1));
    let late = request.finish().err().unwrap();
    assert_eq!(late, bield_state::StateError::HoldEnded);
    assert!(
        stage.lend(&stage.runtime()).is_err(),
        "nobody else has it yet"
    );
}

#[test]
fn a_state_that_is_used_for_a_moment_longer_is_let_go_behind_that() {
    let stage = Stage::new();
    let (ends, next) = (stage.runtime(), stage.runtime());
    let used = stage.lend(&ends).unwrap();
    let before = used.state().heads();
    thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(Duration::from_millis(100));
            drop(used);
        });
        ends.let_all_go(Duration::from_secs(30));
    });
    let held = stage.lend(&next).unwrap();
    assert!(held.state().request(&before).is_ok());
    // In use for longer, it stays, and the hold runs out by itself.
    next.let_all_go(Duration::from_millis(20));
    assert_eq!(stage.lend(&ends).err().unwrap().code, "state-held");
}

#[test]
fn another_owner_who_names_the_same_capsule_neither_gets_nor_ends_what_is_open() {
    let stage = Stage::new();
    let runtime = stage.runtime();
    let held = stage.lend(&runtime).unwrap();
    let refused = stage.lend_to(&runtime, 2).err().unwrap();
    assert_eq!(refused.code, "state-held", "that is the key service's word");
    let again = stage.lend(&runtime).unwrap();
    assert!(Arc::ptr_eq(&held, &again));
    held.state().request(&[]).unwrap().finish().unwrap();
}
