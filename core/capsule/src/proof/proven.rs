//! What a proof file showed, in types: nothing else makes them.

use core::fmt;

use bield_envelope::{Digest, Principal, Time};
use zeroize::Zeroizing;

use crate::{CapsuleName, Entry, EntryPlace, Head, Header, Kept, Kind, Quorum, Suite};

/// Everything a proof file proved.
#[derive(Debug)]
pub struct Proven {
    /// The capsule: the one that was asked for.
    pub capsule: CapsuleName,
    /// The newest config record that was shown; its rules are those applied.
    pub config: Head,
    /// The signed head that everything hangs on.
    pub head: Head,
    /// The record proven to be in the head's chain.
    pub target: Header,
    /// The record's name.
    pub target_hash: Digest,
    /// Why the writer may write.
    pub authority: Authority,
    /// The entry that was shown.
    pub entry: Option<ProvenEntry>,
    /// Replicas of the configuration that hold the chain up to the head, each once.
    pub acknowledged: Vec<Acknowledged>,
    /// How many of them the owner asks for.
    pub quorum: Quorum,
    /// What this proof cannot show, or does not.
    pub not_checked: Vec<NotChecked>,
}

impl Proven {
    /// Distinct replicas that synced the chain up to the head to their disks.
    #[must_use]
    pub fn synced(&self) -> usize {
        let synced = |said: &&Acknowledged| said.kept == Kept::Synced;
        self.acknowledged.iter().filter(synced).count()
    }
}

/// Why a writer may write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Authority {
    /// It is the owner, writing configuration.
    Owner,
    /// The owner admitted its key.
    Admitted,
    /// A principal that the owner certifies says so.
    Certified {
        /// Who says so.
        by: Principal,
        /// Encoded measurement of the code that holds the key.
        code: Option<Vec<u8>>,
        /// The evidence came from a software TEE: there is no hardware protection.
        simulated: bool,
        /// First moment of the window, by the writer's clock.
        not_before: Time,
        /// First moment after it.
        not_after: Time,
    },
}

/// A replica's word, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acknowledged {
    /// Who.
    pub replica: Principal,
    /// How safely it keeps the chain.
    pub kept: Kept,
    /// When, by its own clock.
    pub at: Time,
}

/// An entry that was shown to stand in a record; wiped on drop.
pub struct ProvenEntry {
    pub(super) bytes: Zeroizing<Vec<u8>>,
    pub(super) capsule: CapsuleName,
    pub(super) suite: Suite,
    pub(super) place: EntryPlace,
}

impl ProvenEntry {
    /// Where it stands.
    #[must_use]
    pub const fn place(&self) -> EntryPlace {
        self.place
    }

    /// What it says; an erasable one opens with its own key only.
    #[must_use]
    pub fn entry(&self) -> Entry<'_> {
        Entry::parse(&self.bytes, self.suite, self.capsule, self.place)
            .expect("the form was checked when the entry was proven")
    }
}

impl fmt::Debug for ProvenEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "ProvenEntry({:?}, {} bytes)",
            self.place,
            self.bytes.len()
        )
    }
}

/// Something a reader might think was proven, and was not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NotChecked {
    /// Newer records, and newer configuration that takes the writer's right away.
    Freshness,
    /// A second record signed for the same position.
    Forks,
    /// The certificate's window against any clock but the writer's.
    Arrival,
    /// Records of the chain that are not on the path, their signatures and bodies.
    Between,
    /// Records that the target names as parents.
    Parents,
    /// The target's body: no entry of it is shown.
    Body,
    /// Other entries of the target, and its layout as a whole.
    OtherEntries,
    /// The seal of the target's body: a reader with the key opens it whole or not at all, a proof takes
    /// the entry from bytes that the writer signed.
    Seal,
    /// What the erasable entry says: its key is elsewhere, or destroyed.
    ErasableContent,
}

impl fmt::Display for NotChecked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Freshness => {
                "freshness: there may be newer records, and newer configuration; ask the replicas"
            }
            Self::Forks => "forks: the writer may have signed another record for the same position",
            Self::Arrival => {
                "arrival: the certificate's window was compared with the writer's clock"
            }
            Self::Between => "records of the chain that are not on the path",
            Self::Parents => "records of other chains that the record names",
            Self::Body => "the body: no entry is shown",
            Self::OtherEntries => "other entries of the record",
            Self::Seal => "the seal of the record's body: whether it opens as a whole",
            Self::ErasableContent => "the content of the entry, which opens with its own key only",
        })
    }
}

/// What a proof of this shape leaves open.
pub(super) fn not_checked(
    target: &Header,
    authority: &Authority,
    entry: Option<&ProvenEntry>,
) -> Vec<NotChecked> {
    let mut list = vec![NotChecked::Freshness, NotChecked::Forks];
    let mut also = |when: bool, what| {
        if when {
            list.push(what);
        }
    };
    also(
        matches!(authority, Authority::Certified { .. }),
        NotChecked::Arrival,
    );
    also(*authority != Authority::Owner, NotChecked::Between);
    also(
        !target.parents.is_empty() && target.kind != Kind::Open,
        NotChecked::Parents,
    );
    let data = target.kind == Kind::Data;
    also(data && entry.is_none(), NotChecked::Body);
    also(data && entry.is_some(), NotChecked::OtherEntries);
    also(data && entry.is_some(), NotChecked::Seal);
    also(
        entry.is_some_and(|entry| matches!(entry.entry(), Entry::Erasable(_))),
        NotChecked::ErasableContent,
    );
    list
}
