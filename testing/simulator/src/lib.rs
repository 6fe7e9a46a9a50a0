//! Workers that exist only as numbers, under the packer that the gateway runs.
//!
//! ```text
//! Trace ──▶ arrivals ─┐                       ┌─▶ dispatch ──▶ simulated workers ─┐
//!                     ├──▶ bield_packer::Packer ─▶ start, stop                    │
//!           answers ──┘◀──────────────────────┴─── feedback, failures, ends ◀─────┘
//! ```
//!
//! Goes in: a trace (`bield-load`), models with their costs, a world with its faults, settings, a seed. Comes out: a
//! [`Outcome`], in the terms in which a replay against real processes is reported.
//!
//! A simulated worker opens each model once at a time, keeps what fits and evicts by GreedyDual-Size-Frequency as the
//! runtime does (`enclave/runtime/src/models.rs`), never what runs or is being opened; what does not fit waits. It runs as
//! many requests at once as it has places; runs and openings share the world's cores (`cores.rs`), starting a worker is
//! taken to wait rather than to compute.
//!
//! Always true: the outcome follows from what goes in, on every machine.

pub use comparison::{Case, Comparison, Row, compare};
pub use run::{Outcome, run};
pub use world::{Faults, Model, World};

mod comparison;
mod cores;
mod run;
mod worker;
mod world;
