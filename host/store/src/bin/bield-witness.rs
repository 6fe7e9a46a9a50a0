//! `bield-witness`: cosigns the checkpoints of logs that only ever grow.

use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use bield_store::witness::{FollowedLog, NewLogs, WitnessServer, WitnessSettings};
use clap::Parser;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Cosigns the checkpoints of logs that only ever grow (C2SP tlog-witness).
///
/// A log that shows two people two histories needs a witness to lie for each. The witness keeps what
/// it cosigned in its directory: a directory set back to an earlier state can be made to lie.
///
/// With --any-capsule and --any-keys strangers' logs take places for ever. New ones are taken slowly, and
/// none takes the last 1024 of 65536 places: a log that must never wait or be left out is named with --origin.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "bield-witness",
    version,
    after_help = "Exit codes: 0 stopped when told to (SIGTERM, SIGINT); 1 failed while running; 2 an argument, port, file \
                  or directory must be changed."
)]
struct Arguments {
    /// Directory of the key and of what was cosigned
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Address of the HTTP endpoint
    #[arg(long, default_value = "127.0.0.1:8802")]
    listen: SocketAddr,
    /// Name of the key, by custom a domain; kept [default: bield/witness/ and the public key]
    #[arg(long)]
    name: Option<String>,
    /// A log to follow, with its verifier key; repeatable. It always has its place, unlike one that just asks
    #[arg(
        long = "origin",
        value_name = "ORIGIN=VERIFIERKEY",
        required_unless_present_any = ["any_capsule", "any_keys"]
    )]
    origins: Vec<FollowedLog>,
    /// Follow every capsule's log that asks: its key is in its origin, its first checkpoint is believed
    #[arg(long)]
    any_capsule: bool,
    /// Follow every key service's log that asks: its key is in its origin, its first checkpoint is believed
    #[arg(long)]
    any_keys: bool,
    /// New logs taken at once with --any-capsule or --any-keys; more get 429 and Retry-After
    #[arg(long, value_name = "N", default_value_t = NewLogs::default().burst, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    new_logs: u32,
    /// And then one new log in so many seconds
    #[arg(long, value_name = "S", default_value_t = NewLogs::default().every.as_secs(), value_parser = clap::value_parser!(u64).range(1..=86_400))]
    new_log_secs: u64,
    /// Log as JSON lines (standard error)
    #[arg(long)]
    json_log: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    if arguments.json_log {
        log.json().init();
    } else {
        log.init();
    }
    let settings = WitnessSettings {
        data: arguments.data,
        name: arguments.name,
        logs: arguments.origins,
        any_capsule: arguments.any_capsule,
        any_keys: arguments.any_keys,
        new_logs: NewLogs {
            burst: arguments.new_logs,
            every: Duration::from_secs(arguments.new_log_secs),
        },
    };
    let witness = match WitnessServer::open(settings) {
        Ok(witness) => Arc::new(witness),
        Err(error) => {
            eprintln!("bield-witness: {error}");
            return ExitCode::from(2);
        }
    };
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!(
                "bield-witness: threads do not start: {error}; free resources and start again"
            );
            return ExitCode::FAILURE;
        }
    };
    let end = runtime.block_on(serve(arguments.listen, witness));
    runtime.shutdown_timeout(Duration::from_secs(1));
    end
}

async fn serve(address: SocketAddr, witness: Arc<WitnessServer>) -> ExitCode {
    let listener = match TcpListener::bind(address).await {
        Ok(listener) => listener,
        Err(error) => {
            eprintln!(
                "bield-witness: cannot listen on {address}: {error}; choose another address with --listen"
            );
            return ExitCode::from(2);
        }
    };
    let address = listener.local_addr().unwrap_or(address);
    println!("listening http://{address} {}", witness.verifier());
    let stop = async {
        let (terminate, interrupt) = (
            signal(SignalKind::terminate()),
            signal(SignalKind::interrupt()),
        );
        match (terminate, interrupt) {
            (Ok(mut terminate), Ok(mut interrupt)) => {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
            }
            // Without signals it ends when it is killed, which loses nothing.
            _ => std::future::pending().await,
        }
    };
    match bield_store::witness::serve(witness, listener, stop).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bield-witness: {error}");
            ExitCode::FAILURE
        }
    }
}
