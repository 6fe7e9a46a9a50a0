//! Requests for one model that run as one, each under its own deadline.
//!
//! ```text
//! request ─▶ an open group of its shape? ─ no ─▶ leads one: waits a moment ─▶ takes a turn ─▶ runs all ─┐
//!                 └ yes ─▶ joins it, and sleeps until its answer is there ◀────────────────────────────┘
//! ```
//!
//! A group is open until its leader's turn has come, so that what waits anyway waits together: the moment only matters when
//! nothing else runs, and nobody waits it who is alone in the program.
//!
//! Always true: only requests that may share everything (`shared`) come here, and those of several users run together only
//! where the measured configuration says so; a group has at most `requests_max`; nobody waits longer for its run to begin
//! than it said: a leader whose time is over hands over to the next; when a joint run fails, each request runs by itself, so
//! that one that fails is alone in it. A model is not believed to keep rows apart: its first [`PROOFS`] joint runs of
//! requests that differ are compared with single ones, which are what is answered, and after one difference it never runs
//! requests together again while it is loaded. That shows what happens by construction (a mean over the batch, one scale for
//! all of it), not what a model does on purpose with rare inputs.
//! A turn is its leader's; who rides along has not used its own. Not here: joining tensors (`bield_engine::run_together`).
//!
//! On paper: one lock in and one out, a wake-up for each who waited, one more copy of inputs and outputs.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use bield_engine::{EngineError, Model, Shape, agree, run_together};
use bield_envelope::Principal;
use bield_package::TOLERANCE_PPM;
use bield_package::tensor::Tensor;

use crate::flights::lock;
use crate::turns::{Late, Turn, Turns};

/// Joint runs of a model that are compared with single ones.
const PROOFS: u32 = 4;

/// What the configuration says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Batching {
    /// How long a leader waits for others before it takes its turn.
    pub(crate) wait: Duration,
    /// At least two.
    pub(crate) requests_max: usize,
    /// Whether requests of several users run together.
    pub(crate) across_users: bool,
}

/// What happened since start.
#[derive(Debug, Default)]
pub(crate) struct BatchCounts {
    /// Joint runs.
    pub(crate) batches: AtomicU64,
    /// Requests in them.
    pub(crate) requests: AtomicU64,
    /// The most in one.
    pub(crate) largest: AtomicU64,
    /// Joint runs that failed, after which each request ran by itself.
    pub(crate) retried: AtomicU64,
    /// Models that were found to answer differently, and run nothing together since.
    pub(crate) refused: AtomicU64,
}

/// A request that may run together with others of its shape.
pub(crate) struct Joins<'a> {
    pub(crate) user: Principal,
    pub(crate) shape: Shape,
    pub(crate) inputs: Vec<Tensor>,
    /// How long it may wait for its run to begin.
    pub(crate) wait: Duration,
    /// Whether nobody else is in the program, so that nobody can come to join soon.
    pub(crate) is_alone: bool,
    pub(crate) is_gone: &'a dyn Fn() -> bool,
}

/// What a run gave.
pub(crate) struct Ran {
    pub(crate) answer: Result<Vec<Tensor>, EngineError>,
    /// The joint run, or its own.
    pub(crate) run: Duration,
    /// What making the engine's state took.
    pub(crate) session: Option<Duration>,
}

/// Why a request did not run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotRun {
    /// Its turn did not come in time.
    Late,
    /// Who asked went away.
    Gone,
}

#[derive(Clone, Copy)]
struct Place {
    group: u64,
    member: u64,
}

/// How long a member waits, and for whom.
struct Wait<'a> {
    user: Principal,
    /// `None` for ever.
    until: Option<Instant>,
    gather_until: Instant,
    is_gone: &'a dyn Fn() -> bool,
}

impl Wait<'_> {
    fn left(&self) -> Duration {
        let left = |until: Instant| until.saturating_duration_since(Instant::now());
        self.until.map_or(Duration::MAX, left)
    }
}

/// Those who wait to run one loaded model, and its places for runs when it has few.
#[derive(Default)]
pub(crate) struct Lane(Mutex<State>, Option<Turns>);

#[derive(Default)]
struct State {
    verdict: Verdict,
    groups: HashMap<u64, Group>,
    /// Of groups and members.
    numbers: u64,
}

/// Whether the model answers the same for requests together as for each.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// It did so often.
    Unproven(u32),
    Same,
    Differs,
}

impl Default for Verdict {
    fn default() -> Self {
        Self::Unproven(0)
    }
}

struct Group {
    shape: Shape,
    /// Who opened it.
    user: Principal,
    members: Vec<Member>,
    has_leader: bool,
    has_begun: bool,
    /// Tells the leader that nobody else can join.
    filled: Arc<Condvar>,
    /// Tells the members that it ran, or that one of them leads it now.
    changed: Arc<Condvar>,
}

struct Member {
    number: u64,
    inputs: Vec<Tensor>,
    ran: Option<Ran>,
}

impl Lane {
    pub(crate) fn of(model: &dyn Model) -> Self {
        let most = model.runs_max();
        let places = (most < usize::MAX).then(|| Turns::new(most));
        Self(Mutex::default(), places)
    }

    /// Waits for a place to run the model, and then for a turn, together at most `wait`: a turn is not taken to wait for
    /// another run of the same model to end.
    ///
    /// # Errors
    /// [`Late`].
    pub(crate) fn take<'a>(
        &'a self,
        turns: &'a Turns,
        user: Principal,
        wait: Duration,
    ) -> Result<(Turn<'a>, Option<Turn<'a>>), Late> {
        let started = Instant::now();
        let place = self.1.as_ref().map(|places| places.take(user, wait));
        let place = place.transpose()?;
        let left = match wait {
            Duration::MAX => wait,
            wait => wait.saturating_sub(started.elapsed()),
        };
        Ok((turns.take(user, left)?, place))
    }

    /// Counts those who wait for a place.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> usize {
        self.1.as_ref().map_or(0, Turns::waiting)
    }

    /// Whether requests run together here, as far as is known.
    pub(crate) fn joins(&self) -> bool {
        lock(&self.0).verdict != Verdict::Differs
    }

    /// Counts those who wait here or run.
    #[cfg(test)]
    pub(crate) fn members(&self) -> usize {
        let state = lock(&self.0);
        state.groups.values().map(|group| group.members.len()).sum()
    }

    /// Runs a request on `model`, together with others if there are any.
    ///
    /// # Errors
    /// See [`NotRun`].
    pub(crate) fn run(
        &self,
        model: &dyn Model,
        request: Joins<'_>,
        turns: &Turns,
        (batching, counts): (&Batching, &BatchCounts),
    ) -> Result<Ran, NotRun> {
        let started = Instant::now();
        let wait = Wait {
            user: request.user,
            until: started.checked_add(request.wait),
            gather_until: match request.is_alone {
                true => started,
                false => started + batching.wait,
            },
            is_gone: request.is_gone,
        };
        let mut state = lock(&self.0);
        let place = state.join(request, batching);
        loop {
            let Some(group) = state.groups.get_mut(&place.group) else {
                // Never: a group stays as long as it has members.
                return Err(NotRun::Late);
            };
            if let Some(ran) = group.take_ran(place.member) {
                state.leave(place);
                return Ok(ran);
            }
            if !group.has_leader {
                group.has_leader = true;
                drop(state);
                return self.lead(model, place, &wait, turns, (batching, counts));
            }
            // Once it has begun, it ends.
            let until = wait.until.filter(|_| !group.has_begun);
            if until.is_some_and(|until| Instant::now() >= until) {
                state.leave(place);
                return Err(NotRun::Late);
            }
            let changed = Arc::clone(&group.changed);
            state = wait_on(&changed, state, until);
        }
    }

    /// Runs the group of `place` when its turn comes.
    fn lead(
        &self,
        model: &dyn Model,
        place: Place,
        wait: &Wait<'_>,
        turns: &Turns,
        (batching, counts): (&Batching, &BatchCounts),
    ) -> Result<Ran, NotRun> {
        self.gather(place, wait, batching.requests_max);
        let turn = self.take(turns, wait.user, wait.left());
        let mut state = lock(&self.0);
        let not_run = match turn {
            Err(_) => Some(NotRun::Late),
            Ok(_) if (wait.is_gone)() => Some(NotRun::Gone),
            Ok(_) => None,
        };
        if not_run.is_some() {
            state.leave(place);
        }
        let verdict = state.verdict;
        let Some(group) = state.groups.get_mut(&place.group) else {
            return Err(not_run.unwrap_or(NotRun::Gone));
        };
        let Ok(turn) = turn else {
            group.has_leader = false;
            group.changed.notify_all();
            return Err(NotRun::Late);
        };
        group.has_begun = true;
        let shape = group.shape.clone();
        let members = group.members.iter_mut();
        let (members, requests): (Vec<u64>, Vec<Vec<Tensor>>) = members
            .map(|member| (member.number, std::mem::take(&mut member.inputs)))
            .unzip();
        drop(state);
        let mut finish = Finish {
            lane: self,
            place,
            engine: model.engine(),
            ran: HashMap::new(),
            same: None,
        };
        let (ran, same) = compute(model, &shape, &requests, verdict, counts);
        finish.ran = members.into_iter().zip(ran).collect();
        finish.same = same;
        drop(turn);
        if finish.is_first_to_differ() {
            counts.refused.fetch_add(1, Ordering::Relaxed);
        }
        drop(finish);
        if let Some(not_run) = not_run {
            return Err(not_run);
        }
        let mut state = lock(&self.0);
        let group = state.groups.get_mut(&place.group);
        let ran = group.and_then(|group| group.take_ran(place.member));
        state.leave(place);
        ran.ok_or(NotRun::Gone)
    }

    /// Waits until the group is full, but not long.
    fn gather(&self, place: Place, wait: &Wait<'_>, most: usize) {
        let until = wait
            .until
            .map_or(wait.gather_until, |until| until.min(wait.gather_until));
        let mut state = lock(&self.0);
        while let Some(group) = state.groups.get(&place.group) {
            if group.members.len() >= most || Instant::now() >= until {
                return;
            }
            let filled = Arc::clone(&group.filled);
            state = wait_on(&filled, state, Some(until));
        }
    }
}

impl State {
    /// Finds a group that the request can join, or opens one without a leader.
    fn join(&mut self, request: Joins<'_>, batching: &Batching) -> Place {
        let Joins {
            user,
            shape,
            inputs,
            ..
        } = request;
        let member = self.number();
        let takes = |group: &Group| {
            let may = batching.across_users || group.user == user;
            let has_room = group.members.len() < batching.requests_max;
            may && has_room && !group.has_begun && group.shape == shape
        };
        let open = self.groups.iter().find(|(_, group)| takes(group));
        let number = match open.map(|(number, _)| *number) {
            Some(number) => number,
            None => self.number(),
        };
        let group = self.groups.entry(number).or_insert_with(|| Group {
            shape,
            user,
            members: Vec::new(),
            has_leader: false,
            has_begun: false,
            filled: Arc::default(),
            changed: Arc::default(),
        });
        group.members.push(Member {
            number: member,
            inputs,
            ran: None,
        });
        if group.members.len() >= batching.requests_max {
            group.filled.notify_one();
        }
        Place {
            group: number,
            member,
        }
    }

    /// Takes a member out, and with the last one its group.
    fn leave(&mut self, place: Place) {
        let Some(group) = self.groups.get_mut(&place.group) else {
            return;
        };
        group.members.retain(|member| member.number != place.member);
        if group.members.is_empty() {
            self.groups.remove(&place.group);
        }
    }

    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }
}

impl Group {
    fn take_ran(&mut self, member: u64) -> Option<Ran> {
        let mut members = self.members.iter_mut();
        members.find(|other| other.number == member)?.ran.take()
    }
}

/// Gives each member what it got, however the run ended.
struct Finish<'a> {
    lane: &'a Lane,
    place: Place,
    engine: &'static str,
    ran: HashMap<u64, Ran>,
    /// Whether the joint run said the same as single ones, if that was compared.
    same: Option<bool>,
}

impl Finish<'_> {
    fn is_first_to_differ(&self) -> bool {
        self.same == Some(false) && self.lane.joins()
    }
}

impl Drop for Finish<'_> {
    fn drop(&mut self) {
        let mut state = lock(&self.lane.0);
        state.verdict = match (state.verdict, self.same) {
            (Verdict::Differs, _) | (_, Some(false)) => Verdict::Differs,
            (Verdict::Unproven(times), Some(true)) if times + 1 < PROOFS => {
                Verdict::Unproven(times + 1)
            }
            (Verdict::Unproven(_), Some(true)) => Verdict::Same,
            (verdict, _) => verdict,
        };
        let Some(group) = state.groups.get_mut(&self.place.group) else {
            return;
        };
        for member in &mut group.members {
            let ran = self.ran.remove(&member.number);
            member.ran = Some(ran.unwrap_or_else(|| lost(self.engine)));
        }
        group.changed.notify_all();
        if thread::panicking() {
            state.leave(self.place);
        }
    }
}

/// What its leader's panic leaves of a request.
fn lost(engine: &'static str) -> Ran {
    let reason = "the run was lost".to_owned();
    Ran {
        answer: Err(EngineError::Run { engine, reason }),
        run: Duration::ZERO,
        session: None,
    }
}

type Answer = Result<Vec<Tensor>, EngineError>;

/// Answers of all requests in their order, and whether the joint run gave the same as single ones, if both ran and the
/// requests tell something.
fn compute(
    model: &dyn Model,
    shape: &Shape,
    requests: &[Vec<Tensor>],
    verdict: Verdict,
    counts: &BatchCounts,
) -> (Vec<Ran>, Option<bool>) {
    let started = Instant::now();
    let outputs = shape.outputs();
    let mut session = None;
    let singly = |session: &mut Option<Duration>| -> Vec<Answer> {
        let run = |inputs: &Vec<Tensor>| {
            let (answer, opened) = model.run_timed(inputs, &outputs)?;
            *session = session.or(opened);
            Ok(answer)
        };
        requests.iter().map(run).collect()
    };
    let (answers, same) = if requests.len() < 2 || verdict == Verdict::Differs {
        (singly(&mut session), None)
    } else {
        counts.note(requests.len());
        let borrowed: Vec<&[Tensor]> = requests.iter().map(Vec::as_slice).collect();
        match run_together(model, shape, &borrowed) {
            Ok((Some(answers), opened)) if verdict == Verdict::Same => {
                session = opened;
                (answers.into_iter().map(Ok).collect(), None)
            }
            Ok((together, opened)) => {
                session = opened;
                let single = singly(&mut session);
                let same = together.is_some_and(|together| all_agree(&single, &together));
                let tells = !same || requests.iter().any(|request| request != &requests[0]);
                (single, tells.then_some(same))
            }
            Err(_) => {
                counts.retried.fetch_add(1, Ordering::Relaxed);
                let single = singly(&mut session);
                // Where one request is at fault, it fails by itself as well.
                let is_models_fault = single.iter().all(Result::is_ok);
                (single, is_models_fault.then_some(false))
            }
        }
    };
    let run = started.elapsed();
    let ran = |answer| Ran {
        answer,
        run,
        session,
    };
    (answers.into_iter().map(ran).collect(), same)
}

/// Whether all requests got the same answers both ways.
fn all_agree(single: &[Answer], together: &[Vec<Tensor>]) -> bool {
    let same = |(single, together): (&Answer, &Vec<Tensor>)| {
        single.as_ref().is_ok_and(|single| {
            let mut pairs = single.iter().zip(together);
            single.len() == together.len()
                && pairs.all(|(one, other)| agree(one, other, TOLERANCE_PPM))
        })
    };
    single.iter().zip(together).all(same)
}

impl BatchCounts {
    fn note(&self, requests: usize) {
        self.batches.fetch_add(1, Ordering::Relaxed);
        self.requests.fetch_add(requests as u64, Ordering::Relaxed);
        self.largest.fetch_max(requests as u64, Ordering::Relaxed);
    }
}

fn wait_on<'a>(
    condition: &Condvar,
    state: MutexGuard<'a, State>,
    until: Option<Instant>,
) -> MutexGuard<'a, State> {
    let Some(until) = until else {
        let waited = condition.wait(state);
        return waited.unwrap_or_else(PoisonError::into_inner);
    };
    let left = until.saturating_duration_since(Instant::now());
    let waited = condition.wait_timeout(state, left);
    waited.unwrap_or_else(PoisonError::into_inner).0
}

#[cfg(test)]
mod tests;
