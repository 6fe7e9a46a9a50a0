//! Random events from a seed, and what must be true whatever happens.
//!
//! A driver that keeps its word (every dispatch has one outcome) with workers that answer, lie, refuse, vanish and
//! never come. `BIELD_PACKER_SEED=n` runs one seed and prints its events.

use std::collections::BTreeMap;

use bield_protocol::feedback::{Feedback, StartKind, StatePlace};

use super::*;
use crate::event::{Failure, Slot};
use crate::settings::KeepAlive;

mod steps;

const SEEDS: u64 = 10_000;
const STEPS: usize = 120;
const MS: Duration = Duration::from_millis(1);

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        (!from.is_empty()).then(|| from[self.below(from.len() as u64) as usize])
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    Waits,
    At(WorkerId),
    Done,
}

#[derive(Debug)]
struct Asked {
    state: State,
    package: Digest,
    deadline: Duration,
    dispatches: u32,
    may_repeat: bool,
    left: bool,
}

#[derive(Debug)]
struct Made {
    slot: Slot,
    group: Group,
    serves: bool,
    stopped: bool,
    there: Vec<RequestId>,
}

struct World {
    seed: u64,
    random: Random,
    packer: Packer,
    now: Duration,
    asked: BTreeMap<RequestId, Asked>,
    made: BTreeMap<WorkerId, Made>,
    ever: u64,
    starts: usize,
    events: u64,
    log: Vec<Decision>,
    prints: bool,
}

impl World {
    fn new(seed: u64, prints: bool) -> Self {
        let mut random = Random(seed);
        let settings = Settings {
            policy: random.pick(&Policy::ALL).unwrap(),
            workers_min: random.below(3) as u32,
            workers_max: 1 + random.below(4) as u32,
            spares: random.below(2) as u32,
            concurrency: 1 + random.below(3) as u32,
            queue_max: random.below(9) as usize,
            share: 1 + random.below(4) as usize,
            start_guess: MS * random.below(2000) as u32,
            open_guess: MS * random.below(500) as u32,
            run_guess: MS * random.below(50) as u32,
            keep_alive: KeepAlive {
                floor: MS * random.below(2000) as u32,
                fixed: MS * random.below(20_000) as u32,
                ceiling: MS * random.below(60_000) as u32,
                bin: MS * (1 + random.below(1000) as u32),
            },
            worker_bytes: random.below(1000),
            interval: MS * random.below(3000) as u32,
            fnpacker_pool: random.below(4) as u32,
            cores: random.below(4) as u32,
            worker_cores: random.below(3) as u32,
        };
        if prints {
            println!("{settings:#?}");
        }
        Self {
            seed,
            random,
            packer: Packer::new(settings),
            now: Duration::ZERO,
            asked: BTreeMap::new(),
            made: BTreeMap::new(),
            ever: 0,
            starts: 0,
            events: 0,
            log: Vec::new(),
            prints,
        }
    }

    fn tell(&mut self, event: Event) {
        if self.prints {
            println!("{:?} {event:?}", self.now);
        }
        let mut out = Vec::new();
        self.packer.handle(self.now, event, &mut out);
        for decision in out {
            if self.prints {
                println!("        {decision:?}");
            }
            self.follow(decision);
            self.log.push(decision);
        }
        self.events += 1;
        self.audit();
    }

    fn follow(&mut self, decision: Decision) {
        let (seed, now) = (self.seed, self.now);
        let settings = &self.packer.settings;
        match decision {
            Decision::Dispatch { request, worker } => {
                let asked = self.asked.get_mut(&request).unwrap();
                assert_eq!(asked.state, State::Waits, "{seed}: dispatched twice");
                assert!(!asked.left && asked.deadline > now, "{seed}: too late");
                assert!(
                    asked.dispatches == 0 || asked.may_repeat,
                    "{seed}: run twice"
                );
                asked.dispatches += 1;
                assert!(asked.dispatches <= 2, "{seed}: a third time");
                asked.state = State::At(worker);
                asked.may_repeat = false;
                let made = self.made.get_mut(&worker).unwrap();
                assert!(
                    made.serves && !made.stopped,
                    "{seed}: sent to one that does not serve"
                );
                made.there.push(request);
                assert!(
                    made.there.len() <= settings.concurrency as usize,
                    "{seed}: too many there"
                );
                match made.group {
                    Group::Package(package) => assert_eq!(package, asked.package),
                    Group::One | Group::Endpoint(_) => {}
                }
            }
            Decision::Refuse {
                request,
                refusal,
                retry_after,
            } => {
                let asked = self.asked.get_mut(&request).unwrap();
                assert_eq!(asked.state, State::Waits, "{seed}: {refusal:?}");
                assert!(!asked.left && retry_after > Duration::ZERO);
                assert_eq!(refusal == Refusal::Lost, asked.dispatches == 2, "{seed}");
                asked.state = State::Done;
            }
            Decision::Start {
                worker,
                slot,
                group,
            } => {
                assert!(
                    self.made.len() < settings.workers_max as usize,
                    "{seed}: too many workers"
                );
                assert!(slot.0 < settings.workers_max);
                assert!(
                    self.made.values().all(|made| made.slot != slot),
                    "{seed}: slot taken"
                );
                assert!(worker.0 >= self.ever, "{seed}: name used again");
                self.ever = worker.0 + 1;
                self.starts += 1;
                let made = Made {
                    slot,
                    group,
                    serves: false,
                    stopped: false,
                    there: Vec::new(),
                };
                self.made.insert(worker, made);
            }
            Decision::Stop { worker } => {
                let made = self.made.get_mut(&worker).unwrap();
                assert!(
                    made.serves && !made.stopped && made.there.is_empty(),
                    "{seed}: not idle"
                );
                made.stopped = true;
            }
        }
    }

    /// What must be true between events.
    fn audit(&self) {
        let (seed, packer) = (self.seed, &self.packer);
        let settings = &packer.settings;
        let waiting: Vec<_> = self
            .asked
            .iter()
            .filter(|(_, asked)| asked.state == State::Waits && !asked.left)
            .collect();
        assert_eq!(
            packer.queue.len(),
            waiting.len(),
            "{seed}: the queue is who waits"
        );
        let places = (settings.workers_max * settings.concurrency) as usize;
        assert!(
            waiting.len() <= settings.queue_max + places,
            "{seed}: queue not bounded"
        );
        for (_, asked) in &waiting {
            assert!(
                asked.deadline > self.now,
                "{seed}: waits beyond its deadline"
            );
            assert!(
                packer.wakes_at().unwrap() <= asked.deadline,
                "{seed}: would not wake"
            );
        }
        for (id, made) in &self.made {
            let there: BTreeSet<_> = made.there.iter().copied().collect();
            let known = packer.workers[id]
                .flights
                .iter()
                .map(|flight| flight.request);
            assert_eq!(there, known.collect(), "{seed}: who is at {id}");
            assert!(packer.workers[id].resident.len() <= crate::worker::RESIDENTS_MAX);
        }
        assert_eq!(packer.workers.len(), self.made.len());
        let mut counts: BTreeMap<Digest, (usize, u32)> = BTreeMap::new();
        for asked in self
            .asked
            .values()
            .filter(|asked| asked.state != State::Done)
        {
            let (waits, at) = counts.entry(asked.package).or_default();
            match asked.state {
                State::At(_) => *at += 1,
                State::Waits | State::Done => *waits += 1,
            }
        }
        for (package, known) in packer.packages.iter() {
            let counted = counts.get(&package).copied().unwrap_or_default();
            assert_eq!(
                (known.waiting, known.in_flight),
                counted,
                "{seed}: of {package}"
            );
        }
        if !self.events.is_multiple_of(4) {
            return;
        }
        let mut accounts = packer.accounts.clone();
        for worker in packer.workers.values() {
            worker.bill(packer.now, &packer.packages, &mut accounts);
        }
        let packages: u128 = accounts.packages.values().sum();
        let callers: u128 = accounts.callers.values().sum();
        let total = accounts.total;
        assert_eq!(
            packages + accounts.other_packages + accounts.unused,
            total,
            "{seed}"
        );
        assert_eq!(
            callers + accounts.other_callers + accounts.idle,
            total,
            "{seed}"
        );
    }
}

fn run(seed: u64, prints: bool) -> Vec<Decision> {
    let mut world = World::new(seed, prints);
    for _ in 0..STEPS {
        world.step();
    }
    world.rest();
    world.log
}

#[test]
fn whatever_happens_no_request_is_lost_or_run_twice_and_no_bound_is_exceeded() {
    if let Some(seed) = std::env::var("BIELD_PACKER_SEED")
        .ok()
        .and_then(|s| s.parse().ok())
    {
        run(seed, true);
        return;
    }
    let decisions: usize = (0..SEEDS).map(|seed| run(seed, false).len()).sum();
    assert!(
        decisions as u64 > SEEDS * 10,
        "the worlds were busy: {decisions}"
    );
}

#[test]
fn the_same_events_give_the_same_decisions() {
    for seed in 0..50 {
        assert_eq!(run(seed, false), run(seed, false), "{seed}");
    }
}
