//! The host's end of a visit, written down byte for byte when asked.
//!
//! A call goes through shared memory and is written down like a visit of its own. Recording shows what the host sees: a test searches the files for planted plaintext. Two files a visit,
//! so that no two visits mix: `<program>-<pid>-<number>-<visit>.in` (towards the program) and `.out`.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bield_protocol::visit::Visit;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;

/// Makes pipes; knows whether to record them.
#[derive(Clone)]
pub(crate) struct Recorder {
    prefix: Option<PathBuf>,
}

impl Recorder {
    /// Records below `directory`, if one is given, under the program's name.
    pub(crate) fn new(directory: Option<PathBuf>, program: &str) -> io::Result<Recorder> {
        if let Some(directory) = &directory {
            std::fs::create_dir_all(directory)?;
        }
        let name = format!("{program}-{}", std::process::id());
        Ok(Recorder {
            prefix: directory.map(|directory| directory.join(name)),
        })
    }

    /// Announces the visit on a fresh connection and makes a pipe of it.
    pub(crate) fn pipe(&self, socket: UnixStream, visit: Visit) -> io::Result<Pipe> {
        let tape = self.tape(visit)?;
        let mut pipe = Pipe { socket, tape };
        pipe.write_all(&[visit.byte()])?;
        Ok(pipe)
    }

    /// Where the bytes of one visit, or of one call, are written down.
    pub(crate) fn tape(&self, visit: Visit) -> io::Result<Tape> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let tape = match &self.prefix {
            None => None,
            Some(prefix) => {
                let number = NUMBER.fetch_add(1, Ordering::Relaxed);
                let open = |direction: &str| {
                    let name = format!("{}-{number}-{visit:?}.{direction}", prefix.display());
                    File::options().create(true).append(true).open(name)
                };
                Some(Arc::new(Files {
                    to_program: open("in")?,
                    from_program: open("out")?,
                }))
            }
        };
        Ok(Tape { files: tape })
    }
}

struct Files {
    to_program: File,
    from_program: File,
}

/// Where a visit's bytes are written down, if they are.
#[derive(Clone)]
pub struct Tape {
    files: Option<Arc<Files>>,
}

impl Tape {
    /// Notes bytes sent to the program.
    ///
    /// # Errors
    /// The recording cannot be written.
    pub fn to_program(&self, bytes: &[u8]) -> io::Result<()> {
        let files = self.files.as_deref();
        files.map_or(Ok(()), |files| (&files.to_program).write_all(bytes))
    }

    /// Notes bytes that came from the program.
    ///
    /// # Errors
    /// The recording cannot be written.
    pub fn from_program(&self, bytes: &[u8]) -> io::Result<()> {
        let files = self.files.as_deref();
        files.map_or(Ok(()), |files| (&files.from_program).write_all(bytes))
    }
}

/// A session visit that is open: the host carries its bytes as it likes and notes them on the tape.
pub struct Session {
    /// The program's end is behind it. Non-blocking.
    pub socket: UnixStream,
    /// Where the bytes are to be noted.
    pub tape: Tape,
}

impl From<Pipe> for Session {
    fn from(pipe: Pipe) -> Session {
        Session {
            socket: pipe.socket,
            tape: pipe.tape,
        }
    }
}

/// One visit, host side.
pub(crate) struct Pipe {
    socket: UnixStream,
    tape: Tape,
}

impl Pipe {
    /// A visit through which no bytes go but those that were sent already.
    pub(crate) fn silent(socket: UnixStream) -> Pipe {
        let tape = Tape { files: None };
        Pipe { socket, tape }
    }

    /// A second handle of the same visit.
    pub(crate) fn second(&self) -> io::Result<Pipe> {
        Ok(Pipe {
            socket: self.socket.try_clone()?,
            tape: self.tape.clone(),
        })
    }

    /// Limits each later read and write; `None` waits for ever.
    pub(crate) fn limit_waits(&self, wait: Option<Duration>) -> io::Result<()> {
        self.socket.set_read_timeout(wait)?;
        self.socket.set_write_timeout(wait)
    }

    /// Whether the program has closed the visit, be there bytes of it to read or not.
    pub(crate) fn is_closed(&self) -> bool {
        let mut sockets = [PollFd::new(&self.socket, PollFlags::RDHUP)];
        loop {
            match rustix::event::poll(&mut sockets, Some(&Timespec::default())) {
                Ok(count) => return count > 0,
                Err(Errno::INTR) => {}
                Err(_) => return true,
            }
        }
    }

    /// Waits until both directions are closed, by whichever side.
    pub(crate) fn wait_until_closed(&self) {
        // No event is asked for: what is left is the hang-up, which is always told.
        let mut sockets = [PollFd::new(&self.socket, PollFlags::empty())];
        while let Err(Errno::INTR) = rustix::event::poll(&mut sockets, None) {}
    }

    /// Ends one or both directions.
    pub(crate) fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.socket.shutdown(how)
    }

    /// Sends the rest of a file, without copying it through this process unless it is recorded.
    pub(crate) fn send_file(&mut self, file: &mut File) -> io::Result<()> {
        match &self.tape.files {
            None => io::copy(file, &mut &self.socket)?,
            Some(_) => io::copy(&mut io::BufReader::with_capacity(1 << 20, file), self)?,
        };
        Ok(())
    }
}

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.socket.read(buffer)?;
        self.tape.from_program(&buffer[..count])?;
        Ok(count)
    }
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.socket.write(bytes)?;
        self.tape.to_program(&bytes[..count])?;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
