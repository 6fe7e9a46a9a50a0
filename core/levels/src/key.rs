//! Keys of runs: which bytes open where, and which hash a filter uses (`spec/07-levels §2`).
//!
//! ```text
//! generation key ─HKDF─▶ GenerationSecrets ─HKDF(salt)─▶ RunKey ─AES-256-GCM─▶ blocks, index, filter, properties
//!                              └─BLAKE3 keyed─▶ 64-bit hash of a key, for filters
//! ```
//!
//! In: generation keys and a run's salt. Out: sealed and opened sections. Always true: a run has a key
//! of its own, and a section of it a nonce of its own, so no nonce is used twice; what is sealed opens
//! in its capsule, generation, run, section and place and nowhere else, because key, nonce and
//! associated data all say where it belongs. No key can be printed or cloned; all are wiped on drop.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use bield_capsule::{CapsuleName, GenerationKey};
use bield_envelope::{Digest, Secret, Wiped};
use rand_core::CryptoRng;

/// Bytes that a sealed section is longer than its plaintext.
pub(crate) const TAG_BYTES: usize = 16;

/// What one generation of a capsule seals runs with.
pub(crate) struct GenerationSecrets {
    capsule: CapsuleName,
    generation: u32,
    runs: Secret,
    filters: Secret,
    #[cfg(feature = "measured")]
    plain: bool,
}

impl GenerationSecrets {
    /// Derives them; the generation key itself is not kept.
    pub(crate) fn derive(capsule: CapsuleName, key: &GenerationKey) -> Self {
        let place = [&capsule.as_bytes()[..], &key.number().to_be_bytes()];
        Self {
            capsule,
            generation: key.number(),
            runs: key.secret().derive(RUNS_LABEL, &place),
            filters: key.secret().derive(FILTERS_LABEL, &place),
            #[cfg(feature = "measured")]
            plain: false,
        }
    }

    /// From now on runs are neither sealed nor opened, so that the cost of doing so can be measured.
    #[cfg(feature = "measured")]
    pub(crate) const fn into_plain(mut self) -> Self {
        self.plain = true;
        self
    }

    pub(crate) const fn generation(&self) -> u32 {
        self.generation
    }

    /// The key of the run with this salt.
    pub(crate) fn run(&self, salt: &Digest) -> RunKey {
        let secret = self.runs.derive(RUN_LABEL, &[salt.as_bytes()]);
        let key = UnboundKey::new(&AES_256_GCM, secret.expose()).expect("AES-256 takes 32 bytes");
        let cipher = Cipher::Aead(LessSafeKey::new(key));
        #[cfg(feature = "measured")]
        let cipher = if self.plain { Cipher::Plain } else { cipher };
        RunKey {
            cipher,
            capsule: self.capsule,
            salt: *salt,
        }
    }

    /// A salt for a run with this plaintext.
    ///
    /// Made of the plaintext as well as of fresh randomness: a virtual machine that was set back
    /// together with its random generator seals the same run again, or another one with another key.
    pub(crate) fn salt(&self, plaintext: &[u8], entropy: &mut impl CryptoRng) -> Digest {
        let fresh = Secret::generate(entropy);
        let hedge = blake3::keyed_hash(self.runs.expose(), plaintext);
        Digest::of(
            SALT_DOMAIN,
            &[self.runs.expose(), fresh.expose(), hedge.as_bytes()],
        )
    }

    /// The hash under which filters know a key. Whoever chooses keys cannot compute it, and so
    /// cannot choose keys that collide, or that every filter lets through.
    pub(crate) fn filter_hash(&self, key: &[u8]) -> u64 {
        let hash = blake3::keyed_hash(self.filters.expose(), key);
        let (first, _) = hash.as_bytes().split_first_chunk().expect("32 are more");
        u64::from_be_bytes(*first)
    }
}

/// Seals and opens the sections of one run.
pub(crate) struct RunKey {
    cipher: Cipher,
    capsule: CapsuleName,
    salt: Digest,
}

enum Cipher {
    Aead(LessSafeKey),
    #[cfg(feature = "measured")]
    Plain,
}

/// A kind of section.
#[derive(Clone, Copy)]
#[repr(u8)]
pub(crate) enum Section {
    Block = 1,
    Index = 2,
    Filter = 3,
    Properties = 4,
}

/// Where a section stands in its run.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub(crate) section: Section,
    /// Of a block; else 0.
    pub(crate) number: u32,
    /// Blocks of the whole run.
    pub(crate) blocks: u32,
}

impl RunKey {
    /// Seals in place; the last [`TAG_BYTES`] of `section` are room for the tag.
    pub(crate) fn seal(&self, place: Place, section: &mut [u8]) {
        let (plain, room) = section
            .split_last_chunk_mut::<TAG_BYTES>()
            .expect("a section has room for its tag");
        match &self.cipher {
            Cipher::Aead(key) => {
                let tag = key
                    .seal_in_place_separate_tag(
                        place.nonce(),
                        Aad::from(self.associated(place)),
                        plain,
                    )
                    .expect("a section is shorter than AES-GCM's limit");
                room.copy_from_slice(tag.as_ref());
            }
            #[cfg(feature = "measured")]
            Cipher::Plain => room.fill(0),
        }
    }

    /// Opens in place; `None` when it was altered or belongs elsewhere.
    pub(crate) fn open(&self, place: Place, mut section: Vec<u8>) -> Option<Wiped> {
        let opened = match &self.cipher {
            Cipher::Aead(key) => {
                let associated = Aad::from(self.associated(place));
                let opened = key.open_in_place(place.nonce(), associated, &mut section);
                opened.ok()?.len()
            }
            #[cfg(feature = "measured")]
            Cipher::Plain => section.len().checked_sub(TAG_BYTES)?,
        };
        section.truncate(opened);
        Some(Wiped::from(section))
    }

    /// `"bldl" ‖ 1 ‖ section ‖ number ‖ blocks ‖ capsule ‖ salt`.
    fn associated(&self, place: Place) -> [u8; ASSOCIATED_BYTES] {
        let mut bytes = [0; ASSOCIATED_BYTES];
        bytes[..4].copy_from_slice(b"bldl");
        bytes[4] = VERSION;
        bytes[5] = place.section as u8;
        bytes[6..10].copy_from_slice(&place.number.to_be_bytes());
        bytes[10..14].copy_from_slice(&place.blocks.to_be_bytes());
        bytes[14..46].copy_from_slice(self.capsule.as_bytes());
        bytes[46..].copy_from_slice(self.salt.as_bytes());
        bytes
    }
}

impl Place {
    fn nonce(self) -> Nonce {
        let mut nonce = [0; NONCE_LEN];
        nonce[0] = self.section as u8;
        nonce[NONCE_LEN - 4..].copy_from_slice(&self.number.to_be_bytes());
        Nonce::assume_unique_for_key(nonce)
    }
}

/// Version of the run format.
const VERSION: u8 = 1;
const ASSOCIATED_BYTES: usize = 14 + 32 + 32;
const RUNS_LABEL: &str = "bield levels runs v1";
const FILTERS_LABEL: &str = "bield levels filters v1";
const RUN_LABEL: &str = "bield levels run v1";
const SALT_DOMAIN: &str = "bield levels salt v1";

#[cfg(test)]
mod tests {
    use super::*;
    use bield_envelope::Seeded;

    fn secrets(capsule: u8, generation: u32, secret: u8) -> GenerationSecrets {
        let key = GenerationKey::from_secret(generation, Secret::from_bytes([secret; 32]));
        GenerationSecrets::derive(CapsuleName::from_bytes([capsule; 32]), &key)
    }

    #[test]
    fn a_section_opens_in_its_place_only() {
        let salt = Digest::from_bytes([5; 32]);
        let place = Place {
            section: Section::Block,
            number: 3,
            blocks: 9,
        };
        let key = secrets(1, 1, 7).run(&salt);
        let mut sealed = b"cells and room for a tag........".to_vec();
        key.seal(place, &mut sealed);
        let opened = key.open(place, sealed.clone()).unwrap();
        assert_eq!(&opened[..], b"cells and room f");
        let elsewhere = [
            Place { number: 4, ..place },
            Place { blocks: 8, ..place },
            Place {
                section: Section::Index,
                ..place
            },
        ];
        for place in elsewhere {
            assert!(key.open(place, sealed.clone()).is_none());
        }
        for other in [
            secrets(2, 1, 7).run(&salt),
            secrets(1, 2, 7).run(&salt),
            secrets(1, 1, 8).run(&salt),
            secrets(1, 1, 7).run(&Digest::from_bytes([6; 32])),
        ] {
            assert!(other.open(place, sealed.clone()).is_none());
        }
        assert!(key.open(place, sealed[1..].to_vec()).is_none());
        assert!(key.open(place, Vec::new()).is_none());
    }

    #[test]
    fn randomness_that_repeats_gives_another_run_another_key() {
        let secrets = secrets(1, 1, 7);
        let salt = |plaintext: &[u8]| secrets.salt(plaintext, &mut Seeded::new(1));
        assert_eq!(salt(b"one"), salt(b"one"));
        assert_ne!(salt(b"one"), salt(b"two"));
        assert_ne!(salt(b"one"), secrets.salt(b"one", &mut Seeded::new(2)));
    }

    #[test]
    fn filters_of_two_capsules_know_a_key_by_two_hashes() {
        assert_ne!(
            secrets(1, 1, 7).filter_hash(b"key"),
            secrets(2, 1, 7).filter_hash(b"key")
        );
    }
}
