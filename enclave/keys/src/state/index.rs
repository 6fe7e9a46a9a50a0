//! Keys of indexes: 64 bits that stand for a package, a name, a measurement, a user, a group.
//!
//! In: what a statement names. Out: numbers that only this service can tell. Always true: the same for the
//! same root, so that a replay finds what the live process found; nobody without the root can make two that
//! meet, so that one principal's statements are never found under another's.
//!
//! On paper: one SHA-256 each, 0.3 µs.

use bield_envelope::{Principal, Secret};
use bield_evidence::Measurement;
use bield_grant::{CodeSelector, GroupName, PackageSelector, UserSelector};
use bield_package::PackageName;

/// 64 bits that stand for a package, or for a name of an owner.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Target(pub(super) u64);

/// 64 bits that stand for a measurement; 0 for all signers together.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Class(pub(super) u64);

impl Class {
    pub(super) const SIGNERS: Self = Self(0);
}

/// Where a statement stands among those that end with it: the same in every replay.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank([u64; 2]);

/// Makes the keys.
pub(super) struct Index(Secret);

impl Index {
    pub(super) fn new(root: &Secret) -> Self {
        Self(root.derive(INDEX_KEY, &[]))
    }

    pub(super) fn package(&self, digest: &bield_envelope::Digest) -> Target {
        Target(self.short("package", &[digest.as_bytes()]))
    }

    pub(super) fn named(&self, owner: u32, name: &PackageName) -> Target {
        let parts = [&owner.to_be_bytes()[..], name.as_str().as_bytes()];
        Target(self.short("name", &parts))
    }

    pub(super) fn target(&self, owner: u32, selector: &PackageSelector) -> Target {
        match selector {
            PackageSelector::Digest(digest) => self.package(digest),
            PackageSelector::Named(name, _) => self.named(owner, name),
        }
    }

    pub(super) fn measured(&self, code: &Measurement) -> Class {
        let parts = [code.kind().name().as_bytes(), code.as_bytes()];
        Class(self.short("code", &parts).max(1))
    }

    pub(super) fn class(&self, selector: &CodeSelector) -> Class {
        match selector {
            CodeSelector::Measurement(code) => self.measured(code),
            CodeSelector::Signed(_) => Class::SIGNERS,
        }
    }

    pub(super) fn user(&self, user: &Principal) -> u64 {
        self.short("user", &[user.as_bytes()])
    }

    pub(super) fn group(&self, owner: u32, group: &GroupName) -> u64 {
        let parts = [&owner.to_be_bytes()[..], group.as_str().as_bytes()];
        self.short("group", &parts)
    }

    /// Whom a grant of `owner` names.
    pub(super) fn selected(&self, owner: u32, selector: &UserSelector) -> u64 {
        match selector {
            UserSelector::Principal(user) => self.user(user),
            UserSelector::Group(group) => self.group(owner, group),
        }
    }

    pub(super) fn rank(&self, signed: &[u8]) -> Rank {
        Rank(self.long("statement", &[signed]))
    }

    fn short(&self, kind: &str, parts: &[&[u8]]) -> u64 {
        self.long(kind, parts)[0]
    }

    fn long(&self, kind: &str, parts: &[&[u8]]) -> [u64; 2] {
        let mut hasher = bield_envelope::Hasher::new("bield key service index v2");
        let key = [self.0.expose().as_slice(), kind.as_bytes()];
        for part in key.iter().chain(parts) {
            hasher
                .update(&(part.len() as u64).to_be_bytes())
                .update(part);
        }
        let digest = hasher.finish();
        let (words, _) = digest.as_bytes().as_chunks();
        [u64::from_be_bytes(words[0]), u64::from_be_bytes(words[1])]
    }
}

const INDEX_KEY: &str = "bield key service index v2";

#[cfg(test)]
mod tests {
    use bield_envelope::Digest;

    use super::*;

    #[test]
    fn keys_of_indexes_are_the_roots_own_and_the_same_at_every_start() {
        let of = |root: u8| Index::new(&Secret::from_bytes([root; 32]));
        let package = Digest::from_bytes([7; 32]);
        assert!(of(1).package(&package) == of(1).package(&package));
        assert!(of(1).package(&package) != of(2).package(&package));
        assert!(of(1).rank(b"a statement") != of(2).rank(b"a statement"));
    }
}
