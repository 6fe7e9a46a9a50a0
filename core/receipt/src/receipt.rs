//! The receipt: one sentence a runtime signs about one answer.
//!
//! "I am this *code*; under this *grant* I ran this *package* on this *request* and gave this
//! *output* at this time; it came from this *state* and left that one." It names everything by digest, so it can be shown to a third party
//! without showing the request or the answer.

use bield_envelope::{Digest, Statement, Time};
use bield_evidence::Measurement;
use bield_grant::{Admitted, GrantedRequest};
use minicbor::{Decode, Encode};

use crate::StateSpan;

/// Longest encoded statement in bytes, before signing: under 360 with today's longest
/// measurement (48 bytes) and a state, with room for a longer one.
pub const RECEIPT_BYTES_MAX: usize = 384;

/// What one answer came from (`spec/08 §3`).
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Receipt {
    /// The sealed request: digest of all its bytes.
    #[n(0)]
    pub request: Digest,
    /// The package that answered.
    #[n(1)]
    pub package: Digest,
    /// The code that ran it.
    #[n(2)]
    pub code: Measurement,
    /// The grant that allowed it: digest of its signed bytes.
    #[n(3)]
    pub grant: Digest,
    /// Commitment to the answer ([`output_commitment`]).
    #[n(4)]
    pub output: Digest,
    /// When the answer was made, by the runtime's clock, which its host sets.
    #[n(5)]
    pub at: Time,
    /// The state that the answer came from and the one it left; absent when there is none, as for a model.
    #[n(6)]
    pub state: Option<StateSpan>,
    /// The runtime ran in a software TEE: there was no hardware protection.
    #[n(7)]
    pub simulated: bool,
}

impl Statement for Receipt {
    const DOMAIN: &'static str = "bield receipt v1";
    const BYTES_MAX: usize = RECEIPT_BYTES_MAX;
}

impl Receipt {
    /// Binds an answer to the admitted request it belongs to; the runtime signs the result.
    pub fn bind(
        request: &Admitted<GrantedRequest>,
        output: Digest,
        state: Option<StateSpan>,
        simulated: bool,
        at: Time,
    ) -> Self {
        let header = request.request.header();
        Self {
            request: request.request.digest(),
            package: header.package,
            code: request.code.clone(),
            grant: request.grant,
            output,
            at,
            state,
            simulated,
        }
    }
}

/// Commits to an answer without revealing it (`spec/08 §4`).
///
/// `salt` is 32 fresh random bytes that travel inside the sealed answer: without them, short
/// answers could be guessed from the receipt.
pub fn output_commitment(salt: &[u8; 32], output: &[u8]) -> Digest {
    Digest::of(OUTPUT_DOMAIN, &[salt, output])
}

const OUTPUT_DOMAIN: &str = "bield output commitment v1";
