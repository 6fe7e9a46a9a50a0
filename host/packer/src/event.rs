//! What the driver tells the packer, and what the packer tells it to do.
//!
//! A driver reports what became of every [`Decision::Dispatch`] exactly once, as [`Event::Answered`], [`Event::Failed`]
//! or [`Event::Returned`], even if the worker is gone; that is also how the place at the worker becomes free, and until
//! then the request is sent nowhere else. Time is a `Duration` since an origin the driver chooses.

use std::fmt;
use std::time::Duration;

use bield_envelope::Digest;
use bield_protocol::feedback::Feedback;
use serde::{Serialize, Serializer};

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($of:ty)) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(transparent)]
        pub struct $name(pub $of);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// A worker, named by [`Decision::Start`]; never used again for another.
    WorkerId(u64)
}
number! {
    /// A place in the pool, from 0 to `workers_max - 1`, used again. Every gateway knows it by this number, so hashing
    /// packages to slots gives all of them the same first choice.
    Slot(u32)
}
number! {
    /// A request, named by the driver; never used again for another.
    RequestId(u64)
}
number! {
    /// Who calls, as far as the host knows: a keyed digest of network or namespace. For fair shares and accounts.
    Caller(u64)
}

/// Which requests a worker is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Group {
    /// Any: policies `bield` and `all-in-one`.
    One,
    /// One package: policy `one-per-model`.
    Package(Digest),
    /// One endpoint of the pool, by index: policy `fnpacker`.
    Endpoint(u32),
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One => f.write_str("one"),
            Self::Package(package) => write!(f, "package {package}"),
            Self::Endpoint(index) => write!(f, "endpoint {index}"),
        }
    }
}

impl Serialize for Group {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A request came in.
    Arrived {
        /// Its name.
        request: RequestId,
        /// The package it is for.
        package: Digest,
        /// Who sent it.
        caller: Caller,
        /// When it is refused if it still waits.
        deadline: Duration,
    },
    /// Its client hung up. If it was dispatched, its place stays taken until the driver's word on that.
    Left {
        /// The request.
        request: RequestId,
    },
    /// A worker serves: attested, empty.
    Started {
        /// The worker.
        worker: WorkerId,
        /// How long it took, as the driver measured it.
        took: Duration,
    },
    /// The engine gives up on starting it (after its own attempts).
    StartFailed {
        /// The worker.
        worker: WorkerId,
    },
    /// A worker is gone, asked to or not; nothing more is sent there. Of each request that was there the driver
    /// reports when it knows: it may still be answered.
    Ended {
        /// The worker.
        worker: WorkerId,
    },
    /// A worker answered; the place is free again.
    Answered {
        /// The request.
        request: RequestId,
        /// The worker.
        worker: WorkerId,
        /// From dispatch to the end of the answer, as the driver measured it: bounds whatever the worker claims.
        took: Duration,
        /// What the worker says of itself. It may lie.
        feedback: Option<Feedback>,
    },
    /// A worker did not answer; the place is free again.
    Failed {
        /// The request.
        request: RequestId,
        /// The worker.
        worker: WorkerId,
        /// How.
        failure: Failure,
    },
    /// The place is free again and the request is done with, and that says nothing of worker or package: the client
    /// hung up, the worker refused what it could not open, or the dispatch was never taken up.
    Returned {
        /// The request.
        request: RequestId,
        /// The worker.
        worker: WorkerId,
    },
    /// Length of a package's file: the first guess of what it takes when resident.
    Sized {
        /// The package.
        package: Digest,
        /// Bytes.
        bytes: u64,
    },
    /// Memory of a worker's process, as the host sees it.
    Measured {
        /// The worker.
        worker: WorkerId,
        /// Bytes.
        bytes: u64,
    },
    /// Time passed; due at [`crate::Packer::wakes_at`].
    Tick,
}

/// How a dispatched request failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Failure {
    /// Before the answer's first byte: the worker is gone or cannot be reached. Tried once more.
    Lost,
    /// The worker refused it without running it. Tried once more.
    Busy,
    /// No answer in time. Final: the driver has told the client.
    TimedOut,
    /// The answer broke off after its first byte. Final: the driver has told the client.
    Broken,
}

/// Something the driver is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Send the request to the worker.
    Dispatch {
        /// The request.
        request: RequestId,
        /// Where.
        worker: WorkerId,
    },
    /// Tell the client no.
    Refuse {
        /// The request.
        request: RequestId,
        /// Why.
        refusal: Refusal,
        /// When another attempt is predicted to succeed; the value of `Retry-After`, at least a millisecond.
        retry_after: Duration,
    },
    /// Start a worker.
    Start {
        /// Its name from now on.
        worker: WorkerId,
        /// The place in the pool it takes.
        slot: Slot,
        /// What it is for.
        group: Group,
    },
    /// End a worker: it is idle, and nothing more is sent to it. The driver says `Ended` when it is gone.
    Stop {
        /// The worker.
        worker: WorkerId,
    },
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Refusal {
    /// As many requests wait as may: 429.
    QueueFull,
    /// As many requests of this caller wait as may: 429.
    ShareFull,
    /// Policy `fnpacker` only, as published: no endpoint is free ("All Busy"): 503.
    AllBusy,
    /// Its deadline came while it waited: 503.
    TooLate,
    /// No worker can be started, or no more requests are taken: 503.
    NoWorker,
    /// It failed at two workers: 502.
    Lost,
}
