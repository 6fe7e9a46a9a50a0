//! Named arrays of numbers and strings: what goes into a model and what comes out.
//!
//! ```text
//! Tensor     { name, element, shape [1, 3, 224, 224], data 602 112 bytes }   a value
//! TensorSpec { name, element, shape [ ?, 3, 224, 224] }                      a promise
//! spec.accepts(&tensor) ──▶ Ok | TensorMismatch
//! ```
//!
//! Always true: a [`Tensor`] that exists holds exactly `product(shape) × element size` bytes, in
//! little-endian order, and its booleans are 0 or 1; one of strings holds `product(shape)` of them, each as a `u32` of
//! its bytes and then those, UTF-8 without U+0000, as `BYTES` of the Open Inference Protocol. Decoding checks this like
//! [`Tensor::new`] does, so that each value has one encoding. `Debug` prints name, type and shape, never contents.
//!
//! Not here: conversion to an engine's own types (`enclave/engine`); how much a request may carry
//! in total (`core/protocol`).
//!
//! On paper: building, reading and moving a tensor copies nothing; decoding from CBOR copies the
//! data once.

mod error;
mod spec;
mod strings;

use std::fmt;
use std::str::FromStr;

use half::f16;
use minicbor::decode::{self, Decoder};
use minicbor::{Decode, Encode};

pub use error::{TensorError, TensorMismatch};
pub use spec::TensorSpec;

/// Longest name of a tensor, in bytes. Exporters write paths such as
/// `model/conv2d_17/BiasAdd:0`; real ones stay below 150.
pub const TENSOR_NAME_BYTES_MAX: usize = 256;

/// Most dimensions of a tensor. Real models use up to 6.
pub const TENSOR_RANK_MAX: usize = 8;

/// Largest data of one tensor, in bytes (256 MiB): far above one request. A dimension of 0 counts as 1 here, so that
/// the product of any of its dimensions stays below it.
pub const TENSOR_BYTES_MAX: u64 = 256 << 20;

/// Most strings of one tensor, and of all inputs of a run: an empty one is 4 bytes in a request and 32 in an engine, and
/// up to 100 on the way there.
pub const TENSOR_STRINGS_MAX: u64 = 1 << 20;

/// What one element of a tensor is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Encode, Decode)]
#[cbor(index_only)]
pub enum ElementType {
    /// IEEE 754 single precision.
    #[n(0)]
    F32,
    /// Signed, 32 bits.
    #[n(1)]
    I32,
    /// Signed, 64 bits.
    #[n(2)]
    I64,
    /// Signed, 8 bits.
    #[n(3)]
    I8,
    /// Unsigned, 8 bits.
    #[n(4)]
    U8,
    /// One byte, 0 or 1.
    #[n(5)]
    Bool,
    /// IEEE 754 half precision.
    #[n(6)]
    F16,
    /// IEEE 754 double precision.
    #[n(7)]
    F64,
    /// Signed, 16 bits.
    #[n(8)]
    I16,
    /// Unsigned, 16 bits.
    #[n(9)]
    U16,
    /// Unsigned, 32 bits.
    #[n(10)]
    U32,
    /// Unsigned, 64 bits.
    #[n(11)]
    U64,
    /// UTF-8 text.
    #[n(12)]
    String,
}

impl ElementType {
    /// Every type, in the order of their numbers (spec/05 §3).
    pub const ALL: [Self; 13] = [
        Self::F32,
        Self::I32,
        Self::I64,
        Self::I8,
        Self::U8,
        Self::Bool,
        Self::F16,
        Self::F64,
        Self::I16,
        Self::U16,
        Self::U32,
        Self::U64,
        Self::String,
    ];

    /// Bytes that one element takes; `None` for strings, each of which takes its own.
    pub const fn size_bytes(self) -> Option<usize> {
        Some(match self {
            Self::I64 | Self::U64 | Self::F64 => 8,
            Self::F32 | Self::I32 | Self::U32 => 4,
            Self::F16 | Self::I16 | Self::U16 => 2,
            Self::I8 | Self::U8 | Self::Bool => 1,
            Self::String => return None,
        })
    }

    /// The type that ONNX gives this number (`TensorProto.DataType`); `None` for one that bield does not carry,
    /// such as complex numbers.
    pub const fn from_onnx(code: u64) -> Option<Self> {
        Some(match code {
            1 => Self::F32,
            2 => Self::U8,
            3 => Self::I8,
            4 => Self::U16,
            5 => Self::I16,
            6 => Self::I32,
            7 => Self::I64,
            8 => Self::String,
            9 => Self::Bool,
            10 => Self::F16,
            11 => Self::F64,
            12 => Self::U32,
            13 => Self::U64,
            _ => return None,
        })
    }
}

impl FromStr for ElementType {
    type Err = UnknownElement;

    fn from_str(text: &str) -> Result<Self, UnknownElement> {
        let named = |element: &Self| element.name() == text;
        Self::ALL.into_iter().find(named).ok_or(UnknownElement)
    }
}

/// The text names no element type.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "an element type is one of f32, f16, f64, i8, i16, i32, i64, u8, u16, u32, u64, bool, string"
)]
pub struct UnknownElement;

impl ElementType {
    const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::I32 => "i32",
            Self::I64 => "i64",
            Self::I8 => "i8",
            Self::U8 => "u8",
            Self::Bool => "bool",
            Self::F16 => "f16",
            Self::F64 => "f64",
            Self::I16 => "i16",
            Self::U16 => "u16",
            Self::U32 => "u32",
            Self::U64 => "u64",
            Self::String => "string",
        }
    }
}

impl fmt::Display for ElementType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A named array whose data length agrees with its shape.
///
/// ```
/// use bield_package::tensor::Tensor;
/// let scores = Tensor::from_f32("scores", &[1, 3], &[0.1, 0.7, 0.2])?;
/// assert_eq!(scores.to_f32(), Some(vec![0.1, 0.7, 0.2]));
/// # Ok::<(), bield_package::tensor::TensorError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Encode)]
#[cbor(map)]
pub struct Tensor {
    #[n(0)]
    name: String,
    #[n(1)]
    element: ElementType,
    #[cbor(
        n(2),
        decode_with = "bield_envelope::wire::at_most::<TENSOR_RANK_MAX, _, _>"
    )]
    shape: Vec<u64>,
    #[cbor(n(3), with = "minicbor::bytes")]
    data: Vec<u8>,
}

impl Tensor {
    /// Makes a tensor of little-endian `data`.
    ///
    /// # Errors
    ///
    /// A name that is empty, too long or has control characters, a rank or size above the limits,
    /// data of another length than the shape asks for, a boolean that is neither 0 nor 1, strings that are not as many
    /// as the shape says, or not text.
    pub fn new(
        name: impl Into<String>,
        element: ElementType,
        shape: Vec<u64>,
        data: Vec<u8>,
    ) -> Result<Self, TensorError> {
        let name = name.into();
        check_name(&name)?;
        let need = bytes_of(&name, element, &shape)?;
        if element == ElementType::String {
            let count = need / strings::BYTES_LEAST;
            if data.len() as u64 > TENSOR_BYTES_MAX {
                return Err(TensorError::Size { name });
            }
            if !strings::are(&data, count) {
                return Err(TensorError::NotStrings { name, count });
            }
        } else if data.len() as u64 != need {
            return Err(TensorError::Length {
                name,
                have: data.len() as u64,
                need,
            });
        }
        if element == ElementType::Bool && data.iter().any(|byte| *byte > 1) {
            return Err(TensorError::NotBoolean { name });
        }
        Ok(Self {
            name,
            element,
            shape,
            data,
        })
    }

    /// Makes a tensor of single-precision numbers.
    ///
    /// # Errors
    ///
    /// As [`Tensor::new`].
    pub fn from_f32(
        name: impl Into<String>,
        shape: &[u64],
        values: &[f32],
    ) -> Result<Self, TensorError> {
        let data = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        Self::new(name, ElementType::F32, shape.to_vec(), data)
    }

    /// Makes a tensor of signed 32-bit numbers.
    ///
    /// # Errors
    ///
    /// As [`Tensor::new`].
    pub fn from_i32(
        name: impl Into<String>,
        shape: &[u64],
        values: &[i32],
    ) -> Result<Self, TensorError> {
        let data = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        Self::new(name, ElementType::I32, shape.to_vec(), data)
    }

    /// Makes a tensor of signed 64-bit numbers.
    ///
    /// # Errors
    ///
    /// As [`Tensor::new`].
    pub fn from_i64(
        name: impl Into<String>,
        shape: &[u64],
        values: &[i64],
    ) -> Result<Self, TensorError> {
        let data = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        Self::new(name, ElementType::I64, shape.to_vec(), data)
    }

    /// Makes a tensor of strings.
    ///
    /// # Errors
    ///
    /// As [`Tensor::new`].
    pub fn from_strings(
        name: impl Into<String>,
        shape: &[u64],
        values: &[impl AsRef<str>],
    ) -> Result<Self, TensorError> {
        let data = strings::write(values);
        Self::new(name, ElementType::String, shape.to_vec(), data)
    }

    /// The name by which the model knows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What one element is.
    pub fn element(&self) -> ElementType {
        self.element
    }

    /// Length of each dimension, outermost first; empty for a scalar.
    pub fn shape(&self) -> &[u64] {
        &self.shape
    }

    /// The elements, little-endian, last dimension fastest; of a string, its length as a `u32`, then its UTF-8.
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// How many elements it holds.
    pub fn len(&self) -> usize {
        match self.element.size_bytes() {
            Some(size) => self.data.len() / size,
            None => strings::read(&self.data).count(),
        }
    }

    /// Whether it holds no element, because a dimension is 0.
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    /// The elements, without copying them.
    pub fn into_data(self) -> Vec<u8> {
        self.data
    }

    /// The same values under another name.
    ///
    /// # Errors
    ///
    /// As [`Tensor::new`], for the name.
    pub fn renamed(mut self, name: impl Into<String>) -> Result<Self, TensorError> {
        self.name = name.into();
        check_name(&self.name)?;
        Ok(self)
    }

    /// The elements as single-precision numbers; `None` when they are of another type.
    pub fn to_f32(&self) -> Option<Vec<f32>> {
        (self.element == ElementType::F32).then(|| words(&self.data, f32::from_le_bytes))
    }

    /// The elements as signed 32-bit numbers; `None` when they are of another type.
    pub fn to_i32(&self) -> Option<Vec<i32>> {
        (self.element == ElementType::I32).then(|| words(&self.data, i32::from_le_bytes))
    }

    /// The elements as signed 64-bit numbers; `None` when they are of another type.
    pub fn to_i64(&self) -> Option<Vec<i64>> {
        (self.element == ElementType::I64).then(|| words(&self.data, i64::from_le_bytes))
    }

    /// The elements as strings, without copying them; `None` when they are of another type.
    pub fn to_strings(&self) -> Option<Vec<&str>> {
        (self.element == ElementType::String).then(|| strings::read(&self.data).collect())
    }

    /// The elements as double-precision numbers, which hold each exactly; `None` when they are no floating-point
    /// numbers.
    pub fn to_f64(&self) -> Option<Vec<f64>> {
        Some(match self.element {
            ElementType::F16 => words(&self.data, |word| f16::from_le_bytes(word).to_f64()),
            ElementType::F32 => words(&self.data, |word| f32::from_le_bytes(word).into()),
            ElementType::F64 => words(&self.data, f64::from_le_bytes),
            _ => return None,
        })
    }

    /// What this tensor is, without what it holds.
    pub fn spec(&self) -> TensorSpec {
        TensorSpec {
            name: self.name.clone(),
            element: self.element,
            shape: self.shape.iter().copied().map(Some).collect(),
        }
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tensor({})", self.spec())
    }
}

impl<'b, C> Decode<'b, C> for Tensor {
    fn decode(d: &mut Decoder<'b>, ctx: &mut C) -> Result<Self, decode::Error> {
        let parts = TensorParts::decode(d, ctx)?;
        Self::new(parts.name, parts.element, parts.shape, parts.data).map_err(decode::Error::custom)
    }
}

/// A tensor as read, not checked.
#[derive(Decode)]
#[cbor(map)]
struct TensorParts {
    #[n(0)]
    name: String,
    #[n(1)]
    element: ElementType,
    #[cbor(
        n(2),
        decode_with = "bield_envelope::wire::at_most::<TENSOR_RANK_MAX, _, _>"
    )]
    shape: Vec<u64>,
    #[cbor(n(3), with = "minicbor::bytes")]
    data: Vec<u8>,
}

fn check_name(name: &str) -> Result<(), TensorError> {
    if name.is_empty() || name.len() > TENSOR_NAME_BYTES_MAX || name.chars().any(char::is_control) {
        return Err(TensorError::Name { bytes: name.len() });
    }
    Ok(())
}

/// Bytes of data that `element` and `shape` ask for, within the limits; for strings, that empty ones would take.
fn bytes_of(name: &str, element: ElementType, shape: &[u64]) -> Result<u64, TensorError> {
    if shape.len() > TENSOR_RANK_MAX {
        return Err(TensorError::Rank {
            name: name.to_owned(),
            rank: shape.len(),
        });
    }
    let (least, most) = match element.size_bytes() {
        Some(size) => (size as u64, TENSOR_BYTES_MAX),
        None => (
            strings::BYTES_LEAST,
            TENSOR_STRINGS_MAX * strings::BYTES_LEAST,
        ),
    };
    let name = || name.to_owned();
    shape
        .iter()
        .try_fold(least, |bytes, length| {
            // A 0 would hide what stands beside it from the bound, and engines multiply parts of a shape.
            bytes.checked_mul((*length).max(1))
        })
        .filter(|bytes| *bytes <= most)
        .map(|bytes| if shape.contains(&0) { 0 } else { bytes })
        .ok_or_else(|| match element {
            ElementType::String => TensorError::Strings { name: name() },
            _ => TensorError::Size { name: name() },
        })
}

fn words<const N: usize, T>(data: &[u8], read: impl Fn([u8; N]) -> T) -> Vec<T> {
    data.as_chunks::<N>()
        .0
        .iter()
        .map(|word| read(*word))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_of_another_length_is_refused() {
        let refused = Tensor::new("x", ElementType::F32, vec![2, 3], vec![0; 23]);
        assert_eq!(
            refused,
            Err(TensorError::Length {
                name: "x".into(),
                have: 23,
                need: 24
            })
        );
    }

    #[test]
    fn a_shape_whose_product_overflows_is_refused() {
        let shape = vec![u64::MAX, u64::MAX, 2];
        assert!(matches!(
            Tensor::new("x", ElementType::I64, shape, vec![]),
            Err(TensorError::Size { .. })
        ));
    }

    #[test]
    fn an_empty_shape_hides_no_length() {
        for shape in [
            vec![1 << 56, 0],
            vec![0, 1 << 63, 1 << 63],
            vec![0, 1 << 26],
        ] {
            assert!(matches!(
                Tensor::new("x", ElementType::I64, shape, vec![]),
                Err(TensorError::Size { .. })
            ));
        }
        assert!(Tensor::new("x", ElementType::I64, vec![0, 1 << 25], vec![]).is_ok());
    }

    #[test]
    fn a_scalar_and_an_empty_tensor_exist() {
        let scalar = Tensor::from_i64("s", &[], &[-7]).unwrap();
        assert_eq!(scalar.to_i64(), Some(vec![-7]));
        assert_eq!(scalar.to_f32(), None);
        assert!(Tensor::from_f32("e", &[0, 4], &[]).unwrap().is_empty());
    }

    #[test]
    fn a_boolean_is_zero_or_one() {
        assert!(Tensor::new("b", ElementType::Bool, vec![2], vec![0, 1]).is_ok());
        assert!(matches!(
            Tensor::new("b", ElementType::Bool, vec![2], vec![0, 2]),
            Err(TensorError::NotBoolean { .. })
        ));
    }

    #[test]
    fn every_type_has_a_name_and_keeps_its_number() {
        for (number, element) in ElementType::ALL.into_iter().enumerate() {
            assert_eq!(element.to_string().parse(), Ok(element));
            assert_eq!(minicbor::to_vec(element).unwrap(), [number as u8]);
            assert!(UnknownElement.to_string().contains(&element.to_string()));
        }
        assert_eq!("text".parse::<ElementType>(), Err(UnknownElement));
        assert_eq!(ElementType::from_onnx(8), Some(ElementType::String));
        assert_eq!(ElementType::from_onnx(14), None, "complex numbers");
    }

    #[test]
    fn strings_come_back_and_are_as_many_as_the_shape_says() {
        let words = ["", "strang", "ü"];
        let tensor = Tensor::from_strings("s", &[3, 1], &words).unwrap();
        assert_eq!(tensor.to_strings(), Some(words.to_vec()));
        assert_eq!((tensor.len(), tensor.data().len()), (3, 3 * 4 + 6 + 2));
        assert_eq!(tensor.to_f32(), None);
        let bytes = minicbor::to_vec(&tensor).unwrap();
        assert_eq!(minicbor::decode::<Tensor>(&bytes).unwrap(), tensor);
        assert!(
            Tensor::from_strings("s", &[0], &[""; 0])
                .unwrap()
                .is_empty()
        );
        for (shape, data) in [
            (vec![2], vec![0; 4]),
            (vec![1], vec![0; 8]),
            (vec![1], vec![0; 5]),
            (vec![1], vec![0; 3]),
            (vec![0], vec![0; 4]),
            (vec![1], b"\x02\0\0\0a".to_vec()),
            (vec![1], b"\xff\xff\xff\xffa".to_vec()),
            (vec![1], b"\x01\0\0\0\xff".to_vec()),
            // Engines end a text there.
            (vec![1], b"\x01\0\0\0\0".to_vec()),
        ] {
            let count = shape.iter().product();
            let (name, refused) = (
                "s".to_owned(),
                Tensor::new("s", ElementType::String, shape, data),
            );
            assert_eq!(refused, Err(TensorError::NotStrings { name, count }));
        }
        let many = Tensor::new("s", ElementType::String, vec![(1 << 20) + 1], Vec::new());
        assert!(matches!(many, Err(TensorError::Strings { .. })));
    }

    #[test]
    fn floating_point_numbers_of_every_width_are_read_exactly() {
        let halves = [0x3c00_u16, 0xc100, 0x0001].map(u16::to_le_bytes).concat();
        let half = Tensor::new("h", ElementType::F16, vec![3], halves).unwrap();
        assert_eq!(half.to_f64(), Some(vec![1.0, -2.5, 2.0_f64.powi(-24)]));
        let single = Tensor::from_f32("s", &[1], &[0.1]).unwrap();
        assert_eq!(single.to_f64(), Some(vec![f64::from(0.1_f32)]));
        let data = 0.1_f64.to_le_bytes().to_vec();
        let double = Tensor::new("d", ElementType::F64, vec![1], data).unwrap();
        assert_eq!(double.to_f64(), Some(vec![0.1]));
        assert_eq!(Tensor::from_i64("i", &[1], &[1]).unwrap().to_f64(), None);
    }

    #[test]
    fn a_name_is_bounded_and_printable() {
        assert!(Tensor::from_f32("", &[0], &[]).is_err());
        assert!(Tensor::from_f32("a\nb", &[0], &[]).is_err());
        let long = "n".repeat(TENSOR_NAME_BYTES_MAX + 1);
        assert!(Tensor::from_f32(long, &[0], &[]).is_err());
    }

    #[test]
    fn a_spec_names_the_first_difference() {
        let spec = TensorSpec::new("x", ElementType::F32, vec![None, Some(3)]).unwrap();
        let fits = |shape: &[u64], n| Tensor::from_f32("x", shape, &vec![0.0; n]).unwrap();
        assert_eq!(spec.accepts(&fits(&[5, 3], 15)), Ok(()));
        assert!(matches!(
            spec.accepts(&fits(&[5, 2], 10)),
            Err(TensorMismatch::Dimension {
                axis: 1,
                have: 2,
                need: 3,
                ..
            })
        ));
        assert!(matches!(
            spec.accepts(&fits(&[3], 3)),
            Err(TensorMismatch::Rank { .. })
        ));
        assert!(matches!(
            spec.accepts(&Tensor::from_i32("x", &[1, 3], &[0; 3]).unwrap()),
            Err(TensorMismatch::Element { .. })
        ));
        assert_eq!(spec.to_string(), "x: f32[?, 3]");
    }

    #[test]
    fn decoding_checks_what_new_checks() {
        let tensor = Tensor::from_f32("x", &[2], &[1.0, 2.0]).unwrap();
        let mut bytes = minicbor::to_vec(&tensor).unwrap();
        assert_eq!(minicbor::decode::<Tensor>(&bytes).unwrap(), tensor);
        // key 2, array of one, length 2
        let shape_at = bytes.windows(3).position(|w| w == [2, 0x81, 2]).unwrap() + 2;
        bytes[shape_at] = 3;
        assert!(minicbor::decode::<Tensor>(&bytes).is_err());
    }

    #[test]
    fn debug_shows_no_contents() {
        let tensor = Tensor::from_i32("x", &[1], &[424_242]).unwrap();
        assert_eq!(format!("{tensor:?}"), "Tensor(x: i32[1])");
    }
}
