//! The certificate: what it accepts is exactly one form, about its own key.

#![expect(
    clippy::unwrap_used,
    reason = "a failed unwrap in a test is a failed test"
)]

mod support;

use std::time::Duration;

use bield_envelope::Seeded;
use bield_evidence::{HardeningStatement, TeeKind};
use bield_session::{
    CERTIFICATE_BYTES_MAX, CertificateError, EVIDENCE_EXTENSION_BYTES_MAX, PeerCertificate, Role,
    SessionClaims, SessionKey, certificate_der, provider,
};
use support::*;

#[test]
fn every_changed_byte_of_a_certificate_is_refused() {
    let provider = provider();
    let identity = Machine::new(1).key_service();
    let genuine = identity.certificate();
    assert!(PeerCertificate::parse(genuine, &provider).is_ok());
    let mut changed = genuine.to_vec();
    for at in 0..changed.len() {
        changed[at] ^= 1 << (at % 8);
        assert!(
            PeerCertificate::parse(&changed, &provider).is_err(),
            "byte {at}"
        );
        changed[at] = genuine[at];
    }
    for cut in (0..genuine.len()).step_by(97) {
        assert!(PeerCertificate::parse(&genuine[..cut], &provider).is_err());
    }
    assert!(PeerCertificate::parse(&[genuine, &[0]].concat(), &provider).is_err());
}

#[test]
fn a_certificate_is_bounded_before_it_is_parsed() {
    let found = CERTIFICATE_BYTES_MAX + 1;
    let error = PeerCertificate::parse(&vec![0x30; found], &provider()).unwrap_err();
    assert_eq!(
        error,
        CertificateError::TooLong {
            found,
            max: CERTIFICATE_BYTES_MAX
        }
    );
    let key = SessionKey::generate(&mut Seeded::new(1));
    let quote = vec![0; EVIDENCE_EXTENSION_BYTES_MAX];
    let made = certificate_der(&key, &quote, &[], NOW, NOW);
    assert!(matches!(made, Err(CertificateError::TooLong { .. })));
}

#[test]
fn claims_of_another_key_or_another_shape_are_refused() {
    let (key, other) = (
        SessionKey::generate(&mut Seeded::new(1)),
        SessionKey::generate(&mut Seeded::new(2)),
    );
    let until = NOW.plus(Duration::from_secs(60));
    let parse = |claims: &[u8]| {
        let der = certificate_der(&key, b"quote", claims, NOW, until).unwrap();
        PeerCertificate::parse(&der, &provider()).map(|read| read.claims().clone())
    };
    let claims = |key: &SessionKey| {
        SessionClaims::new(
            key.spki(),
            Role::Runtime,
            Some(SERVICE),
            NOW,
            TeeKind::Tdx,
            hardening(),
        )
    };
    assert_eq!(parse(&claims(&key).encode()), Ok(claims(&key)));
    assert_eq!(
        parse(&claims(&other).encode()),
        Err(CertificateError::OtherKey)
    );
    let longer = [&claims(&key).encode()[..], b"\x00"].concat();
    assert_eq!(parse(&longer), Err(CertificateError::Claims));
    assert_eq!(parse(b""), Err(CertificateError::Claims));
}

#[test]
fn claims_that_state_no_hardening_are_refused() {
    let key = SessionKey::generate(&mut Seeded::new(1));
    let stated = SessionClaims::new(
        key.spki(),
        Role::KeyService,
        None,
        NOW,
        TeeKind::Sgx,
        HardeningStatement::default(),
    );
    // … { 0: role, 2: issued_at, 3: kind, 4: {} }, in a byte string of less than 24 bytes.
    let bytes = stated.encode();
    let (head, own) = bytes.split_at(bytes.len() - 18);
    assert_eq!((own[0], own[1], &own[16..]), (0x51, 0xa4, &[4, 0xa0][..]));
    let silent = [head, &[0x4f, 0xa3], &own[2..16]].concat();
    assert_eq!(SessionClaims::decode(&bytes), Ok(stated));
    assert!(SessionClaims::decode(&silent).is_err());
}

#[test]
fn every_changed_byte_of_a_claims_buffer_is_refused_or_means_something_else() {
    let key = SessionKey::generate(&mut Seeded::new(1));
    let claims = SessionClaims::new(
        key.spki(),
        Role::KeyService,
        None,
        NOW,
        TeeKind::Sgx,
        hardening(),
    );
    let bytes = claims.encode();
    assert_eq!(SessionClaims::decode(&bytes).unwrap(), claims);
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut changed = bytes.clone();
            changed[at] ^= 1 << bit;
            assert_ne!(SessionClaims::decode(&changed).ok().as_ref(), Some(&claims));
        }
    }
}
