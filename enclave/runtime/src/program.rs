//! The accept loop and the threads behind it.
//!
//! ```text
//! accept ─▶ Calls ──▶ one thread reads: call ─▶ gate ─▶ queue ─▶ threads: answer, write
//!        │                                      └ full ─▶ one thread says `busy`
//!        ├▶ Status ──▶ answered at once
//!        └▶ KeyService, Package ─▶ Offers::keep
//! ```
//!
//! Always true: at most `concurrency + queue_max` calls are inside, and all requests inside together take no more
//! memory than one of full length for each thread; a call that is too long, too slow or nonsense costs its own answer
//! and no more; one that nobody waits for any more does not begin; when the launcher is gone the loop ends, then what was begun, and with it the process. Not here: what a call means (`call`).

use std::convert::Infallible;
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use bield_door::{Call, Calls, Door, DoorError, Limits, Offers, Stream, Unread, Visit};
use bield_envelope::SEALED_REQUEST_BYTES_MAX;
use bield_protocol::call::{Reply, Unsealed};
use bield_protocol::status::Status;

use crate::call::Runtime;
use crate::flights::lock;
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
/// How long returning allotments may take then.
const RETURN_WAIT: Duration = Duration::from_secs(2);
/// How long a user that is served alone may pause before the process ends for the next one. Each of its requests opens
/// its model anew, so that a pause beyond this costs it a start of the process and no more.
const CLAIM_IDLE: Duration = Duration::from_secs(5);
/// When to come back to a full runtime.
const BUSY_RETRY_MS: u64 = 250;

/// Runs the program until its launcher is gone. Standard input is the door; `onnxruntime` is where the host keeps that
/// library.
///
/// # Errors
/// What kept it from starting, or the door failed.
pub fn run(tee: &TeeAddress, onnxruntime: Option<&Path>) -> anyhow::Result<()> {
    start::refuse_engine_variables()?;
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
    match program.serve(&door) {
        Err(DoorError::HostGone) => {
            program.stop();
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

/// Threads that serve calls, one for each that may be inside: a call that waits takes no more than its thread, and
/// its user's turn comes however many another user has waiting.
pub(crate) fn call_threads(concurrency: usize, queue_max: usize) -> usize {
    concurrency + queue_max.clamp(THREADS_AHEAD, THREADS_WAITING_MAX)
}

/// Bytes of all requests inside.
const fn request_bytes(concurrency: usize) -> usize {
    (concurrency + THREADS_AHEAD) * SEALED_REQUEST_BYTES_MAX
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
    renewer: Renewer,
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
        let (calls, queue) = channel();
        let queue = Arc::new(Mutex::new(queue));
        let leaving = Gate::new(threads);
        for _ in 0..threads {
            let (runtime, counts, queue) = (runtime.clone(), counts.clone(), queue.clone());
            let leaving = leaving.clone();
            spawn("call", move || {
                serve_calls(&runtime, &counts, &queue, &leaving)
            })?;
        }
        let (turned_away, full) = sync_channel(TURNED_AWAY_MAX);
        let (turner, count) = (runtime.clone(), counts.clone());
        spawn("busy", move || turn_away(&turner, &count, &full))?;
        let intake = Arc::new(Intake {
            runtime: Arc::clone(&runtime),
            calls,
            turned_away,
            limits: Limits {
                request_bytes_max: SEALED_REQUEST_BYTES_MAX,
                bytes_max: request_bytes(concurrency),
            },
            is_read: AtomicBool::new(false),
            is_closed: AtomicBool::new(false),
        });
        let (served, gone) = (Arc::clone(&runtime), Arc::clone(&leaving));
        spawn("tenancy", move || end_after_claim(&served, &gone))?;
        Ok(Self {
            renewer: Renewer::start(Arc::clone(&runtime))?,
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
                Visit::Calls => Intake::open(&self.intake, stream),
                Visit::Status => self.tell_status(stream),
                Visit::KeyService | Visit::Package => self.offers.keep(visit, stream),
                // Not served here: closed.
                _ => {}
            }
        }
    }

    /// Finishes what was begun, as far as the host still carries it, and returns what leases allotted.
    fn stop(self) {
        self.intake.is_closed.store(true, Ordering::Relaxed);
        drop(self.renewer);
        self.runtime.gate.wait_empty(STOP_WAIT);
        self.leaving.wait_empty(LEAVE_WAIT);
        self.runtime.leases.give_back(RETURN_WAIT);
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

/// Lets calls in, on a thread of its own.
struct Intake {
    runtime: Arc<Runtime>,
    calls: Sender<(Call, Entry)>,
    turned_away: SyncSender<Call>,
    limits: Limits,
    /// There is one reader at a time: further visits of the kind are closed.
    is_read: AtomicBool,
    /// The program ends: what comes now is not begun.
    is_closed: AtomicBool,
}

impl Intake {
    fn open(intake: &Arc<Intake>, stream: Stream) {
        if intake.is_read.swap(true, Ordering::Relaxed) {
            return;
        }
        let reader = Arc::clone(intake);
        let read = move || {
            match Calls::open(stream, reader.limits) {
                Ok(calls) => reader.read(calls),
                Err(error) => eprintln!("bield-runtime: {error}"),
            }
            reader.is_read.store(false, Ordering::Relaxed);
        };
        if let Err(error) = spawn("calls", read) {
            intake.is_read.store(false, Ordering::Relaxed);
            eprintln!("bield-runtime: no thread for calls: {error}");
        }
    }

    fn read(&self, mut calls: Calls) {
        loop {
            match calls.next_call() {
                Ok(call) if self.is_closed.load(Ordering::Relaxed) => drop(call),
                Ok(call) => self.take(call),
                Err(DoorError::Poisoned(error)) => {
                    // What was let in cannot be answered any more. A program that starts anew has a new door.
                    eprintln!("bield-runtime: {error}");
                    std::process::exit(1);
                }
                Err(_) => return,
            }
        }
    }

    fn take(&self, call: Call) {
        match self.runtime.gate.enter() {
            Some(entry) => {
                // Fails only when every thread is gone; then the caller hears that there is no answer.
                let _ = self.calls.send((call, entry));
            }
            None => {
                let _ = self.turned_away.try_send(call);
            }
        }
    }
}

fn serve_calls(
    runtime: &Runtime,
    counts: &Counts,
    queue: &Mutex<Receiver<(Call, Entry)>>,
    leaving: &Arc<Gate>,
) {
    loop {
        let Ok((Call { bytes, caller }, entry)) = lock(queue).recv() else {
            return;
        };
        if caller.is_cancelled() {
            continue;
        }
        let reply = match bytes {
            Ok(sealed) => runtime.answer(&sealed, &|| caller.is_cancelled()),
            Err(unread) => runtime.turn_away(not_read(unread)),
        };
        // Before the host can know, so that it never finds a full gate after the last answer.
        let leaves = leaving.enter();
        drop(entry);
        counts.note(&reply);
        // Who went away meanwhile wants no answer.
        let _ = caller.reply(&reply.encode());
        drop(leaves);
    }
}

/// Ends the process when it served one user alone and that user is done: its launcher starts a clean one.
fn end_after_claim(runtime: &Runtime, leaving: &Gate) {
    runtime.tenancy.wait_over(CLAIM_IDLE);
    leaving.wait_empty(LEAVE_WAIT);
    runtime.leases.give_back(RETURN_WAIT);
    eprintln!("bield-runtime: it served one user alone and ends for the next");
    std::process::exit(0);
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
