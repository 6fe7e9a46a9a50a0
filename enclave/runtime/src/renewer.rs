//! The thread that keeps leases alive.
//!
//! Wakes every [`PASS_EVERY`], has the runtime tend its leases, and sleeps again until it is told to stop. Always true: it
//! holds up no call, however long the key service takes; a panic in a pass ends that pass only. Not here: what is
//! done in a pass (`leases`).

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use crate::call::Runtime;

/// Between two passes: a fifth of the span in which the shortest lease is renewed.
const PASS_EVERY: Duration = Duration::from_millis(400);

/// The thread; stops when this is dropped.
pub(crate) struct Renewer {
    _stop: SyncSender<()>,
}

impl Renewer {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system gives none.
    pub(crate) fn start(runtime: Arc<Runtime>) -> io::Result<Self> {
        let (stop, stopped) = sync_channel(0);
        let work = move || {
            while stopped.recv_timeout(PASS_EVERY) == Err(RecvTimeoutError::Timeout) {
                let _ = catch_unwind(AssertUnwindSafe(|| runtime.tend()));
                let _ = catch_unwind(AssertUnwindSafe(|| runtime.tend_states()));
            }
        };
        thread::Builder::new()
            .name("renewer".to_owned())
            .spawn(work)?;
        Ok(Self { _stop: stop })
    }
}
