//! What a verifying side demands of a TEE.
//!
//! | | `strict` | `cloud` | `dev` |
//! |---|---|---|---|
//! | simulated root | no | no | yes |
//! | debug, revoked, expired | no | no | no |
//! | TCB status | up to date | + software hardening needed, out of date ≤ 30 days | any |
//! | dynamic platform, cached keys, SMT | no | yes | yes |
//! | SNP migration agent | no | no | yes |
//! | SNP firmware minimum | required | compared when given | compared when given |
//! | stated hardening ([`HardeningDemand`]) | TDX, SNP: all but locked memory | as strict | shown only |
//!
//! Real cloud hosts are multi-package platforms: dynamic, with keys cached at the vendor's registration
//! service, SMT on. Every captured TDX sample that is up to date is one, and fails `strict`.
//! Always true: only `dev` accepts a simulated root; an empty list of references accepts nothing.

pub(crate) mod config;

use core::fmt;
use core::time::Duration;
use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::claims::{SnpTcb, TcbStatus};
use crate::hardening::HardeningDemand;
use crate::measurement::Measurement;

/// A named set of demands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// Own, dedicated, fully patched machines.
    Strict,
    /// Machines of a cloud provider.
    Cloud,
    /// Development and CI; accepts the software TEE.
    Dev,
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Strict => "strict",
            Self::Cloud => "cloud",
            Self::Dev => "dev",
        })
    }
}

/// Which code is welcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reference {
    /// Exactly these measurements; none when empty.
    Listed(Vec<Measurement>),
    /// The caller compares later, for instance with a grant; reported as not checked.
    Deferred,
}

/// Demands on one peer. Start from a profile, then narrow or widen it.
///
/// ```
/// use bield_evidence::{Policy, Reference};
///
/// let code = format!("sgx:{}", "ab".repeat(32)).parse()?;
/// let policy = Policy::cloud(Reference::Listed(vec![code])).with_evaluation_number_min(17);
/// # Ok::<(), bield_evidence::ParseMeasurementError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    pub(crate) profile: Profile,
    pub(crate) allow_simulated: bool,
    pub(crate) reference: Reference,
    pub(crate) platforms: Option<BTreeSet<Vec<u8>>>,
    pub(crate) statuses: BTreeSet<TcbStatus>,
    pub(crate) out_of_date_grace: Duration,
    pub(crate) allow_dynamic_platform: bool,
    pub(crate) allow_cached_keys: bool,
    pub(crate) allow_smt: bool,
    pub(crate) allow_migration: bool,
    pub(crate) blocked_advisories: Vec<String>,
    pub(crate) evaluation_number_min: Option<u32>,
    pub(crate) snp_tcb_min: Option<SnpTcb>,
    pub(crate) hardening: HardeningDemand,
}

impl Policy {
    /// Own machines, everything patched, nothing shared.
    #[must_use]
    pub fn strict(reference: Reference) -> Self {
        Self {
            profile: Profile::Strict,
            allow_simulated: false,
            reference,
            platforms: None,
            statuses: BTreeSet::from([TcbStatus::UpToDate]),
            out_of_date_grace: Duration::ZERO,
            allow_dynamic_platform: false,
            allow_cached_keys: false,
            allow_smt: false,
            allow_migration: false,
            blocked_advisories: Vec::new(),
            evaluation_number_min: None,
            snp_tcb_min: None,
            hardening: HardeningDemand::of(Profile::Strict),
        }
    }

    /// A cloud provider's machines.
    #[must_use]
    pub fn cloud(reference: Reference) -> Self {
        Self {
            profile: Profile::Cloud,
            statuses: BTreeSet::from([
                TcbStatus::UpToDate,
                TcbStatus::SWHardeningNeeded,
                TcbStatus::OutOfDate,
            ]),
            out_of_date_grace: CLOUD_GRACE,
            allow_dynamic_platform: true,
            allow_cached_keys: true,
            allow_smt: true,
            hardening: HardeningDemand::of(Profile::Cloud),
            ..Self::strict(reference)
        }
    }

    /// Development and CI. The one profile that accepts the software TEE.
    #[must_use]
    pub fn dev(reference: Reference) -> Self {
        Self {
            profile: Profile::Dev,
            allow_simulated: true,
            statuses: BTreeSet::from([
                TcbStatus::UpToDate,
                TcbStatus::SWHardeningNeeded,
                TcbStatus::ConfigurationNeeded,
                TcbStatus::ConfigurationAndSWHardeningNeeded,
                TcbStatus::OutOfDate,
                TcbStatus::OutOfDateConfigurationNeeded,
                TcbStatus::TDRelaunchAdvised,
                TcbStatus::TDRelaunchAdvisedConfigurationNeeded,
            ]),
            out_of_date_grace: Duration::MAX,
            allow_migration: true,
            hardening: HardeningDemand::of(Profile::Dev),
            ..Self::cloud(reference)
        }
    }

    /// The profile this policy started from.
    #[must_use]
    pub const fn profile(&self) -> Profile {
        self.profile
    }

    /// Whether evidence of a simulated root can pass.
    #[must_use]
    pub const fn allows_simulated(&self) -> bool {
        self.allow_simulated
    }

    /// Refuses simulated roots even in the `dev` profile. There is no opposite.
    #[must_use]
    pub fn without_simulated(mut self) -> Self {
        self.allow_simulated = false;
        self
    }

    /// Which protections of the process have to be stated in force.
    #[must_use]
    pub const fn hardening(&self) -> &HardeningDemand {
        &self.hardening
    }

    /// Asks for other protections of the process than the profile does.
    #[must_use]
    pub fn with_hardening(mut self, demand: HardeningDemand) -> Self {
        self.hardening = demand;
        self
    }

    /// Accepts only these physical platforms (PPID or chip id); none when empty.
    ///
    /// Keys extracted from one machine can forge any measurement; this bounds the damage to
    /// machines one knows.
    #[must_use]
    pub fn with_platforms(mut self, platforms: impl IntoIterator<Item = Vec<u8>>) -> Self {
        self.platforms = Some(platforms.into_iter().collect());
        self
    }

    /// Refuses collateral of an evaluation older than `number`: it knows fewer attacks.
    #[must_use]
    pub fn with_evaluation_number_min(mut self, number: u32) -> Self {
        self.evaluation_number_min = Some(number);
        self
    }

    /// Refuses SNP platforms whose firmware is below `minimum` in any part.
    #[must_use]
    pub fn with_snp_tcb_min(mut self, minimum: SnpTcb) -> Self {
        self.snp_tcb_min = Some(minimum);
        self
    }
}

/// How long a cloud provider may take to roll out a microcode update.
const CLOUD_GRACE: Duration = Duration::from_secs(30 * DAY_SECS);
const DAY_SECS: u64 = 86_400;
