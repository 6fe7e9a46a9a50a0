//! One HTTP/1.1 exchange with a witness, over a pipe that the host carries.
//!
//! In: a body to POST and a pipe. Out: a status and a body. Always true: an answer's head has at most
//! [`HEAD_BYTES_MAX`] and [`HEADERS_MAX`] headers, its body at most [`BODY_BYTES_MAX`]; all of it is here
//! before the deadline, however slowly it comes; an answer without a plain length is refused. Host and
//! network see and can change all of it: what counts in it is signed.
//!
//! On paper: two writes, two reads; the connection stays open for the next round.

use std::io::{self, ErrorKind, Read, Write};
use std::time::{Duration, Instant};

/// A two-way byte stream whose waits can be limited.
pub(crate) trait Pipe: Read + Write + Send {
    /// Sets how long each later read or write waits.
    ///
    /// # Errors
    /// An invalid (zero) limit.
    fn limit_waits(&self, wait: Duration) -> io::Result<()>;
}

impl Pipe for bield_door::Stream {
    fn limit_waits(&self, wait: Duration) -> io::Result<()> {
        Self::limit_waits(self, wait)
    }
}

/// What a witness answered.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: String,
    /// The pipe can carry another exchange.
    pub(super) reusable: bool,
}

/// Posts `body` to `/add-checkpoint` and reads the answer.
///
/// # Errors
/// The pipe's, `TimedOut` after `deadline`, `InvalidData` when the answer is not one.
pub(super) fn post(pipe: &mut dyn Pipe, body: &str, deadline: Instant) -> io::Result<Answer> {
    let head = format!(
        "POST /add-checkpoint HTTP/1.1\r\nhost: witness\r\ncontent-type: text/plain\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    limit(pipe, deadline)?;
    pipe.write_all(head.as_bytes())?;
    limit(pipe, deadline)?;
    pipe.write_all(body.as_bytes())?;
    pipe.flush()?;

    let mut bytes = Vec::new();
    let head = loop {
        if let Some(head) = parse(&bytes)? {
            break head;
        }
        if bytes.len() >= HEAD_BYTES_MAX {
            return Err(malformed("its answer's head has no end"));
        }
        fill(pipe, &mut bytes, deadline)?;
    };
    let end = head.bytes + head.length;
    while bytes.len() < end {
        fill(pipe, &mut bytes, deadline)?;
    }
    let reusable = head.keeps && bytes.len() == end;
    let body = bytes.get(head.bytes..end).unwrap_or_default();
    let body = std::str::from_utf8(body).map_err(|_| malformed("its answer is not text"))?;
    Ok(Answer {
        status: head.status,
        body: body.to_owned(),
        reusable,
    })
}

struct Head {
    status: u16,
    bytes: usize,
    length: usize,
    keeps: bool,
}

/// Reads a head; `None` while it is not whole.
fn parse(bytes: &[u8]) -> io::Result<Option<Head>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut answer = httparse::Response::new(&mut headers);
    let parsed = answer
        .parse(bytes)
        .map_err(|_| malformed("its answer is not HTTP"))?;
    let httparse::Status::Complete(head) = parsed else {
        return Ok(None);
    };
    let mut length = None;
    let mut keeps = answer.version == Some(1);
    for header in answer.headers.iter() {
        if header.name.eq_ignore_ascii_case("transfer-encoding") {
            return Err(malformed("its answer has no plain length"));
        }
        if header.name.eq_ignore_ascii_case("connection") {
            keeps &= !header.value.eq_ignore_ascii_case(b"close");
        }
        if header.name.eq_ignore_ascii_case("content-length") {
            let value = std::str::from_utf8(header.value).ok();
            let value = value.and_then(|value| value.parse::<usize>().ok());
            if length.is_some() || value.is_none_or(|value| value > BODY_BYTES_MAX) {
                return Err(malformed("its answer's length is not one, or too much"));
            }
            length = value;
        }
    }
    Ok(Some(Head {
        status: answer.code.unwrap_or_default(),
        bytes: head,
        length: length.ok_or_else(|| malformed("its answer has no plain length"))?,
        keeps,
    }))
}

fn fill(pipe: &mut dyn Pipe, bytes: &mut Vec<u8>, deadline: Instant) -> io::Result<()> {
    let mut piece = [0; 2048];
    loop {
        limit(pipe, deadline)?;
        match pipe.read(&mut piece) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                bytes.extend_from_slice(&piece[..count]);
                return Ok(());
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn limit(pipe: &dyn Pipe, deadline: Instant) -> io::Result<()> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(ErrorKind::TimedOut.into());
    }
    pipe.limit_waits(left)
}

fn malformed(why: &'static str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, why)
}

/// Longest head of an answer, in bytes.
const HEAD_BYTES_MAX: usize = 8 << 10;
/// Most headers of an answer.
const HEADERS_MAX: usize = 32;
/// Longest body of an answer, in bytes: a few signature lines.
const BODY_BYTES_MAX: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    /// Answers what it was given, a few bytes at a time.
    struct Said(Cursor<Vec<u8>>);

    impl Read for Said {
        fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
            let few = to.len().min(7);
            self.0.read(&mut to[..few])
        }
    }

    impl Write for Said {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Pipe for Said {
        fn limit_waits(&self, _: Duration) -> io::Result<()> {
            Ok(())
        }
    }

    fn heard(answer: &str) -> io::Result<Answer> {
        let mut pipe = Said(Cursor::new(answer.as_bytes().to_vec()));
        post(&mut pipe, "x", Instant::now() + Duration::from_secs(5))
    }

    #[test]
    fn an_answer_is_read_to_its_end_and_no_further() {
        let answer = heard("HTTP/1.1 409 Conflict\r\nContent-Length: 3\r\n\r\n17\n").unwrap();
        assert_eq!((answer.status, &answer.body[..]), (409, "17\n"));
        assert!(answer.reusable);
        let closing = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
        assert!(!heard(closing).unwrap().reusable);
        let more = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\nHTTP/1.1 200 OK\r\n";
        assert!(!heard(more).unwrap().reusable, "bytes of nobody's answer");
    }

    #[test]
    fn answers_without_a_believable_length_are_refused() {
        let long = format!("HTTP/1.1 200 OK\r\nx: {}", "y".repeat(HEAD_BYTES_MAX));
        let many = format!(
            "HTTP/1.1 200 OK\r\n{}\r\n",
            "x: y\r\n".repeat(HEADERS_MAX + 1)
        );
        for bad in [
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\nx",
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nx",
            "SSH-2.0-OpenSSH_9.2\r\n",
            "",
            &long,
            &many,
        ] {
            assert!(heard(bad).is_err(), "{bad}");
        }
    }
}
