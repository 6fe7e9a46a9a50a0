//! Length-prefixed frames on a Unix stream, bounded in size and in time.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use zeroize::Zeroizing;

/// Why a frame did not arrive or leave.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The peer closed the connection, between frames or inside one.
    #[error("the connection is closed")]
    Closed,
    /// The peer announced more than is allowed.
    #[error("a frame of {bytes} bytes was announced, the limit is {max}")]
    TooLong {
        /// Bytes announced.
        bytes: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// The peer was too slow.
    #[error("no complete frame within {} s", .0.as_secs())]
    TimedOut(Duration),
    /// The operating system refused.
    #[error("{0}")]
    Io(io::Error),
}

impl FrameError {
    /// A new connection may do better.
    pub(crate) fn is_broken_connection(&self) -> bool {
        matches!(self, Self::Closed | Self::Io(_))
    }
}

/// Reads one frame of at most `bytes_max` bytes that starts within `idle` and is complete `FRAME`
/// (5 s) after its first byte. The buffer is wiped on drop.
///
/// # Errors
/// Closed, too long, too slow, or the operating system's refusal.
pub fn read(
    stream: &UnixStream,
    bytes_max: usize,
    idle: Duration,
) -> Result<Zeroizing<Vec<u8>>, FrameError> {
    let mut length = [0; 4];
    fill(stream, &mut length[..1], idle)?;
    let deadline = Instant::now() + FRAME;
    fill_until(stream, &mut length[1..], deadline)?;
    let bytes = u32::from_be_bytes(length) as usize;
    if bytes > bytes_max {
        return Err(FrameError::TooLong {
            bytes,
            max: bytes_max,
        });
    }
    let mut frame = Zeroizing::new(vec![0; bytes]);
    fill_until(stream, &mut frame, deadline)?;
    Ok(frame)
}

/// Writes `bytes` as one frame; each write waits at most 5 s for the peer.
///
/// # Errors
/// Closed, too slow, or the operating system's refusal.
pub fn write(mut stream: &UnixStream, bytes: &[u8]) -> Result<(), FrameError> {
    let length = u32::try_from(bytes.len()).map_err(|_| FrameError::TooLong {
        bytes: bytes.len(),
        max: u32::MAX as usize,
    })?;
    stream
        .set_write_timeout(Some(FRAME))
        .map_err(FrameError::Io)?;
    stream
        .write_all(&length.to_be_bytes())
        .and_then(|()| stream.write_all(bytes))
        .map_err(|error| classify(error, FRAME))
}

/// Fills `buffer` completely before `deadline`, however slowly the bytes drip.
fn fill_until(
    stream: &UnixStream,
    mut buffer: &mut [u8],
    deadline: Instant,
) -> Result<(), FrameError> {
    while !buffer.is_empty() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(FrameError::TimedOut(FRAME));
        }
        let filled = fill(stream, buffer, left)?;
        buffer = &mut buffer[filled..];
    }
    Ok(())
}

/// One read of at least one byte within `wait`.
fn fill(mut stream: &UnixStream, buffer: &mut [u8], wait: Duration) -> Result<usize, FrameError> {
    stream
        .set_read_timeout(Some(wait))
        .map_err(FrameError::Io)?;
    loop {
        match stream.read(buffer) {
            Ok(0) => return Err(FrameError::Closed),
            Ok(count) => return Ok(count),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(classify(error, wait)),
        }
    }
}

fn classify(error: io::Error, waited: Duration) -> FrameError {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => FrameError::TimedOut(waited),
        ErrorKind::BrokenPipe | ErrorKind::ConnectionReset | ErrorKind::WriteZero => {
            FrameError::Closed
        }
        _ => FrameError::Io(error),
    }
}

/// A peer that started a frame finishes it within this time, or something is wrong.
const FRAME: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_arrives_as_it_left() {
        let (near, far) = UnixStream::pair().unwrap();
        write(&near, b"hello").unwrap();
        assert_eq!(**read(&far, 5, FRAME).unwrap(), *b"hello");
    }

    #[test]
    fn an_oversized_frame_is_refused_before_it_is_read() {
        let (near, far) = UnixStream::pair().unwrap();
        write(&near, b"hello!").unwrap();
        let refused = read(&far, 5, FRAME);
        assert!(matches!(
            refused,
            Err(FrameError::TooLong { bytes: 6, max: 5 })
        ));
    }

    #[test]
    fn a_frame_cut_short_is_a_closed_connection() {
        let (mut near, far) = UnixStream::pair().unwrap();
        near.write_all(&[0, 0, 0, 9, 1, 2]).unwrap();
        drop(near);
        assert!(matches!(read(&far, 64, FRAME), Err(FrameError::Closed)));
    }

    #[test]
    fn a_silent_peer_is_not_waited_for_longer_than_asked() {
        let (_near, far) = UnixStream::pair().unwrap();
        let silent = read(&far, 64, Duration::from_millis(20));
        assert!(matches!(silent, Err(FrameError::TimedOut(_))));
    }
}
