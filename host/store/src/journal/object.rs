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
//!
//! One sync costs one PUT; opening costs one listing and one GET an object, [`GETS_AT_ONCE`] at a
//! time. What was not synced is in memory only, and lost with the process.
//!
//! A store must keep what it has acknowledged and list what it keeps (S3 and what is compatible to
//! it do). `object_store`'s local file system does so only with its option for syncing set.
//!
//! Not here: merging small objects into larger ones; credentials (the caller builds the store).

use std::future::Future;
use std::io;
use std::ops::Range;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use bield_capsule::segment::{End, FRAME_HEAD_BYTES, SEGMENT_HEADER_BYTES, SegmentHeader};
use futures_util::{StreamExt as _, TryStreamExt as _};
use object_store::path::Path;
use object_store::{Error, GetOptions, ObjectStore, ObjectStoreExt as _, PutMode, PutPayload};
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use super::index::{self, MISSING, Segment};
use super::recovery::{Mode, Options, Recovered};
use super::{
    Damage, Damaged, Journal, JournalError, Scrub, Visit, check_records, draw_salt, failing,
};

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
    recovered: Recovered,
    stopped: Option<Stopped>,
}

/// Why nothing is appended any more.
#[derive(Debug, Clone, Copy)]
enum Stopped {
    Failed,
    Fenced { index: u64 },
}

/// Objects being fetched at the same time while a journal is opened.
const GETS_AT_ONCE: usize = 16;

/// A group becomes an object at this length even without a sync: it is all in memory.
const OBJECT_BYTES_MAX: u32 = 16 << 20;

/// Removal has begun: whatever is still there goes at the next open.
const REMOVED: &str = "removed";

impl ObjectJournal {
    /// Opens the journal of `capsule` below `prefix`, or begins it, and shows `visit` every record.
    ///
    /// # Errors
    /// When objects are damaged or gone, another capsule's, or the store fails.
    pub fn open(
        store: Arc<dyn ObjectStore>,
        prefix: Path,
        capsule: [u8; 32],
        options: Options,
        visit: &mut Visit<'_>,
    ) -> Result<Self, JournalError> {
        let mut journal = Self {
            store: Stored::start(store, prefix)?,
            capsule,
            options: Options {
                segment_bytes: options.segment_bytes.min(OBJECT_BYTES_MAX),
                ..options
            },
            segments: Vec::new(),
            group: Vec::new(),
            recovered: Recovered::default(),
            stopped: None,
        };
        let owns = options.mode == Mode::Own;
        let (mut firsts, removed) = journal.store.list()?;
        if owns && removed {
            journal.store.remove(&firsts)?;
            firsts.clear();
        }
        let mut shows = true;
        for group in firsts.chunks(GETS_AT_ONCE) {
            for (first, bytes) in group.iter().zip(journal.store.get_all(group)?) {
                journal.take(*first, &bytes, visit, &mut shows)?;
            }
        }
        let (len, acknowledged) = (journal.len(), options.acknowledged);
        if owns && len < acknowledged {
            return Err(JournalError::Shortened { len, acknowledged });
        }
        journal.recovered.records = len;
        Ok(journal)
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
                    place: self.store.name(first).to_string(),
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
        self.put_group()
    }

    fn read(&self, range: Range<u64>, visit: &mut Visit<'_>) -> Result<(), JournalError> {
        index::read(&self.segments, range, visit, |segment, range, visit| {
            let fetch = |place: Range<u32>| match segment.sealed {
                true => self.store.get(segment.header.first, Some(place)),
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
            let mut found = match self.store.get(segment.header.first, None) {
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

    fn remove(self: Box<Self>) -> Result<(), JournalError> {
        if self.options.mode == Mode::Salvage {
            return Err(JournalError::ReadOnly);
        }
        let (firsts, _) = self.store.list()?;
        self.store.remove(&firsts)
    }
}

/// The objects below a prefix, through calls that block.
///
/// Futures run on a thread of their own, so that a caller inside another runtime does no harm.
#[derive(Debug)]
struct Stored {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    runtime: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Stored {
    fn start(store: Arc<dyn ObjectStore>, prefix: Path) -> Result<Self, JournalError> {
        let started = || {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            let handle = runtime.handle().clone();
            let (stop, stopped) = oneshot::channel();
            let run = move || drop(runtime.block_on(stopped));
            let thread = std::thread::Builder::new()
                .name("object-journal".to_owned())
                .spawn(run)?;
            Ok((handle, stop, thread))
        };
        let (runtime, stop, thread) =
            started().map_err(failing("starting", "the object storage client"))?;
        Ok(Self {
            store,
            prefix,
            runtime,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    fn name(&self, first: u64) -> Path {
        self.prefix.clone().join(format!("{first:020}"))
    }

    /// Waits for what `ask` makes of the store.
    fn wait<T: Send + 'static, F>(
        &self,
        doing: &'static str,
        place: &Path,
        ask: impl FnOnce(Arc<dyn ObjectStore>) -> F,
    ) -> Result<T, JournalError>
    where
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let (answer, answered) = mpsc::sync_channel(1);
        let future = ask(Arc::clone(&self.store));
        self.runtime.spawn(async move { answer.send(future.await) });
        let answer = answered.recv().map_err(io::Error::other);
        answer
            .and_then(|answer| Ok(answer?))
            .map_err(failing(doing, place.as_ref()))
    }

    /// The first indices of all objects, in order, and whether removal has begun.
    fn list(&self) -> Result<(Vec<u64>, bool), JournalError> {
        let prefix = self.prefix.clone();
        let names = self.wait("listing", &self.prefix, |store| async move {
            let names = store.list(Some(&prefix)).map_ok(|object| object.location);
            names.try_collect::<Vec<Path>>().await
        })?;
        let removed = names.contains(&self.prefix.clone().join(REMOVED));
        let first = |name: &Path| {
            name.filename()?
                .parse()
                .ok()
                .filter(|first| self.name(*first) == *name)
        };
        let mut firsts: Vec<u64> = names.iter().filter_map(first).collect();
        firsts.sort_unstable();
        Ok((firsts, removed))
    }

    fn get(&self, first: u64, range: Option<Range<u32>>) -> Result<Vec<u8>, JournalError> {
        let name = self.name(first);
        let range = range.map(|range| (u64::from(range.start)..u64::from(range.end)).into());
        self.wait("reading", &name.clone(), |store| async move {
            let options = GetOptions {
                range,
                ..GetOptions::default()
            };
            Ok(store
                .get_opts(&name, options)
                .await?
                .bytes()
                .await?
                .to_vec())
        })
    }

    fn get_all(&self, firsts: &[u64]) -> Result<Vec<Vec<u8>>, JournalError> {
        let names: Vec<Path> = firsts.iter().map(|first| self.name(*first)).collect();
        self.wait("reading", &self.prefix, |store| async move {
            let get = |name: Path| {
                let store = Arc::clone(&store);
                async move { Ok(store.get(&name).await?.bytes().await?.to_vec()) }
            };
            futures_util::stream::iter(names)
                .map(get)
                .buffered(GETS_AT_ONCE)
                .try_collect()
                .await
        })
    }

    /// Creates the object of the records from `first` on, or finds that another owner has.
    fn create(&self, first: u64, bytes: Vec<u8>) -> Result<(), JournalError> {
        let name = self.name(first);
        let is_ours = self.wait("creating", &name.clone(), |store| async move {
            // Shared, not copied: the payload is needed again only when the name is taken.
            let payload = PutPayload::from(bytes);
            match store
                .put_opts(&name, payload.clone(), PutMode::Create.into())
                .await
            {
                Ok(_) => Ok(true),
                // Maybe our own: the first answer was lost, the client tried again.
                Err(Error::AlreadyExists { .. }) => {
                    let there = store.get(&name).await?.bytes().await?;
                    Ok(payload.iter().flatten().eq(there.iter()))
                }
                Err(error) => Err(error),
            }
        })?;
        match is_ours {
            true => Ok(()),
            false => Err(JournalError::Fenced { index: first }),
        }
    }

    /// Removes all objects, in an order that a crash cannot turn into a shorter journal.
    fn remove(&self, firsts: &[u64]) -> Result<(), JournalError> {
        let marker = self.prefix.clone().join(REMOVED);
        let names: Vec<Path> = firsts.iter().map(|first| self.name(*first)).collect();
        self.wait("removing", &self.prefix, |store| async move {
            store
                .put(&marker, PutPayload::from_static(b"removed"))
                .await?;
            for name in names {
                match store.delete(&name).await {
                    Ok(()) | Err(Error::NotFound { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
            store.delete(&marker).await
        })
    }
}

impl Drop for Stored {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It ends as soon as it sees the sender gone; its panic would be its own report.
            let _ = thread.join();
        }
    }
}
