//! Admission against a plain oracle, and what holds whatever is granted.
//!
//! Universes are small, so that near misses are common: two owners and an heir of the first, four
//! users who may succeed each other in any way, one group, times in minutes.

use core::cmp::Reverse;

use super::*;
use crate::cast::{named, signed_by};

/// One grant.
#[derive(Clone, Debug)]
struct Word {
    owner: u8,
    package: usize,
    user: u8,
    code: usize,
    isolation: Isolation,
    from: u64,
    until: u64,
    /// Of its quota, this many requests were set aside.
    allotted: Option<u64>,
}

/// All that owners and users said.
#[derive(Clone, Debug)]
struct World {
    words: Vec<Word>,
    /// Signer, revision, members.
    teams: Vec<(u8, u64, Vec<u8>)>,
    /// Users succeeded by users.
    edges: Vec<(u8, u8)>,
    /// The owner has an heir.
    heir: bool,
}

/// One request. Times are minutes after the story begins.
#[derive(Clone, Debug)]
struct Ask {
    user: u8,
    id: u8,
    package: u8,
    code: u8,
    right_key: bool,
    created: u64,
    now: u64,
}

const BEGIN: Time = NOON;
const LEASE_MINUTES: u64 = 14;
const GUARD_MAX: usize = 4;
const OWNER: u8 = 1;
const STRANGER: u8 = 2;
const HEIR: u8 = 8;
/// Stands for `group:team` where a user is expected.
const TEAM: u8 = 0;

fn minute(number: u64) -> Time {
    BEGIN.plus(MINUTE * u32::try_from(number).unwrap())
}

fn worlds() -> impl Strategy<Value = World> {
    let team = (owners(), 1..4u64, prop::collection::vec(1..5u8, 0..4));
    let edge = (1..5u8, 1..5u8).prop_filter("nobody succeeds himself", |(a, b)| a != b);
    (
        prop::collection::vec(words(), 0..6),
        prop::collection::vec(team, 0..4),
        prop::collection::vec(edge, 0..4),
        any::<bool>(),
    )
        .prop_map(|(words, teams, edges, heir)| World {
            words,
            teams,
            edges,
            heir,
        })
}

fn words() -> impl Strategy<Value = Word> {
    let isolation = prop_oneof![
        Just(Isolation::Shared),
        Just(Isolation::Wiped),
        Just(Isolation::Dedicated)
    ];
    let allotted = prop_oneof![2 => Just(None), 1 => (0..3u64).prop_map(Some)];
    (
        owners(),
        0..5usize,
        0..5u8,
        0..5usize,
        isolation,
        0..9u64,
        6..18u64,
        allotted,
    )
        .prop_map(
            |(owner, package, user, code, isolation, from, until, allotted)| Word {
                owner,
                package,
                user,
                code,
                isolation,
                from,
                until,
                allotted,
            },
        )
}

fn owners() -> impl Strategy<Value = u8> {
    prop_oneof![6 => Just(OWNER), 1 => Just(STRANGER), 1 => Just(HEIR)]
}

fn asks() -> impl Strategy<Value = Vec<Ask>> {
    let ask = (
        1..5u8,
        1..4u8,
        mostly_one(),
        mostly_one(),
        prop::bool::weighted(0.9),
        0..8u64,
        0..16u64,
    )
        .prop_map(|(user, id, package, code, right_key, age, now)| Ask {
            user,
            id,
            package,
            code,
            right_key,
            // Two minutes into the future up to five into the past, and a little beyond each.
            created: (now + 2).saturating_sub(age),
            now,
        });
    prop::collection::vec(ask, 1..12)
}

fn mostly_one() -> impl Strategy<Value = u8> {
    prop_oneof![6 => Just(1u8), 1 => Just(2u8)]
}

impl Word {
    /// Whether the words for package and code fit; the others are at odd places on purpose.
    fn fits(&self) -> bool {
        self.package < 3 && self.code < 3
    }

    fn signed(&self, number: usize) -> Verified<Grant> {
        let packages = [
            PackageSelector::Digest(package(1)),
            named("^1"),
            named("*"),
            named(">=2.0.0"),
            PackageSelector::Digest(package(2)),
        ];
        let codes = [
            measured(1),
            signed_by(1, Some(1), 1),
            signed_by(1, None, 0),
            signed_by(1, None, 2),
            measured(2),
        ];
        granted_by(&owner(self.owner), |grant| {
            // Two equal words are two grants.
            grant.id = [u8::try_from(number).unwrap(); 16];
            grant.package = packages[self.package].clone();
            grant.user = if self.user == TEAM {
                team()
            } else {
                one(self.user)
            };
            grant.code = codes[self.code].clone();
            grant.isolation = self.isolation;
            grant.not_before = minute(self.from);
            grant.not_after = minute(self.until);
            grant.requests = self.allotted.map(|_| 100);
        })
    }
}

impl World {
    fn held(&self) -> Held {
        let grants: Vec<_> = (0..)
            .zip(&self.words)
            .map(|(n, word)| word.signed(n))
            .collect();
        let allotments: Vec<_> = grants
            .iter()
            .zip(&self.words)
            .filter_map(|(grant, word)| word.allotted.map(|requests| allotted(grant, requests)))
            .collect();
        Held {
            groups: self
                .teams
                .iter()
                .map(|(by, revision, members)| team_of(&owner(*by), *revision, members))
                .collect(),
            successions: self.successions(),
            meter: Meter::new(allotments),
            grants,
        }
    }

    fn successions(&self) -> Successions {
        let users = self.edges.iter().map(|(a, b)| (user_key(*a), user_key(*b)));
        let owners = self.heir.then(|| (owner(OWNER), owner(HEIR)));
        let all: Vec<_> = users
            .chain(owners)
            .map(|(from, to)| succeeded(&from, &to, NOON))
            .collect();
        all.iter().collect()
    }

    /// The same said in another order.
    fn turned(&self, by: usize) -> Self {
        fn turn<T: Clone>(list: &[T], by: usize) -> Vec<T> {
            let mut list = list.to_vec();
            let by_places = by % list.len().max(1);
            list.rotate_left(by_places);
            if by.is_multiple_of(2) {
                list.reverse();
            }
            list
        }
        Self {
            teams: turn(&self.teams, by),
            edges: turn(&self.edges, by),
            ..self.clone()
        }
    }

    /// Whether only one succession leads from `a`, and only one to `b`, and it is this.
    fn whole(&self, a: u8, b: u8) -> bool {
        self.edges.contains(&(a, b))
            && self.edges.iter().all(|edge| edge.0 != a || edge.1 == b)
            && self.edges.iter().all(|edge| edge.1 != b || edge.0 == a)
    }

    /// Whether user `a` was replaced by `b`, over any number of whole steps to a whole end.
    fn replaced(&self, a: u8, b: u8) -> bool {
        let (mut at, mut met) = (a, a == b);
        for _ in 0..9 {
            if !self.edges.iter().any(|edge| edge.0 == at) {
                return met || a == b;
            }
            let Some(next) = (1..5).find(|next| self.whole(at, *next)) else {
                return a == b;
            };
            at = next;
            met |= at == b;
        }
        a == b
    }

    fn owners(&self) -> Vec<u8> {
        if self.heir {
            vec![OWNER, HEIR]
        } else {
            vec![OWNER]
        }
    }

    fn team(&self) -> Vec<u8> {
        let owners = self.owners();
        let theirs = || self.teams.iter().filter(|team| owners.contains(&team.0));
        let Some(newest) = theirs().map(|team| team.1).max() else {
            return Vec::new();
        };
        let mut said: Vec<Vec<u8>> = theirs()
            .filter(|team| team.1 == newest)
            .map(|team| {
                let mut members = team.2.clone();
                members.sort_unstable();
                members.dedup();
                members
            })
            .collect();
        said.dedup();
        if said.len() == 1 {
            said.remove(0)
        } else {
            Vec::new()
        }
    }

    /// The grants that allow this, the strictest only, with their places.
    fn allowing(&self, ask: &Ask) -> Vec<usize> {
        if self.edges.iter().any(|edge| edge.0 == ask.user) {
            return Vec::new();
        }
        let is = |user: u8| self.replaced(user, ask.user);
        let allows = |word: &Word| {
            self.owners().contains(&word.owner)
                && word.fits()
                && (word.from..word.until).contains(&ask.now)
                && if word.user == TEAM {
                    self.team().into_iter().any(is)
                } else {
                    is(word.user)
                }
        };
        let strictest = self
            .words
            .iter()
            .filter(|word| allows(word))
            .map(|word| word.isolation)
            .max();
        let words = self.words.iter().enumerate();
        words
            .filter(|(_, word)| allows(word) && Some(word.isolation) == strictest)
            .map(|(place, _)| place)
            .collect()
    }
}

/// The rules of a runtime once more, as plainly as they can be said, over small numbers.
#[derive(Default)]
struct Oracle {
    admitted: Vec<(u8, u8, u64)>,
    latest: u64,
}

impl Oracle {
    fn admits(&mut self, ask: &Ask, world: &mut World, grants: &[Verified<Grant>]) -> bool {
        let right_place = ask.package == 1 && ask.code == 1 && ask.right_key;
        let fresh = ask.created <= ask.now + 1 && ask.now <= ask.created + 5;
        let allowing = world.allowing(ask);
        let with_room = allowing
            .into_iter()
            .filter(|place| world.words[*place].allotted != Some(0))
            .max_by_key(|place| (world.words[*place].until, Reverse(grants[*place].digest())));
        let Some(place) = with_room else {
            return false;
        };
        if !(right_place && fresh && ask.now < LEASE_MINUTES) {
            return false;
        }
        self.latest = self.latest.max(ask.now);
        let remembered = |created: u64| created + 5 >= self.latest;
        let seen = self
            .admitted
            .iter()
            .any(|&(user, id, created)| (user, id) == (ask.user, ask.id) && remembered(created));
        let held = |of: &dyn Fn(u8) -> bool| {
            let all = self.admitted.iter();
            all.filter(|entry| remembered(entry.2) && of(entry.0))
                .count()
        };
        let left = GUARD_MAX - held(&|_| true);
        let has_room = held(&|user| user == ask.user) < left;
        let admits = remembered(ask.created) && !seen && has_room;
        if admits {
            self.admitted.push((ask.user, ask.id, ask.created));
            if let Some(left) = &mut world.words[place].allotted {
                *left -= 1;
            }
        }
        admits
    }
}

impl Ask {
    fn header(&self) -> RequestHeader {
        RequestHeader {
            audience: audience(package(1), &measurement(self.code)),
            key: if self.right_key {
                key()
            } else {
                Digest::of("other key", &[])
            },
            package: package(self.package),
            id: [self.id; 16],
            created: minute(self.created),
        }
    }

    fn decided(&self, held: &Held, guard: &mut ReplayGuard) -> Result<Digest, Refused> {
        let lease = Lease {
            not_after: minute(LEASE_MINUTES),
            ..lease()
        };
        let keys = [key()];
        let leased = held.leased(&lease, &keys);
        check(
            &self.header(),
            user(self.user),
            leased,
            guard,
            minute(self.now),
        )
        .map(Verified::digest)
    }

    /// The isolation this user is served with at this minute, whatever the quota.
    fn isolation(&self, world: &World) -> Option<Isolation> {
        let mut unmetered = world.clone();
        for word in &mut unmetered.words {
            word.allotted = None;
        }
        let fresh = Self {
            package: 1,
            code: 1,
            right_key: true,
            created: self.now,
            ..self.clone()
        };
        let held = unmetered.held();
        let decided = fresh.decided(&held, &mut ReplayGuard::new(1)).ok()?;
        let grant = held.grants.iter().find(|grant| grant.digest() == decided);
        grant.map(|grant| grant.isolation)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn admission_accepts_exactly_what_the_oracle_accepts(world in worlds(), asks in asks()) {
        let held = world.held();
        let (mut guard, mut oracle) = (ReplayGuard::new(GUARD_MAX), Oracle::default());
        let mut left = world.clone();
        for ask in &asks {
            let admitted = ask.decided(&held, &mut guard);
            let expected = oracle.admits(ask, &mut left, &held.grants);
            prop_assert_eq!(admitted.is_ok(), expected, "{:?}: {:?}", ask, admitted.err());
        }
    }

    #[test]
    fn the_order_in_which_things_were_said_does_not_matter(
        world in worlds(), asks in asks(), by in 1..9usize,
    ) {
        let (held, mut turned) = (world.held(), world.turned(by).held());
        turned.grants.reverse();
        let mut guards = [ReplayGuard::new(GUARD_MAX), ReplayGuard::new(GUARD_MAX)];
        for ask in &asks {
            let [first, second] = &mut guards;
            prop_assert_eq!(ask.decided(&held, first), ask.decided(&turned, second));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn another_grant_never_loosens_the_isolation_of_who_is_served(
        world in worlds(), another in words(), asks in asks(),
    ) {
        let mut more = world.clone();
        more.words.push(another);
        for ask in &asks {
            let (before, after) = (ask.isolation(&world), ask.isolation(&more));
            prop_assert!(before <= after, "{before:?} became {after:?} for {ask:?}");
        }
    }

    #[test]
    fn a_grant_never_serves_more_than_was_set_aside(world in worlds(), asks in asks()) {
        let (held, mut served) = (world.held(), std::collections::BTreeMap::new());
        let mut guard = ReplayGuard::new(99);
        for ask in asks.iter().cycle().take(60) {
            if let Ok(grant) = ask.decided(&held, &mut guard) {
                *served.entry(grant).or_insert(0) += 1;
            }
        }
        for (grant, word) in held.grants.iter().zip(&world.words) {
            let count: u64 = served.get(&grant.digest()).copied().unwrap_or(0);
            prop_assert!(word.allotted.is_none_or(|most| count <= most));
        }
        for unused in held.meter.unused() {
            let count = served.get(&unused.grant).copied().unwrap_or(0);
            let word = held.grants.iter().position(|grant| grant.digest() == unused.grant);
            let allotted = word.and_then(|place| world.words[place].allotted);
            prop_assert_eq!(Some(count + unused.requests), allotted);
        }
    }
}
