//! K1 to K6: whose word counts, and what stays secret.

use super::*;

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
