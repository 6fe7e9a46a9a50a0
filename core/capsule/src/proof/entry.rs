//! One entry of a sealed body, shown by a slice of it (`spec/06 §7`).
//!
//! In: the target's header, which fixes root, length and key; a slice and a claim where the entry lies.
//! Out: the entry. Always true: the claim is compared with the ends, which the same root covers.

use core::ops::Range;

use aws_lc_rs::cipher::{AES_256, DecryptingKey, DecryptionContext, UnboundCipherKey};
use aws_lc_rs::iv::FixedLength;
use zeroize::Zeroizing;

use super::{ProofError, ProvenEntry};
use crate::batch::END_BYTES;
use crate::record::TAG_BYTES;
use crate::{
    Entry, EntryPlace, Header, Kind, OpenError, Received, RecordSecret, body, open_slice, slice,
};

/// What shows an entry; nothing of it is believed yet.
pub(super) struct EntryProof {
    pub(super) index: u32,
    pub(super) secret: RecordSecret,
    pub(super) slice: Vec<u8>,
    pub(super) start: u32,
    pub(super) end: u32,
}

impl EntryProof {
    /// Cuts the proof out of a record.
    pub(super) fn cut(
        record: &Received,
        secret: RecordSecret,
        index: u32,
    ) -> Result<Self, ProofError> {
        let range = body::open(record, &secret)?
            .range(index as usize)
            .ok_or(ProofError::Rule(NO_ENTRY))?;
        let header = record.header();
        let ends = ends_around(header, index).ok_or(ProofError::Rule(NO_ENTRY))?;
        Ok(Self {
            index,
            secret,
            slice: slice(header.suite, record.body(), &[range.clone(), ends])?,
            // Positions in a body, which is far shorter than 4 GiB.
            start: range.start as u32,
            end: range.end as u32,
        })
    }

    /// Checks and decrypts the entry: its bytes, and the ends that say where it lies.
    pub(super) fn open(&self, target: &Header) -> Result<ProvenEntry, ProofError> {
        if target.kind != Kind::Data {
            return Err(OpenError::NotData(target.kind).into());
        }
        // Before decrypting: else one ciphertext would open under two keys (spec/06 §4).
        let key = self.secret.body_key(target)?;
        let ends = ends_around(target, self.index).ok_or(ProofError::Rule(NO_ENTRY))?;
        let range = self.start as usize..self.end as usize;
        let ends_at = ends_at(target).ok_or(ProofError::Rule(NO_ENTRY))?;
        if range.is_empty() || range.end > ends_at {
            return Err(ProofError::Rule("the entry does not lie among the entries"));
        }
        let mut shown = open_slice(
            target.suite,
            &target.root,
            target.body_bytes as usize,
            &[range.clone(), ends.clone()],
            &self.slice,
        )?;
        let (Some(mut said), Some(bytes)) = (shown.pop(), shown.pop()) else {
            return Err(ProofError::Rule(NO_ENTRY));
        };
        let mut bytes = Zeroizing::new(bytes);
        decrypt(&key, ends.start, &mut said);
        decrypt(&key, range.start, &mut bytes);
        let claimed = match self.index {
            0 if self.start == 0 => self.end.to_be_bytes().to_vec(),
            0 => return Err(ProofError::Rule(OTHER_PLACE)),
            _ => [self.start.to_be_bytes(), self.end.to_be_bytes()].concat(),
        };
        if said != claimed {
            return Err(ProofError::Rule(OTHER_PLACE));
        }
        let place = EntryPlace {
            writer: target.writer,
            seq: target.seq,
            index: self.index,
        };
        let (suite, capsule) = (target.suite, target.capsule);
        if Entry::parse(&bytes, suite, capsule, place).is_none() {
            return Err(OpenError::Layout("an entry has no known form").into());
        }
        Ok(ProvenEntry {
            bytes,
            capsule,
            suite,
            place,
        })
    }
}

/// Where the ends begin in the plaintext, and so in the body.
fn ends_at(header: &Header) -> Option<usize> {
    let plaintext = (header.body_bytes as usize).checked_sub(TAG_BYTES)?;
    plaintext.checked_sub(header.count as usize * END_BYTES)
}

/// The two ends around an entry; one for entry 0. `None` when the record has no such entry.
fn ends_around(header: &Header, index: u32) -> Option<Range<usize>> {
    if index >= header.count {
        return None;
    }
    let (ends, index) = (ends_at(header)?, index as usize);
    Some(ends + index.saturating_sub(1) * END_BYTES..ends + (index + 1) * END_BYTES)
}

/// Decrypts what stands at `offset` of a body sealed with AES-256-GCM under nonce `0¹²`: that mode
/// counts blocks from 2 (NIST SP 800-38D §7.1). The root vouches for the bytes instead of the tag.
fn decrypt(key: &[u8; 32], offset: usize, bytes: &mut [u8]) {
    let block = (2 + offset / BLOCK_BYTES) as u32;
    let mut counter = [0; BLOCK_BYTES];
    counter[12..].copy_from_slice(&block.to_be_bytes());
    let mut padded = Zeroizing::new(vec![0; offset % BLOCK_BYTES]);
    padded.extend_from_slice(bytes);
    let key = UnboundCipherKey::new(&AES_256, key).expect("AES-256 takes 32 bytes");
    DecryptingKey::ctr(key)
        .and_then(|key| {
            let context = DecryptionContext::Iv128(FixedLength::from(counter));
            key.decrypt(&mut padded, context).map(drop)
        })
        .expect("counter mode decrypts bytes of any length");
    bytes.copy_from_slice(&padded[offset % BLOCK_BYTES..]);
}

const BLOCK_BYTES: usize = 16;
const NO_ENTRY: &str = "the record has no such entry";
const OTHER_PLACE: &str = "the entry lies elsewhere than the proof says";
