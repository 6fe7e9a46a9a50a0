//! Visits the host keeps open for the program to use when it needs something.
//!
//! The accept loop puts them here, the threads that serve take them. A pool keeps at most
//! [`OFFERS_MAX`] visits of a kind; visits the host closed meanwhile are dropped on the way.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bield_protocol::visit::Visit;

use crate::{DoorError, Stream};

/// Most visits kept of one kind. The launcher keeps at most 16 open; twice that leaves room for its
/// refills.
pub const OFFERS_MAX: usize = 32;

/// The pools of offered visits: key service, package, storage, member and witness.
#[derive(Default)]
pub struct Offers {
    pools: Mutex<Pools>,
    arrived: Condvar,
}

impl Offers {
    /// Makes empty pools.
    #[must_use]
    pub fn new() -> Offers {
        Offers::default()
    }

    /// Keeps an offered visit. One that is no offer, or one too many, is closed.
    pub fn keep(&self, visit: Visit, stream: Stream) {
        let mut pools = self.lock();
        let Some(pool) = pools.of(visit) else { return };
        pool.retain(Stream::is_fresh);
        if pool.len() < OFFERS_MAX {
            pool.push_back(stream);
            self.arrived.notify_all();
        }
    }

    /// Takes an offered visit, waiting at most `wait` for the host to offer one.
    ///
    /// # Errors
    /// [`DoorError::NoOffer`] when none came in time.
    pub fn take(&self, visit: Visit, wait: Duration) -> Result<Stream, DoorError> {
        let deadline = Instant::now() + wait;
        let mut pools = self.lock();
        loop {
            let pool = pools.of(visit).ok_or(DoorError::NoOffer { visit })?;
            while let Some(stream) = pool.pop_front() {
                if stream.is_fresh() {
                    return Ok(stream);
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(DoorError::NoOffer { visit });
            }
            pools = self
                .arrived
                .wait_timeout(pools, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Pools> {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Default)]
struct Pools {
    key_service: VecDeque<Stream>,
    package: VecDeque<Stream>,
    storage: VecDeque<Stream>,
    member: VecDeque<Stream>,
    witness: VecDeque<Stream>,
}

impl Pools {
    fn of(&mut self, visit: Visit) -> Option<&mut VecDeque<Stream>> {
        match visit {
            Visit::KeyService => Some(&mut self.key_service),
            Visit::Package => Some(&mut self.package),
            Visit::Storage => Some(&mut self.storage),
            Visit::Member => Some(&mut self.member),
            Visit::Witness => Some(&mut self.witness),
            _ => None,
        }
    }
}
