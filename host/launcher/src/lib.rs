//! Starts enclave programs and carries their bytes.
//!
//! ```text
//!  gateway ── call ───────────────────▶ Enclave ══ two rings in shared memory ══ program
//!          ── session, status ─────────▶    │ ──connect──▶ listener = program's standard input
//!        Supervisor restarts it ◀── exit ──┤   kept open, used when the program wants:
//!                                          ├── KeyService, Member, Witness ─dial─▶ TCP
//!                                          ├── Package ────read──▶ DIR/<digest>.bield
//!                                          └── Storage ────read, write─▶ files of DIR
//! ```
//!
//! Goes in: a program, its measured configuration, and where the things it may ask for are. Comes out:
//! an [`Enclave`] that answers sealed bytes with sealed bytes.
//!
//! Always true: the program's only socket lies in a directory of mode 0700; it gets no environment and no
//! argument beyond those named; whatever it asks for is bounded ([`OFFERS_OPEN`] at once of a kind), a
//! package is found by its hexadecimal digest and nothing else; what was stored is durable before the program
//! hears so, or is said not to be, and one process owns a storage directory; no address is dialled that the operator did not name;
//! every wait has a limit; each program has a process group of its own, so that a signal from a terminal to this process is
//! this one's to act on; when this process dies, however it does, the kernel closes the watch visit and the program ends.
//!
//! Not here: what the bytes mean. This crate is on the untrusted side and cannot read them; a launcher that
//! lies can only delay or refuse. With a recording directory it writes down all it carries, which is what
//! an attacker in its place would see.
//!
//! On paper: one call costs one copy of the request into shared memory and one of the answer out of it, and two to
//! four wake-ups, none of them a connect; packages go from the page cache to the socket by `sendfile`, without a
//! copy in this process.

mod address;
mod calls;
mod enclave;
mod offers;
mod output;
mod packages;
mod process;
mod pump;
mod record;
mod storage;
mod supervisor;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use std::{fmt, io};

pub use calls::{Answering, PIECE_BYTES_MAX, Stop};
pub use enclave::{ANSWER_BYTES_MAX, CONFIGURATION_WAIT, Enclave};
pub use offers::{OFFERS_OPEN, PEERS_OPEN};
pub use pump::SESSION_IDLE_MAX;
pub use record::{Session, Tape};
pub use supervisor::{State, Supervisor};

/// What to start and what to offer it.
#[derive(Debug, Clone, Default)]
pub struct Launch {
    /// The program's file.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// The measured configuration, handed over byte for byte.
    pub configuration: Vec<u8>,
    /// `host:port` of each instance of the key service, when the program may reach it.
    pub key_services: Vec<String>,
    /// `host:port` of the members of this key service by slot; an empty one cannot be reached.
    pub members: Vec<String>,
    /// `host:port` of the witnesses the program may ask.
    pub witnesses: Vec<String>,
    /// Directory of `<digest>.bield` files, when the program may read packages.
    pub packages: Option<PathBuf>,
    /// Directory for the program's durable files, when it may keep some.
    pub storage: Option<PathBuf>,
    /// Files that it keeps beside other programs of this process, instead of a directory of its own.
    pub shared_storage: Option<SharedStorage>,
    /// Where the private directory of the door is made; the system's temporary directory when absent.
    pub run_directory: Option<PathBuf>,
    /// Directory to which every byte carried through the door is also written.
    pub record: Option<PathBuf>,
    /// Control group that the program is put into as soon as it runs, for the limits that are set there.
    pub control_group: Option<PathBuf>,
}

/// A directory in which several programs of this process keep files, each under names of its own: this process owns it until
/// the last copy of the value is dropped.
#[derive(Clone)]
pub struct SharedStorage(Arc<storage::Directory>);

impl SharedStorage {
    /// Makes or takes over the directory.
    ///
    /// # Errors
    /// Another process owns it, or the system refuses.
    pub fn open(path: &Path) -> Result<Self, LaunchError> {
        let directory = enclave::open_storage(path)?;
        Ok(Self(Arc::new(directory.shared())))
    }
}

impl fmt::Debug for SharedStorage {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_tuple("SharedStorage")
            .field(&self.0.path())
            .finish()
    }
}

impl Launch {
    /// The program's name for logs.
    #[must_use]
    pub fn name(&self) -> String {
        self.program
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned()
    }
}

/// Why a program did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LaunchError {
    /// A directory the launcher needs cannot be used.
    #[error("directory {} cannot be used: {error}; create it or give this user access, then start again", path.display())]
    Directory {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// Another process owns the storage directory.
    #[error("storage {} is in use by another process: two programs on one state would destroy each other's; stop the other one, or name another directory (--storage, --state)", path.display())]
    StorageInUse {
        /// The directory.
        path: PathBuf,
    },
    /// The door's path does not fit a socket address.
    #[error("the path {} is too long for a Unix socket; use a run directory with a shorter path (TMPDIR)", path.display())]
    PathTooLong {
        /// The path.
        path: PathBuf,
    },
    /// The program's file did not start.
    #[error("program {} does not start: {error}; name an executable file", program.display())]
    Program {
        /// The program.
        program: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The program ended or went silent before it was configured.
    #[error(
        "{program} ended or stayed silent before it was configured ({error}); its log lines above say why"
    )]
    NotConfigured {
        /// The program.
        program: String,
        /// What was seen of it.
        error: String,
    },
    /// The program refused its configuration.
    #[error("{program} refuses to start: {why}")]
    Refused {
        /// The program.
        program: String,
        /// Its own sentence.
        why: String,
    },
}

/// Why a visit brought no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VisitError {
    /// The program is gone or hung up; it is being restarted.
    #[error("the enclave program went away before it answered ({0}); try again")]
    Lost(io::Error),
    /// The program took too long.
    #[error("the enclave program did not answer within {} ms; try again later", wait.as_millis())]
    TimedOut {
        /// The limit that passed.
        wait: Duration,
    },
    /// The answer is longer than any sealed answer.
    #[error("the enclave program answered more than {max} bytes; report it to the operator")]
    TooLong {
        /// The limit in bytes.
        max: usize,
    },
}
