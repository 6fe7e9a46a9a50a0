//! Starts the real program in a directory of its own, as an ordinary user.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// The user that tests run programs as when they are root themselves: nobody.
const NOBODY: u32 = 65534;

/// A directory with a state folder and a socket, owned by the user the programs run as.
pub(crate) struct Home(TempDir);

impl Home {
    pub(crate) fn new() -> Self {
        let dir = TempDir::new().unwrap();
        give(dir.path());
        Self(dir)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.path("tee.sock")
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.path("state")
    }

    /// Copies a program here, where its user can reach it.
    pub(crate) fn install(&self, program: &Path, name: &str) -> PathBuf {
        let installed = self.path(name);
        fs::copy(program, &installed).unwrap();
        fs::set_permissions(&installed, fs::Permissions::from_mode(0o755)).unwrap();
        installed
    }

    /// Starts `bield-software-tee` and waits until it listens.
    pub(crate) fn start_tee(&self) -> Running {
        let program = self.install(Path::new(env!("CARGO_BIN_EXE_bield-software-tee")), "tee");
        let mut command = as_user(&program);
        command.arg("--state").arg(self.state());
        command.arg("--socket").arg(self.socket());
        let running = Running(command.stderr(Stdio::null()).spawn().unwrap());
        let deadline = Instant::now() + Duration::from_secs(20);
        while std::os::unix::net::UnixStream::connect(self.socket()).is_err() {
            assert!(
                Instant::now() < deadline,
                "the software TEE does not listen"
            );
            sleep(Duration::from_millis(10));
        }
        running
    }
}

/// A program that ends with the test.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs `program` as an ordinary user, who may be this one.
pub(crate) fn as_user(program: &Path) -> Command {
    let mut command = Command::new(program);
    if is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command
}

fn give(path: &Path) {
    if is_root() {
        chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
