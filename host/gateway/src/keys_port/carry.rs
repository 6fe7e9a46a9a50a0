//! Carries one session between the network and the program's door, both ways.
//!
//! ```text
//! network ─ first byte ─▶ visit opened ─▶ bytes both ways ─▶ program ends, or silence, or too long
//! ```
//!
//! Always true: the peer's half-close is passed on and the program still answers; the program's end is
//! the session's end; what the program said before its end is delivered.

use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::task::ready;
use std::time::Duration;

use bield_launcher::{Session, Supervisor};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::conduct::{Conduct, Turn};
use super::{FIRST_BYTE_WAIT, Limit};

/// Bytes moved at once: a session record is at most 16 KiB (RFC 8446 §5.1).
const PIECE_BYTES: usize = 16 * 1024;
/// How long the program may leave a visit waiting in its accept queue when that is full.
const VISIT_WAIT: Duration = Duration::from_secs(5);
/// Pause between two tries to open a visit.
const VISIT_PAUSE: Duration = Duration::from_millis(10);

/// Carries a session until it ends.
///
/// # Errors
/// It ended otherwise than by the program: a broken connection, silence, its time was over, no program.
pub(super) async fn carry(
    mut network: TcpStream,
    keys: &Supervisor,
    limit: Limit,
    conduct: &Conduct,
    mut draining: watch::Receiver<bool>,
) -> io::Result<()> {
    network.set_nodelay(true)?;
    let mut first = [0];
    tokio::select! {
        // Peeked, because a fresh socket may claim that it is readable when it is not.
        peeked = timeout(FIRST_BYTE_WAIT, network.peek(&mut first)) => {
            if peeked?? == 0 {
                return Ok(());
            }
        }
        // Who has said nothing has nothing in flight.
        _ = draining.wait_for(|draining| *draining) => return Ok(()),
    }
    let Session { socket, tape } = timeout(VISIT_WAIT, visit(keys)).await??;
    let mut door = UnixStream::from_std(socket)?;

    let (mut from_network, mut to_network) = network.split();
    let (mut from_door, mut to_door) = door.split();
    let inward = async {
        let noted = |bytes: &[u8]| {
            conduct.moved(Turn::Program, Instant::now());
            tape.to_program(bytes)
        };
        copy(&mut from_network, &mut to_door, noted).await?;
        to_door.shutdown().await?;
        // The peer has asked; the answer is still to come.
        std::future::pending::<io::Result<()>>().await
    };
    let outward = async {
        let noted = |bytes: &[u8]| {
            conduct.moved(Turn::Peer, Instant::now());
            tape.from_program(bytes)
        };
        copy(&mut from_door, &mut to_network, noted).await?;
        to_network.shutdown().await
    };
    let idle = conduct.falls_silent(limit.idle_max, draining);
    let too_long = async {
        match limit.session_max {
            Some(most) => sleep(most).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        end = outward => end,
        end = inward => end,
        () = idle => Err(io::Error::new(ErrorKind::TimedOut, "it fell silent")),
        () = too_long => Err(io::Error::new(ErrorKind::TimedOut, "it took longer than any session may")),
    }
}

/// Opens a visit, waiting for room in the program's accept queue.
async fn visit(keys: &Supervisor) -> io::Result<Session> {
    loop {
        let enclave = keys.enclave();
        let enclave =
            enclave.ok_or_else(|| io::Error::other("the key service is being restarted"))?;
        match enclave.session() {
            Err(error) if error.kind() == ErrorKind::WouldBlock => sleep(VISIT_PAUSE).await,
            opened => return opened,
        }
    }
}

async fn copy(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    noted: impl Fn(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    loop {
        let piece = read_some(from).await?;
        if piece.is_empty() {
            return Ok(());
        }
        noted(&piece)?;
        to.write_all(&piece).await?;
    }
}

/// Reads what is there, into memory taken only once it is: a silent session holds no buffer.
async fn read_some(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    std::future::poll_fn(|context| {
        let mut buffer = [0; PIECE_BYTES];
        let mut read = ReadBuf::new(&mut buffer);
        ready!(Pin::new(&mut *from).poll_read(context, &mut read))?;
        io::Result::Ok(read.filled().to_vec()).into()
    })
    .await
}
