//! Which worker runs which request, when workers start and end: a state machine.
//!
//! ```text
//!  requests, answers with feedback,      ┌────────┐   dispatch, refuse,
//!  starts, ends, ticks  ───── Event ───▶ │ Packer │ ─── Decision ───▶  start, stop
//!                            at `now`    └────────┘
//! ```
//!
//! The same code runs in the gateway and in `testing/simulator`.
//!
//! Always true: a request that arrived is dispatched or refused by its deadline, unless its client left; dispatched at
//! most twice, the second time only after it was lost or the worker refused it unread; never more than `concurrency`
//! requests at a worker; never more than `workers_max` workers; queue, packages and callers are bounded. What a worker
//! claims of itself is bounded by what the driver measured.
//!
//! Not here: clocks, sockets, processes (`host/engines`, `host/gateway`).

pub use event::{Caller, Decision, Event, Failure, Group, Refusal, RequestId, Slot, WorkerId};
pub use explain::{Candidate, EXPLANATIONS_MAX, Explanation, Holds, Outcome};
pub use packer::Packer;
pub use settings::{KeepAlive, ParsePolicyError, Policy, Settings};
pub use view::{CallerView, PackageView, Totals, View, WorkerState, WorkerView};

/// Bins of the histogram of idle times of each package.
pub const IDLE_BINS: usize = 240;

mod accounts;
mod event;
mod explain;
mod idle;
mod measured;
mod packages;
mod packer;
mod pool;
mod queue;
mod settings;
mod view;
mod worker;
