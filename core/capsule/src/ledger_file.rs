//! Log files of a ledger: one chain's records, in order, readable without any key.
//!
//! ```text
//! log-<epoch, 10 digits>-<first index, 20 digits>
//!
//! "bldl" 01 ‖ u32 length ‖ fields ‖ u32 crc  │ frame │ frame │ …            head, then frames
//! frame = u32 length ‖ u64 index ‖ u32 head crc ‖ u32 frame crc ‖ record    20 + length
//!
//! bytes ──push──▶ FileReader ──next──▶ Item ──▶ records ──Verifier──▶ …       finish ──▶ FileEnd
//! ```
//!
//! A ledger is a capsule with one writer: config 0 is record 0, its opening record 1, data from
//! record 2 on. A record's *index* is its place in that order, which is also its leaf in the log's
//! tree. When people recover a lost service, a new capsule begins with the next *epoch*; its files
//! name the end of the one before, and its metadata's label fixes that name by hash.
//!
//! In: a file's bytes, as they come. Out: head, records as bytes, and one [`FileEnd`]. Always true:
//! no length is believed before its checksum held, or beyond what a record may have; at most one
//! frame and what was pushed last are held; nothing panics on any input.
//!
//! **Torn or damaged?** Each append is durable before the next begins, so a bad frame behind which
//! another one stands was whole once: [`FileEnd::Damaged`]. A bad frame with nothing behind it is
//! an append that nobody was told of: [`FileEnd::Torn`], to be cut. Whoever alters the very last
//! frame makes it look torn; that equals a log that is one record shorter, and only someone who
//! remembers the newer head can tell.
//!
//! Cost: 20 bytes and one CRC-32C pass a record, one copy. Not here: files, keys, the tree
//! (`enclave/ledger`, `core/tlog`). CRC is against accidents; against people the records carry
//! signatures ([`LogAudit`] checks them all).

mod audit;
mod reader;

use bield_envelope::{Digest, wire};
use crc32c::{crc32c, crc32c_append};
use minicbor::{Decode, Encode};

pub use self::audit::{EpochReport, LogAudit, LogFault};
pub use self::reader::{FileEnd, FileReader, Flaw, Item};
use crate::{CapsuleName, METADATA_BYTES_MAX, Metadata, MetadataError, RECORD_BYTES_MAX};

/// Bytes of a frame beside its record.
pub const FRAME_HEAD_BYTES: usize = 20;

/// Longest file head in bytes: metadata, four numbers, three hashes.
pub const FILE_HEAD_BYTES_MAX: usize = METADATA_BYTES_MAX + 256;

/// What a log file says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileHead {
    /// Which of the service's capsules, from 0.
    pub epoch: u32,
    /// Index of the first record.
    pub first: u64,
    /// The file before this one; none in the first file of an epoch, and where the records before were
    /// never stored, as at a member that joined later.
    pub before: Option<Before>,
    /// Where the epoch before ended; none in epoch 0.
    pub previous: Option<Previous>,
    /// The capsule.
    pub metadata: Metadata,
}

/// The file before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Before {
    /// Index of its first record.
    #[n(0)]
    pub first: u64,
    /// Its length in bytes.
    #[n(1)]
    pub bytes: u64,
}

/// The end of an epoch, as the next one knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Previous {
    /// The capsule.
    #[n(0)]
    pub capsule: CapsuleName,
    /// Records that were recovered.
    #[n(1)]
    pub size: u64,
    /// Root of the tree over them (RFC 6962, SHA-256).
    #[cbor(n(2), with = "minicbor::bytes")]
    pub root: [u8; 32],
}

impl Previous {
    /// What the metadata of the next epoch has as its label.
    #[must_use]
    pub fn label(&self) -> String {
        let (size, name) = (self.size.to_be_bytes(), self.capsule.as_bytes());
        Digest::of(CONTINUES_DOMAIN, &[name, &size, &self.root]).to_string()
    }
}

/// Why the first bytes of a file are not the head of a log file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FileHeadError {
    /// Another kind of file, or another version.
    #[error("not a log file of version 1")]
    Unknown,
    /// Altered since it was written.
    #[error("the head of the log file is altered")]
    Altered,
    /// The metadata does not hold.
    #[error("the head of the log file: {0}")]
    Metadata(#[from] MetadataError),
    /// Epoch, previous epoch and label do not belong together.
    #[error("the head of the log file names another previous epoch than its capsule does")]
    Previous,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct Fields {
    #[n(0)]
    epoch: u32,
    #[n(1)]
    first: u64,
    #[cbor(n(2), with = "minicbor::bytes")]
    metadata: Vec<u8>,
    #[n(3)]
    before: Option<Before>,
    #[n(4)]
    previous: Option<Previous>,
}

impl FileHead {
    /// The first bytes of the file.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let fields = wire::encode(&Fields {
            epoch: self.epoch,
            first: self.first,
            metadata: self.metadata.as_bytes().to_vec(),
            before: self.before,
            previous: self.previous,
        });
        let mut out = MAGIC.to_vec();
        out.extend_from_slice(&(fields.len() as u32).to_be_bytes());
        out.extend_from_slice(&fields);
        out.extend_from_slice(&crc32c(&out).to_be_bytes());
        out
    }

    /// Reads the head at the start of `bytes` and says how long it is; `None` when more are needed.
    ///
    /// # Errors
    /// Bytes that no longer ones can make a head of.
    pub fn decode(bytes: &[u8]) -> Result<Option<(Self, usize)>, FileHeadError> {
        let known = bytes.len().min(MAGIC.len());
        if bytes[..known] != MAGIC[..known] {
            return Err(FileHeadError::Unknown);
        }
        let Some(length) = bytes.get(MAGIC.len()..START_BYTES) else {
            return Ok(None);
        };
        let length = u32_at(length, 0) as usize;
        if length > FILE_HEAD_BYTES_MAX {
            return Err(FileHeadError::Altered);
        }
        let whole = START_BYTES + length + CRC_BYTES;
        let Some(head) = bytes.get(..whole) else {
            return Ok(None);
        };
        let (checked, crc) = head.split_at(START_BYTES + length);
        if crc32c(checked).to_be_bytes() != *crc {
            return Err(FileHeadError::Altered);
        }
        let fields: Fields = wire::decode(&checked[START_BYTES..], FILE_HEAD_BYTES_MAX)
            .map_err(|_| FileHeadError::Altered)?;
        let head = Self {
            epoch: fields.epoch,
            first: fields.first,
            before: fields.before,
            previous: fields.previous,
            metadata: Metadata::decode(&fields.metadata)?,
        };
        let fixed = match &head.previous {
            None => head.epoch == 0,
            Some(previous) => {
                head.epoch != 0 && head.metadata.label() == Some(previous.label().as_str())
            }
        };
        if fixed {
            Ok(Some((head, whole)))
        } else {
            Err(FileHeadError::Previous)
        }
    }
}

/// The name of the file of `epoch` that begins with record `first`.
#[must_use]
pub fn log_name(epoch: u32, first: u64) -> String {
    format!("log-{epoch:010}-{first:020}")
}

/// Epoch and first index in a log file's name; `None` for any other name.
#[must_use]
pub fn parse_log_name(name: &str) -> Option<(u32, u64)> {
    let (epoch, first) = name.strip_prefix("log-")?.split_once('-')?;
    let place = (epoch.parse().ok()?, first.parse().ok()?);
    (log_name(place.0, place.1) == name).then_some(place)
}

/// Appends the frame of record `index`.
pub fn encode_frame(index: u64, record: &[u8], out: &mut Vec<u8>) {
    out.reserve(FRAME_HEAD_BYTES + record.len());
    let start = out.len();
    out.extend_from_slice(&(record.len() as u32).to_be_bytes());
    out.extend_from_slice(&index.to_be_bytes());
    let crc = crc32c(&out[start..]);
    out.extend_from_slice(&crc.to_be_bytes());
    out.extend_from_slice(&crc32c_append(crc, record).to_be_bytes());
    out.extend_from_slice(record);
}

/// The head of a frame whose checksum held.
#[derive(Clone, Copy)]
struct FrameHead {
    length: usize,
    index: u64,
    crc: u32,
    frame_crc: u32,
}

impl FrameHead {
    fn parse(bytes: &[u8; FRAME_HEAD_BYTES]) -> Option<Self> {
        let head = Self {
            length: u32_at(bytes, 0) as usize,
            index: u64::from(u32_at(bytes, 4)) << 32 | u64::from(u32_at(bytes, 8)),
            crc: u32_at(bytes, 12),
            frame_crc: u32_at(bytes, 16),
        };
        let plausible = head.length != 0 && head.length <= RECORD_BYTES_MAX;
        (plausible && crc32c(&bytes[..12]) == head.crc).then_some(head)
    }

    fn covers(&self, record: &[u8]) -> bool {
        crc32c_append(self.crc, record) == self.frame_crc
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_be_bytes(word)
}

const MAGIC: &[u8; 5] = b"bldl\x01";
const START_BYTES: usize = MAGIC.len() + 4;
const CRC_BYTES: usize = 4;
const CONTINUES_DOMAIN: &str = "bield ledger continues v1";

#[cfg(test)]
mod tests;
