//! The programs `bield dev` starts, and what is left of them when they end.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::{self, DirBuilder, File};
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::failure::Failure;

/// Where the programs are: beside this one.
pub(super) struct Programs {
    pub(super) software_tee: PathBuf,
    pub(super) gateway: PathBuf,
    pub(super) keys: PathBuf,
    pub(super) runtime: PathBuf,
}

impl Programs {
    pub(super) fn beside_this_one() -> Result<Self, Failure> {
        let here = std::env::current_exe().map_err(|error| {
            Failure::local(format_args!(
                "where this program is cannot be found out: {error}"
            ))
        })?;
        let directory = here.parent().unwrap_or(Path::new("/"));
        Self::in_directory(directory)
    }

    fn in_directory(directory: &Path) -> Result<Self, Failure> {
        let programs = Self {
            software_tee: directory.join("bield-software-tee"),
            gateway: directory.join("bield-gateway"),
            keys: directory.join("bield-keys"),
            runtime: directory.join("bield-runtime"),
        };
        let all = [
            &programs.software_tee,
            &programs.gateway,
            &programs.keys,
            &programs.runtime,
        ];
        let missing: Vec<_> = all
            .into_iter()
            .filter(|path| !path.is_file())
            .map(|path| {
                path.file_name()
                    .unwrap_or_default()
                    .to_string_lossy()
                    .into_owned()
            })
            .collect();
        if missing.is_empty() {
            return Ok(programs);
        }
        Err(Failure::local(format_args!(
            "{} not found in {}: build all programs with `cargo build --release`",
            missing.join(", "),
            directory.display()
        )))
    }
}

/// A private directory for sockets, whose paths must be short; gone when this is.
pub(super) struct Scratch {
    path: PathBuf,
}

impl Scratch {
    pub(super) fn make() -> Result<Self, Failure> {
        let temporary = std::env::temp_dir();
        let long = temporary.as_os_str().len() > TEMPORARY_BYTES_MAX;
        let parent = if long { Path::new("/tmp") } else { &temporary };
        let path = parent.join(format!("bield-dev-{}", std::process::id()));
        let made = DirBuilder::new().mode(0o700).create(&path);
        made.map_err(|error| Failure::local(format_args!("{}: {error}", path.display())))?;
        Ok(Self { path })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.path.join("tee")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// A running program. Dropping it kills it.
pub(super) struct Program {
    name: String,
    child: Child,
    log: PathBuf,
    last: Arc<Mutex<VecDeque<String>>>,
    /// Copies its lines; ends by itself when nobody can write any more.
    reader: Option<JoinHandle<()>>,
}

impl Program {
    /// Starts `program`; its output goes to `logs/NAME.log`, and to standard error when `shown`.
    pub(super) fn start(
        program: &Path,
        arguments: &[OsString],
        logs: &Path,
        shown: bool,
    ) -> Result<Self, Failure> {
        let name = program
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let log = logs.join(format!("{name}.log"));
        let file = File::create(&log)
            .map_err(|error| Failure::local(format_args!("{}: {error}", log.display())))?;
        let started = Command::new(program)
            .args(arguments)
            // Ends when this process does, however that happens, and takes the program along.
            .arg("--until-stdin-ends")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            // A Ctrl-C is for this program, which then stops the others in order.
            .process_group(0)
            .spawn();
        let mut child = started.map_err(|error| {
            Failure::local(format_args!(
                "{} does not start: {error}",
                program.display()
            ))
        })?;
        let last = Arc::new(Mutex::new(VecDeque::new()));
        let reader = child.stderr.take().map(|stderr| {
            let last = Arc::clone(&last);
            thread::spawn(move || keep_lines(stderr, file, &last, shown))
        });
        Ok(Self {
            name,
            child,
            log,
            last,
            reader,
        })
    }

    /// Fails when the program has ended.
    pub(super) fn check_alive(&mut self) -> Result<(), Failure> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => {
                self.read_the_rest();
                Err(self.failure(&format!("ended: {status}")))
            }
            Err(error) => Err(self.failure(&format!("cannot be watched: {error}"))),
        }
    }

    /// Lets what it said arrive before it is quoted; a child of it may hold the pipe open for longer.
    fn read_the_rest(&mut self) {
        let until = Instant::now() + READ_WAIT;
        while Instant::now() < until && self.reader.as_ref().is_some_and(|r| !r.is_finished()) {
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// What happened, and the program's last lines.
    pub(super) fn failure(&self, what: &str) -> Failure {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let lines: Vec<_> = last.iter().map(|line| format!("  {line}")).collect();
        Failure::local(format_args!(
            "{} {what}; its last lines (all of them: {}):\n{}",
            self.name,
            self.log.display(),
            lines.join("\n")
        ))
    }

    /// Asks it to stop, then makes it.
    pub(super) fn stop(&mut self) {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid {
            let _ = kill_process(pid, Signal::TERM);
        }
        let until = Instant::now() + STOP_WAIT;
        while Instant::now() < until {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
        // With all it started: they are in its group, whose number is not free before the wait.
        if let Some(pid) = pid {
            let _ = kill_process_group(pid, Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Copies lines to the log and keeps the last few.
fn keep_lines(from: impl Read, mut log: File, last: &Mutex<VecDeque<String>>, shown: bool) {
    let mut from = BufReader::new(from);
    let mut line = Vec::new();
    loop {
        line.clear();
        match from
            .by_ref()
            .take(LINE_BYTES_MAX)
            .read_until(b'\n', &mut line)
        {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        // A full disk must not stop the program whose lines these are.
        let _ = log.write_all(&line);
        if shown {
            let _ = std::io::stderr().lock().write_all(&line);
        }
        let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.len() == LINES_KEPT {
            last.pop_front();
        }
        last.push_back(String::from_utf8_lossy(&line).trim_end().to_owned());
    }
}

/// Lines of a dead program that are shown.
const LINES_KEPT: usize = 12;
const LINE_BYTES_MAX: u64 = 16 << 10;
/// Lines of a program that ended arrive within this, or never.
const READ_WAIT: Duration = Duration::from_millis(500);
/// The gateway finishes what is in flight before it ends.
const STOP_WAIT: Duration = Duration::from_secs(10);
/// A Unix socket's path has at most 107 bytes; programs add about 30 below this directory.
const TEMPORARY_BYTES_MAX: usize = 50;

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, logs: &Path) -> Program {
        let arguments = ["-c".into(), script.into()];
        Program::start(Path::new("/bin/sh"), &arguments, logs, false).unwrap()
    }

    #[test]
    fn missing_programs_are_named_with_how_to_build_them() {
        let directory = tempfile::tempdir().unwrap();
        File::create(directory.path().join("bield-keys")).unwrap();
        let failure = Programs::in_directory(directory.path()).err().unwrap();
        assert!(
            failure
                .message()
                .contains("bield-gateway, bield-runtime not found")
        );
        assert!(failure.message().contains("cargo build --release"));
    }

    #[test]
    fn a_program_that_dies_is_reported_with_its_last_lines() {
        let logs = tempfile::tempdir().unwrap();
        let mut program = shell(
            "echo first >&2; echo the port is in use >&2; exit 2",
            logs.path(),
        );
        let failure = loop {
            match program.check_alive() {
                Ok(()) => thread::sleep(Duration::from_millis(5)),
                Err(failure) => break failure,
            }
        };
        assert!(
            failure.message().contains("sh ended: exit status: 2"),
            "{}",
            failure.message()
        );
        assert!(failure.message().ends_with("  first\n  the port is in use"));
        let log = fs::read_to_string(logs.path().join("sh.log")).unwrap();
        assert_eq!(log, "first\nthe port is in use\n");
    }

    #[test]
    fn a_running_program_is_stopped_when_asked() {
        let logs = tempfile::tempdir().unwrap();
        let mut program = shell("exec sleep 600", logs.path());
        program.check_alive().unwrap();
        program.stop();
        assert!(program.check_alive().is_err());
    }

    #[test]
    fn a_program_whose_child_lives_on_is_still_reported() {
        let logs = tempfile::tempdir().unwrap();
        let mut program = shell("sleep 3 & echo gone >&2; exit 1", logs.path());
        let begun = Instant::now();
        while program.check_alive().is_ok() {
            thread::sleep(Duration::from_millis(5));
        }
        assert!(begun.elapsed() < Duration::from_secs(3));
    }

    #[test]
    fn sockets_have_short_paths_in_a_private_directory() {
        use std::os::unix::fs::MetadataExt as _;

        let scratch = Scratch::make().unwrap();
        assert!(scratch.socket().as_os_str().len() < 90);
        assert_eq!(scratch.path().metadata().unwrap().mode() & 0o777, 0o700);
        let path = scratch.path().to_owned();
        drop(scratch);
        assert!(!path.exists());
    }
}
