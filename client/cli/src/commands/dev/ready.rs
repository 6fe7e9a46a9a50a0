//! Waiting until a deployment can be used.
//!
//! In: the started programs. Out: that the gateway takes calls, or that somebody wants to stop. Always true: a program that
//! dies meanwhile is reported; people who bring shares of a key service are waited for without end.

use std::time::{Duration, Instant};

use bield_sdk::Gateway;

use super::program::Program;
use super::stop::{Event, Events};
use super::{Dev, POLL};
use crate::failure::Failure;
use crate::output::Output;
use crate::progress;

impl Dev {
    /// `false` when told to stop meanwhile.
    pub(super) fn wait_until_ready(
        &self,
        running: &mut [Program],
        events: &Events,
        output: Output,
    ) -> Result<bool, Failure> {
        let spinner = progress::spinner("starting the key service and the runtimes");
        let ready = self.poll_until_ready(running, events, || {
            let dir = self.dir.display();
            spinner.suspend(|| {
                output.note(format_args!(
                    "the key service waits for its holders' shares: bield --home {dir}/administrator recover give"
                ));
            });
        });
        spinner.finish_and_clear();
        ready
    }

    /// Calls `recovering` once, should the key service wait for people: they take as long as they take.
    fn poll_until_ready(
        &self,
        running: &mut [Program],
        events: &Events,
        recovering: impl FnOnce(),
    ) -> Result<bool, Failure> {
        let gateway = Gateway::new(&format!("http://{}", self.listen));
        let mut until = Instant::now() + READY_WAIT;
        let mut recovering = Some(recovering);
        while !gateway.is_ready() {
            if gateway
                .status()
                .is_ok_and(|status| waits_for_shares(&status))
            {
                until = Instant::now() + READY_WAIT;
                if let Some(tell) = recovering.take() {
                    tell();
                }
            }
            running.iter_mut().try_for_each(Program::check_alive)?;
            if Instant::now() > until {
                let seconds = READY_WAIT.as_secs();
                return Err(running[0].failure(&format!("is not ready after {seconds} s")));
            }
            if matches!(events.wait(POLL), Event::Stop) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Whether a gateway's status says that its key service is to be recovered.
fn waits_for_shares(status: &serde_json::Value) -> bool {
    status["key_service"]["report"]["state"] == "recovering"
}

/// A debug build of the key service and runtimes on a loaded machine takes some seconds.
const READY_WAIT: Duration = Duration::from_secs(120);

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_a_key_service_that_waits_for_shares_is_waited_for_without_end() {
        let status = |state: &str| json!({ "key_service": { "report": { "state": state } } });
        assert!(waits_for_shares(&status("recovering")));
        for other in [
            status("forming"),
            status("serving"),
            json!({ "key_service": null }),
        ] {
            assert!(!waits_for_shares(&other), "{other}");
        }
    }
}
