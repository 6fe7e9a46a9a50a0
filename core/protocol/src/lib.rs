//! Typed messages between zones, and the configuration that is measured.
//!
//! ```text
//! client ──service::Request──▶ key service ◀──service::Request── runtime
//! client ──function::FunctionRequest (sealed)──▶ runtime ──inference::Reply (sealed)──▶ client
//! client ──inference::Request (sealed)──▶ runtime ──inference::Reply, or parts::Item (sealed)──▶ client
//! host   ──visit::Visit──▶ any enclave program ──status, call::Reply──▶ host
//! ```
//!
//! Always true: every message is strict CBOR with a stated maximum; an unknown variant is refused;
//! what may hold a key is only ever encoded into a buffer that is wiped.
//!
//! Not here: how messages travel (`bield-session`, `bield-envelope`, the door) and what is done with
//! them; but what every asker has to check in the same way is beside its message ([`service::Freshness`],
//! [`service::chained`]). Layouts: the tables in `spec/`.
//!
//! # Features
//! * `played`: adds `service::PlayedLog`, a key service's log that tests grow, fork and recover.

mod audit;
pub mod call;
pub mod configuration;
pub mod feedback;
mod freshness;
pub mod function;
pub mod inference;
mod listing;
pub mod parts;
mod recovery;
pub mod refusal;
pub mod service;
mod states;
pub mod status;
pub mod visit;

pub use bield_package::tensor;
