//! `wasi:nn` as guests call it: sealed models by name, tensors checked, no bytes of models.

use std::time::Instant;

use super::cast::{Maps, Things};
use crate::bindings::wasi::nn::errors::{ErrorCode, HostError};
use crate::bindings::wasi::nn::graph::{ExecutionTarget, GraphEncoding, Host as _, HostGraph as _};
use crate::bindings::wasi::nn::inference::HostGraphExecutionContext as _;
use crate::bindings::wasi::nn::tensor::{HostTensor, TensorType};
use crate::guest::Guest;
use crate::{Limits, NnError, Stopped};
use wasmtime::component::Resource;

fn guest() -> Guest {
    let world = Box::new(Maps::new(&Things::default()));
    Guest::new(world, Limits::default(), Instant::now())
}

fn again<T: 'static>(handle: &Resource<T>) -> Resource<T> {
    Resource::new_borrow(handle.rep())
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect()
}

fn code(guest: &mut Guest, error: Resource<NnError>) -> ErrorCode {
    guest.code(error).unwrap()
}

#[test]
fn a_model_of_the_manifest_runs() {
    let mut guest = guest();
    let graph = guest.load_by_name("double".into()).unwrap().unwrap();
    let context = guest.init_execution_context(graph).unwrap().unwrap();
    let input = guest
        .new(vec![1, 2], TensorType::Fp32, bytes(&[1.5, -2.0]))
        .unwrap();
    let outputs = guest
        .compute(again(&context), vec![("x".into(), input)])
        .unwrap()
        .unwrap();
    let [(name, output)] = &outputs[..] else {
        panic!("one output")
    };
    assert_eq!(name, "doubled");
    assert_eq!(guest.dimensions(again(output)).unwrap(), [1, 2]);
    assert_eq!(guest.ty(again(output)).unwrap(), TensorType::Fp32);
    assert_eq!(
        HostTensor::data(&mut guest, again(output)).unwrap(),
        bytes(&[3.0, -4.0])
    );
}

#[test]
fn bytes_of_a_model_are_never_taken() {
    let mut guest = guest();
    let bytes = vec![b"onnx".to_vec()];
    let refused = guest.load(bytes, GraphEncoding::Onnx, ExecutionTarget::Cpu);
    let error = refused.unwrap().err().unwrap();
    let words = HostError::data(&mut guest, again(&error)).unwrap();
    assert!(words.contains("load-by-name"));
    assert_eq!(code(&mut guest, error), ErrorCode::Security);
    let error = guest.load_by_name("other".into()).unwrap().err().unwrap();
    assert_eq!(code(&mut guest, error), ErrorCode::NotFound);
}

#[test]
fn tensors_that_are_none_are_refused_and_gone() {
    let mut guest = guest();
    let graph = guest.load_by_name("double".into()).unwrap().unwrap();
    let context = guest.init_execution_context(graph).unwrap().unwrap();
    for (dimensions, ty, data, expected) in [
        (
            vec![3],
            TensorType::Fp32,
            bytes(&[1.0]),
            ErrorCode::InvalidArgument,
        ),
        (
            vec![u32::MAX; 8],
            TensorType::Fp32,
            vec![],
            ErrorCode::InvalidArgument,
        ),
        (
            vec![1],
            TensorType::Bf16,
            vec![0, 0],
            ErrorCode::UnsupportedOperation,
        ),
        (vec![1], TensorType::U8, vec![0], ErrorCode::InvalidArgument),
    ] {
        let input = guest.new(dimensions, ty, data).unwrap();
        let before = again(&input);
        let refused = guest.compute(again(&context), vec![("x".into(), input)]);
        let error = refused.unwrap().err().unwrap();
        assert_eq!(code(&mut guest, error), expected);
        let gone = guest.ty(before).err().unwrap();
        assert_eq!(gone.downcast_ref::<Stopped>(), Some(&Stopped::Malformed));
    }
}
