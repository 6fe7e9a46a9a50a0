//! The keys that open bodies: one per generation, one per erasable entry (`spec/06 §4, §5`).
//!
//! In: keys from the owner, the key service or storage. Out: keys by number and place, and a sealed
//! ring's plaintext for storage. Always true: no key can be printed or cloned, all are wiped on drop;
//! a number never changes its key; the ring has bounds, so what it encodes it also decodes.
//!
//! Dropping a key is erasure as far as this ring is concerned. Whether other copies exist is for
//! their holders to say: the log itself stays provable without any key.
//!
//! A ring alone cannot know which key of a generation is the right one: the configuration can. A key
//! that came from anybody else goes in by [`KeyRing::insert_committed`], and a writer compares the key
//! it seals with ([`GenerationKey::check`]); else nobody could read what it writes.

use std::collections::BTreeMap;

use bield_envelope::{Digest, Secret, wire, wire::WireError};
use minicbor::{Decode, Encode};
use rand_core::CryptoRng;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::{CONFIG_GENERATIONS_MAX, Config, Metadata, WriterId};

/// Most generations a ring holds: as many as a capsule may have; 2.5 MiB encoded.
pub const GENERATIONS_MAX: usize = CONFIG_GENERATIONS_MAX;

/// Most keys of erasable entries a ring holds: 11 MiB encoded.
pub const ENTRY_KEYS_MAX: usize = 131_072;

/// Longest encoded ring in bytes.
pub const KEYRING_BYTES_MAX: usize = 16 << 20;

/// The key of a generation: opens every record that is sealed under it.
pub struct GenerationKey {
    number: u32,
    secret: Secret,
}

impl GenerationKey {
    /// Draws a fresh key for generation `number`, from 1.
    #[must_use]
    pub fn generate(number: u32, entropy: &mut impl CryptoRng) -> Self {
        Self::from_secret(number, Secret::generate(entropy))
    }

    /// Takes a key from storage or an attested session.
    #[must_use]
    pub const fn from_secret(number: u32, secret: Secret) -> Self {
        Self { number, secret }
    }

    /// The generation.
    #[must_use]
    pub const fn number(&self) -> u32 {
        self.number
    }

    /// The key itself, for storage and transport.
    #[must_use]
    pub const fn secret(&self) -> &Secret {
        &self.secret
    }

    /// Compares the key with what the configuration says of its generation.
    ///
    /// # Errors
    /// Another capsule's configuration, a generation that is not known, or another key.
    pub fn check(&self, metadata: &Metadata, config: &Config) -> Result<(), KeyRingError> {
        let generation = self.number;
        let committed = config
            .commitment(generation)
            .filter(|_| config.capsule() == metadata.name())
            .ok_or(KeyRingError::NoGeneration { generation })?;
        if committed == self.commitment(metadata) {
            Ok(())
        } else {
            Err(KeyRingError::NotCommitted { generation })
        }
    }

    /// What the configuration says about this key in this capsule, without showing it.
    #[must_use]
    pub fn commitment(&self, metadata: &Metadata) -> Digest {
        metadata.suite().hash(
            GENERATION_DOMAIN,
            &[
                metadata.name().as_bytes(),
                &self.number.to_be_bytes(),
                self.secret.expose(),
            ],
        )
    }
}

/// Where an entry stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct EntryPlace {
    /// In whose chain.
    #[n(0)]
    pub writer: WriterId,
    /// In which record.
    #[n(1)]
    pub seq: u64,
    /// Which entry, from 0.
    #[n(2)]
    pub index: u32,
}

/// Why a ring did not take a key; it is unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyRingError {
    /// Another key has this number or place: taking this one would make records unreadable.
    #[error(
        "the ring holds another key there: compare both with the configuration's commitment; do not retry"
    )]
    Other,
    /// The configuration has no such generation.
    #[error(
        "the configuration known has no generation {generation}: fetch a newer one, then try again"
    )]
    NoGeneration {
        /// The key's number.
        generation: u32,
    },
    /// The configuration names another key: records sealed with this one open for nobody else.
    #[error(
        "the key is not the one that the configuration names for generation {generation}: whoever gave it is wrong; ask the owner or the key service, do not retry with this key"
    )]
    NotCommitted {
        /// The key's number.
        generation: u32,
    },
    /// As many keys as a ring holds.
    #[error("the ring is full: drop keys that nobody needs, or use a second ring")]
    Full,
}

/// Keys by generation and by entry.
#[derive(Default)]
pub struct KeyRing {
    generations: BTreeMap<u32, GenerationKey>,
    entries: BTreeMap<EntryPlace, Secret>,
}

impl KeyRing {
    /// Begins without keys.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            generations: BTreeMap::new(),
            entries: BTreeMap::new(),
        }
    }

    /// Keeps a generation's key that somebody gave, if it is the one that the configuration names; the
    /// same key again is fine.
    ///
    /// # Errors
    /// As [`GenerationKey::check`], or a full ring; the ring is unchanged.
    pub fn insert_committed(
        &mut self,
        key: GenerationKey,
        metadata: &Metadata,
        config: &Config,
    ) -> Result<(), KeyRingError> {
        key.check(metadata, config)?;
        self.insert(key)
    }

    /// Keeps a generation's key that was drawn here; one from elsewhere goes in by
    /// [`KeyRing::insert_committed`]. The same key again is fine.
    ///
    /// # Errors
    /// Another key under this number, or a full ring.
    pub fn insert(&mut self, key: GenerationKey) -> Result<(), KeyRingError> {
        keep(&mut self.generations, key.number, key, GENERATIONS_MAX)
    }

    /// The key of a generation.
    #[must_use]
    pub fn generation(&self, number: u32) -> Option<&GenerationKey> {
        self.generations.get(&number)
    }

    /// The key with the largest number.
    #[must_use]
    pub fn newest(&self) -> Option<&GenerationKey> {
        self.generations.values().next_back()
    }

    /// The generations whose keys are here, ascending.
    pub fn generations(&self) -> impl Iterator<Item = u32> + '_ {
        self.generations.keys().copied()
    }

    /// Destroys a generation's key here; says whether it was there.
    pub fn drop_generation(&mut self, number: u32) -> bool {
        self.generations.remove(&number).is_some()
    }

    /// Keeps the key of an erasable entry; the same key again is fine.
    ///
    /// # Errors
    /// Another key for this place, or a full ring.
    pub fn keep_entry(&mut self, place: EntryPlace, key: Secret) -> Result<(), KeyRingError> {
        keep(&mut self.entries, place, key, ENTRY_KEYS_MAX)
    }

    /// The key of an erasable entry.
    #[must_use]
    pub fn entry(&self, place: &EntryPlace) -> Option<&Secret> {
        self.entries.get(place)
    }

    /// Destroys an entry's key here; says whether it was there.
    pub fn drop_entry(&mut self, place: &EntryPlace) -> bool {
        self.entries.remove(place).is_some()
    }

    /// The ring's bytes, to be sealed before they are stored; wiped on drop.
    #[must_use]
    pub fn encode_secret(&self) -> Zeroizing<Vec<u8>> {
        wire::encode_secret(self)
    }

    /// Reads what [`KeyRing::encode_secret`] wrote.
    ///
    /// # Errors
    /// Not the one encoding of a ring.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        wire::decode(bytes, KEYRING_BYTES_MAX)
    }
}

fn keep<K: Ord, V: Held>(
    map: &mut BTreeMap<K, V>,
    at: K,
    key: V,
    max: usize,
) -> Result<(), KeyRingError> {
    match map.get(&at) {
        Some(there) if there.held().ct_eq(key.held()).into() => Ok(()),
        Some(_) => Err(KeyRingError::Other),
        None if map.len() >= max => Err(KeyRingError::Full),
        None => {
            map.insert(at, key);
            Ok(())
        }
    }
}

/// What a ring holds.
trait Held {
    fn held(&self) -> &Secret;
}

impl Held for Secret {
    fn held(&self) -> &Secret {
        self
    }
}

impl Held for GenerationKey {
    fn held(&self) -> &Secret {
        &self.secret
    }
}

/// `[[number, key, …], [[writer, seq, index], key, …]]`, both ascending.
impl<C> Encode<C> for KeyRing {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        context: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.array(2)?.array(self.generations.len() as u64 * 2)?;
        for key in self.generations.values() {
            e.u32(key.number)?.bytes(key.secret.expose())?;
        }
        e.array(self.entries.len() as u64 * 2)?;
        for (place, key) in &self.entries {
            e.encode_with(place, context)?.bytes(key.expose())?;
        }
        Ok(())
    }
}

impl<'b, C> Decode<'b, C> for KeyRing {
    fn decode(
        d: &mut minicbor::Decoder<'b>,
        context: &mut C,
    ) -> Result<Self, minicbor::decode::Error> {
        let malformed = || minicbor::decode::Error::message("not a key ring");
        if d.array()? != Some(2) {
            return Err(malformed());
        }
        let mut ring = Self::new();
        for _ in 0..pairs(d)? {
            let number = d.u32()?;
            let secret = bield_envelope::transport::decode(d, context)?;
            ring.insert(GenerationKey::from_secret(number, secret))
                .map_err(|_| malformed())?;
        }
        for _ in 0..pairs(d)? {
            let place = d.decode_with(context)?;
            let secret = bield_envelope::transport::decode(d, context)?;
            ring.keep_entry(place, secret).map_err(|_| malformed())?;
        }
        Ok(ring)
    }
}

fn pairs(d: &mut minicbor::Decoder<'_>) -> Result<u64, minicbor::decode::Error> {
    match d.array()? {
        Some(items) if items % 2 == 0 => Ok(items / 2),
        _ => Err(minicbor::decode::Error::message("not pairs")),
    }
}

const GENERATION_DOMAIN: &str = "bield capsule generation v1";

/// Encoded sizes from above: place 3 + 34 + 9 + 5, key 34; number 5, key 34.
const _: () =
    assert!(ENTRY_KEYS_MAX * (51 + 34) + GENERATIONS_MAX * (5 + 34) + 32 <= KEYRING_BYTES_MAX);

#[cfg(test)]
mod tests {
    use super::*;
    use bield_envelope::Seeded;

    fn place(index: u32) -> EntryPlace {
        EntryPlace {
            writer: WriterId::from_bytes([9; 32]),
            seq: u64::MAX,
            index,
        }
    }

    fn ring() -> KeyRing {
        let mut entropy = Seeded::new(4);
        let mut ring = KeyRing::new();
        for number in [1, 2, 70_000] {
            let key = GenerationKey::generate(number, &mut entropy);
            ring.insert(key).unwrap();
        }
        for index in [0, u32::MAX] {
            let key = Secret::generate(&mut entropy);
            ring.keep_entry(place(index), key).unwrap();
        }
        ring
    }

    #[test]
    fn a_ring_survives_its_own_encoding_and_nothing_shorter_or_longer_does() {
        let ring = ring();
        let bytes = ring.encode_secret();
        let again = KeyRing::decode(&bytes).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(*again.encode_secret(), *bytes);
        assert_eq!(again.newest().map(GenerationKey::number), Some(70_000));
        assert_eq!(
            again.entry(&place(0)).map(Secret::expose),
            ring.entry(&place(0)).map(Secret::expose)
        );
        for cut in 0..bytes.len() {
            assert!(KeyRing::decode(&bytes[..cut]).is_err());
        }
        let longer = [&bytes[..], &[0]].concat();
        assert!(KeyRing::decode(&longer).is_err());
    }

    #[test]
    fn a_number_never_changes_its_key() {
        let mut ring = ring();
        let same = Secret::from_bytes(*ring.generation(1).unwrap().secret().expose());
        assert_eq!(ring.insert(GenerationKey::from_secret(1, same)), Ok(()));
        let other = GenerationKey::from_secret(1, Secret::from_bytes([1; 32]));
        assert_eq!(ring.insert(other), Err(KeyRingError::Other));
        let other = Secret::from_bytes([1; 32]);
        assert_eq!(ring.keep_entry(place(0), other), Err(KeyRingError::Other));
        assert!(ring.drop_generation(1) && !ring.drop_generation(1));
        assert!(ring.generation(1).is_none());
        assert!(ring.drop_entry(&place(0)) && ring.entry(&place(0)).is_none());
    }

    #[test]
    fn a_key_from_elsewhere_is_the_one_that_the_configuration_names() {
        let mut entropy = Seeded::new(6);
        let mut capsule = || {
            let owner = crate::WriterKey::generate(crate::Suite::Ed25519, &mut entropy);
            let now = bield_envelope::Time::from_millis(1);
            Metadata::new(owner.public(), None, now, &mut entropy).unwrap()
        };
        let (metadata, other) = (capsule(), capsule());
        let key = |byte| GenerationKey::from_secret(1, Secret::from_bytes([byte; 32]));
        let begins = crate::Change::Generation {
            number: 1,
            commitment: key(7).commitment(&metadata),
        };
        let empty = Config::new(&metadata);
        let config = empty.after(metadata.name().digest(), &[begins]).unwrap();
        let mut ring = KeyRing::new();
        let generation = 1;
        assert_eq!(
            ring.insert_committed(key(8), &metadata, &config),
            Err(KeyRingError::NotCommitted { generation })
        );
        for (metadata, config) in [(&metadata, &empty), (&other, &config)] {
            assert_eq!(
                ring.insert_committed(key(7), metadata, config),
                Err(KeyRingError::NoGeneration { generation })
            );
        }
        assert!(ring.newest().is_none());
        assert_eq!(ring.insert_committed(key(7), &metadata, &config), Ok(()));
        assert_eq!(ring.insert_committed(key(7), &metadata, &config), Ok(()));
    }

    #[test]
    fn a_full_ring_says_so() {
        let mut ring = KeyRing::new();
        for number in 1..=GENERATIONS_MAX as u32 {
            let key = GenerationKey::from_secret(number, Secret::from_bytes([1; 32]));
            ring.insert(key).unwrap();
        }
        let more = GenerationKey::from_secret(u32::MAX, Secret::from_bytes([1; 32]));
        assert_eq!(ring.insert(more), Err(KeyRingError::Full));
    }
}
