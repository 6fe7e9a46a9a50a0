//! A software quoting platform for development: real formats, a local root, no protection.
//!
//! ```text
//! enclave program ──Unix socket──▶ bield-software-tee ──▶ quote + collateral ──▶ any DCAP verifier
//!   (measured through /proc)         a made-up machine                            that trusts its root
//! ```
//!
//! Stands in for the CPU and its quoting enclave. What comes out is in Intel's formats down to the
//! byte, so that everything behind it — parsing, certificate chains, revocation, TCB levels,
//! appraisal — is the code that runs with real hardware. The only difference a verifier sees is the
//! root certificate, and that is how it knows: [`Platform::root_der`] must be trusted by name, and
//! default policies refuse it.
//!
//! Promises nothing about secrets: this program, its state directory and whoever runs as the same
//! user can read and forge everything. Release programs never link this crate; a test looks for
//! [`MARKER`] in them.
//!
//! * [`Platform`]: make a machine, quote, issue collateral, derive seal keys.
//! * [`Server`]: measure programs that connect and quote for them.
//! * [`measure`]: what the measurement of a program will be.

mod collateral;
mod error;
mod extension;
mod measure;
mod peer;
mod pki;
mod platform;
mod quote;
mod report;
mod serve;
mod server;
mod state;

pub use collateral::CollateralOptions;
pub use dcap_qvl::TcbStatus;
pub use error::SoftwareTeeError;
pub use measure::measure;
pub use platform::{Options, Platform, QE_SVN};
pub use report::{Kind, SgxReport, TdxReport};
pub use server::{Running, Server};

/// Occurs in every program that can make a [`Platform`], and must not occur in a release program.
pub const MARKER: &str = "BIELD-SOFTWARE-TEE-SIMULATOR";
