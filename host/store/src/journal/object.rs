//! A journal in object storage: one object a group, created once, never changed.
//!
//! ```text
//! append ─▶ memory ──sync──▶ PUT <prefix>/00000000000000000042   if nobody has: record 42 … 99
//!                                                                 sealed segment (spec 06)
//! ```
//!
//! Always true: an object is created only when none has its name (`If-None-Match`), and its name is
//! the index of its first record. So of two owners who both believe to be the only one, the second
//! to write an index learns it ([`JournalError::Fenced`]) and must stop; nothing acknowledged is
//! overwritten. An answer that got lost is told from another owner by the object's random salt.
//! Nothing but removal of the whole journal frees a name.
//!
//! One sync costs one PUT. Opening costs three listings or more, one for each thousand names, and
//! one GET an object, [`GETS_AT_ONCE`] at a time: many small groups are [copied](copies) into one
//! object, in the background. What was not synced is in memory only, and lost with the process.
//!
//! A store must keep what it has acknowledged, list what it keeps, and honour `If-None-Match`:
//! `storage::Objects` asks it before it is used.
//!
//! Not here: credentials (the caller builds the store).

use std::collections::BTreeSet;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bield_capsule::segment::{End, FRAME_HEAD_BYTES, SEGMENT_HEADER_BYTES, SegmentHeader};
use object_store::path::Path;
use tokio::task::JoinHandle;

mod copies;
mod requests;

pub(crate) use requests::GETS_AT_ONCE;
pub use requests::Requests;

use super::index::{self, MISSING, Segment};
use super::recovery::{Mode, Options, Recovered};
use super::{
    Damage, Damaged, Journal, JournalError, Scrub, Visit, check_records, draw_salt, failing,
};
use copies::Covered;
use requests::Stored;

/// A [`Journal`] in object storage. See the module's text.
#[derive(Debug)]
pub struct ObjectJournal {
    store: Stored,
    capsule: [u8; 32],
    options: Options,
    /// All objects; the last may be the group that is not yet one.
    segments: Vec<Segment>,
    /// The bytes of that group.
    group: Vec<u8>,
    /// How many segments, from the first, are copies or need none.
    copied: usize,
    /// Makes copies.
    copying: Option<JoinHandle<()>>,
    recovered: Recovered,
    stopped: Option<Stopped>,
}

/// Why nothing is appended any more.
#[derive(Debug, Clone, Copy)]
enum Stopped {
    Failed,
    Fenced { index: u64 },
}

/// A group becomes an object at this length even without a sync: it is all in memory.
const OBJECT_BYTES_MAX: u32 = 16 << 20;

/// Time between two looks at whether a copy is made: only removal waits for one.
const SETTLE_INTERVAL: Duration = Duration::from_millis(5);

/// An object to read.
enum Object {
    Group(u64),
    Copy(Covered),
}

/// Removal has begun: whatever is still there goes at the next open.
const REMOVED: &str = "removed";

impl ObjectJournal {
    /// Opens the journal of `capsule` below `prefix`, or begins it, and shows `visit` every record.
    ///
    /// # Errors
    /// When objects are damaged or gone, another capsule's, or the store fails.
    pub fn open(
        requests: &Arc<Requests>,
        prefix: Path,
        capsule: [u8; 32],
        options: Options,
        visit: &mut Visit<'_>,
    ) -> Result<Self, JournalError> {
        let requests = Arc::clone(requests);
        let mut journal = Self {
            store: Stored { requests, prefix },
            capsule,
            options: Options {
                segment_bytes: options.segment_bytes.min(OBJECT_BYTES_MAX),
                ..options
            },
            segments: Vec::new(),
            group: Vec::new(),
            copied: 0,
            copying: None,
            recovered: Recovered::default(),
            stopped: None,
        };
        let owns = options.mode == Mode::Own;
        if owns && journal.store.is_removed()? {
            journal.store.remove()?;
        }
        let mut copies = journal.store.copies()?;
        let mut shows = true;
        while let Some(bad) = journal.take_all(&copies, visit, &mut shows)? {
            if owns {
                journal.store.drop_copy(&bad)?;
            }
            copies.remove(&bad);
        }
        let (len, acknowledged) = (journal.len(), options.acknowledged);
        if owns && len < acknowledged {
            return Err(JournalError::Shortened { len, acknowledged });
        }
        journal.recovered.records = len;
        if owns {
            journal.copy();
        }
        Ok(journal)
    }

    /// Takes in everything behind what is here already; returns the first copy that is bad.
    fn take_all(
        &mut self,
        copies: &BTreeSet<Covered>,
        visit: &mut Visit<'_>,
        shows: &mut bool,
    ) -> Result<Option<Covered>, JournalError> {
        let objects = self.objects(copies)?;
        for some in objects.chunks(GETS_AT_ONCE) {
            let names = some.iter().map(|object| match object {
                Object::Group(first) => self.store.group(*first),
                Object::Copy(covered) => copies::name(&self.store.prefix, &covered.0),
            });
            let bytes = self.store.get_all(names.collect())?;
            for (object, bytes) in some.iter().zip(bytes) {
                match object {
                    Object::Group(first) => self.take(*first, &bytes, visit, shows)?,
                    Object::Copy(covered) if self.take_copy(&covered.0, &bytes, visit, shows) => {}
                    Object::Copy(covered) => return Ok(Some(covered.clone())),
                }
            }
        }
        Ok(None)
    }

    /// What is to be read, in order: copies where there are, groups elsewhere.
    fn objects(&self, copies: &BTreeSet<Covered>) -> Result<Vec<Object>, JournalError> {
        let mut at = self.len();
        let mut objects = Vec::new();
        let beginning = |at: u64| {
            let copy = copies.range(Covered(at..u64::MAX)..).next();
            copy.filter(|copy| copy.0.start == at)
        };
        // Rare: of two owners one has copied from another group on.
        let holding = |at: u64| copies.iter().find(|copy| copy.0.contains(&at));
        while let Some(copy) = beginning(at).or_else(|| holding(at)) {
            at = copy.0.end;
            objects.push(Object::Copy(copy.clone()));
        }
        for first in self.store.groups(at)? {
            if first < at {
                continue;
            }
            match beginning(first) {
                Some(copy) => {
                    at = copy.0.end;
                    objects.push(Object::Copy(copy.clone()));
                }
                None => objects.push(Object::Group(first)),
            }
        }
        Ok(objects)
    }

    /// Takes in a copy, or says that it is bad.
    fn take_copy(
        &mut self,
        covered: &Range<u64>,
        bytes: &[u8],
        visit: &mut Visit<'_>,
        shows: &mut bool,
    ) -> bool {
        let from = self.len().max(self.options.known);
        let show = |index, record: &[u8]| {
            if *shows && index >= from {
                *shows = visit(index, record).is_continue();
            }
        };
        let Some(segment) = copies::parse(bytes, &self.capsule, covered, show) else {
            tracing::warn!(
                from = covered.start,
                to = covered.end,
                "a merged copy of records is damaged; their groups are read instead"
            );
            return false;
        };
        self.segments.push(segment);
        self.copied = self.segments.len();
        true
    }

    /// Starts to copy groups that are due, unless the last copies are still being made.
    fn copy(&mut self) {
        let makes = |task: &JoinHandle<()>| !task.is_finished();
        if self.copying.as_ref().is_some_and(makes) {
            return;
        }
        let from = self.copied;
        let (due, upto) = copies::due(&self.segments[from..]);
        let mut plans = Vec::with_capacity(due.len());
        for run in due {
            let run = &self.segments[from + run.start..from + run.end];
            let (Some(first), Some(last), Ok(salt)) = (run.first(), run.last(), draw_salt()) else {
                return;
            };
            let header = SegmentHeader {
                capsule: self.capsule,
                segment: last.next(),
                first: first.header.first,
                salt,
            };
            let groups = run.iter().map(|group| self.store.name(&group.header));
            plans.push(copies::Plan {
                header,
                name: self.store.name(&header),
                groups: groups.collect(),
            });
        }
        self.copied += upto;
        if plans.is_empty() {
            return;
        }
        self.copying = Some(self.store.requests.start(|store| async move {
            for plan in plans {
                let name = plan.name.clone();
                if let Err(error) = copies::make(&store, plan).await {
                    tracing::warn!(%name, %error, "no merged copy was made; the next opening tries again");
                    return;
                }
            }
        }));
    }

    /// Waits until no copy is being made.
    pub(super) fn settle(&mut self) {
        while self
            .copying
            .as_ref()
            .is_some_and(|task| !task.is_finished())
        {
            std::thread::sleep(SETTLE_INTERVAL);
        }
    }

    /// What opening found.
    #[must_use]
    pub fn recovered(&self) -> &Recovered {
        &self.recovered
    }

    /// Damage is an error to an owner, a note to who salvages.
    fn damaged(&mut self, damage: Damage) -> Result<(), JournalError> {
        if self.options.mode == Mode::Own {
            return Err(JournalError::Damaged(damage));
        }
        self.recovered.damage.push(damage);
        Ok(())
    }

    /// Takes in the object of the records from `first` on.
    fn take(
        &mut self,
        first: u64,
        bytes: &[u8],
        visit: &mut Visit<'_>,
        shows: &mut bool,
    ) -> Result<(), JournalError> {
        let len = self.len();
        if first != len {
            // In salvage a hole is a note; overlapping objects have no meaning at all.
            self.damaged(Damage {
                segment: len,
                offset: 0,
                index: len,
                what: Damaged::Gone,
            })?;
        }
        let header = match SegmentHeader::parse(bytes) {
            Ok(header) if header.capsule != self.capsule => {
                return Err(JournalError::Foreign {
                    place: self.store.group(first).to_string(),
                });
            }
            Ok(header) if first >= len && header.first == first && header.segment == first => {
                header
            }
            _ => {
                return self.damaged(Damage {
                    segment: first,
                    offset: 0,
                    index: first,
                    what: Damaged::Header,
                });
            }
        };
        let mut segment = Segment {
            header,
            offsets: Vec::new(),
            end: SEGMENT_HEADER_BYTES as u32,
            sealed: true,
        };
        let mut frames = header.frames(bytes);
        loop {
            for frame in frames.by_ref() {
                segment.offsets.push(frame.offset);
                segment.end = frame.offset + (FRAME_HEAD_BYTES + frame.payload.len()) as u32;
                if *shows && frame.index >= self.options.known {
                    *shows = visit(frame.index, frame.payload).is_continue();
                }
            }
            let (offset, what) = match frames.end().expect("the iterator has ended") {
                End::Sealed { .. } => break,
                End::Damaged { offset, why, .. } | End::Torn { offset, why } => {
                    (offset, Damaged::Frame(why))
                }
                End::Clean { offset } | End::Preallocated { offset } => (offset, Damaged::Cut),
            };
            self.damaged(segment.damage(offset, segment.offsets.len(), what))?;
            match frames.resume() {
                Some(skipped) => segment
                    .offsets
                    .extend(std::iter::repeat_n(offset | MISSING, skipped as usize)),
                None => break,
            }
        }
        self.segments.push(segment);
        Ok(())
    }

    fn check_open(&self) -> Result<(), JournalError> {
        match (self.options.mode, self.stopped) {
            (Mode::Salvage, _) => Err(JournalError::ReadOnly),
            (Mode::Own, Some(Stopped::Fenced { index })) => Err(JournalError::Fenced { index }),
            (Mode::Own, Some(Stopped::Failed)) => Err(JournalError::Stopped),
            (Mode::Own, None) => Ok(()),
        }
    }

    /// The group to append to, begun when the last segment is an object already.
    fn group(&mut self) -> Result<&mut Segment, JournalError> {
        if self.segments.last().is_none_or(|last| last.sealed) {
            let salt = draw_salt()?;
            let first = self.len();
            let header = SegmentHeader {
                capsule: self.capsule,
                segment: first,
                first,
                salt,
            };
            self.group = header.encode().to_vec();
            let end = SEGMENT_HEADER_BYTES as u32;
            self.segments.push(Segment {
                header,
                offsets: Vec::new(),
                end,
                sealed: false,
            });
        }
        Ok(self.segments.last_mut().expect("just begun"))
    }

    /// Makes the group an object.
    fn put_group(&mut self) -> Result<(), JournalError> {
        let Some(segment) = self.segments.last_mut().filter(|last| !last.sealed) else {
            return Ok(());
        };
        let first = segment.header.first;
        let mut bytes = std::mem::take(&mut self.group);
        bytes.extend(segment.header.seal(&segment.offsets, segment.end));
        match self.store.create(first, bytes) {
            Ok(()) => {
                segment.sealed = true;
                Ok(())
            }
            Err(error) => {
                // The group is gone from memory and nobody knows whether it became an object.
                self.segments.pop();
                self.stopped = Some(match error {
                    JournalError::Fenced { index } => Stopped::Fenced { index },
                    _ => Stopped::Failed,
                });
                Err(error)
            }
        }
    }
}

impl Journal for ObjectJournal {
    fn append(&mut self, records: &[&[u8]]) -> Result<u64, JournalError> {
        self.check_open()?;
        check_records(records)?;
        let first = self.len();
        let limit = self.options.segment_bytes as usize;
        for record in records {
            if self.group.len() >= limit {
                self.put_group()?;
            }
            let segment = self.group()?;
            let head = segment
                .header
                .frame_head(segment.offsets.len() as u32, 0, record);
            segment.offsets.push(segment.end);
            segment.end += (FRAME_HEAD_BYTES + record.len()) as u32;
            self.group.extend_from_slice(&head);
            self.group.extend_from_slice(record);
        }
        Ok(first)
    }

    fn sync(&mut self) -> Result<(), JournalError> {
        self.check_open()?;
        self.put_group()?;
        self.copy();
        Ok(())
    }

    fn read(&self, range: Range<u64>, visit: &mut Visit<'_>) -> Result<(), JournalError> {
        index::read(&self.segments, range, visit, |segment, range, visit| {
            let fetch = |place: Range<u32>| match segment.sealed {
                true => self.store.get(&segment.header, Some(place)),
                false => Ok(self.group[place.start as usize..place.end as usize].to_vec()),
            };
            segment.read(range, fetch, visit)
        })
    }

    fn len(&self) -> u64 {
        self.segments.last().map_or(0, Segment::next)
    }

    fn synced(&self) -> u64 {
        match self.segments.last() {
            Some(group) if !group.sealed => group.header.first,
            _ => self.len(),
        }
    }

    fn bytes(&self) -> u64 {
        self.segments
            .iter()
            .map(|segment| u64::from(segment.end))
            .sum()
    }

    fn record_bytes(&self, index: u64) -> Option<usize> {
        index::record_bytes(&self.segments, index)
    }

    fn scrub(&self) -> Result<Scrub, JournalError> {
        let mut all = Scrub::default();
        for segment in self.segments.iter().filter(|segment| segment.sealed) {
            let mut found = match self.store.get(&segment.header, None) {
                Ok(bytes) => segment.examine(&bytes),
                Err(JournalError::Failing { source, .. })
                    if source.kind() == io::ErrorKind::NotFound =>
                {
                    segment.gone()
                }
                Err(error) => return Err(error),
            };
            all.intact += found.intact;
            all.damage.append(&mut found.damage);
        }
        Ok(all)
    }

    fn remove(mut self: Box<Self>) -> Result<(), JournalError> {
        if self.options.mode == Mode::Salvage {
            return Err(JournalError::ReadOnly);
        }
        self.settle();
        self.store.remove()
    }
}
