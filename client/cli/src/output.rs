//! Standard output: text for people, or one JSON value for programs.

use std::fmt::Display;
use std::io::{self, Write as _};

use serde_json::Value;

use crate::failure::Failure;

/// How results are shown.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    json: bool,
    /// Steps are not shown.
    quiet: bool,
}

impl Output {
    pub(crate) const fn new(json: bool) -> Self {
        Self { json, quiet: false }
    }

    /// The same, without steps.
    pub(crate) const fn quiet(self) -> Self {
        Self {
            quiet: true,
            ..self
        }
    }

    pub(crate) const fn is_json(self) -> bool {
        self.json
    }

    /// Shows a result. A reader that left early has what it wanted.
    pub(crate) fn show(self, value: &Value, text: impl Display) {
        let mut out = io::stdout().lock();
        let _ = if self.json {
            writeln!(out, "{value}")
        } else {
            writeln!(out, "{text}")
        };
        let _ = out.flush();
    }

    /// Shows for people that a step of the command is done; programs are told of all in the result.
    pub(crate) fn step(self, done: &str, what: impl Display) {
        if !self.json && !self.quiet {
            let mut out = io::stdout().lock();
            let _ = writeln!(out, "{done:<11}{what}");
            let _ = out.flush();
        }
    }

    /// Says something for people that is not the result.
    pub(crate) fn note(self, text: impl Display) {
        let _ = writeln!(io::stderr().lock(), "{text}");
    }

    /// Shows a failure; what was found out before it was shown by the command.
    pub(crate) fn fail(self, failure: &Failure) {
        if self.json {
            self.show(&failure.to_json(), "");
        } else {
            self.note(format_args!("bield: {}", failure.message()));
        }
    }
}
