//! The host's files, as the ledger uses them.
//!
//! In: names and bytes. Out: bytes, or why not. The host is the adversary: it may lie, fail, and give
//! back old bytes; nothing that it answers is believed before it was checked. Always true of a caller:
//! names are `[a-z0-9-]{1,64}`; one read or write has at most [`TRANSFER_BYTES_MAX`] bytes; nothing
//! secret is ever in a name.

/// Most bytes of one read or one write: what a host answers at once.
pub const TRANSFER_BYTES_MAX: usize = 4 << 20;

/// Files on the host's storage.
pub trait Files: Send {
    /// Names all files and their lengths in bytes, in any order.
    ///
    /// # Errors
    /// The host does not answer, or refuses.
    fn list(&mut self) -> Result<Vec<(String, u64)>, FilesError>;

    /// Reads `length` bytes from `offset`; fewer at the end of the file, none of a file that is not there.
    ///
    /// # Errors
    /// The host does not answer, or refuses.
    fn read(&mut self, name: &str, offset: u64, length: u64) -> Result<Vec<u8>, FilesError>;

    /// Cuts off whatever lies at `offset` or beyond, then writes `bytes` there; makes the file when there
    /// is none. Durable when it returns. After an error any part of it may have happened, in order.
    ///
    /// # Errors
    /// The host does not answer, or refuses.
    fn append(&mut self, name: &str, offset: u64, bytes: &[u8]) -> Result<(), FilesError>;

    /// As [`append`](Self::append), but what it writes need not outlive a crash of the machine until an append to the same
    /// file has returned. When that fails, all that was written since the last one that returned is in doubt.
    ///
    /// # Errors
    /// The host does not answer, or refuses.
    fn write(&mut self, name: &str, offset: u64, bytes: &[u8]) -> Result<(), FilesError> {
        self.append(name, offset, bytes)
    }

    /// Puts `bytes` in the place of the whole file: afterwards it is the old one or the new one. Durable
    /// when it returns.
    ///
    /// # Errors
    /// The host does not answer, or refuses.
    fn replace(&mut self, name: &str, bytes: &[u8]) -> Result<(), FilesError>;

    /// Removes the file; fine when there is none.
    ///
    /// # Errors
    /// The host does not answer, or refuses.
    fn remove(&mut self, name: &str) -> Result<(), FilesError>;
}

/// Why the host did not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FilesError {
    /// No answer: whether it happened is not known.
    #[error("the host's storage does not answer ({0}); the operator must look at it, then retry")]
    Unreachable(String),
    /// The host says that it cannot.
    #[error(
        "the host refuses to store (is its disk full?); the operator must look at it, then retry"
    )]
    Refused,
}

impl<F: Files + ?Sized> Files for Box<F> {
    fn list(&mut self) -> Result<Vec<(String, u64)>, FilesError> {
        (**self).list()
    }

    fn read(&mut self, name: &str, offset: u64, length: u64) -> Result<Vec<u8>, FilesError> {
        (**self).read(name, offset, length)
    }

    fn append(&mut self, name: &str, offset: u64, bytes: &[u8]) -> Result<(), FilesError> {
        (**self).append(name, offset, bytes)
    }

    fn write(&mut self, name: &str, offset: u64, bytes: &[u8]) -> Result<(), FilesError> {
        (**self).write(name, offset, bytes)
    }

    fn replace(&mut self, name: &str, bytes: &[u8]) -> Result<(), FilesError> {
        (**self).replace(name, bytes)
    }

    fn remove(&mut self, name: &str) -> Result<(), FilesError> {
        (**self).remove(name)
    }
}
