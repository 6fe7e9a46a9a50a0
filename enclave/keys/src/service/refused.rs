//! Leases that were refused lately: in memory only, for the package's owner to see in its audit.
//!
//! Always true: at most [`EACH_MAX`] a package and [`PACKAGES_REMEMBERED_MAX`] packages; the oldest go first, so that
//! who asks in vain without end uses no more.

use std::collections::{BTreeMap, VecDeque};

use bield_envelope::{Digest, Time};
use bield_evidence::Measurement;
use bield_protocol::service::RefusedLease;

/// The ring of refusals.
#[derive(Default)]
pub struct RefusedLeases {
    by_package: BTreeMap<Digest, VecDeque<RefusedLease>>,
}

impl RefusedLeases {
    /// Remembers a refusal for a package that is registered here.
    pub fn note(&mut self, package: Digest, code: &Measurement, reason: &str, at: Time) {
        if !self.by_package.contains_key(&package)
            && self.by_package.len() >= PACKAGES_REMEMBERED_MAX
            && let Some(oldest) = self.oldest()
        {
            self.by_package.remove(&oldest);
        }
        let ring = self.by_package.entry(package).or_default();
        if ring.len() >= EACH_MAX {
            ring.pop_front();
        }
        ring.push_back(RefusedLease {
            at,
            package,
            code: code.clone(),
            reason: reason.to_owned(),
        });
    }

    /// What is remembered of these packages, each package's oldest first.
    pub fn of(&self, packages: impl IntoIterator<Item = Digest>) -> Vec<RefusedLease> {
        let rings = packages
            .into_iter()
            .filter_map(|package| self.by_package.get(&package));
        rings.flatten().cloned().collect()
    }

    /// The package whose newest refusal is the oldest.
    fn oldest(&self) -> Option<Digest> {
        let newest = |ring: &VecDeque<RefusedLease>| ring.back().map(|refused| refused.at);
        let oldest = self.by_package.iter().min_by_key(|(_, ring)| newest(ring));
        oldest.map(|(package, _)| *package)
    }
}

/// The most refusals remembered of a package.
const EACH_MAX: usize = 16;
/// The most packages whose refusals are remembered: 3 MB of memory.
const PACKAGES_REMEMBERED_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use bield_evidence::TeeKind;

    use super::*;

    #[test]
    fn the_oldest_refusals_give_way() {
        let mut ring = RefusedLeases::default();
        let code = Measurement::new(TeeKind::Sgx, &[5; 32]).unwrap();
        let package = |number: u64| Digest::of("test package", &[&number.to_be_bytes()]);
        let packages = PACKAGES_REMEMBERED_MAX as u64 + 1;
        for number in 0..packages {
            ring.note(
                package(number),
                &code,
                "code-not-granted",
                Time::from_secs(number),
            );
        }
        assert!(ring.of([package(0)]).is_empty());
        for second in 0..20 {
            ring.note(
                package(7),
                &code,
                "busy",
                Time::from_secs(packages + second),
            );
        }
        let kept = ring.of([package(7)]);
        assert_eq!(kept.len(), EACH_MAX);
        assert_eq!(kept[0].at, Time::from_secs(packages + 4));
    }
}
