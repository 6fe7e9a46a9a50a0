//! The attested key service: who may open what, from which code.
//!
//! ```text
//!  owner  ──Command: register, put package, grant──▶ ┐
//!  user   ──KeyConfiguration(package, code)────────▶ │ Service ──▶ State ──sealed──▶ host's storage
//!  runtime──Lease(package), Certify(key), ─────────▶ ┘
//!           CertifyWriter(capsule, writer)
//!            all inside attested sessions             keys leave only in a lease, as `Admitted<Lease>`
//! ```
//!
//! Always true: a change is durable before it is acknowledged, or undone; a command counts once, in
//! the session it was signed for, and only says what its signer may say; a key leaves only towards
//! code whose fresh evidence was appraised and that the package's owner granted; one session cannot
//! harm another.
//!
//! Not here: revocation, quotas, audit and evidence of rollback; until then the host can restore an
//! older sealed state (`SECURITY.md`, key service ↔ storage).
//!
//! On paper: a lease is one attested handshake (3 round trips, one quote) and one round trip; a
//! change is one seal of the whole state and one durable write by the host.

pub mod cluster;
mod program;
mod service;
mod state;
mod store;

pub use program::{ProgramError, run};
pub use service::{KEY_CONFIGURATION_SECS, SPECS_BYTES_MAX, Service};
pub use state::{Change, GRANTS_MAX, PACKAGES_MAX, PRINCIPALS_MAX, STATE_BYTES_MAX, State, Undo};
pub use store::{Store, StoreError, Volatile};
