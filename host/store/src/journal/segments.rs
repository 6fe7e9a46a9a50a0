//! A journal of segment files (spec 06, segment files).
//!
//! ```text
//! 00000000000000000000.segment   sealed: header, frames, table of their places
//! 00000000000000000001.segment   open: header, frames, zeros set aside
//! 00000000000000000002.new       being made: gets its name when it is whole and synced
//! lock                           held by the owning process
//! ```
//!
//! One group costs one vectored write; one sync costs one `fdatasync`. Between two groups the file
//! does not grow: zeros are written ahead, so a sync has no length or block map to write. Measured
//! on this class of machine (ext4, 4 KiB a sync, p50): zeros ahead 1, `posix_fallocate` 1.7, growing
//! the file 1.8 to 3.2 by run. 16 records of 4 KiB in all, appended and synced, cost 1.0 of a bare
//! preallocated write with `fdatasync`. Zeros are set aside 256 KiB at first, then as much again as there is, up to 4 MiB:
//! a small capsule stays small. A group that is itself large is not preceded by zeros, so bulk
//! loading writes each byte once.
//!
//! Memory: 4 bytes a record, for its place. A full segment is sealed and never written again; a
//! rolled segment costs three syncs and a directory sync, once in 64 MiB.

use std::io::{self, IoSlice};
use std::ops::{ControlFlow, Range};

use bield_capsule::segment::{
    FRAME_HEAD_BYTES, SEGMENT_FRAMES_MAX, SEGMENT_HEADER_BYTES, SegmentHeader,
};

use super::index::{self, Segment};
use super::recovery::{Mode, Options, Recovered};
use super::{
    Damaged, Journal, JournalError, Scrub, Visit, check_records, draw_salt, failing, lacks,
};
use crate::disk::{Disk, DiskFile, read_exact, write_all};

/// A [`Journal`] of segment files on a [`Disk`]. See the module's text.
#[derive(Debug)]
pub struct SegmentJournal<D: Disk> {
    pub(super) disk: D,
    pub(super) capsule: [u8; 32],
    pub(super) options: Options,
    pub(super) segments: Vec<Segment>,
    pub(super) tail: Option<Tail<D::File>>,
    pub(super) recovered: Recovered,
    /// An earlier call left the disk in a state that only opening anew can tell.
    pub(super) stopped: bool,
}

/// The file of the last segment, unless that is sealed.
#[derive(Debug)]
pub(super) struct Tail<F> {
    pub(super) file: F,
    /// Its length: frames, then zeros.
    pub(super) allocated: u32,
    /// How much of it, from the start, is synced.
    pub(super) durable: u32,
}

/// Zeros set aside at first: what the smallest capsule costs on disk.
const AHEAD_BYTES_MIN: u32 = 256 << 10;

/// Zeros set aside at once: one sync in hundreds pays for them, some milliseconds.
const AHEAD_BYTES_MAX: u32 = 4 << 20;

pub(super) fn segment_name(number: u64) -> String {
    format!("{number:020}.segment")
}

impl<D: Disk> SegmentJournal<D> {
    /// What opening found and did.
    #[must_use]
    pub fn recovered(&self) -> &Recovered {
        &self.recovered
    }

    /// How many segments there are.
    #[must_use]
    pub fn segments(&self) -> usize {
        self.segments.len()
    }

    /// Reads one segment again, by its position from 0, and reports its damage.
    ///
    /// # Errors
    /// When reading fails; damage is no error here.
    pub fn scrub_segment(&self, position: usize) -> Result<Scrub, JournalError> {
        let Some(segment) = self.segments.get(position) else {
            return Ok(Scrub::default());
        };
        let name = segment_name(segment.header.segment);
        let file = match self.disk.open(&name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(segment.gone()),
            other => other.map_err(failing("opening", &name))?,
        };
        file.forget_cached();
        let mut bytes = Vec::new();
        super::recovery::read_file(&file, &name, &mut bytes)?;
        let mut found = segment.examine(&bytes);
        let rest = bytes.get(segment.end as usize..).unwrap_or_default();
        if !segment.sealed && self.tail.is_some() && rest.iter().any(|byte| *byte != 0) {
            found
                .damage
                .push(segment.damage(segment.end, segment.offsets.len(), Damaged::Rest));
        }
        Ok(found)
    }

    /// Runs `act` on the open journal; whatever fails inside it stops the journal.
    fn stopping<T>(
        &mut self,
        act: impl FnOnce(&mut Self) -> Result<T, JournalError>,
    ) -> Result<T, JournalError> {
        let done = act(self);
        self.stopped |= done.is_err();
        done
    }

    fn check_open(&self) -> Result<(), JournalError> {
        match (self.options.mode, self.stopped) {
            (Mode::Salvage, _) => Err(JournalError::ReadOnly),
            (Mode::Own, true) => Err(JournalError::Stopped),
            (Mode::Own, false) => Ok(()),
        }
    }

    /// Makes room for at least one frame: the first segment, or the next one when this is full.
    ///
    /// Everything that needs space comes first, so that a full disk changes nothing.
    fn roll(&mut self) -> Result<(), JournalError> {
        let limit = self.options.segment_bytes;
        let seal = match self.segments.last() {
            Some(last) if !last.sealed => {
                if last.end < limit && last.offsets.len() < SEGMENT_FRAMES_MAX {
                    return Ok(());
                }
                Some(last.header.seal(&last.offsets, last.end))
            }
            _ => None,
        };
        if let Some(seal) = &seal {
            self.set_aside(seal.len(), 0)?;
        }
        let salt = draw_salt()?;
        let header = SegmentHeader {
            capsule: self.capsule,
            segment: self
                .segments
                .last()
                .map_or(0, |last| last.header.segment + 1),
            first: self.len(),
            salt,
        };
        let fresh = format!("{:020}.new", header.segment);
        let file = self.make(&fresh, &header)?;
        self.stopping(|journal| {
            if let Some(seal) = seal {
                journal.seal(&seal)?;
            }
            let name = segment_name(header.segment);
            journal
                .disk
                .rename(&fresh, &name)
                .map_err(failing("naming", &name))?;
            journal
                .disk
                .sync_directory()
                .map_err(failing("syncing the directory for", &name))?;
            let offsets = Vec::new();
            let end = SEGMENT_HEADER_BYTES as u32;
            journal.segments.push(Segment {
                header,
                offsets,
                end,
                sealed: false,
            });
            let allocated = end.max(AHEAD_BYTES_MIN.min(limit));
            journal.tail = Some(Tail {
                file,
                allocated,
                durable: end,
            });
            Ok(())
        })
    }

    /// Makes the file of a new segment under a name that recovery ignores, and syncs it.
    fn make(&self, name: &str, header: &SegmentHeader) -> Result<D::File, JournalError> {
        let made = || {
            // Left over from an attempt for which there was no space.
            match self.disk.remove(name) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let file = self.disk.create(name)?;
            let mut first = header.encode().to_vec();
            first.resize(
                first
                    .len()
                    .max(AHEAD_BYTES_MIN.min(self.options.segment_bytes) as usize),
                0,
            );
            write_all(&file, &mut [IoSlice::new(&first)], 0)?;
            file.sync_all()?;
            Ok(file)
        };
        made().map_err(|error| no_space_or(error, failing("making", name)))
    }

    /// Completes the last segment: its frames, its seal, its length, each durable before the next.
    fn seal(&mut self, seal: &[u8]) -> Result<(), JournalError> {
        self.sync_tail()?;
        let (Some(segment), Some(tail)) = (self.segments.last_mut(), self.tail.take()) else {
            return Ok(());
        };
        let name = segment_name(segment.header.segment);
        let sealed = || {
            write_all(&tail.file, &mut [IoSlice::new(seal)], segment.end.into())?;
            tail.file
                .truncate(u64::from(segment.end) + seal.len() as u64)?;
            tail.file.sync_all()
        };
        sealed().map_err(failing("sealing", name))?;
        segment.sealed = true;
        Ok(())
    }

    /// Sees to it that the next `bytes` fall on space that the file already has, and some more.
    fn set_aside(&mut self, bytes: usize, ahead: u32) -> Result<(), JournalError> {
        let (Some(segment), Some(tail)) = (self.segments.last(), &mut self.tail) else {
            return Ok(());
        };
        let needed = segment.end as usize + bytes;
        if needed <= tail.allocated as usize {
            return Ok(());
        }
        let name = segment_name(segment.header.segment);
        let mut target = needed + ahead as usize;
        // No more than a segment takes, except what is needed now.
        target = target.min(needed.max(self.options.segment_bytes as usize));
        let zeros = vec![0; (target - tail.allocated as usize).min(ZEROS_BYTES)];
        while (tail.allocated as usize) < target {
            let part = &zeros[..zeros.len().min(target - tail.allocated as usize)];
            write_all(&tail.file, &mut [IoSlice::new(part)], tail.allocated.into())
                .map_err(|error| no_space_or(error, failing("extending", &name)))?;
            tail.allocated += part.len() as u32;
        }
        Ok(())
    }

    /// Writes as many of `records` as the last segment takes; returns how many.
    fn append_piece(&mut self, records: &[&[u8]]) -> Result<usize, JournalError> {
        let limit = self.options.segment_bytes as usize;
        let (mut bytes, mut count) = (0, 0);
        let segment = self.segments.last().expect("roll made one");
        let (end, taken) = (segment.end as usize, segment.offsets.len());
        for record in records {
            if end + bytes >= limit || taken + count >= SEGMENT_FRAMES_MAX {
                break;
            }
            bytes += FRAME_HEAD_BYTES + record.len();
            count += 1;
        }
        let records = &records[..count];
        let ahead = match bytes as u32 {
            small if small < AHEAD_BYTES_MIN => segment.end.clamp(AHEAD_BYTES_MIN, AHEAD_BYTES_MAX),
            _ => 0,
        };
        self.set_aside(bytes, ahead)?;
        self.stopping(|journal| {
            let segment = journal.segments.last_mut().expect("roll made one");
            let tail = journal.tail.as_ref().expect("roll made one");
            let ordinals = segment.offsets.len() as u32..;
            let heads: Vec<_> = ordinals
                .zip(records)
                .map(|(ordinal, record)| segment.header.frame_head(ordinal, tail.durable, record))
                .collect();
            let mut parts: Vec<IoSlice<'_>> = Vec::with_capacity(2 * count);
            for (head, record) in heads.iter().zip(records) {
                parts.push(IoSlice::new(head));
                parts.push(IoSlice::new(record));
            }
            write_all(&tail.file, &mut parts, segment.end.into())
                .map_err(failing("appending", segment_name(segment.header.segment)))?;
            for record in records {
                segment.offsets.push(segment.end);
                segment.end += (FRAME_HEAD_BYTES + record.len()) as u32;
            }
            Ok(count)
        })
    }

    fn sync_tail(&mut self) -> Result<(), JournalError> {
        let (Some(segment), Some(tail)) = (self.segments.last(), &mut self.tail) else {
            return Ok(());
        };
        if tail.durable == segment.end {
            return Ok(());
        }
        tail.file
            .sync_data()
            .map_err(failing("syncing", segment_name(segment.header.segment)))?;
        tail.durable = segment.end;
        Ok(())
    }

    /// Shows the records of `range` that are in `segment`; breaks when `visit` does.
    fn read_segment(
        &self,
        segment: &Segment,
        range: Range<u64>,
        visit: &mut Visit<'_>,
    ) -> Result<ControlFlow<()>, JournalError> {
        let name = segment_name(segment.header.segment);
        let sealed;
        let file = match &self.tail {
            Some(tail) if !segment.sealed => &tail.file,
            _ => {
                sealed = self.disk.open(&name).map_err(failing("opening", &name))?;
                &sealed
            }
        };
        let mut bytes = Vec::new();
        let fetch = |place: Range<u32>| {
            bytes.resize(place.len(), 0);
            read_exact(file, &mut bytes, place.start.into()).map_err(failing("reading", &name))?;
            Ok(std::mem::take(&mut bytes))
        };
        segment.read(range, fetch, visit)
    }
}

/// Zeros written in one call.
const ZEROS_BYTES: usize = 256 << 10;

/// No space, or no file to be opened, before anything was changed: the errors to go on after.
fn no_space_or(error: io::Error, other: impl FnOnce(io::Error) -> JournalError) -> JournalError {
    match lacks(&error) {
        true => JournalError::NoSpace,
        false => other(error),
    }
}

impl<D: Disk> Journal for SegmentJournal<D> {
    fn append(&mut self, records: &[&[u8]]) -> Result<u64, JournalError> {
        self.check_open()?;
        check_records(records)?;
        let first = self.len();
        let mut rest = records;
        while !rest.is_empty() {
            let piece = self.roll().and_then(|()| self.append_piece(rest));
            match piece {
                Ok(count) => rest = &rest[count..],
                // Part of the group is written: "nothing was written" would be a lie.
                Err(JournalError::NoSpace) if rest.len() < records.len() => {
                    self.stopped = true;
                    let source = io::ErrorKind::StorageFull.into();
                    return Err(failing("appending", "the next segment")(source));
                }
                Err(JournalError::NoSpace) => return Err(JournalError::NoSpace),
                Err(error) => {
                    self.stopped = true;
                    return Err(error);
                }
            }
        }
        Ok(first)
    }

    fn sync(&mut self) -> Result<(), JournalError> {
        self.check_open()?;
        self.stopping(Self::sync_tail)
    }

    fn read(&self, range: Range<u64>, visit: &mut Visit<'_>) -> Result<(), JournalError> {
        index::read(&self.segments, range, visit, |segment, range, visit| {
            self.read_segment(segment, range, visit)
        })
    }

    fn len(&self) -> u64 {
        self.segments.last().map_or(0, Segment::next)
    }

    fn synced(&self) -> u64 {
        match (self.segments.last(), &self.tail) {
            (Some(last), Some(tail)) => {
                let synced = last
                    .offsets
                    .partition_point(|offset| *offset < tail.durable);
                last.header.first + synced as u64
            }
            _ => self.len(),
        }
    }

    fn bytes(&self) -> u64 {
        self.segments
            .iter()
            .map(|segment| u64::from(segment.end))
            .sum()
    }

    fn record_bytes(&self, index: u64) -> Option<usize> {
        index::record_bytes(&self.segments, index)
    }

    fn scrub(&self) -> Result<Scrub, JournalError> {
        let mut all = Scrub::default();
        for position in 0..self.segments.len() {
            let mut found = self.scrub_segment(position)?;
            all.intact += found.intact;
            all.damage.append(&mut found.damage);
        }
        Ok(all)
    }

    fn remove(self: Box<Self>) -> Result<(), JournalError> {
        if self.options.mode == Mode::Salvage {
            return Err(JournalError::ReadOnly);
        }
        super::recovery::remove(&self.disk)?;
        self.disk
            .discard()
            .map_err(failing("removing", "the directory"))
    }
}
