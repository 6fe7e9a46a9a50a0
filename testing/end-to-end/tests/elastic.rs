//! Workers that come and go, with the real programs: from zero and back, held requests, gateways that share workers.

#![expect(clippy::unwrap_used, reason = "a failed unwrap here is a failed test")]

use std::path::Path;
use std::time::Duration;

use bield_end_to_end::{
    Answer, Gateway, Letter, Package, Person, Shared, Stack, children, numbers, wait_until,
};
use bield_sdk::now;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

static STACK: Shared<Stack> = Shared::new(Stack::start);

const WAIT: Duration = Duration::from_secs(60);

fn agent() -> ureq::Agent {
    let config = ureq::Agent::config_builder().http_status_as_error(false);
    config.proxy(None).build().new_agent()
}

fn post(gateway: &Gateway, body: &[u8]) -> Answer {
    bield_end_to_end::post(&gateway.url, body).unwrap()
}

fn pool(gateway: &Gateway) -> Value {
    let mut answer = agent()
        .get(format!("{}/v1/status", gateway.url))
        .call()
        .unwrap();
    let status: Value = serde_json::from_slice(&answer.body_mut().read_to_vec().unwrap()).unwrap();
    status["pool"].clone()
}

fn runtimes(gateway: &Gateway) -> Vec<u32> {
    children(gateway.process.pid(), "bield-runtime")
}

fn send(signal: Signal, pid: u32) {
    let pid = Pid::from_raw(pid.try_into().unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}

fn is_there(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

/// Calls and opens the answer; how warm the start was.
fn call(gateway: &Gateway, user: &Person, package: &Package) -> String {
    let to = user.key_configuration(package).unwrap();
    let letter = Letter::seal(&to, &user.key, numbers(1), now()).unwrap();
    let answer = post(gateway, &letter.bytes);
    assert_eq!(
        answer.status,
        200,
        "{}",
        String::from_utf8_lossy(&answer.body)
    );
    let start = answer.feedback["start"].as_str().unwrap().to_owned();
    letter.open(&answer).unwrap().unwrap().output().unwrap();
    start
}

#[test]
fn from_no_worker_to_the_first_answer_and_back_again() {
    let stack = STACK.get();
    let (_, user, package) = stack.cast("elastic").unwrap();
    let more = ["--workers-min=0", "--keep-alive-secs=5", "--queue-ms=60000"];
    let gateway = stack.gateway_with("elastic", &more).unwrap();
    let mut before = Vec::new();
    for round in 1..=2 {
        assert_eq!(runtimes(&gateway), [0; 0]);
        assert_eq!(call(&gateway, &user, &package), "cold");
        let first = runtimes(&gateway);
        let again = call(&gateway, &user, &package);
        // On a machine that stood still for so long that the worker has gone meanwhile, it is cold once more.
        if runtimes(&gateway) == first {
            assert_eq!(again, "hot");
        }
        assert!(wait_until(WAIT, || runtimes(&gateway).is_empty()));
        assert!(
            first
                .iter()
                .all(|pid| !is_there(*pid) && !before.contains(pid))
        );
        before.extend(first);
        let pool = pool(&gateway);
        assert_eq!(pool["totals"]["refusals"], serde_json::json!({}));
        assert!(pool["totals"]["workers_stopped"].as_u64() >= Some(round));
        assert!(pool["totals"]["gb_s"].as_f64().unwrap() > 0.0);
    }
}

#[test]
fn requests_are_held_while_a_worker_starts_and_those_beyond_the_queue_are_refused_at_once() {
    // A TEE of its own, which stands still: nothing can start until it goes on.
    let stack = Stack::start().unwrap();
    let (_, user, package) = stack.cast("held").unwrap();
    let more = ["--workers-min=0", "--queue=2", "--queue-ms=600000"];
    let gateway = stack.gateway_with("held", &more).unwrap();
    let to = user.key_configuration(&package).unwrap();
    let seal = || Letter::seal(&to, &user.key, numbers(1), now()).unwrap();
    send(Signal::STOP, stack.tee().pid());
    std::thread::scope(|scope| {
        let held: Vec<_> = (0..2)
            .map(|_| {
                let letter = seal();
                let gateway = &gateway;
                scope.spawn(move || {
                    let answer = post(gateway, &letter.bytes);
                    letter.open(&answer).unwrap().is_ok()
                })
            })
            .collect();
        let waits = wait_until(WAIT, || pool(&gateway)["waiting"] == 2);
        let refused = waits.then(|| post(&gateway, &seal().bytes));
        send(Signal::CONT, stack.tee().pid());
        let refused = refused.unwrap();
        assert_eq!(
            (refused.status, refused.code().as_str()),
            (429, "queue-full")
        );
        assert!(refused.retry_after.is_some());
        assert!(held.into_iter().all(|call| call.join().unwrap()));
    });
}

#[test]
fn a_gateway_that_is_killed_leaves_no_program_not_even_one_that_is_starting() {
    let stack = Stack::start().unwrap();
    let (_, user, package) = stack.cast("killed").unwrap();
    let to = user.key_configuration(&package).unwrap();
    let letter = Letter::seal(&to, &user.key, numbers(1), now()).unwrap();
    let more = ["--workers=2", "--workers-min=1"];
    let mut gateway = stack.gateway_with("killed", &more).unwrap();
    let serves = runtimes(&gateway);
    assert_eq!(serves.len(), 1);
    send(Signal::STOP, stack.tee().pid());
    let url = format!("{}/v1/call", gateway.url);
    // It ends; its place is taken by one that cannot become ready.
    send(Signal::KILL, serves[0]);
    let asks = std::thread::spawn(move || agent().post(url).send(&letter.bytes).is_ok());
    let starts = wait_until(WAIT, || {
        runtimes(&gateway).iter().any(|pid| *pid != serves[0])
    });
    let starting = runtimes(&gateway);
    send(Signal::KILL, gateway.process.pid());
    gateway.process.ends(WAIT).unwrap();
    send(Signal::CONT, stack.tee().pid());
    assert!(starts && wait_until(WAIT, || !starting.iter().any(|pid| is_there(*pid))));
    assert!(!asks.join().unwrap());
}

#[test]
fn two_gateways_share_workers_and_the_loss_of_one_costs_no_request() {
    let stack = STACK.get();
    let (_, user, package) = stack.cast("shared").unwrap();
    let mut workers = [
        stack.worker_with("one", &[]).unwrap(),
        stack.worker_with("other", &[]).unwrap(),
    ];
    let addresses = workers
        .each_ref()
        .map(|worker| worker.url.trim_start_matches("http://").to_owned());
    let [one, other] = addresses.each_ref().map(String::as_str);
    let gateways = [
        stack.gateway_over("over-one", &[one, other]).unwrap(),
        stack.gateway_over("over-other", &[other, one]).unwrap(),
    ];
    let sees = |gateway: &Gateway, count: usize| {
        let serve = pool(gateway)["workers"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|w| w["state"] != "starting")
            .count();
        serve == count
    };
    assert!(wait_until(WAIT, || gateways
        .iter()
        .all(|gateway| sees(gateway, 2))));
    // The second one finds the model where the first one had it opened.
    assert_eq!(call(&gateways[0], &user, &package), "cold");
    assert_eq!(call(&gateways[1], &user, &package), "hot");
    send(Signal::KILL, workers[0].process.pid());
    workers[0].process.ends(WAIT).unwrap();
    for gateway in gateways.iter().cycle().take(8) {
        call(gateway, &user, &package);
    }
    assert!(wait_until(WAIT, || gateways
        .iter()
        .all(|gateway| sees(gateway, 1))));
}
