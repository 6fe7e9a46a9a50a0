//! What the host can see of how a session behaves: when bytes moved last, which way, how often the
//! program answered. The bytes themselves are sealed.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until};

use super::DRAINING_IDLE_MAX;

/// Answers after which a peer has shown that it wants more than a place: the first one of the program is
/// its half of the handshake, the next one answers what the peer asked.
const ANSWERS_OF_A_GUEST: u32 = 2;

/// Whose turn it is to speak: the other side spoke last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    Program,
    Peer,
}

/// How one session has behaved so far.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    /// When bytes moved last.
    pub(crate) at: Instant,
    pub(crate) turn: Turn,
    answers: u32,
}

impl Seen {
    /// Whether the peer did nothing yet that a silent or half-done handshake would not do as well.
    pub(crate) fn is_stranger(&self) -> bool {
        self.answers < ANSWERS_OF_A_GUEST
    }
}

/// One session's conduct, told by whoever carries it and read by whoever needs its place.
pub(crate) struct Conduct {
    seen: Mutex<Seen>,
    gives_way: Notify,
}

impl Conduct {
    pub(crate) fn new(now: Instant) -> Conduct {
        Conduct {
            seen: Mutex::new(Seen {
                at: now,
                turn: Turn::Program,
                answers: 0,
            }),
            gives_way: Notify::new(),
        }
    }

    /// Notes that bytes moved, after which it is `turn`'s turn.
    pub(crate) fn moved(&self, turn: Turn, now: Instant) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if turn == Turn::Peer && seen.turn == Turn::Program {
            seen.answers = seen.answers.saturating_add(1);
        }
        seen.turn = turn;
        seen.at = now;
    }

    pub(crate) fn seen(&self) -> Seen {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the session that another one has its place.
    pub(crate) fn give_way(&self) {
        self.gives_way.notify_one();
    }

    /// Ends when the session must go.
    pub(crate) async fn must_go(&self) {
        self.gives_way.notified().await;
    }

    /// Ends when nothing moved for too long. While draining a peer that has its answer is soon taken for
    /// done; one that waits for an answer is not.
    pub(super) async fn falls_silent(
        &self,
        idle_max: Duration,
        mut draining: watch::Receiver<bool>,
    ) {
        let mut hurried_since = None;
        loop {
            let Seen { at, turn, .. } = self.seen();
            let now = Instant::now();
            let mut deadline = at + idle_max;
            if let Some(since) = hurried_since.filter(|_| turn == Turn::Peer) {
                // From then on: what was silent before may just be about to speak.
                deadline = deadline.min(at.max(since) + DRAINING_IDLE_MAX);
            }
            if deadline <= now {
                return;
            }
            let next_look = match hurried_since {
                Some(_) => deadline.min(now + DRAINING_IDLE_MAX),
                None => deadline,
            };
            tokio::select! {
                () = sleep_until(next_look) => {}
                _ = draining.wait_for(|draining| *draining), if hurried_since.is_none() => {
                    hurried_since = Some(Instant::now());
                }
            }
        }
    }
}
