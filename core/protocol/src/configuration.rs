//! The configuration of enclave programs: TOML, measured byte for byte, unknown keys refused.
//!
//! Whatever changes trust is here and hence in the measurement. A program reads nothing else.

use std::fmt;

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
    /// At most 64 principals (`ed25519:…`) that may order what concerns the service as a whole: recovery shares, its
    /// identity key, code that may join. None of them can read or grant what is others'.
    #[serde(default)]
    pub administrators: Vec<String>,
    /// Instances that share one log: 1, 3 or 5. Which of them an instance is, its host says when it starts it.
    #[serde(default = "default_members")]
    pub members: u8,
    /// What another instance's evidence must satisfy; required when there are several. Its measurement must be
    /// the own one, be admitted by an administrator, or stand in `measurements`: at most 16 other codes of the
    /// key service, beside which this one serves and from which it takes the state, so that a group can be
    /// brought from one code to the next. Empty: none. Whoever trusts this configuration trusts that code as well.
    #[serde(default)]
    pub peers: Option<PolicyConfig>,
    /// The machines of the members, by slot: platform identities, hexadecimal, as evidence has them. Where
    /// they are given, a member is believed to be in a slot only on that slot's machine. Several members need
    /// them, each another one, or witnesses: every machine runs the same code, so that without either, one
    /// host could be a whole group.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub member_platforms: Vec<String>,
    /// Witnesses that cosign every record before it counts.
    #[serde(default)]
    pub witnesses: WitnessesConfiguration,
    /// Who may hold recovery shares; absent: none are made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery: Option<RecoveryConfiguration>,
    /// Whether administrators may let other code of the key service join: that code gets every key.
    #[serde(default)]
    pub admits_code: bool,
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
    /// How many must cosign: more than half of them, so that two copies of a service cannot each have their
    /// own; 0 only without keys.
    #[serde(default)]
    pub needed: u8,
}

/// Who may hold shares of the key service's root secret: enough of them, together with a host, have every key.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecoveryConfiguration {
    /// Principals (`ed25519:…`), 1 to 16; whoever succeeded one counts as it.
    pub holders: Vec<String>,
    /// The fewest shares that may be enough: 2 at least, or 1 when there is one holder only.
    #[serde(default = "default_threshold_min")]
    pub threshold_min: u8,
}

/// Configuration of `bield-runtime`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuntimeConfiguration {
    /// What the key service's evidence must satisfy, its measurement included.
    pub key_service: PolicyConfig,
    /// Threads the engine computes with: rten as many for each request that is computed at once; onnxruntime one for each,
    /// and the rest for all of them.
    #[serde(default = "default_threads")]
    pub threads: usize,
    /// Requests computed at once.
    #[serde(default = "default_concurrency")]
    pub concurrency: usize,
    /// Requests that may wait for a turn; more are told to come back.
    #[serde(default = "default_queue_max")]
    pub queue_max: usize,
    /// Milliseconds that a request may wait for others: for its turn, and for memory. Then it is refused.
    #[serde(default = "default_queue_ms_max")]
    pub queue_ms_max: u32,
    /// Memory for opened models, MiB.
    #[serde(default = "default_models_mib_max")]
    pub models_mib_max: u64,
    /// Engines that models run on, the preferred one first: `rten`, `onnxruntime`. A model runs on the first that
    /// takes its format and has nothing against it.
    #[serde(default = "default_engines")]
    pub engines: Vec<EngineName>,
    /// Whether the last of `engines` answers for an ONNX model until the one that is preferred for it has opened it:
    /// the first answer comes sooner and both answer for a while, each only after its golden pairs agreed. Needs memory for
    /// both; where that is not free, the preferred one answers alone.
    #[serde(default)]
    pub tiered: bool,
    /// Whether requests for one model run as one; absent: each by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batching: Option<BatchingConfiguration>,
    /// Required where `engines` names it: its library is code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub onnxruntime: Option<OnnxruntimeConfiguration>,
    /// Whether functions run; absent: packages that are functions are refused, and no memory becomes executable once the
    /// program serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub functions: Option<FunctionsConfiguration>,
}

/// Running WebAssembly functions. They are compiled in the program.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FunctionsConfiguration {
    /// Instances at once, 1 to 256: one for each request that runs.
    #[serde(default = "default_instances_max")]
    pub instances_max: u32,
    /// Most memory of one instance in MiB, 1 to 1024; a function that asks for more is refused.
    #[serde(default = "default_instance_mib_max")]
    pub instance_mib_max: u64,
    /// Whether functions of different owners are inside at once. WebAssembly keeps them apart, but not against an owner that
    /// measures what the processor did speculatively for another; without this, one owner's leave before the next one's
    /// come.
    #[serde(default)]
    pub several_owners: bool,
}

/// Running requests for one model as one, where its file gives the first axis of every input and output one name, its golden
/// pairs show that the answers stay the same, and the grant's isolation is `shared`. Other models are left alone.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchingConfiguration {
    /// Microseconds that a request waits for others while a turn is free, 0 to 100 000; those that wait for a turn wait
    /// together anyway.
    pub wait_us: u32,
    /// Most requests in one run, 2 to 64.
    pub requests_max: usize,
    /// Whether requests of different users run together. Then a model whose owner made it so can let one user's input
    /// change another's answer; without this, only answers of the same user.
    #[serde(default)]
    pub across_users: bool,
}

/// An inference engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EngineName {
    /// Pure Rust, memory-safe against hostile models: ONNX and `.rten` files.
    Rten,
    /// C++, faster on convolutional networks: ONNX and `.ort` files.
    Onnxruntime,
}

impl fmt::Display for EngineName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rten => "rten",
            Self::Onnxruntime => "onnxruntime",
        })
    }
}

/// Which onnxruntime.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OnnxruntimeConfiguration {
    /// SHA-256 of `libonnxruntime.so`: `sha256:` and 64 hexadecimal digits. Where the file lies is the host's.
    pub library: String,
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

const fn default_instances_max() -> u32 {
    16
}

const fn default_instance_mib_max() -> u64 {
    256
}

const fn default_members() -> u8 {
    1
}

const fn default_threshold_min() -> u8 {
    2
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

/// Half of what callers usually wait.
const fn default_queue_ms_max() -> u32 {
    30_000
}

fn default_engines() -> Vec<EngineName> {
    vec![EngineName::Rten]
}

const fn default_models_mib_max() -> u64 {
    4096
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: &str = "[runtimes]\nprofile = \"cloud\"\n";

    #[test]
    fn what_is_not_said_takes_its_documented_value() {
        let read = KeyServiceConfiguration::parse(SHORT).unwrap();
        assert_eq!((read.sessions_max, read.lease_secs), (4096, 600));
        assert_eq!((read.members, read.orders_per_minute), (1, 6000));
        assert!(read.administrators.is_empty() && read.peers.is_none());
        assert_eq!((read.witnesses.keys.len(), read.witnesses.needed), (0, 0));
        assert!(read.recovery.is_none() && !read.admits_code);
        let holders = format!("{SHORT}[recovery]\nholders = [\"ed25519:00\"]\n");
        let read = KeyServiceConfiguration::parse(&holders).unwrap();
        assert_eq!(read.recovery.unwrap().threshold_min, 2);
    }

    #[test]
    fn everything_can_be_said() {
        let text = format!(
            "sessions_max = 7\nlease_secs = 30\nadministrators = [\"ed25519:00\"]\nmembers = 3\n\
             orders_per_minute = 9\nadmits_code = true\n{SHORT}[peers]\nprofile = \"strict\"\n\
             [witnesses]\nkeys = [\"a\", \"b\"]\nneeded = 2\n\
             [recovery]\nholders = [\"c\", \"d\", \"e\"]\nthreshold_min = 3\n"
        );
        let read = KeyServiceConfiguration::parse(&text).unwrap();
        assert_eq!(
            (read.sessions_max, read.lease_secs, read.members),
            (7, 30, 3)
        );
        assert_eq!((read.orders_per_minute, read.administrators.len()), (9, 1));
        assert!(read.peers.is_some());
        assert_eq!((read.witnesses.keys.len(), read.witnesses.needed), (2, 2));
        let recovery = read.recovery.unwrap();
        assert_eq!((recovery.holders.len(), recovery.threshold_min), (3, 3));
        assert!(read.admits_code);
    }

    #[test]
    fn unknown_words_wrong_types_and_missing_policies_are_refused() {
        for bad in [
            "",
            "[runtimes]\n",
            "member = 3\n[runtimes]\nprofile = \"cloud\"\n",
            "members = \"3\"\n[runtimes]\nprofile = \"cloud\"\n",
            "members = -1\n[runtimes]\nprofile = \"cloud\"\n",
            "members = 300\n[runtimes]\nprofile = \"cloud\"\n",
            "[runtimes]\nprofile = \"cloudy\"\n",
            "[runtimes]\nprofile = \"cloud\"\n[witnesses]\nkey = []\n",
            "[runtimes]\nprofile = \"cloud\"\n[recovery]\nthreshold_min = 2\n",
        ] {
            assert!(KeyServiceConfiguration::parse(bad).is_err(), "{bad:?}");
        }
        assert!(RuntimeConfiguration::parse("threads = 2").is_err());
    }
}
