//! Attackers on the wire: with own TLS on both sides, with copied evidence, with garbage.

#![expect(
    clippy::unwrap_used,
    reason = "a failed unwrap in a test is a failed test"
)]

mod support;

use std::io::{self, Read, Write};
use std::thread::scope;
use std::time::Duration;

use bield_envelope::{Seeded, Time};
use bield_evidence::{
    Endorsements, HardeningDemand, HardeningStatement, Protection, TeeKind, claims_report_data,
};
use bield_session::{
    Bind, Expect, Freshness, GateMessage, Hello, Identity, Local, MESSAGE_BYTES_MAX, Role,
    SessionClaims, SessionError, SessionKey, accept, certificate_der, connect, provider,
};
use rustls::{HandshakeKind, NamedGroup};
use support::*;

const GATE: u8 = 1;
const DATA: u8 = 2;

/// An attacker's own key and certificate, claiming `role`; the quote in it is worth nothing.
fn attacker(role: Role) -> raw::Shown {
    let key = SessionKey::generate(&mut Seeded::new(99));
    let claims = SessionClaims::new(
        key.spki(),
        role,
        Some(SERVICE),
        NOW,
        TeeKind::Sgx,
        hardening(),
    );
    let until = NOW.plus(Duration::from_secs(3600));
    let der = certificate_der(&key, b"quote", &claims.encode(), NOW, until).unwrap();
    (der, raw::scalar(99))
}

/// A man in the middle: TLS to both ends, gate frames carried as they are.
fn relay(shown: raw::Shown, freshness: Freshness) -> (SessionError, Result<(), SessionError>) {
    let machine = Machine::new(1);
    let keys = machine.key_service();
    let expect = machine.expect(Role::KeyService, freshness);
    let ((client, to_client), (to_service, service)) = (wire(), wire());
    scope(|scope| {
        let service = scope.spawn(|| {
            accept(service, &keys, &[Expect::Client], NOW, &mut Seeded::new(2)).map(drop)
        });
        scope.spawn(|| -> io::Result<()> {
            let mut near = Raw::new(raw::server(shown), to_client)?;
            let mut far = Raw::new(raw::client(raw::client_config(None)), to_service)?;
            let (kind, hello) = near.receive()?;
            far.send(kind, &hello)?;
            for _ in ["hello", "bind", "accept"] {
                let (kind, payload) = far.receive()?;
                near.send(kind, &payload)?;
            }
            let (kind, refusal) = near.receive()?;
            far.send(kind, &refusal)
        });
        let provider = provider();
        let local = Local::Client(&provider);
        let outcome = connect(client, local, &expect, NOW, &mut Seeded::new(1));
        (refused(outcome), service.join().unwrap())
    })
}

#[test]
fn a_man_in_the_middle_with_his_own_key_is_refused() {
    for freshness in [Freshness::Fresh, TEN_MINUTES] {
        let (client, service) = relay(attacker(Role::KeyService), freshness);
        assert!(matches!(client, SessionError::Binding), "{client}");
        assert!(service.is_err(), "nobody accepted this service");
    }
}

#[test]
fn a_man_in_the_middle_who_signs_a_genuine_fresh_quote_himself_is_refused() {
    // His key signs H of his session with the client; the quotes he can get are about others.
    let machine = Machine::new(1);
    let genuine = machine.quote(KEYS_CODE, &[1; 64]);
    let own = Identity::with_certificate(
        provider(),
        SessionKey::generate(&mut Seeded::new(99)),
        attacker(Role::KeyService).0,
        Endorsements::None,
        Box::new(move |_| Ok(genuine.clone())),
    )
    .unwrap();
    let expect = machine.expect(Role::KeyService, Freshness::Fresh);
    let (client, _) = meet(
        Local::Client(&provider()),
        &expect,
        &own,
        &[Expect::Client],
        NOW,
    );
    assert!(matches!(refused(client), SessionError::Binding));
}

#[test]
fn evidence_copied_into_another_keys_certificate_is_refused() {
    let machine = Machine::new(1);
    let genuine = machine.key_service();
    let key = SessionKey::generate(&mut Seeded::new(99));
    let claims = genuine.claims().encode();
    let report_data = claims_report_data(&claims);
    let quote = machine.quote(KEYS_CODE, &report_data).quote;
    let until = NOW.plus(Duration::from_secs(3600));
    let copied = certificate_der(&key, &quote, &claims, NOW, until).unwrap();
    let (client, _) = relay((copied, raw::scalar(99)), TEN_MINUTES);
    assert!(matches!(client, SessionError::Certificate(_)), "{client}");
    assert!(client.to_string().contains("another key"), "{client}");
}

#[test]
fn a_certificate_shown_without_its_key_ends_the_handshake() {
    let machine = Machine::new(1);
    let stolen = (
        machine.key_service().certificate().to_vec(),
        raw::scalar(99),
    );
    let (near, far) = wire();
    let (client, ()) = scope(|scope| {
        let attacker = scope.spawn(move || drop(Raw::new(raw::server(stolen), far)));
        let provider = provider();
        let expect = machine.expect(Role::KeyService, TEN_MINUTES);
        let outcome = connect(
            near,
            Local::Client(&provider),
            &expect,
            NOW,
            &mut Seeded::new(1),
        );
        (refused(outcome), attacker.join().unwrap())
    });
    assert!(matches!(client, SessionError::Tls(_)), "{client}");
}

#[test]
fn diversion_to_a_genuine_tee_of_another_service_is_refused() {
    let machine = Machine::new(1);
    let other = machine.identity(Role::KeyService, OTHER_SERVICE, 1, NOW);
    let provider = provider();
    for freshness in [Freshness::Fresh, TEN_MINUTES] {
        let expect = machine.expect(Role::KeyService, freshness);
        let (client, service) = meet(
            Local::Client(&provider),
            &expect,
            &other,
            &[Expect::Client],
            NOW,
        );
        assert!(matches!(refused(client), SessionError::OtherService { .. }));
        let told = refused(service).to_string();
        assert_eq!(
            told,
            "refused by the other end: belongs to another key service"
        );
    }
}

#[test]
fn diversion_to_genuine_other_code_is_refused_and_named() {
    let machine = Machine::new(1);
    let provider = provider();
    for freshness in [Freshness::Fresh, TEN_MINUTES] {
        // A key service by its word, on a genuine machine, running what is not on the list.
        let roots = machine.roots();
        let listed = policy([0x33; 32]);
        let expect = Expect::attested(Role::KeyService, roots, listed, Some(SERVICE), freshness);
        let (client, service) = meet(
            Local::Client(&provider),
            &expect,
            &machine.key_service(),
            &[Expect::Client],
            NOW,
        );
        assert!(matches!(refused(client), SessionError::Appraisal(_)));
        assert!(refused(service).to_string().contains("measurement"));
    }
}

#[test]
fn a_runtime_that_is_not_the_expected_code_learns_why() {
    let machine = Machine::new(1);
    let expect_runtime = Expect::attested(
        Role::Runtime,
        machine.roots(),
        policy([0x33; 32]),
        None,
        Freshness::Fresh,
    );
    let (runtime, keys) = meet(
        Local::Attested(&machine.runtime()),
        &machine.expect(Role::KeyService, TEN_MINUTES),
        &machine.key_service(),
        &[expect_runtime],
        NOW,
    );
    assert!(matches!(refused(keys), SessionError::Appraisal(_)));
    let told = refused(runtime).to_string();
    assert!(
        told.starts_with("refused by the other end") && told.contains("measurement"),
        "{told}"
    );
}

#[test]
fn evidence_of_another_machines_pki_is_refused() {
    let (ours, theirs) = (Machine::new(1), Machine::new(2));
    let provider = provider();
    for freshness in [Freshness::Fresh, TEN_MINUTES] {
        let expect = ours.expect(Role::KeyService, freshness);
        let (client, service) = meet(
            Local::Client(&provider),
            &expect,
            &theirs.key_service(),
            &[Expect::Client],
            NOW,
        );
        assert!(matches!(refused(client), SessionError::Evidence(_)));
        assert!(refused(service).to_string().contains("not genuine"));
    }
}

#[test]
fn the_wrong_role_is_refused_on_both_sides() {
    let machine = Machine::new(1);
    let provider = provider();
    let (keys, runtime) = (machine.key_service(), machine.runtime());
    let expect_keys = machine.expect(Role::KeyService, TEN_MINUTES);
    // A runtime where a key service belongs.
    let (client, _) = meet(
        Local::Client(&provider),
        &expect_keys,
        &runtime,
        &[Expect::Client],
        NOW,
    );
    assert!(matches!(
        refused(client),
        SessionError::Role {
            found: Role::Runtime
        }
    ));
    // A client where only runtimes are served.
    let served = [machine.expect(Role::Runtime, TEN_MINUTES)];
    let (client, service) = meet(Local::Client(&provider), &expect_keys, &keys, &served, NOW);
    assert!(matches!(
        refused(service),
        SessionError::Role {
            found: Role::Client
        }
    ));
    assert!(refused(client).to_string().contains("role not served here"));
    // A key service where only runtimes are served.
    let other = machine.identity(Role::KeyService, SERVICE, 3, NOW);
    let (_, service) = meet(Local::Attested(&other), &expect_keys, &keys, &served, NOW);
    assert!(matches!(
        refused(service),
        SessionError::Role {
            found: Role::KeyService
        }
    ));
}

/// A raw peer connects to a key service and says `hello` with or without a certificate.
fn say_hello(shown: Option<raw::Shown>, role: Role) -> SessionError {
    let machine = Machine::new(1);
    let keys = machine.key_service();
    let served = [Expect::Client, machine.expect(Role::Runtime, TEN_MINUTES)];
    let (near, far) = wire();
    scope(|scope| {
        let service = scope.spawn(|| accept(far, &keys, &served, NOW, &mut Seeded::new(2)));
        let mut peer = Raw::new(raw::client(raw::client_config(shown)), near).unwrap();
        let hello = Hello {
            nonce: [1; 32],
            role,
            want: Some(bield_session::Proof::Cached),
        };
        peer.send(GATE, &GateMessage::Hello(hello).encode())
            .unwrap();
        while peer.receive().is_ok() {}
        refused(service.join().unwrap())
    })
}

#[test]
fn a_hello_must_fit_the_certificate() {
    let shown = || Some(attacker(Role::KeyService));
    let error = say_hello(shown(), Role::Runtime);
    assert!(
        matches!(error, SessionError::RoleMismatch { .. }),
        "{error}"
    );
    let error = say_hello(shown(), Role::Client);
    assert!(
        matches!(error, SessionError::CertificatePresence { shown: true, .. }),
        "{error}"
    );
    let error = say_hello(None, Role::Runtime);
    assert!(
        matches!(
            error,
            SessionError::CertificatePresence { shown: false, .. }
        ),
        "{error}"
    );
}

#[test]
fn an_expired_certificate_and_old_evidence_are_refused() {
    let machine = Machine::new(1);
    let provider = provider();
    let minute = |n: u64| NOW.plus(Duration::from_secs(60 * n));
    let keys = machine.key_service();
    let at = |freshness, now: Time| {
        let expect = machine.expect(Role::KeyService, freshness);
        meet(
            Local::Client(&provider),
            &expect,
            &keys,
            &[Expect::Client],
            now,
        )
        .0
    };
    assert!(at(TEN_MINUTES, minute(10)).is_ok());
    let stale = refused(at(TEN_MINUTES, minute(11)));
    assert!(matches!(stale, SessionError::Stale { .. }), "{stale}");
    // A fresh quote makes up for old evidence, not for an expired certificate.
    assert!(at(Freshness::Fresh, minute(60)).is_ok());
    let expired = refused(at(Freshness::Fresh, minute(24 * 60 + 1)));
    assert!(
        expired.to_string().contains("renew the identity"),
        "{expired}"
    );
    // Made in the future: one minute of difference between clocks, not more.
    let early = |seconds| NOW.minus(Duration::from_secs(seconds));
    assert!(at(TEN_MINUTES, early(50)).is_ok());
    assert!(matches!(
        refused(at(TEN_MINUTES, early(90))),
        SessionError::Certificate(_)
    ));
}

#[test]
fn sessions_are_never_resumed_and_use_the_hybrid_group() {
    let machine = Machine::new(1);
    let keys = machine.key_service();
    // A client that would love to resume: one configuration, default session cache.
    let config = raw::client_config(None);
    for _ in 0..3 {
        let (near, far) = wire();
        scope(|scope| {
            let service = scope.spawn(|| {
                accept(far, &keys, &[Expect::Client], NOW, &mut Seeded::new(2)).map(drop)
            });
            let mut peer = Raw::new(raw::client(config.clone()), near).unwrap();
            let hello = Hello {
                nonce: [1; 32],
                role: Role::Client,
                want: None,
            };
            peer.send(GATE, &GateMessage::Hello(hello).encode())
                .unwrap();
            while peer.receive().is_ok() {}
            assert_eq!(peer.connection.handshake_kind(), Some(HandshakeKind::Full));
            let group = peer
                .connection
                .negotiated_key_exchange_group()
                .unwrap()
                .name();
            assert_eq!(group, NamedGroup::X25519MLKEM768);
            let rustls::Connection::Client(client) = &mut peer.connection else {
                unreachable!()
            };
            assert_eq!(client.tls13_tickets_received(), 0);
            assert!(client.early_data().is_none());
            drop(peer);
            assert!(service.join().unwrap().is_err());
        });
    }
}

/// A raw client sends `payload`-less frames instead of the gate; returns the service's refusal and
/// what it told.
fn instead_of_hello(send: impl FnOnce(&mut Raw<End>)) -> (SessionError, Option<GateMessage>) {
    let machine = Machine::new(1);
    let keys = machine.key_service();
    let (near, far) = wire();
    scope(|scope| {
        let service =
            scope.spawn(|| accept(far, &keys, &[Expect::Client], NOW, &mut Seeded::new(2)));
        let mut peer = Raw::new(raw::client(raw::client_config(None)), near).unwrap();
        send(&mut peer);
        let told = peer
            .receive()
            .ok()
            .and_then(|(_, payload)| GateMessage::decode(&payload).ok());
        drop(peer);
        (refused(service.join().unwrap()), told)
    })
}

#[test]
fn data_before_the_gate_is_refused() {
    let (error, told) = instead_of_hello(|peer| peer.send(DATA, b"give me keys").unwrap());
    assert!(matches!(error, SessionError::EarlyData));
    assert!(matches!(told, Some(GateMessage::Refusal(_))));
}

#[test]
fn oversized_unknown_and_malformed_frames_are_refused() {
    let (error, told) = instead_of_hello(|peer| peer.send_header(GATE, 200_000).unwrap());
    assert!(matches!(
        error,
        SessionError::TooLong { bytes: 200_000, .. }
    ));
    assert!(matches!(told, Some(GateMessage::Refusal(_))));
    let (error, _) = instead_of_hello(|peer| peer.send_header(GATE, u32::MAX).unwrap());
    assert!(matches!(error, SessionError::TooLong { .. }));
    let (error, _) = instead_of_hello(|peer| peer.send(3, b"?").unwrap());
    assert!(matches!(error, SessionError::Malformed(None)));
    for bytes in [&b""[..], b"\xff", b"\x82\x00", &[0x80; 1000]] {
        let (error, told) = instead_of_hello(|peer| peer.send(GATE, bytes).unwrap());
        assert!(matches!(error, SessionError::Malformed(Some(_))), "{error}");
        assert!(matches!(told, Some(GateMessage::Refusal(_))));
    }
}

#[test]
fn an_oversized_message_ends_an_established_session() {
    let machine = Machine::new(1);
    let keys = machine.key_service();
    let (near, far) = wire();
    let session = scope(|scope| {
        let service =
            scope.spawn(|| accept(far, &keys, &[Expect::Client], NOW, &mut Seeded::new(2)));
        let mut peer = Raw::new(raw::client(raw::client_config(None)), near).unwrap();
        let want = Some(bield_session::Proof::Cached);
        let hello = Hello {
            nonce: [1; 32],
            role: Role::Client,
            want,
        };
        peer.send(GATE, &GateMessage::Hello(hello).encode())
            .unwrap();
        peer.send(GATE, &GateMessage::Accept.encode()).unwrap();
        peer.send_header(DATA, MESSAGE_BYTES_MAX as u32 + 1)
            .unwrap();
        (service.join().unwrap().unwrap(), peer)
    });
    let (mut session, _peer) = session;
    assert!(matches!(
        session.receive(),
        Err(SessionError::TooLong { .. })
    ));
    assert!(matches!(session.receive(), Err(SessionError::Closed)));
}

#[test]
fn a_gate_message_in_an_established_session_is_refused() {
    let machine = Machine::new(1);
    let keys = machine.key_service();
    let (near, far) = wire();
    scope(|scope| {
        let service =
            scope.spawn(|| accept(far, &keys, &[Expect::Client], NOW, &mut Seeded::new(2)));
        let mut peer = Raw::new(raw::client(raw::client_config(None)), near).unwrap();
        let want = Some(bield_session::Proof::Cached);
        let hello = Hello {
            nonce: [1; 32],
            role: Role::Client,
            want,
        };
        for message in [
            GateMessage::Hello(hello),
            GateMessage::Accept,
            GateMessage::Accept,
        ] {
            peer.send(GATE, &message.encode()).unwrap();
        }
        let mut session = service.join().unwrap().unwrap();
        assert!(matches!(
            session.receive(),
            Err(SessionError::OutOfTurn { .. })
        ));
    });
}

#[test]
fn garbage_instead_of_tls_is_refused() {
    let machine = Machine::new(1);
    let (keys, provider) = (machine.key_service(), provider());
    for garbage in [
        &b"GET / HTTP/1.1\r\nHost: keys\r\n\r\n"[..],
        &[0; 64],
        b"\x16\x03\x01\x00\x05hello",
    ] {
        let (mut near, far) = wire();
        near.write_all(garbage).unwrap();
        let outcome = accept(far, &keys, &[Expect::Client], NOW, &mut Seeded::new(2));
        assert!(matches!(refused(outcome), SessionError::Tls(_)));
        let (near, mut far) = wire();
        far.write_all(garbage).unwrap();
        let expect = machine.expect(Role::KeyService, TEN_MINUTES);
        let local = Local::Client(&provider);
        let outcome = connect(near, local, &expect, NOW, &mut Seeded::new(2));
        assert!(matches!(refused(outcome), SessionError::Tls(_)));
    }
}

#[test]
fn tls_without_our_protocol_name_is_refused() {
    let machine = Machine::new(1);
    let keys = machine.key_service();
    let (near, far) = wire();
    scope(|scope| {
        let service =
            scope.spawn(|| accept(far, &keys, &[Expect::Client], NOW, &mut Seeded::new(2)));
        let mut config = raw::client_config(None);
        config.alpn_protocols.clear();
        let mut peer = Raw::new(raw::client(config), near).unwrap();
        assert!(peer.receive().is_err());
        assert!(matches!(
            refused(service.join().unwrap()),
            SessionError::OtherProtocol
        ));
    });
}

/// A stream whose far end is cut after so many bytes have been read.
struct Cut<S>(S, usize);

impl<S: Read> Read for Cut<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = buffer.len().min(self.1);
        let read = self.0.read(&mut buffer[..length])?;
        self.1 -= read;
        Ok(read)
    }
}

impl<S: Write> Write for Cut<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[test]
fn a_stream_cut_anywhere_never_yields_a_session() {
    let machine = Machine::new(1);
    let (keys, provider) = (machine.key_service(), provider());
    let expect = machine.expect(Role::KeyService, TEN_MINUTES);
    let attempt = |bytes: usize| {
        let (near, far) = wire();
        scope(|scope| {
            let service = scope
                .spawn(|| accept(far, &keys, &[Expect::Client], NOW, &mut Seeded::new(2)).is_ok());
            let local = Local::Client(&provider);
            let client =
                connect(Cut(near, bytes), local, &expect, NOW, &mut Seeded::new(1)).map(drop);
            (client, service.join().unwrap())
        })
    };
    // Enough bytes: both are content. Then every cut is noticed.
    assert!(matches!(attempt(usize::MAX), (Ok(()), true)));
    let mut bytes = 0;
    while let (Err(error), accepted) = attempt(bytes) {
        assert!(
            matches!(error, SessionError::Truncated),
            "after {bytes} bytes: {error}"
        );
        assert!(!accepted, "the client never accepted");
        bytes += 487;
    }
    assert!(
        bytes > 10_000,
        "certificate, proof and endorsements take more than {bytes} bytes"
    );
}

/// A stream on which long writes fail once the peer is gone, as on a full socket.
struct Congested(End);

impl Read for Congested {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Congested {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > 8000 {
            self.0.wait_until_closed();
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_refusal_is_heard_even_when_it_cuts_off_what_is_being_sent() {
    let machine = Machine::new(1);
    let keys = machine.identity(Role::KeyService, OTHER_SERVICE, 1, NOW);
    let provider = provider();
    let expect = machine.expect(Role::KeyService, TEN_MINUTES);
    let (near, far) = wire();
    scope(|scope| {
        let service = scope.spawn(|| {
            accept(
                Congested(far),
                &keys,
                &[Expect::Client],
                NOW,
                &mut Seeded::new(2),
            )
        });
        let local = Local::Client(&provider);
        let client = connect(near, local, &expect, NOW, &mut Seeded::new(1));
        assert!(matches!(refused(client), SessionError::OtherService { .. }));
        let told = refused(service.join().unwrap());
        assert!(matches!(told, SessionError::RefusedByPeer(_)), "{told}");
    });
}

#[test]
fn a_peer_that_closes_in_good_order_mid_gate_yields_no_session() {
    let (error, _) = instead_of_hello(|peer| {
        peer.connection.send_close_notify();
        while peer.connection.wants_write() {
            peer.connection.write_tls(&mut peer.stream).unwrap();
        }
    });
    assert!(matches!(error, SessionError::Truncated), "{error}");
}

#[test]
fn a_proof_that_is_no_signature_is_refused_and_the_next_good_peer_is_served() {
    let machine = Machine::new(1);
    let (keys, runtime) = (machine.key_service(), machine.runtime());
    let served = [machine.expect(Role::Runtime, Freshness::Fresh)];
    let (near, far) = wire();
    scope(|scope| {
        let service = scope.spawn(|| accept(far, &keys, &served, NOW, &mut Seeded::new(2)));
        let shown = (runtime.certificate().to_vec(), raw::scalar(2));
        let mut peer = Raw::new(raw::client(raw::client_config(Some(shown))), near).unwrap();
        let want = Some(bield_session::Proof::Cached);
        let hello = Hello {
            nonce: [1; 32],
            role: Role::Runtime,
            want,
        };
        peer.send(GATE, &GateMessage::Hello(hello).encode())
            .unwrap();
        let bind = Bind {
            signature: vec![0x30; 70],
            quote: None,
            endorsements: Endorsements::None,
        };
        peer.send(GATE, &GateMessage::Bind(bind).encode()).unwrap();
        assert!(matches!(
            refused(service.join().unwrap()),
            SessionError::Binding
        ));
    });
    let expect = machine.expect(Role::KeyService, TEN_MINUTES);
    let (runtime, keys) = meet(Local::Attested(&runtime), &expect, &keys, &served, NOW);
    assert!(runtime.is_ok() && keys.is_ok());
}

#[test]
fn hardening_that_a_policy_asks_for_must_be_stated_in_force() {
    let machine = Machine::new(1);
    let keys = machine.key_service();
    let asking = |protections: &[Protection], freshness| {
        let demand = HardeningDemand::exactly(protections.iter().copied());
        let policy = policy(KEYS_CODE).with_hardening(demand);
        Expect::attested(Role::KeyService, machine.roots(), policy, None, freshness)
    };
    for freshness in [Freshness::Fresh, TEN_MINUTES] {
        let local = provider();
        let meet =
            |expect: &Expect| meet(Local::Client(&local), expect, &keys, &[Expect::Client], NOW).0;
        assert!(meet(&asking(&[Protection::ListedSystemCalls], freshness)).is_ok());
        // One that the kernel refused, and one that was not asked for.
        for lacking in [Protection::LockedMemory, Protection::NoCoreFile] {
            let error = refused(meet(&asking(&[lacking], freshness)));
            let SessionError::Appraisal(refusal) = error else {
                panic!("{error}");
            };
            let failed: Vec<_> = refusal.failed().iter().map(|check| check.name).collect();
            assert_eq!(failed, ["hardening"]);
        }
    }
}

#[test]
fn other_hardening_than_the_evidence_covers_is_refused() {
    let machine = Machine::new(1);
    let key = || SessionKey::generate(&mut Seeded::new(1));
    let claims = |hardening| {
        SessionClaims::new(
            key().spki(),
            Role::KeyService,
            Some(SERVICE),
            NOW,
            TeeKind::Sgx,
            hardening,
        )
    };
    // Evidence over what is true, in a certificate that says more; even with the key of its own.
    let quoted = machine.quote(
        KEYS_CODE,
        &claims_report_data(&claims(hardening()).encode()),
    );
    let more = claims(HardeningStatement::new(Protection::ALL, []));
    let until = NOW.plus(Duration::from_secs(3600));
    let der = certificate_der(&key(), &quoted.quote, &more.encode(), NOW, until).unwrap();
    let attest = machine.attest(KEYS_CODE);
    let liar =
        Identity::with_certificate(provider(), key(), der, quoted.endorsements, attest).unwrap();
    let expect = machine.expect(Role::KeyService, TEN_MINUTES);
    let local = provider();
    let (client, _) = meet(
        Local::Client(&local),
        &expect,
        &liar,
        &[Expect::Client],
        NOW,
    );
    let error = refused(client);
    assert!(matches!(error, SessionError::Evidence(_)), "{error}");
}
