//! The whole service in one value, for tests and simulators: one caller at a time, the log in memory.
//!
//! What the program adds around the same parts is order among many callers, and a log that outlives it.

use bield_envelope::{Secret, Time};
use bield_protocol::refusal::Refusal;
use bield_protocol::service::{Reply, Request};
use zeroize::Zeroizing;

use super::{Conversation, RefusedLeases, Turn, read, turn};
use crate::state::{Ask, AuditedRecord, Entry, Inconsistent, Limits, State};

/// A service without a program.
pub struct Desk {
    state: State,
    /// One record for each answer that changed something; the first has index 2, as in a log.
    records: Vec<(Time, Vec<Zeroizing<Vec<u8>>>)>,
    refused: RefusedLeases,
}

impl Desk {
    /// A service that knows nobody yet.
    #[must_use]
    pub fn new(root: Secret, limits: Limits) -> Self {
        Self {
            state: State::new(root, limits),
            records: Vec::new(),
            refused: RefusedLeases::default(),
        }
    }

    /// The same service again, from its log.
    ///
    /// # Errors
    /// The log does not fit itself.
    pub fn replayed(&self, root: Secret, limits: Limits) -> Result<State, Inconsistent> {
        let mut state = State::new(root, limits);
        for (record, (at, entries)) in (FIRST_RECORD..).zip(&self.records) {
            for entry in entries {
                let entry = Entry::decode(entry).map_err(|_| Inconsistent::unreadable())?;
                state.apply(&entry, record, *at)?;
            }
        }
        Ok(state)
    }

    /// What it knows.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Records in the log.
    #[must_use]
    pub fn size(&self) -> u64 {
        FIRST_RECORD + self.records.len() as u64
    }

    /// Answers one message; what it changed is in the log from then on.
    pub fn answer(&mut self, with: &mut Conversation, request: Request, now: Time) -> Reply {
        let turn = match turn(with, request) {
            Ok(turn) => turn,
            Err(refusal) => return Reply::Refused(refusal),
        };
        self.decide(turn, now).unwrap_or_else(Reply::Refused)
    }

    /// Asks the state, and logs what follows.
    ///
    /// # Errors
    /// As [`State::check`].
    ///
    /// # Panics
    /// When an entry does not fit the state that it was made from: a fault of this crate.
    pub fn ask(&mut self, ask: &Ask, now: Time) -> Result<Reply, Refusal> {
        let checked = self.state.check(ask, now)?;
        let record = FIRST_RECORD + self.records.len() as u64;
        for entry in &checked.entries {
            let applied = self.state.apply(entry, record, now);
            applied.expect("what was checked a moment ago fits");
        }
        if !checked.entries.is_empty() {
            let entries = checked.entries.iter().map(Entry::encode).collect();
            self.records.push((now, entries));
        }
        Ok(checked
            .answer
            .reply(FIRST_RECORD + self.records.len() as u64))
    }

    fn decide(&mut self, turn: Turn, now: Time) -> Result<Reply, Refusal> {
        match turn {
            Turn::Ask(_, ask) => {
                let answer = self.ask(&ask, now);
                self.note_refused(&ask, &answer, now);
                answer
            }
            Turn::Read(_, question) => read(&self.state, &question, now),
            Turn::Audit(by, from) => {
                let refused = self.refused.of(self.state.packages_of(by));
                let plan = self.state.audit(by, from)?;
                plan.page(|_, record| self.record(record), refused)
                    .map(Reply::Audit)
            }
            _ => Err(crate::state::refuse::unsupported(
                "a question to the program",
            )),
        }
    }

    fn note_refused(&mut self, ask: &Ask, answer: &Result<Reply, Refusal>, now: Time) {
        let Ask::Lease { appraised, request } = ask else {
            return;
        };
        let (Err(refusal) | Ok(Reply::Refused(refusal))) = answer else {
            return;
        };
        if self.state.has_package(&request.package) {
            let code = appraised.measurement();
            self.refused.note(request.package, code, &refusal.code, now);
        }
    }

    fn record(&self, record: u64) -> Option<AuditedRecord> {
        let at = usize::try_from(record.checked_sub(FIRST_RECORD)?).ok()?;
        let (at, entries) = self.records.get(at)?;
        Some(AuditedRecord {
            at: *at,
            entries: entries.clone(),
        })
    }
}

/// Leaves 0 and 1 of a log are its configuration and its writer's opening.
const FIRST_RECORD: u64 = 2;
