//! Attacks on the gate itself, with TLS replaced by the one thing it contributes: the exporter.

#![expect(
    clippy::unwrap_used,
    reason = "a failed unwrap in a test is a failed test"
)]

mod support;

use bield_envelope::Seeded;
use bield_evidence::Endorsements;
use bield_session::{
    Bind, Expect, Freshness, Gate, GateMessage, Hello, Identity, Proof, RefusalCode, RefusalNotice,
    Role, SessionError, SessionKey, provider,
};
use sha2::{Digest as _, Sha256};
use support::*;

/// A TLS session as the gate sees it; equal seeds are one session seen from both ends.
fn exporter(seed: u8) -> impl Fn(&str, &[u8]) -> Result<[u8; 32], SessionError> {
    move |label, context| Ok(Sha256::digest([&[seed], label.as_bytes(), context].concat()).into())
}

/// Two gates face to face; `carry` sees every payload and may change it.
fn exchange(
    connector: &mut Gate<'_>,
    acceptor: &mut Gate<'_>,
    (near, far): (u8, u8),
    mut carry: impl FnMut(&GateMessage, Vec<u8>) -> Vec<u8>,
) -> Result<(), SessionError> {
    loop {
        let mut quiet = true;
        while let Some(payload) = connector.get_outgoing() {
            let payload = carry(&GateMessage::decode(&payload).unwrap(), payload);
            acceptor.put_incoming(&payload, &exporter(far))?;
            quiet = false;
        }
        while let Some(payload) = acceptor.get_outgoing() {
            let payload = carry(&GateMessage::decode(&payload).unwrap(), payload);
            connector.put_incoming(&payload, &exporter(near))?;
            quiet = false;
        }
        if quiet {
            assert!(connector.is_open() && acceptor.is_open());
            return Ok(());
        }
    }
}

fn certificate(identity: &Identity) -> Option<Vec<u8>> {
    Some(identity.certificate().to_vec())
}

/// Key service and runtime with the expectations they have of each other.
struct Pair {
    machine: Machine,
    keys: Identity,
    runtime: Identity,
    expect_keys: Expect,
    expect_runtime: [Expect; 1],
}

impl Pair {
    fn new(freshness: Freshness) -> Self {
        let machine = Machine::new(1);
        Self {
            keys: machine.key_service(),
            runtime: machine.runtime(),
            expect_keys: machine.expect(Role::KeyService, freshness),
            expect_runtime: [machine.expect(Role::Runtime, freshness)],
            machine,
        }
    }

    fn gates<'a>(
        &'a self,
        provider: &'a rustls::crypto::CryptoProvider,
        nonces: (u8, u8),
    ) -> (Gate<'a>, Gate<'a>) {
        let connector = Gate::connector(
            Some(&self.runtime),
            provider,
            &self.expect_keys,
            certificate(&self.keys),
            [nonces.0; 32],
            NOW,
        );
        let (expect, shown) = (&self.expect_runtime, certificate(&self.runtime));
        (
            connector,
            Gate::acceptor(&self.keys, expect, shown, [nonces.1; 32], NOW),
        )
    }
}

#[test]
fn both_gates_open_on_one_session_with_one_binding() {
    let provider = provider();
    for freshness in [Freshness::Fresh, TEN_MINUTES] {
        let pair = Pair::new(freshness);
        let (mut connector, mut acceptor) = pair.gates(&provider, (1, 2));
        exchange(&mut connector, &mut acceptor, (7, 7), |_, payload| payload).unwrap();
        let (connector, acceptor) = (connector.finish().unwrap(), acceptor.finish().unwrap());
        assert_eq!(connector.binding, acceptor.binding);
    }
}

#[test]
fn a_relay_between_two_sessions_is_refused() {
    let provider = provider();
    for freshness in [Freshness::Fresh, TEN_MINUTES] {
        let pair = Pair::new(freshness);
        let (mut connector, mut acceptor) = pair.gates(&provider, (1, 2));
        let refused = exchange(&mut connector, &mut acceptor, (7, 8), |_, payload| payload);
        assert!(matches!(refused, Err(SessionError::Binding)));
        assert!(!connector.is_open() && !acceptor.is_open());
    }
}

#[test]
fn a_proof_from_an_earlier_exchange_is_refused() {
    let provider = provider();
    for freshness in [Freshness::Fresh, TEN_MINUTES] {
        let pair = Pair::new(freshness);
        let mut old = None;
        let (mut connector, mut acceptor) = pair.gates(&provider, (1, 2));
        exchange(&mut connector, &mut acceptor, (7, 7), |message, payload| {
            if matches!(message, GateMessage::Bind(_)) && old.is_none() {
                old = Some(payload.clone());
            }
            payload
        })
        .unwrap();
        // Even the same TLS session and the same acceptor nonce: the connector's nonce is new.
        let (mut connector, mut acceptor) = pair.gates(&provider, (3, 2));
        let refused = exchange(&mut connector, &mut acceptor, (7, 7), |message, payload| {
            if matches!(message, GateMessage::Bind(_)) {
                old.clone().unwrap()
            } else {
                payload
            }
        });
        assert!(matches!(refused, Err(SessionError::Binding)));
    }
}

#[test]
fn a_proof_reflected_to_its_maker_is_refused() {
    // The hardest case: two ends with one key, one role, one service, expecting their like.
    let provider = provider();
    for freshness in [Freshness::Fresh, TEN_MINUTES] {
        let machine = Machine::new(1);
        let keys = machine.key_service();
        let expect = [machine.expect(Role::KeyService, freshness)];
        let mut acceptor = Gate::acceptor(&keys, &expect, certificate(&keys), [2; 32], NOW);
        let connector =
            Gate::connector(Some(&keys), &provider, &expect[0], None, [1; 32], NOW).get_outgoing();
        acceptor
            .put_incoming(&connector.unwrap(), &exporter(7))
            .unwrap();
        let _hello = acceptor.get_outgoing().unwrap();
        let proof = acceptor.get_outgoing().unwrap();
        let refused = acceptor.put_incoming(&proof, &exporter(7));
        assert!(matches!(refused, Err(SessionError::Binding)));
    }
}

#[test]
fn a_signature_by_the_right_key_does_not_save_a_quote_of_another_session() {
    // A stolen key signs whatever its thief wants, but the quote comes from elsewhere.
    let provider = provider();
    let pair = Pair::new(Freshness::Fresh);
    let elsewhere = pair.machine.quote(KEYS_CODE, &[9; 64]);
    let thief = Identity::with_certificate(
        provider.clone(),
        SessionKey::generate(&mut Seeded::new(1)),
        pair.keys.certificate().to_vec(),
        Endorsements::None,
        Box::new(move |_| Ok(elsewhere.clone())),
    )
    .unwrap();
    let (mut connector, _) = pair.gates(&provider, (1, 2));
    let shown = certificate(&pair.runtime);
    let mut acceptor = Gate::acceptor(&thief, &pair.expect_runtime, shown, [2; 32], NOW);
    let refused = exchange(&mut connector, &mut acceptor, (7, 7), |_, payload| payload);
    assert!(matches!(refused, Err(SessionError::Binding)));
}

#[test]
fn cached_where_fresh_was_asked_is_refused() {
    let provider = provider();
    let pair = Pair::new(Freshness::Fresh);
    let (mut connector, mut acceptor) = pair.gates(&provider, (1, 2));
    let refused = exchange(&mut connector, &mut acceptor, (7, 7), |message, payload| {
        let GateMessage::Bind(bind) = message else {
            return payload;
        };
        GateMessage::Bind(Bind {
            quote: None,
            ..bind.clone()
        })
        .encode()
    });
    assert!(matches!(refused, Err(SessionError::NotFresh)));
}

#[test]
fn a_hello_changed_under_way_is_refused_even_if_it_asks_for_more() {
    let provider = provider();
    let pair = Pair::new(TEN_MINUTES);
    let (mut connector, mut acceptor) = pair.gates(&provider, (1, 2));
    let refused = exchange(
        &mut connector,
        &mut acceptor,
        (7, 7),
        |message, payload| match message {
            GateMessage::Hello(hello) if hello.role == Role::Runtime => GateMessage::Hello(Hello {
                want: Some(Proof::Fresh),
                ..hello.clone()
            })
            .encode(),
            _ => payload,
        },
    );
    assert!(matches!(refused, Err(SessionError::Binding)));
}

#[test]
fn each_end_gets_the_proof_it_asked_for() {
    let provider = provider();
    let pair = Pair::new(TEN_MINUTES);
    let asks_fresh = pair.machine.expect(Role::KeyService, Freshness::Fresh);
    let identity = Some(&pair.runtime);
    let shown = certificate(&pair.keys);
    let mut connector = Gate::connector(identity, &provider, &asks_fresh, shown, [1; 32], NOW);
    let (_, mut acceptor) = pair.gates(&provider, (1, 2));
    exchange(&mut connector, &mut acceptor, (7, 7), |_, payload| payload).unwrap();
    assert_eq!(connector.finish().unwrap().peer.proof, Some(Proof::Fresh));
    assert_eq!(acceptor.finish().unwrap().peer.proof, Some(Proof::Cached));
}

#[test]
fn any_changed_byte_of_any_gate_message_is_refused() {
    let provider = provider();
    for freshness in [Freshness::Fresh, TEN_MINUTES] {
        let pair = Pair::new(freshness);
        let mut lengths = Vec::new();
        let (mut connector, mut acceptor) = pair.gates(&provider, (1, 2));
        exchange(&mut connector, &mut acceptor, (7, 7), |_, payload| {
            lengths.push(payload.len());
            payload
        })
        .unwrap();
        for (message, length) in lengths.into_iter().enumerate() {
            // Hellos, signatures and frames of proofs byte by byte, quotes and collateral in steps:
            // `bield-evidence` flips each of their bytes.
            let step = if length > 1000 { 211 } else { 1 };
            for at in (0..length).filter(|at| at % step == 0 || *at < 160 && *at % 3 == 0) {
                let (mut connector, mut acceptor) = pair.gates(&provider, (1, 2));
                let mut count = 0;
                let outcome = exchange(&mut connector, &mut acceptor, (7, 7), |_, mut payload| {
                    if count == message {
                        let at = at.min(payload.len() - 1);
                        payload[at] ^= 1 << (at % 8);
                    }
                    count += 1;
                    payload
                });
                assert!(
                    outcome.is_err(),
                    "byte {at} of message {message} at {freshness:?}"
                );
            }
        }
    }
}

#[test]
fn messages_out_of_turn_close_the_gate_for_good() {
    let provider = provider();
    let pair = Pair::new(TEN_MINUTES);
    let bind = GateMessage::Bind(Bind {
        signature: vec![0; 70],
        quote: None,
        endorsements: Endorsements::None,
    });
    for early in [GateMessage::Accept, bind] {
        let (mut connector, mut acceptor) = pair.gates(&provider, (1, 2));
        for gate in [&mut connector, &mut acceptor] {
            while gate.get_outgoing().is_some() {}
            let refused = gate.put_incoming(&early.encode(), &exporter(7));
            assert!(matches!(refused, Err(SessionError::OutOfTurn { .. })));
            let notice = GateMessage::decode(&gate.get_outgoing().unwrap()).unwrap();
            assert!(matches!(
                notice,
                GateMessage::Refusal(RefusalNotice {
                    code: RefusalCode::Protocol,
                    ..
                })
            ));
            assert!(gate.get_outgoing().is_none());
        }
        // Nothing opens it again.
        let hello = pair.gates(&provider, (1, 2)).0.get_outgoing().unwrap();
        assert!(acceptor.put_incoming(&hello, &exporter(7)).is_err());
        assert!(!acceptor.is_open() && acceptor.finish().is_none());
    }
}

#[test]
fn a_hello_from_a_role_that_is_not_served_is_refused_by_name() {
    let provider = provider();
    let pair = Pair::new(TEN_MINUTES);
    let mut client = Gate::connector(
        None,
        &provider,
        &pair.expect_keys,
        certificate(&pair.keys),
        [1; 32],
        NOW,
    );
    let hello = client.get_outgoing().unwrap();
    let mut acceptor = Gate::acceptor(&pair.keys, &pair.expect_runtime, None, [2; 32], NOW);
    let refused = acceptor.put_incoming(&hello, &exporter(7)).unwrap_err();
    assert!(matches!(
        refused,
        SessionError::Role {
            found: Role::Client
        }
    ));
    let told = client
        .put_incoming(&acceptor.get_outgoing().unwrap(), &exporter(7))
        .unwrap_err();
    assert_eq!(
        told.to_string(),
        "refused by the other end: role not served here"
    );
}

#[test]
fn an_anonymous_client_cannot_be_made_to_prove_itself() {
    let provider = provider();
    let pair = Pair::new(TEN_MINUTES);
    let mut client = Gate::connector(
        None,
        &provider,
        &pair.expect_keys,
        certificate(&pair.keys),
        [1; 32],
        NOW,
    );
    let (hello, expect) = (client.get_outgoing().unwrap(), [Expect::Client]);
    let mut acceptor = Gate::acceptor(&pair.keys, &expect, None, [2; 32], NOW);
    acceptor.put_incoming(&hello, &exporter(7)).unwrap();
    let GateMessage::Hello(mut hello) =
        GateMessage::decode(&acceptor.get_outgoing().unwrap()).unwrap()
    else {
        panic!("hello comes first");
    };
    hello.want = Some(Proof::Fresh);
    client
        .put_incoming(&GateMessage::Hello(hello).encode(), &exporter(7))
        .unwrap();
    assert!(
        client
            .put_incoming(&acceptor.get_outgoing().unwrap(), &exporter(7))
            .is_err()
    );
    assert!(!client.is_open());
}

#[test]
fn a_refusal_is_cut_to_printable_text_before_anyone_sees_it() {
    let provider = provider();
    let pair = Pair::new(TEN_MINUTES);
    let (mut connector, _) = pair.gates(&provider, (1, 2));
    let notice = RefusalNotice {
        code: RefusalCode::Policy,
        detail: format!("\u{1b}[2Jmeasure\nment{}", "x".repeat(10_000)),
    };
    let refused = connector.put_incoming(&GateMessage::Refusal(notice).encode(), &exporter(7));
    let SessionError::RefusedByPeer(told) = refused.unwrap_err() else {
        panic!("a refusal")
    };
    assert_eq!(told.code(), RefusalCode::Policy);
    assert!(told.detail().starts_with("[2Jmeasurement") && told.detail().len() == 400);
}

#[test]
fn an_end_whose_tee_fails_says_that_it_is_unable() {
    let provider = provider();
    let pair = Pair::new(Freshness::Fresh);
    let key = SessionKey::generate(&mut Seeded::new(1));
    let broken = Identity::with_certificate(
        provider.clone(),
        key,
        pair.keys.certificate().to_vec(),
        Endorsements::None,
        Box::new(|_| Err("quoting enclave at /dev/sgx_enclave is gone".into())),
    )
    .unwrap();
    let (mut connector, _) = pair.gates(&provider, (1, 2));
    let shown = certificate(&pair.runtime);
    let mut acceptor = Gate::acceptor(&broken, &pair.expect_runtime, shown, [2; 32], NOW);
    let hello = connector.get_outgoing().unwrap();
    let long = acceptor.put_incoming(&hello, &exporter(7)).unwrap_err();
    assert!(long.to_string().contains("/dev/sgx_enclave"));
    let short = connector.put_incoming(&acceptor.get_outgoing().unwrap(), &exporter(7));
    let short = short.unwrap_err().to_string();
    assert_eq!(
        short,
        "refused by the other end: the other end could not produce evidence"
    );
}
