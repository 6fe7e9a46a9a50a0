//! What a host can do to a package, and what the package says then.

#![expect(clippy::unwrap_used, reason = "tests may stop where they stand")]

#[path = "support/open.rs"]
mod opening;
mod support;

use std::io::Cursor;
use std::ops::Range;

use bield_envelope::{Seeded, SigningKey};
use bield_package::{PackError, PackageError, PackageHead, PackageKey, PackageSummary, pack};
use opening::{open, open_head};
use support::{draft, key, model, owner, packed};

/// A model of three chunks of 256 bytes, the last one short.
const MODEL_BYTES: usize = 2 * 256 + 88;

#[test]
fn a_package_opens_to_what_was_packed() {
    let (file, summary) = small();
    assert_eq!(open(&file, &key()).unwrap(), model(MODEL_BYTES));
    let package = open_head(&file, &key()).unwrap();
    assert_eq!(package.digest(), summary.digest);
    assert_eq!(package.manifest().content, summary.content);
    assert_eq!(summary.chunk_count, 3);
    assert_eq!(summary.package_bytes, file.len() as u64);
    assert_eq!(package.manifest().golden, draft("1.0.0", 256).golden);
    assert!(package.check_content(&model(MODEL_BYTES)).is_ok());
    assert!(matches!(
        package.check_content(&model(MODEL_BYTES - 1)),
        Err(PackageError::Content)
    ));
}

#[test]
fn the_host_sees_name_and_sizes_and_no_more() {
    let (file, summary) = small();
    let head = PackageHead::read(&mut &file[..]).unwrap();
    assert_eq!(head.digest(), summary.digest);
    assert_eq!(head.package_bytes(), file.len() as u64);
    assert_eq!(head.header().name.as_str(), "small");
    assert_eq!(head.header().owner, owner().principal());
    for secret in [&b"probs"[..], &model(64), summary.content.as_bytes()] {
        assert!(!file.windows(secret.len()).any(|window| window == secret));
    }
}

#[test]
fn every_flipped_bit_of_a_package_is_refused() {
    let (file, _) = small();
    for at in 0..file.len() {
        for bit in 0..8 {
            let mut bad = file.clone();
            bad[at] ^= 1 << bit;
            assert!(open(&bad, &key()).is_err(), "byte {at} bit {bit}");
        }
    }
}

#[test]
fn every_truncation_is_refused() {
    let (file, _) = small();
    for length in 0..file.len() {
        assert!(open(&file[..length], &key()).is_err(), "{length} bytes");
    }
    let second = chunks(&file)[1].clone();
    let refused = open(&file[..second.end - 1], &key()).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "the package ends inside chunk 1 of 3: it was cut short"
    );
    let refused = open(&file[..second.end], &key());
    assert!(matches!(
        refused,
        Err(PackageError::Truncated { index: 2, count: 3 })
    ));
}

#[test]
fn appended_bytes_are_refused() {
    let (mut file, _) = small();
    file.push(0);
    assert!(matches!(open(&file, &key()), Err(PackageError::Trailing)));
}

#[test]
fn reordered_chunks_are_refused_by_name() {
    let (file, _) = small();
    let places = chunks(&file);
    let mut bad = file.clone();
    bad[places[0].clone()].copy_from_slice(&file[places[1].clone()]);
    bad[places[1].clone()].copy_from_slice(&file[places[0].clone()]);
    let refused = open(&bad, &key()).unwrap_err();
    assert!(matches!(
        refused,
        PackageError::ChunkMisplaced {
            index: 0,
            count: 3,
            found: 1
        }
    ));

    // With a forged frame the tag refuses.
    let mut bad = file.clone();
    let (from, to) = (places[1].clone(), places[0].clone());
    bad[to.start + 12..to.end].copy_from_slice(&file[from.start + 12..from.end]);
    assert!(matches!(
        open(&bad, &key()),
        Err(PackageError::ChunkAltered { index: 0, count: 3 })
    ));
}

#[test]
fn a_chunk_of_another_version_is_refused_by_name() {
    let (file, _) = small();
    let (newer, _) = packed(MODEL_BYTES, "1.0.1", 256, 4);
    let place = chunks(&file)[1].clone();
    let mut mixed = file.clone();
    mixed[place.clone()].copy_from_slice(&newer[chunks(&newer)[1].clone()]);
    assert!(matches!(
        open(&mixed, &key()),
        Err(PackageError::ChunkForeign { index: 1, count: 3 })
    ));

    // With a forged frame the tag refuses, although the key is the same.
    mixed[place.start..place.start + 12].copy_from_slice(&file[place.start..place.start + 12]);
    let refused = open(&mixed, &key()).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "chunk 1 of 3 does not open: wrong key or altered bytes"
    );
}

#[test]
fn another_packages_head_does_not_take_these_chunks() {
    let (file, _) = small();
    let (newer, _) = packed(MODEL_BYTES, "1.0.1", 256, 4);
    let mut mixed = newer[..chunks(&newer)[0].start].to_vec();
    mixed.extend(&file[chunks(&file)[0].start..]);
    assert!(matches!(
        open(&mixed, &key()),
        Err(PackageError::ChunkForeign { index: 0, .. })
    ));
}

#[test]
fn the_wrong_key_is_named_before_any_chunk() {
    let (file, _) = small();
    let other = PackageKey::generate(&mut Seeded::new(99));
    assert!(matches!(open(&file, &other), Err(PackageError::WrongKey)));
}

#[test]
fn an_altered_manifest_is_not_called_a_wrong_key() {
    let (mut file, _) = small();
    let first_chunk = chunks(&file)[0].start;
    file[first_chunk - 1] ^= 1;
    assert!(matches!(
        open(&file, &key()),
        Err(PackageError::ManifestAltered)
    ));
}

#[test]
fn a_foreign_file_and_a_newer_format_are_told_apart() {
    let (mut file, _) = small();
    assert!(matches!(
        PackageHead::read(&mut &b"\x08\x08\x12\x07pytorch and more"[..]),
        Err(PackageError::NotAPackage)
    ));
    file[9] = 2;
    assert!(matches!(
        PackageHead::read(&mut &file[..]),
        Err(PackageError::Format { found: 2 })
    ));
}

#[test]
fn chunks_open_alone_and_in_any_order() {
    let (file, _) = small();
    let package = open_head(&file, &key()).unwrap();
    let mut region = vec![0; MODEL_BYTES];
    for index in [2, 0, 1] {
        let place = package.chunk(index).unwrap();
        let sealed = &file[place.sealed.start as usize..place.sealed.end as usize];
        package
            .open_chunk(index, sealed, &mut region[place.plain])
            .unwrap();
    }
    assert_eq!(region, model(MODEL_BYTES));
    assert_eq!(package.chunk(3), None);
    assert!(package.open_chunk(3, &[0; 64], &mut []).is_err());
    assert!(package.open_chunk(0, &[0; 3], &mut [0; 256]).is_err());
}

#[test]
fn a_region_of_another_length_is_refused() {
    let (file, _) = small();
    let package = open_head(&file, &key()).unwrap();
    let mut source = &file[chunks(&file)[0].start..];
    let mut region = vec![0; MODEL_BYTES + 1];
    assert!(matches!(
        package.open_model(&mut source, &mut region, &mut |_, _| {}),
        Err(PackageError::Region {
            have: 601,
            need: 600
        })
    ));
}

#[test]
fn progress_ends_at_the_total() {
    let mut seen = Vec::new();
    let mut record = |done, total| seen.push((done, total));
    pack(
        &mut Cursor::new(model(600)),
        draft("1.0.0", 256),
        &owner(),
        &key(),
        &mut Seeded::new(3),
        &mut std::io::sink(),
        &mut record,
    )
    .unwrap();
    assert_eq!(seen.first(), Some(&(256, 1200)));
    assert_eq!(seen.last(), Some(&(1200, 1200)));
}

#[test]
fn a_repeated_random_number_does_not_repeat_a_package_id() {
    // Same randomness (a virtual machine rolled back), another model or chunk length.
    let id = |bytes, chunk| {
        let (file, _) = packed(bytes, "1.0.0", chunk, 5);
        PackageHead::read(&mut &file[..]).unwrap().header().id
    };
    assert_eq!(id(600, 256), id(600, 256));
    assert_ne!(id(600, 256), id(601, 256));
    assert_ne!(id(600, 256), id(600, 512));
}

#[test]
fn what_cannot_be_packed_is_refused_before_anything_is_written() {
    let attempt = |bytes, chunk_bytes, golden_output: &str| {
        let mut draft = draft("1.0.0", chunk_bytes);
        let output = draft.golden[0].outputs.remove(0).renamed(golden_output);
        draft.golden[0].outputs.push(output.unwrap());
        let mut sink = Vec::new();
        let result = pack(
            &mut Cursor::new(model(bytes)),
            draft,
            &owner(),
            &key(),
            &mut Seeded::new(3),
            &mut sink,
            &mut |_, _| {},
        );
        assert!(result.is_ok() || sink.is_empty());
        result
    };
    assert!(attempt(1, 256, "probs").is_ok());
    for (bytes, chunk) in [(0, 256), (1, 255), (1, 300), (1, 1 << 21)] {
        let refused = attempt(bytes, chunk, "probs");
        assert!(matches!(refused, Err(PackError::OutOfBounds { .. })));
    }
    assert!(matches!(
        attempt(1, 256, "scores"),
        Err(PackError::Manifest(_))
    ));
}

#[test]
fn a_model_that_changes_while_packed_is_refused() {
    struct Changing(Cursor<Vec<u8>>, u32);
    impl std::io::Read for Changing {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            self.1 += 1;
            if self.1 == 4 {
                self.0.get_mut()[0] ^= 1;
            }
            self.0.read(buffer)
        }
    }
    impl std::io::Seek for Changing {
        fn seek(&mut self, to: std::io::SeekFrom) -> std::io::Result<u64> {
            self.0.seek(to)
        }
    }
    let result = pack(
        &mut Changing(Cursor::new(model(600)), 0),
        draft("1.0.0", 256),
        &owner(),
        &key(),
        &mut Seeded::new(3),
        &mut Vec::new(),
        &mut |_, _| {},
    );
    assert!(matches!(result, Err(PackError::ModelChanged)));
}

#[test]
fn another_owner_makes_another_package() {
    let mut file = Vec::new();
    let other = SigningKey::generate(&mut Seeded::new(50));
    let summary = pack(
        &mut Cursor::new(model(600)),
        draft("1.0.0", 256),
        &other,
        &key(),
        &mut Seeded::new(3),
        &mut file,
        &mut |_, _| {},
    )
    .unwrap();
    assert_ne!(summary.digest, small().1.digest);
    let head = PackageHead::read(&mut &file[..]).unwrap();
    assert_eq!(head.header().owner, other.principal());
}

/// The usual small package.
fn small() -> (Vec<u8>, PackageSummary) {
    packed(MODEL_BYTES, "1.0.0", 256, 3)
}

/// Where the sealed chunks of `file` lie.
fn chunks(file: &[u8]) -> Vec<Range<usize>> {
    let package = open_head(file, &key()).unwrap();
    (0..package.chunk_count())
        .map(|index| package.chunk(index).unwrap().sealed)
        .map(|place| place.start as usize..place.end as usize)
        .collect()
}
