//! Entries of records that are about the state itself and not about its content.
//!
//! ```text
//! fence      0xf0 ‖ CBOR { 0: token, 1: before? }                who holds, and what was before
//! checkpoint 0xf1 ‖ CBOR { 0: covered heads, 1: manifest }       what the sorted levels hold
//! ```
//!
//! In and out: entries of signed, sealed records, so that the order of holders and the newest manifest are
//! as good as the log itself. Always true: tokens never fall along the line of holders; a checkpoint's runs
//! hold everything that the covered heads, and all before them, wrote. Tags lie beyond those of a table's
//! operations (`spec/07`).

use bield_capsule::Head;
use bield_envelope::wire;
use bield_levels::MANIFEST_BYTES_MAX;
use minicbor::{Decode, Encode};

use crate::history::HEADS_KEPT;

/// Who holds the state from here on; the first entry of every segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(crate) struct Fence {
    /// The key service's: larger for every new holder.
    #[n(0)]
    pub(crate) token: u64,
    /// The newest record of the holder before, as the first of this chain found it; none: this chain begins
    /// the state.
    #[n(1)]
    pub(crate) before: Option<Head>,
}

/// What lies in the levels from here on.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(crate) struct Checkpoint {
    /// Where the chains of the newest holders ended, oldest first.
    #[cbor(n(0), decode_with = "wire::at_most::<HEADS_KEPT, _, _>")]
    pub(crate) covered: Vec<Head>,
    /// The encoded manifest.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub(crate) manifest: Vec<u8>,
}

/// An entry that is no operation of the table.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Control {
    Fence(Fence),
    Checkpoint(Checkpoint),
}

/// An entry of a verified record that this version does not understand.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NotUnderstood;

impl Control {
    /// Reads an entry; `None` when it is the table's.
    pub(crate) fn decode(entry: &[u8]) -> Result<Option<Self>, NotUnderstood> {
        let control = match entry.split_first() {
            Some((&FENCE, fields)) => wire::decode(fields, FENCE_BYTES_MAX).map(Self::Fence),
            Some((&CHECKPOINT, fields)) => {
                wire::decode(fields, CHECKPOINT_BYTES_MAX).map(Self::Checkpoint)
            }
            _ => return Ok(None),
        };
        control.map(Some).map_err(|_| NotUnderstood)
    }
}

impl Fence {
    pub(crate) fn encode(&self) -> Vec<u8> {
        tagged(FENCE, &wire::encode(self))
    }
}

impl Checkpoint {
    pub(crate) fn encode(&self) -> Vec<u8> {
        tagged(CHECKPOINT, &wire::encode(self))
    }
}

fn tagged(tag: u8, fields: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(1 + fields.len());
    out.push(tag);
    out.extend_from_slice(fields);
    out
}

const FENCE: u8 = 0xf0;
const CHECKPOINT: u8 = 0xf1;
const FENCE_BYTES_MAX: usize = 128;
/// A head takes 80 bytes at most.
const CHECKPOINT_BYTES_MAX: usize = MANIFEST_BYTES_MAX + 80 * HEADS_KEPT + 16;

/// A checkpoint fits a record alone.
const _: () = assert!(CHECKPOINT_BYTES_MAX < bield_capsule::PAYLOAD_BYTES_MAX);

#[cfg(test)]
mod tests {
    use bield_capsule::WriterId;
    use bield_envelope::Digest;

    use super::*;

    #[test]
    fn control_entries_are_told_from_the_tables_and_read_back() {
        let head = Head {
            writer: WriterId::from_bytes([1; 32]),
            seq: u64::MAX,
            hash: Digest::from_bytes([2; 32]),
        };
        let fence = Fence {
            token: u64::MAX,
            before: Some(head),
        };
        let checkpoint = Checkpoint {
            covered: vec![head; HEADS_KEPT],
            manifest: vec![3; MANIFEST_BYTES_MAX],
        };
        let read = Control::decode(&fence.encode());
        assert_eq!(read, Ok(Some(Control::Fence(fence))));
        let read = Control::decode(&checkpoint.encode());
        assert_eq!(read, Ok(Some(Control::Checkpoint(checkpoint))));
        assert_eq!(Control::decode(&[0xef, 1]), Ok(None));
        assert_eq!(Control::decode(&[0xf0, 1]), Err(NotUnderstood));
    }
}
