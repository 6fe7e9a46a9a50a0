//! Native code of functions, kept sealed in the host's storage.
//!
//! ```text
//! component ─▶ file code-… ─ opens under our seal key? ─▶ Compiled
//!                 └ no ─▶ compile ─▶ Compiled ─ seal ─▶ file
//! ```
//!
//! In: a component whose digest was checked. Out: its native code. Always true: what is not authentic is compiled anew, and
//! a host that keeps nothing costs time and no more; at most one function is compiled at a time; what nobody uses goes
//! (`uses`). Not here: what authentic means (`bield-compiled`).

use std::sync::Mutex;

use bield_compiled::{Compiled, Identity, SEALED_BYTES_MAX, Settings, component_digest};
use bield_envelope::Secret;
use bield_function::Host;
use bield_ledger::{Files, FilesError, TRANSFER_BYTES_MAX};
use bield_platform::Randomness;
use bield_protocol::refusal::{Refusal, Retry};

use super::uses;
use crate::flights::lock;

/// What functions run under here.
pub(super) const SETTINGS: Settings = Settings::Machine;

const DAY_MS: u64 = 86_400_000;

/// Sealed code on the host's storage.
pub(super) struct CodeCache {
    files: Mutex<Box<dyn Files>>,
    key: Secret,
    compiling: Mutex<()>,
}

impl CodeCache {
    pub(super) fn new(files: Box<dyn Files>, key: Secret) -> Self {
        Self {
            files: Mutex::new(files),
            key,
            compiling: Mutex::default(),
        }
    }

    /// The code of a component.
    ///
    /// # Errors
    /// It does not compile.
    pub(super) fn get(&self, host: &Host, wasm: &[u8]) -> Result<Compiled, Refusal> {
        let identity = Identity::here(component_digest(wasm), SETTINGS);
        let _compiling = lock(&self.compiling);
        let name = format!("code-{}", hex::encode(&identity.component[..20]));
        let kept = self.read(&name).ok();
        if let Some(code) =
            kept.and_then(|sealed| Compiled::open(&self.key, &identity, &sealed).ok())
        {
            self.note_use(&name);
            return Ok(code);
        }
        let code = host.compile(wasm).map_err(|error| {
            let why = format_args!("{error}; its owner must build and pack it again");
            Refusal::new("function-unusable", why, Retry::AfterChange)
        })?;
        let sealed = code.seal(&self.key, &identity, &mut Randomness);
        // Without it, the next start takes longer.
        let _ = self.write(&name, &sealed);
        self.note_use(&name);
        Ok(code)
    }

    /// Without it, code that nobody uses stays longer.
    fn note_use(&self, name: &str) {
        let today = bield_platform::now().as_millis() / DAY_MS;
        let _ = uses::note(&mut **lock(&self.files), name, today);
    }

    fn read(&self, name: &str) -> Result<Vec<u8>, FilesError> {
        let mut files = lock(&self.files);
        let mut sealed = Vec::new();
        loop {
            let offset = sealed.len() as u64;
            let piece = files.read(name, offset, TRANSFER_BYTES_MAX as u64)?;
            let is_last = piece.len() < TRANSFER_BYTES_MAX;
            sealed.extend(piece);
            if is_last || sealed.len() > SEALED_BYTES_MAX {
                return Ok(sealed);
            }
        }
    }

    fn write(&self, name: &str, sealed: &[u8]) -> Result<(), FilesError> {
        let mut files = lock(&self.files);
        let mut offset = 0;
        let pieces = sealed.chunks(TRANSFER_BYTES_MAX).collect::<Vec<_>>();
        for (number, piece) in pieces.iter().enumerate() {
            match number + 1 == pieces.len() {
                true => files.append(name, offset, piece)?,
                false => files.write(name, offset, piece)?,
            }
            offset += piece.len() as u64;
        }
        Ok(())
    }
}
