//! Names and versions of packages, safe wherever they are written.
//!
//! Always true: both are usable unchanged as a file name, a URL segment, a Kubernetes label value
//! and in a log line. So no separators, no `..`, nothing that starts a hidden file or an option.
//! What packages are *called* is public: the host routes and stores by it.

use std::fmt;
use std::str::FromStr;

use minicbor::decode::{self, Decoder};
use minicbor::{Decode, Encode};

/// Longest name and longest version, in bytes: the limit of a Kubernetes label value.
pub const NAME_BYTES_MAX: usize = 63;

/// What a package is called, for instance `magika`.
///
/// 1 to 63 of `a-z 0-9 . _ -`, first and last a letter or digit, never two dots in a row.
///
/// ```
/// use bield_package::PackageName;
/// assert!("magika-3.3".parse::<PackageName>().is_ok());
/// assert!("../keys".parse::<PackageName>().is_err());
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Encode)]
#[cbor(transparent)]
pub struct PackageName(#[n(0)] String);

/// Which edition of a package it is, for instance `1.0.3` or `2024-06-A`.
///
/// 1 to 63 of `A-Z a-z 0-9 . _ -`, first and last a letter or digit, never two dots in a row.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Encode)]
#[cbor(transparent)]
pub struct PackageVersion(#[n(0)] String);

/// A name or version that could not be used safely. Its author chooses another.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "a package's {what} has 1 to {NAME_BYTES_MAX} of {allowed}, starts and ends with a letter or \
     digit, and has no two dots in a row"
)]
pub struct InvalidName {
    what: &'static str,
    allowed: &'static str,
}

impl PackageName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl PackageVersion {
    /// The version.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for PackageName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        if is_local_name(text) {
            return Ok(Self(text.to_owned()));
        }
        Err(InvalidName {
            what: "name",
            allowed: "a-z 0-9 . _ -",
        })
    }
}

impl FromStr for PackageVersion {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        if is_safe(text, |c| c.is_ascii_alphanumeric()) {
            return Ok(Self(text.to_owned()));
        }
        Err(InvalidName {
            what: "version",
            allowed: "A-Z a-z 0-9 . _ -",
        })
    }
}

impl fmt::Display for PackageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for PackageVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'b, C> Decode<'b, C> for PackageName {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        d.str()?.parse().map_err(decode::Error::custom)
    }
}

impl<'b, C> Decode<'b, C> for PackageVersion {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        d.str()?.parse().map_err(decode::Error::custom)
    }
}

/// Whether it could be a package's name: buckets, and models of a function, are called likewise.
pub(crate) fn is_local_name(text: &str) -> bool {
    is_safe(text, |c| c.is_ascii_lowercase() || c.is_ascii_digit())
}

fn is_safe(text: &str, inner: impl Fn(u8) -> bool) -> bool {
    let bytes = text.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else {
        return false;
    };
    bytes.len() <= NAME_BYTES_MAX
        && inner(*first)
        && inner(*last)
        && bytes.iter().all(|c| inner(*c) || b"._-".contains(c))
        && !text.contains("..")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_safe_as_a_file_name_and_a_label() {
        for good in ["m", "magika", "resnet101_v2", "a.b-c_d", &"n".repeat(63)] {
            assert_eq!(good.parse::<PackageName>().unwrap().as_str(), good);
        }
        for bad in [
            "",
            ".",
            "..",
            "a..b",
            ".hidden",
            "-option",
            "a/b",
            "a\\b",
            "a b",
            "A",
            "é",
            "a\n",
            "a.",
            "a\0",
            &"n".repeat(64),
        ] {
            assert!(bad.parse::<PackageName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_version_may_have_capitals() {
        assert!("2.1.0-RC1".parse::<PackageVersion>().is_ok());
        assert!("1.0+dirty".parse::<PackageVersion>().is_err());
    }

    #[test]
    fn decoding_checks_what_parsing_checks() {
        let bytes = minicbor::to_vec("../keys").unwrap();
        assert!(minicbor::decode::<PackageName>(&bytes).is_err());
        assert!(minicbor::decode::<PackageVersion>(&bytes).is_err());
    }
}
