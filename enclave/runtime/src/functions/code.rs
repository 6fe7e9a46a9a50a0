//! Native code of functions, kept sealed in the host's storage.
//!
//! ```text
//! component ─▶ file code-… ─ opens under our seal key? ─▶ Compiled
//!                 └ no ─▶ compile ─▶ Compiled ─ seal ─▶ file
//! ```
//!
//! In: a component whose digest was checked. Out: its native code. Always true: what is not authentic is compiled anew, and
//! a host that keeps nothing costs time and no more; at most one function is compiled at a time, for which those whose
//! code is kept do not wait; a file's name says nothing of the component to who has no seal key; what nobody uses goes
//! (`uses`). Not here: what authentic means (`bield-compiled`).

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

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
    compiling: Compiling,
}

/// Whether somebody compiles.
#[derive(Default)]
struct Compiling {
    busy: Mutex<bool>,
    free: Condvar,
}

/// The one who compiles.
struct Compiler<'a>(&'a Compiling);

impl Compiling {
    fn begin(&self, wait: Duration) -> Option<Compiler<'_>> {
        let waited = self
            .free
            .wait_timeout_while(lock(&self.busy), wait, |busy| *busy);
        let (mut busy, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if *busy {
            return None;
        }
        *busy = true;
        Some(Compiler(self))
    }
}

impl Drop for Compiler<'_> {
    fn drop(&mut self) {
        *lock(&self.0.busy) = false;
        self.0.free.notify_one();
    }
}

impl CodeCache {
    pub(super) fn new(files: Box<dyn Files>, key: Secret) -> Self {
        Self {
            files: Mutex::new(files),
            key,
            compiling: Compiling::default(),
        }
    }

    /// The code of a component.
    ///
    /// # Errors
    /// It does not compile, or others are compiled for longer than `wait`.
    pub(super) fn get(
        &self,
        host: &Host,
        wasm: &[u8],
        wait: Duration,
    ) -> Result<Compiled, Refusal> {
        let identity = Identity::here(component_digest(wasm), SETTINGS);
        let name = self.name(&identity);
        if let Some(code) = self.kept(&identity, &name) {
            return Ok(code);
        }
        let Some(_compiler) = self.compiling.begin(wait) else {
            return Err(crate::refusals::late(wait));
        };
        // Another package of the same component may have been first.
        if let Some(code) = self.kept(&identity, &name) {
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

    fn name(&self, identity: &Identity) -> String {
        let name = self
            .key
            .derive("bield function code name v1", &[&identity.component]);
        format!("code-{}", hex::encode(&name.expose()[..20]))
    }

    fn kept(&self, identity: &Identity, name: &str) -> Option<Compiled> {
        let sealed = self.read(name).ok()?;
        let code = Compiled::open(&self.key, identity, &sealed).ok()?;
        self.note_use(name);
        Some(code)
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
