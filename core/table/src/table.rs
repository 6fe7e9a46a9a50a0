//! The table: own writes and others' records in, values out.
//!
//! ```text
//! write ─▶ clock ─▶ entries ─▶ whoever seals ─┐                       ┌─▶ get, exists, page, snapshot
//!            one committer at a time          ├─▶ memtable, visible ──┤
//! Applied ─▶ open ─▶ check ─▶ leases ─────────┘      │ freeze, flushed└─▶ look (watchers)
//!                                                    ▼
//!                                              runs, levels (the caller's)
//! ```
//!
//! Always true: what the table shows follows from the set of records applied, in whatever order their
//! chains were mixed; the changes of one record, and of one write, become visible together.

mod apply;
mod atomic;
mod flush;
mod hold;
mod page;
mod read;
mod write;

use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use bield_capsule::{Batch, Clock, Head, WriterId};
use bield_levels::{Cell, Content, OwnedCell, OwnedContent};
use zeroize::Zeroize;

pub use self::apply::Taken;
pub use self::atomic::{Handle, Swapped};
pub use self::flush::Frozen;
pub use self::hold::{Changed, Looked};
pub use self::read::{Found, Keys, Page, PageLimits, Snapshot};
pub use self::write::{Op, Written};
use crate::cut::{Chains, Cut};
use crate::key::in_bucket;
use crate::lease::Leases;
use crate::memtable::{Floor, Memtable, Placed};
use crate::watch::Watches;
use crate::{CLOCK_AHEAD, Cold, HybridClock, Most, TableEntry, TableError};

/// What a read shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consistency {
    /// Everything applied here.
    Eventual,
    /// Exactly what is in the newest cut that is here whole; for buckets whose epochs are kept.
    Epoch,
    /// Everything that counts anywhere; for keys that this table's writer holds.
    Linearizable,
}

/// How a table is kept.
#[derive(Clone, Debug)]
pub struct Options {
    /// Bytes of the memtable at which a flush is due; at twice as many, entries are refused.
    pub memtable_bytes: usize,
    /// How far ahead of the present a clock may be to be adopted.
    pub clock_ahead: Duration,
    /// Buckets that are read at epochs: of their keys all versions since the newest cut are kept.
    pub epochs: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            memtable_bytes: 32 << 20,
            clock_ahead: CLOCK_AHEAD,
            epochs: Vec::new(),
        }
    }
}

/// A key-value table over the records of one capsule. All calls are safe from several threads.
pub struct Table {
    writer: WriterId,
    options: Options,
    view: RwLock<View>,
    /// Commits up to this one are seen.
    visible: AtomicU64,
    /// The newest cut that is here whole.
    cut: RwLock<Arc<Cut>>,
    /// What live snapshots see: by commit, how many and which cut.
    snapshots: Mutex<BTreeMap<u64, (usize, Arc<Cut>)>>,
    /// How many there are: without any, a commit need not ask.
    snapshots_live: AtomicUsize,
    writing: Mutex<Writing>,
    watches: Watches,
}

/// Where a reader looks.
#[derive(Clone)]
struct View {
    active: Arc<Memtable>,
    frozen: Option<Arc<Memtable>>,
    cold: Arc<dyn Cold>,
    /// No cell of the cold side is newer.
    cold_clock: Clock,
}

/// What the one committer works with.
struct Writing {
    /// The view's: it changes under this lock only.
    active: Arc<Memtable>,
    clock: HybridClock,
    chains: Chains,
    leases: Leases,
    /// Own entries that were handed on, whose record is not known yet: how many, and the last clock.
    handed: VecDeque<(usize, Clock)>,
    /// Joins whose cut is not here whole.
    joins: VecDeque<(u64, Vec<(WriterId, u64)>)>,
    /// Cuts that are here whole, by epoch; and through where each chain is in the newest.
    cuts: VecDeque<(u64, Arc<Cut>)>,
    cut_seqs: BTreeMap<WriterId, u64>,
    /// The newest epoch that each writer acknowledged.
    acknowledged: BTreeMap<WriterId, u64>,
    /// Records up to here came with the cold side.
    covered: BTreeMap<WriterId, u64>,
    /// What the frozen memtable covers, and the cut it was frozen at.
    frozen: (Vec<(WriterId, u64)>, Arc<Cut>),
    /// The newest clock of a change without a lease.
    free: Clock,
    /// Memory to reuse.
    batch: Batch,
    payload: Vec<u8>,
}

impl Drop for Writing {
    fn drop(&mut self) {
        self.payload.zeroize();
    }
}

impl Table {
    /// A table that `writer` writes to, over what was flushed: `covered` are the heads up to which every
    /// entry is in `cold`. `leases` are those of a table that asked to be rebuilt, else none. A writer that
    /// goes on with a chain whose newest entries are in `cold` alone may be given a clock twice, if the host
    /// set the time back: start each time with a fresh writer.
    ///
    /// # Errors
    /// The cold side cannot be read.
    pub fn open(
        writer: WriterId,
        options: Options,
        cold: Arc<dyn Cold>,
        covered: &[Head],
        leases: Leases,
    ) -> Result<Self, TableError> {
        let cold_clock = cold.clock();
        let active = Arc::new(Memtable::new());
        let mut writing = Writing {
            active: Arc::clone(&active),
            clock: HybridClock::new(options.clock_ahead),
            chains: Chains::default(),
            leases: leases.unanswered(),
            handed: VecDeque::new(),
            joins: VecDeque::new(),
            cuts: VecDeque::new(),
            cut_seqs: BTreeMap::new(),
            acknowledged: BTreeMap::new(),
            covered: covered.iter().map(|head| (head.writer, head.seq)).collect(),
            frozen: (Vec::new(), Arc::default()),
            free: Clock::default(),
            batch: Batch::new(),
            payload: Vec::new(),
        };
        for head in covered {
            writing.chains.extend(head.writer, head.seq, None);
        }
        writing.clock.resume(cold_clock);
        let view = View {
            active,
            frozen: None,
            cold,
            cold_clock,
        };
        read_leases(&view, &mut writing.leases)?;
        Ok(Self {
            writer,
            options,
            view: RwLock::new(view),
            visible: AtomicU64::new(0),
            cut: RwLock::default(),
            snapshots: Mutex::default(),
            snapshots_live: AtomicUsize::new(0),
            writing: Mutex::new(writing),
            watches: Watches::default(),
        })
    }

    /// Whose entries this table makes.
    #[must_use]
    pub const fn writer(&self) -> WriterId {
        self.writer
    }

    /// The newest record applied of every chain, ascending by writer.
    #[must_use]
    pub fn applied(&self) -> Vec<(WriterId, u64)> {
        self.writing().chains.all().collect()
    }

    /// The leases it knows, for a table that is opened in its place.
    #[must_use]
    pub fn leases(&self) -> Leases {
        self.writing().leases.clone()
    }

    /// The newest clock given out or adopted.
    #[must_use]
    pub fn clock(&self) -> Clock {
        self.writing().clock.last()
    }

    /// Bounds own clocks by the end of the current epoch, as it was signed.
    pub fn epoch_ends(&self, end: bield_envelope::Time) {
        self.writing().clock.epoch_ends(end);
    }

    fn writing(&self) -> MutexGuard<'_, Writing> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn view(&self) -> View {
        self.view
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn current_cut(&self) -> Arc<Cut> {
        self.cut
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn keeps_epochs(&self, key: &[u8]) -> bool {
        let mut buckets = self.options.epochs.iter();
        buckets.any(|bucket| in_bucket(key, bucket))
    }

    /// Whether entries are refused until a flush ends.
    fn is_full(&self, writing: &Writing) -> bool {
        writing.active.bytes() >= self.options.memtable_bytes.saturating_mul(2)
    }

    /// Begins a commit into the active memtable, under the committer's lock: what its cells are inserted with.
    fn commit<'t>(&'t self, active: &'t Memtable) -> Commit<'t> {
        let number = self.visible.load(Ordering::Relaxed) + 1;
        let oldest = self.oldest_snapshot();
        let alone = oldest.is_none();
        let (seen, cut) = match oldest {
            Some((number, cut)) => (number, Some(cut)),
            None => (number - 1, None),
        };
        let epochs = !self.options.epochs.is_empty();
        Commit {
            table: self,
            number,
            seen,
            alone,
            cut: epochs.then(|| cut.unwrap_or_else(|| self.current_cut())),
            active,
            outranked: 0,
        }
    }

    /// The commit that the oldest live snapshot sees, and its cut. None begins while the committer's lock is held.
    fn oldest_snapshot(&self) -> Option<(u64, Arc<Cut>)> {
        if self.snapshots_live.load(Ordering::Acquire) == 0 {
            return None;
        }
        let snapshots = self
            .snapshots
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let (number, (_, cut)) = snapshots.first_key_value()?;
        Some((*number, Arc::clone(cut)))
    }
}

/// Leases are cells of the table's own as well, so that they outlive flushes.
fn read_leases(view: &View, leases: &mut Leases) -> Result<(), TableError> {
    let (mut from, end) = (LEASE_KEYS.to_vec(), [LEASE_KEYS[0] + 1]);
    loop {
        let part = view
            .cold
            .page(Bound::Excluded(&from), Bound::Excluded(&end), LEASE_PART)?;
        for cell in &part.cells {
            let OwnedContent::Value { bytes, .. } = &cell.content else {
                continue;
            };
            let Some((seq, payload)) = bytes.split_first_chunk::<8>() else {
                continue;
            };
            if let Ok(Some(TableEntry {
                action: crate::Action::Lease(lease),
                ..
            })) = TableEntry::decode(payload)
            {
                leases.add(cell.version, u64::from_be_bytes(*seq), &lease);
            }
        }
        match part.end() {
            Some(last) => from = last.to_vec(),
            None => return Ok(()),
        }
    }
}

/// The cell that a lease is.
fn lease_cell(version: crate::Version, token: u64, seq: u64, payload: &[u8]) -> OwnedCell {
    let mut key = LEASE_KEYS.to_vec();
    key.extend_from_slice(&token.to_be_bytes());
    key.extend_from_slice(version.writer.as_bytes());
    let bytes = [&seq.to_be_bytes(), payload].concat();
    Cell {
        key: &key,
        version,
        content: Content::Value {
            bytes: &bytes,
            expires: None,
        },
    }
    .to_owned()
}

/// The holder whose lease the cell of this key is; `None` for any other key.
#[must_use]
pub fn lease_holder(key: &[u8]) -> Option<WriterId> {
    let writer = key.strip_prefix(LEASE_KEYS)?.get(size_of::<u64>()..)?;
    Some(WriterId::from_bytes(writer.try_into().ok()?))
}

/// Cells that become visible together.
struct Commit<'t> {
    table: &'t Table,
    number: u64,
    /// The oldest commit that somebody may look back to.
    seen: u64,
    /// Nobody has a snapshot.
    alone: bool,
    /// Where some buckets keep epochs.
    cut: Option<Arc<Cut>>,
    active: &'t Memtable,
    outranked: usize,
}

impl Commit<'_> {
    /// Inserts one of several cells.
    fn insert(&mut self, cell: &Cell<'_>) {
        self.place(cell, self.seen, || ());
    }

    /// Inserts the only cell, and ends the commit.
    fn insert_only(mut self, cell: &Cell<'_>) -> usize {
        // Nobody looks between insertion and publication: the version before can go at once.
        let seen = if self.alone { self.number } else { self.seen };
        let (visible, number) = (&self.table.visible, self.number);
        self.place(cell, seen, || visible.store(number, Ordering::Release));
        self.outranked
    }

    fn insert_range(&mut self, delete: bield_levels::RangeDelete) {
        self.table.watches.changed_range(&delete.from, &delete.to);
        self.active.insert_range(delete, self.number);
    }

    /// Shows everything.
    fn end(self) -> usize {
        self.table.visible.store(self.number, Ordering::Release);
        self.outranked
    }

    fn place(&mut self, cell: &Cell<'_>, seen: u64, publish: impl FnOnce()) {
        let floor = Floor {
            number: seen,
            cut: self
                .cut
                .as_deref()
                .filter(|_| self.table.keeps_epochs(cell.key)),
        };
        match self.active.insert(cell, self.number, &floor, publish) {
            Placed::Newest if self.table.watches.any() => self.table.watches.changed(cell.key),
            Placed::Outranked => self.outranked += 1,
            Placed::Newest | Placed::Known => {}
        }
    }
}

/// Keys of leases: `0x00 ‖ "lease" ‖ token ‖ holder`.
const LEASE_KEYS: &[u8] = b"\0lease";
/// Where they lie: from the first key to the second, exclusive.
pub const LEASE_RANGE: (&[u8], &[u8]) = (LEASE_KEYS, b"\0leasf");
const LEASE_PART: Most = Most {
    cells: 256,
    bytes: 1 << 20,
    values: true,
};
