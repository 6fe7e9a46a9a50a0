//! Threads for one run, so that none of them keeps anything of it.
//!
//! rten packs blocks of both factors of a product into buffers that belong to the thread (`PACKED_A`, `PACKED_B` in
//! rten-gemm 0.27): after a run they hold parts of inputs and activations until a later run overwrites them.
//!
//! ```text
//! start ─▶ threads ─▶ run ─▶ end: threads end ─▶ their buffers are freed ─▶ the last thing of each thread is dropped
//! ```
//!
//! Always true: when [`Apart::end`] returns, everything that belonged to these threads was freed, which zeroes it where
//! memory is wiped; their stacks are overwritten or the kernel's. On paper: a start and an end of each
//! thread, and buffers of up to 1 MiB to fill for the first time. Not here: what the run frees itself.

use std::cell::RefCell;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use rten::ThreadPool;

thread_local! {
    /// Set before the thread computes anything: what belongs to a thread is dropped in reverse order of first use.
    static LAST: RefCell<Option<Sender<()>>> = const { RefCell::new(None) };
}

/// Threads for one run.
pub(crate) struct Apart {
    pool: Arc<ThreadPool>,
    ended: Receiver<()>,
}

impl Apart {
    /// Starts `threads` threads; `None` when the system gives none.
    pub(crate) fn start(threads: usize) -> Option<Self> {
        let pool = Arc::new(ThreadPool::with_num_threads(threads));
        let (alive, ended) = channel();
        let started = pool.run(|| {
            // Without threads of its own, a pool runs things where it is called.
            rayon::current_thread_index()?;
            rayon::broadcast(|_| LAST.set(Some(alive.clone())));
            Some(())
        });
        started.map(|()| Self { pool, ended })
    }

    /// The threads. Whoever takes them gives them back before [`end`](Self::end).
    pub(crate) fn pool(&self) -> Arc<ThreadPool> {
        Arc::clone(&self.pool)
    }

    /// Ends the threads and waits until nothing that belonged to them is left.
    pub(crate) fn end(self) {
        self.pool.run(|| rayon::broadcast(|_| scrub()));
        drop(self.pool);
        // Nothing is ever sent: it ends when the last sender is gone.
        let _ = self.ended.recv();
    }
}

/// Overwrites the stack below the caller. Of a thread that ended, the kernel gets all but the uppermost 16 KiB of the
/// stack back, and a later thread gets those as they are.
#[inline(never)]
fn scrub() {
    let mut below = [0_u8; SCRUBBED_BYTES];
    black_box(&mut below);
}

/// What the kernel does not get, four times.
const SCRUBBED_BYTES: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn what_threads_keep_is_gone_when_they_have_ended() {
        static KEPT: AtomicUsize = AtomicUsize::new(0);
        struct Kept;
        impl Drop for Kept {
            fn drop(&mut self) {
                std::thread::sleep(std::time::Duration::from_millis(20));
                KEPT.fetch_sub(1, Ordering::SeqCst);
            }
        }
        thread_local!(static BUFFER: RefCell<Option<Kept>> = const { RefCell::new(None) });

        let apart = Apart::start(3).unwrap();
        apart.pool().run(|| {
            rayon::broadcast(|_| {
                KEPT.fetch_add(1, Ordering::SeqCst);
                BUFFER.set(Some(Kept));
            });
        });
        assert_eq!(KEPT.load(Ordering::SeqCst), 3);
        apart.end();
        assert_eq!(KEPT.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn runs_one_after_the_other_share_no_thread() {
        let seen = Mutex::new(Vec::new());
        for _ in 0..2 {
            let apart = Apart::start(2).unwrap();
            apart.pool().run(|| {
                rayon::broadcast(|_| {
                    let mut seen = seen.lock().unwrap();
                    let this = std::thread::current().id();
                    assert!(!seen.contains(&this));
                    seen.push(this);
                });
            });
            apart.end();
        }
        assert_eq!(seen.into_inner().unwrap().len(), 4);
    }
}
