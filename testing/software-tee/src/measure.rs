//! Digests of program files, and the measurements they lead to.
//!
//! Goes in: a path, or an open file. Comes out: `bield_evidence::program_digest` of its bytes, so
//! that anyone who has the file computes the same. Costs one read of the file and one BLAKE3 pass
//! (about 20 ms for 100 MB); [`Digests`] remembers the last few files by what the kernel says
//! identifies them, so that starting a program a second time costs one `fstat`.

use std::fs::{File, Metadata};
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use bield_envelope::Digest;
use bield_evidence::{Measurement, program_digest, software_measurement};

use crate::SoftwareTeeError;

/// Computes the measurement that `program` will have with `configuration`.
///
/// # Errors
/// When the file cannot be read or is larger than 1 GiB.
pub fn measure(program: &Path, configuration: Digest) -> Result<Measurement, SoftwareTeeError> {
    let mut file = File::open(program).map_err(|error| SoftwareTeeError::file(program, error))?;
    let digest = digest_file(&mut file, program)?;
    Ok(software_measurement(digest, configuration))
}

/// Digests of the program files seen last.
#[derive(Default)]
pub(crate) struct Digests(Mutex<Vec<(FileIdentity, Digest)>>);

impl Digests {
    /// The digest of the program that the process `pid` runs.
    pub(crate) fn of_process(&self, pid: i32) -> Result<Digest, SoftwareTeeError> {
        // The link leads to the file the process was started from, also when its name is gone.
        let path = Path::new("/proc").join(pid.to_string()).join("exe");
        let fail = |error| SoftwareTeeError::file(&path, error);
        let mut file = File::open(&path).map_err(fail)?;
        let identity = FileIdentity::of(&file.metadata().map_err(fail)?);

        let known = self
            .entries()
            .iter()
            .find(|(of, _)| *of == identity)
            .copied();
        if let Some((_, digest)) = known {
            return Ok(digest);
        }
        let digest = digest_file(&mut file, &path)?;
        let mut entries = self.entries();
        if entries.len() == DIGESTS_MAX {
            entries.remove(0);
        }
        entries.push((identity, digest));
        Ok(digest)
    }

    fn entries(&self) -> std::sync::MutexGuard<'_, Vec<(FileIdentity, Digest)>> {
        // Every update is one push or remove: a panic elsewhere leaves the list whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What changes when a file is replaced or rewritten.
#[derive(Clone, Copy, PartialEq, Eq)]
struct FileIdentity {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl FileIdentity {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

fn digest_file(file: &mut File, path: &Path) -> Result<Digest, SoftwareTeeError> {
    let mut program = Vec::new();
    file.take(PROGRAM_BYTES_MAX + 1)
        .read_to_end(&mut program)
        .map_err(|error| SoftwareTeeError::file(path, error))?;
    if program.len() as u64 > PROGRAM_BYTES_MAX {
        return Err(SoftwareTeeError::ProgramTooLarge {
            path: path.into(),
            max: PROGRAM_BYTES_MAX,
        });
    }
    Ok(program_digest(&program))
}

/// Ours take 10 to 300 MB; the file is held in memory while it is hashed. 1 GiB.
const PROGRAM_BYTES_MAX: u64 = 1 << 30;

/// A development setup runs a handful of programs.
const DIGESTS_MAX: usize = 16;
