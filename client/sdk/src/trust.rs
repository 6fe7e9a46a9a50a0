//! What this client trusts, read from one TOML file before anything is sent.
//!
//! ```toml
//! gateway     = "http://127.0.0.1:8790"   # untrusted: carries sealed bytes
//! key_service = "127.0.0.1:8791"          # trusted once its evidence meets [service]
//! code        = ["sgx:…64 hex digits…"]   # runtimes that may open my requests
//! owner       = "ed25519:…"               # whose packages a bare name means (optional)
//! principal   = "ed25519:…"               # the one key service I accept (optional)
//!
//! [service]                               # what the key service's evidence must satisfy
//! profile      = "cloud"                  # strict, cloud, or dev
//! measurements = ["sgx:…"]
//! ```
//!
//! Always true: a [`Trust`] that exists is complete and consistent; unknown keys are refused, so a
//! misspelt demand never becomes no demand.

use std::str::FromStr;

use bield_envelope::Principal;
use bield_evidence::{Measurement, Policy, PolicyConfig, PolicyConfigError, Roots};
use serde::{Deserialize, Serialize};

use crate::KnownService;

/// The text form of a [`Trust`].
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrustConfig {
    /// Where sealed requests go: an `http://` URL.
    pub gateway: String,
    /// `host:port` of the key service.
    pub key_service: String,
    /// Runtime code that may open this client's requests; a named package is tried in this order.
    #[serde(default)]
    pub code: Vec<Measurement>,
    /// Whose packages a bare name means.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// The one key service accepted, beside what its evidence says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub principal: Option<String>,
    /// What the key service's evidence must satisfy.
    pub service: PolicyConfig,
}

/// Why a trust file is not usable. Whoever wrote the file corrects it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrustError {
    /// Not TOML, or a key is missing, unknown or of the wrong type.
    #[error("the trust file does not parse: {0}")]
    Parse(#[from] toml::de::Error),
    /// A principal is not one.
    #[error("the trust file's `{key}` is no principal: write ed25519: and 64 hex digits")]
    Principal {
        /// Which key of the file.
        key: &'static str,
    },
    /// The gateway's URL cannot be used.
    #[error("the trust file's `gateway` is not an http:// URL: found {found:?}")]
    Gateway {
        /// What stands there.
        found: String,
    },
    /// The key service's address cannot be used.
    #[error("the trust file's `key_service` is not host:port: found {found:?}")]
    Address {
        /// What stands there.
        found: String,
    },
    /// The policy for the key service's evidence contradicts itself.
    #[error("the trust file's [service]: {0}")]
    Policy(#[from] PolicyConfigError),
}

/// Everything this client trusts.
pub struct Trust {
    gateway: String,
    key_service: String,
    code: Vec<Measurement>,
    owner: Option<Principal>,
    principal: Option<Principal>,
    services: Vec<String>,
    policy: Policy,
    roots: Roots,
}

impl Trust {
    /// Checks the text and makes the trust.
    ///
    /// # Errors
    /// The first thing that cannot be used as it is.
    pub fn parse(text: &str) -> Result<Self, TrustError> {
        toml::from_str::<TrustConfig>(text)?.into_trust()
    }

    /// Where sealed requests go.
    #[must_use]
    pub fn gateway(&self) -> &str {
        &self.gateway
    }

    /// `host:port` of the key service.
    #[must_use]
    pub fn key_service(&self) -> &str {
        &self.key_service
    }

    /// Runtime code that may open this client's requests.
    #[must_use]
    pub fn code(&self) -> &[Measurement] {
        &self.code
    }

    /// Whose packages a bare name means.
    #[must_use]
    pub const fn owner(&self) -> Option<Principal> {
        self.owner
    }

    /// The one key service accepted; `None` accepts whichever meets [`policy`](Self::policy).
    #[must_use]
    pub const fn principal(&self) -> Option<Principal> {
        self.principal
    }

    /// What the key service's evidence must satisfy.
    #[must_use]
    pub const fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Who may have signed the key service's evidence.
    #[must_use]
    pub const fn roots(&self) -> &Roots {
        &self.roots
    }

    /// Whether a key service verified before, perhaps under other trust, is one that this trust accepts:
    /// its code, its protection, and who it is. The rest of the policy was checked when it was verified.
    #[must_use]
    pub fn accepts(&self, service: &KnownService) -> bool {
        self.services.contains(&service.measurement)
            && (self.allows_simulated() || !service.simulated)
            && self
                .principal
                .is_none_or(|principal| principal == service.principal)
    }

    /// Whether a software TEE, which protects nothing, is acceptable.
    #[must_use]
    pub const fn allows_simulated(&self) -> bool {
        self.policy.allows_simulated()
    }
}

impl TrustConfig {
    /// Checks the values and makes the trust.
    ///
    /// # Errors
    /// As [`Trust::parse`].
    pub fn into_trust(self) -> Result<Trust, TrustError> {
        let host = self.gateway.strip_prefix("http://").unwrap_or_default();
        let usable = !host.is_empty() && !host.contains([' ', '?', '#', '@']);
        if !usable {
            return Err(TrustError::Gateway {
                found: self.gateway,
            });
        }
        let port = self.key_service.rsplit_once(':');
        if port.is_none_or(|(host, port)| host.is_empty() || u16::from_str(port).is_err()) {
            return Err(TrustError::Address {
                found: self.key_service,
            });
        }
        let roots = self.service.roots()?;
        // As the list of remembered services writes them; what does not parse, into_policy refuses.
        let measurements = self.service.measurements.iter();
        let services = measurements
            .filter_map(|text| Some(text.parse::<Measurement>().ok()?.to_string()))
            .collect();
        Ok(Trust {
            gateway: self.gateway.trim_end_matches('/').to_owned(),
            key_service: self.key_service,
            code: self.code,
            owner: principal(self.owner, "owner")?,
            principal: principal(self.principal, "principal")?,
            services,
            policy: self.service.into_policy()?,
            roots,
        })
    }
}

fn principal(text: Option<String>, key: &'static str) -> Result<Option<Principal>, TrustError> {
    let parse = |text: String| text.parse().map_err(|_| TrustError::Principal { key });
    text.map(parse).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(line: &str) -> String {
        format!(
            "gateway = \"http://127.0.0.1:8790/\"\nkey_service = \"127.0.0.1:8791\"\n{line}\n\
             code = [\"sgx:{code}\"]\n[service]\nprofile = \"cloud\"\nmeasurements = []\n",
            code = "ab".repeat(32)
        )
    }

    #[test]
    fn a_complete_file_is_trusted_as_written() {
        let owner = format!("ed25519:{}", "01".repeat(32));
        let trust = Trust::parse(&with(&format!("owner = \"{owner}\""))).unwrap();
        assert_eq!(trust.gateway(), "http://127.0.0.1:8790");
        assert_eq!(trust.key_service(), "127.0.0.1:8791");
        assert_eq!(trust.owner().unwrap().to_string(), owner);
        assert_eq!(trust.code().len(), 1);
        assert!(!trust.allows_simulated());
    }

    #[test]
    fn only_services_of_accepted_code_and_protection_count() {
        let code = format!("sgx:{}", "cd".repeat(32));
        let cloud = with("").replace("= []", &format!("= [\"{code}\"]"));
        let dev = cloud.replace("\"cloud\"", "\"dev\"\nallow_simulated = true");
        let known = |measurement: &str, simulated| KnownService {
            principal: Principal::from_bytes([1; 32]),
            measurement: measurement.to_owned(),
            simulated,
        };
        let other = format!("sgx:{}", "ce".repeat(32));
        let (cloud, dev) = (Trust::parse(&cloud).unwrap(), Trust::parse(&dev).unwrap());
        assert!(cloud.accepts(&known(&code, false)));
        assert!(!cloud.accepts(&known(&code, true)));
        assert!(!cloud.accepts(&known(&other, false)));
        assert!(dev.accepts(&known(&code, true)));
        assert!(!dev.accepts(&known(&other, true)));
        let pinned = with(&format!("principal = \"ed25519:{}\"", "01".repeat(32)));
        let pinned = pinned.replace("= []", &format!("= [\"{code}\"]"));
        assert!(Trust::parse(&pinned).unwrap().accepts(&known(&code, false)));
        let pinned = pinned.replace(&"01".repeat(32), &"02".repeat(32));
        assert!(!Trust::parse(&pinned).unwrap().accepts(&known(&code, false)));
    }

    #[test]
    fn a_misspelt_key_is_refused() {
        let refused = Trust::parse(&with("ownr = \"x\"")).err().unwrap();
        assert!(refused.to_string().contains("ownr"), "{refused}");
    }

    #[test]
    fn a_software_tee_outside_the_dev_profile_is_refused() {
        let text = with("").replace("measurements = []", "allow_simulated = true");
        assert!(matches!(Trust::parse(&text), Err(TrustError::Policy(_))));
    }

    #[test]
    fn addresses_that_cannot_work_are_named() {
        let tls = with("").replace("http://", "https://");
        assert!(matches!(
            Trust::parse(&tls),
            Err(TrustError::Gateway { .. })
        ));
        let portless = with("").replace("\"127.0.0.1:8791\"", "\"127.0.0.1\"");
        assert!(matches!(
            Trust::parse(&portless),
            Err(TrustError::Address { .. })
        ));
        let nobody = with("owner = \"bob\"");
        assert!(matches!(
            Trust::parse(&nobody),
            Err(TrustError::Principal { key: "owner" })
        ));
    }
}
