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

/// Most bytes that are kept of one line, so that a long one does not push out what led to it.
const LINE_BYTES_MAX: usize = 16 << 10;

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
        let shown = &line[..line.floor_char_boundary(LINE_BYTES_MAX)];
        let cut = match line.len() - shown.len() {
            0 => String::new(),
            more => format!(" [{more} bytes more]"),
        };
        let mut text = String::with_capacity(shown.len() + cut.len() + 32);
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "{} {level} {}{cut}",
            at.as_millis(),
            shown.replace('\n', "\n  ")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_any_length_leaves_the_lines_before_it() {
        let log = Log::default();
        let at = Time::from_secs(1);
        log.write(at, Level::Info, "what led to it");
        log.write(at, Level::Error, &"é".repeat(LINES_BYTES_MAX));
        let kept = String::from_utf8(log.read().to_vec()).unwrap();
        let lines: Vec<&str> = kept.lines().collect();
        assert_eq!(lines[0], "1000 info what led to it");
        assert!(
            lines[1].ends_with("é [507904 bytes more]"),
            "{}",
            lines[1].len()
        );
        for number in 0..100_000 {
            log.write(at, Level::Debug, &number.to_string());
        }
        let kept = log.read();
        assert!(kept.len() <= LINES_BYTES_MAX && kept.ends_with(b" 99999\n"));
    }
}
