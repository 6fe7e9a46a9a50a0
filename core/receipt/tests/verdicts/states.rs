//! Stories of receipts that name a state: which state an answer came from, and that none was set back.

use crate::cast::{CAPSULE, Cast, after, before, digest, head, heads};
use bield_capsule::{CapsuleName, History, WriterId};
use bield_envelope::Digest;
use bield_evidence::Outcome::{self, Failed, NotChecked, Passed};
use bield_receipt::{
    CheckedLog, Expected, ExpectedState, RECEIPT_BYTES_MAX, Receipt, ReceiptBundle, StateSpan,
    examine,
};

/// All records of writers 1 and 2 up to a position.
struct Log(u64);

impl History for Log {
    fn hash_at(&self, writer: &WriterId, seq: u64) -> Option<Digest> {
        let writer = writer.as_bytes()[0];
        (seq <= self.0 && [1, 2].contains(&writer)).then(|| head(writer, seq).hash)
    }
}

fn log(records: &Log) -> Option<CheckedLog<'_>> {
    Some(CheckedLog {
        capsule: CAPSULE,
        records,
    })
}

/// What the checks of the state say, and whether the receipt is believed.
fn told(bundle: &ReceiptBundle, state: ExpectedState<'_>) -> ([Outcome; 3], bool) {
    let cast = Cast::new();
    let expected = Expected {
        state,
        ..cast.expected()
    };
    let report = examine(bundle, &cast.anchor(), expected, cast.now());
    let outcome = |name: &str| {
        let mut checks = report.checks().iter();
        checks.find(|check| check.name == name).unwrap().outcome
    };
    let outcomes = ["state", "state-seen", "state-log"].map(outcome);
    (outcomes, report.passed())
}

fn without_heads() -> ReceiptBundle {
    ReceiptBundle {
        state: None,
        ..Cast::new().bundle_on_state()
    }
}

#[test]
fn everything_that_is_known_of_a_state_is_compared() {
    let (after, seen, records) = (after(), heads(&[(2, 3)]), Log(100));
    let known = ExpectedState {
        after: Some(&after),
        seen: Some(&seen),
        log: log(&records),
    };
    let all = ([Passed, Passed, Passed], true);
    assert_eq!(told(&Cast::new().bundle_on_state(), known), all);
    assert_eq!(
        told(&without_heads(), known),
        all,
        "the answer's token does"
    );
    let carried = ExpectedState {
        after: None,
        ..known
    };
    assert_eq!(
        told(&Cast::new().bundle_on_state(), carried),
        all,
        "the bundle's heads do"
    );
    let nothing = ([NotChecked, NotChecked, NotChecked], true);
    assert_eq!(told(&without_heads(), ExpectedState::default()), nothing);
    let alone = ([Passed, NotChecked, NotChecked], true);
    assert_eq!(
        told(&Cast::new().bundle_on_state(), ExpectedState::default()),
        alone
    );
}

#[test]
fn a_model_has_no_state_and_none_may_be_claimed() {
    let cast = Cast::new();
    let all = ([Passed, Passed, Passed], true);
    assert_eq!(told(&cast.bundle(), ExpectedState::default()), all);
    let heads = after();
    let claimed = ReceiptBundle {
        state: Some(after()),
        ..cast.bundle()
    };
    assert_eq!(told(&claimed, ExpectedState::default()).0[0], Failed);
    let token = ExpectedState {
        after: Some(&heads),
        ..ExpectedState::default()
    };
    assert_eq!(told(&cast.bundle(), token).0[0], Failed);
    let seen = ExpectedState {
        seen: Some(&heads),
        ..ExpectedState::default()
    };
    assert_eq!(told(&cast.bundle(), seen).0[1], Failed, "its state is gone");
}

#[test]
fn heads_that_the_receipt_does_not_name_are_refused() {
    let cast = Cast::new();
    let other = heads(&[(1, 7), (2, 6)]);
    let carried = ReceiptBundle {
        state: Some(other.clone()),
        ..cast.bundle_on_state()
    };
    let records = Log(100);
    let known = ExpectedState {
        log: log(&records),
        ..ExpectedState::default()
    };
    assert_eq!(
        told(&carried, known),
        ([Failed, NotChecked, NotChecked], false)
    );
    let token = ExpectedState {
        after: Some(&other),
        ..ExpectedState::default()
    };
    assert_eq!(told(&cast.bundle_on_state(), token).0[0], Failed);
}

#[test]
fn a_state_that_was_set_back_is_refused_by_whoever_saw_more() {
    for (seen, outcome) in [
        (before(), Passed),
        (after(), Passed),
        (heads(&[(2, 6)]), Failed),
        (heads(&[(1, 8), (2, 3)]), Failed),
        (heads(&[(2, 3), (3, 0)]), NotChecked), // a writer that the holder's chain builds on, or one that is lost
    ] {
        let known = ExpectedState {
            seen: Some(&seen),
            ..ExpectedState::default()
        };
        let (outcomes, passed) = told(&Cast::new().bundle_on_state(), known);
        assert_eq!(
            (outcomes[1], passed),
            (outcome, outcome != Failed),
            "{seen:?}"
        );
    }
    let (seen, records) = (heads(&[(3, 0)]), Log(100));
    let lost = ExpectedState {
        seen: Some(&seen),
        log: log(&records),
        ..ExpectedState::default()
    };
    assert_eq!(
        told(&Cast::new().bundle_on_state(), lost).0[2],
        Failed,
        "the log has it not"
    );
}

#[test]
fn both_states_are_moments_of_the_very_capsule_one_after_the_other() {
    let cast = Cast::new();
    let of = |before: Digest, records: &Log, capsule: CapsuleName| {
        let receipt = Receipt {
            state: Some(StateSpan {
                capsule: CAPSULE,
                before,
                after: after().digest(),
            }),
            ..cast.receipt()
        };
        let bundle = ReceiptBundle {
            state: Some(after()),
            ..cast.bundle_of(cast.certificate(), receipt)
        };
        let state = ExpectedState {
            log: Some(CheckedLog { capsule, records }),
            ..ExpectedState::default()
        };
        told(&bundle, state).0[2]
    };
    let found = before().digest();
    assert_eq!(
        of(found, &Log(5), CAPSULE),
        Failed,
        "writer 1's record 7 is not there"
    );
    assert_eq!(of(found, &Log(7), CAPSULE), Passed);
    assert_eq!(
        of(after().digest(), &Log(7), CAPSULE),
        Passed,
        "it wrote nothing"
    );
    let later = heads(&[(1, 7), (2, 6)]).digest();
    for never in [later, digest(b"nothing"), heads(&[(1, 6), (2, 3)]).digest()] {
        assert_eq!(of(never, &Log(100), CAPSULE), Failed);
    }
    let other = CapsuleName::from_bytes([1; 32]);
    assert_eq!(of(found, &Log(100), other), Failed);
}

#[test]
fn a_receipt_with_the_longest_code_and_a_state_fits() {
    let code = bield_evidence::Measurement::new(bield_evidence::TeeKind::Snp, &[0xff; 48]).unwrap();
    let receipt = Receipt {
        code,
        at: bield_envelope::Time::from_millis(u64::MAX),
        ..Cast::new().receipt_on_state()
    };
    let bytes = bield_envelope::wire::encode(&receipt).len();
    assert!(bytes + 16 <= RECEIPT_BYTES_MAX, "{bytes}");
}
