//! Segment files: how a replica lays opaque records on a disk that may tear, lose and rot.
//!
//! ```text
//! header (65 B)                            frames                                       end
//! ┌──────┬───┬─────────┬─────────┬───────┬──────┬─────┐ ┌────┬───────┐ ┌────┬───────┐ ┌───────────┐
//! │ bldS │ 1 │ capsule │ segment │ first │ salt │ crc │ │head│payload│ │head│payload│ │ seal │ 0 0│
//! └──────┴───┴─────────┴─────────┴───────┴──────┴─────┘ └─┬──┴───────┘ └────┴───────┘ └───────────┘
//!                     u32 length ‖ u32 ordinal ‖ u32 durable ‖ u32 head crc ‖ u32 frame crc
//! ```
//!
//! In: the bytes of one file. Out: its frames in order, and one [`End`] that says why they stop.
//!
//! Always true: every checksum continues the header's, and with it capsule, segment number and a
//! salt that no writer of records knows; the head names the frame's place. So a stale, moved or
//! copied frame never passes, nor does one that hides inside a record. A length is used only after
//! the head's own checksum held. Nothing here panics on any input or allocates.
//!
//! **Torn or damaged?** Pages reach a disk in any order, so after a power cut an intact frame may
//! stand behind a hole, and that is no damage. Each head therefore says up to where the file was
//! *durable* when it was written. A bad frame is damage ([`End::Damaged`]) exactly when a later
//! head, or the seal, proves that it had been synced; otherwise nobody was promised anything at or
//! behind it, and it is a torn tail ([`End::Torn`]). What no file can tell of itself is rot in the
//! very last synced group, and a file that is gone: the replica's checkpoint reveals both.
//!
//! Cost: 20 bytes and one CRC-32C pass (SSE 4.2, about 10 GB/s) a frame. A bad frame costs one scan
//! of the rest: heads only, 16 bytes each, linear whatever the payloads contain.
//!
//! Not here: files, syncing, cutting (`host/store`). CRC is against accidents; against people the
//! records carry signatures.

use crc32c::{crc32c, crc32c_append};

/// The longest payload of a frame: a record (1 MiB body) with its header and signatures.
pub const FRAME_BYTES_MAX: usize = 1_200_000;

/// A segment takes no further frame once it is this long: recovery reads one file at a time.
pub const SEGMENT_BYTES_MAX: usize = 64 << 20;

/// A segment takes no further frame once it holds this many: the seal's table stays below 4.2 MB.
pub const SEGMENT_FRAMES_MAX: usize = 1 << 20;

/// Bytes of a segment's header.
pub const SEGMENT_HEADER_BYTES: usize = 65;

/// Bytes of a frame's head.
pub const FRAME_HEAD_BYTES: usize = 20;

/// The longest segment file: full but for one byte, one longest frame more, the longest seal.
pub const SEGMENT_FILE_BYTES_MAX: usize = SEGMENT_BYTES_MAX
    + FRAME_HEAD_BYTES
    + FRAME_BYTES_MAX
    + FRAME_HEAD_BYTES
    + 4 * (SEGMENT_FRAMES_MAX + 1);

const _: () = assert!(
    SEGMENT_FILE_BYTES_MAX < SEALED as usize,
    "an offset fits its field"
);

const MAGIC: [u8; 5] = *b"bldS\x01";

/// In place of `durable`: this frame is the seal.
const SEALED: u32 = u32::MAX;

/// What a segment says of itself; the first bytes of its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Name of the capsule whose records these are.
    pub capsule: [u8; 32],
    /// Number of this segment, from 0, without gaps.
    pub segment: u64,
    /// Index of its first frame, counted over all segments of the replica.
    pub first: u64,
    /// Random, chosen by the replica and told to nobody: a record cannot contain a frame that fits.
    pub salt: [u8; 8],
}

/// The first bytes of a file are not the header of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SegmentHeaderError {
    /// Another kind of file, or another version of this one.
    #[error("not a segment file of version 1")]
    Unknown,
    /// Too short, or altered since it was written.
    #[error("the header is cut short or altered")]
    Altered,
}

/// One record as it stands in its segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Index of the record, counted over all segments of the replica.
    pub index: u64,
    /// Where its head begins, from the start of the file.
    pub offset: u32,
    /// The record.
    pub payload: &'a [u8],
}

/// Why there are no more frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The bytes end exactly behind a frame.
    Clean {
        /// Where the next frame belongs.
        offset: u32,
    },
    /// Only zeros follow: space that was set aside.
    Preallocated {
        /// Where the next frame belongs.
        offset: u32,
    },
    /// A frame that was never synced did not arrive whole: cut here, nothing acknowledged is lost.
    Torn {
        /// Where the file is to be cut.
        offset: u32,
        /// What is wrong there.
        why: Flaw,
    },
    /// Bytes that had been synced have changed: a fault of the disk, or of whoever wrote to it.
    Damaged {
        /// Where the bad frame begins.
        offset: u32,
        /// The record that belongs there.
        index: u64,
        /// What is wrong there.
        why: Flaw,
    },
    /// The segment is complete and takes no more frames.
    Sealed {
        /// Where the seal begins.
        offset: u32,
        /// Index of the first frame of the next segment.
        next: u64,
    },
}

/// What is wrong with a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// The bytes end inside it.
    Short,
    /// Its head is not one that was written for this place.
    Head,
    /// Its head holds, its payload is not what was written.
    Payload,
    /// Something other than zeros follows the seal.
    BehindSeal,
}

/// The fields of a head whose checksum held.
#[derive(Clone, Copy)]
struct Head {
    length: u32,
    ordinal: u32,
    durable: u32,
    checksum: u32,
}

impl SegmentHeader {
    /// The header as the first bytes of a file.
    #[must_use]
    pub fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut out = [0; SEGMENT_HEADER_BYTES];
        out[..5].copy_from_slice(&MAGIC);
        out[5..37].copy_from_slice(&self.capsule);
        out[37..45].copy_from_slice(&self.segment.to_be_bytes());
        out[45..53].copy_from_slice(&self.first.to_be_bytes());
        out[53..61].copy_from_slice(&self.salt);
        let checksum = crc32c(&out[..61]);
        out[61..].copy_from_slice(&checksum.to_be_bytes());
        out
    }

    /// Reads the header of a segment file; further bytes may follow.
    ///
    /// # Errors
    /// When the file is something else, or its first bytes have changed.
    pub fn parse(bytes: &[u8]) -> Result<Self, SegmentHeaderError> {
        let Some(bytes) = bytes.first_chunk::<SEGMENT_HEADER_BYTES>() else {
            return Err(SegmentHeaderError::Altered);
        };
        if bytes[..5] != MAGIC {
            return Err(SegmentHeaderError::Unknown);
        }
        let header = Self {
            capsule: part(bytes, 5),
            segment: u64::from_be_bytes(part(bytes, 37)),
            first: u64::from_be_bytes(part(bytes, 45)),
            salt: part(bytes, 53),
        };
        // Also refuses a checksum that does not fit: encoding is the one form.
        if header.encode() != *bytes {
            return Err(SegmentHeaderError::Altered);
        }
        Ok(header)
    }

    /// The head to write before `payload`, which becomes frame number `ordinal` of this segment.
    ///
    /// `durable` is how much of the file, from its start, is known to be synced at this moment.
    ///
    /// # Panics
    /// When `payload` is empty or longer than [`FRAME_BYTES_MAX`]: the caller has checked its record.
    #[must_use]
    pub fn frame_head(&self, ordinal: u32, durable: u32, payload: &[u8]) -> [u8; FRAME_HEAD_BYTES] {
        assert!(!payload.is_empty(), "an empty frame would read as zeros");
        assert!(payload.len() <= FRAME_BYTES_MAX, "the frame is too long");
        self.head(ordinal, durable, payload)
    }

    /// The seal of a full segment, to be written at `offset` once everything before it is synced.
    ///
    /// It repeats where each frame begins, so that the segment opens from its last bytes alone:
    /// the last four are `offset`.
    ///
    /// # Panics
    /// When there are more than [`SEGMENT_FRAMES_MAX`] offsets.
    #[must_use]
    pub fn seal(&self, offsets: &[u32], offset: u32) -> Vec<u8> {
        assert!(offsets.len() <= SEGMENT_FRAMES_MAX, "too many frames");
        let mut table = Vec::with_capacity(4 * (offsets.len() + 1));
        for at in offsets.iter().chain([&offset]) {
            table.extend_from_slice(&at.to_be_bytes());
        }
        let count = u32::try_from(offsets.len()).unwrap_or(u32::MAX);
        let mut out = self.head(count, SEALED, &table).to_vec();
        out.append(&mut table);
        out
    }

    /// Reads where each frame of a sealed segment begins from `bytes`, the file from `offset` on.
    ///
    /// `None` when that is not the seal of this segment, written for that place.
    #[must_use]
    pub fn parse_seal(&self, bytes: &[u8], offset: u32) -> Option<Vec<u32>> {
        let head = self.parse_head(bytes, offset)?;
        let table = bytes.get(FRAME_HEAD_BYTES..)?;
        if !head.is_seal() || table.len() != head.length as usize {
            return None;
        }
        if !head.covers(bytes) || table.last_chunk() != Some(&offset.to_be_bytes()) {
            return None;
        }
        let mut offsets: Vec<u32> = table
            .as_chunks()
            .0
            .iter()
            .map(|at| u32::from_be_bytes(*at))
            .collect();
        let rising = offsets.windows(2).all(|pair| pair[0] < pair[1]);
        let behind_header = offsets[0] as usize >= SEGMENT_HEADER_BYTES;
        offsets.pop();
        (rising && behind_header).then_some(offsets)
    }

    /// Reads the one frame that `bytes` consist of, `index` of the replica, found at `offset`.
    ///
    /// # Errors
    /// What is wrong with it, when it is not exactly what was written for that place.
    pub fn parse_frame<'a>(
        &self,
        bytes: &'a [u8],
        index: u64,
        offset: u32,
    ) -> Result<Frame<'a>, Flaw> {
        let head = self.parse_head(bytes, offset).ok_or(Flaw::Head)?;
        if head.is_seal() || index.checked_sub(self.first) != Some(u64::from(head.ordinal)) {
            return Err(Flaw::Head);
        }
        if bytes.len() != head.frame_bytes() {
            return Err(Flaw::Short);
        }
        if !head.covers(bytes) {
            return Err(Flaw::Payload);
        }
        let payload = &bytes[FRAME_HEAD_BYTES..];
        Ok(Frame {
            index,
            offset,
            payload,
        })
    }

    /// The frames of `file`, whose header this is.
    #[must_use]
    pub fn frames<'a>(&self, file: &'a [u8]) -> Frames<'a> {
        // What is longer than any segment is not one; the excess is not looked at.
        let bytes = &file[..file.len().min(SEGMENT_FILE_BYTES_MAX)];
        Frames {
            header: *self,
            bytes,
            at: SEGMENT_HEADER_BYTES.min(bytes.len()),
            ordinal: 0,
            end: None,
            behind: 0,
            skipped: false,
        }
    }

    fn head(&self, ordinal: u32, durable: u32, payload: &[u8]) -> [u8; FRAME_HEAD_BYTES] {
        let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        let mut out = [0; FRAME_HEAD_BYTES];
        out[..4].copy_from_slice(&length.to_be_bytes());
        out[4..8].copy_from_slice(&ordinal.to_be_bytes());
        out[8..12].copy_from_slice(&durable.to_be_bytes());
        let checksum = crc32c_append(self.checksum(), &out[..12]);
        out[12..16].copy_from_slice(&checksum.to_be_bytes());
        out[16..].copy_from_slice(&crc32c_append(checksum, payload).to_be_bytes());
        out
    }

    /// The head at the start of `bytes`, if it is one that was written into this segment.
    fn parse_head(&self, bytes: &[u8], offset: u32) -> Option<Head> {
        Head::parse(bytes.first_chunk()?, offset, self.checksum())
    }

    fn checksum(&self) -> u32 {
        u32::from_be_bytes(part(&self.encode(), 61))
    }
}

impl Head {
    /// Bounds first: they refuse nearly everything that is no head before any checksum is computed.
    fn parse(bytes: &[u8; FRAME_HEAD_BYTES], offset: u32, start: u32) -> Option<Self> {
        let head = Self {
            length: u32::from_be_bytes(part(bytes, 0)),
            ordinal: u32::from_be_bytes(part(bytes, 4)),
            durable: u32::from_be_bytes(part(bytes, 8)),
            checksum: u32::from_be_bytes(part(bytes, 12)),
        };
        let plausible = if head.is_seal() {
            head.ordinal as usize <= SEGMENT_FRAMES_MAX && head.length == 4 * (head.ordinal + 1)
        } else {
            head.length != 0
                && head.length as usize <= FRAME_BYTES_MAX
                && (head.ordinal as usize) < SEGMENT_FRAMES_MAX
                && head.durable <= offset
        };
        (plausible && crc32c_append(start, &bytes[..12]) == head.checksum).then_some(head)
    }

    fn is_seal(&self) -> bool {
        self.durable == SEALED
    }

    fn frame_bytes(&self) -> usize {
        FRAME_HEAD_BYTES + self.length as usize
    }

    /// Does the frame checksum hold over the payload that follows in `bytes`?
    fn covers(&self, bytes: &[u8]) -> bool {
        let Some(payload) = bytes.get(FRAME_HEAD_BYTES..self.frame_bytes()) else {
            return false;
        };
        bytes[16..20] == crc32c_append(self.checksum, payload).to_be_bytes()
    }
}

/// The frames of one segment file, in order. See [`SegmentHeader::frames`].
#[derive(Debug, Clone)]
pub struct Frames<'a> {
    header: SegmentHeader,
    bytes: &'a [u8],
    at: usize,
    ordinal: u32,
    end: Option<End>,
    /// Where to look for the next frame, when the one at `at` is bad.
    behind: usize,
    /// Bad frames were skipped: where the frames before lie is no longer known.
    skipped: bool,
}

impl Frames<'_> {
    /// Why the iterator ended; `None` while it has not.
    #[must_use]
    pub fn end(&self) -> Option<End> {
        self.end
    }

    /// Goes on behind the bad frame at which the iterator ended, for those who salvage or scrub.
    ///
    /// Returns how many frames are skipped, or `None` when no intact head of this segment follows.
    pub fn resume(&mut self) -> Option<u32> {
        let (Some(End::Damaged { .. } | End::Torn { .. }), Some((at, head))) =
            (self.end, self.find_head(self.behind))
        else {
            return None;
        };
        let skipped = head.ordinal - self.ordinal;
        (self.at, self.ordinal, self.end) = (at, head.ordinal, None);
        self.skipped = true;
        Some(skipped)
    }

    /// The next head at or behind `from` that was written into this segment for a later frame.
    fn find_head(&self, from: usize) -> Option<(usize, Head)> {
        let start = self.header.checksum();
        let rest = self.bytes.get(from..)?;
        rest.windows(FRAME_HEAD_BYTES)
            .zip(from..)
            .find_map(|(window, at)| {
                let head = Head::parse(window.first_chunk()?, offset(at), start)?;
                (head.ordinal >= self.ordinal).then_some((at, head))
            })
    }

    /// Does anything behind the bad frame prove that it had been synced?
    fn was_durable(&self) -> bool {
        let mut from = self.behind;
        while let Some((at, head)) = self.find_head(from) {
            // The seal is written only after everything before it was synced.
            if head.durable > offset(self.at) {
                return true;
            }
            from = at + head.frame_bytes();
        }
        false
    }

    /// Whether a seal at this place names every frame before it, and itself; no frame was skipped.
    fn lists_the_frames(&self, table: &[u8]) -> bool {
        let mut at = SEGMENT_HEADER_BYTES;
        let offsets = table.as_chunks().0;
        for (index, listed) in offsets.iter().enumerate() {
            if u32::from_be_bytes(*listed) != offset(at) {
                return false;
            }
            if index + 1 < offsets.len() {
                at += FRAME_HEAD_BYTES + u32::from_be_bytes(part(self.bytes, at)) as usize;
            }
        }
        at == self.at
    }

    fn stop(&mut self, end: End) {
        self.end = Some(end);
    }

    fn stop_at_flaw(&mut self, why: Flaw, behind: usize) {
        self.behind = behind;
        let offset = offset(self.at);
        let end = if self.was_durable() {
            let index = self.header.first.saturating_add(self.ordinal.into());
            End::Damaged { offset, index, why }
        } else {
            End::Torn { offset, why }
        };
        self.stop(end);
    }

    fn stop_at_seal(&mut self, bytes: usize) {
        let here = offset(self.at);
        let next = self.header.first.saturating_add(self.ordinal.into());
        let behind = self.at + bytes;
        if !all_zero(&self.bytes[behind..]) {
            self.behind = self.bytes.len();
            let (offset, why) = (offset(behind), Flaw::BehindSeal);
            return self.stop(End::Damaged {
                offset,
                index: next,
                why,
            });
        }
        self.stop(End::Sealed { offset: here, next });
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = Frame<'a>;

    fn next(&mut self) -> Option<Frame<'a>> {
        if self.end.is_some() {
            return None;
        }
        let rest = &self.bytes[self.at..];
        let here = offset(self.at);
        if rest.is_empty() {
            self.stop(End::Clean { offset: here });
            return None;
        }
        // A head never begins with zeros, so this looks at the whole rest once or at a flaw.
        if all_zero(&rest[..rest.len().min(FRAME_HEAD_BYTES)]) && all_zero(rest) {
            self.stop(End::Preallocated { offset: here });
            return None;
        }
        let head = match self.header.parse_head(rest, here) {
            Some(head) if head.ordinal == self.ordinal => head,
            _ => {
                let short = rest.len() < FRAME_HEAD_BYTES;
                self.stop_at_flaw(
                    if short { Flaw::Short } else { Flaw::Head },
                    self.at + FRAME_HEAD_BYTES,
                );
                return None;
            }
        };
        let behind = self.at + head.frame_bytes();
        if behind > self.bytes.len() {
            self.stop_at_flaw(Flaw::Short, self.bytes.len());
            return None;
        }
        if !head.covers(rest) {
            self.stop_at_flaw(Flaw::Payload, behind);
            return None;
        }
        if head.is_seal() {
            if self.skipped || self.lists_the_frames(&rest[FRAME_HEAD_BYTES..head.frame_bytes()]) {
                self.stop_at_seal(head.frame_bytes());
            } else {
                self.stop_at_flaw(Flaw::Payload, behind);
            }
            return None;
        }
        let frame = Frame {
            index: self.header.first.saturating_add(head.ordinal.into()),
            offset: here,
            payload: &rest[FRAME_HEAD_BYTES..head.frame_bytes()],
        };
        self.at = behind;
        self.ordinal += 1;
        Some(frame)
    }
}

fn all_zero(bytes: &[u8]) -> bool {
    // Whole blocks at a time, so that the compiler uses vectors: preallocated tails are long.
    let mut blocks = bytes.chunks(4096);
    blocks.all(|block| block.iter().fold(0, |all, byte| all | byte) == 0)
}

fn part<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

/// An offset as its field; every file looked at is shorter than `SEGMENT_FILE_BYTES_MAX`.
fn offset(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
