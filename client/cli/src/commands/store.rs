//! `bield store` and `bield witness`: programs of their own, found beside this one.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use clap::Args;

use crate::failure::Failure;

/// Run a replica: stores records it cannot read, verifies before it acknowledges
///
/// Runs the program bield-store beside this one, with the same arguments; `bield store --help` is its own
/// help. A replica needs a directory and an address, and nothing secret but its own signing key.
#[derive(Args)]
#[command(after_long_help = STORE_EXAMPLES, disable_help_flag = true)]
pub(crate) struct Store {
    /// Arguments of bield-store
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "ARGUMENT"
    )]
    arguments: Vec<OsString>,
}

/// Run a witness: cosigns what replicas publish, so that none can show two histories
///
/// Runs the program bield-witness beside this one, with the same arguments; `bield witness --help` is its
/// own help.
#[derive(Args)]
#[command(after_long_help = WITNESS_EXAMPLES, disable_help_flag = true)]
pub(crate) struct Witness {
    /// Arguments of bield-witness
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "ARGUMENT"
    )]
    arguments: Vec<OsString>,
}

impl Store {
    pub(crate) fn run(self) -> Result<(), Failure> {
        become_program("bield-store", &self.arguments)
    }
}

impl Witness {
    pub(crate) fn run(self) -> Result<(), Failure> {
        become_program("bield-witness", &self.arguments)
    }
}

/// Replaces this process, so that signals and exit codes are the program's own. Returns only when
/// that is not possible.
fn become_program(name: &str, arguments: &[OsString]) -> Result<(), Failure> {
    let here = std::env::current_exe().map_err(|error| {
        Failure::local(format_args!(
            "where this program is cannot be found out: {error}"
        ))
    })?;
    let directory = here.parent().unwrap_or(Path::new("/"));
    let program = directory.join(name);
    if !program.is_file() {
        return Err(Failure::local(format_args!(
            "{name} not found in {}: build all programs with `cargo build --release`",
            directory.display()
        )));
    }
    let error = Command::new(&program).args(arguments).exec();
    Err(Failure::local(format_args!(
        "{}: {error}",
        program.display()
    )))
}

const STORE_EXAMPLES: &str = r#"Examples:
  bield store --help
  bield store --data ./store-1 --listen 127.0.0.1:8801 --owners any
  bield store fsck --data ./store-1"#;

const WITNESS_EXAMPLES: &str = r#"Examples:
  bield witness --help
  bield witness serve --data ./witness --listen 127.0.0.1:8811"#;
