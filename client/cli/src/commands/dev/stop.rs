//! Being told to stop: Ctrl-C, SIGTERM, or the end of standard input.

use std::cell::Cell;
use std::io::Read as _;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::failure::Failure;

/// What came while waiting.
pub(super) enum Event {
    /// Nothing.
    Nothing,
    /// Time to stop.
    Stop,
}

/// Listens for being told to stop; once told, that holds.
pub(super) struct Events {
    told: Receiver<()>,
    is_told: Cell<bool>,
}

impl Events {
    /// From now on a signal does not end this process; it becomes an event.
    pub(super) fn listen(until_stdin_ends: bool) -> Result<Self, Failure> {
        let (told, events) = channel();
        let fail = |error| Failure::local(format_args!("cannot listen for signals: {error}"));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build();
        let runtime = runtime.map_err(fail)?;
        let listen = || {
            let _within = runtime.enter();
            Ok((
                signal(SignalKind::interrupt())?,
                signal(SignalKind::terminate())?,
            ))
        };
        let (mut interrupt, mut terminate) = listen().map_err(fail)?;
        if until_stdin_ends {
            let told = told.clone();
            thread::spawn(move || stdin_ends(&told));
        }
        thread::spawn(move || {
            while runtime.block_on(either(&mut interrupt, &mut terminate)) {
                if told.send(()).is_err() {
                    return;
                }
            }
        });
        Ok(Self {
            told: events,
            is_told: Cell::new(false),
        })
    }

    /// Waits for an event, at most `wait`.
    pub(super) fn wait(&self, wait: Duration) -> Event {
        if self.is_told.get() {
            return Event::Stop;
        }
        match self.told.recv_timeout(wait) {
            Ok(()) => {
                self.is_told.set(true);
                Event::Stop
            }
            Err(RecvTimeoutError::Timeout) => Event::Nothing,
            Err(RecvTimeoutError::Disconnected) => {
                // The listener cannot end before this does; if it did, do not spin.
                thread::sleep(wait);
                Event::Nothing
            }
        }
    }
}

/// Waits for either signal; `false` when none can come any more.
async fn either(interrupt: &mut Signal, terminate: &mut Signal) -> bool {
    tokio::select! {
        came = interrupt.recv() => came.is_some(),
        came = terminate.recv() => came.is_some(),
    }
}

fn stdin_ends(told: &Sender<()>) {
    let mut buffer = [0; 256];
    let mut stdin = std::io::stdin().lock();
    while matches!(stdin.read(&mut buffer), Ok(1..)) {}
    let _ = told.send(());
}
