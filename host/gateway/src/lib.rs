//! Untrusted HTTP face: routes sealed requests to workers.
//!
//! ```text
//!  POST /v1/call ─▶ sealed? ─▶ Driver ⇄ Packer: by package, caller, what workers hold ─▶ Engine ─▶ worker ─▶ sealed answer
//!  GET /v1/why/<request> ◀──────────────┘                        (processes of this machine, or at addresses)
//!  /api/v1/namespaces/… ─▶ actions and activations, as clients of OpenWhisk know them ─▶ the same Driver
//!  /v1/packages/<digest> ─▶ PACKAGES/<digest>.bield ──────────┘ served through the door
//!  TCP keys ports ─▶ attested session bytes ─▶ bield-keys ─▶ its files, members, witnesses
//! ```
//!
//! Goes in: sealed requests, sealed packages, session bytes. Comes out: the same, sealed for their sender.
//!
//! Always true: nothing unsealed is accepted; a request is routed by its visible header only; connections, bodies,
//! queues, sessions and uploads are bounded, and beyond a bound the caller hears when to come back; a
//! program that dies is started again while callers get 503 with `Retry-After`; a package file appears
//! under a digest only when its head has that digest and its length is complete.
//!
//! Not here: whether a request is allowed (the runtime decides, under seal), TLS (what travels is sealed;
//! the network sees package digests and sizes, as the host does), who may upload.
//!
//! On paper, per call: body read once into memory, handed to the door by one copy, answer the same; three
//! thread hand-overs (about 30 µs together), and some microseconds of the packer.

mod arguments;
mod calls;
mod driver;
mod fleet;
mod gate;
mod http;
mod keys_port;
mod metrics;
mod openwhisk;
mod packages;
mod page;
mod places;
mod series;
mod status;
mod why;

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bield_face::Connections;
use bield_launcher::LaunchError;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

pub use arguments::Arguments;
use fleet::{Fleet, Ports};

/// Why the gateway ended other than by being told to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GatewayError {
    /// The arguments do not fit together.
    #[error("{0}")]
    Arguments(String),
    /// Somebody else listens there.
    #[error("port {} is in use ({flag} {address}); stop the program that holds it or choose another port with {flag}", address.port())]
    PortInUse {
        /// The flag that named it.
        flag: &'static str,
        /// The address.
        address: SocketAddr,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {address} ({flag}): {error}; choose an address of this machine")]
    Listen {
        /// The flag that named it.
        flag: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system said.
        error: io::Error,
    },
    /// A file or directory cannot be used.
    #[error("{} cannot be used: {error}; correct the path or its permissions and start again", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// An enclave program did not start.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// A worker did not start; the engine's sentence.
    #[error("{0}")]
    Worker(String),
    /// The operating system refused something basic.
    #[error("the system refused: {0}; free resources and start again")]
    System(#[from] io::Error),
}

impl GatewayError {
    /// 2: change an argument, port or file. 3: an enclave program did not start. 1: anything else.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            GatewayError::Arguments(_)
            | GatewayError::PortInUse { .. }
            | GatewayError::Listen { .. }
            | GatewayError::File { .. } => 2,
            GatewayError::Launch(_) | GatewayError::Worker(_) => 3,
            GatewayError::System(_) => 1,
        })
    }
}

/// Serves until SIGTERM or SIGINT, then finishes what is in flight and has the programs end.
///
/// Once ready, prints to standard output, when it starts a key service, `keys ADDRESS` and for a member
/// `members ADDRESS`, and last `listening http://ADDRESS`.
///
/// # Errors
/// See [`GatewayError`].
pub async fn run(mut arguments: Arguments) -> Result<(), GatewayError> {
    arguments.read_accounts()?;
    arguments.check()?;
    let arguments = Arc::new(arguments);
    if let Some(packages) = &arguments.packages {
        packages::prepare(packages)?;
    }
    keys_port::allow_files(&arguments);
    // Ports first: a second gateway ends here, before it starts anything.
    let http = listen("--listen", arguments.listen).await?;
    let ports = match &arguments.keys_config {
        None => None,
        Some(_) => Some(Ports {
            public: listen("--keys-listen", arguments.keys_listen).await?,
            members: match arguments.is_member() {
                true => Some(listen("--members-listen", arguments.members_listen).await?),
                false => None,
            },
        }),
    };
    let (mut terminate, mut interrupt) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );

    let mut lines = Vec::new();
    if let Some(ports) = &ports {
        lines.push(format!("keys {}", ports.public.local_addr()?));
        if let Some(members) = &ports.members {
            lines.push(format!("members {}", members.local_addr()?));
        }
    }
    lines.push(format!("listening http://{}", http.local_addr()?));
    let fleet = Arc::new(Fleet::start(&arguments, ports).await?);
    println!("{}", lines.join("\n"));
    tracing::info!(address = %http.local_addr()?, workers = arguments.workers, "gateway ready");

    let draining = Arc::new(AtomicBool::new(false));
    let face = http::Face::new(
        Arc::clone(&arguments),
        Arc::clone(&fleet),
        Arc::clone(&draining),
    );
    let router = http::router(face);
    let (told, mut heard) = tokio::sync::watch::channel(false);
    let server = Connections::within_files().serve(http, router, async move {
        let _ = heard.wait_for(|told| *told).await;
    });
    let finished = async {
        server.await;
        fleet.sessions_end().await;
    };
    let stdin_ends = stdin_ends(arguments.until_stdin_ends);
    let told_to_stop = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            () = stdin_ends => {}
        }
        tracing::info!("draining: no new work, finishing what is in flight");
        draining.store(true, Ordering::SeqCst);
        fleet.drain();
        let _ = told.send(true);
        tokio::time::sleep(Duration::from_secs(arguments.drain_secs)).await;
        tracing::warn!("drain time is over; what is still in flight is cut");
    };
    tokio::select! {
        () = finished => {}
        () = told_to_stop => {}
    }
    fleet.finish().await;
    tracing::info!("stopped");
    Ok(())
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

async fn listen(flag: &'static str, address: SocketAddr) -> Result<TcpListener, GatewayError> {
    TcpListener::bind(address)
        .await
        .map_err(|error| match error.kind() {
            ErrorKind::AddrInUse => GatewayError::PortInUse { flag, address },
            _ => GatewayError::Listen {
                flag,
                address,
                error,
            },
        })
}
