//! Who may hold how many sessions at once.
//!
//! Always true: no more than `total` places are taken, and no more than `per_peer` of them by one peer;
//! a place is free again as soon as its holder drops it. A peer is an IPv4 address or an IPv6 network of
//! 64 bits, the least that one customer gets; somebody with many addresses is many peers.
//!
//! On paper: one lock and one look-up per session, 40 bytes per peer with a session.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

/// Places of one port.
pub(crate) struct Places {
    total: usize,
    per_peer: usize,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    total: usize,
    by_peer: HashMap<IpAddr, usize>,
}

/// One place, free again when dropped.
pub(crate) struct Place {
    places: Arc<Places>,
    peer: IpAddr,
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

    /// Takes a place for a peer.
    pub(crate) fn take(self: &Arc<Self>, address: IpAddr) -> Result<Place, NoPlace> {
        let peer = peer(address);
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.total >= self.total {
            return Err(NoPlace::Full);
        }
        let of_peer = taken.by_peer.entry(peer).or_default();
        if *of_peer >= self.per_peer {
            return Err(NoPlace::Share);
        }
        *of_peer += 1;
        taken.total += 1;
        Ok(Place {
            places: Arc::clone(self),
            peer,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self
            .places
            .taken
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        taken.total -= 1;
        if let Some(of_peer) = taken.by_peer.get_mut(&self.peer) {
            *of_peer -= 1;
            if *of_peer == 0 {
                taken.by_peer.remove(&self.peer);
            }
        }
    }
}

/// What counts as one peer.
fn peer(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let network = address.to_bits() & !u128::from(u64::MAX);
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

    #[test]
    fn one_peer_gets_its_share_and_the_others_theirs() {
        let places = Places::new(4, 2);
        let (a, b) = (address("192.0.2.1"), address("192.0.2.2"));
        let mut held = vec![places.take(a).ok().unwrap(), places.take(a).ok().unwrap()];
        assert_eq!(places.take(a).err(), Some(NoPlace::Share));
        held.push(places.take(b).ok().unwrap());
        held.remove(0);
        held.push(places.take(a).ok().unwrap());
        held.push(places.take(b).ok().unwrap());
        assert_eq!(places.take(address("192.0.2.3")).err(), Some(NoPlace::Full));
        drop(held);
        let taken = places.taken.lock().unwrap();
        assert_eq!((taken.total, taken.by_peer.len()), (0, 0));
    }

    #[test]
    fn an_ipv6_network_is_one_peer_and_a_mapped_address_is_its_ipv4_one() {
        let places = Places::new(10, 1);
        let _held = [
            places.take(address("2001:db8::1")).ok().unwrap(),
            places.take(address("192.0.2.1")).ok().unwrap(),
        ];
        for same in ["2001:db8::ffff:2", "::ffff:192.0.2.1"] {
            assert_eq!(places.take(address(same)).err(), Some(NoPlace::Share));
        }
        assert!(places.take(address("2001:db8:0:1::1")).is_ok());
    }
}
