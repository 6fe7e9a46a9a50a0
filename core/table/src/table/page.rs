//! Pages: memory and the cold side merged, key by key.
//!
//! Always true: what memory has of a page is of one moment, for which all its shards are held still; the cold
//! side is read before and after, not while they are held. Beside the page, at most three parts of [`PageLimits::bytes`]
//! and three values are in memory.

use core::cmp::Ordering;
use core::convert::Infallible;
use std::ops::Bound;

use bield_envelope::Time;
use bield_levels::{Cell, OwnedCell, OwnedContent, RangeDelete};

use super::read::{At, newer};
use super::{Found, Page, PageLimits, Table, View};
use crate::{Most, Part, TableError};

impl Table {
    pub(super) fn page_of(
        &self,
        view: &View,
        at: &At,
        (from, to): (&[u8], &[u8]),
        after: Option<&[u8]>,
        (limits, values): (PageLimits, bool),
        now: Time,
    ) -> Result<Page, TableError> {
        let end = Bound::Excluded(to);
        let mut start = after.map_or(Bound::Included(from.to_vec()), |after| {
            Bound::Excluded(after.to_vec())
        });
        let (mut entries, mut bytes) = (Vec::new(), 0);
        let most = Most {
            cells: limits.keys.clamp(1, CHUNK),
            bytes: limits.bytes,
            values,
        };
        loop {
            let begin = as_ref(&start);
            let cold = view.cold.page(begin, end, most)?;
            let warm = self.warm(view, at, (begin, end), most);
            let whole = whole(&warm.part, &cold);
            let mut merged = Merged::new(warm.part.cells, cold.cells);
            while let Some((warmer, colder)) = merged.next_of(whole.as_deref()) {
                let Some(winner) = warm.ranges.winner(view, warmer, colder)? else {
                    continue;
                };
                let Some((key, found)) = shown(winner).filter(|(_, found)| !found.is_over(now))
                else {
                    continue;
                };
                bytes += key.len() + found.value.len();
                entries.push((key, found));
                if entries.len() >= limits.keys || bytes >= limits.bytes {
                    let after = entries.last().map(|(key, _)| key.clone());
                    return Ok(Page { entries, after });
                }
            }
            match whole {
                Some(key) => start = Bound::Excluded(key),
                None => {
                    return Ok(Page {
                        entries,
                        after: None,
                    });
                }
            }
        }
    }

    /// What memory has of a range, all of one moment.
    fn warm(
        &self,
        view: &View,
        at: &At,
        (from, to): (Bound<&[u8]>, Bound<&[u8]>),
        most: Most,
    ) -> Warm {
        let active = view.active.hold();
        let frozen = view.frozen.as_ref().map(|frozen| frozen.hold());
        let mut warm = Warm::default();
        self.sight(at, &mut |sight| {
            let all = |_: &[u8]| sight;
            let copy = |cells: &mut dyn Iterator<Item = Cell<'_>>| -> Part {
                let copied = cells.map(|cell| Ok::<_, Infallible>(most.kept(cell).to_owned()));
                most.of(copied).unwrap_or_else(|never| match never {})
            };
            let first = copy(&mut active.scan(from, to, all));
            let second = frozen
                .as_ref()
                .map(|frozen| copy(&mut frozen.scan(from, to, all)));
            warm.part = merge(first, second.unwrap_or_default());
            let memtables = [Some(&view.active), view.frozen.as_ref()];
            let ranges = memtables
                .into_iter()
                .flatten()
                .flat_map(|memtable| memtable.all_ranges());
            let seen = ranges.filter(|(range, number)| sight.sees(&range.version, *number));
            warm.ranges = WarmRanges(seen.map(|(range, _)| range).collect());
        });
        warm
    }
}

/// What memory has of a range.
#[derive(Default)]
struct Warm {
    part: Part,
    ranges: WarmRanges,
}

#[derive(Default)]
struct WarmRanges(Vec<RangeDelete>);

impl WarmRanges {
    /// The winner of two cells of one key, unless it is deleted.
    fn winner(
        &self,
        view: &View,
        warm: Option<OwnedCell>,
        cold: Option<OwnedCell>,
    ) -> Result<Option<OwnedCell>, TableError> {
        let alone = cold.is_none();
        let Some(mut cell) = newer(warm, cold) else {
            return Ok(None);
        };
        // A range delete of the cold side shows only when it is asked for the key.
        if alone
            && cell.version.clock <= view.cold_clock
            && let Some(cold) = view.cold.newest(&cell.key)?
        {
            cell = newer(Some(cell), Some(cold)).expect("one of two");
        }
        let mut over = self.0.iter().filter(|range| range.covers(&cell.key));
        let deleted = over.any(|range| cell.version < range.version)
            || matches!(cell.content, OwnedContent::Deleted);
        Ok((!deleted).then_some(cell))
    }
}

/// Two ascending lists as one, key by key.
struct Merged {
    warm: std::iter::Peekable<std::vec::IntoIter<OwnedCell>>,
    cold: std::iter::Peekable<std::vec::IntoIter<OwnedCell>>,
}

impl Merged {
    fn new(warm: Vec<OwnedCell>, cold: Vec<OwnedCell>) -> Self {
        Self {
            warm: warm.into_iter().peekable(),
            cold: cold.into_iter().peekable(),
        }
    }

    /// The next key's cells, up to `whole`.
    fn next_of(&mut self, whole: Option<&[u8]>) -> Option<(Option<OwnedCell>, Option<OwnedCell>)> {
        let (warm, cold) = (self.warm.peek(), self.cold.peek());
        let order = match (warm, cold) {
            (Some(warm), Some(cold)) => warm.key.cmp(&cold.key),
            (Some(_), None) => Ordering::Less,
            (None, _) => Ordering::Greater,
        };
        let first = if order.is_le() { warm } else { cold }?;
        if whole.is_some_and(|whole| first.key.as_slice() > whole) {
            return None;
        }
        Some((
            self.warm.next_if(|_| order.is_le()),
            self.cold.next_if(|_| order.is_ge()),
        ))
    }
}

/// Key and value of a cell; none of a deletion.
fn shown(cell: OwnedCell) -> Option<(Vec<u8>, Found)> {
    let OwnedContent::Value { bytes, expires } = cell.content else {
        return None;
    };
    let found = Found {
        value: bytes,
        version: cell.version,
        expires,
    };
    Some((cell.key, found))
}

/// The winners of two parts, as far as both are whole.
fn merge(one: Part, two: Part) -> Part {
    if two.cells.is_empty() {
        return one;
    }
    let whole = whole(&one, &two);
    let mut merged = Merged::new(one.cells, two.cells);
    let mut cells = Vec::new();
    while let Some((one, two)) = merged.next_of(whole.as_deref()) {
        cells.extend(newer(one, two));
    }
    Part {
        cells,
        more: whole.is_some(),
    }
}

/// The key up to which neither of two parts leaves anything out; `None` when that is all.
fn whole(one: &Part, two: &Part) -> Option<Vec<u8>> {
    let ends = [one.end(), two.end()];
    ends.into_iter().flatten().min().map(<[u8]>::to_vec)
}

fn as_ref(bound: &Bound<Vec<u8>>) -> Bound<&[u8]> {
    bound.as_ref().map(Vec::as_slice)
}

/// Most cells that are looked at at once.
const CHUNK: usize = 128;
