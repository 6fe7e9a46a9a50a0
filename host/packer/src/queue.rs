//! Requests that wait, and whose turn it is: fair between callers, and within a caller between packages.
//!
//! Each caller has a virtual time, the work done for it so far; who has had least is next, and likewise its packages.
//! Who was away starts where the others are, so that nobody saves up turns. (Start-time fair queueing, Goyal and
//! others, SIGCOMM 1996: the shares of deficit round robin, in an order that can be looked at without serving.)
//!
//! Always true: what is in `places` is in exactly one line; within a line, first come first served, but for a request
//! that comes back from a worker that lost it, which is first.
//!
//! On paper: `order` looks at each waiting caller once and at `limit` requests, in O(log callers) each.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, VecDeque};

use bield_envelope::Digest;

use crate::event::{Caller, RequestId};

/// Callers, and packages of each, whose virtual time is kept while nothing of them waits.
const ABSENT_MAX: usize = 4096;

/// A caller's packages by virtual time, with the place in line that is next.
type Turns = BinaryHeap<Reverse<(u64, Digest, usize)>>;

/// Requests that wait.
#[derive(Default)]
pub(crate) struct Queue {
    callers: BTreeMap<Caller, Line>,
    places: HashMap<RequestId, (Caller, Digest)>,
    /// Virtual time of the last that was served: where newcomers start.
    clock: u64,
}

#[derive(Default)]
struct Line {
    time: u64,
    clock: u64,
    waiting: usize,
    packages: BTreeMap<Digest, Requests>,
}

#[derive(Default)]
struct Requests {
    time: u64,
    ids: VecDeque<RequestId>,
}

impl Queue {
    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }

    pub(crate) fn of_caller(&self, caller: Caller) -> usize {
        self.callers.get(&caller).map_or(0, |line| line.waiting)
    }

    pub(crate) fn callers(&self) -> impl Iterator<Item = Caller> {
        let waiting = self.callers.iter().filter(|(_, line)| line.waiting > 0);
        waiting.map(|(caller, _)| *caller)
    }

    /// Adds a request at the end of its line, or at its front if it comes back.
    pub(crate) fn push(&mut self, id: RequestId, caller: Caller, package: Digest, front: bool) {
        let line = self.callers.entry(caller).or_default();
        if line.waiting == 0 {
            line.time = line.time.max(self.clock);
        }
        line.waiting += 1;
        let clock = line.clock;
        let requests = line.packages.entry(package).or_default();
        if requests.ids.is_empty() {
            requests.time = requests.time.max(clock);
        }
        match front {
            true => requests.ids.push_front(id),
            false => requests.ids.push_back(id),
        }
        self.places.insert(id, (caller, package));
    }

    /// Takes a request out; false if it does not wait.
    pub(crate) fn remove(&mut self, id: RequestId) -> bool {
        let Some((caller, package)) = self.places.remove(&id) else {
            return false;
        };
        if let Some(line) = self.callers.get_mut(&caller) {
            line.waiting -= 1;
            if let Some(requests) = line.packages.get_mut(&package) {
                requests.ids.retain(|other| *other != id);
                if requests.ids.is_empty() && requests.time <= line.clock {
                    line.packages.remove(&package);
                }
            }
            if line.waiting == 0 || line.packages.len() > ABSENT_MAX {
                line.packages.retain(|_, requests| !requests.ids.is_empty());
            }
        }
        self.forget();
        true
    }

    /// Takes a request out to be served, at a cost of `cost`.
    pub(crate) fn serve(&mut self, id: RequestId, cost: u64) {
        let Some((caller, package)) = self.places.get(&id).copied() else {
            return;
        };
        let cost = cost.max(1);
        if let Some(line) = self.callers.get_mut(&caller) {
            self.clock = self.clock.max(line.time);
            line.time = line.time.saturating_add(cost);
            if let Some(requests) = line.packages.get_mut(&package) {
                line.clock = line.clock.max(requests.time);
                requests.time = requests.time.saturating_add(cost);
            }
            let clock = line.clock;
            line.packages
                .retain(|_, requests| !requests.ids.is_empty() || requests.time > clock);
        }
        self.remove(id);
    }

    /// Sets right what a request that was served at a cost of `charged` cost.
    pub(crate) fn correct(&mut self, caller: Caller, package: Digest, charged: u64, cost: u64) {
        let right = |time: u64| time.saturating_sub(charged).saturating_add(cost);
        if let Some(line) = self.callers.get_mut(&caller) {
            line.time = right(line.time);
            if let Some(requests) = line.packages.get_mut(&package) {
                requests.time = right(requests.time);
            }
        }
    }

    /// The caller of whom most wait, and how many; the last of each of its lines.
    pub(crate) fn fullest(&self) -> Option<(usize, impl Iterator<Item = RequestId>)> {
        let line = self.callers.values().max_by_key(|line| line.waiting)?;
        let last = line
            .packages
            .values()
            .filter_map(|requests| requests.ids.back());
        Some((line.waiting, last.copied()))
    }

    /// The first `limit` requests in the order they would be served if each were, at `cost` by package.
    pub(crate) fn order(&self, limit: usize, cost: impl Fn(Digest) -> u64) -> Vec<RequestId> {
        let mut callers: BinaryHeap<_> = self
            .callers
            .iter()
            .filter(|(_, line)| line.waiting > 0)
            .map(|(caller, line)| Reverse((line.time, *caller)))
            .collect();
        let mut packages: BTreeMap<Caller, Turns> = BTreeMap::new();
        let mut order = Vec::with_capacity(limit.min(self.len()));
        while order.len() < limit
            && let Some(Reverse((time, caller))) = callers.pop()
        {
            let line = &self.callers[&caller];
            let turns = packages.entry(caller).or_insert_with(|| {
                let all = line.packages.iter().filter(|(_, r)| !r.ids.is_empty());
                all.map(|(package, r)| Reverse((r.time, *package, 0)))
                    .collect()
            });
            let Some(Reverse((own, package, at))) = turns.pop() else {
                continue;
            };
            let ids = &line.packages[&package].ids;
            order.push(ids[at]);
            let cost = cost(package).max(1);
            if at + 1 < ids.len() {
                turns.push(Reverse((own.saturating_add(cost), package, at + 1)));
            }
            if !turns.is_empty() {
                callers.push(Reverse((time.saturating_add(cost), caller)));
            }
        }
        order
    }

    /// What is no better off for being remembered, or too much of it.
    fn forget(&mut self) {
        if self.callers.len() <= ABSENT_MAX {
            return;
        }
        let clock = self.clock;
        self.callers
            .retain(|_, line| line.waiting > 0 || line.time > clock);
        if self.callers.len() > ABSENT_MAX {
            self.callers.retain(|_, line| line.waiting > 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str) -> Digest {
        Digest::of("test", &[name.as_bytes()])
    }

    fn serve_all(queue: &mut Queue, cost: impl Fn(Digest) -> u64) -> Vec<u64> {
        let mut served = Vec::new();
        while let Some(id) = queue.order(1, &cost).first().copied() {
            queue.serve(id, cost(queue.places[&id].1));
            served.push(id.0);
        }
        served
    }

    #[test]
    fn a_caller_with_a_hundred_requests_does_not_hold_up_one_with_two() {
        let mut queue = Queue::default();
        (0..100).for_each(|id| queue.push(RequestId(id), Caller(1), package("a"), false));
        (100..102).for_each(|id| queue.push(RequestId(id), Caller(2), package("a"), false));
        let served = serve_all(&mut queue, |_| 10);
        assert_eq!(served.len(), 102);
        assert!(served[..4].contains(&100) && served[..4].contains(&101));
        assert_eq!(queue.len(), 0);
    }

    #[test]
    fn shares_are_of_work_not_of_requests() {
        let mut queue = Queue::default();
        (0..40).for_each(|id| queue.push(RequestId(id), Caller(1), package("short"), false));
        (40..80).for_each(|id| queue.push(RequestId(id), Caller(2), package("long"), false));
        let long = package("long");
        let served = serve_all(&mut queue, |p| if p == long { 30 } else { 10 });
        let short = served[..20].iter().filter(|id| **id < 40).count();
        assert!(
            (14..=16).contains(&short),
            "three short for one long: {short}"
        );
    }

    #[test]
    fn the_order_that_is_shown_is_the_order_that_is_served() {
        let cost = |p: Digest| u64::from(p.as_bytes()[0]) + 1;
        let fill = || {
            let mut queue = Queue::default();
            for id in 0..60 {
                let of = package(["a", "b", "c"][id as usize % 3]);
                queue.push(RequestId(id), Caller(id % 4), of, id % 7 == 0);
            }
            queue
        };
        let shown: Vec<_> = fill().order(60, cost).iter().map(|id| id.0).collect();
        assert_eq!(shown, serve_all(&mut fill(), cost));
    }

    #[test]
    fn what_cost_more_than_was_charged_is_paid_by_its_caller() {
        let mut queue = Queue::default();
        for id in 0..40 {
            queue.push(RequestId(id), Caller(id % 2), package("a"), false);
        }
        queue.serve(RequestId(0), 10);
        queue.correct(Caller(0), package("a"), 10, 100);
        let served = serve_all(&mut queue, |_| 10);
        assert!(served[..9].iter().all(|id| id % 2 == 1), "{served:?}");
        assert!(served[9..13].iter().any(|id| id % 2 == 0), "{served:?}");
    }

    #[test]
    fn who_was_away_has_saved_no_turns() {
        let mut queue = Queue::default();
        (0..50).for_each(|id| queue.push(RequestId(id), Caller(1), package("a"), false));
        (0..40).for_each(|id| queue.serve(RequestId(id), 10));
        (50..60).for_each(|id| queue.push(RequestId(id), Caller(2), package("a"), false));
        let served = serve_all(&mut queue, |_| 10);
        let newcomer = served[..10].iter().filter(|id| **id >= 50).count();
        assert!((4..=6).contains(&newcomer), "{served:?}");
    }
}
