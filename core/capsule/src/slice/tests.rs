//! Slices show what was asked, and nothing that was altered.

#![expect(clippy::single_range_in_vec_init, reason = "one range is one question")]

use super::*;
use proptest::prelude::*;

/// Bytes without a period, so that no piece equals another.
fn body(bytes: usize) -> Vec<u8> {
    let mut body = vec![0; bytes];
    blake3::Hasher::new().finalize_xof().fill(&mut body);
    body
}

fn expect_shown(suite: Suite, body: &[u8], root: &Digest, ranges: &[Range<usize>]) -> Vec<u8> {
    let proof = slice(suite, body, ranges).unwrap();
    let shown = open_slice(suite, root, body.len(), ranges, &proof).unwrap();
    let expected: Vec<_> = ranges
        .iter()
        .map(|range| body[range.clone()].to_vec())
        .collect();
    assert_eq!(shown, expected, "{suite:?} {} {ranges:?}", body.len());
    proof
}

fn questions(len: usize) -> Vec<Vec<Range<usize>>> {
    let mid = len / 2;
    vec![
        vec![],
        vec![mid..mid],
        vec![0..len],
        vec![0..len.min(1)],
        vec![len.saturating_sub(1)..len],
        vec![mid..len.min(mid + 1030)],
        vec![mid / 2..mid, len.saturating_sub(3)..len],
        vec![mid..len, 0..len.min(mid + 5), mid / 2..mid], // overlap, any order
    ]
}

const SUITES: [Suite; 2] = [Suite::Ed25519, Suite::P256];

#[test]
fn every_length_shows_what_was_asked() {
    for suite in SUITES {
        for len in (0..=5000).step_by(7).chain([
            1023, 1024, 1025, 2047, 2048, 2049, 3072, 3073, 4095, 4096, 4097, 8191, 8192, 8193,
            12_289, 65_535, 65_537,
        ]) {
            let body = body(len);
            let root = suite.root(&body);
            for ranges in questions(len) {
                expect_shown(suite, &body, &root, &ranges);
            }
        }
    }
}

#[test]
fn the_longest_body_shows_what_was_asked() {
    for suite in SUITES {
        for len in [BODY_BYTES_MAX - 1, BODY_BYTES_MAX] {
            let body = body(len);
            let root = suite.root(&body);
            for ranges in questions(len) {
                expect_shown(suite, &body, &root, &ranges);
            }
            let one = expect_shown(suite, &body, &root, &[77_777..77_778]);
            let most = match suite {
                Suite::P256 => PIECE_BYTES + BODY_BYTES_MAX / 128,
                _ => CHUNK_BYTES + 10 * 64,
            };
            assert!(one.len() <= most, "{suite:?} {}", one.len());
        }
    }
}

#[test]
fn every_flipped_bit_is_refused() {
    for suite in SUITES {
        for (len, range) in [
            (1, 0..1),
            (1024, 3..9),
            (1025, 1020..1025),
            (9000, 4090..4100),
        ] {
            let body = body(len);
            let root = suite.root(&body);
            let proof = expect_shown(suite, &body, &root, core::slice::from_ref(&range));
            for at in 0..proof.len() {
                for bit in 0..8 {
                    let mut bad = proof.clone();
                    bad[at] ^= 1 << bit;
                    assert_eq!(
                        open_slice(suite, &root, len, core::slice::from_ref(&range), &bad),
                        Err(SliceError::Altered),
                        "{suite:?} {len} byte {at} bit {bit}"
                    );
                }
            }
        }
    }
}

#[test]
fn a_slice_of_another_range_body_or_length_is_refused() {
    for suite in SUITES {
        let body = body(20_000);
        let root = suite.root(&body);
        let proof = slice(suite, &body, &[9000..9100]).unwrap();
        let open = |root: &Digest, len, range: Range<usize>, proof: &[u8]| {
            open_slice(suite, root, len, &[range], proof)
        };
        assert!(open(&root, 20_000, 9000..9100, &proof).is_ok());
        // Chunk 8 and piece 2 answer for all of their bytes, and for no others.
        assert!(open(&root, 20_000, 9050..9060, &proof).is_ok());
        for other in [0..100, 8000..8300, 9000..13_000, 9000..9000, 19_000..19_001] {
            assert!(open(&root, 20_000, other, &proof).is_err());
        }
        assert!(open(&suite.root(b"other"), 20_000, 9000..9100, &proof).is_err());
        // The last chunk proves the length; earlier ones prove the shape above them.
        let tail = slice(suite, &body, &[19_990..20_000]).unwrap();
        for len in [19_999, 20_001, 10_000, 40_000] {
            assert!(open(&root, len, 9000..9100, &proof).is_err() || len.abs_diff(20_000) == 1);
            assert!(open(&root, len, len - 10..len, &tail).is_err(), "{len}");
        }
        for cut in 0..proof.len() {
            assert!(open(&root, 20_000, 9000..9100, &proof[..cut]).is_err());
        }
        let longer = [&proof[..], &[0]].concat();
        assert!(matches!(
            open(&root, 20_000, 9000..9100, &longer),
            Err(SliceError::Length { .. })
        ));
    }
}

#[test]
#[expect(clippy::reversed_empty_ranges, reason = "that is what is refused")]
fn a_range_outside_of_the_body_is_refused() {
    for suite in SUITES {
        let root = suite.root(&body(10));
        for range in [0..11, 11..11, 5..4, usize::MAX..usize::MAX] {
            let refused = Err(SliceError::Range { body_bytes: 10 });
            assert_eq!(
                slice(suite, &body(10), core::slice::from_ref(&range)),
                refused
            );
            assert!(open_slice(suite, &root, 10, &[range], &[]).is_err());
        }
        let long = BODY_BYTES_MAX + 1;
        assert!(open_slice(suite, &root, long, &[0..1], &[0; 64]).is_err());
        assert!(open_slice(suite, &root, usize::MAX, &[0..1], &[0; 64]).is_err());
    }
}

proptest! {
    #[test]
    fn any_ranges_of_any_body_are_shown(
        len in 0usize..30_000,
        cuts in proptest::collection::vec((any::<u32>(), any::<u32>()), 0..6),
    ) {
        let body = body(len);
        let ranges: Vec<_> = cuts
            .iter()
            .map(|(a, b)| (*a as usize % (len + 1), *b as usize % (len + 1)))
            .map(|(a, b)| a.min(b)..a.max(b))
            .collect();
        for suite in SUITES {
            expect_shown(suite, &body, &suite.root(&body), &ranges);
        }
    }

    #[test]
    fn random_slices_never_panic(
        len in 0usize..20_000,
        start in 0usize..20_000,
        proof in proptest::collection::vec(any::<u8>(), 0..9000),
    ) {
        for suite in SUITES {
            let range = start.min(len)..len.min(start + 10);
            let root = suite.root(b"something");
            prop_assert!(range.is_empty() || open_slice(suite, &root, len, &[range], &proof).is_err());
        }
    }
}
