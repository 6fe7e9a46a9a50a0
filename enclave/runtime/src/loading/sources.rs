//! Sources of packages that end when they are slow, or not wanted any more: others wait meanwhile.

use std::io::{self, Read};
use std::time::{Duration, Instant};

use super::{GoesOn, Source};

/// A source that fails as soon as it is not wanted any more.
pub(super) struct Wanted {
    pub(super) source: Source,
    pub(super) goes_on: GoesOn,
}

impl Read for Wanted {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match (self.goes_on)() {
            true => self.source.read(out),
            false => Err(io::Error::other("it is not wanted any more")),
        }
    }
}

/// A source that fails when it is slow: when all reads together took longer than `wait` and what they gave takes at a rate.
pub(super) struct Paced {
    source: Source,
    wait: Duration,
    bytes_per_second: u64,
    /// In reads; what happens between them is no fault of the source.
    spent: Duration,
    bytes: u64,
}

impl Paced {
    pub(super) fn new(source: Source, wait: Duration, bytes_per_second: u64) -> Self {
        Self {
            source,
            wait,
            bytes_per_second,
            spent: Duration::ZERO,
            bytes: 0,
        }
    }
}

impl Read for Paced {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let started = Instant::now();
        let read = self.source.read(out)?;
        self.spent += started.elapsed();
        self.bytes += read as u64;
        let earned = self.bytes.saturating_mul(1000) / self.bytes_per_second;
        if self.spent > self.wait + Duration::from_millis(earned) {
            let slow = "the host served the package too slowly";
            return Err(io::Error::new(io::ErrorKind::TimedOut, slow));
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::loading::{READ_BYTES_PER_SECOND, READ_WAIT};

    #[test]
    fn a_source_that_drips_is_given_up_and_a_quick_one_is_read_to_its_end() {
        struct Drips(u32);
        impl Read for Drips {
            fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
                thread::sleep(Duration::from_millis(1));
                self.0 += 1;
                out[0] = 0;
                Ok(usize::from(self.0 < 10_000))
            }
        }
        let mut read = Vec::new();
        // A byte a millisecond is a thousandth of what is asked for.
        let mut slow = Paced::new(Box::new(Drips(0)), Duration::from_millis(5), 1 << 20);
        let given_up = slow.read_to_end(&mut read).unwrap_err();
        assert_eq!(given_up.kind(), io::ErrorKind::TimedOut);
        let quick = vec![1; 4 << 20];
        let source = Box::new(io::Cursor::new(quick.clone()));
        let mut paced = Paced::new(source, READ_WAIT, READ_BYTES_PER_SECOND);
        read.clear();
        paced.read_to_end(&mut read).unwrap();
        assert!(read == quick);
    }
}
