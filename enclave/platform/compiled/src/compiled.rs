//! Native code that is known to come from the compiler.
#![expect(
    unsafe_code,
    reason = "native code cannot be checked when it is loaded; only authentic code is"
)]

use bield_envelope::stream::{StreamKey, TAG_BYTES};
use bield_envelope::{Secret, Wiped};
use rand_core::CryptoRng;
use wasmtime::Engine;
use wasmtime::component::Component;

use crate::Identity;

/// Most sealed bytes that are opened: native code is three times its component.
pub const SEALED_BYTES_MAX: usize = 128 << 20;

/// Native code of one component, as the compiler of this crate made it. That such a value exists is the proof of it.
///
/// No `Debug` or `Clone`; wiped on drop, since a function's code is its owner's.
pub struct Compiled {
    component: [u8; 32],
    code: Wiped,
}

impl Compiled {
    #[cfg(feature = "compiler")]
    pub(crate) fn of_the_compiler(component: [u8; 32], code: Wiped) -> Self {
        Self { component, code }
    }

    /// SHA-256 of the portable bytes it was made of.
    #[must_use]
    pub fn component(&self) -> [u8; 32] {
        self.component
    }

    /// Seals it under a key of which this program and its likes are the only holders.
    ///
    /// `magic (8) ‖ salt (32) ‖ ciphertext ‖ tag (16)`: AES-256-GCM under a key that the given one derives for this
    /// salt and identity, hence for this message.
    ///
    /// # Panics
    /// `identity` is of another component.
    #[must_use]
    pub fn seal(&self, key: &Secret, identity: &Identity, entropy: &mut impl CryptoRng) -> Vec<u8> {
        assert_eq!(identity.component, self.component, "an identity of its own");
        let mut salt = [0; SALT_BYTES];
        entropy.fill_bytes(&mut salt);
        let mut sealed = Vec::with_capacity(HEAD_BYTES + self.code.len() + TAG_BYTES);
        sealed.extend(MAGIC);
        sealed.extend(salt);
        let aad = identity.encode();
        stream(key, &salt, &aad).seal(0, true, &aad, &self.code, &mut sealed);
        sealed
    }

    /// Opens what [`seal`](Self::seal) made for the same identity.
    ///
    /// # Errors
    /// It is something else, altered, sealed under another key, or of another identity: then compile again.
    pub fn open(key: &Secret, identity: &Identity, sealed: &[u8]) -> Result<Self, NotOpened> {
        let body = sealed
            .strip_prefix(&MAGIC)
            .filter(|_| sealed.len() <= SEALED_BYTES_MAX)
            .ok_or(NotOpened)?;
        let (salt, body) = body.split_first_chunk::<SALT_BYTES>().ok_or(NotOpened)?;
        let length = body.len().checked_sub(TAG_BYTES).ok_or(NotOpened)?;
        let aad = identity.encode();
        let mut code = vec![0; length];
        let opened = stream(key, salt, &aad).open_into(0, true, &aad, body, &mut code);
        let code = Wiped::from(code);
        opened.map_err(|_| NotOpened)?;
        Ok(Self {
            component: identity.component,
            code,
        })
    }

    /// Makes it runnable in an engine.
    ///
    /// # Errors
    /// The engine has other settings than the code, or the system gives no memory that runs.
    pub fn load(&self, engine: &Engine) -> Result<Component, LoadError> {
        // SAFETY: the bytes are what `Engine::precompile_component` returned: only `compile` makes a `Compiled` of
        // bytes, and `open` only of bytes that were authenticated under a key whose holders seal nothing but those. They
        // are private and never changed, and `deserialize` copies them. Code of another release or other settings
        // is refused by wasmtime, which reads them in what it authenticated.
        let loaded = unsafe { Component::deserialize(engine, &*self.code) };
        loaded.map_err(|error| LoadError {
            why: error.root_cause().to_string(),
        })
    }
}

/// Sealed code that is not what was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "this code was not sealed for this function, processor, release and key, or was altered; compile it again"
)]
pub struct NotOpened;

/// Authentic code that this engine does not run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the compiled function cannot be loaded: {why}")]
pub struct LoadError {
    /// In the engine's words.
    pub why: String,
}

fn stream(key: &Secret, salt: &[u8; SALT_BYTES], aad: &[u8]) -> StreamKey {
    StreamKey::new(&key.derive("bield function code v1", &[salt, aad]), [0; 7])
}

const MAGIC: [u8; 8] = *b"bieldfc1";
const SALT_BYTES: usize = 32;
const HEAD_BYTES: usize = MAGIC.len() + SALT_BYTES;
