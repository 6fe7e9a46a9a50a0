//! Why a package does not pack or open. Names, positions and lengths appear; contents never.

use std::io;

use bield_envelope::wire::WireError;
use bield_envelope::{Principal, StatementError};

use crate::manifest::ManifestError;

/// A package was refused. Unless said otherwise the bytes are bad: fetch the package again, and
/// ask its owner when that does not help.
///
/// Chunks are counted from 0.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PackageError {
    /// It does not start as a package does.
    #[error("this is not a bield package")]
    NotAPackage,
    /// A newer or unknown file format. Whoever runs this program updates it.
    #[error("the package has file format {found}; this program reads format 1")]
    Format {
        /// Format of the file.
        found: u16,
    },
    /// The length of the header is out of bounds.
    #[error("the package's header claims {found} bytes; the limit is {max}")]
    HeaderTooLong {
        /// Bytes claimed.
        found: u32,
        /// Bytes allowed.
        max: u32,
    },
    /// The header is malformed or not signed by whom it names.
    #[error("the package's header is not valid: {0}")]
    Header(#[from] StatementError),
    /// The header names another owner than its signer.
    #[error("the package names {owner} as its owner but is signed by {signer}")]
    NotByOwner {
        /// Owner named in the header.
        owner: Principal,
        /// Who signed it.
        signer: Principal,
    },
    /// The owner signed lengths that contradict each other or exceed a limit.
    #[error("the package's header is inconsistent: {what}")]
    Inconsistent {
        /// Which value.
        what: &'static str,
    },
    /// The file ends inside header or manifest.
    #[error("the package ends before its first chunk: it was cut short")]
    HeadTruncated,
    /// The sealed manifest is not the one that the owner signed.
    #[error("the package's sealed manifest was altered")]
    ManifestAltered,
    /// The key does not open the manifest, whose sealed bytes are as the owner signed them. Whoever
    /// holds the keys finds the right one.
    #[error("the key does not open this package: it belongs to another package")]
    WrongKey,
    /// The owner's tool wrote a manifest that does not decode.
    #[error("the package's manifest is not valid: {0}")]
    ManifestMalformed(WireError),
    /// The owner's tool wrote a manifest that contradicts itself.
    #[error("the package's manifest is not valid: {0}")]
    Manifest(#[from] ManifestError),
    /// Manifest and header name different packages.
    #[error("the package's manifest and header name different packages")]
    OtherManifest,
    /// The caller's memory has another length than the model. A fault of this program.
    #[error("the model has {need} bytes; the region for it has {have}")]
    Region {
        /// Bytes of the region.
        have: u64,
        /// Bytes of the model.
        need: u64,
    },
    /// Bytes changed after sealing.
    #[error("chunk {index} of {count} does not open: wrong key or altered bytes")]
    ChunkAltered {
        /// Which chunk.
        index: u32,
        /// How many there are.
        count: u32,
    },
    /// A chunk stands in another chunk's place.
    #[error("chunk {index} of {count} is out of order: chunk {found} stands in its place")]
    ChunkMisplaced {
        /// Which chunk was due.
        index: u32,
        /// How many there are.
        count: u32,
        /// Which chunk it says it is.
        found: u32,
    },
    /// A chunk of another package, or of another version of this one.
    #[error("chunk {index} of {count} belongs to another package or version")]
    ChunkForeign {
        /// Which chunk was due.
        index: u32,
        /// How many there are.
        count: u32,
    },
    /// The file ends inside a chunk.
    #[error("the package ends inside chunk {index} of {count}: it was cut short")]
    Truncated {
        /// Which chunk was due.
        index: u32,
        /// How many there are.
        count: u32,
    },
    /// There are bytes after the last chunk.
    #[error("the package goes on after its last chunk: something was appended")]
    Trailing,
    /// The model is not the one whose digest the owner put into the manifest.
    #[error("the model's content is not what its manifest says")]
    Content,
    /// Reading failed. The operator looks at the disk or the connection; trying again may help.
    #[error("reading the package failed: {0}")]
    Io(io::Error),
}

/// A package could not be made. Nothing usable was written; delete the output.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PackError {
    /// The draft contradicts itself.
    #[error("the package's description is not valid: {0}")]
    Manifest(#[from] ManifestError),
    /// Golden pairs are too large.
    #[error(
        "the manifest takes {found} bytes; the limit is {max}: use fewer or smaller golden pairs"
    )]
    ManifestTooLong {
        /// Bytes needed.
        found: u64,
        /// Bytes allowed.
        max: u64,
    },
    /// The model is empty, too large, or the chunk length is not allowed.
    #[error("the model cannot be packed: its {what} is out of bounds")]
    OutOfBounds {
        /// Which value.
        what: &'static str,
    },
    /// The model's bytes changed between the two passes over them. Pack again.
    #[error("the model changed while it was being packed; pack it again")]
    ModelChanged,
    /// Reading the model failed.
    #[error("reading the model failed: {0}")]
    Read(io::Error),
    /// Writing the package failed, for instance because the disk is full.
    #[error("writing the package failed: {0}")]
    Write(io::Error),
}
