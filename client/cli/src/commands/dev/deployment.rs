//! What a development deployment consists of on disk: measured configurations and the trust they imply.
//!
//! ```text
//! root of the software TEE ─▶ keys.toml ─+ bield-keys──▶ measurement ─▶ runtime.toml ─+ bield-runtime─▶ measurement
//!                                                             └────────────▶ trust.toml ◀──────────────────┘
//! ```

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use bield_envelope::Principal;
use bield_evidence::{Measurement, PolicyConfig, Profile};
use bield_protocol::configuration::{
    KeyServiceConfiguration, RecoveryConfiguration, RuntimeConfiguration,
};
use bield_sdk::{Home, HomeError, Randomness, Trust, TrustConfig, write_atomically};
use serde::Serialize;

use super::program::Programs;
use crate::commands::measure::measure;
use crate::failure::Failure;

/// Files that were written, and what they imply.
pub(super) struct Deployment {
    pub(super) keys_config: PathBuf,
    pub(super) runtime_config: PathBuf,
    pub(super) trust: PathBuf,
    /// The key service's sealed state. One directory for each measurement, since no other program can
    /// open it.
    pub(super) storage: PathBuf,
    /// Home of the key service's administrator: an identity and the trust file.
    pub(super) administrator: PathBuf,
    /// Whether there is state, but of another measurement.
    pub(super) starts_empty_again: bool,
    pub(super) keys: Measurement,
    pub(super) runtime: Measurement,
}

impl Deployment {
    pub(super) fn write(
        dir: &Path,
        programs: &Programs,
        runtime_extra: &[String],
        gateway: SocketAddr,
        key_service: SocketAddr,
    ) -> Result<Self, Failure> {
        let at = |error: std::io::Error| Failure::local(format_args!("{}: {error}", dir.display()));
        make_private(dir).map_err(at)?;
        for below in ["packages", "logs", "storage"] {
            std::fs::create_dir_all(dir.join(below)).map_err(at)?;
        }
        let root = root(&programs.software_tee, &dir.join("tee"))?;

        let administrator = Home::at(dir.join("administrator"));
        let principal = match administrator.create_identity(&mut Randomness) {
            Err(HomeError::IdentityExists { .. }) => administrator.identity()?,
            made => made?,
        };
        let keys_text = keys_configuration(&root, &principal.principal())?;
        let keys = measure(&programs.keys, keys_text.as_bytes())?;
        let runtime_text = runtime_configuration(&root, &keys, runtime_extra)?;
        let runtime = measure(&programs.runtime, runtime_text.as_bytes())?;
        let trust_text = trust(&root, &keys, &runtime, gateway, key_service)?;

        let (keys_config, runtime_config) = (dir.join("keys.toml"), dir.join("runtime.toml"));
        let trust = dir.join("trust.toml");
        write_atomically(&keys_config, keys_text.as_bytes())?;
        write_atomically(&runtime_config, runtime_text.as_bytes())?;
        write_atomically(&trust, trust_text.as_bytes())?;

        administrator.replace_trust(&trust_text)?;

        let storages = dir.join("storage");
        let used = std::fs::read_dir(&storages).map_err(at)?.next().is_some();
        let storage = storages.join(keys.short().replace(':', "-"));
        let starts_empty_again = used && !storage.exists();
        std::fs::create_dir_all(&storage).map_err(at)?;
        Ok(Self {
            keys_config,
            runtime_config,
            trust,
            storage,
            administrator: administrator.path().to_owned(),
            starts_empty_again,
            keys,
            runtime,
        })
    }
}

/// The root certificate of the software TEE whose machine is kept in `state`.
fn root(software_tee: &Path, state: &Path) -> Result<String, Failure> {
    let printed = Command::new(software_tee)
        .arg("--print-root")
        .arg("--state")
        .arg(state)
        .output();
    let printed = printed.map_err(|error| {
        Failure::local(format_args!(
            "{} does not start: {error}",
            software_tee.display()
        ))
    })?;
    if !printed.status.success() {
        let why = String::from_utf8_lossy(&printed.stderr);
        return Err(Failure::local(format_args!(
            "the software TEE: {}",
            why.trim()
        )));
    }
    Ok(String::from_utf8_lossy(&printed.stdout).trim().to_owned())
}

/// The development policy with this one simulated root.
fn policy(root: &str, measurements: &[&Measurement]) -> PolicyConfig {
    let mut policy = PolicyConfig::new(Profile::Dev);
    policy.allow_simulated = true;
    policy.simulated_roots = vec![root.to_owned()];
    policy.measurements = measurements.iter().map(ToString::to_string).collect();
    policy
}

fn keys_configuration(root: &str, administrator: &Principal) -> Result<String, Failure> {
    let text = to_toml(
        KEYS_COMMENT,
        &Keys {
            administrators: vec![administrator.to_string()],
            admits_code: true,
            recovery: RecoveryConfiguration {
                holders: vec![administrator.to_string()],
                threshold_min: 1,
            },
            runtimes: policy(root, &[]),
        },
    )?;
    KeyServiceConfiguration::parse(&text).map_err(Failure::local)?;
    Ok(text)
}

fn runtime_configuration(
    root: &str,
    keys: &Measurement,
    extra: &[String],
) -> Result<String, Failure> {
    let mut table = toml::Table::new();
    for line in extra {
        let parsed = line.parse::<toml::Table>().map_err(|error| {
            Failure::local(format_args!("--runtime-config-extra {line:?}: {error}"))
        })?;
        table.extend(parsed);
    }
    let policy = toml::Value::try_from(policy(root, &[keys])).map_err(Failure::local)?;
    table.insert("key_service".to_owned(), policy);
    let functions = table.entry("functions");
    functions.or_insert_with(|| toml::Table::new().into());
    let text = to_toml(RUNTIME_COMMENT, &table)?;
    // Here rather than in the runtime, so that a typing error is a sentence now.
    RuntimeConfiguration::parse(&text)
        .map_err(|error| Failure::local(format_args!("--runtime-config-extra: {error}")))?;
    Ok(text)
}

fn trust(
    root: &str,
    keys: &Measurement,
    runtime: &Measurement,
    gateway: SocketAddr,
    key_service: SocketAddr,
) -> Result<String, Failure> {
    let trust = TrustConfig {
        gateway: format!("http://{gateway}"),
        key_service: key_service.to_string().into(),
        code: vec![runtime.clone()],
        signers: Vec::new(),
        owner: None,
        principal: None,
        service: policy(root, &[keys]),
        runtimes: None,
        witnesses: None,
    };
    trust_text(&trust)
}

/// A trust file, checked.
pub(super) fn trust_text(trust: &TrustConfig) -> Result<String, Failure> {
    let text = to_toml(TRUST_COMMENT, trust)?;
    Trust::parse(&text)?;
    Ok(text)
}

/// Whether a trust file was written by this command, and may be by it again.
pub(super) fn is_own_trust(text: &str) -> bool {
    text.starts_with(TRUST_COMMENT)
}

fn to_toml(comment: &str, value: &impl Serialize) -> Result<String, Failure> {
    let text = toml::to_string(value).map_err(Failure::local)?;
    Ok(format!("{comment}\n{text}"))
}

fn make_private(dir: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;

    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
}

/// What is not a default in [`KeyServiceConfiguration`].
#[derive(Serialize)]
struct Keys {
    administrators: Vec<String>,
    /// For trying it out: the administrator alone may do all that it takes several for.
    admits_code: bool,
    recovery: RecoveryConfiguration,
    runtimes: PolicyConfig,
}

const KEYS_COMMENT: &str =
    "# Measured configuration of bield-keys, written by `bield dev`: SOFTWARE TEE.";
const RUNTIME_COMMENT: &str =
    "# Measured configuration of bield-runtime, written by `bield dev`: SOFTWARE TEE.";
const TRUST_COMMENT: &str = "\
# Written by `bield dev`: trusts a SOFTWARE TEE, which protects nothing. For development only.
# Use it with: bield init --trust FILE";

#[cfg(test)]
mod tests {
    use bield_envelope::Digest;
    use bield_evidence::software_measurement;

    use super::*;

    /// A DER certificate in hexadecimal is only parsed where roots are loaded; none here.
    fn measurement(name: &str) -> Measurement {
        software_measurement(
            Digest::of("test", &[name.as_bytes()]),
            Digest::of("test", &[]),
        )
    }

    #[test]
    fn the_key_service_defers_the_runtime_code_to_grants() {
        let administrator = Principal::from_bytes([1; 32]);
        let text = keys_configuration("00", &administrator).unwrap();
        let parsed = KeyServiceConfiguration::parse(&text).unwrap();
        assert!(parsed.runtimes.measurements.is_empty());
        assert!(parsed.runtimes.allow_simulated);
        assert_eq!(parsed.administrators, [administrator.to_string()]);
        let recovery = parsed.recovery.unwrap();
        assert_eq!(recovery.holders, [administrator.to_string()]);
        assert!(recovery.threshold_min == 1 && parsed.admits_code);
        assert_eq!(text, keys_configuration("00", &administrator).unwrap());
    }

    #[test]
    fn extra_lines_reach_the_runtime_and_typing_errors_are_sentences() {
        let keys = measurement("keys");
        let extra = ["threads=7".to_owned(), "queue_max = 3".to_owned()];
        let text = runtime_configuration("00", &keys, &extra).unwrap();
        let parsed = RuntimeConfiguration::parse(&text).unwrap();
        assert_eq!((parsed.threads, parsed.queue_max), (7, 3));
        assert_eq!(parsed.key_service.measurements, [keys.to_string()]);
        let typo = runtime_configuration("00", &keys, &["thread=7".to_owned()]).unwrap_err();
        assert!(typo.message().contains("thread"), "{}", typo.message());
        assert!(runtime_configuration("00", &keys, &["nonsense".to_owned()]).is_err());
    }
}
