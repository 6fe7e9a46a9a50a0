//! The newest records of one writer, and how far each sink has come with them.
//!
//! ```text
//!            base                                    next
//!   … trimmed │ r │ r │ r │ r │ r │ r │ r │ r │ r │ r │ ◀── signer
//!                   ▲           ▲                   ▲
//!                sink C      sink A              sink B          each takes all it has not sent yet
//!              (behind: fetched from others)
//! ```
//!
//! In: sealed records; what sinks keep. Out: runs for each sink; the ticket that each durability
//! level has reached. Always true: memory is bounded; a record is let go only when a quorum keeps it
//! or every sink that still works has it; a slow or dead sink never holds up a quorum of others.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bield_capsule::{Acknowledgement, Durability, Head, Kept, Received, Ticket};
use bield_envelope::{Principal, Signed, Verified};

use super::sink::Stored;

/// Records kept for sinks that lag behind, in bytes.
pub(super) const WINDOW_BYTES_MAX: usize = 64 << 20;

/// Bytes of one run: what a replica takes in one request.
pub(super) const RUN_BYTES_MAX: usize = 7 << 20;

/// How a sink is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// It keeps up.
    Live,
    /// It is sent older records, fetched from other replicas.
    CatchingUp,
    /// It did not answer; it is asked again.
    Down(String),
    /// It is asked no more.
    Out(String),
}

/// How far a sink has come.
#[derive(Debug, Clone)]
pub struct SinkState {
    /// What people call it.
    pub name: String,
    /// Who it is, when it is a replica.
    pub principal: Option<Principal>,
    /// How it is.
    pub health: Health,
    /// The newest record it keeps.
    pub head: Option<Head>,
    /// How safely.
    pub kept: Option<Kept>,
}

/// Why a level was not reached.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum NotReached {
    /// Too few sinks are left.
    #[error(
        "{level} cannot be reached, everything is at {reached} so far: {why}; wait until enough \
         replicas answer"
    )]
    TooFew {
        /// What was waited for.
        level: Durability,
        /// What everything sent so far has reached.
        reached: Durability,
        /// How the sinks are.
        why: String,
    },
    /// The writer stopped.
    #[error("the writer stopped: {0}")]
    Stopped(String),
    /// Two records of this writer stand at one position, which is proven.
    #[error("{0}")]
    Forked(String),
}

pub(super) struct Window {
    state: Mutex<State>,
    /// The signer made a record, or everything ends.
    grown: Condvar,
    /// A sink came further, or its health changed.
    moved: Condvar,
    /// Everything ends.
    ended: Condvar,
    local: Option<usize>,
    patience: Duration,
    quorum: usize,
}

struct State {
    base: u64,
    slots: VecDeque<Slot>,
    bytes: usize,
    lanes: Vec<Lane>,
    sent: Point,
    ending: bool,
    stopped: Option<NotReached>,
    /// Threads that wait: nobody is woken when nobody sleeps.
    sleeping: usize,
    watching: usize,
}

struct Slot {
    record: Arc<Received>,
    ticket: Ticket,
}

/// A position of the chain, as tickets and as records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Point {
    /// Records up to here, not included.
    end: u64,
    ticket: Ticket,
}

struct Lane {
    state: SinkState,
    down_since: Option<Instant>,
    /// Since when a request is under way.
    busy_since: Option<Instant>,
    /// Kept at all, written, synced.
    points: [Point; 3],
    acknowledgement: Option<Verified<Acknowledgement>>,
}

/// What a sink's thread does next.
pub(super) enum Work {
    /// Sends the run.
    Run,
    /// Fetches what is older than the window, up to here (not included), and sends that.
    Behind { end: u64 },
    /// Ends.
    Done,
}

impl Window {
    /// Begins before the record `base`; `local` is the sink on the writer's own machine.
    pub(super) fn new(
        base: u64,
        sinks: impl IntoIterator<Item = (String, Option<Principal>)>,
        local: Option<usize>,
        quorum: usize,
        patience: Duration,
    ) -> Self {
        let start = Point {
            end: base,
            ticket: Ticket::new(0),
        };
        let lanes = sinks.into_iter().map(|(name, principal)| Lane {
            state: SinkState {
                name,
                principal,
                health: Health::Live,
                head: None,
                kept: None,
            },
            down_since: None,
            busy_since: None,
            points: [start; 3],
            acknowledgement: None,
        });
        Self {
            state: Mutex::new(State {
                base,
                slots: VecDeque::new(),
                bytes: 0,
                lanes: lanes.collect(),
                sent: start,
                ending: false,
                stopped: None,
                sleeping: 0,
                watching: 0,
            }),
            grown: Condvar::new(),
            moved: Condvar::new(),
            ended: Condvar::new(),
            local,
            patience,
            quorum,
        }
    }

    /// Adds the next record, which carries every ticket up to `ticket`. Waits while the window is full
    /// of records that no quorum keeps.
    pub(super) fn push(&self, record: Arc<Received>, ticket: Ticket) -> Result<(), NotReached> {
        let mut state = self.lock();
        let bytes = record.as_bytes().len();
        while !state.lanes.is_empty() && state.bytes + bytes > WINDOW_BYTES_MAX {
            state.trim(self.quorum, self.patience);
            if state.bytes + bytes <= WINDOW_BYTES_MAX || state.slots.is_empty() {
                break;
            }
            if let Some(why) = &state.stopped {
                return Err(why.clone());
            }
            let hopeful = state
                .lanes
                .iter()
                .filter(|lane| lane.is_hopeful(self.patience));
            if hopeful.count() < self.quorum {
                return Err(state.too_few(Durability::Sent, self.patience));
            }
            state = self.watch(state);
        }
        state.sent = Point {
            end: record.header().seq + 1,
            ticket: ticket.max(state.sent.ticket),
        };
        if state.lanes.is_empty() {
            state.base = state.sent.end;
        } else {
            state.bytes += bytes;
            state.slots.push_back(Slot { record, ticket });
            if state.sleeping > 0 {
                self.grown.notify_all();
            }
        }
        if state.watching > 0 {
            self.moved.notify_all();
        }
        Ok(())
    }

    /// Fills `run` with what the sink `lane` has not sent yet, from `cursor`; waits while there is
    /// nothing.
    pub(super) fn next(&self, cursor: u64, run: &mut Vec<Arc<Received>>) -> Work {
        run.clear();
        let mut state = self.lock();
        loop {
            if cursor < state.base {
                return Work::Behind { end: state.base };
            }
            let skip = usize::try_from(cursor - state.base).unwrap_or(usize::MAX);
            let mut bytes = 0;
            for slot in state.slots.iter().skip(skip) {
                bytes += slot.record.as_bytes().len() + frames_head();
                if bytes > RUN_BYTES_MAX && !run.is_empty() {
                    break;
                }
                run.push(Arc::clone(&slot.record));
            }
            if !run.is_empty() {
                return Work::Run;
            }
            if state.ending || state.stopped.is_some() {
                return Work::Done;
            }
            state.sleeping += 1;
            state = self
                .grown
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
            state.sleeping -= 1;
        }
    }

    /// Notes that a sink was given a run, and has yet to answer.
    pub(super) fn sends(&self, lane: usize) {
        self.lock().lanes[lane].busy_since = Some(Instant::now());
    }

    /// Notes what a sink keeps.
    pub(super) fn kept(&self, lane: usize, stored: Stored) {
        let mut state = self.lock();
        let end = stored.head.seq + 1;
        let ticket = state.ticket_before(end);
        let patience = self.patience;
        let own = &mut state.lanes[lane];
        own.down_since = None;
        own.busy_since = None;
        own.state.health = Health::Live;
        own.state.head = Some(stored.head);
        own.state.kept = Some(stored.kept);
        for point in &mut own.points[..=stored.kept as usize] {
            let ticket = ticket.unwrap_or(point.ticket);
            *point = (*point).max(Point { end, ticket });
        }
        if stored.acknowledgement.is_some() {
            own.acknowledgement = stored.acknowledgement;
        }
        if state.bytes > WINDOW_BYTES_MAX / 2 || state.slots.len() > SLOTS_KEPT {
            state.trim(self.quorum, patience);
        }
        if state.watching > 0 {
            self.moved.notify_all();
        }
    }

    /// Waits until every sink that works has everything, at most so long.
    pub(super) fn settle(&self, span: Duration) {
        let until = Instant::now() + span;
        let mut state = self.lock();
        loop {
            let end = state.sent.end;
            let mut working = state
                .lanes
                .iter()
                .filter(|lane| matches!(lane.state.health, Health::Live | Health::CatchingUp));
            if working.all(|lane| lane.points[0].end >= end) || Instant::now() >= until {
                return;
            }
            state = self.watch(state);
        }
    }

    /// Tells `hold` whether a quorum of replicas is busy with what it was given: a record more would
    /// only wait, and cost each of them a signature check. Under the lock, so that the last word is
    /// right.
    pub(super) fn clock(&self, hold: impl FnOnce(bool)) {
        let state = self.lock();
        hold(state.is_busy(self.quorum, self.patience));
    }

    /// Notes that a sink is not well.
    pub(super) fn ails(&self, lane: usize, health: Health) {
        let mut state = self.lock();
        let own = &mut state.lanes[lane];
        own.busy_since = None;
        if matches!(health, Health::Down(_)) && own.down_since.is_none() {
            own.down_since = Some(Instant::now());
        }
        own.state.health = health;
        self.moved.notify_all();
    }

    /// Waits `pause`, or until everything ends; says whether it does.
    pub(super) fn rest(&self, pause: Duration) -> bool {
        let until = Instant::now() + pause;
        let mut state = self.lock();
        loop {
            if state.stopped.is_some() || state.ending {
                return true;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let waited = self.ended.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits until `ticket` has reached `level`, or cannot any more.
    pub(super) fn wait(&self, ticket: Ticket, level: Durability) -> Result<(), NotReached> {
        self.wait_until(level, |point| point.ticket >= ticket)
    }

    /// Waits until the record `seq` has reached `level`, or cannot any more.
    pub(super) fn wait_record(&self, seq: u64, level: Durability) -> Result<(), NotReached> {
        self.wait_until(level, |point| point.end > seq)
    }

    /// Whether the record `seq` has reached `level`.
    pub(super) fn has_reached(&self, seq: u64, level: Durability) -> bool {
        let point = self.lock().point(level, self.local);
        point.is_some_and(|point| point.end > seq)
    }

    /// The newest ticket that has reached `level`.
    pub(super) fn reached(&self, level: Durability) -> Ticket {
        let state = self.lock();
        state
            .point(level, self.local)
            .map_or(Ticket::new(0), |point| point.ticket)
    }

    /// How many records were handed over.
    pub(super) fn end(&self) -> u64 {
        self.lock().sent.end
    }

    pub(super) fn sinks(&self) -> Vec<SinkState> {
        let state = self.lock();
        let shown = state.lanes.iter().map(|lane| {
            let mut shown = lane.state.clone();
            if let Some(why) = lane.stalls(self.patience) {
                shown.health = Health::Down(why);
            }
            shown
        });
        shown.collect()
    }

    /// Signed words for exactly the newest record, and that record.
    pub(super) fn newest(&self) -> Option<(Arc<Received>, Vec<Signed<Acknowledgement>>)> {
        let state = self.lock();
        let record = Arc::clone(&state.slots.back()?.record);
        let said = state.lanes.iter();
        let said = said.filter_map(|lane| lane.acknowledgement.as_ref());
        let said = said.filter(|said| said.head() == record.head());
        let said = said.map(|said| said.as_signed().clone()).collect();
        Some((record, said))
    }

    /// No more records come: sinks end when they have sent all.
    pub(super) fn end_here(&self) {
        self.lock().ending = true;
        self.grown.notify_all();
        self.moved.notify_all();
        self.ended.notify_all();
    }

    /// Something failed for good: everybody ends.
    pub(super) fn stop(&self, why: String) {
        self.stop_for(NotReached::Stopped(why));
    }

    /// The same, for this reason.
    pub(super) fn stop_for(&self, why: NotReached) {
        self.lock().stopped.get_or_insert(why);
        self.grown.notify_all();
        self.moved.notify_all();
        self.ended.notify_all();
    }

    pub(super) fn is_stopped(&self) -> Option<NotReached> {
        self.lock().stopped.clone()
    }

    fn wait_until(
        &self,
        level: Durability,
        reached: impl Fn(Point) -> bool,
    ) -> Result<(), NotReached> {
        let mut state = self.lock();
        loop {
            match state.point(level, self.local) {
                Some(point) if reached(point) => return Ok(()),
                Some(_) => {}
                None => return Err(state.too_few(level, self.patience)),
            }
            if let Some(why) = &state.stopped {
                return Err(why.clone());
            }
            if !state.may_reach(level, self.local, self.patience, &reached) {
                return Err(state.too_few(level, self.patience));
            }
            state = self.watch(state);
        }
    }

    fn watch<'a>(&self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        state.watching += 1;
        // The timeout notices sinks whose patience ran out without an event.
        let waited = self.moved.wait_timeout(state, GLANCE);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner).0;
        state.watching -= 1;
        state
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// What has reached `level`; `None` when there are not even enough sinks for it.
    fn point(&self, level: Durability, local: Option<usize>) -> Option<Point> {
        match level {
            Durability::Memory | Durability::Sent => Some(self.sent),
            Durability::Local => Some(self.lanes.get(local?)?.points[Kept::Written as usize]),
            Durability::LocalSync => Some(self.lanes.get(local?)?.points[Kept::Synced as usize]),
            Durability::Replicated(count) => self.synced(usize::from(count)),
            // Cosignatures come after acknowledgements, and from elsewhere.
            Durability::Witnessed(..) => None,
        }
    }

    /// The point up to which `count` replicas keep everything, synced.
    fn synced(&self, count: usize) -> Option<Point> {
        let mut points = [None; LANES_MAX];
        let replicas = self
            .lanes
            .iter()
            .filter(|lane| lane.state.principal.is_some());
        let mut found = 0;
        for (lane, point) in replicas.zip(&mut points) {
            *point = Some(lane.points[Kept::Synced as usize]);
            found += 1;
        }
        points[..found].sort_unstable_by(|a, b| b.cmp(a));
        points[..found]
            .get(count.checked_sub(1)?)
            .copied()
            .flatten()
    }

    /// Whether enough sinks are there already or may still come there.
    fn may_reach(
        &self,
        level: Durability,
        local: Option<usize>,
        patience: Duration,
        reached: impl Fn(Point) -> bool,
    ) -> bool {
        let hopeful = |lane: &Lane, kept: Kept| {
            reached(lane.points[kept as usize]) || lane.is_hopeful(patience)
        };
        match level {
            Durability::Memory | Durability::Sent => true,
            Durability::Local | Durability::LocalSync => local
                .and_then(|local| self.lanes.get(local))
                .is_some_and(|lane| hopeful(lane, Kept::Synced)),
            Durability::Replicated(count) => {
                let replicas = self
                    .lanes
                    .iter()
                    .filter(|lane| lane.state.principal.is_some());
                replicas.filter(|lane| hopeful(lane, Kept::Synced)).count() >= usize::from(count)
            }
            Durability::Witnessed(..) => false,
        }
    }

    fn too_few(&self, level: Durability, patience: Duration) -> NotReached {
        let ailing = self
            .lanes
            .iter()
            .filter_map(|lane| match &lane.state.health {
                Health::Live | Health::CatchingUp => lane.stalls(patience),
                Health::Down(why) | Health::Out(why) => Some(why.clone()),
            });
        let ailing: Vec<_> = ailing.collect();
        let why = if ailing.is_empty() {
            format!("there are {} places to keep records", self.lanes.len())
        } else {
            ailing.join("; ")
        };
        let whole = |level: &Durability| {
            let point = self.point(*level, None);
            point.is_some_and(|point| point.end >= self.sent.end)
        };
        let count = u8::try_from(self.lanes.len()).unwrap_or(u8::MAX);
        let reached = (1..=count).rev().map(Durability::Replicated).find(whole);
        NotReached::TooFew {
            level,
            reached: reached.unwrap_or(Durability::Sent),
            why,
        }
    }

    /// The newest ticket in the records before `end`; unknown when those were let go.
    fn ticket_before(&self, end: u64) -> Option<Ticket> {
        let at = end.checked_sub(self.base)?.checked_sub(1)?;
        let slot = self.slots.get(usize::try_from(at).ok()?)?;
        Some(slot.ticket)
    }

    /// Whether a quorum of replicas that may answer has yet to answer for a record. A journal does not
    /// count: it takes records without a look at them, and many as fast as one.
    fn is_busy(&self, quorum: usize, patience: Duration) -> bool {
        if self.ending || self.stopped.is_some() {
            return false;
        }
        let replicas = self.lanes.iter();
        let replicas = replicas.filter(|lane| lane.state.principal.is_some());
        let hopeful = replicas.filter(|lane| lane.is_hopeful(patience));
        let mut ends: Vec<_> = hopeful.map(|lane| lane.points[0].end).collect();
        ends.sort_unstable_by(|a, b| b.cmp(a));
        let end = ends.get(quorum.max(1) - 1);
        end.is_some_and(|end| *end < self.sent.end)
    }

    /// Lets go of what every working sink has, and of what a quorum keeps when memory is short.
    fn trim(&mut self, quorum: usize, patience: Duration) {
        let everywhere = self.lanes.iter().filter(|lane| lane.is_hopeful(patience));
        let mut end = everywhere.map(|lane| lane.points[0].end).min().unwrap_or(0);
        if self.bytes > WINDOW_BYTES_MAX / 2 {
            let mut ends: Vec<_> = self.lanes.iter().map(|lane| lane.points[0].end).collect();
            ends.sort_unstable_by(|a, b| b.cmp(a));
            let quorum = quorum.clamp(1, ends.len().max(1));
            end = end.max(ends.get(quorum - 1).copied().unwrap_or(0));
        }
        // The newest stays: receipts are about it.
        while self.base < end && self.slots.len() > 1 {
            if let Some(slot) = self.slots.pop_front() {
                self.bytes -= slot.record.as_bytes().len();
                self.base += 1;
            }
        }
    }
}

impl Lane {
    /// Why nobody waits for it, when a request has been under way for too long.
    fn stalls(&self, patience: Duration) -> Option<String> {
        let since = self.busy_since?.elapsed();
        (since >= patience).then(|| {
            format!(
                "{} has not answered for {} s; its operator must look",
                self.state.name,
                since.as_secs()
            )
        })
    }

    fn is_hopeful(&self, patience: Duration) -> bool {
        match self.state.health {
            Health::Live | Health::CatchingUp => self.stalls(patience).is_none(),
            Health::Down(_) => self
                .down_since
                .is_none_or(|since| since.elapsed() < patience),
            Health::Out(_) => false,
        }
    }
}

const fn frames_head() -> usize {
    super::frames::FRAME_HEAD_BYTES
}

/// Most sinks: as many as a configuration has replicas, and a journal.
pub(super) const LANES_MAX: usize = bield_capsule::REPLICAS_MAX + 1;
/// How often somebody who waits looks at the clock.
const GLANCE: Duration = Duration::from_millis(200);
/// Records below which letting go is not worth a look.
const SLOTS_KEPT: usize = 64;
