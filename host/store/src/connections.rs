//! Connections: so many, none silent for long, none that takes what it asked for too slowly.
//!
//! ```text
//! accept ◀── a place is free (else the system's queue fills, then refuses)
//!   └──▶ Connection ── nothing sent for `quiet` while waiting to read ──▶ closed
//!                   └─ credit for waiting to write used up ────────────▶ closed
//! ```
//!
//! Always true: a connection that has been sent nothing for [`Limits::quiet`] is closed, so idle ones
//! and requests that trickle in end; a waiting write costs credit, at most [`Limits::stall`], and bytes
//! taken earn it at [`DRAIN_MIN`], so who reads more slowly than that ends, with its answer's memory.
//!
//! Not here: how fast a body must come (`http::body`).

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep, sleep_until};

use crate::metrics::Metrics;

/// Bytes a second a reader must take, while there is something to take.
const DRAIN_MIN: u64 = 16 << 10;

/// What connections may do.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Most at once.
    pub(crate) connections_max: usize,
    /// Longest without a byte sent, while nothing is to be sent.
    pub(crate) quiet: Duration,
    /// Longest a write waits.
    pub(crate) stall: Duration,
}

/// A listener whose connections keep the limits.
pub(crate) struct Connections {
    listener: TcpListener,
    places: Arc<Semaphore>,
    limits: Limits,
    metrics: Arc<Metrics>,
}

impl Connections {
    pub(crate) fn new(listener: TcpListener, limits: Limits, metrics: Arc<Metrics>) -> Self {
        Self {
            listener,
            places: Arc::new(Semaphore::new(limits.connections_max)),
            limits,
            metrics,
        }
    }
}

impl Listener for Connections {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        let place = Arc::clone(&self.places).acquire_owned().await;
        let place = place.expect("places are never closed");
        loop {
            match self.listener.accept().await {
                Ok((stream, address)) => {
                    let metrics = Arc::clone(&self.metrics);
                    return (
                        Connection::new(stream, place, self.limits, metrics),
                        address,
                    );
                }
                Err(error) => {
                    // Out of files or memory: those that are open end in time.
                    tracing::warn!(%error, "a connection cannot be accepted");
                    sleep(Duration::from_millis(200)).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// One connection. See the module's text.
pub(crate) struct Connection {
    stream: TcpStream,
    _place: OwnedSemaphorePermit,
    limits: Limits,
    metrics: Arc<Metrics>,
    sent_at: Instant,
    /// A write waits since then.
    waiting: Option<Instant>,
    /// How long writes may wait from here on.
    credit: Duration,
    quiet: Pin<Box<Sleep>>,
    stall: Pin<Box<Sleep>>,
}

impl Connection {
    fn new(
        stream: TcpStream,
        place: OwnedSemaphorePermit,
        limits: Limits,
        metrics: Arc<Metrics>,
    ) -> Self {
        // Small answers must not wait for the acknowledgement of the answer before, and what the
        // system holds for a reader that has gone must not stay for its two hours.
        let stall_ms = u32::try_from(limits.stall.as_millis()).unwrap_or(u32::MAX);
        let slow = rustix::net::sockopt::set_tcp_user_timeout(&stream, stall_ms);
        if let Err(error) = stream.set_nodelay(true).and(slow.map_err(io::Error::from)) {
            tracing::debug!(%error, "a connection keeps the system's settings");
        }
        let now = Instant::now();
        Self {
            stream,
            _place: place,
            limits,
            metrics,
            sent_at: now,
            waiting: None,
            credit: limits.stall,
            quiet: Box::pin(sleep_until(now + limits.quiet)),
            stall: Box::pin(sleep_until(now + limits.stall)),
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
                let now = Instant::now();
                let waited = self
                    .waiting
                    .take()
                    .map_or(Duration::ZERO, |since| now - since);
                let earned = Duration::from_micros(bytes as u64 * 1_000_000 / DRAIN_MIN);
                self.credit = (self.credit.saturating_sub(waited) + earned).min(self.limits.stall);
                self.sent_at = now;
                Poll::Ready(Ok(bytes))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => {
                let since = *self.waiting.get_or_insert_with(Instant::now);
                ready!(due(&mut self.stall, since + self.credit, context));
                self.cut("a reader takes too little")
            }
        }
    }

    fn cut<T>(&self, why: &'static str) -> Poll<io::Result<T>> {
        self.metrics.connections_cut.fetch_add(1, Relaxed);
        tracing::debug!(why, "a connection is closed");
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, why)))
    }
}

/// Waits for a time that moves.
fn due(timer: &mut Pin<Box<Sleep>>, at: Instant, context: &mut Context<'_>) -> Poll<()> {
    if timer.deadline() != at {
        timer.as_mut().reset(at);
    }
    timer.as_mut().poll(context)
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Poll::Ready(read) = Pin::new(&mut this.stream).poll_read(context, into) {
            return Poll::Ready(read);
        }
        // Who waits to write is judged by what it takes.
        if this.waiting.is_some() {
            return Poll::Pending;
        }
        ready!(due(
            &mut this.quiet,
            this.sent_at + this.limits.quiet,
            context
        ));
        this.cut("nothing was asked for")
    }
}

impl AsyncWrite for Connection {
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
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    async fn pair(limits: Limits) -> (Connections, Connection, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut connections = Connections::new(listener, limits, Arc::default());
        let client = TcpStream::connect(address).await.unwrap();
        let (connection, _) = connections.accept().await;
        (connections, connection, client)
    }

    const LIMITS: Limits = Limits {
        connections_max: 1,
        quiet: Duration::from_millis(200),
        stall: Duration::from_millis(500),
    };

    #[tokio::test]
    async fn a_connection_that_asks_for_nothing_is_closed_and_its_place_is_free() {
        let (mut connections, mut connection, mut client) = pair(LIMITS).await;
        // A trickle of a request is no reason to wait longer.
        let trickle = tokio::spawn(async move {
            while client.write_all(b"G").await.is_ok() {
                sleep(Duration::from_millis(20)).await;
            }
        });
        let mut read = Vec::new();
        let end = connection.read_to_end(&mut read).await.unwrap_err();
        assert_eq!(end.kind(), io::ErrorKind::TimedOut);
        assert!(!read.is_empty());
        assert_eq!(connections.metrics.connections_cut.load(Relaxed), 1);

        let address = connections.local_addr().unwrap();
        let _second = TcpStream::connect(address).await.unwrap();
        let full = tokio::time::timeout(Duration::from_millis(50), connections.accept());
        assert!(full.await.is_err(), "the only place is taken");
        drop(connection);
        connections.accept().await;
        trickle.await.unwrap();
    }

    #[tokio::test]
    async fn a_reader_that_takes_almost_nothing_is_cut_off_and_one_that_pauses_is_not() {
        let (_connections, mut connection, mut client) = pair(LIMITS).await;
        let reader = tokio::spawn(async move {
            let mut part = vec![0; 1 << 20];
            while client.read(&mut part).await.is_ok_and(|bytes| bytes > 0) {
                sleep(Duration::from_millis(5)).await;
            }
        });
        connection.write_all(&vec![7; 32 << 20]).await.unwrap();
        drop(connection);
        reader.await.unwrap();

        let (connections, mut connection, mut client) = pair(LIMITS).await;
        let trickle = tokio::spawn(async move {
            let mut part = [0; 100];
            while client.read(&mut part).await.is_ok_and(|bytes| bytes > 0) {
                sleep(Duration::from_millis(50)).await;
            }
        });
        let cut = connection.write_all(&vec![7; 32 << 20]).await.unwrap_err();
        assert_eq!(cut.kind(), io::ErrorKind::TimedOut);
        assert_eq!(connections.metrics.connections_cut.load(Relaxed), 1);
        trickle.abort();
    }
}
