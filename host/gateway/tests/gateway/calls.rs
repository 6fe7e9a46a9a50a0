//! Sealed requests, good and bad, and what bounds say.

use std::cell::RefCell;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use bield_envelope::Digest;

use crate::support::{Gateway, sealed_request, until};

#[test]
fn a_sealed_request_comes_back_with_feedback() {
    let gateway = Gateway::start("", &[]);
    let request = sealed_request(1, b"what is this?");
    let answer = gateway.post("/v1/call", &request);
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.body, request,
        "the stand-in answers with the request's own bytes"
    );
    assert_eq!(
        answer.headers["content-type"],
        "application/vnd.bield.sealed"
    );
    let feedback: serde_json::Value =
        serde_json::from_slice(answer.headers["bield-feedback"].as_bytes()).unwrap();
    assert_eq!(feedback["start"], "hot");
}

#[test]
fn a_part_of_an_answer_reaches_the_client_before_the_next_is_made() {
    let gateway = Gateway::start("in-parts", &[]);
    let mut answer = gateway.post_and_read("/v1/call", &sealed_request(1, b"question"));
    let mut first = [0; 6];
    answer.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"first ");
    // Only now: the stand-in goes on when it gets this package.
    let package = Digest::from_bytes([7; 32]);
    std::fs::write(gateway.packages().join(format!("{package}.bield")), b"here").unwrap();
    let mut rest = Vec::new();
    answer.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"last");
}

#[test]
fn an_answer_that_is_under_way_keeps_its_place() {
    let gateway = Gateway::start("in-parts", &["--concurrency", "1", "--queue", "0"]);
    let mut answer = gateway.post_and_read("/v1/call", &sealed_request(1, b"question"));
    let mut first = [0; 6];
    answer.read_exact(&mut first).unwrap();
    let refused = gateway.post("/v1/call", &sealed_request(2, b"question"));
    assert_eq!(
        (refused.status, refused.error_code().as_str()),
        (429, "queue-full")
    );
    let package = Digest::from_bytes([7; 32]);
    std::fs::write(gateway.packages().join(format!("{package}.bield")), b"here").unwrap();
    let mut rest = Vec::new();
    answer.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"last");
}

#[test]
fn an_answer_whose_runtime_dies_midway_is_no_whole_one() {
    let gateway = Gateway::start("cut", &[]);
    let mut answer = gateway.post_and_read("/v1/call", &sealed_request(1, b"question"));
    let mut first = [0; 6];
    answer.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"first ");
    // Only now: the stand-in ends when it gets this package.
    let package = Digest::from_bytes([7; 32]);
    std::fs::write(gateway.packages().join(format!("{package}.bield")), b"here").unwrap();
    let mut rest = Vec::new();
    answer.read_to_end(&mut rest).unwrap_err();
    assert!(rest.is_empty());
}

/// A client that has sent its question.
fn client_of(gateway: &Gateway) -> TcpStream {
    let mut client = TcpStream::connect(gateway.http.trim_start_matches("http://")).unwrap();
    let request = sealed_request(1, b"question");
    let head = format!(
        "POST /v1/call HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n",
        request.len()
    );
    client.write_all(head.as_bytes()).unwrap();
    client.write_all(&request).unwrap();
    client
}

#[test]
fn a_runtime_is_told_of_a_client_that_goes_away_before_the_first_part_and_keeps_its_place() {
    let gateway = Gateway::start("delay=3600000", &[]);
    let worker = || gateway.status()["workers"][0].clone();
    let client = client_of(&gateway);
    until(|| worker()["in_flight"] == 1);
    assert_eq!(worker()["report"]["refused"], 0);
    drop(client);
    until(|| worker()["report"]["refused"] == 1);
    assert_eq!(worker()["in_flight"], 1, "it has not said that it is done");
}

#[test]
fn a_client_that_goes_away_between_parts_gives_its_place_back_at_once() {
    let gateway = Gateway::start("in-parts", &["--concurrency", "1", "--queue", "0"]);
    let mut client = client_of(&gateway);
    let mut heard = Vec::new();
    while !heard.windows(6).any(|six| six == b"first ") {
        let mut byte = [0];
        client.read_exact(&mut byte).unwrap();
        heard.extend(byte);
    }
    assert_eq!(gateway.status()["workers"][0]["in_flight"], 1);
    drop(client);
    // The stand-in does not go on: nothing comes that would show it.
    until(|| gateway.status()["workers"][0]["in_flight"] == 0);
}

#[test]
fn anything_unsealed_is_refused_with_a_sentence_and_the_next_request_works() {
    let gateway = Gateway::start("", &[]);
    let request = sealed_request(1, b"secret");
    for unsealed in [
        &b"{\"inputs\": [1, 2, 3]}"[..],
        b"",
        &request[..200],
        &request[1..],
    ] {
        let answer = gateway.post("/v1/call", unsealed);
        assert_eq!(
            (answer.status, answer.error_code().as_str()),
            (400, "unsealed")
        );
        let message = answer.json()["error"]["message"]
            .as_str()
            .unwrap()
            .to_owned();
        assert!(
            message.contains("sealed requests only") && message.contains("bield call"),
            "{message}"
        );
        assert_eq!(answer.retry_after(), None);
    }
    assert_eq!(gateway.post("/v1/call", &request).status, 200);
}

#[test]
fn a_body_beyond_the_limit_is_refused() {
    let gateway = Gateway::start("", &["--body-mib", "1"]);
    let answer = gateway.post("/v1/call", &sealed_request(1, &vec![0; 2 << 20]));
    assert_eq!(
        (answer.status, answer.error_code().as_str()),
        (413, "too-long")
    );
    assert_eq!(
        gateway
            .post("/v1/call", &sealed_request(1, &vec![0; 1 << 19]))
            .status,
        200
    );
}

#[test]
fn memory_is_taken_by_bytes_that_came_not_by_those_announced() {
    let gateway = Gateway::start("", &["--body-mib", "1", "--bodies-mib", "1"]);
    let request = sealed_request(1, &vec![0; 1 << 19]);
    let start = |bytes: usize| {
        let mut stream = TcpStream::connect(gateway.http.trim_start_matches("http://")).unwrap();
        let head = "POST /v1/call HTTP/1.1\r\nHost: x\r\nContent-Length: 1048576\r\n\r\n";
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(&vec![0; bytes]).unwrap();
        stream
    };
    let _silent: Vec<_> = (0..16).map(|_| start(0)).collect();
    assert_eq!(gateway.post("/v1/call", &request).status, 200);

    // One that meets another request's memory in use is refused itself; then the next one gets it all.
    let full = RefCell::new(Vec::new());
    until(|| {
        full.borrow_mut().push(start((1 << 20) - 1));
        std::thread::sleep(Duration::from_millis(200));
        gateway.post("/v1/call", &request).status == 503
    });
    let refused = gateway.post("/v1/call", &request);
    assert_eq!(
        (refused.status, refused.error_code().as_str()),
        (503, "memory")
    );
    assert_eq!(refused.retry_after(), Some("1"));
    drop(full);
    until(|| gateway.post("/v1/call", &request).status == 200);
}

#[test]
fn a_full_queue_says_come_back() {
    let more = ["--concurrency", "1", "--queue", "1", "--queue-ms", "200"];
    let gateway = Gateway::start("delay=2000", &more);
    let request = sealed_request(1, b"slow");
    std::thread::scope(|scope| {
        let first = scope.spawn(|| gateway.post("/v1/call", &request));
        until(|| gateway.status()["workers"][0]["in_flight"] == 1);
        let second = scope.spawn(|| gateway.post("/v1/call", &request));
        let second = second.join().unwrap();
        assert_eq!(
            (second.status, second.error_code().as_str()),
            (503, "queue-timeout")
        );
        assert_eq!(second.retry_after(), Some("1"));
        assert_eq!(first.join().unwrap().status, 200);
    });
    let gateway = Gateway::start("delay=1000", &["--concurrency", "1", "--queue", "0"]);
    std::thread::scope(|scope| {
        let first = scope.spawn(|| gateway.post("/v1/call", &request));
        until(|| gateway.status()["workers"][0]["in_flight"] == 1);
        let second = gateway.post("/v1/call", &request);
        assert_eq!(
            (second.status, second.error_code().as_str()),
            (429, "queue-full")
        );
        assert_eq!(second.retry_after(), Some("1"));
        assert_eq!(first.join().unwrap().status, 200);
    });
}

#[test]
fn a_slow_runtime_costs_one_deadline() {
    let gateway = Gateway::start("delay=1500", &["--call-ms", "100"]);
    let answer = gateway.post("/v1/call", &sealed_request(1, b"slow"));
    assert_eq!(
        (answer.status, answer.error_code().as_str()),
        (504, "timed-out")
    );
    assert_eq!(answer.retry_after(), Some("1"));
}

#[test]
fn a_busy_worker_lets_the_next_one_answer() {
    let gateway = Gateway::start(
        "delay=1000",
        &["--workers", "2", "--concurrency", "1", "--queue", "0"],
    );
    let request = sealed_request(1, b"same package");
    std::thread::scope(|scope| {
        let calls: Vec<_> = (0..2)
            .map(|_| scope.spawn(|| gateway.post("/v1/call", &request).status))
            .collect();
        assert!(calls.into_iter().all(|call| call.join().unwrap() == 200));
    });
}

#[test]
fn other_paths_and_methods_are_refused_as_json() {
    let gateway = Gateway::start("", &[]);
    let answer = gateway.get("/v2/models");
    assert_eq!(
        (answer.status, answer.error_code().as_str()),
        (404, "no-such-path")
    );
    let answer = gateway.get("/v1/call");
    assert_eq!(
        (answer.status, answer.error_code().as_str()),
        (405, "other-method")
    );
}

#[test]
fn the_keys_port_carries_sessions() {
    let gateway = Gateway::start("", &[]);
    let mut session = TcpStream::connect(&gateway.keys).unwrap();
    session.write_all(b"client hello").unwrap();
    session.shutdown(Shutdown::Write).unwrap();
    let mut heard = Vec::new();
    session.read_to_end(&mut heard).unwrap();
    assert_eq!(heard, b"client hello");
}
