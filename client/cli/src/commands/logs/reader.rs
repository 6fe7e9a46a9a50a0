//! Reads the log of a function, again and again.
//!
//! In: whose function, in which code. Out: lines that were not read before. Always true: lines come from code that the
//! trust file lists, with a receipt that holds; what is seen of the function's state is kept as with every call.

use bield_envelope::{SigningKey, Wiped};
use bield_grant::CodeSelector;
use bield_sdk::{
    CallError, CallOptions, FunctionAnswered, FunctionCall, Home, PackageReference, Randomness,
    Target, Trust, now,
};

use super::Line;
use crate::commands::{call, key_service, plain};
use crate::failure::Failure;

/// Where a log was read to.
pub(in crate::commands) struct LogReader<'a> {
    home: &'a Home,
    trust: &'a Trust,
    user: &'a SigningKey,
    package: PackageReference,
    codes: Vec<CodeSelector>,
    target: Option<Target>,
    /// Reads with this target.
    reads: u32,
    read: Vec<Line>,
}

impl<'a> LogReader<'a> {
    pub(in crate::commands) const fn new(
        home: &'a Home,
        trust: &'a Trust,
        user: &'a SigningKey,
        package: PackageReference,
        codes: Vec<CodeSelector>,
    ) -> Self {
        Self {
            home,
            trust,
            user,
            package,
            codes,
            target: None,
            reads: 0,
            read: Vec::new(),
        }
    }

    /// What the function is called whose log was read last.
    pub(in crate::commands) fn called(&self) -> Option<String> {
        let target = self.target.as_ref()?;
        Some(format!("{}@{}", target.name(), target.version()))
    }

    /// Asks the key service again where the function is, at the next read.
    pub(in crate::commands) fn look_again(&mut self) {
        self.target = None;
    }

    /// Lines that were written since the last read.
    pub(in crate::commands) fn read(&mut self) -> Result<Vec<Line>, Failure> {
        // A name means the newest version, which may be another by now.
        if self.reads >= READS_EACH {
            self.target = None;
        }
        let answered = match self.ask()? {
            Err(error) if error.wants_fresh_target() => {
                self.target = None;
                self.ask()?
            }
            asked => asked,
        };
        let answered = answered?;
        let target = self
            .target
            .as_ref()
            .ok_or_else(|| Failure::local("no target"))?;
        if let Some(state) = &answered.state {
            self.home.see_state(&target.owner(), target.name(), state)?;
        }
        let response = answered.outcome.map_err(|failure| {
            // Of anybody else the function itself is asked, which has no such path.
            Failure::refused(format_args!(
                "the log of {} is {}'s to read, and you are {} (the function says: {})",
                target.name(),
                target.owner(),
                self.user.principal(),
                plain(&failure.message)
            ))
        })?;
        let lines = Line::all(&String::from_utf8_lossy(&response.body));
        let known = Line::known(&self.read, &lines);
        let new = lines[known..].to_vec();
        self.read = lines;
        Ok(new)
    }

    fn ask(&mut self) -> Result<Result<FunctionAnswered, CallError>, Failure> {
        let target = match self.target.take() {
            Some(target) => target,
            None => {
                let mut service = key_service(self.home, self.trust)?;
                self.reads = 0;
                call::target(&mut service, &self.package, &self.codes)?.0
            }
        };
        let target = self.target.insert(target);
        if !target.is_function() {
            return Err(Failure::local(format_args!(
                "{}@{} is a model: it has no log",
                target.name(),
                target.version()
            )));
        }
        self.reads += 1;
        let seen = self.home.seen_state(&target.owner(), target.name())?;
        let call = FunctionCall {
            path: LOG_PATH.to_owned(),
            content_type: String::new(),
            body: Wiped::default(),
            seen: seen.map(|seen| seen.heads),
        };
        let options = CallOptions {
            attempts_max: ATTEMPTS_MAX,
            waiting: &mut |_| {},
            clock: now,
        };
        Ok(target.call_function_with(self.user, &call, options, &mut Randomness))
    }
}

/// Where a function's owner reads its newest lines (spec/10).
const LOG_PATH: &str = "/~log";
/// Reads after which it is asked again which version a name means.
const READS_EACH: u32 = 5;
/// Times a read is sent at most.
const ATTEMPTS_MAX: u32 = 3;
