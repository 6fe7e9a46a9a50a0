//! The states of functions that this runtime holds.
//!
//! ```text
//! lend(package, spec) ─▶ held? ─▶ Arc<HeldState>
//!                          └ no ─▶ single flight: fresh writer ─▶ key service: hold, certify ─▶ files ─▶ State::open
//! tend() ─▶ what changed is anchored, what is used is held on, what is idle is let go
//! ```
//!
//! In: the state's part of a function's manifest, and the host's storage. Out: open states. Always true: a state is opened
//! only while the key service says that this runtime holds it, and from files that reach all that is anchored; what was
//! lost to another runtime is closed and opened anew; every start of a state writes under a key of its own.
//!
//! Not here: what the files hold (`bield-state`), what a request may do (`world`).
//!
//! On paper: an opening costs one attested session and the log behind the newest checkpoint; while a state is used, one
//! session every [`ANCHOR_EVERY`] for all states together.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use bield_capsule::{CapsuleName, Head, KeyRing, Metadata, VerifierPolicy, WriterId, WriterKey};
use bield_envelope::{Digest, Principal, Time};
use bield_ledger::Files;
use bield_package::{FunctionSpec, StateSpec};
use bield_platform::Randomness;
use bield_protocol::refusal::Refusal;
use bield_protocol::service::{Anchors, STATE_HOLD_SECS, StateAct, StateRequest};
use bield_state::{Author, Bucket, Clocks, Opening, Settings, State};

use crate::clock::Clock;
use crate::flights::{Flights, lock};
use crate::key_service::states::{Held, StateError, StateKeeper};

mod refused;
mod storage;
#[cfg(test)]
pub(crate) mod tests;

pub(crate) use refused::of_files;
use refused::{closing, damaged, full, no_keeper, not_held};
pub(crate) use storage::{HostStorage, Storage};

/// How often what changed is anchored while it goes on changing: what a host can hide from somebody who never saw it.
const ANCHOR_EVERY: Duration = Duration::from_secs(5);
/// What changed and then rests is anchored after this.
const ANCHOR_REST: Duration = Duration::from_secs(1);
/// A state that is not asked for is let go after this, so that another runtime can hold it.
const IDLE: Duration = Duration::from_secs(60);
/// A state whose writer's certificate ends within this is opened anew.
const WRITER_ENDS: Duration = Duration::from_secs(300);
/// How long a hold may be old before it is said again.
const HOLD_AGAIN: Duration = Duration::from_secs(STATE_HOLD_SECS / 3);
/// How long a state that was lost may be in use before it is opened anew.
const CLOSE_WAIT: Duration = Duration::from_secs(10);
/// Between two looks at that.
const CLOSE_PAUSE: Duration = Duration::from_millis(5);
/// Most states held at once.
const STATES_MAX: usize = 256;
/// How long it is taken for true that another runtime holds a state, however many ask.
const ELSEWHERE: Duration = Duration::from_secs(1);
/// When to send a request again whose state is not reached for now, in milliseconds.
const AGAIN_MS: u64 = 1000;

/// The states that are held.
pub(crate) struct States {
    storage: Box<dyn Storage>,
    keeper: Box<dyn StateKeeper>,
    clock: Arc<dyn Clock>,
    /// Whether this runtime, and so the key service's word for it, comes from a software TEE.
    simulated: bool,
    held: Mutex<HashMap<Place, Arc<HeldState>>>,
    elsewhere: Mutex<HashMap<Place, Elsewhere>>,
    flights: Flights<Result<Arc<HeldState>, Refusal>>,
}

/// Whose state, and which: what a package says of a capsule is its owner's word alone, so one owner's package that names
/// another's capsule reaches nothing of it.
type Place = (Principal, CapsuleName);

/// What the key service said of a state that another runtime holds; by the running clock.
struct Elsewhere {
    asked: Duration,
    /// When that hold ends unless it is prolonged.
    ends: Duration,
}

/// An open state and the hold of it.
pub(crate) struct HeldState {
    state: State,
    owner: Principal,
    capsule: CapsuleName,
    package: Digest,
    writer: WriterId,
    token: u64,
    kept: Mutex<Kept>,
    /// Another runtime has it, or the files failed: nothing more is begun here.
    is_lost: AtomicBool,
}

/// What the key service knows, and when this was asked for last; by the running clock.
struct Kept {
    ends: Duration,
    said: Duration,
    anchored: Vec<Head>,
    changed: Option<Duration>,
    used: Duration,
}

/// The two clocks of this program, as a state reads them.
struct StateClocks(Arc<dyn Clock>);

impl Clocks for StateClocks {
    fn now(&self) -> Time {
        self.0.host()
    }

    fn running(&self) -> Duration {
        self.0.running()
    }
}

impl HeldState {
    /// The state, while it is held.
    ///
    /// # Errors
    /// The hold is over: ask for the state anew.
    pub(crate) fn state(&self) -> &State {
        &self.state
    }

    const fn place(&self) -> Place {
        (self.owner, self.capsule)
    }

    /// The capsule that it is.
    pub(crate) const fn capsule(&self) -> CapsuleName {
        self.capsule
    }

    /// Notes that something went wrong with it: it is opened anew.
    pub(crate) fn give_up(&self) {
        self.is_lost.store(true, Ordering::Relaxed);
    }

    fn is_held(&self, now: Duration) -> bool {
        !self.is_lost.load(Ordering::Relaxed) && now < lock(&self.kept).ends
    }

    fn request(&self, act: StateAct) -> StateRequest {
        StateRequest {
            package: self.package,
            capsule: self.capsule,
            writer: self.writer,
            act,
        }
    }
}

impl States {
    pub(crate) fn new(
        storage: Box<dyn Storage>,
        keeper: Box<dyn StateKeeper>,
        clock: Arc<dyn Clock>,
        simulated: bool,
    ) -> Self {
        Self {
            storage,
            keeper,
            clock,
            simulated,
            held: Mutex::default(),
            elsewhere: Mutex::default(),
            flights: Flights::new(),
        }
    }

    /// The host's files, for one more user.
    pub(super) fn files(&self) -> Box<dyn Files> {
        self.storage.files()
    }

    /// Lends the state of a function of `owner`, opened if need be.
    ///
    /// # Errors
    /// `state-held` when another runtime holds it; `state-rolled-back`, `state-damaged` and others when its files are not
    /// what was anchored or not whole; `state-unreachable` when the key service or the host's storage do not answer.
    pub(crate) fn lend(
        &self,
        owner: Principal,
        package: Digest,
        function: &FunctionSpec,
    ) -> Result<Option<Arc<HeldState>>, Refusal> {
        let Some(spec) = &function.state else {
            return Ok(None);
        };
        let metadata = Metadata::decode(&spec.metadata).map_err(|error| damaged(&error))?;
        let place = (owner, metadata.name());
        if let Some(held) = self.held(place, package) {
            return Ok(Some(held));
        }
        let parts = [&owner.as_bytes()[..], place.1.as_bytes()];
        let key = Digest::of("bield state of an owner v1", &parts);
        let open = || {
            if let Some(held) = self.held(place, package) {
                return Ok(held);
            }
            self.is_free(place)?;
            self.close(place)?;
            let buckets = function
                .buckets
                .iter()
                .map(super::world::declared)
                .collect();
            // Before it is held: one that is dropped again would be another runtime's for as long as the hold lasts.
            if lock(&self.held).len() >= STATES_MAX {
                return Err(full());
            }
            let held = Arc::new(self.open(owner, package, metadata.clone(), spec, buckets)?);
            lock(&self.held).insert(place, Arc::clone(&held));
            Ok(held)
        };
        // Who waited for another version's opening opens it for its own.
        for _ in 0..2 {
            let opened = self.flights.join(key, &open)?;
            if opened.package == package {
                return Ok(Some(opened));
            }
        }
        Err(closing())
    }

    /// The state, if it is open for this version of its function and stays so for a request.
    fn held(&self, place: Place, package: Digest) -> Option<Arc<HeldState>> {
        let now = self.clock.running();
        let held = Arc::clone(lock(&self.held).get(&place)?);
        let until = self.clock.host().plus(WRITER_ENDS);
        let ends = held.state.ends().is_some_and(|end| end <= until);
        if ends || held.package != package || !held.is_held(now) {
            return None;
        }
        lock(&held.kept).used = now;
        Some(held)
    }

    /// Whether nobody else was said to hold a state a moment ago: while many ask for one that another runtime holds, the
    /// key service is asked once in [`ELSEWHERE`].
    fn is_free(&self, place: Place) -> Result<(), Refusal> {
        let now = self.clock.running();
        let mut elsewhere = lock(&self.elsewhere);
        elsewhere.retain(|_, said| now < said.ends.min(said.asked + ELSEWHERE));
        match elsewhere.get(&place) {
            Some(said) => Err(not_held(&StateError::Held(said.ends.saturating_sub(now)))),
            None => Ok(()),
        }
    }

    fn open(
        &self,
        owner: Principal,
        package: Digest,
        metadata: Metadata,
        spec: &StateSpec,
        buckets: Vec<Bucket>,
    ) -> Result<HeldState, Refusal> {
        let keys = KeyRing::decode(spec.keyring.expose()).map_err(|error| damaged(&error))?;
        let key = WriterKey::generate(metadata.suite(), &mut Randomness);
        let (capsule, writer) = (metadata.name(), key.id());
        let request = StateRequest {
            package,
            capsule,
            writer,
            act: StateAct::Hold,
        };
        let begun = self
            .keeper
            .begin_state(&request)
            .map_err(|error| no_keeper(&error))?;
        if let Err(StateError::Held(wait)) = &begun {
            let asked = self.clock.running();
            let ends = asked + *wait;
            lock(&self.elsewhere).insert((owner, capsule), Elsewhere { asked, ends });
        }
        let (Held { token, ends, heads }, certificate) = begun.map_err(|error| not_held(&error))?;
        let opening = Opening {
            metadata,
            config: spec.config.iter().map(|record| record.to_vec()).collect(),
            keys,
            policy: VerifierPolicy {
                allow_simulated: self.simulated,
                ..VerifierPolicy::default()
            },
            author: Author {
                key,
                certificate: Some(certificate),
            },
            token,
            held: ends,
            anchored: heads.clone(),
            buckets,
            files: self.storage.files(),
            reads: self.storage.files(),
            clocks: Arc::new(StateClocks(Arc::clone(&self.clock))),
            entropy: [Box::new(Randomness), Box::new(Randomness)],
            settings: Settings::default(),
        };
        let now = self.clock.running();
        let state = State::open(opening).map_err(|error| {
            // Whoever can open it need not wait for this hold to end.
            let nothing = Anchors {
                token,
                ..Anchors::default()
            };
            let release = StateRequest {
                act: StateAct::Release(nothing),
                ..request
            };
            let _ = self.keeper.ask_states(&[release]);
            of_files(&error)
        })?;
        Ok(HeldState {
            state,
            owner,
            capsule,
            package,
            writer,
            token,
            kept: Mutex::new(Kept {
                ends,
                said: now,
                anchored: heads,
                changed: None,
                used: now,
            }),
            is_lost: AtomicBool::new(false),
        })
    }

    /// Lets a state go that another version is to have, or that was lost, once whoever uses it has ended: its last records
    /// belong to what is read when it is opened anew. While it is held it is released, so that nobody waits for the hold
    /// to run out.
    ///
    /// # Errors
    /// Whoever uses it goes on for too long.
    fn close(&self, place: Place) -> Result<(), Refusal> {
        let Some(mut held) = lock(&self.held).remove(&place) else {
            return Ok(());
        };
        let is_held = held.is_held(self.clock.running());
        held.give_up();
        let until = Instant::now() + CLOSE_WAIT;
        let held = loop {
            held = match Arc::try_unwrap(held) {
                Ok(held) => break held,
                Err(used) => used,
            };
            if Instant::now() > until {
                // Whoever asks next waits for the same, and does not open it beside those who use it.
                lock(&self.held).insert(place, held);
                return Err(closing());
            }
            thread::sleep(CLOSE_PAUSE);
        };
        if is_held {
            self.release(held);
        }
        Ok(())
    }

    /// Anchors what changed, holds on to what is used, lets go what is idle. Waits for the key service, not for calls.
    pub(crate) fn tend(&self) {
        let now = self.clock.running();
        let states: Vec<_> = lock(&self.held).values().cloned().collect();
        let mut asked = Vec::new();
        for held in states {
            if held.is_lost.load(Ordering::Relaxed) {
                let place = held.place();
                drop(held);
                self.drop_unused(place);
                continue;
            }
            let (is_due, is_idle) = held.due(now);
            if is_idle {
                let place = held.place();
                drop(held);
                self.let_go(place);
            } else if is_due {
                match held.anchors() {
                    Ok(anchors) => asked.push((held, anchors)),
                    Err(_) => held.give_up(),
                }
            }
        }
        let requests: Vec<_> = asked
            .iter()
            .map(|(held, anchors)| held.request(StateAct::Anchor(anchors.clone())))
            .collect();
        if requests.is_empty() {
            return;
        }
        // While it cannot be asked, holds run out and nothing is answered from their states.
        let Ok(answers) = self.keeper.ask_states(&requests) else {
            return;
        };
        for ((held, anchors), answer) in asked.iter().zip(answers) {
            match answer {
                Ok(kept) => held.keep(now, kept, anchors),
                Err(StateError::TooOften(_)) => {}
                Err(_) => held.give_up(),
            }
        }
    }

    /// Drops a state that was lost, unless a request still ends on it: whoever opens it anew waits for that.
    fn drop_unused(&self, place: Place) {
        let mut table = lock(&self.held);
        let unused = table
            .get(&place)
            .is_some_and(|held| Arc::strong_count(held) == 1);
        let held = unused.then(|| table.remove(&place));
        drop(table);
        drop(held);
    }

    /// Closes everything, so that the next holders wait for nobody; what is still in use after `wait` stays.
    pub(crate) fn let_all_go(&self, wait: Duration) {
        let until = Instant::now() + wait;
        loop {
            self.let_go_but(&|_| false);
            if lock(&self.held).is_empty() || Instant::now() >= until {
                return;
            }
            thread::sleep(CLOSE_PAUSE);
        }
    }

    /// Closes the states of packages that are not to stay, but for those in use.
    pub(crate) fn let_go_but(&self, stays: &dyn Fn(Digest) -> bool) {
        let table = lock(&self.held);
        let going = table.values().filter(|held| !stays(held.package));
        let going: Vec<_> = going.map(|held| held.place()).collect();
        drop(table);
        for place in going {
            self.let_go(place);
        }
    }

    /// Closes a state that nobody uses and tells the key service; one in use stays, since what its requests write after
    /// a release would count for nobody.
    fn let_go(&self, place: Place) {
        let mut table = lock(&self.held);
        if table
            .get(&place)
            .is_none_or(|held| Arc::strong_count(held) > 1)
        {
            return;
        }
        // Lent under this lock only.
        let Some(held) = table.remove(&place).and_then(Arc::into_inner) else {
            return;
        };
        drop(table);
        self.release(held);
    }

    /// Closes a state and tells the key service where it ended; who opens it next need not wait.
    fn release(&self, held: HeldState) {
        let (capsule, package, writer, token) =
            (held.capsule, held.package, held.writer, held.token);
        if let Ok(anchoring) = held.state.close() {
            let anchors = Anchors {
                token,
                heads: anchoring.heads,
                covered: anchoring.covered,
            };
            let released = StateRequest {
                package,
                capsule,
                writer,
                act: StateAct::Release(anchors),
            };
            let _ = self.keeper.ask_states(&[released]);
        }
    }
}

impl HeldState {
    /// Whether it is time to anchor it, and whether nobody used it lately.
    fn due(&self, now: Duration) -> (bool, bool) {
        let heads = self.state.heads();
        let mut kept = lock(&self.kept);
        // Those of earlier holders do not move any more, and the own chain stands for them.
        let own = heads.iter().find(|head| head.writer == self.writer);
        let is_anchored = own.is_none_or(|own| kept.anchored.contains(own));
        if is_anchored {
            kept.changed = None;
        } else if kept.changed.is_none() {
            kept.changed = Some(now);
        }
        let since_use = now.saturating_sub(kept.used);
        let rests = since_use >= ANCHOR_REST;
        let changed = kept
            .changed
            .is_some_and(|changed| rests || now.saturating_sub(changed) >= ANCHOR_EVERY);
        let old = now.saturating_sub(kept.said) >= HOLD_AGAIN;
        (changed || old, since_use >= IDLE)
    }

    fn anchors(&self) -> Result<Anchors, bield_state::StateError> {
        let anchoring = self.state.anchoring()?;
        Ok(Anchors {
            token: self.token,
            heads: anchoring.heads,
            covered: anchoring.covered,
        })
    }

    fn keep(&self, said: Duration, held: Held, anchors: &Anchors) {
        self.state.hold(held.ends);
        self.state.anchored(&anchors.heads);
        let mut kept = lock(&self.kept);
        kept.ends = held.ends;
        kept.said = said;
        kept.anchored.clone_from(&anchors.heads);
        kept.changed = None;
    }
}
