//! How this instance shows itself, and whom it lets in.
//!
//! In: the TEE, the measured policies. Out: an [`Identity`] whose evidence is never old, and the peers that a
//! session may be opened by. Always true: an identity names the service's principal as it is now, and is made
//! anew when that changes; fresh quotes are rationed, so that a caller cannot keep the TEE busy.
//!
//! On paper: one quote in five minutes, and one for each caller that asks for a fresh one.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bield_envelope::Principal;
use bield_evidence::PolicyConfig;
use bield_platform::{Randomness, Tee, now};
use bield_session::{Expect, Freshness, Identity, Role, SessionError, SessionKey};

use crate::limits::{Bucket, lock};
use crate::metrics::Metrics;

/// The TEE's word for this instance.
pub(crate) struct Attested {
    tee: Arc<dyn Tee>,
    runtimes: PolicyConfig,
    quotes: Arc<Mutex<Bucket>>,
    metrics: Arc<Metrics>,
    /// With the moment it was made (not by the wall clock, which the host may set back), and for whom.
    identity: Mutex<Option<Made>>,
}

struct Made {
    at: Instant,
    service: Option<Principal>,
    identity: Arc<Identity>,
}

impl Attested {
    pub(crate) fn new(tee: Arc<dyn Tee>, runtimes: PolicyConfig, metrics: Arc<Metrics>) -> Self {
        let bucket = Bucket::new(QUOTES_AT_ONCE, QUOTES_PER_SECOND, Instant::now());
        Self {
            tee,
            runtimes,
            quotes: Arc::new(Mutex::new(bucket)),
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
        let identity = Arc::new(Identity::issue(
            bield_session::provider(),
            SessionKey::generate(&mut Randomness),
            Role::KeyService,
            service,
            self.tee.kind(),
            now(),
            IDENTITY_LIFETIME,
            self.attest(),
        )?);
        *made = Some(Made {
            at: Instant::now(),
            service,
            identity: Arc::clone(&identity),
        });
        Ok(identity)
    }

    /// Makes evidence: once for the identity, then as often as the ration allows.
    fn attest(&self) -> bield_session::Attest {
        let (tee, metrics) = (Arc::clone(&self.tee), Arc::clone(&self.metrics));
        let quotes = Arc::clone(&self.quotes);
        let own = AtomicBool::new(true);
        Box::new(move |data| {
            let own = own.swap(false, Ordering::SeqCst);
            if !own && lock(&quotes).take(Instant::now()).is_err() {
                metrics.quotes_refused.add(1);
                return Err("too many callers want fresh quotes now; try again".to_owned());
            }
            tee.evidence(data).map_err(|error| error.to_string())
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
/// Fresh quotes that may be asked for at once.
const QUOTES_AT_ONCE: f64 = 200.0;
/// And for long: a TEE makes 1 to 1000 a second.
const QUOTES_PER_SECOND: f64 = 50.0;
