//! `bield-runtime --tee software:/path.sock [--onnxruntime LIBRARY]`: started by a launcher, never by hand.
//!
//! Exit codes: 0 when the launcher is gone or SIGTERM came, 1 when the program cannot start or go on (the sentence is on
//! standard error and, before it serves, in the answer to the configuration), 2 for wrong arguments.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use bield_platform::memory::EnclaveAllocator;
use bield_runtime::{TeeAddress, TeeAddressError};

#[global_allocator]
static ALLOCATOR: EnclaveAllocator = EnclaveAllocator;

fn main() -> ExitCode {
    // A panic's message may quote contents; its place in the source may not.
    std::panic::set_hook(Box::new(|panic| {
        if let Some(place) = panic.location() {
            eprintln!("bield-runtime: fault at {}:{}", place.file(), place.line());
        }
    }));
    let (tee, onnxruntime) = match arguments_of(std::env::args_os().skip(1)) {
        Ok(arguments) => arguments,
        Err(why) => {
            eprintln!(
                "bield-runtime: {why}\nusage: bield-runtime --tee software:/path/of/socket [--onnxruntime /path/of/libonnxruntime.so]"
            );
            return ExitCode::from(2);
        }
    };
    match bield_runtime::run(&tee, onnxruntime.as_deref()) {
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

fn arguments_of(
    mut arguments: impl Iterator<Item = OsString>,
) -> Result<(TeeAddress, Option<PathBuf>), String> {
    let (mut tee, mut onnxruntime) = (None, None);
    while let Some(flag) = arguments.next() {
        let value = arguments.next();
        match (flag.to_str(), value) {
            (Some("--tee"), Some(value)) if tee.is_none() => {
                let text = value
                    .to_str()
                    .ok_or("the address of the TEE is not UTF-8")?;
                let address: Result<TeeAddress, TeeAddressError> = text.parse();
                tee = Some(address.map_err(|error| error.to_string())?);
            }
            (Some("--onnxruntime"), Some(value)) if onnxruntime.is_none() => {
                onnxruntime = Some(value.into());
            }
            _ => {
                return Err(
                    "expected --tee and, if need be, --onnxruntime, each with a value".to_owned(),
                );
            }
        }
    }
    Ok((tee.ok_or("--tee is missing")?, onnxruntime))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<(TeeAddress, Option<PathBuf>), String> {
        arguments_of(text.split_whitespace().map(OsString::from))
    }

    #[test]
    fn each_argument_comes_once_and_the_tee_must() {
        let tee: TeeAddress = "software:/t".parse().unwrap();
        assert_eq!(of("--tee software:/t"), Ok((tee.clone(), None)));
        let both = of("--onnxruntime /l.so --tee software:/t");
        assert_eq!(both, Ok((tee, Some("/l.so".into()))));
        for wrong in [
            "",
            "--onnxruntime /l.so",
            "--tee",
            "--tee software:/t --tee software:/t",
            "--tee software:/t --onnxruntime",
            "--tee software:/t --verbose",
        ] {
            assert!(of(wrong).is_err(), "{wrong}");
        }
    }
}
