//! One writer's chain out of its files, verified.
//!
//! ```text
//! segment files ─ frames ─▶ Received ─ Verifier ─▶ Applied ─ key ring ─▶ entries, by position
//! ```
//!
//! In: files of the host. Out: [`Chain`]: every record verified, and which positions are not there. Always
//! true: a record stands behind the one before it by hash, or behind a signed head of the same chain where
//! earlier segments are gone; the signature of the last of each run is checked, which covers the others. A
//! torn end is passed over: nobody was told of it. What else is wrong with bytes that are there is an error;
//! whether positions may be missing is for [`super::line`] to say.
//!
//! Cost: one signature per [`RUN_RECORDS`] records, one pass of hash and cipher over each.

use std::collections::BTreeMap;

use bield_capsule::segment::{
    End, Frames, SEGMENT_FILE_BYTES_MAX, SEGMENT_HEADER_BYTES, SegmentHeader,
};
use bield_capsule::{
    Applied, Head, KeyRing, Kind, OpenError, Received, SegmentStart, SignedHead, Verifier, WriterId,
};
use bield_envelope::Digest;

use crate::StateError;
use crate::control::{Control, Fence};
use crate::disk::Disk;
use crate::error::Flawed;
use crate::names::Names;

/// A verified record.
pub(crate) struct Stored {
    pub(crate) record: Applied,
    /// Its entries that are not the table's.
    pub(crate) control: Vec<Control>,
}

impl Stored {
    pub(crate) const fn hash(&self) -> Digest {
        self.record.record().hash()
    }
}

/// A segment file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) name: String,
    pub(crate) first: u64,
}

/// Positions without a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hole {
    pub(crate) from: u64,
    pub(crate) to: u64,
}

/// A chain as far as it is there.
pub(crate) struct Chain {
    pub(crate) writer: WriterId,
    /// Ascending.
    pub(crate) segments: Vec<Segment>,
    pub(crate) records: BTreeMap<u64, Stored>,
    pub(crate) holes: Vec<Hole>,
    /// None: nothing was told of this chain, it is not part of the state.
    pub(crate) fence: Option<Fence>,
    /// Its first data record is sealed under another key than the capsule's: none of it is the state's.
    is_foreign: bool,
}

impl Chain {
    /// The newest record.
    pub(crate) fn tip(&self) -> Option<Head> {
        let (seq, stored) = self.records.last_key_value()?;
        Some(Head {
            writer: self.writer,
            seq: *seq,
            hash: stored.hash(),
        })
    }
}

/// What reading takes.
pub(crate) struct Reader<'a> {
    pub(crate) disk: &'a Disk,
    pub(crate) names: &'a Names,
    pub(crate) verifier: &'a mut Verifier,
    pub(crate) keys: &'a KeyRing,
    /// Files whose first append did not arrive whole: they tell nobody anything.
    pub(crate) torn: Vec<Segment>,
}

impl Reader<'_> {
    /// Reads the chain of these files, whose names show one writer and ascending first records. `None`: not
    /// even the first append arrived whole.
    pub(crate) fn chain(&mut self, files: &[(String, u64)]) -> Result<Option<Chain>, StateError> {
        let mut chain: Option<Chain> = None;
        for (name, first) in files {
            let bytes = self.disk.read(name, 0, SEGMENT_FILE_BYTES_MAX as u64)?;
            let segment = Segment {
                name: name.clone(),
                first: *first,
            };
            let Some(header) = header(&bytes, name)? else {
                self.torn.push(segment);
                continue;
            };
            let mut frames = header.frames(&bytes);
            let Some(frame) = frames.next() else {
                match frames.end() {
                    Some(End::Damaged { .. }) => {
                        return Err(other(name, "its first frame is altered"));
                    }
                    _ => {
                        self.torn.push(segment);
                        continue;
                    }
                }
            };
            let start = SegmentStart::decode(frame.payload);
            let start = start.ok_or_else(|| other(name, "its first frame is none of a log's"))?;
            self.belongs(&header, &start, name, *first)?;
            let chain = chain.get_or_insert_with(|| Chain {
                writer: start.writer,
                segments: Vec::new(),
                records: BTreeMap::new(),
                holes: Vec::new(),
                fence: None,
                is_foreign: false,
            });
            self.begin(chain, &start, name)?;
            chain.segments.push(segment);
            self.segment(chain, name, *first, frames)?;
        }
        Ok(chain)
    }

    /// Whether header and start are for the file of this name.
    fn belongs(
        &self,
        header: &SegmentHeader,
        start: &SegmentStart,
        name: &str,
        first: u64,
    ) -> Result<(), StateError> {
        let capsule = self.verifier.metadata().name();
        if start.capsule != capsule || header.capsule != *capsule.as_bytes() {
            return Err(other(name, "it belongs to another capsule"));
        }
        let expected = self.names.segment(&start.writer, first);
        if expected != *name || (start.first, header.segment) != (first, first) {
            return Err(other(name, "it belongs to another place of the log"));
        }
        Ok(())
    }

    /// Brings the verifier to the record before the segment's first.
    fn begin(
        &mut self,
        chain: &mut Chain,
        head: &SegmentStart,
        name: &str,
    ) -> Result<(), StateError> {
        let next = self.next(&chain.writer);
        let altered = |why: Flawed| StateError::Altered {
            file: name.to_owned(),
            writer: head.writer,
            record: head.first,
            why: Box::new(why),
        };
        if head.first < next {
            return Err(altered(Flawed::Start));
        }
        if head.first == next {
            return Ok(());
        }
        let past = head.past.as_ref().ok_or_else(|| altered(Flawed::Start))?;
        let tip = SignedHead::decode(&past.tip).map_err(|why| altered(why.into()))?;
        let levels = past
            .levels(head.first)
            .ok_or_else(|| altered(Flawed::Start))?;
        if next == 0 {
            let open = Received::decode(past.open.clone()).map_err(|why| altered(why.into()))?;
            if open.header().writer != head.writer || open.header().kind != Kind::Open {
                return Err(altered(Flawed::Start));
            }
            let verified = self
                .verifier
                .verify(open)
                .map_err(|why| altered(why.into()))?;
            self.verifier
                .apply(verified)
                .map_err(|why| altered(why.into()))?;
        }
        // The very tip may be the open record itself.
        self.verifier
            .skip_to(&tip, levels)
            .map_err(|why| altered(why.into()))?;
        chain.holes.push(Hole {
            from: next,
            to: head.first - 1,
        });
        Ok(())
    }

    /// Reads a segment's frames behind the start.
    fn segment(
        &mut self,
        chain: &mut Chain,
        name: &str,
        first: u64,
        mut frames: Frames<'_>,
    ) -> Result<(), StateError> {
        let altered = |writer, record, why: Flawed| StateError::Altered {
            file: name.to_owned(),
            writer,
            record,
            why: Box::new(why),
        };
        // Frame 0 is the start.
        let position = |index: u64| first.saturating_add(index.saturating_sub(1));
        let mut run: Vec<Received> = Vec::new();
        for frame in &mut frames {
            let record = Received::decode(frame.payload.to_vec())
                .map_err(|why| altered(chain.writer, position(frame.index), why.into()))?;
            run.push(record);
            if run.len() == RUN_RECORDS {
                self.take(chain, name, first, core::mem::take(&mut run))?;
            }
        }
        self.take(chain, name, first, run)?;
        match frames.end() {
            Some(End::Damaged { index, why, .. }) => {
                Err(altered(chain.writer, position(index), Flawed::Frame(why)))
            }
            _ => Ok(()),
        }
    }

    /// Verifies a run of records, opens them and keeps what they say.
    fn take(
        &mut self,
        chain: &mut Chain,
        name: &str,
        first: u64,
        run: Vec<Received>,
    ) -> Result<(), StateError> {
        let from = self.next(&chain.writer);
        let altered = |record, why| StateError::Altered {
            file: name.to_owned(),
            writer: chain.writer,
            record,
            why: Box::new(Flawed::Refused(why)),
        };
        let verified = self
            .verifier
            .verify_run(run)
            .map_err(|(at, why)| altered(from + at as u64, why))?;
        for record in verified {
            let seq = record.record().header().seq;
            let applied = self
                .verifier
                .apply(record)
                .map_err(|why| altered(seq, why))?;
            let control = match self.control(&applied) {
                _ if chain.is_foreign => Vec::new(),
                // spec/05 §3.1: a certificate alone makes no writer of this state. Its own begin with a fence.
                Err(StateError::Sealed {
                    why: OpenError::Commitment,
                    ..
                }) if chain.fence.is_none() => {
                    chain.is_foreign = true;
                    Vec::new()
                }
                control => control?,
            };
            let begins = seq == first.max(1);
            if let Some(Control::Fence(fence)) = control.first().filter(|_| begins) {
                chain.fence.get_or_insert(*fence);
            }
            let record = applied;
            chain.records.insert(seq, Stored { record, control });
        }
        Ok(())
    }

    /// Opens a record for what is not the table's in it.
    fn control(&self, applied: &Applied) -> Result<Vec<Control>, StateError> {
        let Head { writer, seq, .. } = applied.record().head();
        if applied.record().header().kind != Kind::Data {
            return Ok(Vec::new());
        }
        let sealed = |why| StateError::Sealed { writer, seq, why };
        let entries = applied.open(self.keys).map_err(sealed)?;
        let mut control = Vec::new();
        for entry in entries.iter().filter_map(|entry| entry.plain()) {
            let read = Control::decode(entry);
            control.extend(read.map_err(|_| StateError::Unknown { writer, seq })?);
        }
        Ok(control)
    }

    /// The position after the newest record applied.
    fn next(&self, writer: &WriterId) -> u64 {
        let chain = self.verifier.chain(writer);
        chain.map_or(0, |chain| chain.tip().seq + 1)
    }
}

/// The header of a segment; `None` when the file's first append did not arrive whole.
fn header(bytes: &[u8], name: &str) -> Result<Option<SegmentHeader>, StateError> {
    let Some(first) = bytes.first_chunk::<SEGMENT_HEADER_BYTES>() else {
        return Ok(None);
    };
    // Room that was taken and never filled.
    if *first == [0; SEGMENT_HEADER_BYTES] {
        return Ok(None);
    }
    let header = SegmentHeader::parse(bytes);
    header
        .map(Some)
        .map_err(|_| other(name, "its first bytes are no header"))
}

fn other(name: &str, why: &'static str) -> StateError {
    StateError::OtherFile {
        file: name.to_owned(),
        why,
    }
}

/// Records whose last signature stands for all.
pub(crate) const RUN_RECORDS: usize = 256;
