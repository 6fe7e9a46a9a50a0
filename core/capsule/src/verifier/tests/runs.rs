//! Runs: one signature for many records, and nothing less checked.

use super::author::{Stage, forged};
use crate::{Change, Received, Refused};

fn run() -> (Stage, Vec<Received>) {
    let (stage, mut author) = Stage::with_author();
    let run = (0..40).map(|_| author.data()).collect();
    (stage, run)
}

#[test]
fn a_run_checks_the_newest_signature_and_every_hash() {
    let (mut stage, run) = run();
    let verified = stage.verifier.verify_run(run.clone()).unwrap();
    let checked: Vec<_> = verified.iter().map(|one| one.signature_checked()).collect();
    assert_eq!(checked.iter().filter(|checked| **checked).count(), 1);
    assert!(checked[39]);
    let storable = verified.iter().filter(|one| one.storable().is_some());
    assert_eq!(storable.count(), 1, "the others have nothing to show");
    for one in verified {
        stage.verifier.apply(one).unwrap();
    }
    let chain = stage.verifier.chains().next().unwrap();
    assert_eq!(chain.tip(), run[39].head());
    assert_eq!(chain.signed_head().head(), run[39].head());
}

#[test]
fn a_forged_signature_below_the_newest_changes_no_meaning_and_is_not_passed_on() {
    let (mut stage, mut run) = run();
    run[7] = forged(&run[7]);
    let verified = stage.verifier.verify_run(run.clone()).unwrap();
    for one in verified.into_iter().take(10) {
        stage.verifier.apply(one).unwrap();
    }
    let chain = stage.verifier.chains().next().unwrap();
    assert_eq!(chain.tip(), run[9].head());
    assert_eq!(
        chain.signed_head().head().seq,
        0,
        "the newest that was checked"
    );
    run[39] = forged(&run[39]);
    let rest = stage.verifier.verify_run(run.split_off(10));
    assert!(matches!(rest, Err((29, Refused::Signature))));
}

#[test]
fn a_run_with_a_hole_a_swap_or_a_stranger_is_refused_where_it_breaks() {
    let (stage, run) = run();
    let mut hole = run.clone();
    hole.remove(5);
    let refused = stage.verifier.verify_run(hole);
    assert!(matches!(
        refused,
        Err((
            5,
            Refused::Gap {
                have: Some(5),
                got: 7,
                ..
            }
        ))
    ));
    let mut swapped = run.clone();
    swapped.swap(5, 6);
    assert!(matches!(
        stage.verifier.verify_run(swapped),
        Err((5, Refused::Gap { .. }))
    ));
    let mut twice = run.clone();
    twice.insert(5, run[4].clone());
    assert!(matches!(
        stage.verifier.verify_run(twice),
        Err((5, Refused::Known { .. }))
    ));
    let mut mixed = run;
    mixed[3] = stage.owner.clone().configure(&[Change::Quota(1)]);
    let refused = stage.verifier.verify_run(mixed);
    assert!(matches!(refused, Err((3, Refused::OtherWriter { .. }))));
    assert_eq!(stage.verifier.verify_run(Vec::new()).unwrap().len(), 0);
}

#[test]
fn a_foreign_record_inside_of_a_run_is_refused_although_the_newest_signature_is_right() {
    let (stage, mut author) = Stage::with_author();
    let mut twin = author.clone();
    let run = [author.data(), author.data(), author.data()];
    twin.data();
    let other = twin.data_of(&[9; 40]);
    let refused = stage
        .verifier
        .verify_run(vec![run[0].clone(), other, run[2].clone()]);
    assert!(matches!(refused, Err((2, Refused::Prev))));
}

#[test]
fn config_and_open_records_in_a_run_are_checked_one_by_one() {
    let mut stage = Stage::new(crate::Suite::Ed25519, &[]);
    let mut author = stage.author(1);
    let admit = Change::admit(author.key().public());
    let configs = vec![
        stage.owner.configure(&[Change::Quota(1)]),
        stage.owner.configure(&[admit]),
        stage.owner.configure(&[Change::Quota(2)]),
    ];
    let mut bad = configs.clone();
    bad[1] = forged(&bad[1]);
    assert!(matches!(
        stage.verifier.verify_run(bad),
        Err((1, Refused::Signature))
    ));
    for one in stage.verifier.verify_run(configs).unwrap() {
        assert!(one.signature_checked());
        stage.verifier.apply(one).unwrap();
    }
    let run = vec![
        author.open(stage.owner.head(), None),
        author.data(),
        author.data(),
    ];
    let mut bad = run.clone();
    bad[0] = forged(&bad[0]);
    assert!(matches!(
        stage.verifier.verify_run(bad),
        Err((0, Refused::Signature))
    ));
    let verified = stage.verifier.verify_run(run).unwrap();
    let checked: Vec<_> = verified.iter().map(|one| one.signature_checked()).collect();
    assert_eq!(checked, [true, false, true]);
}
