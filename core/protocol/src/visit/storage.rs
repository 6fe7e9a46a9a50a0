//! The storage visit, version 2: a directory of files that a host keeps for one program.
//!
//! ```text
//! program ─ operation ─▶ host ─ answer ─▶ program ─ operation ─▶ …      until either side closes
//!
//! operation = LIST    2
//!           | READ    3 ‖ name ‖ offset u64 ‖ length u32
//!           | APPEND  4 ‖ name ‖ offset u64 ‖ length u32 ‖ bytes
//!           | REPLACE 5 ‖ name ‖ length u32 ‖ bytes
//!           | REMOVE  6 ‖ name
//!           | WRITE   7 ‖ name ‖ offset u64 ‖ length u32 ‖ bytes
//! name      = length u8 (1 … 64) ‖ [a-z0-9-]
//! answer    = status u8 (0 OK, 1 REFUSED, 2 BAD) ‖ length u32 ‖ bytes
//! ```
//!
//! All integers are big-endian. Bytes 0 and 1 were version 1 (one blob) and are refused.
//!
//! Goes in and comes out: typed operations and answers, over any stream. Always true: a name is one
//! file of the directory and never a path; no length is believed beyond its limit; memory is taken as
//! bytes arrive, not as they are announced; an operation is answered once, in order.
//!
//! What an honest host keeps (a program must check it: the host is the adversary): after OK to APPEND,
//! REPLACE or REMOVE the change survives a crash of program, host and machine; what a WRITE added survives a crash of the
//! program, and of the machine once an APPEND to the same file was answered OK. REFUSED means a full
//! disk or the like: an APPEND or WRITE may have cut the file to `offset` and left part of `bytes` behind it,
//! which the next APPEND at the same offset cuts off; a REPLACE or REMOVE has happened or has not.
//! A visit that closes without an answer promises as little. After BAD the host closes the visit.
//! A program that gives a visit up closes it before it asks on another one: the host changes nothing for
//! a visit whose program has closed it, so no late APPEND cuts off what came after.
//!
//! On paper: one operation costs two writes and two reads of the socket, and its bytes one copy each way.

use std::borrow::Cow;
use std::io::{self, ErrorKind, Read, Write};

/// The most bytes of an APPEND, a WRITE, a REPLACE or the answer to a READ: several records of the log, and
/// little enough that a host can hold one for each open visit.
pub const PIECE_BYTES_MAX: usize = 4 << 20;
/// The most bytes of a name.
pub const NAME_BYTES_MAX: usize = 64;
/// The most files a directory may have for LIST: a log of 2^48 bytes in segments of 4 GiB.
pub const NAMES_MAX: usize = 1 << 16;
/// The most bytes of an answer to LIST.
pub const LIST_BYTES_MAX: usize = NAMES_MAX * (1 + NAME_BYTES_MAX + 8);
/// The largest offset: beyond it no file of any system reaches.
pub const OFFSET_MAX: u64 = i64::MAX as u64 - PIECE_BYTES_MAX as u64;

const LIST: u8 = 2;
const READ: u8 = 3;
const APPEND: u8 = 4;
const REPLACE: u8 = 5;
const REMOVE: u8 = 6;
const WRITE: u8 = 7;

/// The name of a file: 1 to [`NAME_BYTES_MAX`] of `a`–`z`, `0`–`9` and `-`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(String);

impl Name {
    /// Takes a name; `None` when it is none.
    #[must_use]
    pub fn new(name: &str) -> Option<Self> {
        let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
        ((1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(allowed))
            .then(|| Self(name.to_owned()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn read_from(stream: &mut impl Read) -> io::Result<Self> {
        let length = usize::from(byte(stream)?);
        let mut bytes = vec![0; length];
        stream.read_exact(&mut bytes)?;
        let name = std::str::from_utf8(&bytes).ok().and_then(Self::new);
        name.ok_or_else(|| malformed("a name is 1 to 64 of a-z, 0-9 and -"))
    }

    fn encode(&self, to: &mut Vec<u8>) {
        // Bounded by the constructor.
        to.push(u8::try_from(self.0.len()).unwrap_or(u8::MAX));
        to.extend_from_slice(self.0.as_bytes());
    }
}

/// One thing a program asks of its storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation<'a> {
    /// The names of all files and their lengths. Answer: [`decode_list`].
    List,
    /// Bytes of a file. Answer: at most `length` bytes, fewer only at the file's end; none of a file
    /// that is not there.
    Read {
        /// Which file.
        name: Name,
        /// First byte.
        offset: u64,
        /// How many bytes, at most [`PIECE_BYTES_MAX`].
        length: u32,
    },
    /// Cuts a file to `offset` bytes, then adds `bytes`, durably; makes the file when it is not there.
    /// BAD when the file is shorter than `offset`. Answer: no bytes.
    Append {
        /// Which file.
        name: Name,
        /// The file's length before `bytes`.
        offset: u64,
        /// What to add, at most [`PIECE_BYTES_MAX`].
        bytes: Cow<'a, [u8]>,
    },
    /// As [`Append`](Self::Append), but the change need not outlive a crash of the machine until an append to the same file
    /// has ended.
    Write {
        /// Which file.
        name: Name,
        /// The file's length before `bytes`.
        offset: u64,
        /// What to add, at most [`PIECE_BYTES_MAX`].
        bytes: Cow<'a, [u8]>,
    },
    /// Gives a file this content: whole or not at all, durably. Answer: no bytes.
    Replace {
        /// Which file.
        name: Name,
        /// Its whole content, at most [`PIECE_BYTES_MAX`].
        bytes: Cow<'a, [u8]>,
    },
    /// Removes a file, durably; OK also when it is not there. Answer: no bytes.
    Remove {
        /// Which file.
        name: Name,
    },
}

impl Operation<'_> {
    /// Sends the operation.
    ///
    /// # Errors
    /// `InvalidInput` when a limit is exceeded (nothing is sent then), else the stream's.
    pub fn write_to(&self, stream: &mut impl Write) -> io::Result<()> {
        let mut head = Vec::with_capacity(NAME_BYTES_MAX + 16);
        let mut content: &[u8] = &[];
        match self {
            Self::List => head.push(LIST),
            Self::Read {
                name,
                offset,
                length,
            } => {
                head.push(READ);
                name.encode(&mut head);
                head.extend(bounded_offset(*offset)?.to_be_bytes());
                head.extend(bounded_length(*length as usize)?.to_be_bytes());
            }
            Self::Append {
                name,
                offset,
                bytes,
            }
            | Self::Write {
                name,
                offset,
                bytes,
            } => {
                head.push(match self {
                    Self::Write { .. } => WRITE,
                    _ => APPEND,
                });
                name.encode(&mut head);
                head.extend(bounded_offset(*offset)?.to_be_bytes());
                head.extend(bounded_length(bytes.len())?.to_be_bytes());
                content = bytes;
            }
            Self::Replace { name, bytes } => {
                head.push(REPLACE);
                name.encode(&mut head);
                head.extend(bounded_length(bytes.len())?.to_be_bytes());
                content = bytes;
            }
            Self::Remove { name } => {
                head.push(REMOVE);
                name.encode(&mut head);
            }
        }
        stream.write_all(&head)?;
        stream.write_all(content)?;
        stream.flush()
    }
}

impl Operation<'static> {
    /// Receives the next operation; `None` when the program closed the visit between two.
    ///
    /// # Errors
    /// `InvalidData` when it is malformed or beyond a limit (answer [`Status::Bad`] and close), else the
    /// stream's.
    pub fn read_from(stream: &mut impl Read) -> io::Result<Option<Self>> {
        let mut kind = [0];
        loop {
            match stream.read(&mut kind) {
                Ok(0) => return Ok(None),
                Ok(_) => return Self::read_after(kind[0], stream).map(Some),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Receives the rest of an operation whose first byte is already here.
    ///
    /// # Errors
    /// As [`read_from`](Self::read_from).
    pub fn read_after(first: u8, stream: &mut impl Read) -> io::Result<Self> {
        Ok(match first {
            LIST => Self::List,
            READ => Self::Read {
                name: Name::read_from(stream)?,
                offset: read_offset(stream)?,
                length: read_length(stream, PIECE_BYTES_MAX)?,
            },
            APPEND => Self::Append {
                name: Name::read_from(stream)?,
                offset: read_offset(stream)?,
                bytes: read_bytes(stream, PIECE_BYTES_MAX)?.into(),
            },
            WRITE => Self::Write {
                name: Name::read_from(stream)?,
                offset: read_offset(stream)?,
                bytes: read_bytes(stream, PIECE_BYTES_MAX)?.into(),
            },
            REPLACE => Self::Replace {
                name: Name::read_from(stream)?,
                bytes: read_bytes(stream, PIECE_BYTES_MAX)?.into(),
            },
            REMOVE => Self::Remove {
                name: Name::read_from(stream)?,
            },
            _ => return Err(malformed("no such storage operation")),
        })
    }
}

/// How an operation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It happened, and is as durable as the operation says.
    Ok,
    /// It could not be done now (disk full or the like). Nothing is promised; it may be asked again.
    Refused,
    /// It is malformed, or the file is shorter than an APPEND's offset. The host closes the visit.
    Bad,
}

/// The host's answer to one operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// How it ended.
    pub status: Status,
    /// What was asked for; empty unless READ or LIST ended OK.
    pub bytes: Vec<u8>,
}

impl Answer {
    /// Sends an answer.
    ///
    /// # Errors
    /// `InvalidInput` above [`LIST_BYTES_MAX`], else the stream's.
    pub fn write(status: Status, bytes: &[u8], stream: &mut impl Write) -> io::Result<()> {
        let length = u32::try_from(bytes.len())
            .ok()
            .filter(|_| bytes.len() <= LIST_BYTES_MAX);
        let length = length.ok_or_else(|| too_long("answer"))?;
        let [a, b, c, d] = length.to_be_bytes();
        let status = match status {
            Status::Ok => 0,
            Status::Refused => 1,
            Status::Bad => 2,
        };
        stream.write_all(&[status, a, b, c, d])?;
        stream.write_all(bytes)?;
        stream.flush()
    }

    /// Receives the answer to `operation`, which sets how long it may be.
    ///
    /// # Errors
    /// `InvalidData` when the host answers with an unknown status or more bytes than were asked for,
    /// else the stream's.
    pub fn read_from(operation: &Operation<'_>, stream: &mut impl Read) -> io::Result<Self> {
        let status = match byte(stream)? {
            0 => Status::Ok,
            1 => Status::Refused,
            2 => Status::Bad,
            _ => return Err(malformed("no such storage status")),
        };
        let max = match (status, operation) {
            (Status::Ok, Operation::List) => LIST_BYTES_MAX,
            (Status::Ok, Operation::Read { length, .. }) => *length as usize,
            _ => 0,
        };
        let bytes = read_bytes(stream, max)?;
        Ok(Self { status, bytes })
    }
}

/// Asks one thing and waits for its answer: the program's side of the visit.
///
/// ```
/// use bield_protocol::visit::storage::{Operation, Status, ask};
/// # struct Host(std::io::Cursor<Vec<u8>>);
/// # impl std::io::Read for Host { fn read(&mut self, b: &mut [u8]) -> std::io::Result<usize> { self.0.read(b) } }
/// # impl std::io::Write for Host {
/// #     fn write(&mut self, b: &[u8]) -> std::io::Result<usize> { Ok(b.len()) }
/// #     fn flush(&mut self) -> std::io::Result<()> { Ok(()) }
/// # }
/// # let mut visit = Host(std::io::Cursor::new(vec![0, 0, 0, 0, 0]));
/// let answer = ask(&Operation::List, &mut visit)?;
/// assert_eq!(answer.status, Status::Ok);
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
/// As [`Operation::write_to`] and [`Answer::read_from`]; the visit is of no further use then, unless it
/// is `InvalidInput`.
pub fn ask(operation: &Operation<'_>, visit: &mut (impl Read + Write)) -> io::Result<Answer> {
    operation.write_to(visit)?;
    Answer::read_from(operation, visit)
}

/// Encodes the answer to LIST: for each file its name and its length in bytes (u64).
#[must_use]
pub fn encode_list(files: &[(Name, u64)]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(files.len() * 32);
    for (name, length) in files {
        name.encode(&mut bytes);
        bytes.extend(length.to_be_bytes());
    }
    bytes
}

/// Decodes the answer to LIST. Order and uniqueness are the host's word.
///
/// # Errors
/// `InvalidData` when it is malformed or names more than [`NAMES_MAX`] files.
pub fn decode_list(mut bytes: &[u8]) -> io::Result<Vec<(Name, u64)>> {
    let mut files = Vec::new();
    while !bytes.is_empty() {
        if files.len() == NAMES_MAX {
            return Err(malformed("more files than a directory may have"));
        }
        let truncated = |_| malformed("the list ends in the middle of a file");
        let name = Name::read_from(&mut bytes).map_err(truncated)?;
        let length = read_u64(&mut bytes).map_err(truncated)?;
        files.push((name, length));
    }
    Ok(files)
}

fn byte(stream: &mut impl Read) -> io::Result<u8> {
    let mut byte = [0];
    stream.read_exact(&mut byte)?;
    Ok(byte[0])
}

fn read_u64(stream: &mut impl Read) -> io::Result<u64> {
    let mut bytes = [0; 8];
    stream.read_exact(&mut bytes)?;
    Ok(u64::from_be_bytes(bytes))
}

fn read_offset(stream: &mut impl Read) -> io::Result<u64> {
    let offset = read_u64(stream)?;
    if offset > OFFSET_MAX {
        return Err(malformed("an offset beyond any file"));
    }
    Ok(offset)
}

fn read_length(stream: &mut impl Read, max: usize) -> io::Result<u32> {
    let mut bytes = [0; 4];
    stream.read_exact(&mut bytes)?;
    let length = u32::from_be_bytes(bytes);
    if length as usize > max {
        return Err(malformed("more bytes than allowed"));
    }
    Ok(length)
}

fn read_bytes(stream: &mut impl Read, max: usize) -> io::Result<Vec<u8>> {
    let length = read_length(stream, max)?;
    let mut bytes = Vec::new();
    stream.take(u64::from(length)).read_to_end(&mut bytes)?;
    if bytes.len() != length as usize {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    Ok(bytes)
}

fn bounded_offset(offset: u64) -> io::Result<u64> {
    if offset > OFFSET_MAX {
        return Err(too_long("offset"));
    }
    Ok(offset)
}

fn bounded_length(length: usize) -> io::Result<u32> {
    let bounded = u32::try_from(length)
        .ok()
        .filter(|_| length <= PIECE_BYTES_MAX);
    bounded.ok_or_else(|| too_long("piece"))
}

fn too_long(what: &str) -> io::Error {
    io::Error::new(
        ErrorKind::InvalidInput,
        format!("this {what} is beyond the storage visit's limit"),
    )
}

fn malformed(why: &'static str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests;
