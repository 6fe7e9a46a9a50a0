//! Seeded workloads, open-loop replay, latency statistics and plots.
//!
//! ```text
//! Workload + seed ─▶ Trace ──replay──▶ Done, Done, … ──Report::of──▶ percentiles, failures (JSON)
//!                      │ (also: the         │ latency from the        └──plot──▶ SVG
//!                      ▼  simulator)        ▼ intended time
//!                  trace.csv            open loop: who answers slowly does not slow the asking
//! ```
//!
//! Always true: a [`Trace`] follows from its [`Workload`], the seed and the span alone, on every machine and for ever
//! (`tests/vectors.rs` holds frozen ones); a latency is counted from when the request should have left, so that a
//! stalled server or client cannot hide the requests that waited (coordinated omission).
//!
//! Not here: what a request is and how it travels (the caller's closures), clocks other than [`replay`]'s.

mod azure;
pub mod plot;
mod random;
mod replay;
mod report;
mod trace;
mod workload;

pub use azure::{AzureError, Function, parse_azure};
pub use random::Random;
pub use replay::{Pace, replay};
pub use report::{Done, Ending, Latency, OfModel, Report, START_KINDS, start_kind, start_name};
pub use trace::{Arrival, Trace};
pub use workload::{ARRIVALS_MAX, Rate, Sessions, Source, Spread, Workload, WorkloadError};
