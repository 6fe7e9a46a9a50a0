//! A policy as people write it (TOML). Unknown keys and values are errors: a misspelt demand must
//! not become no demand.
//!
//! ```toml
//! profile = "cloud"
//! measurements = ["sgx:…64 hex digits…"]
//! evaluation_number_min = 17
//! out_of_date_grace_days = 14
//! ```

use core::time::Duration;

use der::Decode as _;
use serde::{Deserialize, Serialize};

use super::{DAY_SECS, Policy, Profile, Reference};
use crate::claims::{SnpTcb, TcbStatus};
use crate::hardening::{HardeningDemand, Protection};
use crate::measurement::{Measurement, ParseMeasurementError};
use crate::roots::Roots;

/// The text form of a [`Policy`]; absent keys take the profile's value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyConfig {
    /// `strict`, `cloud` or `dev`.
    pub profile: Profile,
    /// Accept the software TEE; only `dev` may say so, and must.
    #[serde(default)]
    pub allow_simulated: bool,
    /// Root certificates of software TEEs, DER in hexadecimal; needs `allow_simulated`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub simulated_roots: Vec<String>,
    /// Accepted code, such as `sgx:<hex>`. Empty accepts nothing.
    #[serde(default)]
    pub measurements: Vec<String>,
    /// Accepted platform identities, hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platforms: Option<Vec<String>>,
    /// Accepted TCB statuses, replacing the profile's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcb_statuses: Option<Vec<TcbStatus>>,
    /// Days an out-of-date platform is tolerated after the date of its TCB level.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub out_of_date_grace_days: Option<u16>,
    /// Accept platforms that can grow packages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_dynamic_platform: Option<bool>,
    /// Accept platforms whose root keys the vendor's service keeps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_cached_keys: Option<bool>,
    /// Accept simultaneous multithreading.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_smt: Option<bool>,
    /// Advisories that refuse a platform, such as `INTEL-SA-00615`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blocked_advisories: Vec<String>,
    /// Oldest accepted TCB evaluation data number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evaluation_number_min: Option<u32>,
    /// Lowest accepted SNP firmware.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snp_tcb_min: Option<SnpTcb>,
    /// Protections of the process that must be stated in force, such as `listed-system-calls`, replacing the profile's,
    /// of every kind of TEE.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hardening: Option<Vec<Protection>>,
}

/// Most entries of one list in a policy: a deployment knows tens of measurements, hundreds of hosts.
const LIST_MAX: usize = 4096;

impl PolicyConfig {
    /// A configuration that says nothing but its profile.
    #[must_use]
    pub const fn new(profile: Profile) -> Self {
        Self {
            profile,
            allow_simulated: false,
            simulated_roots: Vec::new(),
            measurements: Vec::new(),
            platforms: None,
            tcb_statuses: None,
            out_of_date_grace_days: None,
            allow_dynamic_platform: None,
            allow_cached_keys: None,
            allow_smt: None,
            blocked_advisories: Vec::new(),
            evaluation_number_min: None,
            snp_tcb_min: None,
            hardening: None,
        }
    }

    /// Checks the text and makes the policy.
    ///
    /// # Errors
    /// A value that does not parse, a list that is too long, or simulated evidence outside `dev`.
    pub fn into_policy(self) -> Result<Policy, PolicyConfigError> {
        self.check()?;
        let measurements = self
            .measurements
            .iter()
            .map(|text| text.parse::<Measurement>())
            .collect::<Result<_, _>>()?;
        let reference = Reference::Listed(measurements);
        let mut policy = match self.profile {
            Profile::Strict => Policy::strict(reference),
            Profile::Cloud => Policy::cloud(reference),
            Profile::Dev => Policy::dev(reference),
        };
        policy.allow_simulated = self.allow_simulated;
        if let Some(platforms) = self.platforms {
            let platforms: Vec<_> = platforms
                .iter()
                .map(|text| unhex(text, "platforms"))
                .collect::<Result<_, _>>()?;
            policy = policy.with_platforms(platforms);
        }
        if let Some(statuses) = self.tcb_statuses {
            policy.statuses = statuses.into_iter().collect();
        }
        if let Some(days) = self.out_of_date_grace_days {
            policy.out_of_date_grace = Duration::from_secs(u64::from(days) * DAY_SECS);
        }
        policy.allow_dynamic_platform = self
            .allow_dynamic_platform
            .unwrap_or(policy.allow_dynamic_platform);
        policy.allow_cached_keys = self.allow_cached_keys.unwrap_or(policy.allow_cached_keys);
        policy.allow_smt = self.allow_smt.unwrap_or(policy.allow_smt);
        policy.blocked_advisories = self.blocked_advisories;
        policy.evaluation_number_min = self.evaluation_number_min;
        policy.snp_tcb_min = self.snp_tcb_min;
        if let Some(protections) = self.hardening {
            policy.hardening = HardeningDemand::exactly(protections);
        }
        Ok(policy)
    }

    /// Makes a policy that leaves the code to a later comparison ([`Reference::Deferred`]), such as
    /// with an owner's grants.
    ///
    /// # Errors
    /// As [`Self::into_policy`], or measurements are listed: they would not be looked at.
    pub fn into_deferred_policy(self) -> Result<Policy, PolicyConfigError> {
        if !self.measurements.is_empty() {
            return Err(PolicyConfigError::MeasurementsDeferred);
        }
        let mut policy = self.into_policy()?;
        policy.reference = Reference::Deferred;
        Ok(policy)
    }

    /// The roots this policy is to be used with: the vendors', and simulated ones if it allows them.
    ///
    /// # Errors
    /// As [`Self::into_policy`], or a root that is no certificate.
    pub fn roots(&self) -> Result<Roots, PolicyConfigError> {
        self.check()?;
        let mut roots = Roots::vendor();
        for text in &self.simulated_roots {
            let der = unhex(text, "simulated_roots")?;
            x509_cert::Certificate::from_der(&der).map_err(|_| PolicyConfigError::Root)?;
            roots = roots.with_simulated_dcap(der);
        }
        Ok(roots)
    }

    fn check(&self) -> Result<(), PolicyConfigError> {
        if self.allow_simulated && self.profile != Profile::Dev {
            return Err(PolicyConfigError::SimulatedOutsideDev {
                profile: self.profile,
            });
        }
        if !self.simulated_roots.is_empty() && !self.allow_simulated {
            return Err(PolicyConfigError::RootsWithoutSimulated);
        }
        let longest = [
            self.simulated_roots.len(),
            self.measurements.len(),
            self.platforms.as_ref().map_or(0, Vec::len),
            self.blocked_advisories.len(),
        ];
        if longest.into_iter().any(|length| length > LIST_MAX) {
            return Err(PolicyConfigError::TooLong { max: LIST_MAX });
        }
        Ok(())
    }
}

fn unhex(text: &str, key: &'static str) -> Result<Vec<u8>, PolicyConfigError> {
    match hex::decode(text) {
        Ok(bytes) if !bytes.is_empty() => Ok(bytes),
        _ => Err(PolicyConfigError::Hex { key }),
    }
}

/// The policy file has to be corrected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyConfigError {
    /// Measurements where code is compared later, with something else.
    #[error("measurements are listed, but here code is compared with grants; remove them")]
    MeasurementsDeferred,
    /// A measurement does not parse.
    #[error("measurements: {0}")]
    Measurement(#[from] ParseMeasurementError),
    /// A value is not hexadecimal.
    #[error("{key}: expected non-empty hexadecimal text")]
    Hex {
        /// The key in the file.
        key: &'static str,
    },
    /// A simulated root is no certificate.
    #[error("simulated_roots: not a DER certificate")]
    Root,
    /// Simulated evidence was allowed outside the `dev` profile.
    #[error("allow_simulated is only possible with profile = \"dev\", not \"{profile}\"")]
    SimulatedOutsideDev {
        /// The profile found.
        profile: Profile,
    },
    /// Simulated roots were given, but simulated evidence is not allowed.
    #[error("simulated_roots need profile = \"dev\" and allow_simulated = true")]
    RootsWithoutSimulated,
    /// A list is too long.
    #[error("a list has more than {max} entries")]
    TooLong {
        /// Entries allowed.
        max: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<PolicyConfig, serde_json::Error> {
        serde_json::from_str(json)
    }

    #[test]
    fn a_profile_alone_is_the_profile_with_an_empty_list() {
        let empty = Reference::Listed(Vec::new());
        let strict = parse(r#"{"profile":"strict"}"#).unwrap();
        assert_eq!(strict.into_policy(), Ok(Policy::strict(empty.clone())));
        let dev = parse(r#"{"profile":"dev"}"#).unwrap();
        assert_eq!(
            dev.into_policy(),
            Ok(Policy::dev(empty).without_simulated())
        );
    }

    #[test]
    fn misspelt_keys_and_unknown_values_are_errors() {
        for json in [
            r#"{}"#,
            r#"{"profile":"lenient"}"#,
            r#"{"profile":"strict","measurement":[]}"#,
            r#"{"profile":"cloud","tcb_statuses":["Fine"]}"#,
            r#"{"profile":"cloud","tcb_statuses":["Revoked"]}"#,
            r#"{"profile":"cloud","snp_tcb_min":{"ucode":1}}"#,
            r#"{"profile":"cloud","hardening":["seccomp"]}"#,
        ] {
            assert!(parse(json).is_err(), "{json}");
        }
        let bad = parse(r#"{"profile":"strict","measurements":["sgx:00"]}"#).unwrap();
        assert!(bad.into_policy().is_err());
        let bad = parse(r#"{"profile":"strict","platforms":[""]}"#).unwrap();
        assert!(bad.into_policy().is_err());
    }

    #[test]
    fn only_dev_may_allow_simulated() {
        for profile in [Profile::Strict, Profile::Cloud] {
            let config = PolicyConfig {
                allow_simulated: true,
                ..PolicyConfig::new(profile)
            };
            let refused = PolicyConfigError::SimulatedOutsideDev { profile };
            assert_eq!(config.roots().err(), Some(refused));
            assert_eq!(config.into_policy(), Err(refused));
        }
        let silent = PolicyConfig {
            simulated_roots: vec!["00".into()],
            ..PolicyConfig::new(Profile::Dev)
        };
        assert_eq!(
            silent.into_policy(),
            Err(PolicyConfigError::RootsWithoutSimulated)
        );
    }
}
