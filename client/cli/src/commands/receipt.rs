//! `bield receipt`.

use std::path::PathBuf;

use bield_envelope::{Digest, Principal};
use bield_evidence::{HardeningDemand, Outcome, Profile, Reference};
use bield_receipt::{Anchor, Expected, ExpectedState, ReceiptBundle, Report, examine};
use bield_sdk::capsule::CapsuleRecords;
use bield_sdk::{Home, HomeError, KnownService, Trust, now};
use clap::Args;
use serde_json::json;

use super::verify::conclude;
use crate::failure::Failure;
use crate::output::Output;
use crate::show::Checks;

/// Check a receipt offline: which answer came from what
///
/// A receipt binds a request, a package, the code that ran it, the grant that allowed it, the answer and
/// the time; of a function with state also which state the answer came from and which it left. It is signed by the
/// runtime, whose key the key service certified. Nothing is sent.
///
/// The states are heads of a capsule. With an export of it (--state) both are looked up: every record of the export is
/// verified from the capsule's name up, and the state before must lie before the state after. No key is needed.
///
/// Whom to believe: --service, else `principal` in trust.toml, else a key service whose evidence this
/// home has verified before (bield verify) and that trust.toml still accepts. Without a trust.toml,
/// --service is needed, and nothing says which code is accepted. The answer itself is not in the receipt; only who has it can
/// compare it.
#[derive(Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Receipt {
    /// The receipt: a file, or the id of one that this home keeps, as the header bield-receipt has it
    #[arg(value_name = "FILE|ID")]
    file: PathBuf,

    /// The key service to believe
    #[arg(long, value_name = "PRINCIPAL")]
    service: Option<Principal>,

    /// The package it must be about
    #[arg(long, value_name = "DIGEST")]
    package: Option<Digest>,

    /// Look the function's state up in an export of its capsule: the answer came from one moment of it and left another
    #[arg(long, value_name = "EXPORT")]
    state: Option<PathBuf>,

    /// Accept an answer from a software TEE, as a trust.toml with allow_simulated does
    #[arg(long)]
    allow_simulated: bool,
}

impl Receipt {
    pub(crate) const fn of(file: PathBuf, state: Option<PathBuf>) -> Self {
        Self {
            file,
            service: None,
            package: None,
            state,
            allow_simulated: false,
        }
    }

    pub(crate) fn run(self, home: &Home, output: Output) -> Result<(), Failure> {
        let file = self.kept(home);
        let bytes = std::fs::read(&file)
            .map_err(|error| Failure::local(format_args!("{}: {error}", file.display())))?;
        let bundle = ReceiptBundle::decode(&bytes)
            .map_err(|error| Failure::refused(format_args!("{}: {error}", file.display())))?;
        let (anchor, simulated) = self.anchor(home, &bundle)?;
        let records = match &self.state {
            Some(path) => Some(CapsuleRecords::read(path, anchor.allow_simulated)?),
            None => None,
        };
        let expected = Expected {
            package: self.package,
            state: ExpectedState {
                log: records.as_ref().map(CapsuleRecords::log),
                ..ExpectedState::default()
            },
            ..Expected::default()
        };
        let report = examine(&bundle, &anchor, expected, now());
        let passed = report.passed();
        let (value, text) = (
            to_json(&report, &anchor, simulated),
            to_text(&report, simulated),
        );
        let failure = format!("{} does not verify", file.display());
        conclude(passed, value, &text, failure, output)
    }

    /// The file that is meant: the one of this name, or the one that the home keeps under this id.
    fn kept(&self, home: &Home) -> PathBuf {
        let id = self
            .file
            .to_str()
            .and_then(|text| text.parse::<Digest>().ok());
        match id {
            Some(id) if !self.file.exists() => home.receipt_path(id),
            _ => self.file.clone(),
        }
    }

    /// Whom to believe, and what to accept; and whether that key service is known to run in a software
    /// TEE, whose word about hardware is worth nothing.
    fn anchor(&self, home: &Home, bundle: &ReceiptBundle) -> Result<(Anchor, bool), Failure> {
        let trust = match home.trust() {
            Ok(trust) => Some(trust),
            Err(HomeError::NoTrust { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        let pinned = self.service.or(trust.as_ref().and_then(Trust::principal));
        let remembered = home.known_services()?;
        let service = match pinned {
            Some(service) => service,
            None => known(
                &remembered,
                trust.as_ref(),
                bundle.certificate.claimed_signer(),
            )?,
        };
        let allow_simulated =
            self.allow_simulated || trust.as_ref().is_some_and(Trust::allows_simulated);
        let simulated = remembered
            .iter()
            .any(|known| known.principal == service && known.simulated);
        if simulated && !allow_simulated {
            return Err(Failure::refused(format_args!(
                "key service {service} proved itself from a software TEE, which protects nothing: \
                 --allow-simulated believes it all the same"
            )));
        }
        let code = trust
            .as_ref()
            .map(|trust| Reference::Listed(trust.code().to_vec()));
        let anchor = Anchor {
            service,
            code: code.unwrap_or(Reference::Deferred),
            allow_simulated,
            hardening: trust.as_ref().map_or_else(
                || HardeningDemand::of(Profile::Cloud),
                |trust| trust.runtime_hardening().clone(),
            ),
        };
        Ok((anchor, simulated))
    }
}

/// The claimed signer when this home has verified it before and still accepts it, else the one accepted
/// last, which will then be the failed check's "need".
fn known(
    remembered: &[KnownService],
    trust: Option<&Trust>,
    claimed: Principal,
) -> Result<Principal, Failure> {
    let Some(trust) = trust else {
        return Err(Failure::local(format_args!(
            "whom to believe? this home has no trust.toml, which says which key services count: run \
             `bield init --trust FILE` and `bield verify` first, or give --service (the receipt names \
             {claimed})"
        )));
    };
    let mut last = None;
    for service in remembered.iter().filter(|service| trust.accepts(service)) {
        if service.principal == claimed {
            return Ok(claimed);
        }
        last = Some(service.principal);
    }
    last.ok_or_else(|| {
        Failure::local(format_args!(
            "whom to believe? this home has verified no key service that trust.toml accepts: run `bield \
             verify` first, or give --service (the receipt names {claimed})"
        ))
    })
}

fn to_json(report: &Report, anchor: &Anchor, simulated: bool) -> serde_json::Value {
    let mut value = Checks(report.checks()).to_json();
    value["passed"] = report.passed().into();
    value["subject"] = "receipt".into();
    value["service"] = anchor.service.to_string().into();
    // False also when nothing is known of it, as of one given with --service.
    value["service_simulated"] = simulated.into();
    if let Some(receipt) = report.receipt() {
        value["receipt"] = json!({
            "request": receipt.request.to_string(),
            "package": receipt.package.to_string(),
            "code": receipt.code,
            "grant": receipt.grant.to_string(),
            "output": receipt.output.to_string(),
            "at": receipt.at.to_string(),
            "state": receipt.state.map(|state| json!({
                "capsule": state.capsule.to_string(),
                "before": state.before.to_string(),
                "after": state.after.to_string(),
            })),
            "simulated": receipt.simulated,
            "worker": receipt.signer().to_string(),
        });
    }
    value
}

fn to_text(report: &Report, simulated: bool) -> String {
    let checks = Checks(report.checks()).to_string();
    let Some(receipt) = report.receipt() else {
        return checks;
    };
    let protection = if receipt.simulated || simulated {
        "software TEE: no hardware protection"
    } else {
        "hardware TEE"
    };
    let open = |name| {
        let mut checks = report.checks().iter();
        checks.any(|check| check.name == name && check.outcome == Outcome::NotChecked)
    };
    let verdict = match (report.passed(), open("accepted-code")) {
        (true, false) => "verified",
        (true, true) => "verified, but NOT CHECKED whether its code is accepted",
        (false, _) => "NOT verified",
    };
    let state = receipt.state.map_or_else(String::new, |state| {
        format!(
            "\n  on state     {} of capsule {}\n  and left     {}",
            state.before, state.capsule, state.after
        )
    });
    format!(
        "{checks}\n\nreceipt {verdict}: at {} the answer {}\n  to request   {}\n  came from    package \
         {}\n  run by code  {}\n  under grant  {}{state}\n  protected by {protection}",
        receipt.at, receipt.output, receipt.request, receipt.package, receipt.code, receipt.grant
    )
}

const EXAMPLES: &str = r#"Examples:
  bield receipt .bield/receipts/9f....receipt
  bield receipt 9f...
  bield receipt 9f... --state cart.export
  bield --json receipt answer.receipt --service ed25519:... --package 3a..."#;
