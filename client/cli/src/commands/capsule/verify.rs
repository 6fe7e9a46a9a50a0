//! `bield capsule verify` and `bield capsule fsck`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use bield_capsule::{CapsuleName, Entry, KeyRing};
use bield_sdk::Home;
use bield_sdk::capsule::{Audit, AuditOptions, CapsuleHome, audit};
use clap::Args;
use serde_json::{Value, json};

use super::payload_json;
use crate::commands::verify::conclude;
use crate::failure::Failure;
use crate::output::Output;
use crate::progress;
use crate::show::Checks;

/// Verify offline: an export, a proof, a receipt, a fork proof, or a replica's folder
///
/// From files alone: nobody is asked, and whoever made the files is not believed. Every signature, every
/// hash and every rule of the format is checked, record by record; every check is listed as passed,
/// FAILED or NOT CHECKED. The first bad record is named by file, offset, writer and position.
///
/// Say with --name which capsule it must be about: the name fixes the owner's key, and everything else
/// follows from that. With --keys the bodies are opened too.
#[derive(Args)]
#[command(after_long_help = VERIFY_EXAMPLES)]
pub(crate) struct Verify {
    /// Files or folders
    #[arg(required = true, value_name = "TARGET")]
    targets: Vec<PathBuf>,

    /// The capsule it must be about: a full name, or a label of this home
    #[arg(long, value_name = "NAME")]
    name: Option<String>,

    /// Open the bodies with the keys that this home has for the capsule
    #[arg(long)]
    keys: bool,

    /// Accept writers in software TEEs
    #[arg(long)]
    allow_simulated: bool,
}

/// Check a replica's folder: checksums and chains of every capsule in it
///
/// As `bield capsule verify` on the folder, for the operator of a store. Nothing is changed; the store
/// may be running, then its newest records may be missing here.
#[derive(Args)]
#[command(after_long_help = FSCK_EXAMPLES)]
pub(crate) struct Fsck {
    /// The store's directory
    directory: PathBuf,
}

impl Verify {
    pub(crate) fn run(self, home: &Home, output: Output) -> Result<(), Failure> {
        let mut ring = None;
        let name = match &self.name {
            None => None,
            Some(text) => Some(match text.parse::<CapsuleName>() {
                Ok(name) => name,
                Err(_) => CapsuleHome::find(home, text)?.name(),
            }),
        };
        if self.keys {
            let name = name.ok_or_else(|| {
                Failure::local("--keys needs --name: which capsule's keys are to be used")
            })?;
            ring = Some(CapsuleHome::find(home, &name.to_string())?.ring()?);
        }
        run(
            &self.targets,
            name,
            ring.as_ref(),
            self.allow_simulated,
            output,
        )
    }
}

impl Fsck {
    pub(crate) fn run(self, _: &Home, output: Output) -> Result<(), Failure> {
        run(&[self.directory], None, None, true, output)
    }
}

fn run(
    targets: &[PathBuf],
    name: Option<CapsuleName>,
    keys: Option<&KeyRing>,
    allow_simulated: bool,
    output: Output,
) -> Result<(), Failure> {
    let options = AuditOptions {
        name,
        keys,
        allow_simulated,
    };
    let mut audits = Vec::new();
    for target in targets {
        audits.extend(one(target, &options)?);
    }
    let passed = audits.iter().all(Audit::passed);
    let mut text = String::new();
    for audit in &audits {
        if !text.is_empty() {
            text.push_str("\n\n");
        }
        text.push_str(&to_text(audit, keys));
    }
    let values: Vec<_> = audits.iter().map(|audit| to_json(audit, keys)).collect();
    let failed: Vec<_> = audits
        .iter()
        .filter(|audit| !audit.passed())
        .map(|audit| match &audit.bad {
            Some(bad) => format!("{}: {}", audit.path.display(), bad.text()),
            None => format!("{} does not verify", audit.path.display()),
        })
        .collect();
    conclude(
        passed,
        json!({ "passed": passed, "targets": values }),
        &text,
        failed.join("\n"),
        output,
    )
}

fn one(target: &Path, options: &AuditOptions<'_>) -> Result<Vec<Audit>, Failure> {
    let spinner = progress::spinner("verifying");
    let found = audit(target, options, &mut |records| {
        if records.is_multiple_of(1024) {
            spinner.set_message(format!("verifying: {records} records"));
        }
    });
    spinner.finish_and_clear();
    found.map_err(Failure::local)
}

fn to_text(audit: &Audit, keys: Option<&KeyRing>) -> String {
    let mut text = Checks(&audit.checks).to_string();
    let verdict = if audit.passed() {
        "verified as far as checked"
    } else {
        "NOT verified"
    };
    let _ = write!(
        text,
        "\n\n{} {} {verdict}",
        audit.subject,
        audit.path.display()
    );
    for head in &audit.heads {
        let _ = write!(
            text,
            "\n  head  {}/{}  {}",
            head.writer,
            head.seq,
            head.hash.short()
        );
    }
    if let Some(payload) = shown(audit, keys) {
        let _ = match payload {
            Ok(payload) => write!(
                text,
                "\n  entry  {}",
                String::from_utf8_lossy(&payload).escape_debug()
            ),
            Err(why) => write!(text, "\n  entry  [{why}]"),
        };
    }
    text
}

/// The entry that a proof shows.
fn shown(audit: &Audit, keys: Option<&KeyRing>) -> Option<Result<Vec<u8>, String>> {
    let entry = audit.proven.as_ref()?.entry.as_ref()?;
    Some(match entry.entry() {
        Entry::Plain(payload) => Ok(payload.to_vec()),
        Entry::Erasable(erasable) => {
            let none = KeyRing::new();
            let opened = erasable.open(keys.unwrap_or(&none));
            opened
                .map(|payload| payload.to_vec())
                .map_err(|error| error.to_string())
        }
    })
}

fn to_json(audit: &Audit, keys: Option<&KeyRing>) -> Value {
    let mut value = Checks(&audit.checks).to_json();
    value["subject"] = audit.subject.into();
    value["path"] = audit.path.display().to_string().into();
    value["passed"] = audit.passed().into();
    value["capsule"] = json!(audit.capsule.map(|name| name.to_string()));
    value["records"] = audit.records.into();
    value["heads"] = audit
        .heads
        .iter()
        .map(|head| {
            json!({
                "writer": head.writer.to_string(), "seq": head.seq, "hash": head.hash.to_string(),
            })
        })
        .collect();
    if let Some(bad) = &audit.bad {
        value["bad"] = json!({
            "file": bad.file.display().to_string(),
            "offset": bad.offset,
            "number": bad.number,
            "writer": bad.writer.map(|writer| writer.to_string()),
            "seq": bad.seq,
            "why": bad.why,
        });
    }
    if let Some(Ok(payload)) = shown(audit, keys) {
        let (key, payload) = payload_json(&payload);
        value["entry"] = json!({ key: payload });
    }
    value
}

const VERIFY_EXAMPLES: &str = r#"Examples:
  bield capsule verify notes.capsule --name notes --keys
  bield capsule verify entry.proof --name 3fa1...
  bield capsule verify ./store-1"#;

const FSCK_EXAMPLES: &str = r#"Examples:
  bield capsule fsck ./store-1"#;
