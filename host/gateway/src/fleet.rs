//! The programs this gateway keeps running, and which one gets a request.
//!
//! Each package prefers the same worker (rendezvous hashing), so a model is opened by few of them; when
//! that one is busy, the next in the package's own order with room takes the request; when all are busy it
//! waits for the preferred one.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::body::Bytes;
use bield_envelope::Digest;
use bield_launcher::{Launch, State, Supervisor};
use tokio::net::TcpListener;

use crate::keys_port;
use crate::refusal::Refusal;
use crate::worker::Worker;
use crate::{Arguments, GatewayError};

/// Key service (if ours) and runtimes. Dropping it stops them.
pub(crate) struct Fleet {
    keys: Option<Arc<Supervisor>>,
    workers: Vec<Worker>,
}

impl Fleet {
    /// Starts everything. The key service serves its ports before the first runtime starts, because a
    /// runtime may ask for it from its first moment.
    pub(crate) async fn start(
        arguments: &Arc<Arguments>,
        keys_port: Option<TcpListener>,
    ) -> Result<Fleet, GatewayError> {
        let (keys, key_service) = match keys_port {
            None => (None, arguments.key_service.clone()),
            Some(port) => {
                let private = keys_port::private().await?;
                let address = private.local_addr()?.to_string();
                let keys = Arc::new(blocking(arguments, start_keys).await?);
                for (port, places) in [
                    (port, keys_port::PUBLIC_PLACES),
                    (private, keys_port::PRIVATE_PLACES),
                ] {
                    keys_port::serve(port, Arc::clone(&keys), places, keys_port::SESSION_MAX);
                }
                (Some(keys), Some(address))
            }
        };
        let start = |arguments: &Arguments| start_workers(arguments, key_service);
        let workers = blocking(arguments, start).await?;
        Ok(Fleet { keys, workers })
    }

    /// Answers a sealed request for a package.
    pub(crate) async fn call(&self, package: &Digest, sealed: Bytes) -> Result<Vec<u8>, Refusal> {
        let order = self.order(package);
        let running = || {
            order
                .iter()
                .map(|&index| &self.workers[index])
                .filter(|worker| worker.is_running())
        };
        let worker = running()
            .find(|worker| worker.has_room())
            .or_else(|| running().next());
        match worker {
            Some(worker) => worker.call(sealed).await,
            None => Err(Refusal::unavailable(
                "no-runtime",
                "no runtime is up; one is being restarted",
            )),
        }
    }

    /// The workers in this package's order of preference: best first.
    fn order(&self, package: &Digest) -> Vec<usize> {
        let score = |index: &usize| {
            Digest::of(
                "bield gateway route v1",
                &[package.as_bytes(), &(*index as u64).to_be_bytes()],
            )
        };
        let mut order: Vec<usize> = (0..self.workers.len()).collect();
        order.sort_by_cached_key(score);
        order
    }

    pub(crate) fn workers(&self) -> &[Worker] {
        &self.workers
    }

    pub(crate) fn keys(&self) -> Option<&Supervisor> {
        self.keys.as_deref()
    }

    /// Whether a request can be served now.
    pub(crate) fn is_ready(&self) -> bool {
        let keys = self
            .keys
            .as_ref()
            .is_none_or(|keys| keys.state() == State::Running);
        keys && self.workers.iter().any(Worker::is_running)
    }

    /// Kills all programs for good. Blocks until they are gone.
    pub(crate) fn stop(&self) {
        self.workers
            .iter()
            .map(Worker::supervisor)
            .chain(self.keys())
            .for_each(Supervisor::stop);
    }
}

/// Runs a start on a thread that may wait.
async fn blocking<T: Send + 'static>(
    arguments: &Arc<Arguments>,
    start: impl FnOnce(&Arguments) -> Result<T, GatewayError> + Send + 'static,
) -> Result<T, GatewayError> {
    let arguments = Arc::clone(arguments);
    let started = tokio::task::spawn_blocking(move || start(&arguments));
    started.await.map_err(std::io::Error::other)?
}

fn start_keys(arguments: &Arguments) -> Result<Supervisor, GatewayError> {
    // Both are required on the command line when this gateway starts the key service.
    let configuration = arguments.keys_config.as_deref().map(read).transpose()?;
    let launch = Launch {
        program: program(arguments.keys_program.as_deref(), "bield-keys")?,
        configuration: configuration.unwrap_or_default(),
        storage: arguments.storage.clone(),
        ..common(arguments)
    };
    Ok(Supervisor::start(launch)?)
}

fn start_workers(
    arguments: &Arguments,
    key_service: Option<String>,
) -> Result<Vec<Worker>, GatewayError> {
    let launch = Launch {
        program: program(arguments.runtime_program.as_deref(), "bield-runtime")?,
        configuration: read(&arguments.runtime_config)?,
        key_service,
        packages: Some(arguments.packages.clone()),
        ..common(arguments)
    };
    (0..arguments.workers)
        .map(|_| Ok(Worker::new(Supervisor::start(launch.clone())?, arguments)))
        .collect()
}

fn common(arguments: &Arguments) -> Launch {
    Launch {
        arguments: vec!["--tee".to_owned(), arguments.tee.clone()],
        run_directory: arguments.run_directory.clone(),
        record: arguments.record.clone(),
        ..Launch::default()
    }
}

/// The named program, or the one beside this program.
fn program(named: Option<&Path>, usual: &str) -> Result<PathBuf, GatewayError> {
    match named {
        Some(path) => std::path::absolute(path).map_err(|error| GatewayError::File {
            path: path.into(),
            error,
        }),
        None => Ok(std::env::current_exe()?.with_file_name(usual)),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, GatewayError> {
    std::fs::read(path).map_err(|error| GatewayError::File {
        path: path.into(),
        error,
    })
}
