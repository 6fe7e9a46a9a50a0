//! `bield capsule list`.

use std::fmt::Write as _;

use bield_sdk::Home;
use bield_sdk::capsule::CapsuleHome;
use clap::Args;
use serde_json::json;

use crate::commands::counted;
use crate::failure::Failure;
use crate::output::Output;

/// List the capsules of this home
///
/// From the home directory alone; nobody is asked.
#[derive(Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct List {}

impl List {
    pub(crate) fn run(self, home: &Home, output: Output) -> Result<(), Failure> {
        let mut text = String::new();
        let mut values = Vec::new();
        for found in CapsuleHome::list(home)? {
            let metadata = found.metadata()?;
            let label = metadata.label().unwrap_or("-").escape_debug();
            let role = match (found.is_owner(), found.is_writer()) {
                (true, _) => "owner",
                (false, true) => "writer",
                (false, false) => "reader",
            };
            let replicas = found.replicas()?.len();
            let name = found.name();
            if !text.is_empty() {
                text.push('\n');
            }
            let _ = write!(
                text,
                "{name}  {role:6}  {}  {label}",
                counted(replicas, "replica")
            );
            values.push(json!({
                "capsule": name.to_string(),
                "label": metadata.label(),
                "role": role,
                "replicas": replicas,
                "suite": metadata.suite().number(),
                "created": metadata.created().to_string(),
            }));
        }
        if values.is_empty() && !output.is_json() {
            output.note("no capsules here; next: bield capsule create LABEL --replica URL");
            return Ok(());
        }
        output.show(&json!({ "capsules": values }), text);
        Ok(())
    }
}

const EXAMPLES: &str = r#"Examples:
  bield capsule list
  bield --json capsule list"#;
