//! Where runs are kept: by whoever is not trusted with anything but their bytes.
//!
//! A store may lose, alter, withhold, exchange and invent. It learns how many bytes a run has, when
//! it was made and which parts of it are read when; it learns no key, no value and no count.

use core::fmt;
use core::str::FromStr;

use bield_envelope::{Digest, ParseDigestError};
use minicbor::{Decode, Encode};

/// What a run is called: the BLAKE3 hash of its ciphertext; prints as 64 hexadecimal digits.
///
/// Whoever keeps runs can check them by their names without any key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct RunId(#[n(0)] Digest);

impl RunId {
    /// The name of these bytes.
    #[must_use]
    pub fn of(sealed: &[u8]) -> Self {
        Self::from_bytes(*blake3::hash(sealed).as_bytes())
    }

    /// Takes 32 bytes as they are.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Digest::from_bytes(bytes))
    }

    /// The 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }

    /// The first 12 hexadecimal digits, for people; never for comparison.
    #[must_use]
    pub fn short(&self) -> String {
        self.0.short()
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl FromStr for RunId {
    type Err = ParseDigestError;

    fn from_str(text: &str) -> Result<Self, ParseDigestError> {
        text.parse().map(Self)
    }
}

/// Keeps runs by name. Not trusted: whatever it answers is verified.
pub trait Blobs: Send + Sync {
    /// Keeps bytes under their name; when it returns, they are as durable as the manifest that will
    /// name them is going to be.
    ///
    /// # Errors
    /// They are not kept; the same call may be made again.
    fn put(&self, name: &RunId, bytes: &[u8]) -> Result<(), BlobError>;

    /// Reads `length` bytes from `offset`; fewer where the bytes kept end before.
    ///
    /// # Errors
    /// Nothing is kept under the name, or it cannot be read now.
    fn read(&self, name: &RunId, offset: u64, length: usize) -> Result<Vec<u8>, BlobError>;

    /// Forgets what is kept under a name; nothing kept is fine.
    ///
    /// # Errors
    /// It cannot be forgotten now.
    fn remove(&self, name: &RunId) -> Result<(), BlobError>;

    /// Every name under which something is kept, in any order.
    ///
    /// # Errors
    /// It cannot be told now.
    fn list(&self) -> Result<Vec<RunId>, BlobError>;
}

/// What a store answers instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BlobError {
    /// Nothing is kept under the name.
    Missing,
    /// It could not, for this reason, in the store's words.
    Failed(String),
}
