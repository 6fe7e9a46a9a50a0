//! The ten tests that users' pain and a public audit suggest, as far as they concern the key service.
//!
//! | | what must hold | test |
//! |---|---|---|
//! | 1 | configuration that changes behaviour is measured | `t01_…` here and in `end-to-end/findings_key_service.rs`; `core/protocol/src/configuration.rs`, `src/program/settings.rs`: unknown words are refused |
//! | 2 | a security version comes from the signed certificate | `t02_…` here; `core/evidence/tests/samples.rs::pain_2_…`, `snp_chain.rs` |
//! | 3 | replayed evidence is refused | `t03_…` here; `core/session/tests/attacks.rs`, `gate.rs` |
//! | 4 | tables that a host supplies are never trusted unmeasured | no table reaches the key service; `core/evidence/tests/samples.rs`: endorsements are signed |
//! | 5 | old but genuine collateral is refused | `t05_…` here; `core/evidence/tests/samples.rs::pain_5_…` |
//! | 6 | debug, software TEE, empty references satisfy no default | `t06_…` here; `core/evidence/tests/samples.rs::pain_6_…`; `end-to-end/defaults.rs` |
//! | 7 | unknown kinds and values fail closed | `t07_…` here; `core/evidence/tests/samples.rs::pain_7_…` |
//! | 8 | an older disk, a fork, a dropped delete are detected | `t08_…` here; `src/program/tests/rollback.rs`, `end-to-end/rollback.rs` |
//! | 9 | the snapshot before last works, and says what was lost | `t09_…` here and in `end-to-end/findings_key_service.rs` |
//! | 10 | checks not made are as loud as those passed | `t10_…` here; `core/evidence/tests/samples.rs::pain_10_…` |
//!
//! `end-to-end` is `testing/end-to-end/tests`.

#![expect(
    clippy::unwrap_used,
    reason = "a failed unwrap in a test is a failed test"
)]

mod cast;

use std::sync::Arc;

use bield_envelope::wire;
use bield_evidence::{
    Appraised, Claims, Endorsements, Evidence, Outcome, Policy, PolicyConfig, Profile, Reference,
    appraise, claims_report_data, configuration_digest, program_digest, software_measurement,
    verify,
};
use bield_grant::{CodeSelector, Grant, Isolation, UserSelector};
use bield_keys::service::Conversation;
use bield_keys::testing::InProcess;
use bield_ledger::MemoryFiles;
use bield_protocol::configuration::KeyServiceConfiguration;
use bield_protocol::service::{Operation, Request};
use bield_software_tee::{CollateralOptions, Kind, SgxReport, TcbStatus};

use cast::{HOUR, NOON, World, evidence, exactly, grant, key, platform, report, roots, session};

fn claims(report: &SgxReport) -> Claims {
    let platform = platform();
    let shown = evidence(&platform, report, b"claims");
    verify(&shown, &roots(&platform), NOON).unwrap()
}

/// Asks for a lease with this evidence.
fn lease_with(
    world: &World,
    with: Appraised,
    package: bield_envelope::Digest,
) -> Result<(), String> {
    let mut session = Conversation {
        runtime: Some(Arc::new(with)),
        ..session()
    };
    world.lease_in(&mut session, package, None).map(drop)
}

/// "Configuration or environment loaded after measurement changes behaviour": another configuration is other code,
/// which no grant names; a word that is not known is refused, not skipped.
#[test]
fn t01_a_program_with_another_configuration_is_other_code() {
    let (world, package) = World::with_package();
    let program = program_digest(b"runtime");
    let measured =
        |configuration: &[u8]| software_measurement(program, configuration_digest(configuration));
    let (granted, other) = (measured(b"threads = 2"), measured(b"threads = 3"));
    let code = CodeSelector::Measurement(granted.clone());
    world
        .grant(
            &key(1),
            Grant {
                code,
                ..grant(1, package)
            },
        )
        .unwrap();
    for (measurement, gets) in [(&granted, true), (&other, false)] {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(measurement.as_bytes());
        let shown = cast::appraised_of(&SgxReport {
            measurement: bytes,
            ..report(1)
        });
        assert_eq!(shown.measurement(), measurement);
        assert_eq!(lease_with(&world, shown, package).is_ok(), gets);
    }
    let text = "[runtimes]\nprofile = \"cloud\"\n";
    assert!(KeyServiceConfiguration::parse(text).is_ok());
    for unknown in [
        "debug = true\n",
        "allow_everything = 1\n",
        "log = \"trace\"\n",
    ] {
        assert!(KeyServiceConfiguration::parse(&format!("{unknown}{text}")).is_err());
        assert!(KeyServiceConfiguration::parse(&format!("{text}{unknown}")).is_err());
    }
}

/// "Security version taken from a field the platform reports instead of from the signed certificate": a version that
/// is written into a signed quote breaks the signature, and a grant for newer code reads the signed one.
#[test]
fn t02_a_grant_for_newer_code_reads_the_signed_version() {
    let (world, package) = World::with_package();
    world
        .grant(
            &key(1),
            Grant {
                code: cast::from_version(6),
                ..grant(1, package)
            },
        )
        .unwrap();
    for (version, gets) in [(5, false), (6, true), (7, true)] {
        let shown = SgxReport {
            svn: version,
            ..report(20)
        };
        assert_eq!(
            lease_with(&world, cast::appraised_of(&shown), package).is_ok(),
            gets,
            "{version}"
        );
    }
    let platform = platform();
    let mut raised = evidence(
        &platform,
        &SgxReport {
            svn: 5,
            ..report(20)
        },
        b"claims",
    );
    // ISV SVN: 48 bytes of header, 258 into the report body.
    assert_eq!(raised.quote[306..308], [5, 0]);
    raised.quote[306] = 9;
    assert!(verify(&raised, &roots(&platform), NOON).is_err());
}

/// "Evidence replayed without this client's nonce or handshake": evidence is for the claims it was made with, and a
/// command for the session it was signed in.
#[test]
fn t03_evidence_and_commands_of_another_session_are_refused() {
    let platform = platform();
    let made = evidence(&platform, &report(5), b"claims");
    let replayed = Evidence {
        claims_buffer: b"another session's claims".to_vec(),
        ..made
    };
    assert!(verify(&replayed, &roots(&platform), NOON).is_err());
    let data = claims_report_data(b"claims");
    assert_ne!(data, claims_report_data(b"another session's claims"));
    let world = World::started();
    let (mut one, mut two) = (session(), session());
    let command = cast::sign(&one, &key(1), Operation::Register);
    let message = |command: &bield_envelope::Signed<_>| Request::Command(command.clone());
    assert_eq!(
        world.say(&mut two, message(&command)).map(drop),
        Err("other-session".into())
    );
    assert!(world.say(&mut one, message(&command)).is_ok());
    assert_eq!(
        world.say(&mut one, message(&command)).map(drop),
        Err("out-of-order".into())
    );
}

/// "Old but genuine collateral with lower thresholds": collateral ends, an older evaluation can be refused, and what
/// it says of an unpatched platform reaches the policy.
#[test]
fn t05_old_but_genuine_collateral_brings_no_runtime_in() {
    let platform = platform();
    let made = evidence(&platform, &report(5), b"claims");
    let with = |options: &CollateralOptions| Evidence {
        endorsements: Endorsements::Dcap(platform.collateral(Kind::Sgx, options).unwrap()),
        ..made.clone()
    };
    let mut expired = CollateralOptions::at(NOON);
    expired.issued = NOON.minus(HOUR * 24 * 90);
    assert!(
        verify(&with(&expired), &roots(&platform), NOON).is_err(),
        "its dates"
    );
    let genuine = verify(&made, &roots(&platform), NOON).unwrap();
    let number = genuine.evaluation_number.unwrap();
    for (least, passes) in [(number, true), (number + 1, false)] {
        let policy = Policy::dev(Reference::Deferred).with_evaluation_number_min(least);
        assert_eq!(
            appraise(&genuine, &policy, NOON).passed(),
            passes,
            "evaluation {least}"
        );
    }
    let mut unpatched = CollateralOptions::at(NOON);
    unpatched.status = TcbStatus::OutOfDate;
    unpatched.tcb_date = NOON.minus(HOUR * 24 * 60);
    let unpatched = verify(&with(&unpatched), &roots(&platform), NOON).unwrap();
    for policy in [
        Policy::strict(Reference::Deferred),
        Policy::cloud(Reference::Deferred),
    ] {
        let failed = appraise(&unpatched, &policy, NOON);
        assert!(failed.failed().any(|check| check.name == "tcb"));
    }
}

/// "Debug, software TEE or empty reference values never satisfy a default policy".
#[test]
fn t06_debug_software_and_empty_references_satisfy_no_default() {
    let platform = platform();
    let debug = evidence(
        &platform,
        &SgxReport {
            debug: true,
            ..report(5)
        },
        b"claims",
    );
    assert!(
        verify(&debug, &roots(&platform), NOON).is_err(),
        "whatever the policy"
    );
    let software = claims(&report(5));
    assert!(software.simulated);
    for profile in [Profile::Strict, Profile::Cloud] {
        let policy = PolicyConfig::new(profile).into_deferred_policy().unwrap();
        let verdict = appraise(&software, &policy, NOON);
        assert!(
            verdict.failed().any(|check| check.name == "root"),
            "{profile}"
        );
        assert!(verdict.admit(software.clone()).is_err());
    }
    let unasked = PolicyConfig::new(Profile::Dev)
        .into_deferred_policy()
        .unwrap();
    assert!(
        !appraise(&software, &unasked, NOON).passed(),
        "nor dev, unless it says so"
    );
    let nothing = Policy::dev(Reference::Listed(Vec::new()));
    let verdict = appraise(&software, &nothing, NOON);
    assert!(verdict.failed().any(|check| check.name == "measurement"));
    // To the service an empty list is: no grant, no key.
    let (world, package) = World::with_package();
    assert_eq!(
        world.lease(5, package).map(drop),
        Err("code-not-granted".into())
    );
    world.grant(&key(1), grant(1, package)).unwrap();
    let leased = world.lease(5, package).unwrap();
    assert!(
        leased.lease.simulated,
        "a lease to a software TEE says that it is one"
    );
}

/// "An unknown evidence type or enum value fails closed": no value of a later version is taken for one of ours.
#[test]
fn t07_values_of_another_version_do_not_decode() {
    let platform = platform();
    let made = wire::encode(&evidence(&platform, &report(5), b"claims"));
    assert!(Evidence::decode(&made).is_ok());
    for later in [0].into_iter().chain(4..24) {
        // The first value of the map is the kind.
        let mut unknown = made.clone();
        assert_eq!(unknown[1..3], [1, 1], "key 1, SGX");
        unknown[2] = later;
        assert!(Evidence::decode(&unknown).is_err(), "kind {later}");
    }
    assert!(wire::decode::<Isolation>(&[3], 8).is_err());
    assert!(wire::decode::<Isolation>(&[2], 8).is_ok());
    let user = wire::encode(&UserSelector::Principal(cast::principal(1)));
    let code = wire::encode(&exactly(5));
    for kind in 2..24 {
        let changed = |bytes: &[u8]| [&bytes[..1], &[kind], &bytes[2..]].concat();
        assert!(
            wire::decode::<UserSelector>(&changed(&user), 99).is_err(),
            "user {kind}"
        );
        assert!(
            wire::decode::<CodeSelector>(&changed(&code), 99).is_err(),
            "code {kind}"
        );
    }
    let request = Request::Inspect.encode();
    assert_eq!(request[1], 5);
    for kind in 10..24 {
        let unknown = [&request[..1], &[kind], &request[2..]].concat();
        assert!(Request::decode(&unknown).is_err(), "request {kind}");
    }
}

/// "A restored older disk, a forked log and a dropped delete are each detected".
#[test]
fn t08_an_older_disk_a_fork_and_a_dropped_delete_are_detected() {
    let (mut world, package) = World::with_grant();
    world.kill();
    let older = world.disk.contents();
    world.start().unwrap();
    world
        .order(&key(1), Operation::DeletePackage(package))
        .unwrap();
    let kept = world.freshness(None).unwrap().checkpoint;
    world.kill();
    let newest = world.disk.contents();

    world.disk.restore(older.clone());
    world.start().unwrap();
    for _ in 0..3 {
        // As long as it likes: the fork grows past what the owner saw, and is no less another history.
        world.order(&key(1), Operation::Register).unwrap();
        world.order(&key(7), Operation::Register).unwrap();
    }
    let refused = world.freshness(Some(&kept)).map(drop).unwrap_err();
    assert!(
        ["rolled-back", "forked"].contains(&refused.as_str()),
        "{refused}"
    );
    assert_eq!(
        world.lease(5, package).map(drop),
        Err(refused),
        "the delete was dropped: nobody is served"
    );
    world.kill();

    world.disk.restore(older);
    world.start().unwrap();
    for number in 20..40 {
        world.order(&key(number), Operation::Register).unwrap();
    }
    assert_eq!(world.freshness(Some(&kept)).map(drop), Err("forked".into()));
    world.kill();

    // Part of the log put back: it does not start.
    let mut mixed = newest.clone();
    let log = mixed
        .keys()
        .find(|name| name.starts_with("log-"))
        .unwrap()
        .clone();
    let bytes = mixed.get_mut(&log).unwrap();
    let middle = bytes.len() / 2;
    bytes.drain(middle..middle + 10);
    let started = InProcess::start(MemoryFiles::with(mixed), &world.options);
    assert!(started.is_err(), "a log with a gap");

    world.disk.restore(newest);
    world.start().unwrap();
    assert!(world.freshness(Some(&kept)).is_ok());
    assert_eq!(
        world.lease(5, package).map(drop),
        Err("unknown-package".into())
    );
}

/// "Recovery from the snapshot before last works and says what was lost": nothing is, since the log has it.
#[test]
fn t09_the_snapshot_before_last_loses_nothing() {
    let (mut world, package) = World::with_grant();
    assert!(world.service().snapshot());
    for number in 11..15 {
        world.order(&key(number), Operation::Register).unwrap();
    }
    assert!(world.service().snapshot());
    world.order(&key(15), Operation::Register).unwrap();
    let (kept, before) = (world.freshness(None).unwrap().checkpoint, world.inspect());
    world.kill();
    let whole = world.disk.contents();
    let snapshots: Vec<String> = whole
        .keys()
        .filter(|name| name.starts_with("snapshot-"))
        .cloned()
        .collect();
    assert_eq!(snapshots.len(), 2, "the last two are kept");
    for damage in [true, false] {
        let mut damaged = whole.clone();
        let newest = damaged.get_mut(&snapshots[1]).unwrap();
        let middle = newest.len() / 2;
        match damage {
            true => newest[middle] ^= 1,
            false => newest.truncate(middle),
        }
        world.disk.restore(damaged);
        world.start().unwrap();
        assert_eq!(world.inspect().principals, before.principals);
        assert!(
            world.freshness(Some(&kept)).is_ok(),
            "nothing that was seen is gone"
        );
        assert!(world.lease(5, package).is_ok());
        world.kill();
    }
}

/// "Verification tools list checks not made as loudly as checks passed".
#[test]
fn t10_what_was_not_checked_is_listed_with_what_was() {
    let shown = cast::appraised(5);
    let outcome = |name: &str| {
        let check = shown.checks().iter().find(|check| check.name == name);
        check.map(|check| check.outcome)
    };
    assert_eq!(
        outcome("measurement"),
        Some(Outcome::NotChecked),
        "grants compare it"
    );
    assert_eq!(
        outcome("report data"),
        Some(Outcome::NotChecked),
        "sessions compare it"
    );
    assert_eq!(outcome("debug"), Some(Outcome::Passed));
    let not_made = shown
        .checks()
        .iter()
        .filter(|check| check.outcome == Outcome::NotChecked);
    for check in not_made {
        let line = check.to_string();
        assert!(
            line.contains("not checked") && line.contains(check.name),
            "{line}"
        );
    }
}
