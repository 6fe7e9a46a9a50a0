//! An end's own identity: a key, a certificate that carries its evidence, and a way to quote again.

use std::sync::Arc;
use std::time::Duration;

use bield_envelope::{Principal, Time};
use bield_evidence::{Endorsements, Evidence, HardeningStatement, TeeKind, claims_report_data};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::sign::CertifiedKey;

use crate::{CertificateError, Role, SessionClaims, SessionError, SessionKey, certificate_der};

/// Makes evidence over 64 bytes of report data; the returned claims-buffer is ignored.
///
/// Called once per identity and once per fresh proof, on the caller's thread: 0.1 to 1 s on
/// hardware. An error's text stays on this side.
pub type Attest = Box<dyn Fn(&[u8; 64]) -> Result<Evidence, String> + Send + Sync>;

/// Whether a peer that says to have this role may have fresh evidence now; a refusal's text stays on this side.
///
/// An acceptor proves itself before its peer does, so the role is the peer's word.
pub type Ration = Box<dyn Fn(Role) -> Result<(), String> + Send + Sync>;

/// An attested end; shared by all its sessions. Silent about its key.
pub struct Identity {
    provider: Arc<CryptoProvider>,
    key: SessionKey,
    certified: Arc<CertifiedKey>,
    claims: SessionClaims,
    endorsements: Endorsements,
    attest: Attest,
    ration: Option<Ration>,
}

impl Identity {
    /// Has `key` attested by hardware of `kind` for `role` and `service`, in a certificate valid
    /// from `now` for `lifetime`, that states `hardening`.
    ///
    /// Make it when the process has given up what it will give up; a peer may ask for that.
    ///
    /// Renew it before its peers' [`Freshness::Cached`](crate::Freshness::Cached) age has passed.
    ///
    /// # Errors
    /// [`SessionError::Attest`] when no evidence of that kind comes back, [`SessionError::Identity`]
    /// when it does not fit a certificate.
    #[expect(
        clippy::too_many_arguments,
        reason = "what a certificate says, each once"
    )]
    pub fn issue(
        provider: Arc<CryptoProvider>,
        key: SessionKey,
        role: Role,
        service: Option<Principal>,
        kind: TeeKind,
        hardening: HardeningStatement,
        now: Time,
        lifetime: Duration,
        attest: Attest,
    ) -> Result<Self, SessionError> {
        let claims = SessionClaims::new(key.spki(), role, service, now, kind, hardening);
        let claims_buffer = claims.encode();
        let made = quote(&attest, kind, &claims_report_data(&claims_buffer))?;
        let certificate =
            certificate_der(&key, &made.quote, &claims_buffer, now, now.plus(lifetime))
                .map_err(SessionError::Identity)?;
        Self::with_certificate(provider, key, certificate, made.endorsements, attest)
    }

    /// Takes a certificate made before with [`certificate_der`].
    ///
    /// # Errors
    /// [`SessionError::Identity`] when the certificate is not one of this key, or its role needs
    /// none.
    pub fn with_certificate(
        provider: Arc<CryptoProvider>,
        key: SessionKey,
        certificate: Vec<u8>,
        endorsements: Endorsements,
        attest: Attest,
    ) -> Result<Self, SessionError> {
        let read = crate::PeerCertificate::parse(&certificate, &provider);
        let read = read.map_err(SessionError::Identity)?;
        if read.spki() != key.spki() || !read.claims().role.is_attested() {
            return Err(SessionError::Identity(CertificateError::OtherKey));
        }
        let chain = vec![CertificateDer::from(certificate)];
        let certified = Arc::new(CertifiedKey::new(chain, key.for_tls()));
        let claims = read.claims().clone();
        Ok(Self {
            provider,
            key,
            certified,
            claims,
            endorsements,
            attest,
            ration: None,
        })
    }

    /// Asks `ration` before it makes fresh evidence for a peer that connected to it. What it connects to itself
    /// is not rationed.
    #[must_use]
    pub fn rationed(self, ration: Ration) -> Self {
        Self {
            ration: Some(ration),
            ..self
        }
    }

    /// What the certificate claims.
    #[must_use]
    pub const fn claims(&self) -> &SessionClaims {
        &self.claims
    }

    /// The certificate, DER.
    #[must_use]
    pub fn certificate(&self) -> &[u8] {
        self.certified
            .cert
            .first()
            .map_or(&[], |certificate| certificate)
    }

    pub(crate) const fn key(&self) -> &SessionKey {
        &self.key
    }

    pub(crate) const fn provider(&self) -> &Arc<CryptoProvider> {
        &self.provider
    }

    pub(crate) fn certified(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.certified)
    }

    pub(crate) const fn endorsements(&self) -> &Endorsements {
        &self.endorsements
    }

    /// Whether a peer that connected may have fresh evidence.
    pub(crate) fn admits(&self, peer: Role) -> Result<(), SessionError> {
        match &self.ration {
            Some(ration) => ration(peer).map_err(SessionError::Attest),
            None => Ok(()),
        }
    }

    /// Evidence whose report data is `digest`.
    pub(crate) fn quote(&self, digest: &[u8; 64]) -> Result<Evidence, SessionError> {
        quote(&self.attest, self.claims.kind, digest)
    }
}

fn quote(attest: &Attest, kind: TeeKind, digest: &[u8; 64]) -> Result<Evidence, SessionError> {
    let made = attest(digest).map_err(SessionError::Attest)?;
    if made.kind != kind {
        return Err(SessionError::Attest(format!(
            "a quote of kind {}, not {kind}",
            made.kind
        )));
    }
    Ok(made)
}
