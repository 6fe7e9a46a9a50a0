//! The program `bield-software-tee`: stands in for a CPU's quoting hardware on a developer's machine.
//!
//! Started by `bield dev` and by tests. Exit codes: 0 done, 1 it could not start or go on (the last
//! line on standard error says what to do), 2 wrong arguments.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use bield_software_tee::{MARKER, Platform, Server, SoftwareTeeError};
use clap::Parser;

/// Stands in for the quoting hardware of a CPU. For development only: it protects nothing.
///
/// Programs that connect are measured (their file and their configuration) and get evidence in
/// Intel's formats, signed under a root certificate made on this machine. Verifiers must be told to
/// trust that root by name; default policies refuse it.
#[derive(Parser)]
#[command(name = "bield-software-tee", version)]
struct Arguments {
    /// Directory that keeps the made-up machine: its secret, readable by you alone.
    #[arg(long, value_name = "DIR")]
    state: PathBuf,

    /// Unix socket to listen on; a leftover one is replaced.
    #[arg(long, value_name = "PATH", required_unless_present_any = ["print_root", "print_platform"])]
    socket: Option<PathBuf>,

    /// Stop when standard input ends, so that a program that starts this one takes it along.
    #[arg(long)]
    until_stdin_ends: bool,

    /// Print the root certificate (DER, hexadecimal) and exit.
    #[arg(long)]
    print_root: bool,

    /// Print the machine's platform identity (hexadecimal), as evidence has it, and exit.
    #[arg(long, conflicts_with = "print_root")]
    print_platform: bool,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bield-software-tee: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), SoftwareTeeError> {
    let platform = Platform::load_or_create(&arguments.state)?;
    if arguments.print_root {
        // A reader that left early has what it wanted.
        let _ = writeln!(io::stdout(), "{}", hex::encode(platform.root_der()));
        return Ok(());
    }
    if arguments.print_platform {
        let _ = writeln!(io::stdout(), "{}", hex::encode(platform.id()));
        return Ok(());
    }
    let Some(socket) = &arguments.socket else {
        return Ok(()); // clap demands one of the three
    };
    // Held by this process alone even on a development machine: no core file with the secret.
    let _ = bield_platform::harden();
    let server = Server::bind(socket, Arc::new(platform))?;
    eprintln!(
        "{BANNER}\n  marker: {MARKER}\n  socket: {}",
        socket.display()
    );
    if arguments.until_stdin_ends {
        let socket = socket.clone();
        std::thread::spawn(move || {
            // However it ends, nobody is there any more.
            let _ = io::copy(&mut io::stdin(), &mut io::sink());
            let _ = std::fs::remove_file(socket);
            std::process::exit(0);
        });
    }
    server.run()
}

const BANNER: &str = "\
  ********************************************************************
  *  SOFTWARE TEE: NO HARDWARE PROTECTION                            *
  *  Evidence from here is forged by design. Whoever can use this    *
  *  account can read every secret of the programs it vouches for.   *
  *  For development and tests only.                                 *
  ********************************************************************";
