//! The holder's own chain, as it is written.
//!
//! ```text
//! begin ─▶ [head │ open │ fence]  ─▶ append ─▶ [… │ record] ─▶ rotate ─▶ [head │ fence]  a new file
//! ```
//!
//! In: batches, time, randomness. Out: records that are durable when `append` returns. Always true: a place
//! in the chain gets one record; after a failure nothing further is signed; a file's first append holds its
//! head and its first record, so that a file without a whole first record tells nobody anything.

use bield_capsule::{
    Batch, Config, GenerationKey, Head, KeyRing, Metadata, Opening, Past, Received, SegmentStart,
    SignedHead, SkipLevels, Writer, WriterKey,
};
use bield_envelope::Time;
use rand_core::CryptoRng;

use super::chain::Segment;
use super::segment::SegmentFile;
use crate::StateError;
use crate::control::Fence;
use crate::disk::Disk;
use crate::names::Names;

/// Who writes: a fresh key, and the key service's certificate for it.
pub struct Author {
    /// The key, used for this chain only.
    pub key: WriterKey,
    /// Signed [`bield_capsule::WriterCertificate`]; none where the owner admitted the key itself.
    pub certificate: Option<Vec<u8>>,
}

impl Author {
    /// From when until when its certificate admits records, exclusive; none where there is no certificate.
    pub(crate) fn certificate(
        &self,
        metadata: &Metadata,
    ) -> Result<Option<(Time, Time)>, bield_capsule::WriteError> {
        let body = Opening::encode(self.key.public(), self.certificate.as_deref());
        let (suite, capsule) = (metadata.suite(), metadata.name());
        let opening = Opening::decode(suite, &capsule, &self.key.id(), &body)?;
        let certificate = opening.certificate();
        Ok(certificate.map(|says| (says.not_before, says.not_after)))
    }
}

/// The chain that this process writes.
pub(crate) struct Log {
    disk: Disk,
    names: Names,
    writer: Writer,
    generation: u32,
    /// The open record, for the starts of later segments.
    open: Vec<u8>,
    levels: SkipLevels,
    tip: SignedHead,
    fence: Fence,
    ends: Option<Time>,
    file: SegmentFile,
    /// Files of this chain before it.
    former: Vec<Segment>,
    /// Why nothing more is signed: a record may be half written.
    stopped: Option<String>,
}

/// What a new chain follows.
pub(crate) struct Place<'a> {
    pub(crate) disk: &'a Disk,
    pub(crate) names: &'a Names,
    pub(crate) metadata: &'a Metadata,
    pub(crate) config: &'a Config,
    pub(crate) keys: &'a KeyRing,
    pub(crate) fence: Fence,
}

impl Log {
    /// Begins a chain: its opening and its first fence, durable.
    pub(crate) fn begin(
        place: &Place<'_>,
        author: Author,
        now: Time,
        entropy: &mut impl CryptoRng,
    ) -> Result<Self, StateError> {
        let config = place.config.head().ok_or(bield_capsule::WriteError::Role)?;
        let ends = author.certificate(place.metadata)?.map(|(_, ends)| ends);
        let certificate = author.certificate.as_deref();
        let (mut writer, open) =
            Writer::open(author.key, place.metadata, config, certificate, now)?;
        let mut levels = SkipLevels::new();
        levels.push(0, open.hash());
        let generation = generation(place.keys, place.config)?;
        let fence = fence(&mut writer, place.fence, generation, now, entropy)?;
        levels.push(1, fence.hash());
        let start = SegmentStart {
            capsule: writer.capsule(),
            writer: writer.id(),
            first: 0,
            past: None,
        };
        let name = place.names.segment(&writer.id(), 0);
        let file = SegmentFile::create(place.disk, name, &start, &[&open, &fence], entropy)?;
        Ok(Self {
            disk: place.disk.clone(),
            names: place.names.clone(),
            generation: generation.number(),
            open: open.into_bytes(),
            levels,
            tip: fence.signed_head(),
            writer,
            fence: place.fence,
            ends,
            file,
            former: Vec::new(),
            stopped: None,
        })
    }

    /// Signs a batch.
    pub(crate) fn seal(
        &mut self,
        batch: &Batch,
        keys: &KeyRing,
        now: Time,
        entropy: &mut impl CryptoRng,
    ) -> Result<Received, StateError> {
        self.runs(now)?;
        let generation = self.key(keys)?;
        let record = self.writer.seal(batch, generation, &[], now, entropy)?;
        self.levels.push(record.header().seq, record.hash());
        Ok(record)
    }

    /// Writes the record that was sealed last; durably together with all before where that is asked for.
    pub(crate) fn write(&mut self, record: &Received, durably: bool) -> Result<(), StateError> {
        let written = self.file.add(record, durably);
        self.stop_on(written)?;
        self.tip = record.signed_head();
        Ok(())
    }

    /// Makes durable what was written; after a failure, what was signed last may not have been.
    pub(crate) fn sync(&mut self) -> Result<(), StateError> {
        if let Some(reason) = &self.stopped {
            let reason = reason.clone();
            return Err(StateError::Stopped { reason });
        }
        let synced = self.file.sync();
        self.stop_on(synced)
    }

    /// Begins a new file with a fence, once all before it is durable; says the newest record before it.
    pub(crate) fn rotate(
        &mut self,
        keys: &KeyRing,
        now: Time,
        entropy: &mut impl CryptoRng,
    ) -> Result<Head, StateError> {
        self.runs(now)?;
        self.sync()?;
        let before = self.tip.head();
        let past = Past::new(
            self.open.clone(),
            self.tip.as_bytes().to_vec(),
            &self.levels,
        );
        let start = SegmentStart {
            capsule: self.writer.capsule(),
            writer: self.writer.id(),
            first: before.seq + 1,
            past,
        };
        let generation = self.key(keys)?;
        let record = fence(&mut self.writer, self.fence, generation, now, entropy)?;
        self.levels.push(record.header().seq, record.hash());
        let name = self.names.segment(&self.writer.id(), start.first);
        match SegmentFile::create(&self.disk, name, &start, &[&record], entropy) {
            Ok(file) => {
                let before = core::mem::replace(&mut self.file, file);
                self.former.push(before.into_segment());
            }
            Err(error) => self.stop_on(Err(error))?,
        }
        self.tip = record.signed_head();
        Ok(before)
    }

    /// Whether the file takes no further record.
    pub(crate) const fn is_full(&self) -> bool {
        self.file.is_full()
    }

    /// Whether nothing more is signed since something was not written.
    pub(crate) const fn has_stopped(&self) -> bool {
        self.stopped.is_some()
    }

    /// The newest record that is written.
    pub(crate) fn head(&self) -> Head {
        self.tip.head()
    }

    /// Files of this chain before the one that records go to; each is given once.
    pub(crate) fn take_former(&mut self) -> Vec<Segment> {
        core::mem::take(&mut self.former)
    }

    /// The first moment at which the certificate admits no record.
    pub(crate) const fn ends(&self) -> Option<Time> {
        self.ends
    }

    fn key<'k>(&self, keys: &'k KeyRing) -> Result<&'k GenerationKey, StateError> {
        let generation = self.generation;
        let missing = bield_capsule::KeyRingError::NoGeneration { generation };
        Ok(keys.generation(generation).ok_or(missing)?)
    }

    fn runs(&self, now: Time) -> Result<(), StateError> {
        if let Some(reason) = &self.stopped {
            let reason = reason.clone();
            return Err(StateError::Stopped { reason });
        }
        match self.ends.filter(|until| now >= *until) {
            Some(until) => Err(StateError::CertificateEnded { until }),
            None => Ok(()),
        }
    }

    fn stop_on(&mut self, done: Result<(), bield_ledger::FilesError>) -> Result<(), StateError> {
        done.map_err(|error| {
            let reason = error.to_string();
            self.stopped = Some(reason.clone());
            StateError::Stopped { reason }
        })
    }
}

/// The key that the configuration asks records to be sealed with.
fn generation<'k>(keys: &'k KeyRing, config: &Config) -> Result<&'k GenerationKey, StateError> {
    let generation = config.generation();
    let missing = bield_capsule::KeyRingError::NoGeneration { generation };
    Ok(keys.generation(generation).ok_or(missing)?)
}

fn fence(
    writer: &mut Writer,
    fence: Fence,
    generation: &GenerationKey,
    now: Time,
    entropy: &mut impl CryptoRng,
) -> Result<Received, StateError> {
    let mut batch = Batch::new();
    batch.push(&fence.encode())?;
    let parents: Vec<Head> = fence.before.into_iter().collect();
    Ok(writer.seal(&batch, generation, &parents, now, entropy)?)
}
