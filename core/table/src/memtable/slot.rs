//! Every version that somebody may still ask for of one key.

use core::borrow::Borrow;
use core::cmp::Ordering;

use bield_envelope::Time;
use bield_levels::{Cell, Content, OwnedCell};
use zeroize::optimization_barrier;

use super::Placed;
use crate::Version;
use crate::cut::Cut;

/// Bytes that are wiped on drop, in an allocation of exactly their length.
pub(super) struct Bytes(pub(super) Box<[u8]>);

impl Drop for Bytes {
    fn drop(&mut self) {
        self.0.fill(0);
        optimization_barrier(&*self.0);
    }
}

/// A key of the map; compares as its bytes. A short one lies in the tree itself, so that a search does
/// not follow a pointer for each comparison.
pub(super) enum Key {
    Short(Short),
    Long(Bytes),
}

/// So many bytes of a short key count, the rest are zero.
pub(super) struct Short(u8, [u8; SHORT_BYTES]);

impl Drop for Short {
    fn drop(&mut self) {
        self.1.fill(0);
        optimization_barrier(&self.1);
    }
}

impl Key {
    pub(super) fn new(bytes: &[u8]) -> Self {
        Self::short(bytes).unwrap_or_else(|| Self::Long(Bytes(bytes.into())))
    }

    /// A key to search with, unless it is long: comparing two short ones calls nothing.
    pub(super) fn short(bytes: &[u8]) -> Option<Self> {
        let mut short = [0; SHORT_BYTES];
        short.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(Self::Short(Short(bytes.len() as u8, short)))
    }

    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Self::Short(Short(length, bytes)) => &bytes[..usize::from(*length)],
            Self::Long(bytes) => &bytes.0,
        }
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.bytes() == other.bytes()
    }
}

impl Eq for Key {}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Key {
    #[inline]
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Short(own), Self::Short(other)) => own.compare(other),
            _ => self.bytes().cmp(other.bytes()),
        }
    }
}

impl Short {
    /// As the bytes compare: zeros after the end do not come before any byte, and a key comes before all longer ones
    /// that it begins.
    #[inline]
    fn compare(&self, other: &Self) -> Ordering {
        let ((own, own_rest), (others, others_rest)) = (self.1.as_chunks(), other.1.as_chunks());
        let mut words = own.iter().zip(others).map(|(own, other)| {
            let [own, other] = [own, other].map(|bytes: &[u8; 8]| u64::from_be_bytes(*bytes));
            own.cmp(&other)
        });
        let rest = || own_rest.cmp(others_rest).then(self.0.cmp(&other.0));
        words.find(|order| order.is_ne()).unwrap_or_else(rest)
    }
}

impl Borrow<[u8]> for Key {
    fn borrow(&self) -> &[u8] {
        self.bytes()
    }
}

/// One version.
pub(super) struct Stored {
    version: Version,
    /// The commit that brought it.
    number: u64,
    /// `None`: deleted.
    value: Option<Bytes>,
    expires: Option<Time>,
}

impl Stored {
    pub(super) fn new(cell: &Cell<'_>, number: u64) -> Self {
        let (value, expires) = match cell.content {
            Content::Value { bytes, expires } => (Some(Bytes(bytes.into())), expires),
            Content::Deleted => (None, None),
        };
        Self {
            version: cell.version,
            number,
            value,
            expires,
        }
    }

    /// Becomes another version, in the memory of a value of the same length.
    fn replace(&mut self, cell: &Cell<'_>, number: u64) {
        match (&mut self.value, cell.content) {
            (Some(own), Content::Value { bytes, expires }) if own.0.len() == bytes.len() => {
                own.0.copy_from_slice(bytes);
                (self.version, self.number, self.expires) = (cell.version, number, expires);
            }
            _ => *self = Self::new(cell, number),
        }
    }

    pub(super) fn cell<'a>(&'a self, key: &'a [u8]) -> Cell<'a> {
        let content = match &self.value {
            Some(bytes) => Content::Value {
                bytes: &bytes.0,
                expires: self.expires,
            },
            None => Content::Deleted,
        };
        Cell {
            key,
            version: self.version,
            content,
        }
    }

    /// Bytes it takes beside its slot.
    fn bytes(&self) -> usize {
        self.value
            .as_ref()
            .map_or(0, |value| value.0.len() + ALLOCATION_BYTES)
    }
}

/// What a reader sees.
#[derive(Clone, Copy)]
pub(crate) struct Sight<'a> {
    /// Commits up to this one.
    pub(crate) number: u64,
    /// Of these only what is in the cut.
    pub(crate) cut: Option<&'a Cut>,
}

impl Sight<'_> {
    pub(crate) fn sees(&self, version: &Version, number: u64) -> bool {
        number <= self.number && self.cut.is_none_or(|cut| cut.includes(version))
    }
}

/// What all readers, now and later, see at least: what it hides may go.
#[derive(Clone, Copy)]
pub(crate) struct Floor<'a> {
    /// Commits up to this one.
    pub(crate) number: u64,
    /// For keys whose epochs are kept, of these only what is in the cut.
    pub(crate) cut: Option<&'a Cut>,
}

impl Floor<'_> {
    /// Whether all readers see this version, so that nobody asks for an older one.
    fn hides(&self, version: &Version, number: u64) -> bool {
        number <= self.number && self.cut.is_none_or(|cut| cut.includes(version))
    }
}

/// The versions of a key.
pub(super) struct Slot {
    newest: Stored,
    /// Ascending.
    older: Vec<Stored>,
}

impl Slot {
    pub(super) const fn new(stored: Stored) -> Self {
        Self {
            newest: stored,
            older: Vec::new(),
        }
    }

    /// The newest version of which a reader knows.
    pub(super) fn seen(&self, sight: &Sight<'_>) -> Option<&Stored> {
        let mut versions = core::iter::once(&self.newest).chain(self.older.iter().rev());
        versions.find(|stored| sight.sees(&stored.version, stored.number))
    }

    /// Versions that are not in the cut.
    pub(super) fn beyond<'a>(&'a self, cut: &'a Cut) -> impl Iterator<Item = &'a Stored> {
        let versions = core::iter::once(&self.newest).chain(&self.older);
        versions.filter(|stored| !cut.includes(&stored.version))
    }

    /// Takes a version of its key in, and drops what nobody will ask for then. What goes gives its memory to
    /// what comes: a key that is written again and again allocates nothing.
    pub(super) fn insert(&mut self, cell: &Cell<'_>, number: u64, floor: &Floor<'_>) -> Placed {
        let key = cell.key;
        if !cell.replaces(&self.newest.cell(key)) {
            let placed = self.insert_older(cell, number);
            self.prune(floor);
            return placed;
        }
        if floor.hides(&cell.version, number) {
            self.older = Vec::new();
            self.newest.replace(cell, number);
        } else if floor.hides(&self.newest.version, self.newest.number) {
            // Of what was there only the newest is still seen.
            let place = self.older.pop().map(|mut gone| {
                gone.replace(cell, number);
                gone
            });
            self.older.clear();
            self.older.reserve_exact(1);
            let newest = place.unwrap_or_else(|| Stored::new(cell, number));
            self.older
                .push(core::mem::replace(&mut self.newest, newest));
        } else {
            let newest = Stored::new(cell, number);
            self.older
                .push(core::mem::replace(&mut self.newest, newest));
            self.prune(floor);
        }
        Placed::Newest
    }

    fn insert_older(&mut self, cell: &Cell<'_>, number: u64) -> Placed {
        let key = cell.key;
        let known = |known: &Stored| known.cell(key).precedence(cell).is_eq();
        if known(&self.newest) || self.older.iter().any(known) {
            return Placed::Known;
        }
        let at = self
            .older
            .partition_point(|other| cell.replaces(&other.cell(key)));
        self.older.insert(at, Stored::new(cell, number));
        Placed::Outranked
    }

    /// Drops what nobody will ask for.
    fn prune(&mut self, floor: &Floor<'_>) {
        if self.older.is_empty() {
            return;
        }
        let hides = |stored: &Stored| floor.hides(&stored.version, stored.number);
        if hides(&self.newest) {
            self.older = Vec::new();
        } else if let Some(at) = self.older.iter().rposition(hides) {
            self.older.drain(..at);
        }
    }

    /// Bytes it takes in the map, without its key.
    pub(super) fn bytes(&self) -> usize {
        let older = self
            .older
            .iter()
            .map(|old| old.bytes() + size_of::<Stored>());
        size_of::<Self>() + self.newest.bytes() + older.sum::<usize>()
    }
}

/// Bytes that a key takes in the map.
pub(super) const fn key_bytes(key: &[u8]) -> usize {
    let apart = if key.len() > SHORT_BYTES {
        key.len() + ALLOCATION_BYTES
    } else {
        0
    };
    size_of::<Key>() + TREE_BYTES + apart
}

/// Longest key that lies in the tree: a key takes 40 bytes there.
const SHORT_BYTES: usize = 38;

/// What a tree has of empty places and pointers for each entry, a fair share, and what the slot's allocation has.
const TREE_BYTES: usize = 64;

/// What an allocator keeps beside what was asked for.
const ALLOCATION_BYTES: usize = 16;

/// A copy of what a reader sees.
pub(super) fn owned(key: &[u8], stored: &Stored) -> OwnedCell {
    stored.cell(key).to_owned()
}

#[cfg(test)]
mod tests {
    use bield_capsule::{Clock, WriterId};
    use bield_envelope::Seeded;
    use rand_core::Rng as _;

    use super::*;

    #[test]
    fn keys_compare_as_their_bytes() {
        let mut draw = Seeded::new(3);
        let mut keys: Vec<Vec<u8>> = vec![vec![], vec![0], vec![0; 8], vec![0; 9], vec![255; 38]];
        for _ in 0..400 {
            // Few different bytes, so that many begin alike.
            let length = draw.next_u64() as usize % (SHORT_BYTES + 6);
            let mut byte = || [0, 0, 0, 1, 127, 128, 255][draw.next_u64() as usize % 7];
            keys.push((0..length).map(|_| byte()).collect());
        }
        for one in &keys {
            let key = Key::new(one);
            assert_eq!(key.bytes(), one);
            assert_eq!(Key::short(one).is_some(), one.len() <= SHORT_BYTES);
            for other in &keys {
                assert_eq!(
                    key.cmp(&Key::new(other)),
                    one.cmp(other),
                    "{one:?} {other:?}"
                );
            }
        }
    }

    #[test]
    fn whoever_looks_from_the_floor_on_sees_the_newest_of_its_time_whatever_memory_is_used_again() {
        for seed in 0..200 {
            let mut draw = Seeded::new(seed);
            let mut below = move |end: u64| draw.next_u64() % end;
            let (mut slot, mut all, mut floor) = (None::<Slot>, Vec::new(), 0);
            for number in 1..40 {
                let clock = below(60) * 64 + number;
                let value = vec![number as u8; 3 + below(2) as usize];
                let cell = Cell {
                    key: b"key",
                    version: Version {
                        clock: Clock::from_bits(clock),
                        writer: WriterId::from_bytes([1; 32]),
                    },
                    content: match below(4) {
                        0 => Content::Deleted,
                        _ => Content::Value {
                            bytes: &value,
                            expires: None,
                        },
                    },
                };
                floor = floor.max(number - below(5).min(number));
                match &mut slot {
                    None => slot = Some(Slot::new(Stored::new(&cell, number))),
                    Some(slot) => {
                        let floor = Floor {
                            number: floor,
                            cut: None,
                        };
                        slot.insert(&cell, number, &floor);
                    }
                }
                all.push((clock, number, cell.to_owned()));
                let slot = slot.as_ref().unwrap();
                for reader in floor..=number {
                    let upto = all.iter().filter(|(_, number, _)| *number <= reader);
                    let newest = upto.max_by_key(|(clock, ..)| *clock);
                    let sight = Sight {
                        number: reader,
                        cut: None,
                    };
                    let seen = slot.seen(&sight).map(|stored| stored.cell(b"key"));
                    assert!(
                        seen == newest.map(|(_, _, cell)| cell.as_cell()),
                        "seed {seed}"
                    );
                }
            }
        }
    }
}
