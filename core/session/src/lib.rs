//! Attested session: TLS 1.3, then a gate that proves both ends to each other before any message.
//!
//! ```text
//!  connector                                          acceptor
//!     │ ── TLS 1.3, X25519MLKEM768, own certificates ── │   certificates recorded, not yet believed
//!     │ Hello{nonce, role, want} ─────────────────────▶ │
//!     │ ◀──────────── Hello{nonce, role, want}, Bind    │   Bind = signature (cached) or quote (fresh)
//!     │ Bind, Accept ─────────────────────────────────▶ │   over H(exporter, nonces, roles, keys, service)
//!     │ ◀────────────────────────────────────── Accept  │
//!     │ ◀═══════════════ messages ════════════════════▶ │   Session exists from here on
//! ```
//!
//! Always true: a [`Session`] value exists only after this side has verified and appraised the peer
//! *and* the peer has said that it accepted this side; evidence is bound to this one TLS session, so
//! it cannot be relayed, diverted, reflected or replayed; whatever fails, fails closed, with a
//! [`SessionError`] here and a short [`RefusalNotice`] there. No resumption, no early data, no
//! tickets. Nothing here reads a clock, draws randomness of its own or opens a socket: time, entropy,
//! the stream and the cryptographic provider are arguments.
//!
//! Not here: what evidence means (`bield-evidence`), who may have which key (`bield-grant`), time-outs
//! (set them on the stream), worker ↔ worker certificates. Byte layouts: `spec/03-session.md`.
//!
//! Speed on paper: 2 round trips to the first request of an anonymous client, 3 for two attested
//! sides. Cached proof: 1 P-256 signature and 3 verifications a side beside the quote's own
//! verification (1–2 ms); fresh proof: one more quote (0.1–1 s on hardware). About 5 KB a side for
//! a DCAP quote and 15 to 100 KB for its endorsements. A message: 5 bytes and one copy into TLS records.

mod binding;
mod certificate;
mod claims;
mod error;
mod examine;
mod expect;
mod gate;
mod identity;
mod key;
mod message;
mod refusal;
mod role;
mod session;
mod tls;
mod transport;

pub use binding::{BINDING_EXPORTER_LABEL, Binding, GATE_EXPORTER_LABEL, signed_bytes};
pub use certificate::{
    CERTIFICATE_BYTES_MAX, CertificateError, EVIDENCE_EXTENSION_BYTES_MAX, PeerCertificate,
    certificate_der,
};
pub use claims::{CLAIMS_BYTES_MAX, SessionClaims};
pub use error::SessionError;
pub use expect::{CLOCK_SKEW_MAX, Expect, ExpectAttested, Freshness};
pub use gate::{Established, Exporter, Gate, Side};
pub use identity::{Attest, Identity, Ration};
pub use key::SessionKey;
pub use message::{
    Bind, FRAME_HEADER_BYTES, FrameKind, GATE_MESSAGE_BYTES_MAX, GateMessage, Hello,
    MESSAGE_BYTES_MAX, Proof,
};
pub use refusal::{PeerRefused, REFUSAL_DETAIL_BYTES_MAX, RefusalCode, RefusalNotice};
pub use role::Role;
pub use session::{Local, Peer, Session, accept, connect};
pub use tls::{ALPN, provider};
