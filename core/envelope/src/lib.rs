//! Keys that cannot be printed, sealed requests and answers, signed statements, one strict encoding.
//!
//! ```text
//!                     user                              runtime
//! body ──▶ seal_request ──▶ "bldq" header enc ct ──▶ AudienceKey::open ──▶ Opened<Request>
//!              │                (host sees header)          │
//!        ResponseOpener ◀── "blda" nonce chunk* ◀── ResponseSealer ◀── answer
//! ```
//!
//! Always true: a key has no `Debug`, `Clone` or serialisation and is wiped on drop; every nonce is
//! unique by construction (a fresh key per message, a counter inside it); a decoder accepts exactly
//! one byte string per value; what has not been opened or verified has another type than what has.
//!
//! Not here: who may open what (`bield-grant`), evidence (`bield-evidence`), sockets, clocks and
//! randomness, which arrive as arguments. Byte layouts: `spec/01-envelope.md`.
//!
//! # Features
//! * `seeded`: adds [`Seeded`], reproducible randomness for tests, simulators and frozen vectors.

mod audience;
mod digest;
mod gcm;
mod request;
mod response;
mod secret;
#[cfg(feature = "seeded")]
mod seeded;
mod sign;
mod statement;
pub mod stream;
mod time;
pub mod transport;
pub mod wire;

pub use audience::{AudienceKey, AudiencePublicKey};
pub use digest::{Digest, Hasher, ParseDigestError};
pub use request::{
    EnvelopeError, Opened, Request, RequestHeader, SEALED_REQUEST_BYTES_MAX, SealedRequest,
    seal_request,
};
pub use response::{
    RESPONSE_CHUNK_BYTES_MAX, ResponseOpener, ResponseReader, ResponseSealer, ResponseWriter,
};
pub use secret::{Secret, Wiped};
#[cfg(feature = "seeded")]
pub use seeded::Seeded;
pub use sign::{ParsePrincipalError, Principal, SignatureInvalid, SigningKey};
pub use statement::{Signed, Statement, StatementError, Verified};
pub use time::Time;
