//! Who is at the other end of the socket, and what program it runs.
//!
//! A process is measured once, when it first says hello. A hardened process (`PR_SET_DUMPABLE` = 0)
//! cannot be measured again by its own user, so the first welcome carries a ticket: a MAC by this
//! machine over {program digest, pid, start time of the process}. No other process can use it, and
//! it survives a restart of the software TEE.
//!
//! Known gaps, as good as this can be without hardware: a process that replaces itself by `exec`
//! keeps pid and start time; a pid reused between `connect` and measuring measures the wrong
//! program. Real TEEs have neither.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::Path;

use bield_envelope::{Digest, Secret};
use bield_platform::software::{Refusal, Ticket};
use subtle::ConstantTimeEq as _;

use crate::SoftwareTeeError;
use crate::measure::Digests;

/// A process, distinct from any later one with the same pid.
pub(crate) struct Peer {
    pid: i32,
    /// Clock ticks after boot.
    started: u64,
}

impl Peer {
    /// The process that connected `stream`.
    pub(crate) fn of(stream: &UnixStream) -> Result<Self, Refusal> {
        let credentials =
            rustix::net::sockopt::socket_peercred(stream).map_err(|_| Refusal::NotMeasurable)?;
        let pid = credentials.pid.as_raw_nonzero().get();
        let started = start_time(pid).ok_or(Refusal::NotMeasurable)?;
        Ok(Self { pid, started })
    }

    /// Measures its program, or takes the digest from a ticket of an earlier connection.
    pub(crate) fn program(
        &self,
        secret: &Secret,
        digests: &Digests,
        ticket: Option<&Ticket>,
    ) -> Result<Digest, MeasureError> {
        let Some(ticket) = ticket else {
            return Ok(digests.of_process(self.pid)?);
        };
        let expected = self.proof(secret, ticket.program);
        if bool::from(expected.expose().ct_eq(&*ticket.proof)) {
            Ok(ticket.program)
        } else {
            Err(MeasureError::Refused(Refusal::ForeignTicket))
        }
    }

    /// The ticket with which this process is known as running `program`.
    pub(crate) fn ticket(&self, secret: &Secret, program: Digest) -> Ticket {
        Ticket {
            program,
            proof: (*self.proof(secret, program).expose()).into(),
        }
    }

    fn proof(&self, secret: &Secret, program: Digest) -> Secret {
        let (pid, started) = (self.pid.to_be_bytes(), self.started.to_be_bytes());
        let parts: [&[u8]; 3] = [program.as_bytes(), &pid, &started];
        secret.derive("bield software tee ticket v1", &parts)
    }
}

/// Why a peer has no measurement.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MeasureError {
    #[error("{0}")]
    Refused(Refusal),
    #[error(transparent)]
    Unreadable(#[from] SoftwareTeeError),
}

/// Field 22 of `/proc/PID/stat` (proc_pid_stat(5)), which anyone may read. The name in field 2 may
/// hold anything, so fields are counted after its closing parenthesis.
fn start_time(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).ok()?;
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MACHINE: Secret = Secret::from_bytes([1; 32]);

    fn ticket_accepted(by: &Peer, ticket: &Ticket) -> bool {
        by.program(&MACHINE, &Digests::default(), Some(ticket))
            .is_ok()
    }

    #[test]
    fn a_ticket_serves_the_process_it_was_made_for_and_no_other() {
        let program = Digest::from_bytes([2; 32]);
        let peer = Peer { pid: 7, started: 8 };
        let ticket = peer.ticket(&MACHINE, program);
        assert!(ticket_accepted(&peer, &ticket));
        assert!(!ticket_accepted(&Peer { pid: 6, started: 8 }, &ticket));
        assert!(!ticket_accepted(&Peer { pid: 7, started: 9 }, &ticket));

        let other_program = Ticket {
            program: Digest::from_bytes([3; 32]),
            proof: ticket.proof,
        };
        assert!(!ticket_accepted(&peer, &other_program));
    }

    #[test]
    fn a_process_started_at_one_time() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(start_time(own).is_some());
        assert_eq!(start_time(own), start_time(own));
        assert_eq!(start_time(0), None);
    }
}
