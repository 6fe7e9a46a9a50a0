//! `.rten` and `.ort`: models that were prepared for one engine, read without that engine.
//!
//! ```text
//! .rten ──▶ RtenFile::read ──▶ inputs, outputs, padded integer convolutions, hash of its ONNX ──┐
//!           an ONNX's Signature ──check──▶ the same model? ──▶ Signature with i64 and boolean ◀─┘
//! .ort  ──▶ ort_signature  ──▶ Signature; an `.ort` says everything that its ONNX said
//! ```
//!
//! A model owner's tool fills the manifest from them, and the runtime's engine checks the manifest against
//! them.
//!
//! Always true: any bytes end in an answer or a [`PreparedError`]; at most [`GRAPH_ENTRIES_MAX`] nodes are
//! looked at, at most [`GRAPH_DEPTH_MAX`] graphs deep; weights are stepped over, never read.
//!
//! Not here: whether the graph is valid, whether its operators exist, what it computes.
//!
//! On paper: a few words per node; a 178 MB file of 279 nodes touches about 60 KB.
//!
//! [`GRAPH_ENTRIES_MAX`]: crate::onnx::GRAPH_ENTRIES_MAX
//! [`GRAPH_DEPTH_MAX`]: crate::onnx::GRAPH_DEPTH_MAX

mod error;
mod flatbuffer;
mod ort;
mod rten;

pub use error::PreparedError;
pub use ort::ort_signature;
pub use rten::{RtenFile, in_rten};

/// Refuses a number that reached its limit.
fn below(have: usize, what: &'static str, limit: usize) -> Result<(), PreparedError> {
    if have < limit {
        return Ok(());
    }
    Err(PreparedError::TooMany { what, limit })
}
