//! One way to count what a model takes, for whichever engine and tier.
//!
//! Always true: nothing is counted that was not set aside; what does not fit is refused, and the model is gone before its
//! memory is free again. Not here: the budget (`models`).

use std::sync::Arc;
use std::time::Duration;

use bield_engine::{Footprint, Model};
use bield_protocol::refusal::Refusal;

use crate::models::{Loaded, Models, Opened, Space};

/// What one model takes on one engine, from its first byte to what stays.
pub(super) struct Counted<'a> {
    models: &'a Arc<Models>,
    model_bytes: u64,
    space: Space,
    resident: u64,
}

impl<'a> Counted<'a> {
    /// A model of so many bytes in `space`.
    pub(super) const fn new(models: &'a Arc<Models>, model_bytes: u64, space: Space) -> Self {
        Self {
            models,
            model_bytes,
            space,
            resident: 0,
        }
    }

    /// What stays of it, as far as its bytes tell.
    pub(super) fn staying(mut self, resident: u64) -> Self {
        self.resident = resident;
        self
    }

    /// Counts what the model's bytes tell: half-precision weights, for example, are longer in the engine than in the file.
    pub(super) fn measure(&mut self, exact: Footprint) -> Result<(), Refusal> {
        self.resident = exact.resident;
        self.grow(exact.loading)
    }

    /// Counts what the engine tells of the loaded model, with what was computed from constants, which may be more than the
    /// file. Opening it on another engine takes `second` bytes, if that is due.
    pub(super) fn keep(
        mut self,
        model: Box<dyn Model>,
        second: u64,
        took: Duration,
    ) -> Result<Loaded, Refusal> {
        let told = model.resident_bytes().unwrap_or_default();
        self.resident = self.resident.max(told);
        self.grow(self.resident)?;
        Ok(Loaded {
            model: Opened::new(model, second),
            bytes: self.resident,
            space: self.space,
            took,
        })
    }

    fn grow(&mut self, bytes: u64) -> Result<(), Refusal> {
        self.models.grow(&mut self.space, self.model_bytes, bytes)
    }
}
