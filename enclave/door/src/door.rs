//! Accepting visits.
//!
//! One thread of the program runs the accept loop; serving happens elsewhere. The loop waits for a kind
//! byte at most [`KIND_WAIT`], so a silent visit delays the next one and no more than that.
//!
//! The launcher keeps one watch visit open for as long as it lives. When that closes, [`Door::accept`]
//! ends with [`DoorError::HostGone`] and so does the program: no orphan keeps keys in memory.

use std::io::{self, ErrorKind, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixListener;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bield_protocol::visit::{CONFIGURATION_BYTES_MAX, Visit};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::{AddressFamily, sockopt};

use crate::{DoorError, Stream};

/// How long a visit may stay silent about its kind. The launcher sends the byte right after connecting.
pub const KIND_WAIT: Duration = Duration::from_secs(1);
/// How long a started program waits for its configuration. A program nobody configures is an orphan.
pub const CONFIGURATION_WAIT: Duration = Duration::from_secs(30);
/// Longest refusal sent back to the launcher, in bytes.
const REFUSAL_BYTES_MAX: usize = 1024;
/// Pause when the process has no file descriptor or memory left for another visit.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(20);

/// The listening end of an enclave program.
pub struct Door {
    listener: UnixListener,
    watch: Mutex<Option<Stream>>,
}

impl Door {
    /// Takes the listener passed as standard input.
    ///
    /// # Errors
    /// [`DoorError::NotADoor`] when standard input is anything but a listening Unix socket.
    pub fn from_stdin() -> Result<Door, DoorError> {
        let stdin = io::stdin();
        let listening = sockopt::socket_acceptconn(&stdin).unwrap_or(false);
        let unix = sockopt::socket_domain(&stdin).is_ok_and(|family| family == AddressFamily::UNIX);
        if !(listening && unix) {
            return Err(DoorError::NotADoor);
        }
        Ok(Door::new(UnixListener::from(
            stdin.as_fd().try_clone_to_owned()?,
        )))
    }

    /// Makes a door of a listener.
    #[must_use]
    pub fn new(listener: UnixListener) -> Door {
        Door {
            listener,
            watch: Mutex::new(None),
        }
    }

    /// Waits for the configuration: the first thing a program does. Until then only a watch is let in.
    ///
    /// # Errors
    /// [`DoorError::NotConfigured`] after [`CONFIGURATION_WAIT`], [`DoorError::TooLong`] above
    /// [`CONFIGURATION_BYTES_MAX`], [`DoorError::HostGone`] and [`DoorError::Socket`] as in
    /// [`accept`](Self::accept).
    pub fn configuration(&self) -> Result<(Vec<u8>, Configuring), DoorError> {
        let deadline = Instant::now() + CONFIGURATION_WAIT;
        loop {
            if !self.has_visitor(Some(deadline))? {
                return Err(DoorError::NotConfigured);
            }
            if let Some((Visit::Configure, mut stream)) = self.accept_one()? {
                let configuration = stream.read_all(CONFIGURATION_BYTES_MAX)?;
                return Ok((configuration, Configuring { stream }));
            }
        }
    }

    /// Waits for the next visit. Visits of unknown kind, of no kind, and second configurations are closed;
    /// a watch is kept by the door itself.
    ///
    /// # Errors
    /// [`DoorError::HostGone`] when the watch closed, [`DoorError::Socket`] when the listener itself
    /// fails: either way the program should end.
    pub fn accept(&self) -> Result<(Visit, Stream), DoorError> {
        loop {
            self.has_visitor(None)?;
            match self.accept_one()? {
                None | Some((Visit::Configure, _)) => {}
                Some(visit) => return Ok(visit),
            }
        }
    }

    /// Waits until someone connects; `false` when the deadline passed first.
    fn has_visitor(&self, deadline: Option<Instant>) -> Result<bool, DoorError> {
        let watch = self.lock_watch();
        let mut sockets = vec![PollFd::new(&self.listener, PollFlags::IN)];
        if let Some(stream) = &*watch {
            sockets.push(PollFd::new(stream.socket(), PollFlags::IN));
        }
        loop {
            let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
            let timeout = left
                .map(Timespec::try_from)
                .transpose()
                .map_err(io::Error::other)?;
            match rustix::event::poll(&mut sockets, timeout.as_ref()) {
                Ok(0) => return Ok(false),
                // The host never writes on a watch: bytes there are as good as a goodbye.
                Ok(_)
                    if sockets
                        .get(1)
                        .is_some_and(|watch| !watch.revents().is_empty()) =>
                {
                    return Err(DoorError::HostGone);
                }
                Ok(_) => return Ok(true),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(io::Error::from(error).into()),
            }
        }
    }

    fn lock_watch(&self) -> MutexGuard<'_, Option<Stream>> {
        self.watch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Accepts one connection; `None` when it was closed for not naming a known kind.
    fn accept_one(&self) -> Result<Option<(Visit, Stream)>, DoorError> {
        let socket = match self.listener.accept() {
            Ok((socket, _)) => socket,
            Err(error) if is_passing(&error) => return Ok(None),
            Err(error) if is_exhaustion(&error) => {
                std::thread::sleep(EXHAUSTED_PAUSE);
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        let Ok(mut stream) = Stream::new(socket) else {
            return Ok(None);
        };
        let named = stream
            .limit_waits(KIND_WAIT)
            .and_then(|()| stream.read_kind());
        let Ok(kind) = named else { return Ok(None) };
        if stream.limit_waits(crate::STREAM_WAIT).is_err() {
            return Ok(None);
        }
        match Visit::from_byte(kind) {
            Some(Visit::Watch) => {
                self.lock_watch().get_or_insert(stream);
                Ok(None)
            }
            visit => Ok(visit.map(|visit| (visit, stream))),
        }
    }
}

/// The open configuration visit: the program answers it once, with ready or with a refusal.
pub struct Configuring {
    stream: Stream,
}

impl Configuring {
    /// Tells the launcher that the program serves from now on.
    ///
    /// # Errors
    /// [`DoorError::Socket`] when the launcher is gone.
    pub fn ready(mut self) -> Result<(), DoorError> {
        Ok(self.stream.write_all(b"ok\n")?)
    }

    /// Tells the launcher in one sentence why the program will not serve. The sentence names things, never contents.
    ///
    /// # Errors
    /// [`DoorError::Socket`] when the launcher is gone.
    pub fn refuse(mut self, why: &str) -> Result<(), DoorError> {
        let mut line: String = why
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        line.truncate(line.floor_char_boundary(REFUSAL_BYTES_MAX));
        line.push('\n');
        Ok(self.stream.write_all(line.as_bytes())?)
    }
}

fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Interrupted | ErrorKind::ConnectionAborted
    )
}

fn is_exhaustion(error: &io::Error) -> bool {
    use rustix::io::Errno;
    Errno::from_io_error(error).is_some_and(|errno| {
        [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM].contains(&errno)
    })
}
