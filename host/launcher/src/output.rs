//! The program's two output streams become log lines of the host. Programs print allowed lines only.
//!
//! What it says on standard output is information; what it says on standard error is why it waits or ends,
//! so it is a warning, and the last such line is kept: a program that ended can no longer be asked.

use std::io::{BufRead as _, BufReader, Read};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Longest log line in bytes; the rest of a longer one becomes further lines.
const LINE_BYTES_MAX: u64 = 4096;

/// The last line on standard error.
#[derive(Default)]
pub(crate) struct LastWords {
    said: Mutex<Said>,
    closed: Condvar,
}

#[derive(Default)]
struct Said {
    last: Option<String>,
    closed: bool,
}

impl LastWords {
    /// What was said last so far.
    pub(crate) fn so_far(&self) -> Option<String> {
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        said.last.clone()
    }

    /// What was said last once the stream is read to its end; after `wait`, what was until then.
    pub(crate) fn at_the_end(&self, wait: Duration) -> Option<String> {
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let said = self
            .closed
            .wait_timeout_while(said, wait, |said| !said.closed);
        let (said, _) = said.unwrap_or_else(PoisonError::into_inner);
        said.last.clone()
    }

    fn note(&self, line: &str) {
        // An empty line says nothing.
        if !line.is_empty() {
            let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
            said.last = Some(line.to_owned());
        }
    }

    fn close(&self) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        said.closed = true;
        self.closed.notify_all();
    }
}

/// Logs every line of standard output until the program closes it.
pub(crate) fn follow_output(
    program: String,
    pid: u32,
    stream: impl Read + Send + 'static,
) -> std::io::Result<()> {
    follow(pid, stream, move |line| {
        if let Some(line) = line {
            tracing::info!(program, pid, "{line}");
        }
    })
}

/// Logs every line of standard error until the program closes it, and keeps the last one.
pub(crate) fn follow_errors(
    program: String,
    pid: u32,
    stream: impl Read + Send + 'static,
    words: Arc<LastWords>,
) -> std::io::Result<()> {
    follow(pid, stream, move |line| match line {
        Some(line) => {
            tracing::warn!(program, pid, "{line}");
            words.note(&line);
        }
        None => words.close(),
    })
}

/// Tells every line, and `None` at the end.
fn follow(
    pid: u32,
    stream: impl Read + Send + 'static,
    tell: impl Fn(Option<String>) + Send + 'static,
) -> std::io::Result<()> {
    let name = format!("log {pid}");
    std::thread::Builder::new().name(name).spawn(move || {
        let mut lines = BufReader::new(stream);
        let mut line = Vec::new();
        loop {
            line.clear();
            match lines
                .by_ref()
                .take(LINE_BYTES_MAX)
                .read_until(b'\n', &mut line)
            {
                Ok(0) | Err(_) => return tell(None),
                Ok(_) => tell(Some(printable(&line))),
            }
        }
    })?;
    Ok(())
}

/// One line of text: an enclave program must not be able to drive the operator's terminal.
pub(crate) fn printable(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let shown = text.trim_end().chars();
    shown
        .map(|c| {
            if c.is_control() {
                char::REPLACEMENT_CHARACTER
            } else {
                c
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(printable(b"ready \x1b[31m\r\n"), "ready \u{fffd}[31m");
    }
}
