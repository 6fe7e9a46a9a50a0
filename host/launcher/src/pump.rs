//! Carries the bytes of a visit that the program began to an address and back.
//!
//! Always true: the program's half-close is passed on; the other side's end ends everything, and so does
//! the program's: a peer that hangs holds no place of a program that has given it up.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use crate::record::Pipe;

/// How long a session may stay silent in one direction before it is cut: longer than any request computes.
pub const SESSION_IDLE_MAX: Duration = Duration::from_secs(300);
/// How long the other side may take nothing of what is sent to it.
const TAKE_WAIT: Duration = Duration::from_secs(30);
/// Bytes moved at once: a session record is at most 16 KiB (RFC 8446 §5.1), four fit.
const BUFFER_BYTES: usize = 64 * 1024;

/// Carries bytes until the network side is done, or one side fails or idles for [`SESSION_IDLE_MAX`]. The
/// program may half-close and wait for the answer.
///
/// Returns with both sides shut, so a silent program cannot hold the place of a session that is over.
pub(crate) fn carry(door: Pipe, network: TcpStream) -> io::Result<()> {
    door.limit_waits(Some(SESSION_IDLE_MAX))?;
    network.set_read_timeout(Some(SESSION_IDLE_MAX))?;
    network.set_write_timeout(Some(TAKE_WAIT))?;
    network.set_nodelay(true)?;
    let (mut inward, mut from_network) = (door.second()?, network.try_clone()?);
    let (mut from_door, mut outward) = (door, network);

    let inbound = std::thread::Builder::new()
        .name("session".to_owned())
        .spawn(move || {
            // However it ends, the session is over.
            let _ = copy(&mut from_network, &mut inward);
            cut(&inward, &from_network);
        })?;
    if copy(&mut from_door, &mut outward).is_ok() {
        let _ = outward.shutdown(Shutdown::Write);
        // It may only have said all it has to say. The other direction, which ends in time, cuts both.
        from_door.wait_until_closed();
    }
    cut(&from_door, &outward);
    let _ = inbound.join();
    Ok(())
}

/// Ends both directions of both sides, which wakes the other direction's read. What was written before
/// still arrives. Errors mean that a side is closed already; the other one is shut all the same.
fn cut(door: &Pipe, network: &TcpStream) {
    let _ = door.shutdown(Shutdown::Both);
    let _ = network.shutdown(Shutdown::Both);
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

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::unix::net::UnixStream;
    use std::sync::mpsc::{Receiver, channel};

    use bield_protocol::visit::Visit;

    use super::*;
    use crate::record::Recorder;

    const WAIT: Duration = Duration::from_secs(20);

    /// Starts carrying; returns the program's end, the network's end, and word of the carrier's return.
    fn carried() -> (UnixStream, TcpStream, Receiver<()>) {
        let (door, mut program) = UnixStream::pair().unwrap();
        let recorder = Recorder::new(None, "program").unwrap();
        let door = recorder.pipe(door, Visit::KeyService).unwrap();
        program.read_exact(&mut [0]).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (network, _) = listener.accept().unwrap();
        for stream in [&peer, &network] {
            stream.set_read_timeout(Some(WAIT)).unwrap();
        }
        program.set_read_timeout(Some(WAIT)).unwrap();
        let (ended, end) = channel();
        std::thread::spawn(move || {
            carry(door, network).unwrap();
            ended.send(()).unwrap();
        });
        (program, peer, end)
    }

    #[test]
    fn a_program_that_gives_a_silent_peer_up_gets_its_place_back() {
        let (program, mut peer, end) = carried();
        drop(program);
        end.recv_timeout(WAIT).unwrap();
        assert_eq!(rest(&mut peer), b"");

        // Also when it had half-closed before.
        let (program, mut peer, end) = carried();
        program.shutdown(Shutdown::Write).unwrap();
        assert_eq!(rest(&mut peer), b"");
        drop(program);
        end.recv_timeout(WAIT).unwrap();
    }

    fn rest(stream: &mut impl Read) -> Vec<u8> {
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).unwrap();
        heard
    }

    #[test]
    fn a_session_that_the_key_service_ends_does_not_wait_for_a_silent_program() {
        let (mut program, mut peer, end) = carried();
        peer.write_all(b"last words").unwrap();
        drop(peer);
        end.recv_timeout(WAIT).unwrap();
        assert_eq!(rest(&mut program), b"last words");
    }

    #[test]
    fn the_program_may_half_close_and_still_hears_the_answer() {
        let (program, mut peer, end) = carried();
        program.shutdown(Shutdown::Write).unwrap();
        assert_eq!(rest(&mut peer), b"");
        peer.write_all(b"answer").unwrap();
        drop(peer);
        assert_eq!(rest(&mut &program), b"answer");
        end.recv_timeout(WAIT).unwrap();
    }
}
