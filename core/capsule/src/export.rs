//! A capsule as one file (`spec/06 §12`).
//!
//! ```text
//! "bldc" 01 │ u32 ‖ metadata │ u32 ‖ config record │ … │ u32 ‖ record │ …
//!           Export::wants() ──▶ bytes ──▶ Export::put ──▶ Piece::{Metadata, Record}
//! ```
//!
//! A *past* (`u32`, top bit set ‖ [`Past`]) stands where the records of a chain up to some place are left out: a
//! function's state drops them once its levels hold what they wrote. Only who asks for pieces gets it.
//!
//! In: bytes from anyone, as they come ([`Export`]) or all at once ([`ExportReader`]). Out:
//! metadata, then [`Received`] records, each with its number and offset. Always true: no length is
//! believed beyond what a record may have; the config records come first, so that whoever reads the
//! rest knows everything that was taken from a writer; an error names the record and where it begins. Left to
//! others: whether records are signed, admitted and in order (`crate::Verifier` says so of each),
//! and whether the newest are there: a file that was cut at a record's end is a shorter export.
//!
//! Cost: the hashes of [`Received::decode`] and one copy of each record from a file that is mapped,
//! none from a stream.

use crate::{
    Kind, METADATA_BYTES_MAX, Metadata, MetadataError, PAST_BYTES_MAX, Past, RECORD_BYTES_MAX,
    Received, RecordError,
};

/// The beginning of an export of the capsule with this metadata.
#[must_use]
pub fn export_header(metadata: &Metadata) -> Vec<u8> {
    let bytes = metadata.as_bytes();
    let mut out = Vec::with_capacity(START_BYTES + bytes.len());
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&length(bytes));
    out.extend_from_slice(bytes);
    out
}

/// Appends a record whose own signature was checked (`Applied::storable`). All config records come
/// first, every other record after its predecessor; then one pass over the file verifies it.
pub fn export_record(record: &Received, out: &mut Vec<u8>) {
    let bytes = record.as_bytes();
    out.reserve(LENGTH_BYTES + bytes.len());
    out.extend_from_slice(&length(bytes));
    out.extend_from_slice(bytes);
}

/// Appends what stands for the records of a chain up to the one before its next in this export.
///
/// # Panics
/// It is longer than a past is.
pub fn export_past(past: &Past, out: &mut Vec<u8>) {
    let bytes = past.encode();
    assert!(bytes.len() <= PAST_BYTES_MAX, "a past that cannot be read");
    let mut announced = length(&bytes);
    announced[0] |= PAST_BIT;
    out.extend_from_slice(&announced);
    out.extend_from_slice(&bytes);
}

/// Why a file is no export, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// Not a file of this kind and version.
    #[error("not a capsule export of version 1: choose another file; do not retry")]
    NotAnExport,
    /// The metadata does not hold.
    #[error("metadata at byte {START_BYTES} of the export: {0}")]
    Metadata(#[from] MetadataError),
    /// A length that no record has.
    #[error(
        "record {number} at byte {offset} of the export claims {found} bytes, more than any record \
         has: the file is damaged; export it again"
    )]
    TooLong {
        /// Its number, from 0.
        number: u64,
        /// Where it begins.
        offset: u64,
        /// Bytes claimed.
        found: usize,
    },
    /// The file ends within a record.
    #[error(
        "export ends within record {number} that begins at byte {offset}: cut off; copy it again"
    )]
    Cut {
        /// Its number, from 0.
        number: u64,
        /// Where it begins.
        offset: u64,
    },
    /// The file ends before the first record begins.
    #[error("export ends before its metadata does: cut off; copy it again")]
    CutStart,
    /// Bytes that are no record.
    #[error("record {number} at byte {offset} of the export: {why}")]
    Record {
        /// Its number, from 0.
        number: u64,
        /// Where it begins.
        offset: u64,
        /// What is wrong with it.
        why: RecordError,
    },
    /// Something that is no chain's past, or one that nobody asked for.
    #[error(
        "what stands at byte {offset} of the export is no whole record: records are left out there, or it is damaged; \
         ask for an export of all records"
    )]
    Past {
        /// Where it begins.
        offset: u64,
    },
    /// A config record behind another record.
    #[error(
        "record {number} at byte {offset} of the export is a config record behind another record, \
         config records come first: export the capsule again"
    )]
    LateConfig {
        /// Its number, from 0.
        number: u64,
        /// Where it begins.
        offset: u64,
    },
    /// Asked for a piece, given one of another size.
    #[error("was given {found} bytes where {wanted} were wanted: a fault of the caller")]
    Unwanted {
        /// Bytes wanted.
        wanted: usize,
        /// Bytes given.
        found: usize,
    },
}

/// What the bytes were.
#[derive(Debug, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "nearly every other piece is a record, and none is kept"
)]
pub enum Piece {
    /// A length; the next piece is what it measures.
    Length,
    /// The capsule's metadata; comes once and first.
    Metadata(Metadata),
    /// A record.
    Record(Exported),
    /// Records of a chain are left out here.
    Past(Past),
}

/// A record in an export.
#[derive(Debug, PartialEq, Eq)]
pub struct Exported {
    /// Its number, from 0.
    pub number: u64,
    /// Where its length field begins in the file.
    pub offset: u64,
    /// The record; its structure is right, nothing else is known.
    pub record: Received,
}

/// Reads an export as its bytes come; does no I/O.
///
/// Ask [`Export::wants`], read exactly so many bytes, give them to [`Export::put`]; at the end of the
/// file ask [`Export::finish`].
#[derive(Debug)]
pub struct Export {
    state: State,
    /// Records begun.
    number: u64,
    /// Where the current record begins, or would.
    offset: u64,
    /// The config records are over.
    configured: bool,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Start,
    Metadata(usize),
    Length,
    Record(usize),
    Past(usize),
}

impl Default for Export {
    fn default() -> Self {
        Self::new()
    }
}

impl Export {
    /// Starts at the beginning of a file.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            state: State::Start,
            number: 0,
            offset: 0,
            configured: false,
        }
    }

    /// How many bytes the next piece has: never more than a record may.
    #[must_use]
    pub const fn wants(&self) -> usize {
        match self.state {
            State::Start => START_BYTES,
            State::Length => LENGTH_BYTES,
            State::Metadata(bytes) | State::Record(bytes) | State::Past(bytes) => bytes,
        }
    }

    /// Takes the next piece.
    ///
    /// # Errors
    /// Bytes that do not belong there. The state stays where it was.
    pub fn put(&mut self, bytes: Vec<u8>) -> Result<Piece, ExportError> {
        let (wanted, found) = (self.wants(), bytes.len());
        if found != wanted {
            return Err(ExportError::Unwanted { wanted, found });
        }
        let (number, offset) = (self.number, self.offset);
        match self.state {
            State::Start => {
                let length = bytes
                    .strip_prefix(MAGIC)
                    .and_then(announced)
                    .ok_or(ExportError::NotAnExport)?;
                if length > METADATA_BYTES_MAX {
                    return Err(ExportError::NotAnExport);
                }
                self.state = State::Metadata(length);
                Ok(Piece::Length)
            }
            State::Metadata(length) => {
                let metadata = Metadata::decode(&bytes)?;
                self.state = State::Length;
                self.offset = (START_BYTES + length) as u64;
                Ok(Piece::Metadata(metadata))
            }
            State::Length if bytes[0] & PAST_BIT != 0 => {
                let mut bytes = bytes;
                bytes[0] &= !PAST_BIT;
                let length = announced(&bytes).ok_or(ExportError::NotAnExport)?;
                if length > PAST_BYTES_MAX {
                    return Err(ExportError::TooLong {
                        number,
                        offset,
                        found: length,
                    });
                }
                self.state = State::Past(length);
                Ok(Piece::Length)
            }
            State::Past(length) => {
                let past = Past::decode(&bytes).ok_or(ExportError::Past { offset })?;
                // What follows is a chain's, not the configuration's.
                self.configured = true;
                self.state = State::Length;
                self.offset += (LENGTH_BYTES + length) as u64;
                Ok(Piece::Past(past))
            }
            State::Length => {
                let found = announced(&bytes).ok_or(ExportError::NotAnExport)?;
                if found > RECORD_BYTES_MAX {
                    return Err(ExportError::TooLong {
                        number,
                        offset,
                        found,
                    });
                }
                self.state = State::Record(found);
                Ok(Piece::Length)
            }
            State::Record(length) => {
                let record = Received::decode(bytes).map_err(|why| ExportError::Record {
                    number,
                    offset,
                    why,
                })?;
                let config = record.header().kind == Kind::Config;
                if config && self.configured {
                    return Err(ExportError::LateConfig { number, offset });
                }
                self.configured = !config;
                self.state = State::Length;
                self.number += 1;
                self.offset += (LENGTH_BYTES + length) as u64;
                Ok(Piece::Record(Exported {
                    number,
                    offset,
                    record,
                }))
            }
        }
    }

    /// Says whether the file may end here, after `left` bytes that make no whole piece.
    ///
    /// # Errors
    /// It was cut off.
    pub const fn finish(&self, left: usize) -> Result<(), ExportError> {
        match self.state {
            State::Length if left == 0 => Ok(()),
            State::Start | State::Metadata(_) => Err(ExportError::CutStart),
            State::Length | State::Record(_) | State::Past(_) => Err(ExportError::Cut {
                number: self.number,
                offset: self.offset,
            }),
        }
    }
}

/// The records of an export that is in memory or mapped, in the order of the file.
///
/// Ends after the first error.
#[derive(Debug)]
pub struct ExportReader<'a> {
    metadata: Metadata,
    export: Export,
    rest: &'a [u8],
}

impl<'a> ExportReader<'a> {
    /// Reads the metadata.
    ///
    /// # Errors
    /// Not an export, or its metadata does not hold.
    pub fn new(file: &'a [u8]) -> Result<Self, ExportError> {
        let mut export = Export::new();
        let mut rest = file;
        loop {
            let piece = take(&mut rest, export.wants()).ok_or(ExportError::CutStart)?;
            if let Piece::Metadata(metadata) = export.put(piece.to_vec())? {
                return Ok(Self {
                    metadata,
                    export,
                    rest,
                });
            }
        }
    }

    /// The capsule's metadata: compare its name with the one you want.
    #[must_use]
    pub const fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// The next record or past; who takes the records alone is told [`ExportError::Past`] where some are left out.
    pub fn next_piece(&mut self) -> Option<Result<Piece, ExportError>> {
        loop {
            let Some(piece) = take(&mut self.rest, self.export.wants()) else {
                let end = self.export.finish(self.rest.len());
                // An error is told once.
                (self.export.state, self.rest) = (State::Length, &[]);
                return end.err().map(Err);
            };
            match self.export.put(piece.to_vec()) {
                Ok(Piece::Length | Piece::Metadata(_)) => {}
                Ok(piece) => return Some(Ok(piece)),
                Err(error) => {
                    (self.export.state, self.rest) = (State::Length, &[]);
                    return Some(Err(error));
                }
            }
        }
    }
}

impl Iterator for ExportReader<'_> {
    type Item = Result<Exported, ExportError>;

    fn next(&mut self) -> Option<Self::Item> {
        let offset = self.export.offset;
        match self.next_piece()? {
            Ok(Piece::Record(record)) => Some(Ok(record)),
            Ok(_) => {
                (self.export.state, self.rest) = (State::Length, &[]);
                Some(Err(ExportError::Past { offset }))
            }
            Err(error) => Some(Err(error)),
        }
    }
}

fn take<'a>(rest: &mut &'a [u8], bytes: usize) -> Option<&'a [u8]> {
    let (taken, behind) = rest.split_at_checked(bytes)?;
    *rest = behind;
    Some(taken)
}

fn announced(bytes: &[u8]) -> Option<usize> {
    let length = u32::from_be_bytes(bytes.try_into().ok()?);
    usize::try_from(length).ok()
}

fn length(bytes: &[u8]) -> [u8; LENGTH_BYTES] {
    u32::try_from(bytes.len())
        .expect("metadata and records are far shorter than 4 GiB")
        .to_be_bytes()
}

const MAGIC: &[u8; 5] = b"bldc\x01";
const LENGTH_BYTES: usize = 4;
/// In the first byte of a length: a past, not a record.
const PAST_BIT: u8 = 0x80;
const START_BYTES: usize = MAGIC.len() + LENGTH_BYTES;

#[cfg(test)]
mod tests;
