//! `bield bench …`: what a deployment does under load.

mod inputs;
mod load;
mod observed;
mod outcome;
mod pattern;
mod targets;

use bield_sdk::Home;
use clap::{Args, Subcommand};

use crate::failure::Failure;
use crate::output::Output;

/// Measure a deployment
#[derive(Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Bench {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Load(load::Load),
}

impl Bench {
    pub(crate) fn run(self, home: &Home, output: Output) -> Result<(), Failure> {
        match self.command {
            Command::Load(command) => command.run(home, output),
        }
    }
}

const EXAMPLES: &str = "\
Example:
  bield bench load --model magika --rate 5 --seconds 60 --out load";
