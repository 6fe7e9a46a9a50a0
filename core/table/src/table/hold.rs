//! Taking a range of keys, acknowledging an epoch, watching.

use bield_capsule::{Batch, Clock, WriterId};
use bield_envelope::Time;

use super::read::At;
use super::{Found, Table, Writing, Written, lease_cell};
use crate::key::is_range;
use crate::table::read::found;
use crate::{Action, FOLLOWS_MAX, Followed, TableEntry, TableError, Version, WatcherId};

/// The newest state of a key that a watcher learns of.
pub struct Changed {
    /// Full key.
    pub key: Vec<u8>,
    /// The write that changed it last; none when nothing is known of it any more.
    pub version: Option<Version>,
    /// Its value; none when it was deleted or has expired.
    pub found: Option<Found>,
}

/// What a watcher learns at a look.
pub struct Looked {
    /// Keys that changed, ascending.
    pub changed: Vec<Changed>,
    /// More changed than was kept: read the range again.
    pub missed: bool,
}

impl Table {
    /// Takes a range for this writer alone, from everything that was applied here on: `token` is larger
    /// than every earlier one, and given out once, by whoever grants leases. Changes of earlier holders
    /// count as far as they are here.
    ///
    /// # Errors
    /// A lease with this token or a later one is known for a part of the range; no range; or as
    /// [`Table::write`].
    pub fn take_lease<T, E: core::fmt::Display>(
        &self,
        token: u64,
        (from, to): (&[u8], &[u8]),
        now: Time,
        hand: impl FnOnce(&Batch) -> Result<T, E>,
    ) -> Result<Written<T>, TableError> {
        let long = from.len().max(to.len()) > crate::KEY_BYTES_MAX;
        if long || from >= to || from.first().is_none_or(|first| *first == 0) {
            return Err(TableError::Range);
        }
        let mut writing = self.writing();
        let known = writing.leases.overlapping(from, to);
        let follows: Vec<Followed> = known
            .take(FOLLOWS_MAX)
            .map(|(token, lease)| {
                let holder = lease.version.writer;
                Followed {
                    token,
                    holder,
                    seq: writing.through(&self.writer, &holder),
                }
            })
            .collect();
        if let Some(latest) = follows.first().filter(|latest| latest.token >= token) {
            let known = latest.token;
            return Err(TableError::Token {
                known,
                found: token,
            });
        }
        let clock = writing.clock.next(now).ok_or(TableError::Clock)?;
        let version = Version {
            clock,
            writer: self.writer,
        };
        let mut scratch = Vec::new();
        let entry = TableEntry::lease(clock, token, (from, to), &follows, &mut scratch);
        writing.batch.clear();
        writing.push(&entry)?;
        let handed = hand(&writing.batch).map_err(|error| TableError::Handed(error.to_string()))?;
        writing.handed.push_back((1, clock));
        let mut payload = Vec::new();
        entry.encode_to(&mut payload);
        if let Action::Lease(lease) = entry.action {
            // Its record comes after everything of this chain; others learn the place from it.
            let seq = writing.chains.seq(&self.writer).map_or(0, |seq| seq + 1);
            writing.leases.add(version, seq, &lease);
            let cell = lease_cell(version, token, seq, &payload);
            self.commit(&writing.active).insert_only(&cell.as_cell());
        }
        Ok(Written {
            version,
            outranked: 0,
            handed,
        })
    }

    /// Whether a part of the range was ever leased: then whoever holds it changes it, and nobody else.
    #[must_use]
    pub fn is_leased(&self, from: &[u8], to: &[u8]) -> bool {
        self.writing().leases.overlapping(from, to).next().is_some()
    }

    /// Says to all that everything in the cut of an epoch was applied here: when all members said so,
    /// what was deleted before may be forgotten ([`Table::horizon`]).
    ///
    /// # Errors
    /// As [`Table::write`].
    pub fn acknowledge<T, E: core::fmt::Display>(
        &self,
        epoch: u64,
        now: Time,
        hand: impl FnOnce(&Batch) -> Result<T, E>,
    ) -> Result<T, TableError> {
        let mut writing = self.writing();
        let clock = writing.clock.next(now).ok_or(TableError::Clock)?;
        writing.batch.clear();
        let action = Action::Acknowledge { epoch };
        writing.push(&TableEntry { clock, action })?;
        let handed = hand(&writing.batch).map_err(|error| TableError::Handed(error.to_string()))?;
        writing.handed.push_back((1, clock));
        let known = writing.acknowledged.entry(self.writer).or_default();
        *known = epoch.max(*known);
        Ok(handed)
    }

    /// The newest epoch whose cut is here whole.
    #[must_use]
    pub fn epoch(&self) -> Option<u64> {
        let writing = self.writing();
        writing.cuts.iter().map(|(epoch, _)| *epoch).max()
    }

    /// No entry with an older clock can come any more, so deletions below it may be forgotten once
    /// nothing older lies beneath them. `members` are all writers that may still write: each of them
    /// acknowledged an epoch whose cut holds a later entry of every one (`spec/07 §9`). None: not known.
    #[must_use]
    pub fn horizon(&self, members: &[WriterId]) -> Option<Clock> {
        let writing = self.writing();
        let epochs = members
            .iter()
            .map(|member| writing.acknowledged.get(member).copied());
        let all = epochs.collect::<Option<Vec<u64>>>()?.into_iter().min()?;
        let epochs = writing.cuts.iter().map(|(epoch, _)| *epoch);
        let newest = epochs.filter(|epoch| *epoch <= all).max()?;
        // Should an epoch have two cuts, what is in both.
        let cuts = writing.cuts.iter().filter(|(epoch, _)| *epoch == newest);
        let clocks = cuts.flat_map(|(_, cut)| members.iter().map(|member| cut.clock_of(member)));
        clocks.collect::<Option<Vec<Clock>>>()?.into_iter().min()
    }

    /// Begins to note which keys of a bucket's range change.
    ///
    /// # Errors
    /// No range, or too many watchers.
    pub fn watch(&self, from: &[u8], to: &[u8]) -> Result<WatcherId, TableError> {
        if !is_range(from, to) {
            return Err(TableError::Range);
        }
        self.watches.begin(from, to)
    }

    /// What changed since the last look, each key once and as it is now.
    ///
    /// # Errors
    /// No such watcher; the cold side cannot be read, and then the next look tells of it again.
    pub fn look(&self, watcher: WatcherId, now: Time) -> Result<Looked, TableError> {
        let look = self.watches.look(watcher)?;
        let mut changed = Vec::with_capacity(look.keys.len());
        for key in &look.keys {
            match self.latest(key, &At::Live(false)) {
                Ok(cell) => changed.push(Changed {
                    key: key.clone(),
                    version: cell.as_ref().map(|cell| cell.version),
                    found: cell
                        .and_then(|cell| found(&cell.as_cell()))
                        .filter(|found| !found.is_over(now)),
                }),
                Err(error) => {
                    look.keys.iter().for_each(|key| self.watches.changed(key));
                    return Err(error);
                }
            }
        }
        Ok(Looked {
            changed,
            missed: look.missed,
        })
    }

    /// Ends a watcher.
    pub fn unwatch(&self, watcher: WatcherId) {
        self.watches.end(watcher);
    }
}

impl Writing {
    /// Whether a writer holds a key, or all of a range.
    pub(super) fn held(
        &self,
        writer: &WriterId,
        from: &[u8],
        to: Option<&[u8]>,
    ) -> Result<(), TableError> {
        let held = match (to, self.leases.holder(from)) {
            (_, Some((token, holder))) if holder != *writer => {
                return Err(TableError::HeldBy { holder, token });
            }
            (None, holder) => holder.is_some(),
            (Some(to), _) => self.leases.holds(writer, from, to),
        };
        held.then_some(()).ok_or(TableError::NotHeld)
    }

    /// How far an earlier holder's changes count when `own` takes over now.
    fn through(&self, own: &WriterId, holder: &WriterId) -> u64 {
        if own == holder {
            return u64::MAX; // whatever this writer wrote under its earlier token
        }
        self.chains.seq(holder).unwrap_or(0)
    }
}
