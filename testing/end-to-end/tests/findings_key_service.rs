//! The published faults of an earlier system's key service, and ten tests that users asked for: by number, on whole
//! programs. Items that one program, format or value shows better are in the tests beside it.
//!
//! | item | test |
//! |---|---|
//! | K1 verdict of the quote is thrown away | [`k01_code_that_is_not_listed_gets_nothing_whatever_its_quote_says`]; `core/evidence/tests` |
//! | K2 code identity is a constant | [`k01_code_that_is_not_listed_gets_nothing_whatever_its_quote_says`]; `tampering.rs` |
//! | K3 key service is not pinned | [`k03_neither_people_nor_runtimes_follow_an_impostor`] |
//! | K6 secrets are printed by default | [`k06_nothing_secret_is_printed_at_the_highest_log_level`]; `secrecy.rs` |
//! | K10, K11 orders can be replayed or turned into others | `enclave/keys/tests` |
//! | K12 nothing can be revoked, rotated, ended | `revocation.rs` |
//! | K13 the store can be set back | `rollback.rs`, [`t08_an_older_disk_a_fork_and_a_dropped_delete_are_detected`] |
//! | K14 names of records are made of callers' text | [`k14_names_of_files_never_come_from_callers`] |
//! | K17 old TLS, slow keys, no resumption | [`k17_nothing_older_than_tls_1_3_is_spoken`] |
//! | K18 no audit, no metrics, no administration | [`k18_there_is_an_audit_there_are_metrics_and_administrators`]; `audit.rs` |
//! | K19 one instance | [`k19_three_members_are_one_service`]; `failover.rs` |
//! | F1 a second grant hangs it | [`f01_a_package_with_many_grants_answers`] |
//! | F2 one refused fetch bricks a worker | [`f02_refused_fetches_lock_nobody_out`] |
//! | F3 a broken channel is never opened again | [`f03_a_runtime_comes_back_to_a_key_service_that_was_away`]; `revocation.rs` |
//! | F4 one bad connection ends it | [`f04_bad_connections_end_nothing`]; `hostile_peers.rs` |
//! | F5 unparsable bytes stop the HTTP server | [`f05_unparsable_bytes_stop_no_http_server`] |
//! | F6 two clients at once mix | `hostile_peers.rs` |
//! | F7 a file under another name opens as nonsense | [`f07_files_that_were_swapped_are_refused`] |
//! | T1 what changes behaviour is measured or refused | [`t01_configuration_is_measured_and_no_environment_arrives`] |
//! | T3 replayed evidence | `core/session/tests/attacks.rs` |
//! | T2, T4, T5 versions, tables and collateral that a host supplies | `core/evidence/tests` |
//! | T6 debug, software TEE and empty values satisfy no default | [`t06_defaults_refuse_the_software_tee`]; `defaults.rs` |
//! | T7 unknown kinds and values are refused | [`t07_unknown_words_in_a_configuration_are_refused_by_name`]; `core/evidence/tests` |
//! | T8 restored disk, forked log, dropped delete | [`t08_an_older_disk_a_fork_and_a_dropped_delete_are_detected`]; `rollback.rs` |
//! | T9 the snapshot before last works | [`t09_the_snapshot_before_last_loses_nothing`] |
//! | T10 checks not made are as loud as those passed | [`t10_what_was_not_checked_is_listed_beside_what_passed`] |

#![expect(
    clippy::unwrap_used,
    reason = "a failed unwrap in a test is a failed test"
)]

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use bield_end_to_end::{
    Canary, Instance, Letter, Plan, Site, Stack, children, files, numbers, post, program, scan,
    tiny_model, wait_until,
};
use bield_evidence::{PolicyConfig, Profile};
use bield_sdk::{KeyService, Randomness, ServiceError, TrustConfig, now};

const SOON: Duration = Duration::from_secs(40);

fn newest(storage: &Path, start: &str) -> PathBuf {
    let named = files(storage).unwrap().into_iter().filter(|path| {
        let name = path.file_name().unwrap().to_string_lossy();
        name.starts_with(start)
    });
    named.max().unwrap()
}

fn serves(instance: &Instance) {
    assert_eq!(instance.state(), "serving", "{}", instance.process.said());
}

/// K1: "the quote verification result is thrown away: a process without SGX can satisfy it with a made-up quote"; K2:
/// "KeyService uses a hard-coded test value for each worker".
#[test]
fn k01_code_that_is_not_listed_gets_nothing_whatever_its_quote_says() {
    let stack = Stack::start().unwrap();
    let (owner, user, package) = stack.cast("k01").unwrap();
    let (other, code) = stack.gateway_with_other_runtime().unwrap();
    let to = user.key_configuration(&package).unwrap();
    let letter = Letter::seal(&to, &user.key, numbers(1), now()).unwrap();
    let answer = post(&other.url, &letter.bytes).unwrap();
    assert_ne!(answer.status, 200, "{answer:?}");
    // The owner reads which code asked: its own measurement, not a constant.
    let told = wait_until(SOON, || {
        let audit = owner.does(&["audit"]).unwrap();
        let refused = audit["refused"].as_array().unwrap().clone();
        refused
            .iter()
            .any(|refused| refused["code"] == code.to_string())
    });
    assert!(told, "{:#}", owner.does(&["audit"]).unwrap());
    user.call(&package, numbers(1)).unwrap().unwrap();
}

/// K3: "client and worker do not pin KeyService: an attacker can point the worker at an impostor".
#[test]
fn k03_neither_people_nor_runtimes_follow_an_impostor() {
    let stack = Stack::start().unwrap();
    let (_, user, package) = stack.cast("k03").unwrap();
    // The same program on the same machine, of another configuration: as good an impostor as there is.
    let (impostor, code) = stack.gateway_with_other_keys().unwrap();
    assert_ne!(code, stack.keys_code);
    let trust = TrustConfig {
        key_service: impostor.keys.clone().unwrap().into(),
        ..stack.trust()
    };
    let trust = trust.into_trust().unwrap();
    let refused = KeyService::connect(&user.home, &trust, now(), &mut Randomness);
    let refused = refused.map(drop).unwrap_err().to_string();
    assert!(refused.contains("measurement"), "{refused}");
    // A runtime of the stack's own code that is led to the impostor.
    let to = user.key_configuration(&package).unwrap();
    let letter = Letter::seal(&to, &user.key, numbers(1), now()).unwrap();
    let answer = post(&impostor.url, &letter.bytes).unwrap();
    assert_ne!(answer.status, 200, "{answer:?}");
    let said = impostor.process.said();
    assert!(!said.contains("sealed answer"), "{said}");
    user.call(&package, numbers(1)).unwrap().unwrap();
}

/// K6: "default build is a debug enclave that prints secrets".
#[test]
fn k06_nothing_secret_is_printed_at_the_highest_log_level() {
    let stack = Stack::start().unwrap();
    let (owner, user, package) = stack.cast("k06").unwrap();
    let request = numbers(8);
    let plain = request[0].data().to_vec();
    user.call(&package, request).unwrap().unwrap();
    let canaries = [
        Canary::new("the package key", package.key.seed().expose()),
        Canary::new("the owner's seed", owner.key.seed().expose()),
        Canary::new("the request", &plain),
    ];
    let logs = stack.host().join("logs");
    assert_eq!(scan(&logs, &canaries).unwrap(), []);
    // They are those of this day.
    let said = stack.gateway.process.said();
    assert!(said.contains(&package.digest.short()), "{said}");
    let verified = user.does(&["verify"]).unwrap();
    let checks = verified["checks"].as_array().unwrap();
    let debug = checks
        .iter()
        .find(|check| check["name"] == "debug")
        .unwrap();
    assert_eq!(debug["outcome"], "passed", "{debug}");
}

/// K14: "record names built from caller text and used as file names (path traversal, injection)".
#[test]
fn k14_names_of_files_never_come_from_callers() {
    let site = Site::new(Plan::default(), |_| ()).unwrap();
    let instance = site.start("state").unwrap();
    let owner = site.person("owner").unwrap();
    for name in ["..", "a/b", "a|b", "", "-a", "A"] {
        assert!(owner.pack(name, &tiny_model("k14")).is_err(), "{name:?}");
        // Refused by the words' grammar, before anybody is asked: no result to print.
        let group = ["group", "put", "--member", "me", "--", name];
        assert!(owner.does(&group).is_err(), "{name:?}");
    }
    for name in ["log-1", "root", "snapshot-0"] {
        let model = tiny_model(name);
        let package = owner.pack(name, &model).unwrap();
        owner.offer(&package, &model).unwrap();
        owner
            .does(&["group", "put", name, "--member", "me"])
            .unwrap();
    }
    instance.stop().unwrap();
    // Only names that the service makes of numbers.
    for file in files(&site.storage("state")).unwrap() {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        let made = name == "root"
            || ["log-", "snapshot-"].iter().any(|start| {
                let rest = name.strip_prefix(start);
                rest.is_some_and(|rest| {
                    rest.len() == 31
                        && rest
                            .bytes()
                            .all(|byte| byte.is_ascii_digit() || byte == b'-')
                })
            });
        assert!(made || name == "lock" || name == ".lock", "{name}");
    }
    let instance = site.start("state").unwrap();
    serves(&instance);
}

/// K17: "TLS 1.2 only, RSA-3072 generated per enclave and no session resumption".
#[test]
fn k17_nothing_older_than_tls_1_3_is_spoken() {
    let site = Site::new(Plan::default(), |_| ()).unwrap();
    let instance = site.start("state").unwrap();
    // A ClientHello of TLS 1.2: random, no session, two cipher suites, no extensions.
    let mut hello = vec![3, 3];
    hello.extend([7; 32]);
    hello.extend([0, 0, 4, 0xc0, 0x2b, 0xc0, 0x2f, 1, 0]);
    let length = u8::try_from(hello.len()).unwrap();
    let mut bytes = vec![0x16, 3, 1, 0, length + 4, 1, 0, 0, length];
    bytes.extend(&hello);
    let mut stream = TcpStream::connect(instance.keys).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream.write_all(&bytes).unwrap();
    let mut said = Vec::new();
    let _ = stream.read_to_end(&mut said);
    // Nothing, or an alert (21) that says so; never a ServerHello (22).
    assert!(said.first().is_none_or(|kind| *kind == 21), "{said:?}");

    // And what a real session is: TLS 1.3, as the wire shows it; in far less time than an RSA key takes.
    let person = site.person("person").unwrap();
    person.service().unwrap().inspect().unwrap();
    let received = files(&site.host().join("taps")).unwrap();
    let received = received
        .iter()
        .find(|path| path.display().to_string().ends_with(".received"));
    let received = fs::read(received.unwrap()).unwrap();
    assert_eq!(received[0], 0x16);
    let supported_versions = [0x00, 0x2b, 0x00, 0x02, 0x03, 0x04];
    // Its ServerHello, which is as long as a post-quantum key share.
    let length = 5 + usize::from(received[3]) * 256 + usize::from(received[4]);
    let hello = &received[..length.min(received.len())];
    assert!(
        hello.windows(6).any(|six| six == supported_versions),
        "{hello:?}"
    );
}

/// K18: "no audit, no metrics, no admin".
#[test]
fn k18_there_is_an_audit_there_are_metrics_and_administrators() {
    let site = Site::new(Plan::default(), |_| ()).unwrap();
    let instance = site.start("state").unwrap();
    let administrator = site.person("administrator").unwrap();
    let stranger = site.person("stranger").unwrap();
    administrator.does(&["register"]).unwrap();
    let me = administrator.does(&["list", "me"]).unwrap();
    assert_eq!(me["administrator"], true);
    let before = administrator.service().unwrap().principal();
    let refused = stranger.bield(&["rotate", "service", "--yes"]).unwrap();
    assert_eq!(refused.code, 1, "{refused:?}");
    administrator.does(&["rotate", "service", "--yes"]).unwrap();
    let after = administrator.service().map(|service| service.principal());
    assert!(after.is_err() || after.is_ok_and(|after| after != before));
    let audit = site.person("later").unwrap();
    audit.does(&["register"]).unwrap();
    let entries = audit.does(&["audit"]).unwrap();
    assert_eq!(entries["entries"][0]["event"], "registered");
    let (_, metrics) = instance.get("/metrics").unwrap();
    for name in [
        "bield_keys_records",
        "bield_keys_orders_total",
        "bield_keys_leases_total",
    ] {
        assert!(metrics.contains(name), "{name}: {metrics}");
    }
}

/// K19: "single instance, no HA".
#[test]
fn k19_three_members_are_one_service() {
    let plan = Plan {
        machines: 3,
        members: 3,
        ..Plan::default()
    };
    let site = Site::new(plan, |_| ()).unwrap();
    let members: Vec<_> = (0..3)
        .map(|slot| site.start_member(slot, &format!("member-{slot}")).unwrap())
        .collect();
    let formed = wait_until(SOON, || {
        let mut states: Vec<_> = members.iter().map(Instance::state).collect();
        states.sort();
        states == ["following", "following", "serving"]
    });
    let said = || {
        members
            .iter()
            .map(|member| member.process.said())
            .collect::<String>()
    };
    assert!(formed, "{}", said());
    let person = site.person("person").unwrap();
    let inspection = person.service().unwrap().inspect().unwrap();
    assert_eq!(inspection.members, 3);
    for member in &members {
        let (status, ready) = member.readyz().unwrap();
        assert_eq!(status, 200, "{ready}");
    }
}

/// F1: "a model with two or more grants hangs KeyService".
#[test]
fn f01_a_package_with_many_grants_answers() {
    let stack = Stack::start().unwrap();
    let (owner, first, package) = stack.cast("f01").unwrap();
    let mut last = None;
    for number in 0..20 {
        let user = stack.person(&format!("f01-{number}")).unwrap();
        owner.grant(&package, &user).unwrap();
        last = Some(user);
    }
    first.call(&package, numbers(1)).unwrap().unwrap();
    last.unwrap().call(&package, numbers(1)).unwrap().unwrap();
}

/// F2: "one failed or denied key fetch bricks a worker; a denied user asking twice locks out everyone".
#[test]
fn f02_refused_fetches_lock_nobody_out() {
    let stack = Stack::start().unwrap();
    let (owner, user, package) = stack.cast("f02").unwrap();
    let stranger = stack.person("f02-stranger").unwrap();
    // A package whose key the service has and whose file the host has not: each fetch fails half-way.
    let model = tiny_model("f02-gone");
    let gone = owner.publish("f02-gone", &model).unwrap();
    owner.grant(&gone, &user).unwrap();
    fs::remove_file(stack.stored(&gone)).unwrap();
    for _ in 0..3 {
        stranger.call(&package, numbers(1)).unwrap().unwrap_err();
        let to = user.key_configuration(&gone).unwrap();
        let letter = Letter::seal(&to, &user.key, numbers(1), now()).unwrap();
        let answer = stack.post(&letter.bytes).unwrap();
        assert!(answer.status != 200 || letter.open(&answer).unwrap().is_err());
    }
    user.call(&package, numbers(1)).unwrap().unwrap();
    // What failed before works once its cause is gone.
    fs::copy(&gone.file, stack.stored(&gone)).unwrap();
    let works = wait_until(SOON, || {
        user.call(&gone, numbers(1))
            .is_ok_and(|called| called.is_ok())
    });
    assert!(works, "{}", stack.gateway.process.said());
}

/// F3: "after one failed send or read the channel is closed but kept, and never initialised again".
#[test]
fn f03_a_runtime_comes_back_to_a_key_service_that_was_away() {
    let stack = Stack::start().unwrap();
    let (owner, user, package) = stack.cast("f03").unwrap();
    user.call(&package, numbers(1)).unwrap().unwrap();
    let gateway = stack.gateway.process.pid();
    let killed = stack.gateway.process.child("bield-keys").unwrap();
    stack.gateway.process.kill_child("bield-keys").unwrap();
    let back = || matches!(children(gateway, "bield-keys")[..], [pid] if pid != killed);
    assert!(wait_until(SOON, || back() && user.service().is_ok()));
    // Another package: the runtime has to ask, over a line that broke.
    let next = owner.publish("f03-next", &tiny_model("f03-next")).unwrap();
    owner.grant(&next, &user).unwrap();
    user.call(&next, numbers(1)).unwrap().unwrap();
}

/// F4: "KeyService dies from one bad connection: an empty or garbage request aborts the enclave".
#[test]
fn f04_bad_connections_end_nothing() {
    let site = Site::new(Plan::default(), |_| ()).unwrap();
    let instance = site.start("state").unwrap();
    let keys = children(instance.process.pid(), "bield-keys");
    let person = site.person("person").unwrap();
    person.service().unwrap();
    for bad in [
        &b""[..],
        b"\0",
        b"GET / HTTP/1.1\r\n\r\n",
        &[0x16; 700],
        &[0xff; 70_000],
    ] {
        for _ in 0..5 {
            let mut stream = TcpStream::connect(instance.keys).unwrap();
            // Closed on us while we write, perhaps: that is the answer.
            let _ = stream.write_all(bad);
        }
        person.service().unwrap().inspect().unwrap();
    }
    assert_eq!(
        children(instance.process.pid(), "bield-keys"),
        keys,
        "another process"
    );
}

/// F5: "worker HTTP server stops on any unparsable byte stream".
#[test]
fn f05_unparsable_bytes_stop_no_http_server() {
    let stack = Stack::start().unwrap();
    let (_, user, package) = stack.cast("f05").unwrap();
    let http = stack.gateway.url.trim_start_matches("http://");
    for bad in [
        &b"\0\0\0\0"[..],
        b"POST",
        b"\r\n\r\n\r\n",
        &[0xff; 9000],
        b"GET / HTTP/9.9\r\n\r\n",
    ] {
        let mut stream = TcpStream::connect(http).unwrap();
        let _ = stream.write_all(bad);
        drop(stream);
        stack.ready().unwrap();
    }
    user.call(&package, numbers(1)).unwrap().unwrap();
}

/// F7: "unsealing a file whose bound name does not match reports success with an uninitialised buffer".
#[test]
fn f07_files_that_were_swapped_are_refused() {
    let site = Site::new(Plan::default(), |_| ()).unwrap();
    for name in ["one", "two"] {
        let instance = site.start(name).unwrap();
        let person = site.person(name).unwrap();
        person.service().unwrap().register(&person.key).unwrap();
        instance.stop().unwrap();
    }
    // Both are genuine, sealed by the same code on the same machine.
    let (one, two) = (site.storage("one"), site.storage("two"));
    fs::copy(two.join("root"), one.join("root")).unwrap();
    let refused = site.start("one").map(drop).unwrap_err().to_string();
    assert!(
        refused.contains("mixed") || refused.contains("another log"),
        "{refused}"
    );
    let (from, to) = (newest(&one, "log-"), newest(&two, "log-"));
    fs::copy(from, to).unwrap();
    let refused = site.start("two").map(drop).unwrap_err().to_string();
    assert!(
        refused.contains("mixed") || refused.contains("another log"),
        "{refused}"
    );
}

/// T1: "configuration or environment loaded after measurement changes behaviour → refused or measured".
#[test]
fn t01_configuration_is_measured_and_no_environment_arrives() {
    let stack = Stack::start().unwrap();
    let (impostor, code) = stack.gateway_with_other_keys().unwrap();
    assert_ne!(code, stack.keys_code);
    assert!(impostor.keys.is_some());
    for name in ["bield-keys", "bield-runtime"] {
        let pid = stack.gateway.process.child(name).unwrap();
        let environment = fs::read(format!("/proc/{pid}/environ"));
        // Hardened programs do not even show it; the gateway's own is not empty.
        assert!(
            environment.is_err() || environment.unwrap().is_empty(),
            "{name}"
        );
    }
    // Neither arguments nor files beside the configuration: what it was started with says only where its TEE is.
    let pid = stack.gateway.process.child("bield-keys").unwrap();
    if let Ok(arguments) = fs::read(format!("/proc/{pid}/cmdline")) {
        let arguments = String::from_utf8_lossy(&arguments).replace('\0', " ");
        assert!(
            arguments.contains(" --tee software:") && !arguments.contains("config"),
            "{arguments}"
        );
    }
}

/// T6: "debug, software TEE or empty reference values never satisfy a default policy".
#[test]
fn t06_defaults_refuse_the_software_tee() {
    let site = Site::new(Plan::default(), |_| ()).unwrap();
    let _instance = site.start("state").unwrap();
    let person = site.person("person").unwrap();
    let connect = |service: PolicyConfig| {
        let trust = TrustConfig {
            service,
            ..site.trust()
        };
        let trust = trust.into_trust().map_err(|error| error.to_string())?;
        let connected = KeyService::connect(&person.home, &trust, now(), &mut Randomness);
        connected
            .map(drop)
            .map_err(|error: ServiceError| error.to_string())
    };
    let measurements = site.trust().service.measurements;
    for profile in [Profile::Strict, Profile::Cloud, Profile::Dev] {
        let listed = PolicyConfig {
            measurements: measurements.clone(),
            ..PolicyConfig::new(profile)
        };
        assert!(connect(listed).is_err(), "{profile}");
        let empty = PolicyConfig {
            measurements: Vec::new(),
            allow_simulated: profile == Profile::Dev,
            ..site.trust().service
        };
        assert!(connect(empty).is_err(), "{profile}");
    }
    connect(site.trust().service).unwrap();
}

/// T7: "an unknown evidence type or enum value fails closed".
#[test]
fn t07_unknown_words_in_a_configuration_are_refused_by_name() {
    let site = Site::new(Plan::default(), |_| ()).unwrap();
    let file = site.host().join("keys.toml");
    let good = fs::read_to_string(&file).unwrap();
    let profile = "profile = \"dev\"";
    assert!(good.contains(profile), "{good}");
    for (altered, named) in [
        (
            good.replacen(profile, "profile = \"lenient\"", 1),
            "lenient",
        ),
        (
            good.replacen(profile, &format!("{profile}\nskip_checks = true"), 1),
            "skip_checks",
        ),
        (format!("unmeasured = 1\n{good}"), "unmeasured"),
        (
            good.replacen("members = 1", "members = 2", 1),
            // The gateway, which has addresses for one, says so before the program does.
            "members = 2",
        ),
    ] {
        assert_ne!(altered, good, "{named}");
        fs::write(&file, &altered).unwrap();
        let refused = site.start("state").map(drop).unwrap_err().to_string();
        assert!(refused.contains(named), "{named}: {refused}");
        let status = if named == "members = 2" { 2 } else { 3 };
        assert!(
            refused.contains(&format!("exit status: {status}")),
            "{refused}"
        );
    }
    fs::write(&file, good).unwrap();
    serves(&site.start("state").unwrap());
}

/// T8: "a restored older disk, a forked log and a dropped delete are each detected or repaired".
#[test]
fn t08_an_older_disk_a_fork_and_a_dropped_delete_are_detected() {
    let site = Site::new(Plan::default(), |_| ()).unwrap();
    let instance = site.start("state").unwrap();
    let owner = site.person("owner").unwrap();
    let model = tiny_model("t08");
    let package = owner.pack("t08", &model).unwrap();
    owner.offer(&package, &model).unwrap();
    instance.stop().unwrap();
    site.copy("state", "before").unwrap();
    let instance = site.start("state").unwrap();
    owner.does(&["delete", "package", "t08", "--yes"]).unwrap();
    instance.stop().unwrap();

    // The delete never happened there: the key is back, and so would be every grant.
    let instance = site.start("before").unwrap();
    let refused = owner.service().map(drop).unwrap_err();
    let code = refused.code().unwrap_or_default();
    assert!(["rolled-back", "forked"].contains(&code), "{refused}");
    assert!(wait_until(SOON, || instance.state() == "stopped"));
    instance.stop().unwrap();
    // The newest one is taken as ever.
    let _instance = site.start("state").unwrap();
    assert_eq!(
        owner.does(&["list", "packages"]).unwrap()["packages"],
        serde_json::json!([])
    );
}

/// T9: "recovery from the snapshot before last works and says what was lost".
#[test]
fn t09_the_snapshot_before_last_loses_nothing() {
    let site = Site::new(Plan::default(), |config| config.orders_per_minute = 100_000).unwrap();
    let owner = site.person("owner").unwrap();
    let orders = |count: usize| {
        let instance = site.start("state").unwrap();
        let mut service = owner.service().unwrap();
        for _ in 0..count {
            service.register(&owner.key).unwrap();
            service.unregister(&owner.key).unwrap();
        }
        service.close().unwrap();
        instance.stop().unwrap();
    };
    orders(600);
    orders(600);
    let snapshots = || {
        let all = files(&site.storage("state")).unwrap();
        let named = |path: &PathBuf| {
            path.file_name()
                .unwrap()
                .to_string_lossy()
                .starts_with("snapshot-")
        };
        all.into_iter().filter(named).collect::<Vec<_>>()
    };
    assert_eq!(snapshots().len(), 2);
    let seen = owner.home.head().unwrap().unwrap().size();
    let last = snapshots().remove(1);
    let mut bytes = fs::read(&last).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&last, bytes).unwrap();
    // What is lost is nothing: the log has it. The client who saw the newest head goes on.
    let _instance = site.start("state").unwrap();
    assert!(owner.service().unwrap().inspect().unwrap().size > seen);
}

/// T10: "verification tools list checks not made as loudly as checks passed".
#[test]
fn t10_what_was_not_checked_is_listed_beside_what_passed() {
    let site = Site::new(Plan::default(), |_| ()).unwrap();
    let _instance = site.start("state").unwrap();
    let person = site.person("person").unwrap();
    for command in ["verify", "doctor"] {
        let run = |json: bool| {
            let mut bield = Command::new(program("bield").unwrap());
            bield.env("BIELD_HOME", person.home.path());
            if json {
                bield.arg("--json");
            }
            let output = bield.arg(command).output().unwrap();
            assert_eq!(output.status.code(), Some(0), "{output:?}");
            String::from_utf8(output.stdout).unwrap()
        };
        let value: serde_json::Value = serde_json::from_str(&run(true)).unwrap();
        let checks = value["checks"].as_array().unwrap();
        let not_made = checks
            .iter()
            .filter(|check| check["outcome"] == "not_checked");
        let not_made: Vec<_> = not_made
            .map(|check| check["name"].as_str().unwrap())
            .collect();
        assert!(!not_made.is_empty(), "{command}: {value:#}");
        // On paper each of them has a line of its own, in words that cannot be missed.
        let text = run(false);
        let lines = text
            .lines()
            .filter(|line| line.to_lowercase().contains("not checked"));
        assert!(
            lines.count() >= not_made.len(),
            "{command}: {not_made:?}\n{text}"
        );
    }
}
