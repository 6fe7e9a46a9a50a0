//! Segment files: frames, seals, torn tails and damage told apart.

use proptest::prelude::*;

use super::*;

const HEADER: SegmentHeader = SegmentHeader {
    capsule: [7; 32],
    segment: 3,
    first: 100,
    salt: *b"saltsalt",
};

/// A file of the given groups: frames of one group were written between two syncs.
fn file(groups: &[&[&[u8]]]) -> (Vec<u8>, Vec<u32>) {
    let mut bytes = HEADER.encode().to_vec();
    let mut offsets = Vec::new();
    for group in groups {
        let durable = bytes.len() as u32;
        for payload in *group {
            let head = HEADER.frame_head(offsets.len() as u32, durable, payload);
            offsets.push(bytes.len() as u32);
            bytes.extend_from_slice(&head);
            bytes.extend_from_slice(payload);
        }
    }
    (bytes, offsets)
}

fn sealed(groups: &[&[&[u8]]]) -> (Vec<u8>, Vec<u32>) {
    let (mut bytes, offsets) = file(groups);
    bytes.extend(HEADER.seal(&offsets, bytes.len() as u32));
    (bytes, offsets)
}

fn read(bytes: &[u8]) -> (Vec<Vec<u8>>, End) {
    let header = SegmentHeader::parse(bytes).unwrap();
    let mut frames = header.frames(bytes);
    let payloads = frames
        .by_ref()
        .map(|frame| frame.payload.to_vec())
        .collect();
    (payloads, frames.end().unwrap())
}

const THREE: &[&[&[u8]]] = &[&[b"one"], &[b"two"], &[b"three"]];
const ONE_GROUP: &[&[&[u8]]] = &[&[b"one", b"two", b"three"]];

#[test]
fn frames_come_back_in_order_with_index_and_place() {
    let (bytes, offsets) = file(THREE);
    let frames: Vec<_> = HEADER.frames(&bytes).collect();
    let payloads: Vec<_> = frames.iter().map(|frame| frame.payload).collect();
    assert_eq!(payloads, [&b"one"[..], b"two", b"three"]);
    let indices: Vec<_> = frames.iter().map(|frame| frame.index).collect();
    assert_eq!(indices, [100, 101, 102]);
    let places: Vec<_> = frames.iter().map(|frame| frame.offset).collect();
    assert_eq!(places, offsets);
    let second = &bytes[offsets[1] as usize..offsets[2] as usize];
    assert_eq!(
        HEADER.parse_frame(second, 101, offsets[1]).unwrap().payload,
        b"two"
    );
    assert_eq!(HEADER.parse_frame(second, 102, offsets[1]), Err(Flaw::Head));
}

#[test]
fn each_kind_of_end_is_told_from_the_others() {
    let (bytes, offsets) = file(THREE);
    let end = bytes.len() as u32;
    assert_eq!(read(&bytes).1, End::Clean { offset: end });

    let mut preallocated = bytes.clone();
    preallocated.resize(10_000, 0);
    assert_eq!(read(&preallocated).1, End::Preallocated { offset: end });

    let (sealed, _) = sealed(THREE);
    assert_eq!(
        read(&sealed).1,
        End::Sealed {
            offset: end,
            next: 103
        }
    );

    let torn = &bytes[..bytes.len() - 1];
    let (payloads, stop) = read(torn);
    assert_eq!(payloads.len(), 2);
    assert_eq!(
        stop,
        End::Torn {
            offset: offsets[2],
            why: Flaw::Short
        }
    );

    let mut damaged = bytes;
    damaged[offsets[1] as usize + 20] ^= 1;
    let (payloads, stop) = read(&damaged);
    assert_eq!(payloads, [b"one"]);
    let why = Flaw::Payload;
    assert_eq!(
        stop,
        End::Damaged {
            offset: offsets[1],
            index: 101,
            why
        }
    );
}

#[test]
fn a_hole_in_a_group_that_was_never_synced_is_a_torn_tail() {
    let (mut bytes, offsets) = file(ONE_GROUP);
    let hole = offsets[1] as usize..offsets[2] as usize;
    bytes[hole.clone()].fill(0);
    assert_eq!(
        read(&bytes).1,
        End::Torn {
            offset: offsets[1],
            why: Flaw::Head
        }
    );

    let (mut bytes, _) = file(THREE);
    bytes[hole].fill(0);
    assert!(matches!(read(&bytes).1, End::Damaged { index: 101, .. }));
}

#[test]
fn a_seal_proves_that_everything_before_it_was_synced() {
    let (mut bytes, offsets) = sealed(ONE_GROUP);
    bytes[offsets[1] as usize + 3] ^= 1;
    assert!(matches!(read(&bytes).1, End::Damaged { index: 101, .. }));
}

#[test]
fn reading_resumes_behind_damage() {
    let (mut bytes, offsets) = file(THREE);
    for place in [offsets[1] as usize + 3, offsets[1] as usize + 20] {
        let mut bytes = bytes.clone();
        bytes[place] ^= 0x40;
        let mut frames = HEADER.frames(&bytes);
        assert_eq!(frames.by_ref().count(), 1);
        assert_eq!(frames.resume(), Some(1));
        let rest: Vec<_> = frames.by_ref().map(|frame| frame.index).collect();
        assert_eq!(rest, [102]);
        assert!(matches!(frames.end(), Some(End::Clean { .. })));
        assert_eq!(frames.resume(), None);
    }
    bytes.truncate(offsets[2] as usize + 20);
    let mut frames = HEADER.frames(&bytes);
    assert_eq!(frames.by_ref().count(), 2);
    assert_eq!(frames.resume(), None);
}

#[test]
fn stale_and_moved_frames_do_not_pass() {
    let (bytes, offsets) = file(THREE);
    let head = offsets[1] as usize..offsets[2] as usize;
    // The same frame of a segment with another number, first index, capsule or salt.
    for other in [
        SegmentHeader {
            segment: 4,
            ..HEADER
        },
        SegmentHeader {
            first: 101,
            ..HEADER
        },
        SegmentHeader {
            capsule: [8; 32],
            ..HEADER
        },
        SegmentHeader {
            salt: *b"saltsalu",
            ..HEADER
        },
    ] {
        let mut moved = other.encode().to_vec();
        moved.extend_from_slice(&bytes[SEGMENT_HEADER_BYTES..]);
        assert_eq!(read(&moved).0, Vec::<Vec<u8>>::new());
    }
    // One frame twice: the second copy has the ordinal of the first.
    let mut twice = bytes[..head.end].to_vec();
    twice.extend_from_slice(&bytes[head]);
    assert_eq!(read(&twice).0.len(), 2);
}

#[test]
fn a_record_that_contains_a_frame_does_not_make_a_torn_tail_look_damaged() {
    // The attacker knows everything but the salt.
    let guess = SegmentHeader {
        salt: [0; 8],
        ..HEADER
    };
    let inner = guess.frame_head(2, 1000, b"x");
    let mut payload = vec![0; 2000];
    payload.extend_from_slice(&inner);
    payload.extend_from_slice(b"x and more");
    let (mut bytes, offsets) = file(&[&[b"one"], &[&payload]]);
    bytes[offsets[1] as usize] ^= 1;
    assert!(matches!(read(&bytes).1, End::Torn { .. }));
}

#[test]
fn every_flipped_bit_is_noticed() {
    for (bytes, groups) in [(sealed(THREE).0, THREE), (file(ONE_GROUP).0, ONE_GROUP)] {
        let written: Vec<Vec<u8>> = groups.concat().iter().map(|one| one.to_vec()).collect();
        let whole = read(&bytes);
        for bit in 0..8 * bytes.len() {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            if SegmentHeader::parse(&flipped).is_err() {
                assert!(bit < 8 * SEGMENT_HEADER_BYTES);
                continue;
            }
            let (payloads, end) = read(&flipped);
            assert!(written.starts_with(&payloads), "bit {bit}");
            assert_ne!((payloads, end), whole, "bit {bit}");
        }
    }
}

#[test]
fn every_cut_leaves_a_prefix() {
    let (bytes, offsets) = file(ONE_GROUP);
    for length in SEGMENT_HEADER_BYTES..bytes.len() {
        let (payloads, end) = read(&bytes[..length]);
        let whole = offsets.iter().filter(|at| (**at as usize) < length).count();
        let at_boundary = offsets.contains(&(length as u32));
        assert_eq!(
            payloads.len(),
            whole - usize::from(!at_boundary && length > 65)
        );
        assert_eq!(
            matches!(end, End::Clean { .. }),
            at_boundary || length == 65
        );
    }
    for length in 0..SEGMENT_HEADER_BYTES {
        assert!(SegmentHeader::parse(&bytes[..length]).is_err());
    }
}

#[test]
fn a_seal_opens_from_the_last_bytes_of_the_file() {
    let (bytes, offsets) = sealed(THREE);
    let at = u32::from_be_bytes(*bytes.last_chunk().unwrap());
    let seal = &bytes[at as usize..];
    assert_eq!(HEADER.parse_seal(seal, at), Some(offsets.clone()));
    assert_eq!(HEADER.parse_seal(seal, at + 1), None);
    assert_eq!(
        HEADER.parse_seal(&bytes[offsets[0] as usize..], offsets[0]),
        None
    );
    for bit in 0..8 * seal.len() {
        let mut flipped = seal.to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(HEADER.parse_seal(&flipped, at), None);
    }
}

#[test]
fn bytes_behind_a_seal_are_damage() {
    let (mut bytes, _) = sealed(THREE);
    bytes.resize(bytes.len() + 100, 0);
    assert!(matches!(read(&bytes).1, End::Sealed { .. }));
    *bytes.last_mut().unwrap() = 1;
    assert!(matches!(
        read(&bytes).1,
        End::Damaged {
            why: Flaw::BehindSeal,
            ..
        }
    ));
}

/// The frozen form: a change of any byte here is a new version of the format.
#[test]
fn the_format_is_the_specified_one() {
    let (bytes, _) = sealed(&[&[b"abc"]]);
    assert_eq!(hex::encode(bytes), FROZEN);
}

const FROZEN: &str = concat!(
    "626c64530107070707070707070707070707070707070707070707070707070707070707070000000000000003000000000000006473616c7473616c74ece2a8fa",
    "0000000300000000000000412a592737ff2cf632616263",
    "0000000800000001ffffffffb71c9ca231b4e03d0000004100000058",
);

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic_and_never_loop(tail in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = SegmentHeader::parse(&tail);
        let _ = HEADER.parse_seal(&tail, 65);
        let _ = HEADER.parse_frame(&tail, 100, 65);
        let mut bytes = HEADER.encode().to_vec();
        bytes.extend_from_slice(&tail);
        let mut frames = HEADER.frames(&bytes);
        prop_assert_eq!(frames.by_ref().count(), 0);
        prop_assert!(frames.end().is_some());
        prop_assert_eq!(frames.resume(), None);
    }

    #[test]
    fn damaged_files_yield_a_prefix_and_resume_to_the_end(
        sizes in proptest::collection::vec(1..200_usize, 1..20),
        hits in proptest::collection::vec((any::<prop::sample::Index>(), 1..=255_u8), 1..6),
    ) {
        let payloads: Vec<Vec<u8>> = sizes.iter().enumerate().map(|(n, size)| vec![n as u8; *size]).collect();
        let borrowed: Vec<&[u8]> = payloads.iter().map(Vec::as_slice).collect();
        let groups: Vec<&[&[u8]]> = borrowed.chunks(3).collect();
        let (mut bytes, _) = file(&groups);
        for (place, mask) in hits {
            let place = SEGMENT_HEADER_BYTES + place.index(bytes.len() - SEGMENT_HEADER_BYTES);
            bytes[place] ^= mask;
        }
        let mut frames = HEADER.frames(&bytes);
        let mut last = None;
        loop {
            for frame in frames.by_ref() {
                prop_assert_eq!(frame.payload, &payloads[(frame.index - 100) as usize][..]);
                prop_assert!(last < Some(frame.index));
                last = Some(frame.index);
            }
            prop_assert!(frames.end().is_some());
            if frames.resume().is_none() {
                break;
            }
        }
    }
}
