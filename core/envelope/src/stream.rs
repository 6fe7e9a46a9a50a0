//! Chunked authenticated encryption in the STREAM construction, AES-256-GCM.
//!
//! ```text
//! chunk i:  nonce = prefix (7) ‖ i (u32 BE) ‖ last (0 or 1)      sealed = ciphertext ‖ tag (16)
//! ```
//!
//! Always true: one key seals each index once, so a nonce never repeats as long as the key is fresh
//! per message; a reordered, dropped, repeated or truncated chunk does not open, because its index
//! and its being the last are in the nonce (Hoang, Reyhanitabar, Rogaway, Vizár 2015, §7).
//! One pass, no copy: [`StreamKey::open_into`] decrypts straight to its destination.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

use crate::Secret;

/// Bytes a sealed chunk is longer than its plaintext.
pub const TAG_BYTES: usize = 16;

/// The chunk does not open: another key, position or length, or altered bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("chunk {index} does not open: wrong key, wrong place or altered bytes")]
pub struct StreamError {
    /// Position of the chunk.
    pub index: u32,
}

/// Seals or opens the chunks of one message.
pub struct StreamKey {
    key: LessSafeKey,
    prefix: [u8; 7],
}

impl StreamKey {
    /// Takes a key that seals one message only; `prefix` separates messages when it does not.
    #[must_use]
    pub fn new(secret: &Secret, prefix: [u8; 7]) -> Self {
        let key = UnboundKey::new(&AES_256_GCM, secret.expose()).expect("AES-256 takes 32 bytes");
        Self {
            key: LessSafeKey::new(key),
            prefix,
        }
    }

    /// Appends the sealed chunk to `out`.
    ///
    /// # Panics
    /// When the chunk is longer than AES-GCM's 64 GiB.
    pub fn seal(&self, index: u32, last: bool, aad: &[u8], plain: &[u8], out: &mut Vec<u8>) {
        let start = out.len();
        out.reserve(plain.len() + TAG_BYTES);
        out.extend(plain);
        let tag = self
            .key
            .seal_in_place_separate_tag(self.nonce(index, last), Aad::from(aad), &mut out[start..])
            .expect("a chunk is shorter than AES-GCM's limit");
        out.extend(tag.as_ref());
    }

    /// Opens a sealed chunk into `out`, which has exactly the plaintext's length.
    ///
    /// # Errors
    /// When the tag does not verify or the lengths disagree; `out` is then all zeros.
    pub fn open_into(
        &self,
        index: u32,
        last: bool,
        aad: &[u8],
        sealed: &[u8],
        out: &mut [u8],
    ) -> Result<(), StreamError> {
        let opened = match sealed.len().checked_sub(TAG_BYTES) {
            Some(length) if length == out.len() => {
                let (ciphertext, tag) = sealed.split_at(length);
                let nonce = self.nonce(index, last);
                self.key
                    .open_separate_gather(nonce, Aad::from(aad), ciphertext, tag, out)
                    .is_ok()
            }
            _ => false,
        };
        if !opened {
            out.fill(0);
            return Err(StreamError { index });
        }
        Ok(())
    }

    fn nonce(&self, index: u32, last: bool) -> Nonce {
        let mut nonce = [0; 12];
        nonce[..7].copy_from_slice(&self.prefix);
        nonce[7..11].copy_from_slice(&index.to_be_bytes());
        nonce[11] = u8::from(last);
        Nonce::assume_unique_for_key(nonce)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_opens_only_in_its_place() {
        let key = StreamKey::new(&Secret::from_bytes([3; 32]), [0; 7]);
        let mut sealed = Vec::new();
        key.seal(4, true, b"aad", b"hello", &mut sealed);
        let mut out = [1; 5];
        assert_eq!(key.open_into(4, true, b"aad", &sealed, &mut out), Ok(()));
        assert_eq!(&out, b"hello");
        let other = StreamKey::new(&Secret::from_bytes([4; 32]), [0; 7]);
        for (key, index, last, aad) in [
            (&key, 5, true, b"aad"),
            (&key, 4, false, b"aad"),
            (&key, 4, true, b"add"),
            (&other, 4, true, b"aad"),
        ] {
            assert!(key.open_into(index, last, aad, &sealed, &mut out).is_err());
            assert_eq!(out, [0; 5]);
        }
        assert!(
            key.open_into(4, true, b"aad", &sealed[1..], &mut out)
                .is_err()
        );
        assert!(key.open_into(4, true, b"aad", &[], &mut out).is_err());
    }
}
