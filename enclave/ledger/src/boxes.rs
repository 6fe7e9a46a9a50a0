//! Small sealed files: the root secret for this code on this machine, and for its recovery.
//!
//! ```text
//! root                      "bldo" 01 ‖ nonce (32) ‖ sealed(root (32) ‖ epoch (u32) ‖ capsule (32))
//! recovery-<generation>     "bldv" 01 ‖ generation (u32) ‖ capsule (32) ‖ nonce (32) ‖ sealed(root (32))
//! ```
//!
//! Sealed: AES-256-GCM under a key derived from the TEE's seal key, or from the recovery key, and the
//! nonce; the clear bytes before it are associated data. Always true: each has a key of its own, so no
//! nonce repeats.

use bield_capsule::CapsuleName;
use bield_envelope::Secret;
use bield_envelope::stream::{StreamKey, TAG_BYTES};
use rand_core::CryptoRng;
use zeroize::Zeroizing;

/// What the root file holds.
pub(crate) struct RootBox {
    pub(crate) root: Secret,
    pub(crate) epoch: u32,
    pub(crate) capsule: CapsuleName,
}

impl RootBox {
    pub(crate) fn seal(&self, key: &Secret, entropy: &mut impl CryptoRng) -> Vec<u8> {
        let mut plain = Zeroizing::new(Vec::with_capacity(ROOT_BYTES));
        plain.extend_from_slice(self.root.expose());
        plain.extend_from_slice(&self.epoch.to_be_bytes());
        plain.extend_from_slice(self.capsule.as_bytes());
        seal(key, ROOT_LABEL, ROOT_MAGIC.to_vec(), &plain, entropy)
    }

    /// `None` when it was sealed under another key, or altered.
    pub(crate) fn open(key: &Secret, sealed: &[u8]) -> Option<Self> {
        let plain = open(key, ROOT_LABEL, sealed, ROOT_MAGIC.len())
            .filter(|plain| sealed.starts_with(ROOT_MAGIC) && plain.len() == ROOT_BYTES)?;
        let (root, rest) = plain.split_first_chunk::<32>()?;
        let (epoch, capsule) = rest.split_first_chunk::<4>()?;
        Some(Self {
            root: Secret::from_bytes(*root),
            epoch: u32::from_be_bytes(*epoch),
            capsule: CapsuleName::from_bytes(capsule.try_into().ok()?),
        })
    }
}

/// The root secret under a recovery key; `capsule` is one of the service's.
pub(crate) fn seal_recovery(
    key: &Secret,
    generation: u32,
    capsule: &CapsuleName,
    root: &Secret,
    entropy: &mut impl CryptoRng,
) -> Vec<u8> {
    let mut head = RECOVERY_MAGIC.to_vec();
    head.extend_from_slice(&generation.to_be_bytes());
    head.extend_from_slice(capsule.as_bytes());
    seal(key, RECOVERY_LABEL, head, root.expose(), entropy)
}

/// Opens a recovery file of `generation`, and says of which capsule's service it is; `None` when it is
/// altered, another generation's, or under another key.
pub(crate) fn open_recovery(
    key: &Secret,
    generation: u32,
    sealed: &[u8],
) -> Option<(CapsuleName, Secret)> {
    let head = sealed.strip_prefix(RECOVERY_MAGIC)?;
    let (number, rest) = head.split_first_chunk::<4>()?;
    if *number != generation.to_be_bytes() {
        return None;
    }
    let capsule = CapsuleName::from_bytes(*rest.first_chunk::<32>()?);
    let plain = open(key, RECOVERY_LABEL, sealed, RECOVERY_HEAD_BYTES)?;
    let root = plain.as_slice().try_into().ok()?;
    Some((capsule, Secret::from_bytes(root)))
}

fn seal(
    key: &Secret,
    label: &str,
    mut head: Vec<u8>,
    plain: &[u8],
    entropy: &mut impl CryptoRng,
) -> Vec<u8> {
    let mut nonce = [0; 32];
    entropy.fill_bytes(&mut nonce);
    let stream = StreamKey::new(&key.derive(label, &[&head, &nonce]), [0; 7]);
    let associated = head.clone();
    head.extend_from_slice(&nonce);
    stream.seal(0, true, &associated, plain, &mut head);
    head
}

fn open(key: &Secret, label: &str, sealed: &[u8], head_bytes: usize) -> Option<Zeroizing<Vec<u8>>> {
    let (head, rest) = sealed.split_at_checked(head_bytes)?;
    let (nonce, chunk) = rest.split_first_chunk::<32>()?;
    let mut plain = Zeroizing::new(vec![0; chunk.len().checked_sub(TAG_BYTES)?]);
    let stream = StreamKey::new(&key.derive(label, &[head, nonce]), [0; 7]);
    stream.open_into(0, true, head, chunk, &mut plain).ok()?;
    Some(plain)
}

/// Longest of these files in bytes.
pub(crate) const BOX_BYTES_MAX: u64 = 256;

const ROOT_MAGIC: &[u8] = b"bldo\x01";
const ROOT_LABEL: &str = "bield ledger root v1";
const ROOT_BYTES: usize = 32 + 4 + 32;
const RECOVERY_MAGIC: &[u8] = b"bldv\x01";
const RECOVERY_LABEL: &str = "bield ledger recovery v1";
const RECOVERY_HEAD_BYTES: usize = 5 + 4 + 32;

#[cfg(test)]
mod tests {
    use bield_envelope::Seeded;

    use super::*;

    #[test]
    fn a_box_opens_only_unaltered_and_under_its_key() {
        let (key, other) = (Secret::from_bytes([1; 32]), Secret::from_bytes([2; 32]));
        let capsule = CapsuleName::from_bytes([3; 32]);
        let content = RootBox {
            root: Secret::from_bytes([4; 32]),
            epoch: 5,
            capsule,
        };
        let root = content.seal(&key, &mut Seeded::new(1));
        let opened = RootBox::open(&key, &root).unwrap();
        assert_eq!((opened.epoch, opened.capsule), (5, capsule));
        assert_eq!(opened.root.expose(), &[4; 32]);
        let recovery = seal_recovery(&key, 7, &capsule, &content.root, &mut Seeded::new(1));
        let (named, secret) = open_recovery(&key, 7, &recovery).unwrap();
        assert_eq!((named, secret.expose()), (capsule, &[4; 32]));
        assert!(RootBox::open(&other, &root).is_none());
        assert!(open_recovery(&other, 7, &recovery).is_none());
        assert!(open_recovery(&key, 8, &recovery).is_none());
        assert!(root.len() as u64 <= BOX_BYTES_MAX && recovery.len() as u64 <= BOX_BYTES_MAX);
        for at in 0..root.len().max(recovery.len()) {
            let flip = |bytes: &[u8]| {
                let mut bytes = bytes.to_vec();
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1;
                }
                bytes
            };
            assert!(at >= root.len() || RootBox::open(&key, &flip(&root)).is_none());
            assert!(RootBox::open(&key, &root[..at.min(root.len() - 1)]).is_none());
            assert!(at >= recovery.len() || open_recovery(&key, 7, &flip(&recovery)).is_none());
        }
    }
}
