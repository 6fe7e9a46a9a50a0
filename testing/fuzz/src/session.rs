//! Attested sessions: certificate, claims, gate, and the accepting side under raw bytes.

use std::io::{self, Read, Write};
use std::sync::{Arc, LazyLock};

use bield_envelope::{Digest, Principal, Seeded};
use bield_evidence::{
    HardeningStatement, Measurement, Policy, Protection, Reference, Roots, TeeKind, canonical_dcap,
};
use bield_session::{
    Expect, FRAME_HEADER_BYTES, Freshness, Gate, GateMessage, Identity, Local, PeerCertificate,
    Role, SessionClaims, SessionError, SessionKey, accept, connect, provider,
};
use bield_software_tee::{CollateralOptions, Kind, Options, Platform, SgxReport};
use rustls::crypto::CryptoProvider;

use crate::{cast, vectors};

/// An evidence certificate: what parses is one that was made, since it is signed by its own key.
pub fn session_certificate(data: &[u8]) -> bool {
    let Ok(certificate) = PeerCertificate::parse(data, &CAST.provider) else {
        return false;
    };
    cast::assert_honest(data, &seeds::session_certificate(), "certificate");
    assert!(certificate.claims().are_of(certificate.spki()));
    true
}

/// A claims-buffer: one encoding per value.
pub fn session_claims(data: &[u8]) -> bool {
    let Ok(claims) = SessionClaims::decode(data) else {
        return false;
    };
    assert_eq!(claims.encode(), data);
    true
}

/// A client at the gate: only the key service's own words, in their order, open it.
///
/// Input: what the peer sends after the TLS handshake, in frames (kind 1, u32 length, payload).
pub fn session_gate(data: &[u8]) -> bool {
    let mut gate = connector();
    let mut rest = data;
    let mut refused = false;
    while let Some(payload) = take_frame(&mut rest) {
        if let Ok(message) = GateMessage::decode(payload) {
            assert_eq!(message.encode(), payload);
        }
        let moved = gate.put_incoming(payload, &exporter);
        assert!(
            !(refused && moved.is_ok()),
            "a closed gate moved: any error must close it for good"
        );
        refused |= moved.is_err();
    }
    if !gate.is_open() {
        return false;
    }
    // An unfinished frame at the end has not arrived yet.
    let arrived = &data[..data.len() - rest.len()];
    assert!(
        arrived == CAST.transcript,
        "the gate opened for other words"
    );
    let peer = gate.finish().expect("it is open").peer;
    assert_eq!(peer.role, Role::KeyService);
    assert!(
        peer.appraised
            .is_some_and(|appraised| appraised.simulated())
    );
    true
}

/// The accepting side of a whole session, fed recorded or made-up bytes: never a session.
///
/// Accepts what it answers with a handshake of its own.
pub fn session_accept(data: &[u8]) -> bool {
    let mut stream = Recorded {
        read: data,
        written: Vec::new(),
    };
    let welcome = [Expect::Client];
    let mut entropy = Seeded::new(90);
    let session = accept(
        &mut stream,
        &CAST.identity,
        &welcome,
        cast::NOON,
        &mut entropy,
    );
    assert!(session.is_err(), "a session with a recording");
    drop(session);
    // RFC 8446 §5.1: content type 22, handshake.
    stream.written.first() == Some(&22)
}

/// A key service on a made-up machine, and what it once said to a client.
struct Cast {
    provider: Arc<CryptoProvider>,
    identity: Identity,
    expect: Expect,
    transcript: Vec<u8>,
    hello: Vec<u8>,
}

static CAST: LazyLock<Cast> = LazyLock::new(|| {
    let made = Options::seeded([1; 32], cast::NOON.minus(cast::HOUR * 24));
    let platform = Arc::new(Platform::generate(made).expect("a machine of our days"));
    let roots = Roots::none().with_simulated_dcap(platform.root_der().to_vec());
    let attest = Box::new(move |report_data: &[u8; 64]| {
        let report = SgxReport {
            measurement: CODE,
            report_data: *report_data,
            ..SgxReport::default()
        };
        let collateral = platform
            .collateral(Kind::Sgx, &CollateralOptions::at(cast::NOON))
            .map_err(|error| error.to_string())?;
        canonical_dcap(&platform.sgx_quote(&report), &collateral).map_err(|error| error.to_string())
    });
    let provider = provider();
    let identity = Identity::issue(
        Arc::clone(&provider),
        SessionKey::generate(&mut Seeded::new(91)),
        Role::KeyService,
        Some(SERVICE),
        TeeKind::Sgx,
        HardeningStatement::new([Protection::NoCoreFile], [Protection::LockedMemory]),
        cast::NOON,
        cast::HOUR,
        attest,
    )
    .expect("evidence that fits");
    let code = Measurement::new(TeeKind::Sgx, &CODE).expect("32 bytes");
    let expect = Expect::attested(
        Role::KeyService,
        roots,
        Policy::dev(Reference::Listed(vec![code])),
        Some(SERVICE),
        Freshness::Cached {
            age_max: cast::HOUR,
        },
    );
    let transcript = converse(&identity, &expect, &provider);
    let mut silent = Recorded {
        read: &[],
        written: Vec::new(),
    };
    let client = Local::Client(&provider);
    let mut entropy = Seeded::new(92);
    drop(connect(
        &mut silent,
        client,
        &expect,
        cast::NOON,
        &mut entropy,
    ));
    Cast {
        hello: silent.written,
        provider,
        identity,
        expect,
        transcript,
    }
});

/// Lets a client and the key service meet; returns what the key service said, in frames.
fn converse(identity: &Identity, expect: &Expect, provider: &CryptoProvider) -> Vec<u8> {
    let shown = Some(identity.certificate().to_vec());
    let mut client = Gate::connector(None, provider, expect, shown, NONCE, cast::NOON);
    let welcome = [Expect::Client];
    let mut service = Gate::acceptor(identity, &welcome, None, [2; 32], cast::NOON);
    let mut said = Vec::new();
    while !client.is_open() {
        while let Some(message) = client.get_outgoing() {
            service
                .put_incoming(&message, &exporter)
                .expect("honest ends");
        }
        while let Some(message) = service.get_outgoing() {
            said.push(1);
            said.extend(u32::try_from(message.len()).expect("short").to_be_bytes());
            said.extend(&message);
            client
                .put_incoming(&message, &exporter)
                .expect("honest ends");
        }
    }
    said
}

/// The client that said what the recorded one said.
fn connector() -> Gate<'static> {
    let shown = Some(CAST.identity.certificate().to_vec());
    let cast = &*CAST;
    Gate::connector(None, &cast.provider, &cast.expect, shown, NONCE, cast::NOON)
}

/// Stands for TLS: the same secrets on both sides and in every run.
fn exporter(label: &str, context: &[u8]) -> Result<[u8; 32], SessionError> {
    Ok(*Digest::of("bield fuzz exporter", &[label.as_bytes(), context]).as_bytes())
}

/// Takes one gate frame off the front; `None` at the end or at anything else.
fn take_frame<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (header, after) = rest.split_first_chunk::<FRAME_HEADER_BYTES>()?;
    let length = u32::from_be_bytes([header[1], header[2], header[3], header[4]]);
    let (payload, after) = after.split_at_checked(length as usize)?;
    if header[0] != 1 {
        return None;
    }
    *rest = after;
    Some(payload)
}

/// A peer that says what was recorded and hears nothing.
struct Recorded<'a> {
    read: &'a [u8],
    written: Vec<u8>,
}

impl Read for Recorded<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.read.read(buffer)
    }
}

impl Write for Recorded<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.written.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

const CODE: [u8; 32] = [0x11; 32];
const NONCE: [u8; 32] = [3; 32];
const SERVICE: Principal = Principal::from_bytes([0x5e; 32]);

pub(crate) mod seeds {
    use super::*;

    pub(crate) fn session_certificate() -> Vec<Vec<u8>> {
        vectors::bytes("03-session", "/certificate/der")
            .into_iter()
            .chain([CAST.identity.certificate().to_vec()])
            .collect()
    }

    pub(crate) fn session_claims() -> Vec<Vec<u8>> {
        vectors::bytes("03-session", "/claims/claims_buffer")
            .into_iter()
            .chain([CAST.identity.claims().encode()])
            .collect()
    }

    pub(crate) fn session_gate() -> Vec<Vec<u8>> {
        vec![CAST.transcript.clone()]
    }

    pub(crate) fn session_accept() -> Vec<Vec<u8>> {
        vec![CAST.hello.clone()]
    }
}
