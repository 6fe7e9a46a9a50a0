//! One call of a function: as a call of a model, and the state that it came from is not behind what was seen.

use std::time::Duration;

use bield_envelope::{ResponseOpener, SigningKey, Time, Wiped, wire::WireError};
use bield_protocol::function::{
    FunctionFailure, FunctionOutput, FunctionRequest, FunctionResponse,
};
use bield_protocol::refusal::{Refusal, Retry};
use bield_receipt::{
    Expected, ExpectedOutput, ExpectedState, ReceiptBundle, StateHeads, VerifiedReceipt,
};
use rand_core::CryptoRng;

use super::SeenState;
use crate::call::{patiently, pause, whole};
use crate::gateway::Sealed;
use crate::{CallError, CallOptions, Target, now};

/// What a function is asked.
pub struct FunctionCall {
    /// Which of the things that it does; begins with `/`.
    pub path: String,
    /// What the body is; empty when that is not said.
    pub content_type: String,
    /// What it is given; wiped on drop.
    pub body: Wiped,
    /// What was seen of its state: an answer from an earlier one is refused.
    pub seen: Option<StateHeads>,
}

/// An answer of a function, whose receipt was verified.
pub struct FunctionAnswered {
    /// What it gave, or why it refused.
    pub outcome: Result<FunctionResponse, FunctionFailure>,
    /// The state that it left, to be kept and shown at the next call; `None` for a function without one.
    pub state: Option<SeenState>,
    /// What the answer came from, with every check.
    pub receipt: VerifiedReceipt,
    /// The receipt as it can be kept and shown.
    pub bundle: ReceiptBundle,
    /// The runtime's unsealed feedback, as the gateway passed it on: nobody vouches for it.
    pub feedback: Option<serde_json::Value>,
    /// How often the request was sent.
    pub attempts: u32,
}

impl Target {
    /// Whether the package is a function: it says of no output that it gives it, which every model does.
    #[must_use]
    pub fn is_function(&self) -> bool {
        self.outputs().is_empty()
    }

    /// Calls the function as `user`. Up to four attempts.
    ///
    /// # Errors
    /// See [`CallError`]; an answer whose receipt does not hold, or whose state is behind what was seen, is withheld.
    /// A function that refuses is no error but an answer.
    pub fn call_function(
        &self,
        user: &SigningKey,
        call: FunctionCall,
        entropy: &mut impl CryptoRng,
    ) -> Result<FunctionAnswered, CallError> {
        let options = CallOptions {
            attempts_max: 4,
            waiting: &mut |_| {},
            clock: now,
        };
        self.call_function_with(user, &call, options, entropy)
    }

    /// As [`call_function`](Self::call_function), as patient as `options` say.
    ///
    /// # Errors
    /// As [`call_function`](Self::call_function).
    pub fn call_function_with(
        &self,
        user: &SigningKey,
        call: &FunctionCall,
        options: CallOptions<'_>,
        entropy: &mut impl CryptoRng,
    ) -> Result<FunctionAnswered, CallError> {
        if !self.is_function() {
            return Err(CallError::Input(format!(
                "{}@{} is a model: it takes tensors, not a path and a body",
                self.name(),
                self.version()
            )));
        }
        let body = encode(call)?;
        let clock = options.clock;
        // Sealed once: what an attempt may have changed is not changed again by the next one, which is the same request.
        let (sealed, opener) = self.seal(user, &body, clock(), entropy)?;
        let (mut answered, attempts) = patiently(options, function_pause, || {
            self.attempt_function(&sealed, opener.again(), call.seen.as_ref(), clock)
        })?;
        answered.attempts = attempts;
        Ok(answered)
    }

    fn attempt_function(
        &self,
        sealed: &[u8],
        opener: ResponseOpener,
        seen: Option<&StateHeads>,
        clock: fn() -> Time,
    ) -> Result<FunctionAnswered, CallError> {
        let request = opener.request();
        let Sealed { answer, feedback } = self.gateway.call(sealed)?;
        let plain = opener.open(&answer).map_err(CallError::Open)?;
        let answer = whole(&plain)?;
        let output = FunctionOutput::of(&answer).map_err(CallError::Malformed)?;
        let after = match &output.state {
            Some(token) => Some(StateHeads::decode(token).map_err(CallError::Malformed)?),
            None => None,
        };
        let bundle = ReceiptBundle::new(answer.receipt, answer.certificate, after);
        let expected = Expected {
            request: Some(request),
            package: Some(self.package()),
            output: Some(ExpectedOutput {
                salt: &answer.salt,
                output: &answer.output,
            }),
            state: ExpectedState {
                after: bundle.state.as_ref(),
                seen,
                log: None,
            },
        };
        let receipt = bield_receipt::verify(&bundle, &self.anchor, expected, clock())?;
        let state = match (receipt.receipt().state, &bundle.state) {
            (Some(span), Some(heads)) => Some(SeenState {
                capsule: span.capsule,
                heads: heads.clone(),
            }),
            (None, None) => None,
            // Without the heads nothing could be compared next time.
            _ => return Err(malformed()),
        };
        let outcome = match (output.response, output.failure) {
            (Some(response), None) => Ok(response),
            (None, Some(failure)) => Err(failure),
            _ => return Err(malformed()),
        };
        Ok(FunctionAnswered {
            outcome,
            state,
            receipt,
            bundle,
            feedback,
            attempts: 1,
        })
    }
}

fn encode(call: &FunctionCall) -> Result<Wiped, CallError> {
    let mut body = Wiped::with_capacity(call.body.len());
    body.extend_from_slice(&call.body);
    let request = FunctionRequest {
        path: call.path.clone(),
        content_type: call.content_type.clone(),
        body,
        seen: call.seen.as_ref().map(StateHeads::encode),
    };
    if !request.is_well_formed() {
        return Err(CallError::Input(
            "a path begins with / and has at most 2048 bytes without control characters; a content type is at most \
             256 characters of ASCII"
                .to_owned(),
        ));
    }
    Ok(request.encode())
}

/// Also waits for a state that another runtime holds: what dies lets go of it after half a minute.
fn function_pause(error: &CallError) -> Option<Duration> {
    match error {
        CallError::Refused(Refusal {
            code,
            retry: Retry::After(millis),
            ..
        }) if STATE_CODES.contains(&&**code) => {
            Some(Duration::from_millis(*millis)).filter(|wait| *wait <= HELD_WAIT_MAX)
        }
        error => pause(error),
    }
}

const fn malformed() -> CallError {
    CallError::Malformed(WireError::Malformed {
        what: "function output",
    })
}

/// Another runtime holds the state (spec/09 §10), it was lost before the request ended, or is not reached for now.
const STATE_CODES: [&str; 4] = [
    "state-held",
    "state-lost",
    "state-busy",
    "state-unreachable",
];
/// A hold's length, and a second.
const HELD_WAIT_MAX: Duration = Duration::from_secs(bield_protocol::service::STATE_HOLD_SECS + 1);
