//! The command line, each of it also from the environment. Nothing here is trusted or measured: the runtime's
//! configuration is.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use clap::Parser;
use clap::builder::FalseyValueParser;

/// Threads for the start, reports and package files.
const OTHER_WAITING_THREADS: usize = 16;
/// Places at the runtime when nobody says how many.
const CONCURRENCY: u16 = 4;
/// Most of them.
const CONCURRENCY_MAX: u16 = 256;

/// Starts one runtime and serves it on one port: as an OpenWhisk action, an HTTP container, an Open Inference Protocol
/// server, and plainly.
///
/// The worker is not trusted: it carries sealed bytes and can only delay or refuse. What the runtime may do stands in its
/// configuration file, which is measured and shown in its evidence.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "bield-worker",
    version,
    after_help = "Exit codes: 0 stopped when told to (SIGTERM, SIGINT); 1 failed while running; 2 an argument, \
                  port, file or directory must be changed; 3 the runtime did not start."
)]
pub struct Arguments {
    /// Address of the one port that all requests come to [default: all addresses, on --port]
    #[arg(long, env = "BIELD_LISTEN")]
    pub listen: Option<SocketAddr>,
    /// The port, where --listen is not given
    #[arg(long, env = "PORT", default_value_t = 8080)]
    pub port: u16,
    /// Address of the metrics, as Prometheus text under /metrics [default: none]
    #[arg(long, env = "BIELD_METRICS_LISTEN")]
    pub metrics_listen: Option<SocketAddr>,
    /// Key service that the runtime asks; repeat for each instance
    #[arg(
        long = "key-service",
        value_name = "HOST:PORT",
        env = "BIELD_KEY_SERVICE",
        value_delimiter = ',',
        required = true
    )]
    pub key_services: Vec<String>,
    /// Runtime program [default: bield-runtime beside this program]
    #[arg(long, value_name = "FILE", env = "BIELD_RUNTIME_PROGRAM")]
    pub runtime_program: Option<PathBuf>,
    /// libonnxruntime.so, for a runtime whose configuration names it by its digest
    #[arg(long, value_name = "FILE", env = "BIELD_ONNXRUNTIME")]
    pub onnxruntime: Option<PathBuf>,
    /// Measured configuration of the runtime (TOML)
    #[arg(long, value_name = "FILE", env = "BIELD_RUNTIME_CONFIG")]
    pub runtime_config: PathBuf,
    /// The TEE, handed to the runtime as it is: `software:/path.sock` has no hardware protection
    #[arg(long, value_name = "SPEC", env = "BIELD_TEE")]
    pub tee: String,
    /// Directory of sealed packages, one DIGEST.bield each; only read
    #[arg(long, value_name = "DIR", env = "BIELD_PACKAGES")]
    pub packages: PathBuf,
    /// Directory of the sealed state of functions, for this worker alone; without it, functions that keep state do not run
    #[arg(long, value_name = "DIR", env = "BIELD_STATE")]
    pub state: Option<PathBuf>,
    /// Requests handed to the runtime at once [default: 4]
    #[arg(long, value_name = "N", env = "BIELD_CONCURRENCY", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub concurrency: Option<u16>,
    /// The same as container platforms say it, where --concurrency is not given; 0 says nothing, more than 256 is 256
    #[arg(
        long,
        value_name = "N",
        env = "CONTAINER_CONCURRENCY",
        hide = true,
        default_value_t = 0
    )]
    pub container_concurrency: u16,
    /// Requests that may wait for the runtime; more get 503
    #[arg(long, env = "BIELD_QUEUE", default_value_t = 8)]
    pub queue: usize,
    /// Longest wait for the runtime in milliseconds; then 503
    #[arg(
        long,
        value_name = "MS",
        env = "BIELD_QUEUE_MS",
        default_value_t = 1000
    )]
    pub queue_ms: u64,
    /// Longest time for one answer in milliseconds, cold start included; then 504
    #[arg(long, value_name = "MS", env = "BIELD_CALL_MS", default_value_t = 120_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub call_ms: u64,
    /// Longest sealed request in MiB; more gets 413
    #[arg(long, value_name = "MIB", env = "BIELD_BODY_MIB", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub body_mib: u16,
    /// Memory for all request bodies together in MiB; more gets 503
    #[arg(long, value_name = "MIB", env = "BIELD_BODIES_MIB", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=1_048_576))]
    pub bodies_mib: u32,
    /// Longest time in seconds to finish what is in flight when told to stop; the runtime then has 5 s to end
    #[arg(long, value_name = "S", env = "BIELD_DRAIN_SECS", default_value_t = 20)]
    pub drain_secs: u64,
    /// Where the private directory of the runtime's door is made [default: the temporary directory]
    #[arg(long, value_name = "DIR", env = "BIELD_RUN_DIRECTORY")]
    pub run_directory: Option<PathBuf>,
    /// Also write every byte carried to and from the runtime to DIR: what an attacker here would see
    #[arg(long, value_name = "DIR", env = "BIELD_RECORD")]
    pub record: Option<PathBuf>,
    /// As an OpenWhisk action, take several activations at once; the platform says so in its environment
    #[arg(long, env = "__OW_ALLOW_CONCURRENT", value_parser = FalseyValueParser::new())]
    pub allow_concurrent: bool,
    /// Stop when standard input ends, so that a program that starts this one takes it along
    #[arg(long)]
    pub until_stdin_ends: bool,
    /// Log as JSON lines (standard error)
    #[arg(long, env = "BIELD_JSON_LOGS", value_parser = FalseyValueParser::new())]
    pub json_logs: bool,
}

impl Arguments {
    /// Most threads that wait for the runtime or a file at once.
    #[must_use]
    pub fn waiting_threads_max(&self) -> usize {
        // What is left of an answer may wait for its client beside each request.
        2 * self.places() + OTHER_WAITING_THREADS
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.listen
            .unwrap_or_else(|| (Ipv4Addr::UNSPECIFIED, self.port).into())
    }

    pub(crate) fn places(&self) -> usize {
        let told = self.container_concurrency.min(CONCURRENCY_MAX);
        let told = (told > 0).then_some(told);
        usize::from(self.concurrency.or(told).unwrap_or(CONCURRENCY))
    }

    /// Longest sealed request in bytes.
    pub(crate) fn body_bytes_max(&self) -> usize {
        usize::from(self.body_mib) << 20
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(more: &[&str]) -> Arguments {
        let line = [
            "bield-worker",
            "--tee",
            "t",
            "--key-service",
            "a:1,b:2",
            "--runtime-config",
            "r",
            "--packages",
            "p",
        ];
        Arguments::try_parse_from(line.iter().chain(more)).unwrap()
    }

    #[test]
    fn what_a_platform_says_counts_where_the_operator_says_nothing() {
        assert_eq!(parsed(&[]).places(), 4);
        assert_eq!(parsed(&["--container-concurrency", "2"]).places(), 2);
        assert_eq!(parsed(&["--container-concurrency", "1000"]).places(), 256);
        let both = ["--container-concurrency", "2", "--concurrency", "3"];
        assert_eq!(parsed(&both).places(), 3);
        assert_eq!(parsed(&["--port", "9"]).address().to_string(), "0.0.0.0:9");
        let both = ["--port", "9", "--listen", "127.0.0.1:1"];
        assert_eq!(parsed(&both).address().to_string(), "127.0.0.1:1");
        assert_eq!(parsed(&[]).key_services, ["a:1", "b:2"]);
    }
}
