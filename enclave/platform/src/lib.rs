//! The TEE a program runs in: evidence, seal key, randomness, time, and what the process gave up.
//!
//! ```text
//! keys, runtime ──▶ dyn Tee ──▶ software: Unix socket to bield-software-tee (development only)
//!       │                  └──▶ one module per further TEE
//!       ├──▶ Randomness, now()     the only sources of entropy and time in the enclave zone
//!       ├──▶ harden(), confine()   what the process gives up before secrets, and before it serves
//!       ├──▶ heed_termination()    being told to end
//!       └──▶ memory                regions for models, freed memory that keeps nothing
//! ```
//!
//! Always true: a program reaches its hardware only through [`Tee`]; nothing here decides whether
//! evidence is good (`bield-evidence` does, at the peer); nothing here marks evidence as simulated,
//! since the verifier decides that by the root that signed it.
//!
//! Time comes from the host and is worth what the host is worth: `bield-grant` and the session gate
//! bound what a wrong clock can do.

mod clock;
mod confine;
mod environment;
mod error;
mod hardening;
mod library;
pub mod memory;
mod randomness;
pub mod software;
mod termination;

use bield_envelope::Secret;
use bield_evidence::{Evidence, Measurement, TeeKind};

pub use clock::now;
pub use confine::{Code, confine};
pub use environment::{EnvironmentError, refuse_environment};
pub use error::TeeError;
pub use hardening::{Failure, Hardening, Protection, harden, lock_memory, lock_regions};
pub use library::{LIBRARY_BYTES_MAX, Library, LibraryError};
pub use randomness::Randomness;
pub use termination::{heed_termination, wait_until_told_to_end};

/// The trusted hardware, or its stand-in, under the running program.
///
/// Calls block: a quote takes 1 ms from the software TEE, up to a second on real hardware.
pub trait Tee: Send + Sync {
    /// Whose evidence this is.
    fn kind(&self) -> TeeKind;

    /// The measurement that evidence about this program carries.
    fn measurement(&self) -> &Measurement;

    /// Asks for evidence over `report_data`; its claims buffer is left empty for the caller.
    ///
    /// # Errors
    /// When the hardware or its quoting service cannot answer.
    fn evidence(&self, report_data: &[u8; 64]) -> Result<Evidence, TeeError>;

    /// Derives the key that only this measurement on this machine gets for `context`.
    ///
    /// Never the only copy of anything: the machine may be gone tomorrow.
    ///
    /// # Errors
    /// When the hardware has no sealing key or cannot answer.
    fn seal_key(&self, context: &str) -> Result<Secret, TeeError>;

    /// Whether it is reached through a socket that may have to be opened again; [`confine`] leaves room for that.
    fn reconnects(&self) -> bool {
        false
    }
}
