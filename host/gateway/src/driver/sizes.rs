//! Lengths of packages' files: the first guess of what they take in a worker.
//!
//! Always true: the system is asked on a thread that may wait, once for each package, and after a pause again for one that was
//! not there; memory is bounded, whatever digests callers make up.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bield_envelope::Digest;

/// Packages that were asked after; beyond, all are asked after again.
const KNOWN_MAX: usize = 4096;
/// After how long one that was not there is looked for again.
const MISSED_FOR: Duration = Duration::from_secs(10);

/// Which packages were looked for.
pub(super) struct Sizes {
    /// Directory of sealed packages, where this gateway has one.
    directory: Option<PathBuf>,
    /// When one that was not there is looked for again.
    known: Mutex<HashMap<Digest, Option<Instant>>>,
}

impl Sizes {
    pub(super) fn new(directory: Option<PathBuf>) -> Sizes {
        Sizes {
            directory,
            known: Mutex::default(),
        }
    }

    /// The length of a package's file, if it is there and was not told before.
    pub(super) async fn news_of(&self, package: Digest) -> Option<u64> {
        let directory = self.directory.as_ref()?;
        if !self.begins_to_look(package, Instant::now()) {
            return None;
        }
        let path = directory.join(format!("{package}.bield"));
        let found = tokio::fs::metadata(path).await.ok()?;
        self.known().insert(package, None);
        Some(found.len())
    }

    /// Whether it is to be looked for; until it is found it counts as missed.
    fn begins_to_look(&self, package: Digest, now: Instant) -> bool {
        let mut known = self.known();
        match known.get(&package) {
            Some(None) => return false,
            Some(Some(until)) if now < *until => return false,
            _ => {}
        }
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        known.insert(package, Some(now + MISSED_FOR));
        true
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Digest, Option<Instant>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(number: usize) -> Digest {
        Digest::of("test", &[&number.to_le_bytes()])
    }

    #[tokio::test]
    async fn a_length_is_told_once() {
        let directory = tempfile::tempdir().unwrap();
        let (there, nowhere) = (package(1), package(2));
        std::fs::write(directory.path().join(format!("{there}.bield")), b"four").unwrap();
        let sizes = Sizes::new(Some(directory.path().into()));
        assert_eq!(sizes.news_of(there).await, Some(4));
        assert_eq!(sizes.news_of(there).await, None);
        assert_eq!(sizes.news_of(nowhere).await, None);
        assert_eq!(Sizes::new(None).news_of(there).await, None);
    }

    #[test]
    fn what_is_not_there_is_looked_for_again_after_a_pause() {
        let sizes = Sizes::new(Some(PathBuf::new()));
        let now = Instant::now();
        assert!(sizes.begins_to_look(package(1), now));
        assert!(!sizes.begins_to_look(package(1), now));
        assert!(sizes.begins_to_look(package(1), now + MISSED_FOR));
    }

    #[test]
    fn made_up_digests_take_no_more_than_so_much_memory() {
        let sizes = Sizes::new(Some(PathBuf::new()));
        for number in 0..2 * KNOWN_MAX {
            assert!(sizes.begins_to_look(package(number), Instant::now()));
        }
        assert!(sizes.known().len() <= KNOWN_MAX);
    }
}
