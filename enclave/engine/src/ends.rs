//! Inputs and outputs of a call against what a model takes and gives.

use bield_package::tensor::{Tensor, TensorSpec};

use crate::EngineError;

/// Indices of the outputs asked for, each once; all of them when none is named.
pub(crate) fn asked(outputs: &[TensorSpec], names: &[&str]) -> Result<Vec<usize>, EngineError> {
    if names.is_empty() {
        return Ok((0..outputs.len()).collect());
    }
    names
        .iter()
        .enumerate()
        .map(|(at, name)| {
            let found = outputs.iter().position(|spec| spec.name() == *name);
            found
                .filter(|_| !names[..at].contains(name))
                .ok_or_else(|| EngineError::UnknownOutput {
                    name: (*name).to_owned(),
                })
        })
        .collect()
}

/// The tensors in the order of `specs`, each checked and each exactly once.
pub(crate) fn given<'t>(
    specs: &[TensorSpec],
    tensors: &'t [Tensor],
) -> Result<impl Iterator<Item = Result<&'t Tensor, EngineError>>, EngineError> {
    for (at, tensor) in tensors.iter().enumerate() {
        let known = specs.iter().any(|spec| spec.name() == tensor.name());
        let before = tensors[..at]
            .iter()
            .any(|other| other.name() == tensor.name());
        if !known || before {
            return Err(EngineError::UnknownInput {
                name: tensor.name().to_owned(),
            });
        }
    }
    Ok(specs.iter().map(|spec| {
        let tensor = tensors
            .iter()
            .find(|tensor| tensor.name() == spec.name())
            .ok_or_else(|| EngineError::MissingInput {
                name: spec.name().to_owned(),
            })?;
        spec.accepts(tensor)?;
        Ok(tensor)
    }))
}
