//! WebAssembly functions for tests, and a world in memory that they can run in.
//!
//! ```text
//! WAT (a core module) ──┐
//!                       ├─ component(): wit/ of enclave/function around it ─▶ bytes of a component
//! C, by zig ────────────┘
//! JavaScript ─── cargo xtask guests ─▶ target/guests/NAME.wasm ──▶ javascript()
//! Python ─────── cargo xtask guests ─▶ target/guests/python.wasm ▶ python()
//! Rust ───────── cargo xtask guests ─▶ target/guests/rust.wasm ──▶ rust(), where it could be built
//! ```
//!
//! Always true: what is checked in was built from the source beside it (`tests/functions/checked_in.rs` builds it again where zig is
//! installed); components are made for the very interfaces that the host has.

mod memory;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

pub use memory::{Buckets, Models, OneRequest};

/// The component of `c/guest.c`, as zig 0.17.1 makes it: see there for its paths.
pub const C: &[u8] = include_bytes!("../c/guest.wasm");

/// The core module of `c/kernel.c`, as zig 0.17.1 makes it: SHA-256 over and over, which is also a native program.
pub const KERNEL: &[u8] = include_bytes!("../c/kernel.wasm");

/// A component of a core module that has the imports and exports of the world `bield:function/function@0.1.0`, by the
/// canonical ABI.
///
/// # Errors
/// The module is none, or imports or exports something else.
pub fn component(core: &[u8]) -> Result<Vec<u8>> {
    let mut resolve = Resolve::default();
    let wit = repository().join("enclave/function/wit");
    let (package, _) = resolve
        .push_dir(&wit)
        .context("reading the interfaces of functions")?;
    let world = resolve.select_world(&[package], Some("function"))?;
    let mut module = core.to_vec();
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8)?;
    ComponentEncoder::default()
        .validate(true)
        .module(&module)?
        .encode()
}

/// A component of a core module in the text format.
///
/// # Errors
/// As [`component`].
pub fn component_of_text(core: &str) -> Result<Vec<u8>> {
    component(&wat::parse_str(core)?)
}

/// The component of the example in JavaScript that `cargo xtask guests` built.
///
/// # Errors
/// It did not.
pub fn javascript(example: &str) -> Result<Vec<u8>> {
    built(example)
}

/// The component of `python/app.py` that `cargo xtask guests` built.
///
/// # Errors
/// It did not.
pub fn python() -> Result<Vec<u8>> {
    built("python")
}

/// The component of what `bield new --lang rust` writes.
///
/// # Errors
/// `cargo xtask guests` did not build it: it needs a Rust for WebAssembly, and says so where there is none.
pub fn rust() -> Result<Vec<u8>> {
    built("rust")
}

/// The folder in which `cargo xtask guests` builds.
#[must_use]
pub fn place() -> PathBuf {
    std::env::var_os("BIELD_GUESTS").map_or_else(|| target().join("guests"), PathBuf::from)
}

fn built(name: &str) -> Result<Vec<u8>> {
    let path = place().join(format!("{name}.wasm"));
    fs::read(&path).with_context(|| {
        format!(
            "{} is not there; `cargo xtask guests` builds it",
            path.display()
        )
    })
}

/// The text of a core module that answers each request with its own body and media type.
pub const ECHO: &str = include_str!("echo.wat");

/// The text of a core module that calls its bucket as often as it is told.
pub const CALLS: &str = include_str!("calls.wat");

fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Where cargo puts what it builds, if nobody said: beside the program that asks.
fn target() -> PathBuf {
    let program = std::env::current_exe().unwrap_or_default();
    let place = program
        .ancestors()
        .find(|place| place.join("CACHEDIR.TAG").exists());
    place.map_or_else(|| repository().join("target"), PathBuf::from)
}
