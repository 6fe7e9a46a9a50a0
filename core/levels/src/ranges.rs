//! Which newest range delete covers a key, in one binary search.
//!
//! ```text
//!   deletes      a ├──── v3 ────┤ f          d ├──── v7 ────┤ k
//!   stretches    a ├── v3 ──┤ d ├──────── v7 ───────────────┤ k
//! ```
//!
//! In: range deletes in any order, overlapping or not. Out: for a key the newest version that deletes
//! it. Always true: stretches ascend and do not overlap. Cost: `O(n log n)` to make; a look-up
//! compares about `log2(2n)` keys, and nothing when there are none.

use std::collections::BTreeMap;

use crate::{RangeDelete, Version};

/// Range deletes, cut into stretches that do not overlap.
#[derive(Default, Clone)]
pub struct Ranges {
    stretches: Vec<Stretch>,
}

#[derive(Clone)]
struct Stretch {
    from: Vec<u8>,
    to: Vec<u8>,
    version: Version,
}

impl Ranges {
    /// Cuts range deletes into stretches.
    #[must_use]
    pub fn new<'a>(deletes: impl IntoIterator<Item = &'a RangeDelete>) -> Self {
        let mut edges: BTreeMap<&[u8], Edge> = BTreeMap::new();
        for delete in deletes.into_iter().filter(|delete| delete.check().is_ok()) {
            edges.entry(&delete.from).or_default().begin(delete.version);
            edges.entry(&delete.to).or_default().end(delete.version);
        }
        let mut active: BTreeMap<Version, u32> = BTreeMap::new();
        let mut stretches: Vec<Stretch> = Vec::new();
        let mut begin: &[u8] = &[];
        for (at, edge) in edges {
            if let Some((&version, _)) = active.last_key_value() {
                match stretches.last_mut() {
                    Some(last) if last.version == version && *last.to == *begin => {
                        last.to = at.to_vec();
                    }
                    _ => stretches.push(Stretch {
                        from: begin.to_vec(),
                        to: at.to_vec(),
                        version,
                    }),
                }
            }
            for version in edge.begins {
                *active.entry(version).or_default() += 1;
            }
            for version in edge.ends {
                if let Some(count) = active.get_mut(&version) {
                    *count -= 1;
                    if *count == 0 {
                        active.remove(&version);
                    }
                }
            }
            begin = at;
        }
        Self { stretches }
    }

    /// Whether there is no range delete.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.stretches.is_empty()
    }

    /// The newest version that deletes this key.
    #[must_use]
    pub fn covering(&self, key: &[u8]) -> Option<Version> {
        let after = self.stretches.partition_point(|s| *s.from <= *key);
        let stretch = &self.stretches[after.checked_sub(1)?];
        (*key < *stretch.to).then_some(stretch.version)
    }

    /// Whether a cell with this key and version is deleted.
    #[must_use]
    pub fn delete(&self, key: &[u8], version: Version) -> bool {
        self.covering(key).is_some_and(|newer| version < newer)
    }
}

/// What begins and ends at one key.
#[derive(Default)]
struct Edge {
    begins: Vec<Version>,
    ends: Vec<Version>,
}

impl Edge {
    fn begin(&mut self, version: Version) {
        self.begins.push(version);
    }

    fn end(&mut self, version: Version) {
        self.ends.push(version);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bield_capsule::{Clock, WriterId};
    use proptest::prelude::*;

    fn delete((from, to, clock): (u8, u8, u64)) -> RangeDelete {
        RangeDelete {
            from: vec![from],
            to: vec![to],
            version: Version {
                clock: Clock::from_bits(clock),
                writer: WriterId::from_bytes([1; 32]),
            },
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn a_look_up_finds_what_a_walk_over_all_ranges_finds(
            given in prop::collection::vec((0u8..20, 0u8..20, 0u64..6), 0..12),
        ) {
            let deletes: Vec<_> = given.into_iter().map(delete).collect();
            let ranges = Ranges::new(&deletes);
            for key in 0..21 {
                let walked = deletes.iter().filter(|d| d.covers(&[key])).map(|d| d.version).max();
                prop_assert_eq!(ranges.covering(&[key]), walked);
            }
        }
    }
}
