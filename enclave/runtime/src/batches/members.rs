//! Who waits to run one model, who rides with whom, and how many at once.
//!
//! Always true: a member is in one stage, waits ─▶ runs ─▶ ran, and those who run were all of one shape; a run has of each
//! user who waits one before a second of any; nobody's inputs are kept after its run began. Not here: waiting (`batches`).

use std::collections::HashMap;
use std::sync::{Arc, Condvar};

use bield_engine::{Rows, Shape};
use bield_envelope::Principal;
use bield_package::tensor::Tensor;

use super::{Batching, Joins, Ran};
use crate::turns::Waiter;

/// Those who wait to run one model or run on it, and what is known of it.
pub(super) struct State {
    pub(super) rows: Rows,
    /// Joint runs have fewer bytes of inputs.
    pub(super) bytes_end: u64,
    /// Who waits or runs, in the order in which they came.
    pub(super) members: Vec<Member>,
    numbers: u64,
}

impl Default for State {
    fn default() -> Self {
        Self {
            rows: Rows::Unproven,
            bytes_end: u64::MAX,
            members: Vec::new(),
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
            self.waiting_with(number, batching)
                .for_each(|member| member.seat.changed.notify_one());
        }
        number
    }

    /// Who waits and may run with this one, itself included.
    fn waiting_with<'a>(
        &'a self,
        number: u64,
        batching: &'a Batching,
    ) -> impl Iterator<Item = &'a Member> {
        let own = self.members.iter().find(|member| member.number == number);
        self.members.iter().filter(move |member| {
            matches!(member.stage, Stage::Waits)
                && own.is_some_and(|own| {
                    member.shape == own.shape && (batching.across_users || member.user == own.user)
                })
        })
    }

    /// Whether nobody needs to be waited for: as many are there as may run, or its run has begun.
    pub(super) fn is_full(&self, number: u64, batching: &Batching) -> bool {
        let own = self.members.iter().find(|member| member.number == number);
        own.is_none_or(|own| {
            !matches!(own.stage, Stage::Waits)
                || self.waiting_with(number, batching).count() >= self.most(&own.shape, batching)
        })
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

    /// Takes the leader and its riders, and their shape: of each user one before a second of any, else who came first.
    pub(super) fn board(&mut self, leader: u64, batching: &Batching) -> (Shape, Vec<Boarded>) {
        let mut waiting: Vec<&Member> = self.waiting_with(leader, batching).collect();
        // The first of its user, whoever came before it.
        waiting.sort_by_key(|member| member.number != leader);
        let shape = waiting[0].shape.clone();
        let mut of_user: HashMap<Principal, usize> = HashMap::new();
        let ranked = waiting.into_iter().map(|member| {
            let rank = of_user.entry(member.user).or_default();
            *rank += 1;
            (*rank, member.number)
        });
        let mut ranked: Vec<(usize, u64)> = ranked.collect();
        ranked.sort_by_key(|(rank, _)| *rank);
        ranked.truncate(self.most(&shape, batching));
        let board = |member: &mut Member| {
            member.stage = Stage::Runs;
            Boarded {
                number: member.number,
                user: member.user,
                seat: Arc::clone(&member.seat),
                inputs: std::mem::take(&mut member.inputs),
            }
        };
        let runs = |member: &&mut Member| ranked.iter().any(|(_, number)| *number == member.number);
        let boarded = self.members.iter_mut().filter(runs).map(board).collect();
        (shape, boarded)
    }

    pub(super) fn has_begun(&self, number: u64) -> bool {
        let mut members = self.members.iter();
        members.any(|member| member.number == number && !matches!(member.stage, Stage::Waits))
    }

    /// Takes a member out if its run has ended.
    pub(super) fn take_ran(&mut self, number: u64) -> Option<Ran> {
        let has_ran =
            |member: &Member| member.number == number && matches!(member.stage, Stage::Ran(_));
        let at = self.members.iter().position(has_ran)?;
        match self.members.remove(at).stage {
            Stage::Ran(ran) => Some(ran),
            Stage::Waits | Stage::Runs => None,
        }
    }

    pub(super) fn leave(&mut self, number: u64) {
        self.members.retain(|member| member.number != number);
    }
}
