//! Reading: one key, a page of a range, and both at a moment that is held.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use bield_capsule::Clock;
use bield_envelope::{Time, Wiped};
use bield_levels::{Cell, Content, OwnedCell, OwnedContent};

use super::{Consistency, Table, View};
use crate::cut::Cut;
use crate::key::is_range;
use crate::memtable::Sight;
use crate::{TableError, Version};

/// A value and the write it is from.
pub struct Found {
    /// The value; wiped on drop.
    pub value: Wiped,
    /// The write.
    pub version: Version,
    /// When it ends.
    pub expires: Option<Time>,
}

/// How much a page has at most.
#[derive(Clone, Copy, Debug)]
pub struct PageLimits {
    /// Keys; at least one is given.
    pub keys: usize,
    /// Bytes of keys and values; the one that crosses it is the last.
    pub bytes: usize,
}

/// A part of a range.
pub struct Page {
    /// Full keys and values, ascending.
    pub entries: Vec<(Vec<u8>, Found)>,
    /// Go on after this key; `None` when this was the last page. Whoever hands it out seals it: it is a
    /// key.
    pub after: Option<Vec<u8>>,
}

/// Keys of a range without their values.
pub struct Keys {
    /// Full keys, ascending.
    pub keys: Vec<Vec<u8>>,
    /// As [`Page::after`].
    pub after: Option<Vec<u8>>,
}

/// Tells what is seen, while the key that is read cannot change.
type SightOf<'a> = dyn Fn(&mut dyn FnMut(Sight<'_>)) + 'a;

/// What is seen of a table.
#[derive(Clone)]
pub(super) enum At {
    /// The present; at the newest cut when `true`.
    Live(bool),
    /// A commit, and a cut.
    Held(u64, Option<Arc<Cut>>),
}

impl Table {
    /// The value of a full key.
    ///
    /// # Errors
    /// The consistency is not to be had for this key; the cold side cannot be read.
    pub fn get(
        &self,
        key: &[u8],
        consistency: Consistency,
        now: Time,
    ) -> Result<Option<Found>, TableError> {
        self.read(key, consistency, now, |cell| {
            cell.and_then(|cell| found(&cell))
        })
    }

    /// Whether a full key has a value.
    ///
    /// # Errors
    /// As [`Table::get`].
    pub fn exists(
        &self,
        key: &[u8],
        consistency: Consistency,
        now: Time,
    ) -> Result<bool, TableError> {
        self.read(key, consistency, now, |cell| cell.is_some())
    }

    /// Gives the value of a full key where it lies, without a copy. `give` runs while the key cannot
    /// change: it must be short, and must not call the table.
    ///
    /// # Errors
    /// As [`Table::get`].
    pub fn read<R>(
        &self,
        key: &[u8],
        consistency: Consistency,
        now: Time,
        give: impl FnOnce(Option<Cell<'_>>) -> R,
    ) -> Result<R, TableError> {
        let epoch = self.allowed(consistency, key, None)?;
        let give = |cell: Option<Cell<'_>>| give(cell.filter(|cell| cell.value_at(now).is_some()));
        let view = self.view.read().unwrap_or_else(PoisonError::into_inner);
        // Give is called once: here when the memtable alone decides, else below.
        let (mut give, mut seen) = (Some(give), (None, None));
        let decided = view.active.read(
            key,
            |then| self.sight(&At::Live(epoch), then),
            |cell, sight| {
                let deleted = view.active.deleted(key, sight);
                let newest = cell.is_some_and(|cell| cell.version.clock > view.older_clock());
                if newest && deleted.is_none() {
                    return give.take().map(|give| give(cell));
                }
                seen = (cell.map(|cell| cell.to_owned()), deleted);
                None
            },
        );
        if let Some(result) = decided.flatten() {
            return Ok(result);
        }
        let copy = view.clone();
        drop(view);
        let winner = if epoch {
            // Several places at one cut: the newest may be another one for each.
            let snapshot = self.snapshot(true)?;
            let at = snapshot.at();
            let sight = |then: &mut dyn FnMut(Sight<'_>)| self.sight(&at, then);
            snapshot.view.latest(key, &sight)?
        } else {
            let sight = |then: &mut dyn FnMut(Sight<'_>)| self.sight(&At::Live(false), then);
            copy.winner(key, seen.0, seen.1, &sight)?
        };
        let give = give.take().expect("it was not called yet");
        Ok(give(winner.as_ref().map(OwnedCell::as_cell)))
    }

    /// The winner of a key, a deletion or an expired value as it is.
    pub(super) fn latest(&self, key: &[u8], at: &At) -> Result<Option<OwnedCell>, TableError> {
        self.view().latest(key, &|then| self.sight(at, then))
    }

    /// The first values of a range of full keys within one bucket, after `after` where that is given.
    ///
    /// # Errors
    /// As [`Table::get`]; a range that is none.
    pub fn page(
        &self,
        range: (&[u8], &[u8]),
        after: Option<&[u8]>,
        limits: PageLimits,
        consistency: Consistency,
        now: Time,
    ) -> Result<Page, TableError> {
        check(range, after)?;
        let epoch = self.allowed(consistency, range.0, Some(range.1))?;
        self.page_of(
            &self.view(),
            &At::Live(epoch),
            range,
            after,
            (limits, true),
            now,
        )
    }

    /// As [`Table::page`], without values: they count for nothing among [`PageLimits::bytes`].
    ///
    /// # Errors
    /// As [`Table::page`].
    pub fn keys(
        &self,
        range: (&[u8], &[u8]),
        after: Option<&[u8]>,
        limits: PageLimits,
        consistency: Consistency,
        now: Time,
    ) -> Result<Keys, TableError> {
        check(range, after)?;
        let epoch = self.allowed(consistency, range.0, Some(range.1))?;
        let page = self.page_of(
            &self.view(),
            &At::Live(epoch),
            range,
            after,
            (limits, false),
            now,
        )?;
        Ok(Keys {
            keys: page.entries.into_iter().map(|(key, _)| key).collect(),
            after: page.after,
        })
    }

    /// Holds what is seen now: reads of it agree with each other whatever is written meanwhile. Memory
    /// that is overwritten stays until it is dropped.
    ///
    /// # Errors
    /// None of the table's buckets keeps epochs, and one was asked for.
    pub fn snapshot(&self, epoch: bool) -> Result<Snapshot<'_>, TableError> {
        if epoch && self.options.epochs.is_empty() {
            return Err(TableError::NoEpochs);
        }
        let writing = self.writing(); // no commit is under way
        let (number, cut) = (self.visible.load(Ordering::Acquire), self.current_cut());
        let mut snapshots = self
            .snapshots
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        snapshots.entry(number).or_insert((0, cut.clone())).0 += 1;
        drop(snapshots);
        self.snapshots_live.fetch_add(1, Ordering::Release);
        drop(writing);
        Ok(Snapshot {
            table: self,
            view: self.view(),
            number,
            cut: epoch.then_some(cut),
        })
    }

    /// Whether a read may be had so, and whether at the newest cut.
    fn allowed(
        &self,
        consistency: Consistency,
        from: &[u8],
        to: Option<&[u8]>,
    ) -> Result<bool, TableError> {
        match consistency {
            Consistency::Eventual => Ok(false),
            Consistency::Epoch if self.keeps_epochs(from) => Ok(true),
            Consistency::Epoch => Err(TableError::NoEpochs),
            Consistency::Linearizable => {
                self.writing().held(&self.writer, from, to).map(|()| false)
            }
        }
    }

    pub(super) fn sight(&self, at: &At, then: &mut dyn FnMut(Sight<'_>)) {
        match at {
            At::Live(false) => {
                let number = self.visible.load(Ordering::Acquire);
                then(Sight { number, cut: None });
            }
            At::Live(true) => {
                let cut = self.cut.read().unwrap_or_else(PoisonError::into_inner);
                let number = self.visible.load(Ordering::Acquire);
                let cut = Some(&**cut);
                then(Sight { number, cut });
            }
            At::Held(number, cut) => then(Sight {
                number: *number,
                cut: cut.as_deref(),
            }),
        }
    }
}

impl View {
    /// No cell behind the active memtable is newer.
    fn older_clock(&self) -> Clock {
        let frozen = self.frozen.as_ref().map(|frozen| frozen.clock());
        frozen.unwrap_or_default().max(self.cold_clock)
    }

    /// The winner of a key.
    fn latest(&self, key: &[u8], sight: &SightOf<'_>) -> Result<Option<OwnedCell>, TableError> {
        let seen = self.active.read(key, sight, |cell, sight| {
            (
                cell.map(|cell| cell.to_owned()),
                self.active.deleted(key, sight),
            )
        });
        let (cell, deleted) = seen.unwrap_or_default();
        self.winner(key, cell, deleted, sight)
    }

    /// The winner among all that lies behind what the active memtable has.
    fn winner(
        &self,
        key: &[u8],
        mut cell: Option<OwnedCell>,
        mut deleted: Option<Version>,
        sight: &SightOf<'_>,
    ) -> Result<Option<OwnedCell>, TableError> {
        if let Some(frozen) = &self.frozen {
            let seen = frozen.read(key, sight, |cell, sight| {
                (cell.map(|cell| cell.to_owned()), frozen.deleted(key, sight))
            });
            let (other, over) = seen.unwrap_or_default();
            cell = newer(cell, other);
            deleted = deleted.max(over);
        }
        if cell
            .as_ref()
            .is_none_or(|cell| cell.version.clock <= self.cold_clock)
        {
            cell = newer(cell, self.cold.newest(key)?);
        }
        let older = |deleted: &Version| cell.as_ref().is_none_or(|cell| cell.version < *deleted);
        Ok(match deleted.filter(older) {
            Some(version) => Some(OwnedCell {
                key: key.to_vec(),
                version,
                content: OwnedContent::Deleted,
            }),
            None => cell,
        })
    }
}

/// What a table showed at a moment.
pub struct Snapshot<'t> {
    table: &'t Table,
    view: View,
    number: u64,
    cut: Option<Arc<Cut>>,
}

impl Snapshot<'_> {
    /// The value of a full key.
    ///
    /// # Errors
    /// As [`Table::get`].
    pub fn get(&self, key: &[u8], now: Time) -> Result<Option<Found>, TableError> {
        let at = self.at();
        let winner = self.view.latest(key, &|then| self.table.sight(&at, then))?;
        let found = winner.and_then(|cell| found(&cell.as_cell()));
        Ok(found.filter(|found| !found.is_over(now)))
    }

    /// The first values of a range, see [`Table::page`].
    ///
    /// # Errors
    /// As [`Table::page`].
    pub fn page(
        &self,
        range: (&[u8], &[u8]),
        after: Option<&[u8]>,
        limits: PageLimits,
        now: Time,
    ) -> Result<Page, TableError> {
        check(range, after)?;
        self.table
            .page_of(&self.view, &self.at(), range, after, (limits, true), now)
    }

    fn at(&self) -> At {
        At::Held(self.number, self.cut.clone())
    }
}

impl Drop for Snapshot<'_> {
    fn drop(&mut self) {
        let snapshots = &self.table.snapshots;
        let mut snapshots = snapshots.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(live) = snapshots.get_mut(&self.number) {
            live.0 -= 1;
            if live.0 == 0 {
                snapshots.remove(&self.number);
            }
        }
        drop(snapshots);
        self.table.snapshots_live.fetch_sub(1, Ordering::Release);
    }
}

impl Found {
    pub(super) fn is_over(&self, now: Time) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }
}

pub(super) fn found(cell: &Cell<'_>) -> Option<Found> {
    match cell.content {
        Content::Value { bytes, expires } => Some(Found {
            value: Wiped::from(bytes.to_vec()),
            version: cell.version,
            expires,
        }),
        Content::Deleted => None,
    }
}

pub(super) fn newer(one: Option<OwnedCell>, two: Option<OwnedCell>) -> Option<OwnedCell> {
    match (one, two) {
        (Some(one), Some(two)) => Some(if two.as_cell().replaces(&one.as_cell()) {
            two
        } else {
            one
        }),
        (one, two) => one.or(two),
    }
}

fn check((from, to): (&[u8], &[u8]), after: Option<&[u8]>) -> Result<(), TableError> {
    let within = |after: &[u8]| from <= after && after < to;
    if is_range(from, to) && after.is_none_or(within) {
        return Ok(());
    }
    Err(TableError::Range)
}
