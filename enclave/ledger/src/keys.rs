//! Every key of one epoch of the log, from the service's root secret.
//!
//! In: the root secret, an epoch, a capsule's name. Out: keys. Always true: a key serves one purpose in
//! one capsule; the owner's, which is needed before the name exists, in one epoch, where it signs one
//! record. None is stored: the root is.

use bield_capsule::{CapsuleName, GenerationKey, Suite, WriterKey};
use bield_envelope::{Digest, Secret};
use bield_tlog::{KeyName, LogKey, Origin, SignedCheckpoint};

/// Derives the keys of one service.
pub(crate) struct Keys {
    root: Secret,
}

impl Keys {
    pub(crate) const fn new(root: Secret) -> Self {
        Self { root }
    }

    pub(crate) const fn root(&self) -> &Secret {
        &self.root
    }

    /// Signs the configuration of an epoch's capsule: record 0, and nothing after it.
    pub(crate) fn owner(&self, epoch: u32) -> WriterKey {
        signing(self.root.derive(OWNER, &[&epoch.to_be_bytes()]))
    }

    /// Signs the chain.
    pub(crate) fn writer(&self, epoch: u32, capsule: &CapsuleName) -> WriterKey {
        signing(self.of(WRITER, epoch, capsule, &[]))
    }

    /// Seals bodies. The capsule's only generation: whoever has the root has all of them.
    pub(crate) fn generation(&self, epoch: u32, capsule: &CapsuleName) -> GenerationKey {
        GenerationKey::from_secret(1, self.of(GENERATION, epoch, capsule, &[]))
    }

    /// Signs checkpoints.
    pub(crate) fn log(&self, epoch: u32, capsule: &CapsuleName) -> LogKey {
        let seed = self.of(LOG, epoch, capsule, &[]);
        // Named by itself, so that a witness that never heard of this log can verify it (spec/09 §2).
        let unnamed = LogKey::new(key_name(capsule, &[0; 32]), &seed);
        LogKey::new(key_name(capsule, unnamed.verifier().public()), &seed)
    }

    /// Seals one snapshot.
    pub(crate) fn snapshot(&self, epoch: u32, capsule: &CapsuleName, head: &[u8]) -> Secret {
        self.of(SNAPSHOT, epoch, capsule, &[head])
    }

    /// What a prepared frame shows of the record in it, and the key that seals this frame and no other:
    /// both follow from everything that is in it, so none repeats for anything else.
    pub(crate) fn prepared(
        &self,
        capsule: &CapsuleName,
        (term, index): (u64, u64),
        record: &[u8],
    ) -> ([u8; 32], Secret) {
        let digest = Digest::of(PREPARED, &[record]);
        let (term, index) = (term.to_be_bytes(), index.to_be_bytes());
        let parts: [&[u8]; 4] = [capsule.as_bytes(), &term, &index, digest.as_bytes()];
        let id = *self.root.derive(PREPARED, &parts).expose();
        (id, self.prepared_key(&id))
    }

    pub(crate) fn prepared_key(&self, id: &[u8; 32]) -> Secret {
        self.root.derive(PREPARED_KEY, &[id])
    }

    fn of(&self, label: &str, epoch: u32, capsule: &CapsuleName, more: &[&[u8]]) -> Secret {
        let epoch = epoch.to_be_bytes();
        let mut parts: Vec<&[u8]> = vec![&epoch, capsule.as_bytes()];
        parts.extend(more);
        self.root.derive(label, &parts)
    }
}

/// The origin of a log's checkpoints: its key's name, `bield/keys/<capsule>/<key>`.
pub(crate) fn origin(key: &LogKey) -> Origin {
    key.verifier().name().into()
}

/// Which of `epochs` of the service with this root secret signed a checkpoint, in whatever capsule its origin names:
/// what another copy of the service, which went on elsewhere, may have signed.
///
/// Costs two key derivations an epoch, 100 µs.
#[must_use]
pub fn signed_in(
    root: &Secret,
    epochs: core::ops::RangeInclusive<u32>,
    checkpoint: &SignedCheckpoint,
) -> Option<u32> {
    let claimed = checkpoint.claimed().origin();
    let mut names = claimed.as_str().strip_prefix(ORIGIN)?.split('/');
    let capsule: CapsuleName = names.next()?.parse().ok()?;
    let keys = Keys::new(Secret::from_bytes(*root.expose()));
    epochs.into_iter().find(|epoch| {
        let key = keys.log(*epoch, &capsule);
        origin(&key) == *claimed
            && checkpoint
                .clone()
                .verify(claimed, &[key.verifier().clone()])
                .is_ok()
    })
}

fn key_name(capsule: &CapsuleName, key: &[u8; 32]) -> KeyName {
    // A digest prints its bytes in hexadecimal digits, as a capsule's name does.
    let name = format!("{ORIGIN}{capsule}/{}", Digest::from_bytes(*key));
    name.parse().expect("hexadecimal digits make a key's name")
}

fn signing(seed: Secret) -> WriterKey {
    WriterKey::from_seed(Suite::Ed25519, seed).expect("every 32 bytes are an Ed25519 seed")
}

/// How the origins of these logs begin.
const ORIGIN: &str = "bield/keys/";
const OWNER: &str = "bield ledger owner v1";
const WRITER: &str = "bield ledger writer v1";
const GENERATION: &str = "bield ledger generation v1";
const LOG: &str = "bield ledger checkpoint v1";
const SNAPSHOT: &str = "bield ledger snapshot v1";
const PREPARED: &str = "bield ledger prepared v1";
const PREPARED_KEY: &str = "bield ledger prepared key v1";
