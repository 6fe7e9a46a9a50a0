//! What one request may take, and how it ends when it takes more.

use std::time::Duration;

/// What one request may take. Whoever takes more is [`Stopped`].
///
/// ```
/// use bield_function::Limits;
/// let limits = Limits { memory_bytes: 16 << 20, ..Limits::default() };
/// assert!(limits.check().is_ok());
/// assert!(Limits { memory_bytes: u64::MAX, ..limits }.check().is_err());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of all linear memories together. A memory that cannot grow is the guest's to handle.
    pub memory_bytes: u64,
    /// From the begin of the call to its end.
    pub deadline: Duration,
    /// Calls out of the guest: buckets, models, log, clock, randomness.
    pub host_calls: u64,
    /// Bytes that those carry, both ways together.
    pub host_bytes: u64,
    /// Handles open at once: buckets, swaps, tensors, models, errors.
    pub handles: u32,
    /// Bytes of the answer: media type, body and words.
    pub output_bytes: u64,
    /// Bytes of log lines.
    pub log_bytes: u64,
}

impl Default for Limits {
    /// Enough for a small service: 64 MiB, 5 s, 10 000 calls of 64 MiB in all.
    fn default() -> Self {
        Self {
            memory_bytes: 64 << 20,
            deadline: Duration::from_secs(5),
            host_calls: 10_000,
            host_bytes: 64 << 20,
            handles: 256,
            output_bytes: 4 << 20,
            log_bytes: 64 << 10,
        }
    }
}

impl Limits {
    /// The most that a manifest may ask for.
    pub const MAX: Self = Self {
        memory_bytes: MEMORY_BYTES_MAX,
        deadline: Duration::from_secs(60),
        host_calls: 10_000_000,
        host_bytes: 4 << 30,
        handles: 10_000,
        output_bytes: 64 << 20,
        log_bytes: 4 << 20,
    };

    /// Tells whether each is within [`Limits::MAX`].
    ///
    /// # Errors
    /// Names the first that is not.
    pub fn check(&self) -> Result<(), LimitsError> {
        let pairs = [
            ("memory_bytes", self.memory_bytes, Self::MAX.memory_bytes),
            (
                "deadline_ms",
                millis(self.deadline),
                millis(Self::MAX.deadline),
            ),
            ("host_calls", self.host_calls, Self::MAX.host_calls),
            ("host_bytes", self.host_bytes, Self::MAX.host_bytes),
            ("handles", self.handles.into(), Self::MAX.handles.into()),
            ("output_bytes", self.output_bytes, Self::MAX.output_bytes),
            ("log_bytes", self.log_bytes, Self::MAX.log_bytes),
        ];
        match pairs.into_iter().find(|(_, asked, max)| asked > max) {
            None => Ok(()),
            Some((limit, asked, max)) => Err(LimitsError { limit, asked, max }),
        }
    }
}

/// Most bytes of linear memory a function may have: what a worker of ordinary size can give several of.
pub const MEMORY_BYTES_MAX: u64 = 1 << 30;
/// Most linear memories, core instances and tables of one function: a component from JavaScript has 3 memories, one from
/// Python about 20 instances.
pub const MEMORIES_MAX: u32 = 6;
/// See [`MEMORIES_MAX`].
pub const INSTANCES_MAX: u32 = 64;
/// See [`MEMORIES_MAX`].
pub const TABLES_MAX: u32 = 40;
/// Most elements of one table: QuickJS has 3 000, CPython 12 000.
pub const TABLE_ELEMENTS_MAX: u32 = 32_768;

/// A limit above what there is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{limit} = {asked} is above the most there is, {max}; ask for less")]
pub struct LimitsError {
    /// Which one.
    pub limit: &'static str,
    /// What was asked for.
    pub asked: u64,
    /// The most there is.
    pub max: u64,
}

/// Why a request was ended by the host. The next request starts afresh.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Stopped {
    /// It took longer than its deadline.
    #[error("the function took longer than its {0:?}; it may raise deadline_ms, or do less")]
    Deadline(Duration),
    /// It has more memory from the start than it may have.
    #[error(
        "the function needs more memory than its limit from the start; it may raise memory_bytes"
    )]
    Memory,
    /// It recursed too deep.
    #[error("the function's call stack is exhausted: it recurses too deep")]
    Stack,
    /// It called out too often.
    #[error("the function made more than its {0} calls to the host; it may raise host_calls")]
    HostCalls(u64),
    /// Its calls carried too much.
    #[error("the function's calls to the host carried more than {0} bytes")]
    HostBytes(u64),
    /// One call to the host, or its answer, carried too much.
    #[error("the function handed over more than {0} bytes at once")]
    AtOnce(u64),
    /// It kept too many things open.
    #[error("the function had more than {0} handles open; it must drop those it is done with")]
    Handles(u32),
    /// Its answer is too long.
    #[error("the function's answer is longer than its {0} bytes; it may raise output_bytes")]
    Output(u64),
    /// It logged too much.
    #[error("the function logged more than its {0} bytes; it may raise log_bytes")]
    Log(u64),
    /// It did what WebAssembly forbids, or gave up.
    #[error("the function trapped: {0}")]
    Trapped(&'static str),
    /// It called something of the system that functions do not have.
    #[error("the function called {0}, which functions do not have")]
    Denied(String),
    /// What it handed over is no value of the type it promised.
    #[error("the function handed over a malformed value")]
    Malformed,
    /// As many requests are inside as there is room for.
    #[error("no room for another instance now; retry")]
    Busy,
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_limit_has_a_maximum_of_its_own() {
        assert_eq!(Limits::MAX.check(), Ok(()));
        let max = Limits::MAX;
        for (limit, above) in [
            (
                "memory_bytes",
                Limits {
                    memory_bytes: max.memory_bytes + 1,
                    ..max
                },
            ),
            (
                "deadline_ms",
                Limits {
                    deadline: max.deadline + Duration::from_millis(1),
                    ..max
                },
            ),
            (
                "host_calls",
                Limits {
                    host_calls: max.host_calls + 1,
                    ..max
                },
            ),
            (
                "host_bytes",
                Limits {
                    host_bytes: max.host_bytes + 1,
                    ..max
                },
            ),
            (
                "handles",
                Limits {
                    handles: max.handles + 1,
                    ..max
                },
            ),
            (
                "output_bytes",
                Limits {
                    output_bytes: max.output_bytes + 1,
                    ..max
                },
            ),
            (
                "log_bytes",
                Limits {
                    log_bytes: max.log_bytes + 1,
                    ..max
                },
            ),
        ] {
            assert_eq!(above.check().unwrap_err().limit, limit);
        }
    }
}
