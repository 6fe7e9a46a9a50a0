//! Who waits to run one model, who rides with whom, and how many at once.
//!
//! Always true: a member is in one stage, waits ─▶ runs ─▶ ran or lost, and those who run were all of one shape; a run has
//! requests of one user, or one of each; nobody's inputs are kept after its run began. Not here: waiting (`batches`).

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Condvar};

use bield_engine::{Rows, Shape};
use bield_envelope::Principal;
use bield_package::tensor::Tensor;

use super::{Batching, Joins, NotRun, Ran};
use crate::turns::Waiter;

/// Most users of one model who are remembered to run by themselves; the oldest is forgotten for one more. 8 KiB.
const APART_MAX: usize = 256;

/// Those who wait to run one model or run on it, and what is known of it.
pub(super) struct State {
    pub(super) rows: Rows,
    /// Joint runs have fewer bytes of inputs.
    pub(super) bytes_end: u64,
    /// Who waits or runs, in the order in which they came.
    pub(super) members: Vec<Member>,
    /// Users who run with nobody else any more.
    apart: VecDeque<Principal>,
    numbers: u64,
}

impl Default for State {
    fn default() -> Self {
        Self {
            rows: Rows::Unproven,
            bytes_end: u64::MAX,
            members: Vec::new(),
            apart: VecDeque::new(),
            numbers: 0,
        }
    }
}

pub(super) struct Member {
    pub(super) number: u64,
    user: Principal,
    shape: Shape,
    inputs: Vec<Tensor>,
    pub(super) stage: Stage,
    pub(super) seat: Arc<Seat>,
}

pub(super) enum Stage {
    Waits,
    Runs,
    Ran(Ran),
    Lost,
}

/// Where a member waits: for others and for its answer, and in two lines.
#[derive(Default)]
pub(super) struct Seat {
    pub(super) changed: Condvar,
    pub(super) place: Arc<Waiter>,
    pub(super) turn: Arc<Waiter>,
}

/// Who runs now.
pub(super) struct Boarded {
    pub(super) number: u64,
    pub(super) user: Principal,
    pub(super) seat: Arc<Seat>,
    pub(super) inputs: Vec<Tensor>,
}

impl State {
    /// Adds a request, and tells those of its shape when they are as many as may run.
    pub(super) fn join(
        &mut self,
        request: Joins<'_>,
        seat: &Arc<Seat>,
        batching: &Batching,
    ) -> u64 {
        self.numbers += 1;
        let number = self.numbers;
        let Joins {
            user,
            shape,
            inputs,
            ..
        } = request;
        self.members.push(Member {
            number,
            user,
            shape,
            inputs,
            stage: Stage::Waits,
            seat: Arc::clone(seat),
        });
        if self.is_full(number, batching) {
            let aboard = self.aboard(number, batching).into_iter();
            aboard.for_each(|member| member.seat.changed.notify_one());
        }
        number
    }

    /// Who would run if this one led now, itself first, however many: one of each user, in the order in which they came;
    /// who waits alone brings all that it asked.
    fn aboard(&self, leader: u64, batching: &Batching) -> Vec<&Member> {
        let Some(own) = self.members.iter().find(|member| member.number == leader) else {
            return Vec::new();
        };
        let crosses = |user: &Principal| batching.across_users && !self.apart.contains(user);
        let own_crosses = crosses(&own.user);
        let waits_with_it = |member: &&Member| {
            matches!(member.stage, Stage::Waits)
                && member.shape == own.shape
                && (member.user == own.user || own_crosses && crosses(&member.user))
        };
        let mut waiting: Vec<_> = self.members.iter().filter(waits_with_it).collect();
        waiting.sort_by_key(|member| member.number != leader);
        if waiting.iter().any(|member| member.user != own.user) {
            // A second of any would lengthen the run for the others.
            let mut seen = HashSet::new();
            waiting.retain(|member| seen.insert(member.user));
        }
        waiting
    }

    /// Whether nobody needs to be waited for: as many are there as may run, or its run has begun.
    pub(super) fn is_full(&self, number: u64, batching: &Batching) -> bool {
        let own = self.members.iter().find(|member| member.number == number);
        own.is_none_or(|own| {
            !matches!(own.stage, Stage::Waits)
                || self.aboard(number, batching).len() >= self.most(&own.shape, batching)
        })
    }

    /// Has a user run with nobody else from now on.
    pub(super) fn keep_apart(&mut self, user: Principal) {
        if !self.apart.contains(&user) {
            if self.apart.len() == APART_MAX {
                self.apart.pop_front();
            }
            self.apart.push_back(user);
        }
    }

    /// Most requests of a shape in one run.
    fn most(&self, shape: &Shape, batching: &Batching) -> usize {
        let Rows::Apart(proven) = self.rows else {
            return 1;
        };
        let fitting = (self.bytes_end - 1) / shape.row_bytes().max(1);
        let fitting = usize::try_from(fitting).unwrap_or(usize::MAX);
        proven.min(batching.requests_max).min(fitting).max(1)
    }

    /// Takes the leader and its riders, as many as may run, and their shape.
    pub(super) fn board(&mut self, leader: u64, batching: &Batching) -> (Shape, Vec<Boarded>) {
        let mut aboard = self.aboard(leader, batching);
        let shape = aboard[0].shape.clone();
        aboard.truncate(self.most(&shape, batching));
        let numbers: Vec<u64> = aboard.iter().map(|member| member.number).collect();
        let board = |member: &mut Member| {
            member.stage = Stage::Runs;
            Boarded {
                number: member.number,
                user: member.user,
                seat: Arc::clone(&member.seat),
                inputs: std::mem::take(&mut member.inputs),
            }
        };
        let runs = |member: &&mut Member| numbers.contains(&member.number);
        let boarded = self.members.iter_mut().filter(runs).map(board).collect();
        (shape, boarded)
    }

    pub(super) fn has_begun(&self, number: u64) -> bool {
        let mut members = self.members.iter();
        members.any(|member| member.number == number && !matches!(member.stage, Stage::Waits))
    }

    /// Takes a member out if its run has ended, or was lost.
    pub(super) fn take_ran(&mut self, number: u64) -> Option<Result<Ran, NotRun>> {
        let has_ended = |member: &Member| {
            member.number == number && matches!(member.stage, Stage::Ran(_) | Stage::Lost)
        };
        let at = self.members.iter().position(has_ended)?;
        match self.members.remove(at).stage {
            Stage::Ran(ran) => Some(Ok(ran)),
            Stage::Lost => Some(Err(NotRun::Lost)),
            Stage::Waits | Stage::Runs => None,
        }
    }

    /// Ends the run of a rider, if it goes on.
    pub(super) fn end(&mut self, number: u64, stage: Stage) {
        let mut members = self.members.iter_mut();
        if let Some(member) = members.find(|member| member.number == number)
            && matches!(member.stage, Stage::Runs)
        {
            member.stage = stage;
            member.seat.changed.notify_one();
        }
    }

    pub(super) fn leave(&mut self, number: u64) {
        self.members.retain(|member| member.number != number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_users_who_run_by_themselves_the_oldest_is_forgotten() {
        let user = |number: usize| {
            let mut name = [0; 32];
            name[..8].copy_from_slice(&number.to_le_bytes());
            Principal::from_bytes(name)
        };
        let mut state = State::default();
        for number in 0..=APART_MAX {
            state.keep_apart(user(number));
            state.keep_apart(user(number));
        }
        assert_eq!(state.apart.len(), APART_MAX);
        assert_eq!(state.apart.front(), Some(&user(1)));
        assert_eq!(state.apart.back(), Some(&user(APART_MAX)));
    }
}
