//! Started programs, with all they say in files.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::wait_until;

/// A running program. Dropping it kills it.
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command` with both its outputs going to the file `log`, after what is there.
    ///
    /// # Errors
    /// It does not start, or the file cannot be written.
    pub fn start(command: &mut Command, log: &Path) -> anyhow::Result<Self> {
        let out = File::options().create(true).append(true).open(log);
        let out = out.with_context(|| log.display().to_string())?;
        let child = command
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .with_context(|| format!("{command:?}"))?;
        Ok(Self {
            child,
            log: log.to_owned(),
        })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// All it has said.
    pub fn said(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Waits for a line that starts with `word` and returns the rest of the latest one.
    ///
    /// # Errors
    /// It ended or `wait` passed before it said so; quotes what it said instead.
    pub fn says(&mut self, word: &str, wait: Duration) -> anyhow::Result<String> {
        let mut found = None;
        let mut ended = None;
        wait_until(wait, || {
            // First the end, then what was said: the last words of a program that ended count.
            ended = self.child.try_wait().ok().flatten();
            let said = self.said();
            let mut lines = said.lines().rev();
            found = lines.find_map(|line| Some(line.strip_prefix(word)?.trim().to_owned()));
            found.is_some() || ended.is_some()
        });
        found.with_context(|| match ended {
            Some(status) => format!("it ended with {status}: {}", self.said()),
            None => format!("it did not say `{word}` within {wait:?}: {}", self.said()),
        })
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// It did not end within `wait`.
    pub fn ends(&mut self, wait: Duration) -> anyhow::Result<ExitStatus> {
        let mut ended = None;
        wait_until(wait, || {
            ended = self.child.try_wait().ok().flatten();
            ended.is_some()
        });
        ended.with_context(|| format!("it did not end within {wait:?}: {}", self.said()))
    }

    /// Asks it to stop, as an operator does (SIGTERM), and waits for its end.
    ///
    /// # Errors
    /// It did not end within 10 s.
    pub fn stop(&mut self) -> anyhow::Result<ExitStatus> {
        signal(self.pid(), Signal::TERM)?;
        self.ends(Duration::from_secs(10))
    }

    /// The child process of it that runs the program `name`.
    ///
    /// # Errors
    /// There is none, or more than one.
    pub fn child(&self, name: &str) -> anyhow::Result<u32> {
        let found = children(self.pid(), name);
        ensure!(found.len() == 1, "{} children named {name}", found.len());
        Ok(found[0])
    }

    /// Kills the child process that runs the program `name`, without a warning.
    ///
    /// # Errors
    /// See [`child`](Self::child).
    pub fn kill_child(&self, name: &str) -> anyhow::Result<()> {
        signal(self.child(name)?, Signal::KILL)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Ended already, or ends now; either way it is reaped here.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The children of the process `parent` that run the program `name` (its first 15 bytes).
pub fn children(parent: u32, name: &str) -> Vec<u32> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        // proc(5): pid (comm) state ppid …, and comm may hold spaces and parentheses.
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let Some((head, tail)) = stat.rsplit_once(')') else {
            continue;
        };
        let is_child = tail.split_whitespace().nth(1) == Some(&parent.to_string());
        let is_named = head.split_once('(').is_some_and(|(_, comm)| comm == name);
        if is_child && is_named {
            found.push(pid);
        }
    }
    found
}

pub(crate) fn signal(pid: u32, signal: Signal) -> anyhow::Result<()> {
    let raw = i32::try_from(pid).ok().and_then(Pid::from_raw);
    Ok(kill_process(raw.context("a process id")?, signal)?)
}
