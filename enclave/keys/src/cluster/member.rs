//! The one thread that decides: events in, the group and the disk in between, letters and answers out.
//!
//! ```text
//! Forming ──all promised──▶ Proposing │ Promised ──Start──▶ (Fetching) ──▶ Member
//!    └────────────a live group's leader gives its state──────────────────────▲
//! ```
//!
//! Always true: this process promises itself to one group in its life, and follows one; from then on
//! any doubt ends it ([`Stopped`]). It promises only what its disk cannot contradict: a plan that goes
//! on from a lesser head than its own is refused. The disk has what a letter says before the letter
//! leaves.

mod entering;

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::Instant;

use bield_capsule::Received;
use bield_envelope::{Digest, Principal, Time};
use bield_group::{Group, GroupError, MemberId, Proposal, Replacement, Step};

use super::forming::{Clocks, Forming};
use super::links::{Incoming, Order};
use super::message::{Answer, Message, Place, Plan, Status};
use super::queues::Taken;
use super::{Apply, ApplyError, Head, NotCommitted, Role, Shared, Slot, Stopped, Transfer};

/// What reaches the thread.
pub(super) enum Event {
    Letter {
        from: MemberId,
        bytes: Vec<u8>,
    },
    /// A peer asks.
    Asked {
        from: MemberId,
        question: Message,
        reply: SyncSender<Reply>,
    },
    /// What became of the question to the member in this slot; `None`: it was not reached.
    Told {
        slot: Slot,
        told: Option<(MemberId, Told)>,
    },
    Propose {
        record: Received,
        done: SyncSender<Result<(), NotCommitted>>,
    },
}

impl Event {
    pub(super) const fn told(slot: Slot, told: Option<(MemberId, Told)>) -> Self {
        Self::Told { slot, told }
    }
}

/// An answer that came.
pub(super) enum Told {
    Answer(Answer),
    State(Place, Incoming),
}

/// An answer that is given.
pub(super) enum Reply {
    Answer(Answer),
    State(Place, Box<dyn Transfer>),
}

/// The thread's own.
pub(super) struct Member {
    shared: Arc<Shared>,
    apply: Box<dyn Apply>,
    stage: Stage,
    forming: Forming,
    /// The service whose state this instance has.
    service: Option<Principal>,
    now: u64,
    /// What was asked and is not answered, by slot; the first of each is on its way.
    asked: Vec<VecDeque<Message>>,
    pending: Option<Pending>,
    /// The newest record that was committed here.
    newest: Option<Digest>,
}

enum Stage {
    Forming {
        head: Option<Head>,
    },
    /// This member has proposed a group, and promised itself to it.
    Proposing {
        plan: Plan,
        waiting: BTreeSet<Slot>,
        since: u64,
    },
    Promised {
        plan: Plan,
        to: MemberId,
        since: u64,
    },
    /// All have promised; this member lacks the state, which the member in `from` has.
    Fetching {
        from: Slot,
        since: u64,
    },
    Member {
        group: Box<Group>,
        /// Whom to ask for a vote until a leader is known.
        near: Slot,
    },
}

struct Pending {
    record: Digest,
    waiting: SyncSender<Result<(), NotCommitted>>,
}

impl Member {
    pub(super) fn new(shared: Arc<Shared>, apply: Box<dyn Apply>) -> Self {
        let members = shared.settings.members;
        Self {
            stage: Stage::Forming { head: None },
            forming: Forming::new(shared.me, members),
            service: None,
            now: 0,
            asked: vec![VecDeque::new(); usize::from(members)],
            pending: None,
            newest: None,
            shared,
            apply,
        }
    }

    /// Takes part until something ends it, and says what.
    pub(super) fn run(mut self) -> Stopped {
        self.take_part().err().unwrap_or(Stopped::Asked)
    }

    fn take_part(&mut self) -> Result<(), Stopped> {
        self.read_head()?;
        let tick = self.shared.settings.tick;
        let mut next = Instant::now() + tick;
        loop {
            let shared = Arc::clone(&self.shared);
            match shared.inbox.take(next) {
                Taken::Item(event) => self.take(event)?,
                Taken::Nothing => {}
                Taken::Closed => return Ok(()),
            }
            if Instant::now() >= next {
                // Ticks that were missed, by a slow disk or a stopped process, are not made up for.
                next = Instant::now() + tick;
                self.tick()?;
            }
            self.work()?;
        }
    }

    fn take(&mut self, event: Event) -> Result<(), Stopped> {
        match event {
            Event::Letter { from, bytes } => {
                if let Stage::Member { group, .. } = &mut self.stage {
                    // A letter that is none changes nothing.
                    drop(group.step(from, &bytes));
                }
            }
            Event::Asked {
                from,
                question,
                reply,
            } => {
                let answer = self.answer(from, question)?;
                // Whoever asked may be gone.
                drop(reply.send(answer));
            }
            Event::Told { slot, told } => {
                if let Some(question) = self.next_question(slot) {
                    self.told(slot, &question, told)?;
                }
            }
            Event::Propose { record, done } => self.propose(&record, done)?,
        }
        Ok(())
    }

    fn tick(&mut self) -> Result<(), Stopped> {
        self.now += 1;
        let (now, limits) = (self.now, self.shared.settings.limits);
        if now.is_multiple_of(limits.look) {
            self.look_around();
        }
        let late = |since: u64, limit: u64| now > since + limit;
        match &mut self.stage {
            Stage::Forming { .. } if now.is_multiple_of(limits.look) => self.try_to_form(),
            Stage::Forming { .. } => Ok(()),
            Stage::Proposing { since, .. } | Stage::Promised { since, .. }
                if late(*since, limits.promise) =>
            {
                let sentence = "not every member said in time that it takes part";
                Err(Stopped::NotFormed(sentence.into()))
            }
            Stage::Fetching { since, .. } if late(*since, limits.fetch) => {
                let sentence = "the member that has the state did not give it";
                Err(Stopped::NotFormed(sentence.into()))
            }
            Stage::Fetching { from, .. } => {
                let from = *from;
                if now.is_multiple_of(limits.look) {
                    let have = self.insist(|apply| apply.head())?;
                    self.ask(from, Message::Join(have));
                }
                Ok(())
            }
            Stage::Proposing { .. } | Stage::Promised { .. } => Ok(()),
            Stage::Member { group, near } => {
                group.tick();
                let leaderless = group.leaderless_ticks();
                // So many others are without a group that this one has no majority any more.
                let lost =
                    self.forming.forming(now) > usize::from(self.shared.settings.members) / 2;
                let short = 3 * self.shared.settings.timing.election as u64;
                if leaderless > limits.leaderless || (lost && leaderless > short) {
                    return Err(Stopped::Leaderless);
                }
                if !has_vote(group) && now.is_multiple_of(limits.look) {
                    let leader = match group.role() {
                        bield_group::Role::Follower { leader } => leader.map(MemberId::slot),
                        _ => None,
                    };
                    let (to, name) = (leader.unwrap_or(*near), group.name());
                    self.ask(to, Message::Knock(name));
                }
                Ok(())
            }
        }
    }

    /// Does what the group orders, until it orders no more.
    fn work(&mut self) -> Result<(), Stopped> {
        let disorder = |error: GroupError| Stopped::Fault(error.to_string());
        while let Stage::Member { group, .. } = &mut self.stage {
            let Some(work) = group.ready().map_err(disorder)? else {
                break;
            };
            self.send(work.now);
            for step in work.steps {
                self.do_step(step)?;
            }
            self.send(work.later);
            if let Stage::Member { group, .. } = &mut self.stage {
                group.persisted();
            }
        }
        let role = match &self.stage {
            Stage::Member { group, .. } => match group.role() {
                bield_group::Role::Deposed => return Err(Stopped::Deposed),
                bield_group::Role::LeftBehind => return Err(Stopped::LeftBehind),
                bield_group::Role::Leader => Role::Leader,
                bield_group::Role::Follower { leader } if has_vote(group) => Role::Follower {
                    leader: leader.map(MemberId::slot),
                },
                bield_group::Role::Follower { .. } => Role::Forming,
            },
            _ => Role::Forming,
        };
        self.shared.publish(role);
        Ok(())
    }

    fn do_step(&mut self, step: Step) -> Result<(), Stopped> {
        let read = |bytes: Vec<u8>| {
            let record = Received::decode(bytes);
            record.map_err(|error| Stopped::Fault(format!("a leader's record: {error}")))
        };
        match step {
            Step::Prepare { term, record } => {
                let record = record.map(read).transpose()?;
                self.insist(|apply| apply.prepare(term, record.as_ref()))
            }
            Step::Commit { record, .. } => {
                let record = read(record)?;
                self.insist(|apply| apply.commit(&record))?;
                let hash = record.hash();
                self.newest = Some(hash);
                if let Some(pending) = self.pending.take_if(|pending| pending.record == hash) {
                    // Whoever proposed it may have stopped waiting.
                    drop(pending.waiting.send(Ok(())));
                }
                Ok(())
            }
        }
    }

    /// Does one thing with the disk, again and again while the host's storage fails.
    fn insist<T>(
        &mut self,
        mut act: impl FnMut(&mut dyn Apply) -> Result<T, ApplyError>,
    ) -> Result<T, Stopped> {
        loop {
            match act(&mut *self.apply) {
                Ok(done) => return Ok(done),
                Err(ApplyError::Refused(sentence)) => return Err(Stopped::Refused(sentence)),
                Err(ApplyError::Storage(_)) if self.shared.is_over() => {
                    return Err(Stopped::Asked);
                }
                Err(ApplyError::Storage(_)) => std::thread::sleep(self.shared.settings.tick),
            }
        }
    }

    fn propose(
        &mut self,
        record: &Received,
        done: SyncSender<Result<(), NotCommitted>>,
    ) -> Result<(), Stopped> {
        let hash = record.hash();
        // The same record again: it was decided meanwhile, or is on its way.
        if self.newest == Some(hash) {
            // Whoever proposes may have stopped waiting, here and below.
            drop(done.send(Ok(())));
            return Ok(());
        }
        if let Some(pending) = &mut self.pending {
            if pending.record == hash {
                pending.waiting = done;
            } else {
                drop(done.send(Err(NotCommitted::Busy)));
            }
            return Ok(());
        }
        let waiting = done;
        match self.judge_clock(record.header().clock.time()) {
            Clocks::Agree => {}
            // Asked again by whoever proposes, when the others have said what time it is.
            Clocks::Unknown => {
                drop(waiting.send(Err(NotCommitted::Busy)));
                return Ok(());
            }
            Clocks::Ahead => {
                let why = Stopped::Refused(CLOCK_AHEAD.into());
                drop(waiting.send(Err(NotCommitted::Stopped(why.clone()))));
                return Err(why);
            }
        }
        let proposal = match &mut self.stage {
            Stage::Member { group, .. } => group.propose(record.as_bytes().to_vec()),
            _ => Proposal::NotLeader,
        };
        match proposal {
            Proposal::Taken => {
                let record = hash;
                self.pending = Some(Pending { record, waiting });
            }
            Proposal::Busy => drop(waiting.send(Err(NotCommitted::Busy))),
            Proposal::NotLeader | Proposal::Length => {
                drop(waiting.send(Err(NotCommitted::NotLeader)));
            }
        }
        Ok(())
    }

    /// What the others' clocks say about a record of this time, which only a leader makes. One that is no
    /// later than the newest that counts adds nothing to what members agreed to before.
    fn judge_clock(&mut self, time: Time) -> Clocks {
        let leads = |group: &Group| group.role() == bield_group::Role::Leader;
        let leads = matches!(&self.stage, Stage::Member { group, .. } if leads(group));
        if !leads || self.apply.clock().is_some_and(|newest| time <= newest) {
            return Clocks::Agree;
        }
        self.forming.clocks(time, self.now)
    }

    fn answer(&mut self, from: MemberId, question: Message) -> Result<Reply, Stopped> {
        let yes = |yes: bool| if yes { Answer::Done } else { Answer::No };
        let answer = match question {
            Message::Look(status, clock) => {
                self.forming.see(from, status, clock, self.now);
                Answer::Status(self.status(), self.shared.surroundings.now())
            }
            Message::Promise(plan) => yes(self.promise(from, plan)),
            Message::Start(name) => match &self.stage {
                Stage::Promised { plan, to, .. } if plan.group == name && *to == from => {
                    let plan = plan.clone();
                    self.begin(&plan)?;
                    Answer::Done
                }
                _ => Answer::No,
            },
            Message::Join(have) => return self.give(from, have),
            Message::Knock(name) => match &mut self.stage {
                Stage::Member { group, .. } if group.name() == name => {
                    yes(group.replace(from) == Replacement::Done)
                }
                _ => Answer::No,
            },
            Message::Hello(_) | Message::Letter(_) => Answer::No,
        };
        Ok(Reply::Answer(answer))
    }

    /// Gives the state of the newest place to a member that may have it.
    fn give(&mut self, from: MemberId, have: Option<Head>) -> Result<Reply, Stopped> {
        let no = Ok(Reply::Answer(Answer::No));
        let (Stage::Member { group, .. }, Some(service)) = (&mut self.stage, self.service) else {
            return no;
        };
        // A founder that lacks the state votes already; others come in through the leader.
        let may = group.configuration().votes(from) || group.admits(from) == Replacement::Begun;
        let Some(position) = may.then(|| group.position()).flatten() else {
            return no;
        };
        match self.apply.transfer(have.as_ref()) {
            Ok(transfer) => Ok(Reply::State(Place::new(service, &position), transfer)),
            Err(ApplyError::Storage(_)) => no,
            Err(ApplyError::Refused(sentence)) => Err(Stopped::Refused(sentence)),
        }
    }

    /// What an answer means; the question was this member's own.
    fn told(
        &mut self,
        slot: Slot,
        question: &Message,
        told: Option<(MemberId, Told)>,
    ) -> Result<(), Stopped> {
        let reached = told.is_some();
        match (question, told) {
            (Message::Look(..), Some((member, Told::Answer(Answer::Status(status, clock))))) => {
                self.forming.see(member, status, clock, self.now);
            }
            (Message::Join(_), Some((_, Told::State(place, mut pieces)))) => {
                self.enter(slot, &place, &mut pieces)?;
            }
            (Message::Promise(asked), told) => {
                let done = matches!(told, Some((_, Told::Answer(Answer::Done))));
                self.promised(slot, asked.group, done, reached)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn look_around(&mut self) {
        let (status, clock) = (self.status(), self.shared.surroundings.now());
        for slot in 0..self.shared.settings.members {
            self.ask(slot, Message::Look(status, clock));
        }
    }

    fn status(&self) -> Status {
        match (&self.stage, self.service) {
            (Stage::Forming { head }, _) => Status::Forming(*head),
            (Stage::Member { group, .. }, Some(service)) => {
                let leader = match group.role() {
                    bield_group::Role::Follower { leader } => leader.map(MemberId::slot),
                    bield_group::Role::Leader => Some(self.shared.me.slot()),
                    _ => None,
                };
                Status::Live(service, leader)
            }
            _ => Status::Entering,
        }
    }

    /// Asks the member in `slot`, unless it owes an answer to a question of this kind: then whoever
    /// wants to know asks again.
    fn ask(&mut self, slot: Slot, question: Message) {
        let kind = std::mem::discriminant(&question);
        let Some(asked) = self.asked.get_mut(usize::from(slot)) else {
            return;
        };
        let owes = asked
            .iter()
            .any(|asked| std::mem::discriminant(asked) == kind);
        if slot == self.shared.me.slot() || owes {
            return;
        }
        if asked.is_empty() {
            self.shared.outbox(slot).push(Order::Ask(question.clone()));
        }
        asked.push_back(question);
    }

    /// The question that was answered; sends the one after it.
    fn next_question(&mut self, slot: Slot) -> Option<Message> {
        let asked = self.asked.get_mut(usize::from(slot))?;
        let answered = asked.pop_front();
        if let Some(next) = asked.front() {
            self.shared.outbox(slot).push(Order::Ask(next.clone()));
        }
        answered
    }

    fn send(&self, letters: Vec<(MemberId, Vec<u8>)>) {
        for (to, bytes) in letters {
            if to.slot() < self.shared.settings.members && to.slot() != self.shared.me.slot() {
                let size = bytes.len();
                let order = Order::Letter { to, bytes };
                self.shared.outbox(to.slot()).offer(order, size);
            }
        }
    }
}

/// Said by a leader that stops, and by a member that would begin a service.
const CLOCK_AHEAD: &str = "this machine's clock is more than ten minutes ahead of the other members' clocks: \
                           what it says now would expire what is in force; its operator must set the clock right";

/// Whether a member decides, and nobody else in its place does any more.
fn has_vote(group: &Group) -> bool {
    let configuration = group.configuration();
    let outgoing = &configuration.outgoing;
    configuration.voters.contains(&group.me())
        && (outgoing.is_empty() || outgoing.contains(&group.me()))
}
