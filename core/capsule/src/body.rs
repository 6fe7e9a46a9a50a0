//! Sealed bodies: one key per record, fixed by a commitment, opened whole or not at all
//! (`spec/06 §4`).
//!
//! ```text
//! generation key ─KDF─▶ RecordSecret ─KDF─▶ key ‖ commitment (in the header)
//!                          │                 │
//!       give it away: opens │ this record     ▼
//!                          └──────▶  AES-256-GCM(entries ‖ ends)  ──hash──▶ root (in the header)
//! ```
//!
//! In: a batch to seal; a received record and a key ring to open. Out: record bytes, still unsigned;
//! [`Entries`]. Always true: a key seals one plaintext, also after a virtual machine was set back
//! with its random generator, because the salt is made of the plaintext and of everything it is
//! bound to as well; a body is decrypted
//! only under the one key its header commits to; the layout is checked whole before an entry is
//! handed out. Nothing here panics, whatever the bytes.
//!
//! Cost to seal n bytes in k entries: one copy, one encryption, one GMAC pass over the plaintext (the
//! hedge in the salt) and one hash pass over the ciphertext; two derivations and the signature per record, whatever k is. To
//! open: one decryption, no copy, two derivations. What an entry costs beside what encryption and
//! hashing alone cost prints `--example seal_rate`.

use aws_lc_rs::aead::{Aad, Tag};
use bield_envelope::Secret;
use rand_core::CryptoRng;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::batch::{END_BYTES, ERASABLE, ERASABLE_BYTES, PLAIN, aead, entry_opening, zero_nonce};
use crate::record::{KEYED_BYTES, ROOT_AT, SALT_AT, TAG_BYTES, ZERO};
use crate::{
    Batch, CapsuleName, EntryPlace, GenerationKey, HEADER_BYTES, Header, KeyRing, Kind, Received,
    Suite, WriterId,
};

/// Why a body or an entry does not open. The record stays verifiable all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Only data records are sealed.
    #[error("a {0:?} record has no sealed body; do not retry")]
    NotData(Kind),
    /// The ring has no key of this generation.
    #[error(
        "no key of generation {generation}: ask the key service or the owner for it; gone for good if it was erased"
    )]
    NoKey {
        /// The generation that sealed the record.
        generation: u32,
    },
    /// The ring has no key of this entry.
    #[error(
        "no key for entry {} of record {}/{}: ask whoever keeps it; gone for good if it was erased",
        place.index, place.writer.short(), place.seq
    )]
    NoEntryKey {
        /// The entry.
        place: EntryPlace,
    },
    /// The key is not the one that the header, or the entry, commits to.
    #[error(
        "the key is not the one this was sealed with: compare it with the configuration's commitment; do not retry with the same key"
    )]
    Commitment,
    /// Altered bytes under the right key.
    #[error("sealed bytes were altered; fetch the record from another replica")]
    Tag,
    /// The writer sealed something that is no list of entries.
    #[error("the writer broke the layout of a body: {0}; tell its owner, do not retry")]
    Layout(&'static str),
}

/// Opens one record and no other; for whoever may read just this one.
pub struct RecordSecret(Secret);

impl RecordSecret {
    /// Takes the bytes from a proof or an attested session.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Secret::from_bytes(bytes))
    }

    /// Shows the bytes, to be given away.
    #[must_use]
    pub const fn expose(&self) -> &[u8; 32] {
        self.0.expose()
    }

    /// The secret of the record with this header.
    pub(crate) fn derive(suite: Suite, generation: &Secret, header: &[u8]) -> Self {
        let mut secret = Zeroizing::new([0; 32]);
        let keyed = &header[..KEYED_BYTES];
        suite.derive(generation.expose(), RECORD_LABEL, &[keyed], &mut *secret);
        Self(Secret::from_bytes(*secret))
    }

    /// The body's key, when this is the secret that the header commits to.
    ///
    /// # Errors
    /// Another record's secret.
    pub(crate) fn body_key(&self, header: &Header) -> Result<Zeroizing<[u8; 32]>, OpenError> {
        let opening = self.opening(header.suite);
        let (key, commitment) = halves(&opening);
        // Before decrypting: AES-GCM alone would open one ciphertext under two keys.
        if !bool::from(commitment.ct_eq(&header.commitment)) {
            return Err(OpenError::Commitment);
        }
        Ok(Zeroizing::new(*key))
    }

    /// `key ‖ commitment`.
    fn opening(&self, suite: Suite) -> Zeroizing<[u8; 64]> {
        let mut opening = Zeroizing::new([0; 64]);
        suite.derive(self.0.expose(), OPEN_LABEL, &[], &mut *opening);
        opening
    }
}

/// The secret of one record, for someone who may read it and nothing else.
///
/// # Errors
/// No data record, no key for its generation, or a key that is not the one it was sealed with.
pub fn record_secret(record: &Received, keys: &KeyRing) -> Result<RecordSecret, OpenError> {
    let secret = derive_for(record, keys)?;
    secret.body_key(record.header())?;
    Ok(secret)
}

/// Opens a record's body with the key of its generation.
pub(crate) fn open_with(record: &Received, keys: &KeyRing) -> Result<Entries, OpenError> {
    open(record, &derive_for(record, keys)?)
}

/// Opens a record's body with its own secret.
pub(crate) fn open(record: &Received, secret: &RecordSecret) -> Result<Entries, OpenError> {
    let header = record.header();
    if header.kind != Kind::Data {
        return Err(OpenError::NotData(header.kind));
    }
    let key = secret.body_key(header)?;
    let (sealed, tag) = record
        .body()
        .split_last_chunk::<TAG_BYTES>()
        .ok_or(OpenError::Layout("shorter than a tag"))?;
    let mut scratch = Vec::new();
    let associated = associated(record.header_bytes(), &mut scratch);
    let mut plaintext = Zeroizing::new(vec![0; sealed.len()]);
    aead(&*key)
        .open_separate_gather(
            zero_nonce(),
            Aad::from(associated),
            sealed,
            tag,
            &mut plaintext,
        )
        .map_err(|_| OpenError::Tag)?;
    Entries::parse(plaintext, header)
}

/// Seals a batch into `header ‖ room for the signature ‖ body`, and completes the header.
///
/// `header` says all but salt, commitment and root; `scratch` is memory to reuse.
pub(crate) fn seal(
    header: &mut Header,
    batch: &Batch,
    generation: &GenerationKey,
    scratch: &mut Vec<u8>,
    entropy: &mut impl CryptoRng,
) -> Vec<u8> {
    let suite = header.suite;
    let header_bytes = header.encoded_bytes();
    let body_at = header_bytes + suite.signature_bytes();
    (header.salt, header.commitment, header.root) = ([0; 16], [0; 32], ZERO);
    header.count = batch.len() as u32;
    header.body_bytes = batch.bytes() as u32;

    let mut bytes = Vec::with_capacity(body_at + batch.bytes());
    header.encode_to(&mut bytes);
    bytes.resize(body_at, 0);
    bytes.extend_from_slice(batch.entries());
    bytes.extend_from_slice(batch.ends());

    let fresh = Secret::generate(entropy);
    let hedge = hedge(suite, generation, &bytes[body_at..]);
    let salt = suite.hash(
        SALT_DOMAIN,
        &[
            generation.secret().expose(),
            fresh.expose(),
            &bytes[..SALT_AT],
            // Parents and skip pointers: AES-GCM must not see one nonce with two associated data.
            &bytes[HEADER_BYTES..header_bytes],
            hedge.as_ref(),
        ],
    );
    header.salt.copy_from_slice(&salt.as_bytes()[..16]);
    bytes[SALT_AT..KEYED_BYTES].copy_from_slice(&header.salt);

    let secret = RecordSecret::derive(suite, generation.secret(), &bytes);
    let opening = secret.opening(suite);
    let (key, commitment) = halves(&opening);
    header.commitment = *commitment;
    bytes[KEYED_BYTES..ROOT_AT].copy_from_slice(commitment);

    let (head, body) = bytes.split_at_mut(body_at);
    let tag = aead(key)
        .seal_in_place_separate_tag(
            zero_nonce(),
            Aad::from(associated(&head[..header_bytes], scratch)),
            body,
        )
        .expect("a body is shorter than AES-GCM's limit");
    bytes.extend_from_slice(tag.as_ref());

    header.root = suite.root(&bytes[body_at..]);
    bytes[ROOT_AT..HEADER_BYTES].copy_from_slice(header.root.as_bytes());
    bytes
}

/// A keyed digest of the plaintext that nobody is shown: GMAC, because it is the cheapest one. Its nonce
/// may repeat; what a repeated nonce betrays of the key is in the tag, and the tag goes into a hash.
fn hedge(suite: Suite, generation: &GenerationKey, plaintext: &[u8]) -> Tag {
    let mut key = Zeroizing::new([0; 32]);
    suite.derive(generation.secret().expose(), HEDGE_LABEL, &[], &mut *key);
    aead(&*key)
        .seal_in_place_separate_tag(zero_nonce(), Aad::from(plaintext), &mut [])
        .expect("a body is shorter than AES-GCM's limit")
}

fn derive_for(record: &Received, keys: &KeyRing) -> Result<RecordSecret, OpenError> {
    let header = record.header();
    if header.kind != Kind::Data {
        return Err(OpenError::NotData(header.kind));
    }
    let generation = header.generation;
    let key = keys
        .generation(generation)
        .ok_or(OpenError::NoKey { generation })?;
    Ok(RecordSecret::derive(
        header.suite,
        key.secret(),
        record.header_bytes(),
    ))
}

/// `header[0..200] ‖ header[232..]`: all but the root, which is not known before sealing.
fn associated<'a>(header: &'a [u8], scratch: &'a mut Vec<u8>) -> &'a [u8] {
    if header.len() == HEADER_BYTES {
        return &header[..ROOT_AT];
    }
    scratch.clear();
    scratch.extend_from_slice(&header[..ROOT_AT]);
    scratch.extend_from_slice(&header[HEADER_BYTES..]);
    scratch
}

fn halves(opening: &[u8; 64]) -> (&[u8; 32], &[u8; 32]) {
    let (key, rest) = opening.split_first_chunk().expect("64 are more than 32");
    (key, rest.first_chunk().expect("64 are twice 32"))
}

/// The opened body of one record; wiped on drop.
pub struct Entries {
    plaintext: Zeroizing<Vec<u8>>,
    /// Where the entries stop and their ends begin.
    ends_at: usize,
    suite: Suite,
    capsule: CapsuleName,
    writer: WriterId,
    seq: u64,
}

impl Entries {
    /// Checks the whole layout.
    fn parse(plaintext: Zeroizing<Vec<u8>>, header: &Header) -> Result<Self, OpenError> {
        let ends_at = plaintext
            .len()
            .checked_sub(header.count as usize * END_BYTES)
            .ok_or(OpenError::Layout("fewer ends than entries"))?;
        let (entries, ends) = plaintext.split_at(ends_at);
        let mut place = EntryPlace {
            writer: header.writer,
            seq: header.seq,
            index: 0,
        };
        let mut start = 0;
        for end in ends.as_chunks::<END_BYTES>().0 {
            let end = u32::from_be_bytes(*end) as usize;
            let entry = entries
                .get(start..end)
                .ok_or(OpenError::Layout("an end is out of order or out of range"))?;
            Entry::parse(entry, header.suite, header.capsule, place)
                .ok_or(OpenError::Layout("an entry of no known form, or too short"))?;
            start = end;
            place.index += 1;
        }
        if start != ends_at {
            return Err(OpenError::Layout("bytes between entries and ends"));
        }
        Ok(Self {
            plaintext,
            ends_at,
            suite: header.suite,
            capsule: header.capsule,
            writer: header.writer,
            seq: header.seq,
        })
    }

    /// Entries in the record.
    #[must_use]
    pub fn len(&self) -> usize {
        (self.plaintext.len() - self.ends_at) / END_BYTES
    }

    /// Whether there is none; a verified data record has at least one.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where an entry, with its form byte, lies in the plaintext, and so in the body.
    #[must_use]
    pub fn range(&self, index: usize) -> Option<core::ops::Range<usize>> {
        let ends = self.plaintext[self.ends_at..].as_chunks::<END_BYTES>().0;
        let end = |index: usize| Some(u32::from_be_bytes(*ends.get(index)?) as usize);
        let start = index.checked_sub(1).map_or(Some(0), end)?;
        Some(start..end(index)?)
    }

    /// An entry by position.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<Entry<'_>> {
        let place = EntryPlace {
            writer: self.writer,
            seq: self.seq,
            index: index as u32,
        };
        let bytes = &self.plaintext[self.range(index)?];
        Entry::parse(bytes, self.suite, self.capsule, place)
    }

    /// All entries in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Entry<'_>> {
        (0..self.len()).map(|index| self.get(index).expect("the layout was checked"))
    }
}

impl core::fmt::Debug for Entries {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(
            f,
            "Entries({} of {}/{})",
            self.len(),
            self.writer.short(),
            self.seq
        )
    }
}

/// An entry of an opened body.
pub enum Entry<'a> {
    /// Its payload.
    Plain(&'a [u8]),
    /// Sealed once more, under a key of its own.
    Erasable(Erasable<'a>),
}

impl<'a> Entry<'a> {
    /// Reads form and payload; `None` when the form is unknown or the payload too short for it.
    pub(crate) fn parse(
        bytes: &'a [u8],
        suite: Suite,
        capsule: CapsuleName,
        place: EntryPlace,
    ) -> Option<Self> {
        match bytes.split_first()? {
            (&PLAIN, payload) => Some(Self::Plain(payload)),
            (&ERASABLE, sealed) if sealed.len() >= ERASABLE_BYTES => {
                Some(Self::Erasable(Erasable {
                    sealed,
                    suite,
                    capsule,
                    place,
                }))
            }
            _ => None,
        }
    }

    /// The payload of a plain entry.
    #[must_use]
    pub const fn plain(&self) -> Option<&'a [u8]> {
        match self {
            Self::Plain(payload) => Some(payload),
            Self::Erasable(_) => None,
        }
    }
}

/// An entry that is erased by destroying its key.
pub struct Erasable<'a> {
    sealed: &'a [u8],
    suite: Suite,
    capsule: CapsuleName,
    place: EntryPlace,
}

impl Erasable<'_> {
    /// Where it stands, which is where a key ring has its key.
    #[must_use]
    pub const fn place(&self) -> EntryPlace {
        self.place
    }

    /// Opens it with the key from a ring.
    ///
    /// # Errors
    /// No key in the ring, or as [`Erasable::open_with`].
    pub fn open(&self, keys: &KeyRing) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let place = self.place;
        self.open_with(keys.entry(&place).ok_or(OpenError::NoEntryKey { place })?)
    }

    /// Opens it.
    ///
    /// # Errors
    /// Another entry's key, or altered bytes.
    pub fn open_with(&self, key: &Secret) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let short = OpenError::Layout("an erasable entry is too short");
        let (committed, rest) = self.sealed.split_first_chunk::<32>().ok_or(short)?;
        let (sealed, tag) = rest.split_last_chunk::<TAG_BYTES>().ok_or(short)?;
        let opening = entry_opening(self.suite, &self.capsule, key);
        let (key, commitment) = halves(&opening);
        if !bool::from(commitment.ct_eq(committed)) {
            return Err(OpenError::Commitment);
        }
        let mut payload = Zeroizing::new(vec![0; sealed.len()]);
        aead(key)
            .open_separate_gather(
                zero_nonce(),
                Aad::from(self.capsule.as_bytes()),
                sealed,
                tag,
                &mut payload,
            )
            .map_err(|_| OpenError::Tag)?;
        Ok(payload)
    }
}

const RECORD_LABEL: &str = "bield capsule record v1";
const OPEN_LABEL: &str = "bield capsule open v1";
const SALT_DOMAIN: &str = "bield capsule salt v1";
const HEDGE_LABEL: &str = "bield capsule hedge v1";

#[cfg(test)]
pub(crate) mod tests;
