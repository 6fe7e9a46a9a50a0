//! `wasi:nn` 0.2.0-rc-2024-10-28 over a [`World`](crate::World): sealed models by name, run by the enclave's engine.
//!
//! Bytes of a model are never taken from a guest. A tensor is checked when it is used: its data must be as long as
//! its dimensions say.
//!
//! On paper: a tensor is copied into the host when it is made and out of it when its data is read; between compute's
//! ends it moves.
#![expect(
    unreachable_pub,
    reason = "the generated bindings export the types of handles"
)]

use bield_package::tensor::{ElementType, Tensor};
use wasmtime::Result;
use wasmtime::component::Resource;

use crate::bindings::wasi::nn::tensor::TensorType;
use crate::bindings::wasi::nn::{errors, graph, inference, tensor};
use crate::guest::Guest;
use crate::{ModelId, NnError, NnErrorKind};

/// A tensor as a guest made it or gets it.
pub struct GuestTensor {
    dimensions: Vec<u32>,
    ty: TensorType,
    data: Vec<u8>,
}

/// A model.
pub struct Graph(ModelId);

/// A model ready to run.
pub struct Context(ModelId);

type Named = (String, Resource<GuestTensor>);

impl Guest {
    fn refuse<T>(&mut self, error: NnError) -> Result<Result<T, Resource<NnError>>> {
        Ok(Err(self.keep(error)?))
    }
}

impl tensor::Host for Guest {}

impl tensor::HostTensor for Guest {
    fn new(
        &mut self,
        dimensions: Vec<u32>,
        ty: TensorType,
        data: Vec<u8>,
    ) -> Result<Resource<GuestTensor>> {
        self.enter(data.len() + 4 * dimensions.len())?;
        Ok(self.keep(GuestTensor {
            dimensions,
            ty,
            data,
        })?)
    }

    fn dimensions(&mut self, tensor: Resource<GuestTensor>) -> Result<Vec<u32>> {
        self.enter(0)?;
        let bytes = 4 * self.look(&tensor)?.dimensions.len();
        self.carry(bytes)?;
        Ok(self.look(&tensor)?.dimensions.clone())
    }

    fn ty(&mut self, tensor: Resource<GuestTensor>) -> Result<TensorType> {
        self.enter(0)?;
        Ok(self.look(&tensor)?.ty)
    }

    fn data(&mut self, tensor: Resource<GuestTensor>) -> Result<Vec<u8>> {
        self.enter(0)?;
        let bytes = self.look(&tensor)?.data.len();
        self.carry(bytes)?;
        Ok(self.look(&tensor)?.data.clone())
    }

    fn drop(&mut self, tensor: Resource<GuestTensor>) -> Result<()> {
        self.take(tensor)?;
        Ok(())
    }
}

impl graph::Host for Guest {
    fn load(
        &mut self,
        parts: Vec<Vec<u8>>,
        _: graph::GraphEncoding,
        _: graph::ExecutionTarget,
    ) -> Result<Result<Resource<Graph>, Resource<NnError>>> {
        self.enter(parts.iter().map(Vec::len).sum())?;
        self.refuse(NnError::new(
            NnErrorKind::Security,
            "models come sealed, by name: use load-by-name and name the model in the function's manifest",
        ))
    }

    fn load_by_name(&mut self, name: String) -> Result<Result<Resource<Graph>, Resource<NnError>>> {
        self.enter(name.len())?;
        match self.world.load_model(&name) {
            Ok(model) => Ok(Ok(self.keep(Graph(model))?)),
            Err(error) => self.refuse(error),
        }
    }
}

impl graph::HostGraph for Guest {
    fn init_execution_context(
        &mut self,
        graph: Resource<Graph>,
    ) -> Result<Result<Resource<Context>, Resource<NnError>>> {
        self.enter(0)?;
        let model = self.look(&graph)?.0;
        Ok(Ok(self.keep(Context(model))?))
    }

    fn drop(&mut self, graph: Resource<Graph>) -> Result<()> {
        self.take(graph)?;
        Ok(())
    }
}

impl inference::Host for Guest {}

impl inference::HostGraphExecutionContext for Guest {
    fn compute(
        &mut self,
        context: Resource<Context>,
        inputs: Vec<Named>,
    ) -> Result<Result<Vec<Named>, Resource<NnError>>> {
        self.enter(inputs.iter().map(|(name, _)| name.len()).sum())?;
        let model = self.look(&context)?.0;
        // All are taken first: they are the host's now, whatever comes of the run.
        let mut taken = Vec::with_capacity(inputs.len());
        for (name, handle) in inputs {
            taken.push((name, self.take(handle)?));
        }
        let tensors: Result<Vec<Tensor>, NnError> = taken.into_iter().map(to_engine).collect();
        let outputs = tensors.and_then(|inputs| self.world.compute(model, inputs));
        let outputs: Result<Vec<_>, NnError> =
            outputs.and_then(|outputs| outputs.into_iter().map(to_guest).collect());
        match outputs {
            Err(error) => self.refuse(error),
            Ok(outputs) => {
                let mut named = Vec::with_capacity(outputs.len());
                for (name, tensor) in outputs {
                    named.push((name, self.keep(tensor)?));
                }
                Ok(Ok(named))
            }
        }
    }

    fn drop(&mut self, context: Resource<Context>) -> Result<()> {
        self.take(context)?;
        Ok(())
    }
}

impl errors::Host for Guest {}

impl errors::HostError for Guest {
    fn code(&mut self, error: Resource<NnError>) -> Result<errors::ErrorCode> {
        self.enter(0)?;
        Ok(match self.look(&error)?.kind {
            NnErrorKind::InvalidArgument => errors::ErrorCode::InvalidArgument,
            NnErrorKind::InvalidEncoding => errors::ErrorCode::InvalidEncoding,
            NnErrorKind::Timeout => errors::ErrorCode::Timeout,
            NnErrorKind::Runtime => errors::ErrorCode::RuntimeError,
            NnErrorKind::Unsupported => errors::ErrorCode::UnsupportedOperation,
            NnErrorKind::TooLarge => errors::ErrorCode::TooLarge,
            NnErrorKind::NotFound => errors::ErrorCode::NotFound,
            NnErrorKind::Security => errors::ErrorCode::Security,
            NnErrorKind::Unknown => errors::ErrorCode::Unknown,
        })
    }

    fn data(&mut self, error: Resource<NnError>) -> Result<String> {
        self.enter(0)?;
        let bytes = self.look(&error)?.message.len();
        self.carry(bytes)?;
        Ok(self.look(&error)?.message.clone())
    }

    fn drop(&mut self, error: Resource<NnError>) -> Result<()> {
        self.take(error)?;
        Ok(())
    }
}

fn to_engine((name, tensor): (String, GuestTensor)) -> Result<Tensor, NnError> {
    let element = match tensor.ty {
        TensorType::Fp16 => ElementType::F16,
        TensorType::Fp32 => ElementType::F32,
        TensorType::Fp64 => ElementType::F64,
        TensorType::U8 => ElementType::U8,
        TensorType::I32 => ElementType::I32,
        TensorType::I64 => ElementType::I64,
        TensorType::Bf16 => {
            let message = format!("tensor {name}: no engine here takes bf16; use fp16 or fp32");
            return Err(NnError::new(NnErrorKind::Unsupported, message));
        }
    };
    let shape = tensor.dimensions.into_iter().map(u64::from).collect();
    Tensor::new(name, element, shape, tensor.data)
        .map_err(|error| NnError::new(NnErrorKind::InvalidArgument, error.to_string()))
}

fn to_guest(tensor: Tensor) -> Result<(String, GuestTensor), NnError> {
    let name = tensor.name().to_owned();
    let ty = match tensor.element() {
        ElementType::F16 => TensorType::Fp16,
        ElementType::F32 => TensorType::Fp32,
        ElementType::F64 => TensorType::Fp64,
        // A boolean is a byte, 0 or 1; wasi:nn has no type for it.
        ElementType::U8 | ElementType::Bool => TensorType::U8,
        ElementType::I32 => TensorType::I32,
        ElementType::I64 => TensorType::I64,
        other => {
            let message = format!("output {name} is of {other}, which wasi:nn does not carry");
            return Err(NnError::new(NnErrorKind::Unsupported, message));
        }
    };
    let dimensions: Result<Vec<u32>, _> = tensor.shape().iter().map(|n| (*n).try_into()).collect();
    let Ok(dimensions) = dimensions else {
        let message = format!("output {name} has a dimension that wasi:nn does not carry");
        return Err(NnError::new(NnErrorKind::TooLarge, message));
    };
    let data = tensor.into_data();
    Ok((
        name,
        GuestTensor {
            dimensions,
            ty,
            data,
        },
    ))
}
