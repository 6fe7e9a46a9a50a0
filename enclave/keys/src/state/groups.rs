//! Groups of owners, by name; the newest revision is the whole group.

use bield_envelope::{Principal, Signed, Verified};
use bield_grant::{Group, GroupName};
use bield_protocol::refusal::{Refusal, Retry};
use bield_protocol::service::GroupRow;

use super::ask::{Checked, Inconsistent};
use super::entry::Entry;
use super::index::Index;
use super::limits::{GROUPS_EACH_MAX, GROUPS_MAX, MEMBERS_EACH_MAX, MEMBERS_MAX};
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
        let replaced = known.map_or(0, |known| known.members);
        let own: usize = person.groups.values().map(|group| group.members).sum();
        if own - replaced + group.members().len() > MEMBERS_EACH_MAX {
            refuse::room(
                MEMBERS_EACH_MAX,
                MEMBERS_EACH_MAX,
                "members of groups of a principal",
                Whose::Signer,
            )?;
        }
        let others = self.members - replaced;
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
        let number = person.number;
        match person.groups.remove(&name) {
            Some(before) => self.keep_members(number, &name, &before, false),
            None => self.groups += 1,
        }
        self.keep_members(number, &name, &group, true);
        self.people.person_mut(&by)?.groups.insert(name, group);
        Ok(())
    }

    pub(super) fn apply_group_deleted(
        &mut self,
        by: &Principal,
        name: &GroupName,
    ) -> Result<(), Inconsistent> {
        let person = self.people.person_mut(by)?;
        let number = person.number;
        let gone = person.groups.remove(name);
        let gone = gone.ok_or(Inconsistent("no such group"))?;
        self.groups -= 1;
        self.keep_members(number, name, &gone, false);
        Ok(())
    }

    /// Counts and finds the members of a group, or no more.
    pub(super) fn keep_members(
        &mut self,
        owner: u32,
        name: &GroupName,
        group: &KeptGroup,
        keep: bool,
    ) {
        let pairs = pairs(&self.grants.index, owner, name, group);
        if keep {
            self.members += group.members;
            self.by_member.extend(pairs);
        } else {
            self.members -= group.members;
            for pair in pairs {
                self.by_member.remove(&pair);
            }
        }
    }

    /// The groups that a principal belongs to, as grants name them in the index.
    pub(super) fn groups_with(&self, user: u64) -> impl Iterator<Item = u64> {
        let range = (user, 0)..=(user, u64::MAX);
        self.by_member.range(range).map(|(_, group)| *group)
    }
}

/// Each member of a group with the group, as indexes have them.
fn pairs(index: &Index, owner: u32, name: &GroupName, group: &KeptGroup) -> Vec<(u64, u64)> {
    let key = index.group(owner, name);
    let members = group.says();
    let members = members.as_ref().map_or(&[][..], Group::members).iter();
    members.map(|member| (index.user(member), key)).collect()
}
