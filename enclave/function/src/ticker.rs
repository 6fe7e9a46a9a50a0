//! The thread that makes running guests look at their deadlines, a thousand times a second while any runs.
//!
//! It reads no clock: it advances the engine's epoch, which compiled code compares at each loop and call; whoever
//! notices looks at the clock. While nothing runs, the thread sleeps.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, Thread};
use std::time::Duration;

use wasmtime::Engine;

/// How often guests look.
const TICK: Duration = Duration::from_millis(1);

/// Owner of the thread, which ends with it.
pub(crate) struct Ticker {
    shared: Arc<Shared>,
    thread: Thread,
    room: usize,
}

#[derive(Default)]
struct Shared {
    running: AtomicUsize,
    ended: AtomicBool,
}

impl Ticker {
    /// Starts it; at most `room` guests run at once.
    pub(crate) fn start(engine: &Engine, room: usize) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let (ticks, engine) = (Arc::clone(&shared), engine.weak());
        let thread = thread::Builder::new()
            .name("function ticks".into())
            .spawn(move || {
                while !ticks.ended.load(Ordering::Acquire) {
                    if ticks.running.load(Ordering::Acquire) == 0 {
                        // Whoever begins to run counts first and wakes then; a wake-up before this is not lost.
                        thread::park();
                        continue;
                    }
                    thread::sleep(TICK);
                    match engine.upgrade() {
                        Some(engine) => engine.increment_epoch(),
                        None => return,
                    }
                }
            })?;
        Ok(Self {
            shared,
            thread: thread.thread().clone(),
            room,
        })
    }

    /// Ticks for as long as the returned value lives; `None` when there is no room for another guest.
    pub(crate) fn run(&self) -> Option<Running<'_>> {
        let more = |running| (running < self.room).then_some(running + 1);
        let counter = &self.shared.running;
        let before = counter.fetch_update(Ordering::AcqRel, Ordering::Acquire, more);
        if before.ok()? == 0 {
            self.thread.unpark();
        }
        Some(Running(counter))
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Release);
        self.thread.unpark();
    }
}

/// One guest that runs.
pub(crate) struct Running<'a>(&'a AtomicUsize);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}
