//! `bield grant`.

use std::fs::File;
use std::path::PathBuf;
use std::time::Duration;

use bield_envelope::{Digest, Signed, SigningKey, Verified};
use bield_evidence::Measurement;
use bield_grant::{Grant as Statement, Isolation};
use bield_package::PackageHead;
use bield_sdk::{Home, Randomness, now};
use clap::Args;
use rand_core::Rng as _;
use serde_json::json;

use super::{key_service, principal};
use crate::failure::Failure;
use crate::output::Output;

/// Allow users to call a package inside measured code
///
/// Verifies the key service's evidence, then registers you, the package with its key, and one signed
/// grant for each user and each code. The key leaves this machine only inside that attested session, and
/// the key service gives it only to runtimes whose evidence shows the granted code.
///
/// PACKAGE is the file, or the digest of a package that was packed in this home.
#[derive(Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Grant {
    /// The package: its file, or its digest
    package: String,

    /// Who may call it: a principal, or `me`; repeat for more
    #[arg(long, value_name = "PRINCIPAL", required = true)]
    user: Vec<String>,

    /// The only code that may hold it in the clear; repeat for more
    #[arg(long, value_name = "MEASUREMENT", required = true)]
    code: Vec<Measurement>,

    /// How long the grant holds: a number and s, m, h, d or w
    #[arg(long, value_name = "TIME", default_value = "30d", value_parser = duration)]
    expires: Duration,

    /// How users are kept apart inside the code: shared, wiped or dedicated
    #[arg(long, default_value = "shared")]
    isolation: Isolation,
}

impl Grant {
    pub(crate) fn run(self, home: &Home, output: Output) -> Result<(), Failure> {
        let owner = home.identity()?;
        let trust = home.trust()?;
        let head = self.head(home)?;
        let package = head.digest();
        let key = home.package_key(package)?;
        let header = head.signed_header().clone();
        let (name, version) = (head.header().name.clone(), head.header().version.clone());
        let manifest = head.open_manifest(&key)?.into_manifest();
        let users = self.user.iter().map(|user| principal(home, user));
        let users = users.collect::<Result<Vec<_>, _>>()?;

        let mut service = key_service(home, &trust)?;
        service.register(&owner)?;
        service.put_package(&owner, header, manifest.inputs, manifest.outputs, &key)?;
        let mut granted = Vec::new();
        for user in users {
            for code in &self.code {
                let grant = self.sign(&owner, package, user, code);
                service.grant(&owner, &grant)?;
                granted.push(grant);
            }
        }
        let shown: Vec<_> = granted.iter().map(show).collect();
        let lines: Vec<_> = granted
            .iter()
            .map(|grant| {
                format!(
                    "  {}  to {} in {} until {}",
                    hex(&grant.id),
                    grant.user,
                    grant.code.short(),
                    grant.not_after
                )
            })
            .collect();
        output.show(
            &json!({
                "package": package.to_string(),
                "owner": owner.principal().to_string(),
                "service": service.principal().to_string(),
                "simulated": service.appraised().simulated(),
                "grants": shown,
            }),
            format_args!(
                "granted {}@{} ({package})\n{}",
                name.as_str(),
                version.as_str(),
                lines.join("\n")
            ),
        );
        if service.appraised().simulated() && !output.is_json() {
            output.note("the key service runs in a SOFTWARE TEE: no hardware protects the key");
        }
        Ok(())
    }

    fn head(&self, home: &Home) -> Result<PackageHead, Failure> {
        let path = match self.package.parse::<Digest>() {
            Ok(digest) => home.package_head_path(digest),
            Err(_) => PathBuf::from(&self.package),
        };
        let mut file = File::open(&path).map_err(|error| {
            Failure::local(format_args!(
                "{}: {error}; give a package's file, or the digest of one packed in this home",
                path.display()
            ))
        })?;
        Ok(PackageHead::read(&mut file)?)
    }

    fn sign(
        &self,
        owner: &SigningKey,
        package: Digest,
        user: bield_envelope::Principal,
        code: &Measurement,
    ) -> Verified<Statement> {
        let now = now();
        let mut id = [0; 16];
        Randomness.fill_bytes(&mut id);
        let grant = Statement {
            id,
            package,
            user,
            code: code.clone(),
            isolation: self.isolation,
            // A runtime's clock may be a little behind this one.
            not_before: now.minus(Duration::from_secs(60)),
            not_after: now.plus(self.expires),
        };
        Signed::sign(owner, grant)
    }
}

fn show(grant: &Verified<Statement>) -> serde_json::Value {
    json!({
        "id": hex(&grant.id),
        "digest": grant.digest().to_string(),
        "user": grant.user.to_string(),
        "code": grant.code,
        "isolation": grant.isolation.to_string(),
        "not_before": grant.not_before.to_string(),
        "not_after": grant.not_after.to_string(),
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads `30d` and the like.
fn duration(text: &str) -> Result<Duration, String> {
    let refuse = || "write a number and s, m, h, d or w, up to ten years: 12h, 30d".to_owned();
    let (number, unit) = text
        .split_at_checked(text.len().saturating_sub(1))
        .ok_or_else(refuse)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        "w" => 7 * 86_400,
        _ => return Err(refuse()),
    };
    let number: u64 = number.parse().map_err(|_| refuse())?;
    let seconds = number
        .checked_mul(seconds)
        .filter(|s| (1..=TEN_YEARS_SECS).contains(s));
    seconds.map(Duration::from_secs).ok_or_else(refuse)
}

const TEN_YEARS_SECS: u64 = 10 * 366 * 86_400;

const EXAMPLES: &str = r#"Examples:
  bield grant magika.bield --user ed25519:... --code sgx:...
  bield grant magika.bield --user me --user ed25519:... --code sgx:... --expires 12h"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_with_their_unit_and_bounded() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("2w"), Ok(Duration::from_secs(14 * 86_400)));
        for text in ["", "s", "30", "-1d", "0d", "1.5h", "11000d", "1y", "1ü"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
