//! The key of a package and what is derived from it.
//!
//! ```text
//! PackageKey ──derive(section, package id)──▶ section key ──nonce(index, last)──▶ chunk
//! ```
//!
//! Always true: a section key belongs to one package id, and an id to one content (see
//! [`package_id`]), so a nonce repeats only when exactly the same bytes are sealed again; what a
//! chunk is and where it stands is in its AAD as well as in key and nonce (`spec/05-package.md` §4).

use bield_envelope::stream::StreamKey;
use bield_envelope::{Digest, Secret};
use rand_core::CryptoRng;

use crate::header::PackageHeader;

/// Opens and seals one package, or all versions of it.
///
/// It says nothing about itself: no `Debug`, no copy; it is wiped on drop. It travels only as the
/// [`seed`](Self::seed) inside an attested session.
pub struct PackageKey(Secret);

impl PackageKey {
    /// Makes a fresh key.
    pub fn generate(entropy: &mut impl CryptoRng) -> Self {
        Self(Secret::generate(entropy))
    }

    /// The key that has this seed.
    pub fn from_seed(seed: Secret) -> Self {
        Self(seed)
    }

    /// The seed, to be carried by `bield_envelope::transport` and nothing else.
    pub fn seed(&self) -> &Secret {
        &self.0
    }

    /// Gives the seed away.
    pub fn into_seed(self) -> Secret {
        self.0
    }

    pub(crate) fn section(&self, section: Section, id: &PackageId) -> StreamKey {
        let secret = self.0.derive(section.label(), &[id.as_bytes()]);
        StreamKey::new(&secret, [0; 7])
    }
}

/// Identifies one act of packing. Public.
pub(crate) type PackageId = Digest;

/// Makes the id of a package: random, and hedged with all that will be sealed under
/// it (the manifest names the content), so that a
/// repeated random number (a virtual machine rolled back) does not repeat a nonce over other bytes.
pub(crate) fn package_id(
    entropy: &mut impl CryptoRng,
    manifest: &[u8],
    chunk_bytes: u32,
) -> PackageId {
    let mut random = [0; 32];
    entropy.fill_bytes(&mut random);
    let parts: [&[u8]; 3] = [&random, manifest, &chunk_bytes.to_be_bytes()];
    Digest::of("bield package id v1", &parts)
}

/// What a sealed part of a package is.
#[derive(Clone, Copy)]
pub(crate) enum Section {
    /// The manifest, always one chunk.
    Manifest = 0,
    /// The model.
    Model = 1,
}

impl Section {
    fn label(self) -> &'static str {
        match self {
            Self::Manifest => "bield package v1 manifest",
            Self::Model => "bield package v1 model",
        }
    }
}

/// AAD of the chunks of a section: `section ‖ id ‖ count ‖ index ‖ last ‖ version`, integers
/// big-endian, version last because only it has a variable length.
pub(crate) struct ChunkAad {
    bytes: Vec<u8>,
    count: u32,
}

impl ChunkAad {
    pub(crate) fn new(section: Section, header: &PackageHeader, count: u32) -> Self {
        let mut bytes = vec![section as u8];
        bytes.extend(header.id.as_bytes());
        bytes.extend(count.to_be_bytes());
        bytes.extend([0; 5]);
        bytes.extend(header.version.as_str().as_bytes());
        Self { bytes, count }
    }

    /// Whether `index` is the last one, and the AAD of that chunk.
    pub(crate) fn at(&self, index: u32) -> (bool, Vec<u8>) {
        let last = index + 1 == self.count;
        let mut bytes = self.bytes.clone();
        bytes[INDEX_AT..INDEX_AT + 4].copy_from_slice(&index.to_be_bytes());
        bytes[INDEX_AT + 4] = u8::from(last);
        (last, bytes)
    }
}

/// Where the index stands in the AAD: after section, id and count.
const INDEX_AT: usize = 1 + 32 + 4;
