//! The accept loop and the threads behind it.
//!
//! ```text
//! accept ─▶ Calls ──▶ one thread reads: call ─▶ gate ─▶ whoever read it answers, another reads on (`readers`)
//!        │                                        └ full ─▶ one thread says `busy`
//!        ├▶ Status ──▶ answered at once
//!        └▶ KeyService, Package, where functions run Storage ─▶ Offers::keep
//! ```
//!
//! Always true: at most `concurrency + queue_max` calls are inside, and all requests inside together take no more
//! memory than one of full length for each thread; a call that is too long, too slow or nonsense costs its own answer
//! and no more; one that nobody waits for any more does not begin; one thread more than may serve, so that one reads
//! whatever the others do; when the launcher is gone, or SIGTERM came, nothing new begins, what was begun ends, states of
//! functions are let go, and then the process ends. Not here: what a call means (`call`). On paper: a call is read and answered on one thread, woken once; that thread wakes
//! the next reader before it begins.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use bield_door::{
    Call, Caller, Calls, Door, DoorError, Inside, Limits, Offers, Stream, Unread, Visit,
};
use bield_envelope::SEALED_REQUEST_BYTES_MAX;
use bield_protocol::call::{Reply, Unsealed};
use bield_protocol::status::Status;

use crate::call::{Answer, OUTPUT_BYTES_MAX, Runtime};
use crate::flights::lock;
use crate::handing::{Asker, Gone};
use crate::readers::Readers;
use crate::refusals::unsealed;
use crate::renewer::Renewer;
use crate::start::{self, TeeAddress};
use crate::turns::{Entry, Gate};

/// How long answers may take to leave once the launcher is gone.
const LEAVE_WAIT: Duration = Duration::from_secs(2);
/// Threads beyond those that compute, at least: calls that wait for keys or a package while others run.
const THREADS_AHEAD: usize = 5;
/// Most threads that serve calls, besides those that compute. What waits beyond them is not open yet, so that its user
/// is not known and it is served in the order in which it came.
const THREADS_WAITING_MAX: usize = 256;
/// Calls that wait to be told `busy`; more are closed without a word.
const TURNED_AWAY_MAX: usize = 64;
/// How long calls may go on after the launcher is gone.
const STOP_WAIT: Duration = Duration::from_secs(5);
/// How long states of functions may be in use then, by the thread that tends them: let go, the next holder need not wait.
const LET_GO_WAIT: Duration = Duration::from_secs(3);
/// How long returning allotments may take then.
const RETURN_WAIT: Duration = Duration::from_secs(2);
/// How long a user that is served alone may pause before the process ends for the next one. Each of its requests opens
/// its model anew, so that a pause beyond this costs it a start of the process and no more.
const CLAIM_IDLE: Duration = Duration::from_secs(5);
/// When to come back to a full runtime.
const BUSY_RETRY_MS: u64 = 250;

/// Runs the program until its launcher is gone or SIGTERM comes. Standard input is the door; `onnxruntime` is where the host keeps that
/// library.
///
/// # Errors
/// What kept it from starting, or the door failed.
pub fn run(tee: &TeeAddress, onnxruntime: Option<&Path>) -> anyhow::Result<()> {
    bield_platform::refuse_environment(&bield_engine::ENVIRONMENT)?;
    let door = Door::from_stdin()?;
    let (configuration, configuring) = door.configuration()?;
    let program = match start::start(tee, onnxruntime, &configuration) {
        Ok(program) => program,
        Err(error) => {
            let _ = configuring.refuse(&format!("{error:#}"));
            return Err(error);
        }
    };
    configuring.ready()?;
    println!(
        "bield-runtime {}: serving as {}",
        env!("CARGO_PKG_VERSION"),
        program.facts.measurement
    );
    let program = Arc::new(program);
    // Not before: until here there is nothing to end in order, and a start that hangs can be ended.
    bield_platform::heed_termination()?;
    let ending = Arc::clone(&program);
    spawn("end", move || end_when_told(&ending))?;
    match program.serve(&door) {
        Err(DoorError::HostGone) => {
            program.stop();
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

/// Ends the process once it is told to, as when the launcher is gone; meanwhile the host still carries what that needs.
fn end_when_told(program: &Program) {
    bield_platform::wait_until_told_to_end();
    program.stop();
    eprintln!("bield-runtime: told to end (SIGTERM); stopped");
    std::process::exit(0);
}

/// Calls served at once, each on a thread: one for each that may be inside: a call that waits takes no more than its thread, and
/// its user's turn comes however many another user has waiting.
pub(crate) fn call_threads(concurrency: usize, queue_max: usize) -> usize {
    concurrency + queue_max.clamp(THREADS_AHEAD, THREADS_WAITING_MAX)
}

/// Bytes of all requests inside.
const fn request_bytes(concurrency: usize) -> usize {
    (concurrency + THREADS_AHEAD) * SEALED_REQUEST_BYTES_MAX
}

/// Bytes of all outputs that wait to be read: as many answers of full length as requests.
pub(crate) const fn output_bytes(concurrency: usize) -> usize {
    (concurrency + THREADS_AHEAD) * OUTPUT_BYTES_MAX
}

/// A program whose threads wait for calls.
pub(crate) struct Program {
    runtime: Arc<Runtime>,
    offers: Arc<Offers>,
    facts: Facts,
    counts: Arc<Counts>,
    intake: Arc<Intake>,
    /// Answers on their way to the host.
    leaving: Arc<Gate>,
    /// None once the program ends.
    renewer: Mutex<Option<Renewer>>,
}

/// What the status says that never changes.
pub(crate) struct Facts {
    pub(crate) measurement: String,
    pub(crate) simulated: bool,
    pub(crate) hardening: Vec<String>,
    pub(crate) missing: Vec<String>,
}

/// What happened since start. A sealed refusal counts as served: nothing here opens what is sealed. The host can
/// often tell all the same, from the size of the answer and the feedback's phase times.
#[derive(Default)]
struct Counts {
    served: AtomicU64,
    refused: AtomicU64,
}

impl Program {
    /// Starts the threads that serve calls.
    ///
    /// # Errors
    /// The system gives no threads.
    pub(crate) fn new(
        runtime: Runtime,
        offers: Arc<Offers>,
        (concurrency, queue_max): (usize, usize),
        facts: Facts,
    ) -> io::Result<Self> {
        let threads = call_threads(concurrency, queue_max);
        let (runtime, counts) = (Arc::new(runtime), Arc::<Counts>::default());
        let leaving = Gate::new(threads);
        let (turned_away, full) = sync_channel(TURNED_AWAY_MAX);
        let (turner, count) = (runtime.clone(), counts.clone());
        spawn("busy", move || turn_away(&turner, &count, &full))?;
        let intake = Arc::new(Intake {
            runtime: Arc::clone(&runtime),
            readers: Readers::default(),
            line: Mutex::new(None),
            came: Condvar::new(),
            servers: Mutex::new(Servers {
                free: threads,
                waiting: VecDeque::new(),
            }),
            turned_away,
            limits: Limits {
                request_bytes_max: SEALED_REQUEST_BYTES_MAX,
                bytes_max: request_bytes(concurrency),
            },
            inside: Inside::default(),
            is_read: AtomicBool::new(false),
            is_closed: AtomicBool::new(false),
        });
        for _ in 0..=threads {
            let (intake, counts) = (Arc::clone(&intake), Arc::clone(&counts));
            let leaving = Arc::clone(&leaving);
            spawn("call", move || intake.serve(&counts, &leaving))?;
        }
        let (served, gone) = (Arc::clone(&runtime), Arc::clone(&leaving));
        spawn("tenancy", move || end_after_claim(&served, &gone))?;
        Ok(Self {
            renewer: Mutex::new(Some(Renewer::start(Arc::clone(&runtime))?)),
            runtime,
            offers,
            facts,
            counts,
            intake,
            leaving,
        })
    }

    /// Accepts visits until the door closes.
    pub(crate) fn serve(&self, door: &Door) -> Result<Infallible, DoorError> {
        loop {
            let (visit, stream) = door.accept()?;
            match visit {
                Visit::Calls => self.intake.open(stream),
                Visit::Status => self.tell_status(stream),
                Visit::KeyService | Visit::Package => self.offers.keep(visit, stream),
                Visit::Storage if self.runtime.functions.is_some() => {
                    self.offers.keep(visit, stream);
                }
                // Not served here: closed.
                _ => {}
            }
        }
    }

    /// Finishes what was begun, as far as the host still carries it, lets states go and returns what leases allotted.
    /// Who calls it second waits until the first is done.
    fn stop(&self) {
        let mut renewer = lock(&self.renewer);
        if renewer.take().is_none() {
            return;
        }
        self.intake.is_closed.store(true, Ordering::Relaxed);
        self.runtime.gate.wait_empty(STOP_WAIT);
        self.leaving.wait_empty(LEAVE_WAIT);
        give_all_back(&self.runtime);
    }

    /// Small enough for the socket's buffer, so that a host that does not read delays nobody.
    fn tell_status(&self, mut stream: Stream) {
        let models = self.runtime.models.counts();
        let status = Status {
            program: "bield-runtime".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            measurement: self.facts.measurement.clone(),
            simulated: self.facts.simulated,
            hardening: self.facts.hardening.clone(),
            missing: self.facts.missing.clone(),
            in_flight: self.runtime.gate.inside() as u64,
            served: self.counts.served.load(Ordering::Relaxed),
            refused: self.counts.refused.load(Ordering::Relaxed),
            resident: models.resident,
            state: "serving".to_owned(),
            metrics: self.runtime.metrics.tell(
                &self.runtime.leases.counts(),
                &models,
                self.runtime.turns.waiting(),
            ),
        };
        let _ = stream.write_all(&status.encode());
    }
}

/// Lets calls in.
struct Intake {
    runtime: Arc<Runtime>,
    /// The threads that serve nothing.
    readers: Readers,
    /// Held by the thread that reads.
    line: Mutex<Option<Calls>>,
    /// There is a line to read.
    came: Condvar,
    servers: Mutex<Servers>,
    turned_away: SyncSender<Call>,
    limits: Limits,
    inside: Inside,
    /// There is one line at a time: further visits of the kind are closed.
    is_read: AtomicBool,
    /// The program ends: what comes now is not begun.
    is_closed: AtomicBool,
}

/// How many more calls may be served at once; what was let in beyond them.
struct Servers {
    free: usize,
    waiting: VecDeque<(Call, Entry)>,
}

impl Intake {
    fn open(&self, stream: Stream) {
        if self.is_read.swap(true, Ordering::Relaxed) {
            return;
        }
        match Calls::open(stream, self.limits, &self.inside) {
            Ok(calls) => {
                // Free now: without a line nobody reads.
                *lock(&self.line) = Some(calls);
                self.came.notify_all();
            }
            Err(error) => {
                self.is_read.store(false, Ordering::Relaxed);
                eprintln!("bield-runtime: {error}");
            }
        }
    }

    /// Reads and serves calls for ever.
    fn serve(&self, counts: &Counts, leaving: &Arc<Gate>) {
        loop {
            let mut next = Some(self.read());
            while let Some((call, entry)) = next {
                serve_call(&self.runtime, counts, call, entry, leaving);
                next = self.next_waiting();
            }
        }
    }

    /// Waits for the right to read, then for a call that this thread may serve.
    fn read(&self) -> (Call, Entry) {
        let _reading = self.readers.wait();
        let mut line = lock(&self.line);
        loop {
            let Some(calls) = &mut *line else {
                line = self.came.wait(line).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            match calls.next_call() {
                Ok(call) if self.is_closed.load(Ordering::Relaxed) => drop(call),
                Ok(call) => {
                    if let Some(mine) = self.take(call) {
                        return mine;
                    }
                }
                Err(DoorError::Poisoned(error)) => {
                    // What was let in cannot be answered any more. A program that starts anew has a new door.
                    eprintln!("bield-runtime: {error}");
                    std::process::exit(1);
                }
                Err(_) => {
                    *line = None;
                    self.is_read.store(false, Ordering::Relaxed);
                }
            }
        }
    }

    /// Lets a call in; gives it back when it can be served now.
    fn take(&self, call: Call) -> Option<(Call, Entry)> {
        let Some(entry) = self.runtime.gate.enter() else {
            let _ = self.turned_away.try_send(call);
            return None;
        };
        let mut servers = lock(&self.servers);
        if servers.free == 0 {
            servers.waiting.push_back((call, entry));
            return None;
        }
        servers.free -= 1;
        Some((call, entry))
    }

    /// What was let in and nobody serves; without any, this thread is free.
    fn next_waiting(&self) -> Option<(Call, Entry)> {
        let mut servers = lock(&self.servers);
        let next = servers.waiting.pop_front();
        servers.free += usize::from(next.is_none());
        next
    }
}

fn serve_call(
    runtime: &Runtime,
    counts: &Counts,
    Call { bytes, caller }: Call,
    entry: Entry,
    leaving: &Arc<Gate>,
) {
    if caller.is_cancelled() {
        return;
    }
    let waits = Waits(RefCell::new(caller));
    let answer = match bytes {
        Ok(sealed) => runtime.answer_to(&sealed, &waits),
        Err(unread) => Answer::Whole(runtime.turn_away(not_read(unread))),
    };
    // Before the host can know, so that it never finds a full gate after the last answer.
    let leaves = leaving.enter();
    drop(entry);
    let last = match answer {
        Answer::Whole(reply) => {
            counts.note(&reply);
            Some(reply.encode())
        }
        Answer::Rest(rest) => {
            counts.served.fetch_add(1, Ordering::Relaxed);
            rest
        }
    };
    if let Some(last) = last {
        // Who went away meanwhile wants no answer.
        let _ = waits.0.into_inner().reply(&last);
    }
    drop(leaves);
}

/// Who waits for an answer while it is made.
struct Waits(RefCell<Caller>);

impl Asker for Waits {
    fn is_gone(&self) -> bool {
        self.0.borrow().is_cancelled()
    }

    fn takes_more(&self) -> bool {
        self.0.borrow().takes_more()
    }

    fn wait_until_taken(&self, at_most: Duration) -> Result<(), Gone> {
        let caller = self.0.borrow();
        caller.wait_until_taken(at_most).map_err(|_| Gone)
    }

    fn part(&self, bytes: &[u8]) -> Result<(), Gone> {
        self.0.borrow_mut().part(bytes).map_err(|_| Gone)
    }
}

/// Ends the process when it served one user alone and that user is done: its launcher starts a clean one.
fn end_after_claim(runtime: &Runtime, leaving: &Gate) {
    runtime.tenancy.wait_over(CLAIM_IDLE);
    leaving.wait_empty(LEAVE_WAIT);
    give_all_back(runtime);
    eprintln!("bield-runtime: it served one user alone and ends for the next");
    std::process::exit(0);
}

/// Gives back what others wait for otherwise: states of functions until their holds end, and allotments.
fn give_all_back(runtime: &Runtime) {
    if let Some(functions) = &runtime.functions {
        functions.states.let_all_go(LET_GO_WAIT);
    }
    runtime.leases.give_back(RETURN_WAIT);
}

fn turn_away(runtime: &Runtime, counts: &Counts, full: &Receiver<Call>) {
    while let Ok(Call { caller, .. }) = full.recv() {
        let message = "this runtime has as many requests as it takes; come back shortly";
        let reply = runtime.turn_away(unsealed("busy", message, Some(BUSY_RETRY_MS)));
        counts.note(&reply);
        let _ = caller.reply(&reply.encode());
    }
}

fn not_read(unread: Unread) -> Unsealed {
    match unread {
        Unread::NoRoom => unsealed("busy", unread, Some(BUSY_RETRY_MS)),
        Unread::BrokeOff => unsealed("malformed", unread, Some(BUSY_RETRY_MS)),
        _ => unsealed("malformed", unread, None),
    }
}

impl Counts {
    fn note(&self, reply: &Reply) {
        let count = match reply {
            Reply::Sealed(..) => &self.served,
            _ => &self.refused,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

fn spawn(name: &str, act: impl FnOnce() + Send + 'static) -> io::Result<()> {
    thread::Builder::new().name(name.to_owned()).spawn(act)?;
    Ok(())
}

#[cfg(test)]
mod tests;
