//! One sealed call in its parts: what the SDK does in one step, with a clock between the steps.
//!
//! ```text
//! tensors ─seal─▶ bytes ─carry─▶ [ lease · open · load · queue · run · rest ] ─carry─▶ answer ─unseal─▶ tensors
//!                         └ HTTP and gateway, or the door alone  └ the runtime's own word
//! ```

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use bield_end_to_end::{Letter, Package, Person};
use bield_evidence::{HardeningDemand, Profile, Reference};
use bield_launcher::Enclave;
use bield_protocol::call::Reply;
use bield_protocol::service::KeyConfiguration;
use bield_receipt::{Anchor, Expected, ExpectedOutput, ReceiptBundle, verify};
use bield_sdk::{Tensor, now};
use serde_json::Value;
use ureq::Agent;

use crate::deployment::Deployment;

/// How long a call may take here.
const WAIT: Duration = Duration::from_secs(120);

/// What one call consisted of, in milliseconds.
#[derive(Clone, Default)]
pub(crate) struct Parts {
    /// As the runtime names it.
    pub(crate) start: String,
    /// Encoding and sealing the request.
    pub(crate) seal: f64,
    /// On the way there and back.
    pub(crate) carry: f64,
    /// Fetching the lease.
    pub(crate) lease: f64,
    /// Opening the package.
    pub(crate) open: f64,
    /// Loading the model into the engine.
    pub(crate) load: f64,
    /// Waiting for others.
    pub(crate) queue: f64,
    /// Running the model.
    pub(crate) run: f64,
    /// The runtime's other work: parse, open, admit, commit, sign, seal.
    pub(crate) rest: f64,
    /// Opening the answer, verifying its receipt.
    pub(crate) unseal: f64,
}

impl Parts {
    /// Names of [`Parts::values`].
    pub(crate) const NAMES: [&'static str; 9] = [
        "seal", "carry", "lease", "open", "load", "queue", "run", "rest", "unseal",
    ];

    /// In the order in which they happen, more or less.
    pub(crate) fn values(&self) -> [f64; 9] {
        [
            self.seal,
            self.carry,
            self.lease,
            self.open,
            self.load,
            self.queue,
            self.run,
            self.rest,
            self.unseal,
        ]
    }

    /// What the user waited.
    pub(crate) fn total(&self) -> f64 {
        self.values().iter().sum()
    }
}

/// Somebody who calls a package.
pub(crate) struct Caller<'a> {
    user: &'a Person,
    to: KeyConfiguration,
    anchor: Anchor,
    agent: Agent,
    url: String,
}

impl<'a> Caller<'a> {
    /// Asks the key service for the key to seal to.
    pub(crate) fn of(deployment: &Deployment, package: &Package, user: &'a Person) -> Result<Self> {
        let to = user.key_configuration(package)?;
        let anchor = Anchor {
            service: to.service,
            code: Reference::Listed(vec![to.code.measurement.clone()]),
            allow_simulated: true,
            hardening: HardeningDemand::of(Profile::Dev),
        };
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(WAIT))
            .proxy(None);
        Ok(Self {
            user,
            to,
            anchor,
            agent: config.build().new_agent(),
            url: format!("{}/v1/call", deployment.url),
        })
    }

    /// Calls through the gateway.
    pub(crate) fn call(&self, inputs: &[Tensor]) -> Result<(Vec<Tensor>, Parts)> {
        self.carried(inputs, |bytes| {
            let answer = self.agent.post(&self.url).send(bytes)?;
            let (head, mut body) = answer.into_parts();
            let body = body.with_config().limit(1 << 30).read_to_vec()?;
            let status = head.status.as_u16();
            ensure!(
                status == 200,
                "{status}: {}",
                String::from_utf8_lossy(&body)
            );
            let feedback = head.headers.get("bield-feedback");
            let feedback = feedback.context("an answer without feedback")?;
            Ok((serde_json::from_slice(feedback.as_bytes())?, body))
        })
    }

    /// Calls a runtime that this process started, through its door alone.
    pub(crate) fn call_door(
        &self,
        enclave: &Enclave,
        inputs: &[Tensor],
    ) -> Result<(Vec<Tensor>, Parts)> {
        self.carried(inputs, |bytes| {
            match Reply::decode(&enclave.call(bytes, WAIT)?)? {
                Reply::Sealed(feedback, answer) => Ok((serde_json::to_value(feedback)?, answer)),
                Reply::Unsealed(_, unsealed) => bail!("{}: {}", unsealed.code, unsealed.message),
                _ => bail!("a reply of an unknown kind"),
            }
        })
    }

    fn carried(
        &self,
        inputs: &[Tensor],
        carry: impl FnOnce(&[u8]) -> Result<(Value, Vec<u8>)>,
    ) -> Result<(Vec<Tensor>, Parts)> {
        let inputs = inputs.to_vec();
        let started = Instant::now();
        let letter = Letter::seal(&self.to, &self.user.key, inputs, now())?;
        let seal = milliseconds(started);

        let started = Instant::now();
        let (feedback, body) = carry(&letter.bytes)?;
        let carried = milliseconds(started);

        let started = Instant::now();
        let answer = bield_end_to_end::Answer {
            status: 200,
            retry_after: None,
            feedback: Value::Null,
            body,
        };
        let answer = match letter.open(&answer)? {
            Ok(answer) => answer,
            Err(refusal) => bail!("refused: {refusal}"),
        };
        let expected = Expected {
            request: None,
            package: Some(self.to.package),
            output: Some(ExpectedOutput {
                salt: &answer.salt,
                output: &answer.output,
            }),
            ..Expected::default()
        };
        let bundle = ReceiptBundle::new(answer.receipt.clone(), answer.certificate.clone(), None);
        verify(&bundle, &self.anchor, expected, now())?;
        let tensors = answer.output()?.tensors;
        let unseal = milliseconds(started);

        let told = |name: &str| feedback[name].as_f64().unwrap_or(f64::NAN) / 1e3;
        let [lease, open, load, queue, run] =
            ["lease_us", "open_us", "load_us", "queue_us", "run_us"].map(told);
        let inside = told("total_us");
        let parts = Parts {
            start: feedback["start"].as_str().unwrap_or_default().to_owned(),
            rest: inside - (lease + open + load + queue + run),
            carry: carried - inside,
            seal,
            lease,
            open,
            load,
            queue,
            run,
            unseal,
        };
        Ok((tensors, parts))
    }
}

/// Milliseconds since `started`.
pub(crate) fn milliseconds(started: Instant) -> f64 {
    started.elapsed().as_secs_f64() * 1e3
}
