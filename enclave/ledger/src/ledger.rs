//! The running log: seal, prepare, commit, and the words it signs about itself.
//!
//! ```text
//! entries ──seal──▶ record ──(group: prepare, on a majority)──▶ commit ──▶ entries, in every member
//!                     │                                            │
//!                  reserved: no other record for this place     durable, then in chain and tree
//! ```
//!
//! Always true: a place in the log gets one record, whatever fails: once one was sealed here, or tried
//! to be written, only that one is committed there; what is in chain and tree is durable; a signed
//! checkpoint covers durable records only.

mod begin;
mod keep;
mod words;

use std::collections::BTreeMap;

use bield_capsule::ledger_file::{encode_frame, log_name};
use bield_capsule::{Batch, GenerationKey, Received, Verified, Writer};
use bield_envelope::{Digest, Secret, Time};
use bield_tlog::{LogKey, Origin};
use rand_core::CryptoRng;
use zeroize::Zeroizing;

use crate::chain::Chain;
use crate::keys::{Keys, origin};
use crate::past::PastLog;
use crate::prepared::PreparedFile;
use crate::replay::Tail;
use crate::{Files, LedgerError};

/// The key service's log.
pub struct Ledger {
    pub(crate) files: Box<dyn Files>,
    pub(crate) seal: Secret,
    pub(crate) keys: Keys,
    pub(crate) chain: Chain,
    pub(crate) past: Vec<PastLog>,
    log_key: LogKey,
    origin: Origin,
    generation: GenerationKey,
    writer: Option<Writer>,
    batch: Batch,
    /// The one record that may be committed next: sealed here, or tried to be written.
    reserved: Option<Digest>,
    /// The newest record that `writer` made, while it is not committed.
    sealed: Option<Digest>,
    /// First index and length of each log file of this epoch; the last is the one that is appended to.
    pub(crate) segments: BTreeMap<u64, u64>,
    prepared: PreparedFile,
    term: u64,
    /// The record that is prepared for the next place.
    newest_prepared: Option<Digest>,
    /// A new file was begun and may be there: nothing is written to the one before any more.
    rotating: bool,
    /// Sizes of the snapshots that may be there, ascending.
    pub(crate) snapshots: Vec<u64>,
    /// Size and bytes of the newest whole snapshot.
    snapshot: (u64, u64),
    /// Bytes of log since then.
    since_bytes: u64,
    /// Size of the snapshot that is being written.
    writing: Option<u64>,
    recovering: bool,
    /// How the last log file of a log that is being recovered ends.
    unmended: Option<Tail>,
    pub(crate) points: crate::read::Points,
}

/// What a load makes a ledger of.
pub(crate) struct Parts {
    pub(crate) files: Box<dyn Files>,
    pub(crate) seal: Secret,
    pub(crate) keys: Keys,
    pub(crate) chain: Chain,
    pub(crate) past: Vec<PastLog>,
    pub(crate) segments: BTreeMap<u64, u64>,
    pub(crate) tail: Tail,
    pub(crate) prepared: PreparedFile,
    pub(crate) term: u64,
    pub(crate) newest_prepared: Option<Digest>,
    pub(crate) snapshots: Vec<u64>,
    pub(crate) snapshot: (u64, u64),
    pub(crate) recovering: bool,
}

impl Ledger {
    pub(crate) fn assemble(parts: Parts) -> Result<Self, crate::FilesError> {
        let Parts {
            files,
            seal,
            keys,
            chain,
            past,
            segments,
            tail,
            prepared,
            term,
            newest_prepared,
            snapshots,
            snapshot,
            recovering,
        } = parts;
        let (epoch, name) = (chain.epoch(), chain.metadata().name());
        let log_key = keys.log(epoch, &name);
        let mut ledger = Self {
            files,
            seal,
            origin: origin(&log_key),
            log_key,
            generation: keys.generation(epoch, &name),
            keys,
            past,
            writer: None,
            batch: Batch::new(),
            reserved: None,
            sealed: None,
            segments,
            rotating: false,
            prepared,
            term,
            newest_prepared,
            snapshots,
            snapshot,
            since_bytes: 0,
            writing: None,
            recovering,
            unmended: None,
            points: crate::read::Points::default(),
            chain,
        };
        ledger.since_bytes = ledger.bytes_since(snapshot.0);
        if recovering {
            ledger.unmended = Some(tail);
        } else {
            ledger.mend(tail)?;
        }
        Ok(ledger)
    }

    /// Takes over a log that was opened for recovery, so that it can be ended: from here on its files are
    /// changed, and records can be committed to it. They load as before, as a log without its root.
    ///
    /// # Errors
    /// The host does not store.
    pub fn take_over(&mut self) -> Result<(), LedgerError> {
        if let Some(tail) = self.unmended {
            self.mend(tail)?;
            (self.unmended, self.recovering) = (None, false);
        }
        Ok(())
    }

    /// Cuts a torn append off, so that a file which another one follows ends exactly behind a frame.
    fn mend(&mut self, tail: Tail) -> Result<(), crate::FilesError> {
        let name = log_name(self.chain.epoch(), tail.first);
        let bytes = match tail.bytes {
            0 => {
                let head = self.file_head(tail.first);
                self.files.append(&name, 0, &head)?;
                head.len() as u64
            }
            bytes => {
                if tail.torn != 0 {
                    self.files.append(&name, bytes, &[])?;
                }
                bytes
            }
        };
        self.segments.insert(tail.first, bytes);
        Ok(())
    }

    /// Makes the next record of `entries`: at least one, together at most what one record holds
    /// (`bield_capsule::Batch`). Nothing is written; nobody may be answered before it is committed.
    ///
    /// # Errors
    /// The record before is not committed, entries that do not fit, or a log that is being recovered.
    pub fn seal(
        &mut self,
        entries: &[&[u8]],
        now: Time,
        entropy: &mut impl CryptoRng,
    ) -> Result<Received, LedgerError> {
        self.writable()?;
        if self.reserved.is_some() {
            let index = self.size();
            return Err(LedgerError::Uncommitted { index });
        }
        self.batch.clear();
        for entry in entries {
            self.batch.push(entry)?;
        }
        let now = self.now(now);
        let writer = match &mut self.writer {
            Some(writer) => writer,
            None => self.writer.insert(self.chain.writer(&self.keys)?),
        };
        let sealed = writer.seal(&self.batch, &self.generation, &[], now, entropy);
        self.batch = Batch::new(); // wiped
        let record = sealed?;
        self.reserved = Some(record.hash());
        self.sealed = self.reserved;
        Ok(record)
    }

    /// Holds for the group, durable and sealed when this returns: `term` has begun, and after what is
    /// committed comes exactly `record`, or nothing. It takes the place of whatever was prepared before;
    /// the same again is fine.
    ///
    /// # Errors
    /// A record that does not continue the log, a term that is over, another record in the same term, or
    /// the host does not store.
    pub fn prepare(&mut self, term: u64, record: Option<&Received>) -> Result<(), LedgerError> {
        self.writable()?;
        let (index, capsule) = (self.size(), self.capsule());
        if let Some(record) = record {
            let verified = self.chain.verify(record.clone())?;
            self.chain.open(&verified).map_err(crate::NotNext::from)?;
        }
        let hash = record.map(Received::hash);
        let other =
            hash.is_some() && self.newest_prepared.is_some() && self.newest_prepared != hash;
        if term < self.term || (term == self.term && other) {
            let newest = self.term;
            return Err(LedgerError::Term { term, newest });
        }
        if (term, hash) == (self.term, self.newest_prepared) {
            return Ok(());
        }
        let bytes = record.map_or(&[][..], Received::as_bytes);
        let place = (term, index);
        self.prepared
            .put(&mut *self.files, &self.keys, &capsule, place, bytes)?;
        (self.term, self.newest_prepared) = (term, hash);
        Ok(())
    }

    /// Makes a record the log's next one: verified, durable, then in chain and tree. Gives its entries.
    ///
    /// A record from elsewhere passes every rule before anything is stored. After
    /// [`LedgerError::NotDurable`] call it again with the same record until it succeeds.
    ///
    /// # Errors
    /// A record that does not continue the log, another one than was made or tried here, one that is
    /// committed already, or a write whose outcome is not known.
    pub fn commit(&mut self, record: &Received) -> Result<Vec<Zeroizing<Vec<u8>>>, LedgerError> {
        self.writable()?;
        let index = self.size();
        let hash = record.hash();
        if self.is_newest(&hash) {
            let index = index - 1;
            return Err(LedgerError::Known { index });
        }
        if self.reserved.is_some_and(|reserved| reserved != hash) {
            return Err(LedgerError::Reserved { index });
        }
        let verified = self.chain.verify(record.clone())?;
        let entries = self.chain.open(&verified).map_err(crate::NotNext::from)?;
        self.commit_verified(vec![verified])?;
        Ok(entries)
    }

    /// Stores verified records that follow each other in one durable write, then takes them into account.
    pub(crate) fn commit_verified(&mut self, verified: Vec<Verified>) -> Result<(), LedgerError> {
        self.writable()?;
        let index = self.size();
        let Some(hash) = verified.first().map(|first| first.record().hash()) else {
            return Ok(());
        };
        match &self.reserved {
            Some(reserved) if *reserved != hash => return Err(LedgerError::Reserved { index }),
            Some(_) => {}
            None => self.reserved = Some(hash),
        }
        self.write_frames(index, &verified)?;
        for verified in verified {
            let hash = verified.record().hash();
            self.chain.apply(verified)?;
            if self.sealed != Some(hash) {
                self.writer = None; // it has not made this record
            }
        }
        (self.reserved, self.sealed, self.newest_prepared) = (None, None, None);
        Ok(())
    }

    /// Ends the log in this process and gives the files and the seal key back: for a member that is given
    /// its group's log anew.
    #[must_use]
    pub fn into_parts(self) -> (Box<dyn Files>, Secret) {
        (self.files, self.seal)
    }

    fn writable(&self) -> Result<(), LedgerError> {
        if self.recovering {
            return Err(LedgerError::Recovering);
        }
        Ok(())
    }

    fn is_newest(&self, hash: &Digest) -> bool {
        let leaf = bield_tlog::leaf_hash(hash.as_bytes());
        self.newest_leaf() == Some(leaf)
    }

    fn write_frames(&mut self, index: u64, records: &[Verified]) -> Result<(), LedgerError> {
        if self.rotating {
            self.rotate(index).map_err(LedgerError::NotDurable)?;
        }
        let (first, end) = self.newest_segment();
        let mut frame = Vec::new();
        for (index, verified) in (index..).zip(records) {
            encode_frame(index, verified.record().as_bytes(), &mut frame);
        }
        let name = log_name(self.chain.epoch(), first);
        self.files
            .append(&name, end, &frame)
            .map_err(LedgerError::NotDurable)?;
        self.points.note(self.chain.epoch(), index, (first, end));
        self.segments.insert(first, end + frame.len() as u64);
        self.since_bytes += frame.len() as u64;
        Ok(())
    }

    /// Bytes of the log files from this one on.
    fn bytes_since(&self, first: u64) -> u64 {
        self.segments.range(first..).map(|(_, bytes)| bytes).sum()
    }

    /// First index and length of the file that is appended to.
    fn newest_segment(&self) -> (u64, u64) {
        let newest = self.segments.iter().next_back();
        newest.map_or((0, 0), |(first, bytes)| (*first, *bytes))
    }
}
