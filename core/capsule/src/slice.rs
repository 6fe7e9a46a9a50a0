//! Proof that bytes stand in a body with a given root (`spec/06 §7`).
//!
//! ```text
//!              root                      wanted: ▓
//!            ╱      ╲
//!         A            B                 slice = A ‖ B ‖ a₀ ‖ a₁ ‖ ▓bytes of chunk 1▓
//!       ╱   ╲        ╱   ╲
//!     a₀     a₁    b₀     b₁             (suite 2: every cᵢ, then the wanted pieces)
//!     ░░     ▓▓    ░░     ░░
//! ```
//!
//! In: a body and ranges of it; or a root, the body's length, the ranges and a slice from anyone.
//! Out: the slice; or the bytes of the ranges. Always true: [`open_slice`] returns nothing that the
//! root does not cover, believes no length it did not compute itself, and accepts one slice only
//! for one question. Left to others: the root and the length come from a verified header.
//!
//! Cost: making a slice hashes the body once. Opening one hashes the slice once. A slice of one
//! range in a body of `n` bytes has 64 · log₂(n / 1024) bytes more than the chunks it touches
//! (640 at 1 MiB); in suite 2 it has n / 128 more than the pieces.

use core::ops::Range;

use aws_lc_rs::digest;
use bield_envelope::Digest;
use blake3::hazmat::{self, ChainingValue, HasherExt, Mode};

use crate::suite::BODY_DOMAIN;
use crate::{BODY_BYTES_MAX, PIECE_BYTES, Suite};

/// Why bytes are no proof of what was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SliceError {
    /// The question itself: the body is too long for a body, or a range is not within it.
    #[error("a range is not within a body of {body_bytes} bytes: ask for another; do not retry")]
    Range {
        /// Length of the body.
        body_bytes: usize,
    },
    /// Not as long as the slice of these ranges is.
    #[error("slice has {found} bytes, that of these ranges has {need}: made for another question")]
    Length {
        /// Bytes of the one slice that answers the question.
        need: usize,
        /// Bytes there.
        found: usize,
    },
    /// The bytes do not lead up to the root.
    #[error("slice does not lead up to the root: altered, or of another body; do not retry")]
    Altered,
}

/// Cuts out of `body` what proves the bytes of `ranges` to a holder of its root.
///
/// ```
/// use bield_capsule::{Suite, open_slice, slice};
///
/// let body = vec![7; 100_000];
/// let proof = slice(Suite::Ed25519, &body, &[5000..5003])?;
/// assert!(proof.len() < 1500);
/// let root = Suite::Ed25519.root(&body);
/// let shown = open_slice(Suite::Ed25519, &root, body.len(), &[5000..5003], &proof)?;
/// assert_eq!(shown, [[7; 3]]);
/// # Ok::<(), bield_capsule::SliceError>(())
/// ```
///
/// # Errors
/// A range that is not within the body.
pub fn slice(suite: Suite, body: &[u8], ranges: &[Range<usize>]) -> Result<Vec<u8>, SliceError> {
    let wanted = Wanted::new(body.len(), ranges)?;
    let mut out = Vec::with_capacity(wanted.slice_bytes(suite, &whole(body.len())));
    match suite {
        Suite::Ed25519 | Suite::MlDsa44 if wanted.0.is_empty() => {}
        Suite::Ed25519 | Suite::MlDsa44 => {
            cut_tree(body, &whole(body.len()), &wanted, &mut out);
        }
        Suite::P256 => {
            for piece in body.chunks(PIECE_BYTES) {
                out.extend_from_slice(sha256(piece).as_ref());
            }
            for span in pieces(body.len()).filter(|span| wanted.touches(span)) {
                out.extend_from_slice(&body[span]);
            }
        }
    }
    Ok(out)
}

/// Checks a slice against the root and length of a body; returns the bytes of each range.
///
/// `root` and `body_bytes` are what a verified header says. The length is not proven by the slice
/// itself, except where its last chunk is wanted.
///
/// # Errors
/// A range not within the body, or a slice that is not the one of these ranges of this body.
pub fn open_slice(
    suite: Suite,
    root: &Digest,
    body_bytes: usize,
    ranges: &[Range<usize>],
    slice: &[u8],
) -> Result<Vec<Vec<u8>>, SliceError> {
    let wanted = Wanted::new(body_bytes, ranges)?;
    let need = wanted.slice_bytes(suite, &whole(body_bytes));
    if slice.len() != need {
        return Err(SliceError::Length {
            need,
            found: slice.len(),
        });
    }
    let mut rest = slice;
    let mut proven = Vec::new();
    match suite {
        Suite::Ed25519 | Suite::MlDsa44 => {
            let node = Node::Root(root);
            read_tree(&whole(body_bytes), &node, &wanted, &mut rest, &mut proven)?;
        }
        Suite::P256 => {
            let hashes = take(&mut rest, body_bytes.div_ceil(PIECE_BYTES) * HASH_BYTES)?;
            if suite.hash(BODY_DOMAIN, &[hashes]) != *root {
                return Err(SliceError::Altered);
            }
            for (span, hash) in pieces(body_bytes).zip(hashes.chunks(HASH_BYTES)) {
                if wanted.touches(&span) {
                    let piece = take(&mut rest, span.len())?;
                    if sha256(piece).as_ref() != hash {
                        return Err(SliceError::Altered);
                    }
                    proven.push((span.start, piece));
                }
            }
        }
    }
    Ok(ranges.iter().map(|range| gather(range, &proven)).collect())
}

/// Writes the slice of one subtree and returns its chaining value, hashing every byte once.
fn cut_tree(body: &[u8], span: &Range<usize>, wanted: &Wanted, out: &mut Vec<u8>) -> ChainingValue {
    let touched = wanted.touches(span);
    if !touched || span.len() <= CHUNK_BYTES {
        let bytes = &body[span.clone()];
        if touched {
            out.extend_from_slice(bytes);
        }
        return chaining_value(bytes, span.start);
    }
    let (left, right) = halves(span);
    let at = out.len();
    out.extend_from_slice(&[0; 2 * HASH_BYTES]);
    let left = cut_tree(body, &left, wanted, out);
    let right = cut_tree(body, &right, wanted, out);
    out[at..][..HASH_BYTES].copy_from_slice(&left);
    out[at + HASH_BYTES..][..HASH_BYTES].copy_from_slice(&right);
    hazmat::merge_subtrees_non_root(&left, &right, Mode::Hash)
}

/// What a subtree must hash to.
enum Node<'a> {
    Root(&'a Digest),
    Inner(ChainingValue),
}

impl Node<'_> {
    fn is_parent_of(&self, left: &ChainingValue, right: &ChainingValue) -> bool {
        match self {
            Self::Root(root) => {
                hazmat::merge_subtrees_root(left, right, Mode::Hash) == *root.as_bytes()
            }
            Self::Inner(value) => {
                hazmat::merge_subtrees_non_root(left, right, Mode::Hash) == *value
            }
        }
    }

    fn is_chunk(&self, bytes: &[u8], offset: usize) -> bool {
        match self {
            Self::Root(root) => blake3::hash(bytes) == *root.as_bytes(),
            Self::Inner(value) => chaining_value(bytes, offset) == *value,
        }
    }
}

/// Checks one subtree top-down; at most 10 levels deep, since bodies are bounded.
fn read_tree<'a>(
    span: &Range<usize>,
    node: &Node<'_>,
    wanted: &Wanted,
    rest: &mut &'a [u8],
    proven: &mut Vec<(usize, &'a [u8])>,
) -> Result<(), SliceError> {
    if !wanted.touches(span) {
        return Ok(());
    }
    if span.len() <= CHUNK_BYTES {
        let bytes = take(rest, span.len())?;
        if !node.is_chunk(bytes, span.start) {
            return Err(SliceError::Altered);
        }
        proven.push((span.start, bytes));
        return Ok(());
    }
    let left: ChainingValue = take_hash(rest)?;
    let right: ChainingValue = take_hash(rest)?;
    if !node.is_parent_of(&left, &right) {
        return Err(SliceError::Altered);
    }
    let (left_span, right_span) = halves(span);
    read_tree(&left_span, &Node::Inner(left), wanted, rest, proven)?;
    read_tree(&right_span, &Node::Inner(right), wanted, rest, proven)
}

/// The union of the ranges asked for: ascending, disjoint, none empty.
struct Wanted(Vec<Range<usize>>);

impl Wanted {
    fn new(body_bytes: usize, ranges: &[Range<usize>]) -> Result<Self, SliceError> {
        let within = |range: &Range<usize>| range.start <= range.end && range.end <= body_bytes;
        if body_bytes > BODY_BYTES_MAX || !ranges.iter().all(within) {
            return Err(SliceError::Range { body_bytes });
        }
        let mut sorted: Vec<_> = ranges
            .iter()
            .filter(|range| !range.is_empty())
            .cloned()
            .collect();
        sorted.sort_unstable_by_key(|range| range.start);
        let mut union: Vec<Range<usize>> = Vec::with_capacity(sorted.len());
        for range in sorted {
            match union.last_mut() {
                Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
                _ => union.push(range),
            }
        }
        Ok(Self(union))
    }

    fn touches(&self, span: &Range<usize>) -> bool {
        let after = self.0.partition_point(|range| range.end <= span.start);
        self.0
            .get(after)
            .is_some_and(|range| range.start < span.end)
    }

    /// Length of the slice: lets a verifier refuse before it hashes, and a maker allocate once.
    fn slice_bytes(&self, suite: Suite, span: &Range<usize>) -> usize {
        match suite {
            Suite::Ed25519 | Suite::MlDsa44 => self.tree_bytes(span),
            Suite::P256 => {
                let wanted = pieces(span.end).filter(|piece| self.touches(piece));
                let bytes: usize = wanted.map(|piece| piece.len()).sum();
                bytes + span.len().div_ceil(PIECE_BYTES) * HASH_BYTES
            }
        }
    }

    fn tree_bytes(&self, span: &Range<usize>) -> usize {
        if !self.touches(span) {
            return 0;
        }
        if span.len() <= CHUNK_BYTES {
            return span.len();
        }
        let (left, right) = halves(span);
        2 * HASH_BYTES + self.tree_bytes(&left) + self.tree_bytes(&right)
    }
}

/// The bytes of `range`, all of which stand in `proven`.
fn gather(range: &Range<usize>, proven: &[(usize, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(range.len());
    let first = proven.partition_point(|(start, piece)| start + piece.len() <= range.start);
    for (start, piece) in &proven[first..] {
        if *start >= range.end {
            break;
        }
        let from = range.start.saturating_sub(*start);
        let to = (range.end - start).min(piece.len());
        bytes.extend_from_slice(&piece[from..to]);
    }
    debug_assert_eq!(bytes.len(), range.len());
    bytes
}

fn halves(span: &Range<usize>) -> (Range<usize>, Range<usize>) {
    // At most BODY_BYTES_MAX, so the length fits every integer type involved.
    let middle = span.start + hazmat::left_subtree_len(span.len() as u64) as usize;
    (span.start..middle, middle..span.end)
}

fn chaining_value(bytes: &[u8], offset: usize) -> ChainingValue {
    blake3::Hasher::new()
        .set_input_offset(offset as u64)
        .update(bytes)
        .finalize_non_root()
}

fn pieces(body_bytes: usize) -> impl Iterator<Item = Range<usize>> {
    (0..body_bytes)
        .step_by(PIECE_BYTES)
        .map(move |start| start..body_bytes.min(start + PIECE_BYTES))
}

fn whole(bytes: usize) -> Range<usize> {
    0..bytes
}

fn sha256(bytes: &[u8]) -> digest::Digest {
    digest::digest(&digest::SHA256, bytes)
}

fn take<'a>(rest: &mut &'a [u8], bytes: usize) -> Result<&'a [u8], SliceError> {
    let (taken, behind) = rest.split_at_checked(bytes).ok_or(SliceError::Altered)?;
    *rest = behind;
    Ok(taken)
}

fn take_hash(rest: &mut &[u8]) -> Result<ChainingValue, SliceError> {
    let (hash, behind) = rest.split_first_chunk().ok_or(SliceError::Altered)?;
    *rest = behind;
    Ok(*hash)
}

const CHUNK_BYTES: usize = blake3::CHUNK_LEN;
const HASH_BYTES: usize = 32;

const _: () = assert!(blake3::OUT_LEN == HASH_BYTES && PIECE_BYTES.is_multiple_of(CHUNK_BYTES));

#[cfg(test)]
mod tests;
