//! `bield-worker`: starts one runtime and serves it on one port.

use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::time::Duration;

use bield_worker::Arguments;
use clap::Parser as _;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    if arguments.json_logs {
        log.json().init();
    } else {
        log.init();
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .max_blocking_threads(arguments.waiting_threads_max())
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!(
                "bield-worker: threads do not start: {error}; free resources and start again"
            );
            return ExitCode::FAILURE;
        }
    };
    let end = runtime.block_on(bield_worker::run(arguments));
    // A program that is still being configured must not hold the process: it ends when this one does.
    runtime.shutdown_timeout(Duration::from_secs(1));
    match end {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bield-worker: {error}");
            error.exit_code()
        }
    }
}
