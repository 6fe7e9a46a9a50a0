//! A new user's terminal: a folder, no home, `bield` on the path; README commands are run in it as they are typed.
//!
//! ```text
//! line ─┬─ npm install, pip install, rustup target add …: what they would bring is at hand, and linked
//!       ├─ bield dev …: in the background, on ports that are free, until it is ready
//!       └─ anything else: by sh, with `sgx:...` replaced by the code that `bield dev` printed
//! ```
//!
//! Always true: nothing else is changed in a line; a line that is none of these is a failure.

use std::env;
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::process::signal;
use crate::{SERVERS, Typed, gather, wait_until};

/// The terminal, and what it runs in the background.
pub struct Terminal {
    place: TempDir,
    folder: PathBuf,
    dev: Option<Dev>,
}

/// A running `bield dev`, which ends with its standard input.
struct Dev {
    child: Child,
    stdin: Option<ChildStdin>,
    code: String,
}

impl Drop for Dev {
    fn drop(&mut self) {
        drop(self.stdin.take());
        if !wait_until(Duration::from_secs(20), || {
            matches!(self.child.try_wait(), Ok(Some(_)))
        }) {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}

impl Terminal {
    /// In an empty folder.
    ///
    /// # Errors
    /// A program is missing.
    pub fn new() -> anyhow::Result<Self> {
        let place = TempDir::new()?;
        let programs = place.path().join("bin");
        fs::create_dir(&programs)?;
        gather(&SERVERS, &programs)?;
        gather(&["bield"], &programs)?;
        let folder = place.path().join("folder");
        fs::create_dir(&folder)?;
        Ok(Self {
            place,
            folder,
            dev: None,
        })
    }

    /// In a copy of a folder, without what was built or installed in it.
    ///
    /// # Errors
    /// As [`new`](Self::new); the folder cannot be read.
    pub fn in_copy_of(from: &Path) -> anyhow::Result<Self> {
        let terminal = Self::new()?;
        copy(from, &terminal.folder)?;
        Ok(terminal)
    }

    /// Where it is.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Goes into a folder below.
    pub fn enter(&mut self, name: &str) {
        self.folder.push(name);
    }

    /// Types every command of a README, and compares what it prints with what is shown.
    ///
    /// # Errors
    /// A command fails, is not known here, or prints something else.
    pub fn follow(&mut self, readme: &[Typed]) -> anyhow::Result<()> {
        for typed in readme {
            let printed = self
                .type_line(&typed.line)
                .with_context(|| format!("$ {}\n{}", typed.line, self.said()))?;
            ensure!(
                typed.prints_as_shown(&printed),
                "$ {}\nprints:\n{printed}\nand not:\n{}\n{}",
                typed.line,
                typed.prints.as_deref().unwrap_or_default(),
                self.said()
            );
        }
        Ok(())
    }

    /// Types one command; what it prints.
    ///
    /// # Errors
    /// As [`follow`](Self::follow).
    pub fn type_line(&mut self, line: &str) -> anyhow::Result<String> {
        if let Some((line, folder)) = line.split_once(" && cd ") {
            let printed = self.type_line(line)?;
            ensure!(self.folder.join(folder).is_dir(), "no folder {folder}");
            self.enter(folder);
            return Ok(printed);
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["npm", "install"] => {
                let tools = tools("BIELD_GUESTS_TOOLS")?;
                let modules = tools.parent().context("it is in node_modules")?;
                symlink(modules, self.folder.join("node_modules"))?;
                Ok(String::new())
            }
            ["python3", "-m", "venv", ..] | ["pip", "install", ..] => {
                let wanted = fs::read_to_string(self.folder.join("requirements.txt"));
                let variable = match wanted?.contains("componentize-py") {
                    true => "BIELD_GUESTS_PYTHON",
                    false => "BIELD_C_TOOLS",
                };
                tools(variable).map(|_| String::new())
            }
            ["rustup", "target", "add", target] => {
                ensure!(has_target(target)?, "rustc has no target {target}");
                Ok(String::new())
            }
            ["cargo", "xtask", "model", file] => {
                let model = tools("BIELD_MODEL_MAGIKA")?;
                fs::copy(model, self.folder.join(file))?;
                Ok(String::new())
            }
            ["bield", "dev", ref rest @ ..] => {
                self.dev = None;
                // A function that is deployed says how it is called.
                let last = match rest.contains(&"--function") {
                    true => ": bield call ",
                    false => READY,
                };
                self.dev = Some(self.develop(rest, last)?);
                Ok(String::new())
            }
            ["bield" | "npm" | "sh", ..] => self.run(line),
            _ => bail!("nobody here knows how to type this"),
        }
    }

    /// All that `bield dev` has said.
    #[must_use]
    pub fn said(&self) -> String {
        let read = |name: &str| fs::read_to_string(self.place.path().join(name));
        format!(
            "{}{}",
            read("dev.out").unwrap_or_default(),
            read("dev.err").unwrap_or_default()
        )
    }

    /// Waits until `bield dev` has said something.
    ///
    /// # Errors
    /// It ended, or does not say it within two minutes.
    pub fn hears(&mut self, words: &str) -> anyhow::Result<()> {
        let heard = wait_until(Duration::from_secs(120), || self.said().contains(words));
        ensure!(heard, "bield dev did not say {words:?}: {}", self.said());
        Ok(())
    }

    /// Types `bield dev` with these arguments, and waits only until it has said `words`, and the code that it runs.
    ///
    /// # Errors
    /// As [`hears`](Self::hears).
    pub fn begins(&mut self, arguments: &[&str], words: &str) -> anyhow::Result<()> {
        self.dev = None;
        self.dev = Some(self.develop(arguments, words)?);
        Ok(())
    }

    /// Asks `bield dev` to end, as an operator does (SIGTERM), and waits until it has.
    ///
    /// # Errors
    /// It does not run, or did not end within 20 s.
    pub fn terminates(&mut self) -> anyhow::Result<ExitStatus> {
        let mut dev = self.dev.take().context("`bield dev` does not run")?;
        signal(dev.child.id(), Signal::TERM)?;
        let mut ended = None;
        wait_until(END_WAIT, || {
            ended = dev.child.try_wait().ok().flatten();
            ended.is_some()
        });
        ended.with_context(|| format!("bield dev does not end: {}", self.said()))
    }

    fn run(&self, line: &str) -> anyhow::Result<String> {
        let code = self.dev.as_ref().map(|dev| &dev.code);
        let line = match (line.contains(CODE), code) {
            (true, Some(code)) => line.replace(CODE, code),
            (true, None) => bail!("`bield dev` has printed no code yet"),
            (false, _) => line.to_owned(),
        };
        let ran = self.shell().arg("-c").arg(line).output()?;
        ensure!(
            ran.status.success(),
            "{}: {}{}",
            ran.status,
            String::from_utf8_lossy(&ran.stdout),
            String::from_utf8_lossy(&ran.stderr)
        );
        Ok(String::from_utf8_lossy(&ran.stdout).into_owned())
    }

    fn shell(&self) -> Command {
        let mut shell = Command::new("sh");
        let mut path = vec![self.place.path().join("bin")];
        for tools in ["BIELD_C_TOOLS", "BIELD_GUESTS_PYTHON"] {
            path.extend(env::var_os(tools).map(PathBuf::from));
        }
        path.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
        if let Ok(path) = env::join_paths(path) {
            shell.env("PATH", path);
        }
        shell.current_dir(&self.folder).env_remove("BIELD_HOME");
        shell
    }

    fn develop(&self, arguments: &[&str], last: &str) -> anyhow::Result<Dev> {
        let (out, err) = (
            self.place.path().join("dev.out"),
            self.place.path().join("dev.err"),
        );
        let mut shell = self.shell();
        shell.arg("-c").arg(format!(
            "exec bield dev --until-stdin-ends --listen 127.0.0.1:0 --keys-listen 127.0.0.1:0 {}",
            arguments.join(" ")
        ));
        let mut child = shell
            .stdin(Stdio::piped())
            .stdout(File::create(&out)?)
            .stderr(File::create(&err)?)
            .spawn()?;
        let mut dev = Dev {
            stdin: child.stdin.take(),
            child,
            code: String::new(),
        };
        let ready = wait_until(START_WAIT, || {
            let said = self.said();
            (said.contains(READY) && said.contains(last))
                || matches!(dev.child.try_wait(), Ok(Some(_)))
        });
        let said = self.said();
        ensure!(ready && said.contains(last), "bield dev: {said}");
        let runtime = said
            .lines()
            .find(|line| line.trim_start().starts_with("runtime"));
        let code = runtime.and_then(|line| line.split_whitespace().last());
        dev.code = code
            .filter(|code| code.starts_with("sgx:"))
            .context("the runtime's code")?
            .to_owned();
        Ok(dev)
    }
}

/// Whether rustc has the standard library of a target, as rustup adds it.
///
/// # Errors
/// There is no rustc.
pub fn has_target(target: &str) -> anyhow::Result<bool> {
    let mut rustc = Command::new("rustc");
    let asked = rustc.args(["--print", "target-libdir", "--target", target]);
    let printed = asked.output()?.stdout;
    Ok(Path::new(String::from_utf8_lossy(&printed).trim()).is_dir())
}

/// What a test needs beside the programs.
fn tools(variable: &str) -> anyhow::Result<PathBuf> {
    let found = env::var_os(variable).map(PathBuf::from);
    found.with_context(|| format!("{variable}: `cargo xtask test` says it"))
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let (path, name) = entry.map(|entry| (entry.path(), entry.file_name()))?;
        let text = name.to_string_lossy();
        let made = text.starts_with(".bield")
            || text == "node_modules"
            || text.ends_with(".wasm")
            || text.ends_with(".bield");
        match (made, path.is_dir()) {
            (true, _) => {}
            (false, true) => copy(&path, &to.join(name))?,
            (false, false) => drop(fs::copy(&path, to.join(name))?),
        }
    }
    Ok(())
}

/// What `bield dev` ends with when everything runs.
const READY: &str = "Ctrl-C stops everything";
/// The gateway finishes what is in flight.
const END_WAIT: Duration = Duration::from_secs(20);
/// How READMEs write the code that `bield dev` prints.
const CODE: &str = "sgx:...";
/// A stack of unoptimised programs, and a function compiled by them, on a machine that also compiles.
const START_WAIT: Duration = Duration::from_secs(180);
