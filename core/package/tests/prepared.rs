//! The readers of `.rten` and `.ort` files on those of real converters, on our own, and on rubbish.

use bield_fixtures::converted;
use bield_package::onnx::{CHAIN_NODES_MAX, Signature};
use bield_package::prepared::{PreparedError, RtenFile, ort_signature};
use bield_package::tensor::{ElementType, TensorSpec};
use proptest::prelude::*;

fn printed(specs: &[TensorSpec]) -> Vec<String> {
    specs.iter().map(ToString::to_string).collect()
}

const MIXED_INPUTS: [&str; 3] = ["x: f32[?, 4]", "numbers: i64[?]", "mask: bool[?]"];
const MIXED_OUTPUTS: [&str; 3] = ["y: f32[?, 3]", "doubled: i64[?]", "inverse: bool[?]"];

#[test]
fn an_ort_file_says_what_its_onnx_said() {
    let mixed = ort_signature(converted::MIXED_ORT).unwrap();
    assert_eq!(printed(&mixed.inputs), MIXED_INPUTS);
    assert_eq!(printed(&mixed.outputs), MIXED_OUTPUTS);
    let types = ort_signature(converted::TYPES_ORT).unwrap();
    let onnx = Signature::read(converted::TYPES_ONNX).unwrap();
    assert_eq!((types.inputs, types.outputs), (onnx.inputs, onnx.outputs));
}

#[test]
fn every_format_names_the_first_axes() {
    let names = ["batch", "n", "n", "batch", "n", "n"].map(|name| Some(name.to_owned()));
    let read = [
        Signature::read(converted::MIXED_ONNX).unwrap(),
        ort_signature(converted::MIXED_ORT).unwrap(),
        RtenFile::read(converted::MIXED_RTEN).unwrap().as_said(),
    ];
    for signature in read {
        assert_eq!(signature.first_axes, names);
        assert!(!signature.has_rows(), "n need not be the batch");
    }
    let tiny = RtenFile::read(&bield_fixtures::tiny_rten()).unwrap();
    assert!(tiny.as_said().has_rows());
}

#[test]
fn a_model_with_one_scale_for_all_its_rows_has_none() {
    let chain = |operator| RtenFile::read(&bield_fixtures::chain_rten(operator, 2)).unwrap();
    assert!(chain("Relu").as_said().has_rows());
    for signature in [
        Signature::read(converted::QUANTIZED_ONNX).unwrap(),
        ort_signature(converted::QUANTIZED_ORT).unwrap(),
        ort_signature(converted::QUANTIZED_BRANCH_ORT).unwrap(),
        chain("DynamicQuantizeLinear").as_said(),
    ] {
        assert!(signature.scales_together);
        assert!(signature.first_axes.iter().all(Option::is_some));
        assert!(!signature.has_rows());
    }
    let mixed = ort_signature(converted::MIXED_ORT).unwrap();
    assert!(!mixed.scales_together);
}

#[test]
fn a_rten_file_needs_its_onnx_to_tell_integers_apart() {
    let file = || RtenFile::read(converted::MIXED_RTEN).unwrap();
    assert_eq!(
        printed(&file().inputs),
        ["x: f32[?, 4]", "numbers: i32[?]", "mask: i32[?]"]
    );
    let ambiguous = PreparedError::Ambiguous {
        name: "numbers".into(),
    };
    assert_eq!(file().signature(), Err(ambiguous));
    let onnx = Signature::read(converted::MIXED_ONNX).unwrap();
    let whole = file().signature_from(onnx).unwrap();
    assert_eq!(printed(&whole.inputs), MIXED_INPUTS);
    assert_eq!(printed(&whole.outputs), MIXED_OUTPUTS);
    assert_eq!(file().onnx_sha256.map(|hash| hash.len()), Some(64));
}

#[test]
fn floating_point_alone_needs_nothing_else() {
    let tiny = RtenFile::read(&bield_fixtures::tiny_rten()).unwrap();
    assert_eq!((tiny.nodes, &tiny.onnx_sha256), (4, &None));
    let signature = tiny.signature().unwrap();
    assert_eq!(printed(&signature.inputs), ["input: f32[?, 4]"]);
    assert_eq!(printed(&signature.outputs), ["probs: f32[?, 3]"]);
}

#[test]
fn operators_in_a_row_are_bounded_like_those_of_an_onnx() {
    let read = |length| RtenFile::read(&bield_fixtures::chain_rten("Relu", length));
    assert_eq!(read(CHAIN_NODES_MAX).unwrap().nodes, CHAIN_NODES_MAX);
    assert_eq!(
        read(CHAIN_NODES_MAX + 1),
        Err(PreparedError::TooMany {
            what: "operators in a row",
            limit: CHAIN_NODES_MAX
        })
    );
}

#[test]
fn the_onnx_of_another_model_is_refused() {
    let file = || RtenFile::read(converted::MIXED_RTEN).unwrap();
    let tiny = Signature::read(&bield_fixtures::tiny_model()).unwrap();
    let refused = file().signature_from(tiny);
    assert_eq!(
        refused,
        Err(PreparedError::Differs {
            name: "input".into()
        })
    );
    let mut fewer = Signature::read(converted::MIXED_ONNX).unwrap();
    fewer.outputs.pop();
    let refused = file().signature_from(fewer);
    assert_eq!(
        refused,
        Err(PreparedError::Differs {
            name: "inverse".into()
        })
    );
    let mut halves = Signature::read(converted::MIXED_ONNX).unwrap();
    halves.outputs[0] = TensorSpec::new("y", ElementType::F16, vec![None, Some(3)]).unwrap();
    assert!(matches!(
        file().signature_from(halves),
        Err(PreparedError::NotInRten { .. })
    ));
}

#[test]
fn padded_integer_convolutions_are_found_wherever_they_hide() {
    let padded = |bytes: &[u8]| RtenFile::read(bytes).unwrap().padded_integer_convolutions;
    assert_eq!(padded(converted::PADDED_RTEN).len(), 1);
    assert_eq!(padded(converted::BRANCHES_RTEN).len(), 1, "in a branch");
    assert_eq!(
        padded(&bield_fixtures::integer_convolution_rten(1)).len(),
        1
    );
    assert_eq!(
        padded(&bield_fixtures::integer_convolution_rten(0)).len(),
        0
    );
}

#[test]
fn one_format_is_not_taken_for_another() {
    let not = |refused: Result<_, PreparedError>| {
        matches!(refused, Err::<(), _>(PreparedError::Not { .. }))
    };
    assert!(not(RtenFile::read(converted::MIXED_ORT).map(drop)));
    assert!(not(RtenFile::read(converted::MIXED_ONNX).map(drop)));
    assert!(not(ort_signature(converted::MIXED_RTEN).map(drop)));
    assert!(not(ort_signature(&[]).map(drop)));
}

#[test]
fn every_truncation_and_flip_ends_in_an_answer() {
    for bytes in [
        converted::MIXED_RTEN,
        converted::BRANCHES_RTEN,
        converted::MIXED_ORT,
        converted::QUANTIZED_BRANCH_ORT,
    ] {
        for length in 0..bytes.len() {
            let _ = RtenFile::read(&bytes[..length]);
            let _ = ort_signature(&bytes[..length]);
        }
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut bad = bytes.to_vec();
                bad[at] ^= 1 << bit;
                let _ = RtenFile::read(&bad);
                let _ = ort_signature(&bad);
            }
        }
    }
}

proptest! {
    #[test]
    fn any_bytes_end_in_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        let length = bytes.len() as u64;
        let header = [&b"RTEN"[..], &2_u32.to_le_bytes(), &32_u64.to_le_bytes(), &length.to_le_bytes(), &[0; 8]];
        let _ = RtenFile::read(&[&header.concat()[..], &bytes].concat());
        let _ = ort_signature(&[&[8, 0, 0, 0][..], b"ORTM", &bytes].concat());
    }
}
