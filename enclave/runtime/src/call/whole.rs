//! Running an admitted request, and answers that come whole.

use std::time::{Duration, Instant};

use bield_engine::Shape;
use bield_envelope::{Principal, Signed};
use bield_grant::{Admitted, GrantedRequest};
use bield_package::tensor::Tensor;
use bield_platform::Randomness;
use bield_protocol::inference::{self, Output};
use bield_protocol::parts;
use bield_protocol::refusal::{Refusal, Retry};
use bield_receipt::{Receipt, StateSpan, output_commitment};
use rand_core::Rng as _;

use super::parts::Wanted;
use super::{Call, OUTPUT_BYTES_MAX, Runtime};
use crate::batches::{Joins, NotRun, Ran};
use crate::keys::Keys;
use crate::models::{Lent, Opened};
use crate::refusals;

impl Runtime {
    /// Runs the request on the model that `model` gives; `apart` leaves nothing of the run in the engine.
    pub(super) fn run(
        &self,
        admitted: &Admitted<GrantedRequest>,
        keys: &Keys,
        call: &mut Call<'_>,
        apart: bool,
        model: impl FnOnce(&mut Call<'_>) -> Result<Lent, Refusal>,
    ) -> Result<inference::Answer, Refusal> {
        let (request, in_parts) = parts::decode_request(admitted.request.body())
            .map_err(|error| Refusal::new("malformed-body", error, Retry::Never))?;
        if in_parts && self.tenancy.is_claimed() {
            return Err(refusals::no_parts());
        }
        let names: Vec<&str> = request.outputs.iter().map(String::as_str).collect();
        call.must_be_there()?;
        let model = model(call)?;
        if apart && !model.wipes() {
            return Err(refusals::isolation_unsupported(admitted.isolation));
        }
        let user = admitted.request.sender();
        if in_parts {
            let wanted = Wanted {
                inputs: &request.inputs,
                outputs: &names,
                apart,
            };
            let tensors = self.run_in_parts(model, user, &wanted, call)?;
            return Ok(self.receipted(admitted, keys, tensors));
        }
        let waiting = Instant::now();
        let shape = match &self.batching {
            Some(_) if !apart && model.lane.joins() => Shape::of(&**model, &request.inputs, &names),
            _ => None,
        };
        let ran = match (shape, &self.batching) {
            (Some(shape), Some(batching)) => {
                let joins = Joins {
                    user,
                    shape,
                    inputs: request.inputs,
                    wait: self.queue_wait,
                    is_alone: self.gate.inside() <= 1,
                    is_gone: call.is_gone,
                };
                let counts = &self.metrics.batches;
                let lane = &model.lane;
                lane.run(&**model, joins, &self.turns, (batching, counts))
            }
            _ => self.run_alone(&model, user, (&request.inputs, &names), apart, call),
        };
        let ran = ran.map_err(|not_run| match not_run {
            NotRun::Late => refusals::late(self.queue_wait),
            NotRun::Gone => refusals::gone(),
            NotRun::Lost => refusals::lost(),
        });
        let took = ran.as_ref().map_or(Duration::ZERO, |ran| ran.run);
        call.phases.queue += waiting.elapsed().saturating_sub(took);
        let ran = ran?;
        call.phases.run = took;
        call.phases.engine = Some(model.engine());
        drop(model);
        let tensors = ran.answer.map_err(|error| refusals::run(&error))?;
        call.phases.session = ran.session;
        outputs_bytes(&tensors)?;
        Ok(self.receipted(admitted, keys, tensors))
    }

    /// Runs one request when its turn comes.
    fn run_alone(
        &self,
        model: &Opened,
        user: Principal,
        (inputs, outputs): (&[Tensor], &[&str]),
        apart: bool,
        call: &Call<'_>,
    ) -> Result<Ran, NotRun> {
        let turn = model.lane.take(&self.turns, user, self.queue_wait);
        let _turn = turn.map_err(|_| NotRun::Late)?;
        if (call.is_gone)() {
            return Err(NotRun::Gone);
        }
        let started = Instant::now();
        let ran = match apart {
            true => model.run_apart(inputs, outputs),
            false => model.run_timed(inputs, outputs),
        };
        let run = started.elapsed();
        let (answer, session) = match ran {
            Ok((tensors, session)) => (Ok(tensors), session),
            Err(error) => (Err(error), None),
        };
        Ok(Ran {
            answer,
            run,
            session,
        })
    }

    fn receipted(
        &self,
        admitted: &Admitted<GrantedRequest>,
        keys: &Keys,
        tensors: Vec<Tensor>,
    ) -> inference::Answer {
        self.receipted_output(admitted, keys, Output { tensors }.encode(), None)
    }

    pub(super) fn receipted_output(
        &self,
        admitted: &Admitted<GrantedRequest>,
        keys: &Keys,
        output: Vec<u8>,
        state: Option<StateSpan>,
    ) -> inference::Answer {
        let mut salt = [0; 32];
        Randomness.fill_bytes(&mut salt);
        let commitment = output_commitment(&salt, &output);
        let receipt = Receipt::bind(
            admitted,
            commitment,
            state,
            keys.lease.simulated,
            keys.now(),
        );
        inference::Answer {
            output,
            salt,
            receipt: Signed::sign(&self.signer, receipt).into_signed(),
            certificate: keys.certificate.as_signed().clone(),
        }
    }
}

/// How long outputs are together.
///
/// # Errors
/// Longer than an answer may be.
pub(super) fn outputs_bytes(tensors: &[Tensor]) -> Result<usize, Refusal> {
    let bytes = tensors.iter().map(|tensor| tensor.data().len()).sum();
    match bytes > OUTPUT_BYTES_MAX {
        true => Err(refusals::too_long(bytes)),
        false => Ok(bytes),
    }
}
