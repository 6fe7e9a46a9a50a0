//! Segment files and how each ends (`spec/06 §13`).

use bield_capsule::segment::{End, SegmentHeader};
use serde_json::{Value, json};

const HEADER: SegmentHeader = SegmentHeader {
    capsule: [7; 32],
    segment: 3,
    first: 100,
    salt: *b"saltsalt",
};
const PAYLOADS: [&[u8]; 3] = [b"one", b"two", b"three"];

/// Three frames, each with what was durable when it was written; where each begins, and the seal.
fn file(durable: [u32; 3]) -> (Vec<u8>, Vec<u32>, u32) {
    let mut bytes = HEADER.encode().to_vec();
    let mut offsets = Vec::new();
    for (n, payload) in PAYLOADS.into_iter().enumerate() {
        offsets.push(bytes.len() as u32);
        bytes.extend_from_slice(&HEADER.frame_head(n as u32, durable[n], payload));
        bytes.extend_from_slice(payload);
    }
    let end = bytes.len() as u32;
    (bytes, offsets, end)
}

pub(crate) fn segments() -> Vec<Value> {
    let (clean, offsets, end) = file([0, 65, 88]);
    let (unsynced, _, _) = file([0, 0, 0]);
    let sealed = [&clean[..], &HEADER.seal(&offsets, end)].concat();
    let with = |bytes: &[u8], at: usize| {
        let mut bytes = bytes.to_vec();
        bytes[at] ^= 4;
        bytes
    };
    let wrong = [offsets[0], offsets[1] + 1, offsets[2]];
    let files = [
        ("no frame", clean[..65].to_vec()),
        ("frames", clean.clone()),
        ("frames and zeros", [&clean[..], &[0; 40]].concat()),
        ("sealed", sealed.clone()),
        ("sealed, then zeros", [&sealed[..], &[0; 40]].concat()),
        (
            "sealed, then something else",
            [&sealed[..], &[0, 0, 1]].concat(),
        ),
        (
            "a seal that lists other offsets",
            [&clean[..], &HEADER.seal(&wrong, end)].concat(),
        ),
        (
            "a seal for another place",
            [&clean[..], &HEADER.seal(&offsets, end + 1)].concat(),
        ),
        ("the last frame cut", clean[..clean.len() - 1].to_vec()),
        (
            "a payload altered that nothing proves durable",
            with(&unsynced, 65 + 20),
        ),
        (
            "a head altered that nothing proves durable",
            with(&unsynced, 65 + 4),
        ),
        (
            "a payload altered that a later frame proves durable",
            with(&clean, 65 + 20),
        ),
        (
            "a head altered that a later frame proves durable",
            with(&clean, 65 + 4),
        ),
        (
            "the last payload altered, and a seal behind it",
            with(&sealed, end as usize - 1),
        ),
        ("the seal cut", sealed[..sealed.len() - 1].to_vec()),
        ("a frame missing", [&clean[..65], &clean[88..]].concat()),
    ];
    let shown = files.into_iter().map(|(what, bytes)| {
        let (payloads, end, offset) = read(&bytes);
        json!({"what": what, "segment": hex::encode(bytes), "payloads": payloads, "end": end, "offset": offset})
    });
    shown.collect()
}

/// Payloads, and which end the reader names, and where.
fn read(bytes: &[u8]) -> (Vec<String>, &'static str, u32) {
    let header = SegmentHeader::parse(bytes).unwrap();
    let mut frames = header.frames(bytes);
    let payloads = frames
        .by_ref()
        .map(|frame| hex::encode(frame.payload))
        .collect();
    let (end, offset) = match frames.end().unwrap() {
        End::Clean { offset } => ("clean", offset),
        End::Preallocated { offset } => ("preallocated", offset),
        End::Torn { offset, .. } => ("torn", offset),
        End::Damaged { offset, .. } => ("damaged", offset),
        End::Sealed { offset, .. } => ("sealed", offset),
    };
    (payloads, end, offset)
}

#[test]
fn every_flipped_byte_of_a_sealed_segment_is_noticed() {
    let (bytes, offsets, end) = file([0, 65, 88]);
    let bytes = [&bytes[..], &HEADER.seal(&offsets, end)].concat();
    for at in 0..bytes.len() {
        let mut bad = bytes.clone();
        bad[at] ^= 1 << (at % 8);
        let noticed = SegmentHeader::parse(&bad).is_err() || read(&bad).1 != "sealed";
        assert!(noticed, "byte {at}");
    }
}
