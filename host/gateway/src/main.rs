//! `bield-gateway`: starts the key service and the runtimes, and serves HTTP.

use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::time::Duration;

use bield_gateway::Arguments;
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
                "bield-gateway: threads do not start: {error}; free resources and start again"
            );
            return ExitCode::FAILURE;
        }
    };
    let end = runtime.block_on(bield_gateway::run(arguments));
    // Sessions whose clients linger must not hold the process; their program is gone already.
    runtime.shutdown_timeout(Duration::from_secs(1));
    match end {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bield-gateway: {error}");
            error.exit_code()
        }
    }
}
