//! The public head of a package: what the host may know, signed by the owner.
//!
//! ```text
//! "bieldpkg" ‖ format u16 ‖ length u32 ‖ Signed<PackageHeader> ‖ sealed manifest ‖ sealed chunks
//! ```
//!
//! Always true: a [`PackageHeader`] that [`check`](PackageHeader::check) passed has lengths that
//! agree with each other and lie within the limits, so that every offset in the file follows from
//! it without overflow. Integers outside CBOR are big-endian.

use bield_envelope::stream::TAG_BYTES;
use bield_envelope::{Digest, Principal, Statement, Verified};
use minicbor::{Decode, Encode};

use crate::{PackageName, PackageVersion};

/// First bytes of every package.
pub(crate) const MAGIC: [u8; 8] = *b"bieldpkg";

/// Version of the file format.
pub(crate) const FORMAT: u16 = 1;

/// Magic, format and length of the header, in bytes.
pub(crate) const PREAMBLE_BYTES: usize = 8 + 2 + 4;

/// Usual bytes of model per chunk (1 MiB): AES-GCM runs at full speed from 16 KiB on, and 28
/// bytes of frame and tag disappear.
pub const CHUNK_BYTES: u32 = 1 << 20;

/// Smallest chunk, in bytes of model: for test vectors and very small models.
pub const CHUNK_BYTES_MIN: u32 = 256;

/// Largest model, in bytes (64 GiB): more than any enclave holds today.
pub const MODEL_BYTES_MAX: u64 = 64 << 30;

/// Largest manifest before sealing, in bytes (16 MiB): three golden pairs of image size take 2.
pub const MANIFEST_BYTES_MAX: u32 = 16 << 20;

/// Largest signed header, in bytes; a real one has about 400.
pub(crate) const HEADER_BYTES_MAX: usize = 1024;

/// Bytes before each chunk's ciphertext: 8 of the package id, 4 of the index. They only tell a
/// misplaced chunk from an altered one; the authority is the tag.
pub(crate) const FRAME_BYTES: usize = 8 + 4;

/// How the sections are sealed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(index_only)]
pub enum Suite {
    /// HKDF-SHA256 section keys, AES-256-GCM chunks, BLAKE3 digests.
    #[n(1)]
    Aes256Gcm,
}

/// What is public about a package. The owner signs it.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(map)]
pub struct PackageHeader {
    /// Identifies this act of packing; 32 unpredictable bytes.
    #[n(0)]
    pub id: Digest,
    /// How the sections are sealed.
    #[n(1)]
    pub suite: Suite,
    /// What the package is called.
    #[n(2)]
    pub name: PackageName,
    /// Which edition it is.
    #[n(3)]
    pub version: PackageVersion,
    /// Who packed it, and signs this.
    #[n(4)]
    pub owner: Principal,
    /// Bytes of the sealed manifest, tag included.
    #[n(5)]
    pub manifest_bytes: u32,
    /// Digest of the sealed manifest.
    #[n(6)]
    pub manifest: Digest,
    /// Bytes of model per chunk; the last chunk may be shorter.
    #[n(7)]
    pub chunk_bytes: u32,
    /// How many chunks follow.
    #[n(8)]
    pub chunk_count: u32,
    /// Bytes of the model.
    #[n(9)]
    pub model_bytes: u64,
}

impl Statement for PackageHeader {
    const DOMAIN: &'static str = "bield package header v1";
    const BYTES_MAX: usize = 512;
}

impl PackageHeader {
    /// Identifies the package whose owner signed this: what grants, requests and receipts name.
    #[must_use]
    pub fn package(signed: &Verified<Self>) -> Digest {
        package_digest(signed.as_bytes())
    }

    /// Checks that the lengths agree and lie within the limits; `Err` names the first that does
    /// not.
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        let manifest_max = MANIFEST_BYTES_MAX + TAG_BYTES as u32;
        if self.manifest_bytes <= TAG_BYTES as u32 || self.manifest_bytes > manifest_max {
            return Err("manifest length");
        }
        if !(CHUNK_BYTES_MIN..=CHUNK_BYTES).contains(&self.chunk_bytes)
            || !self.chunk_bytes.is_power_of_two()
        {
            return Err("chunk length");
        }
        if !(1..=MODEL_BYTES_MAX).contains(&self.model_bytes) {
            return Err("model length");
        }
        if u64::from(self.chunk_count) != chunk_count(self.model_bytes, self.chunk_bytes) {
            return Err("chunk count");
        }
        Ok(())
    }

    /// Bytes of model in chunk `index`; 0 when there is no such chunk.
    pub(crate) fn plain_chunk_bytes(&self, index: u32) -> usize {
        let start = u64::from(index) * u64::from(self.chunk_bytes);
        let rest = self.model_bytes.saturating_sub(start);
        rest.min(u64::from(self.chunk_bytes)) as usize
    }

    /// Bytes of frame that chunk `index` starts with.
    pub(crate) fn frame(&self, index: u32) -> [u8; FRAME_BYTES] {
        let mut frame = [0; FRAME_BYTES];
        frame[..8].copy_from_slice(&self.id.as_bytes()[..8]);
        frame[8..].copy_from_slice(&index.to_be_bytes());
        frame
    }

    /// Bytes of all sealed chunks together.
    pub(crate) fn sealed_model_bytes(&self) -> u64 {
        self.model_bytes + u64::from(self.chunk_count) * (FRAME_BYTES + TAG_BYTES) as u64
    }
}

pub(crate) fn chunk_count(model_bytes: u64, chunk_bytes: u32) -> u64 {
    model_bytes.div_ceil(u64::from(chunk_bytes))
}

/// Identifies a package: what grants, requests and receipts name.
pub(crate) fn package_digest(signed_header: &[u8]) -> Digest {
    Digest::of("bield package v1", &[signed_header])
}

/// Identifies a sealed manifest, in the header.
pub(crate) fn manifest_digest(sealed_manifest: &[u8]) -> Digest {
    Digest::of("bield sealed manifest v1", &[sealed_manifest])
}

// The largest model in the smallest chunks is still counted by 32 bits.
const _: () = assert!(MODEL_BYTES_MAX / (CHUNK_BYTES_MIN as u64) < u32::MAX as u64);
// The signed structure adds about 110 bytes to its payload.
const _: () = assert!(PackageHeader::BYTES_MAX + 200 <= HEADER_BYTES_MAX);
