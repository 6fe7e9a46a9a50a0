//! One attested session: messages out and in, commands numbered.
//!
//! Always true: the other end's evidence has met the policy it was opened under; each command carries
//! this session's binding and a number that no other command of it has. Any broken exchange ends it.

use std::net::{TcpStream, ToSocketAddrs as _};
use std::time::Duration;

use bield_envelope::{Principal, Signed, SigningKey, Time};
use bield_evidence::{Policy, Roots};
use bield_protocol::service::{Command, Operation, Reply, Request};
use bield_session::{Expect, Freshness, Local, Peer, Role, Session};
use rand_core::CryptoRng;

use crate::ServiceError;

/// Oldest evidence of a key service that is accepted; it renews its own well before.
pub const SERVICE_EVIDENCE_AGE_MAX: Duration = Duration::from_secs(10 * 60);

/// Longest wait for a connection.
const CONNECT_WAIT: Duration = Duration::from_secs(10);
/// Longest wait for one read or write: a service on real hardware quotes for up to a second.
const EXCHANGE_WAIT: Duration = Duration::from_secs(30);

/// A session with whatever key service met the policy; not yet one whose state may be relied on.
pub(crate) struct Wire {
    address: String,
    /// Taken only on drop.
    session: Option<Session<TcpStream>>,
    sequence: u64,
    /// An exchange broke: nothing more goes through.
    broken: bool,
}

/// What the other end has to be.
pub(crate) struct Demands {
    pub(crate) policy: Policy,
    pub(crate) roots: Roots,
    pub(crate) service: Option<Principal>,
}

impl Wire {
    /// Opens a session with whoever meets the demands at the address.
    pub(crate) fn open(
        address: &str,
        demands: Demands,
        now: Time,
        entropy: &mut impl CryptoRng,
    ) -> Result<Self, ServiceError> {
        let stream = dial(address).map_err(|error| ServiceError::Unreachable {
            address: address.to_owned(),
            error,
        })?;
        let freshness = Freshness::Cached {
            age_max: SERVICE_EVIDENCE_AGE_MAX,
        };
        let Demands {
            policy,
            roots,
            service,
        } = demands;
        let expect = Expect::attested(Role::KeyService, roots, policy, service, freshness);
        let provider = bield_session::provider();
        let session =
            bield_session::connect(stream, Local::Client(&provider), &expect, now, entropy);
        let session = session.map_err(|error| ServiceError::Session {
            address: address.to_owned(),
            error: Box::new(error),
        })?;
        Ok(Self {
            address: address.to_owned(),
            session: Some(session),
            sequence: 0,
            broken: false,
        })
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    pub(crate) fn peer(&self) -> &Peer {
        self.session().peer()
    }

    pub(crate) const fn is_broken(&self) -> bool {
        self.broken
    }

    /// Sends one message and receives its answer; a refusal is an error.
    pub(crate) fn exchange(&mut self, request: &Request) -> Result<Reply, ServiceError> {
        let session = self.session.as_mut().expect(OPEN);
        let sent = session.send(&request.encode());
        let answer = match sent.and_then(|()| session.receive()) {
            Ok(answer) => answer,
            Err(error) => {
                self.broken = true;
                return Err(ServiceError::Session {
                    address: self.address.clone(),
                    error: Box::new(error),
                });
            }
        };
        match Reply::decode(&answer)? {
            Reply::Refused(refusal) => Err(ServiceError::Refused(refusal)),
            reply => Ok(reply),
        }
    }

    /// Signs an order for this session and this place in it.
    pub(crate) fn command(&mut self, by: &SigningKey, operation: Operation) -> Signed<Command> {
        let sequence = self.sequence;
        self.sequence += 1;
        let command = Command {
            session: self.session().binding(),
            sequence,
            operation,
        };
        Signed::sign(by, command).into_signed()
    }

    fn session(&self) -> &Session<TcpStream> {
        self.session.as_ref().expect(OPEN)
    }
}

/// Says goodbye, so that the service can tell an end from a broken line.
impl Drop for Wire {
    fn drop(&mut self) {
        self.session.take().map(Session::close);
    }
}

const OPEN: &str = "a session is taken only on drop";

fn dial(address: &str) -> std::io::Result<TcpStream> {
    let mut last = std::io::Error::other("the name has no address");
    for address in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, CONNECT_WAIT) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(EXCHANGE_WAIT))?;
                stream.set_write_timeout(Some(EXCHANGE_WAIT))?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}
