//! Between our tensors and those of rten, which knows f32, i32, i8 and u8 only.
//!
//! Always true: one copy each way. What is i64 or boolean for the caller is i32 when it comes here (`narrow`).

use bield_package::tensor::{ElementType, Tensor, TensorSpec};
use rten::Value;
use rten_tensor::prelude::*;

use crate::{EngineError, bytes, words};

/// Copies `tensor` into a value of rten.
pub(crate) fn to_value(tensor: &Tensor, engine: &'static str) -> Result<Value, EngineError> {
    let shape: Vec<usize> = tensor.shape().iter().map(|n| *n as usize).collect();
    let data = tensor.data();
    match tensor.element() {
        ElementType::F32 => value(shape, words(data, f32::from_le_bytes), engine),
        ElementType::I32 => value(shape, words(data, i32::from_le_bytes), engine),
        ElementType::I8 => value(shape, words(data, i8::from_le_bytes), engine),
        ElementType::U8 => value(shape, data.to_vec(), engine),
        element => Err(EngineError::Element {
            name: tensor.name().to_owned(),
            element,
            engine,
        }),
    }
}

/// Copies an output of rten into the tensor that `spec` names.
pub(crate) fn from_value(value: Value, spec: &TensorSpec) -> Result<Tensor, EngineError> {
    let shape = value.shape().iter().map(|n| *n as u64).collect();
    let data = match (spec.element(), value) {
        (ElementType::F32, Value::FloatTensor(t)) => bytes(t.into_data(), f32::to_le_bytes),
        (ElementType::I32, Value::Int32Tensor(t)) => bytes(t.into_data(), i32::to_le_bytes),
        (ElementType::I8, Value::Int8Tensor(t)) => bytes(t.into_data(), i8::to_le_bytes),
        (ElementType::U8, Value::UInt8Tensor(t)) => t.into_data(),
        (need, _) => {
            return Err(EngineError::OutputType {
                name: spec.name().to_owned(),
                need,
            });
        }
    };
    Ok(Tensor::new(spec.name(), spec.element(), shape, data)?)
}

fn value<T>(shape: Vec<usize>, data: Vec<T>, engine: &'static str) -> Result<Value, EngineError>
where
    Value: From<rten_tensor::Tensor<T>>,
{
    // Our tensors have as many elements as their shape says, so this does not fail.
    Value::from_shape(shape, data).map_err(|_| EngineError::Run {
        engine,
        reason: "an input's shape".to_owned(),
    })
}
