//! Orders about the service as a whole.

use bield_envelope::{Signed, SigningKey};
use bield_evidence::{Measurement, TeeKind};
use bield_grant::Succession;
use bield_protocol::service::{Operation, Recovered, Reply, Request, Share};
use zeroize::Zeroizing;

use crate::service::Desk;
use crate::service::cast::{NOON, Scene, code, grant, key, limits, principal, root, succession};
use crate::state::limits::KNOWN_CODES_MAX;
use crate::state::{Ask, Limits, Order, RecoveryLimits, Started, State};

fn with_administrator() -> (Scene, SigningKey) {
    let mut scene = Scene::new();
    scene.order(&key(99), Operation::Register).unwrap();
    scene.order(&key(1), Operation::Register).unwrap();
    (scene, key(99))
}

fn shares(generation: u32, threshold: u8, count: u8) -> Vec<Share> {
    let share = |number| Share {
        generation,
        number,
        threshold,
        bytes: Zeroizing::new(vec![number; 33]),
    };
    (1..=count).map(share).collect()
}

fn make(
    scene: &mut Scene,
    by: u8,
    holders: &[u8],
    threshold: u8,
    shares: Vec<Share>,
) -> Result<(), String> {
    let ask = Ask::Order {
        by: principal(by),
        order: Order::MakeShares {
            holders: holders.iter().map(|holder| principal(*holder)).collect(),
            threshold,
            shares,
        },
    };
    scene
        .desk
        .ask(&ask, NOON)
        .map(drop)
        .map_err(|refusal| refusal.code)
}

#[test]
fn only_administrators_and_their_successors_order_what_concerns_all() {
    let (mut scene, administrator) = with_administrator();
    for order in [
        Operation::RotateIdentity,
        Operation::AdmitCode(code(7)),
        Operation::WithdrawCode(code(7)),
        Operation::MakeShares {
            holders: vec![principal(1)],
            threshold: 1,
        },
    ] {
        let refused = scene.order(&key(1), order).map(drop);
        assert_eq!(refused, Err("not-administrator".into()));
    }
    let heir = key(98);
    let succeed = Operation::Succeed(succession(&administrator, &heir, NOON));
    scene.order(&administrator, succeed).unwrap();
    assert_eq!(
        scene.changes(&heir, Operation::AdmitCode(code(7))),
        Ok(true)
    );
    let old = scene
        .order(&administrator, Operation::AdmitCode(code(8)))
        .map(drop);
    assert_eq!(old, Err("succeeded".into()));
}

#[test]
fn each_identity_key_signs_the_next_and_the_first_one_names_the_service() {
    let (mut scene, administrator) = with_administrator();
    let first = scene.desk.state().service();
    for _ in 0..2 {
        scene
            .order(&administrator, Operation::RotateIdentity)
            .unwrap();
    }
    let state = scene.desk.state();
    assert_ne!(state.service(), first);
    assert_eq!(state.first_service(), first);
    let mut at = first;
    for succeeded in state.identity_successions() {
        let by_old: Signed<Succession> = succeeded.by_old.clone();
        let says = by_old.verify(&at).unwrap();
        succeeded.by_new.clone().verify(&says.to).unwrap();
        at = says.to;
    }
    assert_eq!(at, state.service());
    let service = state.service();
    let reply = scene
        .as_runtime(5, Request::Certify(principal(50)))
        .unwrap();
    let Reply::Certificate(certificate) = reply else {
        panic!("no certificate")
    };
    assert!(certificate.verify(&service).is_ok());
}

#[test]
fn code_may_join_from_its_admission_to_its_withdrawal() {
    let (mut scene, administrator) = with_administrator();
    let admit = |scene: &mut Scene| scene.changes(&administrator, Operation::AdmitCode(code(7)));
    assert!(!scene.desk.state().is_admitted(&code(7)));
    assert_eq!(admit(&mut scene), Ok(true));
    assert_eq!(admit(&mut scene), Ok(false));
    assert!(scene.desk.state().is_admitted(&code(7)));
    let withdraw = Operation::WithdrawCode(code(7));
    assert_eq!(scene.changes(&administrator, withdraw.clone()), Ok(true));
    assert_eq!(scene.changes(&administrator, withdraw), Ok(false));
    assert_eq!(scene.desk.state().admitted().count(), 0);
    assert!(scene.desk.state().is_withdrawn(&code(7)));
    assert_eq!(admit(&mut scene), Ok(true));
    assert!(!scene.desk.state().is_withdrawn(&code(7)));
}

#[test]
fn code_that_nobody_admitted_is_withdrawn_too_and_a_snapshot_remembers_it() {
    let (mut scene, administrator) = with_administrator();
    let withdraw = Operation::WithdrawCode(code(7));
    assert_eq!(scene.changes(&administrator, withdraw), Ok(true));
    let bytes = scene.desk.state().to_bytes();
    let again = State::decode(&bytes, root(), limits()).unwrap();
    assert!(again.is_withdrawn(&code(7)) && !again.is_withdrawn(&code(8)));
    assert_eq!(again.to_bytes(), bytes);
}

#[test]
fn known_codes_are_bounded_and_what_was_admitted_can_always_be_withdrawn() {
    let (mut scene, _) = with_administrator();
    let mut order = |order| {
        let by = principal(99);
        let asked = scene.desk.ask(&Ask::Order { by, order }, NOON);
        asked.map(drop).map_err(|refusal| refusal.code)
    };
    let numbered = |number: u16| {
        let mut bytes = [0; 32];
        bytes[..2].copy_from_slice(&number.to_be_bytes());
        Measurement::new(TeeKind::Sgx, &bytes).unwrap()
    };
    let max = u16::try_from(KNOWN_CODES_MAX).unwrap();
    assert_eq!(order(Order::AdmitCode(numbered(0))), Ok(()));
    for number in 1..max {
        assert_eq!(order(Order::WithdrawCode(numbered(number))), Ok(()));
    }
    for more in [Order::WithdrawCode, Order::AdmitCode] {
        assert_eq!(order(more(numbered(max))), Err("full".into()));
    }
    assert_eq!(order(Order::WithdrawCode(numbered(0))), Ok(()));
    assert_eq!(order(Order::AdmitCode(numbered(1))), Ok(()));
}

#[test]
fn a_holder_fetches_its_own_newest_share_and_nobody_elses() {
    let (mut scene, _) = with_administrator();
    scene.order(&key(2), Operation::Register).unwrap();
    assert_eq!(make(&mut scene, 99, &[1, 2], 2, shares(1, 2, 2)), Ok(()));
    let take = |scene: &mut Scene, by: u8| match scene.order(&key(by), Operation::TakeShare) {
        Ok(Reply::Share(share)) => Ok((share.generation, share.number)),
        Ok(_) => panic!("no share"),
        Err(code) => Err(code),
    };
    assert_eq!(take(&mut scene, 1), Ok((1, 1)));
    assert_eq!(take(&mut scene, 2), Ok((1, 2)));
    assert_eq!(take(&mut scene, 99), Err("not-holder".into()));
    assert_eq!(make(&mut scene, 99, &[2, 3], 2, shares(2, 2, 2)), Ok(()));
    assert_eq!(take(&mut scene, 1), Err("not-holder".into()));
    assert_eq!(take(&mut scene, 2), Ok((2, 1)));
    let heir = key(12);
    scene
        .order(
            &key(2),
            Operation::Succeed(succession(&key(2), &heir, NOON)),
        )
        .unwrap();
    assert_eq!(take(&mut scene, 12), Ok((2, 1)));
    assert_eq!(
        scene.desk.state().shares(),
        Some((2, 2, &[principal(2), principal(3)][..]))
    );
    // The successor of a configured holder is one too.
    assert_eq!(make(&mut scene, 99, &[12, 1], 2, shares(3, 2, 2)), Ok(()));
}

/// A service with this configuration, in which principal 99 is registered.
fn configured(recovery: Option<RecoveryLimits>, admits_code: bool) -> Desk {
    let limits = Limits {
        recovery,
        admits_code,
        ..limits()
    };
    let mut desk = Desk::new(root(), limits);
    let ask = Ask::Order {
        by: principal(99),
        order: Order::Register,
    };
    desk.ask(&ask, NOON).map(drop).unwrap();
    desk
}

#[test]
fn shares_go_to_configured_holders_with_a_configured_threshold() {
    let holders = |holders: &[u8], threshold_min| {
        let holders = holders.iter().map(|holder| principal(*holder)).collect();
        Some(RecoveryLimits {
            holders,
            threshold_min,
        })
    };
    let makes = |recovery, to: &[u8], threshold: u8| {
        let mut desk = configured(recovery, false);
        let ask = Ask::Order {
            by: principal(99),
            order: Order::MakeShares {
                holders: to.iter().map(|holder| principal(*holder)).collect(),
                threshold,
                shares: shares(1, threshold, u8::try_from(to.len()).unwrap()),
            },
        };
        desk.ask(&ask, NOON)
            .map(drop)
            .map_err(|refusal| refusal.code)
    };
    let refused = || Err("not-configured".to_owned());
    assert_eq!(makes(None, &[1, 2], 2), refused());
    assert_eq!(makes(holders(&[1, 2, 3], 2), &[1, 2], 2), Ok(()));
    assert_eq!(makes(holders(&[1, 2, 3], 2), &[1, 99], 2), refused());
    assert_eq!(makes(holders(&[1, 2, 3], 3), &[1, 2], 2), refused());
    assert_eq!(makes(holders(&[1, 2, 3], 3), &[1, 2, 3], 3), Ok(()));
    // Never one of several alone, whatever the configuration says.
    assert_eq!(makes(holders(&[1, 2], 1), &[1], 1), refused());
    assert_eq!(makes(holders(&[1], 1), &[1], 1), Ok(()));
    assert_eq!(makes(holders(&[1], 1), &[99], 1), refused());
}

#[test]
fn no_code_is_let_in_unless_the_configuration_says_so() {
    let asks = |admits_code, order| {
        let mut desk = configured(None, admits_code);
        let ask = Ask::Order {
            by: principal(99),
            order,
        };
        let done = desk.ask(&ask, NOON).map(drop);
        done.map_err(|refusal| refusal.code)
    };
    assert_eq!(
        asks(false, Order::AdmitCode(code(7))),
        Err("not-configured".into())
    );
    assert_eq!(asks(true, Order::AdmitCode(code(7))), Ok(()));
    assert_eq!(asks(false, Order::WithdrawCode(code(7))), Ok(()));
}

#[test]
fn shares_that_could_not_recover_are_refused() {
    let (mut scene, _) = with_administrator();
    let malformed = || Err("malformed".to_owned());
    assert_eq!(make(&mut scene, 99, &[], 1, shares(1, 1, 0)), malformed());
    assert_eq!(
        make(&mut scene, 99, &[1, 1], 2, shares(1, 2, 2)),
        malformed()
    );
    assert_eq!(
        make(&mut scene, 99, &[1, 2], 1, shares(1, 1, 2)),
        malformed()
    );
    assert_eq!(
        make(&mut scene, 99, &[1, 2], 3, shares(1, 3, 2)),
        malformed()
    );
    assert_eq!(
        make(&mut scene, 99, &[1, 2], 2, shares(2, 2, 2)),
        malformed()
    );
    assert_eq!(
        make(&mut scene, 99, &[1, 2], 2, shares(1, 2, 1)),
        malformed()
    );
    assert_eq!(scene.desk.state().shares(), None);
}

#[test]
fn a_recovery_begins_the_next_log_and_reuses_no_lease_number() {
    let (mut scene, package) = Scene::with_package();
    scene.grant(&key(1), grant(1, package)).unwrap();
    let before = scene.lease(5, package).unwrap().lease.id;
    let recovered = Recovered {
        origin: "bield/keys/00".into(),
        size: 7,
        root: [1; 32],
        holders: vec![principal(1)],
        at: NOON,
        next: "bield/keys/01".into(),
    };
    scene
        .desk
        .ask(&Ask::Recovered(recovered.clone()), NOON)
        .unwrap();
    assert_eq!(scene.desk.state().epoch(), 1);
    assert_eq!(scene.desk.state().recoveries(), [recovered]);
    assert!(scene.lease(5, package).unwrap().lease.id >= before + (1 << 40));
}

#[test]
fn the_newest_start_is_remembered() {
    let mut scene = Scene::new();
    let started = Started {
        nonce: [9; 32],
        member: 2,
    };
    scene.desk.ask(&Ask::Started(started), NOON).unwrap();
    assert_eq!(scene.desk.state().started(), Some(started));
}
