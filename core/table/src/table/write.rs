//! Own writes: clocks, entries for the next record, cells.

use bield_capsule::{Batch, Clock};
use bield_envelope::Time;
use bield_levels::{Cell, Content, RangeDelete};

use super::{Table, Writing};
use crate::key::{is_range, split_key};
use crate::{
    Action, Change, Condition, KEY_BYTES_MAX, TableEntry, TableError, VALUE_BYTES_MAX, Version,
};

/// One of the changes of a write. Keys are full keys ([`crate::full_key`]).
#[derive(Clone, Copy)]
pub enum Op<'a> {
    /// Sets a value.
    Put {
        /// Full key.
        key: &'a [u8],
        /// Its value.
        value: &'a [u8],
        /// From then on nothing is there.
        expires: Option<Time>,
    },
    /// Leaves nothing.
    Delete {
        /// Full key.
        key: &'a [u8],
    },
    /// Deletes what is there in a range of one bucket; not where a lease is held.
    DeleteRange {
        /// The first full key.
        from: &'a [u8],
        /// The end, exclusive.
        to: &'a [u8],
    },
}

/// What became of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written<T> {
    /// Version of its last change.
    pub version: Version,
    /// Changes that do not show, because a writer whose clock is ahead wrote the key.
    pub outranked: usize,
    /// What whoever took the entries said.
    pub handed: T,
}

impl Table {
    /// Makes changes that become visible together, here and, since they are in one record, everywhere.
    ///
    /// `hand` takes the entries for the next record, all of them in this order, for instance
    /// [`bield_capsule::Queue::push_batch`]; it is called for one write at a time, so that clocks
    /// increase along the chain. It must not call the table.
    ///
    /// # Errors
    /// A bound, a key that another writer holds, memory that is full, or `hand` did not take them.
    ///
    /// # Panics
    /// `ops` is empty.
    pub fn write<T, E: core::fmt::Display>(
        &self,
        ops: &[Op<'_>],
        now: Time,
        hand: impl FnOnce(&Batch) -> Result<T, E>,
    ) -> Result<Written<T>, TableError> {
        assert!(!ops.is_empty(), "a write changes something");
        for op in ops {
            check(op)?;
        }
        let mut writing = self.writing();
        self.write_in(&mut writing, ops, Condition::Unconditional, now, hand)
    }

    pub(super) fn write_in<T, E: core::fmt::Display>(
        &self,
        writing: &mut Writing,
        ops: &[Op<'_>],
        condition: Condition,
        now: Time,
        hand: impl FnOnce(&Batch) -> Result<T, E>,
    ) -> Result<Written<T>, TableError> {
        if self.is_full(writing) {
            return Err(TableError::Busy);
        }
        writing.batch.clear();
        let (mut first, mut last) = (None, Clock::default());
        for op in ops {
            last = writing.clock.next(now).ok_or(TableError::Clock)?;
            first = first.or(Some(last));
            let action = self.action(writing, op, condition)?;
            let entry = TableEntry {
                clock: last,
                action,
            };
            writing.push(&entry)?;
        }
        let handed = hand(&writing.batch).map_err(|error| TableError::Handed(error.to_string()))?;
        writing.handed.push_back((ops.len(), last));
        // Clocks of one write follow each other: nobody else takes any in between.
        let mut clock = first.unwrap_or(last);
        let version = |clock| Version {
            clock,
            writer: self.writer,
        };
        for op in ops {
            writing.counted(op, self);
        }
        let mut commit = self.commit(&writing.active);
        let outranked = if let ([_], Some(cell)) = (ops, cell(&ops[0], version(last))) {
            commit.insert_only(&cell)
        } else {
            let mut steps = ops.iter().peekable();
            while let Some(op) = steps.next() {
                match (cell(op, version(clock)), op) {
                    (Some(cell), _) => commit.insert(&cell),
                    (None, Op::DeleteRange { from, to }) => commit.insert_range(RangeDelete {
                        from: from.to_vec(),
                        to: to.to_vec(),
                        version: version(clock),
                    }),
                    (None, _) => {}
                }
                if steps.peek().is_some() {
                    clock = Clock::from_bits(clock.bits() + 1);
                }
            }
            commit.end()
        };
        debug_assert!(ops.len() == 1 || clock == last);
        Ok(Written {
            version: version(last),
            outranked,
            handed,
        })
    }

    /// The entry's action: under the lease where this writer holds the key.
    fn action<'a>(
        &self,
        writing: &Writing,
        op: &Op<'a>,
        condition: Condition,
    ) -> Result<Action<'a>, TableError> {
        let change = match *op {
            Op::Put {
                key,
                value,
                expires,
            } => Change::Put {
                key,
                value,
                expires,
            },
            Op::Delete { key } => Change::Delete { key },
            Op::DeleteRange { from, to } => {
                let held = writing.leases.overlapping(from, to).next();
                return match held {
                    None => Ok(Action::DeleteRange { from, to }),
                    Some((token, lease)) => Err(TableError::HeldBy {
                        holder: lease.version.writer,
                        token,
                    }),
                };
            }
        };
        match writing.leases.holder(change.key()) {
            None => Ok(Action::Change(change)),
            Some((token, holder)) if holder == self.writer => Ok(Action::Fenced {
                token,
                condition,
                change,
            }),
            Some((token, holder)) => Err(TableError::HeldBy { holder, token }),
        }
    }
}

impl Writing {
    pub(super) fn push(&mut self, entry: &TableEntry<'_>) -> Result<(), TableError> {
        self.payload.clear();
        entry.encode_to(&mut self.payload);
        self.batch.push(&self.payload)?;
        Ok(())
    }

    /// Remembers that an own change counted, in a record that is not known yet.
    fn counted(&mut self, op: &Op<'_>, table: &Table) {
        let last = self.clock.last();
        match op {
            Op::Put { key, .. } | Op::Delete { key } => match self.leases.holder(key) {
                Some((token, _)) => {
                    self.leases.counts(key, &table.writer, u64::MAX, token);
                }
                None => self.free = self.free.max(last),
            },
            Op::DeleteRange { .. } => self.free = self.free.max(last),
        }
    }
}

pub(super) fn check(op: &Op<'_>) -> Result<(), TableError> {
    match *op {
        Op::DeleteRange { from, to } if !is_range(from, to) => Err(TableError::Range),
        Op::DeleteRange { .. } => Ok(()),
        Op::Put { value, .. } if value.len() > VALUE_BYTES_MAX => {
            Err(TableError::Value { found: value.len() })
        }
        Op::Put { key, .. } | Op::Delete { key } if key.len() > KEY_BYTES_MAX => {
            Err(TableError::Key { found: key.len() })
        }
        Op::Put { key, .. } | Op::Delete { key } => {
            split_key(key).map_or(Err(TableError::Bucket), |_| Ok(()))
        }
    }
}

/// The cell that a put or a delete leaves.
fn cell<'a>(op: &Op<'a>, version: Version) -> Option<Cell<'a>> {
    let (key, content) = match *op {
        Op::Put {
            key,
            value: bytes,
            expires,
        } => (key, Content::Value { bytes, expires }),
        Op::Delete { key } => (key, Content::Deleted),
        Op::DeleteRange { .. } => return None,
    };
    Some(Cell {
        key,
        version,
        content,
    })
}
