//! A call whose outputs come one by one.
//!
//! ```text
//! POST ─▶ sealed chunks ─open─▶ EarlyOutput, EarlyOutput, … ─end─▶ receipt verified over all ─▶ Answered
//!                                └ opened, not yet complete           └ the answer
//! ```
//!
//! Always true: an [`Answered`] exists only after the last chunk came and the receipt in it was verified over all outputs, as
//! after [`Target::call`]; an answer that was cut is an error; once an output was handed out, the request is not sent again.

use bield_envelope::{Digest, ResponseOpener, Time};
use bield_protocol::inference::{Output, Request};
use bield_protocol::parts::{Arriving, End, Item, encode_request};
use bield_protocol::tensor::Tensor;
use rand_core::CryptoRng;
use zeroize::Zeroizing;

use crate::call::{bundle, patiently, unknown};
use crate::gateway::Coming;
use crate::{Answered, CallError, CallOptions, Target};

/// Bytes read at once.
const BUFFER_BYTES: usize = 64 << 10;

/// An output that was opened before the answer it belongs to is complete.
///
/// It shows that whoever opened this very request sealed it as the next output, and that none before it was dropped,
/// repeated or moved. It does not show which code computed it, under which grant, or that the answer will be completed:
/// that is what the [`Answered`] at the end says, of all outputs. Until then it is good for showing, not for acting on.
pub struct EarlyOutput<'a> {
    index: usize,
    tensor: &'a Tensor,
}

impl EarlyOutput<'_> {
    /// Its place among the outputs asked for.
    #[must_use]
    pub const fn index(&self) -> usize {
        self.index
    }

    /// The output, whose receipt has not come.
    #[must_use]
    pub const fn unproven(&self) -> &Tensor {
        self.tensor
    }
}

impl Target {
    /// As [`call_with`](Self::call_with); each output is handed out when it comes, before it is proven. A runtime may
    /// refuse to answer in parts (`no-parts`).
    ///
    /// # Errors
    /// As [`call`](Self::call): what was handed out is then not an answer.
    pub fn call_in_parts(
        &self,
        user: &bield_envelope::SigningKey,
        inputs: Vec<Tensor>,
        outputs: Vec<String>,
        options: CallOptions<'_>,
        each: &mut dyn FnMut(EarlyOutput<'_>),
        entropy: &mut impl CryptoRng,
    ) -> Result<Answered, CallError> {
        self.check(&inputs, &outputs)?;
        let body = Zeroizing::new(encode_request(&Request { inputs, outputs }));
        let clock = options.clock;
        patiently(options, || {
            let (sealed, opener) = self.seal(user, &body, clock(), entropy)?;
            let coming = self.gateway.call_in_parts(&sealed)?;
            self.receive(opener, coming, each, clock)
        })
    }

    fn receive(
        &self,
        opener: ResponseOpener,
        mut coming: Coming,
        each: &mut dyn FnMut(EarlyOutput<'_>),
        clock: fn() -> Time,
    ) -> Result<Answered, CallError> {
        let request = opener.request();
        let feedback = coming.feedback.take();
        let mut reader = opener.begin();
        let mut arriving = Arriving::default();
        let (mut tensors, mut end) = (Vec::new(), None);
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            let count = coming.read(&mut buffer)?;
            if count == 0 {
                break;
            }
            let mut plain = Zeroizing::new(Vec::new());
            let pushed = reader.push(&buffer[..count], &mut plain);
            arriving.push(&plain).map_err(CallError::Malformed)?;
            while let Some(item) = arriving.next_item().map_err(CallError::Malformed)? {
                match item {
                    Item::Output(tensor) => {
                        let index = tensors.len();
                        tensors.push(tensor);
                        let tensor = &tensors[index];
                        each(EarlyOutput { index, tensor });
                    }
                    Item::End(last) => end = Some(Ok(last)),
                    Item::Refused(refusal) => end = Some(Err(refusal)),
                    _ => return Err(CallError::Open(unknown())),
                }
            }
            pushed.map_err(CallError::Open)?;
        }
        reader.finish().map_err(CallError::Open)?;
        match end {
            Some(Ok(end)) => self.complete(request, tensors, end, feedback, clock),
            Some(Err(refusal)) => Err(CallError::Refused(refusal)),
            None => self.came_whole(request, arriving, feedback, clock),
        }
    }

    /// All outputs and what proves them.
    fn complete(
        &self,
        request: Digest,
        tensors: Vec<Tensor>,
        end: End,
        feedback: Option<serde_json::Value>,
        clock: fn() -> Time,
    ) -> Result<Answered, CallError> {
        let output = Output { tensors };
        let bytes = Zeroizing::new(output.encode());
        let bundle = bundle(end.receipt, end.certificate);
        let receipt = self.proven(request, &bytes, &end.salt, &bundle, clock())?;
        Ok(Answered {
            tensors: output.tensors,
            receipt,
            bundle,
            feedback,
            attempts: 1,
        })
    }

    /// A refusal before the first output is a whole reply.
    fn came_whole(
        &self,
        request: Digest,
        arriving: Arriving,
        feedback: Option<serde_json::Value>,
        clock: fn() -> Time,
    ) -> Result<Answered, CallError> {
        let plain = arriving.into_whole().ok_or(CallError::Open(unknown()))?;
        self.answered(request, &plain, feedback, clock)
    }
}
