//! What native code was made of, and what it was made for.

use std::fmt::Write as _;

use aws_lc_rs::digest::{SHA256, digest};

use crate::settings::{SETTINGS, Settings, WASMTIME};

/// What sealed code belongs to; code of another identity does not open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// SHA-256 of the component's portable bytes.
    pub component: [u8; 32],
    /// What it runs under.
    pub settings: Settings,
    /// What it runs on.
    pub processor: Processor,
    /// The compiler's release; that of this program, unless a test says otherwise.
    pub release: String,
}

impl Identity {
    /// Of a component on this machine under this program.
    #[must_use]
    pub fn here(component: [u8; 32], settings: Settings) -> Self {
        Self {
            component,
            settings,
            processor: Processor::here(),
            release: format!("{WASMTIME} bield {SETTINGS}"),
        }
    }

    /// What is authenticated with the code: each part after its length (u64, big-endian).
    pub(crate) fn encode(&self) -> Vec<u8> {
        let settings = self.settings.to_string();
        let parts: [&[u8]; 5] = [
            b"bield function code v1",
            &self.component,
            self.release.as_bytes(),
            settings.as_bytes(),
            self.processor.0.as_bytes(),
        ];
        let mut encoded = Vec::with_capacity(256);
        for part in parts {
            encoded.extend((part.len() as u64).to_be_bytes());
            encoded.extend(part);
        }
        encoded
    }
}

/// A kind of processor, and what it has that the compiler makes use of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Processor(String);

impl Processor {
    /// The one this program runs on.
    #[must_use]
    pub fn here() -> Self {
        let mut named = format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS);
        for (feature, there) in features() {
            if there {
                let _ = write!(named, "+{feature}");
            }
        }
        Self(named)
    }

    /// One by its name, as of another machine.
    #[must_use]
    pub fn named(name: impl Into<String>) -> Self {
        Self(name.into())
    }
}

impl std::fmt::Display for Processor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// SHA-256 of a component's portable bytes: what manifests and grants know a function's code by.
#[must_use]
pub fn component_digest(wasm: &[u8]) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest(&SHA256, wasm).as_ref());
    bytes
}

/// Those that Cranelift looks for on x86-64.
#[cfg(target_arch = "x86_64")]
fn features() -> impl Iterator<Item = (&'static str, bool)> {
    macro_rules! detect {
        ($($feature:tt),*) => { [$(($feature, is_x86_feature_detected!($feature))),*] };
    }
    detect!(
        "sse3",
        "ssse3",
        "sse4.1",
        "sse4.2",
        "cmpxchg16b",
        "popcnt",
        "avx",
        "avx2",
        "fma",
        "bmi1",
        "bmi2",
        "lzcnt",
        "avx512bitalg",
        "avx512dq",
        "avx512f",
        "avx512vl",
        "avx512vbmi"
    )
    .into_iter()
}

/// Those that Cranelift looks for on 64-bit ARM.
#[cfg(target_arch = "aarch64")]
fn features() -> impl Iterator<Item = (&'static str, bool)> {
    macro_rules! detect {
        ($($feature:tt),*) => { [$(($feature, std::arch::is_aarch64_feature_detected!($feature))),*] };
    }
    detect!("lse", "paca", "fp16", "crc", "dotprod", "i8mm").into_iter()
}

/// Cranelift assumes nothing beyond the base elsewhere.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn features() -> impl Iterator<Item = (&'static str, bool)> {
    std::iter::empty()
}
