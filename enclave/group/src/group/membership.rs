//! Who belongs to the group: a leader's care for members that come and go.
//!
//! Always true: one change at a time, by a leader that has committed something in its own term; whoever
//! is replaced was silent for two election times; nobody gives up a disk that the majority may need.

use super::{Group, Replacement, Role};
use crate::change::Change;
use crate::{Configuration, MemberId, Slot};

impl Group {
    /// Takes `new` in, which has the state of a [`crate::Position`] given by this group; its place's former
    /// process is put out when `new` has caught up. The leader goes on with what earlier leaders began.
    pub fn replace(&mut self, new: MemberId) -> Replacement {
        let answer = self.admits(new);
        if answer == Replacement::Begun && !self.configuration().contains(new) {
            self.heard.insert(new, self.ticks);
            self.change(&Change::Learn(new));
        }
        answer
    }

    /// What [`replace`](Self::replace) would answer. Only after [`Replacement::Begun`] may what the disk
    /// in the place of `new` holds be given up: a majority without it has all that is committed.
    #[must_use]
    pub fn admits(&self, new: MemberId) -> Replacement {
        if self.role() != Role::Leader {
            return Replacement::NotLeader;
        }
        let configuration = self.configuration();
        if configuration.voters.contains(&new) && configuration.outgoing.is_empty() {
            return Replacement::Done;
        }
        if configuration.contains(new) {
            return Replacement::Begun;
        }
        let held = configuration.voters.iter().find(|m| m.slot() == new.slot());
        if held.is_some_and(|old| *old == self.me || self.was_heard(*old)) {
            return Replacement::Occupied;
        }
        let free = configuration.learners.is_empty() && configuration.outgoing.is_empty();
        if !free || !self.may_change() || !self.can_spare(new.slot(), &configuration) {
            return Replacement::Busy;
        }
        Replacement::Begun
    }

    /// A leader's care for members that join: makes voters of those that have caught up, forgets those
    /// that have gone, ends what an earlier leader began.
    pub(super) fn tend(&mut self) {
        if !self.may_change() {
            return;
        }
        let configuration = self.configuration();
        self.heard
            .retain(|member, _| configuration.contains(*member));
        if !configuration.outgoing.is_empty() {
            self.change(&Change::Settle);
            return;
        }
        let Some(&new) = configuration.learners.first() else {
            return;
        };
        let mut voters = configuration.voters.iter();
        let old = voters.find(|m| m.slot() == new.slot()).copied();
        let raft = &self.node.raft;
        let matched = raft.prs().get(new.as_u64()).map_or(0, |p| p.matched);
        if !self.was_heard(new) || old == Some(self.me) {
            self.change(&Change::Forget(new));
        } else if matched >= raft.raft_log.committed {
            self.change(&Change::Replace { new, old });
        }
    }

    /// Has members that are left behind told so again: a letter may be lost.
    pub(super) fn remind(&mut self) {
        if !self.ticks.is_multiple_of(self.timing.election as u64) {
            return;
        }
        let progress = self.node.raft.prs().iter();
        let left = progress.filter(|(_, p)| p.state == raft::ProgressState::Snapshot);
        let left: Vec<u64> = left.map(|(id, _)| *id).collect();
        for id in left {
            let failed = raft::SnapshotStatus::Failure;
            self.node.report_snapshot(id, failed);
        }
    }

    fn may_change(&self) -> bool {
        self.out.is_none()
            && self.node.raft.commit_to_current_term()
            && !self.node.raft.has_pending_conf()
    }

    fn change(&mut self, change: &Change) {
        // Refused only when this member leads no more, which the next look tells.
        drop(self.node.propose_conf_change(Vec::new(), change.to_raft()));
    }

    /// Whether a majority of the voters outside of `slot` has everything that is committed.
    fn can_spare(&self, slot: Slot, configuration: &Configuration) -> bool {
        let raft = &self.node.raft;
        let has_all = |member: &&MemberId| {
            let progress = raft.prs().get(member.as_u64());
            member.slot() != slot && progress.is_some_and(|p| p.matched >= raft.raft_log.committed)
        };
        let have_all = configuration.voters.iter().filter(has_all).count();
        have_all > configuration.voters.len() / 2
    }
}
