//! A function's build command, run.
//!
//! In: the function's description, its folder. Out: that the command succeeded, or how it did not; what it says goes to
//! standard error, because standard output is this program's result. Always true: a build that is stopped is gone with all
//! it started before this returns; one that takes long is said to be still running, so nobody takes silence for success.

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bield_sdk::{FunctionFile, FunctionFileError};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

use crate::failure::Failure;
use crate::output::Output;

/// How a build ended that did not fail.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Built {
    /// By itself; or there is nothing to build.
    Done,
    /// It was told to stop.
    Stopped,
}

/// Builds in the terminal's own group: a Ctrl-C is for the build as well as for this program.
pub(super) fn here(file: &FunctionFile, directory: &Path, output: Output) -> Result<(), Failure> {
    let Some(command) = file.build_command(directory) else {
        return Ok(());
    };
    let sleep = |wait| {
        std::thread::sleep(wait);
        false
    };
    Running::start(file, command, output)?.wait(sleep).map(drop)
}

/// Builds beside a program that serves: `stop` waits for as long as it is told, and says whether to stop.
pub(super) fn beside(
    file: &FunctionFile,
    directory: &Path,
    output: Output,
    stop: impl Fn(Duration) -> bool,
) -> Result<Built, Failure> {
    let Some(mut command) = file.build_command(directory) else {
        return Ok(Built::Done);
    };
    // A group of its own, so that it can be ended with all it started; hence not the terminal's reader.
    command.process_group(0).stdin(Stdio::null());
    Running::start(file, command, output)?.wait(stop)
}

/// A build that runs.
struct Running<'a> {
    command: &'a str,
    child: Child,
    output: Output,
}

impl<'a> Running<'a> {
    fn start(file: &'a FunctionFile, mut shell: Command, output: Output) -> Result<Self, Failure> {
        let command = file.build.as_deref().unwrap_or_default();
        let started = shell.stdout(std::io::stderr()).spawn();
        let child = started.map_err(|error| failed(command, &error.to_string()))?;
        Ok(Self {
            command,
            child,
            output,
        })
    }

    fn wait(mut self, stop: impl Fn(Duration) -> bool) -> Result<Built, Failure> {
        let begun = Instant::now();
        let mut say_at = SAID_FIRST;
        loop {
            let ended = self.child.try_wait();
            match ended.map_err(|error| failed(self.command, &error.to_string()))? {
                Some(status) if status.success() => return Ok(Built::Done),
                Some(status) if status.code() == Some(NOT_FOUND) => {
                    return Err(failed(self.command, MISSING));
                }
                Some(status) => return Err(failed(self.command, &status.to_string())),
                None => {}
            }
            if begun.elapsed() >= say_at {
                self.output.note(format_args!(
                    "`{}` is still running after {} s",
                    self.command,
                    begun.elapsed().as_secs()
                ));
                say_at += SAID_EVERY;
            }
            // Short at first: most builds of small functions take a second or two.
            if stop(POLL_MAX.min(begun.elapsed() / 8 + POLL_MIN)) {
                self.end();
                return Ok(Built::Stopped);
            }
        }
    }

    /// Ends its group: asks, and makes those end who do not.
    fn end(&mut self) {
        let Some(group) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) else {
            return;
        };
        let _ = kill_process_group(group, Signal::TERM);
        // Without reaping it: until then the group's number is nobody else's.
        let looked = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        let until = Instant::now() + END_WAIT;
        while matches!(waitid(WaitId::Pid(group), looked), Ok(None)) && Instant::now() < until {
            std::thread::sleep(POLL_MIN);
        }
        let _ = kill_process_group(group, Signal::KILL);
        let _ = self.child.wait();
    }
}

fn failed(command: &str, how: &str) -> Failure {
    let command = command.to_owned();
    let how = how.to_owned();
    FunctionFileError::Build { command, how }.into()
}

/// What a shell exits with that found no such program (POSIX, 2.8.2).
const NOT_FOUND: i32 = 127;
const MISSING: &str =
    "a program that it runs is not installed here: the function's README.md says which it needs";
/// Nobody wonders before.
const SAID_FIRST: Duration = Duration::from_secs(10);
const SAID_EVERY: Duration = Duration::from_secs(60);
const POLL_MIN: Duration = Duration::from_millis(10);
const POLL_MAX: Duration = Duration::from_millis(100);
/// For a build to take its temporary files away.
const END_WAIT: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use std::fs;

    use bield_sdk::FUNCTION_FILE;

    use super::*;

    /// A folder whose build is this.
    fn folder(build: &str) -> (tempfile::TempDir, FunctionFile) {
        let place = tempfile::tempdir().unwrap();
        let text = format!(
            "[function]\nname = \"a\"\nversion = \"1\"\nsource = \"f.wasm\"\nbuild = '''{build}'''\n"
        );
        fs::write(place.path().join(FUNCTION_FILE), text).unwrap();
        let (file, _) = FunctionFile::read(place.path()).unwrap();
        (place, file)
    }

    #[test]
    fn a_build_makes_the_component_or_says_how_it_failed() {
        let (place, file) = folder("printf made > f.wasm");
        here(&file, place.path(), Output::new(false)).unwrap();
        assert_eq!(file.component(place.path()).unwrap(), b"made");
        let (place, file) = folder("exit 3");
        let failure = here(&file, place.path(), Output::new(false)).unwrap_err();
        assert!(
            failure.message().contains("exit status: 3"),
            "{}",
            failure.message()
        );
        let (place, file) = folder("no-such-program-anywhere");
        let failure = here(&file, place.path(), Output::new(false)).unwrap_err();
        assert!(
            failure.message().contains("README.md"),
            "{}",
            failure.message()
        );
        let beside = beside(&file, place.path(), Output::new(false), |wait| {
            std::thread::sleep(wait);
            false
        });
        assert!(beside.is_err());
    }

    #[test]
    fn a_build_that_is_stopped_leaves_no_process_behind() {
        // One that hangs, one it started, and both are deaf to being asked.
        let (place, file) =
            folder("trap '' TERM; sleep 600 & echo $! > child; echo $$ > own; wait");
        let pid = |name: &str| -> Option<i32> {
            let text = fs::read_to_string(place.path().join(name)).ok()?;
            text.trim().parse().ok()
        };
        let built = beside(&file, place.path(), Output::new(false), |wait| {
            std::thread::sleep(wait);
            pid("own").is_some()
        });
        assert_eq!(built.unwrap(), Built::Stopped);
        for name in ["own", "child"] {
            let pid = Pid::from_raw(pid(name).unwrap()).unwrap();
            let gone = || {
                let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
                // Killed, and not yet taken away by whoever inherited it.
                stat.map_or(true, |stat| stat.contains(") Z "))
            };
            let until = Instant::now() + Duration::from_secs(5);
            while !gone() && Instant::now() < until {
                std::thread::sleep(POLL_MIN);
            }
            assert!(gone(), "{name} still runs");
        }
    }
}
