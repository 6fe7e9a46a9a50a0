//! The program `bield`: seal models, grant them, call them, verify what came back.

use std::process::ExitCode;

fn main() -> ExitCode {
    bield_cli::run()
}
