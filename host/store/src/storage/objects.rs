//! Capsules in an object store: a directory shared over a network, or what speaks S3.
//!
//! Always true: an object is replaced whole, by the object store's own promise; a capsule's journal
//! creates its objects only if absent, so of two stores on one prefix the slower one stops.

use std::io;
use std::path::Path as FilePath;
use std::sync::Arc;

use bield_capsule::CapsuleName;
use futures_util::TryStreamExt as _;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt as _};
use tokio::runtime::{Builder, Runtime};

use super::{METADATA, OpenJournalError, Storage};
use crate::journal::{Journal, ObjectJournal, Options, Visit};

/// Capsules below a prefix of an object store.
#[derive(Debug)]
pub struct Objects {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    /// Runs the requests of the calling threads; `None` only while this is dropped.
    runtime: Option<Runtime>,
}

impl Drop for Objects {
    fn drop(&mut self) {
        // Dropping a runtime waits, which is forbidden where async code runs.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// An object store cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ObjectStoreError {
    /// The address is none that this program was built for.
    #[error("{url} is neither a directory nor, when built with the feature `s3`, an s3:// address; correct --object-store")]
    Address {
        /// What was given.
        url: String,
    },
    /// The store refuses.
    #[error("{url} cannot be used: {error}; correct the address or the credentials in the environment")]
    Refused {
        /// What was given.
        url: String,
        /// What it said.
        error: Error,
    },
    /// The system refuses threads.
    #[error("the system refused: {0}; free resources and start again")]
    System(#[from] io::Error),
}

impl Objects {
    /// Opens a directory, or with the feature `s3` an `s3://bucket/prefix` with credentials from the
    /// environment (`AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_REGION`, `AWS_ENDPOINT`).
    ///
    /// # Errors
    /// See [`ObjectStoreError`].
    pub fn open(url: &str) -> Result<Self, ObjectStoreError> {
        let refused = |error| ObjectStoreError::Refused {
            url: url.to_owned(),
            error,
        };
        #[cfg(feature = "s3")]
        if let Some(place) = url.strip_prefix("s3://") {
            let prefix = place.split_once('/').map_or("", |(_, prefix)| prefix);
            let store = object_store::aws::AmazonS3Builder::from_env()
                .with_url(url)
                .build()
                .map_err(refused)?;
            return Ok(Self::new(Arc::new(store), Path::from(prefix))?);
        }
        if url.contains("://") && !url.starts_with("file://") {
            let url = url.to_owned();
            return Err(ObjectStoreError::Address { url });
        }
        let directory = FilePath::new(url.strip_prefix("file://").unwrap_or(url));
        std::fs::create_dir_all(directory)?;
        let store = LocalFileSystem::new_with_prefix(directory)
            .map_err(refused)?
            .with_fsync(true);
        Ok(Self::new(Arc::new(store), Path::default())?)
    }

    /// Keeps capsules below `prefix` of `store`.
    ///
    /// # Errors
    /// When the system refuses what a request needs.
    pub fn new(store: Arc<dyn ObjectStore>, prefix: Path) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        Ok(Self {
            store,
            prefix,
            runtime: Some(runtime),
        })
    }

    fn block_on<T>(&self, request: impl Future<Output = T>) -> T {
        let runtime = self.runtime.as_ref();
        runtime.expect("taken only by drop").block_on(request)
    }

    fn of(&self, capsule: &CapsuleName) -> Path {
        let capsules = self.prefix.clone().join("capsules");
        capsules.join(capsule.to_string())
    }
}

impl Storage for Objects {
    fn capsules(&self) -> io::Result<Vec<CapsuleName>> {
        let capsules = self.prefix.clone().join("capsules");
        let found = self.block_on(self.store.list_with_delimiter(Some(&capsules)))?;
        let mut names: Vec<CapsuleName> = Vec::new();
        for prefix in found.common_prefixes {
            let name = prefix.filename().and_then(|name| name.parse().ok());
            if let Some(name) = name
                && self.get(&name, METADATA)?.is_some()
            {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn get(&self, capsule: &CapsuleName, item: &'static str) -> io::Result<Option<Vec<u8>>> {
        let path = self.of(capsule).join(item);
        let found = self.block_on(async {
            let found = self.store.get(&path).await?;
            let pieces: Vec<_> = found.into_stream().try_collect().await?;
            Ok::<_, Error>(pieces.concat())
        });
        match found {
            Ok(bytes) => Ok(Some(bytes)),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn put(&self, capsule: &CapsuleName, item: &'static str, bytes: &[u8]) -> io::Result<()> {
        let path = self.of(capsule).join(item);
        let put = self.store.put(&path, bytes.to_vec().into());
        self.block_on(put)?;
        Ok(())
    }

    fn journal(
        &self,
        capsule: &CapsuleName,
        options: Options,
        visit: &mut Visit<'_>,
    ) -> Result<Box<dyn Journal>, OpenJournalError> {
        let prefix = self.of(capsule).join("journal");
        let store = Arc::clone(&self.store);
        let journal = ObjectJournal::open(store, prefix, *capsule.as_bytes(), options, visit)?;
        Ok(Box::new(journal))
    }

    fn writes_through(&self) -> bool {
        false
    }
}
