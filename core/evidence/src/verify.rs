//! Evidence in, [`Claims`] out: a pure function, the same for real and simulated hardware.
//!
//! ```text
//! Evidence ─ bounds ─ canonical form ─ signatures up to a root ─ claims buffer ─▶ Claims
//! ```
//!
//! Always true: no clock, no network, no global; every byte of the evidence either takes part in a
//! signature, is compared with one that does, or is required to have one value, so a flipped byte
//! never verifies (spec/02 §3). About 2 ms for DCAP, 2.5 ms for SNP: cache verdicts by evidence
//! digest, never longer than [`Claims::collateral_until`].

use bield_envelope::{Digest, Time};

use crate::claims::Claims;
use crate::evidence::{Evidence, claims_report_data};
use crate::measurement::TeeKind;
use crate::roots::Roots;
use crate::{dcap, snp};

/// Verifies evidence against `roots` at the time `now`.
///
/// A non-empty claims buffer must be the one the report data commits to. With an empty one the
/// caller compares [`Claims::report_data`].
///
/// # Errors
/// Anything that does not verify; which check failed, and whose move it is.
pub fn verify(evidence: &Evidence, roots: &Roots, now: Time) -> Result<Claims, EvidenceError> {
    if evidence.claims_buffer.len() > CLAIMS_BUFFER_BYTES_MAX {
        return Err(EvidenceError::Malformed {
            what: "claims buffer longer than allowed",
        });
    }
    let claims = match evidence.kind {
        TeeKind::Sgx | TeeKind::Tdx => dcap::verify(evidence, roots, now)?,
        TeeKind::Snp => snp::verify(evidence, roots, now)?,
    };
    if !evidence.claims_buffer.is_empty()
        && claims.report_data != claims_report_data(&evidence.claims_buffer)
    {
        return Err(EvidenceError::ClaimsBuffer);
    }
    Ok(claims)
}

/// Largest claims buffer, in bytes: a few digests and names.
pub const CLAIMS_BUFFER_BYTES_MAX: usize = 4096;

/// Why evidence did not verify. None of these is cured by trying again with the same evidence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EvidenceError {
    /// The bytes are not what their kind says, or use a value this version does not know.
    #[error("evidence is malformed: {what}; the sender must fix it")]
    Malformed {
        /// The part that does not parse.
        what: &'static str,
    },
    /// Bytes that no signature covers differ from their one accepted form.
    #[error(
        "evidence carries bytes that do not count: {what}; the sender must canonicalise it before sending"
    )]
    NotCanonical {
        /// The part in question.
        what: &'static str,
    },
    /// Endorsements are absent or those of another vendor.
    #[error(
        "{kind} evidence without its endorsements cannot be verified; the platform's operator must attach them"
    )]
    MissingEndorsements {
        /// Kind of the evidence.
        kind: TeeKind,
    },
    /// The chain ends at a root that is not trusted here.
    #[error(
        "evidence leads to root {root}, which is not configured here; the verifying side decides whether to trust it"
    )]
    UnknownRoot {
        /// Digest of the root certificate found (of the issuing certificate for SNP).
        root: Digest,
    },
    /// Collateral or a certificate is past its end, or not valid yet.
    #[error(
        "endorsements do not hold at {now}: {reason}; the platform's operator must refresh them"
    )]
    OutsideValidity {
        /// Time of the verification.
        now: Time,
        /// What is expired or early.
        reason: String,
    },
    /// The vendor revoked a key or a firmware level.
    #[error("the vendor revoked this platform: {reason}; move to another machine")]
    Revoked {
        /// What is revoked.
        reason: String,
    },
    /// The TEE is open to its host by configuration.
    #[error("the TEE is not closed to its host: {reason}; start it without debug or migration")]
    Open {
        /// The attribute found.
        reason: String,
    },
    /// A signature, hash, identity or version does not match.
    #[error("evidence is not genuine: {reason}; do not use this peer")]
    NotGenuine {
        /// The failed step.
        reason: String,
    },
    /// Report data and claims buffer do not belong together.
    #[error("the report data does not commit to the claims buffer; do not use this peer")]
    ClaimsBuffer,
}
