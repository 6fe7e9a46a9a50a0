//! The program that answers sealed requests.
//!
//! ```text
//!  call visit ──▶ Gate ──▶ read ──▶ SealedRequest ──▶ Keys (lease, single flight) ──▶ Opened<Request>
//!             busy ◀┘                malformed,         │ key service, over an           │
//!                                    other code         │ attested session               ▼
//!                                                                            Admitted<GrantedRequest>
//!  sealed answer ◀── receipt ◀── run ◀── turn ◀── model (cache, single flight) ◀─────────┘
//!                                                   │ package visit, chunk by chunk
//! ```
//!
//! In: visits through the door. Out: sealed answers and sealed refusals; short public refusals where a
//! request cannot be opened. Always true: nothing is opened for another audience than this program's own
//! measurement; no model runs without an [`Admitted`](bield_grant::Admitted) request; keys are used until their
//! lease ends and no longer, whether or not the key service can be reached; what the host sees of an
//! opened request is one sealed blob, answer or refusal; threads, requests, leases and model memory are
//! bounded; a request that fails or panics takes nothing from the next one. The program logs that it starts
//! and stops.
//!
//! Left to others: HTTP and routing (`host/gateway`), who may use what (the key service, `bield-grant`),
//! engines (`enclave/engine`), memory (`enclave/platform`). A grant that asks for more isolation than the engine of its
//! model gives is refused, never served as less.
//!
//! On paper, a hot call: one copy of the request through the door, one X-Wing decapsulation (0.4 ms), two
//! Ed25519 operations, one copy of inputs and of outputs, no round trip. A lease: one attested session, four
//! round trips, every seven minutes and package that is used, while nobody waits. A cold model: each byte is read once and decrypted once, on
//! all configured threads, into one region; then the engine copies it once.

mod batches;
mod call;
mod clock;
mod cold;
mod engines;
mod flights;
mod functions;
mod handing;
mod key_service;
mod keys;
mod leases;
mod loading;
mod metrics;
mod models;
mod program;
mod readers;
mod refusals;
mod renewer;
mod start;
mod tenancy;
#[cfg(test)]
mod testing;
mod tiers;
mod tokens;
mod turns;
mod unsent;

pub use program::run;
pub use start::{TeeAddress, TeeAddressError};

/// As in the program, so that what these tests find in memory is what is there.
#[cfg(test)]
#[global_allocator]
static ALLOCATOR: bield_platform::memory::EnclaveAllocator =
    bield_platform::memory::EnclaveAllocator;
