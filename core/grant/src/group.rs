//! Groups: a name an owner gives to many users.
//!
//! Always true: members are sorted and each is there once. A group's newest revision is the whole
//! truth about it; there is no adding to an older one.
//!
//! Cost: 34 bytes a member on the wire, 32 in memory; a look-up is one search by name and one by
//! member.

use core::fmt;
use core::str::FromStr;

use bield_envelope::{Principal, Statement, wire};
use bield_package::PackageName;
use minicbor::decode::{self, Decoder};
use minicbor::{Decode, Encode};

/// Most members of one group. An owner with more users names several groups.
pub const GROUP_MEMBERS_MAX: usize = 4096;
/// Longest encoded statement in bytes: 34 for each member and 128 for the rest.
pub const GROUP_BYTES_MAX: usize = GROUP_MEMBERS_MAX * 34 + 128;

/// What a group is called: the letters and the length of a package's name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Encode, Decode)]
#[cbor(transparent)]
pub struct GroupName(#[n(0)] PackageName);

impl GroupName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl fmt::Display for GroupName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, out)
    }
}

impl FromStr for GroupName {
    type Err = InvalidGroupName;

    fn from_str(text: &str) -> Result<Self, InvalidGroupName> {
        text.parse().map(Self).map_err(|_| InvalidGroupName)
    }
}

/// The text cannot name a group; its author chooses another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a group's name has 1 to 63 of a-z 0-9 . _ -, starts and ends with a letter or digit, and has no \
     two dots in a row"
)]
pub struct InvalidGroupName;

/// Who belongs to a group, by the word of its owner (`spec/04 §4`).
#[derive(Clone, PartialEq, Eq, Debug, Encode)]
#[cbor(map)]
pub struct Group {
    #[n(0)]
    name: GroupName,
    #[n(1)]
    revision: u64,
    #[n(2)]
    members: Vec<Principal>,
}

impl Statement for Group {
    const DOMAIN: &'static str = "bield group v1";
    const BYTES_MAX: usize = GROUP_BYTES_MAX;
}

impl Group {
    /// Says who belongs to the group from this revision on; nobody when `members` is empty.
    ///
    /// # Errors
    /// [`GroupTooLarge`]: more than [`GROUP_MEMBERS_MAX`] different members.
    pub fn new(
        name: GroupName,
        revision: u64,
        mut members: Vec<Principal>,
    ) -> Result<Self, GroupTooLarge> {
        members.sort_unstable();
        members.dedup();
        if members.len() > GROUP_MEMBERS_MAX {
            return Err(GroupTooLarge {
                found: members.len(),
            });
        }
        Ok(Self {
            name,
            revision,
            members,
        })
    }

    /// What the owner calls it.
    #[must_use]
    pub const fn name(&self) -> &GroupName {
        &self.name
    }

    /// Counts up with every change; the largest counts.
    #[must_use]
    pub const fn revision(&self) -> u64 {
        self.revision
    }

    /// The members, sorted.
    #[must_use]
    pub fn members(&self) -> &[Principal] {
        &self.members
    }

    /// Tells whether `principal` is listed.
    #[must_use]
    pub fn contains(&self, principal: &Principal) -> bool {
        self.members.binary_search(principal).is_ok()
    }
}

impl<'b, C> Decode<'b, C> for Group {
    fn decode(d: &mut Decoder<'b>, ctx: &mut C) -> Result<Self, decode::Error> {
        let GroupFields {
            name,
            revision,
            members,
        } = GroupFields::decode(d, ctx)?;
        if !members.is_sorted_by(|a, b| a < b) {
            return Err(decode::Error::message("members out of order or repeated"));
        }
        Ok(Self {
            name,
            revision,
            members,
        })
    }
}

/// As it stands on the wire, before the order of its members was checked.
#[derive(Decode)]
#[cbor(map)]
struct GroupFields {
    #[n(0)]
    name: GroupName,
    #[n(1)]
    revision: u64,
    #[cbor(n(2), decode_with = "wire::at_most::<GROUP_MEMBERS_MAX, _, _>")]
    members: Vec<Principal>,
}

/// A group may not have that many members; its owner makes several.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a group of {found} members is larger than the {GROUP_MEMBERS_MAX} allowed; make several groups"
)]
pub struct GroupTooLarge {
    /// How many different members there were.
    pub found: usize,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cast::user;

    fn name() -> GroupName {
        "team".parse().unwrap()
    }

    #[test]
    fn members_are_sorted_and_there_once() {
        let group = Group::new(name(), 1, vec![user(2), user(1), user(2)]).unwrap();
        let mut expected = [user(1), user(2)];
        expected.sort();
        assert_eq!(group.members(), expected);
        assert!(group.contains(&user(1)) && !group.contains(&user(3)));
    }

    #[test]
    fn a_group_survives_its_encoding_up_to_the_largest() {
        let number = |n: usize| {
            let mut bytes = [0xff; 32];
            bytes[..8].copy_from_slice(&n.to_be_bytes());
            Principal::from_bytes(bytes)
        };
        let name: GroupName = "n".repeat(63).parse().unwrap();
        for size in [0, 1, GROUP_MEMBERS_MAX] {
            let group =
                Group::new(name.clone(), u64::MAX, (0..size).map(number).collect()).unwrap();
            let bytes = wire::encode(&group);
            assert_eq!(wire::decode(&bytes, GROUP_BYTES_MAX), Ok(group));
        }
        let too_large = Group::new(name, 1, (0..=GROUP_MEMBERS_MAX).map(number).collect());
        assert_eq!(too_large.unwrap_err().found, GROUP_MEMBERS_MAX + 1);
    }

    #[test]
    fn members_in_another_order_or_twice_are_refused() {
        let mut users = [user(1), user(2)];
        users.sort();
        let [first, second] = users;
        let decoded = |members: &[Principal]| {
            let members = members.to_vec();
            let bytes = wire::encode(&Group {
                name: name(),
                revision: 1,
                members,
            });
            wire::decode::<Group>(&bytes, GROUP_BYTES_MAX).is_ok()
        };
        assert!(decoded(&[first, second]));
        assert!(!decoded(&[second, first]) && !decoded(&[first, first]));
    }

    #[test]
    fn a_name_that_is_not_safe_is_refused_when_decoded() {
        for bad in ["", "Team", "../team", &"n".repeat(64)] {
            assert!(bad.parse::<GroupName>().is_err());
            assert!(wire::decode::<GroupName>(&wire::encode(&bad.to_owned()), 99).is_err());
        }
        assert_eq!(
            wire::decode(&wire::encode(&"team".to_owned()), 99),
            Ok(name())
        );
    }
}
