//! The sealed state and the host's storage.
//!
//! ```text
//! "bldk" ‖ 1 ‖ nonce (32) ‖ one sealed chunk      key = derive(seal key, nonce)
//! ```
//!
//! Always true: the host stores bytes it cannot read or change unnoticed; each save has its own key,
//! so no nonce repeats. The host can keep an older save and give that back.

use std::io::{self, Read as _, Write as _};
use std::sync::Arc;
use std::time::Duration;

use bield_door::Offers;
use bield_envelope::Secret;
use bield_envelope::stream::{StreamKey, TAG_BYTES};
use bield_protocol::visit::{Visit, storage};
use rand_core::CryptoRng;
use zeroize::Zeroizing;

/// Why the state could not be loaded or saved.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The host offered no storage, or broke off.
    #[error("the host's storage does not answer ({0}); the operator must look at it, then retry")]
    Unreachable(String),
    /// The host could not make the state durable.
    #[error("the host could not store the state; the operator must look at its disk, then retry")]
    NotDurable,
    /// What the host gave back does not open.
    #[error(
        "stored state does not open: altered, or sealed by other code or on another machine; \
         restore the right file, or start with an empty storage directory to begin anew"
    )]
    Altered,
    /// The state outgrew the storage.
    #[error("the state is larger than the storage takes; remove packages or grants")]
    TooLarge,
}

/// Where sealed bytes go.
pub trait Store: Send + Sync {
    /// Reads the last saved state; `None` when there never was one.
    ///
    /// # Errors
    /// See [`StoreError`].
    fn load(&self) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError>;

    /// Makes a state durable.
    ///
    /// # Errors
    /// See [`StoreError`]; the previous state then still stands.
    fn save(&self, state: &[u8]) -> Result<(), StoreError>;
}

/// Storage through the door, sealed to this code on this machine.
pub(crate) struct Sealed<F> {
    pub(crate) offers: Arc<Offers>,
    pub(crate) key: Secret,
    pub(crate) entropy: F,
}

impl<R: CryptoRng, F: Fn() -> R + Send + Sync> Store for Sealed<F> {
    fn load(&self) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError> {
        let mut visit = self.visit()?;
        let mut exchange = || -> io::Result<Option<Vec<u8>>> {
            visit.write_all(&[storage::LOAD])?;
            let mut length = [0; 8];
            visit.read_exact(&mut length)?;
            let length = u64::from_be_bytes(length);
            if length == storage::NONE {
                return Ok(None);
            }
            if length > storage::BYTES_MAX {
                return Err(io::Error::other("more bytes than a state may have"));
            }
            let mut sealed = Vec::new();
            (&mut visit).take(length).read_to_end(&mut sealed)?;
            Ok(Some(sealed))
        };
        let sealed = exchange().map_err(|error| StoreError::Unreachable(error.to_string()))?;
        sealed
            .map(|sealed| open(&self.key, &sealed).ok_or(StoreError::Altered))
            .transpose()
    }

    fn save(&self, state: &[u8]) -> Result<(), StoreError> {
        let sealed = seal(&self.key, state, &mut (self.entropy)());
        let length = sealed.len() as u64;
        if length > storage::BYTES_MAX {
            return Err(StoreError::TooLarge);
        }
        let mut visit = self.visit()?;
        let mut exchange = || -> io::Result<u8> {
            visit.write_all(&[storage::STORE])?;
            visit.write_all(&length.to_be_bytes())?;
            visit.write_all(&sealed)?;
            let mut answer = [storage::FAILED];
            visit.read_exact(&mut answer)?;
            Ok(answer[0])
        };
        match exchange() {
            Ok(storage::STORED) => Ok(()),
            Ok(_) => Err(StoreError::NotDurable),
            Err(error) => Err(StoreError::Unreachable(error.to_string())),
        }
    }
}

impl<F> Sealed<F> {
    fn visit(&self) -> Result<bield_door::Stream, StoreError> {
        self.offers
            .take(Visit::Storage, OFFER_WAIT)
            .map_err(|error| StoreError::Unreachable(error.to_string()))
    }
}

fn seal(key: &Secret, state: &[u8], entropy: &mut impl CryptoRng) -> Vec<u8> {
    let mut nonce = [0; 32];
    entropy.fill_bytes(&mut nonce);
    let mut sealed = Vec::with_capacity(HEAD_BYTES + state.len() + TAG_BYTES);
    sealed.extend(MAGIC);
    sealed.extend(nonce);
    let chunk = StreamKey::new(&key.derive(LABEL, &[&nonce]), [0; 7]);
    chunk.seal(0, true, MAGIC, state, &mut sealed);
    sealed
}

fn open(key: &Secret, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let (nonce, chunk) = sealed.strip_prefix(MAGIC)?.split_first_chunk::<32>()?;
    let mut state = Zeroizing::new(vec![0; chunk.len().checked_sub(TAG_BYTES)?]);
    let stream = StreamKey::new(&key.derive(LABEL, &[nonce]), [0; 7]);
    stream.open_into(0, true, MAGIC, chunk, &mut state).ok()?;
    Some(state)
}

/// Storage that lasts as long as the process: for tests.
#[derive(Default)]
pub struct Volatile {
    state: std::sync::Mutex<Option<Vec<u8>>>,
    /// Makes every save fail.
    pub broken: std::sync::atomic::AtomicBool,
}

impl Store for Volatile {
    fn load(&self) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError> {
        let state = self.state.lock().map_err(|_| StoreError::NotDurable)?;
        Ok(state.clone().map(Zeroizing::new))
    }

    fn save(&self, state: &[u8]) -> Result<(), StoreError> {
        if self.broken.load(std::sync::atomic::Ordering::SeqCst) {
            return Err(StoreError::NotDurable);
        }
        *self.state.lock().map_err(|_| StoreError::NotDurable)? = Some(state.to_vec());
        Ok(())
    }
}

/// How long a change waits for the host to offer storage.
const OFFER_WAIT: Duration = Duration::from_secs(10);
/// Magic and version.
const MAGIC: &[u8] = b"bldk\x01";
const HEAD_BYTES: usize = 5 + 32;
const LABEL: &str = "bield key service state v1";

#[cfg(test)]
mod tests {
    use bield_envelope::Seeded;

    use super::*;

    #[test]
    fn a_sealed_state_opens_only_unaltered_and_under_its_key() {
        let key = Secret::from_bytes([1; 32]);
        let sealed = seal(&key, b"state", &mut Seeded::new(1));
        assert_eq!(open(&key, &sealed).unwrap().as_slice(), b"state");
        assert!(open(&Secret::from_bytes([2; 32]), &sealed).is_none());
        for at in 0..sealed.len() {
            let mut bad = sealed.clone();
            bad[at] ^= 1;
            assert!(open(&key, &bad).is_none(), "byte {at}");
            assert!(open(&key, &sealed[..at]).is_none(), "cut to {at}");
        }
    }
}
