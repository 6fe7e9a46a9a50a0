//! `bield verify`.

use std::fs::File;
use std::path::{Path, PathBuf};

use bield_evidence::{Check, Mover, Outcome};
use bield_package::{PackageHead, component_digest};
use bield_sdk::{Home, HomeError, KnownService, Randomness, now};
use clap::Args;
use serde_json::json;
use zeroize::Zeroizing;

use super::receipt::Receipt;
use super::{hex, log_json};
use crate::failure::Failure;
use crate::output::Output;
use crate::progress;
use crate::show::Checks;

/// List every check of the key service, a receipt or a package
///
/// Without arguments: asks the running key service for its evidence, compares it with trust.toml, and then
/// its log with what this home has seen of it: a service that was set back or copied is refused.
/// Every check is listed as passed, FAILED or NOT CHECKED, with what was found, what was needed, and
/// whose move it is. What nobody checked is said as loudly as what passed.
///
/// With a receipt: as `bield receipt`. With --package: checks a package's head and, when this home has
/// its key, its description and every chunk, offline.
#[derive(Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Verify {
    /// A receipt to check instead of the key service
    #[arg(value_name = "FILE.receipt", conflicts_with = "package")]
    receipt: Option<PathBuf>,

    /// With a receipt: an export of the capsule that the function's state is, to look its states up
    #[arg(long, value_name = "EXPORT", requires = "receipt")]
    state: Option<PathBuf>,

    /// A package to check instead of the key service
    #[arg(long, value_name = "FILE")]
    package: Option<PathBuf>,
}

impl Verify {
    pub(crate) fn run(self, home: &Home, output: Output) -> Result<(), Failure> {
        match (self.receipt, self.package) {
            (Some(file), _) => Receipt::of(file, self.state).run(home, output),
            (None, Some(file)) => package(home, &file, output),
            (None, None) => key_service(home, output),
        }
    }
}

fn key_service(home: &Home, output: Output) -> Result<(), Failure> {
    let trust = home.trust()?;
    let spinner = progress::spinner("asking the key service for its evidence");
    let found = bield_sdk::verify(home, &trust, now(), &mut Randomness);
    spinner.finish_and_clear();
    let found = found?;
    let passed = found.passed();
    let checks = Checks(&found.checks);
    let mut value = checks.to_json();
    value["passed"] = passed.into();
    value["subject"] = "key service".into();
    value["address"] = found.address.clone().into();
    value["simulated"] = found.simulated.into();
    value["measurement"] = json!(found.measurement);
    value["service"] = json!(found.principal.map(|principal| principal.to_string()));
    value["log"] = found.fresh.as_ref().map_or(json!(null), log_json);
    if let (true, Some(principal), Some(measurement)) =
        (passed, found.principal, &found.measurement)
    {
        let measurement = measurement.to_string();
        home.remember_service(&KnownService {
            principal,
            measurement,
            simulated: found.simulated,
        })?;
    }
    let warning = if found.simulated {
        "\nSOFTWARE TEE: no hardware protects this key service"
    } else {
        ""
    };
    let verdict = if passed { "verified" } else { "NOT verified" };
    let text = format!("{checks}\nkey service {} {verdict}{warning}", found.address);
    conclude(
        passed,
        value,
        &text,
        format!("key service {} does not verify", found.address),
        output,
    )
}

fn package(home: &Home, path: &Path, output: Output) -> Result<(), Failure> {
    let at = |error: std::io::Error| Failure::local(format_args!("{}: {error}", path.display()));
    let mut file = File::open(path).map_err(at)?;
    let length = file.metadata().map_err(at)?.len();
    let mut checks = Vec::new();
    let mut value = json!({});
    match PackageHead::read(&mut file) {
        Err(error) => {
            checks.push(check(
                "head",
                Outcome::Failed,
                &error.to_string(),
                "a package's signed head",
            ));
        }
        Ok(head) => {
            let header = head.header();
            let signed = format!("signed by {}", header.owner);
            checks.push(check(
                "head",
                Outcome::Passed,
                &signed,
                "signed by the owner it names",
            ));
            let (have, need) = (
                format!("{length} bytes"),
                format!("{} bytes", head.package_bytes()),
            );
            let whole = length == head.package_bytes();
            let outcome = if whole {
                Outcome::Passed
            } else {
                Outcome::Failed
            };
            checks.push(check("length", outcome, &have, &need));
            value["package"] = head.digest().to_string().into();
            value["owner"] = header.owner.to_string().into();
            value["name"] = header.name.as_str().into();
            value["version"] = header.version.as_str().into();
            contents(home, head, &mut file, whole, &mut checks)?;
        }
    }
    let passed = checks.iter().all(|check| check.outcome != Outcome::Failed);
    let shown = Checks(&checks);
    for (key, found) in shown.to_json().as_object().into_iter().flatten() {
        value[key] = found.clone();
    }
    value["passed"] = passed.into();
    value["subject"] = "package".into();
    let verdict = if passed {
        "verified as far as checked"
    } else {
        "NOT verified"
    };
    let text = format!("{shown}\npackage {} {verdict}", path.display());
    conclude(
        passed,
        value,
        &text,
        format!("{} does not verify", path.display()),
        output,
    )
}

/// What only the key's holder can check.
fn contents(
    home: &Home,
    head: PackageHead,
    file: &mut File,
    whole: bool,
    checks: &mut Vec<Check>,
) -> Result<(), Failure> {
    let key = match home.package_key(head.digest()) {
        Ok(key) => key,
        Err(HomeError::NoPackageKey { .. }) => {
            for name in ["manifest", "chunks", "content"] {
                let have = "this home has no key for it";
                checks.push(check(name, Outcome::NotChecked, have, "the package's key"));
            }
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    };
    let open = match head.open_manifest(&key) {
        Ok(open) => open,
        Err(error) => {
            checks.push(check(
                "manifest",
                Outcome::Failed,
                &error.to_string(),
                "opens with the key",
            ));
            return Ok(());
        }
    };
    checks.push(check(
        "manifest",
        Outcome::Passed,
        "opens with the key",
        "the same",
    ));
    let bytes = usize::try_from(open.model_bytes()).ok().filter(|_| whole);
    let Some(bytes) = bytes else {
        checks.push(check(
            "chunks",
            Outcome::NotChecked,
            "another length",
            "a whole package",
        ));
        return Ok(());
    };
    let mut model = Zeroizing::new(vec![0; bytes]);
    let bar = progress::bytes("opening");
    let opened = open.open_model(file, &mut model, &mut progress::advance(&bar));
    bar.finish_and_clear();
    match opened.and_then(|()| open.check_content(&model)) {
        Ok(()) => {
            let count = format!("all {} open", open.chunk_count());
            checks.push(check("chunks", Outcome::Passed, &count, "the same"));
            let content = "as the owner's tool hashed it";
            checks.push(check("content", Outcome::Passed, content, "the same"));
            if let Some(function) = &open.manifest().function {
                let digest = component_digest(&model).map(|digest| hex(&digest));
                let have = digest.unwrap_or_else(|error| error.to_string());
                let need = hex(&function.component);
                let outcome = match have == need {
                    true => Outcome::Passed,
                    false => Outcome::Failed,
                };
                checks.push(check("component", outcome, &have, &need));
            }
        }
        Err(error) => {
            checks.push(check(
                "chunks",
                Outcome::Failed,
                &error.to_string(),
                "every chunk opens",
            ));
        }
    }
    Ok(())
}

/// Shows what was found; a failed verification is a failure that carries it.
pub(crate) fn conclude(
    passed: bool,
    value: serde_json::Value,
    text: &str,
    failure: String,
    output: Output,
) -> Result<(), Failure> {
    if passed {
        output.show(&value, text);
        return Ok(());
    }
    if !output.is_json() {
        output.show(&value, text);
    }
    Err(Failure::refused(failure).with(value))
}

fn check(name: &'static str, outcome: Outcome, have: &str, need: &str) -> Check {
    Check {
        name,
        outcome,
        have: have.to_owned(),
        need: need.to_owned(),
        mover: Mover::Owner,
    }
}

const EXAMPLES: &str = r#"Examples:
  bield verify
  bield --json verify
  bield verify .bield/receipts/9f....receipt
  bield verify --package magika.bield"#;
