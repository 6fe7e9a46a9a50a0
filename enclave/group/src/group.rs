//! One member's part: Raft driven by letters and ticks, and the rules of a group around it.
//!
//! Always true: one work order ([`Ready`]) is out at a time; letters that promise something leave
//! after the disk has it; a member that led and does not lead any more says so and never leads again;
//! whoever is replaced was silent for two election times.

mod membership;

use std::collections::BTreeMap;

use raft::eraftpb::{Entry, EntryType, Message};
use raft::{RawNode, StateRole};

use crate::change::Change;
use crate::log::Log;
use crate::wire::{self, ENTRIES_BYTES_MAX, LetterError, RECORD_BYTES_MAX, Read};
use crate::{Configuration, MEMBERS_MAX, MemberId, Ready, SPREAD_PER_SLOT, Step, Timing};

/// What all members have agreed on before a group begins; each process at most once in its life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Founding {
    /// Drawn for this group.
    pub group: [u8; 16],
    /// Later than every term that any of their disks has seen.
    pub term: u64,
    /// One member for each place, in order of the places. A place whose process is not there is given
    /// an id that nobody has.
    pub members: Vec<MemberId>,
}

/// A place in a group's log from which a member can follow, once it has the state of that place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// The group's name.
    pub group: [u8; 16],
    /// The last entry that the state includes.
    pub index: u64,
    /// Its term.
    pub term: u64,
    /// Who belonged to the group there.
    pub configuration: Configuration,
}

/// The part a member plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It follows, or stands for election.
    Follower {
        /// Whom it follows.
        leader: Option<MemberId>,
    },
    /// It leads, and everything that earlier leaders committed has been handed out here.
    Leader,
    /// It has led. It takes part no more.
    Deposed,
    /// The group has forgotten what it lacks. It takes part no more.
    LeftBehind,
}

/// What became of a proposal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proposal {
    /// It will be the next record unless this member is deposed.
    Taken,
    /// This member does not lead.
    NotLeader,
    /// The record before it is not decided yet.
    Busy,
    /// It is empty, or longer than [`RECORD_BYTES_MAX`].
    Length,
}

/// What became of the wish to take a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replacement {
    /// The member decides already.
    Done,
    /// Under way; ask again to learn when it is done.
    Begun,
    /// This member does not lead.
    NotLeader,
    /// The process that has the place now was heard lately.
    Occupied,
    /// Another change is under way; ask again.
    Busy,
}

/// A group that cannot begin, or has found itself in disorder: the process must end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GroupError {
    /// Not 3 or 5 members in the order of their places, or a position without voters.
    #[error("a group has 3 or 5 members, one for each place")]
    Members,
    /// Raft refuses its settings or an entry.
    #[error("agreement: {0}")]
    Raft(String),
    /// Something happened that no member lets happen.
    #[error("agreement: {0}")]
    Disorder(&'static str),
}

/// A letter that changed nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StepError {
    /// It is not a letter for this member.
    #[error(transparent)]
    Letter(#[from] LetterError),
    /// A work order is out: call [`Group::persisted`] first.
    #[error("what was ordered before is not done yet")]
    Unpersisted,
}

/// One member of a group.
pub struct Group {
    group: [u8; 16],
    me: MemberId,
    timing: Timing,
    node: RawNode<Log>,
    ticks: u64,
    leaderless_since: Option<u64>,
    heard: BTreeMap<MemberId, u64>,
    /// When this member became leader, in ticks.
    led_since: Option<u64>,
    /// It led, and was ready to.
    led: bool,
    left_behind: bool,
    /// The last record that was handed out, by its place in the log.
    delivered: u64,
    /// What the disk was last told to say: term, and the undecided record by place and term.
    prepared: (u64, Option<(u64, u64)>),
    /// Entries that Raft gave up for applying after the last work order was done.
    backlog: Vec<Entry>,
    backlog_letters: Vec<Message>,
    out: Option<Out>,
    /// No entry after this one is forgotten, until the tick beside it.
    hold: Option<(u64, u64)>,
}

/// A work order that is out.
struct Out {
    ready: Option<raft::Ready>,
    applied: Option<u64>,
}

impl Group {
    /// Begins a group of which this process is a member, from a state that all of them have.
    ///
    /// # Errors
    /// [`GroupError::Members`].
    pub fn found(me: MemberId, founding: &Founding, timing: Timing) -> Result<Self, GroupError> {
        let slots = founding.members.iter().map(|member| member.slot());
        let whole = matches!(founding.members.len(), 3 | MEMBERS_MAX)
            && slots.eq(0..founding.members.len() as u8)
            && founding.members.contains(&me);
        if !whole || founding.term == 0 {
            return Err(GroupError::Members);
        }
        let position = Position {
            group: founding.group,
            index: FIRST_INDEX,
            term: founding.term,
            configuration: Configuration {
                voters: founding.members.clone(),
                ..Configuration::default()
            },
        };
        Self::follow(me, &position, timing)
    }

    /// Follows a group from `position`, whose state this process has; the leader takes it in with
    /// [`replace`](Self::replace).
    ///
    /// # Errors
    /// [`GroupError::Members`].
    pub fn follow(me: MemberId, position: &Position, timing: Timing) -> Result<Self, GroupError> {
        if position.configuration.voters.is_empty() || position.index == 0 {
            return Err(GroupError::Members);
        }
        let conf = position.configuration.to_raft();
        let log = Log::after(position.index, position.term, conf);
        // Raft draws waits from the process's randomness: given one choice only, it has none, and a
        // simulation is repeatable. Each place has its own waits, so that two never stand at once
        // again and again.
        let drawn = (me.as_u64() >> 3) as usize % SPREAD_PER_SLOT;
        let wait = timing.election + usize::from(me.slot()) * SPREAD_PER_SLOT + drawn;
        let config = raft::Config {
            id: me.as_u64(),
            election_tick: timing.election,
            heartbeat_tick: timing.heartbeat,
            min_election_tick: wait,
            max_election_tick: wait + 1,
            applied: position.index,
            max_size_per_msg: ENTRIES_BYTES_MAX as u64,
            max_inflight_msgs: LETTERS_IN_FLIGHT_MAX,
            check_quorum: true,
            pre_vote: true,
            ..raft::Config::default()
        };
        let silent = slog::Logger::root(slog::Discard, slog::o!());
        let node = RawNode::new(&config, log, &silent).map_err(raft_error)?;
        Ok(Self {
            group: position.group,
            me,
            timing,
            node,
            ticks: 0,
            leaderless_since: Some(0),
            heard: BTreeMap::new(),
            led_since: None,
            led: false,
            left_behind: false,
            delivered: position.index,
            prepared: (position.term, None),
            backlog: Vec::new(),
            backlog_letters: Vec::new(),
            out: None,
            hold: None,
        })
    }

    /// One tick of time has passed. While a work order is out, time stands still here.
    pub fn tick(&mut self) {
        if self.out.is_some() || self.is_over() {
            return;
        }
        self.ticks += 1;
        self.node.tick();
        self.look();
        if self.role() == Role::Leader {
            self.tend();
            self.remind();
        }
        self.forget();
    }

    /// Takes a letter that came from `from` over its authenticated session.
    ///
    /// # Errors
    /// [`StepError`]; the letter changed nothing.
    pub fn step(&mut self, from: MemberId, letter: &[u8]) -> Result<(), StepError> {
        if self.out.is_some() {
            return Err(StepError::Unpersisted);
        }
        let read = wire::read(self.group, from, self.me, letter)?;
        if self.is_over() {
            return Ok(());
        }
        self.heard.insert(from, self.ticks);
        match read {
            Read::LeftBehind { term } => self.left_behind |= term >= self.node.raft.term,
            // Raft refuses answers from members that it does not know: they change nothing.
            Read::Message(message) => drop(self.node.step(*message)),
        }
        self.look();
        Ok(())
    }

    /// Proposes the next record.
    pub fn propose(&mut self, record: Vec<u8>) -> Proposal {
        if record.is_empty() || record.len() > RECORD_BYTES_MAX {
            return Proposal::Length;
        }
        if self.role() != Role::Leader {
            return Proposal::NotLeader;
        }
        if self.out.is_some() || self.has_undecided() {
            return Proposal::Busy;
        }
        match self.node.propose(Vec::new(), record) {
            Ok(()) => Proposal::Taken,
            Err(_) => Proposal::NotLeader,
        }
    }

    /// What there is to do; `None` when nothing is, or an order is still out.
    ///
    /// # Errors
    /// [`GroupError`]: the process must end.
    pub fn ready(&mut self) -> Result<Option<Ready>, GroupError> {
        if self.out.is_some() || self.is_over() {
            return Ok(None);
        }
        let mut work = Ready::default();
        let letters = std::mem::take(&mut self.backlog_letters);
        self.write(letters, &mut work.now);
        let mut applied = std::mem::take(&mut self.backlog);
        let mut ready = self.node.has_ready().then(|| self.node.ready());
        if let Some(ready) = &mut ready {
            let (now, later) = (ready.take_messages(), ready.take_persisted_messages());
            self.write(now, &mut work.now);
            self.write(later, &mut work.later);
            applied.extend(ready.take_committed_entries());
        }
        let last_applied = applied.last().map(|entry| entry.index);
        for entry in &applied {
            self.deliver(entry, &mut work.steps);
            self.reconfigure(entry)?;
        }
        if let Some(ready) = &mut ready {
            self.append(ready.take_entries(), &mut work.steps)?;
        }
        let nothing = ready.is_none() && last_applied.is_none() && work.now.is_empty();
        if !nothing {
            self.out = Some(Out {
                ready,
                applied: last_applied,
            });
        }
        Ok((!nothing).then_some(work))
    }

    /// The last work order is done: its steps are durable, its letters are on their way.
    pub fn persisted(&mut self) {
        let Some(out) = self.out.take() else { return };
        if let Some(ready) = out.ready {
            let mut light = self.node.advance_append(ready);
            self.backlog = light.take_committed_entries();
            self.backlog_letters = light.take_messages();
        }
        if let Some(applied) = out.applied {
            self.node.advance_apply_to(applied);
        }
        self.look();
    }

    /// The part this member plays.
    #[must_use]
    pub fn role(&self) -> Role {
        if self.left_behind {
            Role::LeftBehind
        } else if self.is_deposed() {
            Role::Deposed
        } else if self.led {
            Role::Leader
        } else {
            let leader = MemberId::from_u64(self.node.raft.leader_id).ok();
            let known = self.leaderless_since.is_none();
            Role::Follower {
                leader: leader.filter(|leader| known && *leader != self.me),
            }
        }
    }

    /// Who belongs to the group, by what was handed out here.
    #[must_use]
    pub fn configuration(&self) -> Configuration {
        let state = self.node.raft.prs().conf().to_conf_state();
        Configuration::of(&state).unwrap_or_default()
    }

    /// The place that everything handed out so far stands for; a leader keeps what follows it for
    /// [`HOLD_TICKS`], so that whoever is given the state of this place can follow. `None` while work
    /// is out or waits.
    pub fn position(&mut self) -> Option<Position> {
        let index = self.node.raft.raft_log.applied;
        let waits = self.out.is_some() || !self.backlog.is_empty();
        if waits || self.is_over() || self.delivered > index {
            return None;
        }
        let term = self.node.raft.raft_log.term(index).ok()?;
        self.hold = Some((index, self.ticks + HOLD_TICKS));
        Some(Position {
            group: self.group,
            index,
            term,
            configuration: self.configuration(),
        })
    }

    /// For how many ticks this member has known no leader.
    #[must_use]
    pub fn leaderless_ticks(&self) -> u64 {
        self.leaderless_since
            .map_or(0, |since| self.ticks.saturating_sub(since))
    }

    /// This member's id.
    #[must_use]
    pub const fn me(&self) -> MemberId {
        self.me
    }

    /// The group's name.
    #[must_use]
    pub const fn name(&self) -> [u8; 16] {
        self.group
    }

    fn is_over(&self) -> bool {
        self.left_behind || self.is_deposed()
    }

    fn is_deposed(&self) -> bool {
        self.led && self.node.raft.state != StateRole::Leader
    }

    /// Notes what a letter or a tick has changed about who leads.
    fn look(&mut self) {
        let raft = &self.node.raft;
        if raft.state != StateRole::Leader {
            self.led_since = None;
        } else if self.led_since.is_none() {
            self.led_since = Some(self.ticks);
        }
        // A member that does not vote yet never gives up its leader by itself in Raft.
        let leader = MemberId::from_u64(raft.leader_id).ok();
        if leader.is_some_and(|leader| leader == self.me || self.was_heard(leader)) {
            self.leaderless_since = None;
        } else if self.leaderless_since.is_none() {
            self.leaderless_since = Some(self.ticks);
        }
    }

    /// Whether `member` was heard, or could not have been, in the last two election times.
    fn was_heard(&self, member: MemberId) -> bool {
        let last = self.heard.get(&member).copied().max(self.led_since);
        last.is_some_and(|at| self.ticks <= at + 2 * self.timing.election as u64)
    }

    /// Whether a record in this member's log is not decided, or not handed out.
    fn has_undecided(&self) -> bool {
        let raft = &self.node.raft;
        let log = raft.store();
        let unstable = raft.raft_log.unstable_entries();
        let mut entries = log.since(self.delivered).chain(unstable);
        entries.any(|entry| is_record(entry) && entry.index > self.delivered)
    }

    /// Hands out a committed entry, once.
    fn deliver(&mut self, entry: &Entry, steps: &mut Vec<Step>) {
        if is_record(entry) && entry.index > self.delivered {
            self.delivered = entry.index;
            steps.push(Step::Commit {
                index: entry.index,
                record: entry.data.to_vec(),
            });
            if self
                .prepared
                .1
                .is_some_and(|(index, _)| index <= entry.index)
            {
                self.prepared.1 = None;
            }
        }
    }

    /// What an entry that is applied means for the group itself.
    fn reconfigure(&mut self, entry: &Entry) -> Result<(), GroupError> {
        if entry.get_entry_type() != EntryType::EntryNormal {
            let change = Change::of(entry).ok_or(GroupError::Disorder("a change nobody makes"))?;
            let applied = self.node.apply_conf_change(&change.to_raft());
            applied.map_err(raft_error)?;
        }
        let raft = &self.node.raft;
        if raft.state == StateRole::Leader && entry.term == raft.term {
            self.led = true;
        }
        Ok(())
    }

    /// Keeps new entries and says what the disk must say before this member acknowledges them.
    fn append(&mut self, entries: Vec<Entry>, steps: &mut Vec<Step>) -> Result<(), GroupError> {
        if !self.node.mut_store().append(entries.clone()) {
            return Err(GroupError::Disorder("entries that do not connect"));
        }
        let committed = self.node.raft.raft_log.committed;
        // A leader seals a record after the one before was committed: all but the last are decided.
        for entry in entries.iter().filter(|entry| entry.index <= committed) {
            self.deliver(entry, steps);
        }
        let log = self.node.raft.store();
        let mut undecided = log.since(committed).filter(|entry| is_record(entry));
        let (tail, further) = (undecided.next(), undecided.next());
        if further.is_some() {
            return Err(GroupError::Disorder("two records are undecided at once"));
        }
        let wanted = (log.last_term(), tail.map(|entry| (entry.index, entry.term)));
        if wanted != self.prepared {
            steps.push(Step::Prepare {
                term: wanted.0,
                record: tail.map(|entry| entry.data.to_vec()),
            });
            self.prepared = wanted;
        }
        Ok(())
    }

    fn write(&self, messages: Vec<Message>, into: &mut Vec<(MemberId, Vec<u8>)>) {
        into.extend(messages.into_iter().filter_map(|message| {
            let to = MemberId::from_u64(message.to).ok()?;
            Some((to, wire::write(self.group, &message)?))
        }));
    }

    /// Forgets the oldest entries beyond what is kept; a follower that lacks them joins again.
    fn forget(&mut self) {
        let applied = self.node.raft.raft_log.applied;
        let log = self.node.mut_store();
        if !log.is_beyond(ENTRIES_KEPT, BYTES_KEPT) {
            return;
        }
        let held = self.hold.filter(|(_, until)| *until > self.ticks);
        let held = held.filter(|_| !log.is_beyond(usize::MAX, BYTES_HELD_MAX));
        let limit = held.map_or(applied, |(index, _)| index.min(applied));
        log.forget(limit, ENTRIES_KEPT / 2, BYTES_KEPT / 2);
    }
}

fn is_record(entry: &Entry) -> bool {
    entry.get_entry_type() == EntryType::EntryNormal && !entry.data.is_empty()
}

fn raft_error(error: raft::Error) -> GroupError {
    GroupError::Raft(error.to_string())
}

/// The place of what all founders have; Raft counts from 1.
const FIRST_INDEX: u64 = 1;
/// Letters with entries on the way to one member.
const LETTERS_IN_FLIGHT_MAX: usize = 64;
/// Entries kept for followers that were away for a moment.
const ENTRIES_KEPT: usize = 4096;
/// Bytes kept for them.
const BYTES_KEPT: usize = 32 << 20;
/// Bytes kept while a member joins; beyond, it has to begin again.
const BYTES_HELD_MAX: usize = 256 << 20;
/// How long a joining member may take for the state: ten minutes of ticks of 50 ms.
pub const HOLD_TICKS: u64 = 12_000;
