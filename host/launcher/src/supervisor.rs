//! Keeps one enclave program running.
//!
//! ```text
//! start ──▶ Running ──exit──▶ Restarting ──pause──▶ start …      pause: 50 ms, doubling to 10 s; 50 ms again
//!              └──── stop ────────┴──▶ Stopped                   after 30 s of running or an answered call
//! ```
//!
//! Always true: at most one instance runs; the first start fails loudly, later ones are tried again; why the
//! program ended is logged as an error with its own last words, which are kept for whoever asks.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::process::Process;
use crate::{Enclave, Launch, LaunchError};

/// First pause before a restart; a killed program is back in well under a second.
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// Longest pause: a program that keeps failing costs one start every ten seconds.
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// A program that ran this long was healthy, whether anybody called it or not.
const HEALTHY_AFTER: Duration = Duration::from_secs(30);

/// Ends in a row, each soon after the start, from which on it is said that this does not pass by itself.
const ENDS_OF_A_SICK_ONE: u32 = 3;

/// Where a supervised program is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum State {
    /// It serves.
    Running,
    /// It ended and is being started again.
    Restarting,
    /// It was stopped for good.
    Stopped,
}

/// Starts a program and starts it again when it ends. Dropping it stops the program.
pub struct Supervisor {
    shared: Arc<Shared>,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
}

/// Told of each instance that serves from now on, and of each end.
type Told = Box<dyn Fn(Option<Arc<Enclave>>) + Send + Sync>;

struct Shared {
    name: String,
    told: Told,
    life: Mutex<Life>,
    stopping: Condvar,
}

struct Life {
    state: State,
    enclave: Option<Arc<Enclave>>,
    /// The next instance, until it is configured.
    starting: Option<Arc<Process>>,
    starts: u64,
    /// What the instance before the running one said last, or why it did not start.
    last_words: Option<String>,
}

impl Supervisor {
    /// Starts the program for the first time. Blocks until it is configured.
    ///
    /// # Errors
    /// The first start failed; there is nothing to supervise.
    pub fn start(launch: Launch) -> Result<Supervisor, LaunchError> {
        Supervisor::start_telling(launch, |_| {})
    }

    /// As [`start`](Self::start); `told` hears of each instance that serves from now on, the first one included, and of
    /// each end. It must not block.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_telling(
        launch: Launch,
        told: impl Fn(Option<Arc<Enclave>>) + Send + Sync + 'static,
    ) -> Result<Supervisor, LaunchError> {
        let enclave = Arc::new(Enclave::start(&launch)?);
        let life = Life {
            state: State::Running,
            enclave: Some(Arc::clone(&enclave)),
            starting: None,
            starts: 1,
            last_words: None,
        };
        let shared = Arc::new(Shared {
            name: launch.name(),
            told: Box::new(told),
            life: Mutex::new(life),
            stopping: Condvar::new(),
        });
        (shared.told)(Some(enclave));
        let supervised = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("supervisor".to_owned())
            .spawn({
                let launch = launch.clone();
                move || supervised.run(&launch)
            })
            .map_err(|error| LaunchError::Program {
                program: launch.program,
                error,
            })?;
        Ok(Supervisor {
            shared,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// The running instance, if there is one.
    #[must_use]
    pub fn enclave(&self) -> Option<Arc<Enclave>> {
        self.shared
            .lock()
            .enclave
            .clone()
            .filter(|enclave| enclave.is_running())
    }

    /// The program's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// Where it is in its life.
    #[must_use]
    pub fn state(&self) -> State {
        let life = self.shared.lock();
        let ended = life
            .enclave
            .as_ref()
            .is_none_or(|enclave| !enclave.is_running());
        if life.state == State::Running && ended {
            State::Restarting
        } else {
            life.state
        }
    }

    /// How often it was started.
    #[must_use]
    pub fn starts(&self) -> u64 {
        self.shared.lock().starts
    }

    /// What the program said last of why it waits, ended or did not start: the running instance's words, or
    /// else those of the one before it.
    #[must_use]
    pub fn last_words(&self) -> Option<String> {
        let (running, before) = {
            let life = self.shared.lock();
            (life.enclave.clone(), life.last_words.clone())
        };
        running.and_then(|enclave| enclave.last_words()).or(before)
    }

    /// Asks the program to finish what it has begun and to end for good; kills it after `wait`. Blocks
    /// until it is gone.
    pub fn finish(&self, wait: Duration) {
        let enclave = {
            let mut life = self.shared.lock();
            life.state = State::Stopped;
            self.shared.stopping.notify_all();
            life.enclave.clone()
        };
        if let Some(enclave) = enclave {
            enclave.finish(wait);
        }
        self.stop();
    }

    /// Kills the program for good. Blocks until it is gone.
    pub fn stop(&self) {
        self.shared.stop();
        let thread = self
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.stop();
    }
}

/// How long to wait before the next start.
struct Patience {
    pause: Duration,
    /// Ends and failed starts since the program was last healthy.
    ends: u32,
}

impl Patience {
    const fn new() -> Self {
        Self {
            pause: PAUSE_MIN,
            ends: 0,
        }
    }

    /// The program ended. One that was healthy, and was killed perhaps, is to be back at once.
    fn ended_after(&mut self, running: Duration, has_answered: bool) {
        if has_answered || running > HEALTHY_AFTER {
            *self = Self::new();
        }
    }

    fn next_pause(&mut self) -> Duration {
        self.ends += 1;
        let pause = self.pause;
        self.pause = (pause * 2).min(PAUSE_MAX);
        pause
    }

    /// Whether it has to be said that this does not pass by itself.
    const fn is_running_out(&self) -> bool {
        self.ends >= ENDS_OF_A_SICK_ONE
    }
}

impl Shared {
    fn run(&self, launch: &Launch) {
        let mut patience = Patience::new();
        loop {
            let Some(enclave) = self.lock().enclave.clone() else {
                return;
            };
            let began = Instant::now();
            let exit = enclave.wait(None);
            (self.told)(None);
            let words = enclave.last_words();
            patience.ended_after(began.elapsed(), enclave.has_answered());
            drop(enclave);
            let told_to = {
                let mut life = self.lock();
                life.enclave = None;
                if words.is_some() {
                    life.last_words.clone_from(&words);
                }
                life.state == State::Stopped
            };
            if !told_to {
                let status = exit.map_or_else(|| "unknown".to_owned(), |exit| exit.to_string());
                let words = words.as_deref().unwrap_or("nothing");
                tracing::error!(program = self.name, %status, "ended; its last words: {words}");
            }
            loop {
                let pause = patience.next_pause();
                if !self.pause_to_restart(pause) {
                    return;
                }
                tracing::warn!(
                    program = self.name,
                    pause_ms = pause.as_millis(),
                    "restarting"
                );
                if patience.is_running_out() {
                    tracing::error!(
                        program = self.name,
                        ends = patience.ends,
                        "it ends again and again: what its last words name must be put right; until then it is tried again after pauses of up to {} s",
                        PAUSE_MAX.as_secs()
                    );
                }
                let started = Enclave::start_seen(launch, |process| self.begins(process));
                let mut life = self.lock();
                life.starting = None;
                if life.state == State::Stopped {
                    return;
                }
                match started {
                    Ok(enclave) => {
                        let enclave = Arc::new(enclave);
                        life.starts += 1;
                        life.state = State::Running;
                        life.enclave = Some(Arc::clone(&enclave));
                        drop(life);
                        (self.told)(Some(enclave));
                        break;
                    }
                    Err(error) => {
                        tracing::error!(program = self.name, "{error}");
                        life.last_words = Some(error.to_string());
                    }
                }
            }
        }
    }

    /// Keeps a process that is being started, for whoever stops it.
    fn begins(&self, process: &Arc<Process>) {
        let mut life = self.lock();
        match life.state {
            State::Stopped => process.kill(),
            _ => life.starting = Some(Arc::clone(process)),
        }
    }

    /// Waits before a restart; `false` when the program is to stay down.
    fn pause_to_restart(&self, pause: Duration) -> bool {
        let mut life = self.lock();
        if life.state != State::Stopped {
            life.state = State::Restarting;
        }
        let deadline = Instant::now() + pause;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if life.state == State::Stopped || left.is_zero() {
                return life.state != State::Stopped;
            }
            life = self
                .stopping
                .wait_timeout(life, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    fn stop(&self) {
        let mut life = self.lock();
        life.state = State::Stopped;
        if let Some(enclave) = &life.enclave {
            enclave.kill();
        }
        if let Some(process) = &life.starting {
            process.kill();
        }
        self.stopping.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Life> {
        self.life.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_millis(200);

    #[test]
    fn a_program_that_never_answers_is_tried_ever_more_seldom() {
        let mut patience = Patience::new();
        let pauses: Vec<_> = (0..12)
            .map(|_| {
                patience.ended_after(SOON, false);
                patience.next_pause()
            })
            .collect();
        assert_eq!(pauses[..3], [PAUSE_MIN, PAUSE_MIN * 2, PAUSE_MIN * 4]);
        assert_eq!(pauses[11], PAUSE_MAX);
        assert!(patience.is_running_out());
    }

    #[test]
    fn a_program_that_has_answered_is_back_at_once_however_often_it_is_killed() {
        let mut patience = Patience::new();
        for _ in 0..12 {
            patience.ended_after(SOON, true);
            assert_eq!(patience.next_pause(), PAUSE_MIN);
            assert!(!patience.is_running_out());
        }
    }

    #[test]
    fn a_program_that_ran_for_long_was_healthy_without_a_call() {
        let mut patience = Patience::new();
        for _ in 0..12 {
            patience.next_pause();
        }
        patience.ended_after(HEALTHY_AFTER + SOON, false);
        assert_eq!(patience.next_pause(), PAUSE_MIN);
    }
}
