//! How people name a package: by digest, or by its owner's name for it.

use std::fmt;
use std::str::FromStr;

use bield_envelope::{Digest, Principal};
use bield_package::{PackageName, PackageVersion};
use bield_protocol::service::PackageReference;

/// A package as written on a command line: 64 hex digits, `name`, or `name@version`.
///
/// ```
/// use bield_sdk::Reference;
/// assert!(matches!("magika@3.3".parse()?, Reference::Named(_, Some(_))));
/// assert!(matches!("ab".repeat(32).parse()?, Reference::Digest(_)));
/// # Ok::<(), bield_sdk::ParseReferenceError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reference {
    /// This package and no other.
    Digest(Digest),
    /// An owner's name for it; the newest registered when no version is named.
    Named(PackageName, Option<PackageVersion>),
}

/// The text names no package.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a package is named by its digest (64 hex digits), by `name` or by `name@version`")]
pub struct ParseReferenceError;

/// A name means something only together with its owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "whose package? names belong to owners: give the owner, set `owner` in the trust file, or name \
     the package by its digest"
)]
pub struct NoOwner;

impl Reference {
    /// Completes a name with its owner. A digest needs none.
    ///
    /// # Errors
    /// A name without an owner.
    pub fn of(&self, owner: Option<Principal>) -> Result<PackageReference, NoOwner> {
        match self {
            Self::Digest(digest) => Ok(PackageReference::Digest(*digest)),
            Self::Named(name, version) => Ok(PackageReference::Named(
                owner.ok_or(NoOwner)?,
                name.as_str().to_owned(),
                version.as_ref().map(|version| version.as_str().to_owned()),
            )),
        }
    }
}

impl FromStr for Reference {
    type Err = ParseReferenceError;

    fn from_str(text: &str) -> Result<Self, ParseReferenceError> {
        // A name has at most 63 bytes, so 64 hex digits are never one.
        if let Ok(digest) = text.parse() {
            return Ok(Self::Digest(digest));
        }
        let (name, version) = match text.split_once('@') {
            Some((name, version)) => (name, Some(version)),
            None => (text, None),
        };
        let name = name.parse().map_err(|_| ParseReferenceError)?;
        let version = version
            .map(str::parse)
            .transpose()
            .map_err(|_| ParseReferenceError)?;
        Ok(Self::Named(name, version))
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Digest(digest) => digest.fmt(f),
            Self::Named(name, None) => f.write_str(name.as_str()),
            Self::Named(name, Some(version)) => write!(f, "{}@{}", name.as_str(), version.as_str()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_parses_again() {
        for text in ["magika", "magika@3.3", "a-b.c@2024-06-A", &"0f".repeat(32)] {
            assert_eq!(text.parse::<Reference>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn text_that_could_mean_something_else_is_refused() {
        for text in [
            "",
            "@1",
            "magika@",
            "../keys",
            "Magika",
            "a@b@c",
            &"0f".repeat(31),
            "-x",
        ] {
            // 62 hex digits are a legal name: short enough, letters and digits.
            let expected = text.len() == 62;
            assert_eq!(text.parse::<Reference>().is_ok(), expected, "{text}");
        }
    }

    #[test]
    fn a_name_without_an_owner_is_refused_and_a_digest_needs_none() {
        assert_eq!(
            "magika".parse::<Reference>().unwrap().of(None),
            Err(NoOwner)
        );
        assert!(
            "0f".repeat(32)
                .parse::<Reference>()
                .unwrap()
                .of(None)
                .is_ok()
        );
    }
}
