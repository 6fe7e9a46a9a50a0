//! Functions' states: who holds one, what is anchored, and who may not touch it.

mod property;

use core::time::Duration;

use bield_capsule::{CapsuleName, Head, WriterId};
use bield_envelope::Digest;
use bield_package::PackageHeader;
use bield_protocol::service::{
    Anchors, AuditEvent, GrantId, HeldState, Operation, Reply, Request, STATE_HEADS_MAX,
    STATE_HOLD_SECS, StateAct, StateRequest,
};
use bield_receipt::StateHeads;

use crate::service::cast::{
    NOON, Scene, appraised, code, grant, header, key, limits, root, succession,
};
use crate::state::{Ask, Entry, STATES_EACH_MAX, STATES_MAX, State};

const SECOND: Duration = Duration::from_secs(1);
const HOLD: Duration = Duration::from_secs(STATE_HOLD_SECS);

fn capsule(number: u8) -> CapsuleName {
    CapsuleName::from_bytes([number; 32])
}

fn writer(number: u8) -> WriterId {
    WriterId::from_bytes([number; 32])
}

fn head(by: u8, seq: u64) -> Head {
    Head {
        writer: writer(by),
        seq,
        hash: Digest::of("test head", &[&[by], &seq.to_be_bytes()]),
    }
}

fn digest(heads: &[Head]) -> Digest {
    StateHeads::new(heads.to_vec()).unwrap().digest()
}

fn anchors(token: u64, heads: &[Head], covered: &[u8]) -> Anchors {
    Anchors {
        token,
        heads: heads.to_vec(),
        covered: covered.iter().map(|by| writer(*by)).collect(),
    }
}

/// A function of owner 1, granted to code 5, with state 1.
struct Stage {
    scene: Scene,
    package: Digest,
}

impl Stage {
    fn new() -> Self {
        let (mut scene, package) = Scene::with_package();
        scene.grant(&key(1), grant(1, package)).unwrap();
        Self { scene, package }
    }

    fn act(&mut self, by: u8, act: StateAct) -> Result<HeldState, String> {
        let (package, capsule) = (self.package, capsule(1));
        self.ask(5, package, capsule, by, act)
    }

    fn ask(
        &mut self,
        code: u8,
        package: Digest,
        capsule: CapsuleName,
        by: u8,
        act: StateAct,
    ) -> Result<HeldState, String> {
        let request = Request::State(StateRequest {
            package,
            capsule,
            writer: writer(by),
            act,
        });
        match self.scene.as_runtime(code, request)? {
            Reply::State(held) => Ok(held),
            _ => panic!("no state"),
        }
    }

    fn hold(&mut self, by: u8) -> Result<HeldState, String> {
        self.act(by, StateAct::Hold)
    }

    fn anchor(&mut self, by: u8, token: u64, heads: &[Head]) -> Result<HeldState, String> {
        self.act(by, StateAct::Anchor(anchors(token, heads, &[])))
    }

    fn wait(&mut self, time: Duration) {
        self.scene.now = self.scene.now.plus(time);
    }

    /// Another package of owner 1, granted to this code; versions end in distinct digits.
    fn further(&mut self, name: &str, version: &str, to: u8) -> Digest {
        let package = self.scene.put(&key(1), name, version).unwrap();
        let mut grant = grant(version.as_bytes()[4], package);
        grant.code = bield_grant::CodeSelector::Measurement(code(to));
        self.scene.grant(&key(1), grant).unwrap();
        package
    }
}

#[test]
fn of_two_runtimes_that_want_a_state_one_holds_it_until_its_time_has_passed() {
    let mut stage = Stage::new();
    let first = stage.hold(1).unwrap();
    assert_eq!((first.token, first.until), (1, NOON.plus(HOLD)));
    assert_eq!(first.heads, []);
    assert_eq!(stage.hold(2), Err("state-held".into()));
    stage.wait(HOLD - SECOND);
    assert_eq!(stage.hold(2), Err("state-held".into()));
    stage.wait(SECOND);
    assert_eq!(stage.hold(2).unwrap().token, 2);
    assert_eq!(stage.hold(1), Err("state-held".into()));
}

#[test]
fn a_refused_hold_says_when_to_come_back() {
    let mut stage = Stage::new();
    stage.hold(1).unwrap();
    let ask = Ask::State {
        appraised: appraised(5),
        request: StateRequest {
            package: stage.package,
            capsule: capsule(1),
            writer: writer(2),
            act: StateAct::Hold,
        },
    };
    let at = NOON.plus(SECOND * 10);
    let refused = stage.scene.desk.state().check(&ask, at).err().unwrap();
    let wait = bield_protocol::refusal::Retry::After(STATE_HOLD_SECS * 1000 - 10_000);
    assert_eq!((refused.code.as_str(), refused.retry), ("state-held", wait));
}

#[test]
fn an_anchor_holds_on_and_a_release_lets_another_in_at_once() {
    let mut stage = Stage::new();
    stage.hold(1).unwrap();
    stage.wait(HOLD - SECOND);
    let held = stage.anchor(1, 1, &[head(1, 7)]).unwrap();
    assert_eq!(held.until, stage.scene.now.plus(HOLD));
    stage.wait(HOLD - SECOND);
    assert_eq!(stage.hold(2), Err("state-held".into()));
    let act = StateAct::Release(anchors(1, &[head(1, 9)], &[]));
    let released = stage.act(1, act.clone()).unwrap();
    assert_eq!(released.until, stage.scene.now);
    // Its answer was lost: said again.
    assert_eq!(stage.act(1, act.clone()).unwrap(), released);
    let second = stage.hold(2).unwrap();
    assert_eq!((second.token, second.heads), (2, vec![head(1, 9)]));
    assert_eq!(stage.act(1, act), Err("state-taken".into()));
}

#[test]
fn the_same_writer_keeps_its_token_until_another_held() {
    let mut stage = Stage::new();
    stage.hold(1).unwrap();
    stage.wait(HOLD * 100);
    assert_eq!(stage.hold(1).unwrap().token, 1);
    stage.wait(HOLD * 2);
    // Late, and nobody came between.
    stage.anchor(1, 1, &[head(1, 3)]).unwrap();
    stage.wait(HOLD);
    stage.hold(2).unwrap();
    stage.wait(HOLD);
    assert_eq!(stage.hold(1).unwrap().token, 3);
}

#[test]
fn an_older_token_anchors_nothing() {
    let mut stage = Stage::new();
    stage.hold(1).unwrap();
    stage.anchor(1, 1, &[head(1, 3)]).unwrap();
    stage.wait(HOLD);
    stage.hold(2).unwrap();
    assert_eq!(stage.anchor(1, 1, &[head(1, 4)]), Err("state-taken".into()));
    // Nor under the new token, which is another's.
    assert_eq!(stage.anchor(1, 2, &[head(1, 4)]), Err("state-taken".into()));
    assert_eq!(stage.anchor(2, 1, &[head(2, 4)]), Err("state-taken".into()));
    assert_eq!(stage.anchor(2, 3, &[head(2, 4)]), Err("state-taken".into()));
    let held = stage.anchor(2, 2, &[head(2, 4)]).unwrap();
    assert_eq!(held.heads, [head(1, 3), head(2, 4)]);
}

#[test]
fn nobody_anchors_what_nobody_holds() {
    let mut stage = Stage::new();
    assert_eq!(stage.anchor(1, 1, &[]), Err("state-taken".into()));
    assert_eq!(stage.anchor(1, 0, &[]), Err("state-taken".into()));
}

#[test]
fn anchored_heads_never_go_back_and_never_fork() {
    let mut stage = Stage::new();
    stage.hold(1).unwrap();
    stage.anchor(1, 1, &[head(1, 7)]).unwrap();
    let behind = stage.anchor(1, 1, &[head(1, 6)]);
    assert_eq!(behind, Err("state-behind".into()));
    let other = Head {
        hash: Digest::from_bytes([1; 32]),
        ..head(1, 7)
    };
    assert_eq!(stage.anchor(1, 1, &[other]), Err("state-forked".into()));
    // All or nothing: the head beside one that goes back is not kept either.
    let both = stage.anchor(1, 1, &[head(3, 1), head(1, 0)]);
    assert_eq!(both, Err("state-behind".into()));
    assert_eq!(stage.hold(1).unwrap().heads, [head(1, 7)]);
    // The next holder may anchor what the one before wrote at last, and cannot set it back.
    stage.wait(HOLD);
    stage.hold(2).unwrap();
    assert_eq!(
        stage.anchor(2, 2, &[head(1, 6)]),
        Err("state-behind".into())
    );
    let held = stage.anchor(2, 2, &[head(1, 8), head(2, 0)]).unwrap();
    assert_eq!(held.heads, [head(1, 8), head(2, 0)]);
}

#[test]
fn a_holder_covers_earlier_writers_only_by_a_head_of_its_own() {
    let mut stage = Stage::new();
    stage.hold(1).unwrap();
    stage.anchor(1, 1, &[head(1, 7)]).unwrap();
    stage.wait(HOLD);
    stage.hold(2).unwrap();
    let mut covers =
        |heads: &[Head], covered: &[u8]| stage.act(2, StateAct::Anchor(anchors(2, heads, covered)));
    let malformed = Err("malformed".into());
    assert_eq!(covers(&[], &[1]), malformed);
    assert_eq!(covers(&[head(3, 1)], &[1]), malformed);
    assert_eq!(covers(&[head(2, 1)], &[2]), malformed);
    assert_eq!(covers(&[head(1, 8), head(2, 1)], &[1]), malformed);
    assert_eq!(covers(&[head(2, 1), head(2, 2)], &[]), malformed);
    assert_eq!(covers(&[], &[]).unwrap().heads, [head(1, 7)]);
    assert_eq!(covers(&[head(2, 1)], &[1]).unwrap().heads, [head(2, 1)]);
    // Again, and one that is not kept: nothing more to leave out.
    assert_eq!(covers(&[], &[1, 9]).unwrap().heads, [head(2, 1)]);
}

#[test]
fn heads_of_so_many_writers_are_kept_until_the_holder_covers_them() {
    let mut stage = Stage::new();
    stage.hold(1).unwrap();
    let many: Vec<Head> = (1..=STATE_HEADS_MAX as u8).map(|by| head(by, 1)).collect();
    stage.anchor(1, 1, &many).unwrap();
    assert_eq!(stage.anchor(1, 1, &[head(100, 1)]), Err("full".into()));
    let act = StateAct::Anchor(anchors(1, &[head(100, 1)], &[2, 3]));
    assert_eq!(stage.act(1, act).unwrap().heads.len(), STATE_HEADS_MAX - 1);
}

#[test]
fn a_restart_keeps_heads_tokens_and_who_holds() {
    let mut stage = Stage::new();
    stage.hold(1).unwrap();
    stage.anchor(1, 1, &[head(1, 7), head(9, 2)]).unwrap();
    let state = stage.scene.desk.state();
    let replayed = stage.scene.desk.replayed(root(), limits()).unwrap();
    let read = State::decode(&state.to_bytes(), root(), limits()).unwrap();
    for state in [&replayed, &read] {
        let hold = |by: u8, at| {
            let request = StateRequest {
                package: stage.package,
                capsule: capsule(1),
                writer: writer(by),
                act: StateAct::Hold,
            };
            let appraised = appraised(5);
            let checked = state.check(&Ask::State { appraised, request }, at);
            match checked.map_err(|refusal| refusal.code)?.answer.reply(0) {
                Reply::State(held) => Ok(held),
                _ => panic!("no state"),
            }
        };
        assert_eq!(hold(2, NOON), Err("state-held".to_owned()));
        let same = hold(1, NOON).unwrap();
        assert_eq!((same.token, same.heads.len()), (1, 2));
        let next = hold(2, NOON.plus(HOLD)).unwrap();
        assert_eq!((next.token, next.heads), (2, vec![head(1, 7), head(9, 2)]));
    }
}

#[test]
fn another_owners_package_has_another_state_whatever_its_capsule_is_called() {
    let mut stage = Stage::new();
    let owner = key(3);
    stage.scene.order(&owner, Operation::Register).unwrap();
    let theirs = stage.scene.put(&owner, "shelter", "1.0.0").unwrap();
    stage.scene.grant(&owner, grant(2, theirs)).unwrap();
    stage.hold(1).unwrap();
    stage.anchor(1, 1, &[head(1, 7)]).unwrap();
    let held = stage.ask(5, theirs, capsule(1), 2, StateAct::Hold);
    let held = held.unwrap();
    assert_eq!((held.token, held.heads), (1, vec![]));
    let act = StateAct::Anchor(anchors(1, &[head(1, 1), head(2, 9)], &[]));
    stage.ask(5, theirs, capsule(1), 2, act).unwrap();
    assert_eq!(stage.hold(1).unwrap().heads, [head(1, 7)]);
}

#[test]
fn only_code_that_is_granted_the_package_touches_its_state() {
    let mut stage = Stage::new();
    let package = stage.package;
    let refused = stage.ask(6, package, capsule(1), 1, StateAct::Hold);
    assert_eq!(refused, Err("code-not-granted".into()));
    let unknown = Digest::from_bytes([7; 32]);
    let refused = stage.ask(5, unknown, capsule(1), 1, StateAct::Hold);
    assert_eq!(refused, Err("unknown-package".into()));
    stage.hold(1).unwrap();
    // Who proved nothing, and who is not granted any more.
    let request = Request::State(StateRequest {
        package,
        capsule: capsule(1),
        writer: writer(1),
        act: StateAct::Hold,
    });
    let refused = stage.scene.answer(request).map(drop);
    assert_eq!(refused, Err("not-a-runtime".into()));
    let revoke = Operation::Revoke(vec![GrantId([1; 16])]);
    stage.scene.order(&key(1), revoke).unwrap();
    let refused = stage.anchor(1, 1, &[head(1, 1)]);
    assert_eq!(refused, Err("grant-revoked".into()));
}

#[test]
fn code_that_is_granted_another_function_of_the_owner_cannot_touch_this_ones_state() {
    let mut stage = Stage::new();
    stage.hold(1).unwrap();
    stage.anchor(1, 1, &[head(1, 7)]).unwrap();
    stage.wait(HOLD);
    let other = stage.further("kennel", "1.0.0", 6);
    for act in [
        StateAct::Hold,
        StateAct::Anchor(anchors(1, &[head(1, 9)], &[])),
        StateAct::Release(anchors(1, &[], &[])),
    ] {
        let refused = stage.ask(6, other, capsule(1), 1, act);
        assert_eq!(refused, Err("state-of-another".into()));
    }
    // The next version of the function goes on with it.
    let next = stage.further("shelter", "1.0.1", 6);
    let held = stage.ask(6, next, capsule(1), 2, StateAct::Hold).unwrap();
    assert_eq!((held.token, held.heads), (2, vec![head(1, 7)]));
}

#[test]
fn a_state_follows_its_function_to_another_name_when_nothing_has_the_old_one() {
    let mut stage = Stage::new();
    stage.hold(1).unwrap();
    stage.anchor(1, 1, &[head(1, 7)]).unwrap();
    let named = stage.further("kennel", "1.0.0", 6);
    let delete = Operation::DeletePackage(stage.package);
    stage.scene.order(&key(1), delete).unwrap();
    let mut ask = |by, act| stage.ask(6, named, capsule(1), by, act);
    assert_eq!(ask(2, StateAct::Hold), Err("state-held".into()));
    let anchor = StateAct::Anchor(anchors(1, &[head(1, 8)], &[]));
    assert_eq!(ask(1, anchor.clone()), Err("state-of-another".into()));
    let held = ask(1, StateAct::Hold).unwrap();
    assert_eq!((held.token, held.heads), (2, vec![head(1, 7)]));
    assert_eq!(ask(1, anchor), Err("state-taken".into()));
}

#[test]
fn a_state_stays_with_a_successor_and_goes_with_who_unregisters() {
    let mut stage = Stage::new();
    stage.hold(1).unwrap();
    stage.anchor(1, 1, &[head(1, 7)]).unwrap();
    let (old, new) = (key(1), key(4));
    let succeeded = succession(&old, &new, NOON);
    stage
        .scene
        .order(&old, Operation::Succeed(succeeded))
        .unwrap();
    assert_eq!(stage.hold(1).unwrap().heads, [head(1, 7)]);
    let revoke = Operation::Revoke(vec![GrantId([1; 16])]);
    stage.scene.order(&new, revoke).unwrap();
    let delete = Operation::DeletePackage(stage.package);
    stage.scene.order(&new, delete).unwrap();
    stage.wait(Duration::from_secs(3600));
    stage.scene.order(&new, Operation::Unregister).unwrap();
    stage.scene.order(&new, Operation::Register).unwrap();
    let header = header(&new, "shelter", "1.0.0");
    let again = stage.scene.put_header(&new, &header, 9).unwrap();
    let granted = bield_grant::Grant {
        not_after: stage.scene.now.plus(HOLD * 100),
        ..grant(2, PackageHeader::package(&header))
    };
    stage.scene.grant(&new, granted).unwrap();
    let held = stage.ask(5, again, capsule(1), 1, StateAct::Hold).unwrap();
    assert_eq!((held.token, held.heads), (1, vec![]));
}

#[test]
fn who_has_states_succeeds_nobody() {
    let mut stage = Stage::new();
    stage.hold(1).unwrap();
    let delete = Operation::DeletePackage(stage.package);
    stage.scene.order(&key(1), delete).unwrap();
    // The grant went with its package; it is remembered until it would have ended.
    stage.wait(Duration::from_secs(7200));
    stage.scene.order(&key(3), Operation::Register).unwrap();
    let into = succession(&key(3), &key(1), NOON);
    let refused = stage.scene.order(&key(3), Operation::Succeed(into));
    assert_eq!(refused.map(drop), Err("successor-owns".into()));
}

#[test]
fn the_owners_audit_tells_who_took_a_state_and_let_it_go_and_not_each_anchor() {
    let mut stage = Stage::new();
    stage.hold(1).unwrap();
    for seq in 1..5 {
        stage.anchor(1, 1, &[head(1, seq)]).unwrap();
    }
    stage.hold(1).unwrap();
    let release = StateAct::Release(anchors(1, &[head(1, 9)], &[]));
    stage.act(1, release).unwrap();
    stage.hold(2).unwrap();
    let page = stage.scene.audit(&key(1), 3).unwrap();
    let events: Vec<AuditEvent> = page.entries.into_iter().map(|entry| entry.event).collect();
    let package = stage.package;
    let taken = |by, token, heads: &[Head]| AuditEvent::StateTaken {
        package,
        capsule: capsule(1),
        code: code(5),
        simulated: true,
        writer: writer(by),
        token,
        heads: digest(heads),
    };
    let released = AuditEvent::StateReleased {
        capsule: capsule(1),
        token: 1,
        heads: digest(&[head(1, 9)]),
    };
    let all = [taken(1, 1, &[]), released, taken(2, 2, &[head(1, 9)])];
    assert_eq!(events, all);
}

/// An entry for state `number` of package `package`.
fn first_hold(package: Digest, number: usize) -> Entry {
    let mut name = [0; 32];
    name[..8].copy_from_slice(&(number as u64).to_be_bytes());
    Entry::StateTaken {
        package,
        capsule: CapsuleName::from_bytes(name),
        code: code(5),
        simulated: true,
        writer: writer(1),
        token: 1,
        until: NOON.plus(HOLD),
        heads: digest(&[]),
    }
}

#[test]
fn states_have_their_limits_and_those_that_are_there_go_on() {
    let (mut scene, package) = Scene::with_package();
    scene.grant(&key(1), grant(1, package)).unwrap();
    let mut packages = vec![package];
    for owner in 2..2 + STATES_MAX / STATES_EACH_MAX {
        let owner = key(u8::try_from(owner).unwrap());
        scene.order(&owner, Operation::Register).unwrap();
        let package = scene.put(&owner, "shelter", "1.0.0").unwrap();
        scene.grant(&owner, grant(1, package)).unwrap();
        packages.push(package);
    }
    let mut state = State::decode(&scene.desk.state().to_bytes(), root(), limits()).unwrap();
    let hold = |state: &State, package, capsule| {
        let request = StateRequest {
            package,
            capsule,
            writer: writer(1),
            act: StateAct::Hold,
        };
        let appraised = appraised(5);
        let checked = state.check(&Ask::State { appraised, request }, NOON);
        checked.map(drop).map_err(|refusal| refusal.message)
    };
    for number in 0..STATES_EACH_MAX {
        let entry = first_hold(package, number);
        state.apply(&entry, 1000, NOON).unwrap();
    }
    let refused = hold(&state, package, capsule(77)).unwrap_err();
    assert!(refused.contains("of a principal"), "{refused}");
    hold(&state, packages[1], capsule(77)).unwrap();
    hold(&state, package, CapsuleName::from_bytes([0; 32])).unwrap();
    for package in &packages[1..STATES_MAX / STATES_EACH_MAX] {
        for number in 0..STATES_EACH_MAX {
            let entry = first_hold(*package, number);
            state.apply(&entry, 1000, NOON).unwrap();
        }
    }
    let last = *packages.last().unwrap();
    let refused = hold(&state, last, capsule(77)).unwrap_err();
    assert!(refused.contains("operator"), "{refused}");
}

#[test]
fn entries_that_do_not_fit_are_refused_when_they_are_replayed() {
    let (mut scene, package) = Scene::with_package();
    scene.grant(&key(1), grant(1, package)).unwrap();
    let fresh = || State::decode(&scene.desk.state().to_bytes(), root(), limits()).unwrap();
    let anchored = |token, heads: Vec<Head>| Entry::StateAnchored {
        package,
        capsule: CapsuleName::from_bytes([0; 32]),
        token,
        until: NOON,
        heads,
        covered: Vec::new(),
        released: None,
    };
    let taken = first_hold(package, 0);
    let good = anchored(1, vec![head(1, 5)]);
    for bad in [
        first_hold(package, 0),
        first_hold(Digest::from_bytes([9; 32]), 1),
        anchored(2, vec![head(1, 6)]),
        anchored(1, vec![head(1, 4)]),
        anchored(
            1,
            (0..=STATE_HEADS_MAX as u8).map(|by| head(by, 9)).collect(),
        ),
    ] {
        let mut state = fresh();
        state.apply(&taken, 1000, NOON).unwrap();
        state.apply(&good, 1000, NOON).unwrap();
        assert!(state.apply(&bad, 1000, NOON).is_err());
    }
    assert!(fresh().apply(&good, 1000, NOON).is_err());
}
