//! Copies of groups: opening gets cheap, and nothing else changes, wherever it is cut short.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use futures_util::TryStreamExt as _;
use futures_util::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt as _, PutMode, PutMultipartOptions, PutOptions, PutPayload,
    PutResult, Result,
};

use super::objects::{now, open_at, prefix};
use super::*;
use crate::storage::{ObjectStoreError, Objects};

/// How a request goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    /// It is never done.
    Before,
    /// It is done, and the answer is lost.
    Behind,
    /// As `Behind`, and all later ones work again.
    Once,
    /// None: but what is to be created only if absent is overwritten.
    Unfenced,
}

/// A store of which the first requests work, and then none.
#[derive(Debug)]
struct Cutting {
    inner: Arc<InMemory>,
    /// Requests still to be served; `usize::MAX` for all.
    left: AtomicUsize,
    cut: Cut,
    /// How many of each kind were served.
    served: Mutex<BTreeMap<&'static str, usize>>,
}

impl Cutting {
    fn over(inner: &Arc<InMemory>, left: usize, cut: Cut) -> Arc<Self> {
        Arc::new(Self {
            inner: Arc::clone(inner),
            left: left.into(),
            cut,
            served: Mutex::default(),
        })
    }

    /// Is this request done, and is it answered?
    fn serve(&self, kind: &'static str) -> (bool, bool) {
        let take = |left: usize| match left {
            usize::MAX => Some(left),
            _ => left.checked_sub(1),
        };
        let answered = self
            .left
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, take)
            .is_ok();
        if answered {
            *self.served.lock().unwrap().entry(kind).or_default() += 1;
        }
        if !answered && self.cut == Cut::Once {
            self.left.store(usize::MAX, Ordering::SeqCst);
        }
        (answered || self.cut != Cut::Before, answered)
    }

    fn served(&self, kind: &str) -> usize {
        let served = self.served.lock().unwrap();
        served.get(kind).copied().unwrap_or_default()
    }
}

fn cut() -> Error {
    Error::Generic {
        store: "cutting",
        source: "the connection is gone".into(),
    }
}

impl fmt::Display for Cutting {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "a store that is cut off")
    }
}

#[async_trait::async_trait]
impl ObjectStore for Cutting {
    async fn put_opts(
        &self,
        name: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        let (done, answered) = self.serve("put");
        let put = match done {
            true if self.cut == Cut::Unfenced => self.inner.put(name, payload).await,
            true => self.inner.put_opts(name, payload, options).await,
            false => Err(cut()),
        };
        if answered { put } else { Err(cut()) }
    }

    async fn put_multipart_opts(
        &self,
        _: &Path,
        _: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        Err(cut())
    }

    async fn get_opts(&self, name: &Path, options: GetOptions) -> Result<GetResult> {
        match self.serve("get") {
            (_, true) => self.inner.get_opts(name, options).await,
            _ => Err(cut()),
        }
    }

    fn delete_stream(
        &self,
        names: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        match self.serve("delete") {
            (_, true) => self.inner.delete_stream(names),
            _ => Box::pin(futures_util::stream::once(async { Err(cut()) })),
        }
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.serve("list") {
            (_, true) => self.inner.list(prefix),
            _ => Box::pin(futures_util::stream::once(async { Err(cut()) })),
        }
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.serve("list") {
            (_, true) => self.inner.list_with_offset(prefix, offset),
            _ => Box::pin(futures_util::stream::once(async { Err(cut()) })),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        match self.serve("list") {
            (_, true) => self.inner.list_with_delimiter(prefix).await,
            _ => Err(cut()),
        }
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

fn dynamic(store: &Arc<impl ObjectStore>) -> Arc<dyn ObjectStore> {
    Arc::clone(store) as Arc<dyn ObjectStore>
}

fn copies(store: &Arc<InMemory>) -> Vec<Path> {
    let prefix = prefix().join("merged");
    let names = store.list(Some(&prefix)).map_ok(|found| found.location);
    let mut names: Vec<Path> = now(names.try_collect()).unwrap();
    names.sort();
    names
}

/// Appends records as groups of one each, and waits for the copies.
fn write(store: &Arc<InMemory>, groups: Range<u64>) {
    let (mut journal, _) = open_at(&dynamic(store), LARGE).unwrap();
    for n in groups {
        journal.append(&[&record(n)]).unwrap();
        journal.sync().unwrap();
    }
    journal.settle();
}

#[test]
fn many_groups_open_with_few_requests() {
    let store = Arc::new(InMemory::new());
    write(&store, 0..1100);
    write(&store, 1100..1700);
    assert_eq!(copies(&store).len(), 3);
    let counting = Cutting::over(&store, usize::MAX, Cut::Before);
    let (journal, shown) = open_at(&dynamic(&counting), LARGE).unwrap();
    assert_eq!(shown, records(0..1700));
    let groups_behind = 1700 - 3 * 512;
    // One more asks whether removal has begun.
    assert_eq!(counting.served("get"), 1 + 3 + groups_behind);
    assert_eq!(counting.served("list"), 2);
    assert_eq!(replayed(&journal), records(0..1700));
    assert_eq!(journal.record(511).unwrap(), record(511));
    assert_eq!(journal.record(512).unwrap(), record(512));
    let intact = journal.scrub().unwrap();
    assert_eq!((intact.intact, intact.damage), (1700, vec![]));
    let known = Options {
        known: 700,
        ..LARGE
    };
    assert_eq!(
        open_at(&dynamic(&store), known).unwrap().1,
        records(700..1700)
    );
}

#[test]
fn a_copy_frees_no_name_so_the_sleeper_is_fenced() {
    let store = Arc::new(InMemory::new());
    write(&store, 0..10);
    let (mut sleeper, _) = open_at(&dynamic(&store), LARGE).unwrap();
    write(&store, 10..600);
    assert_eq!(copies(&store).len(), 1);
    sleeper.append(&[b"other ten"]).unwrap();
    assert!(matches!(
        sleeper.sync(),
        Err(JournalError::Fenced { index: 10 })
    ));
    assert_eq!(open_at(&dynamic(&store), LARGE).unwrap().1, records(0..600));
}

#[test]
fn wherever_copying_is_cut_everything_is_there() {
    let home = Arc::new(InMemory::new());
    {
        // Groups as a store without copies left them: opening is what copies.
        let (mut journal, _) = open_at(&dynamic(&home), LARGE).unwrap();
        for n in 0..511 {
            journal.append(&[&record(n)]).unwrap();
            journal.sync().unwrap();
        }
    }
    let whole = Cutting::over(&home, usize::MAX, Cut::Before);
    drop(open_at(&dynamic(&whole), LARGE).unwrap());
    let opening = whole.served("get") + whole.served("list");
    for cut in [Cut::Before, Cut::Behind] {
        // The group that makes a copy due, 512 groups read, the copy written.
        for left in (opening..opening + 514)
            .step_by(7)
            .chain(opening + 510..=opening + 516)
        {
            let store = Arc::new(now(home.fork_contents()));
            let cutting = Cutting::over(&store, left, cut);
            let (mut journal, shown) = open_at(&dynamic(&cutting), LARGE).unwrap();
            assert_eq!(shown, records(0..511));
            journal.append(&[&record(511)]).unwrap();
            let acknowledged = journal.sync().is_ok();
            journal.settle();
            drop(journal);
            let (mut journal, shown) = open_at(&dynamic(&store), LARGE).unwrap();
            let len = shown.len() as u64;
            assert!(
                len == 512 || (!acknowledged && len == 511),
                "{cut:?} {left}: {len}"
            );
            assert_eq!(shown, records(0..len));
            journal.append(&[&record(len)]).unwrap();
            journal.sync().unwrap();
            journal.settle();
            assert_eq!(copies(&store).len(), 1, "{cut:?} {left}");
            let (_, shown) = open_at(&dynamic(&store), LARGE).unwrap();
            assert_eq!(shown, records(0..len + 1));
        }
    }
}

/// A copy of a whole store, as `InMemory` has it.
trait ForkContents {
    fn fork_contents(&self) -> impl Future<Output = InMemory>;
}

impl ForkContents for InMemory {
    async fn fork_contents(&self) -> InMemory {
        let fork = InMemory::new();
        let names: Vec<_> = self.list(None).try_collect().await.unwrap();
        for found in names {
            let bytes = self
                .get(&found.location)
                .await
                .unwrap()
                .bytes()
                .await
                .unwrap();
            fork.put(&found.location, bytes.into()).await.unwrap();
        }
        fork
    }
}

#[test]
fn a_damaged_copy_is_replaced_from_its_groups() {
    let store = Arc::new(InMemory::new());
    write(&store, 0..1030);
    let before = copies(&store);
    assert_eq!(before.len(), 2);
    let whole = now(async { store.get(&before[0]).await.unwrap().bytes().await.unwrap() });
    for at in [
        0,
        7,
        40,
        60,
        70,
        85,
        whole.len() / 2,
        whole.len() - 30,
        whole.len() - 1,
    ] {
        let mut flipped = whole.to_vec();
        flipped[at] ^= 4;
        for bad in [flipped, whole[..at].to_vec()] {
            now(store.put(&before[0], bad.into())).unwrap();
            let (mut journal, shown) = open_at(&dynamic(&store), LARGE).unwrap();
            assert_eq!(shown, records(0..1030), "byte {at}");
            assert_eq!(replayed(&journal), records(0..1030), "byte {at}");
            journal.settle();
        }
    }
}

#[test]
fn copies_of_two_owners_that_overlap_are_read_as_one_journal() {
    let store = Arc::new(InMemory::new());
    write(&store, 0..100);
    let make = |groups: Range<u64>| {
        let header = bield_capsule::segment::SegmentHeader {
            capsule: CAPSULE,
            segment: groups.end,
            first: groups.start,
            salt: [3; 8],
        };
        let mut bytes = header.encode().to_vec();
        let mut offsets = Vec::new();
        for n in groups.clone() {
            offsets.push(bytes.len() as u32);
            bytes.extend(header.frame_head(offsets.len() as u32 - 1, 0, &record(n)));
            bytes.extend(record(n));
        }
        let end = bytes.len() as u32;
        bytes.extend(header.seal(&offsets, end));
        let name = format!("{:020}-{:020}", groups.start, groups.end);
        let name = prefix().join("merged").join(name);
        now(store.put_opts(&name, bytes.into(), PutMode::Create.into())).unwrap();
    };
    for groups in [0..20, 0..40, 30..60, 70..80] {
        make(groups);
    }
    let counting = Cutting::over(&store, usize::MAX, Cut::Before);
    let (journal, shown) = open_at(&dynamic(&counting), LARGE).unwrap();
    assert_eq!(shown, records(0..100));
    // Is it removed; 0..40, 30..60, 70..80; a group each for 60..70 and 80..100.
    assert_eq!(counting.served("get"), 1 + 3 + 30);
    assert_eq!(replayed(&journal), records(0..100));
    for index in 0..100 {
        assert_eq!(journal.record(index).unwrap(), record(index));
        let bytes = journal.record_bytes(index);
        assert_eq!(bytes, Some(record(index).len()));
    }
}

#[test]
fn removal_leaves_neither_groups_nor_copies() {
    let store = Arc::new(InMemory::new());
    write(&store, 0..600);
    let (journal, _) = open_at(&dynamic(&store), LARGE).unwrap();
    Box::new(journal).remove().unwrap();
    let left: Vec<_> = now(store.list(None).try_collect()).unwrap();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn an_answer_that_is_lost_is_no_other_owner() {
    let store = Arc::new(InMemory::new());
    let empty = Cutting::over(&store, usize::MAX, Cut::Before);
    drop(open_at(&dynamic(&empty), LARGE).unwrap());
    let opening = empty.served("get") + empty.served("list");
    let losing = Cutting::over(&store, opening, Cut::Once);
    let (mut journal, _) = open_at(&dynamic(&losing), LARGE).unwrap();
    for n in 0..3 {
        journal.append(&[&record(n)]).unwrap();
        journal.sync().unwrap();
    }
    // The first was sent again, was taken already, and was read to see by whom.
    assert_eq!(losing.served("put"), 3);
    assert_eq!(losing.served("get"), empty.served("get") + 1);
    assert_eq!(open_at(&dynamic(&store), LARGE).unwrap().1, records(0..3));
}

#[test]
fn a_store_that_overwrites_what_is_there_is_refused_before_it_is_used() {
    let store = Arc::new(InMemory::new());
    for (cut, fences) in [(Cut::Before, true), (Cut::Unfenced, false)] {
        let probed = dynamic(&Cutting::over(&store, usize::MAX, cut));
        let objects = Objects::new(probed, prefix()).unwrap();
        match objects.probe("s3://bucket") {
            Ok(()) => assert!(fences),
            Err(error) => {
                assert!(!fences && matches!(error, ObjectStoreError::Unfenced { .. }));
                assert!(error.to_string().contains("s3://bucket"));
            }
        }
        let left: Vec<_> = now(store.list(None).try_collect()).unwrap();
        assert!(left.is_empty(), "the probe cleans up: {left:?}");
    }
}
