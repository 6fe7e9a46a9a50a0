//! The models that are measured, as files in every format that an engine here takes.
//!
//! ```text
//! seeded networks ─▶ ONNX, .rten          (target/bench-models, written once)
//! magika, MiniLM  ─▶ ONNX                 (fetched by xtask, which says where)
//! any ONNX ─onnxruntime from Python─▶ .ort
//! ```

use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use bield_fixtures::{IMAGE_SHAPE, Network, input_image};
use bield_package::ModelFormat;
use bield_package::onnx::Signature;
use bield_package::prepared::{RtenFile, ort_signature};
use bield_sdk::{ElementType, Tensor};

use crate::bars;
use crate::deployment::ModelFile;

use super::peers;

/// A model.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Which {
    MobilenetV1,
    Densenet121,
    Resnet101V2,
    /// Which type of file something is.
    Magika,
    /// A sentence encoder, int8.
    Minilm,
}

impl Which {
    pub(crate) const ALL: [Self; 5] = [
        Self::MobilenetV1,
        Self::Densenet121,
        Self::Resnet101V2,
        Self::Magika,
        Self::Minilm,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::MobilenetV1 => "mobilenet_v1",
            Self::Densenet121 => "densenet121",
            Self::Resnet101V2 => "resnet101_v2",
            Self::Magika => "magika",
            Self::Minilm => "minilm",
        }
    }

    const fn network(self) -> Option<Network> {
        match self {
            Self::MobilenetV1 => Some(Network::MobilenetV1),
            Self::Densenet121 => Some(Network::Densenet121),
            Self::Resnet101V2 => Some(Network::Resnet101V2),
            Self::Magika | Self::Minilm => None,
        }
    }
}

/// An engine that models run on.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum EngineKind {
    Rten,
    Onnxruntime,
}

impl EngineKind {
    pub(crate) const ALL: [Self; 2] = [Self::Rten, Self::Onnxruntime];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Rten => "rten",
            Self::Onnxruntime => "onnxruntime",
        }
    }
}

/// A model with what is asked of it.
pub(crate) struct Subject {
    pub(crate) which: Which,
    /// The file that peers load.
    pub(crate) onnx: PathBuf,
    pub(crate) inputs: Vec<Tensor>,
    /// The inputs as files, and the list of them that the peers' scripts read.
    pub(crate) listing: PathBuf,
    folder: PathBuf,
}

impl Subject {
    /// Finds or writes the model's files; `Err` says what is missing.
    pub(crate) fn find(programs: &Path, which: Which) -> Result<Self> {
        let folder = bars::folder(programs).with_file_name("bench-models");
        fs::create_dir_all(&folder)?;
        let onnx = match which.network() {
            Some(network) => written(&folder, network)?,
            None => fetched(which)?,
        };
        let inputs = inputs(which)?;
        let listing = list(&folder, which, &inputs)?;
        Ok(Self {
            which,
            onnx,
            inputs,
            listing,
            folder,
        })
    }

    /// The file that `engine` opens fastest.
    pub(crate) fn file(&self, engine: EngineKind) -> Result<ModelFile> {
        let onnx = fs::read(&self.onnx).with_context(|| self.onnx.display().to_string())?;
        let signature = Signature::read(&onnx)?;
        let path = |ending: &str| self.folder.join(format!("{}.{ending}", self.which.name()));
        match (engine, self.which.network()) {
            (EngineKind::Rten, None) => Ok(ModelFile {
                path: self.onnx.clone(),
                format: ModelFormat::Onnx,
                signature,
            }),
            (EngineKind::Rten, Some(network)) => {
                let path = path("rten");
                if !path.exists() {
                    whole(&path, |partial| {
                        Ok(fs::write(partial, bield_fixtures::rten(network))?)
                    })?;
                }
                let bytes = fs::read(&path)?;
                Ok(ModelFile {
                    signature: RtenFile::read(&bytes)?.signature_from(signature)?,
                    format: ModelFormat::Rten,
                    path,
                })
            }
            (EngineKind::Onnxruntime, _) => {
                let path = path("ort");
                if !path.exists() {
                    whole(&path, |partial| peers::convert(&self.onnx, partial))?;
                }
                Ok(ModelFile {
                    signature: ort_signature(&fs::read(&path)?)?,
                    format: ModelFormat::Ort,
                    path,
                })
            }
        }
    }
}

/// Whether the first outputs agree as far as engines do that order their sums differently.
pub(crate) fn agree(ours: &[f32], theirs: &[f32], tolerance: f32) -> Result<()> {
    ensure!(
        ours.len() == theirs.len(),
        "{} and {} numbers",
        ours.len(),
        theirs.len()
    );
    let most = theirs.iter().fold(0_f32, |most, one| most.max(one.abs()));
    let off = ours.iter().zip(theirs).map(|(a, b)| (a - b).abs());
    let off = off.fold(0_f32, f32::max);
    ensure!(
        off <= tolerance * most,
        "the answers differ by {off} where the largest number is {most}"
    );
    Ok(())
}

fn written(folder: &Path, network: Network) -> Result<PathBuf> {
    let file = folder.join(format!("{}.onnx", network.name()));
    let there = fs::metadata(&file).is_ok_and(|meta| meta.len() == network.file_bytes());
    if !there {
        whole(&file, |partial| {
            Ok(network.write(&mut BufWriter::new(File::create(partial)?), &mut |_, _| ())?)
        })?;
    }
    Ok(file)
}

/// Writes a file that appears whole.
fn whole(path: &Path, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let partial = path.with_extension(format!("{}.unfinished", std::process::id()));
    write(&partial)?;
    Ok(fs::rename(&partial, path)?)
}

fn fetched(which: Which) -> Result<PathBuf> {
    let variable = format!("BIELD_MODEL_{}", which.name().to_uppercase());
    let path = std::env::var_os(&variable).map(PathBuf::from);
    path.with_context(|| {
        format!("{variable} names no file; `cargo xtask bench runtime` fetches it and sets it")
    })
}

fn inputs(which: Which) -> Result<Vec<Tensor>> {
    if which.network().is_some() {
        let image = Tensor::from_f32("input", &IMAGE_SHAPE, &input_image(7))?;
        return Ok(vec![image]);
    }
    if which == Which::Magika {
        // As `examples/file-type` prepares a file: its first and its last bytes.
        let text = include_bytes!("models.rs");
        let bytes = text[..1024].iter().chain(&text[text.len() - 1024..]);
        let bytes: Vec<i32> = bytes.map(|byte| i32::from(*byte)).collect();
        return Ok(vec![Tensor::from_i32("bytes", &[1, 2048], &bytes)?]);
    }
    // A sentence of words that the vocabulary has: [CLS], thirty tokens, [SEP].
    let tokens: Vec<i64> = (0..SENTENCE)
        .map(|at| match at {
            0 => 101,
            _ if at + 1 == SENTENCE => 102,
            _ => 2000 + at * 37,
        })
        .collect();
    let of = |name: &str, values: &[i64]| Tensor::from_i64(name, &[1, SENTENCE as u64], values);
    Ok(vec![
        of("input_ids", &tokens)?,
        of("attention_mask", &[1; SENTENCE as usize])?,
        of("token_type_ids", &[0; SENTENCE as usize])?,
    ])
}

/// Tokens of the sentence that is encoded.
const SENTENCE: i64 = 32;

fn list(folder: &Path, which: Which, inputs: &[Tensor]) -> Result<PathBuf> {
    let mut listed = Vec::new();
    for input in inputs {
        let file = folder.join(format!("{}-{}.bin", which.name(), input.name()));
        fs::write(&file, input.data())?;
        let dtype = match input.element() {
            ElementType::F32 => "float32",
            ElementType::I32 => "int32",
            _ => "int64",
        };
        listed.push(serde_json::json!({
            "name": input.name(),
            "dtype": dtype,
            "shape": input.shape(),
            "file": file,
        }));
    }
    let listing = folder.join(format!("{}-inputs.json", which.name()));
    fs::write(&listing, serde_json::to_vec(&listed)?)?;
    Ok(listing)
}
