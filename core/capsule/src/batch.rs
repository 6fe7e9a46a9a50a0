//! Entries gathered for one record, in the layout that is sealed (`spec/06 §4`).
//!
//! ```text
//! entries   form ‖ payload │ form ‖ payload │ …          form 0: plain   1: erasable
//! ends      u32            │ u32            │ …          offset just after each entry
//! ```
//!
//! In: payloads. Out: bytes that [`crate::Writer::seal`] copies into a record once. Always true: what
//! is in a batch fits one record; a payload that does not fit changes nothing. Reused for record
//! after record, it allocates only while it grows to its usual size; it is wiped on drop, while the
//! buffers it outgrew are not.
//!
//! Cost per entry: 5 bytes on the wire beyond the payload and one copy; no allocation, no hash. An
//! erasable entry costs 80 bytes more, one hash pass and one encryption of its payload and one
//! derivation (about 1 µs when it is short).

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use bield_envelope::Secret;
use rand_core::CryptoRng;
use zeroize::{Zeroize, Zeroizing};

use crate::record::TAG_BYTES;
use crate::{BODY_BYTES_MAX, CapsuleName, ENTRIES_MAX, Suite};

/// Longest payload of a plain entry in bytes: alone in a record it fills the body.
pub const PAYLOAD_BYTES_MAX: usize = BODY_BYTES_MAX - TAG_BYTES - ENTRY_BYTES;

/// Why a batch did not take an entry; it is unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BatchFull {
    /// No room beside the entries already there.
    #[error("the record is full: seal the batch, clear it, then push again")]
    Full,
    /// No record holds this.
    #[error(
        "an entry of {found} bytes fits no record, the most is {max}: split it or store it elsewhere and name it by hash; do not retry"
    )]
    TooLong {
        /// Bytes of payload.
        found: usize,
        /// Most bytes of payload.
        max: usize,
    },
}

/// Entries for one record.
#[derive(Default)]
pub struct Batch {
    entries: Vec<u8>,
    /// Big-endian, as they stand in the body.
    ends: Vec<u8>,
}

impl Batch {
    /// Begins with no entries and no memory.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            entries: Vec::new(),
            ends: Vec::new(),
        }
    }

    /// Adds a plain entry.
    ///
    /// # Errors
    /// It does not fit; the batch is unchanged.
    pub fn push(&mut self, payload: &[u8]) -> Result<(), BatchFull> {
        self.fits(payload.len(), payload.len(), PAYLOAD_BYTES_MAX)?;
        self.entries.push(PLAIN);
        self.entries.extend_from_slice(payload);
        self.end();
        Ok(())
    }

    /// Adds an entry under a key of its own, drawn here and returned: whoever destroys it erases the
    /// entry from every copy of the log. Keep it in a [`crate::KeyRing`] under the place that the
    /// entry gets when the batch is sealed; its index is `len() - 1`.
    ///
    /// The key is made of randomness and the payload, so that a virtual machine set back to an earlier
    /// moment, random generator and all, repeats it only for the same payload.
    ///
    /// # Errors
    /// It does not fit; the batch is unchanged.
    pub fn push_erasable(
        &mut self,
        suite: Suite,
        capsule: &CapsuleName,
        payload: &[u8],
        entropy: &mut impl CryptoRng,
    ) -> Result<Secret, BatchFull> {
        let sealed = payload.len() + ERASABLE_BYTES;
        self.fits(
            payload.len(),
            sealed,
            PAYLOAD_BYTES_MAX.saturating_sub(ERASABLE_BYTES),
        )?;
        let key = entry_key(suite, capsule, &Secret::generate(entropy), payload);
        self.entries.push(ERASABLE);
        seal_erasable(suite, capsule, &key, payload, &mut self.entries);
        self.end();
        Ok(key)
    }

    /// Adds all entries of another batch, or none.
    ///
    /// # Errors
    /// They do not fit; the batch is unchanged.
    pub fn append(&mut self, other: &Self) -> Result<(), BatchFull> {
        if self.bytes() + other.entries.len() + other.ends.len() > BODY_BYTES_MAX
            || self.len() + other.len() > ENTRIES_MAX
        {
            return Err(BatchFull::Full);
        }
        let start = self.entries.len() as u32;
        self.entries.extend_from_slice(&other.entries);
        for end in other.ends.as_chunks::<END_BYTES>().0 {
            let end = start + u32::from_be_bytes(*end);
            self.ends.extend_from_slice(&end.to_be_bytes());
        }
        Ok(())
    }

    /// Entries in it.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.ends.len() / END_BYTES
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Length of the body it makes, in bytes.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.entries.len() + self.ends.len() + TAG_BYTES
    }

    /// Forgets the entries, keeps the memory for the next.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.ends.clear();
    }

    /// Forgets all entries after the first `len`.
    pub(crate) fn truncate(&mut self, len: usize) {
        let ends = len * END_BYTES;
        if ends < self.ends.len() {
            self.ends.truncate(ends);
            let end = self.ends.last_chunk::<END_BYTES>();
            self.entries
                .truncate(end.map_or(0, |end| u32::from_be_bytes(*end) as usize));
        }
    }

    /// The entries, one after the other.
    pub(crate) const fn entries(&self) -> &[u8] {
        self.entries.as_slice()
    }

    /// Their ends.
    pub(crate) const fn ends(&self) -> &[u8] {
        self.ends.as_slice()
    }

    fn fits(&self, payload: usize, encoded: usize, max: usize) -> Result<(), BatchFull> {
        if payload > max {
            return Err(BatchFull::TooLong {
                found: payload,
                max,
            });
        }
        if self.bytes() + encoded + ENTRY_BYTES > BODY_BYTES_MAX || self.len() == ENTRIES_MAX {
            return Err(BatchFull::Full);
        }
        Ok(())
    }

    fn end(&mut self) {
        let end = self.entries.len() as u32;
        self.ends.extend_from_slice(&end.to_be_bytes());
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        self.entries.zeroize();
    }
}

/// The key of an erasable entry (spec/06 §4): under one key and nonce two payloads would show what
/// they have in common, and whoever keeps one key could open the other.
fn entry_key(suite: Suite, capsule: &CapsuleName, fresh: &Secret, payload: &[u8]) -> Secret {
    let mut key = Zeroizing::new([0; 32]);
    let parts = [capsule.as_bytes(), payload];
    suite.derive(fresh.expose(), ENTRY_KEY_LABEL, &parts, &mut *key);
    Secret::from_bytes(*key)
}

/// Appends `commitment ‖ ciphertext ‖ tag`.
fn seal_erasable(
    suite: Suite,
    capsule: &CapsuleName,
    key: &Secret,
    payload: &[u8],
    out: &mut Vec<u8>,
) {
    let opening = entry_opening(suite, capsule, key);
    let (key, commitment) = opening.split_at(32);
    out.extend_from_slice(commitment);
    let start = out.len();
    out.extend_from_slice(payload);
    let tag = aead(key)
        .seal_in_place_separate_tag(
            zero_nonce(),
            Aad::from(capsule.as_bytes()),
            &mut out[start..],
        )
        .expect("a payload is shorter than AES-GCM's limit");
    out.extend_from_slice(tag.as_ref());
}

/// `key ‖ commitment` of an erasable entry.
pub(crate) fn entry_opening(
    suite: Suite,
    capsule: &CapsuleName,
    key: &Secret,
) -> Zeroizing<[u8; 64]> {
    let mut opening = Zeroizing::new([0; 64]);
    suite.derive(
        key.expose(),
        ENTRY_LABEL,
        &[capsule.as_bytes()],
        &mut *opening,
    );
    opening
}

/// An AES-256-GCM key that seals one message and no other, hence the nonce below.
pub(crate) fn aead(key: &[u8]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).expect("AES-256 takes 32 bytes"))
}

/// `0¹²`: every key here is derived for one message.
pub(crate) fn zero_nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}

/// Form of a plain entry.
pub(crate) const PLAIN: u8 = 0;
/// Form of an erasable entry.
pub(crate) const ERASABLE: u8 = 1;
/// Bytes of an end.
pub(crate) const END_BYTES: usize = 4;
/// Bytes of an entry beside its payload: form and end.
pub(crate) const ENTRY_BYTES: usize = 1 + END_BYTES;
/// Bytes of an erasable payload beside its content: commitment and tag.
pub(crate) const ERASABLE_BYTES: usize = 32 + TAG_BYTES;

const ENTRY_LABEL: &str = "bield capsule entry v1";
const ENTRY_KEY_LABEL: &str = "bield capsule entry key v1";

#[cfg(test)]
mod tests {
    use super::*;
    use bield_envelope::Seeded;

    #[test]
    fn the_longest_payload_fills_a_record_exactly() {
        let mut batch = Batch::new();
        let longest = vec![7; PAYLOAD_BYTES_MAX];
        batch.push(&longest).unwrap();
        assert_eq!(batch.bytes(), BODY_BYTES_MAX);
        assert_eq!(batch.push(&[]), Err(BatchFull::Full));
        let longer = vec![7; PAYLOAD_BYTES_MAX + 1];
        let max = PAYLOAD_BYTES_MAX;
        assert_eq!(
            Batch::new().push(&longer),
            Err(BatchFull::TooLong {
                found: max + 1,
                max
            })
        );
        let mut batch = Batch::new();
        let name = CapsuleName::from_bytes([1; 32]);
        let pushed = batch.push_erasable(
            Suite::Ed25519,
            &name,
            &longest[ERASABLE_BYTES..],
            &mut Seeded::new(1),
        );
        assert!(pushed.is_ok() && batch.bytes() == BODY_BYTES_MAX);
    }

    #[test]
    fn no_more_entries_are_taken_than_a_record_counts() {
        let mut batch = Batch::new();
        for _ in 0..ENTRIES_MAX {
            batch.push(&[]).unwrap();
        }
        let bytes = batch.bytes();
        assert_eq!(batch.push(&[]), Err(BatchFull::Full));
        assert_eq!((batch.len(), batch.bytes()), (ENTRIES_MAX, bytes));
    }

    #[test]
    fn a_generator_that_repeats_itself_repeats_no_entry_key_for_another_payload() {
        for suite in Suite::ALL {
            let key = |capsule: u8, payload: &[u8]| {
                let name = CapsuleName::from_bytes([capsule; 32]);
                let key = Batch::new().push_erasable(suite, &name, payload, &mut Seeded::new(5));
                *key.map_err(|error| error.to_string()).unwrap().expose()
            };
            assert_ne!(key(1, b"erase me"), key(1, b"keep  me"));
            assert_ne!(key(1, b"erase me"), key(2, b"erase me"));
            assert_eq!(key(1, b"erase me"), key(1, b"erase me"));
        }
    }

    #[test]
    fn an_appended_batch_is_the_longer_batch() {
        let push = |batch: &mut Batch, payloads: &[&[u8]]| {
            for payload in payloads {
                batch.push(payload).unwrap();
            }
        };
        let (mut one, mut two, mut both) = (Batch::new(), Batch::new(), Batch::new());
        push(&mut one, &[b"a", b""]);
        push(&mut two, &[b"bb", b"c"]);
        push(&mut both, &[b"a", b"", b"bb", b"c"]);
        one.append(&two).unwrap();
        assert_eq!((one.entries(), one.ends()), (both.entries(), both.ends()));
        let mut large = Batch::new();
        large.push(&vec![0; PAYLOAD_BYTES_MAX - 4]).unwrap();
        assert_eq!(large.append(&two), Err(BatchFull::Full));
        assert_eq!(large.len(), 1);
    }

    #[test]
    fn a_truncated_batch_is_the_shorter_batch() {
        let mut batch = Batch::new();
        for payload in [&b"a"[..], b"", b"ccc"] {
            batch.push(payload).unwrap();
        }
        batch.truncate(9);
        assert_eq!(batch.len(), 3);
        batch.truncate(1);
        assert_eq!(batch.entries(), b"\0a");
        assert_eq!(batch.ends(), [0, 0, 0, 2]);
        batch.truncate(0);
        assert!(batch.is_empty() && batch.entries().is_empty());
    }
}
