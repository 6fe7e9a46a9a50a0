//! `bield capsule export` and `bield capsule import`.

use std::fmt::Write as _;
use std::fs::File;
use std::io::BufWriter;
use std::path::PathBuf;

use bield_sdk::Home;
use bield_sdk::capsule::import;
use clap::Args;
use serde_json::json;

use super::{completeness_json, completeness_text, open};
use crate::commands::counted;
use crate::failure::Failure;
use crate::output::Output;
use crate::progress;

/// Write a whole capsule to one file
///
/// Every record is verified before it is written. The file needs no replica any more: check it with
/// `bield capsule verify`, give it to other replicas with `bield capsule import`. Entries stay sealed.
#[derive(Args)]
#[command(after_long_help = EXPORT_EXAMPLES)]
pub(crate) struct Export {
    /// Label, name, or first digits of the capsule
    capsule: String,

    /// Where it is written; a file that is there stays
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
}

/// Give the records of an export to replicas
///
/// The file is verified first. A replica takes what it misses and verifies it again; for its
/// acknowledgements to count, the capsule's configuration must name it.
#[derive(Args)]
#[command(after_long_help = IMPORT_EXAMPLES)]
pub(crate) struct Import {
    /// The export
    file: PathBuf,

    /// A replica's URL; repeat for more
    #[arg(long, value_name = "URL", required = true)]
    replica: Vec<String>,
}

impl Export {
    pub(crate) fn run(self, home: &Home, output: Output) -> Result<(), Failure> {
        let log = open(home, &self.capsule)?;
        let path = self.output.display().to_string();
        let at = |error: std::io::Error| Failure::local(format_args!("{path}: {error}"));
        let file = File::create_new(&self.output).map_err(at)?;
        let spinner = progress::spinner("exporting");
        let mut out = BufWriter::with_capacity(1 << 20, &file);
        let exported = log.export(&mut out, &mut |records, bytes| {
            spinner.set_message(format!(
                "exporting: {records} records, {} MB",
                bytes / 1_000_000
            ));
        });
        drop(out);
        spinner.finish_and_clear();
        let exported = match exported.map_err(Failure::from).and_then(|exported| {
            file.sync_all().map_err(at)?;
            Ok(exported)
        }) {
            Ok(exported) => exported,
            Err(failure) => {
                // Half an export looks like a shorter whole one.
                let _ = std::fs::remove_file(&self.output);
                return Err(failure);
            }
        };
        let complete = completeness_text(&exported.completeness, &exported.skipped);
        output.show(
            &json!({
                "capsule": log.metadata().name().to_string(),
                "file": path,
                "records": exported.records,
                "bytes": exported.bytes,
                "completeness": completeness_json(&exported.completeness, &exported.skipped),
            }),
            format_args!(
                "{path}\n  {}, {} bytes, all verified\n  {complete}",
                counted(exported.records, "record"),
                exported.bytes
            ),
        );
        Ok(())
    }
}

impl Import {
    pub(crate) fn run(self, _: &Home, output: Output) -> Result<(), Failure> {
        let file = std::fs::read(&self.file)
            .map_err(|error| Failure::local(format_args!("{}: {error}", self.file.display())))?;
        let bar = progress::bytes("verifying");
        let total = file.len() as u64;
        let imported = import(&file, &self.replica, &mut |_, done| {
            progress::advance(&bar)(done, total);
        });
        bar.finish_and_clear();
        let (metadata, imported) = imported?;
        let name = metadata.name().to_string();
        let mut text = name.clone();
        let mut values = Vec::new();
        let mut failed = None;
        for taken in &imported {
            let _ = match &taken.refused {
                None => write!(
                    text,
                    "\n  {}  keeps {}",
                    taken.replica,
                    counted(taken.records, "record")
                ),
                Some(why) => write!(
                    text,
                    "\n  {}  keeps {}, then: {why}",
                    taken.replica,
                    counted(taken.records, "record")
                ),
            };
            values.push(json!({
                "replica": taken.replica,
                "records": taken.records,
                "refused": taken.refused.as_ref().map(ToString::to_string),
            }));
            if let Some(why) = &taken.refused {
                failed = Some((why.kind(), why.to_string()));
            }
        }
        let value = json!({ "capsule": name, "replicas": values });
        match failed {
            None => {
                output.show(&value, text);
                Ok(())
            }
            Some((kind, why)) => {
                if !output.is_json() {
                    output.show(&value, text);
                }
                Err(Failure::new(kind, why).with(value))
            }
        }
    }
}

const EXPORT_EXAMPLES: &str = r#"Examples:
  bield capsule export notes -o notes.capsule"#;

const IMPORT_EXAMPLES: &str = r#"Examples:
  bield capsule import notes.capsule --replica http://127.0.0.1:8804"#;
