//! Gateways and workers beside a stack's own, of its code or of another, on its packages and its key service.

use std::fs;
use std::process::Command;

use anyhow::Context as _;
use bield_evidence::Measurement;
use bield_protocol::configuration::KeyServiceConfiguration;

use super::{Gateway, Stack, gateway_command, measure, runtime_configuration};
use crate::gather;

impl Stack {
    /// A second gateway, whose runtime has another configuration and uses this stack's key service.
    ///
    /// # Errors
    /// It does not start.
    pub fn gateway_with_other_runtime(&self) -> anyhow::Result<(Gateway, Measurement)> {
        let config = runtime_configuration(&self.root, &self.keys_code, 2)?;
        let file = self.host().join("runtime-other.toml");
        fs::write(&file, &config)?;
        let code = measure(&self.programs().join("bield-runtime"), &config)?;
        let keys = self.gateway.keys.as_ref().context("a key service")?;
        let mut command = gateway_command(self.host(), self.programs(), &file);
        command.arg("--key-service").arg(keys);
        let log = self.host().join("logs/gateway-other.log");
        Ok((Gateway::start(&mut command, &log)?, code))
    }

    /// Another gateway in front of the same code, with this stack's packages and key service, and further arguments; `name`
    /// names its log.
    ///
    /// # Errors
    /// It does not start.
    pub fn gateway_with(&self, name: &str, more: &[&str]) -> anyhow::Result<Gateway> {
        let keys = self.gateway.keys.as_ref().context("a key service")?;
        let config = self.host().join("runtime.toml");
        let mut command = gateway_command(self.host(), self.programs(), &config);
        command.arg("--key-service").arg(keys).args(more);
        let log = self.host().join(format!("logs/{name}.log"));
        Gateway::start(&mut command, &log)
    }

    /// Another gateway over these workers (`host:port`), which it does not run; `name` names its log.
    ///
    /// # Errors
    /// It does not start.
    pub fn gateway_over(&self, name: &str, workers: &[&str]) -> anyhow::Result<Gateway> {
        let keys = self.gateway.keys.as_ref().context("a key service")?;
        let mut command = Command::new(self.programs().join("bield-gateway"));
        command.args(["--listen", "127.0.0.1:0", "--drain-secs", "2"]);
        command.args(["--tee", "none", "--key-service", keys]);
        for worker in workers {
            command.args(["--worker-address", worker]);
        }
        Gateway::start(&mut command, &self.host().join(format!("logs/{name}.log")))
    }

    /// Another gateway, whose workers an OpenWhisk platform runs at `host` for the account `key`; `name` names its log.
    ///
    /// # Errors
    /// It does not start.
    pub fn gateway_on_platform(
        &self,
        name: &str,
        host: &str,
        key: &str,
    ) -> anyhow::Result<Gateway> {
        let auth = self.host().join(format!("{name}.auth"));
        fs::write(&auth, key)?;
        let keys = self.gateway.keys.as_ref().context("a key service")?;
        let mut command = Command::new(self.programs().join("bield-gateway"));
        command.env("RUST_LOG", "trace");
        command.args(["--listen", "127.0.0.1:0", "--drain-secs", "2"]);
        command.args(["--tee", "none", "--key-service", keys]);
        command.args(["--openwhisk-host", host.trim_start_matches("http://")]);
        command.arg("--openwhisk-auth-file").arg(auth);
        command.args(["--openwhisk-image", "bield/worker:1"]);
        Gateway::start(&mut command, &self.host().join(format!("logs/{name}.log")))
    }

    /// A worker of the same code (`bield-worker`), with this stack's packages and key service, and further arguments; `name`
    /// names its log. The URL is that of its one port.
    ///
    /// # Errors
    /// It does not start.
    pub fn worker_with(&self, name: &str, more: &[&str]) -> anyhow::Result<Gateway> {
        let program = self.programs().join("bield-worker");
        if !program.exists() {
            gather(&["bield-worker"], self.programs())?;
        }
        let keys = self.gateway.keys.as_ref().context("a key service")?;
        let mut command = Command::new(program);
        command
            .env("RUST_LOG", "trace")
            .env_remove("BIELD_ONNXRUNTIME");
        command.args(["--listen", "127.0.0.1:0", "--drain-secs", "2"]);
        command.arg("--key-service").arg(keys);
        command.arg("--tee").arg(format!(
            "software:{}",
            self.host().join("machine.sock").display()
        ));
        let host = self.host();
        command
            .arg("--runtime-config")
            .arg(host.join("runtime.toml"));
        command.arg("--packages").arg(host.join("packages"));
        command.arg("--record").arg(host.join("record"));
        command.arg("--run-directory").arg(host.join("run"));
        let log = host.join(format!("logs/{name}.log"));
        Gateway::start(command.args(more), &log)
    }

    /// A second gateway with a key service of its own, of another configuration, and a runtime of this stack's.
    ///
    /// # Errors
    /// It does not start.
    pub fn gateway_with_other_keys(&self) -> anyhow::Result<(Gateway, Measurement)> {
        let own = fs::read_to_string(self.host().join("keys.toml"))?;
        let mut config = KeyServiceConfiguration::parse(&own)?;
        config.sessions_max += 1;
        let config = toml::to_string(&config)?;
        let file = self.host().join("keys-other.toml");
        fs::write(&file, &config)?;
        let code = measure(&self.programs().join("bield-keys"), &config)?;
        let runtime = self.host().join("runtime.toml");
        let mut command = gateway_command(self.host(), self.programs(), &runtime);
        command.args(["--keys-listen", "127.0.0.1:0"]);
        command.arg("--keys-config").arg(file);
        command
            .arg("--storage")
            .arg(self.host().join("storage-other"));
        let log = self.host().join("logs/gateway-other-keys.log");
        Ok((Gateway::start(&mut command, &log)?, code))
    }
}
