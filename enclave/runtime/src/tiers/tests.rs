//! Two engines that say which of them computed, on one real model; what the second does, each test decides.

use std::sync::{Condvar, Mutex};
use std::time::Duration;

use bield_engine::{Engine, EngineError, Engines, Footprint, Model, Rten};
use bield_grant::Isolation;
use bield_package::ModelFormat;
use bield_package::tensor::{Tensor, TensorSpec};
use bield_protocol::call::Reply;
use bield_protocol::inference;
use bield_protocol::refusal::Refusal;

use super::*;
use crate::call::Runtime;
use crate::flights::lock;
use crate::testing::{Shelf, Stage};

mod bounds;
mod claims;

const MIB: u64 = 1 << 20;

/// rten under a name, whose loads and runs a test can hold up or spoil.
struct Named {
    name: &'static str,
    inner: Rten,
    script: Arc<Script>,
}

#[derive(Default)]
struct Script {
    state: Mutex<Acts>,
    changed: Condvar,
}

#[derive(Default, Clone, Copy)]
struct Acts {
    /// Loads wait until this is taken back.
    held: bool,
    fails: Option<Failure>,
    loads: u32,
    runs: u32,
    /// What copies say that they take.
    resident: u64,
    /// Copies that exist now.
    alive: u32,
}

impl Acts {
    /// Loads so far, and copies that exist now.
    fn copies(self) -> (u32, u32) {
        (self.loads, self.alive)
    }
}

#[derive(Clone, Copy)]
enum Failure {
    Load,
    Panic,
    /// Its answers are others than the owner's.
    Answers,
}

impl Script {
    fn change(&self, change: impl FnOnce(&mut Acts)) {
        change(&mut lock(&self.state));
        self.changed.notify_all();
    }

    fn now(&self) -> Acts {
        *lock(&self.state)
    }

    fn wait(&self, until: impl Fn(&Acts) -> bool) -> Acts {
        let state = lock(&self.state);
        *self.changed.wait_while(state, |acts| !until(acts)).unwrap()
    }
}

impl Engine for Named {
    fn name(&self) -> &'static str {
        self.name
    }

    fn load(&self, bytes: Vec<u8>, format: ModelFormat) -> Result<Box<dyn Model>, EngineError> {
        self.script.change(|acts| acts.loads += 1);
        let acts = self.script.wait(|acts| !acts.held);
        match acts.fails {
            Some(Failure::Panic) => panic!("on purpose"),
            Some(Failure::Load) => {
                let (engine, reason) = (self.name, "on purpose".to_owned());
                return Err(EngineError::Load { engine, reason });
            }
            _ => {}
        }
        let inner = self.inner.load(bytes, format)?;
        self.script.change(|acts| acts.alive += 1);
        Ok(Box::new(NamedModel {
            name: self.name,
            inner,
            script: Arc::clone(&self.script),
            is_wrong: matches!(acts.fails, Some(Failure::Answers)),
        }))
    }

    fn footprint(&self, _: ModelFormat, _: u64) -> Footprint {
        let (loading, resident) = match self.name {
            FIRST => (2 * MIB, MIB),
            _ => (5 * MIB, 4 * MIB),
        };
        Footprint { loading, resident }
    }
}

struct NamedModel {
    name: &'static str,
    inner: Box<dyn Model>,
    script: Arc<Script>,
    is_wrong: bool,
}

impl Model for NamedModel {
    fn engine(&self) -> &'static str {
        self.name
    }

    fn inputs(&self) -> &[TensorSpec] {
        self.inner.inputs()
    }

    fn outputs(&self) -> &[TensorSpec] {
        self.inner.outputs()
    }

    fn run_timed(
        &self,
        inputs: &[Tensor],
        outputs: &[&str],
    ) -> Result<(Vec<Tensor>, Option<Duration>), EngineError> {
        self.script.change(|acts| acts.runs += 1);
        let (mut answer, opened) = self.inner.run_timed(inputs, outputs)?;
        if self.is_wrong {
            answer[0] = Tensor::from_f32("probs", &[1, 3], &[9.0; 3]).unwrap();
        }
        Ok((answer, opened))
    }

    fn resident_bytes(&self) -> Option<u64> {
        Some(self.script.now().resident)
    }

    fn wipes(&self) -> bool {
        self.name == FIRST
    }
}

impl Drop for NamedModel {
    fn drop(&mut self) {
        self.script.change(|acts| acts.alive -= 1);
    }
}

const FIRST: &str = "quick";
const SECOND: &str = "better";

struct Play {
    stage: Stage,
    runtime: Runtime,
    first: Arc<Script>,
    second: Arc<Script>,
    next_id: std::sync::atomic::AtomicU8,
}

/// A play in which second tiers are opened when a test says so.
struct ByHand {
    play: Play,
    opener: Opener,
    seconds: Receiver<Second>,
}

impl ByHand {
    fn new(models: u64) -> Self {
        let (mut play, opener) = Play::prepared(models);
        let (due, seconds) = sync_channel(WAITING_MAX);
        let models = Arc::clone(&play.runtime.models);
        play.runtime.tiers = Some(Tiers { due, models });
        Self {
            play,
            opener,
            seconds,
        }
    }

    /// Opens the one that waits; whether there was one.
    fn open(&self) -> bool {
        let waits = self.seconds.try_recv();
        waits.map(|second| self.opener.open_one(&second)).is_ok()
    }
}

impl Play {
    fn new(models: u64) -> Self {
        let (mut play, opener) = Self::prepared(models);
        play.runtime.tiers = Some(Tiers::start(opener).unwrap());
        play
    }

    /// A play before anybody opens second tiers.
    fn prepared(models: u64) -> (Self, Opener) {
        let stage = Stage::new(Shelf::stocked());
        let (first, second) = (Arc::<Script>::default(), Arc::<Script>::default());
        let engine = |name, script: &Arc<Script>| -> Box<dyn Engine> {
            Box::new(Named {
                name,
                inner: Rten::new(1),
                script: Arc::clone(script),
            })
        };
        let engines = vec![engine(SECOND, &second), engine(FIRST, &first)];
        let runtime = stage.runtime(Engines::new(engines).tiered(), models);
        let opener = Opener {
            loader: Arc::clone(&runtime.loader),
            models: Arc::clone(&runtime.models),
            tenancy: Arc::clone(&runtime.tenancy),
            counts: Arc::clone(&runtime.metrics.tiers),
            patience: Patience::default(),
        };
        let play = Self {
            stage,
            runtime,
            first,
            second,
            next_id: 1.into(),
        };
        (play, opener)
    }

    /// The engine that answered, as the host is told.
    fn call(&self) -> String {
        self.answer().unwrap()
    }

    fn answer(&self) -> Result<String, Refusal> {
        let id = self.next_id.fetch_add(1, Ordering::SeqCst);
        let (sealed, opener) = self.stage.cast.request(self.stage.package, id);
        let Reply::Sealed(told, answer) = self.runtime.answer(&sealed, &|| false) else {
            panic!("not sealed");
        };
        let reply = inference::Reply::decode(&opener.open(&answer).unwrap()).unwrap();
        match reply {
            inference::Reply::Answered(_) => Ok(told.engine.unwrap()),
            inference::Reply::Refused(refusal) => Err(refusal),
            _ => panic!("neither answered nor refused"),
        }
    }

    fn counted(&self) -> (u64, u64) {
        let counts = &self.runtime.metrics.tiers;
        (
            counts.swapped.load(Ordering::Relaxed),
            counts.failed.load(Ordering::Relaxed),
        )
    }

    /// Waits until the second tier of a model came or failed.
    fn settled(&self) -> (u64, u64) {
        while self.counted() == (0, 0) {
            thread::sleep(Duration::from_millis(1));
        }
        self.counted()
    }

    fn used(&self) -> u64 {
        self.runtime.models.counts().used_bytes
    }
}

#[test]
fn the_first_engine_answers_until_the_better_one_has_opened_the_model() {
    let play = Play::new(64 * MIB);
    play.second.change(|acts| acts.held = true);
    assert_eq!(play.call(), FIRST);
    play.second.wait(|acts| acts.loads == 1);
    for _ in 0..3 {
        assert_eq!(play.call(), FIRST);
        assert_eq!(
            play.used(),
            6 * MIB,
            "both are counted while both are there"
        );
    }
    play.second.change(|acts| acts.held = false);
    assert_eq!(play.settled(), (1, 0));
    assert_eq!(play.call(), SECOND);
    assert_eq!(play.used(), 4 * MIB);
    play.first.wait(|acts| acts.alive == 0);
    assert_eq!(play.runtime.models.counts().resident, 1);
}

#[test]
fn a_second_tier_that_fails_is_counted_and_the_first_goes_on() {
    for failure in [Failure::Load, Failure::Panic, Failure::Answers] {
        let play = Play::new(64 * MIB);
        play.second.change(|acts| acts.fails = Some(failure));
        assert_eq!(play.call(), FIRST);
        assert_eq!(play.settled(), (0, 1));
        assert_eq!(play.call(), FIRST);
        assert_eq!(play.used(), MIB, "what it had reserved is free again");
        play.second.wait(|acts| acts.alive == 0);
        // The next model's second tier comes all the same.
        play.second.change(|acts| acts.fails = None);
        play.runtime.models.forget_all();
        assert_eq!(play.call(), FIRST);
        play.second.wait(|acts| acts.alive == 1);
    }
}

#[test]
fn what_the_first_engine_cannot_load_is_loaded_by_the_one_that_is_chosen_for_it() {
    for failure in [Failure::Load, Failure::Answers] {
        let play = Play::new(64 * MIB);
        play.first.change(|acts| acts.fails = Some(failure));
        assert_eq!(play.call(), SECOND);
        assert_eq!(play.used(), 4 * MIB);
        play.first.wait(|acts| (acts.loads, acts.alive) == (1, 0));
    }
}

#[test]
fn without_memory_for_both_the_better_engine_answers_alone() {
    let play = Play::new(5 * MIB);
    assert_eq!(play.call(), SECOND);
    play.first.wait(|acts| acts.loads == 0);
    let play = Play::new(6 * MIB);
    assert_eq!(
        play.call(),
        FIRST,
        "the control: with a little more, both fit"
    );
}

#[test]
fn a_package_that_somebody_may_use_wiped_has_one_engine() {
    let play = Play::new(64 * MIB);
    let grants = [Isolation::Shared, Isolation::Wiped]
        .map(|isolation| play.stage.cast.grant(play.stage.package, isolation));
    play.stage.service.mind().grants = Some(grants.to_vec());
    assert_eq!(play.answer().unwrap_err().code, "isolation-unsupported");
    play.first.wait(|acts| acts.loads == 0);
}

#[test]
fn a_model_that_made_room_meanwhile_does_not_come_back() {
    let by_hand = ByHand::new(64 * MIB);
    let (play, opener) = (&by_hand.play, &by_hand.opener);
    play.second.change(|acts| acts.held = true);
    assert_eq!(play.call(), FIRST);
    let second = by_hand.seconds.try_recv().unwrap();
    thread::scope(|scope| {
        let opening = scope.spawn(move || opener.open_one(&second));
        play.second.wait(|acts| acts.loads == 1);
        play.runtime.models.forget_all();
        play.second.change(|acts| acts.held = false);
        opening.join().unwrap();
    });
    assert_eq!((play.counted(), play.used()), ((0, 0), 0));
    assert_eq!(play.runtime.models.counts().resident, 0);
    assert_eq!(play.second.now().copies(), (1, 0));
}

#[test]
fn callers_see_one_engine_and_then_the_other_and_never_a_failure() {
    let play = Play::new(64 * MIB);
    play.second.change(|acts| acts.held = true);
    assert_eq!(play.call(), FIRST);
    play.second.wait(|acts| acts.loads == 1);
    let seen: Vec<Vec<String>> = thread::scope(|scope| {
        let callers: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| (0..40).map(|_| play.call()).collect()))
            .collect();
        // Runs are under way when it takes over.
        play.second.change(|acts| acts.held = false);
        callers.into_iter().map(|c| c.join().unwrap()).collect()
    });
    for engines in seen {
        let firsts = engines.iter().take_while(|engine| *engine == FIRST).count();
        assert!(engines[firsts..].iter().all(|engine| engine == SECOND));
    }
    assert_eq!(play.settled(), (1, 0));
    assert_eq!(play.call(), SECOND);
    assert_eq!(play.used(), 4 * MIB);
    play.first.wait(|acts| acts.alive == 0);
}
