//! The service as its sessions see it: one message in, one reply out, from any number of threads.
//!
//! ```text
//! Request ──turn──▶ Ask   ──allowance, queue──▶ sequencer ──▶ reply when its record counts
//!                   Read  ──▶ state ──▶ reply when what it shows counts
//!                   Audit ──▶ state: where ──▶ log: what
//!                   Freshness, GiveShare, Inspect ──▶ here
//! ```
//!
//! Always true: in every stage but `serving` there is an answer to `Inspect`, and a refusal with a sentence to
//! what that stage does not serve; nobody's allowance of orders is used up by anybody else, since it is counted after the
//! signature was checked; nothing here names a principal, package or model to the host.
//!
//! Left to others: order and durability (`sequencer`), meaning (`state`), sessions.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use bield_envelope::Principal;
use bield_protocol::refusal::{Refusal, Retry};
use bield_protocol::service::{Inspection, Reply, Request};

use super::start::Start;
use crate::freshness;
use crate::limits::{Allowances, lock};
use crate::metrics::Metrics;
use crate::recovery::{Given, Recovering, Rehearsal};
use crate::sequencer::{Caller, Running, Trouble};
use crate::service::{Conversation, RefusedLeases, Turn, read, turn};
use crate::state::{Ask, AuditedRecord};

/// A key service, shared by all sessions.
pub struct KeyService {
    stage: RwLock<Stage>,
    start: Start,
    allowances: Allowances<Principal>,
    /// Pages of audits, each of which reads many records.
    audits: Allowances<Principal>,
    /// Leases and returns, by the owner of their package; one for all packages that there are not.
    leases: Allowances<Option<Principal>>,
    /// Holds, anchors and releases of functions' states, likewise.
    states: Allowances<Option<Principal>>,
    refused: Mutex<RefusedLeases>,
    rehearsal: Mutex<Rehearsal>,
    pub(crate) metrics: Arc<Metrics>,
}

/// What the service is doing.
#[derive(Clone)]
pub(crate) enum Stage {
    /// On its way to serving; why it does not yet.
    Forming(String),
    /// Waiting for shares.
    Recovering(Arc<Mutex<Recovering>>),
    /// A member that has state and log and no part in its group yet: nobody may rely on it.
    Joining(Arc<Running>),
    /// A member that does not lead: it has state and log, and serves nobody.
    Following(Arc<Running>),
    /// Serving.
    Serving(Arc<Running>),
}

impl KeyService {
    pub(crate) fn new(start: Start, orders_per_minute: u32, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            stage: RwLock::new(Stage::Forming("it is loading its state".to_owned())),
            start,
            allowances: Allowances::new(orders_per_minute),
            audits: Allowances::of(AUDITS_AT_ONCE, AUDITS_PER_SECOND),
            leases: Allowances::new(orders_per_minute),
            states: Allowances::new(orders_per_minute),
            refused: Mutex::default(),
            rehearsal: Mutex::default(),
            metrics,
        })
    }

    /// Answers one message of a conversation.
    pub fn answer(&self, with: &mut Conversation, request: Request) -> Reply {
        let turn = match turn(with, request) {
            Ok(turn) => turn,
            Err(refusal) => return Reply::Refused(refusal),
        };
        self.decide(turn).unwrap_or_else(Reply::Refused)
    }

    /// Takes no more orders, finishes those that are queued and writes a last snapshot, in the background.
    pub fn close(&self) {
        if let Some(running) = self.running() {
            running.close();
        }
    }

    /// What it is doing, in one word of `bield_protocol::status::STATES`.
    #[must_use]
    pub fn state_word(&self) -> &'static str {
        let stage = self.stage();
        match &stage {
            Stage::Serving(running) | Stage::Following(running) | Stage::Joining(running)
                if running.trouble().is_some() =>
            {
                "stopped"
            }
            Stage::Forming(_) | Stage::Joining(_) => "forming",
            Stage::Recovering(_) => "recovering",
            Stage::Following(_) => "following",
            Stage::Serving(_) => "serving",
        }
    }

    /// Who signs workers' certificates, when that is known.
    #[must_use]
    pub fn principal(&self) -> Option<Principal> {
        Some(self.running()?.service())
    }

    /// Whether this principal is registered here.
    pub(crate) fn is_registered(&self, by: Principal) -> bool {
        self.running()
            .is_some_and(|running| running.state().is_registered(by))
    }

    pub(crate) fn stage(&self) -> Stage {
        self.stage
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(crate) fn enter(&self, stage: Stage) {
        *self.stage.write().unwrap_or_else(PoisonError::into_inner) = stage;
    }

    pub(crate) fn running(&self) -> Option<Arc<Running>> {
        match self.stage() {
            Stage::Serving(running) | Stage::Following(running) | Stage::Joining(running) => {
                Some(running)
            }
            _ => None,
        }
    }

    pub(crate) const fn start(&self) -> &Start {
        &self.start
    }

    fn decide(&self, turn: Turn) -> Result<Reply, Refusal> {
        if matches!(turn, Turn::Inspect) {
            return Ok(Reply::Inspection(self.inspection()));
        }
        match (self.stage(), turn) {
            (Stage::Serving(running), turn) => {
                if let Some(trouble) = running.trouble() {
                    return Err(trouble.refusal());
                }
                self.serve(&running, turn)
            }
            (
                Stage::Recovering(recovering),
                Turn::GiveShare {
                    by,
                    share,
                    rehearse: false,
                },
            ) => {
                self.allow(by)?;
                let given = lock(&recovering).give(by, share)?;
                match given {
                    Given::Progress(progress) => Ok(Reply::ShareProgress(progress)),
                    Given::Opened(opened) => {
                        let progress = self.start.recover(self, &recovering, *opened)?;
                        Ok(Reply::ShareProgress(progress))
                    }
                }
            }
            (stage, _) => Err(not_serving(&stage)),
        }
    }

    fn serve(&self, running: &Running, turn: Turn) -> Result<Reply, Refusal> {
        match turn {
            Turn::Ask(by, ask) => self.ask(running, by, ask),
            Turn::Read(by, question) => {
                if let Some(by) = by {
                    self.allow(by)?;
                }
                let now = running.now();
                let reply = read(&running.state(), &question, now)?;
                running.wait_until_counted()?;
                Ok(reply)
            }
            Turn::Audit(by, from) => {
                self.allow(by)?;
                let audits = self.audits.take(by, Instant::now());
                audits.map_err(|wait| too_many("audits", wait))?;
                let (plan, refused) = {
                    let state = running.state();
                    let refused = lock(&self.refused).of(state.packages_of(by));
                    (state.audit(by, from)?, refused)
                };
                running.wait_until_counted()?;
                let mut log = LogReader::new(running);
                let page = plan.page(|epoch, record| log.record(epoch, record), refused);
                page.map(Reply::Audit)
            }
            Turn::Freshness(kept) => freshness::answer(running, kept.as_deref()),
            Turn::GiveShare {
                by,
                share,
                rehearse: true,
            } => {
                self.allow(by)?;
                lock(&self.rehearsal).give(running, by, share)
            }
            Turn::GiveShare { .. } => {
                let message = "this key service runs and has nothing to recover; a rehearsal is what it takes";
                Err(Refusal::new("not-recovering", message, Retry::Never))
            }
            Turn::Inspect => Ok(Reply::Inspection(self.inspection())),
        }
    }

    fn ask(&self, running: &Running, by: Option<Principal>, ask: Ask) -> Result<Reply, Refusal> {
        if let Some(by) = by {
            self.allow(by)?;
        }
        let lease = match &ask {
            Ask::Lease { appraised, request } => Some((Arc::clone(appraised), request.package)),
            _ => None,
        };
        let caller = match (&ask, by) {
            (_, Some(by)) => Caller::Principal(by),
            (Ask::Lease { request, .. }, None) => {
                let owner = running.state().owner_of(&request.package);
                charge(&self.leases, owner, "leases")?
            }
            (Ask::Return { returned, .. }, None) => {
                let owner = {
                    let state = running.state();
                    let package = state.leased_package(returned.lease);
                    package.and_then(|package| state.owner_of(&package))
                };
                charge(&self.leases, owner, "leases")?
            }
            (Ask::State { request, .. }, None) => {
                let owner = running.state().owner_of(&request.package);
                charge(&self.states, owner, "acts on functions' states")?
            }
            _ => Caller::Program,
        };
        let metrics = &self.metrics;
        let (done, not) = match &ask {
            Ask::Lease { .. } => (&metrics.leases, &metrics.leases_refused),
            Ask::State { .. } => (&metrics.states, &metrics.states_refused),
            _ => (&metrics.orders, &metrics.orders_refused),
        };
        let reply = running.submit(caller, ask);
        let refused = match &reply {
            Reply::Refused(refusal) => Some(refusal.code.clone()),
            _ => None,
        };
        if refused.is_some() { not } else { done }.add(1);
        if let (Some((appraised, package)), Some(code)) = (lease, refused)
            && running.state().has_package(&package)
        {
            let now = running.now();
            lock(&self.refused).note(package, appraised.measurement(), &code, now);
        }
        Ok(reply)
    }

    fn allow(&self, by: Principal) -> Result<(), Refusal> {
        let allowed = self.allowances.take(by, Instant::now());
        allowed.map_err(|wait| too_many("orders", wait))
    }

    fn inspection(&self) -> Inspection {
        let stage = self.stage();
        let facts = self.start.facts();
        let mut inspection = Inspection {
            principals: 0,
            packages: 0,
            grants: 0,
            // Nobody: a service whose root is not here signs nothing.
            service: Principal::from_bytes([0; 32]),
            state: self.state_word().to_owned(),
            size: 0,
            log: String::new(),
            witnesses: facts.witnesses,
            members: facts.members,
            shares: None,
            lease_secs: facts.lease_secs,
            trouble: None,
        };
        match &stage {
            Stage::Forming(why) => inspection.trouble = Some(why.clone()),
            Stage::Recovering(recovering) => {
                inspection.shares = lock(recovering).newest();
                inspection.trouble = Some(not_serving(&stage).message);
            }
            Stage::Serving(running) | Stage::Following(running) | Stage::Joining(running) => {
                describe(running, &mut inspection);
            }
        }
        inspection
    }
}

fn describe(running: &Running, inspection: &mut Inspection) {
    {
        let state = running.state();
        let counts = state.counts();
        (inspection.principals, inspection.packages) = (counts.principals, counts.packages);
        inspection.grants = counts.grants;
        inspection.service = state.service();
        inspection.shares = state.shares().map(|(_, threshold, holders)| {
            (u8::try_from(holders.len()).unwrap_or(u8::MAX), threshold)
        });
    }
    inspection.size = running.size();
    inspection.log = running.ledger().verifier().to_string();
    inspection.trouble = match running.trouble() {
        Some(trouble) => Some(trouble.sentence.clone()),
        None => running.outage_now(),
    };
}

/// Counts what a runtime asks against the owner of its package, whoever's runtime it is: code is not somebody, the
/// same runs for everybody.
fn charge(
    allowances: &Allowances<Option<Principal>>,
    owner: Option<Principal>,
    what: &str,
) -> Result<Caller, Refusal> {
    let allowed = allowances.take(owner, Instant::now());
    allowed.map_err(|wait| too_many(what, wait))?;
    Ok(Caller::Owner(owner))
}

fn too_many(what: &str, wait: Duration) -> Refusal {
    let message = format!(
        "this principal's allowance of {what} is used up; slow down (the service's configuration says how many \
         orders there are in a minute)"
    );
    let wait = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).max(1);
    Refusal::new("too-many-orders", message, Retry::After(wait))
}

/// The refusal of a stage in which nothing is served.
fn not_serving(stage: &Stage) -> Refusal {
    match stage {
        Stage::Forming(why) => {
            let message = format!("the key service does not serve yet: {why}");
            Refusal::new("forming", message, Retry::After(1000))
        }
        Stage::Recovering(_) => {
            let message = "the key service has lost its root secret and waits for recovery: holders give their shares \
                           (`bield recover`), or its operator puts the root file and its machine back";
            Refusal::new("recovering", message, Retry::AfterChange)
        }
        Stage::Following(_) | Stage::Joining(_) => {
            let message =
                "this instance of the key service does not lead its group; ask another one";
            Refusal::new("not-leader", message, Retry::After(200))
        }
        Stage::Serving(_) => Trouble::fault(&"it does not serve").refusal(),
    }
}

/// Reads records for an audit: neighbours are read together.
struct LogReader<'a> {
    running: &'a Running,
    near: BTreeMap<(u32, u64), AuditedRecord>,
}

impl<'a> LogReader<'a> {
    const fn new(running: &'a Running) -> Self {
        Self {
            running,
            near: BTreeMap::new(),
        }
    }

    fn record(&mut self, epoch: u32, record: u64) -> Option<AuditedRecord> {
        if let Some(found) = self.near.remove(&(epoch, record)) {
            return Some(found);
        }
        self.near.clear();
        let read = self
            .running
            .ledger()
            .read_epoch(epoch, record, AUDIT_READ_BYTES);
        for committed in read.ok()? {
            let found = AuditedRecord {
                at: committed.at,
                entries: committed.entries,
            };
            self.near.insert((epoch, committed.index), found);
        }
        self.near.remove(&(epoch, record))
    }
}

/// Pages of an audit that one principal may read at once, and a second.
const AUDITS_AT_ONCE: f64 = 20.0;
const AUDITS_PER_SECOND: f64 = 1.0;
/// Of the log, at once: a few hundred small records.
const AUDIT_READ_BYTES: usize = 64 << 10;
