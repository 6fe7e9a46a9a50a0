//! What a process gives up, in two stages.
//!
//! ```text
//! connect to the TEE ──▶ harden() ──▶ secrets, configuration, engines ──▶ confine() ──▶ serve
//! ```
//!
//! Goes in: nothing. Comes out: which protections took hold and which did not, for the status
//! answer. Irreversible, and inherited where the kernel says so.
//!
//! Order matters with the software TEE: a process that is not dumpable cannot be measured through
//! `/proc` by another process of the same user, so connect first, then [`harden`], then take
//! secrets. Later reconnects present the ticket of the first (see [`software`](crate::software)).
//! What reads files or loads libraries does so before [`confine`](crate::confine).
#![expect(
    unsafe_code,
    reason = "closes descriptors that nothing in this process owns, locks memory of its own"
)]

use std::os::fd::{BorrowedFd, RawFd};
use std::{fmt, fs, io};

use bield_evidence::HardeningStatement;
pub use bield_evidence::Protection;
use rustix::io::FdFlags;
use rustix::mm::{MlockAllFlags, MlockFlags};
use rustix::process::{DumpableBehavior, Resource, Rlimit};

/// Gives up what an attacker on the same machine could use, as far as the kernel lets us.
///
/// Closes every descriptor from 3 on that came with the process: those that are not close-on-exec. What the process
/// opens by itself through `std` or `rustix` is.
pub fn harden() -> Hardening {
    let core = || {
        let none = Rlimit {
            current: Some(0),
            maximum: Some(0),
        };
        Ok(rustix::process::setrlimit(Resource::Core, none)?)
    };
    let dumpable = || {
        let not = DumpableBehavior::NotDumpable;
        rustix::process::set_dumpable_behavior(not)?;
        not_traced()
    };
    Hardening::default()
        .with(Protection::NoInheritedFiles, close_inherited())
        .with(Protection::NoCoreFile, core())
        .with(Protection::NotDumpable, dumpable())
        .with(
            Protection::NoNewPrivileges,
            rustix::thread::set_no_new_privs(true).map_err(Into::into),
        )
}

/// Locks all memory the process has and will have, so that none of it reaches swap. For programs that hold keys and
/// little else: locked memory that the allocator keeps does not shrink.
pub fn lock_memory() -> Hardening {
    // Under a limit, locking what comes later would make it fail to come: all or nothing.
    let locked = may_lock_all().and_then(|()| {
        let all = MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT;
        Ok(rustix::mm::mlockall(all)?)
    });
    Hardening::default().with(Protection::LockedMemory, locked)
}

/// Tells whether every [`region`](crate::memory::region) from now on can be locked. Under a limit, those that fit are.
pub fn lock_regions() -> Hardening {
    Hardening::default().with(Protection::LockedRegions, may_lock_all())
}

/// What was asked for and what the kernel made of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hardening {
    /// In effect from now on.
    pub applied: Vec<Protection>,
    /// Refused by the kernel.
    pub failed: Vec<Failure>,
}

impl Hardening {
    /// Everything that was asked for is in effect.
    pub fn is_complete(&self) -> bool {
        self.failed.is_empty()
    }

    /// This and what a later stage achieved.
    #[must_use]
    pub fn and(mut self, later: Self) -> Self {
        self.applied.extend(later.applied);
        self.failed.extend(later.failed);
        self
    }

    /// What the program states of this under its evidence: what is in force, and what the kernel refused. Error numbers
    /// stay here.
    #[must_use]
    pub fn stated(&self) -> HardeningStatement {
        HardeningStatement::new(
            self.applied.iter().copied(),
            self.failed.iter().map(|failure| failure.protection),
        )
    }

    pub(crate) fn with(mut self, protection: Protection, outcome: io::Result<()>) -> Self {
        match outcome {
            Ok(()) => self.applied.push(protection),
            Err(error) => self.failed.push(Failure {
                protection,
                os_error: error.raw_os_error().unwrap_or_default(),
            }),
        }
        self
    }
}

/// A protection the kernel refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Which one.
    pub protection: Protection,
    /// The kernel's error number, 0 when it gave none.
    pub os_error: i32,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (error {})", self.protection, self.os_error)
    }
}

/// Whoever traces already goes on doing so; no other way in is open any more.
fn not_traced() -> io::Result<()> {
    let status = fs::read_to_string("/proc/self/status")?;
    match tracer(&status) {
        Some("0") => Ok(()),
        _ => Err(io::Error::from_raw_os_error(libc::EBUSY)),
    }
}

/// Who traces, in the kernel's words.
fn tracer(status: &str) -> Option<&str> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("TracerPid:"));
    line.map(str::trim)
}

fn close_inherited() -> io::Result<()> {
    let mut open: Vec<RawFd> = Vec::new();
    for entry in fs::read_dir("/proc/self/fd")? {
        let name = entry?.file_name();
        open.extend(name.to_str().and_then(|name| name.parse::<RawFd>().ok()));
    }
    for number in open.into_iter().filter(|number| *number > 2) {
        // SAFETY: only asked for its flags. The one of the listing itself is closed again: an error, and skipped.
        let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
        match rustix::io::fcntl_getfd(descriptor) {
            Ok(flags) if !flags.contains(FdFlags::CLOEXEC) => {
                // SAFETY: it survived `exec`, since whatever this process opened is close-on-exec; nothing in this
                // process owns it.
                unsafe { rustix::io::close(number) };
            }
            _ => {}
        }
    }
    Ok(())
}

/// Whether no limit holds: by `RLIMIT_MEMLOCK`, raised as far as it goes, or by the right to exceed it.
fn may_lock_all() -> io::Result<()> {
    let limit = rustix::process::getrlimit(Resource::Memlock);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    rustix::process::setrlimit(Resource::Memlock, raised)?;
    if raised.current.is_none() {
        return Ok(());
    }
    // Whether the kernel grants the right is only seen by using it, where nothing else would allow it.
    let nothing = Rlimit {
        current: Some(0),
        ..limit
    };
    rustix::process::setrlimit(Resource::Memlock, nothing)?;
    let byte = Box::new(0_u8);
    let address = (&raw const *byte).cast_mut().cast();
    // SAFETY: the byte lives until after it is unlocked; locking its page changes no contents. Its page may hold
    // other blocks, too; none of them was locked before, since this is asked first.
    let allowed = unsafe {
        rustix::mm::mlock_with(address, 1, MlockFlags::ONFAULT)
            .and_then(|()| rustix::mm::munlock(address, 1))
    };
    rustix::process::setrlimit(Resource::Memlock, raised)?;
    Ok(allowed?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stated_is_what_the_kernel_did() {
        let hardening = Hardening::default()
            .with(Protection::NoCoreFile, Ok(()))
            .with(Protection::LockedMemory, Err(io::ErrorKind::Other.into()));
        let stated = hardening.stated();
        assert!(stated.has(Protection::NoCoreFile));
        assert!(!stated.has(Protection::LockedMemory));
        assert_eq!(
            stated.to_string(),
            "in force: no core file; NOT in force: memory locked"
        );
    }

    #[test]
    fn a_tracer_is_seen_in_the_kernels_words() {
        assert_eq!(tracer("Name:\tx\nTracerPid:\t0\nUid:\t0\n"), Some("0"));
        assert_eq!(tracer("TracerPid:\t4711\n"), Some("4711"));
        assert_eq!(tracer("Pid:\t1\n"), None);
    }
}
