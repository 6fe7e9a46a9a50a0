//! Who takes part: one model under several names, and its owner, who calls.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};
use bield_fixtures::{IMAGE_SHAPE, input_image};
use bield_load::{Arrival, Done, Ending, Pace, Trace, replay, start_kind};
use bield_package::ModelFormat;
use bield_package::onnx::Signature;
use bield_sdk::{Awaited, CallError, Gateway, Randomness, Target, Tensor, now};
use serde_json::Value;
use tempfile::TempDir;

use crate::deployment::{Deployment, ModelFile, Setup};

/// How long before its time a request is sealed at most.
const AHEAD: Duration = Duration::from_secs(5);
/// Requests under way at most.
const IN_FLIGHT: usize = 64;

/// A deployment with models that its owner calls.
pub(super) struct Cast {
    pub(super) deployment: Deployment,
    targets: Vec<Target>,
    inputs: Vec<Tensor>,
    gateway: Gateway,
}

/// What is called.
pub(super) enum Model {
    /// MobileNet v1, 17 MB, on an image.
    Network,
    /// A few numbers.
    Tiny,
}

impl Cast {
    /// Starts a deployment and publishes the model under so many names.
    pub(super) fn gather(setup: &Setup, model: &Model, names: usize) -> Result<Self> {
        let deployment = Deployment::start(setup)?;
        let folder = TempDir::new()?;
        let (bytes, inputs) = match model {
            Model::Network => {
                let name = Signature::read(&bield_fixtures::mobilenet_v1())?;
                let name = name
                    .inputs
                    .first()
                    .context("a model with an input")?
                    .name()
                    .to_owned();
                let image = Tensor::from_f32(&name, &IMAGE_SHAPE, &input_image(1))?;
                (bield_fixtures::mobilenet_v1(), vec![image])
            }
            Model::Tiny => (bield_fixtures::tiny_model(), bield_end_to_end::numbers(1)),
        };
        let path = folder.path().join("model.onnx");
        fs::write(&path, &bytes)?;
        let file = ModelFile {
            path,
            format: ModelFormat::Onnx,
            signature: Signature::read(&bytes)?,
        };
        let published = (0..names).map(|at| deployment.publish_own(&format!("model-{at}"), &file));
        let packages = published.collect::<Result<Vec<_>>>()?;
        let targets = packages
            .iter()
            .map(|package| deployment.owner.target(package));
        Ok(Self {
            targets: targets.collect::<Result<_, _>>()?,
            inputs,
            gateway: Gateway::new(&deployment.url),
            deployment,
        })
    }

    /// Seals a request for a model.
    pub(super) fn seal(&self, model: usize) -> Result<(Vec<u8>, Awaited), CallError> {
        let (key, inputs) = (&self.deployment.owner.key, self.inputs.clone());
        self.targets[model].seal_call(key, inputs, Vec::new(), now(), &mut Randomness)
    }

    /// Sends it and verifies the answer.
    pub(super) fn send(
        &self,
        model: usize,
        sealed: Result<(Vec<u8>, Awaited), CallError>,
    ) -> Ending {
        let answered = sealed
            .and_then(|(sealed, awaited)| self.targets[model].call_sealed(&sealed, awaited, now));
        match answered {
            Ok(answered) => {
                let start = answered.feedback.as_ref().map(|told| &told["start"]);
                Ending::Answered {
                    start: start.and_then(|start| start_kind(start.as_str()?)),
                }
            }
            Err(error) => Ending::Failed {
                kind: error.code().unwrap_or("other").to_owned(),
            },
        }
    }

    /// Opens an answer that came by other means, and verifies it.
    pub(super) fn open(&self, model: usize, awaited: Awaited, sealed: &[u8]) -> Result<()> {
        self.targets[model].open_answer(awaited, sealed, now)?;
        Ok(())
    }

    /// Replays a trace.
    pub(super) fn replay(&self, trace: &Trace) -> Vec<Done> {
        let pace = Pace {
            in_flight: IN_FLIGHT,
            ahead: AHEAD,
        };
        replay(
            trace,
            pace,
            |arrival: &Arrival| Ok(self.seal(arrival.model)),
            |arrival, sealed| self.send(arrival.model, sealed),
            |_| (),
        )
    }

    /// The pool, as the gateway tells.
    pub(super) fn pool(&self) -> Result<Value> {
        let pool = self.gateway.status()?["pool"].take();
        (!pool.is_null())
            .then_some(pool)
            .context("a gateway that tells nothing of its pool")
    }
}
