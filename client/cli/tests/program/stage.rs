//! A directory with a home in it, where `bield` is run.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

/// What one run of the program gave.
pub(crate) struct Run {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Run {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out)
            .unwrap_or_else(|_| panic!("no JSON: {}{}", self.out, self.err))
    }
}

/// A directory of its own, with the home `home`.
pub(crate) struct Stage(pub(crate) tempfile::TempDir);

impl Stage {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// An identity, and trust in a gateway where nobody listens and a key service at these ports.
    pub(crate) fn with_trust(keys: &[u16]) -> Self {
        let stage = Self::new();
        stage.write("trust.toml", trust(closed_port(), keys));
        assert_eq!(stage.run(&["init", "--trust", "trust.toml"]).code, 0);
        stage
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Run {
        let output = Command::new(env!("CARGO_BIN_EXE_bield"))
            .args(arguments)
            .current_dir(self.0.path())
            .env("BIELD_HOME", "home")
            .output()
            .unwrap();
        Run {
            code: output.status.code().unwrap(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    pub(crate) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        fs::write(self.path(name), bytes).unwrap();
    }

    /// Writes what only its owner may read, in a folder that is made if there is none.
    pub(crate) fn secret(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }
}

/// Trust in a gateway and a key service at these ports, and in [`sgx`] for both.
pub(crate) fn trust(gateway: u16, keys: &[u16]) -> String {
    let keys: Vec<_> = keys
        .iter()
        .map(|port| format!("127.0.0.1:{port}"))
        .collect();
    format!(
        "gateway = \"http://127.0.0.1:{gateway}\"\nkey_service = {keys:?}\ncode = [\"{code}\"]\n\
         [service]\nprofile = \"cloud\"\nmeasurements = [\"{code}\"]\n",
        code = sgx("ab")
    )
}

/// Code whose measurement is this byte, in hexadecimal digits, again and again.
pub(crate) fn sgx(byte: &str) -> String {
    format!("sgx:{}", byte.repeat(32))
}

/// A port on which nobody listens.
pub(crate) fn closed_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}
