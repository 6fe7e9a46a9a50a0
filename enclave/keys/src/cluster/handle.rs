//! The handle on a member's threads, and what they share.

use std::io::{Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bield_capsule::Received;
use bield_group::{MEMBERS_MAX, MemberId, MemberIdError, Timing};
use bield_platform::Randomness;
use bield_session::Session;
use rand_core::Rng as _;

use super::links::{self, Order};
use super::member::{Event, Member};
use super::message::{Hello, VERSION};
use super::queues::Queue;
use super::{Agreement, Apply, NotCommitted, Role, Slot, Stopped, Surroundings};

/// How a member takes part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// This member's place.
    pub slot: Slot,
    /// Members of the group: 3 or 5.
    pub members: u8,
    /// The unit of all that follows.
    pub tick: Duration,
    /// Heartbeats and elections.
    pub timing: Timing,
    /// How long members wait for each other.
    pub limits: Limits,
    /// How long [`Agreement::commit`] waits for a majority.
    pub commit_wait: Duration,
}

/// How long members wait for each other, in ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Between two looks at the others.
    pub look: u64,
    /// For all to promise themselves to a group.
    pub promise: u64,
    /// For the state, between two failures to be given it.
    pub fetch: u64,
    /// Without a leader, before a member starts again.
    pub leaderless: u64,
}

impl Settings {
    /// Ticks of 50 ms: a new leader within about 2 s, a new group within about 30 s of the old one's end.
    #[must_use]
    pub fn new(slot: Slot, members: u8) -> Self {
        Self {
            slot,
            members,
            tick: Duration::from_millis(50),
            timing: Timing::default(),
            limits: Limits {
                look: 10,
                promise: 400,
                fetch: 1200,
                leaderless: 600,
            },
            commit_wait: Duration::from_secs(5),
        }
    }
}

/// A member is not started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The slot is not one of the group, or the group is not of 3 or 5.
    #[error("slot {slot} of {members} members: a group has 3 or 5 members, counted from 0")]
    Slot {
        /// As asked for.
        slot: Slot,
        /// As configured.
        members: u8,
    },
    /// No thread could be started.
    #[error("no thread for the group: {0}")]
    Thread(#[from] std::io::Error),
}

/// A running member of a group. Dropping the handle ends nothing: [`Cluster::stop`] does.
pub struct Cluster {
    shared: Arc<Shared>,
}

/// What the threads share.
pub(super) struct Shared {
    pub(super) me: MemberId,
    pub(super) settings: Settings,
    pub(super) surroundings: Arc<dyn Surroundings>,
    pub(super) inbox: Queue<Event>,
    outboxes: Vec<Queue<Order>>,
    published: Mutex<(Role, Option<Stopped>)>,
    over: AtomicBool,
}

impl Cluster {
    /// Starts taking part as a new process in a slot.
    ///
    /// # Errors
    /// [`StartError`]; nothing runs then.
    pub fn start(
        settings: Settings,
        apply: Box<dyn Apply>,
        surroundings: Arc<dyn Surroundings>,
    ) -> Result<Self, StartError> {
        let Settings { slot, members, .. } = settings;
        let whole = members == 3 || usize::from(members) == MEMBERS_MAX;
        if !whole || slot >= members {
            return Err(StartError::Slot { slot, members });
        }
        let me = draw(slot).map_err(|_| StartError::Slot { slot, members })?;
        let shared = Arc::new(Shared {
            me,
            settings,
            surroundings,
            inbox: Queue::new(INBOX_BYTES_MAX),
            outboxes: (0..members).map(|_| Queue::new(OUTBOX_BYTES_MAX)).collect(),
            published: Mutex::new((Role::Forming, None)),
            over: AtomicBool::new(false),
        });
        let cluster = Self { shared };
        cluster.spawn_all(apply).inspect_err(|_| cluster.stop())?;
        Ok(cluster)
    }

    /// Serves a session that was accepted from a peer in role key service, on the caller's thread,
    /// until either end closes it. Every other role is refused.
    pub fn serve<S: Read + Write>(&self, session: Session<S>) {
        // A session with a member ends in many ways; the group goes on without it.
        drop(links::serve(&self.shared, session));
    }

    /// Ends taking part, without waiting for it: the others see this member die.
    pub fn stop(&self) {
        self.shared.over.store(true, Ordering::SeqCst);
        self.shared.inbox.close();
        self.shared.outboxes.iter().for_each(Queue::close);
    }

    fn spawn_all(&self, apply: Box<dyn Apply>) -> Result<(), std::io::Error> {
        let named = |name: String| std::thread::Builder::new().name(name);
        for slot in (0..self.shared.settings.members).filter(|s| *s != self.shared.settings.slot) {
            let shared = Arc::clone(&self.shared);
            named(format!("member {slot}")).spawn(move || links::dial(&shared, slot))?;
        }
        let cluster = Self {
            shared: Arc::clone(&self.shared),
        };
        named("agreement".into()).spawn(move || {
            let shared = Arc::clone(&cluster.shared);
            let member = Member::new(shared, apply);
            // Raft panics when it finds itself in disorder; this process must not go on then.
            let why = catch_unwind(AssertUnwindSafe(|| member.run()))
                .unwrap_or_else(|_| Stopped::Fault("a fault in this program".into()));
            cluster.shared.published().1 = Some(why.clone());
            cluster.stop();
            cluster.shared.surroundings.stopped(&why);
        })?;
        Ok(())
    }
}

impl Agreement for Cluster {
    fn commit(&self, record: &Received) -> Result<(), NotCommitted> {
        let (done, outcome) = sync_channel(1);
        let record = record.clone();
        self.shared.inbox.push(Event::Propose { record, done });
        match outcome.recv_timeout(self.shared.settings.commit_wait) {
            Ok(outcome) => outcome,
            Err(RecvTimeoutError::Timeout) => Err(NotCommitted::Unknown),
            Err(RecvTimeoutError::Disconnected) => {
                let why = self.stopped().unwrap_or(Stopped::Asked);
                Err(NotCommitted::Stopped(why))
            }
        }
    }

    fn role(&self) -> Role {
        self.shared.published().0
    }

    fn stopped(&self) -> Option<Stopped> {
        self.shared.published().1.clone()
    }
}

impl Shared {
    pub(super) const fn hello(&self) -> Hello {
        Hello {
            version: VERSION,
            member: self.me.as_u64(),
            members: self.settings.members,
        }
    }

    /// The orders for the session to `slot`, which is one of the group.
    pub(super) fn outbox(&self, slot: Slot) -> &Queue<Order> {
        &self.outboxes[usize::from(slot)]
    }

    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    /// Says which part this instance plays.
    pub(super) fn publish(&self, role: Role) {
        let before = std::mem::replace(&mut self.published().0, role);
        if before != role {
            self.surroundings.changed(role);
        }
    }

    fn published(&self) -> MutexGuard<'_, (Role, Option<Stopped>)> {
        self.published
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

fn draw(slot: Slot) -> Result<MemberId, MemberIdError> {
    // One draw in 2^61 is no name.
    MemberId::new(slot, Randomness.next_u64()).or_else(|_| MemberId::new(slot, u64::MAX))
}

/// Bytes of letters that wait for the deciding thread.
const INBOX_BYTES_MAX: usize = 32 << 20;
/// Bytes of letters that wait for one member's session.
const OUTBOX_BYTES_MAX: usize = 16 << 20;
