//! Every check of the running key service, with its outcome; nothing is sent to it but a greeting.
//!
//! To list the checks that pass beside those that fail, the session is opened under a lenient policy
//! first and its claims are appraised against the real one here. That session is closed unused.

use bield_envelope::{Principal, Time};
use bield_evidence::{Check, Measurement, Mover, Outcome, Policy, Reference, appraise};
use bield_session::SessionError;
use rand_core::CryptoRng;

use crate::{SERVICE_EVIDENCE_AGE_MAX, ServiceError, Trust, service};

/// What was found out about a key service.
#[derive(Debug, Clone)]
pub struct Verification {
    /// `host:port` that was asked.
    pub address: String,
    /// Every check, whether it passed, failed or was not made.
    pub checks: Vec<Check>,
    /// Who it is, when its evidence could be read.
    pub principal: Option<Principal>,
    /// What runs there, when its evidence could be read.
    pub measurement: Option<Measurement>,
    /// Whether it runs in a software TEE, which protects nothing.
    pub simulated: bool,
}

impl Verification {
    /// Whether the service can be trusted: its evidence was read and no check failed.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.principal.is_some() && self.with(Outcome::Failed).next().is_none()
    }

    /// The checks with this outcome.
    pub fn with(&self, outcome: Outcome) -> impl Iterator<Item = &Check> {
        self.checks
            .iter()
            .filter(move |check| check.outcome == outcome)
    }
}

/// Asks the key service of `trust` for its evidence and makes every check there is.
///
/// # Errors
/// Nobody there, or the connection broke. Evidence that does not pass is not an error here.
pub fn verify(
    trust: &Trust,
    now: Time,
    entropy: &mut impl CryptoRng,
) -> Result<Verification, ServiceError> {
    let address = trust.key_service().to_owned();
    let lenient = Policy::dev(Reference::Deferred);
    let opened = service::open(trust, lenient, trust.roots().clone(), now, entropy);
    let session = match opened {
        Ok(session) => session,
        Err(ServiceError::Session { error, .. }) if is_verdict(&error) => {
            return Ok(Verification {
                address,
                checks: without_evidence(&error),
                principal: None,
                measurement: None,
                simulated: false,
            });
        }
        Err(error) => return Err(error),
    };
    let peer = session.peer();
    let (Some(appraised), Some(principal)) = (&peer.appraised, peer.service) else {
        return Err(ServiceError::Nameless { address });
    };
    let claims = appraised.claims();
    let appraisal = appraise(claims, trust.policy(), now);
    let found = Verification {
        address,
        checks: all(trust, appraisal.checks(), Some(principal)),
        principal: Some(principal),
        measurement: Some(claims.measurement.clone()),
        simulated: claims.simulated,
    };
    session.close();
    Ok(found)
}

/// The checks of an open session: its own, those of the evidence, and what nobody checked.
pub(crate) fn all(trust: &Trust, evidence: &[Check], principal: Option<Principal>) -> Vec<Check> {
    let age = SERVICE_EVIDENCE_AGE_MAX.as_secs();
    let mut checks = vec![
        check(
            "session",
            Outcome::Passed,
            "TLS 1.3 with its evidence bound to this session",
            "the same",
            Mover::Operator,
        ),
        check(
            "freshness",
            Outcome::Passed,
            &format!("evidence made for this session or at most {age} s ago"),
            "the same",
            Mover::Operator,
        ),
    ];
    checks.extend(evidence.iter().cloned().map(|found| match found.name {
        // Left open by the appraisal for its caller: the session's gate compared it.
        "report data" => Check {
            outcome: Outcome::Passed,
            have: "bound to the key and role of this session".to_owned(),
            need: "the same".to_owned(),
            ..found
        },
        _ => found,
    }));
    let found = principal.map_or_else(|| "none".to_owned(), |principal| principal.to_string());
    checks.push(match trust.principal() {
        Some(pinned) => check(
            "service identity",
            if principal == Some(pinned) {
                Outcome::Passed
            } else {
                Outcome::Failed
            },
            &found,
            &pinned.to_string(),
            Mover::User,
        ),
        None => check(
            "service identity",
            Outcome::NotChecked,
            &found,
            "`principal` in the trust file: any service with this code is accepted",
            Mover::User,
        ),
    });
    checks.push(check(
        "runtimes",
        Outcome::NotChecked,
        &format!("{} trusted in the trust file", trust.code().len()),
        "the key service appraises each runtime; every receipt of a call is checked",
        Mover::User,
    ));
    checks
}

/// Whether the session failed because of what the other end is, not because the line broke.
fn is_verdict(error: &SessionError) -> bool {
    !matches!(
        error,
        SessionError::Stream(_) | SessionError::Truncated | SessionError::Closed
    )
}

/// The list when no evidence could be read: one failure, the rest loudly not checked.
fn without_evidence(error: &SessionError) -> Vec<Check> {
    let mut checks = match error {
        SessionError::Appraisal(refusal) => refusal.failed().to_vec(),
        error => vec![check(
            failed_part(error),
            Outcome::Failed,
            &error.to_string(),
            "a key service with evidence that the trust file accepts",
            Mover::Operator,
        )],
    };
    for name in [
        "session",
        "freshness",
        "root",
        "debug",
        "measurement",
        "tcb",
        "service identity",
    ] {
        if !checks.iter().any(|check| check.name == name) {
            let (have, need) = ("nothing: an earlier check failed", "evidence that verifies");
            checks.push(check(
                name,
                Outcome::NotChecked,
                have,
                need,
                Mover::Operator,
            ));
        }
    }
    checks
}

fn failed_part(error: &SessionError) -> &'static str {
    match error {
        SessionError::Evidence(_) => "evidence",
        SessionError::Stale { .. } | SessionError::NotFresh => "freshness",
        SessionError::OtherService { .. } => "service identity",
        _ => "session",
    }
}

fn check(name: &'static str, outcome: Outcome, have: &str, need: &str, mover: Mover) -> Check {
    Check {
        name,
        outcome,
        have: have.to_owned(),
        need: need.to_owned(),
        mover,
    }
}
