//! Compare-and-swap and increment, on keys that this writer holds (`spec/07 §6`).
//!
//! They read and write under the committer's lock, so that two threads of one writer cannot both win;
//! two writers cannot because only the holder's changes count.

use std::sync::MutexGuard;

use bield_capsule::{Batch, Clock, WriterId};
use bield_envelope::Time;

use super::read::{At, found};
use super::write::check;
use super::{Found, Op, Table, Writing, Written};
use crate::{Condition, TableError, Version};

/// What a compare-and-swap compares: which write was seen, or that there was no value. Two writes never
/// have the same, even of one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handle(Option<Version>);

impl Handle {
    /// Comes from what a read found.
    #[must_use]
    pub fn of(found: Option<&Found>) -> Self {
        Self(found.map(|found| found.version))
    }

    /// One or 41 bytes: `0`, or `1 ‖ clock ‖ writer`.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        match self.0 {
            None => vec![0],
            Some(Version { clock, writer }) => {
                [&[1], &clock.bits().to_be_bytes()[..], writer.as_bytes()].concat()
            }
        }
    }

    /// Reads what [`Handle::encode`] made; `None` when it did not.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        match bytes.split_first()? {
            (0, []) => Some(Self(None)),
            (1, rest) => {
                let (clock, writer) = rest.split_first_chunk::<8>()?;
                Some(Self(Some(Version {
                    clock: Clock::from_bits(u64::from_be_bytes(*clock)),
                    writer: WriterId::from_bytes(writer.try_into().ok()?),
                })))
            }
            _ => None,
        }
    }
}

/// What became of a compare-and-swap.
pub enum Swapped<T> {
    /// It was written.
    Done(Written<T>),
    /// Somebody had written before; this is what is there now.
    Changed(Option<Found>),
}

impl Table {
    /// Writes a put or a delete if its key is as it was seen.
    ///
    /// # Errors
    /// This writer does not hold the key; or as [`Table::write`] and [`Table::get`].
    pub fn swap<T, E: core::fmt::Display>(
        &self,
        op: Op<'_>,
        seen: Handle,
        now: Time,
        hand: impl FnOnce(&Batch) -> Result<T, E>,
    ) -> Result<Swapped<T>, TableError> {
        self.swap_beside(op, None, seen, now, hand)
    }

    /// As [`Table::swap`]; a change of another key, which no lease covers, comes with it: both, or neither.
    ///
    /// # Errors
    /// As [`Table::swap`].
    pub fn swap_beside<T, E: core::fmt::Display>(
        &self,
        op: Op<'_>,
        beside: Option<Op<'_>>,
        seen: Handle,
        now: Time,
        hand: impl FnOnce(&Batch) -> Result<T, E>,
    ) -> Result<Swapped<T>, TableError> {
        beside.iter().chain([&op]).try_for_each(check)?;
        let (Op::Put { key, .. } | Op::Delete { key }) = op else {
            return Err(TableError::Range);
        };
        let (mut writing, latest, found) = self.present(key, now)?;
        if Handle::of(found.as_ref()) != seen {
            return Ok(Swapped::Changed(found));
        }
        let there = (latest, found.as_ref());
        let written = self.replace(&mut writing, (op, beside), there, now, hand)?;
        Ok(Swapped::Done(written))
    }

    /// Adds to the number under a key, and returns the sum. A key without a value counts as 0. The
    /// number is stored as decimal text: an optional `-`, then digits without leading zeros. It keeps
    /// no time to live.
    ///
    /// # Errors
    /// What is there is no such number, or the sum is none; or as [`Table::swap`].
    pub fn increment<T, E: core::fmt::Display>(
        &self,
        key: &[u8],
        delta: i64,
        now: Time,
        hand: impl FnOnce(&Batch) -> Result<T, E>,
    ) -> Result<(i64, Written<T>), TableError> {
        self.increment_beside(key, delta, None, now, hand)
    }

    /// As [`Table::increment`]; a change of another key, which no lease covers, comes with it: both, or neither.
    ///
    /// # Errors
    /// As [`Table::increment`].
    pub fn increment_beside<T, E: core::fmt::Display>(
        &self,
        key: &[u8],
        delta: i64,
        beside: Option<Op<'_>>,
        now: Time,
        hand: impl FnOnce(&Batch) -> Result<T, E>,
    ) -> Result<(i64, Written<T>), TableError> {
        beside
            .iter()
            .chain([&Op::Delete { key }])
            .try_for_each(check)?;
        let (mut writing, latest, found) = self.present(key, now)?;
        let before = found.as_ref().map_or(Ok(0), |found| number(&found.value))?;
        let sum = before.checked_add(delta).ok_or(TableError::Overflow)?;
        let text = sum.to_string();
        let op = Op::Put {
            key,
            value: text.as_bytes(),
            expires: None,
        };
        let there = (latest, found.as_ref());
        let written = self.replace(&mut writing, (op, beside), there, now, hand)?;
        Ok((sum, written))
    }

    fn replace<T, E: core::fmt::Display>(
        &self,
        writing: &mut Writing,
        (op, beside): (Op<'_>, Option<Op<'_>>),
        (latest, found): (Option<Version>, Option<&Found>),
        now: Time,
        hand: impl FnOnce(&Batch) -> Result<T, E>,
    ) -> Result<Written<T>, TableError> {
        let condition = found.map_or(Condition::Absent, |found| Condition::Is(found.version));
        // A change that a version from the future hides would be answered and lost.
        let next = writing.clock.clone().next(now).ok_or(TableError::Clock)?;
        if latest.is_some_and(|latest| latest.clock >= next) {
            return Err(TableError::Outranked);
        }
        match beside {
            None => self.write_in(writing, &[op], condition, now, hand),
            // The last one's version is the write's.
            Some(beside) => self.write_in(writing, &[beside, op], condition, now, hand),
        }
    }

    /// What is under a key that this writer holds, with the right to change it.
    fn present(&self, key: &[u8], now: Time) -> Result<Present<'_>, TableError> {
        // Once outside of the lock: what is cold is cached when it is read again inside.
        self.latest(key, &At::Live(false))?;
        let writing = self.writing();
        writing.held(&self.writer, key, None)?;
        let latest = self.latest(key, &At::Live(false))?;
        let found = latest.as_ref().and_then(|cell| found(&cell.as_cell()));
        let found = found.filter(|found| !found.is_over(now));
        Ok((writing, latest.map(|cell| cell.version), found))
    }
}

/// The committer's lock, the newest version of a key, and its value.
type Present<'t> = (MutexGuard<'t, Writing>, Option<Version>, Option<Found>);

/// The number that a value is.
fn number(value: &[u8]) -> Result<i64, TableError> {
    let text = core::str::from_utf8(value).map_err(|_| TableError::NotANumber)?;
    let number: i64 = text.parse().map_err(|_| TableError::NotANumber)?;
    // One number has one text: no plus sign, no leading zeros, no negative zero.
    if number.to_string() != text {
        return Err(TableError::NotANumber);
    }
    Ok(number)
}
