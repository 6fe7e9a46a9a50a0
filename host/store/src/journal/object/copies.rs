//! Copies of many groups in one object, so that opening costs few requests.
//!
//! ```text
//! <prefix>/00000000000000000000 … 00000000000000000511      groups, as they were acknowledged
//! <prefix>/merged/00000000000000000000-00000000000000000512   the same records, one object
//! ```
//!
//! A copy is a sealed segment whose number is the index behind its last record. It is created only
//! if absent, from groups that never change, so it does not matter who makes it, how often, or
//! where a crash cuts that short: no copy, or a whole one.
//!
//! Always true: **groups stay.** A group's name is the fence against a second owner: were it removed,
//! one that slept through the merge could create it anew and acknowledge records that nobody will
//! read. So a copy costs its bytes a second time, and never safety: one that does not verify is
//! removed, and the groups are read instead.
//!
//! Opening with copies: one listing of the copies, one of the groups behind them, one GET for each
//! copy and each group behind the last.

use std::ops::Range;
use std::sync::Arc;

use bield_capsule::segment::{End, FRAME_HEAD_BYTES, SEGMENT_HEADER_BYTES, SegmentHeader};
use futures_util::{StreamExt as _, TryStreamExt as _};
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt as _, PutMode, PutPayload};

use super::requests::GETS_AT_ONCE;
use crate::journal::index::Segment;

/// Groups in one copy: opening reads fewer than this one by one, in about a second.
pub(super) const GROUPS_MAX: usize = 512;

/// Groups that make a copy worth its bytes.
pub(super) const GROUPS_MIN: usize = 8;

/// A copy takes no further group at this length.
pub(super) const BYTES_MAX: u32 = 4 << 20;

/// The records in one copy. Ordered by the first, then the longest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Covered(pub(super) Range<u64>);

impl Ord for Covered {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let key = |covered: &Self| (covered.0.start, u64::MAX - covered.0.end);
        key(self).cmp(&key(other))
    }
}

impl PartialOrd for Covered {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

pub(super) fn prefix(journal: &Path) -> Path {
    journal.clone().join("merged")
}

pub(super) fn name(journal: &Path, covered: &Range<u64>) -> Path {
    prefix(journal).join(format!("{:020}-{:020}", covered.start, covered.end))
}

/// The records that an object of this name covers, if it is a copy's.
pub(super) fn covered(journal: &Path, found: &Path) -> Option<Range<u64>> {
    let (start, end) = found.filename()?.split_once('-')?;
    let covered = start.parse().ok()?..end.parse().ok()?;
    (!covered.is_empty() && name(journal, &covered) == *found).then_some(covered)
}

/// Which of `segments`, by position, are to become copies; and up to where nothing is left to do.
pub(super) fn due(segments: &[Segment]) -> (Vec<Range<usize>>, usize) {
    let (mut due, mut from, mut bytes) = (Vec::new(), 0, 0);
    for (at, segment) in segments.iter().enumerate() {
        bytes += segment.end;
        if at + 1 - from < GROUPS_MAX && bytes < BYTES_MAX {
            continue;
        }
        if at + 1 - from >= GROUPS_MIN {
            due.push(from..at + 1);
        }
        (from, bytes) = (at + 1, 0);
    }
    (due, from)
}

/// Where the copy of a run of groups goes, and from where.
pub(super) struct Plan {
    pub(super) header: SegmentHeader,
    pub(super) name: Path,
    pub(super) groups: Vec<Path>,
}

/// Makes a copy.
///
/// # Errors
/// When the store fails or a group is not what it was: nothing is written then.
pub(super) async fn make(store: &Arc<dyn ObjectStore>, plan: Plan) -> Result<(), Error> {
    let header = plan.header;
    let mut bytes = header.encode().to_vec();
    let mut offsets = Vec::new();
    let gets = plan.groups.into_iter().map(|name| async move {
        let found = store.get(&name).await?.bytes().await?;
        Ok::<_, Error>((name, found))
    });
    let mut gets = futures_util::stream::iter(gets).buffered(GETS_AT_ONCE);
    while let Some((name, group)) = gets.try_next().await? {
        let altered = || Error::Generic {
            store: "journal",
            source: format!("{name} is not the group that was written").into(),
        };
        let theirs = SegmentHeader::parse(&group).map_err(|_| altered())?;
        let mut frames = theirs.frames(&group);
        for frame in frames.by_ref() {
            if frame.index != header.first + offsets.len() as u64 {
                return Err(altered());
            }
            offsets.push(bytes.len() as u32);
            bytes.extend(header.frame_head(offsets.len() as u32 - 1, 0, frame.payload));
            bytes.extend_from_slice(frame.payload);
        }
        if theirs.capsule != header.capsule || !matches!(frames.end(), Some(End::Sealed { .. })) {
            return Err(altered());
        }
    }
    let end = bytes.len() as u32;
    bytes.extend(header.seal(&offsets, end));
    let payload = PutPayload::from(bytes);
    match store
        .put_opts(&plan.name, payload, PutMode::Create.into())
        .await
    {
        // Whoever made it, it says the same.
        Ok(_) | Err(Error::AlreadyExists { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// A verified copy of `covered`, as a segment; shows `show` its records.
pub(super) fn parse(
    bytes: &[u8],
    capsule: &[u8; 32],
    covered: &Range<u64>,
    mut show: impl FnMut(u64, &[u8]),
) -> Option<Segment> {
    let header = SegmentHeader::parse(bytes).ok()?;
    let names = header.capsule == *capsule && (header.first..header.segment) == *covered;
    let mut frames = header.frames(bytes);
    let found: Vec<_> = frames.by_ref().collect();
    let next = covered.end;
    let whole = matches!(frames.end(), Some(End::Sealed { next: n, .. }) if n == next);
    if !names || !whole {
        return None;
    }
    let mut segment = Segment {
        header,
        offsets: Vec::with_capacity(found.len()),
        end: SEGMENT_HEADER_BYTES as u32,
        sealed: true,
    };
    for frame in found {
        segment.offsets.push(frame.offset);
        segment.end = frame.offset + (FRAME_HEAD_BYTES + frame.payload.len()) as u32;
        show(frame.index, frame.payload);
    }
    Some(segment)
}
