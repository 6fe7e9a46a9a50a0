//! Grants: their bytes once, and indexes of numbers around them.
//!
//! ```text
//! (package or name, code or any signer, stage) ─┐
//! (user or group)                              ─┼─▶ handle ─▶ Kept { statement's bytes, owner's number, stage }
//! (end)                                        ─┘
//! ```
//!
//! Always true: each index has exactly the handles of the slots that are taken; a stage only goes forward
//! (live → ended → gone, or revoked → gone); nothing that is observable depends on which handle a
//! grant got: what ends at the same time is taken in the order of its [`Rank`], never of handles.
//!
//! On paper: 300 bytes of statement, 24 of slot, 24 to 32 in each of four indexes before a tree's slack: under 500.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bield_envelope::{Digest, Secret, Time};
use bield_grant::{ENDED_TOLD, Grant, PackageSelector, UserSelector};
use bield_protocol::service::GrantId;

use super::index::{Class, Index, Rank, Target};
use super::kept;

/// Where a grant is kept.
pub(super) type Handle = u32;

/// How far a grant's life is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Stage {
    /// Not ended, as far as anybody looked.
    Live,
    /// Ended less than [`ENDED_TOLD`] ago.
    Ended,
    /// Revoked; remembered until it would have ended.
    Revoked,
}

/// A grant as it is kept.
pub(super) struct Kept {
    pub(super) signed: Box<[u8]>,
    /// The person whose grant it is.
    pub(super) owner: u32,
    pub(super) stage: Stage,
    /// Whether it has a quota of requests.
    pub(super) metered: bool,
}

impl Kept {
    /// What the statement says.
    pub(super) fn says(&self) -> Grant {
        kept::says(&self.signed).expect("it was read when it was kept")
    }

    /// The statement's id, without reading the rest of it.
    pub(super) fn id(&self) -> GrantId {
        kept::first(&self.signed).expect("it was read when it was kept")
    }
}

/// What there is for a package or a name, whatever its stage.
#[derive(Default)]
pub(super) struct Total {
    pub(super) grants: u32,
    /// By range of versions, for names.
    pub(super) ranges: HashMap<PackageSelector, u32>,
}

/// Grants that cover the same package or name in the same code.
#[derive(Default)]
struct Bucket {
    /// Live ones.
    live: u32,
    /// How many of them name each group.
    groups: BTreeMap<u64, u32>,
}

/// What covers one package and one code.
pub(super) struct Cover {
    /// Live grants.
    pub(super) grants: usize,
    /// Different groups that they name.
    pub(super) groups: BTreeSet<u64>,
}

/// All grants.
pub(super) struct Grants {
    pub(super) index: Index,
    slots: Vec<Option<Kept>>,
    free: Vec<Handle>,
    by_target: BTreeSet<(Target, Class, Stage, Handle)>,
    buckets: BTreeMap<(Target, Class), Bucket>,
    totals: BTreeMap<Target, Total>,
    by_user: BTreeSet<(u64, Handle)>,
    ends: BTreeSet<(Time, Rank, Handle)>,
    /// Metered grants: what is left of the quota, by the statement's digest.
    meters: BTreeMap<Digest, u64>,
}

impl Grants {
    /// None yet; indexes are keyed by a secret of this root.
    pub(super) fn new(root: &Secret) -> Self {
        Self {
            index: Index::new(root),
            slots: Vec::new(),
            free: Vec::new(),
            by_target: BTreeSet::new(),
            buckets: BTreeMap::new(),
            totals: BTreeMap::new(),
            by_user: BTreeSet::new(),
            ends: BTreeSet::new(),
            meters: BTreeMap::new(),
        }
    }

    /// How many are kept, ended and revoked ones included.
    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub(super) fn get(&self, handle: Handle) -> Option<&Kept> {
        self.slots.get(handle as usize)?.as_ref()
    }

    /// Keeps a grant; `left` is what is left of its quota, if it has one.
    pub(super) fn insert(&mut self, kept: Kept, says: &Grant, left: Option<u64>) -> Handle {
        let (owner, stage) = (kept.owner, kept.stage);
        let rank = self.index.rank(&kept.signed);
        if let Some(left) = left {
            self.meters.insert(kept::digest(&kept.signed), left);
        }
        let handle = if let Some(free) = self.free.pop() {
            self.slots[free as usize] = Some(kept);
            free
        } else {
            self.slots.push(Some(kept));
            Handle::try_from(self.slots.len() - 1).expect("GRANTS_MAX is far below 2^32")
        };
        let place = self.place(owner, says);
        self.by_target.insert((place.0, place.1, stage, handle));
        if stage == Stage::Live {
            self.count(owner, says, true);
        }
        let total = self.totals.entry(place.0).or_default();
        total.grants += 1;
        if let PackageSelector::Named(..) = says.package {
            *total.ranges.entry(says.package.clone()).or_default() += 1;
        }
        self.by_user
            .insert((self.index.selected(owner, &says.user), handle));
        self.ends.insert((turns(stage, says), rank, handle));
        handle
    }

    /// Forgets a grant.
    pub(super) fn remove(&mut self, handle: Handle) -> Option<Kept> {
        let kept = self.slots.get_mut(handle as usize)?.take()?;
        let says = kept.says();
        self.free.push(handle);
        let place = self.place(kept.owner, &says);
        self.by_target
            .remove(&(place.0, place.1, kept.stage, handle));
        if kept.stage == Stage::Live {
            self.count(kept.owner, &says, false);
        }
        self.uncount(place.0, &says.package);
        self.by_user
            .remove(&(self.index.selected(kept.owner, &says.user), handle));
        let rank = self.index.rank(&kept.signed);
        self.ends.remove(&(turns(kept.stage, &says), rank, handle));
        if kept.metered {
            self.meters.remove(&kept::digest(&kept.signed));
        }
        Some(kept)
    }

    /// Moves a grant on in its life.
    pub(super) fn advance(&mut self, handle: Handle, to: Stage) {
        let Some(kept) = self.slots.get_mut(handle as usize).and_then(Option::as_mut) else {
            return;
        };
        let (from, owner, says) = (kept.stage, kept.owner, kept.says());
        let rank = self.index.rank(&kept.signed);
        kept.stage = to;
        let place = self.place(owner, &says);
        self.by_target.remove(&(place.0, place.1, from, handle));
        self.by_target.insert((place.0, place.1, to, handle));
        if from == Stage::Live && to != Stage::Live {
            self.count(owner, &says, false);
        }
        self.ends.remove(&(turns(from, &says), rank, handle));
        self.ends.insert((turns(to, &says), rank, handle));
    }

    /// The next grant whose stage ends by `now`.
    pub(super) fn due(&self, now: Time) -> Option<Handle> {
        self.ends
            .first()
            .filter(|(at, ..)| *at <= now)
            .map(|(.., handle)| *handle)
    }

    /// Handles of one stage for a target and a class.
    pub(super) fn find(
        &self,
        target: Target,
        class: Class,
        stage: Stage,
    ) -> impl Iterator<Item = Handle> {
        let range = (target, class, stage, 0)..=(target, class, stage, Handle::MAX);
        self.by_target.range(range).map(|(.., handle)| *handle)
    }

    /// All handles for a target, whatever the code and the stage.
    pub(super) fn targeted(&self, target: Target) -> impl Iterator<Item = Handle> {
        let first = (target, Class(0), Stage::Live, 0);
        let last = (target, Class(u64::MAX), Stage::Revoked, Handle::MAX);
        self.by_target
            .range(first..=last)
            .map(|(.., handle)| *handle)
    }

    /// Handles of grants that name a user or a group, by [`Index::user`] or [`Index::group`].
    pub(super) fn naming(&self, user: u64) -> impl Iterator<Item = Handle> {
        let range = (user, 0)..=(user, Handle::MAX);
        self.by_user.range(range).map(|(_, handle)| *handle)
    }

    /// The kinds of code that live grants for a target name.
    pub(super) fn classes(&self, target: Target) -> impl Iterator<Item = Class> {
        self.buckets
            .range((target, Class(0))..=(target, Class(u64::MAX)))
            .map(|((_, class), _)| *class)
    }

    /// What covers a package (and its name) in code of this class.
    pub(super) fn cover(&self, targets: &[Target; 2], class: Class) -> Cover {
        let mut cover = Cover {
            grants: 0,
            groups: BTreeSet::new(),
        };
        let signers = (class != Class::SIGNERS).then_some(Class::SIGNERS);
        for target in targets {
            for class in core::iter::once(class).chain(signers) {
                if let Some(bucket) = self.buckets.get(&(*target, class)) {
                    cover.grants += bucket.live as usize;
                    cover.groups.extend(bucket.groups.keys());
                }
            }
        }
        cover
    }

    /// What is left of a metered grant.
    pub(super) fn left(&self, grant: &Digest) -> Option<u64> {
        self.meters.get(grant).copied()
    }

    pub(super) fn set_left(&mut self, grant: &Digest, left: u64) {
        if let Some(known) = self.meters.get_mut(grant) {
            *known = left;
        }
    }

    /// What there is for a target.
    pub(super) fn total(&self, target: Target) -> Option<&Total> {
        self.totals.get(&target)
    }

    fn uncount(&mut self, target: Target, selector: &PackageSelector) {
        let Some(total) = self.totals.get_mut(&target) else {
            return;
        };
        total.grants -= 1;
        if let Some(count) = total.ranges.get_mut(selector) {
            *count -= 1;
            if *count == 0 {
                total.ranges.remove(selector);
            }
        }
        if total.grants == 0 {
            self.totals.remove(&target);
        }
    }

    fn count(&mut self, owner: u32, says: &Grant, up: bool) {
        let place = self.place(owner, says);
        let group = match &says.user {
            UserSelector::Group(group) => Some(self.index.group(owner, group)),
            UserSelector::Principal(_) => None,
        };
        let bucket = self.buckets.entry(place).or_default();
        if up {
            bucket.live += 1;
            if let Some(group) = group {
                *bucket.groups.entry(group).or_default() += 1;
            }
            return;
        }
        bucket.live = bucket.live.saturating_sub(1);
        if let Some(group) = group
            && let Some(count) = bucket.groups.get_mut(&group)
        {
            *count -= 1;
            if *count == 0 {
                bucket.groups.remove(&group);
            }
        }
        if bucket.live == 0 {
            self.buckets.remove(&place);
        }
    }

    fn place(&self, owner: u32, says: &Grant) -> (Target, Class) {
        (
            self.index.target(owner, &says.package),
            self.index.class(&says.code),
        )
    }
}

/// When the stage ends.
fn turns(stage: Stage, says: &Grant) -> Time {
    match stage {
        Stage::Live | Stage::Revoked => says.not_after,
        Stage::Ended => says.not_after.plus(ENDED_TOLD),
    }
}

impl Stage {
    /// For the snapshot.
    pub(super) const fn number(self) -> u8 {
        self as u8
    }

    pub(super) const fn numbered(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Live),
            1 => Some(Self::Ended),
            2 => Some(Self::Revoked),
            _ => None,
        }
    }
}
