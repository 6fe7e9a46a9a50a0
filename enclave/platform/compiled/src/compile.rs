//! From portable bytes to native code.

use bield_envelope::Wiped;
use wasmtime::Engine;

use crate::{Compiled, component_digest};

/// Largest component that is compiled: Python's are 18 MB, and what is larger holds a core for half a minute.
pub const COMPONENT_BYTES_MAX: usize = 24 << 20;

/// Compiles a component for engines like this one.
///
/// Takes about 1.5 s of a core and 20 MB of memory for each MB.
///
/// # Errors
/// See [`CompileError`]; all are its author's to mend.
pub fn compile(engine: &Engine, wasm: &[u8]) -> Result<Compiled, CompileError> {
    match wasm {
        _ if wasm.len() > COMPONENT_BYTES_MAX => {
            return Err(CompileError::TooLarge { bytes: wasm.len() });
        }
        // An ELF file is how wasmtime writes native code. It is not looked at any closer: who can write one, owns
        // whatever process believes it.
        [0x7f, b'E', b'L', b'F', ..] => return Err(CompileError::Native),
        // Magic, version and layer of WebAssembly binaries: 1 is a module, 0x0d with layer 1 a component.
        [0, b'a', b's', b'm', 0x0d, 0, 1, 0, ..] => {}
        [0, b'a', b's', b'm', 1, 0, 0, 0, ..] => return Err(CompileError::Module),
        _ => return Err(CompileError::NotWebAssembly),
    }
    let code = engine
        .precompile_component(wasm)
        .map_err(|error| CompileError::Invalid {
            why: error.root_cause().to_string(),
        })?;
    Ok(Compiled::of_the_compiler(
        component_digest(wasm),
        Wiped::from(code),
    ))
}

/// Why a function was not compiled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CompileError {
    /// Larger than [`COMPONENT_BYTES_MAX`].
    #[error(
        "the component has {bytes} bytes, more than the {COMPONENT_BYTES_MAX} that are compiled; make it smaller"
    )]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// Native code, compiled by somebody else.
    #[error(
        "this is native code (.cwasm); a function is given as a WebAssembly component (.wasm), which is compiled \
         inside the enclave"
    )]
    Native,
    /// A core module.
    #[error(
        "this is a WebAssembly module, not a component; build it for the component model \
         (`wasm-tools component new`)"
    )]
    Module,
    /// Something else.
    #[error("this is no WebAssembly component")]
    NotWebAssembly,
    /// A component that the validator or the compiler refuses.
    #[error("the component is not valid here: {why}")]
    Invalid {
        /// In the compiler's words.
        why: String,
    },
}
