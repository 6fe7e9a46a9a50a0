//! Anti-entropy: fetch what other replicas have and this one has not, and trust none of them.
//!
//! ```text
//! every interval, and at start, for each peer
//!   list of capsules ──▶ changed since both were equal? ──▶ heads for a fresh nonce
//!      config chain, then each writer ──▶ what is missing ──▶ ingest like from anyone
//!      another hash at a place held ──▶ that record ──▶ fork proof
//!      fork proofs ◀──▶
//! ```
//!
//! Always true: heads and gaps are compared, never all hashes, and ranges are fetched, never whole
//! chains; what a peer serves is verified before it is stored, and what is refused is counted; a
//! dead peer is asked less and less often. Two replicas that differ nowhere cost one list a round.
//!
//! A peer's statement of heads is used for one thing only: when its signer is a replica of the
//! capsule's configuration, certificates need not hold *now* for records it vouches to have had
//! in time ([`Source::Replica`]); everything else about them is still checked.

use std::io;
use std::str::FromStr;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use bield_envelope::Principal;
use rand_core::Rng as _;
use tokio::runtime::Handle;

use crate::Store;
use crate::system::Randomness;

mod client;
mod repair;

use client::PeerClient;
use repair::Repair;

#[cfg(doc)]
use crate::replica::Source;

/// The longest a dead peer is left alone.
const BACKOFF_MAX: Duration = Duration::from_secs(60);

/// Another replica: its URL and, when known, who signs there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerAddress {
    /// Such as `http://host:8801`.
    pub url: String,
    /// Statements by anyone else are refused.
    pub principal: Option<Principal>,
}

/// Text is no address of a peer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "a peer is written as http://HOST:PORT or http://HOST:PORT=ed25519:<64 hexadecimal digits>"
)]
pub struct ParsePeerError;

impl FromStr for PeerAddress {
    type Err = ParsePeerError;

    fn from_str(text: &str) -> Result<Self, ParsePeerError> {
        let (url, principal) = match text.split_once('=') {
            Some((url, principal)) => {
                let principal = principal.parse().map_err(|_| ParsePeerError)?;
                (url, Some(principal))
            }
            None => (text, None),
        };
        if !url.starts_with("http://") || url.len() > 256 {
            return Err(ParsePeerError);
        }
        Ok(Self {
            url: url.trim_end_matches('/').to_owned(),
            principal,
        })
    }
}

/// The threads that speak to peers, one each.
pub(crate) struct Peers {
    stop: Arc<Stop>,
    threads: Vec<JoinHandle<()>>,
}

/// Tells threads to end while they wait.
#[derive(Debug, Default)]
pub(crate) struct Stop {
    stopped: Mutex<bool>,
    told: Condvar,
}

impl Stop {
    pub(crate) fn tell(&self) {
        *self.stopped.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.told.notify_all();
    }

    pub(crate) fn is_told(&self) -> bool {
        *self.stopped.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits; says whether it is time to end.
    pub(crate) fn wait(&self, wait: Duration) -> bool {
        let stopped = self.stopped.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self
            .told
            .wait_timeout_while(stopped, wait, |stopped| !*stopped);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

impl Peers {
    /// Starts a thread for each peer. Must be called inside the runtime that serves.
    pub(crate) fn start(
        store: &Arc<Store>,
        peers: Vec<PeerAddress>,
        interval: Duration,
        follow: bool,
    ) -> io::Result<Self> {
        let stop = Arc::new(Stop::default());
        let mut threads = Vec::with_capacity(peers.len());
        for peer in peers {
            let mut repair = Repair::new(
                Arc::clone(store),
                Handle::current(),
                PeerClient::new(peer),
                Arc::clone(&stop),
                follow,
            );
            let stop = Arc::clone(&stop);
            let thread = std::thread::Builder::new().name("peer".to_owned());
            threads.push(thread.spawn(move || run(&mut repair, &stop, interval))?);
        }
        Ok(Self { stop, threads })
    }

    pub(crate) fn stop(&self) {
        self.stop.tell();
    }

    pub(crate) fn join(self) {
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("the thread of a peer ended with a panic");
            }
        }
    }
}

fn run(repair: &mut Repair, stop: &Stop, interval: Duration) {
    let mut wait = interval;
    while !stop.is_told() {
        // A panic is a fault of this program in what one peer sent: the next round begins anew.
        let round = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| repair.round()));
        match round {
            Err(_) => {
                tracing::error!(
                    peer = repair.url(),
                    "a round with a peer ended with a panic"
                );
                wait = (wait * 2).min(BACKOFF_MAX.max(interval));
            }
            Ok(Ok(())) => wait = interval,
            Ok(Err(error)) => {
                tracing::debug!(peer = repair.url(), %error, "a round with a peer failed");
                wait = (wait * 2).min(BACKOFF_MAX.max(interval));
            }
        }
        if stop.wait(jittered(wait)) {
            return;
        }
    }
}

/// Three quarters to five quarters: replicas that start together do not stay together.
fn jittered(wait: Duration) -> Duration {
    let mut random = [0; 2];
    Randomness.fill_bytes(&mut random);
    wait.mul_f64(0.75 + 0.5 * f64::from(u16::from_be_bytes(random)) / f64::from(u16::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_url_and_maybe_a_principal() {
        let principal = Principal::from_bytes([7; 32]);
        let both: PeerAddress = format!("http://a:1/={principal}").parse().unwrap();
        assert_eq!(
            (both.url.as_str(), both.principal),
            ("http://a:1", Some(principal))
        );
        let alone: PeerAddress = "http://a:1".parse().unwrap();
        assert_eq!(alone.principal, None);
        for wrong in ["a:1", "https://a", "http://a=b", ""] {
            assert!(wrong.parse::<PeerAddress>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_wait_between_rounds_is_never_zero_and_never_twice_the_interval() {
        for _ in 0..100 {
            let wait = jittered(Duration::from_secs(4));
            assert!((3..=5).contains(&wait.as_secs()) || wait == Duration::from_secs(5));
        }
    }
}
