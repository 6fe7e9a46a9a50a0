//! Why an ONNX file cannot be used.

use super::protobuf::Malformed;
use crate::tensor::TensorError;

/// The file cannot be packed or served as it is. The model owner exports it again; the same bytes
/// fail again.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OnnxError {
    /// Not one ONNX graph with outputs.
    #[error("this is not an ONNX model: it holds no graph with outputs")]
    NotOnnx,
    /// The protobuf structure is broken, usually because the file is cut short.
    #[error("the ONNX file is malformed or cut short near byte {offset} of a message")]
    Malformed {
        /// Where reading stopped, counted from the start of the innermost message.
        offset: usize,
    },
    /// Some weights live in another file.
    #[error(
        "weights of {initializer} are stored outside the ONNX file; \
         save the model as one file (save_as_external_data=False)"
    )]
    ExternalData {
        /// First initializer found without its data.
        initializer: String,
    },
    /// An input or output of a type that bield does not carry, such as strings.
    #[error(
        "{name} has ONNX element type {code}, which is not supported; export it as a number of 8 to 64 bits or bool"
    )]
    Element {
        /// The input or output.
        name: String,
        /// `TensorProto.DataType` of it.
        code: u64,
    },
    /// An input or output that is a sequence, map or optional value.
    #[error("{name} is not a tensor; only tensors can enter and leave a model")]
    NotTensor {
        /// The input or output.
        name: String,
    },
    /// An input or output whose number of dimensions is not in the file.
    #[error(
        "the shape of {name} is not in the ONNX file; run shape inference on it and pack again"
    )]
    NoShape {
        /// The input or output.
        name: String,
    },
    /// An input or output with an impossible name or shape.
    #[error(transparent)]
    Tensor(#[from] TensorError),
    /// A node takes what a later one gives, in a large graph.
    #[error(
        "the nodes of this large graph are not in the order in which they feed each other ({name}); \
         sort them (onnx-simplifier and most exporters do) and pack again"
    )]
    Order {
        /// The value that is given after it was taken.
        name: String,
    },
    /// Two nodes of a large graph give one value.
    #[error("two nodes give {name}; export the model again")]
    Twice {
        /// The value.
        name: String,
    },
    /// More of something than a model can reasonably have.
    #[error("the model has more than {limit} {what}")]
    TooMany {
        /// What there is too much of.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
}

impl From<Malformed> for OnnxError {
    fn from(Malformed { offset }: Malformed) -> Self {
        Self::Malformed { offset }
    }
}
