//! Which package: one, or a name of the owner's with a range of versions.
//!
//! A name alone says nothing: names are per owner, so whether the grant's signer and the package's
//! owner are the same is checked elsewhere ([`Successions::speaks_for`](crate::Successions)).

use core::fmt;
use core::str::FromStr;

use bield_envelope::{Digest, Principal};
use bield_package::{PackageName, PackageVersion};
use minicbor::{Decode, Encode};
use semver::Version;

use crate::VersionRange;

/// Which packages of its signer a grant covers.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Encode, Decode)]
pub enum PackageSelector {
    /// This package and no other.
    #[n(0)]
    Digest(#[n(0)] Digest),
    /// What the signer calls so, in these versions; also those that are registered later.
    #[n(1)]
    Named(#[n(0)] PackageName, #[n(1)] VersionRange),
}

/// What is registered of one package.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PackageFacts<'a> {
    /// The package.
    pub digest: Digest,
    /// Who owns it: signed its header and registered it.
    pub owner: Principal,
    /// The owner's name for it.
    pub name: &'a PackageName,
    /// The owner's version of it.
    pub version: &'a PackageVersion,
}

impl PackageSelector {
    /// Tells whether the package is one of those selected, if the signer owns it.
    #[must_use]
    pub fn names(&self, package: &PackageFacts<'_>) -> bool {
        Sought::new(*package).is_named_by(self)
    }
}

/// A package that grants are compared with; its version is parsed once.
pub(crate) struct Sought<'a> {
    pub(crate) facts: PackageFacts<'a>,
    semantic: Option<Version>,
}

impl<'a> Sought<'a> {
    pub(crate) fn new(facts: PackageFacts<'a>) -> Self {
        Self {
            semantic: Version::parse(facts.version.as_str()).ok(),
            facts,
        }
    }

    pub(crate) fn is_named_by(&self, selector: &PackageSelector) -> bool {
        match selector {
            PackageSelector::Digest(digest) => *digest == self.facts.digest,
            PackageSelector::Named(name, versions) => {
                name == self.facts.name
                    && versions.holds(self.facts.version.as_str(), self.semantic.as_ref())
            }
        }
    }
}

/// `NAME@RANGE`, or the digest.
impl fmt::Display for PackageSelector {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Digest(digest) => fmt::Display::fmt(digest, out),
            Self::Named(name, versions) => write!(out, "{name}@{versions}"),
        }
    }
}

impl FromStr for PackageSelector {
    type Err = InvalidPackageSelector;

    fn from_str(text: &str) -> Result<Self, InvalidPackageSelector> {
        let Some((name, versions)) = text.split_once('@') else {
            let digest = text.parse().map_err(|_| InvalidPackageSelector)?;
            return Ok(Self::Digest(digest));
        };
        match (name.parse(), versions.parse()) {
            (Ok(name), Ok(versions)) => Ok(Self::Named(name, versions)),
            _ => Err(InvalidPackageSelector),
        }
    }
}

/// The text selects no package; whoever wrote it writes it anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "packages are selected by a digest (64 hex digits) or a name and a range of versions \
     (magika@=3.3.0, magika@^3, magika@*)"
)]
pub struct InvalidPackageSelector;

#[cfg(test)]
mod tests {
    use bield_envelope::wire;

    use super::*;
    use crate::cast::{lease, name, named, package};

    #[test]
    fn selectors_survive_their_text_and_their_cbor() {
        for selector in [
            PackageSelector::Digest(package(1)),
            named("=2024-06-A"),
            named(">=1, <3"),
        ] {
            assert_eq!(selector.to_string().parse(), Ok(selector.clone()));
            assert_eq!(wire::decode(&wire::encode(&selector), 200), Ok(selector));
        }
        for bad in [
            "magika",
            "magika@",
            "@*",
            "Magika@*",
            "magika@1.0",
            "magika@*@*",
        ] {
            assert_eq!(
                bad.parse::<PackageSelector>(),
                Err(InvalidPackageSelector),
                "{bad}"
            );
        }
    }

    #[test]
    fn an_unknown_selector_is_refused() {
        let digest = wire::encode(&package(1));
        let decode = |head: &[u8]| wire::decode::<PackageSelector>(&[head, &digest].concat(), 99);
        assert!(decode(&[0x82, 0x00, 0x81]).is_ok());
        assert!(decode(&[0x82, 0x02, 0x81]).is_err(), "kind 2");
        assert!(
            decode(&[0x82, 0x01, 0x81]).is_err(),
            "a name that is a digest"
        );
        assert!(decode(&[0x81, 0x00, 0x81]).is_err(), "a shorter array");
    }

    #[test]
    fn a_version_that_is_not_semantic_is_named_exactly_or_not_at_all() {
        let (lease, version) = (lease(), "2024-06-A".parse().unwrap());
        let facts = PackageFacts {
            version: &version,
            ..lease.facts()
        };
        assert!(named("=2024-06-A").names(&facts));
        assert!(!named("*").names(&facts) && !named(">=0").names(&facts));
        assert!(PackageSelector::Digest(package(1)).names(&facts));
        assert_eq!(facts.name, &name());
    }
}
