//! The quoting service on a Unix socket.
//!
//! ```text
//! accept ──▶ thread per connection (64 at most) ──▶ Hello: measure ──▶ Quote | SealKey …
//! ```
//!
//! Always true: the socket appears with mode 0600 and only then under its name; every frame is
//! bounded in bytes and time; bad input closes its own connection and no other; a connection that
//! says nothing for ten minutes is closed, and clients connect again when they need to.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::measure::Digests;
use crate::serve::{self, Shared};
use crate::{Platform, SoftwareTeeError};

/// A software TEE that listens.
pub struct Server {
    listener: UnixListener,
    socket: PathBuf,
    shared: Arc<Shared>,
}

impl Server {
    /// Listens on `socket` for the machine `platform`. A socket left by a dead process is replaced.
    ///
    /// # Errors
    /// When the path is in use, too long, no socket, or not writable.
    pub fn bind(socket: &Path, platform: Arc<Platform>) -> Result<Self, SoftwareTeeError> {
        make_way(socket)?;
        // Listens under another name until the mode is right, then moves there in one step.
        let mut draft = socket.as_os_str().to_owned();
        draft.push(".new");
        let draft = PathBuf::from(draft);
        if draft.as_os_str().len() > SOCKET_PATH_BYTES_MAX {
            return Err(SoftwareTeeError::SocketPathTooLong {
                path: socket.into(),
                max: SOCKET_PATH_BYTES_MAX - ".new".len(),
            });
        }
        let fail = |error| SoftwareTeeError::file(socket, error);
        make_way(&draft)?;
        let listener = UnixListener::bind(&draft).map_err(fail)?;
        fs::set_permissions(&draft, fs::Permissions::from_mode(0o600)).map_err(fail)?;
        fs::rename(&draft, socket).map_err(fail)?;
        Ok(Self {
            listener,
            socket: socket.into(),
            shared: Arc::new(Shared {
                platform,
                digests: Digests::default(),
                collateral: std::sync::Mutex::new(None),
            }),
        })
    }

    /// Serves until the process ends.
    ///
    /// # Errors
    /// When the operating system accepts no more connections for a reason that will not pass.
    pub fn run(self) -> Result<(), SoftwareTeeError> {
        self.accept_until(&AtomicBool::new(false))
    }

    /// Serves on a thread of its own until the returned value is dropped.
    pub fn spawn(self) -> Running {
        let stop = Arc::new(AtomicBool::new(false));
        let running = Running {
            socket: self.socket.clone(),
            stop: Arc::clone(&stop),
        };
        thread::spawn(move || {
            if let Err(error) = self.accept_until(&stop) {
                eprintln!("bield-software-tee: {error}");
            }
        });
        running
    }

    fn accept_until(&self, stop: &AtomicBool) -> Result<(), SoftwareTeeError> {
        let open = Arc::new(AtomicUsize::new(0));
        loop {
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if is_passing(&error) => {
                    thread::sleep(ACCEPT_RETRY);
                    continue;
                }
                Err(error) => return Err(SoftwareTeeError::file(&self.socket, error)),
            };
            if stop.load(Ordering::Acquire) {
                return Ok(());
            }
            let Some(slot) = Slot::take(&open) else {
                serve::refuse_busy(&stream);
                continue;
            };
            let shared = Arc::clone(&self.shared);
            let served = thread::Builder::new().spawn(move || {
                let _slot = slot;
                serve::connection(&shared, &stream);
            });
            if let Err(error) = served {
                eprintln!("bield-software-tee: cannot start a thread: {error}");
            }
        }
    }
}

/// A server on its own thread; dropping it stops accepting and removes the socket.
///
/// Connections that are open then go on until their peers leave.
pub struct Running {
    socket: PathBuf,
    stop: Arc<AtomicBool>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        // Wakes the accepting thread; when nothing accepts any more, there is nothing to wake.
        let _ = UnixStream::connect(&self.socket);
        let _ = fs::remove_file(&self.socket);
    }
}

/// One of the connections served at a time.
struct Slot(Arc<AtomicUsize>);

impl Slot {
    fn take(open: &Arc<AtomicUsize>) -> Option<Self> {
        if open.fetch_add(1, Ordering::AcqRel) < CONNECTIONS_MAX {
            return Some(Self(Arc::clone(open)));
        }
        open.fetch_sub(1, Ordering::AcqRel);
        None
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Removes a socket that nobody listens on any more.
fn make_way(socket: &Path) -> Result<(), SoftwareTeeError> {
    let fail = |error| SoftwareTeeError::file(socket, error);
    match fs::symlink_metadata(socket) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(fail(error)),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(SoftwareTeeError::NotASocket {
                path: socket.into(),
            });
        }
        Ok(_) => {}
    }
    match UnixStream::connect(socket) {
        Ok(_) => Err(SoftwareTeeError::SocketInUse {
            path: socket.into(),
        }),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(socket).map_err(fail)
        }
        Err(error) => Err(fail(error)),
    }
}

/// The next accept may well work: the peer left, or others hold too many files just now.
fn is_passing(error: &io::Error) -> bool {
    let exhausted = [rustix::io::Errno::MFILE, rustix::io::Errno::NFILE];
    let code = error.raw_os_error();
    matches!(
        error.kind(),
        io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted
    ) || exhausted
        .iter()
        .any(|errno| code == Some(errno.raw_os_error()))
}

/// `sun_path` has 108 bytes with its terminating zero (unix(7)).
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// A development setup runs a handful of programs with one connection each.
const CONNECTIONS_MAX: usize = 64;

/// Long enough not to spin, short enough not to be noticed.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);
