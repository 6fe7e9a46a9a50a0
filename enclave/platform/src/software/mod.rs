//! The software TEE, seen from the program that runs "inside" it: a client on a Unix socket.
//!
//! ```text
//! program                                   bield-software-tee
//!   Hello { configuration, ticket? }  ──▶   measures /proc/PID/exe, or checks the ticket
//!                                     ◀──   Welcome { measurement, ticket }
//!   Quote { report_data }             ──▶
//!                                     ◀──   Quoted(Evidence)
//!   SealKey { context }               ──▶
//!                                     ◀──   Key
//! ```
//!
//! For development only. Everything crosses the socket in the clear, as it crosses the CPU's
//! boundary on hardware; the socket is readable by its user alone, and that user sees everything
//! anyway.
//!
//! Always true: frames are bounded before they are read; every wait ends; a broken connection is
//! opened again once for each call, and a program that is measured differently then is told so. The
//! ticket proves the first measurement of *this* process, since a hardened process can no longer be
//! measured by its own user.
//!
//! A quote costs one round trip of about 0.1 KB out and 16 KB back, and 1 ms at the other end.

mod client;
mod frame;
mod protocol;

pub use client::{SoftwareTee, connect};
pub use frame::{FrameError, read, write};
pub use protocol::{
    ANSWER_BYTES_MAX, Answer, CONTEXT_BYTES_MAX, Hello, QUESTION_BYTES_MAX, Question, Refusal,
    Ticket, Welcome,
};
