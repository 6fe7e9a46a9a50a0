//! Connections of an HTTP face: so many, none with half a head for long, none that takes its answers too slowly.
//!
//! ```text
//! accept ◀── a place is free (else the system's queue fills)
//!   └──▶ connection ── no whole head within `head_wait`, or nothing asked for so long ──▶ closed
//!                  └── credit for waiting to write used up ───────────────────────────▶ closed
//! ```
//!
//! Always true: HTTP/1.1 alone, whatever else is built into the libraries; a waiting write costs credit, at most
//! [`Connections::stall`], and bytes taken earn it at [`DRAIN_MIN`], so who reads more slowly than that ends, with its
//! answer's memory; when told to stop, no connection is taken any more and each ends after the request it is at.
//!
//! Not here: how fast a body must come ([`crate::Bodies`]), TLS.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use rustix::process::{Resource, getrlimit};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep, sleep_until};

/// Longest time for a request's head, and so for a pause between two requests of one connection: longer than the pauses
/// of a client that uses a connection again.
const HEAD_WAIT: Duration = Duration::from_secs(75);
/// Longest a write waits: as long as a slow reader of an answer in parts has beside what its bytes earn it.
const STALL: Duration = Duration::from_secs(60);
/// Bytes a second a reader must take, while there is something to take: 256 kbit/s.
const DRAIN_MIN: u64 = 32 << 10;
/// Most connections, where files are not scarcer.
const CONNECTIONS_MAX: u64 = 4096;
/// Pause after the system had no connection to give, as when files ran out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// What connections may do.
#[derive(Debug, Clone, Copy)]
pub struct Connections {
    /// Most at once.
    pub max: usize,
    /// Longest time for a request's head, or between two requests.
    pub head_wait: Duration,
    /// Longest a write waits.
    pub stall: Duration,
}

impl Connections {
    /// At most so many.
    #[must_use]
    pub const fn up_to(max: usize) -> Self {
        Self {
            max,
            head_wait: HEAD_WAIT,
            stall: STALL,
        }
    }

    /// As many as half of the files that this process may open, at most 4096: the other half is for what serves them.
    #[must_use]
    pub fn within_files() -> Self {
        let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let max = (files / 2).clamp(16, CONNECTIONS_MAX);
        Self::up_to(usize::try_from(max).unwrap_or(usize::MAX))
    }

    /// Serves `router` on `listener` until `stop`, and then until the last connection has ended. Handlers find the peer's
    /// address as [`ConnectInfo`].
    pub async fn serve(self, listener: TcpListener, router: Router, stop: impl Future) {
        let mut builder = auto::Builder::new(TokioExecutor::new()).http1_only();
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(self.head_wait);
        let places = Arc::new(Semaphore::new(self.max));
        let open = GracefulShutdown::new();
        let mut stop = std::pin::pin!(stop);
        loop {
            let (stream, from, place) = tokio::select! {
                taken = take(&listener, &places) => taken,
                _ = &mut stop => break,
            };
            let service = TowerToHyperService::new(router.clone());
            let service = service_fn(move |mut request: hyper::Request<_>| {
                request.extensions_mut().insert(ConnectInfo(from));
                service.call(request)
            });
            let stream = TokioIo::new(Watched::new(stream, self.stall));
            let connection = builder.serve_connection(stream, service).into_owned();
            let connection = open.watch(connection);
            tokio::spawn(async move {
                // A connection that breaks is its client's matter.
                if let Err(error) = connection.await {
                    tracing::debug!(error, "a connection broke");
                }
                drop(place);
            });
        }
        drop(listener);
        open.shutdown().await;
    }
}

/// The next connection, and the place it takes.
async fn take(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> (TcpStream, SocketAddr, OwnedSemaphorePermit) {
    let place = Arc::clone(places).acquire_owned().await;
    let place = place.expect("places are never closed");
    loop {
        match listener.accept().await {
            Ok((stream, from)) => return (stream, from, place),
            Err(error) => {
                // Out of files or memory: those that are open end in time.
                tracing::warn!(%error, "a connection cannot be accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// A connection whose reader must take what it asked for.
struct Watched {
    stream: TcpStream,
    stall: Duration,
    /// A write waits since then.
    waiting: Option<Instant>,
    /// How long writes may wait from here on.
    credit: Duration,
    due: Pin<Box<Sleep>>,
}

impl Watched {
    fn new(stream: TcpStream, stall: Duration) -> Self {
        // Small answers must not wait for the acknowledgement of the answer before, and what the system holds for a reader
        // that has gone must not stay for its two hours.
        let stall_ms = u32::try_from(stall.as_millis()).unwrap_or(u32::MAX);
        let slow = rustix::net::sockopt::set_tcp_user_timeout(&stream, stall_ms);
        if let Err(error) = stream.set_nodelay(true).and(slow.map_err(io::Error::from)) {
            tracing::debug!(%error, "a connection keeps the system's settings");
        }
        Self {
            stream,
            stall,
            waiting: None,
            credit: stall,
            due: Box::pin(sleep_until(Instant::now() + stall)),
        }
    }

    /// Accounts for a write that was tried.
    fn written(
        &mut self,
        context: &mut Context<'_>,
        write: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match write {
            Poll::Ready(Ok(bytes)) => {
                let waited = self.waiting.take().map(|since| since.elapsed());
                let earned = Duration::from_micros(bytes as u64 * 1_000_000 / DRAIN_MIN);
                let left = self.credit.saturating_sub(waited.unwrap_or_default());
                self.credit = (left + earned).min(self.stall);
                Poll::Ready(Ok(bytes))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => {
                let until = *self.waiting.get_or_insert_with(Instant::now) + self.credit;
                if self.due.deadline() != until {
                    self.due.as_mut().reset(until);
                }
                ready!(self.due.as_mut().poll(context));
                let why = "the reader takes too little";
                Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, why)))
            }
        }
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(context, into)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let write = Pin::new(&mut this.stream).poll_write(context, bytes);
        this.written(context, write)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let write = Pin::new(&mut this.stream).poll_write_vectored(context, parts);
        this.written(context, write)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::sync::oneshot;
    use tokio::task::JoinHandle;

    use super::*;

    const ASK: &[u8] = b"GET / HTTP/1.1\r\nhost: h\r\n\r\n";
    const LIMITS: Connections = Connections {
        max: 1,
        head_wait: Duration::from_millis(300),
        stall: Duration::from_millis(500),
    };

    async fn served(
        limits: Connections,
        answer: Vec<u8>,
    ) -> (SocketAddr, oneshot::Sender<()>, JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (tell, told) = oneshot::channel();
        let answer = axum::body::Bytes::from(answer);
        let router = Router::new().route("/", get(async move || answer));
        let server = tokio::spawn(limits.serve(listener, router, told));
        (address, tell, server)
    }

    #[tokio::test]
    async fn half_a_head_is_cut_and_its_place_is_free() {
        let (address, _tell, _server) = served(LIMITS, b"there".to_vec()).await;
        let mut half = TcpStream::connect(address).await.unwrap();
        half.write_all(b"GET / HTTP/1.1\r\nx: ").await.unwrap();
        // Waits in the system's queue until the only place is free.
        let mut next = TcpStream::connect(address).await.unwrap();
        next.write_all(ASK).await.unwrap();
        let mut said = Vec::new();
        half.read_to_end(&mut said).await.unwrap();
        let mut answer = [0; 8];
        next.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1");
        // It asks for nothing more, and is closed as well.
        let mut rest = Vec::new();
        next.read_to_end(&mut rest).await.unwrap();
        assert!(rest.ends_with(b"there"));
    }

    #[tokio::test]
    async fn an_answer_that_nobody_reads_is_cut() {
        let (address, tell, server) = served(LIMITS, vec![7; 64 << 20]).await;
        let mut idle = TcpStream::connect(address).await.unwrap();
        idle.write_all(ASK).await.unwrap();
        let mut first = [0; 1];
        idle.read_exact(&mut first).await.unwrap();
        let _ = tell.send(());
        // Comes back only when the connection has ended.
        server.await.unwrap();
        let mut rest = Vec::new();
        let _ = idle.read_to_end(&mut rest).await;
        assert!(rest.len() < 64 << 20, "not all of it");
    }

    #[tokio::test]
    async fn told_to_stop_it_ends_after_the_request_it_is_at() {
        let (address, tell, server) = served(Connections::up_to(4), vec![7; 8 << 20]).await;
        let mut reader = TcpStream::connect(address).await.unwrap();
        reader.write_all(ASK).await.unwrap();
        let mut first = [0; 1];
        reader.read_exact(&mut first).await.unwrap();
        let idle = TcpStream::connect(address).await.unwrap();
        let _ = tell.send(());
        let mut rest = Vec::new();
        reader.read_to_end(&mut rest).await.unwrap();
        assert!(rest.len() > 8 << 20, "all of it");
        drop(idle);
        server.await.unwrap();
        assert!(TcpStream::connect(address).await.is_err());
    }

    #[tokio::test]
    async fn http_2_is_not_spoken() {
        let (address, _tell, _server) = served(Connections::up_to(4), vec![]).await;
        let mut client = TcpStream::connect(address).await.unwrap();
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
        client.write_all(preface).await.unwrap();
        let mut said = Vec::new();
        let _ = client.read_to_end(&mut said).await;
        // A server of HTTP/2 would begin with a frame of settings.
        assert!(said.is_empty() || said.starts_with(b"HTTP/1.1 400"));
    }
}
