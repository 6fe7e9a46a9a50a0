//! The cast: two machines, ends with identities, an in-memory wire, and a raw peer for attackers.

#![allow(
    dead_code,
    clippy::allow_attributes,
    reason = "each test file uses its own part"
)]

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use bield_envelope::{Principal, Seeded, Time};
use bield_evidence::{
    Evidence, HardeningStatement, Measurement, Policy, Protection, Reference, Roots, TeeKind,
    canonical_dcap,
};
use bield_session::{
    Attest, Expect, FRAME_HEADER_BYTES, Freshness, Identity, Local, Role, Session, SessionError,
    SessionKey, accept, connect, provider,
};
use bield_software_tee::{CollateralOptions, Kind, Options, Platform, SgxReport};
use rustls::Connection;

pub(crate) const NOW: Time = Time::from_secs(1_800_000_000);
pub(crate) const KEYS_CODE: [u8; 32] = [0x11; 32];
pub(crate) const RUNTIME_CODE: [u8; 32] = [0x22; 32];
pub(crate) const SERVICE: Principal = Principal::from_bytes([0x5e; 32]);
pub(crate) const OTHER_SERVICE: Principal = Principal::from_bytes([0x07; 32]);
pub(crate) const TEN_MINUTES: Freshness = Freshness::Cached {
    age_max: Duration::from_secs(600),
};
const DAY: Duration = Duration::from_secs(24 * 3600);

/// A quoting machine.
#[derive(Clone)]
pub(crate) struct Machine(Arc<Platform>);

impl Machine {
    pub(crate) fn new(seed: u8) -> Self {
        let options = Options::seeded([seed; 32], NOW.minus(DAY));
        Self(Arc::new(Platform::generate(options).unwrap()))
    }

    pub(crate) fn roots(&self) -> Roots {
        Roots::none().with_simulated_dcap(self.0.root_der().to_vec())
    }

    pub(crate) fn quote(&self, code: [u8; 32], report_data: &[u8; 64]) -> Evidence {
        let report = SgxReport {
            measurement: code,
            report_data: *report_data,
            ..SgxReport::default()
        };
        let collateral = self
            .0
            .collateral(Kind::Sgx, &CollateralOptions::at(NOW))
            .unwrap();
        canonical_dcap(&self.0.sgx_quote(&report), &collateral).unwrap()
    }

    pub(crate) fn attest(&self, code: [u8; 32]) -> Attest {
        let machine = self.clone();
        Box::new(move |report_data| Ok(machine.quote(code, report_data)))
    }

    pub(crate) fn identity(&self, role: Role, service: Principal, seed: u64, at: Time) -> Identity {
        let key = SessionKey::generate(&mut Seeded::new(seed));
        let attest = self.attest(code_of(role));
        Identity::issue(
            provider(),
            key,
            role,
            Some(service),
            TeeKind::Sgx,
            hardening(),
            at,
            DAY,
            attest,
        )
        .unwrap()
    }

    pub(crate) fn key_service(&self) -> Identity {
        self.identity(Role::KeyService, SERVICE, 1, NOW)
    }

    pub(crate) fn runtime(&self) -> Identity {
        self.identity(Role::Runtime, SERVICE, 2, NOW)
    }

    /// Expects the ordinary code of `role` on this machine.
    pub(crate) fn expect(&self, role: Role, freshness: Freshness) -> Expect {
        Expect::attested(
            role,
            self.roots(),
            policy(code_of(role)),
            Some(SERVICE),
            freshness,
        )
    }
}

pub(crate) fn code_of(role: Role) -> [u8; 32] {
    if role == Role::KeyService {
        KEYS_CODE
    } else {
        RUNTIME_CODE
    }
}

/// Accepts exactly `code`, simulated or not.
pub(crate) fn policy(code: [u8; 32]) -> Policy {
    let code = Measurement::new(TeeKind::Sgx, &code).unwrap();
    Policy::dev(Reference::Listed(vec![code]))
}

pub(crate) type Outcome = Result<Session<End>, SessionError>;

/// Runs both ends to their outcomes.
pub(crate) fn meet(
    local: Local<'_>,
    expect: &Expect,
    identity: &Identity,
    accepts: &[Expect],
    now: Time,
) -> (Outcome, Outcome) {
    let (near, far) = wire();
    std::thread::scope(|scope| {
        let acceptor = scope.spawn(|| accept(far, identity, accepts, now, &mut Seeded::new(11)));
        let connector = connect(near, local, expect, now, &mut Seeded::new(10));
        (connector, acceptor.join().unwrap())
    })
}

/// The refusal of an outcome that must not be a session.
pub(crate) fn refused<S: Read + Write>(outcome: Result<Session<S>, SessionError>) -> SessionError {
    match outcome {
        Ok(_) => panic!("a session where a refusal belongs"),
        Err(error) => error,
    }
}

/// One end of an in-memory duplex stream; dropping it closes both directions.
pub(crate) struct End {
    read: Arc<Pipe>,
    write: Arc<Pipe>,
}

#[derive(Default)]
struct Pipe {
    state: Mutex<(VecDeque<u8>, bool)>,
    changed: Condvar,
}

pub(crate) fn wire() -> (End, End) {
    let (one, two) = (Arc::new(Pipe::default()), Arc::new(Pipe::default()));
    let near = End {
        read: Arc::clone(&one),
        write: Arc::clone(&two),
    };
    (
        near,
        End {
            read: two,
            write: one,
        },
    )
}

impl End {
    pub(crate) fn wait_until_closed(&self) {
        let mut state = self.write.state.lock().unwrap();
        while !state.1 {
            state = self.write.changed.wait(state).unwrap();
        }
    }
}

impl Read for End {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut state = self.read.state.lock().unwrap();
        while state.0.is_empty() && !state.1 {
            state = self.read.changed.wait(state).unwrap();
        }
        state.0.read(buffer)
    }
}

impl Write for End {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.write.state.lock().unwrap();
        if state.1 {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        state.0.extend(bytes);
        self.write.changed.notify_all();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for End {
    fn drop(&mut self) {
        for pipe in [&self.read, &self.write] {
            pipe.state.lock().unwrap().1 = true;
            pipe.changed.notify_all();
        }
    }
}

/// A peer that speaks TLS and frames but sends whatever a test wants.
pub(crate) struct Raw<S: Read + Write> {
    pub(crate) connection: Connection,
    pub(crate) stream: S,
}

impl<S: Read + Write> Raw<S> {
    pub(crate) fn new(mut connection: Connection, mut stream: S) -> io::Result<Self> {
        while connection.is_handshaking() {
            connection.complete_io(&mut stream)?;
        }
        Ok(Self { connection, stream })
    }

    pub(crate) fn send(&mut self, kind: u8, payload: &[u8]) -> io::Result<()> {
        // In one write: a peer that refuses the header closes before a second one.
        let length = (payload.len() as u32).to_be_bytes();
        self.write(&[&[kind][..], &length, payload].concat())
    }

    pub(crate) fn send_header(&mut self, kind: u8, length: u32) -> io::Result<()> {
        self.write(&[&[kind][..], &length.to_be_bytes()].concat())
    }

    pub(crate) fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let taken = self.connection.writer().write(bytes)?;
            bytes = &bytes[taken..];
            while self.connection.wants_write() {
                self.connection.write_tls(&mut self.stream)?;
            }
        }
        Ok(())
    }

    pub(crate) fn receive(&mut self) -> io::Result<(u8, Vec<u8>)> {
        let mut header = [0; FRAME_HEADER_BYTES];
        self.fill(&mut header)?;
        let [kind, length @ ..] = header;
        let mut payload = vec![0; u32::from_be_bytes(length) as usize];
        self.fill(&mut payload)?;
        Ok((kind, payload))
    }

    fn fill(&mut self, mut buffer: &mut [u8]) -> io::Result<()> {
        while !buffer.is_empty() {
            match self.connection.reader().read(buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(bytes) => buffer = &mut buffer[bytes..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.connection.read_tls(&mut self.stream)?;
                    self.connection
                        .process_new_packets()
                        .map_err(io::Error::other)?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

pub(crate) mod raw {
    //! rustls without scruples: takes any certificate and shows any.

    use std::sync::Arc;

    use bield_envelope::Secret;
    use bield_session::{ALPN, provider};
    use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
    use rustls::pki_types::{
        CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime,
    };
    use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
    use rustls::sign::{CertifiedKey, SingleCertAndKey};
    use rustls::{
        ClientConfig, ClientConnection, Connection, DigitallySignedStruct, DistinguishedName,
        Error, ServerConfig, ServerConnection, SignatureScheme,
    };

    /// A certificate and the scalar of its key.
    pub(crate) type Shown = (Vec<u8>, [u8; 32]);

    pub(crate) fn client_config(shown: Option<Shown>) -> ClientConfig {
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Any));
        let mut config = match shown {
            Some((certificate, scalar)) => builder
                .with_client_auth_cert(vec![CertificateDer::from(certificate)], key(scalar))
                .unwrap(),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![ALPN.to_vec()];
        config
    }

    pub(crate) fn client(config: ClientConfig) -> Connection {
        let name = ServerName::try_from("attacker.invalid").unwrap();
        Connection::Client(ClientConnection::new(Arc::new(config), name).unwrap())
    }

    pub(crate) fn server(shown: Shown) -> Connection {
        // Not `with_single_cert`, which would notice a certificate of another key.
        let loaded = provider()
            .key_provider
            .load_private_key(key(shown.1))
            .unwrap();
        let certified = CertifiedKey::new(vec![CertificateDer::from(shown.0)], loaded);
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(Arc::new(Any))
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
        config.alpn_protocols = vec![ALPN.to_vec()];
        Connection::Server(ServerConnection::new(Arc::new(config)).unwrap())
    }

    /// The first 32 bytes of a seeded stream, as `SessionKey::generate` draws them.
    pub(crate) fn scalar(seed: u64) -> [u8; 32] {
        *Secret::generate(&mut bield_envelope::Seeded::new(seed)).expose()
    }

    fn key(scalar: [u8; 32]) -> PrivateKeyDer<'static> {
        let prefix = "3041020100301306072a8648ce3d020106082a8648ce3d030107042730250201010420";
        let der = [hex::decode(prefix).unwrap(), scalar.to_vec()].concat();
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(der))
    }

    #[derive(Debug)]
    struct Any;

    impl ServerCertVerifier for Any {
        fn verify_server_cert(
            &self,
            _: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: &ServerName<'_>,
            _: &[u8],
            _: UnixTime,
        ) -> Result<ServerCertVerified, Error> {
            Ok(ServerCertVerified::assertion())
        }

        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            vec![SignatureScheme::ECDSA_NISTP256_SHA256]
        }
    }

    impl ClientCertVerifier for Any {
        fn client_auth_mandatory(&self) -> bool {
            false
        }

        fn root_hint_subjects(&self) -> &[DistinguishedName] {
            &[]
        }

        fn verify_client_cert(
            &self,
            _: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: UnixTime,
        ) -> Result<ClientCertVerified, Error> {
            Ok(ClientCertVerified::assertion())
        }

        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            vec![SignatureScheme::ECDSA_NISTP256_SHA256]
        }
    }
}

/// What the ends of this cast state of their processes.
pub(crate) fn hardening() -> HardeningStatement {
    HardeningStatement::new([Protection::ListedSystemCalls], [Protection::LockedMemory])
}
