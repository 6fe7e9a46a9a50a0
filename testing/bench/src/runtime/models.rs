//! The models that are measured, as files in every format that an engine here takes.
//!
//! ```text
//! seeded networks ─▶ ONNX, .rten              (target/bench-models)
//! magika, MiniLM  ─▶ ONNX                     (fetched by xtask, which says where)
//!            ONNX ─rten-convert from Python─▶ .rten
//!        any ONNX ─onnxruntime from Python──▶ .ort
//! ```
//!
//! Always true: a seeded file that is there already is the one that would be written now; a converted file's name has the
//! digest of what it was made from and the version of what made it, so that neither can change behind it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use aws_lc_rs::digest::{SHA256, digest};
use bield_fixtures::{IMAGE_SHAPE, Network, input_image};
use bield_package::ModelFormat;
use bield_package::onnx::Signature;
use bield_package::prepared::{RtenFile, ort_signature};
use bield_sdk::{ElementType, Tensor};

use crate::bars;
use crate::deployment::ModelFile;

use super::peers::Converter;

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

    /// How far answers of different engines may be apart, of the largest number: the encoder quantises its activations
    /// as it goes.
    const fn tolerance(self) -> f32 {
        match self {
            Self::Minilm => 0.15,
            _ => 2e-3,
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
            Some(network) => {
                let mut bytes = Vec::new();
                network.write(&mut bytes, &mut |_, _| ())?;
                kept(folder.join(format!("{}.onnx", which.name())), &bytes)?
            }
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
        match engine {
            EngineKind::Rten => self.rten(&onnx, signature),
            EngineKind::Onnxruntime => {
                let path = self.converted(&onnx, Converter::Onnxruntime)?;
                Ok(ModelFile {
                    signature: ort_signature(&fs::read(&path)?)?,
                    format: ModelFormat::Ort,
                    path,
                })
            }
        }
    }

    fn rten(&self, onnx: &[u8], signature: Signature) -> Result<ModelFile> {
        let path = match self.which.network() {
            Some(network) => kept(
                self.folder.join(format!("{}.rten", self.which.name())),
                &bield_fixtures::rten(network),
            )?,
            None => match self.converted(onnx, Converter::RtenConvert) {
                Ok(path) => path,
                Err(why) => {
                    eprintln!("{} runs on rten from ONNX: {why:#}", self.which.name());
                    return Ok(ModelFile {
                        path: self.onnx.clone(),
                        format: ModelFormat::Onnx,
                        signature,
                    });
                }
            },
        };
        Ok(ModelFile {
            signature: RtenFile::read(&fs::read(&path)?)?.signature_from(signature)?,
            format: ModelFormat::Rten,
            path,
        })
    }

    /// What `converter` makes of the ONNX file, made once.
    fn converted(&self, onnx: &[u8], converter: Converter) -> Result<PathBuf> {
        let digest = digest(&SHA256, onnx);
        let digits: String = digest.as_ref()[..6]
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        let (name, ending) = (self.which.name(), converter.ending());
        let version = converter.version()?;
        let path = self
            .folder
            .join(format!("{name}-{digits}-{version}.{ending}"));
        if !path.exists() {
            let partial = partial(&path);
            converter.convert(&self.onnx, &partial)?;
            fs::rename(partial, &path)?;
        }
        Ok(path)
    }

    /// Whether the first outputs agree as far as engines do that order their sums differently.
    pub(crate) fn agree(&self, ours: &[f32], theirs: &[f32]) -> Result<()> {
        ensure!(!ours.is_empty(), "the model gives no floats");
        ensure!(
            ours.len() == theirs.len(),
            "{} and {} numbers",
            ours.len(),
            theirs.len()
        );
        let most = theirs.iter().fold(0_f32, |most, one| most.max(one.abs()));
        let allowed = self.which.tolerance() * most;
        let near = |(a, b): (&f32, &f32)| (a - b).abs() <= allowed;
        let off = ours.iter().zip(theirs).find(|pair| !near(*pair));
        ensure!(
            off.is_none(),
            "the answers differ: {off:?} where the largest number is {most}"
        );
        Ok(())
    }
}

/// A seeded file, which is written unless it is there as it is now.
fn kept(path: PathBuf, bytes: &[u8]) -> Result<PathBuf> {
    if !fs::read(&path).is_ok_and(|there| there == bytes) {
        let partial = partial(&path);
        fs::write(&partial, bytes)?;
        fs::rename(partial, &path)?;
    }
    Ok(path)
}

/// Where a file is written that appears whole.
fn partial(path: &Path) -> PathBuf {
    path.with_extension(format!("{}.unfinished", std::process::id()))
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
