//! The system calls that are left to a program that serves.
//!
//! ```text
//! system call ──▶ libc's own attempts?  ──▶ "no such call" (ENOSYS): it goes on without
//!             ──▶ on the list, and with those arguments? ──▶ done
//!             ──▶ else ──▶ the kernel ends the process (SIGSYS)
//! ```
//!
//! Goes in: the TEE, which may need to be reached again. Comes out: whether the kernel took the filter.
//!
//! Always true from then on, of all threads: nothing is opened, started, traced or signalled; no memory becomes
//! executable, unless the program compiles functions ([`Code::Compiled`]); a socket is made only for the software TEE, and only a Unix one; what is not on the list ends the process.
//! That is an outage that the launcher sees and says, not a leak; and since none of our code asks for such a call,
//! whoever does is not our code. Refusing instead of ending would let it try the next.
//!
//! Left to others: what bytes go through the descriptors that are open (`bield-door`), what the process gives up before
//! it holds secrets ([`harden`](crate::harden)).
//!
//! On paper: two filters of about 60 and 120 BPF instructions, compiled by the kernel; it remembers calls that are
//! allowed whatever their arguments, so read, write and futex pay some 10 ns.

use std::collections::BTreeMap;
use std::env::consts::ARCH;
use std::io;

use libc::c_long;
use seccompiler::SeccompCmpArgLen::{Dword, Qword};
use seccompiler::SeccompCmpOp::{Eq, MaskedEq, Ne};
use seccompiler::{
    BackendError, BpfProgram, Error, SeccompAction, SeccompCmpArgLen, SeccompCmpOp,
    SeccompCondition, SeccompFilter, SeccompRule, TargetArch, apply_filter_all_threads,
};

use crate::{Hardening, Protection, Tee};

/// Which code runs while a program serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// What was there when it was confined.
    Fixed,
    /// Also what it compiles meanwhile: memory that was written may become executable, and may be shared between mappings
    /// of this process.
    Compiled,
}

/// Gives up every system call that serving does not need, for all threads, those to come included.
///
/// Call it when everything is open and configured: engines' libraries are loaded, files read.
pub fn confine(tee: &dyn Tee, code: Code) -> Hardening {
    let outcome = filters(tee.reconnects(), code).and_then(|[quiet, list]| {
        // In this order: the list has no room for installing another.
        apply_filter_all_threads(&quiet)?;
        apply_filter_all_threads(&list)
    });
    let outcome = outcome.map_err(|error| match error {
        Error::Prctl(error) | Error::Seccomp(error) => error,
        other => io::Error::other(other),
    });
    Hardening::default().with(Protection::ListedSystemCalls, outcome)
}

fn filters(sockets: bool, code: Code) -> Result<[BpfProgram; 2], Error> {
    let arch: TargetArch = ARCH.try_into()?;
    let build = |rules: Rules, else_: SeccompAction, then: SeccompAction| {
        SeccompFilter::new(rules, else_, then, arch)?.try_into()
    };
    let no_such_call = SeccompAction::Errno(libc::ENOSYS as u32);
    // The kernel takes the stricter of two answers: what is quiet is allowed by the list.
    let quiet = quiet()?;
    let mut list = list(sockets, code)?;
    list.extend(quiet.keys().map(|call| (*call, Vec::new())));
    Ok([
        build(quiet, SeccompAction::Allow, no_such_call)?,
        build(list, SeccompAction::KillProcess, SeccompAction::Allow)?,
    ])
}

/// Calls, and the arguments they are meant with: any of the rules, or anything if there is none.
type Rules = BTreeMap<c_long, Vec<SeccompRule>>;

/// What libc or `std` try by themselves and can do without, found out by running the programs.
fn quiet() -> Result<Rules, BackendError> {
    let mut rules: Rules = QUIET.iter().map(|call| (*call, Vec::new())).collect();
    // `thread::Builder::name` is served, and what installs the next filter.
    let others = [libc::PR_SET_NAME, libc::PR_SET_NO_NEW_PRIVS]
        .iter()
        .map(|operation| SeccompCondition::new(0, Dword, Ne, *operation as u64))
        .collect::<Result<_, _>>()?;
    rules.insert(libc::SYS_prctl, vec![SeccompRule::new(others)?]);
    Ok(rules)
}

const QUIET: &[c_long] = &[
    // malloc asks for the overcommit policy before it shrinks a heap, std for control groups, num_cpus for processors.
    libc::SYS_openat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_open,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    // Its flags are behind a pointer, where a filter cannot see them; glibc then uses `clone`.
    libc::SYS_clone3,
    // `std::io::copy` tries them between descriptors.
    libc::SYS_copy_file_range,
    libc::SYS_sendfile,
    libc::SYS_splice,
    // glibc asks for the limit of the main thread's stack, and before it sorts, how much memory there is.
    libc::SYS_prlimit64,
    libc::SYS_sysinfo,
    // onnxruntime ties its threads to processors.
    libc::SYS_sched_setaffinity,
];

fn list(sockets: bool, code: Code) -> Result<Rules, BackendError> {
    let mut rules: Rules = LIST.iter().map(|call| (*call, Vec::new())).collect();
    let not_executable = || when(2, Dword, MaskedEq(libc::PROT_EXEC as u64), 0);
    rules.insert(libc::SYS_mmap, vec![not_executable()?]);
    let mut fcntl = FCNTL.to_vec();
    match code {
        Code::Fixed => {
            rules.insert(libc::SYS_mprotect, vec![not_executable()?]);
        }
        Code::Compiled => {
            // A compiler writes code, then has it executable; a fresh instance maps the pages of its image.
            for call in [
                libc::SYS_mprotect,
                libc::SYS_memfd_create,
                libc::SYS_ftruncate,
            ] {
                rules.insert(call, Vec::new());
            }
            fcntl.push(libc::F_ADD_SEALS);
        }
    }
    // A thread as glibc or musl makes it; never a process, never a namespace.
    rules.insert(
        libc::SYS_clone,
        vec![when(0, Qword, MaskedEq(!MUSL_DETACHED), THREAD)?],
    );
    // `abort` signals its own thread.
    rules.insert(
        libc::SYS_tgkill,
        vec![when(0, Dword, Eq, std::process::id().into())?],
    );
    rules.insert(
        libc::SYS_fcntl,
        fcntl
            .iter()
            .map(|operation| when(1, Dword, Eq, *operation as u64))
            .collect::<Result<_, _>>()?,
    );
    // `set_nonblocking`.
    rules.insert(libc::SYS_ioctl, vec![when(1, Dword, Eq, libc::FIONBIO)?]);
    if sockets {
        let unix = libc::AF_UNIX as u64;
        rules.insert(libc::SYS_socket, vec![when(0, Dword, Eq, unix)?]);
        rules.insert(libc::SYS_connect, Vec::new());
    }
    Ok(rules)
}

const LIST: &[c_long] = &[
    // Bytes of what is open already, visits through the door, and the memory that the host passes with one of them.
    libc::SYS_accept4,
    libc::SYS_close,
    libc::SYS_fstat,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_sendto,
    libc::SYS_shutdown,
    libc::SYS_write,
    libc::SYS_writev,
    // Memory.
    libc::SYS_brk,
    libc::SYS_madvise,
    libc::SYS_mlock2,
    libc::SYS_mremap,
    libc::SYS_munmap,
    // Threads and how they wait.
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_futex,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_restart_syscall,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_set_robust_list,
    libc::SYS_sigaltstack,
    // Time, where the kernel's page of it does not serve, and randomness.
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_time,
    libc::SYS_gettimeofday,
    libc::SYS_getrandom,
];

const FCNTL: &[libc::c_int] = &[
    libc::F_DUPFD_CLOEXEC,
    libc::F_GETFD,
    libc::F_GETFL,
    libc::F_GET_SEALS,
    libc::F_SETFL,
];

/// How glibc's `pthread_create` clones.
const THREAD: u64 = (libc::CLONE_VM
    | libc::CLONE_FS
    | libc::CLONE_FILES
    | libc::CLONE_SYSVSEM
    | libc::CLONE_SIGHAND
    | libc::CLONE_THREAD
    | libc::CLONE_SETTLS
    | libc::CLONE_PARENT_SETTID
    | libc::CLONE_CHILD_CLEARTID) as u64;
/// musl's has this on top, which means nothing to Linux.
const MUSL_DETACHED: u64 = libc::CLONE_DETACHED as u64;

fn when(
    argument: u8,
    len: SeccompCmpArgLen,
    operator: SeccompCmpOp,
    value: u64,
) -> Result<SeccompRule, BackendError> {
    SeccompRule::new(vec![SeccompCondition::new(argument, len, operator, value)?])
}
