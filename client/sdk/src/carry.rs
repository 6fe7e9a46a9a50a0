//! A call whose bytes travel by other means: sealed here, carried by whoever, opened here.
//!
//! ```text
//! tensors ─seal_call─▶ sealed request ─▶ any transport ─▶ sealed answer ─open_answer─▶ Answered
//!             └─▶ Awaited ────────────────────────────────────────────────────┘ opens that answer only
//! ```
//!
//! Always true: an [`Awaited`] opens one answer, that to the request it was sealed with, and is used up by
//! trying; what it opens is an answer only after its receipt was verified, as with [`Target::call`].

use bield_envelope::{Digest, ResponseOpener, SigningKey, Time};
use bield_protocol::inference::Request;
use bield_protocol::tensor::Tensor;
use rand_core::CryptoRng;

use crate::call::Answered;
use crate::{CallError, Target};

/// What opens the answer to one sealed request. Wiped when it goes.
pub struct Awaited {
    opener: ResponseOpener,
}

impl Awaited {
    /// Digest of the sealed request; names the receipt.
    #[must_use]
    pub const fn request(&self) -> Digest {
        self.opener.request()
    }
}

impl Target {
    /// Seals a call as `user` at the time `now`, and sends nothing: all outputs when `outputs` is empty. The
    /// request is admitted for as long as the runtime takes `now` for recent.
    ///
    /// # Errors
    /// Inputs that the package does not take, or a key that has ended.
    pub fn seal_call(
        &self,
        user: &SigningKey,
        inputs: Vec<Tensor>,
        outputs: Vec<String>,
        now: Time,
        entropy: &mut impl CryptoRng,
    ) -> Result<(Vec<u8>, Awaited), CallError> {
        self.check(&inputs, &outputs)?;
        let body = Request { inputs, outputs }.encode();
        let (sealed, opener) = self.seal(user, &body, now, entropy)?;
        Ok((sealed, Awaited { opener }))
    }

    /// Opens what came back for a request that this target sealed, and verifies its receipt.
    ///
    /// # Errors
    /// Not the answer to that request, a refusal of the runtime, or a receipt that does not hold.
    pub fn open_answer(
        &self,
        awaited: Awaited,
        sealed: &[u8],
        clock: fn() -> Time,
    ) -> Result<Answered, CallError> {
        let request = awaited.request();
        let plain = awaited.opener.open(sealed).map_err(CallError::Open)?;
        self.answered(request, &plain, None, clock)
    }
}
