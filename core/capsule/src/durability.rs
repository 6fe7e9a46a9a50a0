//! What acknowledgements add up to (`spec/06 §8`).
//!
//! ```text
//! head ─┬─ acknowledgement by replica A, synced ──┐
//!       ├─ acknowledgement by replica A, again ───┤      A and B: replicated(2)
//!       ├─ acknowledgement by replica B, synced ──┼────▶ A again: still A
//!       └─ acknowledgement by nobody we know ─────┘      nobody:  not counted, and why
//! ```
//!
//! In: one head, signed acknowledgements from anyone, the configuration. Out: [`Reached`], which levels
//! of durability hold. Always true: what is counted are distinct replicas of the configuration,
//! never messages; an acknowledgement of a later record counts only where the caller knows that the
//! later record's chain contains the head.
//!
//! Not here: waiting (`Queue`), asking (`client/sdk`), and the witnesses' cosignatures themselves
//! (`core/tlog`), whose number arrives as an argument.

use core::cmp::Ordering;
use core::fmt;
use core::str::FromStr;
use std::collections::BTreeMap;

use bield_envelope::{Principal, Signed, Verified};

use crate::{Acknowledgement, Config, Head, Kept, Quorum};

/// How safe a record is. Partially ordered: `a ≥ b` when whoever has `a` has `b`, so `replicated(3)`
/// and `witnessed(1,1)` do not compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Durability {
    /// The entry is queued in the writer's process.
    Memory,
    /// Its record is sealed, signed and handed to the transport.
    Sent,
    /// The replica on the writer's own machine wrote it.
    Local,
    /// The replica on the writer's own machine synced it.
    LocalSync,
    /// So many distinct replicas of the configuration synced it.
    Replicated(u8),
    /// The same, and so many distinct witnesses saw it in the log of each of them.
    Witnessed(u8, u8),
}

impl Durability {
    /// What a quorum asks for.
    #[must_use]
    pub const fn of(quorum: Quorum) -> Self {
        match quorum.witnesses {
            0 => Self::Replicated(quorum.replicas),
            witnesses => Self::Witnessed(quorum.replicas, witnesses),
        }
    }

    /// Whether whoever has this has `other`.
    #[must_use]
    pub const fn implies(self, other: Self) -> bool {
        match (self, other) {
            (_, Self::Memory) => true,
            (Self::Memory, _) => false,
            (_, Self::Sent) => true,
            (Self::Local | Self::LocalSync, Self::Local) | (Self::LocalSync, Self::LocalSync) => {
                true
            }
            (Self::Replicated(have), Self::Replicated(need))
            | (Self::Witnessed(have, _), Self::Replicated(need)) => have >= need,
            (Self::Witnessed(have, seen), Self::Witnessed(need, by)) => have >= need && seen >= by,
            _ => false,
        }
    }
}

impl PartialOrd for Durability {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        match (self.implies(*other), other.implies(*self)) {
            (true, true) => Some(Ordering::Equal),
            (true, false) => Some(Ordering::Greater),
            (false, true) => Some(Ordering::Less),
            (false, false) => None,
        }
    }
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory => f.write_str("memory"),
            Self::Sent => f.write_str("sent"),
            Self::Local => f.write_str("local"),
            Self::LocalSync => f.write_str("local-sync"),
            Self::Replicated(replicas) => write!(f, "replicated({replicas})"),
            Self::Witnessed(replicas, witnesses) => write!(f, "witnessed({replicas},{witnesses})"),
        }
    }
}

/// The text is no level of durability.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "durability is memory, sent, local, local-sync, replicated(q) or witnessed(q,w), q and w from 1 \
     to 255"
)]
pub struct ParseDurabilityError;

impl FromStr for Durability {
    type Err = ParseDurabilityError;

    fn from_str(text: &str) -> Result<Self, ParseDurabilityError> {
        let parsed = match text {
            "memory" => Some(Self::Memory),
            "sent" => Some(Self::Sent),
            "local" => Some(Self::Local),
            "local-sync" => Some(Self::LocalSync),
            _ => counted(text),
        };
        // One spelling: no "+2", no "02".
        parsed
            .filter(|level| level.to_string() == text)
            .ok_or(ParseDurabilityError)
    }
}

fn counted(text: &str) -> Option<Durability> {
    let (name, numbers) = text.strip_suffix(')')?.split_once('(')?;
    let positive = |number: &str| number.parse().ok().filter(|number: &u8| *number > 0);
    match (name, numbers.split_once(',')) {
        ("replicated", None) => positive(numbers).map(Durability::Replicated),
        ("witnessed", Some((replicas, witnesses))) => Some(Durability::Witnessed(
            positive(replicas)?,
            positive(witnesses)?,
        )),
        _ => None,
    }
}

/// Why an acknowledgement does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotCounted {
    /// The signature is not by the principal it names.
    #[error("its signature does not verify")]
    Signature,
    /// The principal is no replica of the configuration, and not the local one.
    #[error("its signer is no replica of the capsule")]
    NotReplica,
    /// It is about another capsule.
    #[error("it is about another capsule")]
    OtherCapsule,
    /// It is about another chain, an earlier record, or one that is not known to follow.
    #[error("it does not cover the record")]
    OtherHead,
}

/// What is known about one head.
#[derive(Clone, Debug)]
pub struct Reached<'a> {
    head: Head,
    config: &'a Config,
    local: Option<Principal>,
    kept: BTreeMap<Principal, Kept>,
    witnesses: BTreeMap<Principal, u8>,
}

/// Counts who acknowledged `head`. `local` is the replica on the writer's own machine. `covers` says of
/// a later head of the same chain whether its chain contains `head`: a writer knows that of the heads
/// it made itself, anyone else after checking a path; where nothing is known it is `|_| false`.
///
/// Returns what is reached, and of every acknowledgement that does not count whose it claims to be and
/// why not.
pub fn judge<'a>(
    head: &Head,
    acknowledgements: &[Signed<Acknowledgement>],
    config: &'a Config,
    local: Option<Principal>,
    covers: impl Fn(&Head) -> bool,
) -> (Reached<'a>, Vec<(Principal, NotCounted)>) {
    let mut reached = Reached::nothing(head, config, local);
    let mut refused = Vec::new();
    for signed in acknowledgements {
        let claimed = signed.claimed_signer();
        let counted = match signed.clone().verify_claimed() {
            Ok(acknowledgement) => reached.acknowledge(&acknowledgement, &covers),
            Err(_) => Err(NotCounted::Signature),
        };
        if let Err(reason) = counted {
            refused.push((claimed, reason));
        }
    }
    (reached, refused)
}

impl<'a> Reached<'a> {
    /// Nobody acknowledged `head` yet.
    #[must_use]
    pub const fn nothing(head: &Head, config: &'a Config, local: Option<Principal>) -> Self {
        Self {
            head: *head,
            config,
            local,
            kept: BTreeMap::new(),
            witnesses: BTreeMap::new(),
        }
    }

    /// Counts one acknowledgement; see [`judge`].
    ///
    /// # Errors
    /// It does not count, and why.
    pub fn acknowledge(
        &mut self,
        said: &Verified<Acknowledgement>,
        covers: impl Fn(&Head) -> bool,
    ) -> Result<(), NotCounted> {
        let signer = said.signer();
        if said.capsule != self.config.capsule() {
            return Err(NotCounted::OtherCapsule);
        }
        if !self.config.is_replica(&signer) && self.local != Some(signer) {
            return Err(NotCounted::NotReplica);
        }
        let later = said.head();
        let contains = later == self.head
            || (later.writer == self.head.writer && later.seq > self.head.seq && covers(&later));
        if !contains {
            return Err(NotCounted::OtherHead);
        }
        let kept = self.kept.entry(signer).or_insert(said.kept);
        *kept = (*kept).max(said.kept);
        Ok(())
    }

    /// Takes the word of the caller that so many distinct witnesses of the configuration cosigned a
    /// checkpoint of this replica's log that contains the record (`spec/06 §11`).
    pub fn witness(&mut self, replica: Principal, witnesses: u8) {
        let known = self.witnesses.entry(replica).or_default();
        *known = (*known).max(witnesses);
    }

    /// Replicas of the configuration that synced the record.
    pub fn synced(&self) -> impl Iterator<Item = &Principal> {
        self.kept
            .iter()
            .filter(|(replica, kept)| **kept == Kept::Synced && self.config.is_replica(replica))
            .map(|(replica, _)| replica)
    }

    /// Whether the record is as safe as `level` says. That it was sealed is given by its head.
    #[must_use]
    pub fn meets(&self, level: Durability) -> bool {
        let local = self.local.and_then(|local| self.kept.get(&local));
        match level {
            Durability::Memory => true,
            Durability::Sent => !self.kept.is_empty(),
            Durability::Local => local.is_some_and(|kept| *kept >= Kept::Written),
            Durability::LocalSync => local == Some(&Kept::Synced),
            Durability::Replicated(replicas) => self.synced().count() >= usize::from(replicas),
            Durability::Witnessed(replicas, witnesses) => {
                let seen = self.synced().filter(|replica| {
                    self.witnesses.get(*replica).copied().unwrap_or_default() >= witnesses
                });
                seen.count() >= usize::from(replicas)
            }
        }
    }

    /// Whether the record is as safe as the owner asks for.
    #[must_use]
    pub fn meets_quorum(&self) -> bool {
        self.meets(Durability::of(self.config.quorum()))
    }
}

#[cfg(test)]
mod tests;
