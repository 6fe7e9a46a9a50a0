//! Enough witnesses, recently: when a reader may rely on a checkpoint.
//!
//! ```text
//! VerifiedCheckpoint ──┬── witness a: 12:00:03 ✓ ┐
//!                      ├── witness b: 11:59:58 ✓ ├── 2 of 3, none older than a minute ──▶ times
//!                      └── witness c: 09:14:00 ✗ ┘
//! ```
//!
//! A log that shows two readers two histories needs a quorum for each. With n witnesses of which f
//! may lie, q > (n + f) / 2 rules that out.
//!
//! Always true: a witness counts once, however many lines and names it has; one that is too old or
//! from the future does not count; a line in a known witness's name that does not verify refuses
//! the checkpoint.
//!
//! Left to others: which witnesses to trust; the log's own signature, whose check is in the type
//! of the argument.
//!
//! Cost: one Ed25519 verification per line of a known witness.

use core::time::Duration;
use std::collections::BTreeSet;

use bield_envelope::Time;

use crate::checkpoint::VerifiedCheckpoint;
use crate::note::{KeyName, NoteError, SIGNATURES_MAX, WitnessVerifier};

/// How far a witness's clock may be ahead of ours. Computers that keep time by NTP differ by less
/// than a second; a minute allows for one that just woke up.
pub const CLOCK_AHEAD_MAX: Duration = Duration::from_secs(60);

/// Which witnesses are trusted and how many of them must have seen a checkpoint.
///
/// ```
/// use core::time::Duration;
/// use bield_envelope::{Secret, Time};
/// use bield_tlog::{Checkpoint, LogKey, Quorum, Tree, WitnessKey};
///
/// let log = LogKey::new("example.com/log".parse()?, &Secret::from_bytes([1; 32]));
/// let witness = WitnessKey::new("example.net/w".parse()?, &Secret::from_bytes([2; 32]));
/// let now = Time::from_secs(1_800_000_000);
///
/// let origin = log.verifier().name().into();
/// let mut checkpoint = Checkpoint::new(origin, 0, Tree::new().root()).sign(&log);
/// checkpoint.add(witness.cosign(&checkpoint, now))?;
///
/// let quorum = Quorum::new(vec![witness.verifier().clone()], 1)?;
/// let seen = quorum.check(&checkpoint, now, Duration::from_secs(60))?;
/// assert_eq!(seen[0].at, now);
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quorum {
    witnesses: Vec<WitnessVerifier>,
    needed: usize,
}

impl Quorum {
    /// Trusts `witnesses` and needs `needed` of them; zero needs none.
    ///
    /// # Errors
    /// [`QuorumError::Twice`] when two share a name or a key, and so would count twice;
    /// [`QuorumError::Unreachable`] when there are fewer than `needed`, or more than a note has
    /// room for.
    pub fn new(witnesses: Vec<WitnessVerifier>, needed: usize) -> Result<Self, QuorumError> {
        let mut names = BTreeSet::new();
        let mut keys = BTreeSet::new();
        for witness in &witnesses {
            if !names.insert(witness.name()) || !keys.insert(witness.public()) {
                return Err(QuorumError::Twice {
                    witness: witness.name().clone(),
                });
            }
        }
        // One line is the log's.
        if needed > witnesses.len() || needed > SIGNATURES_MAX - 1 {
            return Err(QuorumError::Unreachable {
                needed,
                witnesses: witnesses.len(),
            });
        }
        Ok(Self { witnesses, needed })
    }

    /// The witnesses trusted.
    #[must_use]
    pub fn witnesses(&self) -> &[WitnessVerifier] {
        &self.witnesses
    }

    /// How many of them are needed.
    #[must_use]
    pub const fn needed(&self) -> usize {
        self.needed
    }

    /// Checks that enough witnesses cosigned within `age_max` before `now`; returns all that did,
    /// latest first.
    ///
    /// The time at place `needed` − 1 is when a quorum had seen this checkpoint.
    ///
    /// # Errors
    /// [`QuorumError::TooFew`], or [`QuorumError::Note`] when a cosignature is forged.
    pub fn check(
        &self,
        checkpoint: &VerifiedCheckpoint,
        now: Time,
        age_max: Duration,
    ) -> Result<Vec<Witnessed>, QuorumError> {
        let (mut seen, mut stale) = (Vec::new(), 0);
        for witness in &self.witnesses {
            let Some(at) = witness.last_cosigned(checkpoint.note())? else {
                continue;
            };
            if now.since(at) > age_max || at.since(now) > CLOCK_AHEAD_MAX {
                stale += 1;
                continue;
            }
            seen.push(Witnessed {
                witness: witness.name().clone(),
                at,
            });
        }
        if seen.len() < self.needed {
            return Err(QuorumError::TooFew {
                seen: seen.len(),
                stale,
                needed: self.needed,
            });
        }
        seen.sort_by_key(|one| core::cmp::Reverse(one.at));
        Ok(seen)
    }
}

/// A witness saw a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Witnessed {
    /// The name of the witness's key.
    pub witness: KeyName,
    /// When, by the witness's clock, in whole seconds.
    pub at: Time,
}

/// Why a quorum cannot be, or was not reached.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum QuorumError {
    /// One witness twice in the list.
    #[error("{witness} is in the list twice, by name or by key; name each witness once")]
    Twice {
        /// The second of the two.
        witness: KeyName,
    },
    /// More are needed than can be had.
    #[error("{needed} of {witnesses} witnesses can never be reached; name more or need fewer")]
    Unreachable {
        /// How many are needed.
        needed: usize,
        /// How many there are.
        witnesses: usize,
    },
    /// Not enough witnesses saw this checkpoint recently.
    #[error(
        "{seen} witnesses cosigned recently and {stale} at another time, {needed} are needed; \
         ask the log for a fresher checkpoint"
    )]
    TooFew {
        /// Witnesses that count.
        seen: usize,
        /// Witnesses whose cosignature is too old or from the future.
        stale: usize,
        /// Witnesses needed.
        needed: usize,
    },
    /// A cosignature in a known witness's name does not verify.
    #[error(transparent)]
    Note(#[from] NoteError),
}

#[cfg(test)]
mod tests {
    use bield_envelope::Secret;

    use super::*;
    use crate::checkpoint::{Checkpoint, Origin};
    use crate::note::{LogKey, SignatureLine, WitnessKey};
    use crate::tree::Hash;

    const NOON: Time = Time::from_secs(1_800_000_000);
    const MINUTE: Duration = Duration::from_secs(60);

    fn witness(number: u8) -> WitnessKey {
        let name = format!("witness{number}").parse().unwrap();
        WitnessKey::new(name, &Secret::from_bytes([100 + number; 32]))
    }

    fn quorum(of: u8, needed: usize) -> Quorum {
        let witnesses = (0..of).map(|number| witness(number).verifier().clone());
        Quorum::new(witnesses.collect(), needed).unwrap()
    }

    /// A checkpoint cosigned by witnesses at times.
    fn seen_by(times: &[(u8, Time)]) -> VerifiedCheckpoint {
        let log = LogKey::new("log".parse().unwrap(), &Secret::from_bytes([1; 32]));
        let origin = Origin::from(log.verifier().name());
        let mut checkpoint = Checkpoint::new(origin, 9, Hash::from_bytes([9; 32])).sign(&log);
        for (number, at) in times {
            checkpoint
                .add(witness(*number).cosign(&checkpoint, *at))
                .unwrap();
        }
        checkpoint
    }

    #[test]
    fn enough_fresh_witnesses_are_a_quorum() {
        let checkpoint = seen_by(&[(0, NOON.minus(MINUTE)), (2, NOON), (7, NOON)]);
        let seen = quorum(3, 2).check(&checkpoint, NOON, MINUTE).unwrap();
        let names: Vec<_> = seen.iter().map(|one| one.witness.as_str()).collect();
        assert_eq!(
            names,
            ["witness2", "witness0"],
            "latest first, strangers left out"
        );
        assert_eq!(seen[1].at, NOON.minus(MINUTE));
        assert_eq!(
            quorum(3, 3).check(&checkpoint, NOON, MINUTE),
            Err(QuorumError::TooFew {
                seen: 2,
                stale: 0,
                needed: 3
            })
        );
        assert_eq!(
            quorum(3, 0).check(&seen_by(&[]), NOON, MINUTE),
            Ok(Vec::new())
        );
    }

    #[test]
    fn old_and_future_cosignatures_do_not_count() {
        let second = Duration::from_secs(1);
        let ahead = NOON.plus(CLOCK_AHEAD_MAX);
        let checkpoint = seen_by(&[
            (0, NOON.minus(MINUTE + second)),
            (1, ahead.plus(second)),
            (2, ahead),
            (3, NOON.minus(MINUTE)),
        ]);
        assert_eq!(
            quorum(4, 3).check(&checkpoint, NOON, MINUTE),
            Err(QuorumError::TooFew {
                seen: 2,
                stale: 2,
                needed: 3
            })
        );
        assert!(quorum(4, 2).check(&checkpoint, NOON, MINUTE).is_ok());
    }

    #[test]
    fn a_witness_counts_once() {
        // Two lines of one witness, added behind the back of `add`.
        let checkpoint = seen_by(&[(0, NOON)]);
        let again = witness(0).cosign(&checkpoint, NOON.minus(MINUTE));
        let text = format!("{checkpoint}{again}");
        let log = LogKey::new("log".parse().unwrap(), &Secret::from_bytes([1; 32]));
        let doubled = crate::SignedCheckpoint::parse(text.as_bytes())
            .unwrap()
            .verify(&"log".parse().unwrap(), &[log.verifier().clone()])
            .unwrap();
        assert_eq!(doubled.note().signatures().len(), 3);
        let seen = quorum(2, 1).check(&doubled, NOON, MINUTE).unwrap();
        assert_eq!(
            (seen.len(), seen[0].at),
            (1, NOON),
            "its latest, wherever it stands"
        );
        assert!(quorum(2, 2).check(&doubled, NOON, MINUTE).is_err());

        let same_key = WitnessKey::new("alias".parse().unwrap(), &Secret::from_bytes([100; 32]));
        for twin in [witness(0).verifier(), same_key.verifier()] {
            let list = vec![witness(0).verifier().clone(), twin.clone()];
            assert!(matches!(
                Quorum::new(list, 2),
                Err(QuorumError::Twice { .. })
            ));
        }
    }

    #[test]
    fn a_forged_cosignature_refuses_the_checkpoint() {
        let mut checkpoint = seen_by(&[(0, NOON), (1, NOON)]);
        let elsewhere = SignatureLine::new(witness(2).verifier(), vec![0; 72]);
        checkpoint.add(elsewhere).unwrap();
        assert!(matches!(
            quorum(3, 2).check(&checkpoint, NOON, MINUTE),
            Err(QuorumError::Note(NoteError::Forged { name })) if name.as_str() == "witness2"
        ));
        assert!(quorum(2, 2).check(&checkpoint, NOON, MINUTE).is_ok());
    }

    #[test]
    fn a_quorum_that_cannot_be_reached_is_refused() {
        let one = vec![witness(0).verifier().clone()];
        assert!(matches!(
            Quorum::new(one, 2),
            Err(QuorumError::Unreachable { .. })
        ));
        let crowd: Vec<_> = (0..100)
            .map(|number| witness(number).verifier().clone())
            .collect();
        assert!(Quorum::new(crowd.clone(), SIGNATURES_MAX - 1).is_ok());
        assert!(Quorum::new(crowd, SIGNATURES_MAX).is_err());
    }
}
