//! A model that takes what its manifest promises and no more.
//!
//! A file may leave lengths free that its owner fixed in the manifest, so as to bound what a run takes; the file's own
//! check does not know that. Always true: each input has the lengths of the manifest; none has no elements unless the
//! manifest fixes a length of 0, since an empty one costs its sender nothing and may still make the engine allocate by its
//! other lengths. Not here: types, missing and unknown inputs (`ends`).

use std::ops::ControlFlow;
use std::time::Duration;

use bield_package::tensor::{Tensor, TensorSpec};

use crate::{EngineError, Model};

/// Holds callers of `inner` to the promised inputs, which were compared with its own.
pub(crate) fn promised(inner: Box<dyn Model>, inputs: &[TensorSpec]) -> Box<dyn Model> {
    let own = inner.inputs().iter();
    let inputs = own.map(|own| {
        let promised = inputs.iter().find(|spec| spec.name() == own.name());
        promised.unwrap_or(own).clone()
    });
    let inputs = inputs.collect();
    Box::new(Promised { inner, inputs })
}

struct Promised {
    inner: Box<dyn Model>,
    /// In the order of the model.
    inputs: Vec<TensorSpec>,
}

impl Promised {
    fn check(&self, tensors: &[Tensor]) -> Result<(), EngineError> {
        for tensor in tensors {
            let named = |spec: &&TensorSpec| spec.name() == tensor.name();
            let Some(spec) = self.inputs.iter().find(named) else {
                continue;
            };
            spec.accepts(tensor)?;
            if tensor.data().is_empty() && !spec.shape().contains(&Some(0)) {
                return Err(EngineError::EmptyInput {
                    name: tensor.name().to_owned(),
                });
            }
        }
        Ok(())
    }
}

impl Model for Promised {
    fn engine(&self) -> &'static str {
        self.inner.engine()
    }

    fn inputs(&self) -> &[TensorSpec] {
        &self.inputs
    }

    fn outputs(&self) -> &[TensorSpec] {
        self.inner.outputs()
    }

    fn run_timed(
        &self,
        inputs: &[Tensor],
        outputs: &[&str],
    ) -> Result<(Vec<Tensor>, Option<Duration>), EngineError> {
        self.check(inputs)?;
        self.inner.run_timed(inputs, outputs)
    }

    fn run_apart(
        &self,
        inputs: &[Tensor],
        outputs: &[&str],
    ) -> Result<(Vec<Tensor>, Option<Duration>), EngineError> {
        self.check(inputs)?;
        self.inner.run_apart(inputs, outputs)
    }

    fn run_in_parts(
        &self,
        inputs: &[Tensor],
        outputs: &[&str],
        each: &mut dyn FnMut(Tensor) -> ControlFlow<()>,
    ) -> Result<Option<Duration>, EngineError> {
        self.check(inputs)?;
        self.inner.run_in_parts(inputs, outputs, each)
    }

    fn computes_in_parts(&self) -> bool {
        self.inner.computes_in_parts()
    }

    fn has_rows(&self) -> bool {
        self.inner.has_rows()
    }

    fn runs_max(&self) -> usize {
        self.inner.runs_max()
    }

    fn resident_bytes(&self) -> Option<u64> {
        self.inner.resident_bytes()
    }

    fn is_broken(&self) -> bool {
        self.inner.is_broken()
    }

    fn wipes(&self) -> bool {
        self.inner.wipes()
    }
}
