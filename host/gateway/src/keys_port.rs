//! The TCP ports through which attested sessions with the key service are opened.
//!
//! ```text
//! clients, other hosts' runtimes ─▶ public port  ┐
//! the other members ──────────────▶ members port ├─▶ bield-keys      4096 sessions together by default
//! this gateway's own runtimes ────▶ private port ┘
//! ```
//!
//! Always true: whoever fills the public port leaves the other two their places, and one peer fills no
//! more than its share of it; when all its places are taken, a newcomer gets that of a silent session of
//! the peer that has the most (`places`); who says nothing within [`FIRST_BYTE_WAIT`] never reaches the key service;
//! a session's place is free again once the key service ends it, whatever the peer does, and after
//! [`PUBLIC_IDLE_MAX`] of silence or [`PUBLIC_SESSION_MAX`] in any case. Told to stop, a port takes no
//! more and its sessions go on until they end or fall silent.
//!
//! On paper: a session that says nothing at the moment costs two sockets and a task of about 2 KiB, no
//! thread and no buffer.

mod carry;
pub(crate) mod conduct;

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use bield_launcher::{OFFERS_OPEN, SESSION_IDLE_MAX, Supervisor};
use rustix::process::{Resource, Rlimit};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::Arguments;
use crate::places::{NoPlace, Place, Places};

/// Longest session through the public port: a lease takes a second, an owner's script of thousands of
/// grants a minute.
const PUBLIC_SESSION_MAX: Duration = Duration::from_secs(600);
/// Longest silence, in both directions, of a session through the public port.
const PUBLIC_IDLE_MAX: Duration = Duration::from_secs(120);
/// How long a fresh connection may stay silent before it is closed.
const FIRST_BYTE_WAIT: Duration = Duration::from_secs(10);
/// How long a peer that has its answer may stay silent once the gateway is told to stop.
const DRAINING_IDLE_MAX: Duration = Duration::from_secs(1);
/// Pause when accepting fails: the process is out of file descriptors.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);
/// Most places kept for members: each of 16 may hold an old and a new session, and dial again.
const MEMBER_PLACES: usize = 64;
/// Open files beside those of sessions: programs, doors, HTTP connections, packages.
const OTHER_FILES: u64 = 1024;

/// A peer's share of the public places: one of so many parts.
const SHARES: usize = 16;
/// The least that share is: a company behind one address.
const SHARE_MIN: usize = 64;

/// What one port takes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limit {
    /// Sessions at once.
    pub(crate) places: usize,
    /// Sessions at once of one peer.
    pub(crate) per_peer: usize,
    /// Longest session, if there is a limit.
    pub(crate) session_max: Option<Duration>,
    /// Longest silence.
    pub(crate) idle_max: Duration,
}

/// How the sessions are divided among the ports.
pub(crate) struct Limits {
    pub(crate) public: Limit,
    pub(crate) members: Limit,
    pub(crate) own: Limit,
}

impl Limits {
    pub(crate) fn of(arguments: &Arguments) -> Limits {
        let total = arguments.keys_sessions as usize;
        // What all own runtimes can have under way at once; they can wait for each other.
        let own = (usize::from(arguments.workers) * OFFERS_OPEN).clamp(1, total / 8);
        let members = match arguments.is_member() {
            true => MEMBER_PLACES.min(total / 8),
            false => 0,
        };
        let public = total - own - members;
        let share = arguments.keys_peer_sessions;
        let kept = |places| Limit {
            places,
            per_peer: places,
            session_max: None,
            idle_max: SESSION_IDLE_MAX,
        };
        Limits {
            public: Limit {
                places: public,
                per_peer: share.map_or((public / SHARES).max(SHARE_MIN), |share| share as usize),
                session_max: Some(PUBLIC_SESSION_MAX),
                idle_max: PUBLIC_IDLE_MAX,
            },
            members: kept(members),
            own: kept(own),
        }
    }
}

/// Sessions of one or more ports, counted and ended together.
#[derive(Clone)]
pub(crate) struct Sessions {
    keys: Arc<Supervisor>,
    shared: Arc<Shared>,
}

struct Shared {
    open: watch::Sender<usize>,
    draining: watch::Sender<bool>,
    begun: AtomicU64,
    refused_full: AtomicU64,
    refused_share: AtomicU64,
    gave_way: AtomicU64,
}

/// Counts of sessions since start, and now.
pub(crate) struct SessionCounts {
    pub(crate) open: usize,
    pub(crate) begun: u64,
    pub(crate) refused_full: u64,
    pub(crate) refused_share: u64,
    /// Sessions that lost their place to a newcomer.
    pub(crate) gave_way: u64,
}

impl Sessions {
    pub(crate) fn new(keys: &Arc<Supervisor>) -> Sessions {
        Sessions {
            keys: Arc::clone(keys),
            shared: Arc::new(Shared {
                open: watch::Sender::new(0),
                draining: watch::Sender::new(false),
                begun: AtomicU64::new(0),
                refused_full: AtomicU64::new(0),
                refused_share: AtomicU64::new(0),
                gave_way: AtomicU64::new(0),
            }),
        }
    }

    /// Accepts sessions until told to take no more.
    pub(crate) fn serve(&self, listener: TcpListener, limit: Limit) {
        let sessions = self.clone();
        let places = Places::new(limit.places, limit.per_peer);
        let mut draining = self.shared.draining.subscribe();
        tokio::spawn(async move {
            tokio::select! {
                () = sessions.accept(&listener, limit, &places) => {}
                _ = draining.wait_for(|draining| *draining) => {}
            }
        });
    }

    /// Closes the ports. Sessions that are open go on until they end or fall silent.
    pub(crate) fn take_no_more(&self) {
        self.shared.draining.send_replace(true);
    }

    /// Waits until no session is open.
    pub(crate) async fn end(&self) {
        let mut open = self.shared.open.subscribe();
        // Fails only without a sender, and this value holds it.
        let _ = open.wait_for(|open| *open == 0).await;
    }

    pub(crate) fn counts(&self) -> SessionCounts {
        SessionCounts {
            open: *self.shared.open.borrow(),
            begun: self.shared.begun.load(Relaxed),
            refused_full: self.shared.refused_full.load(Relaxed),
            refused_share: self.shared.refused_share.load(Relaxed),
            gave_way: self.shared.gave_way.load(Relaxed),
        }
    }

    async fn accept(&self, listener: &TcpListener, limit: Limit, places: &Arc<Places>) {
        loop {
            let (stream, address) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "session not accepted");
                    tokio::time::sleep(EXHAUSTED_PAUSE).await;
                    continue;
                }
            };
            let place = match places.take(address.ip(), Instant::now()) {
                Ok(place) => place,
                Err(why) => {
                    self.refuse(why, limit);
                    continue;
                }
            };
            if place.instead {
                let gave_way = self.shared.gave_way.fetch_add(1, Relaxed) + 1;
                if gave_way.is_power_of_two() {
                    tracing::warn!(
                        max = limit.places,
                        gave_way,
                        "all places are taken: a silent session was closed for a new one"
                    );
                }
            }
            let open = Open::count(&self.shared, place);
            let (keys, draining) = (Arc::clone(&self.keys), self.shared.draining.subscribe());
            tokio::spawn(async move {
                let conduct = open.place.conduct();
                tokio::select! {
                    end = carry::carry(stream, &keys, limit, conduct, draining) => {
                        if let Err(error) = end {
                            tracing::debug!(%error, "session ended early");
                        }
                    }
                    () = conduct.must_go() => {}
                }
            });
        }
    }

    /// Counts a refusal; logs the first, second, fourth, eighth … so that a flood does not flood the log.
    fn refuse(&self, why: NoPlace, limit: Limit) {
        let (counter, max) = match why {
            NoPlace::Full => (&self.shared.refused_full, limit.places),
            NoPlace::Share => (&self.shared.refused_share, limit.per_peer),
        };
        let refused = counter.fetch_add(1, Relaxed) + 1;
        if refused.is_power_of_two() {
            tracing::warn!(?why, max, refused, "session closed: no place for it");
        }
    }
}

/// One session that is open, counted until it is dropped.
struct Open {
    shared: Arc<Shared>,
    place: Place,
}

impl Open {
    fn count(shared: &Arc<Shared>, place: Place) -> Open {
        shared.begun.fetch_add(1, Relaxed);
        shared.open.send_modify(|open| *open += 1);
        Open {
            shared: Arc::clone(shared),
            place,
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.shared.open.send_modify(|open| *open -= 1);
    }
}

/// A port that only this machine reaches and only this gateway's launchers are told of.
pub(crate) async fn private() -> std::io::Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await
}

/// Raises the number of files this process and its programs may have open to what the sessions need, as
/// far as the system allows.
pub(crate) fn allow_files(arguments: &Arguments) {
    // Two sockets a session.
    let needed = u64::from(arguments.keys_sessions) * 2 + OTHER_FILES;
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let enough = |limit: Option<u64>| limit.is_none_or(|limit| limit >= needed);
    if arguments.keys_config.is_none() || enough(limit.current) {
        return;
    }
    let raised = Rlimit {
        current: limit
            .maximum
            .map_or(Some(needed), |most| Some(needed.min(most))),
        maximum: limit.maximum,
    };
    let failed = rustix::process::setrlimit(Resource::Nofile, raised).is_err();
    if failed || !enough(limit.maximum) {
        tracing::warn!(
            needed,
            "fewer files may be open than --keys-sessions needs; raise the limit (ulimit -n)"
        );
    }
}

#[cfg(test)]
mod tests;
