//! What a model takes or gives, and whether a tensor is that.

use std::fmt;

use minicbor::decode::{self, Decoder};
use minicbor::{Decode, Encode};

use super::{ElementType, Tensor, TensorError, TensorMismatch, bytes_of, check_name};

/// What a model takes or gives under a name.
#[derive(Clone, PartialEq, Eq, Debug, Encode)]
#[cbor(map)]
pub struct TensorSpec {
    #[n(0)]
    pub(super) name: String,
    #[n(1)]
    pub(super) element: ElementType,
    #[n(2)]
    pub(super) shape: Vec<Option<u64>>,
}

impl TensorSpec {
    /// Makes a spec; a dimension of `None` is free.
    ///
    /// # Errors
    ///
    /// A bad name, too many dimensions, or fixed dimensions whose product is above
    /// [`TENSOR_BYTES_MAX`](super::TENSOR_BYTES_MAX).
    pub fn new(
        name: impl Into<String>,
        element: ElementType,
        shape: Vec<Option<u64>>,
    ) -> Result<Self, TensorError> {
        let name = name.into();
        check_name(&name)?;
        let fixed: Vec<u64> = shape.iter().map(|d| d.unwrap_or(1)).collect();
        bytes_of(&name, element, &fixed)?;
        Ok(Self {
            name,
            element,
            shape,
        })
    }

    /// The name by which the model knows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What one element is.
    pub fn element(&self) -> ElementType {
        self.element
    }

    /// Length of each dimension, `None` where the caller chooses.
    pub fn shape(&self) -> &[Option<u64>] {
        &self.shape
    }

    /// Checks that `tensor` is what this spec asks for.
    ///
    /// # Errors
    ///
    /// The first difference: name, element type, rank, then dimensions from the outermost.
    pub fn accepts(&self, tensor: &Tensor) -> Result<(), TensorMismatch> {
        let name = || self.name.clone();
        if self.name != tensor.name {
            return Err(TensorMismatch::Name {
                have: tensor.name.clone(),
                need: name(),
            });
        }
        if self.element != tensor.element {
            return Err(TensorMismatch::Element {
                name: name(),
                have: tensor.element,
                need: self.element,
            });
        }
        if self.shape.len() != tensor.shape.len() {
            return Err(TensorMismatch::Rank {
                name: name(),
                have: tensor.shape.len(),
                need: self.shape.len(),
            });
        }
        for (axis, (need, have)) in self.shape.iter().zip(&tensor.shape).enumerate() {
            match need {
                Some(need) if need != have => {
                    return Err(TensorMismatch::Dimension {
                        name: name(),
                        axis,
                        have: *have,
                        need: *need,
                    });
                }
                _ => {}
            }
        }
        Ok(())
    }
}

impl fmt::Display for TensorSpec {
    /// Writes `name: f32[?, 3, 224, 224]`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}[", self.name, self.element)?;
        for (axis, length) in self.shape.iter().enumerate() {
            let comma = if axis == 0 { "" } else { ", " };
            match length {
                Some(length) => write!(f, "{comma}{length}")?,
                None => write!(f, "{comma}?")?,
            }
        }
        f.write_str("]")
    }
}

impl<'b, C> Decode<'b, C> for TensorSpec {
    fn decode(d: &mut Decoder<'b>, ctx: &mut C) -> Result<Self, decode::Error> {
        let parts = SpecParts::decode(d, ctx)?;
        Self::new(parts.name, parts.element, parts.shape).map_err(decode::Error::custom)
    }
}

/// A spec as read, not checked.
#[derive(Decode)]
#[cbor(map)]
struct SpecParts {
    #[n(0)]
    name: String,
    #[n(1)]
    element: ElementType,
    #[n(2)]
    shape: Vec<Option<u64>>,
}
