//! Where the chains of earlier holders ended, for callers who come back after many starts.
//!
//! ```text
//! chains that a start found ─ flush ─▶ cell "\0ended" ‖ writer → seq ‖ hash ─▶ levels, for good
//! ```
//!
//! In: the ends of the chains that a start found, heads that a caller has seen. Out: cells for a flush; how far a chain that
//! no checkpoint names any more got. Always true: the end of a chain is in the levels before a checkpoint ceases to name
//! it, since the flush that makes a checkpoint writes the ends of all chains that were not written before.
//!
//! Cost: about 100 bytes a start; a read of the levels for a head of a writer that is not among the newest.

use bield_capsule::{Head, WriterId};
use bield_envelope::Digest;
use bield_levels::{Cell, Content, OwnedCell, OwnedContent, Version};

use crate::state::Shared;
use crate::{Lacking, StateError};

impl Shared {
    /// Cells that keep where chains ended.
    pub(crate) fn ended_cells(&self, ended: &[Head], version: Version) -> Vec<OwnedCell> {
        let cell = |head: &Head| {
            let bytes = [&head.seq.to_be_bytes()[..], head.hash.as_bytes()].concat();
            let content = Content::Value {
                bytes: &bytes,
                expires: None,
            };
            let key = &key(&head.writer);
            Cell {
                key,
                version,
                content,
            }
            .to_owned()
        };
        ended.iter().map(cell).collect()
    }

    /// Of these those that are ahead of the chains of long ago, too.
    pub(crate) fn lacking_of_earlier(
        &self,
        seen: &[Head],
        lacking: Vec<Lacking>,
    ) -> Result<Vec<Lacking>, StateError> {
        let mut still = Vec::new();
        for mut one in lacking {
            let ended = match one.have {
                Some(_) => None,
                None => self.ended(one.writer)?,
            };
            let Some(ended) = ended else {
                still.push(one);
                continue;
            };
            one.have = Some(ended.seq);
            let other = |head: &Head| {
                let same_place = (head.writer, head.seq) == (ended.writer, ended.seq);
                same_place && head.hash != ended.hash
            };
            if seen.iter().any(other) {
                let (writer, seq) = (ended.writer, ended.seq);
                return Err(StateError::Forked { writer, seq });
            }
            if one.need > ended.seq {
                still.push(one);
            }
        }
        Ok(still)
    }

    fn ended(&self, writer: WriterId) -> Result<Option<Head>, StateError> {
        let cell = self.cold.levels().newest(&key(&writer))?;
        let Some(OwnedContent::Value { bytes, .. }) = cell.map(|cell| cell.content) else {
            return Ok(None);
        };
        let head = bytes.split_first_chunk::<8>().and_then(|(seq, hash)| {
            Some(Head {
                writer,
                seq: u64::from_be_bytes(*seq),
                hash: Digest::from_bytes(hash.try_into().ok()?),
            })
        });
        Ok(head)
    }
}

fn key(writer: &WriterId) -> Vec<u8> {
    [ENDED, writer.as_bytes()].concat()
}

/// Before leases, and like them in no bucket.
const ENDED: &[u8] = b"\0ended";
