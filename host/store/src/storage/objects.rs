//! Capsules in an object store: a directory shared over a network, or what speaks S3.
//!
//! Always true: an object is replaced whole, by the object store's own promise; a capsule's journal
//! creates its objects only if absent, so of two stores on one prefix the slower one stops. A store
//! that does not honour this, or does not list what it holds, is found out before it is used
//! ([`Objects::probe`]): some answer a conditional creation with success and overwrite.
//!
//! Found to honour `If-None-Match: *`, 16 requests at once for each of 100 names: SeaweedFS 4.48
//! (one process) and moto 5.2.5. `object_store`'s local file system (hard links) passes the probe and
//! the test that the slower of two stores stops, nothing more. Amazon S3, Cloudflare R2 and MinIO were
//! neither tried nor looked up: there the probe at the start is all there is.

use std::io;
use std::path::Path as FilePath;
use std::sync::Arc;

use bield_capsule::CapsuleName;
use futures_util::{StreamExt as _, TryStreamExt as _};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt as _, PutMode};

use super::{METADATA, OpenJournalError, Storage};
use crate::journal::{GETS_AT_ONCE, Journal, ObjectJournal, Options, Requests, Visit};

/// Capsules below a prefix of an object store.
#[derive(Debug)]
pub struct Objects {
    requests: Arc<Requests>,
    prefix: Path,
}

/// An object store cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ObjectStoreError {
    /// The address is none that this program was built for.
    #[error(
        "{url} is neither a directory nor, when built with the feature `s3`, an s3:// address; correct --object-store"
    )]
    Address {
        /// What was given.
        url: String,
    },
    /// The store knows the credentials and refuses, or does not know them.
    #[error(
        "{url} refuses these credentials: {error}; check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (AWS_SESSION_TOKEN, \
         AWS_REGION), and that they may list, read, write and delete there"
    )]
    Credentials {
        /// What was given.
        url: String,
        /// What the store said.
        error: Error,
    },
    /// There is no such bucket.
    #[error(
        "{url} is in no bucket there is: {error}; create the bucket, or correct --object-store"
    )]
    Missing {
        /// What was given.
        url: String,
        /// What the store said.
        error: Error,
    },
    /// Two writers would overwrite each other.
    #[error(
        "{url} does not create objects only if absent (If-None-Match: *): two stores on it could overwrite each other's \
         records; use an object store that does, or a local directory"
    )]
    Unfenced {
        /// What was given.
        url: String,
    },
    /// What is there is not found.
    #[error(
        "{url} does not list what was just written: records could be missed after a restart; use an object store that \
         lists consistently, or a local directory"
    )]
    Unlisted {
        /// What was given.
        url: String,
    },
    /// The store does not answer, or something else.
    #[error(
        "{url} cannot be used: {error}; check that it is reachable (AWS_ENDPOINT for anything but Amazon), correct \
         --object-store or the environment, and start again"
    )]
    Unusable {
        /// What was given.
        url: String,
        /// What was met.
        error: Error,
    },
    /// The system refuses threads.
    #[error("the system refused: {0}; free resources and start again")]
    System(#[from] io::Error),
}

impl ObjectStoreError {
    fn of(url: &str, error: Error) -> Self {
        let url = url.to_owned();
        match error {
            Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => {
                Self::Credentials { url, error }
            }
            Error::NotFound { .. } => Self::Missing { url, error },
            Error::NotImplemented { .. } | Error::NotSupported { .. } => Self::Unfenced { url },
            _ => Self::Unusable { url, error },
        }
    }
}

impl Objects {
    /// Opens a directory, or with the feature `s3` an `s3://bucket/prefix`, and [probes](Self::probe) it.
    ///
    /// Where and as whom, the environment says: `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`,
    /// `AWS_SESSION_TOKEN`, `AWS_REGION`; `AWS_ENDPOINT` for anything but Amazon (`http://` there
    /// means no TLS: records are sealed, their number and lengths are then seen); or what gives a
    /// machine its role at Amazon.
    ///
    /// # Errors
    /// See [`ObjectStoreError`].
    pub fn open(url: &str) -> Result<Self, ObjectStoreError> {
        let (store, prefix) = match url.strip_prefix("s3://") {
            Some(place) => s3(url, place)?,
            None => (directory(url)?, Path::default()),
        };
        let objects = Self::new(store, prefix)?;
        objects.probe(url)?;
        Ok(objects)
    }

    /// Keeps capsules below `prefix` of `store`, without a probe.
    ///
    /// # Errors
    /// When the system refuses what a request needs.
    pub fn new(store: Arc<dyn ObjectStore>, prefix: Path) -> io::Result<Self> {
        Ok(Self {
            requests: Requests::to(store)?,
            prefix,
        })
    }

    /// Finds out whether the store does what a journal relies on: five requests on an object of its own.
    ///
    /// # Errors
    /// When it does not, is not there, or refuses. `url` names it.
    pub fn probe(&self, url: &str) -> Result<(), ObjectStoreError> {
        let mut name = [0; 16];
        getrandom::fill(&mut name).map_err(|error| io::Error::other(error.to_string()))?;
        let probes = self.prefix.clone().join("probe");
        let probe = probes.clone().join(hex::encode(name));
        let found = self.requests.wait(|store| async move {
            let create =
                |bytes: &'static [u8]| store.put_opts(&probe, bytes.into(), PutMode::Create.into());
            match create(b"first").await {
                // Refused because of the condition, or because of everything?
                Err(Error::Generic { .. } | Error::Precondition { .. })
                    if store.put(&probe, b"first".as_slice().into()).await.is_ok() =>
                {
                    let _ = store.delete(&probe).await;
                    return Ok((false, true));
                }
                created => created?,
            };
            let second = create(b"second").await;
            let kept = store.get(&probe).await?.bytes().await?;
            let names = store.list(Some(&probes)).map_ok(|object| object.location);
            let names: Vec<Path> = names.try_collect().await?;
            store.delete(&probe).await?;
            match second {
                Ok(_) | Err(Error::AlreadyExists { .. }) => {}
                Err(error) => return Err(error),
            }
            Ok((
                second.is_err() && *kept == *b"first",
                names.contains(&probe),
            ))
        });
        match found.map_err(|error| ObjectStoreError::of(url, error))? {
            (false, _) => Err(ObjectStoreError::Unfenced {
                url: url.to_owned(),
            }),
            (true, false) => Err(ObjectStoreError::Unlisted {
                url: url.to_owned(),
            }),
            (true, true) => Ok(()),
        }
    }

    fn of(&self, capsule: &CapsuleName) -> Path {
        let capsules = self.prefix.clone().join("capsules");
        capsules.join(capsule.to_string())
    }
}

fn directory(url: &str) -> Result<Arc<dyn ObjectStore>, ObjectStoreError> {
    if url.contains("://") && !url.starts_with("file://") {
        let url = url.to_owned();
        return Err(ObjectStoreError::Address { url });
    }
    let directory = FilePath::new(url.strip_prefix("file://").unwrap_or(url));
    std::fs::create_dir_all(directory)?;
    let store = LocalFileSystem::new_with_prefix(directory);
    let store = store.map_err(|error| ObjectStoreError::of(url, error))?;
    Ok(Arc::new(store.with_fsync(true)))
}

#[cfg(not(feature = "s3"))]
fn s3(url: &str, _: &str) -> Result<(Arc<dyn ObjectStore>, Path), ObjectStoreError> {
    let url = url.to_owned();
    Err(ObjectStoreError::Address { url })
}

#[cfg(feature = "s3")]
fn s3(url: &str, place: &str) -> Result<(Arc<dyn ObjectStore>, Path), ObjectStoreError> {
    use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
    use object_store::{BackoffConfig, ClientConfigKey, RetryConfig};

    let prefix = place.split_once('/').map_or("", |(_, prefix)| prefix);
    let mut builder = AmazonS3Builder::from_env()
        .with_url(url)
        .with_retry(RetryConfig {
            backoff: BackoffConfig::default(),
            max_retries: RETRIES_MAX,
            retry_timeout: RETRY_TIME_MAX,
        });
    let endpoints = [AmazonS3ConfigKey::Endpoint, AmazonS3ConfigKey::S3Endpoint];
    let mut endpoints = endpoints
        .iter()
        .filter_map(|key| builder.get_config_value(key));
    if endpoints.any(|endpoint| endpoint.starts_with("http://")) {
        let without_tls = AmazonS3ConfigKey::Client(ClientConfigKey::AllowHttp);
        builder = builder.with_config(without_tls, "true");
    }
    let store = builder.build();
    let store = store.map_err(|error| ObjectStoreError::of(url, error))?;
    Ok((Arc::new(store), Path::from(prefix)))
}

/// Times one request is repeated when the store is busy or gone: some seconds, for a wrong address
/// is to be told soon.
#[cfg(feature = "s3")]
const RETRIES_MAX: usize = 6;

/// Longest time one request is repeated: the shard waits, and with it all its capsules.
#[cfg(feature = "s3")]
const RETRY_TIME_MAX: std::time::Duration = std::time::Duration::from_secs(60);

impl Storage for Objects {
    fn capsules(&self) -> io::Result<Vec<CapsuleName>> {
        let capsules = self.prefix.clone().join("capsules");
        let mut names = self.requests.wait(|store| async move {
            let found = store.list_with_delimiter(Some(&capsules)).await?;
            let begun = found.common_prefixes.into_iter().map(|capsule| {
                let store = Arc::clone(&store);
                async move {
                    let Some(name) = capsule.filename().and_then(|name| name.parse().ok()) else {
                        return Ok(None);
                    };
                    match store.head(&capsule.join(METADATA)).await {
                        Ok(_) => Ok(Some(name)),
                        Err(Error::NotFound { .. }) => Ok(None),
                        Err(error) => Err(error),
                    }
                }
            });
            let names = futures_util::stream::iter(begun).buffered(GETS_AT_ONCE);
            let names: Vec<Option<CapsuleName>> = names.try_collect().await?;
            Ok(names.into_iter().flatten().collect::<Vec<_>>())
        })?;
        names.sort_unstable();
        Ok(names)
    }

    fn get(&self, capsule: &CapsuleName, item: &'static str) -> io::Result<Option<Vec<u8>>> {
        let path = self.of(capsule).join(item);
        let found = self
            .requests
            .wait(|store| async move { Ok(store.get(&path).await?.bytes().await?.to_vec()) });
        match found {
            Ok(bytes) => Ok(Some(bytes)),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn put(&self, capsule: &CapsuleName, item: &'static str, bytes: &[u8]) -> io::Result<()> {
        let path = self.of(capsule).join(item);
        let bytes = bytes.to_vec();
        let put = |store: Arc<dyn ObjectStore>| async move { store.put(&path, bytes.into()).await };
        self.requests.wait(put)?;
        Ok(())
    }

    fn journal(
        &self,
        capsule: &CapsuleName,
        options: Options,
        visit: &mut Visit<'_>,
    ) -> Result<Box<dyn Journal>, OpenJournalError> {
        let prefix = self.of(capsule).join("journal");
        let capsule = *capsule.as_bytes();
        let journal = ObjectJournal::open(&self.requests, prefix, capsule, options, visit)?;
        Ok(Box::new(journal))
    }

    fn writes_through(&self) -> bool {
        false
    }
}
