//! `bield-store`: a replica server of capsules.

use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::time::Duration;

use bield_store::{Arguments, Command, fsck};
use clap::Parser as _;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(Command::Fsck(arguments)) = &arguments.command {
        return fsck::run(arguments);
    }
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    if arguments.serve.json_log {
        log.json().init();
    } else {
        log.init();
    }
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("bield-store: threads do not start: {error}; free resources and start again");
            return ExitCode::FAILURE;
        }
    };
    let end = runtime.block_on(bield_store::run(arguments.serve));
    runtime.shutdown_timeout(Duration::from_secs(1));
    match end {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bield-store: {error}");
            error.exit_code()
        }
    }
}
