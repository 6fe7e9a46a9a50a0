//! The TCP ports through which attested sessions with the key service are opened.
//!
//! ```text
//! clients, other hosts' runtimes ─▶ public port  (224 places) ┐
//! this gateway's own runtimes ────▶ private port (32 places) ─┴▶ bield-keys (256 sessions by default)
//! ```
//!
//! Always true: whoever fills the public port leaves the private one its places; a session's place is free
//! again once the key service ends it, whatever the peer does, and after [`SESSION_MAX`] in any case.

use std::net::{Ipv4Addr, Shutdown};
use std::sync::Arc;
use std::time::Duration;

use bield_launcher::Supervisor;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// Sessions at once through the public port; more are closed and may dial again.
pub(crate) const PUBLIC_PLACES: usize = 224;
/// Sessions at once of this gateway's own runtimes: with the public ones, what the key service serves by
/// default.
pub(crate) const PRIVATE_PLACES: usize = 32;
/// Longest session: a lease takes a second, an owner's script of thousands of grants a minute.
pub(crate) const SESSION_MAX: Duration = Duration::from_secs(600);
/// Pause when accepting fails: the process is out of file descriptors.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// A port that only this machine reaches and only this gateway's launchers are told of.
pub(crate) async fn private() -> std::io::Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await
}

/// Accepts sessions for as long as the gateway runs, `places` at once, each for at most `session_max`.
pub(crate) fn serve(
    listener: TcpListener,
    keys: Arc<Supervisor>,
    places: usize,
    session_max: Duration,
) {
    tokio::spawn(async move {
        let sessions = Arc::new(Semaphore::new(places));
        loop {
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "session not accepted");
                    tokio::time::sleep(EXHAUSTED_PAUSE).await;
                    continue;
                }
            };
            let Ok(place) = Arc::clone(&sessions).try_acquire_owned() else {
                tracing::warn!(max = places, "session closed: all places are taken");
                continue;
            };
            let keys = Arc::clone(&keys);
            tokio::spawn(async move {
                let _place = place;
                if let Err(error) = carry(stream, keys, session_max).await {
                    tracing::warn!(%error, "session ended early");
                }
            });
        }
    });
}

async fn carry(
    stream: TcpStream,
    keys: Arc<Supervisor>,
    session_max: Duration,
) -> std::io::Result<()> {
    let stream = stream.into_std()?;
    stream.set_nonblocking(false)?;
    let cutter = stream.try_clone()?;
    let mut carried = tokio::task::spawn_blocking(move || {
        let enclave = keys.enclave();
        let enclave =
            enclave.ok_or_else(|| std::io::Error::other("the key service is being restarted"))?;
        enclave.carry_session(stream).map_err(std::io::Error::other)
    });
    if let Ok(end) = tokio::time::timeout(session_max, &mut carried).await {
        return end?;
    }
    // The carrier sees the end of the connection and returns; the place is held until it did.
    let _ = cutter.shutdown(Shutdown::Both);
    carried.await??;
    Err(std::io::Error::other("it took longer than any session may"))
}

#[cfg(test)]
mod tests {
    use bield_launcher::Launch;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    const WAIT: Duration = Duration::from_secs(20);

    fn echo() -> Arc<Supervisor> {
        let test = std::env::current_exe().unwrap();
        let target = test.parent().unwrap().parent().unwrap();
        let launch = Launch {
            program: target.join("examples/echo-runtime"),
            ..Launch::default()
        };
        Arc::new(Supervisor::start(launch).unwrap())
    }

    async fn port(keys: &Arc<Supervisor>, places: usize, max: Duration) -> std::net::SocketAddr {
        let listener = private().await.unwrap();
        let address = listener.local_addr().unwrap();
        serve(listener, Arc::clone(keys), places, max);
        address
    }

    /// Opens a session and hears its own byte back; `None` when it was closed.
    async fn session(address: std::net::SocketAddr) -> Option<TcpStream> {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"x").await.ok()?;
        let heard = stream.read_u8();
        let heard = tokio::time::timeout(WAIT, heard).await.unwrap();
        heard.ok().map(|_| stream)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_full_public_port_leaves_own_runtimes_their_places() {
        let keys = echo();
        let public = port(&keys, 2, SESSION_MAX).await;
        let private = port(&keys, 1, SESSION_MAX).await;
        let held = [session(public).await, session(public).await];
        assert!(held.iter().all(Option::is_some));
        assert!(session(public).await.is_none(), "all places are taken");
        assert!(session(private).await.is_some());
        drop(held);
        let again = async {
            while session(public).await.is_none() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(WAIT, again).await.unwrap();
        keys.stop();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_session_is_cut_when_its_time_is_over_and_frees_its_place() {
        let keys = echo();
        let address = port(&keys, 1, Duration::from_millis(200)).await;
        let mut held = session(address).await.unwrap();
        let end = tokio::time::timeout(WAIT, held.read(&mut [0])).await;
        assert!(matches!(end.unwrap(), Ok(0) | Err(_)));
        let again = async {
            while session(address).await.is_none() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(WAIT, again).await.unwrap();
        keys.stop();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_session_whose_program_ends_frees_its_place_though_the_peer_stays() {
        let keys = echo();
        let address = port(&keys, 1, SESSION_MAX).await;
        let _silent = session(address).await.unwrap();
        keys.enclave().unwrap().kill();
        let again = async {
            while session(address).await.is_none() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(WAIT, again).await.unwrap();
        keys.stop();
    }
}
