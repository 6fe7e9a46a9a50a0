//! The TCP port through which clients and other hosts' runtimes open attested sessions to the key service.

use std::sync::Arc;
use std::time::Duration;

use bield_launcher::Supervisor;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// Sessions at once, as many as the key service serves by default; more are closed and may dial again.
const SESSIONS_MAX: usize = 64;
/// Pause when accepting fails: the process is out of file descriptors.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// Accepts sessions for as long as the gateway runs.
pub(crate) fn serve(listener: TcpListener, keys: Arc<Supervisor>) {
    tokio::spawn(async move {
        let sessions = Arc::new(Semaphore::new(SESSIONS_MAX));
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
                tracing::warn!(max = SESSIONS_MAX, "session closed: all places are taken");
                continue;
            };
            let keys = Arc::clone(&keys);
            tokio::task::spawn_blocking(move || {
                let _place = place;
                if let Err(error) = carry(stream, &keys) {
                    tracing::warn!(%error, "session ended early");
                }
            });
        }
    });
}

fn carry(stream: TcpStream, keys: &Supervisor) -> std::io::Result<()> {
    let stream = stream.into_std()?;
    stream.set_nonblocking(false)?;
    let enclave = keys.enclave();
    let enclave =
        enclave.ok_or_else(|| std::io::Error::other("the key service is being restarted"))?;
    enclave.carry_session(stream).map_err(std::io::Error::other)
}
