//! The program's two output streams become log lines of the host. Programs print allowed lines only.

use std::io::{BufRead as _, BufReader, Read};

/// Longest log line in bytes; the rest of a longer one becomes further lines.
const LINE_BYTES_MAX: u64 = 4096;

/// Logs every line until the program closes the stream.
pub(crate) fn follow(
    program: String,
    pid: u32,
    stream: impl Read + Send + 'static,
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
                Ok(0) | Err(_) => return,
                Ok(_) => tracing::info!(program, pid, "{}", printable(&line)),
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
