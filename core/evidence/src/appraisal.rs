//! Claims against a policy: every check listed, none skipped silently.
//!
//! Always true: the result has one entry for each demand that applies to this kind of TEE, whether it
//! passed, failed or was not checked; an [`Appraised`] is only made from an appraisal without a
//! failure, together with exactly the claims it was made of.

mod checks;

use core::fmt;

use bield_envelope::Time;
use serde::Serialize;

use crate::claims::Claims;
use crate::measurement::Measurement;
use crate::policy::{Policy, Profile};

/// Compares claims with a policy at the time `now`.
#[must_use]
pub fn appraise(claims: &Claims, policy: &Policy, now: Time) -> Appraisal {
    Appraisal {
        checks: checks::all(claims, policy, now),
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
            let check = Check {
                name: "claims",
                outcome: Outcome::Failed,
                have: "claims of other evidence".into(),
                need: "the claims that were appraised".into(),
                mover: Mover::Vendor,
            };
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
