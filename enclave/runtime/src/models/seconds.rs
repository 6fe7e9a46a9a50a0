//! What second tiers ask of the models: that the first stays, and then its place.
//!
//! Always true: a second that is opened makes room as any other load does, but never by evicting its own first.
//! Not here: when it is opened (`tiers`).

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use bield_envelope::Digest;

use super::{Leaving, Lent, Loaded, Models, Opened, Resident, Space, Table};
use crate::flights::lock;

impl Models {
    /// Whether `first` still answers for `package`.
    pub(crate) fn is_here(&self, package: Digest, first: &Weak<Opened>) -> bool {
        lock(&self.table).here(package, first).is_some()
    }

    /// Lends `first` while it is to stay beside its second, if it still answers for `package`. That is no use of it.
    pub(crate) fn keep_first(
        self: &Arc<Self>,
        package: Digest,
        first: &Weak<Opened>,
    ) -> Option<Lent> {
        let mut table = lock(&self.table);
        let first = Arc::clone(&table.here(package, first)?.model);
        drop(table);
        Some(self.lend(first))
    }

    /// Notes that another engine is to open the model of `first` after all, which takes `bytes`, when it is used again.
    pub(crate) fn due_again(&self, package: Digest, first: &Weak<Opened>, bytes: u64) {
        if let Some(resident) = lock(&self.table).here(package, first) {
            resident.model.second.store(bytes, Ordering::Relaxed);
        }
    }

    /// Puts `loaded` in the place of `first`, which is the same model on another engine: new runs are on the new one from
    /// here on, and those under way end as they began. Whether it did: when `first` is no longer resident, neither is
    /// the new one.
    pub(crate) fn replace(
        self: &Arc<Self>,
        package: Digest,
        first: &Weak<Opened>,
        mut loaded: Loaded,
    ) -> bool {
        loaded.space.shrink(loaded.bytes);
        let mut table = lock(&self.table);
        let Some(resident) = table.here(package, first) else {
            drop(table);
            return false;
        };
        let bytes = std::mem::replace(&mut resident.bytes, std::mem::take(&mut loaded.space.bytes));
        resident.took += loaded.took;
        let leaving = Leaving {
            model: std::mem::replace(&mut resident.model, loaded.model),
            _space: Space {
                models: Arc::clone(self),
                bytes,
            },
        };
        table.leaving.push(leaving);
        let left = table.left();
        drop(table);
        drop(left);
        true
    }
}

impl Table {
    /// The resident model of `package`, if it is `first`.
    fn here(&mut self, package: Digest, first: &Weak<Opened>) -> Option<&mut Resident> {
        let resident = self.residents.get_mut(&package)?;
        // The weak one keeps its place in memory from being another's.
        std::ptr::eq(Arc::as_ptr(&resident.model), first.as_ptr()).then_some(resident)
    }
}
