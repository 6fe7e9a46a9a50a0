//! WebAssembly functions: one fresh, bounded instance for each request.
//!
//! ```text
//! component ─ Host::compile ─▶ Compiled ─ Host::load ─▶ Function
//!
//! Request ─ Function::call ─▶ guest ──▶ Response, or its own refusal, or Stopped
//!                               │
//!                               └─ buckets, models, log, time, randomness ──▶ dyn World
//! ```
//!
//! Goes in: compiled code (`bield-compiled`), one opened request at a time, and the [`World`] that it may see. Comes out:
//! what the function answered, or why it was stopped. Guests are written against the interfaces in `wit/`: they may import
//! any part of `log`, `wasi:keyvalue` 0.2.0-draft2 and `wasi:nn` 0.2.0-rc-2024-10-28, and export the handler. Those written for
//! `wasi:keyvalue` 0.2.0-draft (`wit-draft/`) get the same buckets by that one.
//!
//! Always true: no two requests share an instance, a memory, a table, a handle or a stack, and those are zero before anybody
//! else gets them. Time is one moment per request and randomness a stream of its own, so the same request, moment,
//! stream and buckets give the same answer, to the bit. There are no files, no network, no threads, no environment: what a
//! language's runtime imports of those ends the request when it is called. Whatever a guest does, it ends in a typed
//! [`Stopped`] at its deadline, give or take the host operation and the one bulk instruction it is in; the next
//! request does not notice. While a call runs, every block that the process frees is wiped, where the program installs
//! `bield_platform::memory::EnclaveAllocator`.
//!
//! Left to others: who may call (`bield-runtime`), what buckets and models are (its [`World`]), when to compile, how many
//! run at once by fairness rather than by room. WebAssembly in one process is no wall against speculative
//! execution between tenants who attack each other: one owner's functions per enclave.
//!
//! On paper, for one request: its body is copied twice on its way in and the answer twice on its way out (guest's memory and
//! the host's block); a value of a bucket twice; a call out of the guest costs some 50 ns over what the world does
//! (counting, one look at the clock, a handle). Memory of an instance is what its guest touches: it begins as a mapping of
//! its image where the system has that, and each page that it touches first is a fault; afterwards that is undone before
//! the call returns, the stack's part of it by writing zeroes. A thread ticks once a millisecond while anything runs.
//!
//! # Features
//! * `compiler`: adds `Host::compile`, for programs that also compile.

mod bindings;
mod function;
mod guest;
mod host;
mod inference;
mod keyvalue;
mod limits;
mod request;
mod system;
#[cfg(test)]
mod tests;
mod ticker;
mod world;

#[cfg(feature = "compiler")]
pub use bield_compiled::CompileError;
pub use bield_compiled::{Compiled, Identity, LoadError, NotOpened, Settings};
pub use function::Function;
pub use host::{FunctionError, Host, HostError};
pub use limits::{
    INSTANCES_MAX, Limits, LimitsError, MEMORIES_MAX, MEMORY_BYTES_MAX, Stopped,
    TABLE_ELEMENTS_MAX, TABLES_MAX,
};
pub use request::{Answer, Failure, FailureKind, Request, Response};
pub use world::{
    BucketId, CasToken, KeyPage, KvError, Level, ModelId, NnError, NnErrorKind, Seen, World,
};
