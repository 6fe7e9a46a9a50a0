//! Who may hold how many sessions at once, and whose place a newcomer gets when all are taken.
//!
//! ```text
//! newcomer ─▶ its network has its share? ─▶ refused
//!        └──▶ room? ─▶ a place
//!               └─no─▶ of the network with the most places, if it has more than the newcomer's:
//!                      the longest silent stranger, else the longest silent one that has its answer
//!                      ─▶ its place;  none such ─▶ refused
//! ```
//!
//! Always true: no more than `total` places are taken, and no more than `per_peer` of them by one peer;
//! a place is free again as soon as its holder drops it; nobody loses a place to somebody who has as many
//! already. A peer is an IPv4 address or an IPv6 network of 56 bits, which is what one customer gets;
//! somebody with as many addresses as there are places is as many peers, and only then can it keep a
//! newcomer from coming in, as long as it also looks busy in all of them.
//!
//! On paper: one lock and one look-up per session; a look at all sessions for a newcomer that finds no
//! room, 200 µs at 4096. 300 bytes per session.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::keys_port::conduct::{Conduct, Turn};

/// How long a guest that has its answer must have been silent before it can lose its place.
const GUEST_SILENCE: Duration = Duration::from_secs(5);
/// Bits of an IPv6 address that do not tell one customer from another.
const IPV6_HOST_BITS: u32 = 72;

/// Places of one port.
pub(crate) struct Places {
    total: usize,
    per_peer: usize,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    next: u64,
    sessions: BTreeMap<u64, Session>,
    by_peer: HashMap<IpAddr, usize>,
}

struct Session {
    peer: IpAddr,
    conduct: Arc<Conduct>,
}

/// One place, free again when dropped.
pub(crate) struct Place {
    places: Arc<Places>,
    number: u64,
    conduct: Arc<Conduct>,
    /// Whether another session gave way for it.
    pub(crate) instead: bool,
}

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoPlace {
    /// All are taken.
    Full,
    /// This peer has its share.
    Share,
}

impl Places {
    pub(crate) fn new(total: usize, per_peer: usize) -> Arc<Places> {
        Arc::new(Places {
            total,
            per_peer,
            taken: Mutex::default(),
        })
    }

    /// Takes a place for a peer; a session that must give way for it is told so.
    pub(crate) fn take(self: &Arc<Self>, address: IpAddr, now: Instant) -> Result<Place, NoPlace> {
        let peer = peer(address);
        let mut taken = self.lock();
        let own = taken.of(&peer);
        let full = taken.sessions.len() >= self.total;
        if own >= self.per_peer {
            return Err(if full { NoPlace::Full } else { NoPlace::Share });
        }
        if full {
            let number = taken.gives_way(own, now).ok_or(NoPlace::Full)?;
            if let Some(session) = taken.remove(number) {
                session.conduct.give_way();
            }
        }
        let number = taken.next;
        taken.next += 1;
        let conduct = Arc::new(Conduct::new(now));
        let session = Session {
            peer,
            conduct: Arc::clone(&conduct),
        };
        taken.sessions.insert(number, session);
        *taken.by_peer.entry(peer).or_default() += 1;
        Ok(Place {
            places: Arc::clone(self),
            number,
            conduct,
            instead: full,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    fn of(&self, peer: &IpAddr) -> usize {
        self.by_peer.get(peer).copied().unwrap_or_default()
    }

    /// The session that loses its place to a newcomer whose peer has `own` already.
    fn gives_way(&self, own: usize, now: Instant) -> Option<u64> {
        let candidates = self.sessions.iter().filter_map(|(number, session)| {
            let count = self.of(&session.peer);
            let seen = session.conduct.seen();
            let stranger = seen.is_stranger();
            let may = match stranger {
                true => count > own,
                // Only towards equal numbers, and never one that waits for its answer.
                false => {
                    let silent = now.saturating_duration_since(seen.at) >= GUEST_SILENCE;
                    count > own + 1 && seen.turn == Turn::Peer && silent
                }
            };
            may.then_some((count, stranger, Reverse((seen.at, *number))))
        });
        candidates.max().map(|(_, _, Reverse((_, number)))| number)
    }

    fn remove(&mut self, number: u64) -> Option<Session> {
        let session = self.sessions.remove(&number)?;
        if let Some(of_peer) = self.by_peer.get_mut(&session.peer) {
            *of_peer -= 1;
            if *of_peer == 0 {
                self.by_peer.remove(&session.peer);
            }
        }
        Some(session)
    }
}

impl Place {
    /// How the session in this place behaves.
    pub(crate) fn conduct(&self) -> &Conduct {
        &self.conduct
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Not there any more when another session has it.
        self.places.lock().remove(self.number);
    }
}

/// What counts as one peer.
pub(crate) fn peer(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let network = address.to_bits() >> IPV6_HOST_BITS << IPV6_HOST_BITS;
            Ipv6Addr::from_bits(network).into()
        }
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn take(places: &Arc<Places>, text: &str, now: Instant) -> Place {
        places.take(address(text), now).ok().unwrap()
    }

    /// Asks and is answered this often, the last time at `now`.
    fn talk(place: &Place, answers: u32, now: Instant) {
        for _ in 0..answers {
            place.conduct().moved(Turn::Program, now);
            place.conduct().moved(Turn::Peer, now);
        }
    }

    fn is_there(place: &Place) -> bool {
        place.places.lock().sessions.contains_key(&place.number)
    }

    #[test]
    fn one_peer_gets_its_share_and_the_others_theirs() {
        let (places, now) = (Places::new(4, 2), Instant::now());
        let (a, b) = ("192.0.2.1", "192.0.2.2");
        let mut held = vec![take(&places, a, now), take(&places, a, now)];
        assert_eq!(places.take(address(a), now).err(), Some(NoPlace::Share));
        held.push(take(&places, b, now));
        held.remove(0);
        held.push(take(&places, a, now));
        held.push(take(&places, b, now));
        let third = take(&places, "192.0.2.3", now);
        assert!(third.instead && !is_there(&held[0]));
        drop((held, third));
        let taken = places.lock();
        assert_eq!((taken.sessions.len(), taken.by_peer.len()), (0, 0));
    }

    #[test]
    fn the_longest_silent_stranger_of_the_greediest_peer_gives_way() {
        let (places, now) = (Places::new(4, 3), Instant::now());
        let after = |secs| now + Duration::from_secs(secs);
        let greedy = [0, 1, 2].map(|at| take(&places, "192.0.2.1", after(at)));
        // The oldest has spoken since.
        greedy[0].conduct().moved(Turn::Program, after(3));
        let modest = take(&places, "192.0.2.2", now);
        let newcomer = take(&places, "192.0.2.3", after(4));
        assert!(!is_there(&greedy[1]));
        assert!(is_there(&greedy[0]) && is_there(&greedy[2]) && is_there(&modest));
        // Two may be had by taking one of two; three by nobody.
        let second = take(&places, "192.0.2.3", after(4));
        assert!(!is_there(&greedy[2]) && is_there(&newcomer) && second.instead);
        let third = places.take(address("192.0.2.3"), after(4));
        assert_eq!(third.err(), Some(NoPlace::Full));
    }

    #[test]
    fn who_talks_keeps_its_place_and_who_is_done_talking_shares_it() {
        let (places, now) = (Places::new(3, 3), Instant::now());
        let guests = [(); 3].map(|()| take(&places, "192.0.2.1", now));
        for guest in &guests {
            talk(guest, 2, now);
        }
        let come = |at| places.take(address("192.0.2.2"), at);
        assert_eq!(come(now).err(), Some(NoPlace::Full));
        // The second one waits for its answer, however long that takes; the third one spoke just now.
        let later = now + GUEST_SILENCE;
        guests[1].conduct().moved(Turn::Program, now);
        talk(&guests[2], 1, later);
        let newcomer = come(later).ok().unwrap();
        assert!(!is_there(&guests[0]) && is_there(&newcomer));
        assert_eq!(come(later).err(), Some(NoPlace::Full));
    }

    #[test]
    fn an_ipv6_network_is_one_peer_and_a_mapped_address_is_its_ipv4_one() {
        let (places, now) = (Places::new(10, 1), Instant::now());
        let _held = [
            take(&places, "2001:db8::1", now),
            take(&places, "192.0.2.1", now),
        ];
        for same in ["2001:db8:0:ff:ffff::2", "::ffff:192.0.2.1"] {
            assert_eq!(places.take(address(same), now).err(), Some(NoPlace::Share));
        }
        assert!(places.take(address("2001:db8:0:100::1"), now).is_ok());
    }
}
