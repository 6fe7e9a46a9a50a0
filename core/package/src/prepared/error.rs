//! Why a prepared model cannot be used.

use crate::tensor::{ElementType, TensorError};

/// The file cannot be packed or served as it is. The model owner makes it again; the same bytes fail again.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PreparedError {
    /// Another format, or a version of it that is too old.
    #[error("this is not {a} file of the version that is read here; {how}")]
    Not {
        /// The format, with its article.
        a: &'static str,
        /// What makes such a file.
        how: &'static str,
    },
    /// The structure is broken, usually because the file is cut short.
    #[error(
        "the file is malformed or cut short: {what} lies outside of it or is not what it should be"
    )]
    Malformed {
        /// What was being read.
        what: &'static str,
    },
    /// More of something than a model can reasonably have.
    #[error("the model has more than {limit} {what}")]
    TooMany {
        /// What there is too much of.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
    /// An input or output whose type or shape is not in the file.
    #[error(
        "the file does not say the {what} of {name}; run shape inference on its ONNX and convert it again"
    )]
    Unsaid {
        /// The input or output.
        name: String,
        /// Type or shape.
        what: &'static str,
    },
    /// An input or output that is no tensor of a type that bield carries.
    #[error("{name} is not a tensor of a supported type (element type {code})")]
    Element {
        /// The input or output.
        name: String,
        /// `TensorProto.DataType` of it, 0 when it is no tensor.
        code: i32,
    },
    /// A `.rten` file has one integer type of 32 bits for what was i32, i64 or boolean.
    #[error(
        "a .rten file does not say whether {name} is i32, i64 or bool; \
         give the ONNX it was made from (--onnx)"
    )]
    Ambiguous {
        /// The input or output.
        name: String,
    },
    /// The ONNX has other inputs or outputs than the file.
    #[error("the ONNX and the .rten file disagree on {name}; give the ONNX it was made from")]
    Differs {
        /// The input or output.
        name: String,
    },
    /// The engine has no such type.
    #[error(
        "{name} is {element}, which rten does not compute with; it takes f32, i32, i64, i8, u8 and bool"
    )]
    NotInRten {
        /// The input or output.
        name: String,
        /// Its type.
        element: ElementType,
    },
    /// An input or output with an impossible name or shape.
    #[error(transparent)]
    Tensor(#[from] TensorError),
}
