//! One call: seal, send, open, verify the receipt; only then is there an answer.
//!
//! ```text
//! tensors ─check against specs─▶ body ─seal─▶ POST ─▶ sealed answer ─open─▶ receipt verified ─▶ Answered
//!                                 ▲ └─────── 429, 503: wait as told, bounded ┘
//!                                 └ every attempt is sealed anew: a runtime that saw the first bytes
//!                                   would refuse them as replayed
//! ```

use std::thread;
use std::time::Duration;

use bield_envelope::{Digest, RequestHeader, ResponseOpener, SigningKey, Time, seal_request};
use bield_protocol::inference::{Answer, BODY_BYTES_MAX, Reply, Request};
use bield_protocol::tensor::Tensor;
use bield_receipt::{Expected, ExpectedOutput, ReceiptBundle, VerifiedReceipt};
use rand_core::CryptoRng;

use crate::gateway::Sealed;
use crate::{Awaited, CallError, GatewayError, Target, now};

/// Longest single wait that a gateway can ask for; beyond it the call is given up.
pub const RETRY_WAIT_MAX: Duration = Duration::from_secs(10);

/// An answer whose receipt was verified.
#[derive(Debug)]
pub struct Answered {
    /// The outputs.
    pub tensors: Vec<Tensor>,
    /// What the answer came from, with every check.
    pub receipt: VerifiedReceipt,
    /// The receipt as it can be kept and shown.
    pub bundle: ReceiptBundle,
    /// The runtime's unsealed feedback, as the gateway passed it on: nobody vouches for it.
    pub feedback: Option<serde_json::Value>,
    /// How often the request was sent.
    pub attempts: u32,
}

/// A pause between two attempts.
#[derive(Debug, Clone)]
pub struct Waiting {
    /// Attempts made.
    pub attempts: u32,
    /// Attempts allowed.
    pub attempts_max: u32,
    /// How long the pause is.
    pub wait: Duration,
    /// What the gateway said.
    pub reason: String,
}

/// How patient a call is.
pub struct CallOptions<'a> {
    /// Times the request is sent at most, when told to come back.
    pub attempts_max: u32,
    /// Told before each pause.
    pub waiting: &'a mut dyn FnMut(&Waiting),
    /// Where the time comes from.
    pub clock: fn() -> Time,
}

impl Target {
    /// Calls the package as `user`: all outputs when `outputs` is empty. Up to four attempts.
    ///
    /// # Errors
    /// See [`CallError`]; an answer whose receipt does not hold is withheld.
    pub fn call(
        &self,
        user: &SigningKey,
        inputs: Vec<Tensor>,
        outputs: Vec<String>,
        entropy: &mut impl CryptoRng,
    ) -> Result<Answered, CallError> {
        let options = CallOptions {
            attempts_max: 4,
            waiting: &mut |_| {},
            clock: now,
        };
        self.call_with(user, inputs, outputs, options, entropy)
    }

    /// As [`call`](Self::call), as patient as `options` say.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub fn call_with(
        &self,
        user: &SigningKey,
        inputs: Vec<Tensor>,
        outputs: Vec<String>,
        options: CallOptions<'_>,
        entropy: &mut impl CryptoRng,
    ) -> Result<Answered, CallError> {
        self.check(&inputs, &outputs)?;
        let body = Request { inputs, outputs }.encode();
        let clock = options.clock;
        let attempt = || self.attempt(user, &body, clock, entropy);
        let (answered, attempts) = patiently(options, pause, attempt)?;
        Ok(Answered {
            attempts,
            ..answered
        })
    }

    /// Sends what [`seal_call`](Self::seal_call) made, once, and verifies what comes back.
    ///
    /// # Errors
    /// As [`call`](Self::call). The same bytes are refused as replayed when they come again.
    pub fn call_sealed(
        &self,
        sealed: &[u8],
        awaited: Awaited,
        clock: fn() -> Time,
    ) -> Result<Answered, CallError> {
        let Sealed { answer, feedback } = self.gateway.call(sealed)?;
        let answered = self.open_answer(awaited, &answer, clock)?;
        Ok(Answered {
            feedback,
            ..answered
        })
    }

    fn attempt(
        &self,
        user: &SigningKey,
        body: &[u8],
        clock: fn() -> Time,
        entropy: &mut impl CryptoRng,
    ) -> Result<Answered, CallError> {
        let (sealed, opener) = self.seal(user, body, clock(), entropy)?;
        let request = opener.request();
        let Sealed { answer, feedback } = self.gateway.call(&sealed)?;
        let plain = opener.open(&answer).map_err(CallError::Open)?;
        self.answered(request, &plain, feedback, clock)
    }

    /// What a whole reply answers, once its receipt was verified.
    pub(crate) fn answered(
        &self,
        request: Digest,
        plain: &[u8],
        feedback: Option<serde_json::Value>,
        clock: fn() -> Time,
    ) -> Result<Answered, CallError> {
        let answer = whole(plain)?;
        let bundle = ReceiptBundle::new(answer.receipt.clone(), answer.certificate.clone(), None);
        let receipt = self.proven(request, &answer.output, &answer.salt, &bundle, clock())?;
        let tensors = answer.output().map_err(CallError::Malformed)?.tensors;
        Ok(Answered {
            tensors,
            receipt,
            bundle,
            feedback,
            attempts: 1,
        })
    }

    /// Seals a body to the target's key.
    pub(crate) fn seal(
        &self,
        user: &SigningKey,
        body: &[u8],
        now: Time,
        entropy: &mut impl CryptoRng,
    ) -> Result<(Vec<u8>, ResponseOpener), CallError> {
        self.check_end(now)?;
        let mut id = [0; 16];
        entropy.fill_bytes(&mut id);
        let header = RequestHeader {
            audience: self.named.audience,
            key: self.named.key.id(),
            package: self.named.package,
            id,
            created: now,
        };
        seal_request(&self.named.key, &header, user, body, entropy).map_err(CallError::Seal)
    }

    /// Verifies what a receipt says of this output.
    pub(crate) fn proven(
        &self,
        request: Digest,
        output: &[u8],
        salt: &[u8; 32],
        bundle: &ReceiptBundle,
        now: Time,
    ) -> Result<VerifiedReceipt, CallError> {
        let expected = Expected {
            request: Some(request),
            package: Some(self.named.package),
            output: Some(ExpectedOutput { salt, output }),
            ..Expected::default()
        };
        Ok(bield_receipt::verify(bundle, &self.anchor, expected, now)?)
    }

    /// Says what is wrong with the inputs before anything is sealed; the runtime checks again.
    pub(crate) fn check(&self, inputs: &[Tensor], outputs: &[String]) -> Result<(), CallError> {
        if self.is_function() {
            return Err(CallError::Input(format!(
                "{}@{} is a function: it takes a path and a body, not tensors",
                self.name(),
                self.version()
            )));
        }
        let takes = || listing(self.inputs().iter().map(ToString::to_string));
        for spec in self.inputs() {
            let mut of_this_name = inputs.iter().filter(|input| input.name() == spec.name());
            let input = of_this_name.next().ok_or_else(|| {
                let name = spec.name();
                CallError::Input(format!(
                    "input {name} is missing; the package takes {}",
                    takes()
                ))
            })?;
            spec.accepts(input)
                .map_err(|error| CallError::Input(error.to_string()))?;
            if of_this_name.next().is_some() {
                return Err(CallError::Input(format!(
                    "input {} is given twice",
                    spec.name()
                )));
            }
        }
        let known = |input: &&Tensor| self.inputs().iter().any(|spec| spec.name() == input.name());
        if let Some(input) = inputs.iter().find(|input| !known(input)) {
            let name = input.name();
            return Err(CallError::Input(format!(
                "no input {name}; the package takes {}",
                takes()
            )));
        }
        let gives = |name: &&String| self.outputs().iter().any(|spec| spec.name() == **name);
        if let Some(name) = outputs.iter().find(|name| !gives(name)) {
            let outputs = listing(self.outputs().iter().map(ToString::to_string));
            return Err(CallError::Input(format!(
                "no output {name}; the package gives {outputs}"
            )));
        }
        Ok(())
    }
}

/// Attempts until one is not told to come back; also how many there were.
pub(crate) fn patiently<T>(
    options: CallOptions<'_>,
    pause: fn(&CallError) -> Option<Duration>,
    mut attempt: impl FnMut() -> Result<T, CallError>,
) -> Result<(T, u32), CallError> {
    let mut attempts = 1;
    loop {
        let error = match attempt() {
            Ok(answered) => return Ok((answered, attempts)),
            Err(error) => error,
        };
        let Some(wait) = pause(&error).filter(|_| attempts < options.attempts_max) else {
            return Err(error);
        };
        let reason = error.to_string();
        let attempts_max = options.attempts_max;
        (options.waiting)(&Waiting {
            attempts,
            attempts_max,
            wait,
            reason,
        });
        thread::sleep(wait);
        attempts += 1;
    }
}

/// How long to wait before another attempt; `None` when it would not help.
pub(crate) fn pause(error: &CallError) -> Option<Duration> {
    match error {
        CallError::Gateway(GatewayError::Refused {
            status: 429 | 503,
            retry_after_ms: Some(millis),
            ..
        }) => Some(Duration::from_millis(*millis)).filter(|wait| *wait <= RETRY_WAIT_MAX),
        _ => None,
    }
}

/// The answer in a whole reply.
pub(crate) fn whole(plain: &[u8]) -> Result<Answer, CallError> {
    match Reply::decode(plain).map_err(CallError::Malformed)? {
        Reply::Answered(answer) => Ok(answer),
        Reply::Refused(refusal) => Err(CallError::Refused(refusal)),
        _ => Err(CallError::Open(unknown())),
    }
}

pub(crate) fn unknown() -> bield_envelope::EnvelopeError {
    bield_envelope::EnvelopeError::Malformed {
        what: "sealed response",
        why: "an answer of a kind that this version does not know",
    }
}

fn listing(items: impl Iterator<Item = String>) -> String {
    let items: Vec<_> = items.collect();
    if items.is_empty() {
        "nothing".to_owned()
    } else {
        items.join(", ")
    }
}

// A request that fits the protocol fits the envelope.
const _: () = assert!(BODY_BYTES_MAX <= bield_envelope::SEALED_REQUEST_BYTES_MAX);
