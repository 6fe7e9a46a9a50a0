//! One place of the pool: what the packer wants there, and what the engine sees of it.
//!
//! Always true: what the engine is asked for is asked in order, one after the other, and for each worker anew, since what was
//! there for the last one may be gone; each instance is told to the packer once, and its end once; what the engine sees is
//! read and judged under the one lock, so that nobody judges by what was seen before somebody else did.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bield_engines::{Endpoint, Group, Seen};
use bield_packer::{Event, WorkerId};
use tokio::sync::watch;

use super::{Driver, Inner};

/// Pause after the platform refused a place: it is asked again, but not without end at once.
const DENIED_PAUSE: Duration = Duration::from_secs(1);

impl Driver {
    /// Carries out what is wanted in a place, and tells the packer what becomes of it.
    pub(super) async fn keep_place(self: Arc<Self>, number: u32) {
        let group = Group(number);
        let Some(mut want) = self
            .lock()
            .place(number)
            .map(|place| place.want.subscribe())
        else {
            return;
        };
        let mut seen = self.engine.endpoints(group);
        // For whom the engine was asked last.
        let (mut asked, mut given_up) = (None, 0);
        loop {
            let wanted = *want.borrow_and_update();
            if wanted != asked {
                let scaled = match wanted {
                    // Comes back when it is gone.
                    None => self.engine.delete(group).await,
                    Some(_) => match self.engine.ensure(group).await {
                        Ok(()) => self.engine.scale(group, 1).await,
                        denied => denied,
                    },
                };
                asked = wanted;
                let Some(worker) = wanted else {
                    if let Err(error) = scaled {
                        tracing::error!(place = number, "a worker did not end: {error}");
                    }
                    self.ended_as_told(number);
                    continue;
                };
                if let Err(error) = scaled {
                    tracing::error!(place = number, "{error}");
                    tokio::time::sleep(DENIED_PAUSE).await;
                    self.start_failed(number, worker);
                    asked = None;
                    continue;
                }
            }
            let now = seen.borrow_and_update().given_up;
            if now > given_up {
                given_up = now;
                // Down first, so that the next wish for a worker is one.
                let _ = self.engine.scale(group, 0).await;
                if let Some(worker) = asked.take() {
                    self.start_failed(number, worker);
                }
                continue;
            }
            if self.take_in(number, &seen) {
                continue;
            }
            tokio::select! {
                changed = want.changed() => if changed.is_err() { return },
                changed = seen.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Looks at once what the engine sees of a place: a call has just met the end of what was there.
    pub(super) fn look_at(&self, number: u32) {
        let seen = self.engine.endpoints(Group(number));
        self.take_in(number, &seen);
    }

    /// Tells the packer of an instance that began or ended; whether there was anything to tell.
    fn take_in(&self, number: u32, seen: &watch::Receiver<Seen>) -> bool {
        let mut inner = self.lock();
        let Some(place) = inner.place(number) else {
            return false;
        };
        let (worker, past) = (place.worker, place.past);
        let Some((worker, hired)) =
            worker.and_then(|worker| Some((worker, inner.workers.get_mut(&worker)?)))
        else {
            return false;
        };
        match &hired.endpoint {
            None => {
                // Who could not be made to end in time is nobody's start.
                let is_new = |there: &&Endpoint| Some(there.id) != past;
                let there = seen.borrow().endpoints.iter().find(is_new).cloned();
                let Some(endpoint) = there else {
                    return false;
                };
                hired.endpoint = Some(Arc::new(endpoint));
                let took = Instant::now().saturating_duration_since(hired.asked);
                self.handle(&mut inner, Event::Started { worker, took });
            }
            Some(endpoint) => {
                let mut there = seen.borrow().endpoints.clone().into_iter();
                if there.any(|there| there.id == endpoint.id) {
                    return false;
                }
                inner.lets_go(number, worker);
                self.handle(&mut inner, Event::Ended { worker });
                inner.wants_nothing_if_free(number);
            }
        }
        true
    }

    /// The worker that was told to end has done so.
    fn ended_as_told(&self, number: u32) {
        let mut inner = self.lock();
        let Some(worker) = inner.place(number).and_then(|place| place.worker) else {
            return;
        };
        if inner.workers.get(&worker).is_some_and(|hired| hired.ends) {
            inner.lets_go(number, worker);
            self.handle(&mut inner, Event::Ended { worker });
            inner.wants_nothing_if_free(number);
        }
    }

    fn start_failed(&self, number: u32, worker: WorkerId) {
        let mut inner = self.lock();
        if inner.place(number).and_then(|place| place.worker) == Some(worker) {
            inner.lets_go(number, worker);
            self.handle(&mut inner, Event::StartFailed { worker });
        }
        inner.wants_nothing_if_free(number);
    }
}

impl Inner {
    pub(super) fn lets_go(&mut self, number: u32, worker: WorkerId) {
        let hired = self.workers.remove(&worker);
        if let Some(place) = self.place(number) {
            place.worker = None;
            let endpoint = hired.and_then(|hired| hired.endpoint);
            place.past = endpoint.map(|endpoint| endpoint.id).or(place.past);
        }
    }

    /// Unless the packer gave the place to another worker at once.
    fn wants_nothing_if_free(&mut self, number: u32) {
        if let Some(place) = self.place(number)
            && place.worker.is_none()
        {
            place.want.send_replace(None);
        }
    }
}
