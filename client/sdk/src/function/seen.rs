//! What this home has seen of functions' states: the session token of the newest answer.
//!
//! ```text
//! $BIELD_HOME/states/<digest of owner and name>     capsule, then one `writer seq hash` a line
//! ```
//!
//! A token outlives versions of a function, so it is kept by owner and name. Always true: what is kept only goes on;
//! a memory that cannot be read is an error, never taken for an empty one.

use std::fs::OpenOptions;
use std::path::PathBuf;

use bield_capsule::{CapsuleName, Head};
use bield_envelope::{Digest, Principal};
use bield_receipt::{Reaches, StateHeads};

use crate::files::{self, FileError, Write};
use crate::{Home, HomeError};

/// The newest state of a function that this home has seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenState {
    /// The capsule that the state is.
    pub capsule: CapsuleName,
    /// Where its chains ended.
    pub heads: StateHeads,
}

impl Home {
    /// What was seen of the state of the function that `owner` calls `name`; `None` before the first answer.
    ///
    /// # Errors
    /// The file is damaged, or others can change it.
    pub fn seen_state(
        &self,
        owner: &Principal,
        name: &str,
    ) -> Result<Option<SeenState>, HomeError> {
        files::check_directory(self.path())?;
        let path = self.seen_state_path(owner, name);
        let bytes = match files::read_own(&path, SEEN_BYTES_MAX) {
            Err(error) if error.is_missing() => return Ok(None),
            bytes => bytes?,
        };
        let seen = parse(&String::from_utf8_lossy(&bytes));
        seen.map(Some).ok_or(HomeError::Damaged { path })
    }

    /// Where that is kept, if it is.
    #[must_use]
    pub fn seen_state_path(&self, owner: &Principal, name: &str) -> PathBuf {
        let file = Digest::of(FILE_DOMAIN, &[owner.as_bytes(), name.as_bytes()]);
        self.path().join(STATES).join(file.to_string())
    }

    /// Keeps the state of a verified answer, unless an answer that came meanwhile shows a later one.
    ///
    /// # Errors
    /// The files cannot be used.
    pub fn see_state(
        &self,
        owner: &Principal,
        name: &str,
        seen: &SeenState,
    ) -> Result<(), HomeError> {
        self.make()?;
        let directory = self.path().join(STATES);
        files::make_private_directory(&directory)?;
        let lock = directory.join(LOCK);
        let at = |error| FileError::io(&lock, error);
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false);
        let lock = options.open(&lock).map_err(at)?;
        lock.lock().map_err(at)?;
        let later = self.seen_state(owner, name)?.is_some_and(|kept| {
            kept.capsule == seen.capsule
                && matches!(seen.heads.reaches(&kept.heads), Reaches::Behind(_))
        });
        if later {
            return Ok(());
        }
        let lines = seen.heads.heads().iter();
        let lines = lines.map(|head| format!("{} {} {}\n", head.writer, head.seq, head.hash));
        let text = format!("{}\n{}", seen.capsule, lines.collect::<String>());
        let path = self.seen_state_path(owner, name);
        Ok(files::write(&path, text.as_bytes(), Write::Secret)?)
    }
}

fn parse(text: &str) -> Option<SeenState> {
    let mut lines = text.lines();
    let capsule = lines.next()?.parse().ok()?;
    let heads = lines.map(|line| {
        let mut words = line.split(' ');
        let head = Head {
            writer: words.next()?.parse().ok()?,
            seq: words.next()?.parse().ok()?,
            hash: words.next()?.parse().ok()?,
        };
        words.next().is_none().then_some(head)
    });
    let heads = StateHeads::new(heads.collect::<Option<_>>()?)?;
    Some(SeenState { capsule, heads })
}

const STATES: &str = "states";
const LOCK: &str = "lock";
const FILE_DOMAIN: &str = "bield function state file v1";
/// The lines of 8192 writers.
const SEEN_BYTES_MAX: u64 = 2 << 20;

#[cfg(test)]
mod tests {
    use bield_capsule::WriterId;
    use bield_envelope::{Secret, SigningKey};

    use super::*;

    fn seen(capsule: u8, writer: u8, seq: u64) -> SeenState {
        let head = Head {
            writer: WriterId::from_bytes([writer; 32]),
            seq,
            hash: Digest::from_bytes([seq as u8; 32]),
        };
        SeenState {
            capsule: CapsuleName::from_bytes([capsule; 32]),
            heads: StateHeads::new(vec![head]).unwrap(),
        }
    }

    #[test]
    fn what_was_seen_of_a_state_goes_on_and_never_back() {
        let directory = tempfile::tempdir().unwrap();
        let home = Home::at(directory.path().join("home"));
        home.make().unwrap();
        let owner = SigningKey::from_seed(Secret::from_bytes([1; 32])).principal();
        let kept = |name| home.seen_state(&owner, name).unwrap();
        assert_eq!(kept("cart"), None);
        for (state, expected) in [
            (seen(1, 1, 5), seen(1, 1, 5)),
            (seen(1, 1, 4), seen(1, 1, 5)),
            (seen(1, 1, 6), seen(1, 1, 6)),
            (seen(1, 2, 0), seen(1, 2, 0)), // by the next holder
            (seen(2, 2, 0), seen(2, 2, 0)), // another capsule: the owner began anew
        ] {
            home.see_state(&owner, "cart", &state).unwrap();
            assert_eq!(kept("cart"), Some(expected));
        }
        assert_eq!(kept("card"), None);
        let path = home.seen_state_path(&owner, "cart");
        std::fs::write(&path, "nonsense\n").unwrap();
        assert!(matches!(
            home.seen_state(&owner, "cart"),
            Err(HomeError::Damaged { .. })
        ));
        assert!(home.see_state(&owner, "cart", &seen(2, 2, 1)).is_err());
    }
}
