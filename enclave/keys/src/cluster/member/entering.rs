//! The way into a group: promises, beginnings, and the state of a group that lives.
//!
//! In: what others propose and answer. Out: the next [`Stage`]. Always true: a process promises itself
//! once; it never promises less than its own disk shows; a disk of another service is not overwritten.

use std::collections::BTreeSet;

use bield_group::{Group, GroupError, MemberId};
use bield_platform::Randomness;
use rand_core::Rng as _;

use super::super::forming::{Clocks, Wish, rank};
use super::super::links::Incoming;
use super::super::message::{Message, Place, Plan};
use super::super::{ApplyError, Head, Slot, Stopped, Unconfirmed};
use super::{CLOCK_AHEAD, Member, Stage};

impl Member {
    /// Promises this process to a plan, once in its life.
    pub(super) fn promise(&mut self, to: MemberId, plan: Plan) -> bool {
        let Stage::Forming { head } = &self.stage else {
            return false;
        };
        let Some(founding) = plan.founding() else {
            return false;
        };
        let me = self.shared.me;
        let members = &founding.members;
        let of_us = members.len() == usize::from(self.shared.settings.members)
            && members.contains(&me)
            && members.contains(&to)
            && members.get(usize::from(plan.from)).is_some();
        let services = head.map(|h| h.service).zip(plan.head.map(|h| h.service));
        let of_ours = services.is_none_or(|(mine, theirs)| mine == theirs);
        let goes_on = rank(head.as_ref()) <= rank(plan.head.as_ref())
            && head.is_none_or(|head| head.term < plan.term)
            && (plan.from != me.slot() || *head == plan.head);
        let begins_over_another = plan.head.is_none() && self.apply.is_sealed();
        let good = of_us && of_ours && goes_on && !begins_over_another;
        if good {
            let since = self.now;
            self.stage = Stage::Promised { plan, to, since };
        }
        good
    }

    /// One member has answered to a plan.
    pub(super) fn promised(
        &mut self,
        slot: Slot,
        name: [u8; 16],
        done: bool,
        reached: bool,
    ) -> Result<(), Stopped> {
        let Stage::Proposing { plan, waiting, .. } = &mut self.stage else {
            return Ok(());
        };
        if plan.group != name {
            return Ok(());
        }
        if !done {
            let how = if reached {
                "refused"
            } else {
                "was not reached"
            };
            let sentence = format!("the member in slot {slot} {how}");
            return Err(Stopped::NotFormed(sentence));
        }
        waiting.remove(&slot);
        if !waiting.is_empty() {
            return Ok(());
        }
        let plan = plan.clone();
        for member in plan.founding().map(|f| f.members).unwrap_or_default() {
            self.ask(member.slot(), Message::Start(name));
        }
        self.begin(&plan)
    }

    /// All have promised: goes on from its own disk if it is the right one, or asks for the state.
    pub(super) fn begin(&mut self, plan: &Plan) -> Result<(), Stopped> {
        let disorder = || Stopped::Fault("a plan that names no members".into());
        let founding = plan.founding().ok_or_else(disorder)?;
        let own = self.insist(|apply| apply.head())?;
        let same = |own: &Head, best: &Head| {
            (own.service, own.epoch, own.size, own.root)
                == (best.service, best.epoch, best.size, best.root)
        };
        let has_it = match (&own, &plan.head) {
            (Some(own), Some(best)) => same(own, best),
            _ => false,
        };
        if plan.from == self.shared.me.slot() && plan.head.is_none() {
            self.insist(|apply| apply.begin())?;
        } else if has_it {
            self.insist(|apply| apply.settle())?;
        } else {
            let (from, since) = (plan.from, self.now);
            self.stage = Stage::Fetching { from, since };
            return Ok(());
        }
        let own = self.insist(|apply| apply.head())?;
        self.service = own.map(|head| head.service);
        let group = Group::found(self.shared.me, &founding, self.shared.settings.timing);
        self.follow(group, plan.from)
    }

    /// Takes the state of a group's place, and follows it from there.
    pub(super) fn enter(
        &mut self,
        from: Slot,
        place: &Place,
        pieces: &mut Incoming,
    ) -> Result<(), Stopped> {
        let (Stage::Forming { .. } | Stage::Fetching { .. }, Some(position)) =
            (&self.stage, place.position())
        else {
            return Ok(());
        };
        if let Stage::Forming { head: Some(head) } = &self.stage
            && head.service != place.service()
        {
            return Err(foreign());
        }
        match self.apply.install(position.term, pieces) {
            Ok(()) => {}
            Err(ApplyError::Refused(sentence)) => return Err(Stopped::Refused(sentence)),
            // What is there now, the disk says; then it is asked for again.
            Err(ApplyError::Storage(_)) if matches!(self.stage, Stage::Forming { .. }) => {
                return self.read_head();
            }
            Err(ApplyError::Storage(_)) => return Ok(()),
        }
        let head = self.insist(|apply| apply.head())?;
        if head.map(|head| head.service) != Some(place.service()) {
            let sentence = "the state that was given is not of the service that gave it";
            return Err(Stopped::Refused(sentence.into()));
        }
        self.service = Some(place.service());
        let group = Group::follow(self.shared.me, &position, self.shared.settings.timing);
        self.follow(group, from)
    }

    fn follow(&mut self, group: Result<Group, GroupError>, near: Slot) -> Result<(), Stopped> {
        let group = group.map_err(|error| Stopped::Fault(error.to_string()))?;
        let group = Box::new(group);
        self.stage = Stage::Member { group, near };
        Ok(())
    }

    pub(super) fn try_to_form(&mut self) -> Result<(), Stopped> {
        let Stage::Forming { head } = &self.stage else {
            return Ok(());
        };
        let head = *head;
        let wish = self.forming.wish(head.as_ref(), self.now, || {
            let mut id = [0; 16];
            Randomness.fill_bytes(&mut id);
            id
        });
        match wish {
            Wish::Wait => {}
            Wish::Foreign => return Err(foreign()),
            Wish::Join(leader) => self.ask(leader, Message::Join(head)),
            Wish::Propose(plan) => match plan.head {
                Some(head) if self.shared.surroundings.has_witnesses() => {
                    match self.shared.surroundings.confirm(&head) {
                        Ok(()) => self.start_proposing(plan),
                        // All are there, and none has what the witnesses saw.
                        Err(Unconfirmed::SetBack(why)) => return Err(Stopped::Refused(why)),
                        Err(Unconfirmed::Unknown(_)) => {}
                    }
                }
                Some(_) => self.start_proposing(plan),
                None if self.apply.is_sealed() => return Err(Stopped::Refused(SEALED.into())),
                None => self.start_first(plan)?,
            },
            Wish::ProposeConfirmed(plan) => {
                // Who is not there may have what these lack.
                let confirmed = plan.head.map(|h| self.shared.surroundings.confirm(&h));
                if matches!(confirmed, Some(Ok(()))) {
                    self.start_proposing(plan);
                }
            }
        }
        Ok(())
    }

    /// A new service's first records have this member's clock.
    fn start_first(&mut self, plan: Plan) -> Result<(), Stopped> {
        match self
            .forming
            .clocks(self.shared.surroundings.now(), self.now)
        {
            Clocks::Agree => self.start_proposing(plan),
            Clocks::Unknown => {}
            Clocks::Ahead => return Err(Stopped::Refused(CLOCK_AHEAD.into())),
        }
        Ok(())
    }

    /// Promises itself to its own plan, and asks those who are there to do the same.
    fn start_proposing(&mut self, plan: Plan) {
        let present = self.forming.present(self.now);
        let others = plan
            .members
            .iter()
            .filter_map(|id| MemberId::from_u64(*id).ok());
        let others: BTreeSet<Slot> = others
            .filter(|member| present.contains(member))
            .map(MemberId::slot)
            .collect();
        for slot in &others {
            self.ask(*slot, Message::Promise(plan.clone()));
        }
        self.stage = Stage::Proposing {
            plan,
            waiting: others,
            since: self.now,
        };
    }

    pub(super) fn read_head(&mut self) -> Result<(), Stopped> {
        let head = self.insist(|apply| apply.head())?;
        self.stage = Stage::Forming { head };
        Ok(())
    }
}

/// Said by a member that would otherwise begin a new service beside its log.
const SEALED: &str = "this member's disk holds a log that it cannot open, and no other member has a state: start the code \
                      that wrote it, of which a group takes over one member at a time, or recover it by shares";

fn foreign() -> Stopped {
    let sentence = "the disks of the members belong to different key services; \
                    the operator must look which addresses and directories belong together";
    Stopped::Refused(sentence.into())
}
