//! Benchmarks: ratios against a peer or a limit measured in the same run, never times alone.
//!
//! `cargo xtask bench NAME` builds everything optimised and runs this. A bench prints a table and
//! writes `target/bench/NAME.json`; a bar that does not hold is reported as such.

mod bars;
mod capsule;
mod deployment;
mod door;
mod functions;
mod keys;
mod packer;
mod runtime;
mod soak;
mod table;
mod world;

use std::path::PathBuf;

use anyhow::Result;
use bield_platform::memory::EnclaveAllocator;
use clap::{Parser, Subcommand};

/// What runs in enclaves runs here under their allocator; unless something wipes, a free costs one load more than without.
#[global_allocator]
static ALLOCATOR: EnclaveAllocator = EnclaveAllocator;

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Subcommand)]
enum Bench {
    /// Sealed inference: kinds of start, latency, load, memory, isolation, against engines and peers (up to an hour).
    Runtime(runtime::Options),
    /// The door's rings against socket, pipe and TCP, on two cores (half a minute).
    Door {
        /// Folder of the built programs.
        #[arg(long)]
        programs: PathBuf,
        /// Short measurements: shows that it works, not what it does.
        #[arg(long)]
        quick: bool,
    },
    /// The other process of `door`; started by it.
    #[command(hide = true)]
    DoorPeer {
        way: door::Way,
        task: door::Task,
        bytes: usize,
    },
    /// The log: rates, latencies, proofs and recovery against bounds and peers (up to 10 minutes).
    Capsule {
        /// Folder of the built programs.
        #[arg(long)]
        programs: PathBuf,
        /// One size, one suite, short measurements: shows that it works, not what it does.
        #[arg(long)]
        quick: bool,
        /// Only this part; repeatable.
        #[arg(long = "only")]
        parts: Vec<capsule::Part>,
    },
    /// The key service: orders, leases, sessions, start-up, memory, failover, next to etcd (up to 5 minutes).
    Keys {
        /// Folder of the built programs.
        #[arg(long)]
        programs: PathBuf,
        /// Short measurements, a tenth of the state: shows that it works, not what it does.
        #[arg(long)]
        quick: bool,
        /// Only this part; repeatable.
        #[arg(long = "only")]
        parts: Vec<keys::Part>,
    },
    /// The table of functions' state: calls, verified puts, levels, YCSB next to Redis and fjall (up to 10 minutes).
    Table(table::Options),
    /// Functions: fresh instances, calls out, own code, memory, next to processes, native code and workerd (3 minutes).
    Functions(functions::Options),
    /// Four policies on one trace and real processes; a hundred models against one (up to half an hour).
    Packer(packer::Options),
    /// Mixed users, too many models, killed runtimes, hostile bytes; fails on a wrong answer, a hang or growth.
    Soak(soak::Options),
    /// Makes, or starts over, the state of a key service and prints what that took; started by `keys`.
    #[command(hide = true)]
    KeysState {
        #[command(subcommand)]
        task: keys::Task,
    },
    /// Opens a package and prints the peak of memory that took; started by `runtime`.
    #[command(hide = true)]
    Open { package: PathBuf, key: PathBuf },
}

fn main() -> Result<()> {
    match Arguments::parse().bench {
        Bench::Runtime(options) => runtime::run(&options),
        Bench::Door { programs, quick } => door::run(&programs, quick),
        Bench::DoorPeer { way, task, bytes } => door::serve(way, task, bytes),
        Bench::Capsule {
            programs,
            quick,
            parts,
        } => capsule::run(&programs, quick, &parts),
        Bench::Keys {
            programs,
            quick,
            parts,
        } => keys::run(&programs, quick, &parts),
        Bench::Table(options) => table::run(&options),
        Bench::Functions(options) => functions::run(&options),
        Bench::Packer(options) => packer::run(&options),
        Bench::Soak(options) => soak::run(&options),
        Bench::KeysState { task } => keys::perform(&task),
        Bench::Open { package, key } => runtime::open(&package, &key),
    }
}
