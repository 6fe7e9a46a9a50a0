//! One started enclave program.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bield_protocol::status::STATUS_BYTES_MAX;
use bield_protocol::visit::Visit;

use crate::address::DoorAddress;
use crate::calls::{Answering, Calls};
use crate::output::LastWords;
use crate::process::Process;
use crate::record::{Pipe, Recorder, Session};
use crate::storage::Directory;
use crate::{Launch, LaunchError, VisitError, offers, output};

/// How long a program may take from start to configured: it reads its configuration, asks its TEE for a
/// quote, which takes a second or two on real hardware, and a key service reads and verifies its log.
pub const CONFIGURATION_WAIT: Duration = Duration::from_secs(120);
/// Longest answer in bytes: the largest sealed answer with its feedback.
pub const ANSWER_BYTES_MAX: usize = 80 << 20;
/// Longest answer to a configuration in bytes: one sentence.
const SENTENCE_BYTES_MAX: usize = 4096;
/// How long the last lines of a program that ended may take to be read.
const WORDS_WAIT: Duration = Duration::from_secs(1);
/// How long a killed process may take to disappear before its remains are left to the system.
const KILL_WAIT: Duration = Duration::from_secs(5);

/// A configured, running program. Dropping it kills it.
pub struct Enclave {
    name: String,
    started: Started,
    watch: Pipe,
    words: Arc<LastWords>,
    /// Made by the first call: not every program is called.
    calls: Mutex<Option<Arc<Calls>>>,
}

impl Enclave {
    /// Starts a program, configures it and opens its offers. Blocks up to [`CONFIGURATION_WAIT`].
    ///
    /// # Errors
    /// See [`LaunchError`]; a program that was started is killed again.
    pub fn start(launch: &Launch) -> Result<Enclave, LaunchError> {
        Enclave::start_seen(launch, |_| {})
    }

    /// As [`start`](Self::start); `see` gets the process before it is configured, so that it can be killed meanwhile.
    pub(crate) fn start_seen(
        launch: &Launch,
        see: impl FnOnce(&Arc<Process>),
    ) -> Result<Enclave, LaunchError> {
        let name = launch.name();
        if let Some(path) = &launch.packages {
            std::fs::create_dir_all(path).map_err(|error| LaunchError::Directory {
                path: path.clone(),
                error,
            })?;
        }
        let storage = match (&launch.storage, &launch.shared_storage) {
            (Some(path), _) => Some(Arc::new(open_storage(path)?)),
            (None, shared) => shared.as_ref().map(|shared| Arc::clone(&shared.0)),
        };
        let recorder = Recorder::new(launch.record.clone(), &name).map_err(|error| {
            LaunchError::Directory {
                path: launch.record.clone().unwrap_or_default(),
                error,
            }
        })?;
        let parent = launch
            .run_directory
            .clone()
            .unwrap_or_else(std::env::temp_dir);
        let (door, listener) = DoorAddress::bind(&parent, recorder)?;
        let door = Arc::new(door);

        // The listener must live in the program alone, so that visits fail once the program is gone.
        let mut child = Command::new(&launch.program)
            .args(&launch.arguments)
            .env_clear()
            .process_group(0)
            .stdin(Stdio::from(OwnedFd::from(listener)))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| LaunchError::Program {
                program: launch.program.clone(),
                error,
            })?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let out_of = |error| LaunchError::Program {
            program: launch.program.clone(),
            error,
        };
        let process = Process::watch(child).map_err(out_of)?;
        see(&process);
        if let Some(group) = &launch.control_group {
            join(group, process.pid());
        }
        let started = Started { door, process };
        let (door, process) = (&started.door, &started.process);
        if let Some(stdout) = stdout {
            output::follow_output(name.clone(), process.pid(), stdout).map_err(out_of)?;
        }
        let words = Arc::<LastWords>::default();
        if let Some(stderr) = stderr {
            let words = Arc::clone(&words);
            output::follow_errors(name.clone(), process.pid(), stderr, words).map_err(out_of)?;
        }

        let named = |failure: NotConfigured| failure.named(&name, &words);
        let mut visit = door
            .visit(Visit::Configure, CONFIGURATION_WAIT)
            .map_err(|error| named(error.into()))?;
        // Both open before the answer is awaited: from here on the program notices when this process
        // dies, and it may load its state before it says that it is ready.
        let watch = door
            .visit(Visit::Watch, CONFIGURATION_WAIT)
            .map_err(|error| named(error.into()))?;
        offers::open(launch, storage, door, process).map_err(out_of)?;
        configure(&mut visit, &launch.configuration).map_err(named)?;
        tracing::info!(
            program = name,
            pid = process.pid(),
            "enclave program started"
        );
        Ok(Enclave {
            words: Arc::clone(&words),
            name,
            started,
            watch,
            calls: Mutex::default(),
        })
    }

    /// Hands a sealed request over and returns the program's answer. Blocks at most `wait`, for an answer in parts at
    /// most so long for each.
    ///
    /// # Errors
    /// See [`VisitError`].
    pub fn call(&self, sealed: &[u8], wait: Duration) -> Result<Vec<u8>, VisitError> {
        let mut answering = self.begin_call(sealed, wait)?;
        let mut answer = answering.next_part()?.unwrap_or_default();
        while let Some(part) = answering.next_part()? {
            if answer.len() + part.len() > ANSWER_BYTES_MAX {
                return Err(VisitError::TooLong {
                    max: ANSWER_BYTES_MAX,
                });
            }
            answer.extend(part);
        }
        Ok(answer)
    }

    /// Hands a sealed request over; the answer is taken as it comes.
    ///
    /// # Errors
    /// See [`VisitError`].
    pub fn begin_call(&self, sealed: &[u8], wait: Duration) -> Result<Answering, VisitError> {
        let door = &self.started.door;
        let calls = self.calls(wait).map_err(|error| failed(error, wait))?;
        let tape = door.call_tape().map_err(VisitError::Lost)?;
        tape.to_program(sealed).map_err(VisitError::Lost)?;
        calls.begin(sealed, tape, wait)
    }

    /// The rings of a program that still serves them.
    pub(crate) fn calls(&self, wait: Duration) -> io::Result<Arc<Calls>> {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        match &*calls {
            Some(calls) if !calls.is_lost() || !self.is_running() => Ok(Arc::clone(calls)),
            _ => {
                let fresh = Calls::open(&self.started.door, &self.started.process, wait)?;
                Ok(Arc::clone(calls.insert(fresh)))
            }
        }
    }

    /// Asks for the program's status: strict CBOR of `bield_protocol::status::Status`. Blocks at most `wait`.
    ///
    /// # Errors
    /// See [`VisitError`].
    pub fn status(&self, wait: Duration) -> Result<Vec<u8>, VisitError> {
        ask(&self.started.door, Visit::Status, STATUS_BYTES_MAX, wait)
    }

    /// Opens an attested session with the program, without blocking: the caller carries its bytes.
    ///
    /// # Errors
    /// `WouldBlock` when the program has not taken the visits before this one (try again in a moment),
    /// else the program is gone.
    pub fn session(&self) -> io::Result<Session> {
        self.started.door.session()
    }

    /// Asks the program to finish what it has begun and to end; kills it after `wait`. Meanwhile its
    /// storage and its peers still answer it.
    pub fn finish(&self, wait: Duration) {
        // Closed already means that it knows.
        let _ = self.watch.shutdown(Shutdown::Both);
        if self.wait(Some(wait)).is_none() {
            tracing::warn!(
                program = self.name,
                pid = self.pid(),
                "did not end by itself; killed"
            );
            self.kill();
        }
    }

    /// The program's file name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The program's process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.started.process.pid()
    }

    /// What the program said last of why it waits or ends: its last line on standard error. Of one that
    /// has ended, blocks up to a second until all it said is read.
    #[must_use]
    pub fn last_words(&self) -> Option<String> {
        match self.is_running() {
            true => self.words.so_far(),
            false => self.words.at_the_end(WORDS_WAIT),
        }
    }

    /// Whether the process still runs.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.started.process.is_running()
    }

    /// Whether it has answered a call since it started.
    #[must_use]
    pub fn has_answered(&self) -> bool {
        self.started.process.has_answered()
    }

    /// Kills the program. Its memory, keys included, goes back to the kernel, which clears it.
    pub fn kill(&self) {
        self.started.process.kill();
    }

    /// Waits for the program's end, at most `wait` if given; `None` while it runs on.
    #[must_use]
    pub fn wait(&self, wait: Option<Duration>) -> Option<ExitStatus> {
        self.started.process.wait(wait)
    }
}

/// Puts a program into a control group; without its limits it runs all the same.
fn join(group: &Path, pid: u32) {
    if let Err(error) = std::fs::write(group.join("cgroup.procs"), pid.to_string()) {
        tracing::warn!(pid, %error, group = %group.display(), "not put into its control group; its memory is not limited");
    }
}

pub(crate) fn open_storage(path: &Path) -> Result<Directory, LaunchError> {
    Directory::open(path).map_err(|error| match error.kind() {
        ErrorKind::ResourceBusy => LaunchError::StorageInUse { path: path.into() },
        _ => LaunchError::Directory {
            path: path.into(),
            error,
        },
    })
}

/// Sends the configuration and waits for "ok".
fn configure(visit: &mut Pipe, configuration: &[u8]) -> Result<(), NotConfigured> {
    let wait = CONFIGURATION_WAIT;
    let answer = exchange(
        visit,
        configuration,
        SENTENCE_BYTES_MAX,
        Instant::now() + wait,
        wait,
    )
    .map_err(|error| NotConfigured::Lost(error.to_string()))?;
    match output::printable(&answer).as_str() {
        "ok" => Ok(()),
        "" => Err(NotConfigured::Lost("it closed the door".to_owned())),
        why => Err(NotConfigured::Refused(why.to_owned())),
    }
}

enum NotConfigured {
    Lost(String),
    Refused(String),
}

impl From<io::Error> for NotConfigured {
    fn from(error: io::Error) -> NotConfigured {
        NotConfigured::Lost(error.to_string())
    }
}

impl NotConfigured {
    fn named(self, program: &str, words: &LastWords) -> LaunchError {
        let program = program.to_owned();
        match self {
            NotConfigured::Lost(mut error) => {
                if let Some(said) = words.at_the_end(WORDS_WAIT) {
                    error = format!("{error}; its last words: {said}");
                }
                LaunchError::NotConfigured { program, error }
            }
            NotConfigured::Refused(why) => LaunchError::Refused { program, why },
        }
    }
}

/// One visit that half-closes and reads the whole answer.
fn ask(
    door: &DoorAddress,
    visit: Visit,
    answer_max: usize,
    wait: Duration,
) -> Result<Vec<u8>, VisitError> {
    let deadline = Instant::now() + wait;
    let mut pipe = door
        .visit(visit, wait)
        .map_err(|error| failed(error, wait))?;
    exchange(&mut pipe, &[], answer_max, deadline, wait)
}

fn exchange(
    pipe: &mut Pipe,
    bytes: &[u8],
    answer_max: usize,
    deadline: Instant,
    wait: Duration,
) -> Result<Vec<u8>, VisitError> {
    let mut rest = bytes;
    while !rest.is_empty() {
        limit(pipe, deadline, wait)?;
        match pipe.write(rest) {
            Ok(count) => rest = &rest[count..],
            // It refused early and may have said why: read on.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => break,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(failed(error, wait)),
        }
    }
    let _ = pipe.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    let mut buffer = vec![0; ANSWER_BUFFER_BYTES];
    loop {
        limit(pipe, deadline, wait)?;
        match pipe.read(&mut buffer) {
            Ok(0) => return Ok(answer),
            Ok(count) if answer.len() + count > answer_max => {
                return Err(VisitError::TooLong { max: answer_max });
            }
            Ok(count) => answer.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(failed(error, wait)),
        }
    }
}

/// Bytes read at once: what a Unix socket holds by default.
const ANSWER_BUFFER_BYTES: usize = 208 * 1024;

fn limit(pipe: &Pipe, deadline: Instant, wait: Duration) -> Result<(), VisitError> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(VisitError::TimedOut { wait });
    }
    pipe.limit_waits(Some(left)).map_err(VisitError::Lost)
}

fn failed(error: io::Error, wait: Duration) -> VisitError {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => VisitError::TimedOut { wait },
        _ => VisitError::Lost(error),
    }
}

/// A started process and its door; both go away with this value, however far the start came.
struct Started {
    door: Arc<DoorAddress>,
    process: Arc<Process>,
}

impl Drop for Started {
    fn drop(&mut self) {
        self.process.kill();
        let _ = self.process.wait(Some(KILL_WAIT));
        // Now, not when the last offer's thread lets go of it: this process may be about to end.
        self.door.remove();
    }
}
