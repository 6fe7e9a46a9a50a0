//! One visit's bytes.

use std::io::{self, ErrorKind, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags};

use crate::DoorError;

/// How long one read or write of a visit waits for the host before it fails. A host that carries bytes
/// at all moves some within this time; sessions that may idle longer set their own limit.
pub const STREAM_WAIT: Duration = Duration::from_secs(30);

/// A two-way byte stream to the host.
pub struct Stream {
    socket: UnixStream,
    /// What was passed with the first byte.
    file: Option<OwnedFd>,
}

impl Stream {
    /// Wraps an accepted connection and limits its waits to [`STREAM_WAIT`].
    pub(crate) fn new(socket: UnixStream) -> io::Result<Stream> {
        let file = None;
        let stream = Stream { socket, file };
        stream.limit_waits(STREAM_WAIT)?;
        Ok(stream)
    }

    /// Sets how long each later read or write waits before it fails with `WouldBlock`.
    ///
    /// # Errors
    /// An invalid (zero) limit.
    pub fn limit_waits(&self, wait: Duration) -> io::Result<()> {
        self.socket.set_read_timeout(Some(wait))?;
        self.socket.set_write_timeout(Some(wait))
    }

    /// Reads everything up to the host's half-close.
    ///
    /// # Errors
    /// [`DoorError::TooLong`] above `max` bytes, [`DoorError::Socket`] when the host is slow or gone.
    pub fn read_all(&mut self, max: usize) -> Result<Vec<u8>, DoorError> {
        let mut bytes = Vec::new();
        let bound = u64::try_from(max).unwrap_or(u64::MAX).saturating_add(1);
        Read::take(&mut *self, bound).read_to_end(&mut bytes)?;
        if bytes.len() > max {
            return Err(DoorError::TooLong { max });
        }
        Ok(bytes)
    }

    /// Half-closes: tells the host that nothing more is coming. Reading goes on.
    ///
    /// # Errors
    /// The socket is already closed.
    pub fn finish(&self) -> io::Result<()> {
        self.socket.shutdown(Shutdown::Write)
    }

    /// Ends the visit: reads and writes of every handle fail from now on, also those that wait.
    ///
    /// # Errors
    /// The socket is already closed.
    pub fn cut(&self) -> io::Result<()> {
        self.socket.shutdown(Shutdown::Both)
    }

    /// Makes a second handle of the same visit, so that one thread reads while another writes.
    ///
    /// # Errors
    /// The process is out of file descriptors.
    pub fn second(&self) -> io::Result<Stream> {
        Ok(Stream {
            socket: self.socket.try_clone()?,
            file: None,
        })
    }

    /// Reads the first byte, and the one file that may come with it.
    pub(crate) fn read_kind(&mut self) -> io::Result<u8> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        let received = loop {
            let into = &mut [IoSliceMut::new(&mut byte)];
            let flags = RecvFlags::CMSG_CLOEXEC;
            match rustix::net::recvmsg(&self.socket, into, &mut control, flags) {
                Err(Errno::INTR) => {}
                received => break received?,
            }
        };
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(files) = message {
                self.file = files.last();
            }
        }
        // More files than one: the kernel closed the rest, and nobody honest sends them.
        if received.bytes == 0 || received.flags.contains(ReturnFlags::CTRUNC) {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        Ok(byte[0])
    }

    /// The file that was passed with the first byte.
    pub(crate) fn take_file(&mut self) -> Option<OwnedFd> {
        self.file.take()
    }

    /// Whether the host has closed the visit.
    pub(crate) fn is_gone(&self) -> bool {
        let mut sockets = [PollFd::new(&self.socket, PollFlags::RDHUP)];
        let polled = rustix::event::poll(&mut sockets, Some(&Timespec::default()));
        !matches!(polled, Ok(0) | Err(Errno::INTR))
    }

    pub(crate) fn socket(&self) -> &UnixStream {
        &self.socket
    }

    /// Tells whether an offered visit is still of use: open, and the host kept silent as it must.
    pub(crate) fn is_fresh(&self) -> bool {
        let mut byte = [0u8; 1];
        let peeked = rustix::net::recv(
            &self.socket,
            &mut byte,
            RecvFlags::PEEK | RecvFlags::DONTWAIT,
        );
        matches!(peeked, Err(Errno::AGAIN))
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.socket.read(buffer)
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.socket.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
