//! Functions: described in one file, packed with their state's keys, called.
//!
//! ```text
//! bield.toml ─▶ FunctionFile ─┐
//! component ──────────────────┼─▶ draft ─▶ package (sealed)
//! FunctionState (home) ───────┘
//!
//! FunctionCall ─▶ Target::call_function ─▶ receipt verified, state not behind what was seen ─▶ FunctionAnswered
//! ```
//!
//! Always true: of one function name in one home there is one state, so that it survives new versions; the keys of a
//! state are in the home before any package holds them.
//!
//! Not here: where state is kept and how it is opened (the runtime).

mod call;
mod file;
mod seen;
mod state;

use bield_package::{FunctionSpec, ManifestDraft, NamedModel, NotAComponent, component_digest};

pub use call::{FunctionAnswered, FunctionCall};
pub use file::{FUNCTION_FILE, FunctionFile, FunctionFileError, NamedPackage};
pub use seen::SeenState;
pub use state::{FunctionState, FunctionStateError};

impl FunctionFile {
    /// What is packed of a function: its description with the digest of its code, packages of its models by name, and
    /// its state, which it has exactly when it has buckets.
    ///
    /// # Errors
    /// The bytes are no component.
    pub fn draft(
        &self,
        component: &[u8],
        models: Vec<NamedModel>,
        state: Option<&FunctionState>,
    ) -> Result<ManifestDraft, NotAComponent> {
        let spec = FunctionSpec {
            component: component_digest(component)?,
            limits: self.limits,
            buckets: self.buckets.clone(),
            models,
            state: state.map(FunctionState::spec),
        };
        let (name, version) = (self.name.clone(), self.version.clone());
        Ok(ManifestDraft::function(name, version, spec))
    }
}
