//! A sealing proxy on the user's own machine: the protocols that tools speak in front, sealed calls behind.
//!
//! ```text
//! tritonclient, kserve ─ OIP v2 REST ─┐ this process, loopback only         │ anybody's machine
//! tritonclient, kserve ─ OIP v2 gRPC ─┤ clear ─▶ tensors ─▶ bield-sdk ─────▶│ sealed ─▶ gateway ─▶ runtime
//! openai ─ /v1/embeddings ────────────┤       receipt verified and kept ◀───│ sealed ◀─
//! own transport ─ /v1/seal, /v1/open ─┘                                     │
//! ```
//!
//! Always true: nothing is served before the key service's evidence met the trust ([`Models::verify`] is the
//! only way to something to serve), nor after what was verified ended; inputs, outputs, names and versions are
//! told from attested key configurations, never from a gateway; an answer is given only after its receipt was
//! verified, and kept in the home unless it says that it could not be. Listeners are on loopback addresses, requests name the loopback
//! ([`Token`] says who else is kept out).
//!
//! Not here: protection from other processes of the same user, who can read the home anyway; the terminal.
//!
//! On paper, of a call with `n` bytes of raw inputs and `m` of outputs, what the proxy adds to the SDK:
//! `3n + m` bytes copied (socket to body, body to tensor, a second tensor for a retry with a newer key; tensor
//! to answer), no hashes, no round trips, two hand-overs between threads. JSON is read and written element by
//! element, without a tree. Renewal: one attested session (3 round trips, 2 ms) a model and key configuration,
//! which is about one an hour.

mod carry;
mod front;
mod guard;
mod models;
mod oip;
mod openai;
mod openers;
#[cfg(test)]
mod played;
mod refused;
mod renewal;
mod serve;
mod text;
mod upstream;

use std::collections::HashMap;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use bield_sdk::{Kind, ServiceError};
use tokio::net::TcpListener;
use tokio::sync::watch;

pub use guard::Token;
pub use models::Models;
pub use text::{Pooling, Text};

use front::{Front, Reading};
use refused::Refused;
use serve::{Speaks, serve};

/// How to serve.
#[derive(Default)]
pub struct Settings {
    /// What callers have to show; nothing when none.
    pub token: Option<Token>,
    /// Tokenizers by the model's name.
    pub texts: HashMap<String, Text>,
    /// How vectors of tokens become embeddings, by the model's name; [`Pooling::Mean`] where nothing is said.
    pub poolings: HashMap<String, Pooling>,
}

/// The proxy does not start, or cannot go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProxyError {
    /// The key service did not pass, or a package is not to be had.
    #[error(transparent)]
    Service(#[from] ServiceError),
    /// Nobody said which models.
    #[error(
        "which models? name them with --model NAME=REFERENCE, or set `owner` in trust.toml to serve all that \
         this owner granted you"
    )]
    NoOwner,
    /// The trust's owner granted nothing that can be served.
    #[error(
        "the owner in trust.toml has granted you no package in code that trust.toml lists: ask them for a \
         grant (bield id shows whom to), or name packages with --model NAME=REFERENCE"
    )]
    NothingGranted,
    /// Two models of one name.
    #[error("two models would be served as {0}: name them with --model NAME=REFERENCE")]
    TwoOfOneName(String),
    /// Something was said of a model that is not served.
    #[error("no model is served as {0}: a tokenizer or a pooling names one of --model")]
    NoSuchModel(String),
    /// Another machine could reach it.
    #[error(
        "{0} is not an address of this machine's loopback: whoever reaches this proxy speaks in your name and \
         in the clear, so it listens on 127.0.0.1 or [::1] only"
    )]
    NotLoopback(SocketAddr),
    /// The address is not to be had.
    #[error("listening on {address}: {error}; choose another port, or port 0 for any")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// What the system said.
        #[source]
        error: std::io::Error,
    },
}

impl ProxyError {
    /// What to do next.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Service(error) => error.kind(),
            Self::NothingGranted => Kind::Refused,
            _ => Kind::Local,
        }
    }
}

/// A proxy that listens and does not serve yet.
pub struct Proxy {
    front: Arc<Front>,
    rest: TcpListener,
    grpc: Option<TcpListener>,
    /// The same ports of the other loopback address, and what is spoken there.
    others: Vec<(TcpListener, Speaks)>,
}

impl Proxy {
    /// Listens on loopback addresses; port 0 takes any that is free.
    ///
    /// # Errors
    /// Another address, one that is not to be had, or settings of a model that is not served.
    pub async fn listen(
        models: Models,
        settings: Settings,
        rest: SocketAddr,
        grpc: Option<SocketAddr>,
    ) -> Result<Self, ProxyError> {
        let Settings {
            token,
            mut texts,
            mut poolings,
        } = settings;
        let mut readings = HashMap::new();
        for (name, _, _) in models.list() {
            let text = texts.remove(&name);
            let pooling = poolings.remove(&name).unwrap_or_default();
            readings.insert(name, Reading { text, pooling });
        }
        if let Some(name) = texts.into_keys().chain(poolings.into_keys()).next() {
            return Err(ProxyError::NoSuchModel(name));
        }
        let front = Arc::new(Front::new(Arc::new(models), readings, token));
        Self::of(front, rest, grpc).await
    }

    async fn of(
        front: Arc<Front>,
        rest: SocketAddr,
        grpc: Option<SocketAddr>,
    ) -> Result<Self, ProxyError> {
        let rest = bind(rest).await?;
        let grpc = match grpc {
            Some(address) => Some(bind(address).await?),
            None => None,
        };
        Ok(Self {
            front,
            rest,
            grpc,
            others: Vec::new(),
        })
    }

    /// Listens on the same ports of `[::1]` too: many clients ask there first when they are told `localhost`, and
    /// whoever listens there gets what they send. Returns whether this machine has that address.
    ///
    /// # Errors
    /// Somebody else listens there already.
    pub async fn also_on_v6(&mut self) -> Result<bool, ProxyError> {
        let mut wanted = Vec::new();
        if let Ok(rest) = self.rest_address() {
            wanted.push((rest.port(), Speaks::Http1));
        }
        if let Ok(Some(grpc)) = self.grpc_address() {
            wanted.push((grpc.port(), Speaks::Http2));
        }
        for (port, speaks) in wanted {
            let address = SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, port));
            match bind(address).await {
                Ok(listener) => self.others.push((listener, speaks)),
                Err(ProxyError::Listen { error, .. })
                    if error.kind() != std::io::ErrorKind::AddrInUse =>
                {
                    return Ok(false);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Where REST and OpenAI's interface are.
    ///
    /// # Errors
    /// The system does not say.
    pub fn rest_address(&self) -> std::io::Result<SocketAddr> {
        self.rest.local_addr()
    }

    /// Where gRPC is, if it is anywhere.
    ///
    /// # Errors
    /// The system does not say.
    pub fn grpc_address(&self) -> std::io::Result<Option<SocketAddr>> {
        self.grpc.as_ref().map(TcpListener::local_addr).transpose()
    }

    /// Serves until `stop` is done, then lets calls under way end for a while.
    pub async fn serve(self, stop: impl Future<Output = ()>) {
        let (tell, told) = watch::channel(false);
        let rest = serve(
            self.rest,
            Speaks::Http1,
            rest_router(self.front.clone()),
            told.clone(),
        );
        let grpc = async {
            if let Some(listener) = self.grpc {
                let router = oip::grpc::router(self.front.clone());
                serve(listener, Speaks::Http2, router, told.clone()).await;
            }
        };
        let others = self.others.into_iter().map(|(listener, speaks)| {
            let router = match speaks {
                Speaks::Http1 => rest_router(self.front.clone()),
                Speaks::Http2 => oip::grpc::router(self.front.clone()),
            };
            serve(listener, speaks, router, told.clone())
        });
        let others = futures_util::future::join_all(others);
        let stop = async {
            stop.await;
            // Whoever serves still listens to this.
            let _ = tell.send(true);
        };
        tokio::join!(rest, grpc, others, stop);
    }
}

/// Every path of the REST port, guarded.
fn rest_router(front: Arc<Front>) -> Router {
    Router::new()
        .merge(oip::router())
        .merge(openai::router())
        .merge(carry::router())
        .fallback(async |request: Request| {
            let paths = "nothing is here; the paths are /v2…, /v1/models, /v1/embeddings, /v1/seal/<model> and \
                         /v1/open/<id> (docs/proxy.md)";
            refuse(request.uri().path(), Refused::unknown(paths))
        })
        .method_not_allowed_fallback(async |request: Request| {
            let status = axum::http::StatusCode::METHOD_NOT_ALLOWED;
            let refused = Refused::new(status, "other-method", "this path takes another method");
            refuse(request.uri().path(), refused)
        })
        .layer(from_fn_with_state(front.clone(), guarded))
        .with_state(front)
}

async fn guarded(State(front): State<Arc<Front>>, request: Request, next: Next) -> Response {
    match guard::check(front.token.as_ref(), request.uri(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(refused) => refuse(request.uri().path(), refused),
    }
}

/// A refusal in the form of the face that the path belongs to.
fn refuse(path: &str, refused: Refused) -> Response {
    if path.starts_with("/v1/models") || path.starts_with("/v1/embeddings") {
        openai::Failed(refused).into_response()
    } else {
        oip::Failed(refused).into_response()
    }
}

async fn bind(address: SocketAddr) -> Result<TcpListener, ProxyError> {
    if !address.ip().is_loopback() {
        return Err(ProxyError::NotLoopback(address));
    }
    let listened = TcpListener::bind(address).await;
    listened.map_err(|error| ProxyError::Listen { address, error })
}

#[cfg(test)]
mod tests;
