//! A shared library that a program loads, held so that nothing else can be loaded in its place.
//!
//! ```text
//! file of the host ──copy, SHA-256──▶ memfd ──seal──▶ as configured? ──▶ path that a loader opens
//! ```
//!
//! Always true: what the path leads to has the digest that the measured configuration names, and cannot change
//! any more; the host's file is read once and never loaded. Not here: the libraries that this one needs, such as
//! the C++ library: the loader finds them as it finds those of the program, and the image that is measured has
//! to hold them.
//!
//! On paper: one pass, 1 MiB at a time; the library's bytes stay in memory once, 29 MB for onnxruntime.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{Context, SHA256};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::io::Errno;

/// Largest library, in bytes (512 MiB): more than any that runs on processors alone.
pub const LIBRARY_BYTES_MAX: u64 = 512 << 20;

/// A library whose bytes are as they should be.
#[derive(Debug)]
pub struct Library {
    memory: File,
}

/// A library was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LibraryError {
    /// The digest is not written as it should be. Whoever writes the configuration corrects it.
    #[error("a library's digest is written sha256: and 64 hexadecimal digits")]
    Digest,
    /// The file is another one than the configuration names. The operator gives the right file, or everyone
    /// agrees on a new configuration, whose measurement is another.
    #[error("the library {path} is {found}, but the configuration names {named}")]
    Other {
        /// Where it is.
        path: PathBuf,
        /// Its digest.
        found: String,
        /// The digest asked for.
        named: String,
    },
    /// It is too large to be one.
    #[error("the library {path} is larger than {LIBRARY_BYTES_MAX} bytes")]
    TooLarge {
        /// Where it is.
        path: PathBuf,
    },
    /// Reading it failed, or the system gives no memory for it.
    #[error("the library {path} cannot be read into memory: {error}")]
    Io {
        /// Where it is.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

impl Library {
    /// Takes the file at `path` if its SHA-256 is `named` (`sha256:…`).
    ///
    /// # Errors
    ///
    /// It is another file, too large, or cannot be read.
    pub fn open(path: &Path, named: &str) -> Result<Self, LibraryError> {
        let digits = named.strip_prefix("sha256:").unwrap_or_default();
        let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if digits.len() != 64 || !digits.bytes().all(digit) {
            return Err(LibraryError::Digest);
        }
        let copied = copy(path).map_err(|error| LibraryError::Io {
            path: path.to_owned(),
            error,
        })?;
        let (memory, found) = copied.ok_or_else(|| LibraryError::TooLarge {
            path: path.to_owned(),
        })?;
        if found != named {
            return Err(LibraryError::Other {
                path: path.to_owned(),
                found,
                named: named.to_owned(),
            });
        }
        Ok(Self { memory })
    }

    /// Where a loader finds it, as long as this exists.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.memory.as_raw_fd()).into()
    }
}

/// The file in sealed memory, with its digest; `None` when it is too large.
fn copy(path: &Path) -> io::Result<Option<(File, String)>> {
    let mut source = File::open(path)?;
    let mut memory = File::from(memfd()?);
    let mut hash = Context::new(&SHA256);
    let mut buffer = vec![0; 1 << 20];
    let mut left = LIBRARY_BYTES_MAX;
    loop {
        let read = match source.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let Some(rest) = left.checked_sub(read as u64) else {
            return Ok(None);
        };
        left = rest;
        hash.update(&buffer[..read]);
        memory.write_all(&buffer[..read])?;
    }
    let seals = SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    fcntl_add_seals(&memory, seals)?;
    let digits: String = hash
        .finish()
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    Ok(Some((memory, format!("sha256:{digits}"))))
}

/// Memory that may hold code, also where the system says that memory files do not unless asked for.
fn memfd() -> io::Result<rustix::fd::OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    match memfd_create("library", flags | MemfdFlags::EXEC) {
        // Before Linux 6.3 there is no such flag, and none is needed.
        Err(Errno::INVAL) => Ok(memfd_create("library", flags)?),
        made => Ok(made?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SHA-256 of `abc` (FIPS 180-2, appendix B.1).
    const ABC: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn file(bytes: &[u8]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    #[test]
    fn what_is_loaded_is_what_was_compared_and_cannot_change() {
        let file = file(b"abc");
        let library = Library::open(file.path(), ABC).unwrap();
        std::fs::write(file.path(), b"xyz").unwrap();
        assert_eq!(std::fs::read(library.path()).unwrap(), b"abc");
        let again = std::fs::OpenOptions::new().write(true).open(library.path());
        let written = again.and_then(|mut file| file.write_all(b"x"));
        assert!(written.is_err(), "it is sealed");
        assert!((&library.memory).write_all(b"x").is_err());
    }

    #[test]
    fn another_file_is_refused_with_both_digests() {
        let refused = Library::open(file(b"abd").path(), ABC).unwrap_err();
        let text = refused.to_string();
        assert!(matches!(refused, LibraryError::Other { .. }));
        assert!(text.contains(ABC) && text.matches("sha256:").count() == 2);
    }

    #[test]
    fn a_digest_that_is_none_and_a_missing_file_are_refused() {
        let file = file(b"abc");
        for digest in ["", "sha256:", &ABC[7..], &ABC.to_uppercase(), "sha512:00"] {
            let refused = Library::open(file.path(), digest);
            assert!(matches!(refused, Err(LibraryError::Digest)), "{digest}");
        }
        let refused = Library::open(Path::new("/nowhere/at/all"), ABC);
        assert!(matches!(refused, Err(LibraryError::Io { .. })));
    }
}
