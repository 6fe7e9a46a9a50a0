//! Records that this member holds for its group before they are committed: sealed, so that the host never
//! sees two records for one place.
//!
//! ```text
//! frame = length (u32) ‖ term (u64) ‖ index (u64) ‖ id (32) ‖ crc (u32) ‖ sealed record     56 + 16 + record
//! ```
//!
//! Key and id follow from the root secret, the term and the record's bytes, so that preparing needs no
//! randomness and no key seals two things. Always true: a frame is durable before [`PreparedFile::put`]
//! returns; as long as one in the file is not committed, new frames stand behind the old ones; the file
//! is written from its beginning again once all in it are committed. A torn or altered frame was never
//! acknowledged, or the host took it away: as if it had removed the file.

use bield_capsule::{CapsuleName, Received};
use bield_envelope::stream::{StreamKey, TAG_BYTES};
use zeroize::Zeroizing;

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

/// The newest frame that is not committed; its record is as it was prepared, and not verified again.
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
    /// Every frame's index is at most this.
    newest_index: u64,
}

impl PreparedFile {
    /// Reads the file; gives the newest frame that is not committed in a log of `size` records: the one
    /// with the highest term, then index.
    pub(crate) fn load(
        files: &mut dyn Files,
        keys: &Keys,
        capsule: &CapsuleName,
        file_bytes: u64,
        size: u64,
    ) -> Result<(Self, Option<Newest>), FilesError> {
        let mut file = Self::default();
        let mut newest: Option<Newest> = None;
        loop {
            let head = files.read(PREPARED, file.bytes, HEAD_BYTES as u64)?;
            let Some(head) = head.first_chunk::<HEAD_BYTES>().and_then(Head::parse) else {
                break;
            };
            let at = file.bytes + HEAD_BYTES as u64;
            if at + u64::from(head.length) > file_bytes || head.length as usize > SEALED_BYTES_MAX {
                break;
            }
            let sealed = files.read(PREPARED, at, u64::from(head.length))?;
            file.bytes = at + u64::from(head.length);
            let later = newest
                .as_ref()
                .is_none_or(|newest| (head.term, head.index) >= (newest.term, newest.index));
            if head.index < size || !later {
                continue;
            }
            if let Some(record) = head.open(keys, capsule, &sealed) {
                file.newest_index = file.newest_index.max(head.index);
                newest = Some(Newest {
                    term: head.term,
                    index: head.index,
                    record,
                });
            }
        }
        Ok((file, newest))
    }

    /// Holds a record that goes to place `index`, where the log ends.
    pub(crate) fn put(
        &mut self,
        files: &mut dyn Files,
        keys: &Keys,
        capsule: &CapsuleName,
        (term, index): (u64, u64),
        record: &[u8],
    ) -> Result<(), FilesError> {
        let frame = frame(keys, capsule, term, index, record);
        let committed = self.newest_index < index;
        let full = self.bytes + frame.len() as u64 > FILE_BYTES_MAX;
        if full && !committed {
            files.replace(PREPARED, &frame)?;
            self.bytes = frame.len() as u64;
        } else {
            let offset = if committed { 0 } else { self.bytes };
            files.append(PREPARED, offset, &frame)?;
            self.bytes = offset + frame.len() as u64;
        }
        self.newest_index = index;
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
        let mut record = Zeroizing::new(vec![0; sealed.len().checked_sub(TAG_BYTES)?]);
        let stream = StreamKey::new(&keys.prepared_key(&self.id), [0; 7]);
        let head = self.encode();
        stream.open_into(0, true, &head, sealed, &mut record).ok()?;
        let (id, _) = keys.prepared(capsule, self.term, &record);
        (id == self.id).then(|| record.to_vec())
    }
}

fn frame(keys: &Keys, capsule: &CapsuleName, term: u64, index: u64, record: &[u8]) -> Vec<u8> {
    let (id, key) = keys.prepared(capsule, term, record);
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
/// The file is not appended to beyond this: a dozen of the longest records.
const FILE_BYTES_MAX: u64 = 16 << 20;
