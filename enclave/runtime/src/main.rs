//! `bield-runtime --tee software:/path.sock`: started by a launcher, never by hand.
//!
//! Exit codes: 0 when the launcher is gone, 1 when the program cannot start or go on (the sentence is on
//! standard error and, before it serves, in the answer to the configuration), 2 for wrong arguments.

use std::ffi::OsString;
use std::process::ExitCode;

use bield_platform::memory::EnclaveAllocator;
use bield_runtime::TeeAddress;

#[global_allocator]
static ALLOCATOR: EnclaveAllocator = EnclaveAllocator;

fn main() -> ExitCode {
    // A panic's message may quote contents; its place in the source may not.
    std::panic::set_hook(Box::new(|panic| {
        if let Some(place) = panic.location() {
            eprintln!("bield-runtime: fault at {}:{}", place.file(), place.line());
        }
    }));
    let tee = match tee_of(std::env::args_os().skip(1)) {
        Ok(tee) => tee,
        Err(why) => {
            eprintln!("bield-runtime: {why}\nusage: bield-runtime --tee software:/path/of/socket");
            return ExitCode::from(2);
        }
    };
    match bield_runtime::run(&tee) {
        Ok(()) => {
            eprintln!("bield-runtime: the launcher is gone; stopped");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("bield-runtime: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn tee_of(arguments: impl Iterator<Item = OsString>) -> Result<TeeAddress, String> {
    let arguments: Vec<OsString> = arguments.collect();
    match &arguments[..] {
        [flag, address] if flag == "--tee" => address
            .to_str()
            .ok_or_else(|| "the address of the TEE is not UTF-8".to_owned())?
            .parse()
            .map_err(|error: bield_runtime::TeeAddressError| error.to_string()),
        _ => Err("expected exactly one option, --tee".to_owned()),
    }
}
