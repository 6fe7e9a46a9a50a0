//! Packages that the first of two engines failed to load, so that it is not tried at each load.
//!
//! Always true: at most [`UNFIT_MAX`] are remembered, the last ones; whoever makes more fail costs the others one more try each.

use std::collections::VecDeque;
use std::sync::Mutex;

use bield_envelope::Digest;

use crate::flights::lock;

/// Most packages that are remembered, 32 KiB; looked through at a load only.
const UNFIT_MAX: usize = 1024;

/// The last packages that failed.
#[derive(Default)]
pub(crate) struct Unfit(Mutex<VecDeque<Digest>>);

impl Unfit {
    /// Whether `package` is remembered.
    pub(crate) fn holds(&self, package: Digest) -> bool {
        lock(&self.0).contains(&package)
    }

    /// Remembers `package`.
    pub(crate) fn note(&self, package: Digest) {
        let mut packages = lock(&self.0);
        if packages.contains(&package) {
            return;
        }
        if packages.len() == UNFIT_MAX {
            packages.pop_front();
        }
        packages.push_back(package);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_packages_that_failed_are_remembered_and_no_more() {
        let unfit = Unfit::default();
        let package = |number: usize| Digest::of("test", &[&number.to_be_bytes()]);
        for number in 0..=UNFIT_MAX {
            unfit.note(package(number));
            unfit.note(package(number));
        }
        assert!(!unfit.holds(package(0)));
        assert!(unfit.holds(package(1)) && unfit.holds(package(UNFIT_MAX)));
        assert_eq!(lock(&unfit.0).len(), UNFIT_MAX);
    }
}
