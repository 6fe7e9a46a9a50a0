//! The command line. Nothing here is trusted or measured: the programs' configurations are.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Parser;

/// Starts the key service and the runtimes, and serves sealed requests over HTTP.
///
/// The gateway is not trusted: it carries sealed bytes and can only delay or refuse. What the enclave
/// programs may do stands in their configuration files, which are measured and shown in their evidence.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "bield-gateway",
    version,
    after_help = "Exit codes: 0 stopped when told to (SIGTERM, SIGINT); 1 failed while running; 2 an argument, \
                  port, file or directory must be changed; 3 an enclave program did not start."
)]
pub struct Arguments {
    /// Address of the HTTP endpoint
    #[arg(long, default_value = "127.0.0.1:8790")]
    pub listen: SocketAddr,
    /// Address for attested sessions with the key service this gateway starts
    #[arg(long, default_value = "127.0.0.1:8791", conflicts_with = "key_service")]
    pub keys_listen: SocketAddr,
    /// Use the key service at HOST:PORT instead of starting bield-keys
    #[arg(long, value_name = "HOST:PORT")]
    pub key_service: Option<String>,
    /// Key service program [default: bield-keys beside this program]
    #[arg(long, value_name = "FILE")]
    pub keys_program: Option<PathBuf>,
    /// Runtime program [default: bield-runtime beside this program]
    #[arg(long, value_name = "FILE")]
    pub runtime_program: Option<PathBuf>,
    /// Measured configuration of the key service (TOML)
    #[arg(long, value_name = "FILE", required_unless_present = "key_service")]
    pub keys_config: Option<PathBuf>,
    /// Measured configuration of the runtimes (TOML)
    #[arg(long, value_name = "FILE")]
    pub runtime_config: PathBuf,
    /// The TEE, handed to the programs as it is: `software:/path.sock` has no hardware protection
    #[arg(long, value_name = "SPEC")]
    pub tee: String,
    /// Directory of sealed packages, one DIGEST.bield each
    #[arg(long, value_name = "DIR")]
    pub packages: PathBuf,
    /// Directory for the key service's sealed state
    #[arg(long, value_name = "DIR", required_unless_present = "key_service")]
    pub storage: Option<PathBuf>,
    /// How many runtimes to keep running
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub workers: u16,
    /// Requests handed to one runtime at once
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub concurrency: u16,
    /// Requests that may wait for one runtime; more get 429
    #[arg(long, default_value_t = 64)]
    pub queue: usize,
    /// Longest wait for a runtime in milliseconds; then 503
    #[arg(long, value_name = "MS", default_value_t = 10_000)]
    pub queue_ms: u64,
    /// Longest time for one answer in milliseconds, cold start included; then 504
    #[arg(long, value_name = "MS", default_value_t = 120_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub call_ms: u64,
    /// Longest request body in MiB; more gets 413
    #[arg(long, value_name = "MIB", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub body_mib: u16,
    /// Memory for all request bodies together in MiB; more gets 503
    #[arg(long, value_name = "MIB", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=1_048_576))]
    pub bodies_mib: u32,
    /// Longest package in GiB; more gets 413
    #[arg(long, value_name = "GIB", default_value_t = 66)]
    pub package_gib: u64,
    /// Longest time in seconds to finish what is in flight when told to stop
    #[arg(long, value_name = "S", default_value_t = 30)]
    pub drain_secs: u64,
    /// Where the private directories of the programs' doors are made [default: the temporary directory]
    #[arg(long, value_name = "DIR")]
    pub run_directory: Option<PathBuf>,
    /// Also write every byte carried to and from the programs to DIR: what an attacker here would see
    #[arg(long, value_name = "DIR")]
    pub record: Option<PathBuf>,
    /// Stop when standard input ends, so that a program that starts this one takes it along
    #[arg(long)]
    pub until_stdin_ends: bool,
    /// Log as JSON lines (standard error)
    #[arg(long)]
    pub json_logs: bool,
}

impl Arguments {
    /// Longest request body in bytes.
    pub(crate) fn body_bytes_max(&self) -> usize {
        usize::from(self.body_mib) << 20
    }
}
