//! `bield evidence`: evidence with its collateral in one file, checked offline at a stated time.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use bield_envelope::Time;
use bield_evidence::{
    Claims, Endorsements, Evidence as Bundle, HardeningDemand, HardeningStatement, Policy,
    PolicyConfig, TeeKind, appraise, canonical_dcap, claims_report_data, verify,
};
use bield_sdk::now;
use bield_session::SessionClaims;
use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::verify::conclude;
use crate::failure::Failure;
use crate::output::Output;
use crate::show::Checks;

/// Keep evidence with its collateral in one file, and check it offline
///
/// A quote proves nothing without the vendor's collateral, and collateral expires. `bundle` puts both
/// into one file as it travels in sessions; `verify` checks it against a policy, with no network, as it
/// stood at any time: for auditors, for machines without a network, for evidence from last year.
#[derive(Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Evidence {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Put a quote and its collateral into one file
    #[command(after_long_help = BUNDLE_EXAMPLES)]
    Bundle {
        /// Hardware family of the quote
        #[arg(long, value_enum)]
        kind: Kind,
        /// The quote (SGX, TDX) or attestation report (SNP), as bytes
        #[arg(long, value_name = "FILE")]
        quote: PathBuf,
        /// SGX, TDX: collateral as JSON, in the form of `dcap-qvl`
        #[arg(long, value_name = "FILE", conflicts_with_all = ["ask", "vek"])]
        collateral: Option<PathBuf>,
        /// SNP: AMD's signing certificate (ASK or ASVK), DER
        #[arg(long, value_name = "FILE", requires = "vek")]
        ask: Option<PathBuf>,
        /// SNP: the chip's certificate (VCEK or VLEK), DER
        #[arg(long, value_name = "FILE", requires = "ask")]
        vek: Option<PathBuf>,
        /// Where to write the bundle; an existing file is not replaced
        #[arg(long, short, value_name = "FILE")]
        out: PathBuf,
    },
    /// Check a bundle against a policy
    #[command(after_long_help = VERIFY_EXAMPLES)]
    Verify {
        /// The bundle
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// The policy: TOML as in trust.toml's [service]
        #[arg(long, value_name = "FILE")]
        policy: PathBuf,
        /// Judge as of this time instead of now: 2026-01-31T12:00:00Z
        #[arg(long, value_name = "TIME", value_parser = time)]
        at: Option<Time>,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    Sgx,
    Tdx,
    Snp,
}

impl Evidence {
    pub(crate) fn run(self, output: Output) -> Result<(), Failure> {
        match self.command {
            Command::Bundle {
                kind,
                quote,
                collateral,
                ask,
                vek,
                out,
            } => {
                let bundle = bundle(kind, &quote, collateral.as_deref(), ask.zip(vek))?;
                write_new(&out, &bundle.encode())?;
                let value = json!({"kind": bundle.kind.to_string(), "file": out});
                output.show(
                    &value,
                    format!("{} evidence in {}", bundle.kind, out.display()),
                );
                Ok(())
            }
            Command::Verify { file, policy, at } => check(&file, &policy, at, output),
        }
    }
}

fn bundle(
    kind: Kind,
    quote: &Path,
    collateral: Option<&Path>,
    certificates: Option<(PathBuf, PathBuf)>,
) -> Result<Bundle, Failure> {
    let quote = read(quote)?;
    match (kind, collateral, certificates) {
        (Kind::Sgx | Kind::Tdx, Some(collateral), _) => {
            let bundle = canonical_dcap(&quote, &read(collateral)?).map_err(Failure::refused)?;
            let asked = match kind {
                Kind::Sgx => TeeKind::Sgx,
                _ => TeeKind::Tdx,
            };
            if bundle.kind != asked {
                let found = bundle.kind;
                return Err(Failure::local(format_args!(
                    "this is a quote of {found}; write --kind {found}"
                )));
            }
            Ok(bundle)
        }
        (Kind::Snp, _, Some((ask, vek))) => Ok(Bundle {
            kind: TeeKind::Snp,
            quote,
            claims_buffer: Vec::new(),
            endorsements: Endorsements::Snp {
                ask: read(&ask)?,
                vek: read(&vek)?,
            },
        }),
        (Kind::Snp, _, None) => Err(Failure::local("SNP evidence needs --ask and --vek")),
        (_, None, _) => Err(Failure::local("SGX and TDX evidence needs --collateral")),
    }
}

fn check(file: &Path, policy: &Path, at: Option<Time>, output: Output) -> Result<(), Failure> {
    let bundle = Bundle::decode(&read(file)?).map_err(Failure::refused)?;
    let text = String::from_utf8_lossy(&read(policy)?).into_owned();
    let wrong = |error: &dyn std::fmt::Display| {
        Failure::local(format_args!("{}: {error}", policy.display()))
    };
    let config: PolicyConfig = toml::from_str(&text).map_err(|error| wrong(&error))?;
    let roots = config.roots().map_err(|error| wrong(&error))?;
    let asked = config.hardening.is_some();
    let policy = config.into_policy().map_err(|error| wrong(&error))?;
    let at = at.unwrap_or_else(now);
    let mut claims = verify(&bundle, &roots, at).map_err(Failure::refused)?;
    claims.hardening = stated(&bundle, &claims);
    let policy = alone(policy, &claims, asked);
    let appraisal = appraise(&claims, &policy, at);
    let passed = appraisal.passed();
    let checks = Checks(appraisal.checks());
    let mut value = checks.to_json();
    value["passed"] = passed.into();
    value["subject"] = "evidence".into();
    value["kind"] = claims.kind.to_string().into();
    value["measurement"] = claims.measurement.to_string().into();
    value["simulated"] = claims.simulated.into();
    value["at"] = at.to_string().into();
    value["collateral_until"] = claims.collateral_until.to_string().into();
    let verdict = if passed { "verified" } else { "NOT verified" };
    let warning = if claims.simulated {
        "\nSOFTWARE TEE: no hardware protects this code"
    } else {
        ""
    };
    let text = format!(
        "{checks}\n{} as of {at} {verdict}; its collateral holds until {}{warning}",
        claims.measurement, claims.collateral_until
    );
    let failure = format!("{} does not verify as of {at}", file.display());
    conclude(passed, value, &text, failure, output)
}

/// What the program stated of itself, when the evidence covers claims of a session of ours.
fn stated(bundle: &Bundle, claims: &Claims) -> Option<HardeningStatement> {
    let covered = claims.report_data == claims_report_data(&bundle.claims_buffer);
    let decoded = covered.then(|| SessionClaims::decode(&bundle.claims_buffer));
    Some(decoded?.ok()?.hardening)
}

/// The policy for evidence outside of a session, where a bare quote can state nothing: then hardening is shown as not
/// checked, unless the file asks for it.
fn alone(policy: Policy, claims: &Claims, asked: bool) -> Policy {
    match claims.hardening {
        None if !asked => policy.with_hardening(HardeningDemand::exactly([])),
        _ => policy,
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let at = |error: std::io::Error| Failure::local(format_args!("{}: {error}", path.display()));
    let file = fs::File::open(path).map_err(at)?;
    let mut bytes = Vec::new();
    file.take(BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(at)?;
    if bytes.len() as u64 > BYTES_MAX {
        return Err(Failure::local(format_args!(
            "{} has more than {BYTES_MAX} bytes; no such file is that long",
            path.display()
        )));
    }
    Ok(bytes)
}

fn write_new(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    use std::io::Write as _;
    let written = fs::File::create_new(path).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    written.map_err(|error| Failure::local(format_args!("{}: {error}", path.display())))
}

fn time(text: &str) -> Result<Time, String> {
    let parsed = OffsetDateTime::parse(text, &Rfc3339)
        .map_err(|_| "write a time like 2026-01-31T12:00:00Z".to_owned())?;
    u64::try_from(parsed.unix_timestamp())
        .map(Time::from_secs)
        .map_err(|_| "a time before 1970".to_owned())
}

/// The largest collateral is under 100 KiB; certificates and policies are smaller.
const BYTES_MAX: u64 = 1 << 20;

const EXAMPLES: &str = r"Examples:
  bield evidence bundle --kind tdx --quote quote.bin --collateral collateral.json --out host7.evidence
  bield evidence verify host7.evidence --policy service.toml --at 2026-01-31T12:00:00Z";

const BUNDLE_EXAMPLES: &str = r"Examples:
  bield evidence bundle --kind tdx --quote quote.bin --collateral collateral.json --out host7.evidence
  bield evidence bundle --kind snp --quote report.bin --ask ask.der --vek vcek.der --out host8.evidence";

const VERIFY_EXAMPLES: &str = r"Examples:
  bield evidence verify host7.evidence --policy service.toml
  bield evidence verify host7.evidence --policy service.toml --at 2026-01-31T12:00:00Z";

#[cfg(test)]
mod tests {
    use bield_evidence::{Outcome, Reference, Roots};
    use serde_json::Value;

    use super::*;

    #[test]
    fn a_time_is_read_to_the_second_and_nothing_else_passes_for_one() {
        assert_eq!(time("1970-01-02T00:00:00Z"), Ok(Time::from_secs(86_400)));
        assert_eq!(
            time("1970-01-02T01:00:00+01:00"),
            Ok(Time::from_secs(86_400))
        );
        for wrong in ["", "now", "2026-01-31", "1969-12-31T23:59:59Z", "1"] {
            assert!(time(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_bare_quote_of_a_guest_is_asked_for_hardening_only_where_the_file_asks() {
        let vectors = include_str!("../../../../spec/vectors/02-evidence.json");
        let vectors: Value = serde_json::from_str(vectors).unwrap();
        let bytes = |value: &Value| hex::decode(value.as_str().unwrap()).unwrap();
        let guest = &vectors["evidence"][1];
        let bundle = Bundle::decode(&bytes(&guest["evidence"])).unwrap();
        assert_eq!(bundle.kind, TeeKind::Tdx);
        let roots = Roots::none().with_simulated_dcap(bytes(&vectors["simulated_root"]));
        let at = Time::from_secs(1_795_003_200); // 2026-11-18
        let mut claims = verify(&bundle, &roots, at).unwrap();
        claims.hardening = stated(&bundle, &claims);
        assert_eq!(claims.hardening, None);
        let judged = |asked| {
            let cloud = Policy::cloud(Reference::Listed(vec![claims.measurement.clone()]));
            let appraisal = appraise(&claims, &alone(cloud, &claims, asked), at);
            let mut checks = appraisal.checks().iter();
            checks
                .find(|check| check.name == "hardening")
                .unwrap()
                .outcome
        };
        assert_eq!(judged(false), Outcome::NotChecked);
        assert_eq!(judged(true), Outcome::Failed);
    }
}
