//! The key service behind the gateway: alone, as a member, its health and its counts.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::process::Stdio;

use rustix::process::Signal;

use crate::support::{Gateway, WAIT, command, sealed_request, signal_process, until};

/// Opens a session at an address and hears its own bytes back.
fn echoed(address: &str, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(WAIT)).unwrap();
    stream.write_all(bytes).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut heard = Vec::new();
    stream.read_to_end(&mut heard).unwrap();
    heard
}

#[test]
fn a_key_service_runs_alone_with_its_status() {
    let gateway = Gateway::start("", &["--workers=0"]);
    assert_eq!(echoed(&gateway.keys, b"hello"), b"hello");
    let status = gateway.status();
    assert_eq!(status["workers"].as_array().unwrap().len(), 0);
    assert_eq!(status["key_service"]["report"]["state"], "following");
    let shown = &status["key_service"]["report"]["metrics"];
    assert_eq!(shown.as_array().unwrap().len(), 1, "{shown}");
    assert_eq!(shown[0]["name"], "leases_total");
    let ready = gateway.get("/readyz");
    assert_eq!(ready.status, 200);
    assert_eq!(ready.body, b"ready, key service following\n");
    // Nobody is here to call.
    let call = gateway.post("/v1/call", &sealed_request(1, b"x"));
    assert_eq!(
        (call.status, call.error_code().as_str()),
        (404, "no-such-path")
    );
    let package = gateway.get(&format!("/v1/packages/{}", "0".repeat(64)));
    assert_eq!(package.status, 404);
    assert!(!gateway.packages().exists());
}

#[test]
fn metrics_are_counts_and_what_a_program_makes_of_them_is_not_repeated() {
    let gateway = Gateway::start("", &["--workers", "2"]);
    assert_eq!(echoed(&gateway.keys, b"hello"), b"hello");
    until(|| gateway.status()["key_service"]["sessions"] == 0);
    let answer = gateway.get("/metrics");
    let kind = answer.headers["content-type"].to_str().unwrap();
    assert!(kind.starts_with("text/plain; version=0.0.4"), "{kind}");
    let text = String::from_utf8(answer.body).unwrap();
    for line in [
        "# TYPE bield_keys_leases_total counter",
        "bield_keys_leases_total 7",
        "bield_keys_state{state=\"following\"} 1",
        "bield_runtime_up{worker=\"1\"} 1",
        "bield_gateway_sessions_begun_total{port=\"outside\"} 1",
        "bield_gateway_sessions{port=\"outside\"} 0",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}: {text}");
    }
    assert!(!text.contains("evil") && !text.contains("model="), "{text}");
}

#[test]
fn a_member_has_a_port_for_the_others_and_knows_its_slot() {
    let gateway = Gateway::start(
        "",
        &[
            "--workers=0",
            "--member=127.0.0.1:1",
            "--member=127.0.0.1:2",
            "--member=127.0.0.1:3",
            "--member-slot=1",
            "--members-listen=127.0.0.1:0",
        ],
    );
    let members = gateway.members.clone().unwrap();
    assert_ne!(members, gateway.keys);
    assert_eq!(echoed(&members, b"vote"), b"vote");
    let status = gateway.status();
    let started_with = &status["key_service"]["report"]["measurement"];
    assert_eq!(started_with, "--tee software:/nonexistent --member 1");
}

#[test]
fn a_stopping_gateway_takes_no_session_and_finishes_the_one_that_speaks() {
    let mut gateway = Gateway::start("", &["--workers=0"]);
    let mut stream = TcpStream::connect(&gateway.keys).unwrap();
    stream.set_read_timeout(Some(WAIT)).unwrap();
    let mut say = |word: &[u8]| {
        stream.write_all(word).unwrap();
        let mut heard = vec![0; word.len()];
        stream.read_exact(&mut heard).unwrap();
        assert_eq!(heard, word);
    };
    say(b"before");
    gateway.signal(Signal::TERM);
    until(|| {
        say(b"meanwhile");
        TcpStream::connect(&gateway.keys).is_err()
    });
    say(b"after");
    drop(stream);
    assert_eq!(gateway.process.wait().unwrap().code(), Some(0));
}

#[test]
fn a_stopping_member_does_not_wait_for_the_others_who_never_fall_silent() {
    let mut gateway = Gateway::start(
        "",
        &[
            "--workers=0",
            "--member=127.0.0.1:1",
            "--member=127.0.0.1:2",
            "--member=127.0.0.1:3",
            "--member-slot=1",
            "--members-listen=127.0.0.1:0",
            "--drain-secs=3600",
        ],
    );
    let mut caller = TcpStream::connect(&gateway.keys).unwrap();
    let mut member = TcpStream::connect(gateway.members.as_ref().unwrap()).unwrap();
    let say = |stream: &mut TcpStream| {
        stream.set_read_timeout(Some(WAIT))?;
        stream.write_all(b"x")?;
        stream.read_exact(&mut [0])
    };
    say(&mut caller).unwrap();
    say(&mut member).unwrap();
    gateway.signal(Signal::TERM);
    // While a caller speaks, so may the other members.
    until(|| {
        say(&mut caller).unwrap();
        say(&mut member).unwrap();
        TcpStream::connect(&gateway.keys).is_err()
    });
    drop(caller);
    until(|| {
        let _ = say(&mut member);
        gateway.process.try_wait().unwrap().is_some()
    });
    assert_eq!(gateway.process.wait().unwrap().code(), Some(0));
}

#[test]
fn two_gateways_on_one_storage_are_refused_with_a_sentence() {
    let gateway = Gateway::start("", &["--workers=0"]);
    let output = command(gateway.directory.path(), "", &["--workers=0"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{stderr}");
    assert!(
        stderr.contains("storage is in use by another process"),
        "{stderr}"
    );
    assert_eq!(echoed(&gateway.keys, b"hello"), b"hello");
    // A killed gateway leaves nothing that must be cleared away.
    let pid = gateway.process.id();
    signal_process(pid, Signal::KILL);
    let mut again = command(gateway.directory.path(), "", &["--workers=0"]);
    let mut again = again.stdout(Stdio::piped()).spawn().unwrap();
    let mut said = [0; 5];
    again.stdout.take().unwrap().read_exact(&mut said).unwrap();
    assert_eq!(&said, b"keys ");
    again.kill().unwrap();
    again.wait().unwrap();
}

#[test]
fn arguments_that_do_not_fit_together_are_refused_with_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let members = ["--member=a:1", "--member=b:1"];
    for (more, expected) in [
        (
            vec!["--workers=0", members[0], members[1], "--member-slot=2"],
            "--member-slot counts",
        ),
        (vec!["--workers=0", members[0]], "--member-slot"),
        (vec!["--workers=0", "--member-slot=0"], "--member"),
        (
            vec!["--workers=0", "--packages=p", "--workers=1"],
            "--workers",
        ),
    ] {
        let output = command(directory.path(), "", &more).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{more:?}: {stderr}");
        assert!(stderr.contains(expected), "{more:?}: {stderr}");
    }
    let bare = |arguments: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_bield-gateway"));
        let output = command.args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        String::from_utf8(output.stderr).unwrap()
    };
    let said = bare(&["--tee", "x", "--key-service", "a:1"]);
    assert!(said.contains("--runtime-config and --packages"), "{said}");
    let said = bare(&["--tee", "x", "--key-service", "a:1", "--workers", "0"]);
    assert!(said.contains("needs --keys-config"), "{said}");
    let said = bare(&["--tee", "x", "--keys-config", "k"]);
    assert!(said.contains("--storage"), "{said}");
}

#[test]
fn addresses_that_do_not_fit_the_measured_configuration_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let start = |configuration: &str, more: &[&str]| {
        let mut all = vec!["--workers=0", "--members-listen=127.0.0.1:0"];
        all.extend_from_slice(more);
        let mut command = command(directory.path(), "", &all);
        let text = format!("{configuration}\n[runtimes]\nprofile = \"cloud\"\n");
        std::fs::write(directory.path().join("keys.toml"), text).unwrap();
        command.arg("--until-stdin-ends").stdin(Stdio::null());
        let output = command.output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        (output.status.code(), said)
    };
    let witnesses = "witnesses = { keys = [\"a\", \"b\"], needed = 2 }";
    let (w, m, slot) = ("--witness-address=a:1", "--member=a:1", "--member-slot=2");
    for (configuration, more, expected) in [
        ("", &[w][..], "names 0 witnesses"),
        (witnesses, &[w], "names 2 witnesses"),
        ("members = 3", &[], "members = 3"),
        (
            "members = 3",
            &[m, m, "--member-slot=1"],
            "command line names 2",
        ),
    ] {
        let (code, said) = start(configuration, more);
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains(expected), "{said}");
    }
    for (configuration, more) in [
        ("", &[][..]),
        (witnesses, &[w, w]),
        ("members = 3", &[m, m, m, slot]),
    ] {
        let (code, said) = start(configuration, more);
        assert_eq!(code, Some(0), "{said}");
    }
}
