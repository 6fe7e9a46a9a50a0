//! Where the door of a started program is: a socket in a directory of its own.

use std::fs::DirBuilder;
use std::io::{self, ErrorKind, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bield_protocol::visit::Visit;
use rustix::net::sockopt::{self, Timeout};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType,
};

use crate::LaunchError;
use crate::record::{Pipe, Recorder, Session, Tape};

/// The door's address. The directory goes away with this value.
pub(crate) struct DoorAddress {
    directory: PathBuf,
    socket: SocketAddrUnix,
    recorder: Recorder,
}

impl DoorAddress {
    /// Makes a private directory below `parent` and binds the door in it.
    pub(crate) fn bind(
        parent: &Path,
        recorder: Recorder,
    ) -> Result<(DoorAddress, UnixListener), LaunchError> {
        let refuse = |error| LaunchError::Directory {
            path: parent.to_owned(),
            error,
        };
        let directory = private_directory(parent).map_err(refuse)?;
        let path = directory.join("door");
        let bound = SocketAddrUnix::new(&path)
            .map_err(io::Error::from)
            .and_then(|socket| {
                // std::os::unix::net checks the same length; asked here first for its own sentence.
                Ok((socket, UnixListener::bind(&path)?))
            });
        match bound {
            Ok((socket, listener)) => Ok((
                DoorAddress {
                    directory,
                    socket,
                    recorder,
                },
                listener,
            )),
            Err(error) => {
                let _ = std::fs::remove_dir(&directory);
                match error.raw_os_error() {
                    Some(code) if code == rustix::io::Errno::NAMETOOLONG.raw_os_error() => {
                        Err(LaunchError::PathTooLong { path })
                    }
                    _ => Err(refuse(error)),
                }
            }
        }
    }

    /// Removes the private directory: nobody can visit any more.
    pub(crate) fn remove(&self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }

    /// Opens a visit, waiting at most `wait` for room in the program's accept queue.
    pub(crate) fn visit(&self, visit: Visit, wait: Duration) -> io::Result<Pipe> {
        self.recorder.pipe(self.connect(wait)?, visit)
    }

    /// Opens the visit for calls, and passes the memory of their rings with its first byte.
    pub(crate) fn calls(&self, memory: &OwnedFd, wait: Duration) -> io::Result<Pipe> {
        let socket = self.connect(wait)?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let files = [memory.as_fd()];
        control.push(SendAncillaryMessage::ScmRights(&files));
        let byte = [Visit::Calls.byte()];
        let bytes = [IoSlice::new(&byte)];
        rustix::net::sendmsg(&socket, &bytes, &mut control, SendFlags::NOSIGNAL)?;
        Ok(Pipe::silent(socket))
    }

    /// Where one call's bytes are written down.
    pub(crate) fn call_tape(&self) -> io::Result<Tape> {
        self.recorder.tape(Visit::Calls)
    }

    fn connect(&self, wait: Duration) -> io::Result<UnixStream> {
        let socket = rustix::net::socket_with(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC,
            None,
        )?;
        // Bounds connect(2) too: a program that stopped accepting must not hold us.
        sockopt::set_socket_timeout(&socket, Timeout::Send, Some(wait))?;
        rustix::net::connect(&socket, &self.socket)?;
        Ok(UnixStream::from(socket))
    }

    /// Opens a session visit without ever blocking; `WouldBlock` when the accept queue is full.
    pub(crate) fn session(&self) -> io::Result<Session> {
        let socket = rustix::net::socket_with(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            None,
        )?;
        rustix::net::connect(&socket, &self.socket)?;
        let pipe = self
            .recorder
            .pipe(UnixStream::from(socket), Visit::Session)?;
        Ok(pipe.into())
    }
}

impl Drop for DoorAddress {
    fn drop(&mut self) {
        self.remove();
    }
}

/// Makes a fresh directory that only this user can enter.
fn private_directory(parent: &Path) -> io::Result<PathBuf> {
    static STARTED: AtomicU64 = AtomicU64::new(0);
    loop {
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let path = parent.join(format!("bield-{}-{number}", std::process::id()));
        match DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => return Ok(path),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
}
