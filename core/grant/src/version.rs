//! Which versions of a package a grant covers.
//!
//! In: text such as `^1.2` or `=2024-06-A`. Out: whether a version lies in the range.
//!
//! Always true: a range has exactly one text (the one that is signed) and a text one meaning
//! (`spec/04 §3.1`). `=TEXT` is the version written so and no other, whatever it looks like; every
//! other range covers semantic versions only, and pre-releases only where it names one.
//!
//! Cost: one parse per range when a grant is decoded, one per version that is looked up.

use core::fmt;
use core::str::FromStr;

use bield_package::PackageVersion;
use minicbor::decode::{self, Decoder};
use minicbor::encode::{self, Encoder};
use semver::{Op, Version, VersionReq};

/// Longest text of a range in bytes: `=` and the longest version.
pub const VERSION_RANGE_BYTES_MAX: usize = 1 + bield_package::NAME_BYTES_MAX;

/// A set of versions, written as a requirement of semantic versions.
///
/// ```
/// use bield_grant::VersionRange;
/// let range: VersionRange = "^1.2".parse()?;
/// assert!(range.matches("1.9.0") && !range.matches("2.0.0"));
/// let exact: VersionRange = "=2024-06-A".parse()?;
/// assert!(exact.matches("2024-06-A") && !exact.matches("2024-06-B"));
/// assert!("1.2".parse::<VersionRange>().is_err(), "say =1.2, ^1.2 or 1.2.*");
/// # Ok::<(), bield_grant::InvalidRange>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct VersionRange(Range);

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Range {
    Exact(PackageVersion),
    Semantic(VersionReq),
}

impl VersionRange {
    /// Every semantic version that is not a pre-release.
    #[must_use]
    pub const fn any() -> Self {
        Self(Range::Semantic(VersionReq::STAR))
    }

    /// This version and no other.
    #[must_use]
    pub const fn exactly(version: PackageVersion) -> Self {
        Self(Range::Exact(version))
    }

    /// Tells whether `version` lies in the range.
    #[must_use]
    pub fn matches(&self, version: &str) -> bool {
        self.holds(version, Version::parse(version).ok().as_ref())
    }

    /// As [`VersionRange::matches`], for a version that was parsed before.
    pub(crate) fn holds(&self, text: &str, semantic: Option<&Version>) -> bool {
        match &self.0 {
            Range::Exact(version) => version.as_str() == text,
            Range::Semantic(range) => semantic.is_some_and(|version| range.matches(version)),
        }
    }
}

impl fmt::Display for VersionRange {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Range::Exact(version) => write!(out, "={version}"),
            Range::Semantic(range) => fmt::Display::fmt(range, out),
        }
    }
}

impl FromStr for VersionRange {
    type Err = InvalidRange;

    /// Reads a range; only its spaces may differ from how it prints.
    fn from_str(text: &str) -> Result<Self, InvalidRange> {
        if text.len() > VERSION_RANGE_BYTES_MAX {
            return Err(InvalidRange);
        }
        let range = match text.trim_matches(' ').strip_prefix('=') {
            // Not left to `semver`, where `=1.2` is every 1.2.x: an equals sign means equal.
            Some(version) => Range::Exact(
                version
                    .trim_start_matches(' ')
                    .parse()
                    .map_err(|_| InvalidRange)?,
            ),
            None => Range::Semantic(semantic(text)?),
        };
        let range = Self(range);
        let written = range.to_string();
        let same =
            written.len() <= VERSION_RANGE_BYTES_MAX && unspaced(&written).eq(unspaced(text));
        // A bare `1.2` would print as `^1.2`: people mean different things by it, so it is refused.
        same.then_some(range).ok_or(InvalidRange)
    }
}

fn semantic(text: &str) -> Result<VersionReq, InvalidRange> {
    let range = VersionReq::parse(text).map_err(|_| InvalidRange)?;
    let parts = &range.comparators;
    let exact = parts.iter().any(|part| part.op == Op::Exact);
    // Whether `>=1.2` holds 1.2.3-a is a question that no two readers answer alike: not asked.
    let names_a_pre_release = parts.iter().any(|part| !part.pre.is_empty());
    let all_whole = parts.iter().all(|part| part.patch.is_some());
    if exact || (names_a_pre_release && !all_whole) {
        return Err(InvalidRange);
    }
    Ok(range)
}

fn unspaced(text: &str) -> impl Iterator<Item = u8> + '_ {
    text.bytes().filter(|byte| *byte != b' ')
}

/// CBOR: the text.
impl<C> minicbor::Encode<C> for VersionRange {
    fn encode<W: encode::Write>(
        &self,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), encode::Error<W::Error>> {
        e.str(&self.to_string())?.ok()
    }
}

impl<'b, C> minicbor::Decode<'b, C> for VersionRange {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        let text = d.str()?;
        let range: Self = text.parse().map_err(decode::Error::custom)?;
        if range.to_string() != text {
            return Err(decode::Error::message("a range with other spaces"));
        }
        Ok(range)
    }
}

/// The text names no range of versions; whoever wrote it writes it anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a range of versions is `=` and one version, or `*`, or a list of `^1.2.3`, `~1.2`, `1.2.*`, \
     `>1.2`, `>=1.2`, `<2`, `<=2` joined by commas (with a pre-release only among versions of three \
     numbers), in at most {VERSION_RANGE_BYTES_MAX} bytes"
)]
pub struct InvalidRange;

#[cfg(test)]
mod tests {
    use bield_envelope::wire;
    use proptest::prelude::*;

    use super::*;

    fn range(text: &str) -> VersionRange {
        text.parse().unwrap()
    }

    #[test]
    fn a_range_holds_what_the_table_of_the_specification_says() {
        // Range, versions inside, versions outside.
        let table: &[(&str, &[&str], &[&str])] = &[
            (
                "*",
                &["0.0.0", "9.9.9"],
                &["1.0.0-rc1", "1.0", "2024-06-A", ""],
            ),
            ("=1.2", &["1.2"], &["1.2.0", "1.2.3"]),
            ("=1.2.3-rc1", &["1.2.3-rc1"], &["1.2.3", "1.2.3-rc2"]),
            ("=2024-06-A", &["2024-06-A"], &["2024-06-a", "2024-06"]),
            (
                "^1.2.3",
                &["1.2.3", "1.9.0"],
                &["1.2.2", "2.0.0", "1.3.0-a"],
            ),
            ("^1", &["1.0.0", "1.9.9"], &["0.9.9", "2.0.0"]),
            ("^0.2.3", &["0.2.3", "0.2.9"], &["0.3.0", "1.0.0"]),
            ("^0.0.3", &["0.0.3"], &["0.0.4"]),
            ("^0.0", &["0.0.0", "0.0.9"], &["0.1.0"]),
            ("^0", &["0.9.9"], &["1.0.0"]),
            ("~1.2.3", &["1.2.3", "1.2.9"], &["1.2.2", "1.3.0"]),
            ("~1.2", &["1.2.0", "1.2.9"], &["1.3.0"]),
            ("~1", &["1.0.0", "1.9.0"], &["2.0.0"]),
            ("1.2.*", &["1.2.0", "1.2.9"], &["1.3.0"]),
            ("1.*", &["1.0.0", "1.9.9"], &["2.0.0"]),
            (">1.2", &["1.3.0", "2.0.0"], &["1.2.0", "1.2.9"]),
            (">=1.2", &["1.2.0", "2.0.0"], &["1.1.9"]),
            ("<1.2", &["1.1.9"], &["1.2.0"]),
            ("<=1.2", &["1.2.9"], &["1.3.0"]),
            (">=1.2, <2", &["1.2.0", "1.9.9"], &["1.1.0", "2.0.0"]),
            (
                ">=1.2.3-b",
                &["1.2.3-b", "1.2.3-c", "1.2.3"],
                &["1.2.3-a", "1.2.4-c"],
            ),
        ];
        for (text, inside, outside) in table {
            assert_eq!(range(text).to_string(), *text);
            for version in *inside {
                assert!(range(text).matches(version), "{version} is in {text}");
            }
            for version in *outside {
                assert!(!range(text).matches(version), "{version} is not in {text}");
            }
        }
    }

    #[test]
    fn text_that_people_read_in_different_ways_is_refused() {
        let long = format!(">=1.2.3-{}", "a".repeat(VERSION_RANGE_BYTES_MAX));
        for bad in [
            "",
            " ",
            "=",
            "1",
            "1.2",
            "1.2.3",
            "x",
            "1.x",
            "*, <2",
            "<2, *",
            ">=1, =1.2",
            "=1, <2",
            "^1 <2",
            "^01",
            "^1.2.3+build",
            "=1.0+b",
            "=a b",
            "=../a",
            "latest",
            "||",
            "^1 || ^2",
            "^18446744073709551616",
            "^1.2.3.4",
            ">=1.2, <1.2.3-z",
            "1.*.3",
            &long,
        ] {
            assert_eq!(bad.parse::<VersionRange>(), Err(InvalidRange), "{bad:?}");
        }
    }

    #[test]
    fn people_may_space_a_range_as_they_like_and_statements_may_not() {
        assert_eq!(range(" >= 1.2,<2 "), range(">=1.2, <2"));
        assert_eq!(range("= 1.2"), range("=1.2"));
        let decode = |text: &str| wire::decode::<VersionRange>(&wire::encode(&text.to_owned()), 99);
        assert_eq!(decode(">=1.2, <2"), Ok(range(">=1.2, <2")));
        for bad in [">=1.2,<2", " ^1", "= 1.2", "1.2", ""] {
            assert!(decode(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_longest_range_is_the_longest_version() {
        let longest = "v".repeat(bield_package::NAME_BYTES_MAX);
        assert!(range(&format!("={longest}")).matches(&longest));
        assert!(format!("={longest}v").parse::<VersionRange>().is_err());
        assert!(VersionRange::any().matches("1.2.3"));
        assert_eq!(VersionRange::exactly("1.0".parse().unwrap()), range("=1.0"));
    }

    proptest! {
        #[test]
        fn what_parses_prints_as_it_was_and_decodes(text in "[*=^~<>]?=?[0-9x*]{0,2}(\\.[0-9*]){0,2}(-[a-z0-9.]{1,3})?(, ?[<>^~]=?[0-9](\\.[0-9]){0,2})?") {
            if let Ok(range) = text.parse::<VersionRange>() {
                let written = range.to_string();
                prop_assert_eq!(written.replace(' ', ""), text.replace(' ', ""));
                prop_assert_eq!(written.parse::<VersionRange>(), Ok(range.clone()));
                prop_assert_eq!(wire::decode(&wire::encode(&range), 99), Ok(range));
            }
        }
    }
}
