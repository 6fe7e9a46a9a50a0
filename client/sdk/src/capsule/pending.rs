//! Records that were sealed and may have left the machine, until a quorum keeps them.
//!
//! ```text
//! seal ─▶ keep: write + fdatasync ─▶ sent to replicas ─▶ a quorum synced it ─▶ settled: seen, then cut
//!                       │ crash, refusal, replicas that lie
//!                       └──────▶ next start: the same bytes are sent again before anything is sealed
//! ```
//!
//! In: records of one writer, one by one. Out: at the next start the same bytes. Always true: no record
//! leaves the machine before it is here, durably, so that this home never signs two records for one
//! position, whatever replicas say; a record is dropped only after its head is in what was seen; one
//! process at a time holds the file. A file that is damaged before its end is an error, never taken for
//! a shorter one. Not here: a disk that is set back to an earlier state and looks whole.
//!
//! Cost of a record: one write and one `fdatasync`, 36 bytes beside it.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use bield_capsule::{Head, RECORD_BYTES_MAX, Received};
use bield_envelope::Digest;

use super::home::{CapsuleHome, CapsuleHomeError};
use crate::files::FileError;

/// The right to write with one key of a home; ends when dropped.
#[derive(Debug)]
pub struct Writing {
    /// Locked as long as it is open.
    _lock: File,
    home: CapsuleHome,
    path: PathBuf,
    file: File,
    bytes: u64,
    found: Vec<Received>,
}

impl Writing {
    /// Reads what the last process left; what was cut off in the middle of a write never left the
    /// machine, and is dropped.
    pub(super) fn open(
        lock: File,
        home: CapsuleHome,
        path: PathBuf,
    ) -> Result<Self, CapsuleHomeError> {
        let at = |error| FileError::io(&path, error);
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&path).map_err(at)?;
        // The name is durable only with its directory.
        if let Some(directory) = path.parent().and_then(|path| File::open(path).ok()) {
            let _ = directory.sync_all();
        }
        let mut bytes = Vec::new();
        let read = (&mut file)
            .take(PENDING_BYTES_READ + 1)
            .read_to_end(&mut bytes);
        read.map_err(at)?;
        let damaged = || CapsuleHomeError::Pending { path: path.clone() };
        if bytes.len() as u64 > PENDING_BYTES_READ {
            return Err(damaged());
        }
        let (found, end) = parse(&bytes).ok_or_else(damaged)?;
        if end < bytes.len() {
            file.set_len(end as u64)
                .and_then(|()| file.sync_data())
                .map_err(at)?;
        }
        Ok(Self {
            _lock: lock,
            home,
            file,
            bytes: end as u64,
            found,
            path,
        })
    }

    /// Records that the last process made and no quorum is known to keep, in order.
    #[must_use]
    pub fn pending(&self) -> &[Received] {
        &self.found
    }

    /// Keeps a record durably; only then may it leave the machine.
    pub(super) fn keep(&mut self, record: &Received) -> Result<(), FileError> {
        let bytes = record.as_bytes();
        let mut frame = Vec::with_capacity(FRAME_BYTES + bytes.len());
        let length = u32::try_from(bytes.len()).expect("a record is bounded far below 4 GiB");
        frame.extend_from_slice(&length.to_be_bytes());
        frame.extend_from_slice(bytes);
        frame.extend_from_slice(digest(bytes).as_bytes());
        let written = self.file.write_all(&frame);
        written
            .and_then(|()| self.file.sync_data())
            .map_err(|error| FileError::io(&self.path, error))?;
        self.bytes += frame.len() as u64;
        Ok(())
    }

    /// Notes that a quorum keeps everything up to `head`, which is all that was kept here.
    pub(super) fn settled(&mut self, head: Head) -> Result<(), CapsuleHomeError> {
        self.home.see([head])?;
        self.drop_all()
    }

    /// Forgets what is here: a key that signs no more has nothing to repeat.
    pub(super) fn drop_all(&mut self) -> Result<(), CapsuleHomeError> {
        self.found.clear();
        if self.bytes > 0 {
            let cut = self.file.set_len(0).and_then(|()| self.file.sync_data());
            cut.map_err(|error| FileError::io(&self.path, error))?;
            self.bytes = 0;
        }
        Ok(())
    }

    /// Bytes kept.
    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The file, for whoever has to be shown it.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// The whole records, and where they end; `None` when something is wrong before the last one.
fn parse(bytes: &[u8]) -> Option<(Vec<Received>, usize)> {
    let mut found = Vec::new();
    let mut end = 0;
    while end < bytes.len() {
        let rest = &bytes[end..];
        let Some((head, rest)) = rest.split_first_chunk::<4>() else {
            break;
        };
        let length = u32::from_be_bytes(*head) as usize;
        let whole = length > 0 && length <= RECORD_BYTES_MAX;
        let frame = rest.get(..length + DIGEST_BYTES).filter(|_| whole);
        let record = frame.and_then(|frame| {
            let (record, sum) = frame.split_at(length);
            let same = digest(record).as_bytes()[..] == *sum;
            same.then(|| Received::decode(record.to_vec()).ok())?
        });
        let Some(record) = record else {
            // Each record is synced before the next one is written: only the last can be torn.
            let last = rest.len() <= length + DIGEST_BYTES;
            let blank = bytes[end..].iter().all(|byte| *byte == 0);
            return (last || blank).then_some((found, end));
        };
        found.push(record);
        end += FRAME_BYTES + length;
    }
    Some((found, end))
}

/// Tells a record that was written whole from one that was not.
fn digest(record: &[u8]) -> Digest {
    Digest::of("bield pending record v1", &[record])
}

const DIGEST_BYTES: usize = 32;
const FRAME_BYTES: usize = 4 + DIGEST_BYTES;
/// Bytes from which what a quorum keeps is dropped while writing goes on.
pub(super) const PENDING_BYTES_DROP: u64 = 1 << 20;
/// Bytes beyond which nothing is written until a quorum keeps all of it: more than a window holds.
pub(super) const PENDING_BYTES_MAX: u64 = 96 << 20;
/// The same, and the longest record.
const PENDING_BYTES_READ: u64 = PENDING_BYTES_MAX + 2 * RECORD_BYTES_MAX as u64;

#[cfg(test)]
mod tests {
    use bield_capsule::{Metadata, Suite, Writer, WriterKey};
    use bield_envelope::{Seeded, Time};

    use super::*;

    fn records(count: usize) -> Vec<Received> {
        let mut entropy = Seeded::new(8);
        let owner = WriterKey::generate(Suite::Ed25519, &mut entropy);
        let now = Time::from_secs(5);
        let metadata = Metadata::new(owner.public(), None, now, &mut entropy).unwrap();
        let seed = *owner.seed().expose();
        (0..count)
            .map(|n| {
                let key =
                    WriterKey::from_seed(Suite::Ed25519, bield_envelope::Secret::from_bytes(seed))
                        .unwrap();
                let quota = bield_capsule::Change::Quota(n as u64 + 1);
                Writer::owner(key, &metadata, &[quota], now).unwrap().1
            })
            .collect()
    }

    #[test]
    fn a_torn_end_is_dropped_and_damage_before_it_is_an_error() {
        let records = records(3);
        let mut bytes = Vec::new();
        let mut ends = vec![0];
        for record in &records {
            let record = record.as_bytes();
            bytes.extend_from_slice(&(record.len() as u32).to_be_bytes());
            bytes.extend_from_slice(record);
            bytes.extend_from_slice(digest(record).as_bytes());
            ends.push(bytes.len());
        }
        for cut in 0..bytes.len() {
            let (found, end) = parse(&bytes[..cut]).unwrap();
            let whole = ends.iter().rposition(|end| *end <= cut).unwrap();
            assert_eq!((found.len(), end), (whole, ends[whole]), "{cut}");
        }
        let mut torn = bytes.clone();
        *torn.last_mut().unwrap() ^= 1;
        assert_eq!(parse(&torn).unwrap().1, ends[2]);
        let mut damaged = bytes;
        damaged[ends[1] + 20] ^= 1;
        assert!(parse(&damaged).is_none());
    }
}
