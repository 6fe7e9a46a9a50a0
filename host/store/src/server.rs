//! A store with its face, its peers and its witnesses: what the program runs, and tests start.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bield_capsule::VerifierPolicy;
use bield_envelope::Principal;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::admission::{Admission, Owners, OwnersError, Quotas};
use crate::connections::{Connections, Limits};
use crate::disk::{Files, FilesError};
use crate::http::{Face, router};
use crate::identity::{IdentityError, identity};
use crate::peers::{PeerAddress, Peers};
use crate::storage::{Directory, ObjectStoreError, Objects, Storage};
use crate::system::Randomness;
use crate::witnesses::{WitnessAddress, Witnesses};
use crate::{ServeArguments, Settings, Store};

/// Why a store ended other than by being told to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// Somebody else listens there.
    #[error("port {} is in use (--listen {address}); stop the program that holds it or choose another port", address.port())]
    PortInUse {
        /// The address.
        address: SocketAddr,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {address} (--listen): {error}; choose an address of this machine")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        error: io::Error,
    },
    /// A directory cannot be used.
    #[error("{path} cannot be used: {error}; correct the path or its permissions and start again", path = .path.display())]
    Data {
        /// Which.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// An argument is missing.
    #[error("{0} is missing; add it")]
    Missing(&'static str),
    /// The key file.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The list of owners.
    #[error(transparent)]
    Owners(#[from] OwnersError),
    /// Another program has the directory.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// The object store.
    #[error(transparent)]
    Objects(#[from] ObjectStoreError),
    /// The operating system refused something basic.
    #[error("the system refused: {0}; free resources and start again")]
    System(#[from] io::Error),
}

impl ServerError {
    /// 2: change an argument, port or file. 1: anything else.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::System(_) => 1,
            _ => 2,
        })
    }
}

/// What a server is made of.
pub struct ServerSettings {
    /// The store.
    pub store: Settings,
    /// Where to listen.
    pub listen: SocketAddr,
    /// Replicas to exchange records with.
    pub peers: Vec<PeerAddress>,
    /// Time between two comparisons with a peer.
    pub peer_interval: Duration,
    /// Whether capsules that only peers have are created here.
    pub follow: bool,
    /// Who cosigns checkpoints.
    pub witnesses: Vec<WitnessAddress>,
    /// A subscriber that takes nothing for this long is cut off.
    pub stall_max: Duration,
    /// Most connections at once.
    pub connections_max: usize,
}

impl ServerSettings {
    /// A store alone on a free port of this machine.
    #[must_use]
    pub fn alone(store: Settings) -> Self {
        Self {
            store,
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            peers: Vec::new(),
            peer_interval: Duration::from_secs(2),
            follow: false,
            witnesses: Vec::new(),
            stall_max: STALL_MAX,
            connections_max: CONNECTIONS_MAX,
        }
    }
}

/// A subscriber that takes nothing for this long is cut off: it can come back and go on.
const STALL_MAX: Duration = Duration::from_secs(30);

/// A connection that was sent nothing for this long is closed: longer than a body may take and its
/// records wait.
const QUIET_MAX: Duration = Duration::from_secs(60);

/// Most connections at once, where files are not scarcer.
const CONNECTIONS_MAX: usize = 4096;

/// Files that are neither capsules' nor connections': the program's own, and peers'.
const FILES_SPARE: u64 = 128;

/// Files a capsule takes: its directory, lock and newest segment.
const CAPSULE_FILES: u64 = 3;

/// A store that serves.
pub struct Server {
    store: Arc<Store>,
    address: SocketAddr,
    draining: Arc<AtomicBool>,
    stopping: watch::Sender<bool>,
    serving: JoinHandle<io::Result<()>>,
    peers: Peers,
    witnesses: Option<Witnesses>,
}

impl Server {
    /// Opens the store and listens.
    ///
    /// # Errors
    /// See [`ServerError`].
    pub async fn start(settings: ServerSettings) -> Result<Self, ServerError> {
        let address = settings.listen;
        let listener = TcpListener::bind(address)
            .await
            .map_err(|error| match error.kind() {
                ErrorKind::AddrInUse => ServerError::PortInUse { address },
                _ => ServerError::Listen { address, error },
            })?;
        let address = listener.local_addr()?;
        let store = tokio::task::spawn_blocking(move || Store::open(settings.store))
            .await
            .map_err(io::Error::other)??;
        let draining = Arc::new(AtomicBool::new(false));
        let (stopping, mut told) = watch::channel(false);
        let face = Face::new(
            Arc::clone(&store),
            Arc::clone(&draining),
            told.clone(),
            !settings.witnesses.is_empty(),
            settings.stall_max,
        );
        let limits = Limits {
            connections_max: settings.connections_max,
            quiet: QUIET_MAX,
            // A subscriber is cut off, and counted, by its subscription first.
            stall: settings.stall_max * 2,
        };
        let listener = Connections::new(listener, limits, Arc::clone(store.metrics()));
        let server = axum::serve(listener, router(face)).with_graceful_shutdown(async move {
            let _ = told.wait_for(|told| *told).await;
        });
        let serving = tokio::spawn(server.into_future());
        let peers = Peers::start(
            &store,
            settings.peers,
            settings.peer_interval,
            settings.follow,
        )?;
        let witnesses = match settings.witnesses {
            none if none.is_empty() => None,
            some => Some(Witnesses::start(&store, some)?),
        };
        Ok(Self {
            store,
            address,
            draining,
            stopping,
            serving,
            peers,
            witnesses,
        })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://ADDRESS`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Who signs here.
    #[must_use]
    pub fn principal(&self) -> Principal {
        self.store.principal()
    }

    /// Its capsules.
    #[must_use]
    pub const fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// Takes nothing new, finishes what is in flight within `drain`, syncs, and ends.
    pub async fn stop(mut self, drain: Duration) {
        self.draining.store(true, Ordering::SeqCst);
        self.peers.stop();
        if let Some(witnesses) = &self.witnesses {
            witnesses.stop();
        }
        self.stopping.send_replace(true);
        if tokio::time::timeout(drain, &mut self.serving)
            .await
            .is_err()
        {
            tracing::warn!("drain time is over; what is still in flight is cut");
            self.serving.abort();
        }
        let (store, peers, witnesses) = (self.store, self.peers, self.witnesses);
        let end = tokio::task::spawn_blocking(move || {
            store.close();
            peers.join();
            if let Some(witnesses) = witnesses {
                witnesses.join();
            }
        });
        if end.await.is_err() {
            tracing::error!("the store did not end cleanly");
        }
    }
}

/// Serves until SIGTERM or SIGINT, then finishes what is in flight.
///
/// Once ready, prints `listening http://ADDRESS PRINCIPAL` to standard output.
///
/// # Errors
/// See [`ServerError`].
pub async fn run(arguments: ServeArguments) -> Result<(), ServerError> {
    let (mut terminate, mut interrupt) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    let (drain, until_stdin_ends) = (
        Duration::from_secs(arguments.drain_secs),
        arguments.until_stdin_ends,
    );
    let files = open_many_files();
    let settings = tokio::task::spawn_blocking(move || settings(arguments, files));
    let (_own, settings) = settings.await.map_err(io::Error::other)??;
    let server = Server::start(settings).await?;
    println!("listening {} {}", server.url(), server.principal());
    tracing::info!(address = %server.address(), principal = %server.principal(), "store ready");
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = stdin_ends(until_stdin_ends) => {}
    }
    tracing::info!("draining: no new work, finishing what is in flight");
    server.stop(drain).await;
    tracing::info!("stopped");
    Ok(())
}

/// Raises the limit on open files as far as it goes; says how many there may be.
fn open_many_files() -> u64 {
    let resource = rustix::process::Resource::Nofile;
    let before = rustix::process::getrlimit(resource);
    let mut limit = before;
    limit.current = limit.maximum;
    match rustix::process::setrlimit(resource, limit) {
        Ok(()) => limit.current.unwrap_or(u64::MAX),
        Err(error) => {
            tracing::warn!(%error, "the limit on open files stays");
            before.current.unwrap_or(u64::MAX)
        }
    }
}

/// Connections and capsules that `files` open files are enough for: a quarter for connections.
fn within(files: u64, capsules_max: u64) -> (usize, u64) {
    let files = files.saturating_sub(FILES_SPARE);
    let connections = (files / 4).clamp(16, CONNECTIONS_MAX as u64);
    let capsules = (files.saturating_sub(connections) / CAPSULE_FILES).max(1);
    (connections as usize, capsules_max.min(capsules))
}

/// Reads the arguments; the directory is this program's alone as long as the first value lives.
fn settings(arguments: ServeArguments, files: u64) -> Result<(Files, ServerSettings), ServerError> {
    let data = arguments.data.ok_or(ServerError::Missing("--data DIR"))?;
    let owners = arguments
        .owners
        .ok_or(ServerError::Missing("--owners FILE|any"))?;
    let owners = Owners::read(&owners)?;
    std::fs::create_dir_all(&data).map_err(|error| {
        let path = data.clone();
        ServerError::Data { path, error }
    })?;
    let own = Files::own(&data)?;
    let key = identity(&data, &mut Randomness)?;
    let storage: Arc<dyn Storage> = match &arguments.object_store {
        Some(url) => Arc::new(Objects::open(url)?),
        None => {
            Arc::new(Directory::at(&data).map_err(|error| ServerError::Data { path: data, error })?)
        }
    };
    let (connections_max, capsules_max) = within(files, arguments.capsules_max);
    if capsules_max < arguments.capsules_max {
        tracing::warn!(
            files,
            capsules_max,
            connections_max,
            "the limit on open files allows fewer capsules than --capsules-max; raise it (ulimit -n) for more"
        );
    }
    let quotas = Quotas {
        capsules_max,
        capsule_bytes_max: arguments.capsule_mib_max.saturating_mul(1 << 20),
        total_bytes_max: arguments.total_mib_max.saturating_mul(1 << 20),
    };
    let shards = match arguments.shards {
        Some(shards) => usize::from(shards),
        None => std::thread::available_parallelism()?.get(),
    };
    let settings = ServerSettings {
        store: Settings {
            storage,
            key,
            admission: Admission::new(owners, quotas),
            policy: VerifierPolicy {
                allow_simulated: arguments.allow_simulated,
                ..VerifierPolicy::default()
            },
            shards,
        },
        listen: arguments.listen,
        peers: arguments.peers,
        peer_interval: Duration::from_millis(arguments.peer_interval_ms),
        follow: arguments.follow,
        witnesses: arguments.witnesses,
        stall_max: STALL_MAX,
        connections_max,
    };
    Ok((own, settings))
}

/// Ends when standard input does, or never.
pub(crate) async fn stdin_ends(wanted: bool) {
    if !wanted {
        return std::future::pending().await;
    }
    let (tell, told) = tokio::sync::oneshot::channel();
    // A thread of its own: a pool's thread that reads would keep the process from ending.
    std::thread::spawn(move || {
        // However it ends, nobody is there any more.
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        let _ = tell.send(());
    });
    let _ = told.await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capsules_and_connections_fit_in_the_limit_on_open_files() {
        for files in [1024, 4096, 65_536, 1 << 20, u64::MAX] {
            let (connections, capsules) = within(files, 100_000);
            assert!(connections >= 16 && (1..=100_000).contains(&capsules));
            let taken = FILES_SPARE + connections as u64 + CAPSULE_FILES * capsules;
            assert!(taken <= files, "{taken} of {files}");
        }
        assert_eq!(within(u64::MAX, 100_000), (CONNECTIONS_MAX, 100_000));
    }
}
