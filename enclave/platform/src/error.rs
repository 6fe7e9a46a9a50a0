//! Why a TEE did not answer.

use std::io;
use std::path::PathBuf;

use bield_envelope::wire::WireError;

use crate::software::FrameError;

/// What went wrong between a program and its TEE.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TeeError {
    /// Nothing listens on the software TEE's socket.
    #[error(
        "no software TEE answers at {path}: {source}; start bield-software-tee there, then retry",
        path = path.display()
    )]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The exchange broke off, also on a second connection.
    #[error("the software TEE did not answer: {0}; retry when it runs again")]
    Exchange(#[from] FrameError),
    /// The answer was not one of the protocol's.
    #[error("the software TEE is of another version: {0}")]
    Answer(#[from] WireError),
    /// The answer was one to another question.
    #[error("the software TEE answered another question than was asked; it is broken")]
    Unexpected,
    /// The software TEE answered with a refusal.
    #[error("the software TEE refuses: {0}")]
    Refused(#[from] crate::software::Refusal),
    /// The program was measured differently on reconnecting.
    #[error("the software TEE now measures this program differently; restart the program")]
    MeasurementChanged,
    /// A sealing context longer than any TEE takes.
    #[error("a seal key context has {bytes} bytes, the limit is {max}; choose a shorter one")]
    ContextTooLong {
        /// Bytes given.
        bytes: usize,
        /// Bytes allowed.
        max: usize,
    },
}
