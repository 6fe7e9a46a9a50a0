//! Snapshot files: the program's state and everything that the log's next record goes on from.
//!
//! ```text
//! clear    "blds" 01 ‖ epoch (u32) ‖ capsule (32) ‖ size (u64) ‖ salt (32) ‖ head bytes (u32)     85 bytes
//! chunk 0            head, CBOR                                                     + 16 each
//! chunk 1 … n        leaf hashes of every epoch's tree, 32 bytes each, 1 MiB a chunk
//! chunk n+1 … m      state, 1 MiB a chunk, at least one; the last is sealed as the last
//! ```
//!
//! Sealed in the STREAM construction of `bield_envelope::stream` under a key derived from the root
//! secret and the clear bytes, which are also every chunk's associated data: so a chunk opens in its
//! place in this snapshot of this log, or not at all, and a snapshot without its last chunk is none.
//!
//! Always true of what [`read`] gives: it was written by somebody who has the root secret, whole; the
//! trees have the roots, and the chain the position, that its head names.
//!
//! Writing is a [`SnapshotJob`], which has all it takes: nothing waits for it, and the log goes on.
//!
//! Cost: writing and reading are one AES-256-GCM pass and one copy; nothing is hashed but the trees'
//! nodes. Memory: the state once, less what is written already, and three sealed chunks; to write, the
//! leaves of the trees, to read, one opened chunk of them.

use std::collections::VecDeque;

use bield_capsule::CapsuleName;
use bield_capsule::Metadata;
use bield_capsule::ledger_file::{FileHead, Previous};
use bield_envelope::stream::{StreamKey, TAG_BYTES};
use bield_envelope::{Digest, wire};
use bield_tlog::{Hash, Tree, TreeHead};
use minicbor::{Decode, Encode};
use rand_core::CryptoRng;
use zeroize::Zeroizing;

use crate::blocks::{BLOCK_BYTES, Blocks};
use crate::chain::{Chain, Tip};
use crate::keys::Keys;
use crate::layout::{EPOCHS_MAX, STATE_BYTES_MAX, snapshot_name};
use crate::past::PastLog;
use crate::{Files, FilesError};

/// Why a snapshot is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SnapshotFlaw {
    /// It was never finished, or cut.
    Incomplete,
    /// It does not open, or is not what its name says: altered, or of another service.
    Altered,
}

/// A snapshot that opened.
pub(crate) struct Snapshot {
    pub(crate) chain: Chain,
    pub(crate) past: Vec<PastLog>,
    pub(crate) state: Zeroizing<Vec<u8>>,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct Head {
    /// Every epoch's log, this one's last.
    #[cbor(n(0), decode_with = "wire::at_most::<EPOCHS_MAX, _, _>")]
    logs: Vec<Previous>,
    #[cbor(n(1), with = "minicbor::bytes")]
    metadata: Vec<u8>,
    #[n(2)]
    previous: Option<Previous>,
    #[cbor(n(3), with = "minicbor::bytes")]
    config: Vec<u8>,
    #[cbor(n(4), with = "minicbor::bytes")]
    open: Vec<u8>,
    #[cbor(n(5), with = "minicbor::bytes")]
    tip: Option<Vec<u8>>,
    #[cbor(n(6), decode_with = "wire::at_most::<LEVELS_MAX, _, _>")]
    levels: Vec<Digest>,
    #[n(7)]
    state_bytes: u64,
}

/// The clear bytes before the chunks.
struct Clear {
    epoch: u32,
    capsule: CapsuleName,
    size: u64,
    salt: [u8; 32],
    head_bytes: u32,
}

impl Clear {
    fn encode(&self) -> [u8; CLEAR_BYTES] {
        let mut out = [0; CLEAR_BYTES];
        out[..5].copy_from_slice(MAGIC);
        out[5..9].copy_from_slice(&self.epoch.to_be_bytes());
        out[9..41].copy_from_slice(self.capsule.as_bytes());
        out[41..49].copy_from_slice(&self.size.to_be_bytes());
        out[49..81].copy_from_slice(&self.salt);
        out[81..].copy_from_slice(&self.head_bytes.to_be_bytes());
        out
    }

    fn decode(bytes: &[u8; CLEAR_BYTES]) -> Option<Self> {
        let rest = bytes.strip_prefix(MAGIC)?;
        let (epoch, rest) = rest.split_first_chunk::<4>()?;
        let (capsule, rest) = rest.split_first_chunk::<32>()?;
        let (size, rest) = rest.split_first_chunk::<8>()?;
        let (salt, rest) = rest.split_first_chunk::<32>()?;
        Some(Self {
            epoch: u32::from_be_bytes(*epoch),
            capsule: CapsuleName::from_bytes(*capsule),
            size: u64::from_be_bytes(*size),
            salt: *salt,
            head_bytes: u32::from_be_bytes(*rest.first_chunk()?),
        })
    }
}

/// A snapshot that is being written, apart from the ledger, which goes on meanwhile.
///
/// Dropped in the middle it leaves a file that counts for nothing; what was not written yet is wiped.
pub struct SnapshotJob {
    stream: StreamKey,
    clear: [u8; CLEAR_BYTES],
    name: String,
    size: u64,
    /// What is not sealed yet: head, leaves, state. Each is given up as soon as it is.
    chunks: VecDeque<Zeroizing<Vec<u8>>>,
    sealed: Vec<u8>,
    index: u32,
    offset: u64,
}

/// A snapshot that is whole and durable.
pub struct WrittenSnapshot {
    pub(crate) size: u64,
    pub(crate) bytes: u64,
}

impl WrittenSnapshot {
    /// Records that it stands for.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }
}

impl SnapshotJob {
    /// The snapshot of `state` at the chain's size. Costs a copy of the trees' leaves.
    pub(crate) fn new(
        keys: &Keys,
        chain: &Chain,
        past: &[PastLog],
        state: Blocks,
        entropy: &mut impl CryptoRng,
    ) -> Self {
        let tip = chain.tip();
        let [config, open] = [0, 1].map(|at| tip.start.get(at).cloned().unwrap_or_default());
        let logs: Vec<Previous> = past.iter().map(PastLog::end).chain([chain.end()]).collect();
        let state_bytes = state.bytes();
        let head = wire::encode(&Head {
            logs,
            metadata: chain.metadata().as_bytes().to_vec(),
            previous: chain.previous(),
            config,
            open,
            tip: tip.head,
            levels: tip.levels,
            state_bytes,
        });
        let clear = Clear {
            epoch: chain.epoch(),
            capsule: chain.metadata().name(),
            size: chain.size(),
            salt: salt(chain, state_bytes, entropy),
            head_bytes: head.len() as u32,
        }
        .encode();
        let mut leaves = Blocks::new();
        let trees = past.iter().map(PastLog::tree).chain([chain.tree()]);
        for leaf in trees.flat_map(|tree| (0..tree.size()).filter_map(|index| tree.leaf(index))) {
            leaves.push(leaf.as_bytes());
        }
        let mut chunks = VecDeque::from([Zeroizing::new(head)]);
        chunks.append(&mut leaves.into_inner());
        match state_bytes {
            0 => chunks.push_back(Zeroizing::default()),
            _ => chunks.append(&mut state.into_inner()),
        }
        Self {
            stream: stream(keys, chain.epoch(), &chain.metadata().name(), &clear),
            name: snapshot_name(chain.epoch(), chain.size()),
            size: chain.size(),
            chunks,
            sealed: clear.to_vec(),
            clear,
            index: 0,
            offset: 0,
        }
    }

    /// Seals and writes the next chunks, in one durable write; says when it was the last.
    ///
    /// # Errors
    /// The host does not store: this snapshot is to be given up.
    pub fn step(&mut self, files: &mut dyn Files) -> Result<Option<WrittenSnapshot>, FilesError> {
        // Every append is made durable by the host: fewer and larger ones take less of its time.
        while self.sealed.len() < APPEND_BYTES
            && let Some(chunk) = self.chunks.pop_front()
        {
            let last = self.chunks.is_empty();
            self.stream
                .seal(self.index, last, &self.clear, &chunk, &mut self.sealed);
            self.index += 1;
        }
        files.append(&self.name, self.offset, &self.sealed)?;
        self.offset += self.sealed.len() as u64;
        self.sealed.clear();
        Ok(self.chunks.is_empty().then_some(WrittenSnapshot {
            size: self.size,
            bytes: self.offset,
        }))
    }
}

/// Reads the snapshot of `epoch` at `size`, a file of `bytes` bytes.
pub(crate) fn read(
    files: &mut dyn Files,
    keys: &Keys,
    (epoch, size): (u32, u64),
    bytes: u64,
) -> Result<Result<Snapshot, SnapshotFlaw>, FilesError> {
    let name = snapshot_name(epoch, size);
    let mut reader = ChunkReader {
        files,
        name: &name,
        offset: 0,
        index: 0,
    };
    let start = reader.clear()?;
    let Some(start) = start.first_chunk::<CLEAR_BYTES>() else {
        return Ok(Err(SnapshotFlaw::Incomplete));
    };
    let named = Clear::decode(start)
        .filter(|clear| (clear.epoch, clear.size) == (epoch, size))
        .filter(|clear| clear.head_bytes as usize <= HEAD_BYTES_MAX);
    let Some(clear) = named else {
        return Ok(Err(SnapshotFlaw::Altered));
    };
    let opener = Opener {
        stream: stream(keys, epoch, &clear.capsule, start),
        clear: start,
    };
    let mut head = Zeroizing::new(vec![0; clear.head_bytes as usize]);
    if let Err(flaw) = reader.chunk(&opener, &mut head, false)? {
        return Ok(Err(flaw));
    }
    let Some((head, leaves)) = checked(&head, &clear) else {
        return Ok(Err(SnapshotFlaw::Altered));
    };
    // Before memory is spent: the file is as long as its head says.
    match bytes.cmp(&whole_bytes(clear.head_bytes, leaves, head.state_bytes)) {
        core::cmp::Ordering::Less => return Ok(Err(SnapshotFlaw::Incomplete)),
        core::cmp::Ordering::Greater => return Ok(Err(SnapshotFlaw::Altered)),
        core::cmp::Ordering::Equal => {}
    }
    let trees = match reader.trees(&opener, &head.logs, leaves)? {
        Ok(trees) => trees,
        Err(flaw) => return Ok(Err(flaw)),
    };
    let mut state = Zeroizing::new(vec![0; head.state_bytes as usize]);
    let mut pieces = state.chunks_mut(CHUNK_BYTES).peekable();
    loop {
        let piece = pieces.next().unwrap_or_default();
        let last = pieces.peek().is_none();
        if let Err(flaw) = reader.chunk(&opener, piece, last)? {
            return Ok(Err(flaw));
        }
        if last {
            break;
        }
    }
    Ok(assemble(keys, epoch, head, trees, state).ok_or(SnapshotFlaw::Altered))
}

/// The head and how many leaves follow it.
fn checked(bytes: &[u8], clear: &Clear) -> Option<(Head, u64)> {
    let head: Head = wire::decode(bytes, HEAD_BYTES_MAX).ok()?;
    let (last, past) = head.logs.split_last()?;
    let here = (last.capsule, last.size) == (clear.capsule, clear.size);
    let epochs = past.len() == clear.epoch as usize && head.previous == past.last().copied();
    let mut sizes = head.logs.iter().map(|log| log.size);
    let leaves = sizes.try_fold(0_u64, |sum, size| sum.checked_add(size))?;
    let bounded = head.state_bytes <= STATE_BYTES_MAX && leaves <= u64::from(u32::MAX);
    (here && epochs && bounded).then_some((head, leaves))
}

fn assemble(
    keys: &Keys,
    epoch: u32,
    head: Head,
    mut trees: Vec<Tree>,
    state: Zeroizing<Vec<u8>>,
) -> Option<Snapshot> {
    let tree = trees.pop()?;
    let file = FileHead {
        epoch,
        first: 0,
        before: None,
        previous: head.previous,
        metadata: Metadata::decode(&head.metadata).ok()?,
    };
    let tip = Tip {
        start: vec![head.config, head.open],
        head: head.tip,
        levels: head.levels,
    };
    let chain = Chain::resume(keys, &file, &tip, tree)?;
    let past = (0..)
        .zip(head.logs)
        .zip(trees)
        .map(|((epoch, log), tree)| PastLog::new(keys, epoch, log.capsule, tree))
        .collect();
    Some(Snapshot { chain, past, state })
}

struct Opener<'a> {
    stream: StreamKey,
    clear: &'a [u8],
}

struct ChunkReader<'a> {
    files: &'a mut dyn Files,
    name: &'a str,
    offset: u64,
    index: u32,
}

impl ChunkReader<'_> {
    fn clear(&mut self) -> Result<Vec<u8>, FilesError> {
        let bytes = self.files.read(self.name, 0, CLEAR_BYTES as u64)?;
        self.offset = CLEAR_BYTES as u64;
        Ok(bytes)
    }

    /// Opens the next chunk straight into its place.
    fn chunk(
        &mut self,
        opener: &Opener<'_>,
        out: &mut [u8],
        last: bool,
    ) -> Result<Result<(), SnapshotFlaw>, FilesError> {
        let wanted = out.len() + TAG_BYTES;
        let sealed = self.files.read(self.name, self.offset, wanted as u64)?;
        if sealed.len() < wanted {
            return Ok(Err(SnapshotFlaw::Incomplete));
        }
        let opened = opener
            .stream
            .open_into(self.index, last, opener.clear, &sealed, out);
        self.offset += wanted as u64;
        self.index += 1;
        Ok(opened.map_err(|_| SnapshotFlaw::Altered))
    }

    fn trees(
        &mut self,
        opener: &Opener<'_>,
        logs: &[Previous],
        mut leaves: u64,
    ) -> Result<Result<Vec<Tree>, SnapshotFlaw>, FilesError> {
        let mut trees = Vec::with_capacity(logs.len());
        let mut wanted = logs.iter();
        let mut log = wanted.next();
        let mut tree = Tree::new();
        let mut buffer = vec![0; CHUNK_BYTES.min(leaves as usize * LEAF_BYTES)];
        while leaves != 0 {
            let here = (leaves as usize).min(CHUNK_BYTES / LEAF_BYTES);
            let chunk = &mut buffer[..here * LEAF_BYTES];
            if let Err(flaw) = self.chunk(opener, chunk, false)? {
                return Ok(Err(flaw));
            }
            for leaf in chunk.as_chunks::<LEAF_BYTES>().0 {
                tree.append_hash(Hash::from_bytes(*leaf));
                if log.is_some_and(|log| log.size == tree.size()) {
                    let head = TreeHead {
                        size: tree.size(),
                        root: tree.root(),
                    };
                    if log.is_none_or(|log| log.root != *head.root.as_bytes()) {
                        return Ok(Err(SnapshotFlaw::Altered));
                    }
                    trees.push(core::mem::take(&mut tree));
                    log = wanted.next();
                }
            }
            leaves -= here as u64;
        }
        if log.is_some() {
            return Ok(Err(SnapshotFlaw::Altered)); // a log without a record
        }
        Ok(Ok(trees))
    }
}

fn stream(keys: &Keys, epoch: u32, capsule: &CapsuleName, clear: &[u8]) -> StreamKey {
    StreamKey::new(&keys.snapshot(epoch, capsule, clear), [0; 7])
}

/// Fresh randomness and what the snapshot is about: an instance set back to an earlier moment, random
/// generator and all, repeats a key only for the same state at the same place.
fn salt(chain: &Chain, state_bytes: u64, entropy: &mut impl CryptoRng) -> [u8; 32] {
    let mut fresh = [0; 32];
    entropy.fill_bytes(&mut fresh);
    let length = state_bytes.to_be_bytes();
    let root = chain.tree().root();
    *Digest::of(SALT_DOMAIN, &[&fresh, root.as_bytes(), &length]).as_bytes()
}

/// Length of a whole snapshot file.
fn whole_bytes(head: u32, leaves: u64, state: u64) -> u64 {
    let leaf_bytes = leaves * LEAF_BYTES as u64;
    let chunk = CHUNK_BYTES as u64;
    let chunks = 1 + leaf_bytes.div_ceil(chunk) + state.div_ceil(chunk).max(1);
    CLEAR_BYTES as u64 + u64::from(head) + leaf_bytes + state + chunks * TAG_BYTES as u64
}

const MAGIC: &[u8; 5] = b"blds\x01";
const CLEAR_BYTES: usize = 85;
/// Bytes of a chunk before it is sealed.
const CHUNK_BYTES: usize = BLOCK_BYTES;
const LEAF_BYTES: usize = 32;
/// Sealed chunks are written once they are this long together: with one more they fit a write.
const APPEND_BYTES: usize = 2 << 20;
const _: () = assert!(
    APPEND_BYTES + HEAD_BYTES_MAX + CHUNK_BYTES + 2 * TAG_BYTES <= crate::TRANSFER_BYTES_MAX
);
/// A head has at most 72 bytes an epoch, two records, a signed head and 65 hashes.
const HEAD_BYTES_MAX: usize = 512 << 10;
/// Hashes that a chain goes on from: the first, and one per doubling.
const LEVELS_MAX: usize = 65;
const SALT_DOMAIN: &str = "bield ledger snapshot salt v1";

const _: () = assert!(
    CHUNK_BYTES.is_multiple_of(LEAF_BYTES),
    "a leaf is never split"
);
