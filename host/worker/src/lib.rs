//! One runtime behind four faces on one port.
//!
//! ```text
//!  POST /                        plain                   ┐
//!  POST /init, /run              OpenWhisk action        ├─▶ places ─▶ bield-runtime ─▶ sealed answer
//!  /v2/…                         Open Inference Protocol ┘
//!  GET /healthz, /readyz         HTTP container
//!  GET /metrics                  on a port of its own
//! ```
//!
//! Goes in: sealed requests, in four wrappings. Comes out: the runtime's sealed answers in the same wrapping, and its
//! unsealed feedback beside them.
//!
//! Always true: nothing unsealed reaches the runtime; no more requests are at it than it has places for, a short queue is
//! bounded in number and time, and beyond it a caller gets 503 without its request having run; connections are bounded in
//! number and patience, bodies one by one and together; a refusal is said once its request has been taken in; a runtime
//! that ends is started again; told to stop, the worker is not ready, refuses new work with 503, finishes what is in
//! flight, has the runtime end whether or not clients have read their answers, and exits with 0. No timer is needed for
//! correctness, so that the process may be frozen between two requests.
//!
//! Where faces meet: a path belongs to one face. The first `/init` makes the worker an action for good: from then on
//! paths that no face knows get an action's 500, before that 404. Serving the other faces goes on.
//!
//! Not here: which worker gets a request (`host/packer`), starting several (`host/engines`), TLS, HTTP/2.

mod arguments;
mod faces;
mod metrics;
mod worker;

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use bield_face::Connections;
use bield_launcher::{Launch, LaunchError, SharedStorage, Supervisor};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

pub use arguments::Arguments;
use worker::Worker;

/// How long a runtime that is told to end may take: it gives back what it holds of quotas.
const RUNTIME_FINISH_WAIT: Duration = Duration::from_secs(5);
/// How long a client may still read its answer when the drain time is over.
const LEAVE_WAIT: Duration = Duration::from_secs(1);
/// Connections to the metrics.
const METRICS_CONNECTIONS_MAX: usize = 16;

/// Why the worker ended other than by being told to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorkerError {
    /// Somebody else listens there, or the address is not of this machine.
    #[error(
        "cannot listen on {address} ({flag}): {error}; stop the program that holds it or choose another address"
    )]
    Listen {
        /// The flag that named it.
        flag: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system said.
        error: io::Error,
    },
    /// A file cannot be read.
    #[error("{} cannot be used: {error}; correct the path or its permissions and start again", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The runtime did not start.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// The operating system refused something basic.
    #[error("the system refused: {0}; free resources and start again")]
    System(#[from] io::Error),
}

impl WorkerError {
    /// 2: change an argument, port or file. 3: the runtime did not start. 1: anything else.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Listen { .. } | Self::File { .. } => 2,
            Self::Launch(_) => 3,
            Self::System(_) => 1,
        })
    }
}

/// Serves until SIGTERM or SIGINT, then finishes what is in flight and has the runtime end.
///
/// The port answers from the beginning: alive, and not ready until the runtime is. Then `metrics http://ADDRESS`, if
/// wanted, and `listening http://ADDRESS` are printed to standard output.
///
/// # Errors
/// See [`WorkerError`].
pub async fn run(arguments: Arguments) -> Result<(), WorkerError> {
    let launch = launch(&arguments)?;
    let port = listen("--listen", arguments.address()).await?;
    let metrics = match arguments.metrics_listen {
        Some(address) => Some(listen("--metrics-listen", address).await?),
        None => None,
    };
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut lines = Vec::new();
    if let Some(metrics) = &metrics {
        lines.push(format!("metrics http://{}", metrics.local_addr()?));
    }
    lines.push(format!("listening http://{}", port.local_addr()?));

    let worker = Arc::new(Worker::new(&arguments));
    let (close, closed) = tokio::sync::watch::channel(false);
    let until = |mut closed: tokio::sync::watch::Receiver<bool>| async move {
        let _ = closed.wait_for(|closed| *closed).await;
    };
    let router = faces::router(&worker);
    let serving = Connections::within_files().serve(port, router, until(closed.clone()));
    let mut server = tokio::spawn(serving);
    if let Some(metrics) = metrics {
        let router = metrics::router(&worker);
        let serving = Connections::up_to(METRICS_CONNECTIONS_MAX);
        tokio::spawn(serving.serve(metrics, router, until(closed)));
    }
    let mut starting = tokio::task::spawn_blocking(move || Supervisor::start(launch));
    let stdin_ends = stdin_ends(arguments.until_stdin_ends);
    let told_to_stop = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            () = stdin_ends => {}
        }
    };
    let mut told_to_stop = std::pin::pin!(told_to_stop);
    tokio::select! {
        started = &mut starting => {
            worker.serve(Arc::new(started.map_err(io::Error::other)??));
            println!("{}", lines.join("\n"));
            tracing::info!("worker ready");
        }
        // The program that is being configured ends when this process does.
        () = &mut told_to_stop => return Ok(()),
        end = &mut server => return Ok(end.map_err(io::Error::other)?),
    }
    tokio::select! {
        () = told_to_stop => {}
        end = &mut server => return Ok(end.map_err(io::Error::other)?),
    }
    tracing::info!("draining: no new work, finishing what is in flight");
    worker.drain();
    let until = Instant::now() + Duration::from_secs(arguments.drain_secs);
    // Callers hear 503 on this port until the last request is answered.
    if tokio::time::timeout_at(until, worker.finished())
        .await
        .is_err()
    {
        tracing::warn!("drain time is over; what is still in flight is cut");
    }
    let _ = close.send(true);
    // The runtime does not wait for clients that still read.
    let ending = Arc::clone(&worker);
    let ended = tokio::task::spawn_blocking(move || ending.end(RUNTIME_FINISH_WAIT));
    let until = until.max(Instant::now() + LEAVE_WAIT);
    let (ended, left) = tokio::join!(ended, tokio::time::timeout_at(until, server));
    ended.map_err(io::Error::other)?;
    if left.is_err() {
        tracing::warn!("clients that have not read their answers are cut");
    }
    tracing::info!("stopped");
    Ok(())
}

fn launch(arguments: &Arguments) -> Result<Launch, WorkerError> {
    let program = match &arguments.runtime_program {
        Some(path) => absolute(path)?,
        None => std::env::current_exe()?.with_file_name("bield-runtime"),
    };
    let mut flags = vec!["--tee".to_owned(), arguments.tee.clone()];
    if let Some(library) = &arguments.onnxruntime {
        let library = absolute(library)?;
        // The launcher's arguments are text.
        let text = library.to_str().ok_or_else(|| WorkerError::File {
            path: library.clone(),
            error: ErrorKind::InvalidFilename.into(),
        })?;
        flags.extend(["--onnxruntime".to_owned(), text.to_owned()]);
    }
    let path = &arguments.runtime_config;
    let configuration = std::fs::read(path).map_err(|error| WorkerError::File {
        path: path.clone(),
        error,
    })?;
    Ok(Launch {
        program,
        arguments: flags,
        configuration,
        key_services: arguments.key_services.clone(),
        packages: Some(arguments.packages.clone()),
        shared_storage: arguments
            .state
            .as_deref()
            .map(SharedStorage::open)
            .transpose()?,
        run_directory: arguments.run_directory.clone(),
        record: arguments.record.clone(),
        ..Launch::default()
    })
}

fn absolute(path: &Path) -> Result<PathBuf, WorkerError> {
    std::path::absolute(path).map_err(|error| WorkerError::File {
        path: path.into(),
        error,
    })
}

async fn listen(flag: &'static str, address: SocketAddr) -> Result<TcpListener, WorkerError> {
    TcpListener::bind(address)
        .await
        .map_err(|error| WorkerError::Listen {
            flag,
            address,
            error,
        })
}

/// Ends when standard input does, or never.
async fn stdin_ends(wanted: bool) {
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
