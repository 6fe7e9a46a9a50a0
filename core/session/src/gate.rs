//! The gate: a state machine between the TLS handshake and the first message. No I/O.
//!
//! ```text
//! connector  hello ─▶ AwaitHello ─(hello)─▶ AwaitBind ─(bind ok)─▶ bind, accept ─▶ AwaitAccept ─▶ Open
//! acceptor            AwaitHello ─(hello)─▶ hello, bind ─▶ AwaitBind ─(bind ok)─▶ accept ─▶ AwaitAccept ─▶ Open
//!                                             └─ anonymous client: hello, bind, accept ─▶ AwaitAccept
//! ```
//!
//! In: payloads of gate frames ([`Gate::put_incoming`]). Out: payloads to send
//! ([`Gate::get_outgoing`]) and, once open, [`Established`]. Always true: any error closes the gate
//! for good and leaves a refusal to send; nothing but the one message that belongs there moves it.
//! The connector proves itself only after it has verified the acceptor, so a wrong service learns
//! nothing but a certificate. Left to others: framing, TLS ([`crate::connect`], [`crate::accept`]).

use std::collections::VecDeque;
use std::mem;

use bield_envelope::Time;
use bield_evidence::Appraised;
use rustls::crypto::CryptoProvider;

use crate::{
    BINDING_EXPORTER_LABEL, Bind, Binding, Expect, GATE_EXPORTER_LABEL, GateMessage, Hello,
    Identity, Peer, PeerCertificate, PeerRefused, Proof, Role, SessionClaims, SessionError,
    examine,
};

/// Which end of the connection this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Opened the connection; speaks first.
    Connector,
    /// Accepted it.
    Acceptor,
}

impl Side {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Connector => "connector",
            Self::Acceptor => "acceptor",
        }
    }

    const fn other(self) -> Self {
        match self {
            Self::Connector => Self::Acceptor,
            Self::Acceptor => Self::Connector,
        }
    }
}

/// The TLS exporter of the session (RFC 8446 §7.5): label and context to 32 bytes.
pub type Exporter<'a> = &'a dyn Fn(&str, &[u8]) -> Result<[u8; 32], SessionError>;

/// The outcome of an open gate.
pub struct Established {
    /// Who is at the other end.
    pub peer: Peer,
    /// 32 bytes that both ends share and no other session has.
    pub binding: [u8; 32],
}

/// One side's exchange.
pub struct Gate<'a> {
    side: Side,
    identity: Option<&'a Identity>,
    provider: &'a CryptoProvider,
    expect: &'a [Expect],
    /// The certificate of the TLS handshake, DER.
    peer_certificate: Option<Vec<u8>>,
    nonce: [u8; 32],
    now: Time,
    state: State<'a>,
    outgoing: VecDeque<Vec<u8>>,
}

impl<'a> Gate<'a> {
    /// The connecting side; anonymous without `identity`. Its hello is ready at once.
    #[must_use]
    pub fn connector(
        identity: Option<&'a Identity>,
        provider: &'a CryptoProvider,
        expect: &'a Expect,
        peer_certificate: Option<Vec<u8>>,
        nonce: [u8; 32],
        now: Time,
    ) -> Self {
        let expect = std::slice::from_ref(expect);
        let side = Side::Connector;
        let mut gate = Self::new(
            side,
            identity,
            provider,
            expect,
            peer_certificate,
            nonce,
            now,
        );
        gate.send(&gate.hello(expect[0].want()));
        gate
    }

    /// The accepting side, ready for any one peer in `expect`.
    #[must_use]
    pub fn acceptor(
        identity: &'a Identity,
        expect: &'a [Expect],
        peer_certificate: Option<Vec<u8>>,
        nonce: [u8; 32],
        now: Time,
    ) -> Self {
        let provider = identity.provider();
        let side = Side::Acceptor;
        Self::new(
            side,
            Some(identity),
            provider,
            expect,
            peer_certificate,
            nonce,
            now,
        )
    }

    fn new(
        side: Side,
        identity: Option<&'a Identity>,
        provider: &'a CryptoProvider,
        expect: &'a [Expect],
        peer_certificate: Option<Vec<u8>>,
        nonce: [u8; 32],
        now: Time,
    ) -> Self {
        let (state, outgoing) = (State::AwaitHello, VecDeque::new());
        Self {
            side,
            identity,
            provider,
            expect,
            peer_certificate,
            nonce,
            now,
            state,
            outgoing,
        }
    }

    /// Takes the payload of a gate frame.
    ///
    /// # Errors
    /// The peer refuses, or is refused; the gate stays closed and a refusal may be ready to send.
    pub fn put_incoming(
        &mut self,
        payload: &[u8],
        exporter: Exporter<'_>,
    ) -> Result<(), SessionError> {
        let state = mem::replace(&mut self.state, State::Closed);
        let next = GateMessage::decode(payload)
            .map_err(|error| SessionError::Malformed(Some(error)))
            .and_then(|message| self.step(state, message, exporter));
        match next {
            Ok(next) => {
                self.state = next;
                Ok(())
            }
            Err(error) => {
                self.refuse(&error);
                Err(error)
            }
        }
    }

    /// The next payload to send as a gate frame.
    pub fn get_outgoing(&mut self) -> Option<Vec<u8>> {
        self.outgoing.pop_front()
    }

    /// Closes the gate for a reason found outside it, and tells the peer.
    pub fn refuse(&mut self, error: &SessionError) {
        self.state = State::Closed;
        self.outgoing.clear();
        if let Some(notice) = error.notice() {
            self.send(&GateMessage::Refusal(notice));
        }
    }

    /// Whether both ends have accepted each other.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        matches!(self.state, State::Open(_))
    }

    /// The outcome; `None` unless open.
    #[must_use]
    pub fn finish(self) -> Option<Established> {
        match self.state {
            State::Open(established) => Some(*established),
            _ => None,
        }
    }

    fn step(
        &mut self,
        state: State<'a>,
        message: GateMessage,
        exporter: Exporter<'_>,
    ) -> Result<State<'a>, SessionError> {
        match (state, message) {
            (_, GateMessage::Refusal(notice)) => {
                Err(SessionError::RefusedByPeer(PeerRefused::new(&notice)))
            }
            (State::AwaitHello, GateMessage::Hello(hello)) => self.on_hello(hello, exporter),
            (State::AwaitBind(pending), GateMessage::Bind(bind)) => self.on_bind(pending, bind),
            (State::AwaitAccept(established), GateMessage::Accept) => Ok(State::Open(established)),
            (state, message) => Err(SessionError::OutOfTurn {
                found: message.name(),
                expected: state.expects(),
            }),
        }
    }

    fn on_hello(
        &mut self,
        hello: Hello,
        exporter: Exporter<'_>,
    ) -> Result<State<'a>, SessionError> {
        let role = hello.role;
        let expect = self.expect.iter().find(|expect| expect.role() == role);
        let expect = expect.ok_or(SessionError::Role { found: role })?;
        let certificate = self.read_certificate(expect, role)?;
        let own = self.hello(expect.want());
        let peer_want = hello.want;
        let context = match self.side {
            Side::Connector => [self.nonce, hello.nonce].concat(),
            Side::Acceptor => [hello.nonce, self.nonce].concat(),
        };
        let pending = Box::new(Pending {
            expect,
            certificate,
            peer_role: role,
            peer_want,
            own_hello: own.encode(),
            peer_hello: GateMessage::Hello(hello).encode(),
            exporter: exporter(GATE_EXPORTER_LABEL, &context)?,
            binding: exporter(BINDING_EXPORTER_LABEL, &context)?,
        });
        if self.side == Side::Connector {
            return Ok(State::AwaitBind(pending));
        }
        self.send(&own);
        self.prove(&pending)?;
        match expect {
            Expect::Attested(_) => Ok(State::AwaitBind(pending)),
            Expect::Client => {
                self.send(&GateMessage::Accept);
                Ok(State::AwaitAccept(pending.established(None)))
            }
        }
    }

    fn on_bind(
        &mut self,
        pending: Box<Pending<'a>>,
        bind: Bind,
    ) -> Result<State<'a>, SessionError> {
        let (Expect::Attested(expect), Some(certificate)) = (pending.expect, &pending.certificate)
        else {
            // A connector that expects an anonymous acceptor: there is no such peer.
            return Err(SessionError::Role {
                found: pending.peer_role,
            });
        };
        let digest = self.binding(
            &pending,
            self.side.other(),
            pending.peer_role,
            certificate.spki(),
            certificate.claims(),
        );
        let proved = examine::proof(expect, certificate, bind, &digest, self.now, self.provider)?;
        if self.side == Side::Connector {
            self.prove(&pending)?;
        }
        self.send(&GateMessage::Accept);
        Ok(State::AwaitAccept(pending.established(Some(proved))))
    }

    /// A certificate must be there exactly when the role is attested.
    fn read_certificate(
        &self,
        expect: &Expect,
        role: Role,
    ) -> Result<Option<PeerCertificate>, SessionError> {
        match (expect, &self.peer_certificate) {
            (Expect::Client, None) => Ok(None),
            (Expect::Attested(expect), Some(der)) => {
                let read = PeerCertificate::parse(der, self.provider);
                let read = read.map_err(SessionError::Certificate)?;
                examine::certificate(expect, role, &read, self.now)?;
                Ok(Some(read))
            }
            (_, shown) => Err(SessionError::CertificatePresence {
                role,
                shown: shown.is_some(),
            }),
        }
    }

    /// Sends this side's proof, if it has an identity.
    fn prove(&mut self, pending: &Pending<'_>) -> Result<(), SessionError> {
        let (identity, want) = match (self.identity, pending.peer_want) {
            (Some(identity), Some(want)) => (identity, want),
            (None, None) => return Ok(()),
            // Asked for a proof we cannot give, or told that ours is not wanted.
            _ => {
                return Err(SessionError::OutOfTurn {
                    found: "want",
                    expected: "a fitting want",
                });
            }
        };
        let digest = self.binding(
            pending,
            self.side,
            self.role(),
            self.spki(),
            identity.claims(),
        );
        let signature = identity.key().sign(&crate::signed_bytes(&digest));
        let signature = signature.map_err(SessionError::Tls)?;
        let (quote, endorsements) = match want {
            Proof::Cached => (None, identity.endorsements().clone()),
            Proof::Fresh => {
                if self.side == Side::Acceptor {
                    identity.admits(pending.peer_role)?;
                }
                let made = identity.quote(&digest)?;
                (Some(made.quote), made.endorsements)
            }
        };
        self.send(&GateMessage::Bind(Bind {
            signature,
            quote,
            endorsements,
        }));
        Ok(())
    }

    /// H, with either end as the prover.
    fn binding(
        &self,
        pending: &Pending<'_>,
        side: Side,
        prover: Role,
        prover_key: &[u8],
        claims: &SessionClaims,
    ) -> [u8; 64] {
        let peer_key = pending
            .certificate
            .as_ref()
            .map_or(&[][..], |peer| peer.spki());
        let (verifier, verifier_key) = match side == self.side {
            true => (pending.peer_role, peer_key),
            false => (self.role(), self.spki()),
        };
        let (connector_hello, acceptor_hello) = match self.side {
            Side::Connector => (&pending.own_hello, &pending.peer_hello),
            Side::Acceptor => (&pending.peer_hello, &pending.own_hello),
        };
        Binding {
            side,
            prover,
            verifier,
            exporter: &pending.exporter,
            connector_hello,
            acceptor_hello,
            prover_key,
            verifier_key,
            service: claims.service.as_ref(),
            hardening: &claims.hardening,
        }
        .digest()
    }

    fn hello(&self, want: Option<Proof>) -> GateMessage {
        GateMessage::Hello(Hello {
            nonce: self.nonce,
            role: self.role(),
            want,
        })
    }

    fn role(&self) -> Role {
        self.identity
            .map_or(Role::Client, |identity| identity.claims().role)
    }

    fn spki(&self) -> &'a [u8] {
        self.identity.map_or(&[], |identity| identity.key().spki())
    }

    fn send(&mut self, message: &GateMessage) {
        self.outgoing.push_back(message.encode());
    }
}

enum State<'a> {
    AwaitHello,
    AwaitBind(Box<Pending<'a>>),
    AwaitAccept(Box<Established>),
    Open(Box<Established>),
    Closed,
}

impl State<'_> {
    const fn expects(&self) -> &'static str {
        match self {
            Self::AwaitHello => "hello",
            Self::AwaitBind(_) => "bind",
            Self::AwaitAccept(_) => "accept",
            Self::Open(_) => "data",
            Self::Closed => "nothing",
        }
    }
}

/// A peer that has said hello and proved nothing yet.
struct Pending<'a> {
    expect: &'a Expect,
    certificate: Option<PeerCertificate>,
    peer_role: Role,
    peer_want: Option<Proof>,
    own_hello: Vec<u8>,
    peer_hello: Vec<u8>,
    exporter: [u8; 32],
    binding: [u8; 32],
}

impl Pending<'_> {
    fn established(&self, proved: Option<(Proof, Appraised)>) -> Box<Established> {
        let service = self
            .certificate
            .as_ref()
            .and_then(|peer| peer.claims().service);
        let (proof, appraised) = proved.unzip();
        let peer = Peer {
            role: self.peer_role,
            service,
            proof,
            appraised,
        };
        Box::new(Established {
            peer,
            binding: self.binding,
        })
    }
}
