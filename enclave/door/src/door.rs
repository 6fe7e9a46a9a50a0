//! Accepting visits.
//!
//! One thread of the program runs the accept loop; serving happens elsewhere. The loop waits for a kind
//! byte at most [`KIND_WAIT`], so a silent visit delays the next one and no more than that.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use bield_protocol::visit::Visit;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::{AddressFamily, sockopt};
use rustix::process::Signal;

use crate::{DoorError, Stream};

/// How long a visit may stay silent about its kind. The launcher sends the byte right after connecting.
pub const KIND_WAIT: Duration = Duration::from_secs(1);
/// How long a started program waits for its configuration. A program nobody configures is an orphan.
pub const CONFIGURATION_WAIT: Duration = Duration::from_secs(30);
/// Longest configuration in bytes: a page of TOML with allow lists of a few hundred measurements.
pub const CONFIGURATION_BYTES_MAX: usize = 256 * 1024;
/// Longest refusal sent back to the launcher, in bytes.
const REFUSAL_BYTES_MAX: usize = 1024;
/// Pause when the process has no file descriptor or memory left for another visit.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(20);

/// The listening end of an enclave program.
pub struct Door {
    listener: UnixListener,
}

impl Door {
    /// Takes the listener passed as standard input, and ties the program's life to its launcher's:
    /// the kernel kills the program when the launcher's thread that started it is gone.
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
        // A launcher that died before this line never configures us: CONFIGURATION_WAIT covers it.
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
            .map_err(io::Error::from)?;
        Ok(Door::new(UnixListener::from(
            stdin.as_fd().try_clone_to_owned()?,
        )))
    }

    /// Makes a door of a listener.
    #[must_use]
    pub fn new(listener: UnixListener) -> Door {
        Door { listener }
    }

    /// Waits for the configuration: the first thing a program does. Every other visit before it is closed.
    ///
    /// # Errors
    /// [`DoorError::NotConfigured`] after [`CONFIGURATION_WAIT`], [`DoorError::TooLong`] above
    /// [`CONFIGURATION_BYTES_MAX`], [`DoorError::Socket`] when the door itself fails.
    pub fn configuration(&self) -> Result<(Vec<u8>, Configuring), DoorError> {
        let deadline = Instant::now() + CONFIGURATION_WAIT;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if !readable_within(&self.listener, left)? {
                return Err(DoorError::NotConfigured);
            }
            if let Some((Visit::Configure, mut stream)) = self.accept_one()? {
                let configuration = stream.read_all(CONFIGURATION_BYTES_MAX)?;
                return Ok((configuration, Configuring { stream }));
            }
        }
    }

    /// Waits for the next visit. Visits of unknown kind, of no kind, and second configurations are closed.
    ///
    /// # Errors
    /// [`DoorError::Socket`] when the listener itself fails: the program should end.
    pub fn accept(&self) -> Result<(Visit, Stream), DoorError> {
        loop {
            match self.accept_one()? {
                None | Some((Visit::Configure, _)) => {}
                Some(visit) => return Ok(visit),
            }
        }
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
        let mut kind = [0];
        let named = stream
            .limit_waits(KIND_WAIT)
            .and_then(|()| stream.read_exact(&mut kind));
        if named.is_err() || stream.limit_waits(crate::STREAM_WAIT).is_err() {
            return Ok(None);
        }
        Ok(Visit::from_byte(kind[0]).map(|visit| (visit, stream)))
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
        Ok(self.stream.write_all(b"ready\n")?)
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

/// Waits until the listener has a visitor; `false` when `wait` passed first.
fn readable_within(listener: &UnixListener, wait: Duration) -> Result<bool, DoorError> {
    let timeout = Timespec::try_from(wait).map_err(io::Error::other)?;
    let mut watched = [PollFd::new(listener, PollFlags::IN)];
    match rustix::event::poll(&mut watched, Some(&timeout)) {
        Ok(ready) => Ok(ready > 0),
        Err(rustix::io::Errno::INTR) => Ok(!wait.is_zero()),
        Err(error) => Err(io::Error::from(error).into()),
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
