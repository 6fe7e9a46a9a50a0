//! A machine that outlives its process: one small file.
//!
//! ```text
//! DIR (0700) / machine (0600): CBOR { 0: version, 1: created, 2: secret }
//! ```
//!
//! Always true: the file appears complete or not at all; two processes that start together end up
//! with the same machine; a file that others can read is refused. Collateral is never stored: it is
//! issued with today's date whenever it is asked for.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use bield_envelope::{Secret, Time, wire};
use minicbor::{Decode, Encode};
use rand_core::Rng as _;
use zeroize::Zeroizing;

use crate::{Options, Platform, SoftwareTeeError};

impl Platform {
    /// Loads the machine kept in `dir`, or makes one there.
    ///
    /// # Errors
    /// When the directory or file cannot be used, is readable by others, or is not ours.
    pub fn load_or_create(dir: &Path) -> Result<Self, SoftwareTeeError> {
        let path = dir.join(FILE_NAME);
        let state = match load(&path)? {
            Some(state) => state,
            None => {
                create(dir, &path)?;
                load(&path)?.ok_or_else(|| SoftwareTeeError::NotAMachine { path: path.clone() })?
            }
        };
        let options = Options::seeded([0; 32], state.created);
        Self::from_secret(state.secret, &options)
    }
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct State {
    #[n(0)]
    version: u8,
    #[n(1)]
    created: Time,
    #[cbor(n(2), with = "bield_envelope::transport")]
    secret: Secret,
}

fn load(path: &Path) -> Result<Option<State>, SoftwareTeeError> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(|error| SoftwareTeeError::file(path, error))?,
    };
    let metadata = file
        .metadata()
        .map_err(|error| SoftwareTeeError::file(path, error))?;
    if metadata.mode() & 0o077 != 0 {
        return Err(SoftwareTeeError::ReadableByOthers { path: path.into() });
    }
    // Sized before it is filled: growing would leave copies of the secret behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(FILE_BYTES_MAX + 1));
    file.take(FILE_BYTES_MAX as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| SoftwareTeeError::file(path, error))?;
    match wire::decode::<State>(&bytes, FILE_BYTES_MAX) {
        Ok(state) if state.version == VERSION => Ok(Some(state)),
        _ => Err(SoftwareTeeError::NotAMachine { path: path.into() }),
    }
}

/// Writes a new machine beside `path` and links it there; one that is there already stays.
fn create(dir: &Path, path: &Path) -> Result<(), SoftwareTeeError> {
    let at = |path: &Path, error| SoftwareTeeError::file(path, error);
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|error| at(dir, error))?;
    let state = State {
        version: VERSION,
        created: bield_platform::now(),
        secret: Secret::generate(&mut bield_platform::Randomness),
    };
    let name = bield_platform::Randomness.next_u64();
    let draft = dir.join(format!("{FILE_NAME}.{name:016x}"));
    let written = write(&draft, &wire::encode_secret(&state)).map_err(|error| at(&draft, error));
    let linked = written.and_then(|()| match fs::hard_link(&draft, path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(at(path, error)),
        _ => Ok(()),
    });
    // Best effort: a draft left behind holds a machine that nobody uses.
    let _ = fs::remove_file(&draft);
    linked
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

const FILE_NAME: &str = "machine";
const VERSION: u8 = 1;
/// The file takes about 50 bytes.
const FILE_BYTES_MAX: usize = 128;
