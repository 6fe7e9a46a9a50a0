//! One instance of several: the group decides, this does.
//!
//! ```text
//! cluster ──Apply──▶ Disk ──▶ ledger, state          a follower: each record as it is committed
//!    ▲ Agreement::commit                             the leader: its own sequencer has applied it already
//!    └────────────── sequencer ◀── Surroundings::changed(Leader)
//! ```
//!
//! Always true: a record is written in clear only after the group committed it, and prepared, sealed, before
//! this member says that it has it; the state applies each record once, whoever made it; only a leader has a
//! sequencer, and it never gets another one: an instance that is deposed ends, and joins again as another.
//!
//! Left to others: who leads (`cluster`), what the log is (`bield-ledger`). Recovery by shares is for an
//! instance that stands alone: a group whose disks are all lost is recovered with one member first.

use std::io::Write as _;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bield_capsule::Received;
use bield_door::{Offers, Stream};
use bield_envelope::{Secret, Time};
use bield_evidence::{Measurement, claims_report_data, verify};
use bield_ledger::{Committed, Files, Ledger, LedgerError, Loaded, Receiver, Taken};
use bield_platform::{Randomness, Tee, now};
use bield_protocol::visit::Visit;
use bield_session::{Expect, Identity, SessionError};
use bield_tlog::{Hash, TreeHead};
use zeroize::Zeroizing;

use super::attested::Attested;
use super::key_service::{KeyService, Stage};
use super::settings::Peers;
use super::start::{copied, refuse_closed};
use crate::cluster::{
    Agreement, Apply, ApplyError, Cluster, Head, NotCommitted, PEER_WAIT, Pipe, Role, Settings,
    Slot, Stopped, Surroundings, Transfer, Unconfirmed, expect_member,
};
use crate::freshness;
use crate::recovery;
use crate::sequencer::{Commit, NotYet, Running, Trouble};
use crate::state::{Entry, State};
use crate::witnesses::{NotCosigned, Witnesses};

/// What a member's threads share.
pub(super) struct Membership {
    service: Arc<KeyService>,
    attested: Arc<Attested>,
    offers: Arc<Offers>,
    peers: Peers,
    cluster: OnceLock<Arc<Cluster>>,
}

impl Membership {
    /// Starts taking part; the service is `forming` until there is a leader.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub(super) fn start(
        service: &Arc<KeyService>,
        attested: &Arc<Attested>,
        offers: &Arc<Offers>,
        peers: Peers,
    ) -> Result<Arc<Self>, String> {
        let slot = service.start().member;
        on_its_machine(attested.tee(), &peers, slot, now())?;
        let (held, undecided) = Held::load(service)?;
        let disk = Disk {
            held,
            undecided,
            service: Arc::clone(service),
        };
        let shared = Arc::new(Self {
            service: Arc::clone(service),
            attested: Arc::clone(attested),
            offers: Arc::clone(offers),
            peers,
            cluster: OnceLock::new(),
        });
        let start = service.start();
        let settings = Settings::new(start.member, start.members);
        let surroundings: Arc<dyn Surroundings> = Arc::new(Around(Arc::clone(&shared)));
        let cluster = Cluster::start(settings, Box::new(disk), surroundings);
        let cluster = cluster.map_err(|error| error.to_string())?;
        drop(shared.cluster.set(Arc::new(cluster)));
        Ok(shared)
    }

    /// The handle, as soon as there is one: threads of the group may be faster than the start.
    pub(super) fn cluster(&self) -> &Arc<Cluster> {
        self.cluster.wait()
    }

    /// Whom members expect.
    ///
    /// # Errors
    /// The policy does not hold, which the start has checked.
    pub(super) fn expect(&self) -> Result<Expect, SessionError> {
        expect_member(&self.peers.policy)
    }

    fn accepts(&self, code: &Measurement, running: Option<&Running>) -> bool {
        let own = self.attested.tee().measurement();
        let state = running.map(Running::state);
        accepts(own, &self.peers.codes, state.as_deref(), code)
    }

    /// Serves as the leader.
    fn lead(self: &Arc<Self>) {
        let shared = Arc::clone(self);
        let led = std::thread::Builder::new()
            .name("leader".into())
            .spawn(move || {
                let service = &shared.service;
                let Some(running) = service.running() else {
                    return service
                        .start()
                        .over(&Trouble::fault(&"it leads and has no state"));
                };
                let commit = Box::new(Grouped(Arc::clone(shared.cluster())));
                if let Err(why) = service.start().go(service, &running, commit, None) {
                    service.start().over(&Trouble::fault(&why));
                }
            });
        if led.is_err() {
            self.service
                .start()
                .over(&Trouble::fault(&"no thread to lead with"));
        }
    }
}

/// Records count by the word of the group.
struct Grouped(Arc<Cluster>);

impl Commit for Grouped {
    fn commit(&mut self, _: &Running, record: &Received) -> Result<(), NotYet> {
        self.0.commit(record).map_err(|error| match error {
            NotCommitted::Unknown | NotCommitted::Busy => NotYet::Again(error.to_string()),
            NotCommitted::NotLeader | NotCommitted::Stopped(_) => {
                NotYet::Over(Trouble::passing(&error))
            }
        })
    }
}

struct Around(Arc<Membership>);

impl Surroundings for Around {
    fn dial(&self, slot: Slot) -> std::io::Result<Box<dyn Pipe>> {
        let pipe = self.0.offers.take(Visit::Member, OFFER_WAIT);
        let mut pipe: Stream = pipe.map_err(std::io::Error::other)?;
        pipe.limit_waits(PEER_WAIT)?;
        pipe.write_all(&[slot])?;
        Ok(Box::new(pipe))
    }

    fn identity(&self) -> Result<Arc<Identity>, SessionError> {
        self.0.attested.identity(self.0.service.principal())
    }

    fn expect(&self) -> Result<Expect, SessionError> {
        self.0.expect()
    }

    fn admitted(&self, code: &Measurement) -> bool {
        let running = self.0.service.running();
        self.0.accepts(code, running.as_deref())
    }

    fn withdrawn(&self, code: &Measurement) -> bool {
        // While it is given a state it cannot tell.
        let running = self.0.service.running();
        running.is_some_and(|running| !self.0.accepts(code, Some(&running)))
    }

    fn fits(&self, slot: Slot, machine: &[u8]) -> bool {
        fits(&self.0.peers, slot, machine)
    }

    fn apart(&self, slot: Slot, why: &str) {
        eprintln!("bield-keys: member {slot}: {why}");
    }

    fn now(&self) -> Time {
        now()
    }

    fn has_witnesses(&self) -> bool {
        self.0.service.start().needed > 0
    }

    fn confirm(&self, head: &Head) -> Result<(), Unconfirmed> {
        let start = self.0.service.start();
        if start.needed == 0 {
            let why = "there are no witnesses to ask; all members must be there";
            return Err(Unconfirmed::Unknown(why.to_owned()));
        }
        match self.0.service.running() {
            Some(running) => confirmed(&running, &start.ask(), head),
            None => {
                let why = "this member has no log that witnesses could confirm";
                Err(Unconfirmed::Unknown(why.to_owned()))
            }
        }
    }

    fn changed(&self, role: Role) {
        let service = &self.0.service;
        match role {
            Role::Forming => {}
            Role::Follower { .. } => {
                if let Some(running) = service.running() {
                    service.enter(Stage::Following(running));
                }
            }
            Role::Leader => self.0.lead(),
        }
    }

    fn stopped(&self, why: &Stopped) {
        let trouble = Trouble::passing(why);
        if let Some(running) = self.0.service.running() {
            running.stop(trouble.clone());
        }
        self.0.service.start().over(&trouble);
    }
}

/// Whether code may be a member beside this one. New code has no state to look into before it is given one: it
/// accepts what its own configuration names. Old code cannot know its successors: it accepts what administrators
/// admitted. What they withdrew is out whoever names it, but for the own code.
fn accepts(
    own: &Measurement,
    named: &[Measurement],
    state: Option<&State>,
    code: &Measurement,
) -> bool {
    let withdrawn = state.is_some_and(|state| state.is_withdrawn(code));
    let admitted = state.is_some_and(|state| state.is_admitted(code));
    code == own || (!withdrawn && (admitted || named.contains(code)))
}

/// Refuses to start on another machine than the one that the configuration has for this slot.
fn on_its_machine(tee: &dyn Tee, peers: &Peers, slot: Slot, now: Time) -> Result<(), String> {
    if peers.platforms.is_empty() {
        return Ok(());
    }
    let unknown = |why: &dyn core::fmt::Display| {
        format!("which machine this is cannot be told, and member_platforms names machines: {why}")
    };
    let roots = peers.policy.roots().map_err(|error| unknown(&error))?;
    let evidence = tee.evidence(&claims_report_data(&[]));
    let evidence = evidence.map_err(|error| unknown(&error))?;
    let claims = verify(&evidence, &roots, now).map_err(|error| unknown(&error))?;
    if fits(peers, slot, &claims.platform_id) {
        return Ok(());
    }
    Err(format!(
        "this machine's platform is \"{}\", and member_platforms has another one for member {slot}; \
         start it there, or correct the configuration of all members",
        hex::encode(&claims.platform_id)
    ))
}

/// Whether a member in `slot` may run on this machine. One that hides its identity has an empty one.
fn fits(peers: &Peers, slot: Slot, machine: &[u8]) -> bool {
    let platforms = &peers.platforms;
    let named = platforms.get(usize::from(slot));
    platforms.is_empty() || named.is_some_and(|named| named == machine)
}

/// Whether witnesses saw nothing newer than `head`, which is what is committed here or that and one
/// prepared record. In the second case they may have seen that record too: it was about to be answered
/// when its leader died. Which one they saw, they are asked again by whoever leads, before it serves.
fn confirmed(
    running: &Arc<Running>,
    witnesses: &Witnesses,
    head: &Head,
) -> Result<(), Unconfirmed> {
    let own = running.ledger().head();
    let same = (own.size, own.root.as_bytes()) == (head.size, &head.root);
    let undecided = head.size == own.size + 1;
    if !same && !undecided {
        let why = "this member has another head than the one to be confirmed";
        return Err(Unconfirmed::Unknown(why.to_owned()));
    }
    match freshness::at_start(running, witnesses) {
        Ok(()) => Ok(()),
        Err(NotCosigned::RolledBack { behind: 1, .. }) if undecided => Ok(()),
        Err(few @ NotCosigned::TooFew { .. }) => Err(Unconfirmed::Unknown(few.to_string())),
        Err(set_back) => Err(Unconfirmed::SetBack(set_back.to_string())),
    }
}

/// What this member's disk holds, and what became of it.
struct Disk {
    held: Held,
    /// Prepared and not committed.
    undecided: Option<Received>,
    service: Arc<KeyService>,
}

enum Held {
    /// No service.
    Nothing(Box<dyn Files>, Secret),
    /// One that this code on this machine cannot open: a group's state may take its place, a new service may not.
    Sealed(Box<dyn Files>, Secret),
    /// State and log, which all threads share.
    Up(Arc<Running>),
    /// Broken off in the middle; the instance ends.
    Broken,
}

impl Held {
    fn load(service: &Arc<KeyService>) -> Result<(Self, Option<Received>), String> {
        let start = service.start();
        Ok(match start.load()? {
            Loaded::Empty(files, seal) => (Self::Nothing(files, seal), None),
            Loaded::Sealed(sealed) => {
                let (files, seal) = sealed.into_parts();
                (Self::Sealed(files, seal), None)
            }
            Loaded::Found(found) => {
                let (state, opened) = start.replay(found)?;
                refuse_closed(&state, &opened.ledger)?;
                let up = start.running(state, opened.ledger);
                // Its operator must not take it for one that counts: the group has not let it in.
                service.enter(Stage::Joining(Arc::clone(&up)));
                (
                    Self::Up(up),
                    opened.prepared.map(|prepared| prepared.record),
                )
            }
        })
    }
}

impl Disk {
    fn up(&self) -> Result<&Arc<Running>, ApplyError> {
        match &self.held {
            Held::Up(running) => Ok(running),
            _ => Err(refused(&"this member has no log")),
        }
    }

    fn rise(&mut self, state: State, ledger: Ledger) {
        let up = self.service.start().running(state, ledger);
        self.service.enter(Stage::Joining(Arc::clone(&up)));
        self.held = Held::Up(up);
    }
}

impl Apply for Disk {
    fn head(&mut self) -> Result<Option<Head>, ApplyError> {
        let Held::Up(running) = &self.held else {
            return Ok(None);
        };
        let service = running.state().first_service();
        let ledger = running.ledger();
        let head = match &self.undecided {
            Some(record) => ledger.head_with(record),
            None => ledger.head(),
        };
        Ok(Some(Head {
            service,
            epoch: ledger.epoch(),
            term: ledger.term(),
            size: head.size,
            root: *head.root.as_bytes(),
        }))
    }

    fn is_sealed(&mut self) -> bool {
        matches!(self.held, Held::Sealed(..))
    }

    fn clock(&mut self) -> Option<Time> {
        match &self.held {
            Held::Up(running) => Some(running.ledger().now(Time::from_millis(0))),
            _ => None,
        }
    }

    fn begin(&mut self) -> Result<(), ApplyError> {
        if matches!(self.held, Held::Up(_)) {
            return Ok(());
        }
        let Held::Nothing(files, seal) = std::mem::replace(&mut self.held, Held::Broken) else {
            return Err(refused(&"this member's disk broke off"));
        };
        let root = Secret::generate(&mut Randomness);
        let start = self.service.start();
        let state = State::new(copied(&root), start.limits.clone());
        let now = (start.clock)();
        let ledger = Ledger::create(files, seal, root, now, &mut Randomness);
        let ledger = ledger.map_err(|error| refused(&error))?;
        self.rise(state, ledger);
        Ok(())
    }

    fn settle(&mut self) -> Result<(), ApplyError> {
        match self.undecided.clone() {
            Some(record) => self.commit(&record),
            None => Ok(()),
        }
    }

    fn prepare(&mut self, term: u64, record: Option<&Received>) -> Result<(), ApplyError> {
        let prepared = self.up()?.ledger().prepare(term, record);
        prepared.map_err(failed)?;
        self.undecided = record.cloned();
        Ok(())
    }

    fn commit(&mut self, record: &Received) -> Result<(), ApplyError> {
        let running = Arc::clone(self.up()?);
        if running.is_own(record) {
            match running.ledger().commit(record) {
                Ok(_) | Err(LedgerError::Known { .. }) => {}
                Err(error) => return Err(failed(error)),
            }
            self.undecided = None;
            return Ok(());
        }
        let committed = running.ledger().catch_up(vec![record.clone()]);
        let committed = committed.map_err(failed)?;
        self.undecided = None;
        let shared = follow(&running, &committed).map_err(|error| refused(&error))?;
        if shared {
            // Written again at the next start when it fails now.
            drop(recovery::mend_box(&running));
        }
        running.snapshot_if_due();
        Ok(())
    }

    fn transfer(&mut self, have: Option<&Head>) -> Result<Box<dyn Transfer>, ApplyError> {
        let running = Arc::clone(self.up()?);
        let service = running.state().first_service();
        let have = have
            .filter(|have| have.service == service)
            .map(|have| TreeHead {
                size: have.size,
                root: Hash::from_bytes(have.root),
            });
        let begun = running.ledger().transfer(have);
        let transfer = match begun {
            Err(LedgerError::NoSnapshot) => {
                if !running.snapshot() {
                    return Err(ApplyError::Storage(
                        "no snapshot could be taken now".to_owned(),
                    ));
                }
                running.ledger().transfer(have).map_err(failed)?
            }
            begun => begun.map_err(failed)?,
        };
        let head = running.ledger().head();
        let mut promise = Zeroizing::new(head.size.to_be_bytes().to_vec());
        promise.extend_from_slice(head.root.as_bytes());
        Ok(Box::new(Giving {
            running,
            transfer,
            promise: Some(promise),
        }))
    }

    fn install(&mut self, term: u64, pieces: &mut dyn Transfer) -> Result<(), ApplyError> {
        let promised = pieces.next()?.and_then(|promise| promised(&promise));
        let promised = promised.ok_or_else(|| refused(&"a transfer that promises nothing"))?;
        let service = Arc::clone(&self.service);
        let start = service.start();
        let (mut receiver, mut state) = match std::mem::replace(&mut self.held, Held::Broken) {
            Held::Nothing(files, seal) | Held::Sealed(files, seal) => {
                (Receiver::new(files, seal, promised), None)
            }
            Held::Up(running) => {
                // Nobody else has it for long: a member that joins serves nobody.
                self.service
                    .enter(Stage::Forming("it is given the state".to_owned()));
                let Some(alone) = alone(running) else {
                    return Err(refused(
                        &"this member's state is still in use; it starts again",
                    ));
                };
                let (state, ledger) = alone.into_parts();
                (Receiver::with(ledger, promised), Some(state))
            }
            Held::Broken => return Err(refused(&"this member's disk broke off")),
        };
        self.undecided = None;
        // The root, without which no state is read, is believed at the end only.
        let (mut snapshot, mut records) = (None, Vec::new());
        while let Some(piece) = pieces.next()? {
            match receiver.put(&piece).map_err(|error| refused(&error))? {
                Taken::More => {}
                Taken::Snapshot(bytes) => snapshot = Some(bytes),
                Taken::Records(more) => records.extend(more),
            }
        }
        let ledger = receiver.finish(term, &mut Randomness);
        let ledger = ledger.map_err(|error| refused(&error))?;
        if let Some(bytes) = snapshot {
            let root = copied(ledger.root());
            let decoded = State::decode(&bytes, root, start.limits.clone());
            state = Some(decoded.map_err(|error| refused(&error))?);
        }
        let mut state = state.ok_or_else(|| refused(&"a transfer without a state"))?;
        apply(&mut state, &records).map_err(|error| refused(&error))?;
        self.rise(state, ledger);
        Ok(())
    }
}

/// A log that is being given to another member.
struct Giving {
    running: Arc<Running>,
    transfer: bield_ledger::Transfer,
    /// First: the head that the other must arrive at.
    promise: Option<Zeroizing<Vec<u8>>>,
}

impl Transfer for Giving {
    fn next(&mut self) -> Result<Option<Zeroizing<Vec<u8>>>, ApplyError> {
        if let Some(promise) = self.promise.take() {
            return Ok(Some(promise));
        }
        let piece = self.running.ledger().transfer_piece(&mut self.transfer);
        piece.map_err(failed)
    }
}

fn promised(piece: &[u8]) -> Option<TreeHead> {
    let (size, root) = piece.split_first_chunk::<8>()?;
    Some(TreeHead {
        size: u64::from_be_bytes(*size),
        root: Hash::from_bytes(root.try_into().ok()?),
    })
}

/// Applies records that were committed by others. Whether recovery shares were made among them.
fn apply(state: &mut State, records: &[Committed]) -> Result<bool, String> {
    let mut shared = false;
    for record in records {
        for entry in &record.entries {
            let entry = Entry::decode(entry).map_err(|error| error.to_string())?;
            let applied = state.apply(&entry, record.index, record.at);
            applied.map_err(|error| error.to_string())?;
            shared |= matches!(entry, Entry::SharesMade { .. });
        }
    }
    Ok(shared)
}

fn follow(running: &Running, records: &[Committed]) -> Result<bool, String> {
    let shared = {
        let mut state = running.state_mut();
        let shared = apply(&mut state, records)?;
        if let Some(last) = records.last() {
            running.applied(last.index);
        }
        shared
    };
    let checkpoint = running.ledger().checkpoint(None);
    running.publish(checkpoint);
    Ok(shared)
}

/// Waits until nobody looks at it any more: whoever asked how it is has done so in a moment.
fn alone(mut running: Arc<Running>) -> Option<Running> {
    for _ in 0..LOOKS_MAX {
        match Arc::try_unwrap(running) {
            Ok(alone) => return Some(alone),
            Err(shared) => running = shared,
        }
        std::thread::sleep(LOOK);
    }
    None
}

fn failed(error: LedgerError) -> ApplyError {
    match error {
        LedgerError::NotDurable(error) | LedgerError::Files(error) => {
            ApplyError::Storage(error.to_string())
        }
        other => refused(&other),
    }
}

fn refused(error: &dyn core::fmt::Display) -> ApplyError {
    ApplyError::Refused(error.to_string())
}

/// How long a call to another member waits for the host to offer a pipe.
const OFFER_WAIT: Duration = Duration::from_secs(2);
/// Between two looks whether somebody still uses the state, and how many.
const LOOK: Duration = Duration::from_millis(2);
const LOOKS_MAX: u32 = 5000;

#[cfg(test)]
mod tests;
