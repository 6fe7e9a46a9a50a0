//! `u32 length ‖ bytes`, one after another: how records travel in HTTP bodies.
//!
//! Always true: a length is compared with a limit and with what is there before it is believed;
//! an empty frame is kept apart, because a stream sends it to say that it is alive.

use std::io::{self, Read};

/// Bytes in front of every frame.
pub(super) const FRAME_HEAD_BYTES: usize = 4;

/// Appends one frame.
pub(super) fn push(out: &mut Vec<u8>, payload: &[u8]) {
    let length = u32::try_from(payload.len()).expect("what is framed is bounded far below 4 GiB");
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(payload);
}

/// Splits a whole body into frames of 1 to `bytes_max` bytes; `None` when it is anything else.
pub(super) fn split(mut body: &[u8], bytes_max: usize) -> Option<Vec<&[u8]>> {
    let mut frames = Vec::new();
    while !body.is_empty() {
        let (head, rest) = body.split_first_chunk::<FRAME_HEAD_BYTES>()?;
        let length = u32::from_be_bytes(*head) as usize;
        if length == 0 || length > bytes_max {
            return None;
        }
        let (frame, rest) = rest.split_at_checked(length)?;
        frames.push(frame);
        body = rest;
    }
    Some(frames)
}

/// Reads the next frame of a stream, empty ones included; `None` at its end.
pub(super) fn read(stream: &mut impl Read, bytes_max: usize) -> io::Result<Option<Vec<u8>>> {
    let mut head = [0; FRAME_HEAD_BYTES];
    let mut have = 0;
    while have < head.len() {
        match stream.read(&mut head[have..]) {
            Ok(0) if have == 0 => return Ok(None),
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => have += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let length = u32::from_be_bytes(head) as usize;
    if length > bytes_max {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut frame = vec![0; length];
    stream.read_exact(&mut frame)?;
    Ok(Some(frame))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_and_anything_else_is_refused() {
        let mut body = Vec::new();
        push(&mut body, b"one");
        push(&mut body, b"three");
        assert_eq!(split(&body, 5), Some(vec![&b"one"[..], b"three"]));
        assert_eq!(split(&body, 4), None);
        assert_eq!(split(&body[..body.len() - 1], 5), None);
        assert_eq!(split(&[0, 0, 0, 0], 5), None);
        assert_eq!(split(&[], 5), Some(vec![]));
        let mut stream = body.as_slice();
        assert_eq!(read(&mut stream, 5).unwrap().unwrap(), b"one");
        assert_eq!(read(&mut stream, 5).unwrap().unwrap(), b"three");
        assert!(read(&mut stream, 5).unwrap().is_none());
    }

    #[test]
    fn a_stream_that_stops_inside_a_frame_is_an_error_not_an_end() {
        let mut body = Vec::new();
        push(&mut body, b"one");
        for cut in 1..body.len() {
            assert!(read(&mut &body[..cut], 5).is_err(), "{cut}");
        }
        assert!(read(&mut &body[..], 2).is_err());
    }
}
