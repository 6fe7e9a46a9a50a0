//! What functions reach of the runtime: keys and models, as requests of their own would.
//!
//! In: a package and the user on whose behalf it is used. Out: its keys, its model. Always true: both are those that
//! requests for the package use, under one budget and single flight. Not here: whether the user may (`world`).

use std::sync::Arc;
use std::time::Duration;

use bield_envelope::{Digest, Principal};
use bield_protocol::refusal::Refusal;

use crate::keys::Keys;
use crate::leases::{KeysError, Leases};
use crate::loading::{How, LoadFor, LoadTimes, Loader};
use crate::models::{Lent, Models};
use crate::refusals;
use crate::turns::Turns;

/// Shared with the runtime.
pub(crate) struct Reach {
    pub(crate) leases: Arc<Leases>,
    pub(crate) models: Arc<Models>,
    pub(crate) loader: Arc<Loader>,
    pub(crate) turns: Arc<Turns>,
}

impl Reach {
    /// Keys of a package, fetched if need be.
    ///
    /// # Errors
    /// The key service is not reached, or says no.
    pub(crate) fn keys(&self, package: Digest) -> Result<Arc<Keys>, Refusal> {
        let keys = self.leases.get(package);
        keys.map_err(|error| refusals::no_keys(&error))
    }

    /// Keys of a package that are newer than these, rationed as for requests.
    ///
    /// # Errors
    /// As [`Leases::renew`].
    pub(crate) fn renew(&self, package: Digest, seen: &Arc<Keys>) -> Result<Arc<Keys>, KeysError> {
        self.leases.renew(package, seen)
    }

    /// The model of a package, opened if need be. Whoever asks holds no turn.
    ///
    /// # Errors
    /// As of a request for it.
    pub(crate) fn lend(
        &self,
        user: Principal,
        keys: &Keys,
        wait: Duration,
    ) -> Result<Lent, Refusal> {
        let package = keys.lease.package;
        if let Some(model) = self.models.resident(package) {
            return Ok(model);
        }
        self.models.get(package, wait, || {
            let load = LoadFor {
                user,
                keys,
                wait,
                how: How::Shared,
            };
            let mut times = LoadTimes::default();
            self.loader
                .load(&load, &self.models, &self.turns, &mut times)
        })
    }
}
