//! Another identity key in the place of this one, in steps that can be taken again after a crash.
//!
//! ```text
//! identity.next.key made ─▶ service: succeed, durable ─▶ identity.key kept as identity-<old>.key
//!                                                     ─▶ identity.next.key becomes identity.key
//! ```
//!
//! Always true: both keys are on disk from before the service hears of the new one until after it has
//! said that it holds; no key file is ever removed, only renamed.

use std::fs;
use std::path::PathBuf;

use bield_envelope::SigningKey;
use rand_core::CryptoRng;

use super::{Home, HomeError, IDENTITY, read_key, to_hex};
use crate::files::{self, FileError, Write};

impl Home {
    /// The identity that is to succeed this one: made now, or left from a succession that was begun.
    ///
    /// # Errors
    /// The file cannot be written, or is there and no key.
    pub fn next_identity(&self, entropy: &mut impl CryptoRng) -> Result<SigningKey, HomeError> {
        self.make()?;
        if let Some(key) = self.begun_identity()? {
            return Ok(key);
        }
        let key = SigningKey::generate(entropy);
        let path = self.path().join(NEXT);
        files::write(&path, &to_hex(key.seed()), Write::SecretOnce)?;
        Ok(key)
    }

    /// The identity of a succession that was begun and not ended here.
    ///
    /// # Errors
    /// The file is there and no key.
    pub fn begun_identity(&self) -> Result<Option<SigningKey>, HomeError> {
        match read_key(&self.path().join(NEXT)) {
            Err(HomeError::File(error)) if error.is_missing() => Ok(None),
            seed => Ok(Some(SigningKey::from_seed(seed?))),
        }
    }

    /// Puts the next identity in the place of this one, after the service has said that it holds.
    /// Returns where the old key lies from now on.
    ///
    /// # Errors
    /// A file cannot be renamed; nothing is lost, and the same can be done again.
    pub fn succeed_identity(&self) -> Result<PathBuf, HomeError> {
        let (identity, next) = (self.path().join(IDENTITY), self.path().join(NEXT));
        let old = self.identity()?.principal().to_string();
        let digits = old.rsplit(':').next().unwrap_or_default();
        let aside = self.path().join(format!("identity-{digits}.key"));
        // A second name first: at no moment is the old key without one.
        match fs::hard_link(&identity, &aside) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(FileError::io(&aside, error).into());
            }
            _ => {}
        }
        fs::rename(&next, &identity).map_err(|error| FileError::io(&identity, error))?;
        if let Ok(directory) = fs::File::open(self.path()) {
            // As in `files::write`: some file systems cannot say so.
            let _ = directory.sync_all();
        }
        Ok(aside)
    }
}

const NEXT: &str = "identity.next.key";
