//! Handing an answer over while it is made.
//!
//! ```text
//! opened ─▶ Handing ─ whole ─▶ sealed at once
//!              └ output ─ sealed chunk by chunk ─▶ Asker::part, each at once;  at the end: the rest
//! ```
//!
//! Always true: the sealer is used once, for a whole answer or for one in parts; what is sealed for somebody who is gone is
//! not kept; the first part says which feedback goes with it. Not here: what the outputs are and what proves them (`call`).
//! On paper: each output is encoded and sealed once, as in a whole answer, and copied once more into the ring.

use std::time::Duration;

use bield_envelope::{RESPONSE_CHUNK_BYTES_MAX, ResponseSealer, ResponseWriter};
use bield_package::tensor::Tensor;
use bield_platform::Randomness;
use bield_protocol::call::Reply;
use bield_protocol::feedback::Feedback;
use bield_protocol::parts::Item;
use bield_protocol::refusal::Refusal;

use crate::refusals;

/// Who waits for the answer, on the other side of the door.
pub(crate) trait Asker {
    /// Whether nobody waits any more.
    fn is_gone(&self) -> bool;

    /// Whether a part would leave at once.
    fn takes_more(&self) -> bool;

    /// Waits until it would, at most so long, and less for who takes nothing.
    fn wait_until_taken(&self, at_most: Duration) -> Result<(), Gone>;

    /// Sends a part.
    fn part(&self, bytes: &[u8]) -> Result<(), Gone>;
}

/// Nobody waits any more, or not fast enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Gone;

/// One answer on its way out.
pub(crate) struct Handing<'a> {
    asker: &'a dyn Asker,
    stage: Stage,
}

enum Stage {
    /// The request is not open: there is nothing to seal with.
    Unopened,
    Opened(ResponseSealer),
    /// Parts were sent.
    Begun(ResponseWriter),
    /// Sealed to its end.
    Over {
        in_parts: bool,
    },
}

impl<'a> Handing<'a> {
    pub(crate) const fn new(asker: &'a dyn Asker) -> Self {
        let stage = Stage::Unopened;
        Self { asker, stage }
    }

    /// Takes what seals the answer to the request that was opened.
    pub(crate) fn open(&mut self, sealer: ResponseSealer) {
        self.stage = Stage::Opened(sealer);
    }

    pub(crate) fn asker(&self) -> &'a dyn Asker {
        self.asker
    }

    /// Whether parts were sent, so that what is sent now comes after them.
    pub(crate) const fn has_begun(&self) -> bool {
        matches!(self.stage, Stage::Begun(_) | Stage::Over { in_parts: true })
    }

    /// Seals an output and sends it; gives it back. `feedback` is asked for the first part's, `pause` waits until
    /// more is taken, before each chunk but the first.
    pub(crate) fn output(
        &mut self,
        output: Tensor,
        feedback: impl FnOnce() -> Feedback,
        pause: &mut dyn FnMut() -> Result<(), Refusal>,
    ) -> Result<Tensor, Refusal> {
        let gone = |Gone| refusals::left();
        let item = Item::Output(output);
        let first = !self.has_begun();
        let plain = item.encode(first);
        let mut sealed = Vec::new();
        let mut writer = match std::mem::replace(&mut self.stage, Stage::Over { in_parts: true }) {
            Stage::Begun(writer) => writer,
            Stage::Opened(sealer) => sealer.begin(&mut Randomness, &mut sealed),
            Stage::Unopened | Stage::Over { .. } => return Err(refusals::left()),
        };
        let mut feedback = first.then_some(feedback);
        for (index, chunk) in plain.chunks(RESPONSE_CHUNK_BYTES_MAX).enumerate() {
            writer.chunk(chunk, &mut sealed);
            if index > 0 && !self.asker.takes_more() {
                pause()?;
            }
            match feedback.take() {
                Some(feedback) => {
                    let sealed = std::mem::take(&mut sealed);
                    let first = Reply::Streamed(feedback(), sealed).encode();
                    self.asker.part(&first).map_err(gone)?;
                }
                None => self.asker.part(&sealed).map_err(gone)?,
            }
            sealed.clear();
        }
        self.stage = Stage::Begun(writer);
        match item {
            Item::Output(output) => Ok(output),
            _ => Err(refusals::left()),
        }
    }

    /// Seals the last item of an answer in parts; `None` when some of it could not be sent, so that it has no end.
    pub(crate) fn rest(&mut self, item: &Item) -> Option<Vec<u8>> {
        let over = Stage::Over { in_parts: true };
        let Stage::Begun(mut writer) = std::mem::replace(&mut self.stage, over) else {
            return None;
        };
        let plain = item.encode(false);
        let mut sealed = Vec::new();
        let mut rest = &plain[..];
        while rest.len() > RESPONSE_CHUNK_BYTES_MAX {
            let (chunk, after) = rest.split_at(RESPONSE_CHUNK_BYTES_MAX);
            writer.chunk(chunk, &mut sealed);
            rest = after;
        }
        writer.finish(rest, &mut sealed);
        Some(sealed)
    }

    /// Seals a whole answer; `None` without a request that was opened.
    pub(crate) fn whole(&mut self, plain: &[u8]) -> Option<Vec<u8>> {
        let over = Stage::Over { in_parts: false };
        match std::mem::replace(&mut self.stage, over) {
            Stage::Opened(sealer) => Some(sealer.seal(plain, &mut Randomness)),
            _ => None,
        }
    }
}
