//! The ONNX reader on real layouts and on rubbish.

use bield_package::ManifestDraft;
use bield_package::onnx::{CHAIN_NODES_MAX, OnnxError, Signature, TYPE_DEPTH_MAX};
use proptest::prelude::*;

#[test]
fn inputs_and_outputs_come_without_the_weights() {
    let signature = Signature::read(&bield_fixtures::tiny_model()).unwrap();
    let printed = |specs: &[bield_package::tensor::TensorSpec]| {
        specs.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(printed(&signature.inputs), ["input: f32[?, 4]"]);
    assert_eq!(printed(&signature.outputs), ["probs: f32[?, 3]"]);
    assert_eq!((signature.opset, signature.nodes), (13, 4));

    let integers = Signature::read(&bield_fixtures::integer_model()).unwrap();
    assert_eq!(
        printed(&integers.inputs),
        ["numbers: i64[?]", "mask: bool[?]"]
    );

    let draft = ManifestDraft::onnx(
        "tiny".parse().unwrap(),
        "1".parse().unwrap(),
        signature.clone(),
    );
    assert_eq!(draft.inputs, signature.inputs);
}

#[test]
fn the_networks_have_the_nodes_of_the_real_ones() {
    let mobilenet = Signature::read(&bield_fixtures::mobilenet_v1()).unwrap();
    assert_eq!(mobilenet.nodes, 58);
    assert_eq!(
        mobilenet.inputs[0].to_string(),
        "input: f32[1, 3, 224, 224]"
    );
}

#[test]
fn padded_integer_convolutions_are_named() {
    let named = |pad| {
        let bytes = bield_fixtures::integer_convolution(pad);
        Signature::read(&bytes).unwrap().padded_integer_convolutions
    };
    assert_eq!(named(0), Vec::<String>::new());
    assert_eq!(named(1), ["sums"]);
}

#[test]
fn an_initializer_listed_among_the_inputs_is_not_an_input() {
    // graph { input: x, input: w, initializer: w, output: y }, all f32[2], as files of IR version 3
    // list them.
    let info = |name: &[u8]| {
        let kind = field(1, &[&[8, 1][..], &field(2, &field(1, &[8, 2]))].concat());
        [field(1, name), field(2, &kind)].concat()
    };
    let initializer = field(8, b"w");
    let graph = [
        field(11, &info(b"x")),
        field(11, &info(b"w")),
        field(5, &initializer),
        field(12, &info(b"y")),
    ]
    .concat();
    let signature = Signature::read(&field(7, &graph)).unwrap();
    assert_eq!(signature.inputs.len(), 1);
    assert_eq!(signature.inputs[0].to_string(), "x: f32[2]");

    let external = [initializer, vec![14 << 3, 1]].concat();
    let graph = [field(5, &external), field(12, &info(b"y"))].concat();
    assert_eq!(
        Signature::read(&field(7, &graph)),
        Err(OnnxError::ExternalData {
            initializer: "w".into()
        })
    );
}

#[test]
fn a_model_has_rows_where_one_name_stands_for_every_first_axis() {
    let length = |length: u8| field(1, &[8, length]);
    let named = |name: &str| field(1, &field(2, name.as_bytes()));
    let info = |name: &str, axes: &[Vec<u8>]| {
        let kind = field(1, &[&[8, 1][..], &field(2, &axes.concat())].concat());
        [field(1, name.as_bytes()), field(2, &kind)].concat()
    };
    let has_rows = |output: &[Vec<u8>]| {
        let graph = [
            field(11, &info("x", &[named("batch"), length(4)])),
            field(12, &info("y", &[named("batch"), length(3)])),
            field(12, &info("z", output)),
        ];
        let signature = Signature::read(&field(7, &graph.concat())).unwrap();
        assert_eq!(signature.first_axes[0].as_deref(), Some("batch"));
        signature.has_rows()
    };
    assert!(has_rows(&[named("batch"), named("n")]));
    // What is detected, under a name of its own or none; a sum of all; a fixed length.
    for other in [vec![named("n"), length(7)], vec![named(""), length(7)]] {
        assert!(!has_rows(&other));
    }
    assert!(!has_rows(&[field(1, &[]), length(7)]));
    assert!(!has_rows(&[]));
    assert!(!has_rows(&[length(1), length(7)]));
    let bare = Signature::read(&field(7, &field(12, &info("y", &[named("batch")]))));
    assert!(!bare.unwrap().has_rows(), "nothing goes in");
}

#[test]
fn graphs_nested_without_end_are_refused() {
    let mut graph = Vec::new();
    for _ in 0..40 {
        // graph { node { attribute { g: graph } } }
        graph = field(1, &field(5, &field(6, &graph)));
    }
    assert!(matches!(
        Signature::read(&field(7, &graph)),
        Err(OnnxError::TooMany { .. })
    ));
}

#[test]
fn types_nested_without_end_are_refused_wherever_they_stand() {
    let nested = |levels| {
        let float = field(1, &[8, 1]);
        // type { sequence { elem_type { … } } }
        (0..levels).fold(float, |inner, _| field(4, &field(1, &inner)))
    };
    let info = |name: &[u8], kind: &[u8]| [field(1, name), field(2, kind)].concat();
    let flat = field(1, &[&[8, 1][..], &field(2, &field(1, &[8, 2]))].concat());
    let with = |place: u8, levels| {
        let graph = [
            field(12, &info(b"y", &flat)),
            field(place, &info(b"z", &nested(levels))),
        ];
        Signature::read(&field(7, &graph.concat()))
    };
    assert!(with(13, TYPE_DEPTH_MAX - 1).is_ok());
    for place in [11, 12, 13] {
        assert!(matches!(
            with(place, TYPE_DEPTH_MAX),
            Err(OnnxError::TooMany { .. })
        ));
    }
}

#[test]
fn as_many_nodes_as_an_engine_can_follow_stand_in_a_row() {
    let read = |length| Signature::read(&bield_fixtures::chain_model("Relu", length));
    assert_eq!(read(CHAIN_NODES_MAX).unwrap().nodes, CHAIN_NODES_MAX);
    assert_eq!(
        read(CHAIN_NODES_MAX + 1),
        Err(OnnxError::TooMany {
            what: "nodes in a row",
            limit: CHAIN_NODES_MAX
        })
    );
}

#[test]
fn large_graphs_are_wide_in_order_and_without_graphs_inside() {
    let node = |takes: &str, gives: &str| {
        let ends = [field(1, takes.as_bytes()), field(2, gives.as_bytes())];
        field(1, &ends.concat())
    };
    let kind = field(1, &[&[8, 1][..], &field(2, &field(1, &[8, 2]))].concat());
    let output = field(12, &[field(1, b"y"), field(2, &kind)].concat());
    let wide: Vec<u8> = (0..=CHAIN_NODES_MAX)
        .flat_map(|n| node("x", &format!("{n}")))
        .collect();
    let read = |more: &[u8]| Signature::read(&field(7, &[&output, &wide[..], more].concat()));
    assert!(read(&node("7", "y")).is_ok());
    // An output that is left out feeds nobody.
    assert!(read(&[node("7", ""), node("", "y")].concat()).is_ok());
    let late = [node("late", "y"), node("x", "late")].concat();
    assert_eq!(
        read(&late),
        Err(OnnxError::Order {
            name: "late".into()
        })
    );
    let twice = [node("x", "y"), node("7", "y")].concat();
    assert_eq!(read(&twice), Err(OnnxError::Twice { name: "y".into() }));
    let branch = field(1, &field(5, &field(6, &[])));
    assert!(matches!(read(&branch), Err(OnnxError::TooMany { .. })));
}

#[test]
fn every_truncation_and_flip_ends_in_an_answer() {
    let bytes = bield_fixtures::integer_convolution(1);
    for length in 0..bytes.len() {
        let _ = Signature::read(&bytes[..length]);
    }
    for at in 0..bytes.len() {
        for flip in 1..=255 {
            let mut bad = bytes.clone();
            bad[at] ^= flip;
            let _ = Signature::read(&bad);
        }
    }
    assert_eq!(Signature::read(&[]), Err(OnnxError::NotOnnx));
}

proptest! {
    #[test]
    fn any_bytes_end_in_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        let _ = Signature::read(&bytes);
        let _ = Signature::read(&field(7, &bytes));
        let _ = Signature::read(&field(7, &field(1, &bytes)));
        let _ = Signature::read(&field(7, &field(12, &bytes)));
    }
}

/// A protobuf field of wire type 2.
fn field(number: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    let mut length = payload.len();
    while length >= 0x80 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend(payload);
    out
}
