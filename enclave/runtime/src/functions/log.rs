//! The lines that a function wrote, for its owner.
//!
//! In: lines of requests. Out: the newest of them, to whoever admission says is the owner. Always true: at most
//! [`LINES_BYTES_MAX`] are kept, the oldest go first; they never leave the enclave but sealed; they are wiped when they go.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::sync::Mutex;

use bield_envelope::{Time, Wiped};
use bield_function::Level;

use crate::flights::lock;

/// Most bytes of lines that are kept of one function.
const LINES_BYTES_MAX: usize = 256 << 10;

/// A function's newest lines.
#[derive(Default)]
pub(crate) struct Log(Mutex<Lines>);

#[derive(Default)]
struct Lines {
    lines: VecDeque<Wiped>,
    bytes: usize,
}

impl Log {
    pub(crate) fn write(&self, at: Time, level: Level, line: &str) {
        let level = match level {
            Level::Debug => "debug",
            Level::Info => "info",
            Level::Warn => "warn",
            Level::Error => "error",
        };
        let mut text = String::with_capacity(line.len() + 32);
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "{} {level} {}",
            at.as_millis(),
            line.replace('\n', "\n  ")
        );
        let mut lines = lock(&self.0);
        lines.bytes += text.len();
        lines.lines.push_back(text.into_bytes().into());
        while lines.bytes > LINES_BYTES_MAX {
            let Some(oldest) = lines.lines.pop_front() else {
                break;
            };
            lines.bytes -= oldest.len();
        }
    }

    /// All lines that are kept, oldest first.
    pub(crate) fn read(&self) -> Wiped {
        let lines = lock(&self.0);
        let mut all = Wiped::with_capacity(lines.bytes);
        for line in &lines.lines {
            all.extend_from_slice(line);
        }
        all
    }
}
