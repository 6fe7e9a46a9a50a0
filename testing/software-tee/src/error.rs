//! What can go wrong while standing in for a CPU.

use std::io;
use std::path::{Path, PathBuf};

/// Why the software TEE could not do something.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SoftwareTeeError {
    /// A date that no certificate or collateral can name.
    #[error("a date is outside the years 1970 to 9999; choose another")]
    Date,
    /// A certificate or revocation list could not be made.
    #[error("cannot issue a certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// A file or directory could not be used.
    #[error("cannot use {path}: {source}; check that it exists and belongs to you", path = path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The machine's secret can be read by other users.
    #[error("{path} can be read by others; remove it to make a new machine, or run: chmod 600 {path}", path = path.display())]
    ReadableByOthers {
        /// Where it is.
        path: PathBuf,
    },
    /// The file is not one this version wrote.
    #[error("{path} is not a machine of this version; remove it to make a new one", path = path.display())]
    NotAMachine {
        /// Where it is.
        path: PathBuf,
    },
    /// The program is larger than any we measure.
    #[error("{path} is larger than {max} bytes and is not measured", path = path.display())]
    ProgramTooLarge {
        /// Which program.
        path: PathBuf,
        /// Bytes allowed.
        max: u64,
    },
    /// Another software TEE listens there.
    #[error("{path} is in use by another software TEE; stop it or choose another socket", path = path.display())]
    SocketInUse {
        /// The socket.
        path: PathBuf,
    },
    /// Something that is not a socket is in the way.
    #[error("{path} exists and is not a socket; choose another path", path = path.display())]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// Unix socket paths are short.
    #[error("the socket path {path} is longer than {max} bytes; choose a shorter directory", path = path.display())]
    SocketPathTooLong {
        /// The path.
        path: PathBuf,
        /// Bytes allowed.
        max: usize,
    },
}

impl SoftwareTeeError {
    pub(crate) fn file(path: &Path, source: io::Error) -> Self {
        Self::File {
            path: path.into(),
            source,
        }
    }
}
