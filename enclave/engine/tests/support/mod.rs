//! What the tests of engines share.

use std::io::Cursor;

use bield_envelope::{Seeded, SigningKey};
use bield_package::onnx::Signature;
use bield_package::tensor::{ElementType, Tensor};
use bield_package::{
    GoldenPair, Manifest, ManifestDraft, ModelFormat, PackageHead, PackageKey, pack,
};

/// The manifest of a package of such a model; manifests come out of packages only.
pub(crate) fn promised(
    format: ModelFormat,
    signature: Signature,
    golden: Vec<GoldenPair>,
) -> Manifest {
    let (name, version) = ("model".parse().unwrap(), "1".parse().unwrap());
    let draft = ManifestDraft {
        golden,
        ..ManifestDraft::new(name, version, format, signature)
    };
    let entropy = &mut Seeded::new(1);
    let (owner, key) = (SigningKey::generate(entropy), PackageKey::generate(entropy));
    let mut file = Vec::new();
    let model = &mut Cursor::new([0]);
    pack(
        model,
        draft,
        &owner,
        &key,
        entropy,
        &mut file,
        &mut |_, _| {},
    )
    .unwrap();
    let head = PackageHead::read(&mut &file[..]).unwrap();
    head.open_manifest(&key).unwrap().into_manifest()
}

/// Inputs of the model `mixed`.
pub(crate) fn mixed_inputs() -> Vec<Tensor> {
    mixed_of(2, &[-3, 1 << 20, 0])
}

/// Inputs of the model `mixed`: `batch` rows, and a mask that is false, true, false, … beside the numbers.
pub(crate) fn mixed_of(batch: usize, numbers: &[i64]) -> Vec<Tensor> {
    let rows: Vec<f32> = (0..4 * batch).map(|at| at as f32 / 8.0 - 0.5).collect();
    let mask = (0..numbers.len()).map(|at| (at % 2) as u8).collect();
    let length = numbers.len() as u64;
    vec![
        Tensor::from_f32("x", &[batch as u64, 4], &rows).unwrap(),
        Tensor::from_i64("numbers", &[length], numbers).unwrap(),
        Tensor::new("mask", ElementType::Bool, vec![length], mask).unwrap(),
    ]
}
