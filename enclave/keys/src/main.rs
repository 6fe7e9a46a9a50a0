//! `bield-keys --tee software:SOCKET`: started by a launcher, which passes the door as standard input.
//!
//! Exit codes: 0 the host closed the door; 1 refused to serve; 2 wrong arguments.

use std::process::ExitCode;

fn main() -> ExitCode {
    // A panic's message may quote contents; its place in the source may not.
    std::panic::set_hook(Box::new(|panic| {
        if let Some(place) = panic.location() {
            eprintln!("bield-keys: fault at {}:{}", place.file(), place.line());
        }
    }));
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [flag, tee] = arguments.as_slice() else {
        return usage();
    };
    if flag != "--tee" {
        return usage();
    }
    match bield_keys::run(tee) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bield-keys: {error}");
            ExitCode::from(1)
        }
    }
}

fn usage() -> ExitCode {
    eprintln!(
        "bield-keys is started by bield-gateway, which passes it a door as standard input.\n\
         usage: bield-keys --tee software:SOCKET"
    );
    ExitCode::from(2)
}
