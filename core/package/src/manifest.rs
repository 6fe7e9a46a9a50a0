//! The secret description of a model or a function: what it takes and gives, and how to tell that it
//! works; or what it may use.
//!
//! Always true: a [`Manifest`] that exists is consistent: names are unique, golden pairs fit the
//! specs, everything is within the limits, and it says what a function may use exactly when it is
//! one. It is checked when packed and when opened, because an owner's tool may be another
//! implementation.
//!
//! Not here: whether the model agrees with its manifest; the engine compares when it loads it.

use std::fmt;

use bield_envelope::Digest;
use minicbor::{Decode, Encode};

use crate::function::{FunctionError, FunctionSpec};
use crate::header::CHUNK_BYTES;
use crate::onnx::{SIGNATURE_TENSORS_MAX, Signature};
use crate::tensor::{Tensor, TensorSpec};
use crate::{PackageName, PackageVersion};

/// Most golden pairs of a package: each runs once when a model is loaded, and loading must stay
/// short.
pub const GOLDEN_PAIRS_MAX: usize = 3;

/// Usual tolerance of golden outputs, in parts per million: engines differ by rounding only.
pub const TOLERANCE_PPM: u32 = 1_000;

/// Widest tolerance, in parts per million; beyond it a golden pair says nothing.
pub const TOLERANCE_PPM_MAX: u32 = 100_000;

/// What the model's bytes are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(index_only)]
pub enum ModelFormat {
    /// One ONNX file with its weights inside.
    #[n(0)]
    Onnx,
    /// A `.rten` file of version 2: what rten runs without copying its weights.
    #[n(1)]
    Rten,
    /// An `.ort` file: what onnxruntime runs without copying its weights.
    #[n(2)]
    Ort,
    /// A WebAssembly component: a function, which no inference engine runs.
    #[n(3)]
    Component,
}

impl fmt::Display for ModelFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Onnx => "ONNX",
            Self::Rten => ".rten",
            Self::Ort => ".ort",
            Self::Component => "WebAssembly component",
        })
    }
}

/// Inputs with the outputs that a correct engine computes from them.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(map)]
pub struct GoldenPair {
    /// One tensor for each input of the model.
    #[n(0)]
    pub inputs: Vec<Tensor>,
    /// At least one output of the model.
    #[n(1)]
    pub outputs: Vec<Tensor>,
    /// How far an output may differ, in parts per million of the largest expected magnitude of
    /// that output.
    #[n(2)]
    pub tolerance_ppm: u32,
}

/// What the owner says about a model or a function before it is packed.
pub struct ManifestDraft {
    /// What the package is called; public.
    pub name: PackageName,
    /// Which edition it is; public.
    pub version: PackageVersion,
    /// What the model's bytes are.
    pub format: ModelFormat,
    /// What the model takes.
    pub inputs: Vec<TensorSpec>,
    /// What the model gives.
    pub outputs: Vec<TensorSpec>,
    /// Inputs with known outputs, at most [`GOLDEN_PAIRS_MAX`].
    pub golden: Vec<GoldenPair>,
    /// Bytes of model per chunk: a power of two from 256 to [`CHUNK_BYTES`].
    pub chunk_bytes: u32,
    /// What a function may use; only functions have it.
    pub function: Option<FunctionSpec>,
}

impl ManifestDraft {
    /// A draft for an ONNX model whose signature was read, without golden pairs.
    pub fn onnx(name: PackageName, version: PackageVersion, signature: Signature) -> Self {
        Self::new(name, version, ModelFormat::Onnx, signature)
    }

    /// A draft for a model whose signature was read, without golden pairs.
    pub fn new(
        name: PackageName,
        version: PackageVersion,
        format: ModelFormat,
        signature: Signature,
    ) -> Self {
        Self {
            name,
            version,
            format,
            inputs: signature.inputs,
            outputs: signature.outputs,
            golden: Vec::new(),
            chunk_bytes: CHUNK_BYTES,
            function: None,
        }
    }

    /// A draft for a function.
    pub fn function(name: PackageName, version: PackageVersion, function: FunctionSpec) -> Self {
        Self {
            name,
            version,
            format: ModelFormat::Component,
            inputs: Vec::new(),
            outputs: Vec::new(),
            golden: Vec::new(),
            chunk_bytes: CHUNK_BYTES,
            function: Some(function),
        }
    }
}

/// The secret description of a model or a function, sealed in its package. A function's holds the keys
/// of its state: no `Debug`, no copy.
#[derive(Encode, Decode)]
#[cbor(map)]
#[non_exhaustive]
pub struct Manifest {
    /// What the package is called; as in the public header.
    #[n(0)]
    pub name: PackageName,
    /// Which edition it is; as in the public header.
    #[n(1)]
    pub version: PackageVersion,
    /// What the model's bytes are.
    #[n(2)]
    pub format: ModelFormat,
    /// Digest of the model's bytes, as the owner computed it ([`crate::content_digest`]).
    #[n(3)]
    pub content: Digest,
    /// What the model takes.
    #[n(4)]
    pub inputs: Vec<TensorSpec>,
    /// What the model gives.
    #[n(5)]
    pub outputs: Vec<TensorSpec>,
    /// Inputs with known outputs.
    #[n(6)]
    pub golden: Vec<GoldenPair>,
    /// What a function may use; only functions have it.
    #[n(7)]
    pub function: Option<FunctionSpec>,
}

impl Manifest {
    pub(crate) fn new(draft: ManifestDraft, content: Digest) -> Result<Self, ManifestError> {
        let manifest = Self {
            name: draft.name,
            version: draft.version,
            format: draft.format,
            content,
            inputs: draft.inputs,
            outputs: draft.outputs,
            golden: draft.golden,
            function: draft.function,
        };
        manifest.check()?;
        Ok(manifest)
    }

    pub(crate) fn check(&self) -> Result<(), ManifestError> {
        match &self.function {
            Some(function) if self.format == ModelFormat::Component => {
                let describes_a_model =
                    !(self.inputs.is_empty() && self.outputs.is_empty() && self.golden.is_empty());
                if describes_a_model {
                    return Err(ManifestError::FunctionAndModel);
                }
                return Ok(function.check()?);
            }
            None if self.format != ModelFormat::Component => {}
            _ => return Err(ManifestError::FunctionAndModel),
        }
        check_specs(&self.inputs)?;
        check_specs(&self.outputs)?;
        if self.outputs.is_empty() {
            return Err(ManifestError::NoOutputs);
        }
        if self.golden.len() > GOLDEN_PAIRS_MAX {
            return Err(ManifestError::TooManyPairs {
                found: self.golden.len(),
            });
        }
        for (pair, golden) in self.golden.iter().enumerate() {
            let fits = golden.inputs.len() == self.inputs.len()
                && !golden.outputs.is_empty()
                && golden.tolerance_ppm <= TOLERANCE_PPM_MAX
                && are_named_in(&golden.inputs, &self.inputs)
                && are_named_in(&golden.outputs, &self.outputs);
            if !fits {
                return Err(ManifestError::Golden { pair });
            }
        }
        Ok(())
    }
}

/// A manifest contradicts itself. The model owner corrects it and packs again.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// Two inputs or two outputs of one name.
    #[error("two inputs or two outputs are named {name}")]
    Duplicate {
        /// The name.
        name: String,
    },
    /// More inputs or outputs than [`SIGNATURE_TENSORS_MAX`].
    #[error("{found} inputs or outputs; the limit is {SIGNATURE_TENSORS_MAX}")]
    TooManyTensors {
        /// How many there are.
        found: usize,
    },
    /// A model that gives nothing.
    #[error("the model has no outputs")]
    NoOutputs,
    /// More golden pairs than [`GOLDEN_PAIRS_MAX`].
    #[error("{found} golden pairs; the limit is {GOLDEN_PAIRS_MAX}")]
    TooManyPairs {
        /// How many there are.
        found: usize,
    },
    /// A component without what it may use, a model with it, or a component with tensors.
    #[error("it describes a function and a model at once, or neither")]
    FunctionAndModel,
    /// What a function may use makes no sense.
    #[error("the function's description is not valid: {0}")]
    Function(#[from] FunctionError),
    /// A golden pair that does not fit the model's inputs and outputs.
    #[error(
        "golden pair {pair} does not fit the model: it needs one tensor of the right type and \
         shape for each input, at least one output, and a tolerance of at most 10 %"
    )]
    Golden {
        /// Index of the pair.
        pair: usize,
    },
}

fn check_specs(specs: &[TensorSpec]) -> Result<(), ManifestError> {
    if specs.len() > SIGNATURE_TENSORS_MAX {
        return Err(ManifestError::TooManyTensors { found: specs.len() });
    }
    for (index, spec) in specs.iter().enumerate() {
        if specs[..index]
            .iter()
            .any(|other| other.name() == spec.name())
        {
            return Err(ManifestError::Duplicate {
                name: spec.name().to_owned(),
            });
        }
    }
    Ok(())
}

/// Whether each tensor fits the spec of its name, and none comes twice.
fn are_named_in(tensors: &[Tensor], specs: &[TensorSpec]) -> bool {
    tensors.iter().enumerate().all(|(index, tensor)| {
        let fits = specs.iter().any(|spec| spec.accepts(tensor).is_ok());
        fits && tensors[..index]
            .iter()
            .all(|other| other.name() != tensor.name())
    })
}
