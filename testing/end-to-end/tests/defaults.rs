//! Without being told, nobody trusts a software TEE, and no release program contains one.

#![expect(
    clippy::unwrap_used,
    reason = "a failed unwrap in a test is a failed test"
)]

use std::fs;

use bield_end_to_end::{Shared, Stack, program};
use bield_evidence::{Outcome, PolicyConfig, Profile};
use bield_sdk::{Home, KeyService, Randomness, ServiceError, Trust, TrustConfig, now};

static STACK: Shared<Stack> = Shared::new(Stack::start);

/// Whoever deploys by the book: this measurement, this profile, nothing said about simulation.
fn by_default(trust: TrustConfig, profile: Profile) -> Trust {
    let measurements = trust.service.measurements.clone();
    let service = PolicyConfig {
        measurements,
        ..PolicyConfig::new(profile)
    };
    TrustConfig { service, ..trust }.into_trust().unwrap()
}

/// Of somebody who has met no key service.
fn new_home() -> (tempfile::TempDir, Home) {
    let directory = tempfile::tempdir().unwrap();
    let home = Home::at(directory.path().join("home"));
    home.create_identity(&mut Randomness).unwrap();
    (directory, home)
}

#[test]
fn default_policies_refuse_the_software_tee() {
    let stack = STACK.get();
    let (_directory, home) = new_home();
    for profile in [Profile::Strict, Profile::Cloud, Profile::Dev] {
        let trust = by_default(stack.trust(), profile);
        let refused = KeyService::connect(&home, &trust, now(), &mut Randomness).err();
        let Some(error @ ServiceError::Session { .. }) = refused else {
            panic!("{profile}: {:?}", refused.map(|error| error.to_string()));
        };
        assert!(error.to_string().contains("root"), "{profile}: {error}");

        let verified = bield_sdk::verify(&home, &trust, now(), &mut Randomness).unwrap();
        assert!(!verified.passed(), "{profile}");
        assert!(
            verified.with(Outcome::Failed).next().is_some(),
            "{:#?}",
            verified.checks
        );
    }
}

#[test]
fn a_trusted_root_alone_does_not_make_a_software_tee_acceptable() {
    let stack = STACK.get();
    let trust = stack.trust();
    for profile in [Profile::Strict, Profile::Cloud] {
        let mut config = stack.trust();
        config.service.profile = profile;
        let refused = config.into_trust().err().unwrap().to_string();
        assert!(refused.contains("allow_simulated"), "{refused}");
    }
    let mut silent = trust;
    silent.service.allow_simulated = false;
    let refused = silent.into_trust().err().unwrap().to_string();
    assert!(refused.contains("allow_simulated"), "{refused}");
}

#[test]
fn an_accepted_root_with_other_code_is_refused_naming_the_measurement() {
    let stack = STACK.get();
    let (_directory, home) = new_home();
    let mut config = stack.trust();
    config.service.measurements = vec![stack.runtime_code.to_string()];
    let trust = config.into_trust().unwrap();
    let error = KeyService::connect(&home, &trust, now(), &mut Randomness)
        .err()
        .unwrap()
        .to_string();
    assert!(error.contains("measurement"), "{error}");
    let verified = bield_sdk::verify(&home, &trust, now(), &mut Randomness).unwrap();
    let failed: Vec<_> = verified
        .with(Outcome::Failed)
        .map(|check| check.name)
        .collect();
    assert_eq!(failed, ["measurement"]);
}

#[test]
fn release_programs_do_not_contain_the_simulator() {
    let contains = |name: &str| {
        let bytes = fs::read(program(name).unwrap()).unwrap();
        // As text with replacements: its search is quick in a debug build, and the marker is ASCII.
        String::from_utf8_lossy(&bytes).contains(bield_software_tee::MARKER)
    };
    assert!(contains("bield-software-tee"));
    for name in ["bield", "bield-gateway", "bield-keys", "bield-runtime"] {
        assert!(!contains(name), "{name}");
    }
}
