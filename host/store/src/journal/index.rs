//! Where the frames of a segment are, once it was opened; what disk and object storage share.
//!
//! In: places, and a way to fetch the bytes of a place. Out: verified records, or damage by place.
//!
//! Always true: a frame is shown only when it verifies for its very place; nothing is read into
//! memory by a length that was not verified when the segment was opened or written.

use std::ops::{ControlFlow, Range};

use bield_capsule::segment::{FRAME_HEAD_BYTES, Flaw, SEGMENT_FILE_BYTES_MAX, SegmentHeader};

use super::{Damage, Damaged, JournalError, Scrub, Visit};

/// What is known of one segment without its bytes.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) header: SegmentHeader,
    /// Where each frame begins. With [`MISSING`]: where the damage begins in which salvage lost it.
    pub(super) offsets: Vec<u32>,
    /// Where the last frame ends.
    pub(super) end: u32,
    pub(super) sealed: bool,
}

/// Set in a place that is known not to hold its frame; no file is as long as this.
pub(super) const MISSING: u32 = 1 << 31;

const _: () = assert!(
    SEGMENT_FILE_BYTES_MAX < MISSING as usize,
    "an offset leaves the bit free"
);

/// Fetched at once when records are read in order; one record may be longer.
const READ_BYTES: usize = 1 << 20;

impl Segment {
    /// Index of the first record behind this segment.
    pub(super) fn next(&self) -> u64 {
        self.header.first + self.offsets.len() as u64
    }

    /// The bytes of frame `at`.
    fn place(&self, at: usize) -> Range<u32> {
        let end = self
            .offsets
            .get(at + 1)
            .map_or(self.end, |next| next & !MISSING);
        self.offsets[at] & !MISSING..end
    }

    fn is_missing(&self, at: usize) -> bool {
        self.offsets[at] & MISSING != 0
    }

    /// Damage at `offset`, where record number `at` of this segment belongs.
    pub(super) fn damage(&self, offset: u32, at: usize, what: Damaged) -> Damage {
        let index = self.header.first + at as u64;
        Damage {
            segment: self.header.segment,
            offset: offset.into(),
            index,
            what,
        }
    }

    /// Shows the records of `range` that are in this segment; breaks when `visit` does.
    pub(super) fn read(
        &self,
        range: Range<u64>,
        mut fetch: impl FnMut(Range<u32>) -> Result<Vec<u8>, JournalError>,
        visit: &mut Visit<'_>,
    ) -> Result<ControlFlow<()>, JournalError> {
        let damaged =
            |offset, at, flaw| JournalError::Damaged(self.damage(offset, at, Damaged::Frame(flaw)));
        let mut from = range.start.saturating_sub(self.header.first) as usize;
        let until = (range.end.min(self.next()) - self.header.first) as usize;
        while from < until {
            let run = self.run(from..until);
            let Some(last) = run.clone().next_back() else {
                return Err(damaged(self.place(from).start, from, Flaw::Head));
            };
            let start = self.offsets[from];
            let bytes = fetch(start..self.place(last).end)?;
            for at in run.clone() {
                let place = self.place(at);
                let frame = bytes.get((place.start - start) as usize..(place.end - start) as usize);
                let index = self.header.first + at as u64;
                let frame = frame
                    .ok_or(Flaw::Short)
                    .and_then(|frame| self.header.parse_frame(frame, index, place.start))
                    .map_err(|flaw| damaged(place.start, at, flaw))?;
                if visit(index, frame.payload).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
            from = run.end;
        }
        Ok(ControlFlow::Continue(()))
    }

    /// The longest run of frames from the start of `range` that is fetched at once.
    fn run(&self, range: Range<usize>) -> Range<usize> {
        let start = self.offsets[range.start];
        let fits = |at: &usize| {
            let alone = *at == range.start;
            !self.is_missing(*at) && (alone || (self.place(*at).end - start) as usize <= READ_BYTES)
        };
        range.start..range.start + range.clone().take_while(fits).count()
    }

    /// What is still as it was in `bytes`, the whole segment read again.
    pub(super) fn examine(&self, bytes: &[u8]) -> Scrub {
        let mut found = Scrub::default();
        if SegmentHeader::parse(bytes) != Ok(self.header) {
            found.damage.push(self.damage(0, 0, Damaged::Header));
        }
        for (at, index) in (0..self.offsets.len()).zip(self.header.first..) {
            let place = self.place(at);
            let flaw = match bytes.get(place.start as usize..place.end as usize) {
                _ if self.is_missing(at) => Some(Flaw::Head),
                Some(frame) => self.header.parse_frame(frame, index, place.start).err(),
                None => Some(Flaw::Short),
            };
            match flaw {
                Some(flaw) => found
                    .damage
                    .push(self.damage(place.start, at, Damaged::Frame(flaw))),
                None => found.intact += 1,
            }
        }
        let seal = bytes.get(self.end as usize..).unwrap_or_default();
        let whole = self.header.parse_seal(seal, self.end);
        if self.sealed && whole.is_none_or(|whole| whole.len() != self.offsets.len()) {
            found
                .damage
                .push(self.damage(self.end, self.offsets.len(), Damaged::Seal));
        }
        found
    }

    /// What a scrub says of a segment that is not there.
    pub(super) fn gone(&self) -> Scrub {
        Scrub {
            intact: 0,
            damage: vec![self.damage(0, 0, Damaged::Gone)],
        }
    }
}

/// Shows the records of `range`, segment by segment.
pub(super) fn read<'s>(
    segments: &'s [Segment],
    range: Range<u64>,
    visit: &mut Visit<'_>,
    read_segment: impl Fn(
        &'s Segment,
        Range<u64>,
        &mut Visit<'_>,
    ) -> Result<ControlFlow<()>, JournalError>,
) -> Result<(), JournalError> {
    let len = segments.last().map_or(0, Segment::next);
    if range.end > len && range.start < range.end {
        let index = range.start.max(len);
        return Err(JournalError::Absent { index, len });
    }
    let skipped = segments.partition_point(|segment| segment.next() <= range.start);
    let mut at = range.start;
    for segment in &segments[skipped..] {
        if at >= range.end {
            break;
        }
        if segment.header.first > at {
            // Only in salvage: what was before this segment is gone.
            let mut damage = segment.damage(0, 0, Damaged::Gone);
            damage.index = at;
            return Err(JournalError::Damaged(damage));
        }
        if read_segment(segment, at..range.end, visit)?.is_break() {
            break;
        }
        at = segment.next();
    }
    Ok(())
}

/// The length of one record, without its head.
pub(super) fn record_bytes(segments: &[Segment], index: u64) -> Option<usize> {
    let at = segments.partition_point(|segment| segment.next() <= index);
    let segment = segments.get(at)?;
    let at = usize::try_from(index.checked_sub(segment.header.first)?).ok()?;
    (!segment.is_missing(at)).then(|| segment.place(at).len() - FRAME_HEAD_BYTES)
}
