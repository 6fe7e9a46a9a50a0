//! Requests for one model that run as one, each under its own deadline.
//!
//! ```text
//! request ─▶ a turn is free? waits a moment ─▶ stands in line, under its own name
//!                 its turn comes: leads, and takes those who wait ─▶ runs all ─┐
//!                 another's came: rides, leaves the line, and sleeps until ◀───┘ its answer is there
//! ```
//!
//! Everyone is in line for a turn of its own until it rides, so that riding only makes an answer come sooner: no flood of
//! others delays it. The moment only matters when nothing else runs, and nobody waits it who is alone in the program.
//!
//! Always true: only requests that may share everything (`shared`) come here, and those of several users run together only
//! where the measured configuration says so; a run has at most `requests_max`, one of each user, or several of one who is
//! alone in it; nobody waits longer for its run to begin than it said; when a joint run fails, each request runs by itself and
//! is answered then, so that one that fails is alone in it, and its user runs with no other user on this model any more, as
//! far as is remembered. No model is believed to keep rows apart: nothing is joined before a [`Trial`] on its
//! golden pairs, which no user chooses, and one joint run of [`COMPARED_ONE_IN`] goes on being compared with single ones,
//! which are what is answered then. After one difference the model never runs requests together again while it is loaded;
//! after one that failed for its size, no more of as many bytes. That shows what happens by construction (a mean over the
//! batch, one scale for all of it), not what a model does on purpose with rare inputs.
//! A turn is its leader's; who rides along has not used its own. Not here: joining tensors and the trial itself
//! (`bield_engine`).
//!
//! On paper: two locks in and one out, a wake-up for each who waited, one more copy of inputs and outputs.

mod joint;
mod members;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bield_engine::{EngineError, Model, Rows, Shape};
use bield_envelope::Principal;
use bield_package::tensor::Tensor;
use bield_platform::Randomness;
use rand_core::Rng as _;

use crate::flights::lock;
use crate::turns::{Late, Turn, Turns};
use joint::{Found, compute};
use members::{Seat, Stage, State};

pub(crate) use joint::Trial;

/// Of so many joint runs one is compared with single ones, whichever chance names: what it costs is small beside the others.
pub(crate) const COMPARED_ONE_IN: u32 = 64;

/// What the configuration says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Batching {
    /// How long a request waits for others before it stands in line, while a turn is free.
    pub(crate) wait: Duration,
    /// At least two.
    pub(crate) requests_max: usize,
    /// Whether requests of several users run together.
    pub(crate) across_users: bool,
    /// [`COMPARED_ONE_IN`].
    pub(crate) compared_one_in: u32,
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
    /// Models that were found to answer differently, and run nothing together.
    pub(crate) refused: AtomicU64,
    /// Models that nothing shows to keep rows apart, and that run nothing together either.
    pub(crate) unproven: AtomicU64,
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
    /// From when its run began, joint or not, until this was there.
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
    /// Its leader's run panicked, which says nothing of this request.
    Lost,
}

/// Those who wait to run one loaded model, and its places for runs when it has few.
#[derive(Default)]
pub(crate) struct Lane(Mutex<State>, Option<Turns>);

/// The right to compute, and a place to run the model where it has few.
type Taken<'a> = (Turn<'a>, Option<Turn<'a>>);

impl Lane {
    pub(crate) fn of(model: &dyn Model) -> Self {
        let most = model.runs_max();
        let places = (most < usize::MAX).then(|| Turns::new(most));
        Self(Mutex::default(), places)
    }

    /// Says what is known of requests that run together; until then, none do.
    pub(crate) fn settle(&self, rows: Rows) {
        lock(&self.0).rows = rows;
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
    ) -> Result<Taken<'a>, Late> {
        self.take_as(&Seat::default(), turns, user, wait)
    }

    fn take_as<'a>(
        &'a self,
        seat: &Seat,
        turns: &'a Turns,
        user: Principal,
        wait: Duration,
    ) -> Result<Taken<'a>, Late> {
        let started = Instant::now();
        let places = self.1.as_ref();
        let place = places.map(|places| places.take_as(&seat.place, user, wait));
        let place = place.transpose()?;
        let left = match wait {
            Duration::MAX => wait,
            wait => wait.saturating_sub(started.elapsed()),
        };
        Ok((turns.take_as(&seat.turn, user, left)?, place))
    }

    /// Counts those who wait for a place.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> usize {
        self.1.as_ref().map_or(0, Turns::waiting)
    }

    /// Whether requests run together here, as far as is known.
    pub(crate) fn joins(&self) -> bool {
        matches!(lock(&self.0).rows, Rows::Apart(_))
    }

    /// Counts those who wait here or run.
    #[cfg(test)]
    pub(crate) fn members(&self) -> usize {
        lock(&self.0).members.len()
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
        let (user, is_alone, is_gone) = (request.user, request.is_alone, request.is_gone);
        let until = started.checked_add(request.wait);
        let seat = Arc::<Seat>::default();
        let mut state = lock(&self.0);
        let number = state.join(request, &seat, batching);
        if !is_alone && turns.is_free() && self.1.as_ref().is_none_or(Turns::is_free) {
            let gathered = started + batching.wait;
            let until = until.map_or(gathered, |until| until.min(gathered));
            while Instant::now() < until && !state.is_full(number, batching) {
                state = wait_on(&seat.changed, state, Some(until));
            }
        }
        drop(state);
        let left = |until: Instant| until.saturating_duration_since(Instant::now());
        let taken = self.take_as(&seat, turns, user, until.map_or(Duration::MAX, left));
        let is_gone = taken.is_ok() && is_gone();
        let mut state = lock(&self.0);
        if state.has_begun(number) {
            drop(taken);
            return ride(state, number, &seat);
        }
        match taken {
            Ok(taken) if !is_gone => {
                self.lead(state, number, model, (taken, turns), (batching, counts))
            }
            taken => {
                state.leave(number);
                Err(taken.map_or(NotRun::Late, |_| NotRun::Gone))
            }
        }
    }

    /// Runs a member whose turn has come, and those who ride with it.
    fn lead(
        &self,
        mut state: MutexGuard<'_, State>,
        number: u64,
        model: &dyn Model,
        (taken, turns): (Taken<'_>, &Turns),
        (batching, counts): (&Batching, &BatchCounts),
    ) -> Result<Ran, NotRun> {
        let (shape, boarded) = state.board(number, batching);
        drop(state);
        let members = boarded.iter().map(|member| (member.number, member.user));
        let mut finish = Finish {
            lane: self,
            leader: number,
            members: members.collect(),
            counts,
            own: None,
            found: Found::Nothing,
        };
        for rider in boarded.iter().filter(|member| member.number != number) {
            self.dismiss(turns, rider.user, &rider.seat);
        }
        let requests: Vec<Vec<Tensor>> = boarded.into_iter().map(|member| member.inputs).collect();
        let is_compared = Randomness
            .next_u32()
            .is_multiple_of(batching.compared_one_in);
        let mut hand = |at, ran| finish.hand(at, ran);
        let found = compute(model, &shape, &requests, (is_compared, counts), &mut hand);
        finish.found = found;
        drop(taken);
        let own = finish.own.take();
        drop(finish);
        own.ok_or(NotRun::Lost)
    }

    /// Has a rider wait for nothing but its answer.
    fn dismiss(&self, turns: &Turns, user: Principal, seat: &Seat) {
        if let Some(places) = &self.1 {
            places.dismiss(user, &seat.place);
        }
        turns.dismiss(user, &seat.turn);
        seat.changed.notify_one();
    }
}

/// Waits for the run of a rider to end.
fn ride(mut state: MutexGuard<'_, State>, number: u64, seat: &Seat) -> Result<Ran, NotRun> {
    loop {
        if let Some(ran) = state.take_ran(number) {
            return ran;
        }
        state = wait_on(&seat.changed, state, None);
    }
}

/// Gives each rider what it got; notes what was found and takes the leader out, however the run ended.
struct Finish<'a> {
    lane: &'a Lane,
    leader: u64,
    /// In the order of their requests.
    members: Vec<(u64, Principal)>,
    counts: &'a BatchCounts,
    /// What the leader got.
    own: Option<Ran>,
    found: Found,
}

impl Finish<'_> {
    fn hand(&mut self, at: usize, ran: Ran) {
        let (number, _) = self.members[at];
        if number == self.leader {
            self.own = Some(ran);
        } else {
            lock(&self.lane.0).end(number, Stage::Ran(ran));
        }
    }
}

impl Drop for Finish<'_> {
    fn drop(&mut self) {
        let mut state = lock(&self.lane.0);
        match &self.found {
            Found::Nothing => {}
            Found::TooMuch(bytes) => state.bytes_end = state.bytes_end.min((*bytes).max(1)),
            Found::AtFault(failed) => {
                for at in failed {
                    state.keep_apart(self.members[*at].1);
                }
            }
            Found::Differs => {
                if state.rows != Rows::Differ {
                    self.counts.refused.fetch_add(1, Ordering::Relaxed);
                }
                state.rows = Rows::Differ;
            }
        }
        state.leave(self.leader);
        for (number, _) in &self.members {
            state.end(*number, Stage::Lost);
        }
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
