//! Which endpoint a request goes to by SeSeMI's FnPacker, as published (`fnpacker/fnpack/controller.go`).
//!
//! 1. A model that is in flight goes where it is; on its second request there it claims that endpoint.
//! 2. Otherwise the first endpoint, by index, that nobody is at and that is unclaimed, its own, or claimed by a model
//!    whose last call ended at least twice its last execution time ago. The claim is cleared.
//! 3. If there is none: "All Busy".
//! 4. When the last request leaves, the endpoint is free; the claim stays until it expires.
//!
//! Unlike the published code, whatever becomes of a request gives its place back, once.

use std::collections::HashMap;
use std::time::Duration;

use bield_envelope::Digest;

use crate::packages::PACKAGES_MAX;

pub(crate) struct Pool {
    endpoints: Vec<Endpoint>,
    models: HashMap<Digest, Model>,
}

#[derive(Default, Clone)]
struct Endpoint {
    claim: Option<Digest>,
    in_use: u32,
}

struct Model {
    endpoint: usize,
    in_use: u32,
    last_end: Duration,
    last_took: Duration,
}

impl Pool {
    pub(crate) fn new(endpoints: u32) -> Self {
        Self {
            endpoints: vec![Endpoint::default(); endpoints.max(1) as usize],
            models: HashMap::new(),
        }
    }

    /// The endpoint for a request, which is in use from now on; none if all are busy.
    pub(crate) fn take(&mut self, package: Digest, now: Duration) -> Option<u32> {
        let there = self.models.get(&package).filter(|model| model.in_use > 0);
        let endpoint = match there {
            Some(model) => {
                if model.in_use == 1 {
                    self.endpoints[model.endpoint].claim = Some(package);
                }
                model.endpoint
            }
            None => {
                let free = |endpoint: &Endpoint| {
                    let open = endpoint
                        .claim
                        .is_none_or(|by| by == package || self.expired(by, now));
                    endpoint.in_use == 0 && open
                };
                let found = self.endpoints.iter().position(free)?;
                self.endpoints[found].claim = None;
                found
            }
        };
        self.endpoints[endpoint].in_use += 1;
        self.forget();
        let model = self.models.entry(package).or_insert(Model {
            endpoint,
            in_use: 0,
            last_end: now,
            last_took: Duration::ZERO,
        });
        model.endpoint = endpoint;
        model.in_use += 1;
        u32::try_from(endpoint).ok()
    }

    /// A request that was given a place is done with; `took` if it was answered.
    pub(crate) fn give_back(&mut self, package: Digest, now: Duration, took: Option<Duration>) {
        let Some(model) = self.models.get_mut(&package) else {
            return;
        };
        model.in_use = model.in_use.saturating_sub(1);
        if let Some(took) = took {
            model.last_end = now;
            model.last_took = took;
        }
        if let Some(endpoint) = self.endpoints.get_mut(model.endpoint) {
            endpoint.in_use = endpoint.in_use.saturating_sub(1);
        }
    }

    fn expired(&self, claimant: Digest, now: Duration) -> bool {
        self.models.get(&claimant).is_none_or(|model| {
            now.saturating_sub(model.last_end) >= model.last_took.saturating_mul(2)
        })
    }

    fn forget(&mut self) {
        if self.models.len() >= PACKAGES_MAX {
            self.models.retain(|_, model| model.in_use > 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn model(name: &str) -> Digest {
        Digest::of("test", &[name.as_bytes()])
    }

    #[test]
    fn sparse_models_share_the_first_endpoint() {
        let mut pool = Pool::new(3);
        for (at, name) in ["a", "b", "c", "a"].into_iter().enumerate() {
            let now = SECOND * at as u32;
            assert_eq!(pool.take(model(name), now), Some(0));
            pool.give_back(model(name), now, Some(SECOND / 10));
        }
    }

    #[test]
    fn two_requests_at_once_claim_an_endpoint_until_twice_the_last_run() {
        let mut pool = Pool::new(2);
        assert_eq!(pool.take(model("a"), SECOND), Some(0));
        assert_eq!(pool.take(model("a"), SECOND), Some(0));
        pool.give_back(model("a"), SECOND * 2, Some(SECOND));
        pool.give_back(model("a"), SECOND * 2, Some(SECOND));
        assert_eq!(pool.take(model("b"), SECOND * 3), Some(1), "claimed");
        assert_eq!(pool.take(model("c"), SECOND * 3), None, "all busy");
        assert_eq!(pool.take(model("c"), SECOND * 4), Some(0), "expired");
        pool.give_back(model("c"), SECOND * 4, Some(SECOND));
        assert_eq!(
            pool.take(model("a"), SECOND * 5),
            Some(0),
            "not claimed any more"
        );
    }

    /// F8 of the original: two errors made a pool of two unusable for ever.
    #[test]
    fn an_error_leaks_neither_count_nor_endpoint() {
        let mut pool = Pool::new(2);
        for round in 0..10 {
            for name in ["a", "b"] {
                assert!(pool.take(model(name), SECOND * round).is_some());
            }
            assert_eq!(pool.take(model("c"), SECOND * round), None);
            for name in ["a", "b"] {
                pool.give_back(model(name), SECOND * round, None);
            }
        }
    }

    /// F13 of the original: a claim after a failed pick indexed endpoint -1.
    #[test]
    fn a_model_that_found_no_endpoint_claims_none() {
        let mut pool = Pool::new(1);
        assert_eq!(pool.take(model("a"), SECOND), Some(0));
        assert_eq!(pool.take(model("b"), SECOND), None);
        assert_eq!(pool.take(model("b"), SECOND), None);
        pool.give_back(model("b"), SECOND, None);
        assert_eq!(
            pool.take(model("b"), SECOND),
            None,
            "the place is still taken by a"
        );
        pool.give_back(model("a"), SECOND, None);
        assert_eq!(pool.take(model("b"), SECOND), Some(0));
        assert_eq!(pool.take(model("b"), SECOND), Some(0), "and claims it");
    }
}
