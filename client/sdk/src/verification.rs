//! Every check of the running key service, with its outcome; nothing is sent to one that does not pass.
//!
//! To list the checks that pass beside those that fail, the session is opened under a lenient policy
//! first and its claims are appraised against the real one here. Only when that passes is the service
//! asked for its state, as every session does. That session is closed unused.

use bield_envelope::{Principal, Time};
use bield_evidence::{Check, Measurement, Mover, Outcome, Policy, Reference, appraise};
use bield_protocol::service::Inspection;
use bield_session::SessionError;
use rand_core::CryptoRng;

use crate::freshness::Fresh;
use crate::service::{agree, freshen, inspect, nameless};
use crate::wire::{Demands, SERVICE_EVIDENCE_AGE_MAX, Wire};
use crate::{Home, Kind, ServiceError, Trust};

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
    /// How its state was found to be, when its evidence passed.
    pub fresh: Option<Fresh>,
    /// What it says of itself, when its evidence passed.
    pub inspection: Option<Inspection>,
    /// What its state was refused for, when that was asked for and refused; the failed check says it too.
    pub refused: Option<String>,
    /// Whether that may pass by itself, such as a witness that is away.
    pub retry: bool,
    /// Whether it was refused because it shows another log than the known one.
    another_log: bool,
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

/// Asks the key service of `trust` for its evidence and its state and makes every check there is. Of several
/// members the first that passes is told of; if none does, the first that answered.
///
/// # Errors
/// Nobody there, or the connection broke. Evidence or a state that does not pass is not an error here.
pub fn verify(
    home: &Home,
    trust: &Trust,
    now: Time,
    entropy: &mut impl CryptoRng,
) -> Result<Verification, ServiceError> {
    agree(home, trust, now, entropy)?;
    let mut answered = None;
    let mut another = None;
    let mut errors = Vec::new();
    for address in trust.key_services() {
        match verify_at(home, trust, address, now, entropy) {
            Ok(found) if found.passed() => return Ok(found),
            // Another address may show the log that this home knows.
            Ok(found) if found.another_log => {
                another.get_or_insert(found);
            }
            Ok(found) => {
                // A state that was refused is what has to be told, whoever else there is.
                if found.refused.is_some() {
                    return Ok(found);
                }
                answered.get_or_insert(found);
            }
            Err(error) if error.is_of_member() => errors.push(error),
            Err(error) => return Err(error),
        }
    }
    match (another.or(answered), errors.pop()) {
        (Some(found), _) => Ok(found),
        (None, Some(error)) if errors.is_empty() => Err(error),
        (None, last) => Err(ServiceError::NoneServes(
            errors.into_iter().chain(last).collect(),
        )),
    }
}

/// As [`verify`], of the member at `address` only.
///
/// # Errors
/// As [`verify`].
pub fn verify_at(
    home: &Home,
    trust: &Trust,
    address: &str,
    now: Time,
    entropy: &mut impl CryptoRng,
) -> Result<Verification, ServiceError> {
    let demands = Demands {
        policy: Policy::dev(Reference::Deferred),
        roots: trust.roots().clone(),
        service: trust.principal(),
    };
    let mut wire = match Wire::open(address, demands, now, entropy) {
        Ok(wire) => wire,
        Err(ServiceError::Session { error, .. }) if is_verdict(&error) => {
            return Ok(Verification {
                address: address.to_owned(),
                checks: without_evidence(&error),
                principal: None,
                measurement: None,
                simulated: false,
                fresh: None,
                inspection: None,
                refused: None,
                retry: false,
                another_log: false,
            });
        }
        Err(error) => return Err(error),
    };
    let peer = wire.peer();
    let (Some(appraised), Some(principal)) = (&peer.appraised, peer.service) else {
        return Err(nameless(&mut wire));
    };
    let claims = appraised.claims();
    let appraisal = appraise(claims, trust.policy(), now);
    let mut found = Verification {
        address: address.to_owned(),
        checks: evidence(trust, appraisal.checks(), Some(principal)),
        principal: Some(principal),
        measurement: Some(claims.measurement.clone()),
        simulated: claims.simulated,
        fresh: None,
        inspection: None,
        refused: None,
        retry: false,
        another_log: false,
    };
    if !found.passed() {
        found.checks.extend(stateless("an earlier check failed"));
        return Ok(found);
    }
    found.inspection = inspect(&mut wire).ok();
    match freshen(&mut wire, home, trust, principal, now) {
        Ok(fresh) => {
            found.checks.extend(state(trust, &fresh));
            found.fresh = Some(fresh);
        }
        Err(error) if error.is_not_leader() => return Err(error),
        Err(error @ (ServiceError::NotFresh { .. } | ServiceError::Refused(_))) => {
            let have = match &error {
                ServiceError::NotFresh { error, .. } => error.to_string(),
                error => error.to_string(),
            };
            found.retry = error.kind() == Kind::Unreachable;
            found.another_log = error.is_of_another_log();
            let need = if found.retry {
                "a retry: this passes by itself, or when its operator has brought back what is missing"
            } else {
                "a log that continues what this home has seen"
            };
            found
                .checks
                .push(check("log", Outcome::Failed, &have, need, Mover::Operator));
            let witnesses = stateless("its log was refused").into_iter().skip(1);
            found.checks.extend(witnesses);
            found.refused = Some(error.to_string());
        }
        Err(error) => return Err(error),
    }
    Ok(found)
}

/// The checks of a state that was accepted.
pub(crate) fn state(trust: &Trust, fresh: &Fresh) -> Vec<Check> {
    let (outcome, need) = match fresh.seen {
        Some(_) => (Outcome::Passed, "continues what this home has seen"),
        None => (
            Outcome::NotChecked,
            "a head kept from before: from now on its log is compared with this one",
        ),
    };
    let log = check("log", outcome, &fresh.to_string(), need, Mover::User);
    let witnesses = match trust.witnesses() {
        Some(quorum) => check(
            "witnesses",
            Outcome::Passed,
            &fresh.witnesses.join(", "),
            &format!("{} of {}", quorum.needed(), quorum.witnesses().len()),
            Mover::Operator,
        ),
        None => check(
            "witnesses",
            Outcome::NotChecked,
            "none named",
            "`[witnesses]` in the trust file: whether others are shown another log is not known",
            Mover::User,
        ),
    };
    vec![log, witnesses]
}

fn stateless(why: &str) -> Vec<Check> {
    let names = ["log", "witnesses"].into_iter();
    names
        .map(|name| {
            let (have, need) = (format!("nothing: {why}"), "evidence that passes");
            check(name, Outcome::NotChecked, &have, need, Mover::Operator)
        })
        .collect()
}

/// The checks of an open session: its own, those of the evidence, and what nobody checked.
pub(crate) fn evidence(
    trust: &Trust,
    evidence: &[Check],
    principal: Option<Principal>,
) -> Vec<Check> {
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
        "hardening",
        "service identity",
        "log",
        "witnesses",
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
