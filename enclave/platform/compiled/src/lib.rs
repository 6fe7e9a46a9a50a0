//! Native code of WebAssembly functions: compiled here, kept sealed, loaded only when authentic.
//!
//! ```text
//! component (.wasm) ─ compile ─▶ Compiled ─ load ─▶ wasmtime's Component
//!                                 │    ▲
//!                               seal  open        key, and what it was made of and for: Identity
//!                                 ▼    │
//!                          sealed bytes, on any disk
//! ```
//!
//! Goes in: the portable bytes of a component, or what [`Compiled::seal`] made of it once. Comes out: a component that
//! an engine of the same [`Settings`] runs.
//!
//! Always true: a [`Compiled`] was made by the compiler of this very crate, in this process or in one that held the
//! same key. Nothing else can be loaded: native code is not checked when it is loaded (one flipped bit ends the process,
//! a well-chosen one takes it over), so bytes that anybody else could have written never get that far. What was
//! compiled from another component, by another release or settings of the compiler, for another processor, does not
//! open. Memory that runs is never written again, and memory that is written never runs.
//!
//! Left to others: who may have the key (`enclave/keys`), where sealed bytes lie, and when to compile: it takes about 1.5 s of
//! a core for each MB, and a component can be built so that it takes long; keep it off the path of requests.
//!
//! On paper: sealing and opening pass over the code once (AES-256-GCM, some GB/s), loading copies it once into memory
//! of its own: 4.9 MB for a function of 1.6 MB.
//!
//! # Features
//! * `compiler`: adds `compile`, and Cranelift to the trusted computing base.

#[cfg(feature = "compiler")]
mod compile;
mod compiled;
mod identity;
mod settings;

#[cfg(feature = "compiler")]
pub use compile::{COMPONENT_BYTES_MAX, CompileError, compile};
pub use compiled::{Compiled, LoadError, NotOpened, SEALED_BYTES_MAX};
pub use identity::{Identity, Processor, component_digest};
pub use settings::{SETTINGS, Settings, WASMTIME};

#[cfg(test)]
mod tests;
