//! What can go wrong, whose move it is, and what the peer is told of it.

use std::time::Duration;

use bield_envelope::wire::WireError;
use bield_envelope::{Principal, Time};
use bield_evidence::{EvidenceError, Refusal};

use crate::{CertificateError, PeerRefused, RefusalCode, RefusalNotice, Role};

/// Why there is no session, or no session any more.
///
/// The long form for this side; [`SessionError::notice`] is the short form for the peer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// The stream below failed or timed out.
    #[error("the connection failed: {0}; connect again")]
    Stream(#[source] std::io::Error),
    /// The stream ended inside the handshake, the gate or a message.
    #[error("the connection ended in the middle of an exchange; connect again")]
    Truncated,
    /// The peer closed the session in good order, between messages.
    #[error("the peer closed the session")]
    Closed,
    /// No TLS 1.3 session of this protocol.
    #[error("no TLS session: {0}; check that the other end speaks bield sessions")]
    Tls(#[source] rustls::Error),
    /// The peer does not name this protocol in its handshake.
    #[error("the other end speaks TLS but not this protocol; check the address")]
    OtherProtocol,
    /// The peer refused this side.
    #[error("refused by the other end: {0}")]
    RefusedByPeer(PeerRefused),
    /// This side's evidence could not be made.
    #[error("no evidence from this machine's TEE: {0}; its operator must look")]
    Attest(String),
    /// This side's certificate could not be made or used.
    #[error("own identity: {0}")]
    Identity(#[source] CertificateError),

    /// A message is longer than its kind may be.
    #[error("message of {bytes} bytes, at most {max}; split it")]
    TooLong {
        /// Bytes announced or offered.
        bytes: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// A frame or gate message that this version does not know.
    #[error("malformed message from the other end; do not retry")]
    Malformed(#[source] Option<WireError>),
    /// A well-formed message at the wrong moment.
    #[error("message out of turn: {found} where {expected} belongs; do not retry")]
    OutOfTurn {
        /// What came.
        found: &'static str,
        /// What the protocol wants there.
        expected: &'static str,
    },
    /// Data came before the peer was accepted.
    #[error("data before the session was established; do not retry")]
    EarlyData,

    /// The peer plays a role that is not expected here.
    #[error("the other end is a {found}, which is not served here")]
    Role {
        /// The role it announced.
        found: Role,
    },
    /// The peer must show a certificate and shows none, or must not and does.
    #[error("a {role} {}", if *shown { "must not show a certificate" } else { "must show an evidence certificate" })]
    CertificatePresence {
        /// The role it announced.
        role: Role,
        /// Whether it showed one.
        shown: bool,
    },
    /// The peer's certificate is not acceptable.
    #[error("the other end's certificate: {0}")]
    Certificate(#[source] CertificateError),
    /// The peer's claims name another role than its hello.
    #[error("the other end says {said} but is attested as {attested}")]
    RoleMismatch {
        /// The role of its hello.
        said: Role,
        /// The role of its claims.
        attested: Role,
    },
    /// The peer belongs to another key service: genuine, but not the one asked for.
    #[error("the other end belongs to key service {}, not {expected}", found.map_or_else(|| "none".to_owned(), |p| p.to_string()))]
    OtherService {
        /// The service of its claims.
        found: Option<Principal>,
        /// The service that is pinned.
        expected: Principal,
    },
    /// The proof is about another session, role, key or service.
    #[error("the proof is not about this session: relayed, replayed or reflected")]
    Binding,
    /// A fresh quote was asked for and not given.
    #[error("no fresh quote although one was asked for")]
    NotFresh,
    /// The evidence is too old.
    #[error("evidence of {issued_at} is older than {} s at {now}; the other end must renew its identity", age_max.as_secs())]
    Stale {
        /// When it was made, by the peer's host.
        issued_at: Time,
        /// Now.
        now: Time,
        /// Greatest age accepted.
        age_max: Duration,
    },
    /// The evidence is not genuine.
    #[error("the other end's evidence: {0}")]
    Evidence(#[source] Box<EvidenceError>),
    /// The evidence is genuine and not accepted.
    #[error("the other end's code or platform is not accepted: {0}")]
    Appraisal(#[source] Box<Refusal>),
}

impl SessionError {
    /// What the peer is told before the connection closes; `None` when there is nobody to tell.
    #[must_use]
    pub fn notice(&self) -> Option<RefusalNotice> {
        let code = match self {
            Self::Stream(_)
            | Self::Truncated
            | Self::Closed
            | Self::Tls(_)
            | Self::OtherProtocol
            | Self::RefusedByPeer(_) => return None,
            Self::Attest(_) | Self::Identity(_) => RefusalCode::Unable,
            Self::TooLong { .. }
            | Self::Malformed(_)
            | Self::OutOfTurn { .. }
            | Self::EarlyData => RefusalCode::Protocol,
            Self::Role { .. } | Self::RoleMismatch { .. } => RefusalCode::Role,
            Self::CertificatePresence { .. } | Self::Certificate(_) => RefusalCode::Certificate,
            Self::OtherService { .. } => RefusalCode::Service,
            Self::Binding => RefusalCode::Binding,
            Self::NotFresh | Self::Stale { .. } => RefusalCode::Freshness,
            Self::Evidence(_) => RefusalCode::Evidence,
            Self::Appraisal(refusal) => {
                let names: Vec<_> = refusal.failed().iter().map(|check| check.name).collect();
                return Some(RefusalNotice::new(RefusalCode::Policy, &names.join(", ")));
            }
        };
        Some(RefusalNotice::new(code, ""))
    }

    pub(crate) fn from_io(error: std::io::Error) -> Self {
        if let Some(tls) = error
            .get_ref()
            .and_then(|e| e.downcast_ref::<rustls::Error>())
        {
            return Self::Tls(tls.clone());
        }
        match error.kind() {
            std::io::ErrorKind::UnexpectedEof => Self::Truncated,
            _ => Self::Stream(error),
        }
    }
}
