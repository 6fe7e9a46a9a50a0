//! A pipe to one of the host's key services, with an end in time.
//!
//! Always true: no read or write goes on after the moment that was set, however slowly the host lets bytes
//! drip. The moment is shared, because a session owns its stream.

use std::cell::Cell;
use std::io::{self, ErrorKind, Read, Write};
use std::rc::Rc;
use std::time::{Duration, Instant};

use bield_door::{DoorError, Offers, Stream, Visit};

/// The moment after which a pipe fails.
#[derive(Clone)]
pub(super) struct Until(Rc<Cell<Instant>>);

impl Until {
    pub(super) fn new(moment: Instant) -> Self {
        Self(Rc::new(Cell::new(moment)))
    }

    pub(super) fn set(&self, moment: Instant) {
        self.0.set(moment);
    }

    fn left(&self) -> Duration {
        self.0.get().saturating_duration_since(Instant::now())
    }
}

/// A stream that keeps to its [`Until`].
pub(super) struct Pipe {
    stream: Stream,
    until: Until,
}

impl Pipe {
    /// Has the host dial the address of this number.
    ///
    /// # Errors
    /// The host offers no pipe in time, or closed it.
    pub(super) fn dial(offers: &Offers, number: u8, until: &Until) -> Result<Self, DoorError> {
        let stream = offers.take(Visit::KeyService, until.left())?;
        let mut pipe = Self {
            stream,
            until: until.clone(),
        };
        pipe.write_all(&[number])?;
        Ok(pipe)
    }

    fn limit(&self) -> io::Result<()> {
        let left = self.until.left();
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        self.stream.limit_waits(left)
    }
}

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.limit()?;
        self.stream.read(buffer)
    }
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.limit()?;
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}
