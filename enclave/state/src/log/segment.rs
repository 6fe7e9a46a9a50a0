//! The file that records are written to.
//!
//! In: frames to add. Out: bytes at their places, and how much of the file is synced, which each frame
//! repeats so that a reader can tell what was promised from what was not.

use bield_capsule::segment::{SEGMENT_BYTES_MAX, SEGMENT_FRAMES_MAX, SegmentHeader};
use bield_capsule::{CapsuleName, Received, SegmentStart};
use bield_ledger::FilesError;
use rand_core::CryptoRng;

use super::chain::Segment;
use crate::disk::Disk;

/// A segment file under its writer's hands.
pub(crate) struct SegmentFile {
    disk: Disk,
    segment: Segment,
    header: SegmentHeader,
    bytes: u64,
    durable: u64,
    frames: u32,
}

impl SegmentFile {
    /// Makes a file that holds these records, durable.
    pub(crate) fn create(
        disk: &Disk,
        name: String,
        start: &SegmentStart,
        records: &[&Received],
        entropy: &mut impl CryptoRng,
    ) -> Result<Self, FilesError> {
        let header = SegmentHeader {
            capsule: *CapsuleName::as_bytes(&start.capsule),
            segment: start.first,
            first: 0,
            salt: salt(entropy),
        };
        let mut file = Self {
            disk: disk.clone(),
            segment: Segment {
                name,
                first: start.first,
            },
            header,
            bytes: 0,
            durable: 0,
            frames: 0,
        };
        let mut bytes = header.encode().to_vec();
        file.frame(&start.encode(), &mut bytes);
        for record in records {
            file.frame(record.as_bytes(), &mut bytes);
        }
        file.disk.append(&file.segment.name, 0, &bytes)?;
        (file.bytes, file.durable) = (bytes.len() as u64, bytes.len() as u64);
        Ok(file)
    }

    /// Adds a record; durable together with all before it where that is asked for.
    pub(crate) fn add(&mut self, record: &Received, durably: bool) -> Result<(), FilesError> {
        let mut bytes = Vec::with_capacity(record.as_bytes().len() + 32);
        self.frame(record.as_bytes(), &mut bytes);
        let name = &self.segment.name;
        match durably {
            true => self.disk.append(name, self.bytes, &bytes)?,
            false => self.disk.write(name, self.bytes, &bytes)?,
        }
        self.bytes += bytes.len() as u64;
        if durably {
            self.durable = self.bytes;
        }
        Ok(())
    }

    /// Makes durable what is there.
    pub(crate) fn sync(&mut self) -> Result<(), FilesError> {
        if self.durable < self.bytes {
            self.disk.append(&self.segment.name, self.bytes, &[])?;
            self.durable = self.bytes;
        }
        Ok(())
    }

    /// Whether no further record belongs here.
    pub(crate) const fn is_full(&self) -> bool {
        self.bytes >= SEGMENT_BYTES_MAX as u64 || self.frames as usize >= SEGMENT_FRAMES_MAX
    }

    pub(crate) fn into_segment(self) -> Segment {
        self.segment
    }

    fn frame(&mut self, payload: &[u8], out: &mut Vec<u8>) {
        // A segment that is not full is shorter than 2^32.
        let durable = u32::try_from(self.durable).unwrap_or(0);
        let head = self.header.frame_head(self.frames, durable, payload);
        out.extend_from_slice(&head);
        out.extend_from_slice(payload);
        self.frames += 1;
    }
}

fn salt(entropy: &mut impl CryptoRng) -> [u8; 8] {
    let mut salt = [0; 8];
    entropy.fill_bytes(&mut salt);
    salt
}
