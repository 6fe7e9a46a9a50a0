//! One function and several workers: whoever asks reaches the one that holds its state; one that dies is followed by another,
//! and nothing is counted twice or lost. Receipts are checked with the log that the host exports.

#![expect(
    clippy::unwrap_used,
    reason = "a failed unwrap in a test is a failed test"
)]

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bield_end_to_end::{Gateway, Package, Person, Stack};
use bield_protocol::configuration::FunctionsConfiguration;
use bield_sdk::CallError;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

const COUNTER: &str = r#"
[function]
name = "counter"
version = "1"
source = "function.wasm"

[[bucket]]
name = "counters"
consistency = "linearizable"
durability = "local-sync"
"#;

fn stack() -> Stack {
    Stack::start_runtime_with(None, |configuration| {
        configuration.concurrency = 4;
        configuration.functions = Some(FunctionsConfiguration {
            instances_max: 8,
            instance_mib_max: 256,
            several_owners: false,
        });
    })
    .unwrap()
}

/// A function that counts, and somebody who calls it through `gateway`.
fn cast(stack: &Stack, gateway: &Gateway, people: &Path) -> (Person, Package) {
    let owner = stack.person("owner").unwrap();
    let mut trust = stack.trust();
    trust.gateway.clone_from(&gateway.url);
    let user = Person::settle(people.join("user"), &toml::to_string(&trust).unwrap()).unwrap();
    let counter = owner
        .publish_function(COUNTER, bield_guests::C, &[])
        .unwrap();
    owner.grant(&counter, &user).unwrap();
    (user, counter)
}

/// Adds 1; the sum, or none when the request was done by a runtime that died before its answer was kept.
fn add(user: &Person, counter: &Package) -> Option<u64> {
    let answered = user.call_function(counter, "/add", b"k", None).unwrap();
    match answered {
        Ok(answered) => {
            let response = answered.outcome.map_err(|failure| failure.message);
            let body = response.unwrap().body;
            Some(String::from_utf8(body.to_vec()).unwrap().parse().unwrap())
        }
        Err(CallError::Refused(refusal)) if refusal.code == "done-before" => None,
        Err(error) => panic!("{error}"),
    }
}

fn status(gateway: &Gateway) -> Value {
    let gateway = bield_sdk::Gateway::new(&gateway.url);
    gateway.status().unwrap()
}

/// The worker that answered most: its slot and how many.
fn busiest(gateway: &Gateway) -> (u64, u64) {
    let status = status(gateway);
    let workers = status["pool"]["workers"].as_array().unwrap();
    let counts = workers
        .iter()
        .map(|worker| (worker["answered"].as_u64(), worker["slot"].as_u64()));
    let (answered, slot) = counts.max().unwrap();
    (slot.unwrap(), answered.unwrap())
}

/// Sends a signal to the runtime in a slot, and to nobody else.
fn tell(gateway: &Gateway, slot: u64, what: Signal) {
    let status = status(gateway);
    let runtimes = status["workers"].as_array().unwrap();
    let runtime = runtimes.iter().find(|runtime| runtime["slot"] == slot);
    let pid = runtime.unwrap()["pid"].as_i64().unwrap();
    let pid = Pid::from_raw(pid.try_into().unwrap()).unwrap();
    kill_process(pid, what).unwrap();
}

const CALLERS: usize = 5;
const EACH: usize = 8;

/// Two workers, and many who count at once.
struct Crowd {
    _stack: Stack,
    _people: TempDir,
    gateway: Gateway,
    user: Person,
    counter: Package,
    answered: AtomicUsize,
}

impl Crowd {
    fn new() -> Self {
        let (stack, people) = (stack(), TempDir::new().unwrap());
        let state = stack.host().join("state-of-two");
        let state = format!("--state={}", state.display());
        let more = ["--workers=2", "--workers-min=2", &state];
        let gateway = stack.gateway_with("two", &more).unwrap();
        let (user, counter) = cast(&stack, &gateway, people.path());
        Self {
            _stack: stack,
            _people: people,
            gateway,
            user,
            counter,
            answered: AtomicUsize::new(0),
        }
    }

    /// What everybody was told, `count` times each.
    fn calls(&self, count: usize) -> Vec<Option<u64>> {
        let call = || {
            let sums = (0..count).map(|_| {
                let sum = add(&self.user, &self.counter);
                self.answered.fetch_add(1, Ordering::SeqCst);
                sum
            });
            sums.collect::<Vec<_>>()
        };
        thread::scope(|scope| {
            let callers: Vec<_> = (0..CALLERS).map(|_| scope.spawn(call)).collect();
            let each = callers.into_iter().map(|caller| caller.join().unwrap());
            each.flatten().collect()
        })
    }

    /// As [`calls`](Self::calls), while the holder of the state, in `slot`, gets a signal in their midst: that nothing is counted
    /// twice or lost; how many were not told their sum; how long it took.
    fn calls_while(&self, slot: u64, what: Signal) -> (usize, Duration) {
        let before = self.count();
        self.answered.store(0, Ordering::SeqCst);
        let began = Instant::now();
        let sums = thread::scope(|scope| {
            let calls = scope.spawn(|| self.calls(EACH));
            while self.answered.load(Ordering::SeqCst) < CALLERS {
                thread::sleep(Duration::from_millis(1));
            }
            tell(&self.gateway, slot, what);
            calls.join().unwrap()
        });
        let took = began.elapsed();
        let told: BTreeSet<_> = sums.iter().flatten().copied().collect();
        let unheard = sums.iter().filter(|sum| sum.is_none()).count();
        assert_eq!(
            told.len() + unheard,
            CALLERS * EACH,
            "a sum twice: {sums:?}"
        );
        let expected = before + (CALLERS * EACH) as u64;
        assert_eq!(self.count(), expected, "{unheard} unheard");
        (unheard, took)
    }

    fn count(&self) -> u64 {
        let got = self.user.call_function(&self.counter, "/get", b"k", None);
        let got = got.unwrap().unwrap_or_else(|error| panic!("{error}"));
        let body = got.outcome.ok().unwrap().body.to_vec();
        String::from_utf8(body).unwrap().parse().unwrap()
    }
}

#[test]
fn several_workers_count_as_one_also_when_the_holder_is_killed_midway() {
    let crowd = Crowd::new();
    // All at once, before anybody knows who holds the state.
    let sums = crowd.calls(2);
    let expected: BTreeSet<_> = (1..=2 * CALLERS as u64).map(Some).collect();
    assert_eq!(sums.into_iter().collect::<BTreeSet<_>>(), expected);
    let (holder, before) = busiest(&crowd.gateway);
    let sums = crowd.calls(2);
    let all = sums.iter().flatten().count() as u64;
    assert_eq!(
        busiest(&crowd.gateway),
        (holder, before + all),
        "known, it is asked at once"
    );
    let (unheard, took) = crowd.calls_while(holder, Signal::KILL);
    // Nobody was told to come back: the gateway waited for the end of the hold.
    assert!(took > Duration::from_secs(10), "{took:?}");
    assert!(unheard <= CALLERS, "{unheard}");
}

#[test]
fn a_holder_that_is_told_to_end_lets_the_state_go_and_nobody_waits_for_its_hold() {
    let crowd = Crowd::new();
    crowd.calls(1);
    let (holder, _) = busiest(&crowd.gateway);
    let (unheard, took) = crowd.calls_while(holder, Signal::TERM);
    assert_eq!(unheard, 0, "it ends what it began");
    // Its hold had more than 20 s left.
    assert!(took < Duration::from_secs(15), "{took:?}");
}

#[test]
fn a_worker_of_its_own_keeps_states_too() {
    let (stack, people) = (stack(), TempDir::new().unwrap());
    let state = stack.host().join("state-of-worker");
    let state = format!("--state={}", state.display());
    let mut worker = stack.worker_with("stateful", &[&state]).unwrap();
    let address = |worker: &Gateway| worker.url.trim_start_matches("http://").to_owned();
    let gateway = stack
        .gateway_over("over-one", &[&address(&worker)])
        .unwrap();
    let (user, counter) = cast(&stack, &gateway, people.path());
    assert_eq!([(); 3].map(|()| add(&user, &counter)), [1, 2, 3].map(Some));
    worker.process.stop().unwrap();
    let worker = stack.worker_with("stateful", &[&state]).unwrap();
    let gateway = stack
        .gateway_over("over-next", &[&address(&worker)])
        .unwrap();
    let mut trust = stack.trust();
    trust.gateway.clone_from(&gateway.url);
    let again = people.path().join("user");
    std::fs::remove_file(again.join("trust.toml")).unwrap();
    let user = Person::settle(again, &toml::to_string(&trust).unwrap());
    assert_eq!(add(&user.unwrap(), &counter), Some(4));
}

/// Of a check: how it went, and what was found.
fn check(user: &Person, receipt: &Path, export: &Path) -> (bool, String, String) {
    let (receipt, export) = (receipt.to_str().unwrap(), export.to_str().unwrap());
    let arguments = ["receipt", receipt, "--state", export, "--allow-simulated"];
    let ran = user.bield(&arguments).unwrap();
    let found = ran.checks("state-log").first().cloned().unwrap_or_default();
    let said = match found.1.is_empty() {
        true => ran.message().to_owned(),
        false => found.1,
    };
    (ran.code == 0, found.0, said)
}

#[test]
fn a_receipt_is_checked_with_the_log_that_the_host_exports() {
    let (mut stack, people) = (stack(), TempDir::new().unwrap());
    // Through the tap, which leads to the next gateway as well.
    let (owner, user) = (
        stack.person("owner").unwrap(),
        stack.person("user").unwrap(),
    );
    let counter = owner.publish_function(COUNTER, bield_guests::C, &[]);
    let counter = counter.unwrap();
    owner.grant(&counter, &user).unwrap();
    let call = || {
        let answered = user.call_function(&counter, "/add", b"k", None).unwrap();
        let answered = answered.unwrap_or_else(|error| panic!("{error}"));
        (answered.bundle.encode(), answered.state.unwrap().capsule)
    };
    let write = |name: &str, bytes: &[u8]| {
        let path = people.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let (early, _) = call();
    let early = write("early.receipt", &early);
    // Another start, so that the log has two holders.
    stack.gateway.process.stop().unwrap();
    stack.start_gateway_again().unwrap();
    let (middle, capsule) = call();
    let middle = write("middle.receipt", &middle);
    let directory = stack.host().join("state");
    let export = |name: &str| {
        let file = people.path().join(name);
        let id = capsule.to_string();
        let arguments = [
            "state",
            "export",
            &id[..8],
            "--dir",
            directory.to_str().unwrap(),
            "-o",
            file.to_str().unwrap(),
        ];
        let said = user.does(&arguments).unwrap();
        assert_eq!(said["capsule"], id);
        file
    };
    let shorter = export("shorter.export");
    let (late, _) = call();
    let late = write("late.receipt", &late);
    let whole = export("whole.export");
    for receipt in [&early, &middle, &late] {
        let (passed, outcome, found) = check(&user, receipt, &whole);
        assert_eq!((passed, &*outcome), (true, "passed"), "{found}");
    }
    // Without the newest records: the early ones are there, the late one's are named.
    assert_eq!(check(&user, &middle, &shorter).1, "passed");
    let (passed, outcome, _) = check(&user, &late, &shorter);
    assert_eq!((passed, &*outcome), (false, "failed"));
    // Any altered byte of a record, and an end within one.
    let bytes = std::fs::read(&whole).unwrap();
    for at in [bytes.len() / 3, bytes.len() / 2, bytes.len() - 1] {
        let mut altered = bytes.clone();
        altered[at] ^= 1;
        let altered = write("altered.export", &altered);
        let (passed, outcome, said) = check(&user, &late, &altered);
        assert!(!passed && outcome.is_empty(), "{outcome}");
        assert!(said.contains("record"), "{said}");
    }
    let cut = write("cut.export", &bytes[..bytes.len() - 10]);
    let (passed, _, said) = check(&user, &late, &cut);
    assert!(!passed && said.contains("cut off"), "{said}");
}
