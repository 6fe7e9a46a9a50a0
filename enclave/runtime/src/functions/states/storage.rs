//! The host's directory of states, over a few visits that all states share.
//!
//! Always true: one operation at a time on each visit; a state waits for no more than the visits there are.

use std::sync::{Arc, Mutex};

use bield_door::Offers;
use bield_ledger::{Files, FilesError, HostFiles};

use crate::flights::lock;

/// Visits to the host's storage, of the four that a host keeps open.
const VISITS: usize = 3;

/// Where a state's files are.
pub(crate) trait Storage: Send + Sync {
    /// A way to them, for one user of it.
    fn files(&self) -> Box<dyn Files>;
}

/// The directory that the host offers, over a few visits that all share: a host offers no more.
pub(crate) struct HostStorage(Visits);

impl HostStorage {
    pub(crate) fn new(offers: &Arc<Offers>) -> Self {
        let visits = (0..VISITS).map(|_| Mutex::new(HostFiles::new(Arc::clone(offers))));
        Self(Visits(visits.collect()))
    }
}

impl Storage for HostStorage {
    fn files(&self) -> Box<dyn Files> {
        Box::new(self.0.clone())
    }
}

/// One operation at a time on each.
#[derive(Clone)]
struct Visits(Arc<[Mutex<HostFiles>]>);

impl Visits {
    /// On a visit that is free, or the first that is.
    fn with<T>(&self, act: impl FnOnce(&mut HostFiles) -> T) -> T {
        let mut free = self.0.iter().find_map(|visit| visit.try_lock().ok());
        match &mut free {
            Some(visit) => act(visit),
            None => act(&mut lock(&self.0[0])),
        }
    }
}

impl Files for Visits {
    fn list(&mut self) -> Result<Vec<(String, u64)>, FilesError> {
        self.with(HostFiles::list)
    }

    fn read(&mut self, name: &str, offset: u64, length: u64) -> Result<Vec<u8>, FilesError> {
        self.with(|files| files.read(name, offset, length))
    }

    fn append(&mut self, name: &str, offset: u64, bytes: &[u8]) -> Result<(), FilesError> {
        self.with(|files| files.append(name, offset, bytes))
    }

    fn write(&mut self, name: &str, offset: u64, bytes: &[u8]) -> Result<(), FilesError> {
        self.with(|files| files.write(name, offset, bytes))
    }

    fn replace(&mut self, name: &str, bytes: &[u8]) -> Result<(), FilesError> {
        self.with(|files| files.replace(name, bytes))
    }

    fn remove(&mut self, name: &str) -> Result<(), FilesError> {
        self.with(|files| files.remove(name))
    }
}
