//! The user's side: from a file's first bytes to a model in memory, one proof at a time.
//!
//! ```text
//! bytes ──read──▶ PackageHead ──open_manifest(key)──▶ OpenPackage ──open_model──▶ region
//!                 owner's signature                   right key         each chunk's tag
//!                 manifest's digest                   manifest's tag
//! ```
//!
//! Always true: plaintext appears in the region only after the tag of its chunk was checked
//! against key, package, version, index and count; when any chunk fails, the whole region is
//! zeroed. A sealed chunk is first copied into private memory, because the host may be able to
//! change the source while it is read.
//!
//! Not here: allocating, locking and wiping the region afterwards; threads. A caller with threads
//! uses [`OpenPackage::open_chunk`] with [`OpenPackage::chunk`] instead.
//!
//! On paper: per byte of model one copy into the chunk buffer and one decryption into the region;
//! memory = model + 1 MiB + 28 B; no hash over the model.

use std::io::{self, Read};
use std::ops::Range;

use bield_envelope::stream::{StreamKey, TAG_BYTES};
use bield_envelope::{Digest, Signed, Verified, wire};
use zeroize::Zeroizing;

use crate::error::PackageError;
use crate::header::{
    self, FORMAT, FRAME_BYTES, HEADER_BYTES_MAX, MAGIC, MANIFEST_BYTES_MAX, PREAMBLE_BYTES,
    PackageHeader,
};
use crate::key::{ChunkAad, PackageKey, Section};
use crate::manifest::Manifest;
use crate::pack::content_hasher;

/// The head of a package whose owner's signature was checked. Anyone may read it.
pub struct PackageHead {
    header: Verified<PackageHeader>,
    sealed_manifest: Vec<u8>,
}

impl PackageHead {
    /// Reads a package up to its first chunk.
    ///
    /// Whether that owner is the right one is the caller's question: compare
    /// [`digest`](Self::digest) with the one granted.
    ///
    /// # Errors
    ///
    /// Anything that is not a head signed by the owner it names.
    pub fn read(source: &mut impl Read) -> Result<Self, PackageError> {
        let mut preamble = [0; PREAMBLE_BYTES];
        fill(source, &mut preamble)?;
        let (magic, rest) = preamble.split_at(MAGIC.len());
        let (format, length) = rest.split_at(2);
        if magic != MAGIC {
            return Err(PackageError::NotAPackage);
        }
        if format != FORMAT.to_be_bytes() {
            let found = u16::from_be_bytes([format[0], format[1]]);
            return Err(PackageError::Format { found });
        }
        let length = u32::from_be_bytes([length[0], length[1], length[2], length[3]]);
        if length as usize > HEADER_BYTES_MAX {
            return Err(PackageError::HeaderTooLong {
                found: length,
                max: HEADER_BYTES_MAX as u32,
            });
        }
        let mut bytes = vec![0; length as usize];
        fill(source, &mut bytes)?;
        let header = verify_header(&bytes)?;

        let mut sealed_manifest = vec![0; header.manifest_bytes as usize];
        fill(source, &mut sealed_manifest)?;
        if header::manifest_digest(&sealed_manifest) != header.manifest {
            return Err(PackageError::ManifestAltered);
        }
        Ok(Self {
            header,
            sealed_manifest,
        })
    }

    /// Identifies the package: what grants, requests and receipts name.
    pub fn digest(&self) -> Digest {
        header::package_digest(self.header.as_bytes())
    }

    /// What is public about the package.
    pub fn header(&self) -> &PackageHeader {
        &self.header
    }

    /// The public header with its owner's signature, to pass on.
    pub fn signed_header(&self) -> &Signed<PackageHeader> {
        self.header.as_signed()
    }

    /// Bytes before the first chunk.
    pub fn head_bytes(&self) -> u64 {
        (PREAMBLE_BYTES + self.header.as_bytes().len() + self.sealed_manifest.len()) as u64
    }

    /// Bytes of the whole package.
    pub fn package_bytes(&self) -> u64 {
        self.head_bytes() + self.header.sealed_model_bytes()
    }

    /// Opens the manifest.
    ///
    /// # Errors
    ///
    /// [`PackageError::WrongKey`], or a manifest that is not valid.
    pub fn open_manifest(self, key: &PackageKey) -> Result<OpenPackage, PackageError> {
        let (digest, head_bytes) = (self.digest(), self.head_bytes());
        let header = self.header;
        let section = key.section(Section::Manifest, &header.id);
        let (last, aad) = ChunkAad::new(Section::Manifest, &header, 1).at(0);
        let mut plain = Zeroizing::new(vec![0; self.sealed_manifest.len() - TAG_BYTES]);
        section
            .open_into(0, last, &aad, &self.sealed_manifest, &mut plain)
            .map_err(|_| PackageError::WrongKey)?;
        let manifest: Manifest = wire::decode(&plain, MANIFEST_BYTES_MAX as usize)
            .map_err(PackageError::ManifestMalformed)?;
        manifest.check()?;
        if manifest.name != header.name || manifest.version != header.version {
            return Err(PackageError::OtherManifest);
        }
        Ok(OpenPackage {
            section: key.section(Section::Model, &header.id),
            aad: ChunkAad::new(Section::Model, &header, header.chunk_count),
            digest,
            head_bytes,
            header,
            manifest,
        })
    }
}

/// A package whose manifest was opened, ready to open its model.
pub struct OpenPackage {
    header: Verified<PackageHeader>,
    digest: Digest,
    head_bytes: u64,
    manifest: Manifest,
    section: StreamKey,
    aad: ChunkAad,
}

/// Where a chunk lies, sealed in the file and opened in the region.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChunkPlace {
    /// Offsets in the file.
    pub sealed: Range<u64>,
    /// Offsets in the model.
    pub plain: Range<usize>,
}

impl OpenPackage {
    /// Identifies the package: what grants, requests and receipts name.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// What is public about the package.
    pub fn header(&self) -> &PackageHeader {
        &self.header
    }

    /// The secret description of the model.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Gives up the rest to keep the description.
    pub fn into_manifest(self) -> Manifest {
        self.manifest
    }

    /// Bytes of the model: what [`open_model`](Self::open_model) needs of memory.
    pub fn model_bytes(&self) -> u64 {
        self.header.model_bytes
    }

    /// How many chunks the model is sealed in.
    pub fn chunk_count(&self) -> u32 {
        self.header.chunk_count
    }

    /// Where chunk `index` lies; `None` when there is no such chunk.
    pub fn chunk(&self, index: u32) -> Option<ChunkPlace> {
        if index >= self.header.chunk_count {
            return None;
        }
        let start = u64::from(index) * u64::from(self.header.chunk_bytes);
        let length = self.header.plain_chunk_bytes(index);
        let overhead = (FRAME_BYTES + TAG_BYTES) as u64;
        let sealed = self.head_bytes + start + u64::from(index) * overhead;
        let plain = usize::try_from(start).ok()?;
        Some(ChunkPlace {
            sealed: sealed..sealed + length as u64 + overhead,
            plain: plain..plain + length,
        })
    }

    /// Opens one chunk into its part of the model. Pure; chunks may be opened in any order and in
    /// parallel.
    ///
    /// `sealed` must be private memory. On error `out` is all zeros.
    ///
    /// # Errors
    ///
    /// The chunk is altered, misplaced, foreign or of another length.
    pub fn open_chunk(
        &self,
        index: u32,
        sealed: &[u8],
        out: &mut [u8],
    ) -> Result<(), PackageError> {
        let opened = self.try_open_chunk(index, sealed, out);
        if opened.is_err() {
            out.fill(0);
        }
        opened
    }

    /// Opens the whole model, from a source that stands at the first chunk and ends after the last.
    ///
    /// `progress` receives bytes done and bytes in total. On error the region is all zeros.
    ///
    /// # Errors
    ///
    /// The first bad chunk, a source that ends early or goes on, a region of another length, and
    /// what reading returns.
    pub fn open_model(
        &self,
        source: &mut impl Read,
        region: &mut [u8],
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<(), PackageError> {
        let opened = self.try_open_model(source, region, progress);
        if opened.is_err() {
            region.fill(0);
        }
        opened
    }

    /// Checks that `model` is what the owner's tool hashed. For offline checks: the tags already
    /// prove that these are the bytes that were sealed.
    ///
    /// # Errors
    ///
    /// [`PackageError::Content`].
    pub fn check_content(&self, model: &[u8]) -> Result<(), PackageError> {
        let mut hasher = content_hasher();
        hasher.update(model);
        if hasher.finish() != self.manifest.content {
            return Err(PackageError::Content);
        }
        Ok(())
    }

    fn try_open_model(
        &self,
        source: &mut impl Read,
        region: &mut [u8],
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<(), PackageError> {
        let (have, need) = (region.len() as u64, self.header.model_bytes);
        if have != need {
            return Err(PackageError::Region { have, need });
        }
        let count = self.header.chunk_count;
        let chunk_bytes = self.header.plain_chunk_bytes(0);
        let mut buffer = vec![0; FRAME_BYTES + chunk_bytes + TAG_BYTES];
        let mut done = 0;
        for (index, out) in (0..count).zip(region.chunks_mut(chunk_bytes)) {
            let sealed = &mut buffer[..FRAME_BYTES + out.len() + TAG_BYTES];
            source
                .read_exact(sealed)
                .map_err(|error| match error.kind() {
                    io::ErrorKind::UnexpectedEof => PackageError::Truncated { index, count },
                    _ => PackageError::Io(error),
                })?;
            self.try_open_chunk(index, sealed, out)?;
            done += out.len() as u64;
            progress(done, need);
        }
        match source.read_exact(&mut [0]) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(()),
            Err(error) => Err(PackageError::Io(error)),
            Ok(()) => Err(PackageError::Trailing),
        }
    }

    fn try_open_chunk(
        &self,
        index: u32,
        sealed: &[u8],
        out: &mut [u8],
    ) -> Result<(), PackageError> {
        let count = self.header.chunk_count;
        let altered = PackageError::ChunkAltered { index, count };
        let plain_bytes = self.header.plain_chunk_bytes(index);
        if index >= count || out.len() != plain_bytes {
            return Err(PackageError::Region {
                have: out.len() as u64,
                need: plain_bytes as u64,
            });
        }
        let Some((frame, sealed)) = sealed.split_at_checked(FRAME_BYTES) else {
            return Err(PackageError::Truncated { index, count });
        };
        self.check_frame(index, frame)?;
        let (last, aad) = self.aad.at(index);
        self.section
            .open_into(index, last, &aad, sealed, out)
            .map_err(|_| altered)
    }

    /// Tells a misplaced or foreign chunk from an altered one (spec/05 §5: the frame is a hint for
    /// people, so a frame that says nothing sensible counts as altered).
    fn check_frame(&self, index: u32, frame: &[u8]) -> Result<(), PackageError> {
        let count = self.header.chunk_count;
        let due = self.header.frame(index);
        if frame == due {
            return Ok(());
        }
        let (package, place) = frame.split_at(8);
        let found = place.iter().fold(0, |n, byte| n << 8 | u32::from(*byte));
        Err(if package != &due[..8] {
            PackageError::ChunkForeign { index, count }
        } else if found < count {
            PackageError::ChunkMisplaced {
                index,
                count,
                found,
            }
        } else {
            PackageError::ChunkAltered { index, count }
        })
    }
}

fn verify_header(bytes: &[u8]) -> Result<Verified<PackageHeader>, PackageError> {
    let signed =
        Signed::<PackageHeader>::decode(bytes).map_err(bield_envelope::StatementError::from)?;
    let header = signed.verify_claimed()?;
    if header.owner != header.signer() {
        return Err(PackageError::NotByOwner {
            owner: header.owner,
            signer: header.signer(),
        });
    }
    header
        .check()
        .map_err(|what| PackageError::Inconsistent { what })?;
    Ok(header)
}

fn fill(source: &mut impl Read, bytes: &mut [u8]) -> Result<(), PackageError> {
    source
        .read_exact(bytes)
        .map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => PackageError::HeadTruncated,
            _ => PackageError::Io(error),
        })
}
