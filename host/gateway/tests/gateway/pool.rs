//! Workers from zero and back, policies, shares, and what is told of all that.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::net::TcpStream;

use rustix::process::Signal;
use serde_json::Value;

use crate::support::{Gateway, sealed_request, signal_process, until};

fn pool(gateway: &Gateway) -> Value {
    gateway.status()["pool"].clone()
}

/// Process ids of the workers that run.
fn running(gateway: &Gateway) -> BTreeSet<u64> {
    let status = gateway.status();
    let workers = status["workers"].as_array().unwrap().iter();
    workers
        .filter_map(|worker| worker["pid"].as_u64())
        .collect()
}

/// A client that has sent its question for a package and waits.
fn client(gateway: &Gateway, package: u8) -> TcpStream {
    let mut client = TcpStream::connect(gateway.http.trim_start_matches("http://")).unwrap();
    let request = sealed_request(package, b"question");
    let head = format!(
        "POST /v1/call HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n",
        request.len()
    );
    client.write_all(head.as_bytes()).unwrap();
    client.write_all(&request).unwrap();
    client
}

#[test]
fn the_first_call_starts_a_worker_and_after_a_while_without_calls_none_is_left() {
    let more = ["--workers=2", "--workers-min=0", "--keep-alive-secs=1"];
    let gateway = Gateway::start("", &more);
    for round in 1..=2 {
        assert_eq!(running(&gateway).len(), 0);
        assert_eq!(gateway.get("/readyz").status, 200);
        assert_eq!(
            gateway.post("/v1/call", &sealed_request(1, b"x")).status,
            200
        );
        // The driver hears of an answer when the client has it already.
        until(|| pool(&gateway)["totals"]["answered"] == round);
        until(|| running(&gateway).is_empty());
        assert_eq!(pool(&gateway)["totals"]["workers_stopped"], round);
    }
}

#[test]
fn without_a_word_on_it_as_many_workers_run_as_may() {
    let gateway = Gateway::start("", &["--workers=2", "--keep-alive-secs=1"]);
    assert_eq!(running(&gateway).len(), 2);
    let gateway = Gateway::start("", &["--workers=3", "--workers-min=1"]);
    assert_eq!(running(&gateway).len(), 1);
}

#[test]
fn spares_are_ready_beside_what_is_in_use() {
    let gateway = Gateway::start("", &["--workers=3", "--workers-min=0", "--spares=2"]);
    until(|| running(&gateway).len() == 2);
    assert_eq!(
        gateway.post("/v1/call", &sealed_request(1, b"x")).status,
        200
    );
    until(|| running(&gateway).len() == 3);
}

#[test]
fn each_policy_answers_and_says_its_name() {
    for policy in ["bield", "fnpacker", "one-per-model", "all-in-one"] {
        let policy_flag = format!("--policy={policy}");
        let gateway = Gateway::start("", &["--workers=2", &policy_flag]);
        for package in 1..=2 {
            let answer = gateway.post("/v1/call", &sealed_request(package, b"x"));
            assert_eq!(answer.status, 200, "{policy}");
        }
        assert_eq!(pool(&gateway)["policy"], policy);
        let groups = pool(&gateway);
        let groups = groups["workers"].as_array().unwrap().iter();
        let groups: BTreeSet<String> = groups.map(|worker| worker["group"].to_string()).collect();
        let of_packages = groups
            .iter()
            .filter(|group| group.contains("package"))
            .count();
        assert_eq!(
            of_packages,
            if policy == "one-per-model" { 2 } else { 0 },
            "{groups:?}"
        );
    }
}

#[test]
fn a_network_that_has_its_share_of_the_queue_is_refused_while_there_is_room() {
    let more = ["--concurrency=1", "--queue=8", "--share=1"];
    let gateway = Gateway::start("delay=3600000", &more);
    let _runs = client(&gateway, 1);
    until(|| gateway.status()["workers"][0]["in_flight"] == 1);
    let waits = client(&gateway, 1);
    until(|| pool(&gateway)["waiting"] == 1);
    let refused = gateway.post("/v1/call", &sealed_request(1, b"x"));
    assert_eq!(
        (refused.status, refused.error_code().as_str()),
        (429, "share-full")
    );
    assert!(refused.retry_after().is_some());
    // Who goes away gives its place in the queue back.
    drop(waits);
    until(|| pool(&gateway)["waiting"] == 0);
    assert_eq!(pool(&gateway)["totals"]["left"], 1);
}

#[test]
fn requests_beyond_the_queue_are_refused_at_once_while_others_wait_for_a_start() {
    // The first start never says that it is ready.
    let directory = tempfile::tempdir().unwrap();
    let once = directory.path().join("once");
    std::fs::write(&once, "").unwrap();
    let configuration = format!("once={}", once.display());
    let more = ["--workers-min=0", "--queue=2", "--queue-ms=3600000"];
    let gateway = Gateway::start(&configuration, &more);
    let _held: Vec<_> = (0..2).map(|_| client(&gateway, 1)).collect();
    until(|| pool(&gateway)["waiting"] == 2);
    let refused = gateway.post("/v1/call", &sealed_request(1, b"x"));
    assert_eq!(
        (refused.status, refused.error_code().as_str()),
        (429, "queue-full")
    );
    assert_eq!(pool(&gateway)["workers"][0]["state"], "starting");
}

#[test]
fn a_queue_of_none_needs_workers_that_run_already() {
    let directory = tempfile::tempdir().unwrap();
    let more = ["--queue=0", "--workers-min=0"];
    let output = crate::support::command(directory.path(), "", &more)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.contains("with --queue 0 no request can wait"),
        "{said}"
    );
}

#[test]
fn the_memory_of_workers_is_measured_and_where_this_system_allows_it_limited() {
    let gateway = Gateway::start("", &["--worker-memory-mib=64"]);
    until(|| {
        let worker = &pool(&gateway)["workers"][0];
        // What a process of this size takes, not the gigabyte it is taken to need before it was measured.
        (1..1 << 28).contains(&worker["memory_bytes"].as_u64().unwrap())
    });
    let limit = pool(&gateway)["memory_limit"].as_str().unwrap().to_owned();
    let pid = running(&gateway).pop_first().unwrap();
    let group = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    match limit.as_str() {
        "in force" => assert!(group.contains("/bield-"), "{group}"),
        why => assert!(why.starts_with("not in force: "), "{why}"),
    }
    let without = Gateway::start("", &[]);
    assert!(pool(&without)["memory_limit"].is_null());
}

#[test]
fn why_tells_what_there_was_to_choose_from_by_the_number_of_the_answer() {
    let gateway = Gateway::start("", &["--workers=2"]);
    let answer = gateway.post("/v1/call", &sealed_request(1, b"x"));
    let number = answer.headers["bield-request"].to_str().unwrap().to_owned();
    let why = gateway.get(&format!("/v1/why/{number}")).json();
    assert_eq!(why["request"].to_string(), number);
    assert_eq!(why["package"], "01".repeat(32));
    let chosen = why["outcome"]["dispatched"].as_u64().unwrap();
    let candidates = why["candidates"].as_array().unwrap();
    assert_eq!(candidates.len(), 2);
    assert!(
        candidates
            .iter()
            .any(|candidate| candidate["worker"] == chosen)
    );
    // A refusal has a number, too; one that no worker was looked for is not remembered.
    let refused = gateway.post("/v1/call", b"unsealed");
    let number = refused.headers["bield-request"].to_str().unwrap();
    let unknown = gateway.get(&format!("/v1/why/{number}"));
    assert_eq!(
        (unknown.status, unknown.error_code().as_str()),
        (404, "no-such-request")
    );
    let none = gateway.get("/v1/why/first");
    assert_eq!(
        (none.status, none.error_code().as_str()),
        (400, "not-a-number")
    );
}

#[test]
fn a_worker_that_lies_about_itself_changes_nothing_for_the_others() {
    let gateway = Gateway::start("lies", &["--workers=2", "--concurrency=1"]);
    std::thread::scope(|scope| {
        let calls: Vec<_> = (0..24)
            .map(|number| {
                let gateway = &gateway;
                scope.spawn(move || {
                    gateway
                        .post("/v1/call", &sealed_request(number % 4, b"x"))
                        .status
                })
            })
            .collect();
        assert!(calls.into_iter().all(|call| call.join().unwrap() == 200));
    });
    until(|| pool(&gateway)["totals"]["answered"] == 24);
    assert_eq!(pool(&gateway)["totals"]["starts"]["cold"], 24);
    let text = String::from_utf8(gateway.get("/metrics").body).unwrap();
    let seconds = |name: &str| -> f64 {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .unwrap();
        line.trim().parse().unwrap()
    };
    let all = seconds("bield_gateway_latency_seconds_total");
    let load = seconds("bield_gateway_phase_seconds_total{phase=\"load\"}");
    assert!(load <= all, "{load} of {all}");
}

#[test]
fn starts_phases_and_refusals_are_counted_and_charted() {
    let gateway = Gateway::start("", &[]);
    for _ in 0..3 {
        assert_eq!(
            gateway.post("/v1/call", &sealed_request(1, b"x")).status,
            200
        );
    }
    let text = || String::from_utf8(gateway.get("/metrics").body).unwrap();
    let text = text();
    for line in [
        "bield_gateway_answers_total{start=\"hot\"} 3",
        "bield_gateway_answers_total{start=\"cold\"} 0",
        "bield_gateway_calls_total 3",
        "bield_gateway_waiting 0",
        "# TYPE bield_gateway_gb_seconds_total counter",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}: {text}");
    }
    let hot = || {
        let series = pool(&gateway)["series"].clone();
        let points = series["points"].as_array().unwrap().clone();
        points
            .iter()
            .map(|point| point["hot"].as_u64().unwrap())
            .sum::<u64>()
    };
    until(|| hot() == 3);
}

#[test]
fn a_call_waits_for_the_worker_that_replaces_one_killed_while_idle() {
    let gateway = Gateway::start("", &[]);
    let pid = running(&gateway).pop_first().unwrap();
    signal_process(pid.try_into().unwrap(), Signal::KILL);
    assert_eq!(
        gateway.post("/v1/call", &sealed_request(1, b"x")).status,
        200
    );
}
