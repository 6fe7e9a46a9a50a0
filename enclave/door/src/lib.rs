//! The one way in and out of an enclave program.
//!
//! ```text
//!   host/launcher                     │ enclave program
//!   bind ──▶ listener passed as fd 0 ─┼─▶ Door::from_stdin()
//!   connect, kind byte ───────────────┼─▶ Door::configuration()   once, first
//!   connect, kind byte ───────────────┼─▶ Door::accept() ─▶ (Visit, Stream)
//!                                     │      ├─ Session, Status: served at once
//!   two rings in shared memory ═══════╪══════├─ Calls: Calls::open ─▶ Call, Call, … each replied to
//!                                     │      └─ KeyService, Package, Storage, Member, Witness: Offers::keep
//!   serves what is asked ◀────────────┼── Offers::take ◀─ the program needs something
//! ```
//!
//! Goes in: a listening Unix socket that the host bound before the program started. Comes out: typed
//! visits, each a byte stream, and calls, which have no stream of their own: they travel through two rings in
//! shared memory (`bield-ring`). The host always connects; the program opens no socket of its own.
//!
//! Always true: nothing is served before the configuration was read; a visit of an unknown kind, of no
//! kind within [`KIND_WAIT`], or beyond a full pool is closed; every read and write has a time limit;
//! when the launcher dies, so does the accept loop ([`DoorError::HostGone`]).
//! The host is the adversary here: it may stay silent, drop, delay or speak out of turn, and gets at
//! most a closed visit for it. What flows through a visit is sealed or attested by other crates.
//!
//! On paper: one visit costs the program an accept, four socket calls and a one-byte read (about
//! 20 µs with the host's connect). A call costs a copy in and a copy out, no system call while the reader is
//! awake, and one wake-up when it sleeps (`cargo xtask bench door`).

mod calls;
mod door;
mod offers;
mod stream;

pub use bield_protocol::visit::Visit;
pub use calls::{Call, Caller, Calls, Inside, Limits, REQUEST_PAUSE_MAX, Unread};
pub use door::{CONFIGURATION_WAIT, Configuring, Door, KIND_WAIT};
pub use offers::{OFFERS_MAX, Offers};
pub use stream::{STREAM_WAIT, Stream};

/// Why the door did not do what the program asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DoorError {
    /// Standard input is not a listening Unix socket.
    #[error(
        "standard input is not a door; an enclave program is started by a launcher (bield-gateway), not by hand"
    )]
    NotADoor,
    /// The host sent no configuration in time.
    #[error("the host sent no configuration within {} s; the launcher is gone or stuck: start the program again", CONFIGURATION_WAIT.as_secs())]
    NotConfigured,
    /// The launcher closed its watch.
    #[error("the launcher is gone; the program ends")]
    HostGone,
    /// The host sent more than the program takes.
    #[error("the host sent more than {max} bytes; send less")]
    TooLong {
        /// The limit, in bytes.
        max: usize,
    },
    /// The host offers nothing of this kind at the moment.
    #[error("the host offered no {visit:?} visit in time; the host must offer one, then try again")]
    NoOffer {
        /// What was wanted.
        visit: Visit,
    },
    /// The visit that should bring the memory of the rings brought none, or other memory.
    #[error("the host passed no memory for calls: {0}")]
    NoRings(String),
    /// The host broke the rules of the rings.
    #[error(transparent)]
    Poisoned(#[from] bield_ring::Poisoned),
    /// An answer was not sent, or not all of it.
    #[error("the answer did not go out: {0}")]
    NotSent(#[from] bield_ring::SendError),
    /// The socket failed.
    #[error("the door failed: {0}; the host closed it or is out of resources")]
    Socket(#[from] std::io::Error),
}
