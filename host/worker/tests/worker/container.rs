//! An HTTP container: the port, probes, limits, and the end.

use std::io::{Read as _, Write as _};
use std::process::Stdio;

use bield_envelope::Digest;
use rustix::process::Signal;

use crate::support::{Worker, command, sealed_request, signal_process, until};

#[test]
fn a_sealed_request_is_answered_plainly_with_feedback() {
    let worker = Worker::start("", &[]);
    let request = sealed_request(1, b"question");
    let answer = worker.post("/", &request);
    assert_eq!(answer.status, 200);
    assert!(answer.body == request);
    assert_eq!(
        answer.headers["content-type"],
        "application/vnd.bield.sealed"
    );
    let feedback = answer.headers["bield-feedback"].as_bytes();
    let feedback: serde_json::Value = serde_json::from_slice(feedback).unwrap();
    assert_eq!(feedback["start"], "hot");

    let refused = worker.post("/", b"in clear");
    assert_eq!(
        (refused.status, refused.error_code().as_str()),
        (400, "unsealed")
    );
    assert_eq!(worker.get("/").status, 405);
}

#[test]
fn a_part_of_an_answer_leaves_before_the_next_is_made() {
    let worker = Worker::start("in-parts", &[]);
    let mut answer = worker.post_and_read("/", &sealed_request(1, b"question"));
    let mut first = [0; 6];
    answer.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"first ");
    worker.lets_go();
    let mut rest = Vec::new();
    answer.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"last");
}

#[test]
fn the_port_and_the_limit_are_the_platforms() {
    let environment = [("PORT", "0"), ("CONTAINER_CONCURRENCY", "1")];
    let worker = Worker::start_in("in-parts", &["--queue", "0"], &environment);
    assert!(
        worker.http.starts_with("http://0.0.0.0:"),
        "{}",
        worker.http
    );
    let mut answer = worker.post_and_read("/", &sealed_request(1, b"question"));
    answer.read_exact(&mut [0; 6]).unwrap();
    let full = worker.post("/", &sealed_request(2, b"question"));
    assert_eq!((full.status, full.error_code().as_str()), (503, "busy"));
    assert_eq!(full.headers["retry-after"], "1");
    worker.lets_go();
    answer.read_to_end(&mut Vec::new()).unwrap();
    let full = "bield_worker_refusals_total{kind=\"busy\"} 1\n";
    let metrics = worker.metrics();
    assert!(metrics.contains(full), "{metrics}");
}

#[test]
fn told_to_stop_it_is_not_ready_refuses_new_work_and_finishes_what_it_has() {
    let mut worker = Worker::start("in-parts", &[]);
    assert_eq!(worker.get("/readyz").status, 200);
    let mut answer = worker.post_and_read("/", &sealed_request(1, b"question"));
    answer.read_exact(&mut [0; 6]).unwrap();
    worker.signal(Signal::TERM);
    until(|| worker.get("/readyz").status == 503);
    assert_eq!(worker.get("/healthz").status, 200);
    let sealed = sealed_request(2, b"question");
    let refused = worker.post("/", &sealed);
    assert_eq!(
        (refused.status, refused.error_code().as_str()),
        (503, "draining")
    );
    let path = format!("/v2/models/{}/infer", Digest::from_bytes([2; 32]));
    assert_eq!(worker.post(&path, b"{}").status, 503);
    assert_eq!(worker.post("/init", b"{}").status, 503);

    worker.lets_go();
    let mut rest = Vec::new();
    answer.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"last");
    let mut ended = None;
    until(|| {
        ended = worker.process.try_wait().unwrap();
        ended.is_some()
    });
    assert_eq!(ended.unwrap().code(), Some(0));
}

#[test]
fn a_client_that_says_half_a_request_does_not_keep_the_runtime_from_ending() {
    let worker = Worker::start("", &["--drain-secs", "300"]);
    let address = worker.http.strip_prefix("http://").unwrap();
    let mut half = std::net::TcpStream::connect(address).unwrap();
    half.write_all(b"POST / HTTP/1.1\r\nx: ").unwrap();
    assert_eq!(worker.get("/readyz").status, 200);
    assert!(worker.runtime().is_some());
    worker.signal(Signal::TERM);
    until(|| worker.runtime().is_none());
}

#[test]
fn a_runtime_that_dies_is_started_again_and_counted() {
    let worker = Worker::start("", &[]);
    signal_process(worker.runtime().unwrap(), Signal::KILL);
    until(|| worker.metrics().contains("bield_worker_starts_total 2\n"));
    until(|| worker.get("/readyz").status == 200);
    let request = sealed_request(1, b"question");
    assert_eq!(worker.post("/", &request).status, 200);
}

#[test]
fn a_runtime_that_refuses_its_configuration_is_quoted_and_ends_the_worker() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = command(
        directory.path(),
        "refuse:the configuration is not for this machine",
    );
    let worker = command
        .args(["--listen", "127.0.0.1:0"])
        .stderr(Stdio::piped());
    let ended = worker.output().unwrap();
    assert_eq!(ended.status.code(), Some(3));
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(
        said.contains("the configuration is not for this machine"),
        "{said}"
    );
}

#[test]
fn metrics_name_how_warm_it_was_and_neither_model_nor_user() {
    let worker = Worker::start("", &[]);
    for _ in 0..3 {
        assert_eq!(
            worker.post("/", &sealed_request(1, b"question")).status,
            200
        );
    }
    let text = worker.metrics();
    for line in [
        "bield_worker_up 1\n",
        "bield_worker_requests_total{start=\"hot\"} 3\n",
        "bield_worker_phase_seconds_total{start=\"hot\",phase=\"run\"} 0.000003\n",
        "bield_worker_request_seconds_bucket{start=\"hot\",le=\"0.001\"} 3\n",
        "bield_worker_request_seconds_count{start=\"hot\"} 3\n",
    ] {
        assert!(text.contains(line), "{line}{text}");
    }
    assert!(!text.contains(&Digest::from_bytes([1; 32]).to_string()));
}
