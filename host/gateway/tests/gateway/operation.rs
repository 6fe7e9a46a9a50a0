//! Starting, dying, draining, and what the operator reads.

use rustix::process::Signal;
use std::process::Stdio;

use crate::support::{Gateway, command, sealed_request, signal_process, until};

fn runtime_pid(gateway: &Gateway) -> Option<u32> {
    gateway.status()["workers"][0]["pid"]
        .as_u64()
        .map(|pid| pid.try_into().unwrap())
}

#[test]
fn a_request_whose_runtime_is_killed_is_sent_to_the_next_one() {
    let gateway = Gateway::start("delay=1000", &[]);
    let request = sealed_request(1, b"in flight");
    std::thread::scope(|scope| {
        let in_flight = scope.spawn(|| gateway.post("/v1/call", &request));
        until(|| gateway.status()["workers"][0]["in_flight"] == 1);
        signal_process(runtime_pid(&gateway).unwrap(), Signal::KILL);
        let in_flight = in_flight.join().unwrap();
        assert_eq!((in_flight.status, &in_flight.body), (200, &request));
    });
    let status = gateway.status();
    assert_eq!(
        (
            status["workers"][0]["starts"].as_u64(),
            status["key_service"]["starts"].as_u64(),
            status["pool"]["totals"]["retried"].as_u64(),
        ),
        (Some(2), Some(1), Some(1))
    );
}

#[test]
fn a_request_whose_runtimes_are_killed_twice_gives_503_and_the_next_one_answers() {
    let gateway = Gateway::start("delay=1000", &[]);
    let request = sealed_request(1, b"in flight");
    std::thread::scope(|scope| {
        let in_flight = scope.spawn(|| gateway.post("/v1/call", &request));
        let mut killed = None;
        for _ in 0..2 {
            until(|| {
                let worker = &gateway.status()["workers"][0];
                let pid = worker["pid"].as_u64();
                worker["in_flight"] == 1 && pid.is_some() && pid != killed
            });
            let pid = runtime_pid(&gateway).unwrap();
            killed = Some(u64::from(pid));
            signal_process(pid, Signal::KILL);
        }
        let in_flight = in_flight.join().unwrap();
        assert_eq!(
            (in_flight.status, in_flight.error_code().as_str()),
            (503, "runtime-lost")
        );
        assert!(in_flight.retry_after().is_some());
    });
    // Whoever follows the Retry-After is served.
    until(|| gateway.post("/v1/call", &request).status == 200);
}

#[test]
fn status_shows_programs_and_their_reports() {
    let gateway = Gateway::start("", &["--workers", "2"]);
    let status = gateway.status();
    assert_eq!(status["workers"].as_array().unwrap().len(), 2);
    assert_eq!(status["workers"][1]["state"], "running");
    assert_eq!(status["workers"][1]["report"]["simulated"], true);
    assert_eq!(status["key_service"]["report"]["program"], "echo-enclave");
    assert_eq!(status["draining"], false);
    assert_eq!(
        (
            gateway.get("/healthz").status,
            gateway.get("/readyz").status
        ),
        (200, 200)
    );
}

#[test]
fn why_a_program_ends_again_and_again_is_told() {
    let gateway = Gateway::start("sick=no witness answers", &[]);
    let told = |answer: crate::support::Answer| {
        let body = String::from_utf8(answer.body).unwrap();
        answer.status == 503 && body.contains("its last words: no witness answers")
    };
    until(|| told(gateway.get("/readyz")));
    let status = gateway.status();
    assert_eq!(status["workers"][0]["last_words"], "no witness answers");
    assert!(status["key_service"]["last_words"].is_null());
}

#[test]
fn told_to_stop_it_finishes_what_is_in_flight() {
    for signal in [Signal::TERM, Signal::INT] {
        let doors = tempfile::tempdir().unwrap();
        let run_directory = ["--run-directory", doors.path().to_str().unwrap()];
        let mut gateway = Gateway::start("delay=1000", &run_directory);
        let request = sealed_request(1, b"in flight");
        let pid = runtime_pid(&gateway).unwrap();
        std::thread::scope(|scope| {
            let in_flight = scope.spawn(|| gateway.post("/v1/call", &request));
            until(|| gateway.status()["workers"][0]["in_flight"] == 1);
            gateway.signal(signal);
            assert_eq!(in_flight.join().unwrap().status, 200);
        });
        assert_eq!(gateway.process.wait().unwrap().code(), Some(0));
        assert!(!is_alive(pid));
        assert_eq!(
            doors.path().read_dir().unwrap().count(),
            0,
            "no door is left behind"
        );
    }
}

#[test]
fn a_killed_gateway_takes_its_programs_along() {
    let mut gateway = Gateway::start("", &[]);
    let pid = runtime_pid(&gateway).unwrap();
    assert!(is_alive(pid));
    gateway.process.kill().unwrap();
    gateway.process.wait().unwrap();
    until(|| !is_alive(pid));
}

#[test]
fn a_port_in_use_is_named_with_what_to_do() {
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = holder.local_addr().unwrap().to_string();
    let (code, stderr) = failed_start("", &["--listen", &address]);
    assert_eq!(code, Some(2));
    let port = holder.local_addr().unwrap().port();
    assert!(
        stderr.contains(&format!("port {port} is in use (--listen {address})")),
        "{stderr}"
    );
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
}

#[test]
fn a_missing_file_and_a_missing_program_are_named() {
    let (code, stderr) = failed_start("", &["--record", "runtime.toml/x"]);
    assert_eq!(code, Some(3));
    assert!(stderr.contains("runtime.toml/x"), "{stderr}");
    let directory = tempfile::tempdir().unwrap();
    let mut command = command(directory.path(), "", &[]);
    std::fs::remove_file(directory.path().join("runtime.toml")).unwrap();
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("runtime.toml cannot be used"));
}

#[test]
fn a_program_that_refuses_its_configuration_is_quoted() {
    let (code, stderr) = failed_start("refuse:unknown key 'debug'", &[]);
    assert_eq!(code, Some(3));
    assert!(
        stderr.contains("refuses to start: unknown key 'debug'"),
        "{stderr}"
    );
}

#[test]
fn the_log_can_be_json() {
    let (_, stderr) = failed_start("silent", &["--json-logs"]);
    let (last, log) = stderr
        .lines()
        .collect::<Vec<_>>()
        .split_last()
        .map(|(a, b)| (*a, b.to_vec()))
        .unwrap();
    assert!(last.starts_with("bield-gateway: "), "{last}");
    for line in log {
        serde_json::from_str::<serde_json::Value>(line).unwrap();
    }
}

/// Runs a gateway that must not start; its exit code and what it wrote to standard error.
fn failed_start(configuration: &str, more: &[&str]) -> (Option<i32>, String) {
    let directory = tempfile::tempdir().unwrap();
    let output = command(directory.path(), configuration, more)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    (
        output.status.code(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

/// Whether a process runs; one that only waits to be reaped does not.
fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ")
        .next()
        .is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
}
