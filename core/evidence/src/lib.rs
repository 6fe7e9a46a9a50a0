//! Evidence of trusted execution: verify it into [`Claims`], appraise the claims against a [`Policy`].
//!
//! ```text
//!            untrusted bytes                  facts                    permission
//!  Evidence ───────────────▶ verify ─▶ Claims ─────▶ appraise ─▶ Appraisal ─▶ admit ─▶ Appraised
//!                               ▲                       ▲            └ every check: passed,
//!                             Roots                   Policy           failed or not checked
//! ```
//!
//! Always true: pure functions of their arguments; the same code judges real and simulated evidence,
//! and only the root that validated it tells them apart; unknown values are refused; an
//! [`Appraised`] exists only when no check failed.
//!
//! Not here: producing evidence (`bield-platform`), fetching collateral, binding evidence to a
//! session (`bield-session`), reading clocks. Formats and rules: `spec/02-evidence.md`.
//!
//! ```
//! use bield_envelope::Time;
//! use bield_evidence::{Endorsements, Evidence, EvidenceError, Roots, TeeKind, verify};
//!
//! let evidence = Evidence {
//!     kind: TeeKind::Snp,
//!     quote: vec![0; 1184],
//!     claims_buffer: Vec::new(),
//!     endorsements: Endorsements::None,
//! };
//! let refused = verify(&evidence, &Roots::vendor(), Time::from_secs(1_763_769_600));
//! assert!(matches!(refused, Err(EvidenceError::Malformed { .. })));
//! ```

mod appraisal;
mod claims;
mod dcap;
mod evidence;
mod hardening;
mod measurement;
mod pem;
mod policy;
mod roots;
mod snp;
mod verify;

pub use appraisal::{Appraisal, Appraised, Check, Mover, Outcome, Refusal, appraise};
pub use claims::{Claims, SnpTcb, TcbStatus};
pub use dcap::canonical::make as canonical_dcap;
pub use evidence::{Endorsements, Evidence, claims_report_data};
pub use hardening::{HardeningDemand, HardeningStatement, Protection};
pub use measurement::{
    Measurement, ParseMeasurementError, TeeKind, configuration_digest, program_digest,
    software_measurement, tdx_measurement,
};
pub use policy::config::{PolicyConfig, PolicyConfigError};
pub use policy::{Policy, Profile, Reference};
pub use roots::{Roots, root_digest};
pub use verify::{CLAIMS_BUFFER_BYTES_MAX, EvidenceError, verify};
