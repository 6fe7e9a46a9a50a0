//! The configuration of enclave programs: TOML, measured byte for byte, unknown keys refused.
//!
//! Whatever changes trust is here and hence in the measurement. A program reads nothing else.

use bield_evidence::PolicyConfig;
use serde::{Deserialize, Serialize};

/// Configuration of `bield-keys`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyServiceConfiguration {
    /// What a runtime's evidence must satisfy. Its code is compared with the grants of each package,
    /// so `measurements` must be empty here: anything else is refused as a misunderstanding.
    pub runtimes: PolicyConfig,
    /// Sessions served at once; when all are taken, the one that has been silent longest without having
    /// ordered anything gives way.
    #[serde(default = "default_sessions_max")]
    pub sessions_max: usize,
    /// The longest lease in seconds, 10 to 600: a revocation takes effect within this.
    #[serde(default = "default_lease_secs")]
    pub lease_secs: u32,
    /// Principals (`ed25519:…`) that may order what concerns the service as a whole: recovery shares, its
    /// identity key, code that may join. None of them can read or grant what is others'.
    #[serde(default)]
    pub administrators: Vec<String>,
    /// Instances that share one log: 1, 3 or 5.
    #[serde(default = "default_members")]
    pub members: u8,
    /// What another instance's evidence must satisfy; required when there are several. Its measurement is
    /// compared with the own one and with those that administrators admitted, so `measurements` must be empty.
    #[serde(default)]
    pub peers: Option<PolicyConfig>,
    /// Witnesses that cosign every record before it counts.
    #[serde(default)]
    pub witnesses: WitnessesConfiguration,
    /// Orders that one principal may give in a minute; more are told to come back.
    #[serde(default = "default_orders_per_minute")]
    pub orders_per_minute: u32,
}

/// Witnesses of the key service's log.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WitnessesConfiguration {
    /// Their verifier keys (C2SP, `name+hash+key`), in the order in which the host knows their addresses.
    #[serde(default)]
    pub keys: Vec<String>,
    /// How many must cosign; 0 only without keys.
    #[serde(default)]
    pub needed: u8,
}

/// Configuration of `bield-runtime`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuntimeConfiguration {
    /// What the key service's evidence must satisfy, its measurement included.
    pub key_service: PolicyConfig,
    /// Threads the engine computes with.
    #[serde(default = "default_threads")]
    pub threads: usize,
    /// Requests computed at once.
    #[serde(default = "default_concurrency")]
    pub concurrency: usize,
    /// Requests that may wait for a turn; more are told to come back.
    #[serde(default = "default_queue_max")]
    pub queue_max: usize,
    /// Memory for opened models, MiB.
    #[serde(default = "default_models_mib_max")]
    pub models_mib_max: u64,
}

/// The text is not this configuration.
#[derive(Debug, thiserror::Error)]
#[error("configuration does not parse: {0}")]
pub struct ConfigurationError(#[from] toml::de::Error);

impl KeyServiceConfiguration {
    /// Parses TOML.
    ///
    /// # Errors
    /// Not TOML, a missing or unknown key, or a value of the wrong type.
    pub fn parse(text: &str) -> Result<Self, ConfigurationError> {
        Ok(toml::from_str(text)?)
    }
}

impl RuntimeConfiguration {
    /// Parses TOML.
    ///
    /// # Errors
    /// Not TOML, a missing or unknown key, or a value of the wrong type.
    pub fn parse(text: &str) -> Result<Self, ConfigurationError> {
        Ok(toml::from_str(text)?)
    }
}

const fn default_sessions_max() -> usize {
    4096
}

const fn default_lease_secs() -> u32 {
    600
}

const fn default_members() -> u8 {
    1
}

const fn default_orders_per_minute() -> u32 {
    6000
}

const fn default_threads() -> usize {
    2
}

const fn default_concurrency() -> usize {
    1
}

const fn default_queue_max() -> usize {
    64
}

const fn default_models_mib_max() -> u64 {
    4096
}
