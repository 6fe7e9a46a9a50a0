//! Sealed packages: a model or a function that only the right enclave can read, in one file that
//! anyone may store.
//!
//! ```text
//!  owner                          host                                 enclave
//!  model ─┐                                                      ┌─▶ manifest, golden pairs
//!         ├─ pack ──▶ head │ manifest │ chunk 0 │ chunk 1 │ … ──▶┤
//!  draft ─┘           signed  ~~~~~~~~~~ sealed ~~~~~~~~~~       └─▶ model, chunk by chunk
//! ```
//!
//! In: a model, its description, the owner's signing key, a package key. Out: a file whose
//! [digest](PackageHead::digest) follows from its first few hundred bytes.
//!
//! Always true: what leaves [`PackageHead`] and [`OpenPackage`] was checked, in the order in which
//! the types follow each other; every refusal says what was wrong and, for chunks, which one;
//! memory stays at the model plus one chunk.
//!
//! Not here: where keys live and who gets them (`enclave/keys`), where files live (`host`), running
//! the model (`enclave/engine`). Byte layout: `spec/05-package.md`.
//!
//! * [`tensor`]: named arrays and their specs, shared by all zones.
//! * [`onnx`]: what an ONNX file takes and gives, read without an engine.
//! * [`prepared`]: the same of `.rten` and `.ort` files.
//! * [`FunctionSpec`]: what a function may use, in place of inputs and outputs.

mod component;
mod error;
mod function;
mod header;
mod key;
mod manifest;
mod name;
pub mod onnx;
mod open;
mod pack;
pub mod prepared;
pub mod tensor;

pub use component::{NotAComponent, component_digest};
pub use error::{PackError, PackageError};
pub use function::{
    BUCKETS_MAX, BucketSpec, Consistency, Durability, FUNCTION_MODELS_MAX, FunctionError,
    FunctionLimits, FunctionSpec, NamedModel, STATE_CONFIG_BYTES_MAX, STATE_CONFIG_RECORDS_MAX,
    STATE_KEYRING_BYTES_MAX, STATE_METADATA_BYTES_MAX, StateKeys, StateSpec,
};
pub use header::{
    CHUNK_BYTES, CHUNK_BYTES_MIN, MANIFEST_BYTES_MAX, MODEL_BYTES_MAX, PackageHeader, Suite,
};
pub use key::PackageKey;
pub use manifest::{
    GOLDEN_PAIRS_MAX, GoldenPair, Manifest, ManifestDraft, ManifestError, ModelFormat,
    TOLERANCE_PPM, TOLERANCE_PPM_MAX,
};
pub use name::{InvalidName, NAME_BYTES_MAX, PackageName, PackageVersion};
pub use open::{ChunkPlace, OpenPackage, PackageHead};
pub use pack::{PackageSummary, content_digest, pack};
