//! Keeps visits open for the program to use.
//!
//! One thread per place: open a visit, wait for the program's first byte, serve, open the next. So at most
//! [`OFFERS_OPEN`] of a kind are in use at once and the program cannot make the host start more.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::Duration;

use bield_protocol::visit::Visit;

use crate::address::DoorAddress;
use crate::process::Process;
use crate::pump::Answers;
use crate::storage::Storage;
use crate::{Launch, packages, pump};

/// Visits of each kind kept open: a runtime that opens a package while it fetches keys for three others.
pub const OFFERS_OPEN: usize = 4;
/// How long an offer waits for room in the program's accept queue.
const OFFER_WAIT: Duration = Duration::from_secs(5);
/// Pause after an offer was closed unused, so that a program that closes them all cannot make us spin.
const UNUSED_PAUSE: Duration = Duration::from_millis(100);
/// How long the host waits for the program or the disk in the middle of a package or blob.
const TRANSFER_WAIT: Duration = Duration::from_secs(30);
/// How long dialling the key service may take.
const DIAL_WAIT: Duration = Duration::from_secs(5);

/// What one kind of offered visit does when the program takes it.
enum Offer {
    KeyService(String),
    Package(std::path::PathBuf),
    Storage(Storage),
}

/// Opens all offers of a launch. The threads end with the process.
pub(crate) fn open(
    launch: &Launch,
    door: &Arc<DoorAddress>,
    process: &Arc<Process>,
) -> io::Result<()> {
    let offers = [
        launch.key_service.clone().map(Offer::KeyService),
        launch.packages.clone().map(Offer::Package),
        launch
            .storage
            .clone()
            .map(|directory| Offer::Storage(Storage::new(directory))),
    ];
    for offer in offers.into_iter().flatten() {
        let offer = Arc::new(offer);
        for _ in 0..OFFERS_OPEN {
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
            Offer::KeyService(_) => Visit::KeyService,
            Offer::Package(_) => Visit::Package,
            Offer::Storage(_) => Visit::Storage,
        }
    }

    fn keep_open(&self, door: &DoorAddress, process: &Process) {
        while process.is_running() {
            match self.offer_once(door) {
                Ok(true) => {}
                Ok(false) => std::thread::sleep(UNUSED_PAUSE),
                Err(error) => {
                    tracing::debug!(visit = ?self.visit(), pid = process.pid(), %error, "offer ended");
                    std::thread::sleep(UNUSED_PAUSE);
                }
            }
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
            Offer::KeyService(address) => {
                let mut network = dial(address).inspect_err(|error| {
                    tracing::warn!(%address, %error, "key service not reached; start it or correct its address");
                })?;
                network.write_all(&first)?;
                pump::carry(visit, network, Answers::Network)?;
            }
            Offer::Package(directory) => packages::serve(visit, first[0], directory)?,
            Offer::Storage(storage) => storage.serve(visit, first[0])?,
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
