//! What happens next: drawn from the seed.

use super::*;

impl World {
    pub(super) fn step(&mut self) {
        match self.random.below(20) {
            0..=6 => self.arrive(),
            7..=9 => self.answer(),
            10 => self.come_back(),
            11 => self.fail(),
            12 => self.leave(),
            13..=15 => self.begin(),
            16 => self.end(),
            17 => self.stray(),
            _ => self.pass(),
        }
    }

    fn package(&mut self) -> Digest {
        Digest::from_bytes([self.random.below(6) as u8 + 1; 32])
    }

    fn arrive(&mut self) {
        let request = RequestId(self.asked.len() as u64);
        let (package, caller) = (self.package(), Caller(self.random.below(4)));
        let patience = [0, 1, 100, 5000, 5000, 5000, u64::MAX];
        let patience = Duration::from_millis(self.random.pick(&patience).unwrap());
        let deadline = self.now.saturating_add(patience);
        let asked = Asked {
            state: State::Waits,
            package,
            deadline,
            dispatches: 0,
            may_repeat: false,
            left: false,
        };
        self.asked.insert(request, asked);
        self.tell(Event::Arrived {
            request,
            package,
            caller,
            deadline,
        });
    }

    /// One that the driver has to say a word of; its worker may be long gone.
    fn at_work(&mut self) -> Option<(RequestId, WorkerId)> {
        let there = self
            .asked
            .iter()
            .filter_map(|(id, asked)| match asked.state {
                State::At(worker) => Some((*id, worker)),
                State::Waits | State::Done => None,
            });
        let there: Vec<_> = there.collect();
        self.random.pick(&there)
    }

    fn take(&mut self, request: RequestId, done: bool) {
        let asked = self.asked.get_mut(&request).unwrap();
        if let State::At(worker) = asked.state
            && let Some(made) = self.made.get_mut(&worker)
        {
            made.there.retain(|other| *other != request);
        }
        let repeats = !done && !asked.left;
        asked.state = if repeats { State::Waits } else { State::Done };
        asked.may_repeat = repeats;
    }

    fn come_back(&mut self) {
        if let Some((request, worker)) = self.at_work() {
            self.take(request, true);
            self.tell(Event::Returned { request, worker });
        }
    }

    fn answer(&mut self) {
        let Some((request, worker)) = self.at_work() else {
            return;
        };
        let took = Duration::from_millis(self.random.below(300));
        let feedback = (!self.random.one_in(5)).then(|| self.feedback());
        self.take(request, true);
        self.tell(Event::Answered {
            request,
            worker,
            took,
            feedback,
        });
    }

    fn feedback(&mut self) -> Feedback {
        let liar = self.random.one_in(4);
        let mut number = |most: u64| {
            let lie = [0, u64::MAX, u64::MAX / 2, 1 << 40];
            if liar {
                self.random.pick(&lie).unwrap()
            } else {
                self.random.below(most)
            }
        };
        let numbers = [300_000, 300_000, 300_000, 50_000, 1_000_000, 50_000, 1000].map(&mut number);
        let [
            lease_us,
            open_us,
            load_us,
            run_us,
            total_us,
            queue_us,
            free_bytes,
        ] = numbers;
        let resident = match liar {
            true => (0..100)
                .map(|_| Digest::from_bytes([self.random.next() as u8; 32]))
                .collect(),
            false => (0..self.random.below(4)).map(|_| self.package()).collect(),
        };
        let starts = [
            StartKind::Hot,
            StartKind::WarmModel,
            StartKind::WarmKey,
            StartKind::Cold,
        ];
        Feedback {
            start: self.random.pick(&starts).unwrap(),
            lease_us,
            open_us,
            load_us,
            run_us,
            total_us,
            resident,
            in_flight: 0,
            queue_us,
            free_bytes,
            engine: None,
            state: match self.random.below(4) {
                0 => Some(StatePlace::Here),
                1 => Some(StatePlace::Elsewhere(self.random.below(40_000))),
                _ => None,
            },
        }
    }

    fn fail(&mut self) {
        let Some((request, worker)) = self.at_work() else {
            return;
        };
        let kinds = [
            Failure::Lost,
            Failure::Busy,
            Failure::TimedOut,
            Failure::Broken,
        ];
        let failure = self.random.pick(&kinds).unwrap();
        self.take(
            request,
            matches!(failure, Failure::TimedOut | Failure::Broken),
        );
        self.tell(Event::Failed {
            request,
            worker,
            failure,
        });
    }

    fn leave(&mut self) {
        let there = self
            .asked
            .iter()
            .filter(|(_, asked)| asked.state != State::Done);
        let there: Vec<_> = there.map(|(id, _)| *id).collect();
        let Some(request) = self.random.pick(&there) else {
            return;
        };
        let asked = self.asked.get_mut(&request).unwrap();
        asked.left = true;
        if asked.state == State::Waits {
            asked.state = State::Done;
        }
        self.tell(Event::Left { request });
    }

    fn begin(&mut self) {
        let starting = self.made.iter().filter(|(_, made)| !made.serves);
        let starting: Vec<_> = starting.map(|(id, _)| *id).collect();
        let Some(worker) = self.random.pick(&starting) else {
            return;
        };
        if self.random.one_in(5) {
            self.made.remove(&worker);
            self.tell(Event::StartFailed { worker });
        } else {
            self.made.get_mut(&worker).unwrap().serves = true;
            let took = Duration::from_millis(self.random.below(3000));
            self.tell(Event::Started { worker, took });
        }
    }

    /// A worker is gone, most often one that was told to.
    fn end(&mut self) {
        let surprise = self.random.one_in(3);
        let ending = self
            .made
            .iter()
            .filter(|(_, made)| made.stopped || surprise);
        let ending: Vec<_> = ending.map(|(id, _)| *id).collect();
        let Some(worker) = self.random.pick(&ending) else {
            return;
        };
        let made = self.made.remove(&worker).unwrap();
        self.tell(Event::Ended { worker });
        for request in made.there {
            // Of some the driver says so later, or that they were answered.
            if !self.random.one_in(3) {
                self.take(request, false);
                self.tell(Event::Failed {
                    request,
                    worker,
                    failure: Failure::Lost,
                });
            }
        }
    }

    /// What cannot be, and what may be at any time.
    fn stray(&mut self) {
        let (worker, request) = (WorkerId(u64::MAX - 1), RequestId(u64::MAX - 1));
        let package = self.package();
        let bytes = [0, 10, 400, u64::MAX];
        let bytes = self.random.pick(&bytes).unwrap();
        let alive: Vec<_> = self.made.keys().copied().collect();
        let measured = self.random.pick(&alive).unwrap_or(worker);
        let took = Duration::MAX;
        // A word on one that is, but not there.
        let asked = self
            .asked
            .iter()
            .filter(|(_, asked)| asked.state != State::At(measured));
        let asked: Vec<_> = asked.map(|(id, _)| *id).collect();
        let running = self.random.pick(&asked).unwrap_or(request);
        let event = match self.random.below(9) {
            0 => Event::Ended { worker },
            1 => Event::Started { worker, took },
            2 => Event::StartFailed { worker },
            3 => Event::Answered {
                request: running,
                worker,
                took,
                feedback: None,
            },
            4 => Event::Failed {
                request: running,
                worker: measured,
                failure: Failure::Lost,
            },
            5 => Event::Left { request },
            7 => Event::Returned {
                request: running,
                worker: measured,
            },
            6 => Event::Measured {
                worker: measured,
                bytes,
            },
            _ => Event::Sized { package, bytes },
        };
        self.tell(event);
    }

    fn pass(&mut self) {
        let step = Duration::from_millis(self.random.pick(&[1, 10, 100, 1000, 10_000]).unwrap());
        self.pass_until(self.now + step);
    }

    /// Time passes, with the ticks that are due.
    fn pass_until(&mut self, until: Duration) {
        let mut ticks = 0;
        while let Some(due) = self.packer.wakes_at().filter(|due| *due <= until) {
            self.now = self.now.max(due);
            self.tell(Event::Tick);
            let next = self.packer.wakes_at();
            assert!(
                next.is_none_or(|next| next > self.now),
                "{}: again at once",
                self.seed
            );
            ticks += 1;
            assert!(ticks < 30_000, "{}: ticks without end", self.seed);
        }
        self.now = until;
        self.tell(Event::Tick);
    }

    /// No more requests; everybody does what is asked of them, and it comes to rest.
    pub(super) fn rest(&mut self) {
        let quiet_from = self.starts;
        for round in 0..40 {
            while let Some((request, worker)) = self.at_work() {
                self.take(request, true);
                self.tell(Event::Answered {
                    request,
                    worker,
                    took: MS,
                    feedback: None,
                });
            }
            let all: Vec<_> = self
                .made
                .iter()
                .map(|(id, m)| (*id, m.serves, m.stopped))
                .collect();
            for (worker, serves, stopped) in all {
                if stopped {
                    self.made.remove(&worker);
                    self.tell(Event::Ended { worker });
                } else if !serves {
                    self.made.get_mut(&worker).unwrap().serves = true;
                    self.tell(Event::Started { worker, took: MS });
                }
            }
            self.pass_until(self.now + MS * 10_000);
            if round == 20 {
                let asked = self.asked.values();
                let open =
                    asked.filter(|asked| asked.state != State::Done && asked.deadline < self.now);
                assert_eq!(open.count(), 0, "{}: nobody is left waiting", self.seed);
                self.starts = 0;
            }
        }
        let settings = &self.packer.settings;
        let open = self
            .asked
            .values()
            .filter(|asked| asked.state != State::Done);
        assert_eq!(open.count(), 0, "{}: everybody was answered", self.seed);
        assert_eq!(
            self.starts, 0,
            "{}: no worker starts for nobody (before: {quiet_from})",
            self.seed
        );
        let kept = match settings.policy {
            Policy::Bield => settings
                .workers_min
                .max(settings.spares)
                .min(settings.workers_max),
            _ => 0,
        };
        assert!(
            self.made.len() <= kept as usize,
            "{}: {:?}",
            self.seed,
            self.made
        );
    }
}
