//! One running key service, as its operator sees it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::Signal;
use serde_json::Value;

use crate::process::signal;
use crate::{Process, children, wait_until};

/// A gateway that runs a key service and nothing else.
pub struct Instance {
    /// The gateway.
    pub process: Process,
    /// Where its log lies.
    pub storage: PathBuf,
    /// `http://127.0.0.1:…`
    pub url: String,
    /// Its port for attested sessions.
    pub keys: SocketAddr,
}

impl Instance {
    /// What `/readyz` says: status and text.
    ///
    /// # Errors
    /// Nobody answers.
    pub fn readyz(&self) -> anyhow::Result<(u16, String)> {
        self.get("/readyz")
    }

    /// The word for what its key service does: `serving`, `following`, `forming`, `recovering`, `stopped`; empty when
    /// nobody says.
    pub fn state(&self) -> String {
        let status = self.get("/v1/status").map(|(_, text)| text);
        let status: Value = serde_json::from_str(&status.unwrap_or_default()).unwrap_or_default();
        let state = &status["key_service"]["report"]["state"];
        state.as_str().unwrap_or_default().to_owned()
    }

    /// Waits until it is in this state.
    ///
    /// # Errors
    /// It is not within `wait`; quotes what it said.
    pub fn becomes(&self, state: &str, wait: Duration) -> anyhow::Result<()> {
        let mut found = String::new();
        let is = wait_until(wait, || {
            found = self.state();
            found == state
        });
        anyhow::ensure!(is, "{found:?}, not {state:?}: {}", self.process.said());
        Ok(())
    }

    /// The body of a page of its gateway.
    ///
    /// # Errors
    /// Nobody answers.
    pub fn get(&self, path: &str) -> anyhow::Result<(u16, String)> {
        let config = ureq::Agent::config_builder().http_status_as_error(false);
        let config = config.timeout_global(Some(Duration::from_secs(5)));
        let agent = config.proxy(None).build().new_agent();
        let url = format!("{}{path}", self.url);
        let mut answer = agent.get(&url).call().context(url)?;
        let status = answer.status().as_u16();
        Ok((status, answer.body_mut().read_to_string()?))
    }

    /// Takes the power away: gateway and key service are gone at once, nothing is finished.
    ///
    /// # Errors
    /// They were gone already.
    pub fn power_off(mut self) -> anyhow::Result<PathBuf> {
        let keys = children(self.process.pid(), "bield-keys");
        signal(self.process.pid(), Signal::KILL)?;
        for keys in keys {
            // It may have ended by itself as soon as its gateway was gone.
            let _ = signal(keys, Signal::KILL);
        }
        self.process.ends(Duration::from_secs(10))?;
        Ok(self.storage.clone())
    }

    /// Asks it to stop, as an operator does.
    ///
    /// # Errors
    /// It does not end with exit code 0.
    pub fn stop(mut self) -> anyhow::Result<PathBuf> {
        let ended = self.process.stop()?;
        anyhow::ensure!(ended.code() == Some(0), "{ended}: {}", self.process.said());
        Ok(self.storage.clone())
    }

    pub(crate) fn http(&self) -> anyhow::Result<SocketAddr> {
        Ok(self.url.trim_start_matches("http://").parse()?)
    }
}
