//! Claims against a policy: every check listed, none skipped silently.
//!
//! Always true: the result has one entry for each demand that applies to this kind of TEE, whether it
//! passed, failed or was not checked; an [`Appraised`] is only made from an appraisal without a
//! failure, together with exactly the claims it was made of.

use core::fmt;

use bield_envelope::Time;
use serde::Serialize;

use crate::claims::{Claims, TcbStatus};
use crate::measurement::{Measurement, TeeKind};
use crate::policy::{Policy, Profile, Reference};

/// Compares claims with a policy at the time `now`.
#[must_use]
pub fn appraise(claims: &Claims, policy: &Policy, now: Time) -> Appraisal {
    let mut checks = vec![
        root(claims, policy),
        debug(claims),
        measurement(claims, policy),
        tcb(claims, policy, now),
        advisories(claims, policy),
        evaluation(claims, policy),
        collateral(claims, now),
        revocation(claims),
        platform(claims, policy),
        flag(
            DYNAMIC,
            claims.dynamic_platform,
            policy.allow_dynamic_platform,
        ),
        flag(CACHED, claims.cached_keys, policy.allow_cached_keys),
        flag("smt", claims.smt, policy.allow_smt),
        flag(MIGRATION, Some(claims.migratable), policy.allow_migration),
        vmpl(claims),
        configuration(claims),
        report_data(),
    ];
    // Facts a kind of TEE does not have are not open questions about it.
    checks.retain(|check| applies(check.name, claims.kind));
    Appraisal {
        checks,
        profile: policy.profile,
        claims: claims.clone(),
    }
}

/// The outcome of comparing claims with a policy.
#[derive(Debug, Clone)]
pub struct Appraisal {
    checks: Vec<Check>,
    profile: Profile,
    claims: Claims,
}

impl Appraisal {
    /// Every check, in a fixed order.
    #[must_use]
    pub fn checks(&self) -> &[Check] {
        &self.checks
    }

    /// Whether no check failed.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.failed().next().is_none()
    }

    /// The checks that failed.
    pub fn failed(&self) -> impl Iterator<Item = &Check> {
        self.checks
            .iter()
            .filter(|check| check.outcome == Outcome::Failed)
    }

    /// Turns the appraisal of `claims` into permission.
    ///
    /// # Errors
    /// A check failed, or these are not the claims that were appraised.
    pub fn admit(self, claims: Claims) -> Result<Appraised, Refusal> {
        if claims != self.claims {
            let check = failed(
                "claims",
                "claims of other evidence".into(),
                "the claims that were appraised".into(),
                Mover::Vendor,
            );
            return Err(Refusal {
                profile: self.profile,
                failed: vec![check],
            });
        }
        if !self.passed() {
            return Err(Refusal {
                profile: self.profile,
                failed: self.failed().cloned().collect(),
            });
        }
        Ok(Appraised {
            claims,
            checks: self.checks,
        })
    }
}

/// Claims that passed a policy. Proof for functions that need it; cannot be made otherwise.
#[derive(Debug, Clone)]
pub struct Appraised {
    claims: Claims,
    checks: Vec<Check>,
}

impl Appraised {
    /// What was established.
    #[must_use]
    pub const fn claims(&self) -> &Claims {
        &self.claims
    }

    /// Identity of the code.
    #[must_use]
    pub const fn measurement(&self) -> &Measurement {
        &self.claims.measurement
    }

    /// Whether the root stands for no hardware; say so wherever the verdict is shown.
    #[must_use]
    pub const fn simulated(&self) -> bool {
        self.claims.simulated
    }

    /// Every check that was made, and those that were not.
    #[must_use]
    pub fn checks(&self) -> &[Check] {
        &self.checks
    }
}

/// One demand and what was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Stable name.
    pub name: &'static str,
    /// What came of it.
    pub outcome: Outcome,
    /// What the evidence says.
    pub have: String,
    /// What the policy demands.
    pub need: String,
    /// Who can change the outcome.
    pub mover: Mover,
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name,
            outcome,
            have,
            need,
            mover,
        } = self;
        write!(f, "{name} {outcome}: have {have}; need {need}; {mover}")
    }
}

/// What came of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The demand is met.
    Passed,
    /// The demand is not met.
    Failed,
    /// Nobody compared this: the policy makes no demand, or the caller still has to.
    NotChecked,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::NotChecked => "not checked",
        })
    }
}

/// Whose move it is when a check fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mover {
    /// Who decides which code is trusted.
    Owner,
    /// Who runs the machine.
    Operator,
    /// Who wrote the policy of the verifying side.
    User,
    /// Who built the TEE or this software.
    Vendor,
}

impl fmt::Display for Mover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Owner => "the owner's move",
            Self::Operator => "the operator's move",
            Self::User => "the user's move",
            Self::Vendor => "the vendor's move",
        })
    }
}

/// A policy was not met; lists every failed check. Trying again without a change is useless.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    profile: Profile,
    failed: Vec<Check>,
}

impl Refusal {
    /// The failed checks; at least one.
    #[must_use]
    pub fn failed(&self) -> &[Check] {
        &self.failed
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "evidence does not meet policy {}", self.profile)?;
        self.failed
            .iter()
            .try_for_each(|check| write!(f, "; {check}"))
    }
}

impl core::error::Error for Refusal {}

// The checks, in the order they are listed. spec/02 §6 gives the same table.

fn root(claims: &Claims, policy: &Policy) -> Check {
    let (have, met) = if claims.simulated {
        (
            format!(
                "SIMULATED root {}: no hardware protects this",
                claims.root.short()
            ),
            policy.allow_simulated,
        )
    } else {
        (format!("vendor root {}", claims.root.short()), true)
    };
    let need = if policy.allow_simulated {
        "a vendor root, or a configured simulated one"
    } else {
        "a vendor root"
    };
    judged("root", met, have, need.into(), Mover::Operator)
}

fn debug(claims: &Claims) -> Check {
    let have = if claims.debug { "on" } else { "off" };
    judged(
        "debug",
        !claims.debug,
        have.into(),
        "off".into(),
        Mover::Operator,
    )
}

fn measurement(claims: &Claims, policy: &Policy) -> Check {
    let have = claims.measurement.to_string();
    match &policy.reference {
        Reference::Listed(list) if list.is_empty() => failed(
            "measurement",
            have,
            "a reference value, but the policy lists none".into(),
            Mover::Owner,
        ),
        Reference::Listed(list) => judged(
            "measurement",
            list.contains(&claims.measurement),
            have,
            format!(
                "one of {}",
                listing(list.iter().map(Measurement::to_string))
            ),
            Mover::Owner,
        ),
        Reference::Deferred => not_checked(
            "measurement",
            have,
            "comparison by the caller, for instance with a grant",
            Mover::Owner,
        ),
    }
}

fn tcb(claims: &Claims, policy: &Policy, now: Time) -> Check {
    const NAME: &str = "tcb";
    if let Some(found) = &claims.snp_tcb {
        let have = found.to_string();
        return match (&policy.snp_tcb_min, policy.profile) {
            (Some(minimum), _) => judged(
                NAME,
                found.meets(minimum),
                have,
                format!("at least {minimum}"),
                Mover::Operator,
            ),
            (None, Profile::Strict) => failed(
                NAME,
                have,
                "a minimum, but the policy names none (snp_tcb_min)".into(),
                Mover::User,
            ),
            (None, Profile::Cloud | Profile::Dev) => {
                not_checked(NAME, have, "a minimum in the policy", Mover::User)
            }
        };
    }
    let status = claims.tcb_status;
    let date = claims
        .tcb_date
        .map_or_else(|| "unknown date".to_owned(), |date| date.to_string());
    let out_of_date = matches!(
        status,
        TcbStatus::OutOfDate | TcbStatus::OutOfDateConfigurationNeeded
    );
    // The grace runs from the date of the level the platform still meets.
    let in_grace = claims
        .tcb_date
        .is_some_and(|date| now.since(date) <= policy.out_of_date_grace);
    let met = policy.statuses.contains(&status) && (!out_of_date || in_grace);
    let days = policy.out_of_date_grace.as_secs() / 86_400;
    let need = listing(policy.statuses.iter().map(|status| match status {
        TcbStatus::OutOfDate | TcbStatus::OutOfDateConfigurationNeeded
            if policy.profile != Profile::Dev =>
        {
            format!("{status} for at most {days} days")
        }
        status => status.to_string(),
    }));
    judged(
        NAME,
        met,
        format!("{status} of {date}"),
        need,
        Mover::Operator,
    )
}

fn advisories(claims: &Claims, policy: &Policy) -> Check {
    let have = listing(claims.advisories.iter().cloned());
    if policy.blocked_advisories.is_empty() {
        return not_checked(
            ADVISORIES,
            have,
            "a list of blocked advisories",
            Mover::User,
        );
    }
    let met = !claims.advisories.iter().any(|found| {
        policy
            .blocked_advisories
            .iter()
            .any(|blocked| blocked.eq_ignore_ascii_case(found))
    });
    let need = format!(
        "none of {}",
        listing(policy.blocked_advisories.iter().cloned())
    );
    judged(ADVISORIES, met, have, need, Mover::Operator)
}

fn evaluation(claims: &Claims, policy: &Policy) -> Check {
    let have = claims
        .evaluation_number
        .map_or_else(|| "none".to_owned(), |number| number.to_string());
    let Some(minimum) = policy.evaluation_number_min else {
        return not_checked(EVALUATION, have, "a minimum in the policy", Mover::User);
    };
    let met = claims
        .evaluation_number
        .is_some_and(|number| number >= minimum);
    judged(
        EVALUATION,
        met,
        have,
        format!("at least {minimum}"),
        Mover::Operator,
    )
}

fn collateral(claims: &Claims, now: Time) -> Check {
    let (from, until) = (claims.collateral_from, claims.collateral_until);
    judged(
        "collateral",
        from <= now && now <= until,
        format!("valid {from} to {until}"),
        format!("valid at {now}"),
        Mover::Operator,
    )
}

fn revocation(claims: &Claims) -> Check {
    if claims.revocation_checked {
        passed(
            "revocation",
            "not on the vendor's lists",
            "the same",
            Mover::Vendor,
        )
    } else {
        not_checked(
            "revocation",
            "no revocation list in the evidence".into(),
            "the vendor's list",
            Mover::Operator,
        )
    }
}

fn platform(claims: &Claims, policy: &Policy) -> Check {
    let have = if claims.platform_id.is_empty() {
        "masked".to_owned()
    } else {
        hex::encode(&claims.platform_id)
    };
    match &policy.platforms {
        None => not_checked("platform", have, "an allow-list of platforms", Mover::User),
        Some(allowed) => judged(
            "platform",
            !claims.platform_id.is_empty() && allowed.contains(&claims.platform_id),
            have,
            format!("one of {}", listing(allowed.iter().map(hex::encode))),
            Mover::User,
        ),
    }
}

fn flag(name: &'static str, found: Option<bool>, allowed: bool) -> Check {
    let need = if allowed { "on or off" } else { "off" };
    match found {
        Some(on) => {
            let have = if on { "on" } else { "off" };
            judged(
                name,
                !on || allowed,
                have.into(),
                need.into(),
                Mover::Operator,
            )
        }
        None => not_checked(name, "not said by the platform".into(), need, Mover::Vendor),
    }
}

fn vmpl(claims: &Claims) -> Check {
    let have = claims
        .vmpl
        .map_or_else(|| "none".to_owned(), |level| level.to_string());
    judged(
        VMPL,
        claims.vmpl == Some(0),
        have,
        "0".into(),
        Mover::Vendor,
    )
}

fn configuration(claims: &Claims) -> Check {
    let have = if claims.configuration.iter().all(|byte| *byte == 0) {
        "none".to_owned()
    } else {
        hex::encode(&claims.configuration)
    };
    not_checked(
        "configuration",
        have,
        "comparison by the caller",
        Mover::Owner,
    )
}

fn report_data() -> Check {
    not_checked(
        "report data",
        "64 bytes chosen by the TEE".into(),
        "binding to a key or session by the caller",
        Mover::Vendor,
    )
}

fn applies(name: &str, kind: TeeKind) -> bool {
    match kind {
        TeeKind::Sgx | TeeKind::Tdx => name != VMPL && name != MIGRATION,
        TeeKind::Snp => ![ADVISORIES, EVALUATION, DYNAMIC, CACHED].contains(&name),
    }
}

const ADVISORIES: &str = "advisories";
const EVALUATION: &str = "evaluation number";
const VMPL: &str = "vmpl";
const DYNAMIC: &str = "dynamic platform";
const CACHED: &str = "cached keys";
const MIGRATION: &str = "migration agent";

fn judged(name: &'static str, met: bool, have: String, need: String, mover: Mover) -> Check {
    let outcome = if met {
        Outcome::Passed
    } else {
        Outcome::Failed
    };
    Check {
        name,
        outcome,
        have,
        need,
        mover,
    }
}

fn passed(name: &'static str, have: &str, need: &str, mover: Mover) -> Check {
    judged(name, true, have.into(), need.into(), mover)
}

fn failed(name: &'static str, have: String, need: String, mover: Mover) -> Check {
    judged(name, false, have, need, mover)
}

fn not_checked(name: &'static str, have: String, need: &str, mover: Mover) -> Check {
    Check {
        name,
        outcome: Outcome::NotChecked,
        have,
        need: need.into(),
        mover,
    }
}

/// Names the first few items and counts the rest, so that a refusal stays readable.
fn listing(items: impl ExactSizeIterator<Item = String>) -> String {
    const SHOWN: usize = 8;
    let total = items.len();
    if total == 0 {
        return "nothing".into();
    }
    let mut text = items.take(SHOWN).collect::<Vec<_>>().join(", ");
    if total > SHOWN {
        text.push_str(&format!(" and {} more", total - SHOWN));
    }
    text
}
