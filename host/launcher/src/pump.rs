//! Carries a session between TCP and the door, both ways, passing half-closes on.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use crate::record::Pipe;

/// How long a session may stay silent in one direction before it is cut: longer than any request computes.
pub const SESSION_IDLE_MAX: Duration = Duration::from_secs(300);
/// Bytes moved at once: a session record is at most 16 KiB (RFC 8446 §5.1), four fit.
const BUFFER_BYTES: usize = 64 * 1024;

/// Carries bytes until both sides are done, or one fails or idles for [`SESSION_IDLE_MAX`].
pub(crate) fn carry(door: Pipe, network: TcpStream) -> io::Result<()> {
    door.limit_waits(Some(SESSION_IDLE_MAX))?;
    network.set_read_timeout(Some(SESSION_IDLE_MAX))?;
    network.set_write_timeout(Some(SESSION_IDLE_MAX))?;
    network.set_nodelay(true)?;
    let (mut inward, mut from_network) = (door.second()?, network.try_clone()?);
    let (mut from_door, mut outward) = (door, network);

    let inbound = std::thread::Builder::new()
        .name("session".to_owned())
        .spawn(move || {
            let end = copy(&mut from_network, &mut inward);
            close(
                end,
                || inward.shutdown(Shutdown::Write),
                || inward.shutdown(Shutdown::Both),
                &from_network,
            )
        })?;
    let end = copy(&mut from_door, &mut outward);
    let half = || outward.shutdown(Shutdown::Write);
    close(end, half, || from_door.shutdown(Shutdown::Both), &outward);
    let _ = inbound.join();
    Ok(())
}

/// Passes a clean end on as a half-close; after a failure cuts both sides, which wakes the other direction.
fn close(
    end: io::Result<()>,
    half: impl FnOnce() -> io::Result<()>,
    door: impl FnOnce() -> io::Result<()>,
    network: &TcpStream,
) {
    // Errors mean that the other side is closed already.
    let _ = match end {
        Ok(()) => half(),
        Err(_) => door().and(network.shutdown(Shutdown::Both)),
    };
}

fn copy(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => to.write_all(&buffer[..count])?,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
