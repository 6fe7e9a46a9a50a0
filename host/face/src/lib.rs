//! What the host's HTTP faces for sealed requests share, so that gateway and worker say the same in the same words.
//!
//! ```text
//!  body ─▶ Bodies ─▶ package_of ─▶ hand_over ─▶ Answer ─▶ Outcome ─▶ sealed bytes, `bield-feedback`
//!             └───────── Refusal ◀──┴── Failure ◀─┘          └─▶ Refusal (public, by the runtime)
//! ```
//!
//! Goes in: bodies of requests, a running enclave program. Comes out: what the program answered, or one JSON refusal
//! `{"error": {"code", "message", "retry"}}`. And the connections all of it travels on: bounded in number and time.
//!
//! Always true: a body takes no more memory than its limits, counted as it arrives; what is not a sealed request is refused
//! before anything is started for it; an answer in parts is passed on as it comes, and one that is cut does not end as a
//! whole one.
//!
//! Not here: paths, queues, who gets which runtime.

mod answer;
mod body;
mod failure;
mod outcome;
mod refusal;
mod serve;

pub use answer::{Answer, Rest, hand_over};
pub use body::Bodies;
pub use failure::Failure;
pub use outcome::{FEEDBACK, Outcome, SEALED, feedback_header, package_of};
pub use refusal::{Refusal, json_response};
pub use serve::Connections;
