//! The started process: one thread waits for its end, anyone may ask or kill.

use std::io;
use std::process::{Child, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, WaitId, WaitIdOptions};

/// A running or ended child process.
pub(crate) struct Process {
    pid: u32,
    child: Mutex<Lifetime>,
    ended: Condvar,
    /// Done once it has ended.
    at_end: Mutex<Option<AtEnd>>,
    /// It has answered something.
    has_answered: AtomicBool,
}

type AtEnd = Box<dyn FnOnce() + Send>;

struct Lifetime {
    child: Child,
    exit: Option<ExitStatus>,
}

impl Process {
    /// Takes over a child and starts the thread that reaps it.
    pub(crate) fn watch(child: Child) -> io::Result<Arc<Process>> {
        let pid = child.id();
        let lifetime = Mutex::new(Lifetime { child, exit: None });
        let process = Arc::new(Process {
            pid,
            child: lifetime,
            ended: Condvar::new(),
            at_end: Mutex::default(),
            has_answered: AtomicBool::new(false),
        });
        let reaper = Arc::clone(&process);
        std::thread::Builder::new()
            .name(format!("reap {pid}"))
            .spawn(move || reaper.reap())?;
        Ok(process)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    pub(crate) fn is_running(&self) -> bool {
        self.lock().exit.is_none()
    }

    /// Whether it has answered a call.
    pub(crate) fn has_answered(&self) -> bool {
        self.has_answered.load(Ordering::Relaxed)
    }

    pub(crate) fn answers(&self) {
        self.has_answered.store(true, Ordering::Relaxed);
    }

    /// Has something done once it has ended, at once if it has; replaces what was to be done before.
    pub(crate) fn at_end(&self, act: impl FnOnce() + Send + 'static) {
        *self.lock_at_end() = Some(Box::new(act));
        if !self.is_running() {
            self.act_at_end();
        }
    }

    fn act_at_end(&self) {
        let act = self.lock_at_end().take();
        if let Some(act) = act {
            act();
        }
    }

    fn lock_at_end(&self) -> MutexGuard<'_, Option<AtEnd>> {
        self.at_end.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Kills it. Ended processes are left alone, so a reused process id is never hit.
    pub(crate) fn kill(&self) {
        let mut lifetime = self.lock();
        if lifetime.exit.is_none() {
            let _ = lifetime.child.kill();
        }
    }

    /// Waits for the end, at most `wait` if given.
    pub(crate) fn wait(&self, wait: Option<Duration>) -> Option<ExitStatus> {
        let deadline = wait.map(|wait| Instant::now() + wait);
        let mut lifetime = self.lock();
        while lifetime.exit.is_none() {
            lifetime = match deadline {
                None => self
                    .ended
                    .wait(lifetime)
                    .unwrap_or_else(PoisonError::into_inner),
                Some(at) => {
                    let left = at.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return None;
                    }
                    self.ended
                        .wait_timeout(lifetime, left)
                        .unwrap_or_else(PoisonError::into_inner)
                        .0
                }
            };
        }
        lifetime.exit
    }

    /// Waits without reaping, then reaps under the lock: a kill never meets a freed process id.
    fn reap(&self) {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid {
            while let Err(rustix::io::Errno::INTR) =
                rustix::process::waitid(WaitId::Pid(pid), options)
            {}
        }
        let mut lifetime = self.lock();
        lifetime.exit = Some(lifetime.child.wait().unwrap_or_default());
        self.ended.notify_all();
        drop(lifetime);
        self.act_at_end();
    }

    fn lock(&self) -> MutexGuard<'_, Lifetime> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
