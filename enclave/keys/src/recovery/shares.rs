//! Shares of the recovery key.
//!
//! ```text
//! root ──derive(generation)──▶ R ──Shamir over GF(2^8), bytewise──▶ share 1 … share n    (threshold m)
//! any m shares ──▶ R ──opens──▶ recovery-<generation>: the root
//! ```
//!
//! Goes in: the root, a generation, holders and a threshold. Comes out: a share for each holder, which the
//! state keeps until it is fetched. Always true: fewer than `m` shares say nothing about R (Shamir 1979);
//! R follows from root and generation, so the box can be written again.
//!
//! A share's bytes are its number, then 32 bytes. With a threshold of 1 the share is R itself.
//!
//! Left to others: who may fetch a share (`state`), and telling shares from what is none ([`crate::recovery`]). On paper:
//! 32 polynomials of degree 15 at 16 points, in constant time: far below a millisecond.

use bield_envelope::{Principal, Secret};
use bield_protocol::service::{HOLDERS_MAX, Share};
use rand_core::CryptoRng;
use vsss_rs::Gf256;
use zeroize::Zeroizing;

/// One round of sharing: what `MakeShares` ordered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sharing {
    /// Which recovery key: counts from 1.
    pub generation: u32,
    /// How many shares are needed.
    pub threshold: u8,
    /// Who may fetch them, in order: the first has number 1.
    pub holders: Vec<Principal>,
}

impl Sharing {
    /// Whether such shares can be made: 1 to [`HOLDERS_MAX`] holders, each once; a threshold of 2 to
    /// their number, or 1 for a single one.
    #[must_use]
    pub fn is_possible(&self) -> bool {
        let count = self.holders.len();
        let each_once = self
            .holders
            .iter()
            .enumerate()
            .all(|(at, holder)| !self.holders[..at].contains(holder));
        let threshold = usize::from(self.threshold);
        let enough = threshold >= 2 || (threshold == 1 && count == 1);
        (1..=HOLDERS_MAX).contains(&count) && enough && threshold <= count && each_once
    }

    /// The key that the shares combine to.
    #[must_use]
    pub fn key(&self, root: &Secret) -> Secret {
        root.derive(KEY, &[&self.generation.to_be_bytes()])
    }

    /// Makes the shares, in the order of their holders; `None` when such shares cannot be made.
    #[must_use]
    pub fn shares(&self, root: &Secret, entropy: &mut impl CryptoRng) -> Option<Vec<Share>> {
        if !self.is_possible() {
            return None;
        }
        let key = self.key(root);
        let made = if self.threshold == 1 {
            vec![[&[1], &key.expose()[..]].concat()]
        } else {
            let (threshold, count) = (usize::from(self.threshold), self.holders.len());
            Gf256::split_bytes(threshold, count, key.expose(), entropy).ok()?
        };
        let share = |(number, bytes)| Share {
            generation: self.generation,
            number,
            threshold: self.threshold,
            bytes: Zeroizing::new(bytes),
        };
        Some((1..).zip(made).map(share).collect())
    }
}

/// Combines shares of one generation; the first `threshold` of them count.
///
/// Only as good as the shares: whether the result is the key shows when it opens the box.
#[must_use]
pub fn combine(shares: &[&Share]) -> Option<Secret> {
    let threshold = usize::from(shares.first()?.threshold);
    let shares = shares.get(..threshold)?;
    let whole = |share: &&Share| {
        share.bytes.len() == SHARE_BYTES && share.bytes.first() == Some(&share.number)
    };
    if !shares.iter().all(whole) {
        return None;
    }
    let key = match shares {
        [single] => single.bytes[1..].to_vec(),
        _ => {
            let bytes: Zeroizing<Vec<Vec<u8>>> =
                Zeroizing::new(shares.iter().map(|share| share.bytes.to_vec()).collect());
            Gf256::combine_bytes(bytes.as_slice()).ok()?
        }
    };
    let key = Zeroizing::new(key);
    Some(Secret::from_bytes(key.as_slice().try_into().ok()?))
}

/// A number and a byte for each of the key's.
const SHARE_BYTES: usize = 33;
const KEY: &str = "bield recovery key v1";

#[cfg(test)]
mod tests {
    use bield_envelope::Seeded;

    use super::*;

    fn made(sharing: &Sharing) -> Vec<Share> {
        sharing.shares(&root(), &mut Seeded::new(1)).unwrap()
    }

    fn sharing(holders: u8, threshold: u8) -> Sharing {
        Sharing {
            generation: 1,
            threshold,
            holders: (1..=holders)
                .map(|number| Principal::from_bytes([number; 32]))
                .collect(),
        }
    }

    fn root() -> Secret {
        Secret::from_bytes([7; 32])
    }

    fn opens(sharing: &Sharing, shares: &[&Share]) -> bool {
        combine(shares).is_some_and(|key| key.expose() == sharing.key(&root()).expose())
    }

    #[test]
    fn any_threshold_of_the_shares_are_enough_and_fewer_are_not() {
        for (count, threshold) in [(1, 1), (2, 2), (3, 2), (5, 3), (16, 16)] {
            let sharing = sharing(count, threshold);
            let shares = made(&sharing);
            let all: Vec<&Share> = shares.iter().collect();
            let enough = usize::from(threshold);
            for window in all.windows(enough) {
                assert!(opens(&sharing, window), "{threshold} of {count}");
            }
            let last_first: Vec<_> = all.iter().rev().copied().collect();
            assert!(opens(&sharing, &last_first));
            assert!(!opens(&sharing, &all[..enough - 1]));
        }
    }

    #[test]
    fn shares_that_do_not_belong_together_open_nothing() {
        let sharing = sharing(3, 2);
        let shares = made(&sharing);
        let next = Sharing {
            generation: 2,
            ..sharing.clone()
        };
        let others = made(&next);
        assert!(!opens(&sharing, &[&shares[0], &others[1]]));
        assert!(
            !opens(&sharing, &[&shares[0], &shares[0]]),
            "twice the same"
        );
        let mut altered = shares[1].clone();
        altered.bytes[5] ^= 1;
        assert!(!opens(&sharing, &[&shares[0], &altered]));
        assert!(opens(&sharing, &[&shares[0], &shares[1]]));
    }

    #[test]
    fn a_share_renumbered_cut_or_empty_is_refused_and_not_combined() {
        let shares = made(&sharing(3, 2));
        let mut renumbered = shares[1].clone();
        renumbered.number = 3;
        let mut short = shares[1].clone();
        short.bytes.pop();
        let mut empty = shares[1].clone();
        empty.bytes.clear();
        for bad in [renumbered, short, empty] {
            assert!(combine(&[&shares[0], &bad]).is_none());
            assert!(combine(&[&bad, &shares[0]]).is_none());
        }
        assert!(combine(&[]).is_none());
    }

    #[test]
    fn impossible_sharings_are_told() {
        for (count, threshold) in [(0, 0), (0, 1), (2, 1), (2, 3), (3, 0), (17, 2)] {
            assert!(
                !sharing(count, threshold).is_possible(),
                "{threshold} of {count}"
            );
            let sharing = sharing(count, threshold);
            assert!(sharing.shares(&root(), &mut Seeded::new(1)).is_none());
        }
        let mut twice = sharing(3, 2);
        twice.holders[2] = twice.holders[0];
        assert!(!twice.is_possible());
    }
}
