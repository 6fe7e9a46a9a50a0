//! Between our tensors and values of onnxruntime. One copy each way, three of strings.
//!
//! Always true: no byte that the library wrote is read as a Rust `bool`, because a model may make it write others than 0
//! and 1; what is not 0 is true.

use bield_package::tensor::{ElementType, TENSOR_STRINGS_MAX, Tensor, TensorError, TensorSpec};
use half::f16;
use ort::value::{
    DynValue, PrimitiveTensorElementType, Tensor as OrtTensor, TensorElementType, ValueType,
};
use zerocopy::IntoBytes as _;

use crate::{EngineError, bytes, words};

/// Refuses inputs that hold more strings together than one tensor may: each takes memory that its bytes do not tell.
pub(super) fn bound_strings(inputs: &[Tensor]) -> Result<(), EngineError> {
    let strings = inputs
        .iter()
        .filter(|tensor| tensor.element() == ElementType::String)
        .map(|tensor| tensor.shape().iter().product::<u64>())
        .sum::<u64>();
    match strings > TENSOR_STRINGS_MAX {
        true => Err(EngineError::Strings {
            limit: TENSOR_STRINGS_MAX,
        }),
        false => Ok(()),
    }
}

/// Our name of a type; `None` for one that bield does not carry.
pub(super) fn element(element: TensorElementType) -> Option<ElementType> {
    Some(match element {
        TensorElementType::Float32 => ElementType::F32,
        TensorElementType::Float16 => ElementType::F16,
        TensorElementType::Float64 => ElementType::F64,
        TensorElementType::Int8 => ElementType::I8,
        TensorElementType::Int16 => ElementType::I16,
        TensorElementType::Int32 => ElementType::I32,
        TensorElementType::Int64 => ElementType::I64,
        TensorElementType::Uint8 => ElementType::U8,
        TensorElementType::Uint16 => ElementType::U16,
        TensorElementType::Uint32 => ElementType::U32,
        TensorElementType::Uint64 => ElementType::U64,
        TensorElementType::Bool => ElementType::Bool,
        TensorElementType::String => ElementType::String,
        _ => return None,
    })
}

/// Copies `tensor` into a value.
pub(super) fn to_value(tensor: &Tensor) -> ort::Result<DynValue> {
    match tensor.element() {
        ElementType::F32 => value(tensor, f32::from_le_bytes),
        ElementType::F16 => value(tensor, f16::from_le_bytes),
        ElementType::F64 => value(tensor, f64::from_le_bytes),
        ElementType::I8 => value(tensor, i8::from_le_bytes),
        ElementType::I16 => value(tensor, i16::from_le_bytes),
        ElementType::I32 => value(tensor, i32::from_le_bytes),
        ElementType::I64 => value(tensor, i64::from_le_bytes),
        ElementType::U8 => value(tensor, u8::from_le_bytes),
        ElementType::U16 => value(tensor, u16::from_le_bytes),
        ElementType::U32 => value(tensor, u32::from_le_bytes),
        ElementType::U64 => value(tensor, u64::from_le_bytes),
        ElementType::Bool => value(tensor, |[bit]: [u8; 1]| bit != 0),
        ElementType::String => {
            let strings = tensor.to_strings().unwrap_or_default();
            let strings: Vec<String> = strings.into_iter().map(str::to_owned).collect();
            Ok(OrtTensor::from_string_array((shape(tensor), &*strings))?.into_dyn())
        }
    }
}

/// Copies an output into the tensor that `spec` names.
pub(super) fn from_value(value: &DynValue, spec: &TensorSpec) -> Result<Tensor, EngineError> {
    match spec.element() {
        ElementType::F32 => tensor(value, spec, f32::to_le_bytes),
        ElementType::F16 => tensor(value, spec, f16::to_le_bytes),
        ElementType::F64 => tensor(value, spec, f64::to_le_bytes),
        ElementType::I8 => tensor(value, spec, i8::to_le_bytes),
        ElementType::I16 => tensor(value, spec, i16::to_le_bytes),
        ElementType::I32 => tensor(value, spec, i32::to_le_bytes),
        ElementType::I64 => tensor(value, spec, i64::to_le_bytes),
        ElementType::U8 => tensor(value, spec, u8::to_le_bytes),
        ElementType::U16 => tensor(value, spec, u16::to_le_bytes),
        ElementType::U32 => tensor(value, spec, u32::to_le_bytes),
        ElementType::U64 => tensor(value, spec, u64::to_le_bytes),
        ElementType::Bool => {
            let (shape, bits) = extracted::<bool>(value, spec)?;
            let bits = truths(bits.as_bytes());
            Ok(Tensor::new(spec.name(), spec.element(), shape, bits)?)
        }
        ElementType::String => {
            let name = || spec.name().to_owned();
            match value.dtype() {
                ValueType::Tensor {
                    ty: TensorElementType::String,
                    shape,
                    ..
                } if shape.num_elements() as u64 <= TENSOR_STRINGS_MAX => {}
                ValueType::Tensor {
                    ty: TensorElementType::String,
                    ..
                } => return Err(TensorError::Strings { name: name() }.into()),
                _ => return Err(other_type(spec)),
            }
            let (shape, strings) = value
                .try_extract_strings()
                .map_err(|_| EngineError::OutputText { name: name() })?;
            let shape: Vec<u64> = shape.iter().map(|length| length.cast_unsigned()).collect();
            Ok(Tensor::from_strings(spec.name(), &shape, &strings)?)
        }
    }
}

fn value<const N: usize, T>(tensor: &Tensor, read: impl Fn([u8; N]) -> T) -> ort::Result<DynValue>
where
    T: PrimitiveTensorElementType + std::fmt::Debug + Clone + 'static,
{
    let data = words(tensor.data(), read);
    Ok(OrtTensor::from_array((shape(tensor), data))?.into_dyn())
}

/// Below the 256 MiB of a tensor, so that every length fits.
fn shape(tensor: &Tensor) -> Vec<i64> {
    tensor.shape().iter().map(|n| n.cast_signed()).collect()
}

fn tensor<const N: usize, T>(
    value: &DynValue,
    spec: &TensorSpec,
    write: impl Fn(T) -> [u8; N],
) -> Result<Tensor, EngineError>
where
    T: PrimitiveTensorElementType + Copy,
{
    let (shape, data) = extracted::<T>(value, spec)?;
    let data = bytes(data.iter().copied(), write);
    Ok(Tensor::new(spec.name(), spec.element(), shape, data)?)
}

/// What C++ takes for true, as 1.
fn truths(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().map(|byte| u8::from(*byte != 0)).collect()
}

fn extracted<'v, T: PrimitiveTensorElementType>(
    value: &'v DynValue,
    spec: &TensorSpec,
) -> Result<(Vec<u64>, &'v [T]), EngineError> {
    let (shape, data) = value
        .try_extract_tensor::<T>()
        .map_err(|_| other_type(spec))?;
    let shape = shape.iter().map(|length| length.cast_unsigned()).collect();
    Ok((shape, data))
}

fn other_type(spec: &TensorSpec) -> EngineError {
    EngineError::OutputType {
        name: spec.name().to_owned(),
        need: spec.element(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_of_all_inputs_are_bounded_together() {
        let half = TENSOR_STRINGS_MAX / 2;
        let of = |count: u64| {
            let data = vec![0; 4 * usize::try_from(count).unwrap()];
            Tensor::new("s", ElementType::String, vec![count], data).unwrap()
        };
        let numbers = Tensor::from_f32("n", &[1], &[0.5]).unwrap();
        assert!(bound_strings(&[of(half), numbers.clone(), of(half)]).is_ok());
        let refused = bound_strings(&[of(half), numbers, of(half + 1)]);
        assert!(matches!(refused, Err(EngineError::Strings { .. })));
    }

    /// No operator of version 1.31 is known to write others; a library that the operator names may.
    #[test]
    fn a_boolean_that_is_neither_0_nor_1_is_true() {
        assert_eq!(truths(&[0, 1, 2, 255]), [0, 1, 1, 1]);
    }
}
