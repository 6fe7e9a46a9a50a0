//! One simulated worker: what it holds, who runs, who waits inside.

use std::collections::VecDeque;
use std::time::Duration;

use bield_packer::RequestId;

/// A model that is resident or being opened.
struct Held {
    model: usize,
    bytes: u64,
    open: Duration,
    ready: bool,
    running: u32,
    waiting: Vec<RequestId>,
    uses: u32,
    age: f64,
}

/// What becomes of a request that came in.
pub(crate) enum Entered {
    /// It runs from now on.
    Runs,
    /// The model is opened for it from now on.
    Opens,
    /// It waits for another that opens the model, or for room.
    Waits,
}

pub(crate) struct Simulated {
    pub(crate) serves: bool,
    pub(crate) there: Vec<RequestId>,
    budget: u64,
    held: Vec<Held>,
    /// Requests that wait for room, with their models.
    blocked: VecDeque<(RequestId, usize)>,
    age: f64,
}

impl Simulated {
    pub(crate) fn new(budget: u64) -> Self {
        Self {
            serves: false,
            there: Vec::new(),
            budget,
            held: Vec::new(),
            blocked: VecDeque::new(),
            age: 0.0,
        }
    }

    pub(crate) fn used(&self) -> u64 {
        self.held.iter().map(|held| held.bytes).sum()
    }

    pub(crate) fn free(&self) -> u64 {
        self.budget.saturating_sub(self.used())
    }

    /// Models that are resident.
    pub(crate) fn resident(&self) -> impl Iterator<Item = usize> {
        let ready = self.held.iter().filter(|held| held.ready);
        ready.map(|held| held.model)
    }

    /// A request for a model of `bytes`, which takes `open` to open.
    pub(crate) fn enter(
        &mut self,
        request: RequestId,
        model: usize,
        bytes: u64,
        open: Duration,
    ) -> Entered {
        let age = self.age;
        if let Some(held) = self.held.iter_mut().find(|held| held.model == model) {
            held.uses += 1;
            held.age = age;
            if held.ready {
                held.running += 1;
                return Entered::Runs;
            }
            held.waiting.push(request);
            return Entered::Waits;
        }
        if !self.make_room(bytes) {
            self.blocked.push_back((request, model));
            return Entered::Waits;
        }
        self.held.push(Held {
            model,
            bytes,
            open,
            ready: false,
            running: 0,
            waiting: vec![request],
            uses: 1,
            age: self.age,
        });
        Entered::Opens
    }

    /// A model is open: these run from now on, the first of them had it opened.
    pub(crate) fn opened(&mut self, model: usize) -> Vec<RequestId> {
        let Some(held) = self.held.iter_mut().find(|held| held.model == model) else {
            return Vec::new();
        };
        held.ready = true;
        let run = std::mem::take(&mut held.waiting);
        held.running += run.len() as u32;
        run
    }

    /// A request ran; those that waited for room come in again, first ones first.
    pub(crate) fn ran(&mut self, request: RequestId, model: usize) -> VecDeque<(RequestId, usize)> {
        self.there.retain(|other| *other != request);
        if let Some(held) = self.held.iter_mut().find(|held| held.model == model) {
            held.running = held.running.saturating_sub(1);
        }
        std::mem::take(&mut self.blocked)
    }

    /// Evicts what is worth least and does nothing, until `bytes` are free; nothing if that would not do.
    fn make_room(&mut self, bytes: u64) -> bool {
        let idle = |held: &Held| held.ready && held.running == 0;
        let idle_bytes: u64 = self
            .held
            .iter()
            .filter(|held| idle(held))
            .map(|h| h.bytes)
            .sum();
        if self.free() + idle_bytes < bytes {
            return false;
        }
        while self.free() < bytes {
            let worth = |held: &Held| {
                held.age + f64::from(held.uses) * held.open.as_secs_f64() / held.bytes.max(1) as f64
            };
            let all = self.held.iter().enumerate().filter(|(_, held)| idle(held));
            let least = all.min_by(|(_, a), (_, b)| worth(a).total_cmp(&worth(b)));
            let Some((at, least)) = least else {
                return false;
            };
            self.age = worth(least);
            self.held.remove(at);
        }
        true
    }
}
