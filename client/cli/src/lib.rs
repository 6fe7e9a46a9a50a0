//! The one binary people type: `bield`.
//!
//! ```text
//! arguments ─▶ command ─▶ bield-sdk ─▶ Answer ─▶ standard output (text, or one JSON value)
//!                 │                    Failure ─▶ standard error, exit code 1, 2 or 3
//!                 └ progress ─▶ standard error, on a terminal only
//! ```
//!
//! Always true: standard output holds the result and nothing else; with `--json` it is one JSON value,
//! failures included; the exit code says what to do next (see [`command`]'s help). No cryptography and
//! no protocol here: this crate only asks the SDK and shows what it says.

mod arguments;
mod commands;
mod failure;
mod output;
mod progress;
mod reference;
mod show;
mod tensors;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};

pub use reference::reference;

use arguments::{Arguments, Command};
use output::Output;

/// Parses the command line, does what it says, reports, and returns the exit code.
#[must_use]
pub fn run() -> ExitCode {
    let arguments = Arguments::parse();
    let output = Output::new(arguments.json);
    let home = arguments.home();
    let done = match arguments.command {
        Command::Init(command) => command.run(&home, output),
        Command::Id(command) => command.run(&home, output),
        Command::New(command) => command.run(output),
        Command::Pack(command) => command.run(&home, output),
        Command::Deploy(command) => command.run(&home, output),
        Command::Push(command) => command.run(&home, output),
        Command::Grant(command) => command.run(&home, output),
        Command::Grants(command) => command.run(&home, output),
        Command::Revoke(command) => command.run(&home, output),
        Command::Group(command) => command.run(&home, output),
        Command::List(command) => command.run(&home, output),
        Command::Delete(command) => command.run(&home, output),
        Command::Rotate(command) => command.run(&home, output),
        Command::Audit(command) => command.run(&home, output),
        Command::Register(command) => command.run(&home, output),
        Command::Unregister(command) => command.run(&home, output),
        Command::Doctor(command) => command.run(&home, output),
        Command::Recover(command) => command.run(&home, output),
        Command::AdmitCode(command) => command.run(&home, output),
        Command::WithdrawCode(command) => command.run(&home, output),
        Command::Call(command) => command.run(&home, output),
        Command::Logs(command) => command.run(&home, output),
        Command::Bench(command) => command.run(&home, output),
        Command::Proxy(command) => command.run(&home, output),
        Command::Verify(command) => command.run(&home, output),
        Command::Receipt(command) => command.run(&home, output),
        Command::Status(command) => command.run(&home, output),
        Command::Why(command) => command.run(&home, output),
        Command::Measure(command) => command.run(output),
        Command::Evidence(command) => command.run(output),
        Command::Capsule(command) => command.run(&home, output),
        Command::State(command) => command.run(&home, output),
        Command::Store(command) => command.run(),
        Command::Witness(command) => command.run(),
        Command::Dev(command) => command.run(&home, output),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output.fail(&failure);
            failure.exit_code()
        }
    }
}

/// The command line's definition, for the reference and for tests.
#[must_use]
pub fn command() -> clap::Command {
    Arguments::command()
}
