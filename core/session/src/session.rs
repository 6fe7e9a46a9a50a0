//! `connect`, `accept` and the session they return: the blocking driver of TLS and gate.
//!
//! In: a stream, an identity, whom to expect, the time, entropy. Out: a [`Session`], or a
//! [`SessionError`] after the peer was told the short form. Set time-outs on the stream: a time-out
//! is an I/O error and ends the session, as does every other error.

use std::io::{Read, Write};
use std::sync::Arc;

use bield_envelope::{Principal, Time};
use bield_evidence::Appraised;
use rand_core::CryptoRng;
use rustls::Connection;
use rustls::crypto::CryptoProvider;
use zeroize::Zeroizing;

use crate::transport::Transport;
use crate::{
    Established, Expect, FrameKind, Gate, GateMessage, Identity, MESSAGE_BYTES_MAX, PeerRefused,
    Proof, Role, SessionError, tls,
};

/// How a connecting side shows itself.
#[derive(Clone, Copy)]
pub enum Local<'a> {
    /// A client: proves nothing. The provider is [`provider`](crate::provider).
    Client(&'a Arc<CryptoProvider>),
    /// An attested end.
    Attested(&'a Identity),
}

/// Opens a session over `stream` to a peer that meets `expect`.
///
/// ```
/// use std::{io::{Read, Write}, time::Duration};
/// use bield_envelope::{Principal, Time};
/// use bield_evidence::{Measurement, Policy, Reference, Roots};
/// use bield_session::{Expect, Freshness, Local, Role, SessionError, connect, provider};
///
/// fn ask<S: Read + Write>(
///     stream: S,
///     code: Measurement,
///     service: Principal,
///     now: Time,
///     entropy: &mut impl rand_core::CryptoRng,
/// ) -> Result<Vec<u8>, SessionError> {
///     let policy = Policy::cloud(Reference::Listed(vec![code]));
///     let freshness = Freshness::Cached { age_max: Duration::from_secs(600) };
///     let expect =
///         Expect::attested(Role::KeyService, Roots::vendor(), policy, Some(service), freshness);
///     let mut session = connect(stream, Local::Client(&provider()), &expect, now, entropy)?;
///     session.send(b"question")?; // only a key service that met `expect` reads this
///     Ok(session.receive()?.to_vec())
/// }
/// ```
///
/// # Errors
/// Whatever keeps the two ends from accepting each other.
pub fn connect<S: Read + Write>(
    stream: S,
    local: Local<'_>,
    expect: &Expect,
    now: Time,
    entropy: &mut impl CryptoRng,
) -> Result<Session<S>, SessionError> {
    let (identity, provider) = match local {
        Local::Client(provider) => (None, provider),
        Local::Attested(identity) => (Some(identity), identity.provider()),
    };
    let certified = identity.map(Identity::certified);
    let connection = tls::connector(provider, certified, now).map_err(SessionError::Tls)?;
    let transport = Transport::handshake(connection, stream)?;
    let shown = transport.peer_certificate();
    let gate = Gate::connector(identity, provider, expect, shown, nonce(entropy), now);
    pass(transport, gate)
}

/// Accepts a session over `stream` from any one peer in `expect`, at most one entry a role.
///
/// # Errors
/// Whatever keeps the two ends from accepting each other.
pub fn accept<S: Read + Write>(
    stream: S,
    identity: &Identity,
    expect: &[Expect],
    now: Time,
    entropy: &mut impl CryptoRng,
) -> Result<Session<S>, SessionError> {
    let connection = tls::acceptor(identity.provider(), identity.certified(), now);
    let transport = Transport::handshake(connection.map_err(SessionError::Tls)?, stream)?;
    let shown = transport.peer_certificate();
    let gate = Gate::acceptor(identity, expect, shown, nonce(entropy), now);
    pass(transport, gate)
}

/// Who is at the other end.
pub struct Peer {
    /// Its role: for [`Role::Client`] nothing is proved.
    pub role: Role,
    /// The key service it is, or belongs to; attested.
    pub service: Option<Principal>,
    /// How it proved itself; `None` for an anonymous client.
    pub proof: Option<Proof>,
    /// Its verified and accepted evidence; `None` for an anonymous client.
    pub appraised: Option<Appraised>,
}

/// A confidential channel between two ends that have accepted each other.
///
/// One request at a time, one owner: `send` and `receive` block. Any error ends it.
pub struct Session<S: Read + Write> {
    transport: Transport<S>,
    peer: Peer,
    binding: [u8; 32],
    ended: bool,
}

impl<S: Read + Write> Session<S> {
    /// Sends one message of at most [`MESSAGE_BYTES_MAX`] bytes.
    ///
    /// # Errors
    /// [`SessionError::TooLong`] before anything was sent (the session lives on), or the stream
    /// failed.
    pub fn send(&mut self, message: &[u8]) -> Result<(), SessionError> {
        if message.len() > MESSAGE_BYTES_MAX {
            let (bytes, max) = (message.len(), MESSAGE_BYTES_MAX);
            return Err(SessionError::TooLong { bytes, max });
        }
        self.while_alive(|transport| transport.send(FrameKind::Data, message))
    }

    /// Receives one message; its buffer is wiped on drop.
    ///
    /// # Errors
    /// [`SessionError::Closed`] when the peer closed between messages, [`SessionError::Truncated`]
    /// when the stream was cut, or what the peer sent is not a message.
    pub fn receive(&mut self) -> Result<Zeroizing<Vec<u8>>, SessionError> {
        self.while_alive(|transport| transport.receive(FrameKind::Data))
    }

    /// Who is at the other end.
    #[must_use]
    pub const fn peer(&self) -> &Peer {
        &self.peer
    }

    /// 32 bytes that both ends share and no other session has; public values for binding other
    /// statements to this session, not a key.
    #[must_use]
    pub const fn binding(&self) -> [u8; 32] {
        self.binding
    }

    /// Ends the session in good order and gives the stream back.
    pub fn close(mut self) -> S {
        self.transport.close();
        self.transport.stream
    }

    fn while_alive<T>(
        &mut self,
        act: impl FnOnce(&mut Transport<S>) -> Result<T, SessionError>,
    ) -> Result<T, SessionError> {
        if self.ended {
            return Err(SessionError::Closed);
        }
        let outcome = act(&mut self.transport);
        self.ended = outcome.is_err();
        outcome
    }
}

/// Drives the gate; only an open one makes a session.
fn pass<S: Read + Write>(
    mut transport: Transport<S>,
    mut gate: Gate<'_>,
) -> Result<Session<S>, SessionError> {
    let passed = exchange(&mut transport, &mut gate);
    if let Err(error) = passed {
        // A refusal, if one is due, and goodbye; the peer may be gone already.
        while let Some(payload) = gate.get_outgoing() {
            if transport.send(FrameKind::Gate, &payload).is_err() {
                break;
            }
        }
        transport.close();
        return Err(error);
    }
    let Some(Established { peer, binding }) = gate.finish() else {
        return Err(SessionError::Truncated);
    };
    Ok(Session {
        transport,
        peer,
        binding,
        ended: false,
    })
}

fn exchange<S: Read + Write>(
    transport: &mut Transport<S>,
    gate: &mut Gate<'_>,
) -> Result<(), SessionError> {
    loop {
        while let Some(payload) = gate.get_outgoing() {
            if let Err(error) = transport.send(FrameKind::Gate, &payload) {
                // It may have refused and closed while we were sending: then say why.
                return match transport
                    .last_words()
                    .as_deref()
                    .map(|p| GateMessage::decode(p))
                {
                    Some(Ok(GateMessage::Refusal(notice))) => {
                        Err(SessionError::RefusedByPeer(PeerRefused::new(&notice)))
                    }
                    _ => Err(error),
                };
            }
        }
        if gate.is_open() {
            return Ok(());
        }
        let payload = transport
            .receive(FrameKind::Gate)
            .map_err(|error| match error {
                // In good order or not: there is no session yet.
                SessionError::Closed => SessionError::Truncated,
                error => {
                    gate.refuse(&error);
                    error
                }
            })?;
        let connection = &transport.connection;
        gate.put_incoming(&payload, &|label, context| {
            export(connection, label, context)
        })?;
    }
}

fn export(connection: &Connection, label: &str, context: &[u8]) -> Result<[u8; 32], SessionError> {
    connection
        .export_keying_material([0; 32], label.as_bytes(), Some(context))
        .map_err(SessionError::Tls)
}

fn nonce(entropy: &mut impl CryptoRng) -> [u8; 32] {
    let mut nonce = [0; 32];
    entropy.fill_bytes(&mut nonce);
    nonce
}
