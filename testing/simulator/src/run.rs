//! The loop: events by time, each told to the packer, each decision followed.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

use bield_load::{Done, Ending, Random, Report, Trace};
use bield_packer::{
    Caller, Decision, Event, Failure, Packer, Refusal, RequestId, Settings, View, WorkerId,
};
use bield_protocol::feedback::{Feedback, StartKind};

use crate::cores::Cores;
use crate::worker::{Entered, Simulated};
use crate::world::World;

/// What came of a trace.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Latencies, starts, failures, as of a replay against real processes.
    pub report: Report,
    /// The packer when the trace was over and the last request answered: container time, gigabyte-seconds, accounts.
    pub view: View,
}

/// Runs `trace` in `world` under `settings`, everything else drawn from `seed`.
#[must_use]
pub fn run(trace: &Trace, world: &World, settings: Settings, seed: u64) -> Outcome {
    let mut run = Run {
        trace,
        world,
        random: Random::new(seed, 0),
        packer: Packer::new(settings),
        now: Duration::ZERO,
        order: 0,
        events: BinaryHeap::new(),
        cores: Cores::new(world.cores),
        workers: BTreeMap::new(),
        asked: BTreeMap::new(),
        done: Vec::new(),
    };
    run.play();
    Outcome {
        report: Report::of(trace, &run.done),
        view: run.packer.view(),
    }
}

struct Run<'a> {
    trace: &'a Trace,
    world: &'a World,
    random: Random,
    packer: Packer,
    now: Duration,
    /// Numbers events, so that of those at the same time the first made is first.
    order: u64,
    events: BinaryHeap<Reverse<(Duration, u64, Happening)>>,
    /// What runs and is being opened, with what follows.
    cores: Cores<Happening>,
    workers: BTreeMap<WorkerId, Simulated>,
    asked: BTreeMap<RequestId, Asked>,
    done: Vec<Done>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Happening {
    Arrives(usize),
    Serves(WorkerId),
    StartFails(WorkerId),
    Opened(WorkerId, usize),
    Ran(RequestId, WorkerId),
    Refused(RequestId, WorkerId),
    Breaks(RequestId, WorkerId),
    Dies(WorkerId),
    Ends(WorkerId),
}

struct Asked {
    arrival: usize,
    sent: Duration,
    start: StartKind,
    opened: Duration,
    /// When its model began to be opened, or it began to run.
    began: Duration,
}

impl Run<'_> {
    fn play(&mut self) {
        for (index, arrival) in self.trace.arrivals().iter().enumerate() {
            self.at(arrival.at, Happening::Arrives(index));
        }
        for model in &self.world.models {
            let (package, bytes) = (model.package, model.bytes);
            self.tell(Event::Sized { package, bytes });
        }
        let requests = self.trace.arrivals().len();
        while self.done.len() < requests || self.now < self.trace.span() {
            let next = self.events.peek().map(|Reverse((at, ..))| *at);
            let (work, tick) = (self.cores.next(), self.packer.wakes_at());
            let at = [next, work, tick].into_iter().flatten().min();
            let Some(at) = at.filter(|at| self.done.len() < requests || *at <= self.trace.span())
            else {
                self.now = self.trace.span();
                break;
            };
            self.now = self.now.max(at);
            if next == Some(at) {
                if let Some(Reverse((_, _, happening))) = self.events.pop() {
                    self.happens(happening);
                }
            } else if work == Some(at) {
                if let Some(happening) = self.cores.finished(self.now) {
                    self.happens(happening);
                }
            } else {
                self.tell(Event::Tick);
            }
        }
        // Books everybody's memory up to the end.
        self.tell(Event::Tick);
    }

    fn at(&mut self, at: Duration, happening: Happening) {
        self.order += 1;
        self.events.push(Reverse((at, self.order, happening)));
    }

    fn after(&mut self, time: Duration, happening: Happening) {
        self.at(self.now + time, happening);
    }

    /// A time that varies by the world's noise.
    fn about(&mut self, time: Duration) -> Duration {
        let factor = 1.0 + self.world.noise * (2.0 * self.random.unit() - 1.0);
        time.mul_f64(factor.max(0.0))
    }

    fn chance(&mut self, part: f64) -> bool {
        self.random.unit() < part
    }

    fn tell(&mut self, event: Event) {
        let mut out = Vec::new();
        self.packer.handle(self.now, event, &mut out);
        for decision in out {
            self.follow(decision);
        }
    }

    fn follow(&mut self, decision: Decision) {
        match decision {
            Decision::Dispatch { request, worker } => self.send(request, worker),
            Decision::Refuse {
                request, refusal, ..
            } => {
                let name = format!("{refusal:?}");
                self.finish(
                    request,
                    match refusal {
                        Refusal::Lost => Ending::Failed { kind: name },
                        _ => Ending::TurnedAway { kind: name },
                    },
                );
            }
            Decision::Start { worker, .. } => {
                let time = self.about(self.world.start);
                let fails = self.chance(self.world.faults.start_fails);
                self.workers
                    .insert(worker, Simulated::new(self.world.budget));
                self.after(
                    time,
                    match fails {
                        true => Happening::StartFails(worker),
                        false => Happening::Serves(worker),
                    },
                );
            }
            Decision::Stop { worker } => self.after(Duration::ZERO, Happening::Ends(worker)),
        }
    }

    fn happens(&mut self, happening: Happening) {
        match happening {
            Happening::Arrives(index) => self.arrives(index),
            Happening::Serves(worker) => {
                if let Some(found) = self.workers.get_mut(&worker) {
                    found.serves = true;
                    self.tell(Event::Started {
                        worker,
                        took: self.world.start,
                    });
                    self.measure(worker);
                }
            }
            Happening::StartFails(worker) => {
                self.workers.remove(&worker);
                self.tell(Event::StartFailed { worker });
            }
            Happening::Opened(worker, model) => self.opened(worker, model),
            Happening::Ran(request, worker) => self.ran(request, worker),
            Happening::Refused(request, worker) => {
                self.tell(Event::Failed {
                    request,
                    worker,
                    failure: Failure::Busy,
                });
            }
            Happening::Breaks(request, worker) => self.breaks(request, worker),
            Happening::Dies(worker) | Happening::Ends(worker) => self.ends(worker),
        }
    }

    fn arrives(&mut self, index: usize) {
        let arrival = self.trace.arrivals()[index];
        let request = RequestId(index as u64);
        self.asked.insert(
            request,
            Asked {
                arrival: index,
                sent: self.now,
                start: StartKind::Hot,
                opened: Duration::ZERO,
                began: self.now,
            },
        );
        self.tell(Event::Arrived {
            request,
            package: self.world.models[arrival.model].package,
            caller: Caller(arrival.caller as u64),
            deadline: self.now + self.world.patience,
        });
    }

    fn model(&self, request: RequestId) -> Option<usize> {
        let asked = self.asked.get(&request)?;
        Some(self.trace.arrivals()[asked.arrival].model)
    }

    fn send(&mut self, request: RequestId, worker: WorkerId) {
        let Some(model) = self.model(request) else {
            return;
        };
        if let Some(asked) = self.asked.get_mut(&request) {
            asked.sent = self.now;
            asked.start = StartKind::Hot;
            asked.opened = Duration::ZERO;
        }
        if self.chance(self.world.faults.busy) {
            self.after(Duration::ZERO, Happening::Refused(request, worker));
            return;
        }
        if self.chance(self.world.faults.dies) {
            let when = self.about(self.world.models[model].run / 2);
            self.after(when, Happening::Dies(worker));
        }
        if let Some(found) = self.workers.get_mut(&worker) {
            found.there.push(request);
        }
        self.enter(request, worker, model);
    }

    fn enter(&mut self, request: RequestId, at: WorkerId, model: usize) {
        let costs = &self.world.models[model];
        let Some(worker) = self.workers.get_mut(&at) else {
            return;
        };
        match worker.enter(request, model, costs.bytes, costs.open) {
            Entered::Runs => self.runs(request, at, model),
            Entered::Opens => {
                let time = self.about(costs.open);
                if let Some(asked) = self.asked.get_mut(&request) {
                    asked.start = StartKind::Cold;
                    asked.began = self.now;
                }
                let opened = Happening::Opened(at, model);
                self.cores.begin(self.now, at, time, opened);
            }
            Entered::Waits => {}
        }
    }

    fn runs(&mut self, request: RequestId, at: WorkerId, model: usize) {
        let time = self.about(self.world.models[model].run);
        if let Some(asked) = self.asked.get_mut(&request) {
            if asked.start == StartKind::Cold {
                asked.opened = self.now - asked.began;
            }
            asked.began = self.now;
        }
        let then = match self.chance(self.world.faults.breaks) {
            true => Happening::Breaks(request, at),
            false => Happening::Ran(request, at),
        };
        self.cores.begin(self.now, at, time, then);
    }

    fn opened(&mut self, at: WorkerId, model: usize) {
        let Some(worker) = self.workers.get_mut(&at) else {
            return;
        };
        for request in worker.opened(model) {
            self.runs(request, at, model);
        }
        self.measure(at);
    }

    /// A request is done at a worker; false if the worker is gone.
    fn leaves(&mut self, request: RequestId, at: WorkerId) -> bool {
        let model = self.model(request);
        let Some((worker, model)) = self.workers.get_mut(&at).zip(model) else {
            return false;
        };
        for (blocked, model) in worker.ran(request, model) {
            self.enter(blocked, at, model);
        }
        true
    }

    fn ran(&mut self, request: RequestId, at: WorkerId) {
        if !self.leaves(request, at) {
            return;
        }
        let (Some(asked), Some(worker)) = (self.asked.get(&request), self.workers.get(&at)) else {
            return;
        };
        let took = self.now - asked.sent;
        let ran = self.now - asked.began;
        let waited = took.saturating_sub(ran).saturating_sub(asked.opened);
        let start = asked.start;
        let resident = worker.resident().take(64);
        let feedback = Feedback {
            start,
            lease_us: 0,
            open_us: asked.opened.as_micros() as u64,
            load_us: 0,
            run_us: ran.as_micros() as u64,
            total_us: took.as_micros() as u64,
            resident: resident
                .map(|model| self.world.models[model].package)
                .collect(),
            in_flight: worker.there.len() as u32,
            queue_us: waited.as_micros() as u64,
            free_bytes: worker.free(),
            engine: None,
            state: None,
        };
        self.finish(request, Ending::Answered { start: Some(start) });
        let feedback = Some(feedback);
        self.tell(Event::Answered {
            request,
            worker: at,
            took,
            feedback,
        });
        self.measure(at);
    }

    fn breaks(&mut self, request: RequestId, at: WorkerId) {
        if self.leaves(request, at) {
            self.finish(
                request,
                Ending::Failed {
                    kind: "Broken".to_owned(),
                },
            );
            self.tell(Event::Failed {
                request,
                worker: at,
                failure: Failure::Broken,
            });
        }
    }

    fn ends(&mut self, worker: WorkerId) {
        let Some(gone) = self.workers.remove(&worker) else {
            return;
        };
        self.cores.end(self.now, worker);
        self.tell(Event::Ended { worker });
        for request in gone.there {
            self.tell(Event::Failed {
                request,
                worker,
                failure: Failure::Lost,
            });
        }
    }

    /// Tells what a worker's process takes.
    fn measure(&mut self, worker: WorkerId) {
        if let Some(found) = self.workers.get(&worker) {
            let bytes = self.world.base + found.used();
            self.tell(Event::Measured { worker, bytes });
        }
    }

    fn finish(&mut self, request: RequestId, ending: Ending) {
        let Some(asked) = self.asked.remove(&request) else {
            return;
        };
        let arrival = self.trace.arrivals()[asked.arrival];
        self.done.push(Done {
            at: arrival.at,
            model: arrival.model,
            latency: self.now - arrival.at,
            late: Duration::ZERO,
            ending,
        });
    }
}
