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
//! many requests at once as it has places, and these do not slow each other down: what cores do to that is for real
//! processes to show.
//!
//! Always true: the outcome follows from what goes in, on every machine.

pub use comparison::{Comparison, Row, compare};
pub use run::{Outcome, run};
pub use world::{Faults, Model, World};

mod comparison;
mod run;
mod worker;
mod world;
