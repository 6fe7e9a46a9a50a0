//! Project chores, run as `cargo xtask NAME`.
//!
//! `quickstart` shows the product, `test` runs every test, `layers` checks the trust zones, `bench`
//! measures promises, `soak` wears the system out. Nothing here is part of the product.

mod bench;
mod chromium;
mod clients;
mod guests;
mod layers;
mod onnxruntime;
mod profile;
mod programs;
mod quickstart;
mod tests;
mod wheels;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Chores of the bield repository.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Build everything, then seal a real model, grant it, call it, count in a function, and watch four refusals.
    Quickstart {
        /// The file whose kind is asked for.
        #[arg(default_value = "README.md")]
        file: PathBuf,
    },
    /// Build the programs and run every test.
    Test {
        /// Arguments for the test runner, such as a part of a test's name.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        rest: Vec<String>,
    },
    /// Build the functions of examples and tests into target/guests; prints where they are.
    Guests,
    /// Copy the model of the examples, magika, out of cargo's cache.
    Model {
        /// Where to.
        #[arg(default_value = "model.onnx")]
        file: PathBuf,
    },
    /// Fetch the shared library of onnxruntime into the cache; prints its path and digest.
    FetchOnnxruntime,
    /// Check that dependencies between trust zones go one way, and that release builds stop at overflows.
    Layers,
    /// Run a benchmark; prints a table and writes target/bench/NAME.json.
    Bench {
        /// Its name: `runtime`, `functions`, `table`, `door`, `capsule` or `keys`.
        name: String,
        /// Arguments for the benchmark.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        rest: Vec<String>,
    },
    /// Mixed users, too many models, killed runtimes and hostile bytes for ten minutes; no answer may be wrong.
    Soak {
        /// Arguments for the soak, such as --minutes 1.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        rest: Vec<String>,
    },
}

fn main() -> ExitCode {
    let done = match Arguments::parse().chore {
        Chore::Quickstart { file } => quickstart::run(&file),
        Chore::Test { rest } => tests::run(&rest),
        Chore::Guests => guests::run(),
        Chore::Model { file } => quickstart::model().and_then(|model| {
            std::fs::copy(model, &file)?;
            println!("{}", file.display());
            Ok(())
        }),
        Chore::FetchOnnxruntime => onnxruntime::run(),
        Chore::Layers => layers::run().and_then(|()| profile::check()),
        Chore::Bench { name, rest } => bench::run(&name, &rest),
        Chore::Soak { rest } => bench::run("soak", &rest),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nerror: {error:#}");
            ExitCode::FAILURE
        }
    }
}
