//! The client of the key service: attested sessions through pipes that the host offers.
//!
//! ```text
//! offer ──▶ session (Runtime ↔ KeyService, both attested) ──▶ Certify?(signing key) ──▶ Lease(package) ──▶ close
//! ```
//!
//! Always true: the key service's evidence satisfies the measured configuration, with a quote made for this
//! very session; its certificate for our signing key is signed by the principal that its evidence names, for our
//! key and our code. The signing key is drawn at start and never leaves; its certificate is fetched with the
//! first lease and again whenever it would not outlive a lease. Our own identity is renewed before the key
//! service may find it old.
//!
//! Not here: caching and rationing (`leases`). Cost: three round trips, a quote on each side.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bield_door::{Offers, Stream, Visit};
use bield_envelope::{Digest, Principal, Signed, Verified};
use bield_evidence::Measurement;
use bield_grant::LEASE_TIME_MAX;
use bield_platform::{Randomness, Tee};
use bield_protocol::service::{Reply, Request};
use bield_receipt::WorkerCertificate;
use bield_session::{
    Expect, Identity, Local, Role, Session, SessionError, SessionKey, connect, provider,
};

use crate::flights::lock;
use crate::leases::{KeySource, Keys, KeysError};

/// How long to wait for a pipe to the key service, and for each of its answers.
pub(crate) const KEY_SERVICE_WAIT: Duration = Duration::from_secs(10);
/// An identity older than this is made anew: half of what a key service accepts as cached evidence.
const IDENTITY_AGE_MAX: Duration = Duration::from_secs(5 * 60);
/// How long a certificate of our identity is valid.
const IDENTITY_TIME: Duration = Duration::from_secs(60 * 60);
/// What a certificate must have left after the longest lease: a request's run.
const CERTIFICATE_MARGIN: Duration = Duration::from_secs(5 * 60);

/// The key service, as the measured configuration names it.
pub(crate) struct KeyService {
    offers: Arc<Offers>,
    tee: Arc<dyn Tee>,
    expect: Expect,
    worker: Principal,
    identity: Mutex<(Instant, Arc<Identity>)>,
    certificate: Mutex<Option<Arc<Verified<WorkerCertificate>>>>,
}

impl KeyService {
    /// Makes the client, and the first identity of this program.
    ///
    /// # Errors
    /// The TEE gives no evidence.
    pub(crate) fn new(
        offers: Arc<Offers>,
        tee: Arc<dyn Tee>,
        expect: Expect,
        worker: Principal,
    ) -> Result<Self, SessionError> {
        let identity = (Instant::now(), issue(&tee)?);
        Ok(Self {
            offers,
            tee,
            expect,
            worker,
            identity: Mutex::new(identity),
            certificate: Mutex::default(),
        })
    }

    fn connect(&self) -> Result<Session<Stream>, KeysError> {
        let stream = self
            .offers
            .take(Visit::KeyService, KEY_SERVICE_WAIT)
            .map_err(|error| unreachable(&error))?;
        stream
            .limit_waits(KEY_SERVICE_WAIT)
            .map_err(|error| unreachable(&error))?;
        let identity = self.identity().map_err(refusal_of)?;
        let local = Local::Attested(&identity);
        let now = bield_platform::now();
        connect(stream, local, &self.expect, now, &mut Randomness).map_err(refusal_of)
    }

    /// Returns an identity that the key service does not find old.
    fn identity(&self) -> Result<Arc<Identity>, SessionError> {
        let mut identity = lock(&self.identity);
        if identity.0.elapsed() > IDENTITY_AGE_MAX {
            *identity = (Instant::now(), issue(&self.tee)?);
        }
        Ok(Arc::clone(&identity.1))
    }

    /// Returns a certificate that outlives a lease of now; fetches one when there is none.
    fn certificate(
        &self,
        session: &mut Session<Stream>,
    ) -> Result<Arc<Verified<WorkerCertificate>>, KeysError> {
        let service = session
            .peer()
            .service
            .ok_or(KeysError::Contradiction("no name of its own"))?;
        let needed = bield_platform::now().plus(LEASE_TIME_MAX + CERTIFICATE_MARGIN);
        let kept = lock(&self.certificate).clone();
        if let Some(kept) = kept.filter(|c| c.signer() == service && c.not_after >= needed) {
            return Ok(kept);
        }
        let Reply::Certificate(signed) = ask(session, &Request::Certify(self.worker))? else {
            return Err(KeysError::Contradiction(
                "something else than a certificate",
            ));
        };
        let code = self.tee.measurement();
        let certificate = Arc::new(check_certificate(signed, service, self.worker, code)?);
        *lock(&self.certificate) = Some(Arc::clone(&certificate));
        Ok(certificate)
    }
}

impl KeySource for KeyService {
    fn fetch(&self, package: Digest) -> Result<Keys, KeysError> {
        let mut session = self.connect()?;
        let certificate = self.certificate(&mut session)?;
        let Reply::Lease(leased) = ask(&mut session, &Request::Lease(package))? else {
            return Err(KeysError::Contradiction("something else than a lease"));
        };
        session.close();
        Keys::new(leased, certificate, package, self.tee.measurement())
    }
}

/// Has the TEE attest a fresh session key.
fn issue(tee: &Arc<dyn Tee>) -> Result<Arc<Identity>, SessionError> {
    let quoting = Arc::clone(tee);
    let identity = Identity::issue(
        provider(),
        SessionKey::generate(&mut Randomness),
        Role::Runtime,
        None,
        tee.kind(),
        bield_platform::now(),
        IDENTITY_TIME,
        Box::new(move |report_data| {
            quoting
                .evidence(report_data)
                .map_err(|error| error.to_string())
        }),
    )?;
    Ok(Arc::new(identity))
}

fn ask(session: &mut Session<Stream>, request: &Request) -> Result<Reply, KeysError> {
    session.send(&request.encode()).map_err(refusal_of)?;
    let reply = session.receive().map_err(refusal_of)?;
    match Reply::decode(&reply) {
        // Its reason and its times say who is granted what, so they end here.
        Ok(Reply::Refused(_)) => Err(KeysError::NotGranted),
        Ok(reply) => Ok(reply),
        Err(_) => Err(KeysError::Contradiction("something malformed")),
    }
}

/// Checks that the service that our session proved certifies our key, in our code.
fn check_certificate(
    signed: Signed<WorkerCertificate>,
    service: Principal,
    worker: Principal,
    code: &Measurement,
) -> Result<Verified<WorkerCertificate>, KeysError> {
    let certificate = signed
        .verify(&service)
        .map_err(|_| KeysError::Contradiction("a certificate it did not sign"))?;
    if certificate.service != service || certificate.worker != worker || certificate.code != *code {
        return Err(KeysError::Contradiction("a certificate for somebody else"));
    }
    Ok(certificate)
}

fn refusal_of(error: SessionError) -> KeysError {
    let why = error.to_string();
    match error {
        SessionError::Stream(_) | SessionError::Truncated | SessionError::Closed => {
            KeysError::Unreachable { why }
        }
        _ => KeysError::NotAccepted { why },
    }
}

fn unreachable(error: &impl ToString) -> KeysError {
    KeysError::Unreachable {
        why: error.to_string(),
    }
}

#[cfg(test)]
mod tests;
