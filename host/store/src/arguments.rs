//! The command line of `bield-store`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::peers::PeerAddress;
use crate::witnesses::WitnessAddress;

/// A replica server of capsules: verifies records, stores them, and signs that it has.
///
/// The store is not trusted: it holds sealed records and can only withhold or refuse. Its identity
/// (identity.key in its directory) is what capsules name as a replica.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "bield-store",
    version,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "Exit codes: 0 stopped when told to (SIGTERM, SIGINT), or nothing damaged; 1 failed while running, or \
                  damage found; 2 an argument, port, file or directory must be changed."
)]
pub struct Arguments {
    /// Something else than serving.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// How to serve.
    #[command(flatten)]
    pub serve: ServeArguments,
}

/// Something else than serving.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Reads every record again, verifies it in full, and names the first bad one (the store must be stopped)
    Fsck(FsckArguments),
}

/// What to check.
#[derive(Debug, Clone, Args)]
pub struct FsckArguments {
    /// Directory of the store
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// Accept certificates whose evidence came from a software TEE
    #[arg(long)]
    pub allow_simulated: bool,
}

/// How to serve.
#[derive(Debug, Clone, Args)]
pub struct ServeArguments {
    /// Directory of the identity, and of the capsules unless --object-store is given
    #[arg(long, value_name = "DIR", required = true)]
    pub data: Option<PathBuf>,
    /// Keep capsules in an object store: a directory, or s3://BUCKET/PREFIX
    ///
    /// S3 needs a build with the feature `s3`, a bucket that exists, and in the environment AWS_ACCESS_KEY_ID,
    /// AWS_SECRET_ACCESS_KEY (or a role of the machine) and AWS_REGION; for anything but Amazon also
    /// AWS_ENDPOINT=https://HOST. The store must honour If-None-Match: at the start it is asked, and refused if not
    #[arg(long, value_name = "URL")]
    pub object_store: Option<String>,
    /// Address of the HTTP endpoint
    #[arg(long, default_value = "127.0.0.1:8801")]
    pub listen: SocketAddr,
    /// Who may create capsules: a file of owner ids, one a line, or `any`
    #[arg(long, value_name = "FILE|any", required = true)]
    pub owners: Option<String>,
    /// Another replica to exchange missing records with, and, when known, its principal; repeatable
    #[arg(long = "peer", value_name = "URL[=PRINCIPAL]")]
    pub peers: Vec<PeerAddress>,
    /// Time between two comparisons with a peer in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 2000, value_parser = clap::value_parser!(u64).range(50..))]
    pub peer_interval_ms: u64,
    /// Also create the capsules that peers have, as far as --owners admits them
    #[arg(long)]
    pub follow: bool,
    /// A witness to cosign checkpoints, with its verifier key; repeatable
    #[arg(long = "witness", value_name = "URL=VERIFIERKEY")]
    pub witnesses: Vec<WitnessAddress>,
    /// Accept certificates whose evidence came from a software TEE
    #[arg(long)]
    pub allow_simulated: bool,
    /// Most capsules
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    pub capsules_max: u64,
    /// Most MiB of one capsule's records; a smaller quota in its configuration counts
    #[arg(long, value_name = "MIB", default_value_t = 1 << 20)]
    pub capsule_mib_max: u64,
    /// Most MiB of all records together
    #[arg(long, value_name = "MIB", default_value_t = 1 << 24)]
    pub total_mib_max: u64,
    /// Threads that verify and store [default: one for each processor]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub shards: Option<u16>,
    /// Longest time in seconds to finish what is in flight when told to stop
    #[arg(long, value_name = "S", default_value_t = 10)]
    pub drain_secs: u64,
    /// Stop when standard input ends, so that a program that starts this one takes it along
    #[arg(long)]
    pub until_stdin_ends: bool,
    /// Log as JSON lines (standard error)
    #[arg(long)]
    pub json_log: bool,
}
