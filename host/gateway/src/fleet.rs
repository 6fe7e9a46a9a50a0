//! The programs this gateway keeps running, and which one gets a request.
//!
//! Each package prefers the same worker (rendezvous hashing), so a model is opened by few of them; when
//! that one is busy, the next in the package's own order with room takes the request; when all are busy it
//! waits for the preferred one.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use bield_envelope::Digest;
use bield_face::{Answer, Refusal};
use bield_launcher::{Launch, Supervisor};
use tokio::net::TcpListener;

use crate::keys_port::{self, Sessions};
use crate::worker::Worker;
use crate::{Arguments, GatewayError};

/// How long a runtime that is told to end may take: it gives back what it holds of quotas.
const RUNTIME_FINISH_WAIT: Duration = Duration::from_secs(5);
/// How long the key service may take: it finishes what is queued and writes a snapshot.
const KEYS_FINISH_WAIT: Duration = Duration::from_secs(30);

/// Where the key service that this gateway starts is dialled.
pub(crate) struct Ports {
    /// Clients, and runtimes of other hosts.
    pub(crate) public: TcpListener,
    /// The other members, when there are some.
    pub(crate) members: Option<TcpListener>,
}

/// Key service (if ours) and runtimes. Dropping it stops them.
pub(crate) struct Fleet {
    keys: Option<Keys>,
    workers: Vec<Worker>,
}

/// The key service and the sessions with it.
pub(crate) struct Keys {
    pub(crate) supervisor: Arc<Supervisor>,
    /// Sessions from elsewhere: none is begun once the gateway is told to stop.
    pub(crate) outside: Sessions,
    /// Sessions of the other members, which never fall silent. They go on until the key service ends, because
    /// what is in flight counts only with the others' word.
    pub(crate) members: Sessions,
    /// Sessions of own runtimes, which may have something to give back at the end.
    pub(crate) own: Sessions,
}

impl Fleet {
    /// Starts everything. The key service serves its ports before the first runtime starts, because a
    /// runtime may ask for it from its first moment.
    pub(crate) async fn start(
        arguments: &Arc<Arguments>,
        ports: Option<Ports>,
    ) -> Result<Fleet, GatewayError> {
        let mut key_services = arguments.key_services.clone();
        let keys = match ports {
            None => None,
            Some(ports) => {
                let private = keys_port::private().await?;
                key_services.insert(0, private.local_addr()?.to_string());
                let supervisor = Arc::new(blocking(arguments, start_keys).await?);
                let keys = Keys {
                    outside: Sessions::new(&supervisor),
                    members: Sessions::new(&supervisor),
                    own: Sessions::new(&supervisor),
                    supervisor,
                };
                let limits = keys_port::Limits::of(arguments);
                keys.outside.serve(ports.public, limits.public);
                if let Some(members) = ports.members {
                    keys.members.serve(members, limits.members);
                }
                keys.own.serve(private, limits.own);
                Some(keys)
            }
        };
        let start = |arguments: &Arguments| start_workers(arguments, key_services);
        let workers = blocking(arguments, start).await?;
        Ok(Fleet { keys, workers })
    }

    /// Answers a sealed request for a package.
    pub(crate) async fn call(&self, package: &Digest, sealed: Bytes) -> Result<Answer, Refusal> {
        let order = self.order(package);
        let running = || {
            order
                .iter()
                .map(|&index| &self.workers[index])
                .filter(|worker| worker.is_running())
        };
        // Taken in the same step as it is found free, so that of two calls one goes on to the next worker.
        let free = running().find_map(|worker| Some((worker, worker.free_slot()?)));
        match (free, running().next()) {
            (Some((worker, slot)), _) => worker.call(slot, sealed).await,
            (None, Some(worker)) => worker.call(worker.slot().await?, sealed).await,
            (None, None) => Err(Refusal::unavailable(
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

    pub(crate) fn keys(&self) -> Option<&Keys> {
        self.keys.as_ref()
    }

    /// Whether a runtime is up, or none is wanted.
    pub(crate) fn runs_runtimes(&self) -> bool {
        self.workers.is_empty() || self.workers.iter().any(Worker::is_running)
    }

    /// Closes the public port of the key service; sessions that are open go on.
    pub(crate) fn take_no_more_sessions(&self) {
        if let Some(keys) = &self.keys {
            keys.outside.take_no_more();
        }
    }

    /// Waits until the last session from elsewhere ended, after [`Self::take_no_more_sessions`].
    pub(crate) async fn sessions_end(&self) {
        if let Some(keys) = &self.keys {
            keys.outside.end().await;
        }
    }

    /// Has all programs end for good, the key service last. Blocks until they are gone.
    pub(crate) fn finish(&self) {
        std::thread::scope(|scope| {
            for worker in &self.workers {
                scope.spawn(|| worker.supervisor().finish(RUNTIME_FINISH_WAIT));
            }
        });
        if let Some(keys) = &self.keys {
            keys.supervisor.finish(KEYS_FINISH_WAIT);
        }
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
    let configuration = configuration.unwrap_or_default();
    arguments.check_against(&configuration)?;
    let common = common(arguments);
    let slot = arguments.member_slot.map(|slot| slot.to_string());
    let member = slot.map(|slot| ["--member".to_owned(), slot]);
    let launch = Launch {
        program: program(arguments.keys_program.as_deref(), "bield-keys")?,
        arguments: [common.arguments, member.into_iter().flatten().collect()].concat(),
        configuration,
        storage: arguments.storage.clone(),
        members: arguments.members.clone(),
        witnesses: arguments.witness_addresses.clone(),
        ..common
    };
    Ok(Supervisor::start(launch)?)
}

fn start_workers(
    arguments: &Arguments,
    key_services: Vec<String>,
) -> Result<Vec<Worker>, GatewayError> {
    // Required on the command line when there are runtimes to start.
    let configuration = arguments.runtime_config.as_deref().map(read).transpose()?;
    let mut common = common(arguments);
    if let Some(library) = &arguments.onnxruntime {
        let library = absolute(library)?;
        // The launcher's arguments are text.
        let text = library.to_str().ok_or_else(|| GatewayError::File {
            path: library.clone(),
            error: std::io::ErrorKind::InvalidFilename.into(),
        })?;
        common
            .arguments
            .extend(["--onnxruntime".to_owned(), text.to_owned()]);
    }
    let launch = Launch {
        program: program(arguments.runtime_program.as_deref(), "bield-runtime")?,
        configuration: configuration.unwrap_or_default(),
        key_services,
        packages: arguments.packages.clone(),
        ..common
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
        Some(path) => absolute(path),
        None => Ok(std::env::current_exe()?.with_file_name(usual)),
    }
}

fn absolute(path: &Path) -> Result<PathBuf, GatewayError> {
    std::path::absolute(path).map_err(|error| GatewayError::File {
        path: path.into(),
        error,
    })
}

fn read(path: &Path) -> Result<Vec<u8>, GatewayError> {
    std::fs::read(path).map_err(|error| GatewayError::File {
        path: path.into(),
        error,
    })
}
