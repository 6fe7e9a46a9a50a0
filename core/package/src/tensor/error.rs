//! Why a tensor cannot exist, and why a model does not take it. Names and sizes, never contents.

use super::{
    ElementType, TENSOR_BYTES_MAX, TENSOR_NAME_BYTES_MAX, TENSOR_RANK_MAX, TENSOR_STRINGS_MAX,
};

/// A tensor cannot exist like this. The sender corrects it; sending it again does not help.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TensorError {
    /// The name is empty, above [`TENSOR_NAME_BYTES_MAX`], or has control characters.
    #[error(
        "a tensor's name has 1 to {TENSOR_NAME_BYTES_MAX} bytes and no control characters; \
         this one has {bytes} bytes"
    )]
    Name {
        /// Length of the refused name.
        bytes: usize,
    },
    /// More dimensions than [`TENSOR_RANK_MAX`].
    #[error("tensor {name} has {rank} dimensions; the limit is {TENSOR_RANK_MAX}")]
    Rank {
        /// The tensor.
        name: String,
        /// Its dimensions.
        rank: usize,
    },
    /// More data than [`TENSOR_BYTES_MAX`](super::TENSOR_BYTES_MAX).
    #[error("tensor {name} is larger than the limit of {TENSOR_BYTES_MAX} bytes")]
    Size {
        /// The tensor.
        name: String,
    },
    /// More strings than [`TENSOR_STRINGS_MAX`].
    #[error("tensor {name} has more than {TENSOR_STRINGS_MAX} strings")]
    Strings {
        /// The tensor.
        name: String,
    },
    /// The data is not as long as type and shape say.
    #[error("tensor {name} has {have} bytes of data; its type and shape need {need}")]
    Length {
        /// The tensor.
        name: String,
        /// Bytes of data given.
        have: u64,
        /// Bytes that type and shape ask for.
        need: u64,
    },
    /// The data is not as many strings as the shape says.
    #[error(
        "tensor {name} does not hold {count} strings, each a u32 of its bytes and then UTF-8 without a zero character"
    )]
    NotStrings {
        /// The tensor.
        name: String,
        /// Strings that the shape asks for.
        count: u64,
    },
    /// A boolean is neither 0 nor 1.
    #[error("tensor {name} is boolean but holds a byte that is neither 0 nor 1")]
    NotBoolean {
        /// The tensor.
        name: String,
    },
}

/// A tensor is not what the model takes. The caller sends what the spec says.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TensorMismatch {
    /// Another name.
    #[error("the tensor is named {have}; the model takes {need}")]
    Name {
        /// Name given.
        have: String,
        /// Name asked for.
        need: String,
    },
    /// Another element type.
    #[error("tensor {name} holds {have}; the model takes {need}")]
    Element {
        /// The tensor.
        name: String,
        /// Type given.
        have: ElementType,
        /// Type asked for.
        need: ElementType,
    },
    /// Another number of dimensions.
    #[error("tensor {name} has {have} dimensions; the model takes {need}")]
    Rank {
        /// The tensor.
        name: String,
        /// Dimensions given.
        have: usize,
        /// Dimensions asked for.
        need: usize,
    },
    /// Another length of a fixed dimension.
    #[error("dimension {axis} of tensor {name} is {have}; the model takes {need}")]
    Dimension {
        /// The tensor.
        name: String,
        /// Index of the dimension, outermost 0.
        axis: usize,
        /// Length given.
        have: u64,
        /// Length asked for.
        need: u64,
    },
}
