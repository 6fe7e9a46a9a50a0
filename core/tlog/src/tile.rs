//! Tiles and entry bundles: the tree as static files (c2sp.org/tlog-tiles).
//!
//! ```text
//! tile/1/000.p/1                 ┌─ hash of the full tile 0/000 ─┐
//! tile/0/000   256 leaf hashes ──┘     tile/0/001.p/44   44 leaf hashes     (a tree of 300)
//! tile/entries/000   256 entries       tile/entries/001.p/44   44 entries
//! ```
//!
//! Always true: a path has one spelling; a full tile is 256 hashes, 8192 bytes, and never changes;
//! a partial tile is a prefix of the full one; an empty tile does not exist; a bundle is read only
//! when it holds exactly the entries its path names.
//!
//! Cost: a tile is copied out of the tree without hashing. An append of n entries touches
//! n/256 + 1 tiles of level 0, as many bundles, and at most one partial tile per level above.
//!
//! Left to others: writing and serving the files, caching headers, deleting old partial tiles.

use core::fmt;
use core::str::FromStr;

use crate::text::decimal;
use crate::tree::{Hash, Tree};

/// Hashes in a full tile and entries in a full bundle (tlog-tiles, "Merkle Tree").
pub const TILE_WIDTH: u16 = 256;

/// Highest level a path may name (tlog-tiles: "between 0 and 63"); a tree of 2⁶⁴ leaves ends at 7.
pub const TILE_LEVEL_MAX: u8 = 63;

/// Bytes of the longest entry: its length travels in 16 bits.
pub const ENTRY_BYTES_MAX: usize = u16::MAX as usize;

/// What a tile holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TileKind {
    /// Hashes of this level: each stands for 256^level leaves.
    Hashes(u8),
    /// The entries themselves.
    Entries,
}

/// Names one tile or bundle; prints as the path below a log's prefix.
///
/// ```
/// use bield_tlog::tile::{TileKind, TilePath};
///
/// let path: TilePath = "tile/0/x001/x234/067.p/8".parse()?;
/// assert_eq!(path.kind(), TileKind::Hashes(0));
/// assert_eq!((path.index(), path.width()), (1_234_067, 8));
/// assert_eq!(path.to_string(), "tile/0/x001/x234/067.p/8");
/// # Ok::<_, bield_tlog::tile::TileError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TilePath {
    kind: TileKind,
    index: u64,
    width: u16,
}

impl TilePath {
    /// Names a tile; `width` is 256 for a full one.
    ///
    /// # Errors
    /// [`TileError::Path`] when the level is above 63 or the width is not 1 to 256.
    pub fn new(kind: TileKind, index: u64, width: u16) -> Result<Self, TileError> {
        let level_fits = match kind {
            TileKind::Hashes(level) => level <= TILE_LEVEL_MAX,
            TileKind::Entries => true,
        };
        if !level_fits || !(1..=TILE_WIDTH).contains(&width) {
            return Err(TileError::Path);
        }
        Ok(Self { kind, index, width })
    }

    /// What the tile holds.
    #[must_use]
    pub const fn kind(&self) -> TileKind {
        self.kind
    }

    /// The tile's place in its level.
    #[must_use]
    pub const fn index(&self) -> u64 {
        self.index
    }

    /// How many hashes or entries it holds, 1 to 256.
    #[must_use]
    pub const fn width(&self) -> u16 {
        self.width
    }

    /// Tells whether the tile is full and so will never be replaced by a wider one.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.width == TILE_WIDTH
    }

    /// The same tile when it is full: where a reader looks when a partial one is gone.
    #[must_use]
    pub const fn full(&self) -> Self {
        Self {
            kind: self.kind,
            index: self.index,
            width: TILE_WIDTH,
        }
    }
}

/// Names every tile and bundle a tree of `new` leaves has and one of `old` leaves had not, from
/// level 0 up: what a log writes before it publishes a checkpoint of size `new`.
///
/// Tiles that became full appear once, as full ones. With `old` zero: all of them.
pub fn tiles_between(old: u64, new: u64) -> impl Iterator<Item = TilePath> {
    let hashes = (0..=u64::BITS as u8 / TILE_HEIGHT).map(|level| (TileKind::Hashes(level), level));
    core::iter::once((TileKind::Entries, 0))
        .chain(hashes)
        .flat_map(move |(kind, level)| {
            let shift = u32::from(level * TILE_HEIGHT);
            let [had, has] = [old, new].map(|size| size.checked_shr(shift).unwrap_or(0));
            // Nothing new in this level: an empty range.
            let first = if had < has {
                had >> TILE_HEIGHT
            } else {
                u64::MAX
            };
            (first..=has >> TILE_HEIGHT).filter_map(move |index| {
                let width = (has - (index << TILE_HEIGHT)).min(u64::from(TILE_WIDTH)) as u16;
                TilePath::new(kind, index, width).ok()
            })
        })
}

impl Tree {
    /// The bytes of a hash tile: `width` hashes of 32 bytes.
    ///
    /// `None` when the tree has not grown that far, and for entry bundles, which a tree of hashes
    /// does not have.
    ///
    /// ```
    /// use bield_tlog::{Tree, leaf_hash};
    /// let mut tree = Tree::new();
    /// tree.append(b"a");
    /// let tile = tree.tile(&"tile/0/000.p/1".parse()?).expect("one leaf is there");
    /// assert_eq!(tile, leaf_hash(b"a").as_bytes());
    /// # Ok::<_, bield_tlog::tile::TileError>(())
    /// ```
    #[must_use]
    pub fn tile(&self, path: &TilePath) -> Option<Vec<u8>> {
        let TileKind::Hashes(level) = path.kind else {
            return None;
        };
        let start = usize::try_from(path.index.checked_mul(u64::from(TILE_WIDTH))?).ok()?;
        let end = start.checked_add(usize::from(path.width))?;
        let hashes = self
            .level(usize::from(level) * usize::from(TILE_HEIGHT))
            .get(start..end)?;
        Some(hashes.iter().flat_map(|hash| *hash.as_bytes()).collect())
    }
}

/// Reads a hash tile of `width` hashes, as after a restart or from another log.
///
/// # Errors
/// [`TileError::Hashes`] when the bytes are not exactly that many hashes.
pub fn read_hashes(bytes: &[u8], width: u16) -> Result<Vec<Hash>, TileError> {
    let (hashes, rest) = bytes.as_chunks::<32>();
    if hashes.len() != usize::from(width) || !rest.is_empty() {
        return Err(TileError::Hashes {
            bytes: bytes.len(),
            width,
        });
    }
    Ok(hashes.iter().copied().map(Hash::from_bytes).collect())
}

/// Appends one entry to a bundle: two bytes of length, then the entry.
///
/// # Errors
/// [`TileError::EntryTooLong`] above [`ENTRY_BYTES_MAX`]; the bundle is unchanged.
pub fn push_entry(bundle: &mut Vec<u8>, entry: &[u8]) -> Result<(), TileError> {
    let length =
        u16::try_from(entry.len()).map_err(|_| TileError::EntryTooLong { bytes: entry.len() })?;
    bundle.extend_from_slice(&length.to_be_bytes());
    bundle.extend_from_slice(entry);
    Ok(())
}

/// Reads a bundle of `width` entries.
///
/// # Errors
/// [`TileError::Bundle`] when the bytes are not exactly that many entries.
pub fn read_entries(mut bundle: &[u8], width: u16) -> Result<Vec<&[u8]>, TileError> {
    let mut entries = Vec::with_capacity(usize::from(width.min(TILE_WIDTH)));
    for _ in 0..width {
        let (length, rest) = bundle
            .split_first_chunk::<2>()
            .ok_or(TileError::Bundle { width })?;
        let (entry, rest) = rest
            .split_at_checked(usize::from(u16::from_be_bytes(*length)))
            .ok_or(TileError::Bundle { width })?;
        entries.push(entry);
        bundle = rest;
    }
    if !bundle.is_empty() {
        return Err(TileError::Bundle { width });
    }
    Ok(entries)
}

/// Why something is not a tile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TileError {
    /// The path names no tile.
    #[error("not the path of a tile: tile/<0-63>/<x000/000>[.p/<1-255>] or tile/entries/…")]
    Path,
    /// A hash tile of the wrong length.
    #[error("{bytes} bytes are not {width} hashes of 32 bytes; fetch the tile again")]
    Hashes {
        /// Bytes given.
        bytes: usize,
        /// Hashes expected.
        width: u16,
    },
    /// A bundle that is cut short or goes on.
    #[error("the bundle does not hold exactly {width} entries; fetch it again")]
    Bundle {
        /// Entries expected.
        width: u16,
    },
    /// The entry's length does not fit into 16 bits.
    #[error("an entry has {bytes} bytes, at most {ENTRY_BYTES_MAX} fit; log its digest instead")]
    EntryTooLong {
        /// Bytes of the entry.
        bytes: usize,
    },
}

impl fmt::Display for TilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            TileKind::Hashes(level) => write!(f, "tile/{level}/")?,
            TileKind::Entries => f.write_str("tile/entries/")?,
        }
        let mut divisor = 1;
        while self.index / divisor >= 1000 {
            divisor *= 1000;
        }
        while divisor > 1 {
            write!(f, "x{:03}/", self.index / divisor % 1000)?;
            divisor /= 1000;
        }
        write!(f, "{:03}", self.index % 1000)?;
        if !self.is_full() {
            write!(f, ".p/{}", self.width)?;
        }
        Ok(())
    }
}

impl FromStr for TilePath {
    type Err = TileError;

    fn from_str(text: &str) -> Result<Self, TileError> {
        parse(text)
            .filter(|path| path.to_string() == text)
            .ok_or(TileError::Path)
    }
}

/// Reads a path leniently where [`FromStr`] compares with the one spelling afterwards.
fn parse(text: &str) -> Option<TilePath> {
    let (kind, rest) = text.strip_prefix("tile/")?.split_once('/')?;
    let kind = match kind {
        "entries" => TileKind::Entries,
        level => TileKind::Hashes(decimal(level)?.try_into().ok()?),
    };
    let (groups, width) = match rest.split_once(".p/") {
        Some((groups, width)) => (groups, decimal(width)?.try_into().ok()?),
        None => (rest, TILE_WIDTH),
    };
    let mut index = 0u64;
    for group in groups.split('/') {
        let digits = group.strip_prefix('x').unwrap_or(group);
        let digits_only = digits.len() == 3 && digits.bytes().all(|byte| byte.is_ascii_digit());
        let number: u64 = digits.parse().ok().filter(|_| digits_only)?;
        index = index.checked_mul(1000)?.checked_add(number)?;
    }
    TilePath::new(kind, index, width).ok()
}

/// Levels of the tree between two levels of tiles: 2⁸ = 256.
const TILE_HEIGHT: u8 = 8;
const _: () = assert!(1 << TILE_HEIGHT == TILE_WIDTH);

#[cfg(test)]
mod tests;
