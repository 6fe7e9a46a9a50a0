//! Packages: what opens is what was packed; a hostile owner gets no further than the limits.

use std::io::Cursor;
use std::sync::LazyLock;

use bield_envelope::{Digest, Seeded, Signed, wire};
use bield_fixtures::converted;
use bield_package::onnx::{GRAPH_ENTRIES_MAX, SIGNATURE_TENSORS_MAX, Signature};
use bield_package::prepared::{RtenFile, ort_signature};
use bield_package::tensor::{ElementType, Tensor, TensorSpec};
use bield_package::{
    CHUNK_BYTES, CHUNK_BYTES_MIN, GoldenPair, MANIFEST_BYTES_MAX, MODEL_BYTES_MAX, Manifest,
    ManifestDraft, ModelFormat, PackageError, PackageHead, PackageHeader, TOLERANCE_PPM, pack,
};

use crate::{cast, vectors};

/// A whole package file: it opens to the model that was packed, or to nothing at all.
pub fn package_file(data: &[u8]) -> bool {
    let mut source = data;
    let Ok(head) = PackageHead::read(&mut source) else {
        return false;
    };
    // Nobody else's key is at hand, so a header that verifies is one that was made.
    let headers = [headers(), crate::statements::seeds::foreign()].concat();
    cast::assert_honest(head.signed_header().as_bytes(), &headers, "header");
    assert_eq!(
        head.digest(),
        Digest::of("bield package v1", &[head.signed_header().as_bytes()])
    );
    let Ok(package) = head.open_manifest(&cast::package_key()) else {
        return false;
    };
    let mut region = vec![0xaa; package.model_bytes() as usize];
    if package
        .open_model(&mut source, &mut region, &mut |_, _| {})
        .is_err()
    {
        assert!(region.iter().all(|byte| *byte == 0), "plaintext remained");
        return false;
    }
    cast::assert_honest(data, &seeds::package_file(), "package");
    package
        .check_content(&region)
        .expect("another model than was packed");
    true
}

/// The header of a hostile owner, who signs whatever fields it likes: accepted ones are consistent
/// and within the limits.
///
/// Input: the unsigned header (CBOR).
pub fn package_header_fields(data: &[u8]) -> bool {
    let Ok(mut header) = wire::decode::<PackageHeader>(data, 512) else {
        return false;
    };
    assert_eq!(wire::encode(&header), data);
    header.owner = cast::owner().principal();
    if wire::encode(&header).len() > 512 {
        return false;
    }
    let signed = Signed::sign(&cast::owner(), header.clone());
    let length = u32::try_from(signed.as_bytes().len()).expect("short");
    let file = [
        b"bieldpkg\x00\x01",
        &length.to_be_bytes()[..],
        signed.as_bytes(),
    ]
    .concat();
    match PackageHead::read(&mut &file[..]).map(drop) {
        // Consistent: all that is missing is the manifest.
        Err(PackageError::HeadTruncated) => {
            let chunk = u64::from(header.chunk_bytes);
            assert!((CHUNK_BYTES_MIN..=CHUNK_BYTES).contains(&header.chunk_bytes));
            assert!((1..=MODEL_BYTES_MAX).contains(&header.model_bytes));
            assert!(header.manifest_bytes <= MANIFEST_BYTES_MAX + 16);
            let count = u64::from(header.chunk_count);
            assert!((count - 1) * chunk < header.model_bytes);
            assert!(header.model_bytes <= count * chunk);
            true
        }
        Err(_) => false,
        Ok(()) => panic!("a head without its manifest was read"),
    }
}

/// The manifest of a hostile owner: what packs comes back out unchanged.
///
/// Input: the manifest in the clear (CBOR).
pub fn package_manifest(data: &[u8]) -> bool {
    let Ok(manifest) = wire::decode::<Manifest>(data, MANIFEST_BYTES_MAX as usize) else {
        return false;
    };
    assert_eq!(wire::encode(&manifest), data);
    let draft = ManifestDraft {
        name: manifest.name.clone(),
        version: manifest.version.clone(),
        format: manifest.format,
        inputs: manifest.inputs.clone(),
        outputs: manifest.outputs.clone(),
        golden: manifest.golden.clone(),
        chunk_bytes: CHUNK_BYTES_MIN,
        function: manifest.function.as_ref().map(|function| {
            let bytes = wire::encode_secret(function);
            wire::decode(&bytes, MANIFEST_BYTES_MAX as usize).expect("its own encoding")
        }),
    };
    let Some(file) = packed(draft, MODEL, 1) else {
        return false;
    };
    let opened = PackageHead::read(&mut &file[..])
        .and_then(|head| head.open_manifest(&cast::package_key()))
        .expect("what packs opens")
        .into_manifest();
    // The content is the model's, whatever the draft's author wrote.
    assert_eq!(opened.inputs, manifest.inputs);
    assert_eq!(opened.outputs, manifest.outputs);
    assert_eq!(opened.golden, manifest.golden);
    true
}

/// The ONNX reader: bounded, and the same twice.
pub fn onnx_signature(data: &[u8]) -> bool {
    let read = Signature::read(data);
    assert_eq!(read, Signature::read(data));
    let Ok(signature) = read else {
        return false;
    };
    assert!(signature.inputs.len() <= SIGNATURE_TENSORS_MAX);
    assert!((1..=SIGNATURE_TENSORS_MAX).contains(&signature.outputs.len()));
    assert!(signature.nodes <= GRAPH_ENTRIES_MAX * 2);
    assert!(signature.padded_integer_convolutions.len() <= signature.nodes);
    true
}

/// The reader of `.rten` files.
pub fn rten_file(data: &[u8]) -> bool {
    let read = RtenFile::read(data);
    assert_eq!(read, RtenFile::read(data));
    let Ok(file) = read else {
        return false;
    };
    assert!(file.inputs.len() <= SIGNATURE_TENSORS_MAX);
    assert!((1..=SIGNATURE_TENSORS_MAX).contains(&file.outputs.len()));
    assert!(file.nodes <= data.len() / 4);
    assert!(file.padded_integer_convolutions.len() <= file.nodes);
    true
}

/// The reader of `.ort` files.
pub fn ort_file(data: &[u8]) -> bool {
    let read = ort_signature(data);
    assert_eq!(read, ort_signature(data));
    let Ok(signature) = read else {
        return false;
    };
    assert!(signature.inputs.len() <= SIGNATURE_TENSORS_MAX);
    assert!((1..=SIGNATURE_TENSORS_MAX).contains(&signature.outputs.len()));
    true
}

/// The head of the first seed.
pub(crate) fn head() -> PackageHead {
    PackageHead::read(&mut &seeds::package_file()[0][..]).expect("just packed")
}

/// The inputs, and the outputs, of the packed model.
pub(crate) fn specs() -> Vec<TensorSpec> {
    vec![TensorSpec::new("x", ElementType::F32, vec![None, Some(2)]).expect("a valid spec")]
}

fn draft() -> ManifestDraft {
    let tensor = || Tensor::from_f32("x", &[1, 2], &[0.5, -1.0]).expect("a valid tensor");
    ManifestDraft {
        name: "small".parse().expect("a valid name"),
        version: "1.0".parse().expect("a valid version"),
        format: ModelFormat::Onnx,
        inputs: specs(),
        outputs: specs(),
        golden: vec![GoldenPair {
            inputs: vec![tensor()],
            outputs: vec![tensor()],
            tolerance_ppm: TOLERANCE_PPM,
        }],
        chunk_bytes: CHUNK_BYTES_MIN,
        function: None,
    }
}

pub(crate) fn packed(draft: ManifestDraft, model: &[u8], seed: u64) -> Option<Vec<u8>> {
    let mut file = Vec::new();
    pack(
        &mut Cursor::new(model),
        draft,
        &cast::owner(),
        &cast::package_key(),
        &mut Seeded::new(seed),
        &mut file,
        &mut |_, _| {},
    )
    .ok()?;
    Some(file)
}

/// Signed headers of the seeds.
fn headers() -> Vec<Vec<u8>> {
    seeds::package_file()
        .iter()
        .filter_map(|file| PackageHead::read(&mut &file[..]).ok())
        .map(|head| head.signed_header().as_bytes().to_vec())
        .collect()
}

/// Three chunks, the last one short.
const MODEL: &[u8] = &[0x42; 2 * CHUNK_BYTES_MIN as usize + 88];

/// Two packages of the same key and shape (so that mixing their chunks is tried), one of one chunk.
static FILES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    [(MODEL, 80), (MODEL, 81), (b"tiny model", 82)]
        .into_iter()
        .filter_map(|(model, seed)| packed(draft(), model, seed))
        .collect()
});

pub(crate) mod seeds {
    use super::*;

    pub(crate) fn package_file() -> Vec<Vec<u8>> {
        FILES.clone()
    }

    pub(crate) fn package_header_fields() -> Vec<Vec<u8>> {
        let frozen = vectors::bytes("05-package", "/header");
        [wire::encode(head().header())]
            .into_iter()
            .chain(frozen)
            .collect()
    }

    pub(crate) fn package_manifest() -> Vec<Vec<u8>> {
        let opened = head().open_manifest(&cast::package_key());
        let own = wire::encode(opened.expect("just packed").manifest());
        let frozen = vectors::bytes("05-package", "/manifest");
        [own].into_iter().chain(frozen).collect()
    }

    pub(crate) fn rten_file() -> Vec<Vec<u8>> {
        vec![
            converted::MIXED_RTEN.to_vec(),
            converted::BRANCHES_RTEN.to_vec(),
            bield_fixtures::tiny_rten(),
        ]
    }

    pub(crate) fn ort_file() -> Vec<Vec<u8>> {
        vec![converted::MIXED_ORT.to_vec(), converted::TYPES_ORT.to_vec()]
    }

    pub(crate) fn onnx_signature() -> Vec<Vec<u8>> {
        vec![
            bield_fixtures::tiny_model(),
            bield_fixtures::integer_model(),
            bield_fixtures::integer_convolution(1),
        ]
    }
}
