//! The soak: mixed users, more model bytes than the memory budget, every isolation, killed runtimes and hostile bytes, for
//! minutes; and at the end no wrong answer, no hang, no growth.
//!
//! ```text
//! users: shared × 3, wiped × 2, dedicated ─┐                          ┌─▶ runtime ◀─ SIGKILL, SIGSTOP
//! stranger: random, cut, flipped, replayed ┼─▶ gateway ──▶ door ──────┼─▶ runtime
//!                                          │      └─▶ key service     └─ budget: 2 of 4 networks
//!        each answer = the engine in this process, its receipt verified; each refusal is one that may be
//! ```
//!
//! Always true: what is asked, and when something is killed, follows from the seed (which thread comes first does not);
//! every call is compared, and both of a pair that was sent twice; the run fails by what happened, never by how fast it was,
//! except that a call must end within the waits that the deployment is configured with; it passes only if somebody of every
//! kind was answered.

mod actors;
mod cast;
mod growth;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use serde_json::json;

use actors::{killer, stranger, user};
use cast::{Cast, KINDS};
use growth::Growth;

/// How long an honest request may wait for others inside a runtime.
const QUEUE_MS: u32 = 10_000;
/// How long the gateway waits for an answer, and again for a place.
const CALL_MS: u64 = 30_000;
/// When a call has hung: after the gateway's two waits, with room for a busy machine.
const HANGS_AFTER: Duration = Duration::from_millis(2 * CALL_MS + 15_000);
/// From the end of the load to the last look at memory.
const REST: Duration = Duration::from_secs(12);

/// What is soaked, and for how long.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Folder of the built programs.
    #[arg(long)]
    programs: PathBuf,
    /// How long the load lasts.
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    /// What is asked and killed follows from it.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The summary as JSON.
    #[arg(long)]
    json: bool,
}

/// What happened, counted by who and how it ended.
#[derive(Default)]
struct Ledger {
    counts: Mutex<BTreeMap<String, u64>>,
    /// What must not happen.
    faults: Mutex<Vec<String>>,
    slowest: Mutex<Duration>,
}

impl Ledger {
    fn count(&self, what: impl Into<String>) {
        *lock(&self.counts).entry(what.into()).or_default() += 1;
    }

    fn fault(&self, what: String) {
        eprintln!("FAULT: {what}");
        lock(&self.faults).push(what);
    }

    /// A call that ended.
    fn ended(&self, who: &str, took: Duration) {
        let mut slowest = lock(&self.slowest);
        *slowest = took.max(*slowest);
        if took > HANGS_AFTER {
            self.fault(format!("{who}: a call took {took:?}"));
        }
    }
}

/// What one of the cast does until told to stop.
type Act = Box<dyn FnOnce(&Cast, &Ledger, &AtomicBool) -> Result<()> + Send>;

/// Runs it, prints what happened, and fails if anything did that must not.
pub(crate) fn run(options: &Options) -> Result<()> {
    let cast = Arc::new(Cast::gather(&options.programs)?);
    let (ledger, stop) = (Arc::<Ledger>::default(), Arc::new(AtomicBool::new(false)));
    let begin = Instant::now();
    let load = Duration::from_secs_f64(options.minutes * 60.0);
    eprintln!(
        "soaking for {:.1} minutes, seed {}",
        options.minutes, options.seed
    );

    let (done, ends) = channel();
    let mut running = Vec::new();
    let mut act = |name: String, act: Act| {
        let (cast, ledger, stop, done) = (cast.clone(), ledger.clone(), stop.clone(), done.clone());
        running.push(name.clone());
        thread::spawn(move || {
            if let Err(error) = act(&cast, &ledger, &stop) {
                ledger.fault(format!("{name}: {error:#}"));
            }
            let _ = done.send(name);
        });
    };
    for number in 0..cast.users.len() {
        let seed = options.seed.wrapping_mul(1000).wrapping_add(number as u64);
        let name = cast.users[number].name.clone();
        act(
            name,
            Box::new(move |cast, ledger, stop| user(cast, number, seed, ledger, stop)),
        );
    }
    let seed = options.seed.wrapping_mul(1000).wrapping_add(900);
    act(
        "stranger".into(),
        Box::new(move |cast, ledger, stop| stranger(cast, seed, ledger, stop)),
    );
    act(
        "killer".into(),
        Box::new(move |cast, ledger, stop| killer(cast, seed + 1, ledger, stop)),
    );

    let mut growth = Growth::new(cast.deployment.survivors()?, load)?;
    while begin.elapsed() < load {
        thread::sleep(Duration::from_secs(1).min(load - begin.elapsed().min(load)));
        growth.look(begin.elapsed())?;
        if begin.elapsed().as_secs().is_multiple_of(60) {
            let calls: u64 = lock(&ledger.counts).values().sum();
            eprintln!("{:>5.0} s  {calls} calls", begin.elapsed().as_secs_f64());
        }
    }
    stop.store(true, Ordering::SeqCst);
    while !running.is_empty() {
        let Ok(name) = ends.recv_timeout(HANGS_AFTER) else {
            bail!("a hang: {} did not end", running.join(", "));
        };
        running.retain(|one| *one != name);
    }
    thread::sleep(REST);
    for grown in growth.judge()? {
        ledger.fault(grown);
    }
    summary(options, &ledger, &growth, begin.elapsed())
}

fn summary(options: &Options, ledger: &Ledger, growth: &Growth, took: Duration) -> Result<()> {
    let (counts, faults) = (lock(&ledger.counts), lock(&ledger.faults));
    let slowest = lock(&ledger.slowest).as_secs_f64();
    if options.json {
        let told = json!({
            "seed": options.seed,
            "seconds": took.as_secs_f64(),
            "outcomes": *counts,
            "slowest_seconds": slowest,
            "processes": growth.table(),
            "faults": *faults,
        });
        println!("{told:#}");
    } else {
        println!("\nsoak, seed {}, {:.0} s", options.seed, took.as_secs_f64());
        for (what, count) in counts.iter() {
            println!("{count:>8}  {what}");
        }
        println!("slowest call {slowest:.2} s");
        println!("{growth}");
    }
    ensure!(
        faults.is_empty(),
        "{} faults: {}",
        faults.len(),
        faults.join("; ")
    );
    let never = unanswered(&counts);
    ensure!(
        never.is_empty(),
        "never answered: {}; a soak this short may be too short",
        never.join(", ")
    );
    eprintln!("no wrong answer, no hang, no growth");
    Ok(())
}

/// Kinds of honest users of whom nobody was answered: what is asked of strangers' letters says nothing of them.
fn unanswered(counts: &BTreeMap<String, u64>) -> Vec<&'static str> {
    let lacks = |kind: &&str| !counts.contains_key(&format!("{kind}: answered"));
    KINDS
        .map(|(kind, ..)| kind)
        .into_iter()
        .filter(lacks)
        .collect()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_that_only_a_stranger_saw_answered_was_not_answered() {
        let counts = |of: &[&str]| of.iter().map(|what| ((*what).to_owned(), 1)).collect();
        let some = counts(&[
            "stranger: first: answered",
            "shared: answered",
            "wiped: no-runtime",
        ]);
        assert_eq!(unanswered(&some), ["wiped", "dedicated"]);
        let all = counts(&["shared: answered", "wiped: answered", "dedicated: answered"]);
        assert!(unanswered(&all).is_empty());
    }
}
