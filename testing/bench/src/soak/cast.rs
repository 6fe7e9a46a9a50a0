//! Who takes part: a deployment with too little memory, models with known answers, users of every isolation.

use std::fs;
use std::path::Path;

use anyhow::Result;
use bield_end_to_end::{Package, Person};
use bield_engine::{Engine as _, Rten};
use bield_fixtures::{IMAGE_SHAPE, Network, input_image};
use bield_grant::Isolation;
use bield_package::ModelFormat;
use bield_package::onnx::Signature;
use bield_package::prepared::RtenFile;
use bield_sdk::Tensor;

use super::{CALL_MS, QUEUE_MS};
use crate::bars;
use crate::deployment::{Deployment, ModelFile, Setup};

/// Inputs with known answers, of each model.
const QUESTIONS: u64 = 8;
/// Room for two of the four networks.
const MODELS_MIB: u64 = 40;
/// Networks and small models, each a package of its own.
const NETWORKS: usize = 4;
const SMALL: usize = 4;

/// Kinds of users, and how many of each.
pub(super) const KINDS: [(&str, Isolation, usize); 3] = [
    ("shared", Isolation::Shared, 3),
    ("wiped", Isolation::Wiped, 2),
    ("dedicated", Isolation::Dedicated, 1),
];

/// Everybody, and what they know.
pub(super) struct Cast {
    pub(super) deployment: Deployment,
    pub(super) packages: Vec<Package>,
    pub(super) users: Vec<User>,
    /// Of networks and of small models: inputs and what the engine in this process answers.
    network: Vec<(Tensor, Vec<f32>)>,
    small: Vec<(Tensor, Vec<f32>)>,
}

/// Somebody who calls.
pub(super) struct User {
    pub(super) name: String,
    pub(super) person: Person,
    /// Calls now and then rather than all the time.
    pub(super) is_rare: bool,
}

impl Cast {
    /// Starts the deployment, publishes the packages and grants them.
    pub(super) fn gather(programs: &Path) -> Result<Self> {
        let folder = bars::folder(programs).with_file_name("bench-models");
        fs::create_dir_all(&folder)?;
        let deployment = Deployment::start(&Setup {
            concurrency: 2,
            models_mib_max: MODELS_MIB,
            lease_secs: 20,
            queue_ms_max: QUEUE_MS,
            call_ms: CALL_MS,
            workers: 2,
            ..Setup::default()
        })?;
        let onnx = bield_fixtures::mobilenet_v1();
        let rten = bield_fixtures::rten(Network::MobilenetV1);
        let network = ModelFile {
            path: folder.join("soak-network.rten"),
            format: ModelFormat::Rten,
            signature: RtenFile::read(&rten)?.signature_from(Signature::read(&onnx)?)?,
        };
        fs::write(&network.path, &rten)?;
        let tiny = bield_fixtures::tiny_model();
        let small = ModelFile {
            path: folder.join("soak-small.onnx"),
            format: ModelFormat::Onnx,
            signature: Signature::read(&tiny)?,
        };
        fs::write(&small.path, &tiny)?;

        let mut packages = Vec::new();
        for number in 0..NETWORKS + SMALL {
            let model = if number < NETWORKS { &network } else { &small };
            packages.push(deployment.publish(&format!("soak-{number}"), model)?);
        }
        let mut users = Vec::new();
        for (kind, isolation, count) in KINDS {
            for number in 0..count {
                let person = deployment.person(&format!("{kind}-{number}"))?;
                for package in &packages {
                    deployment.grant(package, &person, isolation)?;
                }
                users.push(User {
                    name: format!("{kind} {number}"),
                    person,
                    is_rare: isolation == Isolation::Dedicated,
                });
            }
        }
        let engine = Rten::new(1);
        let model = engine.load(rten, ModelFormat::Rten)?;
        let images = (0..QUESTIONS).map(|seed| {
            let input = Tensor::from_f32("input", &IMAGE_SHAPE, &input_image(seed))?;
            let answer = model.run(std::slice::from_ref(&input), &[])?;
            Ok((input, answer[0].to_f32().unwrap_or_default()))
        });
        let network = images.collect::<Result<_>>()?;
        let model = engine.load(tiny, ModelFormat::Onnx)?;
        let rows = (0..QUESTIONS).map(|seed| {
            let numbers: Vec<f32> = input_image(seed)[..4].to_vec();
            let input = Tensor::from_f32("input", &[1, 4], &numbers)?;
            let answer = model.run(std::slice::from_ref(&input), &[])?;
            Ok((input, answer[0].to_f32().unwrap_or_default()))
        });
        let small = rows.collect::<Result<_>>()?;
        Ok(Self {
            deployment,
            packages,
            users,
            network,
            small,
        })
    }

    /// Question `number` to a package, and its answer.
    pub(super) fn question(&self, package: usize, number: u64) -> &(Tensor, Vec<f32>) {
        let questions = if package < NETWORKS {
            &self.network
        } else {
            &self.small
        };
        &questions[number as usize % questions.len()]
    }
}
