//! The groups that somebody knows of: the newest of each name counts.
//!
//! Always true: a group that is not there has no members, and neither has one of which two different
//! newest revisions were signed. The order in which groups are learned does not matter.

use std::collections::BTreeMap;

use bield_envelope::{Principal, Verified};

use crate::{Group, GroupName};

/// Groups by name and signer.
#[derive(Clone, Debug, Default)]
pub struct Groups(BTreeMap<GroupName, Vec<Verified<Group>>>);

impl Groups {
    /// Knows of none: no group has members.
    #[must_use]
    pub const fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// Learns of a group; keeps what is newest of its signer.
    pub fn add(&mut self, group: Verified<Group>) {
        let of_name = self.0.entry(group.name().clone()).or_default();
        of_name.retain(|known| {
            known.signer() != group.signer() || known.revision() >= group.revision()
        });
        let outdated = of_name.iter().any(|known| {
            known.signer() == group.signer()
                && (known.revision() > group.revision() || **known == *group)
        });
        if !outdated {
            of_name.push(group);
        }
    }

    /// Finds the group that counts under this name by the word of any of `owners`, who are one
    /// ([`Successions::line_of`](crate::Successions::line_of)).
    #[must_use]
    pub fn newest(&self, name: &GroupName, owners: &[Principal]) -> Option<&Verified<Group>> {
        let theirs = || {
            let of_name = self.0.get(name).map_or(&[][..], Vec::as_slice);
            of_name
                .iter()
                .filter(|group| owners.contains(&group.signer()))
        };
        let newest = theirs().max_by_key(|group| group.revision())?;
        let contradicted =
            theirs().any(|group| group.revision() == newest.revision() && **group != **newest);
        (!contradicted).then_some(newest)
    }

    /// Tells whether any of `users` belongs to the group that counts.
    pub(crate) fn admits(
        &self,
        name: &GroupName,
        owners: &[Principal],
        users: &[Principal],
    ) -> bool {
        self.newest(name, owners)
            .is_some_and(|group| users.iter().any(|user| group.contains(user)))
    }
}

impl FromIterator<Verified<Group>> for Groups {
    fn from_iter<I: IntoIterator<Item = Verified<Group>>>(groups: I) -> Self {
        let mut all = Self::new();
        for group in groups {
            all.add(group);
        }
        all
    }
}
