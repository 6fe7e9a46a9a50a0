//! `bield state …`: what a host keeps of functions' states.

use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;

use bield_sdk::Home;
use bield_sdk::capsule::StateExport;
use clap::{Args, Subcommand};
use serde_json::json;

use crate::failure::Failure;
use crate::output::Output;

/// The states of functions as a host keeps them
#[derive(Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct State {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Export(Export),
}

/// Write the log of a function's state to one file, to check receipts with
///
/// Made on the host, from the directory that the gateway or worker got as --state (`bield dev`: .bield-dev/state), also
/// while it runs. Entries stay sealed, and no key is needed: every record is verified from the capsule's name up, here and by
/// `bield verify RECEIPT --state FILE`, which says whether the answer came from a moment of this log and left another.
///
/// A runtime drops records once its sorted levels hold what they wrote. Where that happened, the file begins with the signed
/// head of the record before; receipts of answers from before it are then not checked.
#[derive(Args)]
#[command(after_long_help = EXAMPLES)]
struct Export {
    /// A function of this home, or the first digits of its state's name, as a receipt has it; may be left out where the
    /// directory holds one
    #[arg(value_name = "NAME|ID")]
    state: Option<String>,

    /// The directory of states
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,

    /// Where it is written; a file that is there stays
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
}

impl State {
    pub(crate) fn run(self, home: &Home, output: Output) -> Result<(), Failure> {
        match self.command {
            Command::Export(command) => command.run(home, output),
        }
    }
}

impl Export {
    fn run(self, home: &Home, output: Output) -> Result<(), Failure> {
        let wanted = match &self.state {
            Some(name) => Some(match home.function_capsule(name)? {
                Some(capsule) => capsule.to_string(),
                None => name.clone(),
            }),
            None => None,
        };
        let export = StateExport::read(&self.dir, wanted.as_deref())?;
        let path = self.output.display().to_string();
        let at = |error: std::io::Error| Failure::local(format_args!("{path}: {error}"));
        let mut file = File::create_new(&self.output).map_err(at)?;
        file.write_all(&export.bytes).map_err(at)?;
        file.sync_all().map_err(at)?;
        let value = json!({
            "capsule": export.capsule.to_string(),
            "file": path,
            "records": export.records,
            "bytes": export.bytes.len(),
            "cut": export.cut,
        });
        let cut = match export.cut {
            0 => String::new(),
            chains => format!(
                "\nThe first records of {chains} holders were dropped once the levels held what they wrote."
            ),
        };
        let text = format!(
            "{path}: {} records of the state {}.{cut}\nCheck a receipt with it: bield verify RECEIPT --state {path}",
            export.records, export.capsule
        );
        output.show(&value, &text);
        Ok(())
    }
}

const EXAMPLES: &str = r#"Examples:
  bield state export --dir .bield-dev/state -o counter.export
  bield state export counter --dir /var/lib/bield/state -o counter.export
  bield verify 9f... --state counter.export"#;
