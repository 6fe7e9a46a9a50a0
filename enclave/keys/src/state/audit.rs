//! One principal's audit: how many entries, their chain, and where in the log they stand.
//!
//! ```text
//! entry of the log ──note──▶ count + 1, chained digest, reference (record, position)
//! Audit order ──plan──▶ references ──(the program reads the log)──▶ page, compared with the chain
//! ```
//!
//! Always true: the digest is that of all entries so far; a reference is kept for each; every
//! [`MARK_EVERY`]th has a mark, so that a page costs that much more reading at most. The entries
//! themselves are only in the log.
//!
//! On paper: 2 to 4 bytes an entry (differences as variable-length integers) and 56 for each mark.

use bield_envelope::{Digest, Time};
use bield_protocol::refusal::{Refusal, Retry};
use bield_protocol::service::{
    AUDIT_PAGE_MAX, AUDIT_START, AuditEntry, AuditPage, RefusedLease, chained,
};
use minicbor::{Decode, Encode};
use zeroize::Zeroizing;

use super::entry::Entry;

/// Where an entry stands: log epoch, record (leaf of the tree), position in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reference {
    /// Which log: human recoveries begin the next.
    pub epoch: u32,
    /// The record.
    pub record: u64,
    /// The entry in it, from 0.
    pub position: u32,
}

/// The audit of one principal.
#[derive(Clone, Encode, Decode)]
#[cbor(map)]
pub(super) struct Audit {
    #[n(0)]
    count: u64,
    #[n(1)]
    digest: Digest,
    /// For each entry, epoch and record as difference to the one before, then the position.
    #[cbor(n(2), with = "minicbor::bytes")]
    references: Vec<u8>,
    #[n(3)]
    last: u64,
    #[n(4)]
    marks: Vec<Mark>,
}

/// The audit as it was before one of its entries.
#[derive(Clone, Copy, Encode, Decode)]
#[cbor(map)]
struct Mark {
    #[n(0)]
    offset: u64,
    #[n(1)]
    last: u64,
    #[n(2)]
    digest: Digest,
}

impl Default for Audit {
    fn default() -> Self {
        Self {
            count: 0,
            digest: Digest::from_bytes(AUDIT_START),
            references: Vec::new(),
            last: 0,
            marks: Vec::new(),
        }
    }
}

impl Audit {
    /// Adds an entry.
    pub(super) fn note(&mut self, entry: &AuditEntry, at: Reference) {
        if self.count > 0 && self.count.is_multiple_of(MARK_EVERY) {
            self.marks.push(Mark {
                offset: self.references.len() as u64,
                last: self.last,
                digest: self.digest,
            });
        }
        let place = packed(at);
        write(&mut self.references, place.saturating_sub(self.last));
        write(&mut self.references, u64::from(at.position));
        self.last = place;
        self.digest = chained(&self.digest, entry);
        self.count += 1;
    }

    /// What to read for the entries from `from` on.
    pub(super) fn plan(&self, from: u64) -> AuditPlan {
        let from = from.min(self.count);
        // A mark is set when the entry after it arrives, so the last one may not be there yet.
        let marks = usize::try_from(from / MARK_EVERY).unwrap_or(usize::MAX);
        let marks = marks.min(self.marks.len());
        let (mut offset, mut last, digest) = match marks.checked_sub(1).map(|at| self.marks[at]) {
            Some(mark) => (mark.offset, mark.last, mark.digest),
            None => (0, 0, Digest::from_bytes(AUDIT_START)),
        };
        let begins = MARK_EVERY * marks as u64;
        let wanted = (from - begins).saturating_add(AUDIT_PAGE_MAX as u64);
        let mut references = Vec::new();
        while (references.len() as u64) < wanted
            && let Some((place, position)) = self.read(&mut offset)
        {
            last += place;
            references.push(unpacked(last, position));
        }
        AuditPlan {
            begins,
            from,
            before: digest,
            references,
            count: self.count,
            digest: self.digest,
        }
    }

    fn read(&self, offset: &mut u64) -> Option<(u64, u64)> {
        let mut rest = self.references.get(usize::try_from(*offset).ok()?..)?;
        let before = rest.len();
        let pair = (read(&mut rest)?, read(&mut rest)?);
        *offset += (before - rest.len()) as u64;
        Some(pair)
    }
}

/// A page of an audit whose entries have yet to be read from the log.
pub struct AuditPlan {
    /// Number of the first reference's entry.
    begins: u64,
    from: u64,
    /// The chain before it.
    before: Digest,
    references: Vec<Reference>,
    count: u64,
    digest: Digest,
}

/// A record's entries, as the program reads them from the log.
pub struct AuditedRecord {
    /// When it was made.
    pub at: Time,
    /// Its entries.
    pub entries: Vec<Zeroizing<Vec<u8>>>,
}

impl AuditPlan {
    /// The places to read, in order.
    #[must_use]
    pub fn references(&self) -> &[Reference] {
        &self.references
    }

    /// Makes the page. `read` gives the record of an epoch; it is asked once for each run of entries
    /// in the same record. `refused` is what was refused lately.
    ///
    /// # Errors
    /// A record cannot be read, or does not hold what it held when it was applied.
    pub fn page(
        &self,
        mut read: impl FnMut(u32, u64) -> Option<AuditedRecord>,
        mut refused: Vec<RefusedLease>,
    ) -> Result<AuditPage, Refusal> {
        refused.truncate(AUDIT_PAGE_MAX);
        let mut page = AuditPage {
            from: self.from,
            before: self.before,
            entries: Vec::new(),
            count: self.count,
            digest: self.digest,
            refused,
        };
        let mut held: Option<(u32, u64, AuditedRecord)> = None;
        let (mut number, mut bytes) = (self.begins, 0);
        for at in &self.references {
            let known = matches!(&held, Some((e, r, _)) if (*e, *r) == (at.epoch, at.record));
            if !known {
                let record = read(at.epoch, at.record).ok_or_else(|| unreadable(at.record))?;
                held = Some((at.epoch, at.record, record));
            }
            let entry = held.as_ref().and_then(|(.., record)| record.entry(at));
            let entry = entry.ok_or_else(|| unreadable(at.record))?;
            if number < self.from {
                page.before = chained(&page.before, &entry);
            } else {
                bytes += bield_envelope::wire::encode(&entry).len();
                if bytes > PAGE_BYTES_MAX && !page.entries.is_empty() {
                    break;
                }
                page.entries.push(entry);
            }
            number += 1;
        }
        Ok(page)
    }
}

impl AuditedRecord {
    fn entry(&self, at: &Reference) -> Option<AuditEntry> {
        let bytes = self.entries.get(usize::try_from(at.position).ok()?)?;
        Entry::decode(bytes).ok()?.audited(at.record, self.at)
    }
}

fn unreadable(record: u64) -> Refusal {
    let message = format!(
        "record {record} of the log cannot be read now; its operator must look at the storage, then retry"
    );
    Refusal::new("log-unreadable", message, Retry::After(5000))
}

/// Epoch and record as one growing number.
fn packed(at: Reference) -> u64 {
    (u64::from(at.epoch) << EPOCH_SHIFT) | at.record
}

fn unpacked(place: u64, position: u64) -> Reference {
    Reference {
        epoch: u32::try_from(place >> EPOCH_SHIFT).unwrap_or(u32::MAX),
        record: place & ((1 << EPOCH_SHIFT) - 1),
        position: u32::try_from(position).unwrap_or(u32::MAX),
    }
}

/// LEB128: seven bits a byte, the low ones first.
fn write(to: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        to.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    to.push(number as u8);
}

fn read(from: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = from.split_first()?;
        *from = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

/// Entries from one mark to the next.
const MARK_EVERY: u64 = 256;
/// A million million records an epoch.
const EPOCH_SHIFT: u32 = 40;
/// The most bytes of entries in a page, unless one alone is longer: a message holds 8 MiB.
const PAGE_BYTES_MAX: usize = 4 << 20;

const _: () = assert!(
    PAGE_BYTES_MAX + super::entry::ENTRY_BYTES_MAX + AUDIT_PAGE_MAX * 256
        < bield_protocol::service::MESSAGE_BYTES_MAX
);
