//! The faults published of an earlier system's key service, one test for each: it fails when the fault is back.
//!
//! Here the service runs in this process on files in memory, and what a session proves of its peer is
//! appraised evidence of a software TEE. `end-to-end` is `testing/end-to-end/tests`, on whole programs.
//!
//! | item | what went wrong there | test |
//! |---|---|---|
//! | K1 | the quote's verdict is thrown away | `k01_…` here; `core/evidence/tests/simulated.rs`, `samples.rs`; `k01_…` in `end-to-end/findings_key_service.rs` |
//! | K2 | the code's identity is a constant | `k02_…` here |
//! | K3 | nobody pins the key service | `k03_…` in `end-to-end/findings_key_service.rs`; `core/session/tests/attacks.rs::diversion_to_a_genuine_tee_of_another_service_is_refused`; `k03_…` here: a certificate and a checkpoint name their service |
//! | K4 | a constant nonce under long-lived keys | `k04_…` here; `core/envelope/tests/envelope.rs` |
//! | K5 | a published signing key opens what is sealed | `k05_…` here |
//! | K6 | secrets are printed | `k06_…` in `end-to-end/findings_key_service.rs`, `end-to-end/secrecy.rs`; `k06_…` here: types and refusals are silent |
//! | K7 | fields overflow fixed buffers | `k07_…` here; `testing/fuzz` |
//! | K8 | short payloads wrap a length | `k08_…` here; `testing/fuzz` |
//! | K9 | a host's pointer is used inside | `enclave/door/tests/door.rs`: bytes only; `k09_…` here: lengths that files claim |
//! | K10 | a message passes for another kind | `k10_…` here |
//! | K11 | old messages roll keys back | `k11_…` here; `model` plays every command again |
//! | K12 | no revoking, rotating, ending | `k12_…` here; `end-to-end/revocation.rs` |
//! | K13 | the store can be set back | `k13_…` here; `src/program/tests/rollback.rs`; `end-to-end/rollback.rs` |
//! | K14 | names of records come from callers | `k14_…` here and in `end-to-end/findings_key_service.rs` |
//! | K15 | an empty name skips the check | `k15_…` here |
//! | K16 | a short name reads past its end; keys of any length | `k16_…` here |
//! | K17 | TLS 1.2, slow keys | `k17_…` in `end-to-end/findings_key_service.rs`; `core/session/tests/attacks.rs::sessions_are_never_resumed_and_use_the_hybrid_group` |
//! | K18 | no audit, metrics, administration | `k18_…` here and in `end-to-end/findings_key_service.rs` |
//! | K19 | one instance, no separation of tenants | `k19_…` here: tenants; `k19_…` in `end-to-end/findings_key_service.rs`, `end-to-end/failover.rs`, `src/cluster/tests.rs` |
//! | K20 | keys are never wiped or forgotten | `k20_…` here; `core/envelope/src/secret.rs` |
//! | F1 | a second grantee hangs it | `f01_…` here and in `end-to-end/findings_key_service.rs` |
//! | F2 | one refused fetch locks all out | `f02_…` here: the service; the worker: `enclave/runtime/src/leases/tests.rs`, `end-to-end/findings_key_service.rs` |
//! | F3 | a broken channel is never opened again | `f03_…` here: the service; the worker: `enclave/runtime/src/key_service/tests.rs`, `end-to-end/findings_key_service.rs` |
//! | F4 | one bad connection ends it | `f04_…` in `end-to-end/findings_key_service.rs`, `src/sessions/tests.rs`; `f04_…` here: one bad message |
//! | F5 | unparsable bytes stop the HTTP server | `f05_…` in `end-to-end/findings_key_service.rs`; `f05_…` here: bytes that are no message |
//! | F6 | two clients at once mix | `f06_…` here; `end-to-end/hostile_peers.rs` |
//! | F7 | a file under another name opens as nonsense | `f07_…` here and in `end-to-end/findings_key_service.rs` |

#![expect(
    clippy::unwrap_used,
    reason = "a failed unwrap in a test is a failed test"
)]

mod cast;

use std::sync::Arc;

use bield_capsule::PAYLOAD_BYTES_MAX;
use bield_envelope::{Principal, SealedRequest, Secret, Signed};
use bield_evidence::{Measurement, Policy, Reference, TeeKind, appraise, verify};
use bield_grant::{Grant, PackageSelector, UserSelector};
use bield_keys::service::Conversation;
use bield_keys::testing::InProcess;
use bield_ledger::MemoryFiles;
use bield_package::PackageHeader;
use bield_protocol::service::{
    AuditEvent, Command, LeaseRequest, Listing, ListingPage, Operation, PackageOffer,
    PackageReference, Reply, Request, Returned, chained, key_commitment,
};
use bield_software_tee::{CollateralOptions, Kind, SgxReport, TcbStatus};

use cast::material::{Material, seal};
use cast::{
    ADMINISTRATOR, HOUR, MINUTE, NOON, World, code, exactly, grant, group, header, key, principal,
    report, runtime, session, sign, succession,
};

/// "The verdict (revoked, out of date …) is never looked at": no verdict, no [`bield_evidence::Appraised`], and
/// without one the service gives nothing.
#[test]
fn k01_evidence_that_does_not_verify_is_nobodys_and_nobody_gets_nothing() {
    let (world, package) = World::with_grant();
    let platform = cast::platform();
    let genuine = cast::evidence(&platform, &report(5), b"claims");
    let roots = cast::roots(&platform);
    assert!(verify(&genuine, &roots, NOON).is_ok());
    for at in [0, 60, 112, 200, genuine.quote.len() - 40] {
        let mut forged = genuine.clone();
        forged.quote[at] ^= 1;
        assert!(verify(&forged, &roots, NOON).is_err(), "byte {at}");
    }
    let mut revoked = CollateralOptions::at(NOON);
    revoked.status = TcbStatus::Revoked;
    let mut expired = CollateralOptions::at(NOON);
    expired.issued = NOON.minus(HOUR * 24 * 400);
    for options in [revoked, expired] {
        let collateral = platform.collateral(Kind::Sgx, &options).unwrap();
        let evidence = bield_evidence::Evidence {
            endorsements: bield_evidence::Endorsements::Dcap(collateral),
            ..genuine.clone()
        };
        assert!(verify(&evidence, &roots, NOON).is_err());
    }
    let mut old = CollateralOptions::at(NOON);
    old.status = TcbStatus::OutOfDate;
    let collateral = platform.collateral(Kind::Sgx, &old).unwrap();
    let evidence = bield_evidence::Evidence {
        endorsements: bield_evidence::Endorsements::Dcap(collateral),
        ..genuine
    };
    let claims = verify(&evidence, &roots, NOON).unwrap();
    let verdict = appraise(&claims, &Policy::strict(Reference::Deferred), NOON);
    assert!(
        verdict.admit(claims).is_err(),
        "the policy sees the verdict"
    );
    let unproven = world.lease_in(&mut session(), package, None).map(drop);
    assert_eq!(unproven, Err("not-a-runtime".into()));
}

/// "A hard-coded test value for each worker": the measurement that decides is the evidence's own.
#[test]
fn k02_code_is_what_its_evidence_says() {
    let (world, package) = World::with_grant();
    assert_eq!(
        world.lease(5, package).unwrap().lease.code.measurement,
        code(5)
    );
    for other in [1, 4, 6, 250] {
        let refused = world.lease(other, package).map(drop);
        assert_eq!(refused, Err("code-not-granted".into()), "code {other}");
    }
    let renamed = SgxReport {
        signer: [9; 32],
        ..report(5)
    };
    let claims = cast::appraised_of(&renamed);
    assert_eq!(claims.claims().signer.as_deref(), Some(&[9; 32][..]));
    let by_signer = Grant {
        code: cast::from_version(1),
        ..grant(2, package)
    };
    world.grant(&key(1), by_signer).unwrap();
    assert!(
        world.lease(6, package).is_ok(),
        "signed by the signer named"
    );
    let other = SgxReport {
        measurement: [6; 32],
        ..renamed
    };
    let mut foreign = Conversation {
        runtime: Some(Arc::new(cast::appraised_of(&other))),
        ..session()
    };
    assert!(
        world.lease_in(&mut foreign, package, None).is_err(),
        "signed by another"
    );
}

/// "An attacker can point it at an impostor": what a service signs names it, and another one's checkpoint is
/// foreign to it.
#[test]
fn k03_another_service_cannot_pass_for_the_one_that_is_known() {
    let (here, there) = (World::started(), World::started());
    let (mine, other) = (here.inspect(), there.inspect());
    assert_ne!((mine.service, &mine.log), (other.service, &other.log));
    let certified = here
        .say(&mut runtime(5), Request::Certify(principal(50)))
        .unwrap();
    let Reply::Certificate(certificate) = certified else {
        panic!("no certificate")
    };
    assert!(certificate.clone().verify(&other.service).is_err());
    assert_eq!(
        certificate.verify(&mine.service).unwrap().service,
        mine.service
    );
    let kept = here.freshness(None).unwrap().checkpoint;
    assert_eq!(
        there.freshness(Some(&kept)).map(drop),
        Err("foreign-checkpoint".into())
    );
}

/// "A constant nonce for every message … one known plaintext recovers a keystream": the same things stored and
/// sealed twice under one key have nothing in common.
#[test]
fn k04_the_same_secrets_never_make_the_same_bytes() {
    let (world, package) = World::with_grant();
    let log = || {
        let mut files = world.disk.contents().into_iter();
        files.find(|(name, _)| name.starts_with("log-")).unwrap().1
    };
    // Records end with their sealed entries: here twice the same, but for the lease's number.
    let sealed = || {
        let before = log().len();
        world.lease(5, package).unwrap();
        let record = log()[before..].to_vec();
        record[record.len() - 150..].to_vec()
    };
    let same = |one: &[u8], two: &[u8]| one.iter().zip(two).filter(|(one, two)| one == two).count();
    let (one, two) = (sealed(), sealed());
    assert!(same(&one, &two) < 24, "bytes in common");
    let to = world.find(package, exactly(5)).unwrap();
    let letter = |later| {
        seal(
            &to.key,
            to.audience,
            package,
            &key(2),
            NOON.plus(MINUTE * later),
        )
    };
    let (one, two) = (letter(0), letter(1));
    let body = one.len() - 100;
    assert!(same(&one[body..], &two[body..]) < 16, "bytes in common");
}

/// "Sealing uses the signer policy, and the signing key is published": files open under the seal key of this
/// code on this machine, and under no other.
#[test]
fn k05_files_do_not_open_under_another_seal_key() {
    let (mut world, package) = World::with_grant();
    world.kill();
    world.options.seal = [6; 32];
    let refused = world.start().unwrap_err();
    assert!(refused.contains("another machine"), "{refused}");
    world.options.seal = [5; 32];
    world.start().unwrap();
    assert!(world.lease(5, package).is_ok());
}

/// "Plaintext payloads and both keys are printed": neither refusals nor files show keys, nor files who is who.
#[test]
fn k06_what_leaves_in_clear_names_nobody_and_shows_no_key() {
    let (world, package) = World::with_grant();
    let leased = world.lease(5, package).unwrap();
    let mut secrets = vec![leased.package_key.expose().to_vec()];
    secrets.extend(
        leased
            .audience_keys
            .iter()
            .map(|key| key.seed.expose().to_vec()),
    );
    let people = [principal(1), principal(2)];
    let names: [&[u8]; 4] = [
        people[0].as_bytes(),
        people[1].as_bytes(),
        package.as_bytes(),
        b"shelter",
    ];
    let _ = world.service().snapshot();
    for (name, bytes) in world.disk.contents() {
        for canary in secrets.iter().map(Vec::as_slice).chain(names) {
            let found = bytes.windows(canary.len()).any(|part| part == canary);
            assert!(!found, "file {name} holds {canary:02x?}");
        }
        let safe = |char: char| char.is_ascii_digit() || char.is_ascii_lowercase() || char == '-';
        assert!(name.chars().all(safe), "{name}");
    }
    let hexadecimal = |bytes: &[u8]| {
        bytes
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    };
    let request = Request::Lease(LeaseRequest {
        package,
        returned: None,
    });
    let Reply::Refused(refusal) = world.service().answer(&mut runtime(7), request) else {
        panic!("not refused")
    };
    for secret in &secrets {
        assert!(!refusal.message.contains(&hexadecimal(secret)));
    }
}

/// "Request fields are copied into fixed 100-byte arrays": the longest names work, longer ones are no names.
#[test]
fn k07_the_longest_fields_work_and_longer_ones_are_refused() {
    let world = World::started();
    let owner = key(1);
    world.order(&owner, Operation::Register).unwrap();
    let longest = "n".repeat(63);
    let package = world.put(&owner, &longest, "1.0.0").unwrap();
    let named = Grant {
        package: PackageSelector::Named(longest.parse().unwrap(), "*".parse().unwrap()),
        ..grant(1, package)
    };
    world.grant(&owner, named).unwrap();
    assert_eq!(
        world.lease(5, package).unwrap().lease.name.as_str(),
        longest
    );
    for length in [64, 100, 101, 74_000] {
        assert!(
            "n".repeat(length)
                .parse::<bield_package::PackageName>()
                .is_err()
        );
        let reference = PackageReference::Named(owner.principal(), "n".repeat(length), None);
        let request = Request::KeyConfiguration(reference, exactly(5));
        let asked = world.say(&mut session(), request).map(drop);
        assert_eq!(asked, Err("unknown-package".into()));
        let order = Operation::DeleteGroup("g".repeat(length));
        assert!(world.order(&owner, order).is_err());
    }
    assert!(world.lease(5, package).is_ok());
}

/// "Payloads under 32 bytes make `size − 32` wrap": every prefix of every kind of message is refused or decodes.
#[test]
fn k08_short_and_cut_messages_are_refused() {
    let (world, package) = World::with_grant();
    let session = session();
    let command = sign(&session, &key(1), Operation::Register);
    let messages = [
        Request::Command(command).encode().to_vec(),
        Request::Lease(LeaseRequest {
            package,
            returned: None,
        })
        .encode()
        .to_vec(),
        Request::Freshness(Some("kept".into())).encode().to_vec(),
    ];
    for message in messages {
        assert!(Request::decode(&message).is_ok());
        for length in 0..message.len() {
            assert!(
                Request::decode(&message[..length]).is_err(),
                "{length} bytes"
            );
        }
    }
    let to = world.find(package, exactly(5)).unwrap();
    let sealed = seal(&to.key, to.audience, package, &key(2), NOON);
    for length in 0..sealed.len() {
        let Ok(cut) = SealedRequest::parse(&sealed[..length]) else {
            continue;
        };
        let leased = world.lease(5, package).unwrap();
        let seed = Secret::from_bytes(*leased.audience_keys[0].seed.expose());
        assert!(
            bield_envelope::AudienceKey::from_seed(seed)
                .open(&cut)
                .is_err()
        );
        break; // One that parses is enough to ask the key; parsing was asked of all before it.
    }
}

/// "The host's pointer and length are used unchecked": here a host gives bytes, and lengths in them are checked
/// before memory is spent.
#[test]
fn k09_lengths_that_a_file_claims_are_checked() {
    let (mut world, package) = World::with_grant();
    world.end();
    let whole = world.disk.contents();
    for name in whole.keys() {
        for claim in [u32::MAX, (PAYLOAD_BYTES_MAX as u32) * 2, 0] {
            let mut lying = whole.clone();
            let file = lying.get_mut(name).unwrap();
            for (byte, new) in file.iter_mut().zip(claim.to_be_bytes()) {
                *byte = new;
            }
            world.disk.restore(lying);
            assert!(world.start().is_err(), "{name} claims {claim}");
        }
    }
    world.disk.restore(whole);
    world.start().unwrap();
    assert!(world.lease(5, package).is_ok());
}

/// "An add-request-key payload can be replayed as upsert-model-key": what is signed says what it is for.
#[test]
fn k10_what_is_signed_for_one_use_serves_no_other() {
    let (world, package) = World::with_package();
    let owner = key(1);
    // A grant is no command, and a command no grant, though both are signed by the owner.
    let granted = Signed::sign(&owner, grant(1, package)).into_signed();
    let as_command = Signed::<Command>::decode(granted.as_bytes());
    assert!(as_command.is_err() || as_command.unwrap().verify_claimed().is_err());
    let mut with = session();
    let command = sign(&with, &owner, Operation::Grant(granted));
    let as_grant = Signed::<Grant>::decode(command.as_bytes());
    assert!(as_grant.is_err() || as_grant.unwrap().verify(&principal(1)).is_err());
    // Another operation under the same signature is nobody's.
    let other = sign(&with, &owner, Operation::DeletePackage(package));
    let (mut mixed, signature) = (other.as_bytes().to_vec(), command.as_bytes());
    let tail = mixed.len() - 64;
    mixed[tail..].copy_from_slice(&signature[signature.len() - 64..]);
    let mixed = Signed::<Command>::decode(&mixed).unwrap();
    let refused = world.say(&mut with, Request::Command(mixed)).map(drop);
    assert_eq!(refused, Err("invalid-signature".into()));
    // A package's key goes beside the command that commits to it, and beside no other.
    let put = sign(
        &with,
        &owner,
        cast::offer(&header(&owner, "shelter", "2.0.0"), 9),
    );
    let swapped = Request::PutPackage(put, Secret::from_bytes([8; 32]));
    assert_eq!(
        world.say(&mut with, swapped).map(drop),
        Err("other-key".into())
    );
    let register = sign(&with, &owner, Operation::Register);
    let beside = Request::PutPackage(register, Secret::from_bytes([9; 32]));
    assert_eq!(
        world.say(&mut with, beside).map(drop),
        Err("malformed".into())
    );
    assert!(
        world.find(package, exactly(5)).is_err(),
        "nothing was granted"
    );
}

/// "Old payloads roll a key back": nothing that was said counts again, and nothing old undoes anything newer.
#[test]
fn k11_nothing_old_counts_again() {
    let (mut world, package) = World::with_package();
    let owner = key(1);
    let mut with = session();
    let said = Signed::sign(&owner, grant(1, package)).into_signed();
    let command = sign(&with, &owner, Operation::Grant(said.clone()));
    let message = Request::Command(command).encode().to_vec();
    let say = |world: &World, with: &mut Conversation| {
        world
            .say(with, Request::decode(&message).unwrap())
            .map(drop)
    };
    assert_eq!(say(&world, &mut with), Ok(()));
    world.revoke(&owner, 1).unwrap();
    assert_eq!(say(&world, &mut with), Err("out-of-order".into()));
    assert_eq!(say(&world, &mut session()), Err("other-session".into()));
    world.kill();
    world.start().unwrap();
    assert_eq!(say(&world, &mut session()), Err("other-session".into()));
    // Not even its signer brings a revoked grant back, nor an older group, nor another key for the package.
    let again = world.order(&owner, Operation::Grant(said)).map(drop);
    assert_eq!(again, Err("grant-revoked".into()));
    let put = |revision, members: &[u8]| {
        let order = Operation::PutGroup(group(&owner, "readers", revision, members));
        world.order(&owner, order).map(drop)
    };
    put(2, &[]).unwrap();
    assert_eq!(put(1, &[2]), Err("old-revision".into()));
    assert_eq!(put(2, &[2]), Err("old-revision".into()));
    let mut with = session();
    let command = sign(
        &with,
        &owner,
        cast::offer(&header(&owner, "shelter", "1.0.0"), 7),
    );
    let other = Request::PutPackage(command, Secret::from_bytes([7; 32]));
    assert_eq!(
        world.say(&mut with, other).map(drop),
        Err("package-key-differs".into())
    );
}

/// "No revoke, rotate, expire": each of them takes effect at the next lease, and a lease ends.
#[test]
fn k12_grants_are_revoked_and_end_and_every_kind_of_key_is_rotated() {
    let (world, package) = World::with_grant();
    let (owner, heir) = (key(1), key(10));
    let before = world.lease(5, package).unwrap();
    assert!(
        before.lease.not_after <= world.now().plus(MINUTE * 10),
        "a lease is short"
    );
    let told = world.find(package, exactly(5)).unwrap();
    world
        .order(
            &owner,
            Operation::RotateAudience {
                package,
                at_once: true,
            },
        )
        .unwrap();
    assert_ne!(
        world.find(package, exactly(5)).unwrap().key.id(),
        told.key.id()
    );
    let old = seal(&told.key, told.audience, package, &key(2), world.now());
    let after = Material::new(world.lease(5, package).unwrap());
    assert_eq!(after.serve(&old, world.now()), Err("other-key".into()));
    let service = world.inspect().service;
    world
        .order(&key(ADMINISTRATOR), Operation::Register)
        .unwrap();
    world
        .order(&key(ADMINISTRATOR), Operation::RotateIdentity)
        .unwrap();
    assert_ne!(world.inspect().service, service);
    let order = Operation::Succeed(succession(&owner, &heir, NOON));
    world.order(&owner, order).unwrap();
    assert_eq!(world.revoke(&owner, 1).map(drop), Err("succeeded".into()));
    assert!(
        world.lease(5, package).is_ok(),
        "the old key's word counts on"
    );
    world.revoke(&heir, 1).unwrap();
    assert_eq!(
        world.lease(5, package).map(drop),
        Err("grant-revoked".into())
    );
    let ends = world.grant(&heir, grant(2, package)).unwrap().not_after;
    assert!(world.lease(5, package).is_ok());
    world.set_clock(ends);
    assert_eq!(
        world.lease(5, package).map(drop),
        Err("grant-expired".into())
    );
    world
        .order(&heir, Operation::DeletePackage(package))
        .unwrap();
    assert_eq!(
        world.lease(5, package).map(drop),
        Err("unknown-package".into())
    );
}

/// "No rollback protection for the store": who saw more stops a state that was set back, for all.
#[test]
fn k13_a_store_that_was_set_back_is_not_served_from() {
    let (mut world, package) = World::with_grant();
    world.kill();
    let older = world.disk.contents();
    world.start().unwrap();
    for number in 11..16 {
        world.order(&key(number), Operation::Register).unwrap();
    }
    world.revoke(&key(1), 1).unwrap();
    let kept = world.freshness(None).unwrap().checkpoint;
    world.kill();
    world.disk.restore(older);
    world.start().unwrap();
    let refused = world.freshness(Some(&kept)).map(drop);
    assert_eq!(refused, Err("rolled-back".into()));
    assert_eq!(
        world.lease(5, package).map(drop),
        Err("rolled-back".into()),
        "nor anybody else"
    );
    assert!(
        world
            .service()
            .ended()
            .unwrap()
            .contains("records are missing")
    );
}

/// "Record names built from caller text are used as file names": whatever callers call things, the same files
/// are written, and no text is a separator.
#[test]
fn k14_callers_name_no_files_and_no_text_separates() {
    let world = World::started();
    let owner = key(1);
    world.order(&owner, Operation::Register).unwrap();
    let before: Vec<String> = world.disk.contents().into_keys().collect();
    for bad in [
        "../../root",
        "a/b",
        "a|b",
        "log-00000000000000000000",
        "a\0b",
        ".",
        "-a",
    ] {
        let reference = PackageReference::Named(owner.principal(), bad.into(), Some(bad.into()));
        let request = Request::KeyConfiguration(reference, exactly(5));
        assert!(world.say(&mut session(), request).is_err(), "{bad}");
        assert!(
            world
                .order(&owner, Operation::DeleteGroup(bad.into()))
                .is_err()
        );
        assert!(world.freshness(Some(bad)).is_err());
    }
    // "a-b" of one is not "b" of another: places are owner and name, not their text in a row.
    let (one, two) = (
        world.put(&owner, "a-b", "1.0.0").unwrap(),
        world.put(&owner, "a", "1.0.0"),
    );
    let named = |id, name: &str, range: &str| Grant {
        package: PackageSelector::Named(name.parse().unwrap(), range.parse().unwrap()),
        ..grant(id, one)
    };
    world.grant(&owner, named(1, "a", "*")).unwrap();
    assert!(world.lease(5, one).is_err());
    assert!(world.lease(5, two.unwrap()).is_ok());
    let after: Vec<String> = world.disk.contents().into_keys().collect();
    assert_eq!(before, after);
}

/// "An empty model id skips the ACL check": nothing has an empty name, and no default stands in for one.
#[test]
fn k15_empty_names_and_selectors_allow_nothing() {
    let (world, package) = World::with_package();
    assert!("".parse::<bield_package::PackageName>().is_err());
    assert!("".parse::<bield_grant::GroupName>().is_err());
    assert!("".parse::<PackageSelector>().is_err() && "@*".parse::<PackageSelector>().is_err());
    assert!("".parse::<UserSelector>().is_err() && "group:".parse::<UserSelector>().is_err());
    for kind in [TeeKind::Sgx, TeeKind::Tdx, TeeKind::Snp] {
        assert!(Measurement::new(kind, &[]).is_err());
    }
    let nothing = bield_envelope::Digest::from_bytes([0; 32]);
    assert_eq!(
        world.lease(5, nothing).map(drop),
        Err("unknown-package".into())
    );
    let reference = PackageReference::Named(principal(1), String::new(), None);
    let request = Request::KeyConfiguration(reference, exactly(5));
    assert!(world.say(&mut session(), request).is_err());
    assert_eq!(
        world.lease(5, package).map(drop),
        Err("code-not-granted".into()),
        "no grant, no key"
    );
    let to_nobody = UserSelector::Group("nobody".parse().unwrap());
    world
        .grant(
            &key(1),
            Grant {
                user: to_nobody,
                ..grant(1, package)
            },
        )
        .unwrap();
    let to = world.find(package, exactly(5)).unwrap();
    let sealed = seal(&to.key, to.audience, package, &key(2), world.now());
    let served = Material::new(world.lease(5, package).unwrap()).serve(&sealed, world.now());
    assert_eq!(
        served,
        Err("user-not-granted".into()),
        "a group that is not there has no members"
    );
}

/// "A short model id reads past its end; identity keys of any length are accepted": who owns a thing is a
/// signature by 32 bytes, not how a text begins.
#[test]
fn k16_ownership_is_a_signature_and_keys_have_one_length() {
    let (world, package) = World::with_package();
    let thief = key(3);
    world.order(&thief, Operation::Register).unwrap();
    let stolen = world.put(&thief, "shelter", "1.0.0").unwrap();
    assert_ne!(stolen, package, "the same name is another package");
    assert_eq!(
        world.grant(&thief, grant(1, package)).map(drop),
        Err("not-owner".into())
    );
    for order in [
        Operation::DeletePackage(package),
        Operation::RotateAudience {
            package,
            at_once: true,
        },
    ] {
        assert_eq!(
            world.order(&thief, order).map(drop),
            Err("not-owner".into())
        );
    }
    // Another's header, under the thief's command.
    let mut with = session();
    let command = sign(
        &with,
        &thief,
        cast::offer(&header(&key(1), "loot", "1.0.0"), 9),
    );
    let put = Request::PutPackage(command, Secret::from_bytes([9; 32]));
    assert_eq!(
        world.say(&mut with, put).map(drop),
        Err("invalid-signature".into())
    );
    // Its own header that names another as the owner.
    let says = PackageHeader {
        owner: principal(1),
        ..PackageHeader::clone(&header(&thief, "loot", "1.0.0"))
    };
    let forged = Operation::PutPackage(PackageOffer {
        header: Signed::sign(&thief, says).into_signed(),
        inputs: Vec::new(),
        outputs: Vec::new(),
        key: key_commitment(&Secret::from_bytes([9; 32])),
    });
    let command = sign(&with, &thief, forged);
    let put = Request::PutPackage(command, Secret::from_bytes([9; 32]));
    assert_eq!(world.say(&mut with, put).map(drop), Err("not-owner".into()));
    for length in [0, 16, 31, 33, 64] {
        let text = format!("ed25519:{}", "0a".repeat(length));
        assert!(text.parse::<Principal>().is_err(), "{length} bytes");
    }
}

/// "No audit, no metrics, no admin": what happened to an owner's things is the owner's to read, chained; only
/// administrators order what concerns all.
#[test]
fn k18_owners_read_what_happened_and_administrators_are_named() {
    let (mut world, package) = World::with_grant();
    world.lease(5, package).unwrap();
    assert!(world.lease(6, package).is_err());
    world.revoke(&key(1), 1).unwrap();
    let page = world.audit(&key(1), 0).unwrap();
    let events: Vec<&AuditEvent> = page.entries.iter().map(|entry| &entry.event).collect();
    assert!(matches!(
        events[..],
        [
            AuditEvent::Registered,
            AuditEvent::PackagePut(..),
            AuditEvent::Granted(..),
            AuditEvent::Leased { .. },
            AuditEvent::Revoked(..)
        ]
    ));
    let chain = page
        .entries
        .iter()
        .fold(page.before, |before, entry| chained(&before, entry));
    assert_eq!((chain, page.count), (page.digest, 5));
    assert_eq!((page.refused.len(), &page.refused[0].code), (1, &code(6)));
    world.kill();
    world.start().unwrap();
    let after = world.audit(&key(1), 3).unwrap();
    assert_eq!(
        (after.digest, &after.entries[..]),
        (page.digest, &page.entries[3..])
    );
    for number in [1, ADMINISTRATOR] {
        world.order(&key(number), Operation::Register).unwrap();
        let allowed = world
            .order(&key(number), Operation::RotateIdentity)
            .map(drop);
        let expected = if number == 1 {
            Err("not-administrator".into())
        } else {
            Ok(())
        };
        assert_eq!(allowed, expected);
    }
}

/// "No tenant separation": one owner sees, names, fills and spends nothing of another's.
#[test]
fn k19_owners_are_strangers_to_each_other() {
    let (mut world, package) = World::with_grant();
    let other = key(3);
    world.order(&other, Operation::Register).unwrap();
    assert_eq!(
        world.audit(&other, 0).unwrap().count,
        1,
        "its own registration"
    );
    for listing in [
        Listing::Grants {
            package: None,
            user: None,
            after: None,
        },
        Listing::ToMe { after: None },
    ] {
        let page = world.list(&other, listing).unwrap();
        assert!(matches!(page, ListingPage::Grants(rows, false) if rows.is_empty()));
    }
    let of_package = Listing::Grants {
        package: Some(package),
        user: None,
        after: None,
    };
    assert_eq!(
        world.list(&other, of_package).map(drop),
        Err("not-owner".into())
    );
    // The same id, name and group of another are others.
    let mine = world.put(&other, "shelter", "1.0.0").unwrap();
    let says = Grant {
        user: UserSelector::Principal(principal(9)),
        ..grant(1, mine)
    };
    world.grant(&other, says).unwrap();
    world.revoke(&other, 1).unwrap();
    assert!(world.lease(5, package).is_ok());
    // One that floods waits for its own allowance.
    world.kill();
    world.options.orders_per_minute = 20;
    world.start().unwrap();
    let refused = (0..60)
        .filter(|_| world.order(&other, Operation::Register).is_err())
        .count();
    assert!(refused >= 30, "{refused}");
    assert!(world.order(&key(1), Operation::Register).is_ok());
    assert!(world.lease(5, package).is_ok());
}

/// "Keys are never zeroized or evicted": what was deleted is nowhere to be had, and comes back under new keys;
/// secrets are silent types.
#[test]
fn k20_what_was_deleted_is_forgotten_with_its_keys() {
    let (mut world, package) = World::with_grant();
    let owner = key(1);
    let before = world.lease(5, package).unwrap();
    world
        .order(&owner, Operation::DeletePackage(package))
        .unwrap();
    let gone = |world: &World| world.lease(5, package).map(drop) == Err("unknown-package".into());
    assert!(gone(&world));
    assert_eq!(world.inspect().packages, 0);
    assert!(world.service().snapshot());
    world.end();
    world.start().unwrap();
    assert!(gone(&world), "nor after a start from a snapshot");
    world.put(&owner, "shelter", "1.0.0").unwrap();
    assert!(world.lease(5, package).is_err(), "its grants went with it");
    world.grant(&owner, grant(2, package)).unwrap();
    let after = world.lease(5, package).unwrap();
    let seed =
        |leased: &bield_protocol::service::LeasedKeys| *leased.audience_keys[0].seed.expose();
    assert_ne!(seed(&before), seed(&after));
    // A secret that would print or be copied does not compile; that it is wiped is tested with its type.
    const fn is_wiped<T: zeroize::ZeroizeOnDrop>() {}
    is_wiped::<Secret>();
}

/// "A model with two or more grants hangs it": any number of grantees, each is served, the first and the last.
#[test]
fn f01_every_grantee_of_many_is_served() {
    let (world, package) = World::with_package();
    for number in 0..200_u8 {
        let says = Grant {
            user: UserSelector::Principal(principal(number)),
            code: exactly(5 + number % 3),
            ..grant(number, package)
        };
        world.grant(&key(1), says).unwrap();
    }
    for runtime in [5, 6, 7] {
        let material = Material::new(world.lease(runtime, package).unwrap());
        let to = world.find(package, exactly(runtime)).unwrap();
        for number in [0, 1, 2, 100, 101, 102, 197, 198, 199] {
            let sealed = seal(&to.key, to.audience, package, &key(number), NOON);
            let granted = 5 + number % 3 == runtime;
            assert_eq!(
                material.serve(&sealed, NOON).is_ok(),
                granted,
                "{number} in {runtime}"
            );
        }
    }
}

/// "A denied user asking twice locks out everyone": a refusal changes nothing for anybody.
#[test]
fn f02_a_refusal_is_not_in_anybodys_way() {
    let (world, package) = World::with_grant();
    let mut denied = runtime(6);
    for _ in 0..50 {
        assert!(world.lease_in(&mut denied, package, None).is_err());
        assert!(world.lease_in(&mut runtime(9), package, None).is_err());
    }
    assert!(world.lease(5, package).is_ok());
    let says = Grant {
        code: exactly(6),
        ..grant(2, package)
    };
    world.grant(&key(1), says).unwrap();
    assert!(
        world.lease_in(&mut denied, package, None).is_ok(),
        "nor in its own, once granted"
    );
}

/// "After one failure the channel is never initialised again": a session goes on after each refusal, and a new one
/// after a restart.
#[test]
fn f03_failures_end_no_session_and_restarts_no_runtime() {
    let (mut world, package) = World::with_grant();
    let mut with = session();
    for _ in 0..3 {
        let refused = sign(&with, &key(1), Operation::DeleteGroup("none".into()));
        assert!(world.say(&mut with, Request::Command(refused)).is_err());
        let garbled = Request::PutPackage(
            sign(&with, &key(1), Operation::Register),
            Secret::from_bytes([0; 32]),
        );
        assert!(world.say(&mut with, garbled).is_err());
        let good = sign(&with, &key(1), Operation::Register);
        assert!(world.say(&mut with, Request::Command(good)).is_ok());
    }
    world.kill();
    world.start().unwrap();
    assert!(world.lease(5, package).is_ok());
}

/// "A failed handler ends the accept loop": of messages that are wrong in every field, none is in the way of the
/// next right one.
#[test]
fn f04_no_message_ends_the_service() {
    let (world, package) = World::with_grant();
    let with = session();
    let whole = Request::Command(sign(&with, &key(1), Operation::Register))
        .encode()
        .to_vec();
    let mut answered = 0;
    for at in 0..whole.len() {
        for change in [0x01, 0x80, 0xff] {
            let mut bytes = whole.clone();
            bytes[at] ^= change;
            let Ok(request) = Request::decode(&bytes) else {
                continue;
            };
            let mut fresh = Conversation {
                runtime: None,
                binding: with.binding,
                sequence: 0,
            };
            assert!(world.say(&mut fresh, request).is_err(), "byte {at}");
            answered += 1;
        }
    }
    assert!(
        answered > 100,
        "{answered} altered messages reached the service"
    );
    assert_eq!(world.service().ended(), None);
    assert!(world.lease(5, package).is_ok());
}

/// "The server stops on any unparsable byte stream": random bytes are no message, and decoding them costs little.
#[test]
fn f05_bytes_that_are_no_message_are_refused() {
    let mut random = 7_u64;
    let mut next = || {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (random >> 33) as usize
    };
    for _ in 0..2000 {
        let bytes: Vec<u8> = (0..next() % 300).map(|_| next() as u8).collect();
        assert!(Request::decode(&bytes).is_err() || bytes.len() < 8);
    }
    // A length that claims 2^63 bytes, and nests without end.
    for bytes in [
        vec![0x9b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        vec![0x81; 100_000],
    ] {
        assert!(Request::decode(&bytes).is_err());
    }
}

/// "Shared buffer and maps without locks: two simultaneous clients can mix requests": each of many at once gets
/// what it asked for, and all of it counts.
#[test]
fn f06_many_at_once_never_mix() {
    const EACH: u8 = 12;
    let world = World::started();
    std::thread::scope(|scope| {
        for number in 1..=8_u8 {
            let world = &world;
            scope.spawn(move || {
                let owner = key(number);
                world.order(&owner, Operation::Register).unwrap();
                for round in 0..EACH {
                    let name = format!("model-{number}");
                    let package = world.put(&owner, &name, &format!("1.{round}.0")).unwrap();
                    let runtime = 100 + number;
                    let says = Grant {
                        code: exactly(runtime),
                        ..grant(round, package)
                    };
                    let granted = world.grant(&owner, says).unwrap();
                    let leased = world.lease(runtime, package).unwrap();
                    assert_eq!(leased.lease.package, package);
                    assert_eq!(leased.lease.owner, owner.principal());
                    assert_eq!(leased.lease.code.measurement, code(runtime));
                    assert_eq!(leased.grants.len(), 1);
                    assert_eq!(leased.grants[0].as_bytes(), granted.as_bytes());
                }
            });
        }
    });
    let counts = world.inspect();
    assert_eq!(
        (counts.principals, counts.packages, counts.grants),
        (8, 96, 96)
    );
    for number in 1..=8 {
        let count = world.audit(&key(number), 0).unwrap().count;
        assert_eq!(count, 1 + 3 * u64::from(EACH));
    }
}

/// "Unsealing a file whose bound name does not match reports success with an uninitialised buffer": every file is
/// bound to its place, and swapped or altered ones are refused with a sentence.
#[test]
fn f07_files_in_each_others_places_are_refused() {
    let (mut world, package) = World::with_grant();
    assert!(world.service().snapshot());
    world.order(&key(7), Operation::Register).unwrap();
    world.kill();
    let whole = world.disk.contents();
    let names: Vec<String> = whole.keys().cloned().collect();
    assert!(names.len() >= 4, "root, two logs, a snapshot: {names:?}");
    let start = |contents| InProcess::start(MemoryFiles::with(contents), &world.options);
    for one in &names {
        for two in names.iter().filter(|two| **two > *one) {
            let mut swapped = whole.clone();
            swapped.insert(one.clone(), whole[two].clone());
            swapped.insert(two.clone(), whole[one].clone());
            let refused = start(swapped).err();
            let refused = refused.unwrap_or_else(|| panic!("{one} and {two} swapped"));
            assert!(refused.len() > 20, "a sentence: {refused}");
        }
    }
    assert!(start(whole).is_ok());
    assert_eq!(world.disk.contents().len(), names.len());
    world.start().unwrap();
    assert!(world.lease(5, package).is_ok());
}

/// A lease returns once, from the code that has it: what comes twice or from elsewhere is not another quota.
#[test]
fn k11_returns_are_not_taken_twice() {
    let (world, package) = World::with_package();
    let says = Grant {
        requests: Some(4),
        ..grant(1, package)
    };
    let granted = world.grant(&key(1), says).unwrap();
    let leased = world.lease(5, package).unwrap();
    let returned = Returned {
        lease: leased.lease.id,
        unused: leased.allotments.clone(),
    };
    for from in [6, 5, 5, 5] {
        let request = Request::Return(returned.clone());
        assert!(world.say(&mut runtime(from), request).is_ok());
    }
    let all = Listing::Grants {
        package: None,
        user: None,
        after: None,
    };
    let ListingPage::Grants(rows, _) = world.list(&key(1), all).unwrap() else {
        panic!("grants")
    };
    assert_eq!(rows[0].left, Some(4));
    assert_eq!(rows[0].grant.as_bytes(), granted.as_bytes());
}
