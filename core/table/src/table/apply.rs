//! Records into the table: others', and own ones after a restart.

use std::ops::Bound;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use bield_capsule::{Applied, Clock, Entries, Header, KeyRing, Kind, WriterId};
use bield_envelope::Time;
use bield_levels::{Cell, Content, RangeDelete};

use super::{Table, View, Writing, lease_cell};
use crate::cut::Cut;
use crate::memtable::Sight;
use crate::{Action, ApplyError, Change, EntryError, Lease, Most, TableEntry, Version};

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Taken {
    /// Changes that count.
    pub changes: usize,
    /// Changes that do not: their writer's lease had ended, or another writer's had begun.
    pub fenced: usize,
    /// Entries that are not the table's.
    pub control: usize,
    /// It was here before.
    pub known: bool,
}

impl Table {
    /// Takes in a verified record: a data record's entries, a join's cut. Records of one writer in the
    /// order of its chain, of several in any; a record that was applied is applied again without effect.
    ///
    /// # Errors
    /// [`ApplyError::Fault`] counts as applied: go on after it. Nothing changed otherwise, but for
    /// [`ApplyError::Rebuild`]: this table is of no more use then.
    pub fn apply(&self, record: &Applied, keys: &KeyRing, now: Time) -> Result<Taken, ApplyError> {
        let header = record.record().header();
        let mut writing = self.writing();
        let (writer, seq) = (header.writer, header.seq);
        match writing.chains.seq(&writer) {
            Some(known) if seq <= known => {
                return Ok(Taken {
                    known: true,
                    ..Taken::default()
                });
            }
            Some(known) if seq > known + 1 => {
                let need = known + 1;
                return Err(ApplyError::Gap {
                    writer,
                    need,
                    found: seq,
                });
            }
            _ => {}
        }
        if header.kind != Kind::Data {
            writing.chains.extend(writer, seq, None);
            self.joined(&mut writing, header);
            return Ok(Taken::default());
        }
        let view = self.view();
        if self.is_full(&writing) {
            return Err(ApplyError::Busy);
        }
        let entries = record.open(keys)?;
        let checked = match checked(&entries, writing.chains.clock(&writer)) {
            Ok(checked) => checked,
            Err(rule) => {
                // spec/07 §4: it counts for nothing, and the chain goes on.
                writing.chains.extend(writer, seq, None);
                self.advance(&mut writing);
                return Err(ApplyError::Fault { writer, seq, rule });
            }
        };
        if checked.leases {
            self.take_leases(&mut writing, &view, &entries, writer, seq)?;
        }
        let mut taken = self.take(&mut writing, &entries, writer, seq);
        taken.control = entries.len() - checked.count;
        let last = checked.last;
        if let Some(last) = last {
            if writer == self.writer {
                writing.clock.restore(last);
            } else {
                writing.clock.observe(last, now);
            }
        }
        writing.chains.extend(writer, seq, last);
        self.advance(&mut writing);
        Ok(taken)
    }

    /// Takes note of an own record that was sealed, each in its order: its entries are those that were
    /// handed on first. A join is taken as if it had come from elsewhere.
    pub fn sealed(&self, header: &Header) {
        let mut writing = self.writing();
        let (mut left, mut clock) = (header.count as usize, None);
        while header.kind == Kind::Data
            && let Some((entries, last)) = writing.handed.front().copied()
            && entries <= left
        {
            writing.handed.pop_front();
            left -= entries;
            clock = Some(last);
        }
        writing.chains.extend(header.writer, header.seq, clock);
        self.joined(&mut writing, header);
    }

    fn take_leases(
        &self,
        writing: &mut Writing,
        view: &View,
        entries: &Entries,
        writer: WriterId,
        seq: u64,
    ) -> Result<(), ApplyError> {
        for (entry, payload) in table_entries(entries) {
            if let Action::Lease(lease) = entry.action {
                let version = Version {
                    clock: entry.clock,
                    writer,
                };
                self.leased(writing, view, version, seq, &lease)?;
                let cell = lease_cell(version, lease.token, seq, payload);
                self.commit(&writing.active).insert_only(&cell.as_cell());
            }
        }
        Ok(())
    }

    /// Takes in everything but leases, which come first.
    fn take(&self, writing: &mut Writing, entries: &Entries, writer: WriterId, seq: u64) -> Taken {
        let Writing {
            active,
            leases,
            free,
            acknowledged,
            ..
        } = writing;
        let (mut taken, mut commit) = (Taken::default(), self.commit(active));
        for (entry, _) in table_entries(entries) {
            let version = Version {
                clock: entry.clock,
                writer,
            };
            let counts = match entry.action {
                Action::Change(change) => {
                    let counts = leases.free(change.key(), entry.clock);
                    if counts {
                        *free = entry.clock.max(*free);
                        commit.insert(&cell(&change, version));
                    }
                    counts
                }
                Action::Fenced { token, change, .. } => {
                    let counts = leases.counts(change.key(), &writer, seq, token);
                    if counts {
                        commit.insert(&cell(&change, version));
                    }
                    counts
                }
                Action::DeleteRange { from, to } => {
                    let counts = leases.free_range(from, to, entry.clock);
                    if counts {
                        *free = entry.clock.max(*free);
                        let (from, to) = (from.to_vec(), to.to_vec());
                        commit.insert_range(RangeDelete { from, to, version });
                    }
                    counts
                }
                Action::Acknowledge { epoch } => {
                    let known = acknowledged.entry(writer).or_default();
                    *known = epoch.max(*known);
                    continue;
                }
                Action::Lease(_) => continue,
            };
            taken.changes += usize::from(counts);
            taken.fenced += usize::from(!counts);
        }
        commit.end();
        taken
    }

    /// Takes a lease in, unless it changes what was judged before.
    pub(super) fn leased(
        &self,
        writing: &mut Writing,
        view: &View,
        version: Version,
        seq: u64,
        lease: &Lease<'_>,
    ) -> Result<(), ApplyError> {
        if writing.leases.knows(lease.token, &version) {
            return Ok(());
        }
        let cut_off = lease.follows().any(|followed| {
            let covered = writing.covered.get(&followed.holder);
            covered.is_some_and(|covered| *covered > followed.seq)
        });
        let late =
            writing.free > version.clock && self.changed_since(view, lease, version.clock)?;
        let holds = writing.leases.add(version, seq, lease);
        if holds && !late && !cut_off {
            return Ok(());
        }
        Err(ApplyError::Rebuild { token: lease.token })
    }

    /// Whether something in a lease's range is newer than the lease.
    fn changed_since(
        &self,
        view: &View,
        lease: &Lease<'_>,
        clock: Clock,
    ) -> Result<bool, ApplyError> {
        let (from, to) = (Bound::Included(lease.from), Bound::Excluded(lease.to));
        let all = |_: &[u8]| Sight {
            number: u64::MAX,
            cut: None,
        };
        for memtable in [Some(&view.active), view.frozen.as_ref()]
            .into_iter()
            .flatten()
        {
            let held = memtable.hold();
            if held
                .scan(from, to, all)
                .any(|cell| cell.version.clock > clock)
            {
                return Ok(true);
            }
            let ranges = memtable.all_ranges();
            let over = |(range, _): &(RangeDelete, u64)| {
                *range.from < *lease.to && *lease.from < *range.to && range.version.clock > clock
            };
            if ranges.iter().any(over) {
                return Ok(true);
            }
        }
        if view.cold_clock <= clock {
            return Ok(false);
        }
        let mut after = from;
        let mut part;
        loop {
            part = view.cold.page(after, to, VERSIONS)?;
            if part.cells.iter().any(|cell| cell.version.clock > clock) {
                return Ok(true);
            }
            match part.end() {
                Some(last) => after = Bound::Excluded(last),
                None => return Ok(false),
            }
        }
    }

    /// Takes a join's cut in, now or when all of it is here.
    pub(super) fn joined(&self, writing: &mut Writing, header: &Header) {
        if header.kind == Kind::Join {
            let parents = header.parents.iter().map(|head| (head.writer, head.seq));
            let through = parents.chain([(header.writer, header.seq)]).collect();
            writing.joins.push_back((header.epoch, through));
            if writing.joins.len() > JOINS_MAX {
                writing.joins.pop_front();
            }
        }
        self.advance(writing);
    }

    /// Moves the cut on, as far as joins and chains allow.
    fn advance(&self, writing: &mut Writing) {
        if writing.joins.is_empty() {
            return;
        }
        let before = self.current_cut();
        let mut cut: Cut = (*before).clone();
        let Writing {
            joins,
            chains,
            cuts,
            cut_seqs,
            ..
        } = writing;
        joins.retain(|(epoch, through)| {
            let Some(whole) = chains.cut(through, &Cut::default()) else {
                return true;
            };
            cut.join(&whole);
            cuts.push_back((*epoch, Arc::new(whole)));
            for (writer, seq) in through {
                let known = cut_seqs.entry(*writer).or_default();
                *known = (*seq).max(*known);
            }
            false
        });
        while cuts.len() > CUTS_MAX {
            cuts.pop_front();
        }
        chains.forget(&cut);
        *self.cut.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(cut);
        // Readers at an epoch see another state now: a commit of its own, without cells.
        self.visible.fetch_add(1, Ordering::Release);
    }
}

/// What the entries of a record are, all of them checked.
#[derive(Default)]
struct Checked {
    /// Clock of the last one that is the table's.
    last: Option<Clock>,
    /// Those that are the table's.
    count: usize,
    /// Whether there are leases among them.
    leases: bool,
}

/// Checks every entry of a record.
fn checked(entries: &Entries, after: Clock) -> Result<Checked, EntryError> {
    let mut checked = Checked::default();
    for entry in entries.iter() {
        let payload = entry.plain().ok_or(EntryError("an erasable entry"))?;
        let Some(entry) = TableEntry::decode(payload)? else {
            continue;
        };
        if entry.clock <= checked.last.unwrap_or(after) {
            return Err(EntryError("its clock does not increase"));
        }
        checked.last = Some(entry.clock);
        checked.count += 1;
        checked.leases |= matches!(entry.action, Action::Lease(_));
    }
    Ok(checked)
}

/// The entries that are the table's, after [`checked`].
fn table_entries(entries: &Entries) -> impl Iterator<Item = (TableEntry<'_>, &[u8])> {
    (0..entries.len()).filter_map(|index| {
        let payload = entries.get(index)?.plain()?;
        Some((TableEntry::decode(payload).ok()??, payload))
    })
}

fn cell<'a>(change: &Change<'a>, version: Version) -> Cell<'a> {
    let content = match *change {
        Change::Put {
            value: bytes,
            expires,
            ..
        } => Content::Value { bytes, expires },
        Change::Delete { .. } => Content::Deleted,
    };
    Cell {
        key: change.key(),
        version,
        content,
    }
}

/// Most joins that wait for records.
const JOINS_MAX: usize = 64;
/// Most cuts that are remembered for acknowledgements.
const CUTS_MAX: usize = 64;
/// A part of the cold side for its versions alone.
const VERSIONS: Most = Most {
    cells: 256,
    bytes: 1 << 20,
    values: false,
};
