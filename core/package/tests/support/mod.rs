//! What the tests of packages share: how one is made.

#![expect(clippy::unwrap_used, reason = "tests may stop where they stand")]

use std::io::Cursor;

use bield_envelope::{Seeded, SigningKey};
use bield_package::tensor::{ElementType, Tensor, TensorSpec};
use bield_package::{
    GoldenPair, ManifestDraft, ModelFormat, PackageKey, PackageSummary, TOLERANCE_PPM, pack,
};

/// Bytes that stand for a model.
pub(crate) fn model(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|i| (i * 7 + i / 256) as u8).collect()
}

/// A description with one golden pair.
pub(crate) fn draft(version: &str, chunk_bytes: u32) -> ManifestDraft {
    let golden = GoldenPair {
        inputs: vec![Tensor::from_f32("input", &[1, 2], &[0.5, -1.0]).unwrap()],
        outputs: vec![Tensor::from_f32("probs", &[1, 2], &[0.25, 0.75]).unwrap()],
        tolerance_ppm: TOLERANCE_PPM,
    };
    let spec = |name| TensorSpec::new(name, ElementType::F32, vec![None, Some(2)]).unwrap();
    ManifestDraft {
        name: "small".parse().unwrap(),
        version: version.parse().unwrap(),
        format: ModelFormat::Onnx,
        inputs: vec![spec("input")],
        outputs: vec![spec("probs")],
        golden: vec![golden],
        chunk_bytes,
        function: None,
    }
}

/// The owner of the test packages.
pub(crate) fn owner() -> SigningKey {
    SigningKey::generate(&mut Seeded::new(1))
}

/// The key of the test packages.
pub(crate) fn key() -> PackageKey {
    PackageKey::generate(&mut Seeded::new(2))
}

/// Packs a model of `bytes` bytes.
pub(crate) fn packed(
    bytes: usize,
    version: &str,
    chunk_bytes: u32,
    entropy: u64,
) -> (Vec<u8>, PackageSummary) {
    let mut file = Vec::new();
    let summary = pack(
        &mut Cursor::new(model(bytes)),
        draft(version, chunk_bytes),
        &owner(),
        &key(),
        &mut Seeded::new(entropy),
        &mut file,
        &mut |_, _| {},
    )
    .unwrap();
    (file, summary)
}
