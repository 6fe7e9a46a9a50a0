//! From a head to any earlier record of its chain, in `O(log n)` headers (`spec/06 §7`).
//!
//! ```text
//!  seq   0 ◀──────────────── 8 ◀──────────────── 16 ◀─ 17     17 to 5: 16, 8, 6, 5
//!        0 ◀──────── 4 ◀──── 8 ◀─ 10 …
//!                    4 ◀ 6 ◀ 8
//!                    4 5 6 7 8                    a header at seq points back by 1 and by 2^j
//! ```
//!
//! In: a header, a position, and storage as an argument. Out: the shortest list of headers that
//! leads there. Always true: whoever believes the first header and accepts the path believes the
//! last one, because each names the next by hash. Left to others: why the first is believed (a
//! signature, `crate::SignedHead`).
//!
//! Cost: at most 2 · log₂ n headers of 232 bytes and, on average, one skip pointer each: 40 headers
//! and 40 hashes (about 15 µs) for a chain of a million records.

use crate::{Head, Header, skips_at};

/// Most headers of a path: half of them gain a level, the other half lose one, of 64 levels.
pub const PATH_HEADERS_MAX: usize = 128;

/// Where the headers of one chain are kept.
pub trait Headers {
    /// The header at `seq`; `None` when it is not here.
    fn header(&self, seq: u64) -> Option<Header>;
}

impl<F: Fn(u64) -> Option<Header>> Headers for F {
    fn header(&self, seq: u64) -> Option<Header> {
        self(seq)
    }
}

/// Why headers are no path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PathError {
    /// More headers than the longest shortest path has.
    #[error("path of {found} headers is longer than any shortest path; do not retry")]
    TooLong {
        /// Headers there.
        found: usize,
    },
    /// A header of another chain.
    #[error("header {at} of the path is of another capsule, suite or writer; do not retry")]
    OtherChain {
        /// Its place in the path, from 0.
        at: usize,
    },
    /// The header before it does not name this one.
    #[error("header {at} of the path is not the one that the header before it names; do not retry")]
    Broken {
        /// Its place in the path, from 0.
        at: usize,
    },
    /// The path leads to another record than the one it should.
    #[error("path leads elsewhere: the two heads are not on one chain, or the path is of others")]
    Elsewhere,
}

/// The shortest path from just below `from` down to the record at `to_seq`; empty when `from` is it.
///
/// `None` when `to_seq` is later than `from`, or a header is not in the storage.
pub fn path(from: &Header, to_seq: u64, headers: &impl Headers) -> Option<Vec<Header>> {
    let mut distance = from.seq.checked_sub(to_seq)?;
    let mut seq = from.seq;
    let mut path = Vec::new();
    while distance > 0 {
        // The longest pointer that does not overshoot: never longer than the distance, or than the
        // header at seq has.
        let level = skips_at(seq).min(distance.ilog2() as usize);
        seq -= 1 << level;
        distance -= 1 << level;
        path.push(headers.header(seq)?);
    }
    debug_assert!(path.len() <= PATH_HEADERS_MAX);
    Some(path)
}

/// Checks that `path` leads from `from` to its last header.
///
/// # Errors
/// A header that is not the one that the header before it names, of another chain, or too many.
pub fn verify_path(from: &Header, path: &[Header]) -> Result<(), PathError> {
    if path.len() > PATH_HEADERS_MAX {
        return Err(PathError::TooLong { found: path.len() });
    }
    let mut above = from;
    for (at, header) in path.iter().enumerate() {
        let chain = |header: &Header| (header.capsule, header.suite, header.writer);
        if chain(header) != chain(from) {
            return Err(PathError::OtherChain { at });
        }
        if above.pointer_to(header.seq) != Some(header.hash()) {
            return Err(PathError::Broken { at });
        }
        above = header;
    }
    Ok(())
}

/// Checks that the chain that ends in `newer` extends the one that ends in `older`: nothing up to
/// there was changed, dropped or reordered.
///
/// # Errors
/// As [`verify_path`], or the path leads elsewhere.
pub fn verify_consistency(newer: &Header, path: &[Header], older: &Head) -> Result<(), PathError> {
    verify_path(newer, path)?;
    if path.last().unwrap_or(newer).head() == *older {
        Ok(())
    } else {
        Err(PathError::Elsewhere)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CapsuleName, Clock, Kind, Suite, WriterId};
    use bield_envelope::Digest;
    use proptest::prelude::*;
    use std::sync::OnceLock;

    /// Headers of a chain that nobody signed: links and nothing else.
    fn chain(suite: Suite, len: u64) -> Vec<Header> {
        let mut hashes: Vec<Digest> = Vec::new();
        let mut headers = Vec::new();
        for seq in 0..len {
            let header = Header {
                suite,
                kind: if seq == 0 { Kind::Open } else { Kind::Close },
                capsule: CapsuleName::from_bytes([1; 32]),
                writer: WriterId::from_bytes([2; 32]),
                seq,
                epoch: 0,
                clock: Clock::from_bits(seq),
                config: 0,
                generation: 0,
                count: 0,
                body_bytes: 0,
                prev: hashes.last().copied().unwrap_or(crate::record::ZERO),
                salt: [0; 16],
                commitment: [0; 32],
                root: suite.root(&[]),
                parents: Vec::new(),
                skips: (1..=skips_at(seq))
                    .map(|level| hashes[(seq - (1 << level)) as usize])
                    .collect(),
            };
            hashes.push(header.hash());
            headers.push(header);
        }
        headers
    }

    fn stored(headers: &[Header]) -> impl Headers + use<'_> {
        |seq: u64| headers.get(seq as usize).cloned()
    }

    fn shared() -> &'static [Header] {
        static CHAIN: OnceLock<Vec<Header>> = OnceLock::new();
        CHAIN.get_or_init(|| chain(Suite::Ed25519, 1100))
    }

    #[test]
    fn every_pair_of_a_chain_has_a_short_path() {
        for suite in [Suite::Ed25519, Suite::P256] {
            let headers = chain(suite, 150);
            for newer in &headers {
                for older in &headers[..=newer.seq as usize] {
                    let path = path(newer, older.seq, &stored(&headers)).unwrap();
                    assert_eq!(verify_consistency(newer, &path, &older.head()), Ok(()));
                    let log = (newer.seq + 1).ilog2() as usize;
                    assert!(path.len() <= 2 * log + 2);
                    assert!(path.is_sorted_by(|a, b| a.seq > b.seq));
                }
            }
        }
    }

    #[test]
    fn a_path_in_a_long_chain_has_logarithmic_length() {
        let headers = chain(Suite::Ed25519, 100_000);
        let newest = headers.last().unwrap();
        for to in (0..100_000)
            .step_by(997)
            .chain([0, 1, 65_535, 65_537, 99_998])
        {
            let path = path(newest, to, &stored(&headers)).unwrap();
            let most = 2.0 * (newest.seq as f64).log2() + 2.0;
            assert!((path.len() as f64) <= most, "{to}: {}", path.len());
            assert_eq!(verify_path(newest, &path), Ok(()));
        }
    }

    #[test]
    fn the_longest_path_of_all_is_within_the_limit() {
        // Storage that answers for every position: only the number of steps matters here.
        let any = shared()[1].clone();
        for from in [u64::MAX, u64::MAX - 1, 1 << 63, (1 << 63) + 1] {
            let newest = Header {
                seq: from,
                ..any.clone()
            };
            for to in [0, 1, 2, (1 << 62) + 1, (1 << 63) - 1, u64::MAX / 3] {
                let steps = path(&newest, to, &|seq| Some(Header { seq, ..any.clone() }));
                assert!(steps.unwrap().len() <= PATH_HEADERS_MAX, "{from} {to}");
            }
        }
    }

    #[test]
    fn an_altered_missing_swapped_or_foreign_header_breaks_the_path() {
        let headers = shared();
        let (newest, oldest) = (&headers[1023], &headers[300]);
        let good = path(newest, 300, &stored(headers)).unwrap();
        assert!(good.len() > 4);
        for at in 0..good.len() {
            let changes: [fn(&mut Header); 7] = [
                |h| h.clock = Clock::from_bits(u64::MAX),
                |h| h.root = Digest::from_bytes([9; 32]),
                |h| h.epoch += 1,
                |h| h.seq += 1,
                |h| h.writer = WriterId::from_bytes([3; 32]),
                |h| h.capsule = CapsuleName::from_bytes([3; 32]),
                |h| h.suite = Suite::MlDsa44,
            ];
            for change in changes {
                let mut bad = good.clone();
                change(&mut bad[at]);
                assert!(verify_consistency(newest, &bad, &oldest.head()).is_err());
            }
            let mut without = good.clone();
            without.remove(at);
            assert!(verify_consistency(newest, &without, &oldest.head()).is_err());
            if at > 0 {
                let mut swapped = good.clone();
                swapped.swap(at - 1, at);
                assert!(verify_path(newest, &swapped).is_err());
            }
        }
        let elsewhere = verify_consistency(newest, &good, &headers[301].head());
        assert_eq!(elsewhere, Err(PathError::Elsewhere));
        let many = vec![headers[0].clone(); PATH_HEADERS_MAX + 1];
        assert!(matches!(
            verify_path(newest, &many),
            Err(PathError::TooLong { .. })
        ));
    }

    #[test]
    fn no_path_leads_forwards_or_through_what_is_not_stored() {
        let headers = shared();
        assert!(path(&headers[5], 6, &stored(headers)).is_none());
        assert!(path(&headers[9], 0, &stored(&headers[..8])).is_none());
        assert_eq!(path(&headers[9], 9, &stored(headers)), Some(Vec::new()));
    }

    proptest! {
        #[test]
        fn any_two_positions_are_linked(a in 0usize..1100, b in 0usize..1100) {
            let (newer, older) = (&shared()[a.max(b)], &shared()[a.min(b)]);
            let path = path(newer, older.seq, &stored(shared())).unwrap();
            prop_assert_eq!(verify_consistency(newer, &path, &older.head()), Ok(()));
        }
    }
}
