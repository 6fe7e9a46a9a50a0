//! How code is compiled and run: what guests may do, what stops them, what the machine must offer.

use std::fmt;

use wasmtime::{Config, ModuleVersionStrategy, WasmFeatures};

/// The release of wasmtime, which is its compiler's too.
pub const WASMTIME: &str = "48.0.8";

/// Number of the settings below: raise it with each change of them.
pub const SETTINGS: u32 = 2;

/// What a machine offers to code that runs on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settings {
    /// Ordinary Linux, in a confidential virtual machine or not: memory is reserved ahead and ends in pages that fault,
    /// so that accesses need no checks, and begins as a private mapping of its image, of which only what a guest touches is
    /// copied.
    Machine,
    /// Linux as a library inside an enclave, which can neither reserve what it does not use nor be trusted about faults:
    /// every access is checked, at 1.3 to 1.8 times the cost, and images are copied whole: such systems have no files in
    /// memory to map. wasmtime's mitigations of speculation in such checks are off then.
    Library,
}

impl Settings {
    /// What compiler and engine are configured by. Allocation is the engine's affair and may be added.
    ///
    /// Deterministic: the same code on the same inputs gives the same bits, of NaN too. Not in: threads, garbage collection,
    /// exceptions, asynchronous components.
    #[must_use]
    pub fn config(self) -> Config {
        let mut config = Config::new();
        config
            .module_version(ModuleVersionStrategy::Custom(format!(
                "{WASMTIME} bield {SETTINGS}"
            )))
            .expect("shorter than 255 bytes")
            .epoch_interruption(true)
            .max_wasm_stack(WASM_STACK_BYTES)
            .async_stack_size(STACK_BYTES)
            .async_stack_zeroing(true)
            .generate_address_map(false)
            .memory_init_cow(self == Self::Machine)
            .wasm_relaxed_simd(true)
            .relaxed_simd_deterministic(true)
            .wasm_features(
                WasmFeatures::MEMORY64 | WasmFeatures::CUSTOM_PAGE_SIZES,
                false,
            );
        #[cfg(feature = "compiler")]
        config
            .cranelift_nan_canonicalization(true)
            .cranelift_opt_level(wasmtime::OptLevel::Speed);
        if self == Self::Library {
            config
                .signals_based_traps(false)
                .memory_reservation(0)
                .memory_guard_size(0)
                // A memory is an allocation here, which is wiped when it ends: the 2 GiB that wasmtime would add for it to grow
                // into would all be touched, at 2 s for each instance. Without them it doubles.
                .memory_reservation_for_growth(0);
        }
        config
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Machine => "machine",
            Self::Library => "library",
        }
    }
}

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Stack that a guest's own code may use. Interpreters inside of guests, such as QuickJS, recurse deeply.
const WASM_STACK_BYTES: usize = 1 << 20;
/// Stack of a request: the guest's, and above it what the host does for it, a table's or an engine's work included. Pages
/// are taken when they are touched.
const STACK_BYTES: usize = 8 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_release_is_the_one_that_is_linked() {
        let lock = include_str!("../../../../Cargo.lock");
        assert!(lock.contains(&format!("name = \"wasmtime\"\nversion = \"{WASMTIME}\"\n")));
    }
}
