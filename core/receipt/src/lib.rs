//! What an answer came from, signed.
//!
//! ```text
//!   key service ── signs ──▶ WorkerCertificate { worker, code, simulated, from … until }
//!                                    │ certifies
//!   runtime ────── signs ──▶ Receipt { request, package, code, grant, output, at, … }
//!                                    │
//!   ReceiptBundle = receipt ‖ certificate ‖ (evidence of the key service) ‖ (heads of the state)
//!                                    │ examine (anchor, expected, now)
//!                                    ▼
//!                    Report: each check passed / failed / NOT CHECKED
//!                                    │ accept
//!                                    ▼
//!                     VerifiedReceipt, or ReceiptError listing every failed check
//! ```
//!
//! In: the bundle that came inside a sealed answer, the key service's principal that the reader
//! already trusts, and what the reader knows of the request and the answer. Out: a typed verdict.
//!
//! Always true: nothing in a bundle is read before its signature is verified under a key that the
//! anchor leads to; a receipt under a software TEE is never accepted unless the anchor allows it,
//! and then says so in its verdict; what was not checked is listed as loudly as what was.
//!
//! Not here: how the reader came to trust the key service (its evidence, `bield-evidence`), how it
//! came by a verified log of a state (`bield-capsule`). Written for second implementations in `spec/08-receipt.md`.
//!
//! Cost to make: one Ed25519 signature and one BLAKE3 pass over the output. Cost to verify: two
//! Ed25519 verifications, about 700 bytes of bundle without the key service's evidence.

mod bundle;
mod certificate;
mod receipt;
mod report;
mod state;
mod verify;

pub use bundle::{BUNDLE_BYTES_MAX, ReceiptBundle, SERVICE_EVIDENCE_BYTES_MAX};
pub use certificate::{
    CERTIFICATE_BACKDATE, CERTIFICATE_BYTES_MAX, CERTIFICATE_TIME_MAX, WorkerCertificate,
    service_evidence_digest,
};
pub use receipt::{RECEIPT_BYTES_MAX, Receipt, output_commitment};
pub use report::{ReceiptError, Report, VerifiedReceipt};
pub use state::{Reaches, STATE_HEADS_BYTES_MAX, StateHeads, StateSpan};
pub use verify::{Anchor, CheckedLog, Expected, ExpectedOutput, ExpectedState, examine, verify};
