//! What a confined process can still do, and what ends it.
//!
//! The process is this test binary, started again in a role (see `confined_program`).

#![expect(
    clippy::unwrap_used,
    reason = "a failed unwrap in a test is a failed test"
)]
#![expect(unsafe_code, reason = "system calls that no safe function makes")]

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::fd::AsRawFd as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::channel;
use std::time::Duration;
use std::{env, process, ptr, thread};

use bield_envelope::Secret;
use bield_evidence::{Evidence, Measurement, TeeKind};
use bield_platform::memory::{EnclaveAllocator, region};
use bield_platform::{Code, Protection, Tee, TeeError, confine, harden};

#[global_allocator]
static ALLOCATOR: EnclaveAllocator = EnclaveAllocator;

/// A TEE of which only one thing matters here.
struct Reached {
    through_a_socket: bool,
}

impl Tee for Reached {
    fn kind(&self) -> TeeKind {
        TeeKind::Sgx
    }

    fn measurement(&self) -> &Measurement {
        unreachable!("nobody asks")
    }

    fn evidence(&self, _: &[u8; 64]) -> Result<Evidence, TeeError> {
        Err(TeeError::Unexpected)
    }

    fn seal_key(&self, _: &str) -> Result<Secret, TeeError> {
        Err(TeeError::Unexpected)
    }

    fn reconnects(&self) -> bool {
        self.through_a_socket
    }
}

/// Not a test by itself: does one thing after it was confined, then says so.
#[test]
#[ignore = "a role that other tests start"]
fn confined_program() {
    let act = env::var("TEST_ACT").unwrap();
    if act == "list descriptors" {
        return list_descriptors();
    }
    let tee = Reached {
        through_a_socket: env::var_os("TEST_SOCKETS").is_some(),
    };
    let (mut near, far) = UnixStream::pair().unwrap();
    let (go, gone) = channel::<()>();
    let earlier = {
        let act = act.clone();
        thread::spawn(
            move || match (gone.recv(), act.strip_prefix("earlier thread: ")) {
                (Ok(()), Some(act)) => forbidden(act),
                _ => 0,
            },
        )
    };
    let code = match env::var_os("TEST_COMPILES") {
        Some(_) => Code::Compiled,
        None => Code::Fixed,
    };
    let hardening = harden().and(confine(&tee, code));
    assert!(hardening.applied.contains(&Protection::ListedSystemCalls));
    assert!(hardening.is_complete(), "{:?}", hardening.failed);
    println!("\nsays confined");
    // A thread from before is confined, too.
    go.send(()).unwrap();
    earlier.join().unwrap();
    match act.as_str() {
        "go on" => go_on(&mut near, far),
        "reconnect" => {
            UnixStream::connect(env::var("TEST_SOCKET").unwrap()).unwrap();
        }
        "panic" => drop(thread::spawn(|| panic!("as asked")).join().unwrap_err()),
        "open" => {
            let refused = File::open("/etc/hostname").unwrap_err();
            assert_eq!(refused.raw_os_error(), Some(libc::ENOSYS));
        }
        "abort" => process::abort(),
        "compile" => {
            assert_eq!(forbidden("memory made executable"), 0);
        }
        "earlier thread: fork" => {}
        act => {
            forbidden(act);
        }
    }
    println!("says went on");
    // The test harness may do what a program does not.
    process::exit(0);
}

fn list_descriptors() {
    let inherited = format!("/proc/self/fd/{}", env::var("TEST_DESCRIPTOR").unwrap());
    let own = File::open("/dev/null").unwrap();
    let before = fs::symlink_metadata(&inherited).is_ok();
    let hardening = harden();
    assert!(hardening.applied.contains(&Protection::NoInheritedFiles));
    let after = fs::symlink_metadata(&inherited).is_ok();
    println!("\nsays inherited: before {before}, after {after}");
    assert!(own.metadata().is_ok(), "an own file was closed");
}

/// What both programs do all the time.
fn go_on(near: &mut UnixStream, mut far: UnixStream) {
    let mut large = region(4 << 20).unwrap();
    large.fill(1);
    drop(large);
    let (told, heard) = channel();
    let threads: Vec<_> = (0..16)
        .map(|number| {
            let told = told.clone();
            let work = move || {
                // Grows and shrinks a heap of its own.
                let blocks: Vec<Vec<u8>> = (0..2000).map(|_| vec![number; 4000]).collect();
                told.send(blocks.len()).unwrap();
                thread::sleep(Duration::from_millis(1));
            };
            thread::Builder::new()
                .name("named".into())
                .spawn(work)
                .unwrap()
        })
        .collect();
    threads
        .into_iter()
        .for_each(|thread| thread.join().unwrap());
    assert_eq!(heard.try_iter().sum::<usize>(), 16 * 2000);

    far.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    near.try_clone().unwrap().write_all(b"still here").unwrap();
    let mut read = [0; 10];
    far.read_exact(&mut read).unwrap();
    assert_eq!(&read, b"still here");
    let mut random = [0; 8];
    getrandom::fill(&mut random).unwrap();
    assert!(thread::available_parallelism().is_ok());
}

/// Each of these ends a confined process; what it gives back elsewhere does not matter.
fn forbidden(act: &str) -> i64 {
    // SAFETY: no pointer of ours is written through; the forked child does nothing but end; what is mapped is not used.
    unsafe {
        match act {
            "inet socket" => i64::from(TcpListener::bind("127.0.0.1:0").is_ok()),
            "unix socket" => i64::from(UnixStream::connect("/nowhere").is_ok()),
            "exec" => i64::from(Command::new("/bin/true").exec().raw_os_error().unwrap_or(0)),
            "spawn" => i64::from(Command::new("/bin/true").status().is_ok()),
            "fork" => match libc::fork() {
                0 => process::exit(0),
                child => child.into(),
            },
            "ptrace" => libc::ptrace(libc::PTRACE_TRACEME),
            "kill" => libc::kill(libc::getpid(), 0).into(),
            "executable memory" => {
                let access = libc::PROT_READ | libc::PROT_EXEC;
                let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
                libc::mmap(ptr::null_mut(), 4096, access, flags, -1, 0).addr() as i64
            }
            "memory made executable" => {
                let page = region(4096).unwrap();
                let access = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
                libc::mprotect(page.as_ptr().cast_mut().cast(), 4096, access).into()
            }
            "io_uring" => libc::syscall(libc::SYS_io_uring_setup, 1, ptr::null::<u8>()),
            "other process" => libc::syscall(libc::SYS_pidfd_open, libc::getppid(), 0),
            _ => unreachable!("{act}"),
        }
    }
}

fn confined(act: &str, change: impl FnOnce(&mut Command)) -> Output {
    let mut command = Command::new(env::current_exe().unwrap());
    command
        .args(["--exact", "confined_program", "--ignored", "--nocapture"])
        .env("TEST_ACT", act)
        .env_remove("RUST_BACKTRACE")
        .stdin(Stdio::null());
    change(&mut command);
    command.output().unwrap()
}

/// Tells whether the process went on after it was confined; ends the test when it was not confined.
#[track_caller]
fn goes_on(output: &Output) -> bool {
    let said = String::from_utf8_lossy(&output.stdout);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("says confined"), "{said}\n{told}");
    let went_on = said.contains("says went on");
    assert_eq!(went_on, output.status.success(), "{said}\n{told}");
    went_on
}

#[test]
fn a_confined_program_allocates_starts_threads_and_uses_its_sockets() {
    assert!(goes_on(&confined("go on", |_| {})));
}

#[test]
fn nothing_is_opened_any_more_and_libc_lives_with_that() {
    assert!(goes_on(&confined("open", |_| {})));
}

#[test]
fn a_panic_is_still_told() {
    let output = confined("panic", |_| {});
    assert!(goes_on(&output));
    assert!(String::from_utf8_lossy(&output.stderr).contains("as asked"));
}

#[test]
fn an_abort_is_still_an_abort() {
    let output = confined("abort", |_| {});
    assert!(!goes_on(&output));
    assert_eq!(output.status.signal(), Some(libc::SIGABRT));
}

#[test]
fn whatever_leads_out_ends_the_program() {
    for act in [
        "inet socket",
        "unix socket",
        "exec",
        "spawn",
        "fork",
        "ptrace",
        "kill",
        "executable memory",
        "memory made executable",
        "io_uring",
        "other process",
        "earlier thread: fork",
    ] {
        let output = confined(act, |_| {});
        assert!(!goes_on(&output), "{act}");
        assert_eq!(output.status.signal(), Some(libc::SIGSYS), "{act}");
    }
}

#[test]
fn a_program_that_compiles_makes_what_it_wrote_executable_and_nothing_more() {
    let compiles = |act: &str| {
        confined(act, |command| {
            command.env("TEST_COMPILES", "1");
        })
    };
    assert!(goes_on(&compiles("compile")));
    for act in ["executable memory", "inet socket", "spawn", "fork"] {
        let output = compiles(act);
        assert!(!goes_on(&output), "{act}");
        assert_eq!(output.status.signal(), Some(libc::SIGSYS), "{act}");
    }
}

#[test]
fn only_a_software_tee_is_reached_again_and_only_by_a_unix_socket() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("tee");
    let _listener = UnixListener::bind(&socket).unwrap();
    let with_sockets = |act: &str| {
        confined(act, |command| {
            command.env("TEST_SOCKETS", "1").env("TEST_SOCKET", &socket);
        })
    };
    assert!(goes_on(&with_sockets("reconnect")));
    let ended = with_sockets("inet socket");
    assert_eq!(ended.status.signal(), Some(libc::SIGSYS));
}

#[test]
fn descriptors_that_came_with_the_program_are_closed() {
    // A copy that is not close-on-exec, as a careless parent leaves it.
    let (_near, far) = UnixStream::pair().unwrap();
    let inherited = rustix::io::dup(&far).unwrap();
    let output = confined("list descriptors", |command| {
        command.env("TEST_DESCRIPTOR", inherited.as_raw_fd().to_string());
    });
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        said.contains("says inherited: before true, after false"),
        "{said}"
    );
}
