//! `bield logs`.

mod lines;
mod reader;

use std::io::Write as _;
use std::thread;
use std::time::Duration;

use bield_grant::CodeSelector;
use bield_sdk::{Home, Kind, Reference};
use clap::Args;
use serde_json::json;

use super::{call, principal};
use crate::failure::Failure;
use crate::output::Output;

pub(super) use lines::Line;
pub(super) use reader::LogReader;

/// Read what a function wrote to its log, as its owner
///
/// The lines lie in the enclave that runs the function and leave it sealed to its owner only: what the function wrote
/// itself, exceptions that it did not catch, and why an instance of it was stopped. The newest are kept, 256 KiB of them,
/// until the runtime lets the function go. Where several runtimes run a function, each has lines of its own.
///
/// Reading is a call: the owner needs a grant, which `bield deploy` gives.
///
/// With --follow, new lines are shown as they come, also those of a version that is deployed meanwhile; with --json, each
/// on a line by itself.
#[derive(Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Logs {
    /// The function: a digest, a name, or name@version
    function: Reference,

    /// Whose function a name means: a principal, or `me`
    #[arg(long, value_name = "PRINCIPAL", default_value = "me")]
    owner: String,

    /// Go on with new lines until Ctrl-C
    #[arg(long)]
    follow: bool,

    /// The runtime code that runs it; it must be on the `code` or `signers` list of trust.toml [default: each of them]
    #[arg(long, value_name = "CODE")]
    code: Option<CodeSelector>,
}

impl Logs {
    pub(crate) fn run(self, home: &Home, output: Output) -> Result<(), Failure> {
        let user = home.identity()?;
        let trust = home.trust()?;
        let package = self.function.of(Some(principal(home, &self.owner)?))?;
        let codes = match self.code {
            Some(code) => vec![code],
            None => call::trusted(&trust),
        };
        let mut log = LogReader::new(home, &trust, &user, package, codes);
        if self.follow {
            return follow(&mut log, output);
        }
        let lines = log.read()?;
        let text: Vec<String> = lines.iter().map(ToString::to_string).collect();
        let value = json!({
            "function": log.called(),
            "lines": lines.iter().map(Line::to_json).collect::<Vec<_>>(),
        });
        match text.is_empty() && !output.is_json() {
            true => output.note("no lines: it wrote none since this runtime opened it"),
            false => output.show(&value, text.join("\n")),
        }
        Ok(())
    }
}

fn follow(log: &mut LogReader<'_>, output: Output) -> Result<(), Failure> {
    let mut told = false;
    loop {
        match log.read() {
            Ok(lines) => {
                told = false;
                if show(&lines, output).is_err() {
                    return Ok(()); // nobody reads on
                }
            }
            Err(failure) if failure.kind() == Kind::Unreachable => {
                if !std::mem::replace(&mut told, true) {
                    output.note(format_args!("{}; trying again", failure.message()));
                }
                log.look_again();
            }
            Err(failure) => return Err(failure),
        }
        thread::sleep(PAUSE);
    }
}

fn show(lines: &[Line], output: Output) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    for line in lines {
        match output.is_json() {
            true => writeln!(out, "{}", line.to_json())?,
            false => writeln!(out, "{line}")?,
        }
    }
    out.flush()
}

/// Between two looks at a log.
pub(super) const PAUSE: Duration = Duration::from_secs(1);

const EXAMPLES: &str = "\
Examples:
  bield logs cart
  bield logs cart --follow
  bield --json logs cart@0.2.0";
