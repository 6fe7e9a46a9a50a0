//! From a host's files to a service that serves.
//!
//! ```text
//! load ──┬─ nothing here ──▶ a new service
//!        ├─ a log, no root ──▶ wait for shares ──▶ verify, replay ──▶ next epoch, `Recovered` entry ─┐
//!        └─ a log ──▶ verify, replay ────────────────────────────────────────────────────────────────┤
//!                                       witnesses: nothing newer? ◀──────────────────────────────────┘
//!                                       recovery files there? ──▶ `Started` entry counts ──▶ serving
//! ```
//!
//! Always true: nobody is served before the witnesses (when there are any) saw this very log, fresh, as the
//! newest, and before an entry counts that no copy of this disk has; what is wrong with the files is told in
//! one sentence and nothing is changed.
//!
//! Left to others: what the files hold (`bield-ledger`), forming a group (`cluster`).

use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use bield_envelope::Secret;
use bield_ledger::{Files, Found, Ledger, Loaded, Opened, Sealed};
use bield_platform::Randomness;
use bield_protocol::refusal::{Refusal, Retry};
use bield_protocol::service::{Recovered, Reply, ShareProgress};
use bield_tlog::{TreeHead, WitnessVerifier};
use rand_core::Rng as _;

use super::key_service::{KeyService, Stage};
use crate::files::SharedFiles;
use crate::freshness;
use crate::limits::lock;
use crate::metrics::Metrics;
use crate::recovery::{self, OpenedBox, Recovering};
use crate::sequencer::{Caller, Clock, Commit, Running, Sequencer, Solo, Trouble};
use crate::state::{Ask, Entry, Limits, Started, State};
use crate::witnesses::{Dial, NotCosigned, Proofs, Witnesses};

/// What a start needs.
pub(crate) struct Start {
    pub(crate) files: SharedFiles,
    /// The TEE's seal key for this code on this machine.
    pub(crate) seal: Secret,
    pub(crate) limits: Limits,
    pub(crate) members: u8,
    /// This instance's place in its group, from 0.
    pub(crate) member: u8,
    pub(crate) witnesses: Vec<WitnessVerifier>,
    pub(crate) needed: usize,
    pub(crate) dial: Arc<dyn Dial>,
    pub(crate) clock: Clock,
    pub(crate) metrics: Arc<Metrics>,
    /// Told when the service ends for good, and whether its program should end with it.
    pub(crate) fate: Arc<dyn Fn(&Trouble) + Send + Sync>,
    pub(crate) thread: Mutex<Option<JoinHandle<()>>>,
}

/// What `Inspect` says of the configuration.
pub(crate) struct Facts {
    pub(crate) witnesses: (u8, u8),
    pub(crate) members: u8,
    pub(crate) lease_secs: u32,
}

impl Start {
    pub(crate) fn facts(&self) -> Facts {
        let small = |number: usize| u8::try_from(number).unwrap_or(u8::MAX);
        Facts {
            witnesses: (small(self.witnesses.len()), small(self.needed)),
            members: self.members,
            lease_secs: self.limits.lease_secs,
        }
    }

    /// Brings a service of one instance up: to serving, or to waiting for shares.
    ///
    /// # Errors
    /// A sentence for the operator; the files are as they were.
    pub(crate) fn solo(&self, service: &KeyService) -> Result<(), String> {
        match self.load()? {
            Loaded::Empty(files, seal) => {
                let root = Secret::generate(&mut Randomness);
                let state = State::new(copied(&root), self.limits.clone());
                let now = (self.clock)();
                let ledger = Ledger::create(files, seal, root, now, &mut Randomness);
                let ledger = ledger.map_err(|error| error.to_string())?;
                self.serve(service, state, ledger, None)
            }
            Loaded::Found(found) => {
                let (state, opened) = self.replay(found)?;
                refuse_closed(&state, &opened.ledger)?;
                self.serve(service, state, opened.ledger, None)
            }
            Loaded::Sealed(sealed) => self.wait_for_shares(service, sealed),
        }
    }

    /// Goes on with a log whose box was opened, if the log agrees.
    ///
    /// # Errors
    /// The log is not whole, or these were not the newest shares of their givers; more shares may be given.
    pub(crate) fn recover(
        &self,
        service: &KeyService,
        recovering: &Mutex<Recovering>,
        opened: OpenedBox,
    ) -> Result<ShareProgress, Refusal> {
        let OpenedBox {
            sealed,
            root,
            given,
            mut progress,
        } = opened;
        let recovered = sealed
            .open_with_root(root)
            .map_err(|error| error.to_string())
            .and_then(|found| self.replay(found))
            .map_err(|why| Refusal::new("not-recovered", why, Retry::AfterChange))
            .and_then(|(state, opened)| {
                recovery::prove(&state, &given)?;
                Ok((state, opened.ledger))
            });
        let closed = recovered.and_then(|(state, ledger)| self.close(state, ledger));
        let (state, ledger, head) = match closed {
            Ok(closed) => closed,
            Err(refusal) => {
                self.seal_again(recovering);
                return Err(refusal);
            }
        };
        let origin = ledger.origin().to_string();
        let at = ledger.now((self.clock)());
        let begun = ledger.begin_epoch(state.to_blocks(), at, &mut Randomness);
        let ledger = match begun {
            Ok(ledger) => ledger,
            Err(error) => {
                self.seal_again(recovering);
                return Err(Refusal::new("not-durable", error, Retry::After(5000)));
            }
        };
        let entry = Recovered {
            origin,
            size: head.size,
            root: *head.root.as_bytes(),
            holders: given.iter().map(|(by, _)| *by).collect(),
            at,
            next: ledger.origin().to_string(),
        };
        progress.opened = true;
        progress.size = Some(head.size);
        progress.origin = Some(entry.origin.clone());
        match self.serve(service, state, ledger, Some(entry)) {
            Ok(()) => Ok(progress),
            Err(why) => {
                // The new epoch has begun on the disk: the next start goes on from there.
                let trouble = Trouble::fault(&why);
                service.enter(Stage::Forming(why));
                (self.fate)(&trouble);
                Err(trouble.refusal())
            }
        }
    }

    /// Ends the log that was found, and has witnesses see it: the machine that was lost may come back with a
    /// copy that ends before this record, and must find itself behind. Where the witnesses saw more than
    /// was found, they cannot be shown this end; the copy that has more is then told by callers only.
    ///
    /// Comes out with the head of what was found, without that record.
    fn close(
        &self,
        mut state: State,
        mut ledger: Ledger,
    ) -> Result<(State, Ledger, TreeHead), Refusal> {
        let not_durable = |error: &dyn core::fmt::Display| {
            let message = format!("the log that was found could not be ended: {error}");
            Refusal::new("not-durable", message, Retry::After(5000))
        };
        // One that was ended before its recovery broke off is not ended twice.
        if !state.is_closed() {
            ledger.take_over().map_err(|error| not_durable(&error))?;
            let (record, at) = (ledger.size(), ledger.now((self.clock)()));
            let entry = Entry::Closed;
            let sealed = ledger.seal(&[&entry.encode()], at, &mut Randomness);
            let sealed = sealed.map_err(|error| not_durable(&error))?;
            let committed = ledger.commit(&sealed);
            committed.map_err(|error| not_durable(&error))?;
            let applied = state.apply(&entry, record, at);
            applied.map_err(|error| not_durable(&error))?;
        }
        let size = ledger.size() - 1;
        let root = ledger.tree().root_at(size);
        let root = root.map_err(|error| not_durable(&error))?;
        let found = TreeHead { size, root };
        let mut nonce = [0; 32];
        Randomness.fill_bytes(&mut nonce);
        let tree: Arc<dyn Proofs> = Arc::new(ledger.tree().clone());
        match self.ask().cosign(ledger.checkpoint(Some(nonce)), &tree) {
            Ok(_) | Err(NotCosigned::RolledBack { .. } | NotCosigned::Forked { .. }) => {
                Ok((state, ledger, found))
            }
            Err(few @ NotCosigned::TooFew { .. }) => Err(not_durable(&few)),
        }
    }

    /// Waits until the sequencer has finished what was queued.
    pub(crate) fn finish(&self) {
        let thread = lock(&self.thread).take();
        if let Some(thread) = thread {
            // Its panics were caught where they happened.
            drop(thread.join());
        }
    }

    pub(crate) fn load(&self) -> Result<Loaded, String> {
        let files: Box<dyn Files> = Box::new(self.files.clone());
        Ledger::load(files, copied(&self.seal)).map_err(|error| error.to_string())
    }

    /// Verifies what is after the snapshot and applies it.
    pub(crate) fn replay(&self, mut found: Found) -> Result<(State, Opened), String> {
        let root = copied(found.root());
        let mut state = match found.snapshot.take() {
            Some(snapshot) => State::decode(&snapshot, root, self.limits.clone())
                .map_err(|error| error.to_string())?,
            None => State::new(root, self.limits.clone()),
        };
        let opened = found.replay(&mut |committed| {
            for entry in &committed.entries {
                let entry = Entry::decode(entry).map_err(|error| error.to_string())?;
                let applied = state.apply(&entry, committed.index, committed.at);
                applied.map_err(|error| error.to_string())?;
            }
            Ok(())
        });
        Ok((state, opened.map_err(|error| error.to_string())?))
    }

    fn wait_for_shares(&self, service: &KeyService, sealed: Sealed) -> Result<(), String> {
        let recovering = Recovering::begin(sealed, &mut self.files.clone())?;
        service.enter(Stage::Recovering(Arc::new(Mutex::new(recovering))));
        Ok(())
    }

    /// Another try may be made with other shares.
    fn seal_again(&self, recovering: &Mutex<Recovering>) {
        if let Ok(Loaded::Sealed(sealed)) = self.load() {
            lock(recovering).restore(sealed);
        }
    }

    /// Makes sure that this log is the newest, and serves it.
    fn serve(
        &self,
        service: &KeyService,
        state: State,
        ledger: Ledger,
        recovered: Option<Recovered>,
    ) -> Result<(), String> {
        // A recovery that ended before its entry counted: it is made again, by nobody that is known.
        let unfinished = state.epoch() != ledger.epoch();
        let closed = u64::from(state.is_closed());
        let recovered = recovered.or_else(|| {
            unfinished
                .then(|| self.unfinished(&ledger, closed))
                .flatten()
        });
        let running = self.running(state, ledger);
        self.go(service, &running, Box::new(Solo), recovered)
    }

    /// What all threads share of a state and its log.
    pub(crate) fn running(&self, state: State, ledger: Ledger) -> Arc<Running> {
        let fate = Arc::clone(&self.fate);
        let running = Running::new(
            state,
            ledger,
            self.files.clone(),
            Arc::clone(&self.clock),
            Arc::clone(&self.metrics),
            Box::new(move |trouble| fate(trouble)),
        );
        if self.members > 1 {
            running.share_log(self.member, self.members);
        }
        running
    }

    /// Threads that ask the witnesses of the configuration.
    pub(crate) fn ask(&self) -> Witnesses {
        Witnesses::start(self.witnesses.clone(), self.needed, &self.dial)
    }

    /// Tells the program that the service is over.
    pub(crate) fn over(&self, trouble: &Trouble) {
        (self.fate)(trouble);
    }

    /// Serves from here on, if the witnesses saw nothing newer and an entry counts that no copy has.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub(crate) fn go(
        &self,
        service: &KeyService,
        running: &Arc<Running>,
        commit: Box<dyn Commit>,
        recovered: Option<Recovered>,
    ) -> Result<(), String> {
        let witnesses = self.ask();
        self.ask_witnesses(service, running, &witnesses)?;
        self.sequence(running, commit, witnesses)?;
        if let Some(recovered) = recovered {
            order(service, running, Ask::Recovered(recovered))?;
        }
        let mut nonce = [0; 32];
        Randomness.fill_bytes(&mut nonce);
        let member = self.member;
        order(service, running, Ask::Started(Started { nonce, member }))?;
        // The service is as good without; the next start tries again, and a rehearsal says so.
        drop(recovery::mend_box(running));
        service.metrics.leads.set(1);
        service.enter(Stage::Serving(Arc::clone(running)));
        Ok(())
    }

    /// `closed` records end the log before it.
    fn unfinished(&self, ledger: &Ledger, closed: u64) -> Option<Recovered> {
        let past = ledger.past().last()?;
        let head = past.head_at(past.head().size.checked_sub(closed)?).ok()?;
        Some(Recovered {
            origin: past.origin().to_string(),
            size: head.size,
            root: *head.root.as_bytes(),
            holders: Vec::new(),
            at: ledger.now((self.clock)()),
            next: ledger.origin().to_string(),
        })
    }

    /// Asks until enough answered: a witness that is away proves nothing.
    fn ask_witnesses(
        &self,
        service: &KeyService,
        running: &Arc<Running>,
        witnesses: &Witnesses,
    ) -> Result<(), String> {
        loop {
            if let Some(trouble) = running.trouble() {
                return Err(trouble.sentence.clone());
            }
            match freshness::at_start(running, witnesses) {
                Ok(()) => return Ok(()),
                Err(few @ NotCosigned::TooFew { .. }) => {
                    let log = running.ledger().verifier().to_string();
                    self.metrics.witness_failures.add(1);
                    service.enter(Stage::Forming(format!("{few}; the log's key is {log}")));
                    std::thread::sleep(WITNESS_PAUSE);
                }
                Err(set_back) => return Err(set_back.to_string()),
            }
        }
    }

    fn sequence(
        &self,
        running: &Arc<Running>,
        commit: Box<dyn Commit>,
        witnesses: Witnesses,
    ) -> Result<(), String> {
        let sequencer = Sequencer::new(Arc::clone(running), commit, witnesses);
        let thread = std::thread::Builder::new()
            .name("sequencer".into())
            .spawn(move || sequencer.run())
            .map_err(|error| format!("no thread for the sequencer: {error}"))?;
        *lock(&self.thread) = Some(thread);
        Ok(())
    }
}

/// # Errors
/// Holders of shares ended this log, and it goes on elsewhere.
pub(crate) fn refuse_closed(state: &State, ledger: &Ledger) -> Result<(), String> {
    if state.is_closed() && state.epoch() == ledger.epoch() {
        let next = ledger.epoch() + 1;
        return Err(format!(
            "holders of recovery shares ended this log; it goes on in epoch {next}, elsewhere or after its \
             recovery is finished here: shut this copy down, or give shares again without its root file"
        ));
    }
    Ok(())
}

/// Has an entry of the program's own count, however long that takes.
fn order(service: &KeyService, running: &Running, ask: Ask) -> Result<(), String> {
    match running.submit(Caller::Program, ask) {
        Reply::Done(_) => return Ok(()),
        Reply::Refused(refusal) if refusal.code == "not-durable" => {
            service.enter(Stage::Forming(refusal.message));
        }
        Reply::Refused(refusal) => return Err(refusal.message),
        _ => return Err("the sequencer gave another answer than was asked for".to_owned()),
    }
    // It is tried again by the sequencer; nothing else is, before.
    loop {
        match running.wait_until_counted() {
            Ok(()) => return Ok(()),
            Err(refusal) => match running.trouble() {
                Some(trouble) => return Err(trouble.sentence.clone()),
                None => service.enter(Stage::Forming(refusal.message)),
            },
        }
    }
}

pub(crate) fn copied(secret: &Secret) -> Secret {
    Secret::from_bytes(*secret.expose())
}

/// Between two rounds of asking witnesses at the start.
const WITNESS_PAUSE: Duration = Duration::from_secs(1);
