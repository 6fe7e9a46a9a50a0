//! Keeps visits open for the program to use.
//!
//! ```text
//! KeyService, Member, Witness ─ number ─▶ address of that number ─ dialled ─▶ bytes carried both ways
//! Package                     ─ digest ─▶ file
//! Storage                     ─ operation ─▶ directory ─ answer ─▶ … until the program closes it
//! ```
//!
//! One thread per place: open a visit, wait for the program's first byte, serve, open the next. So at most
//! [`OFFERS_OPEN`] of a kind ([`PEERS_OPEN`] of members and witnesses) are in use at once and the program
//! cannot make the host start more, nor dial an address that the operator did not name.

use std::io::{self, ErrorKind, Read as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::Duration;

use bield_protocol::visit::Visit;

use crate::address::DoorAddress;
use crate::process::Process;
use crate::storage::Directory;
use crate::{Launch, packages, pump, storage};

/// Visits of each kind kept open: a runtime that opens a package while it fetches keys for three others.
pub const OFFERS_OPEN: usize = 4;
/// Visits to members, and to witnesses, kept open: a member of five speaks to four others, to each over a
/// second one while it changes from an old session to a new one, and tries in vain to reach dead ones.
pub const PEERS_OPEN: usize = 16;
/// How long an offer waits for room in the program's accept queue.
const OFFER_WAIT: Duration = Duration::from_secs(5);
/// Pause after an offer was closed unused, so that a program that closes them all cannot make us spin.
const UNUSED_PAUSE: Duration = Duration::from_millis(100);
/// How long the host waits for the program or the disk in the middle of a package or blob.
const TRANSFER_WAIT: Duration = Duration::from_secs(30);
/// How long dialling one address may take: a member that waits for a dead one waits no longer than that.
const DIAL_WAIT: Duration = Duration::from_secs(2);

/// What one kind of offered visit does when the program takes it.
enum Offer {
    Peer(Visit, Peers),
    Package(std::path::PathBuf),
    Storage(Arc<Directory>),
}

/// Addresses that the operator named, each under its number.
struct Peers {
    addresses: Vec<String>,
    /// Whether numbers beyond the last address begin again at the first.
    wraps: bool,
}

impl Peers {
    /// The address of this number; `None` when none was named for it.
    fn address(&self, number: u8) -> Option<&str> {
        let number = usize::from(number);
        let number = match self.wraps {
            true => number.checked_rem(self.addresses.len())?,
            false => number,
        };
        let address = self.addresses.get(number)?;
        (!address.is_empty()).then_some(address)
    }
}

/// Opens all offers of a launch. The threads end with the process; the last one gives the storage back.
pub(crate) fn open(
    launch: &Launch,
    storage: Option<Arc<Directory>>,
    door: &Arc<DoorAddress>,
    process: &Arc<Process>,
) -> io::Result<()> {
    let peers = |visit, addresses: &[String], wraps| {
        let addresses = addresses.to_vec();
        (!addresses.is_empty()).then_some(Offer::Peer(visit, Peers { addresses, wraps }))
    };
    let offers = [
        peers(Visit::KeyService, &launch.key_services, true),
        peers(Visit::Member, &launch.members, false),
        peers(Visit::Witness, &launch.witnesses, false),
        launch.packages.clone().map(Offer::Package),
        storage.map(Offer::Storage),
    ];
    for offer in offers.into_iter().flatten() {
        let offer = Arc::new(offer);
        for _ in 0..offer.places() {
            let (offer, door, process) =
                (Arc::clone(&offer), Arc::clone(door), Arc::clone(process));
            let name = format!("offer {}", process.pid());
            std::thread::Builder::new()
                .name(name)
                .spawn(move || offer.keep_open(&door, &process))?;
        }
    }
    Ok(())
}

impl Offer {
    fn visit(&self) -> Visit {
        match self {
            Offer::Peer(visit, _) => *visit,
            Offer::Package(_) => Visit::Package,
            Offer::Storage(_) => Visit::Storage,
        }
    }

    fn places(&self) -> usize {
        match self.visit() {
            Visit::Member | Visit::Witness => PEERS_OPEN,
            _ => OFFERS_OPEN,
        }
    }

    fn keep_open(&self, door: &DoorAddress, process: &Process) {
        while process.is_running() {
            match self.offer_once(door) {
                Ok(true) => continue,
                Ok(false) => {}
                Err(error) => {
                    tracing::debug!(visit = ?self.visit(), pid = process.pid(), %error, "offer ended");
                }
            }
            std::thread::sleep(UNUSED_PAUSE);
        }
    }

    /// Opens one visit and serves it; `false` when the program closed it unused.
    fn offer_once(&self, door: &DoorAddress) -> io::Result<bool> {
        let mut visit = door.visit(self.visit(), OFFER_WAIT)?;
        let mut first = [0];
        visit.limit_waits(None)?;
        if visit.read(&mut first)? == 0 {
            return Ok(false);
        }
        visit.limit_waits(Some(TRANSFER_WAIT))?;
        match self {
            Offer::Peer(kind, peers) => {
                let Some(address) = peers.address(first[0]) else {
                    return Err(io::Error::new(
                        ErrorKind::NotFound,
                        format!("no address was named for {kind:?} {}", first[0]),
                    ));
                };
                let network = dial(address).inspect_err(|error| {
                    tracing::warn!(peer = ?kind, %address, %error, "not reached; start it or correct its address");
                })?;
                pump::carry(visit, network)?;
            }
            Offer::Package(directory) => packages::serve(visit, first[0], directory)?,
            Offer::Storage(directory) => storage::serve(visit, first[0], directory)?,
        }
        Ok(true)
    }
}

fn dial(address: &str) -> io::Result<TcpStream> {
    let mut refused = io::Error::new(ErrorKind::NotFound, "the name has no address");
    for candidate in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&candidate, DIAL_WAIT) {
            Ok(stream) => return Ok(stream),
            Err(error) => refused = error,
        }
    }
    Err(refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_services_are_counted_round_and_members_are_not() {
        let addresses = ["a:1", "", "c:3"].map(str::to_owned).to_vec();
        let peers = |wraps| Peers {
            addresses: addresses.clone(),
            wraps,
        };
        let found = |peers: Peers| [0, 1, 2, 3, 255].map(|n| peers.address(n).map(str::to_owned));
        let (a, c) = (Some("a:1".to_owned()), Some("c:3".to_owned()));
        assert_eq!(
            found(peers(true)),
            [a.clone(), None, c.clone(), a.clone(), a.clone()]
        );
        assert_eq!(found(peers(false)), [a, None, c, None, None]);
    }
}
