//! Sessions that come about, and what both ends know then.

#![expect(
    clippy::unwrap_used,
    reason = "a failed unwrap in a test is a failed test"
)]

mod support;

use bield_evidence::{Policy, Reference, Roots};
use bield_session::{
    Expect, Freshness, Local, MESSAGE_BYTES_MAX, Proof, Role, SessionError, provider,
};
use support::*;

#[test]
fn runtime_and_key_service_accept_each_other() {
    let machine = Machine::new(1);
    let (keys, runtime) = (machine.key_service(), machine.runtime());
    for (ask_keys, ask_runtime) in [
        (Freshness::Fresh, Freshness::Fresh),
        (TEN_MINUTES, Freshness::Fresh),
        (TEN_MINUTES, TEN_MINUTES),
    ] {
        let (connector, acceptor) = meet(
            Local::Attested(&runtime),
            &machine.expect(Role::KeyService, ask_keys),
            &keys,
            &[Expect::Client, machine.expect(Role::Runtime, ask_runtime)],
            NOW,
        );
        let (mut connector, mut acceptor) = (connector.unwrap(), acceptor.unwrap());
        assert_eq!(connector.peer().role, Role::KeyService);
        assert_eq!(connector.peer().service, Some(SERVICE));
        assert_eq!(acceptor.peer().role, Role::Runtime);
        let proof = |freshness| match freshness {
            Freshness::Fresh => Some(Proof::Fresh),
            Freshness::Cached { .. } => Some(Proof::Cached),
        };
        assert_eq!(connector.peer().proof, proof(ask_keys));
        assert_eq!(acceptor.peer().proof, proof(ask_runtime));
        let code = acceptor
            .peer()
            .appraised
            .as_ref()
            .unwrap()
            .measurement()
            .as_bytes();
        assert_eq!(code, RUNTIME_CODE);

        for end in [&connector, &acceptor] {
            let claims = end.peer().appraised.as_ref().unwrap().claims();
            assert_eq!(claims.hardening, Some(hardening()));
        }
        assert_eq!(connector.binding(), acceptor.binding());
        connector.send(b"lease, please").unwrap();
        assert_eq!(**acceptor.receive().unwrap(), *b"lease, please");
        acceptor.send(b"").unwrap();
        assert!(connector.receive().unwrap().is_empty());
    }
}

#[test]
fn a_client_verifies_the_key_service_and_stays_anonymous() {
    let machine = Machine::new(1);
    let keys = machine.key_service();
    let (client, service) = meet(
        Local::Client(&provider()),
        &machine.expect(Role::KeyService, TEN_MINUTES),
        &keys,
        &[
            machine.expect(Role::Runtime, Freshness::Fresh),
            Expect::Client,
        ],
        NOW,
    );
    let (mut client, mut service) = (client.unwrap(), service.unwrap());
    assert_eq!(service.peer().role, Role::Client);
    assert!(service.peer().appraised.is_none() && service.peer().proof.is_none());
    assert!(client.peer().appraised.as_ref().unwrap().simulated());
    assert_eq!(client.binding(), service.binding());

    let large = vec![7; 3_000_000];
    service.send(&large).unwrap();
    assert_eq!(*client.receive().unwrap(), large);
    drop(client.close());
    assert!(matches!(service.receive(), Err(SessionError::Closed)));
    assert!(matches!(service.send(b"late"), Err(SessionError::Closed)));
}

#[test]
fn a_client_that_pins_no_service_learns_which_one_it_is() {
    let machine = Machine::new(1);
    let keys = machine.identity(Role::KeyService, OTHER_SERVICE, 1, NOW);
    let (roots, policy) = (machine.roots(), policy(KEYS_CODE));
    let expect = Expect::attested(Role::KeyService, roots, policy, None, Freshness::Fresh);
    let (client, service) = meet(
        Local::Client(&provider()),
        &expect,
        &keys,
        &[Expect::Client],
        NOW,
    );
    assert_eq!(client.unwrap().peer().service, Some(OTHER_SERVICE));
    service.unwrap();
}

#[test]
fn every_session_has_its_own_binding() {
    let machine = Machine::new(1);
    let keys = machine.key_service();
    let expect = machine.expect(Role::KeyService, TEN_MINUTES);
    // The same nonces each time (the entropy is seeded): TLS alone makes the difference.
    let bindings: Vec<_> = (0..2)
        .map(|_| {
            let local = provider();
            let (client, service) = meet(
                Local::Client(&local),
                &expect,
                &keys,
                &[Expect::Client],
                NOW,
            );
            service.unwrap();
            client.unwrap().binding()
        })
        .collect();
    assert_ne!(bindings[0], bindings[1]);
}

#[test]
fn a_message_over_the_limit_is_not_sent_and_the_session_lives_on() {
    let machine = Machine::new(1);
    let keys = machine.key_service();
    let (client, service) = meet(
        Local::Client(&provider()),
        &machine.expect(Role::KeyService, TEN_MINUTES),
        &keys,
        &[Expect::Client],
        NOW,
    );
    let (mut client, mut service) = (client.unwrap(), service.unwrap());
    let large = vec![0; MESSAGE_BYTES_MAX + 1];
    assert!(matches!(
        client.send(&large),
        Err(SessionError::TooLong { .. })
    ));
    client.send(&large[1..]).unwrap();
    assert_eq!(service.receive().unwrap().len(), MESSAGE_BYTES_MAX);
}

#[test]
fn default_policies_refuse_the_software_tee() {
    let machine = Machine::new(1);
    let keys = machine.key_service();
    let code = || Reference::Deferred;
    for (roots, policy, refusal) in [
        (machine.roots(), Policy::strict(code()), "policy (root"),
        (machine.roots(), Policy::cloud(code()), "policy (root"),
        (Roots::vendor(), Policy::dev(code()), "not genuine"),
        (Roots::none(), Policy::dev(code()), "not genuine"),
    ] {
        let expect = Expect::attested(
            Role::KeyService,
            roots,
            policy,
            Some(SERVICE),
            Freshness::Fresh,
        );
        let (client, service) = meet(
            Local::Client(&provider()),
            &expect,
            &keys,
            &[Expect::Client],
            NOW,
        );
        assert!(matches!(
            refused(client),
            SessionError::Appraisal(_) | SessionError::Evidence(_)
        ));
        let told = refused(service).to_string();
        assert!(
            told.contains("refused by") && told.contains(refusal),
            "{told}"
        );
    }
}
