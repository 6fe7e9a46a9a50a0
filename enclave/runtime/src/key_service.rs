//! The client of the key service: attested sessions through pipes that the host offers.
//!
//! ```text
//! offer ─ number ─▶ session (Runtime ↔ KeyService, both attested) ─▶ Freshness ─▶ Certify?(signing key) ─▶ Lease(package) ─▶ close
//!   ▲                  └───────── unreachable, not serving, not fresh ─┴────────────────┴───────────────────┘
//!   └── the next address (`failover`) ◀──┘
//! ```
//!
//! Always true: the key service's evidence satisfies the measured configuration, with a quote made for this
//! very session; before it is asked anything else, its log has been shown to continue the newest head that this
//! process has seen (`not_fresh`); its certificate for our signing key is signed by the principal that its evidence
//! names, for our key and our code. The signing key is drawn at start and never leaves; its certificate is fetched with
//! the first lease and again whenever it would not outlive a lease. Our own identity is renewed before the key
//! service may find it old. One question ends within [`FETCH_WAIT`], whatever the host does.
//!
//! Not here: caching and rationing (`leases`). Cost: four round trips, a quote on each side.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use bield_door::Offers;
use bield_envelope::{Digest, Principal, Signed, Verified};
use bield_evidence::{HardeningStatement, Measurement};
use bield_grant::LEASE_TIME_MAX;
use bield_platform::{Randomness, Tee};
use bield_protocol::refusal::Refusal;
use bield_protocol::service::{LeaseRequest, LogHead, Reply, Request, Returned};
use bield_receipt::WorkerCertificate;
use bield_session::{
    Expect, Identity, Local, Role, Session, SessionError, SessionKey, connect, provider,
};

mod failover;
mod not_fresh;
mod pipe;
pub(crate) mod states;

pub(crate) use not_fresh::NotFresh;

use crate::clock::Clock;
use crate::flights::lock;
use crate::keys::{Asked, Keys};
use crate::leases::{KeySource, KeysError};
use failover::Failover;
use pipe::{Pipe, Until};

/// How long one question may take, over all addresses.
pub(crate) const FETCH_WAIT: Duration = Duration::from_secs(20);
/// How long one address may take until there is a session with it.
const DIAL_WAIT: Duration = Duration::from_secs(5);
/// An identity older than this is made anew: half of what a key service accepts as cached evidence.
const IDENTITY_AGE_MAX: Duration = Duration::from_secs(5 * 60);
/// How long a certificate of our identity is valid.
const IDENTITY_TIME: Duration = Duration::from_secs(60 * 60);
/// What a certificate must have left after the longest lease: a request's run.
const CERTIFICATE_MARGIN: Duration = Duration::from_secs(5 * 60);
/// How often freshness is asked in one session because another thread learned of a newer head meanwhile.
const FRESHNESS_MAX: usize = 8;

/// The key service, as the measured configuration names it.
pub(crate) struct KeyService {
    offers: Arc<Offers>,
    tee: Arc<dyn Tee>,
    expect: Expect,
    worker: Principal,
    clock: Arc<dyn Clock>,
    identity: Mutex<(Instant, Arc<Identity>)>,
    certificate: Mutex<Option<Arc<Verified<WorkerCertificate>>>>,
    known: Mutex<Option<Arc<LogHead>>>,
    failover: Failover,
    /// Sessions that ended because the key service's state was not the newest.
    not_fresh: Arc<AtomicU64>,
    /// What this process gave up.
    hardening: HardeningStatement,
}

impl KeyService {
    /// Makes the client, and the first identity of this program, which states `hardening`; counts sessions that ended
    /// because the key service's state was not the newest in `not_fresh`.
    ///
    /// # Errors
    /// The TEE gives no evidence.
    pub(crate) fn new(
        offers: Arc<Offers>,
        tee: Arc<dyn Tee>,
        expect: Expect,
        worker: Principal,
        clock: Arc<dyn Clock>,
        hardening: HardeningStatement,
        not_fresh: Arc<AtomicU64>,
    ) -> Result<Self, SessionError> {
        let identity = (Instant::now(), issue(&tee, &hardening)?);
        Ok(Self {
            offers,
            tee,
            expect,
            worker,
            clock,
            identity: Mutex::new(identity),
            certificate: Mutex::default(),
            known: Mutex::default(),
            failover: Failover::default(),
            not_fresh,
            hardening,
        })
    }

    /// Asks the first address that answers.
    fn ask_any<T>(
        &self,
        wait: Duration,
        mut ask: impl FnMut(&mut Session<Pipe>) -> Result<T, KeysError>,
    ) -> Result<T, KeysError> {
        let deadline = Instant::now() + wait;
        let at_one = |number| {
            let until = Until::new(deadline.min(Instant::now() + DIAL_WAIT));
            let mut session = self.connect(number, &until)?;
            until.set(deadline);
            self.check_freshness(&mut session)?;
            let answer = ask(&mut session)?;
            session.close();
            Ok(answer)
        };
        let pause = |pause: Duration| {
            let left = deadline.saturating_duration_since(Instant::now());
            thread::sleep(pause.min(left));
            left > pause
        };
        self.failover.ask(at_one, pause)
    }

    fn connect(&self, number: u8, until: &Until) -> Result<Session<Pipe>, KeysError> {
        let pipe = Pipe::dial(&self.offers, number, until).map_err(|error| unreachable(&error))?;
        let identity = self.identity().map_err(refusal_of)?;
        let local = Local::Attested(&identity);
        let now = bield_platform::now();
        connect(pipe, local, &self.expect, now, &mut Randomness).map_err(refusal_of)
    }

    /// Has the key service continue the newest head that this process has seen.
    fn check_freshness(&self, session: &mut Session<Pipe>) -> Result<(), KeysError> {
        for _ in 0..FRESHNESS_MAX {
            let kept = lock(&self.known).clone();
            let note = kept.as_ref().map(|known| known.checkpoint().to_string());
            let answer = match exchange(session, &Request::Freshness(note))? {
                Reply::Freshness(answer) => answer,
                Reply::Refused(refusal) => return Err(self.not_shown(&refusal)),
                _ => return Err(KeysError::Contradiction("something else than its head")),
            };
            let next = answer
                .head_after(kept.as_deref())
                .map_err(|why| self.note_not_fresh(why.into()))?;
            let mut known = lock(&self.known);
            if *known == kept || known.as_deref() == Some(&next) {
                *known = Some(Arc::new(next));
                return Ok(());
            }
        }
        Err(KeysError::NotServing("its log moves on too fast"))
    }

    /// A key service that does not continue what was kept; it knows what that says of itself.
    fn not_shown(&self, refusal: &Refusal) -> KeysError {
        match refusal.code.as_str() {
            "foreign-checkpoint" => self.note_not_fresh(NotFresh::OtherService),
            "forked" => self.note_not_fresh(NotFresh::Forked),
            "rolled-back" => self.note_not_fresh(NotFresh::SetBackByItsWord),
            _ => match no(refusal) {
                // About no package: none was named.
                KeysError::NotGranted => KeysError::NotServing("it does not show its log"),
                error => error,
            },
        }
    }

    fn note_not_fresh(&self, error: NotFresh) -> KeysError {
        self.not_fresh.fetch_add(1, Ordering::Relaxed);
        error.into()
    }

    /// Returns an identity that the key service does not find old.
    fn identity(&self) -> Result<Arc<Identity>, SessionError> {
        let mut identity = lock(&self.identity);
        if identity.0.elapsed() > IDENTITY_AGE_MAX {
            *identity = (Instant::now(), issue(&self.tee, &self.hardening)?);
        }
        Ok(Arc::clone(&identity.1))
    }

    /// Returns a certificate that outlives a lease of now; fetches one when there is none.
    fn certificate(
        &self,
        session: &mut Session<Pipe>,
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

impl KeySource for Arc<KeyService> {
    fn fetch(
        &self,
        package: Digest,
        returned: &dyn Fn() -> Option<Returned>,
    ) -> Result<Keys, KeysError> {
        self.ask_any(FETCH_WAIT, |session| {
            let certificate = self.certificate(session)?;
            let asked = Asked {
                package,
                code: self.tee.measurement(),
                at: self.clock.running(),
                clock: Arc::clone(&self.clock),
            };
            let request = LeaseRequest {
                package,
                returned: returned(),
            };
            let Reply::Lease(leased) = ask(session, &Request::Lease(request))? else {
                return Err(KeysError::Contradiction("something else than a lease"));
            };
            Keys::new(leased, certificate, asked)
        })
    }

    fn give_back(&self, returned: &[Returned], wait: Duration) -> Result<(), KeysError> {
        self.ask_any(wait, |session| {
            for returned in returned {
                match ask(session, &Request::Return(returned.clone())) {
                    // Refused for this one: it stays used.
                    Ok(_) | Err(KeysError::NotGranted) => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        })
    }
}

/// Has the TEE attest a fresh session key.
fn issue(
    tee: &Arc<dyn Tee>,
    hardening: &HardeningStatement,
) -> Result<Arc<Identity>, SessionError> {
    let quoting = Arc::clone(tee);
    let identity = Identity::issue(
        provider(),
        SessionKey::generate(&mut Randomness),
        Role::Runtime,
        None,
        tee.kind(),
        hardening.clone(),
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

fn ask(session: &mut Session<Pipe>, request: &Request) -> Result<Reply, KeysError> {
    match exchange(session, request)? {
        Reply::Refused(refusal) => Err(no(&refusal)),
        reply => Ok(reply),
    }
}

fn exchange(session: &mut Session<Pipe>, request: &Request) -> Result<Reply, KeysError> {
    session.send(&request.encode()).map_err(refusal_of)?;
    let reply = session.receive().map_err(refusal_of)?;
    Reply::decode(&reply).map_err(|_| KeysError::Contradiction("something malformed"))
}

/// A key service's no: about itself, or about what was asked. Its reason and its times say who is granted what, so
/// they end here.
fn no(refusal: &Refusal) -> KeysError {
    NOT_SERVING
        .iter()
        .find(|(code, _)| *code == refusal.code)
        .map_or(KeysError::NotGranted, |(_, why)| KeysError::NotServing(why))
}

/// Codes by which a key service says that it decides nothing now, and what callers read of each. Every other no is one
/// about the package: it ends the keys.
const NOT_SERVING: [(&str, &str); 8] = [
    ("not-leader", "another instance of it decides"),
    ("busy", "it has as much to do as it takes"),
    ("not-durable", "it cannot store what it decides"),
    ("forming", "its instances are not together yet"),
    ("recovering", "it waits to be recovered"),
    ("stopped", "it has stopped"),
    ("rolled-back", "its state was set back"),
    ("forked", "its state was forked"),
];

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
