//! Answers that leave output by output.
//!
//! ```text
//! turn ─▶ room for the outputs ─▶ all computed ─▶ turn, place and model given back ─▶ output, output, …
//!                             └▶ (an engine that computes on) output ─▶ turn again ─▶ output ─▶ …
//! ```
//!
//! Always true: nobody holds a turn who only waits to be read, and nobody takes one to send what is computed; an engine that
//! computes on keeps its place in the model; outputs that wait are counted (`unsent`) before they are computed; a reader has
//! [`READ_WAIT`] and as long as its bytes take at [`READ_BYTES_PER_SECOND_MIN`], in all that it is waited for, and less when
//! it takes nothing at all (`enclave/door`). Not here: sealing (`handing`), the receipt.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use bield_engine::EngineError;
use bield_envelope::Principal;
use bield_package::tensor::Tensor;
use bield_protocol::refusal::Refusal;

use super::whole::outputs_bytes;
use super::{Call, OUTPUT_BYTES_MAX, Runtime};
use crate::handing::Asker;
use crate::models::Lent;
use crate::refusals;
use crate::turns::Turn;

/// How long the reader of an answer in parts may be waited for in all, and how fast it reads at least beyond that. At 100
/// KB/s nobody is cut in the first four minutes, and 24 MiB come whole; who only drips holds its place for nine and a half
/// minutes at most, with an answer of the longest kind.
pub(super) const READ_WAIT: Duration = Duration::from_secs(60);
pub(super) const READ_BYTES_PER_SECOND_MIN: usize = 128 << 10;

/// What a request asks a model for: inputs, the outputs wanted, and whether nothing of the run may stay in the engine.
pub(super) struct Wanted<'a> {
    pub(super) inputs: &'a [Tensor],
    pub(super) outputs: &'a [&'a str],
    pub(super) apart: bool,
}

impl Runtime {
    /// Runs one request when its turn comes, and sends each output as soon as it is there.
    pub(super) fn run_in_parts(
        &self,
        model: Lent,
        user: Principal,
        wanted: &Wanted<'_>,
        call: &mut Call<'_>,
    ) -> Result<Vec<Tensor>, Refusal> {
        let waiting = Instant::now();
        let turn = model.lane.take(&self.turns, user, self.queue_wait);
        let (turn, place) = turn.map_err(|_| refusals::late(self.queue_wait))?;
        call.phases.queue += waiting.elapsed();
        call.must_be_there()?;
        let reserved = self.unsent.reserve(user, OUTPUT_BYTES_MAX);
        let mut reserved = reserved.ok_or_else(refusals::no_room_for_outputs)?;
        call.phases.engine = Some(model.engine());
        if model.computes_in_parts() && !wanted.apart {
            // Its reader may be waited for as long, without a turn.
            reserved.keep(OUTPUT_BYTES_MAX);
            return self.send_while_computed(&model, user, wanted, turn, call);
        }
        let started = Instant::now();
        let ran = match wanted.apart {
            true => model.run_apart(wanted.inputs, wanted.outputs),
            false => model.run_timed(wanted.inputs, wanted.outputs),
        };
        call.phases.run = started.elapsed();
        let (tensors, session) = ran.map_err(|error| refusals::run(&error))?;
        call.phases.session = session;
        // In its turn, so that no more answers are computed than there are turns.
        reserved.keep(outputs_bytes(&tensors)?);
        drop((turn, place));
        drop(model);
        let mut sending = Sending::new(self, call);
        let sent = tensors
            .into_iter()
            .map(|output| sending.output(output, &mut || {}));
        let sent = sent.collect::<Result<_, _>>()?;
        sending.wait_until_taken()?;
        Ok(sent)
    }

    /// Hands outputs over while the engine computes others, with its turn only.
    fn send_while_computed(
        &self,
        model: &Lent,
        user: Principal,
        wanted: &Wanted<'_>,
        turn: Turn<'_>,
        call: &mut Call<'_>,
    ) -> Result<Vec<Tensor>, Refusal> {
        let asked_for = match wanted.outputs.len() {
            0 => model.outputs().len(),
            some => some,
        };
        let (mut turn, mut tensors, mut failed) = (Some(turn), Vec::new(), None);
        let (started, mut sends) = (Instant::now(), Duration::ZERO);
        let mut sending = Sending::new(self, call);
        let mut hand = |output: Tensor| {
            let began = Instant::now();
            sending.call.phases.run = started.elapsed().saturating_sub(sends);
            tensors.push(sending.output(output, &mut || turn = None)?);
            if turn.is_none() && tensors.len() < asked_for {
                let waiting = Instant::now();
                let again = self.turns.take(user, self.queue_wait);
                turn = Some(again.map_err(|_| refusals::late_midway(self.queue_wait))?);
                sending.call.phases.queue += waiting.elapsed();
            }
            sends += began.elapsed();
            Ok(())
        };
        let ran: Result<_, EngineError> = model.run_in_parts(
            wanted.inputs,
            wanted.outputs,
            &mut |output| match hand(output) {
                Ok(()) => ControlFlow::Continue(()),
                Err(refusal) => {
                    failed = Some(refusal);
                    ControlFlow::Break(())
                }
            },
        );
        drop(turn);
        if failed.is_none() {
            sending.call.phases.run = started.elapsed().saturating_sub(sends);
        }
        sending.call.phases.session = ran.map_err(|error| refusals::run(&error))?;
        match failed {
            None => sending.wait_until_taken().map(|()| tensors),
            Some(refusal) => Err(refusal),
        }
    }
}

/// One answer's outputs on their way out.
struct Sending<'c, 'a> {
    runtime: &'c Runtime,
    call: &'c mut Call<'a>,
    bytes: usize,
    reading: Reading,
}

impl<'c, 'a> Sending<'c, 'a> {
    fn new(runtime: &'c Runtime, call: &'c mut Call<'a>) -> Self {
        Self {
            runtime,
            call,
            bytes: 0,
            reading: Reading::default(),
        }
    }

    /// Sends an output, and gives it back; `give_way` is done before who asked is waited for.
    fn output(&mut self, output: Tensor, give_way: &mut dyn FnMut()) -> Result<Tensor, Refusal> {
        self.bytes += output.data().len();
        if self.bytes > OUTPUT_BYTES_MAX {
            return Err(refusals::too_long(self.bytes));
        }
        let (bytes, began, asker) = (self.bytes, self.call.started, self.call.handing.asker());
        let mut pause = || {
            give_way();
            self.reading.wait(asker, bytes)
        };
        if !asker.takes_more() {
            pause()?;
        }
        let phases = &mut *self.call.phases;
        phases.first.get_or_insert_with(|| began.elapsed());
        let feedback = || self.runtime.feedback(phases, began);
        self.call.handing.output(output, feedback, &mut pause)
    }

    /// Waits until the last part would leave at once.
    fn wait_until_taken(&mut self) -> Result<(), Refusal> {
        let asker = self.call.handing.asker();
        match asker.takes_more() {
            true => Ok(()),
            false => self.reading.wait(asker, self.bytes),
        }
    }
}

/// How long a reader was waited for in all.
#[derive(Default)]
pub(super) struct Reading(pub(super) Duration);

impl Reading {
    /// Waits for the reader of `bytes`, as long as it may take for them.
    pub(super) fn wait(&mut self, asker: &dyn Asker, bytes: usize) -> Result<(), Refusal> {
        let seconds = (bytes / READ_BYTES_PER_SECOND_MIN) as u64;
        let in_all = READ_WAIT + Duration::from_secs(seconds);
        let began = Instant::now();
        let taken = asker.wait_until_taken(in_all.saturating_sub(self.0));
        self.0 += began.elapsed();
        taken.map_err(|_| match asker.is_gone() {
            true => refusals::left(),
            false => refusals::read_too_slowly(),
        })
    }
}

// The longest answer to one that only drips.
const _: () =
    assert!(READ_WAIT.as_secs() as usize + OUTPUT_BYTES_MAX / READ_BYTES_PER_SECOND_MIN < 600);
