//! States over the attested session: answers in order, ends by our own clock, and each no under its own name.

use bield_capsule::{CapsuleName, Head, WriterId};
use bield_protocol::service::{Anchors, HeldState, STATE_HOLD_SECS, StateAct, StateRequest};

use super::*;
use crate::key_service::states::{Held, StateError, StateKeeper as _};

/// A second less than the key service counts: clocks drift.
const HOLD: Duration = Duration::from_secs(STATE_HOLD_SECS - 1);

fn head(seq: u64) -> Head {
    Head {
        writer: WriterId::from_bytes([1; 32]),
        seq,
        hash: Digest::from_bytes([seq as u8; 32]),
    }
}

fn request(capsule: u8, act: StateAct) -> StateRequest {
    StateRequest {
        package: package(1),
        capsule: CapsuleName::from_bytes([capsule; 32]),
        writer: head(0).writer,
        act,
    }
}

fn anchors(token: u64, seq: u64) -> Anchors {
    Anchors {
        token,
        heads: vec![head(seq)],
        covered: Vec::new(),
    }
}

fn state(token: u64, seq: u64) -> Reply {
    Reply::State(HeldState {
        token,
        // The service's clock is not ours.
        until: Time::from_secs(0),
        heads: vec![head(seq)],
    })
}

impl Stage {
    /// Asks key services that answer states with `answers`, one pipe after the other.
    fn ask_states(
        &self,
        requests: &[StateRequest],
        answers: impl FnMut(&StateRequest) -> Reply + Send,
    ) -> Result<Vec<Result<Held, StateError>>, KeysError> {
        let answers = Mutex::new(answers);
        thread::scope(|scope| {
            for _ in 0..failover::DIALS_MAX {
                let mut pipe = self.offer();
                let answers = &answers;
                scope.spawn(move || {
                    if pipe.read_exact(&mut [0]).is_err() {
                        return;
                    }
                    serve(pipe, self.service(), |request| match &request {
                        Request::State(request) => lock(answers)(request),
                        other => self.answer(other),
                    });
                });
            }
            let answered = self.client.ask_states(requests);
            while self.offers.take(Visit::KeyService, Duration::ZERO).is_ok() {}
            answered
        })
    }

    fn refused(
        &self,
        code: &str,
        retry: Retry,
    ) -> Result<Vec<Result<Held, StateError>>, KeysError> {
        let no = || Reply::Refused(Refusal::new(code, "names of others", retry));
        self.ask_states(&[request(1, StateAct::Hold)], |_| no())
    }
}

#[test]
fn states_are_asked_in_one_session_and_answered_in_order() {
    let stage = Stage::expecting(code(2));
    let requests = [
        request(1, StateAct::Hold),
        request(2, StateAct::Hold),
        request(3, StateAct::Anchor(anchors(7, 5))),
        request(4, StateAct::Release(anchors(8, 6))),
    ];
    let heard = Mutex::new(Vec::new());
    let asked = stage.client.clock.running();
    let answered = stage.ask_states(&requests, |request| {
        lock(&heard).push(request.clone());
        match request.capsule.as_bytes()[0] {
            1 => state(3, 4),
            2 => refuses("state-taken"),
            3 => state(7, 5),
            _ => state(8, 6),
        }
    });
    assert_eq!(*lock(&heard), requests);
    let held = |token, seq, ends| Held {
        token,
        ends,
        heads: vec![head(seq)],
    };
    let expected = vec![
        Ok(held(3, 4, asked + HOLD)),
        Err(StateError::Taken),
        Ok(held(7, 5, asked + HOLD)),
        Ok(held(8, 6, asked)),
    ];
    assert_eq!(answered, Ok(expected));
}

#[test]
fn each_no_about_a_state_has_its_name_and_keeps_what_the_service_said() {
    let stage = Stage::expecting(code(2));
    let wait = Duration::from_millis(700);
    for (code, retry, error) in [
        ("state-held", Retry::After(700), StateError::Held(wait)),
        ("state-taken", Retry::Anew, StateError::Taken),
        ("state-behind", Retry::Never, StateError::Behind),
        ("state-forked", Retry::Never, StateError::Behind),
        (
            "state-of-another",
            Retry::AfterChange,
            StateError::OfAnother,
        ),
        ("full", Retry::AfterChange, StateError::Full),
        (
            "too-many-orders",
            Retry::After(700),
            StateError::TooOften(wait),
        ),
        (
            "code-not-granted",
            Retry::AfterChange,
            StateError::Keys(KeysError::NotGranted),
        ),
    ] {
        assert!(!error.to_string().contains("others"), "{error}");
        assert_eq!(stage.refused(code, retry), Ok(vec![Err(error)]));
    }
}

#[test]
fn an_instance_that_does_not_decide_is_left_for_the_next() {
    let stage = Stage::expecting(code(2));
    let requests = [request(1, StateAct::Hold), request(2, StateAct::Hold)];
    let mut asked = 0;
    let answered = stage.ask_states(&requests, |_| {
        asked += 1;
        match asked {
            // The first instance loses its lead between two answers.
            2 => refuses("not-leader"),
            _ => state(1, 0),
        }
    });
    assert_eq!(answered.unwrap().len(), 2);
    assert_eq!(asked, 4);
    let outage = stage.refused("busy", Retry::After(1));
    assert!(outage.is_err_and(|error| error.is_outage()));
}

#[test]
fn an_answer_that_keeps_other_heads_than_were_told_is_no_answer() {
    let stage = Stage::expecting(code(2));
    let requests = [request(1, StateAct::Anchor(anchors(7, 5)))];
    for contradicts in [|| state(7, 4), || state(8, 5), || Reply::Done(1)] {
        let answered = stage.ask_states(&requests, |_| contradicts());
        assert!(matches!(answered, Err(KeysError::Contradiction(_))));
    }
}
