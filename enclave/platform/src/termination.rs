//! Being told to end.
//!
//! ```text
//! SIGTERM ─▶ handler: a flag is set, who sleeps on it is woken ─▶ wait_until_told_to_end() returns
//! ```
//!
//! Always true: the handler touches one atomic and wakes who waits for it, both of which a signal may do wherever it meets
//! a thread, and neither of which needs a system call beyond those of a confined program. Whoever may send signals to
//! this process is the host, which may as well kill it: nothing rests on being told. Not here: what an end is.

#![expect(unsafe_code, reason = "a handler of a signal is installed with libc")]

use std::io;
use std::mem;
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::thread::futex::{self, Flags};

/// 1 once it was told.
static TOLD: AtomicU32 = AtomicU32::new(0);

/// From here on SIGTERM ends [`wait_until_told_to_end`], and no longer the process.
///
/// # Errors
/// The system refuses.
pub fn heed_termination() -> io::Result<()> {
    // SAFETY: all of it is integers, a set of signals and addresses that may be null.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    action.sa_sigaction = told as extern "C" fn(libc::c_int) as libc::sighandler_t;
    // On the alternate stack: a guest's own may have little left. Calls that were interrupted go on.
    action.sa_flags = libc::SA_RESTART | libc::SA_ONSTACK;
    // SAFETY: the action is initialized, the handler does nothing that a signal may not, and the old action is not asked for.
    match unsafe { libc::sigaction(libc::SIGTERM, &raw const action, ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Returns once SIGTERM has come.
pub fn wait_until_told_to_end() {
    while TOLD.load(Ordering::Acquire) == 0 {
        // Woken for another reason, or interrupted, it looks again.
        let _ = futex::wait(&TOLD, Flags::PRIVATE, 0, None);
    }
}

extern "C" fn told(_: libc::c_int) {
    TOLD.store(1, Ordering::Release);
    // A system call without libc, so that `errno` stays what the interrupted thread left there.
    let _ = futex::wake(&TOLD, Flags::PRIVATE, u32::MAX >> 1);
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::Duration;

    use super::*;

    #[test]
    fn whoever_waits_is_told_and_the_process_goes_on() {
        heed_termination().unwrap();
        let waiters: Vec<_> = (0..2)
            .map(|_| thread::spawn(wait_until_told_to_end))
            .collect();
        thread::sleep(Duration::from_millis(50));
        assert!(waiters.iter().all(|waiter| !waiter.is_finished()));
        let pid = rustix::process::getpid();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        for waiter in waiters {
            waiter.join().unwrap();
        }
        // Told before, it does not wait.
        wait_until_told_to_end();
    }
}
