//! Groups of owners, by name; the newest revision is the whole group.

use bield_envelope::{Principal, Signed, Verified};
use bield_grant::{Group, GroupName};
use bield_protocol::refusal::{Refusal, Retry};
use bield_protocol::service::GroupRow;

use super::ask::{Checked, Inconsistent};
use super::entry::Entry;
use super::limits::{GROUPS_EACH_MAX, GROUPS_MAX, MEMBERS_MAX};
use super::people::Person;
use super::refuse::{self, Whose};
use super::{State, kept};

/// A group as it is kept.
pub(super) struct KeptGroup {
    pub(super) signed: Signed<Group>,
    pub(super) revision: u64,
    pub(super) members: usize,
}

impl KeptGroup {
    /// Takes a statement that was authenticated otherwise; `None` when it is not a group.
    pub(super) fn new(signed: &Signed<Group>) -> Option<(GroupName, Self)> {
        let group: Group = kept::says(signed.as_bytes())?;
        let kept = Self {
            revision: group.revision(),
            members: group.members().len(),
            signed: signed.clone(),
        };
        Some((group.name().clone(), kept))
    }

    /// What the statement says.
    pub(super) fn says(&self) -> Option<Group> {
        kept::says(self.signed.as_bytes())
    }

    pub(super) fn row(&self) -> Option<GroupRow> {
        let group = self.says()?;
        Some(GroupRow {
            name: group.name().to_string(),
            revision: group.revision(),
            members: group.members().to_vec(),
        })
    }
}

impl State {
    pub(super) fn check_put_group(
        &self,
        by: Principal,
        group: &Verified<Group>,
    ) -> Result<Checked, Refusal> {
        let person = self.ordering(by)?;
        if group.signer() != by {
            return Err(refuse::not_owner(by, &format!("group {}", group.name())));
        }
        let known = person.groups.get(group.name());
        if let Some(known) = known {
            let same =
                known.revision == group.revision() && known.says().as_ref() == Some(&**group);
            if same {
                return Ok(Checked::already());
            }
            if group.revision() <= known.revision {
                let message = format!(
                    "group {} is known in revision {}, and this is revision {}; sign it with a higher one",
                    group.name(),
                    known.revision,
                    group.revision()
                );
                return Err(Refusal::new("old-revision", message, Retry::Never));
            }
        } else {
            let have = person.groups.len();
            refuse::room(
                have,
                GROUPS_EACH_MAX,
                "groups of a principal",
                Whose::Signer,
            )?;
            refuse::room(self.groups, GROUPS_MAX, "groups", Whose::Operator)?;
        }
        let others = self.members - known.map_or(0, |known| known.members);
        if others + group.members().len() > MEMBERS_MAX {
            refuse::room(
                MEMBERS_MAX,
                MEMBERS_MAX,
                "members of groups",
                Whose::Operator,
            )?;
        }
        Ok(Checked::done(Entry::GroupPut(group.as_signed().clone())))
    }

    pub(super) fn check_delete_group(
        &self,
        by: Principal,
        name: &GroupName,
    ) -> Result<Checked, Refusal> {
        if !self.ordering(by)?.groups.contains_key(name) {
            let message = format!("{by} has no group {name} here; there is nothing to delete");
            return Err(Refusal::new("unknown-group", message, Retry::AfterChange));
        }
        let name = name.clone();
        Ok(Checked::done(Entry::GroupDeleted { by, name }))
    }

    pub(super) fn apply_group_put(&mut self, signed: &Signed<Group>) -> Result<(), Inconsistent> {
        let by = kept::signer(signed.as_bytes()).ok_or(Inconsistent("a group of nobody"))?;
        let (name, group) = KeptGroup::new(signed).ok_or(Inconsistent("no group"))?;
        let person = self.people.person_mut(&by)?;
        let members = group.members;
        match person.groups.insert(name, group) {
            Some(before) => self.members -= before.members,
            None => self.groups += 1,
        }
        self.members += members;
        Ok(())
    }

    pub(super) fn apply_group_deleted(
        &mut self,
        by: &Principal,
        name: &GroupName,
    ) -> Result<(), Inconsistent> {
        let gone = self.people.person_mut(by)?.groups.remove(name);
        let gone = gone.ok_or(Inconsistent("no such group"))?;
        self.groups -= 1;
        self.members -= gone.members;
        Ok(())
    }
}

impl Person {
    /// The groups of this person that one of `users` belongs to.
    pub(super) fn groups_with<'a>(
        &'a self,
        users: &'a [Principal],
    ) -> impl Iterator<Item = &'a GroupName> + 'a {
        let belongs = |kept: &KeptGroup| {
            let group = kept.says();
            group.is_some_and(|group| users.iter().any(|user| group.contains(user)))
        };
        self.groups
            .iter()
            .filter(move |(_, kept)| belongs(kept))
            .map(|(name, _)| name)
    }
}
