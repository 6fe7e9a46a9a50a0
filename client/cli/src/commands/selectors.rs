//! What a grant is for, as typed: packages, users, code, and how long.

use std::time::Duration;

use bield_envelope::Time;
use bield_evidence::{Measurement, TeeKind};
use bield_grant::{CodeSelector, CodeSigner, GroupName, PackageSelector, UserSelector};
use bield_sdk::Home;

use super::principal;
use crate::failure::Failure;

/// Reads a digest, `NAME`, `NAME@VERSION` or `NAME@RANGE`. A version alone means exactly that version: a
/// grant is never wider than it reads.
pub(super) fn package(text: &str) -> Result<PackageSelector, String> {
    let wrong = |error: bield_grant::InvalidPackageSelector| error.to_string();
    if text.parse::<bield_envelope::Digest>().is_ok() {
        return text.parse().map_err(wrong);
    }
    let (name, versions) = text.split_once('@').unwrap_or((text, "*"));
    let exact = versions.starts_with(|first: char| first.is_ascii_alphanumeric())
        && !versions.contains(['*', ',', ' ']);
    let equals = if exact { "=" } else { "" };
    format!("{name}@{equals}{versions}").parse().map_err(wrong)
}

/// Users as typed: principals or `me`, and groups.
pub(super) fn users(
    home: &Home,
    users: &[String],
    groups: &[GroupName],
) -> Result<Vec<UserSelector>, Failure> {
    let users = users
        .iter()
        .map(|user| principal(home, user).map(UserSelector::Principal));
    let groups = groups
        .iter()
        .cloned()
        .map(|name| Ok(UserSelector::Group(name)));
    users.chain(groups).collect()
}

/// Code as typed: measurements, and a signer with what its code must be.
pub(super) fn codes(
    measurements: &[Measurement],
    signer: Option<&Signer>,
    product: Option<u16>,
    svn_min: Option<u32>,
) -> Result<Vec<CodeSelector>, Failure> {
    let mut codes: Vec<_> = measurements
        .iter()
        .cloned()
        .map(CodeSelector::Measurement)
        .collect();
    if let Some(Signer { kind, bytes }) = signer {
        let svn_min = svn_min.ok_or_else(|| Failure::local("--signer needs --min-svn"))?;
        let signer = CodeSigner::new(*kind, bytes, product, svn_min).map_err(Failure::local)?;
        codes.push(CodeSelector::Signed(signer));
    }
    Ok(codes)
}

/// A signer as typed: `sgx:HEX` or `snp:HEX`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Signer {
    kind: TeeKind,
    bytes: Vec<u8>,
}

/// Reads a signer.
pub(super) fn signer(text: &str) -> Result<Signer, String> {
    let refuse = || {
        "write sgx: and 64 hex digits (MRSIGNER), or snp: and 96 hex digits (id key digest)"
            .to_owned()
    };
    let (kind, digits) = text.split_once(':').ok_or_else(refuse)?;
    let kind = match kind {
        "sgx" => TeeKind::Sgx,
        "snp" => TeeKind::Snp,
        _ => return Err(refuse()),
    };
    let bytes = digits_of(digits).ok_or_else(refuse)?;
    // Checks length and content; what the grant then says is made with the real numbers.
    CodeSigner::new(kind, &bytes, None, 0).map_err(|error| error.to_string())?;
    Ok(Signer { kind, bytes })
}

/// Reads a grant's id.
pub(super) fn id(text: &str) -> Result<bield_protocol::service::GrantId, String> {
    let bytes = digits_of(text).and_then(|bytes| bytes.try_into().ok());
    bytes
        .map(bield_protocol::service::GrantId)
        .ok_or_else(|| "a grant's id is 32 hex digits, as `bield grants` shows it".to_owned())
}

fn digits_of(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    let pairs = text.as_bytes().chunks_exact(2);
    pairs
        .map(|pair| {
            let digit = |byte: u8| (byte as char).to_digit(16);
            Some((digit(pair[0])? * 16 + digit(pair[1])?) as u8)
        })
        .collect()
}

/// Reads `30d` and the like.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let refuse = || "write a number and s, m, h, d or w, up to ten years: 12h, 30d".to_owned();
    let (number, unit) = text
        .split_at_checked(text.len().saturating_sub(1))
        .ok_or_else(refuse)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        "w" => 7 * 86_400,
        _ => return Err(refuse()),
    };
    let number: u64 = number.parse().map_err(|_| refuse())?;
    let seconds = number
        .checked_mul(seconds)
        .filter(|s| (1..=TEN_YEARS_SECS).contains(s));
    seconds.map(Duration::from_secs).ok_or_else(refuse)
}

/// Reads `2027-01-31` (its beginning) or `2027-01-31T18:00:00Z`, both UTC.
pub(super) fn time(text: &str) -> Result<Time, String> {
    let refuse = || "write a UTC date, 2027-01-31, or time, 2027-01-31T18:00:00Z".to_owned();
    let (date, clock) = text.split_once('T').unwrap_or((text, "00:00:00Z"));
    let clock = clock.strip_suffix('Z').ok_or_else(refuse)?;
    let date = numbers(date, '-').ok_or_else(refuse)?;
    let clock = numbers(clock, ':').ok_or_else(refuse)?;
    let ([year, month, day], [hour, minute, second]) = (date, clock);
    if !(1970..10_000).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return Err(refuse());
    }
    let seconds = days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second;
    let time = Time::from_secs(seconds);
    // Only what prints as it was written exists: no 31st of June, no 25th hour.
    let written = if text.contains('T') {
        text.to_owned()
    } else {
        format!("{text}T00:00:00Z")
    };
    (time.to_string() == written)
        .then_some(time)
        .ok_or_else(refuse)
}

fn numbers(text: &str, between: char) -> Option<[u64; 3]> {
    let parts: Vec<u64> = text
        .split(between)
        .map(|part| {
            let digits = part.bytes().all(|byte| byte.is_ascii_digit());
            part.parse().ok().filter(|_| digits && part.len() <= 4)
        })
        .collect::<Option<_>>()?;
    parts.try_into().ok()
}

/// Days from the epoch to a date of the Gregorian calendar, counted in years that begin with March.
const fn days(year: u64, month: u64, day: u64) -> u64 {
    let year = if month <= 2 { year - 1 } else { year };
    let month = (month + 9) % 12;
    year * 365 + year / 4 - year / 100 + year / 400 + (month * 306 + 5) / 10 + day - 1 - 719_468
}

const TEN_YEARS_SECS: u64 = 10 * 366 * 86_400;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_with_their_unit_and_bounded() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("2w"), Ok(Duration::from_secs(14 * 86_400)));
        for text in ["", "s", "30", "-1d", "0d", "1.5h", "11000d", "1y", "1ü"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn dates_are_read_as_they_print() {
        for text in [
            "1970-01-01T00:00:00Z",
            "2000-02-29T23:59:59Z",
            "2024-12-31T12:00:00Z",
            "2100-03-01T00:00:00Z",
            "9999-12-31T23:59:59Z",
        ] {
            assert_eq!(time(text).unwrap().to_string(), text);
        }
        assert_eq!(
            time("2027-01-31").unwrap().to_string(),
            "2027-01-31T00:00:00Z"
        );
        for text in [
            "2027-02-29",
            "2027-13-01",
            "2027-00-01",
            "2027-1-1",
            "1969-12-31",
            "2027-01-31T24:00:00Z",
            "2027-01-31T00:00:00",
            "2027-01-31 00:00:00Z",
            "27-01-31",
            "",
            "2027-01-31T00:00:00Zx",
        ] {
            assert!(time(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_package_is_never_read_wider_than_it_is_written() {
        let read = |text: &str| package(text).unwrap().to_string();
        assert_eq!(read("magika"), "magika@*");
        assert_eq!(read("magika@3.3.0"), "magika@=3.3.0");
        assert_eq!(read("magika@2024-11-rc1"), "magika@=2024-11-rc1");
        assert_eq!(read("magika@^3.3"), "magika@^3.3");
        assert_eq!(read("magika@=3.3.0"), "magika@=3.3.0");
        assert_eq!(read("magika@3.*"), "magika@3.*");
        let digest = "ab".repeat(32);
        assert_eq!(read(&digest), digest);
        for text in ["", "@1", "Magika", "magika@", "a b", "magika@>"] {
            assert!(package(text).is_err(), "{text}");
        }
    }

    #[test]
    fn signers_and_ids_have_their_length() {
        let digits = "ab".repeat(32);
        let signer = signer(&format!("sgx:{digits}")).unwrap();
        let selected = codes(&[], Some(&signer), Some(1), Some(3)).unwrap();
        assert_eq!(
            selected[0].to_string(),
            format!("sgx-signer:{digits},product=1,svn>=3")
        );
        assert!(codes(&[], Some(&signer), None, None).is_err());
        for text in [
            "sgx:ab".to_owned(),
            format!("tdx:{digits}"),
            digits.clone(),
            format!("sgx:{}", "00".repeat(32)),
            format!("sgx:{}", "zz".repeat(32)),
            format!("snp:{digits}"),
        ] {
            assert!(super::signer(&text).is_err(), "{text}");
        }
        assert!(id(&"0f".repeat(16)).is_ok());
        for text in ["", "0f", "zz".repeat(16).as_str(), "+f".repeat(16).as_str()] {
            assert!(id(text).is_err(), "{text}");
        }
    }
}
