//! What this member holds for its group before it is committed: a record or none, and the term. Sealed, so
//! that the host never sees two records for one place, nor raises a term.
//!
//! ```text
//! frame = length (u32) ‖ term (u64) ‖ index (u64) ‖ id (32) ‖ crc (u32) ‖ sealed record     56 + 16 + record
//! ```
//!
//! *Index* is where the log ended; an empty record says that nothing was prepared there. Key and id follow
//! from the root secret, term, index and the record's bytes, so that preparing needs no randomness and no
//! key seals two things. Always true: the last whole frame counts and terms never fall; a frame is durable
//! before [`PreparedFile::put`] returns; it stands behind the ones before it, or replaces all of them at
//! once when the file has grown. A torn or altered frame at the end was never acknowledged, or the host took
//! it away: as if it had given back an older file.

use bield_capsule::{CapsuleName, Received};
use bield_envelope::stream::{StreamKey, TAG_BYTES};

use crate::keys::Keys;
use crate::layout::PREPARED;
use crate::{Files, FilesError};

/// A prepared record as a member reports it.
#[derive(Debug)]
pub struct Prepared {
    /// The leader's term when it was prepared.
    pub term: u64,
    /// Its index in the log.
    pub index: u64,
    /// The record.
    pub record: Received,
}

/// What the last whole frame says; its record is as it was prepared, and not verified again.
pub(crate) struct Newest {
    pub(crate) term: u64,
    pub(crate) index: u64,
    pub(crate) record: Vec<u8>,
}

/// The file's state, as this process knows it.
#[derive(Default)]
pub(crate) struct PreparedFile {
    /// Bytes that count.
    bytes: u64,
}

impl PreparedFile {
    /// Reads the file, of `file_bytes` bytes, for its last frame of this capsule.
    pub(crate) fn load(
        files: &mut dyn Files,
        keys: &Keys,
        capsule: &CapsuleName,
        file_bytes: u64,
    ) -> Result<(Self, Option<Newest>), FilesError> {
        let mut file = Self::default();
        let mut newest = None;
        loop {
            let head = files.read(PREPARED, file.bytes, HEAD_BYTES as u64)?;
            let Some(head) = head.first_chunk::<HEAD_BYTES>().and_then(Head::parse) else {
                break;
            };
            let at = file.bytes + HEAD_BYTES as u64;
            let end = at + u64::from(head.length);
            if end > file_bytes || head.length as usize > SEALED_BYTES_MAX {
                break;
            }
            let sealed = files.read(PREPARED, at, u64::from(head.length))?;
            let Some(record) = head.open(keys, capsule, &sealed) else {
                break;
            };
            file.bytes = end;
            newest = Some(Newest {
                term: head.term,
                index: head.index,
                record,
            });
        }
        Ok((file, newest))
    }

    /// Holds a record, or none, that goes to the place of `(term, index)`.
    pub(crate) fn put(
        &mut self,
        files: &mut dyn Files,
        keys: &Keys,
        capsule: &CapsuleName,
        place: (u64, u64),
        record: &[u8],
    ) -> Result<(), FilesError> {
        let frame = frame(keys, capsule, place, record);
        if self.bytes + frame.len() as u64 > FILE_BYTES_MAX {
            files.replace(PREPARED, &frame)?;
            self.bytes = frame.len() as u64;
        } else {
            files.append(PREPARED, self.bytes, &frame)?;
            self.bytes += frame.len() as u64;
        }
        Ok(())
    }
}

/// The clear part of a frame.
struct Head {
    length: u32,
    term: u64,
    index: u64,
    id: [u8; 32],
}

impl Head {
    fn encode(&self) -> [u8; HEAD_BYTES] {
        let mut out = [0; HEAD_BYTES];
        out[..4].copy_from_slice(&self.length.to_be_bytes());
        out[4..12].copy_from_slice(&self.term.to_be_bytes());
        out[12..20].copy_from_slice(&self.index.to_be_bytes());
        out[20..52].copy_from_slice(&self.id);
        let crc = crc32c::crc32c(&out[..52]);
        out[52..].copy_from_slice(&crc.to_be_bytes());
        out
    }

    fn parse(bytes: &[u8; HEAD_BYTES]) -> Option<Self> {
        let (length, rest) = bytes.split_first_chunk::<4>()?;
        let (term, rest) = rest.split_first_chunk::<8>()?;
        let (index, rest) = rest.split_first_chunk::<8>()?;
        let head = Self {
            length: u32::from_be_bytes(*length),
            term: u64::from_be_bytes(*term),
            index: u64::from_be_bytes(*index),
            id: *rest.first_chunk()?,
        };
        (head.encode() == *bytes).then_some(head)
    }

    fn open(&self, keys: &Keys, capsule: &CapsuleName, sealed: &[u8]) -> Option<Vec<u8>> {
        let mut record = vec![0; sealed.len().checked_sub(TAG_BYTES)?];
        let stream = StreamKey::new(&keys.prepared_key(&self.id), [0; 7]);
        let head = self.encode();
        stream.open_into(0, true, &head, sealed, &mut record).ok()?;
        let (id, _) = keys.prepared(capsule, (self.term, self.index), &record);
        (id == self.id).then_some(record)
    }
}

fn frame(keys: &Keys, capsule: &CapsuleName, (term, index): (u64, u64), record: &[u8]) -> Vec<u8> {
    let (id, key) = keys.prepared(capsule, (term, index), record);
    let head = Head {
        length: (record.len() + TAG_BYTES) as u32,
        term,
        index,
        id,
    }
    .encode();
    let mut frame = head.to_vec();
    StreamKey::new(&key, [0; 7]).seal(0, true, &head, record, &mut frame);
    frame
}

const HEAD_BYTES: usize = 56;
const SEALED_BYTES_MAX: usize = bield_capsule::RECORD_BYTES_MAX + TAG_BYTES;
/// The file is begun anew beyond this: a few of the longest records, and a start reads all of it.
const FILE_BYTES_MAX: u64 = 8 << 20;
