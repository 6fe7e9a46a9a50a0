//! What a runtime tells the untrusted packer beside every sealed answer: no contents, no principals.
//!
//! | start | keys | model | engine's state | what it waited for |
//! |---|---|---|---|---|
//! | hot | here | here | here | nothing |
//! | warm-runtime | here | here | made | threads of its own, since the engine's would keep something of the run |
//! | warm-model | fetched | here | here or made | a lease |
//! | warm-key | here | opened | made | the package, from the host and through the engine |
//! | cold | fetched | opened | made | both |

use bield_envelope::Digest;
use minicbor::{Decode, Encode};
use serde::Serialize;

/// How much was already there when the request arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode, Serialize)]
#[cbor(index_only)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum StartKind {
    /// Keys, model and an engine session.
    #[n(0)]
    Hot,
    /// Keys and model; the engine session was made.
    #[n(1)]
    WarmRuntime,
    /// The model but no keys; the lease was fetched.
    #[n(2)]
    WarmModel,
    /// Keys but no model; the package was opened.
    #[n(3)]
    WarmKey,
    /// Neither: this is an instance's first use of the package.
    #[n(4)]
    Cold,
}

/// One call's feedback. Durations are whole microseconds.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
#[cbor(map)]
pub struct Feedback {
    /// How warm the start was.
    #[n(0)]
    pub start: StartKind,
    /// Fetching the lease.
    #[n(1)]
    pub lease_us: u64,
    /// Opening the package.
    #[n(2)]
    pub open_us: u64,
    /// Loading the model into the engine and checking its golden pairs.
    #[n(3)]
    pub load_us: u64,
    /// Running the model, making the engine's state included.
    #[n(4)]
    pub run_us: u64,
    /// From the request's last byte to the answer's first.
    #[n(5)]
    pub total_us: u64,
    /// Packages resident now; at most 64.
    #[n(6)]
    #[serde(serialize_with = "digests")]
    pub resident: Vec<Digest>,
    /// Requests in this runtime now.
    #[n(7)]
    pub in_flight: u32,
    /// Waiting for other requests: for a turn to run, and for memory that their models took.
    #[n(8)]
    pub queue_us: u64,
    /// Bytes for models that nothing takes.
    #[n(9)]
    pub free_bytes: u64,
    /// The engine that ran the model, with its version; absent when none did.
    #[n(10)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub engine: Option<String>,
    /// Of a function that keeps a state: where that is.
    #[n(11)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<StatePlace>,
}

/// Which runtime holds a function's state, as far as the one that answers knows. The host sees as much by itself: whose
/// files it stores, and who asks the key service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum StatePlace {
    /// This one.
    #[n(0)]
    Here,
    /// Not this one, for at most so many milliseconds if the other is gone. The request was not begun, or may be done
    /// again without effect: its bytes may go to another runtime, and later to this one.
    #[n(1)]
    Elsewhere(#[n(0)] u64),
}

fn digests<S: serde::Serializer>(digests: &[Digest], s: S) -> Result<S::Ok, S::Error> {
    s.collect_seq(digests.iter().map(Digest::to_string))
}
