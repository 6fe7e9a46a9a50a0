//! Why a model does not load or run. Names appear; numbers from tensors never.

use bield_package::ModelFormat;
use bield_package::onnx::OnnxError;
use bield_package::prepared::PreparedError;
use bield_package::tensor::{ElementType, TensorError, TensorMismatch};

/// An engine refused or failed. Trying the same again gives the same result.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The bytes are no usable ONNX model. The model owner's move.
    #[error("the model cannot be read: {0}")]
    Onnx(#[from] OnnxError),
    /// The bytes are no usable `.rten` or `.ort` file. The model owner's move.
    #[error("the model cannot be read: {0}")]
    Prepared(#[from] PreparedError),
    /// No engine of this program runs such files. The model owner packs the ONNX, or the operator chooses code
    /// and a configuration with an engine that does.
    #[error(
        "{format} files do not run on {engines}; pack the ONNX, or choose a runtime with the engine for them"
    )]
    Format {
        /// What the model's bytes are.
        format: ModelFormat,
        /// The engines that there are.
        engines: &'static str,
    },
    /// The engine has no such type. The model owner exports the model with other types.
    #[error(
        "{name} is {element}, which {engine} does not compute with; it takes f32, i32, i64, i8, u8 and bool"
    )]
    Element {
        /// The input or output.
        name: String,
        /// Its type.
        element: ElementType,
        /// The engine.
        engine: &'static str,
    },
    /// The engine computes the borders of such convolutions wrongly. The model owner exports the
    /// model without quantised padded convolutions.
    #[error(
        "node {node} convolves integers with padding, which {engine} computes wrongly; \
         export the model in f32"
    )]
    PaddedIntegerConvolution {
        /// The node.
        node: String,
        /// The engine.
        engine: &'static str,
    },
    /// The engine does not know an operator or a form of it. The model owner's move.
    #[error("{engine} cannot load the model: {reason}")]
    Load {
        /// The engine.
        engine: &'static str,
        /// What kind of trouble, and at which node.
        reason: String,
    },
    /// Manifest and model disagree. The model owner packs again.
    #[error("the manifest promises {promised}, but the model has no such thing")]
    Specs {
        /// What was promised.
        promised: String,
    },
    /// An input is not given. The caller's move, as are the next six.
    #[error("input {name} is missing")]
    MissingInput {
        /// The input.
        name: String,
    },
    /// An input is given that the model does not take, or twice.
    #[error("the model takes no further input {name}")]
    UnknownInput {
        /// The input.
        name: String,
    },
    /// An input has another type or shape.
    #[error(transparent)]
    Input(#[from] TensorMismatch),
    /// An input has no elements, and its owner did not say that it may.
    #[error("input {name} has no elements")]
    EmptyInput {
        /// The input.
        name: String,
    },
    /// An output is asked for that the model does not give.
    #[error("the model has no output {name}")]
    UnknownOutput {
        /// The output.
        name: String,
    },
    /// A 64-bit number is outside the 32 bits with which the engine computes.
    #[error("{engine} computes i64 with 32 bits; a number in {name} is outside of them")]
    Range {
        /// The input.
        name: String,
        /// The engine.
        engine: &'static str,
    },
    /// All inputs together hold more strings than a run may take.
    #[error("the inputs hold more than {limit} strings together; send them in several requests")]
    Strings {
        /// Most strings of a run.
        limit: u64,
    },
    /// The engine failed while running, for instance because input shapes do not fit together.
    #[error("{engine} failed: {reason}")]
    Run {
        /// The engine.
        engine: &'static str,
        /// What kind of trouble, and at which node.
        reason: String,
    },
    /// The model gave an output of another type than its file says.
    #[error("output {name} is not of type {need}")]
    OutputType {
        /// The output.
        name: String,
        /// What the file says.
        need: ElementType,
    },
    /// The model gave text that is not UTF-8. The model owner's move.
    #[error("output {name} holds a string that is not UTF-8")]
    OutputText {
        /// The output.
        name: String,
    },
    /// An output exceeds the limits of a tensor.
    #[error("an output cannot be returned: {0}")]
    Output(#[from] TensorError),
    /// A golden pair gives other numbers. The model must not serve on this engine and processor.
    #[error("golden pair {pair}: output {output} differs from what the model owner recorded")]
    Golden {
        /// Index of the pair.
        pair: usize,
        /// The output.
        output: String,
    },
}
