//! Requests to an object store, through calls that block.
//!
//! In: what to ask. Out: the answer, or a [`JournalError`] that names the object.
//!
//! Always true: requests run on two threads that all capsules of a store share, so a caller inside
//! another runtime does no harm, and a hundred thousand capsules cost no further thread.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::{Arc, mpsc};

use bield_capsule::segment::SegmentHeader;
use futures_util::{StreamExt as _, TryStreamExt as _};
use object_store::path::Path;
use object_store::{Error, GetOptions, ObjectStore, ObjectStoreExt as _, PutMode, PutPayload};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

use super::copies::Covered;
use super::{JournalError, REMOVED, failing};

/// Objects being fetched at the same time.
pub(crate) const GETS_AT_ONCE: usize = 16;

/// Threads that wait for a store's answers: one may be busy with TLS.
const THREADS: usize = 2;

/// Times an object is sent when no answer came: creating it twice does no harm, its salt tells.
const CREATE_ATTEMPTS: usize = 3;

/// An object store, and the threads that wait for its answers. See the module's text.
pub struct Requests {
    store: Arc<dyn ObjectStore>,
    /// `None` only while this is dropped.
    runtime: Option<Runtime>,
}

impl fmt::Debug for Requests {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Requests to {}", self.store)
    }
}

impl Drop for Requests {
    fn drop(&mut self) {
        // Dropping a runtime waits, which is forbidden where async code runs.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Requests {
    /// Starts the threads for requests to `store`.
    ///
    /// # Errors
    /// When the system refuses them.
    pub fn to(store: Arc<dyn ObjectStore>) -> io::Result<Arc<Self>> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("object-requests")
            .enable_all()
            .build()?;
        Ok(Arc::new(Self {
            store,
            runtime: Some(runtime),
        }))
    }

    /// Waits for what `ask` makes of the store.
    pub(crate) fn wait<T, F>(&self, ask: impl FnOnce(Arc<dyn ObjectStore>) -> F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let (answer, answered) = mpsc::sync_channel(1);
        let future = ask(Arc::clone(&self.store));
        self.runtime()
            .spawn(async move { answer.send(future.await) });
        answered.recv().unwrap_or_else(|gone| {
            Err(Error::Generic {
                store: "requests",
                source: gone.into(),
            })
        })
    }

    /// Starts what `ask` makes of the store, and lets it run.
    pub(super) fn start<F>(&self, ask: impl FnOnce(Arc<dyn ObjectStore>) -> F) -> JoinHandle<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.runtime().spawn(ask(Arc::clone(&self.store)))
    }

    fn runtime(&self) -> &Runtime {
        self.runtime.as_ref().expect("taken only by drop")
    }
}

/// The objects of one journal: groups, and copies of many of them.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) requests: Arc<Requests>,
    pub(super) prefix: Path,
}

impl Stored {
    /// The name of the group of the records from `first` on.
    pub(super) fn group(&self, first: u64) -> Path {
        self.prefix.clone().join(format!("{first:020}"))
    }

    /// The name of the object whose header this is.
    pub(super) fn name(&self, header: &SegmentHeader) -> Path {
        match header.segment == header.first {
            true => self.group(header.first),
            false => super::copies::name(&self.prefix, &(header.first..header.segment)),
        }
    }

    fn wait<T, F>(
        &self,
        doing: &'static str,
        place: &Path,
        ask: impl FnOnce(Arc<dyn ObjectStore>) -> F,
    ) -> Result<T, JournalError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let answer = self.requests.wait(ask).map_err(io::Error::from);
        answer.map_err(failing(doing, place.as_ref()))
    }

    fn list(&self, prefix: Path, offset: Option<Path>) -> Result<BTreeSet<Path>, JournalError> {
        self.wait("listing", &self.prefix, |store| async move {
            let names = match offset {
                Some(offset) => store.list_with_offset(Some(&prefix), &offset),
                None => store.list(Some(&prefix)),
            };
            names.map_ok(|object| object.location).try_collect().await
        })
    }

    /// The first indices of the groups from record `from` on.
    pub(super) fn groups(&self, from: u64) -> Result<BTreeSet<u64>, JournalError> {
        let behind = from.checked_sub(1).map(|last| self.group(last));
        let names = self.list(self.prefix.clone(), behind)?;
        let first = |name: &Path| {
            let first = name.filename()?.parse().ok();
            first.filter(|first| self.group(*first) == *name)
        };
        Ok(names.iter().filter_map(first).collect())
    }

    /// Which records there are copies of.
    pub(super) fn copies(&self) -> Result<BTreeSet<Covered>, JournalError> {
        let names = self.list(super::copies::prefix(&self.prefix), None)?;
        let covered = |name: &Path| super::copies::covered(&self.prefix, name);
        Ok(names.iter().filter_map(covered).map(Covered).collect())
    }

    /// Has removal begun?
    pub(super) fn is_removed(&self) -> Result<bool, JournalError> {
        let marker = self.prefix.clone().join(REMOVED);
        self.wait("looking for", &marker.clone(), |store| async move {
            match store.head(&marker).await {
                Ok(_) => Ok(true),
                Err(Error::NotFound { .. }) => Ok(false),
                Err(error) => Err(error),
            }
        })
    }

    pub(super) fn get(
        &self,
        header: &SegmentHeader,
        range: Option<Range<u32>>,
    ) -> Result<Vec<u8>, JournalError> {
        let name = self.name(header);
        let range = range.map(|range| (u64::from(range.start)..u64::from(range.end)).into());
        self.wait("reading", &name.clone(), |store| async move {
            let options = GetOptions {
                range,
                ..GetOptions::default()
            };
            let found = store.get_opts(&name, options).await?;
            Ok(found.bytes().await?.to_vec())
        })
    }

    pub(super) fn get_all(&self, names: Vec<Path>) -> Result<Vec<Vec<u8>>, JournalError> {
        self.wait("reading", &self.prefix, |store| async move {
            let gets = names.into_iter().map(|name| {
                let store = Arc::clone(&store);
                async move { Ok(store.get(&name).await?.bytes().await?.to_vec()) }
            });
            let gets = futures_util::stream::iter(gets).buffered(GETS_AT_ONCE);
            gets.try_collect().await
        })
    }

    /// Creates the object of the records from `first` on, or finds that another owner has.
    pub(super) fn create(&self, first: u64, bytes: Vec<u8>) -> Result<(), JournalError> {
        let name = self.group(first);
        let is_ours = self.wait("creating", &name.clone(), |store| async move {
            // Shared, not copied: the payload is needed again when the first answer is not it.
            let payload = PutPayload::from(bytes);
            let mut attempt = 1;
            loop {
                let put = store.put_opts(&name, payload.clone(), PutMode::Create.into());
                match put.await {
                    Ok(_) => return Ok(true),
                    // Maybe our own: the first answer was lost, the client tried again.
                    Err(Error::AlreadyExists { .. }) => {
                        let there = store.get(&name).await?.bytes().await?;
                        return Ok(payload.iter().flatten().eq(there.iter()));
                    }
                    // No answer, or none that says whether it was done.
                    Err(Error::Generic { .. }) if attempt < CREATE_ATTEMPTS => attempt += 1,
                    Err(error) => return Err(error),
                }
            }
        })?;
        match is_ours {
            true => Ok(()),
            false => Err(JournalError::Fenced { index: first }),
        }
    }

    /// Removes a copy: what it holds is in the groups, too.
    pub(super) fn drop_copy(&self, covered: &Covered) -> Result<(), JournalError> {
        let name = super::copies::name(&self.prefix, &covered.0);
        self.wait("removing", &name.clone(), |store| async move {
            gone(store.delete(&name).await)
        })
    }

    /// Removes all objects, in an order that a crash cannot turn into a shorter journal.
    pub(super) fn remove(&self) -> Result<(), JournalError> {
        let marker = self.prefix.clone().join(REMOVED);
        let mut names = self.list(self.prefix.clone(), None)?;
        names.remove(&marker);
        self.wait("removing", &self.prefix, |store| async move {
            store
                .put(&marker, PutPayload::from_static(b"removed"))
                .await?;
            for name in names {
                gone(store.delete(&name).await)?;
            }
            store.delete(&marker).await
        })
    }
}

/// Gone is gone, whoever removed it.
fn gone(removed: Result<(), Error>) -> Result<(), Error> {
    match removed {
        Err(Error::NotFound { .. }) => Ok(()),
        other => other,
    }
}
