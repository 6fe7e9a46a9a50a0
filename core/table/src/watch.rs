//! Keys that changed, for whoever asked to know (`spec/07 §8`).
//!
//! Always true: a watcher learns of every key of its range that changed, at least once; of a key that
//! changes often it learns once per look, with the newest version, so versions of a key never go back;
//! a watcher that looks too seldom is told that it missed some, and must read its range again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::TableError;

/// Most watchers of a table: each is asked at every change.
pub const WATCHERS_MAX: usize = 64;

/// Most keys that wait for a watcher's look: 1 MiB at the longest.
pub const WATCHED_KEYS_MAX: usize = 1024;

/// A watcher of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WatcherId(u64);

/// What a watcher learns at a look, before its keys are read.
pub(crate) struct Look {
    pub(crate) keys: BTreeSet<Vec<u8>>,
    pub(crate) missed: bool,
}

#[derive(Default)]
pub(crate) struct Watches {
    watchers: Mutex<(u64, BTreeMap<u64, Watcher>)>,
    count: AtomicUsize,
}

struct Watcher {
    from: Vec<u8>,
    to: Vec<u8>,
    keys: BTreeSet<Vec<u8>>,
    missed: bool,
}

impl Watches {
    pub(crate) fn begin(&self, from: &[u8], to: &[u8]) -> Result<WatcherId, TableError> {
        let mut watchers = self.lock();
        if watchers.1.len() >= WATCHERS_MAX {
            return Err(TableError::Watchers { max: WATCHERS_MAX });
        }
        watchers.0 += 1;
        let id = watchers.0;
        let watcher = Watcher {
            from: from.to_vec(),
            to: to.to_vec(),
            keys: BTreeSet::new(),
            missed: false,
        };
        watchers.1.insert(id, watcher);
        self.count.store(watchers.1.len(), Ordering::Release);
        Ok(WatcherId(id))
    }

    pub(crate) fn end(&self, id: WatcherId) {
        let mut watchers = self.lock();
        watchers.1.remove(&id.0);
        self.count.store(watchers.1.len(), Ordering::Release);
    }

    pub(crate) fn any(&self) -> bool {
        self.count.load(Ordering::Acquire) > 0
    }

    pub(crate) fn changed(&self, key: &[u8]) {
        for watcher in self.lock().1.values_mut() {
            if *watcher.from <= *key && *key < *watcher.to && !watcher.keys.contains(key) {
                if watcher.keys.len() < WATCHED_KEYS_MAX {
                    watcher.keys.insert(key.to_vec());
                } else {
                    watcher.missed = true;
                }
            }
        }
    }

    /// A range changed: which keys are in it is not known.
    pub(crate) fn changed_range(&self, from: &[u8], to: &[u8]) {
        for watcher in self.lock().1.values_mut() {
            watcher.missed |= *watcher.from < *to && *from < *watcher.to;
        }
    }

    pub(crate) fn look(&self, id: WatcherId) -> Result<Look, TableError> {
        let mut watchers = self.lock();
        let watcher = watchers.1.get_mut(&id.0).ok_or(TableError::NoWatcher)?;
        Ok(Look {
            keys: core::mem::take(&mut watcher.keys),
            missed: core::mem::take(&mut watcher.missed),
        })
    }

    fn lock(&self) -> MutexGuard<'_, (u64, BTreeMap<u64, Watcher>)> {
        self.watchers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
