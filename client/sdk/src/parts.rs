//! A call whose outputs come one by one.
//!
//! ```text
//! POST ─▶ sealed chunks ─open─▶ EarlyOutput, EarlyOutput, … ─end─▶ receipt verified over all ─▶ Answered
//!                                └ opened, not yet complete           └ the answer
//! ```
//!
//! Always true: an [`Answered`] exists only after the last chunk came and the receipt in it was verified over all outputs, as
//! after [`Target::call`]; an answer that was cut is an error; once an output was handed out, the request is not sent again.

use bield_envelope::{Digest, RESPONSE_CHUNK_BYTES_MAX, ResponseOpener, Time, Wiped};
use bield_protocol::inference::{Output, Request};
use bield_protocol::parts::{Arriving, End, Item, encode_request};
use bield_protocol::tensor::Tensor;
use bield_receipt::ReceiptBundle;
use rand_core::CryptoRng;
use zeroize::Zeroizing;

use crate::call::{patiently, pause, unknown};
use crate::gateway::Coming;
use crate::{Answered, CallError, CallOptions, GatewayError, Target};

/// Bytes read at once.
const BUFFER_BYTES: usize = 64 << 10;
/// Most bytes that one of these reads opens: what was missing of a chunk, and chunks after it.
const OPENED_BYTES_MAX: usize = RESPONSE_CHUNK_BYTES_MAX + BUFFER_BYTES;

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
        let body = encode_request(&Request { inputs, outputs });
        let clock = options.clock;
        let (answered, attempts) = patiently(options, pause, || {
            let (sealed, opener) = self.seal(user, &body, clock(), entropy)?;
            let coming = self.gateway.call_in_parts(&sealed)?;
            self.receive(opener, coming, each, clock)
        })?;
        Ok(Answered {
            attempts,
            ..answered
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
        let came = receive(opener, |buffer| coming.read(buffer), each)?;
        match came.end {
            Some(Item::End(end)) => self.complete(request, came.tensors, end, feedback, clock),
            Some(Item::Refused(refusal)) => Err(CallError::Refused(refusal)),
            _ => self.came_whole(request, came.arriving, feedback, clock),
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
        let bytes = Wiped::from(output.encode());
        let bundle = ReceiptBundle::new(end.receipt, end.certificate, None);
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

/// All that came of an answer, whose last chunk was among it.
struct Came {
    tensors: Vec<Tensor>,
    /// How it ended, unless it came whole.
    end: Option<Item>,
    arriving: Arriving,
}

/// Opens an answer as it comes, and hands its outputs out.
fn receive(
    opener: ResponseOpener,
    mut read: impl FnMut(&mut [u8]) -> Result<usize, GatewayError>,
    each: &mut dyn FnMut(EarlyOutput<'_>),
) -> Result<Came, CallError> {
    let mut reader = opener.begin();
    let mut arriving = Arriving::default();
    let (mut tensors, mut end) = (Vec::new(), None);
    let mut buffer = vec![0; BUFFER_BYTES];
    // Never grows, which would leave copies behind; wiped once, at the end.
    let mut plain = Zeroizing::new(Vec::with_capacity(OPENED_BYTES_MAX));
    loop {
        let count = read(&mut buffer)?;
        if count == 0 {
            break;
        }
        plain.clear();
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
                Item::End(_) | Item::Refused(_) => end = Some(item),
                _ => return Err(CallError::Open(unknown())),
            }
        }
        pushed.map_err(CallError::Open)?;
    }
    reader.finish().map_err(CallError::Open)?;
    Ok(Came {
        tensors,
        end,
        arriving,
    })
}

#[cfg(test)]
mod tests {
    use bield_envelope::{
        AudienceKey, RequestHeader, ResponseSealer, ResponseWriter, SealedRequest, Seeded,
        SigningKey, seal_request,
    };
    use bield_protocol::refusal::{Refusal, Retry};

    use super::*;

    /// A request's opener and, at the other end, its sealer.
    fn asked() -> (ResponseOpener, ResponseSealer) {
        let mut entropy = Seeded::new(1);
        let key = AudienceKey::generate(&mut entropy);
        let user = SigningKey::generate(&mut entropy);
        let header = RequestHeader {
            audience: Digest::from_bytes([1; 32]),
            key: key.public().id(),
            package: Digest::from_bytes([2; 32]),
            id: [3; 16],
            created: Time::from_secs(1),
        };
        let (sealed, opener) =
            seal_request(key.public(), &header, &user, b"", &mut entropy).unwrap();
        let request = SealedRequest::parse(&sealed).unwrap();
        (opener, key.open(&request).unwrap().1)
    }

    fn output(name: &str, numbers: usize) -> Item {
        let data = vec![0.5; numbers];
        Item::Output(Tensor::from_f32(name, &[numbers as u64], &data).unwrap())
    }

    /// What is received of these items, the last of which ends the answer, and the names of outputs that were handed out.
    fn receive_all(items: &[Item]) -> (Result<Came, CallError>, Vec<String>) {
        let (opener, sealer) = asked();
        let mut sealed = Vec::new();
        let mut writer: ResponseWriter = sealer.begin(&mut Seeded::new(2), &mut sealed);
        let (last, before) = items.split_last().unwrap();
        for (index, item) in before.iter().enumerate() {
            for chunk in item.encode(index == 0).chunks(RESPONSE_CHUNK_BYTES_MAX) {
                writer.chunk(chunk, &mut sealed);
            }
        }
        writer.finish(&last.encode(before.is_empty()), &mut sealed);
        let (mut rest, mut names) = (&sealed[..], Vec::new());
        let read = |buffer: &mut [u8]| {
            let (now, after) = rest.split_at(rest.len().min(buffer.len()));
            buffer[..now.len()].copy_from_slice(now);
            rest = after;
            Ok(now.len())
        };
        let came = receive(opener, read, &mut |early| {
            assert_eq!(early.index(), names.len());
            names.push(early.unproven().name().to_owned());
        });
        (came, names)
    }

    #[test]
    fn a_refusal_after_an_output_is_how_it_ends() {
        let refused = || Item::Refused(Refusal::new("test", "no", Retry::Never));
        for outputs in [&["a"][..], &["a", "b"]] {
            let mut items: Vec<_> = outputs.iter().map(|name| output(name, 3)).collect();
            items.push(refused());
            let (came, names) = receive_all(&items);
            assert_eq!(names, outputs);
            let Some(Item::Refused(refusal)) = came.unwrap().end else {
                panic!("not refused")
            };
            assert_eq!(refusal.code, "test");
        }
        let (came, names) = receive_all(&[refused(), output("after", 3)]);
        assert!(matches!(came, Err(CallError::Malformed(_))) && names.is_empty());
    }

    #[test]
    fn an_answer_that_ends_without_a_word_is_none() {
        let (came, names) = receive_all(&[output("a", 3), output("b", 3)]);
        assert_eq!(names, ["a", "b"]);
        let came = came.unwrap();
        assert!(came.end.is_none() && came.arriving.into_whole().is_none());
    }

    #[test]
    fn outputs_longer_than_chunks_come_whole() {
        let numbers = RESPONSE_CHUNK_BYTES_MAX * 3 / 8;
        let refused = Item::Refused(Refusal::new("test", "no", Retry::Never));
        let items = [output("a", numbers), output("b", 5), refused];
        let (came, names) = receive_all(&items);
        assert_eq!(names, ["a", "b"]);
        assert_eq!(came.unwrap().tensors[0].data().len(), 4 * numbers);
    }
}
