//! How this instance shows itself, and whom it lets in.
//!
//! In: the TEE, the measured policies. Out: an [`Identity`] whose evidence is never old, and the peers that a
//! session may be opened by. Always true: an identity names the service's principal as it is now, and is made
//! anew when that changes; fresh quotes for those who connect are rationed by the role that they say to have, so
//! that anonymous callers cannot keep the TEE busy, or runtimes and members waiting; who this instance connects
//! to itself is not.
//!
//! On paper: one quote in five minutes, and one for each caller that asks for a fresh one.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bield_envelope::Principal;
use bield_evidence::{HardeningStatement, PolicyConfig};
use bield_platform::{Randomness, Tee, now};
use bield_session::{Expect, Freshness, Identity, Role, SessionError, SessionKey};

use crate::limits::{Bucket, lock};
use crate::metrics::Metrics;

/// The TEE's word for this instance.
pub(crate) struct Attested {
    tee: Arc<dyn Tee>,
    runtimes: PolicyConfig,
    /// What this process gave up.
    hardening: HardeningStatement,
    quotes: Arc<Quotes>,
    metrics: Arc<Metrics>,
    /// With the moment it was made (not by the wall clock, which the host may set back), and for whom.
    identity: Mutex<Option<Made>>,
}

/// Fresh quotes that there are, by who wants them.
struct Quotes {
    clients: Mutex<Bucket>,
    runtimes: Mutex<Bucket>,
    members: Mutex<Bucket>,
}

impl Quotes {
    fn new(now: Instant) -> Self {
        let bucket = |(at_once, per_second)| Mutex::new(Bucket::new(at_once, per_second, now));
        Self {
            clients: bucket(CLIENT_QUOTES),
            runtimes: bucket(RUNTIME_QUOTES),
            members: bucket(MEMBER_QUOTES),
        }
    }

    fn take(&self, role: Role, now: Instant) -> Result<(), Duration> {
        let bucket = match role {
            Role::Runtime => &self.runtimes,
            Role::KeyService => &self.members,
            _ => &self.clients,
        };
        lock(bucket).take(now)
    }
}

struct Made {
    at: Instant,
    service: Option<Principal>,
    identity: Arc<Identity>,
}

impl Attested {
    pub(crate) fn new(
        tee: Arc<dyn Tee>,
        runtimes: PolicyConfig,
        hardening: HardeningStatement,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            tee,
            runtimes,
            hardening,
            quotes: Arc::new(Quotes::new(Instant::now())),
            metrics,
            identity: Mutex::default(),
        }
    }

    pub(crate) fn tee(&self) -> &dyn Tee {
        &*self.tee
    }

    /// The attested identity, for the service of this principal; none while there is no root.
    ///
    /// # Errors
    /// The TEE does not answer.
    pub(crate) fn identity(
        &self,
        service: Option<Principal>,
    ) -> Result<Arc<Identity>, SessionError> {
        let mut made = lock(&self.identity);
        if let Some(made) = &*made
            && made.at.elapsed() < IDENTITY_AGE_MAX
            && made.service == service
        {
            return Ok(Arc::clone(&made.identity));
        }
        let identity = Identity::issue(
            bield_session::provider(),
            SessionKey::generate(&mut Randomness),
            Role::KeyService,
            service,
            self.tee.kind(),
            self.hardening.clone(),
            now(),
            IDENTITY_LIFETIME,
            self.attest(),
        )?;
        let identity = Arc::new(identity.rationed(self.ration()));
        *made = Some(Made {
            at: Instant::now(),
            service,
            identity: Arc::clone(&identity),
        });
        Ok(identity)
    }

    fn attest(&self) -> bield_session::Attest {
        let tee = Arc::clone(&self.tee);
        Box::new(move |data| tee.evidence(data).map_err(|error| error.to_string()))
    }

    fn ration(&self) -> bield_session::Ration {
        let (quotes, metrics) = (Arc::clone(&self.quotes), Arc::clone(&self.metrics));
        Box::new(move |role| {
            quotes.take(role, Instant::now()).map_err(|_| {
                metrics.quotes_refused.add(1);
                "too many callers want fresh quotes now; try again".to_owned()
            })
        })
    }

    /// Who may open a session: anybody, and runtimes with fresh evidence. Grants decide about their code.
    ///
    /// # Errors
    /// The policy does not hold, which the start has checked.
    pub(crate) fn expect(&self) -> Result<Vec<Expect>, SessionError> {
        let refuse = |error: &dyn core::fmt::Display| SessionError::Attest(error.to_string());
        let policy = self.runtimes.clone().into_deferred_policy();
        let policy = policy.map_err(|error| refuse(&error))?;
        let roots = self.runtimes.roots().map_err(|error| refuse(&error))?;
        let runtime = Expect::attested(Role::Runtime, roots, policy, None, Freshness::Fresh);
        Ok(vec![Expect::Client, runtime])
    }
}

/// Evidence is made anew after this, well within the ten minutes that clients accept.
const IDENTITY_AGE_MAX: Duration = Duration::from_secs(5 * 60);
/// Validity of a session certificate.
const IDENTITY_LIFETIME: Duration = Duration::from_secs(60 * 60);
/// Fresh quotes for anonymous clients, at once and a second: most take cached evidence. A TEE makes 1 to 1000 a
/// second.
const CLIENT_QUOTES: (f64, f64) = (40.0, 10.0);
/// For those who say to be runtimes: each wants one for each session.
const RUNTIME_QUOTES: (f64, f64) = (200.0, 40.0);
/// For those who say to be members: there are at most four, which connect anew when they start.
const MEMBER_QUOTES: (f64, f64) = (40.0, 10.0);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_that_want_quotes_leave_those_of_runtimes_and_members() {
        let now = Instant::now();
        let quotes = Quotes::new(now);
        let given = (0..1000)
            .filter(|_| quotes.take(Role::Client, now).is_ok())
            .count();
        assert_eq!(given, 40);
        assert!(quotes.take(Role::Runtime, now).is_ok());
        while quotes.take(Role::Runtime, now).is_ok() {}
        assert!(quotes.take(Role::KeyService, now).is_ok());
        assert!(quotes.take(Role::Client, now).is_err());
    }
}
