//! The second tier: a model that one engine opened at once is opened by the better one, while the first answers.
//!
//! ```text
//! cold ─▶ first engine, golden pairs ─▶ answer ─▶ answer ─▶ answer ──▶ answer ─▶ …
//!                     └─▶ package again ─▶ chosen engine ─▶ golden pairs ─┘ new runs are here; the first copy goes
//! ```
//!
//! Always true: one second tier is opened at a time, on one thread of its own and without a turn, after the answer of the
//! request that opened the first; memory for both was set aside before the first began; keys whose lease has ended open
//! nothing; a second tier that fails, or that is no longer asked for, leaves what is there as it is and gives its memory back.
//! Not here: whether there are tiers for a model (`loading`), swapping (`models`).
//!
//! On paper: the package is read and opened twice, so that no plaintext of it waits in between.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Weak};
use std::thread;

use bield_protocol::refusal::Refusal;

use crate::keys::Keys;
use crate::loading::Loader;
use crate::models::{Lent, Models, Opened, Space};

/// Most models whose second tier waits, each with its memory; the others stay on their first.
const WAITING_MAX: usize = 64;

/// Opens second tiers.
pub(crate) struct Tiers {
    due: SyncSender<Second>,
    counts: Arc<TierCounts>,
}

/// A second tier that is to be opened.
pub(crate) struct Second {
    first: Weak<Opened>,
    keys: Arc<Keys>,
    space: Space,
}

/// What became of them since start.
#[derive(Debug, Default)]
pub(crate) struct TierCounts {
    /// Models that went on to the second.
    pub(crate) swapped: AtomicU64,
    /// Models that stay on the first, because the second did not open or its golden pairs differ.
    pub(crate) failed: AtomicU64,
}

impl Second {
    /// For the model that is lent, which `keys` opened, in `space`.
    pub(crate) fn new(first: &Lent, keys: Arc<Keys>, space: Space) -> Self {
        Self {
            first: first.name(),
            keys,
            space,
        }
    }
}

impl Tiers {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system gives none.
    pub(crate) fn start(
        loader: Arc<Loader>,
        models: Arc<Models>,
        counts: Arc<TierCounts>,
    ) -> io::Result<Self> {
        let (due, seconds) = sync_channel(WAITING_MAX);
        let counted = Arc::clone(&counts);
        let work = move || open_all(&seconds, &loader, &models, &counted);
        thread::Builder::new().name("tiers".into()).spawn(work)?;
        Ok(Self { due, counts })
    }

    /// Has a second tier opened when its turn comes.
    pub(crate) fn open(&self, second: Second) {
        if self.due.try_send(second).is_err() {
            self.counts.failed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn open_all(
    seconds: &Receiver<Second>,
    loader: &Loader,
    models: &Arc<Models>,
    counts: &TierCounts,
) {
    while let Ok(second) = seconds.recv() {
        let opened = catch_unwind(AssertUnwindSafe(|| open(second, loader, models)));
        let count = match opened {
            Ok(Ok(true)) => &counts.swapped,
            // Nobody asks for it any more: its model made room, or its lease ended.
            Ok(Ok(false)) => continue,
            Ok(Err(_)) | Err(_) => &counts.failed,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// Whether the second tier took over.
fn open(second: Second, loader: &Loader, models: &Arc<Models>) -> Result<bool, Refusal> {
    let Second { first, keys, space } = second;
    if first.strong_count() == 0 || !keys.is_current() {
        return Ok(false);
    }
    let loaded = loader.load_second(&keys, space)?;
    Ok(models.replace(keys.lease.package, &first, loaded))
}

#[cfg(test)]
mod tests;
