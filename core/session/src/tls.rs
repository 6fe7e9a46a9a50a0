//! rustls, set up so that TLS does one thing here: a fresh confidential channel between two keys.
//!
//! TLS 1.3 only, hybrid key exchange first, no resumption, no tickets, no early data, no names, no
//! certificate authorities. Inside the handshake a certificate is held to its size and its key must
//! sign; what its evidence is worth is decided in the gate, because an error here would reach the
//! peer as a bare alert and slow appraisal would hold up the handshake.

use std::sync::Arc;

use bield_envelope::Time;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{
    CertificateError, ClientConfig, ClientConnection, Connection, DigitallySignedStruct,
    DistinguishedName, Error, ServerConfig, ServerConnection, SignatureScheme,
};

use crate::CERTIFICATE_BYTES_MAX;

/// The cryptography to pass to this crate: aws-lc, with X25519MLKEM768 before X25519 and AES-256-GCM
/// first.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    let groups = vec![
        aws_lc_rs::kx_group::X25519MLKEM768,
        aws_lc_rs::kx_group::X25519,
    ];
    Arc::new(CryptoProvider {
        kx_groups: groups,
        ..aws_lc_rs::default_provider()
    })
}

/// The connecting side; without `certified` it stays anonymous.
pub(crate) fn connector(
    provider: &Arc<CryptoProvider>,
    certified: Option<Arc<CertifiedKey>>,
    now: Time,
) -> Result<Connection, Error> {
    let config = ClientConfig::builder_with_details(Arc::clone(provider), Arc::new(FixedTime(now)))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Recorded(Arc::clone(provider))));
    let mut config = match certified {
        Some(certified) => {
            config.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified)))
        }
        None => config.with_no_client_auth(),
    };
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    config.enable_sni = false;
    config.alpn_protocols = vec![ALPN.to_vec()];
    let name = ServerName::try_from("bield-session.invalid")
        .map_err(|error| Error::General(error.to_string()))?;
    Ok(Connection::Client(ClientConnection::new(
        Arc::new(config),
        name,
    )?))
}

/// The accepting side; asks for the peer's certificate and does without if there is none.
pub(crate) fn acceptor(
    provider: &Arc<CryptoProvider>,
    certified: Arc<CertifiedKey>,
    now: Time,
) -> Result<Connection, Error> {
    let mut config =
        ServerConfig::builder_with_details(Arc::clone(provider), Arc::new(FixedTime(now)))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(Arc::new(Recorded(Arc::clone(provider))))
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(Connection::Server(ServerConnection::new(Arc::new(config))?))
}

/// Names this protocol and its version inside the handshake (RFC 7301).
pub const ALPN: &[u8] = b"bield-session/2";

/// rustls' clock: the time its caller was given.
#[derive(Debug)]
struct FixedTime(Time);

impl rustls::time_provider::TimeProvider for FixedTime {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(
            core::time::Duration::from_millis(self.0.as_millis()),
        ))
    }
}

/// Takes any single certificate of bounded size whose key signs this handshake.
#[derive(Debug)]
struct Recorded(Arc<CryptoProvider>);

impl Recorded {
    fn bounded(
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
    ) -> Result<(), Error> {
        if certificate.len() > CERTIFICATE_BYTES_MAX || !others.is_empty() {
            return Err(Error::InvalidCertificate(CertificateError::BadEncoding));
        }
        Ok(())
    }

    fn signed(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        if signature.scheme != SCHEME {
            return Err(rustls::PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into());
        }
        let known = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, known)
    }
}

const SCHEME: SignatureScheme = SignatureScheme::ECDSA_NISTP256_SHA256;

impl ServerCertVerifier for Recorded {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Self::bounded(certificate, others)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(rustls::PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signed(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SCHEME]
    }
}

impl ClientCertVerifier for Recorded {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Self::bounded(certificate, others)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(rustls::PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signed(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SCHEME]
    }
}
