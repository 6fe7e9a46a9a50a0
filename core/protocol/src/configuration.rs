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
    /// Sessions served at once; more are closed at once, to be tried again.
    #[serde(default = "default_sessions_max")]
    pub sessions_max: usize,
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
    256
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
