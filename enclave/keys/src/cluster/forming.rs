//! What a member without a group does next: join a live one, or begin one with all others.
//!
//! In: how the others say they stand, and what their clocks say. Out: one [`Wish`], and what to think of
//! one's own clock. Always true: nobody begins a group while anyone nearby is in one; a plan goes on from
//! the greatest head of all who take part, and the member whose head it is proposes it; without all others
//! there is a plan only when witnesses confirm that head.

use std::collections::BTreeMap;

use bield_envelope::Time;
use bield_group::MemberId;

use super::message::{Plan, Status};
use super::{CLOCK_AHEAD_MAX, Head, Slot};

/// What is known about the others.
pub(super) struct Forming {
    me: MemberId,
    members: u8,
    seen: BTreeMap<Slot, Seen>,
}

struct Seen {
    member: MemberId,
    status: Status,
    /// What its host's clock said, at least.
    clock: Time,
    /// In ticks.
    at: u64,
}

/// What the others' clocks say about this member's.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Clocks {
    /// Enough of them, for a majority with this one, are not far behind it.
    Agree,
    /// Not enough have said anything lately.
    Unknown,
    /// It is far ahead of so many that no majority agrees.
    Ahead,
}

/// What to do next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// Look again.
    Wait,
    /// Ask the leader in this slot for its group's state.
    Join(Slot),
    /// Propose a group of all members.
    Propose(Plan),
    /// Propose one in which the others' places are held by nobody, if witnesses confirm the plan's head, which
    /// is this member's own.
    ProposeConfirmed(Plan),
    /// The disks belong to different services: a person must look.
    Foreign,
}

impl Forming {
    pub(super) const fn new(me: MemberId, members: u8) -> Self {
        Self {
            me,
            members,
            seen: BTreeMap::new(),
        }
    }

    /// Notes how a peer stands.
    pub(super) fn see(&mut self, member: MemberId, status: Status, clock: Time, now: u64) {
        let seen = Seen {
            member,
            status,
            clock,
            at: now,
        };
        self.seen.insert(member.slot(), seen);
    }

    /// Whether a record of this time may be proposed. What a clock said long ago is still a time that it has
    /// passed; only what it said lately shows that it has not come further.
    pub(super) fn clocks(&self, time: Time, now: u64) -> Clocks {
        let needed = usize::from(self.members) / 2;
        let near = |seen: &&Seen| time <= seen.clock.plus(CLOCK_AHEAD_MAX);
        let agree = self.seen.values().filter(near).count();
        let far = self.fresh(now).filter(|seen| !near(seen)).count();
        if agree >= needed {
            Clocks::Agree
        } else if far > usize::from(self.members) - 1 - needed {
            Clocks::Ahead
        } else {
            Clocks::Unknown
        }
    }

    /// How many others say that they have no group.
    pub(super) fn forming(&self, now: u64) -> usize {
        self.present(now).len()
    }

    /// The others that say so.
    pub(super) fn present(&self, now: u64) -> Vec<MemberId> {
        let forming = |seen: &&Seen| matches!(seen.status, Status::Forming(_));
        self.fresh(now)
            .filter(forming)
            .map(|seen| seen.member)
            .collect()
    }

    /// What a member with `head` does next; `id` names a group and those in it who are not there.
    pub(super) fn wish(
        &self,
        head: Option<&Head>,
        now: u64,
        mut id: impl FnMut() -> [u8; 16],
    ) -> Wish {
        for seen in self.fresh(now) {
            match seen.status {
                Status::Live(service, leader) => {
                    if head.is_some_and(|head| head.service != service) {
                        return Wish::Foreign;
                    }
                    let leader = leader.filter(|leader| *leader != self.me.slot());
                    return leader.map_or(Wish::Wait, Wish::Join);
                }
                Status::Entering => return Wish::Wait,
                Status::Forming(_) => {}
            }
        }
        let mut heads: BTreeMap<Slot, Option<Head>> = BTreeMap::new();
        heads.insert(self.me.slot(), head.copied());
        for seen in self.fresh(now) {
            if let Status::Forming(head) = seen.status {
                heads.insert(seen.member.slot(), head);
            }
        }
        let mut services = heads.values().flatten().map(|head| head.service);
        if let Some(first) = services.next()
            && services.any(|other| other != first)
        {
            return Wish::Foreign;
        }
        // The greatest head; of equal ones the lowest slot's.
        let best = heads
            .iter()
            .rev()
            .max_by_key(|(_, head)| rank(head.as_ref()));
        // One proposes: two that do would get in each other's way. Whose head it is can have it confirmed.
        if best.map(|(slot, _)| *slot) != Some(self.me.slot()) {
            return Wish::Wait;
        }
        let present = heads.len();
        let all = present == usize::from(self.members);
        let majority = present > usize::from(self.members) / 2;
        let waited = now >= MAJORITY_TICKS;
        let may_confirm = majority && waited && heads.values().any(Option::is_some);
        if !all && !may_confirm {
            return Wish::Wait;
        }
        let plan = self.plan(head, &heads, &mut id);
        if all {
            Wish::Propose(plan)
        } else {
            Wish::ProposeConfirmed(plan)
        }
    }

    /// A plan that goes on from this member's own head.
    fn plan(
        &self,
        head: Option<&Head>,
        heads: &BTreeMap<Slot, Option<Head>>,
        id: &mut impl FnMut() -> [u8; 16],
    ) -> Plan {
        let term = heads.values().flatten().map(|head| head.term).max();
        let members = (0..self.members).map(|slot| {
            let seen = self.seen.get(&slot).map(|seen| seen.member);
            let present = heads.contains_key(&slot);
            match seen.filter(|_| present) {
                Some(member) => member.as_u64(),
                None if slot == self.me.slot() => self.me.as_u64(),
                None => nobody(slot, id),
            }
        });
        Plan {
            members: members.collect(),
            group: id(),
            term: term.unwrap_or(0).saturating_add(1),
            from: self.me.slot(),
            head: head.copied(),
        }
    }

    fn fresh(&self, now: u64) -> impl Iterator<Item = &Seen> {
        let fresh = move |seen: &&Seen| now <= seen.at + FRESH_TICKS;
        self.seen.values().filter(fresh)
    }
}

/// How heads order: epoch, term, size; nothing is least.
pub(super) fn rank(head: Option<&Head>) -> Option<(u32, u64, u64)> {
    head.map(|head| (head.epoch, head.term, head.size))
}

/// An id in `slot` that no process has drawn.
fn nobody(slot: Slot, id: &mut impl FnMut() -> [u8; 16]) -> u64 {
    loop {
        let [drawn @ .., _, _, _, _, _, _, _, _] = id();
        if let Ok(member) = MemberId::new(slot, u64::from_be_bytes(drawn)) {
            return member.as_u64();
        }
    }
}

/// How long what a peer said about itself counts, in ticks: a few looks.
pub(super) const FRESH_TICKS: u64 = 60;
/// How long a majority waits for the others before it asks the witnesses, in ticks: a minute of 50 ms.
const MAJORITY_TICKS: u64 = 1200;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bield_envelope::Principal;

    use super::*;

    const NOW: Time = Time::from_secs(1_800_000_000);

    fn member(slot: Slot) -> MemberId {
        MemberId::new(slot, 0x100).unwrap()
    }

    fn head(term: u64, size: u64) -> Head {
        Head {
            service: Principal::from_bytes([1; 32]),
            epoch: 0,
            term,
            size,
            root: [0; 32],
        }
    }

    fn forming(slot: Slot, others: &[(Slot, Status)]) -> Forming {
        let mut forming = Forming::new(member(slot), 3);
        for (slot, status) in others {
            forming.see(member(*slot), *status, NOW, 0);
        }
        forming
    }

    fn wish(forming: &Forming, head: Option<Head>, now: u64) -> Wish {
        let mut drawn = 0;
        forming.wish(head.as_ref(), now, || {
            drawn += 1;
            [drawn; 16]
        })
    }

    #[test]
    fn the_greatest_term_wins_before_the_greatest_size() {
        let others = [
            (0, Status::Forming(Some(head(3, 9)))),
            (2, Status::Forming(Some(head(2, 12)))),
        ];
        let Wish::Propose(plan) = wish(&forming(1, &others), Some(head(3, 10)), 1) else {
            panic!("all are there and nobody proposes");
        };
        assert_eq!((plan.from, plan.term), (1, 4));
        assert_eq!(plan.head, Some(head(3, 10)));
        assert_eq!(plan.founding().unwrap().members, [0, 1, 2].map(member));
    }

    #[test]
    fn where_all_are_empty_the_first_begins() {
        let others = [(1, Status::Forming(None)), (2, Status::Forming(None))];
        let Wish::Propose(plan) = wish(&forming(0, &others), None, 1) else {
            panic!("all are there and nobody proposes");
        };
        assert_eq!((plan.from, plan.head, plan.term), (0, None, 1));
    }

    #[test]
    fn only_the_first_of_those_with_the_greatest_head_proposes() {
        let others = [(0, Status::Forming(None)), (2, Status::Forming(None))];
        assert_eq!(wish(&forming(1, &others), None, 1), Wish::Wait);
        let (lesser, greater) = (Some(head(1, 4)), Some(head(1, 5)));
        let others = [(1, Status::Forming(greater)), (2, Status::Forming(lesser))];
        assert_eq!(wish(&forming(0, &others), lesser, 1), Wish::Wait);
        let others = [(0, Status::Forming(lesser)), (2, Status::Forming(greater))];
        let Wish::Propose(plan) = wish(&forming(1, &others), greater, 1) else {
            panic!("whose head is the greatest does not propose");
        };
        assert_eq!((plan.from, plan.head), (1, greater));
    }

    #[test]
    fn a_clock_needs_a_majority_of_clocks_not_far_behind_it() {
        let mut forming = Forming::new(member(0), 3);
        let ahead = NOW.plus(CLOCK_AHEAD_MAX);
        assert_eq!(forming.clocks(NOW, 0), Clocks::Unknown);
        forming.see(member(1), Status::Entering, NOW, 0);
        assert_eq!(forming.clocks(ahead, 0), Clocks::Agree);
        let further = ahead.plus(Duration::from_secs(1));
        assert_eq!(forming.clocks(further, 0), Clocks::Unknown);
        forming.see(member(2), Status::Entering, NOW, 0);
        assert_eq!(forming.clocks(further, 0), Clocks::Ahead);
        // Both may have come further since.
        assert_eq!(forming.clocks(further, FRESH_TICKS + 1), Clocks::Unknown);
        assert_eq!(forming.clocks(ahead, FRESH_TICKS + 1), Clocks::Agree);
    }

    #[test]
    fn nobody_begins_without_the_others_or_while_one_is_in_a_group() {
        let one = [(1, Status::Forming(None))];
        assert_eq!(wish(&forming(0, &one), None, 1), Wish::Wait);
        assert_eq!(wish(&forming(0, &one), None, 5000), Wish::Wait);
        let service = head(1, 1).service;
        let live = [
            (1, Status::Forming(None)),
            (2, Status::Live(service, Some(2))),
        ];
        assert_eq!(wish(&forming(0, &live), None, 1), Wish::Join(2));
        let leaderless = [(1, Status::Forming(None)), (2, Status::Live(service, None))];
        assert_eq!(wish(&forming(0, &leaderless), None, 1), Wish::Wait);
        let entering = [(1, Status::Entering), (2, Status::Forming(None))];
        assert_eq!(wish(&forming(0, &entering), None, 1), Wish::Wait);
    }

    #[test]
    fn what_was_said_long_ago_does_not_count() {
        let others = [(1, Status::Forming(None)), (2, Status::Forming(None))];
        let later = wish(&forming(0, &others), None, FRESH_TICKS + 1);
        assert_eq!(later, Wish::Wait);
    }

    #[test]
    fn a_majority_waits_and_then_needs_witnesses_and_holds_the_place_of_who_is_missing() {
        let mut forming = Forming::new(member(0), 3);
        forming.see(
            member(2),
            Status::Forming(Some(head(1, 5))),
            NOW,
            MAJORITY_TICKS,
        );
        let wish = wish(&forming, Some(head(1, 6)), MAJORITY_TICKS);
        let Wish::ProposeConfirmed(plan) = wish else {
            panic!("{wish:?}");
        };
        assert_eq!((plan.from, plan.head), (0, Some(head(1, 6))));
        let members = plan.founding().unwrap().members;
        assert_eq!((members[0], members[2]), (member(0), member(2)));
        assert_eq!(members[1].slot(), 1);
        assert_ne!(members[1], member(1));
    }

    #[test]
    fn disks_of_different_services_are_never_merged() {
        let mut other = head(9, 9);
        other.service = Principal::from_bytes([2; 32]);
        let others = [
            (1, Status::Forming(Some(other))),
            (2, Status::Forming(None)),
        ];
        let wishes = [
            wish(&forming(0, &others), Some(head(1, 1)), 1),
            wish(
                &forming(0, &[(1, Status::Live(other.service, Some(1)))]),
                Some(head(1, 1)),
                1,
            ),
        ];
        assert_eq!(wishes, [Wish::Foreign, Wish::Foreign]);
    }
}
