//! The second tier: a model that one engine opened at once is opened by the better one, while the first answers.
//!
//! ```text
//! cold ─▶ first engine, golden pairs ─▶ answer ─▶ answer ─▶ answer ──▶ answer ─▶ …
//!                     └─▶ room? ─▶ package again ─▶ chosen engine ─▶ golden pairs ─┘ new runs are here; the first copy goes
//!                           └ no: at a later use
//! ```
//!
//! Always true: one second tier is opened at a time, on one thread of its own and without a turn, after the answer of the
//! request that made it due; one that waits holds neither memory nor keys; room is made for it as for any load, by others
//! that are idle and not by its own first; none is opened while the process serves one user alone, and a claim waits for one that is under way as
//! it waits for requests; keys whose lease has ended open nothing; a second tier that fails, takes too long or is no longer
//! asked for leaves what is there as it is and gives its memory back.
//! Not here: whether there are tiers for a model (`loading`), swapping (`models`). An engine's load, and each of its runs, is
//! not broken off: only between them is asked whether it goes on.
//!
//! On paper: the package is read and opened twice, so that no plaintext of it waits in between.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use bield_envelope::Digest;

use crate::keys::Keys;
use crate::loading::{GoesOn, Loader};
use crate::models::{Lent, Models, Opened};
use crate::tenancy::Tenancy;

/// Most models whose second tier waits; the others stay on their first until they are used again.
const WAITING_MAX: usize = 64;

/// How long one second tier may take, so that those behind it come to their turn.
#[derive(Clone, Copy)]
pub(crate) struct Patience {
    /// Whatever its size.
    pub(crate) wait: Duration,
    /// And as long as what it takes while it loads takes at this rate.
    pub(crate) bytes_per_second: u64,
}

impl Default for Patience {
    /// A tenth of what opening was measured to do on one thread, and a minute for golden pairs.
    fn default() -> Self {
        Self {
            wait: Duration::from_secs(60),
            bytes_per_second: 32 << 20,
        }
    }
}

impl Patience {
    fn lasts(&self, bytes: u64) -> Duration {
        self.wait + Duration::from_secs(bytes / self.bytes_per_second)
    }
}

/// Opens second tiers.
pub(crate) struct Tiers {
    due: SyncSender<Second>,
    models: Arc<Models>,
}

/// A second tier that is to be opened.
pub(crate) struct Second {
    package: Digest,
    first: Weak<Opened>,
    /// Kept by the cache of leases only.
    keys: Weak<Keys>,
    /// What opening it takes.
    bytes: u64,
}

/// What became of them since start.
#[derive(Debug, Default)]
pub(crate) struct TierCounts {
    /// Models that went on to the second.
    pub(crate) swapped: AtomicU64,
    /// Models that stay on the first, because the second did not open, took too long or its golden pairs differ.
    pub(crate) failed: AtomicU64,
}

/// What second tiers are opened with.
pub(crate) struct Opener {
    pub(crate) loader: Arc<Loader>,
    pub(crate) models: Arc<Models>,
    pub(crate) tenancy: Arc<Tenancy>,
    pub(crate) counts: Arc<TierCounts>,
    pub(crate) patience: Patience,
}

/// What became of one.
enum Became {
    Swapped,
    Failed,
    /// There was no room, or there are newer keys.
    Due,
    /// Nobody asks for it any more: its model left, or the process serves one user alone.
    Unwanted,
}

impl Second {
    /// For the model that is lent, which `keys` opened, if a second tier of it is due and nobody may use it wiped: which engine
    /// runs it decides whether that can be served.
    pub(crate) fn due(first: &Lent, keys: &Arc<Keys>) -> Option<Self> {
        // Nearly always not, and asked by every run.
        if !first.second_is_due() || keys.asks_for_wiping() {
            return None;
        }
        Some(Self {
            package: keys.lease.package,
            first: first.name(),
            keys: Arc::downgrade(keys),
            bytes: first.take_second()?,
        })
    }

    fn again(&self, models: &Models) {
        models.due_again(self.package, &self.first, self.bytes);
    }
}

impl Tiers {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system gives none.
    pub(crate) fn start(opener: Opener) -> io::Result<Self> {
        let (due, seconds) = sync_channel(WAITING_MAX);
        let models = Arc::clone(&opener.models);
        let work = move || opener.open_all(&seconds);
        thread::Builder::new().name("tiers".into()).spawn(work)?;
        Ok(Self { due, models })
    }

    /// Has a second tier opened when its turn comes; when too many wait, it is due again.
    pub(crate) fn open(&self, second: Second) {
        if let Err(TrySendError::Full(second)) = self.due.try_send(second) {
            second.again(&self.models);
        }
    }
}

impl Opener {
    fn open_all(&self, seconds: &Receiver<Second>) {
        while let Ok(second) = seconds.recv() {
            self.open_one(&second);
        }
    }

    fn open_one(&self, second: &Second) {
        let became = catch_unwind(AssertUnwindSafe(|| self.open(second)));
        let count = |count: &AtomicU64| {
            count.fetch_add(1, Ordering::Relaxed);
        };
        match became.unwrap_or(Became::Failed) {
            Became::Swapped => count(&self.counts.swapped),
            Became::Failed => count(&self.counts.failed),
            Became::Due => second.again(&self.models),
            Became::Unwanted => {}
        }
    }

    fn open(&self, second: &Second) -> Became {
        let (package, first) = (second.package, &second.first);
        // Dropped last: whoever claims the process waits until nothing of this is left.
        let Some(_inside) = self.tenancy.work() else {
            return Became::Unwanted;
        };
        let Some(keys) = second.keys.upgrade().filter(|keys| keys.is_current()) else {
            return Became::Due;
        };
        let Some(_stays) = self.models.keep_first(package, first) else {
            return Became::Unwanted;
        };
        let Ok(space) = self
            .models
            .reserve(second.bytes, second.bytes, Duration::ZERO)
        else {
            return Became::Due;
        };
        let is_wanted = self.is_wanted(second);
        let (began, lasts) = (Instant::now(), self.patience.lasts(second.bytes));
        let goes_on: GoesOn = {
            let is_wanted = Arc::clone(&is_wanted);
            Arc::new(move || is_wanted() && began.elapsed() < lasts)
        };
        let loaded = self
            .loader
            .load_second(&keys, &self.models, space, &goes_on);
        match loaded.map(|loaded| self.models.replace(package, first, loaded)) {
            Ok(true) => Became::Swapped,
            Err(_) if is_wanted() => Became::Failed,
            Ok(false) | Err(_) => Became::Unwanted,
        }
    }

    /// Says whether anybody would run on a second tier.
    fn is_wanted(&self, second: &Second) -> GoesOn {
        let (models, tenancy) = (Arc::clone(&self.models), Arc::clone(&self.tenancy));
        let (package, first) = (second.package, Weak::clone(&second.first));
        Arc::new(move || !tenancy.is_claimed() && models.is_here(package, &first))
    }
}

#[cfg(test)]
mod tests;
