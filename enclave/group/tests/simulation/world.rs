//! Places, the processes in them, and everything that befalls them.

use bield_group::{Founding, Group, MemberId, Position, Proposal, Replacement, Role, Slot, Timing};

use crate::audit::Auditor;
use crate::disk::{Disk, number};
use crate::network::Network;
use crate::random::Random;

/// What happened in a run.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) applied: u64,
    pub(crate) acknowledged: u64,
    pub(crate) formed: u64,
    pub(crate) joined: u64,
    pub(crate) killed: u64,
    pub(crate) deposed: u64,
    pub(crate) set_back: u64,
    pub(crate) letters: u64,
}

impl Outcome {
    pub(crate) const fn add(&mut self, other: &Self) {
        self.applied += other.applied;
        self.acknowledged += other.acknowledged;
        self.formed += other.formed;
        self.joined += other.joined;
        self.killed += other.killed;
        self.deposed += other.deposed;
        self.set_back += other.set_back;
        self.letters += other.letters;
    }
}

enum Part {
    /// Looks for a group, or for all others to form one.
    Forming,
    /// Is given the state of a position; has it at `at`.
    Fetching {
        position: Position,
        state: Vec<u64>,
        at: u64,
    },
    Member(Box<Group>),
}

struct Process {
    id: MemberId,
    part: Part,
    /// A place with a slow disk does nothing until then.
    stalled_until: u64,
    /// The record a client waits for here.
    proposed: Option<u64>,
}

struct Place {
    disk: Disk,
    /// An older disk that the host has kept.
    kept: Disk,
    /// The disk is older than what its place has acknowledged.
    is_set_back: bool,
    process: Option<Process>,
}

pub(crate) struct World {
    random: Random,
    now: u64,
    places: Vec<Place>,
    network: Network,
    auditor: Auditor,
    outcome: Outcome,
    next_record: u64,
    kill_once_in: usize,
    kill_all_once_in: usize,
    cut_once_in: usize,
    ask_once_in: usize,
    stall_once_in: usize,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let count = [3, 3, 5][random.below(3)];
        let place = || Place {
            disk: Disk::default(),
            kept: Disk::default(),
            is_set_back: false,
            process: None,
        };
        Self {
            now: 0,
            places: (0..count).map(|_| place()).collect(),
            network: Network::new(count, &mut random),
            auditor: Auditor::default(),
            outcome: Outcome::default(),
            next_record: 1,
            kill_once_in: [300, 120, 60][random.below(3)],
            kill_all_once_in: [2000, 300, 120][random.below(3)],
            cut_once_in: [0, 100, 40][random.below(3)],
            ask_once_in: [1, 10, 60][random.below(3)],
            stall_once_in: [0, 200, 60][random.below(3)],
            random,
        }
    }

    /// Trouble, then peace; in the end everybody must have everything and go on.
    pub(crate) fn run(mut self) -> Outcome {
        while self.now < TROUBLE {
            self.trouble();
            self.round();
        }
        self.network.heal();
        self.network.be_kind();
        while self.now < TROUBLE + PEACE {
            self.round();
        }
        let before = self.auditor.counts().1;
        for _ in 0..PROGRESS {
            self.round();
        }
        assert!(
            self.auditor.counts().1 > before,
            "no progress after healing"
        );
        // No new records; what is under way comes to an end.
        for _ in 0..PROGRESS {
            self.turn(false);
        }
        let leaders = self.members().filter(|group| group.role() == Role::Leader);
        assert_eq!(leaders.count(), 1, "one member leads in peace");
        let states: Vec<_> = self.places.iter().map(|p| &p.disk.committed[..]).collect();
        self.auditor.whole(&states);
        (self.outcome.applied, self.outcome.acknowledged) = self.auditor.counts();
        self.outcome
    }

    fn members(&self) -> impl Iterator<Item = &Group> {
        let processes = self.places.iter().filter_map(|p| p.process.as_ref());
        processes.filter_map(|process| match &process.part {
            Part::Member(group) => Some(&**group),
            _ => None,
        })
    }

    fn trouble(&mut self) {
        let slot = self.random.below(self.places.len());
        if self.random.once_in(self.kill_once_in) {
            self.kill(slot);
        }
        if self.random.once_in(self.kill_all_once_in) {
            (0..self.places.len()).for_each(|slot| self.kill(slot));
        }
        if self.random.once_in(self.cut_once_in) {
            self.network.cut(&mut self.random);
        }
        if self.random.once_in(60) {
            self.network.heal();
        }
        let place = &mut self.places[slot];
        if self.random.once_in(self.stall_once_in)
            && let Some(process) = &mut place.process
        {
            process.stalled_until = self.now + self.random.below(80) as u64;
        }
        if self.random.once_in(100) {
            place.kept = place.disk.clone();
        }
    }

    fn kill(&mut self, slot: usize) {
        self.outcome.killed += u64::from(self.places[slot].process.take().is_some());
    }

    fn round(&mut self) {
        self.turn(true);
    }

    fn turn(&mut self, clients: bool) {
        self.now += 1;
        for slot in 0..self.places.len() {
            if self.places[slot].process.is_none() && self.random.once_in(20) {
                self.start(slot);
            }
            // Clocks differ.
            if self.is_awake(slot) && !self.random.once_in(10) {
                self.act(slot);
            }
        }
        let asks = self.now >= TROUBLE || self.random.once_in(self.ask_once_in);
        if clients && asks {
            self.ask();
        }
        self.carry();
        self.form();
    }

    fn is_awake(&self, slot: usize) -> bool {
        let process = self.places[slot].process.as_ref();
        process.is_some_and(|process| process.stalled_until <= self.now)
    }

    /// A new process, perhaps on a disk that the host has set back or emptied: at most as many at a
    /// time as a group may lose.
    fn start(&mut self, slot: usize) {
        let set_back = self.places.iter().filter(|p| p.is_set_back).count();
        let may_set_back = self.now < TROUBLE
            && (self.places[slot].is_set_back || set_back < (self.places.len() - 1) / 2);
        if may_set_back && self.random.once_in(4) {
            let emptied = self.random.once_in(3);
            let place = &mut self.places[slot];
            let old = if emptied {
                Disk::default()
            } else {
                place.kept.clone()
            };
            if old != place.disk {
                place.disk = old;
                place.is_set_back = true;
                self.outcome.set_back += 1;
            }
        }
        let id = MemberId::new(slot as Slot, self.random.next()).unwrap();
        self.places[slot].process = Some(Process {
            id,
            part: Part::Forming,
            stalled_until: 0,
            proposed: None,
        });
    }

    fn act(&mut self, slot: usize) {
        let place = &mut self.places[slot];
        let process = place.process.as_mut().unwrap();
        match &mut process.part {
            Part::Forming => self.look_for_a_leader(slot),
            Part::Fetching {
                position,
                state,
                at,
            } if *at <= self.now => {
                place.disk.install(state, position.term);
                place.is_set_back = false;
                let id = process.id;
                let group = Group::follow(id, position, Timing::default()).unwrap();
                process.part = Part::Member(Box::new(group));
                self.outcome.joined += 1;
            }
            Part::Fetching { .. } => {}
            Part::Member(group) => {
                group.tick();
                let over = match group.role() {
                    Role::Deposed => {
                        self.outcome.deposed += 1;
                        true
                    }
                    Role::LeftBehind => true,
                    _ => group.leaderless_ticks() > LEADERLESS,
                };
                if over {
                    self.places[slot].process = None;
                } else {
                    self.knock(slot);
                    self.work(slot);
                }
            }
        }
    }

    /// Does what the group orders; may be killed in the middle of it.
    fn work(&mut self, slot: usize) {
        loop {
            let trouble = self.now < TROUBLE;
            let place = &mut self.places[slot];
            let process = place.process.as_mut().unwrap();
            let Part::Member(group) = &mut process.part else {
                return;
            };
            let Some(work) = group.ready().unwrap() else {
                return;
            };
            let id = process.id;
            for (to, bytes) in work.now {
                self.network
                    .send((id, to, bytes), self.now, &mut self.random);
            }
            for step in work.steps {
                if trouble && self.random.once_in(self.kill_once_in * 10) {
                    self.kill(slot);
                    return;
                }
                place.disk.take(&step);
                if let bield_group::Step::Commit { record, .. } = step {
                    self.auditor.seen(&place.disk.committed);
                    if process.proposed == Some(number(&record)) {
                        process.proposed = None;
                        self.auditor.acknowledged(number(&record));
                    }
                }
            }
            for (to, bytes) in work.later {
                self.network
                    .send((id, to, bytes), self.now, &mut self.random);
            }
            group.persisted();
            if group.role() == Role::Leader {
                self.auditor.seen(&place.disk.committed);
            }
        }
    }

    /// A process without a group asks a leader it reaches for the state.
    fn look_for_a_leader(&mut self, slot: usize) {
        let Some(leader) = self.leader_near(slot) else {
            return;
        };
        let Some(id) = self.places[slot].process.as_ref().map(|p| p.id) else {
            return;
        };
        let place = &mut self.places[leader];
        let Some(Process {
            part: Part::Member(group),
            ..
        }) = &mut place.process
        else {
            return;
        };
        if group.admits(id) != Replacement::Begun {
            return;
        }
        let Some(position) = group.position() else {
            return;
        };
        let state = place.disk.committed.clone();
        let at = self.now + self.random.below(60) as u64;
        if let Some(process) = &mut self.places[slot].process {
            process.part = Part::Fetching {
                position,
                state,
                at,
            };
        }
    }

    /// A process that follows and does not vote yet asks the leader to be taken in.
    fn knock(&mut self, slot: usize) {
        let Some(Process {
            id,
            part: Part::Member(group),
            ..
        }) = &self.places[slot].process
        else {
            return;
        };
        let (id, name) = (*id, group.name());
        if group.configuration().votes(id) {
            return;
        }
        if let Some(leader) = self.leader_near(slot)
            && let Some(process) = &mut self.places[leader].process
            && let Part::Member(group) = &mut process.part
            && group.name() == name
        {
            let answer = group.replace(id);
            assert_ne!(answer, Replacement::NotLeader);
        }
    }

    fn leader_near(&mut self, slot: usize) -> Option<usize> {
        let leaders: Vec<usize> = (0..self.places.len())
            .filter(|other| self.is_awake(*other))
            .filter(|other| self.network.connects(slot as Slot, *other as Slot))
            .filter(
                |other| match self.places[*other].process.as_ref().map(|p| &p.part) {
                    Some(Part::Member(group)) => group.role() == Role::Leader,
                    _ => false,
                },
            )
            .collect();
        (!leaders.is_empty()).then(|| leaders[self.random.below(leaders.len())])
    }

    /// A client asks whoever says that it leads.
    fn ask(&mut self) {
        let slot = self.random.below(self.places.len());
        if !self.is_awake(slot) {
            return;
        }
        let Some(process) = &mut self.places[slot].process else {
            return;
        };
        let Part::Member(group) = &mut process.part else {
            return;
        };
        let record = self.next_record;
        match group.propose(record.to_be_bytes().to_vec()) {
            Proposal::Taken => {
                self.next_record += 1;
                process.proposed = Some(record);
            }
            Proposal::NotLeader | Proposal::Busy => {}
            Proposal::Length => panic!("8 bytes are no length for a record"),
        }
    }

    fn carry(&mut self) {
        while let Some(letter) = self.network.arrive(self.now, &mut self.random) {
            let (from, to) = (letter.from.slot(), letter.to.slot());
            if !self.network.connects(from, to) || !self.is_awake(usize::from(to)) {
                continue;
            }
            let Some(process) = &mut self.places[usize::from(to)].process else {
                continue;
            };
            let Part::Member(group) = &mut process.part else {
                continue;
            };
            if process.id == letter.to {
                self.outcome.letters += 1;
                // Letters of an earlier group are refused, and that is all.
                let _ = group.step(letter.from, &letter.bytes);
                self.work(usize::from(to));
            }
        }
    }

    /// All are there, none has a group, all hear each other: they promise, and most learn that all did.
    fn form(&mut self) {
        let forming = |place: &Place| {
            let process = place.process.as_ref();
            process
                .filter(|process| matches!(process.part, Part::Forming))
                .map(|p| p.id)
        };
        let members: Option<Vec<MemberId>> = self.places.iter().map(forming).collect();
        let Some(members) = members else { return };
        let slots = 0..self.places.len();
        let together = slots
            .clone()
            .all(|s| self.network.connects(0, s as Slot) && self.is_awake(s));
        if !together {
            return;
        }
        let best = slots
            .clone()
            .max_by_key(|slot| self.places[*slot].disk.head())
            .unwrap();
        let term = self.places[best].disk.term + 1;
        let mut group = [0; 16];
        group[..8].copy_from_slice(&self.random.next().to_be_bytes());
        let founding = Founding {
            group,
            term,
            members,
        };
        self.places[best].disk.settle();
        let state = self.places[best].disk.clone();
        self.auditor.formed_from(&state);
        self.outcome.formed += 1;
        for slot in slots {
            // A process that promised and never learns what came of it ends.
            if self.now < TROUBLE && self.random.once_in(12) {
                self.kill(slot);
                continue;
            }
            let place = &mut self.places[slot];
            if place.disk != state {
                place.disk.install(&state.committed, term);
            }
            place.is_set_back = false;
            let process = place.process.as_mut().unwrap();
            let group = Group::found(process.id, &founding, Timing::default()).unwrap();
            process.part = Part::Member(Box::new(group));
        }
    }
}

const TROUBLE: u64 = 2500;
const PEACE: u64 = 1200;
const PROGRESS: usize = 200;
/// Ticks without a leader after which a process gives up its group.
const LEADERLESS: u64 = 300;
