//! What people write: configuration, policies, names of keys and code.

use core::fmt::{Debug, Display};
use core::str::FromStr;

use bield_envelope::{Digest, Principal, wire};
use bield_evidence::{Measurement, PolicyConfig, Profile};
use bield_grant::{
    CodeSelector, Isolation, PackageSelector, UserSelector, VERSION_RANGE_BYTES_MAX, VersionRange,
};
use bield_package::{NAME_BYTES_MAX, PackageName, PackageVersion};
use bield_protocol::configuration::{KeyServiceConfiguration, RuntimeConfiguration};
use minicbor::{Decode, Encode};
use serde::Serialize;

use crate::cast;

/// The measured configuration of both programs: what parses says the same when written again.
pub fn configuration_toml(data: &[u8]) -> bool {
    let Ok(text) = core::str::from_utf8(data) else {
        return false;
    };
    let keys = KeyServiceConfiguration::parse(text).ok();
    let runtime = RuntimeConfiguration::parse(text).ok();
    assert!(
        keys.is_none() || runtime.is_none(),
        "one text configures both programs"
    );
    if let Some(keys) = &keys {
        stable(keys, |text| KeyServiceConfiguration::parse(text).ok());
        policy_keeps_its_word(&keys.runtimes);
    }
    if let Some(runtime) = &runtime {
        stable(runtime, |text| RuntimeConfiguration::parse(text).ok());
        policy_keeps_its_word(&runtime.key_service);
    }
    keys.is_some() || runtime.is_some()
}

/// A policy: no text but one that says `dev` and `allow_simulated` accepts the software TEE.
pub fn policy_toml(data: &[u8]) -> bool {
    let Ok(text) = core::str::from_utf8(data) else {
        return false;
    };
    let Ok(config) = toml::from_str::<PolicyConfig>(text) else {
        return false;
    };
    stable(&config, |text| toml::from_str(text).ok());
    policy_keeps_its_word(&config)
}

/// Digests, principals, measurements, names, versions, isolation: text and value are one to one,
/// up to the case of hexadecimal digits.
///
/// Accepts what any of them accepts.
pub fn identifiers(data: &[u8]) -> bool {
    let Ok(text) = core::str::from_utf8(data) else {
        return false;
    };
    let hexadecimal = [
        one_to_one::<Digest>(text, true),
        one_to_one::<Principal>(text, true),
        one_to_one::<Measurement>(text, true),
    ];
    let exact = [
        one_to_one::<PackageName>(text, false),
        one_to_one::<PackageVersion>(text, false),
        one_to_one::<Isolation>(text, false),
    ];
    if exact[0] || exact[1] {
        // Safe as a file name wherever it is written.
        assert!((1..=NAME_BYTES_MAX).contains(&text.len()) && !text.contains(".."));
        assert!(!text.contains(['/', '\\', '\0', '\n']) && !text.starts_with(['.', '-']));
    }
    hexadecimal.contains(&true) || exact.contains(&true)
}

/// Ranges of versions: as text and in a statement. What parses prints as it was but for spaces, and a
/// version that is in a range of versions with numbers is one with numbers.
pub fn version_range(data: &[u8]) -> bool {
    let decoded = wire::decode::<VersionRange>(data, 128).ok();
    if let Some(range) = &decoded {
        assert_eq!(wire::encode(range), data);
    }
    let Ok(text) = core::str::from_utf8(data) else {
        return decoded.is_some();
    };
    let Ok(range) = text.parse::<VersionRange>() else {
        return decoded.is_some();
    };
    let written = range.to_string();
    assert!(written.len() <= VERSION_RANGE_BYTES_MAX);
    assert_eq!(written.replace(' ', ""), text.replace(' ', ""));
    assert_eq!(written.parse().as_ref(), Ok(&range));
    assert_eq!(
        wire::decode(&wire::encode(&range), 128).as_ref(),
        Ok(&range)
    );
    let exact = written.strip_prefix('=');
    for version in ["1.2.3", "0.0.1", "1.0.0-rc.1", "2024-06-A", "", "01.0.0"] {
        let plain = matches!(version, "1.2.3" | "0.0.1");
        let may = exact.map_or(plain || written.contains('-'), |exact| exact == version);
        assert!(may || !range.matches(version), "{version} in {written}");
    }
    true
}

/// Selectors as people write them: packages, users, code.
pub fn selectors(data: &[u8]) -> bool {
    let Ok(text) = core::str::from_utf8(data) else {
        return false;
    };
    let spaced = text.parse::<PackageSelector>().is_ok_and(|selector| {
        let written = selector.to_string();
        assert!(
            written
                .replace(' ', "")
                .eq_ignore_ascii_case(&text.replace(' ', ""))
        );
        survives(&selector)
    });
    let user = one_to_one::<UserSelector>(text, true)
        && text.parse().is_ok_and(|user: UserSelector| survives(&user));
    let code = one_to_one::<CodeSelector>(text, true)
        && text.parse().is_ok_and(|code: CodeSelector| survives(&code));
    spaced || user || code
}

/// What was parsed can be signed, and says the same when it is read.
fn survives<T: PartialEq + Debug + Encode<()> + for<'b> Decode<'b, ()>>(value: &T) -> bool {
    let decoded = wire::decode::<T>(&wire::encode(value), 512);
    assert_eq!(decoded.as_ref(), Ok(value));
    true
}

fn one_to_one<T: FromStr + Display + PartialEq + Debug>(text: &str, any_case: bool) -> bool {
    let Ok(value) = text.parse::<T>() else {
        return false;
    };
    let written = value.to_string();
    assert_eq!(written.parse::<T>().ok(), Some(value));
    if any_case {
        assert!(
            written.eq_ignore_ascii_case(text),
            "{written} is not {text}"
        );
    } else {
        assert_eq!(written, text);
    }
    true
}

/// What was parsed, written, parsed and written again does not change any more.
fn stable<T: Serialize>(value: &T, parse: impl Fn(&str) -> Option<T>) {
    let written = toml::to_string(value).expect("what parses can be written");
    let again = parse(&written).expect("what was written parses");
    assert_eq!(toml::to_string(&again).ok().as_ref(), Some(&written));
}

fn policy_keeps_its_word(config: &PolicyConfig) -> bool {
    let asked = config.profile == Profile::Dev && config.allow_simulated;
    let _ = config.roots();
    let _ = config.clone().into_deferred_policy();
    let Ok(policy) = config.clone().into_policy() else {
        return false;
    };
    assert!(
        asked || !policy.allows_simulated(),
        "a policy accepts the software TEE unasked"
    );
    true
}

pub(crate) mod seeds {
    use super::*;

    pub(crate) fn policy_toml() -> Vec<Vec<u8>> {
        let code = cast::code();
        [
            format!("profile = \"strict\"\nmeasurements = [\"{code}\"]\n"),
            format!(
                "profile = \"cloud\"\nmeasurements = [\"{code}\"]\nplatforms = [\"00ff\"]\n\
                 evaluation_number_min = 17\nout_of_date_grace_days = 14\nallow_smt = false\n\
                 tcb_statuses = [\"UpToDate\"]\nblocked_advisories = [\"INTEL-SA-00615\"]\n"
            ),
            "profile = \"dev\"\nallow_simulated = true\n".to_owned(),
        ]
        .map(String::into_bytes)
        .into()
    }

    pub(crate) fn configuration_toml() -> Vec<Vec<u8>> {
        [
            "sessions_max = 8\n[runtimes]\nprofile = \"cloud\"\n".to_owned(),
            format!(
                "threads = 2\nconcurrency = 1\nqueue_max = 64\nmodels_mib_max = 4096\n\
                 [key_service]\nprofile = \"strict\"\nmeasurements = [\"{}\"]\n",
                cast::code()
            ),
        ]
        .map(String::into_bytes)
        .into()
    }

    pub(crate) fn identifiers() -> Vec<Vec<u8>> {
        [
            cast::digest("text").to_string(),
            cast::digest("text").to_string().to_uppercase(),
            cast::owner().principal().to_string(),
            cast::code().to_string(),
            format!("tdx:{}", "0a".repeat(48)),
            "magika-3.3".to_owned(),
            "2024-06-A".to_owned(),
            "dedicated".to_owned(),
        ]
        .map(String::into_bytes)
        .into()
    }

    pub(crate) fn version_range() -> Vec<Vec<u8>> {
        let texts = [
            "*",
            "=2024-06-A",
            "^1.2.3",
            "~1.2",
            "1.*",
            ">=1.2, <2",
            ">1.2.3-rc.1,<=2.0.0-a",
        ];
        let mut seeds: Vec<_> = texts.map(|text| text.as_bytes().to_vec()).into();
        seeds.extend([texts[0], texts[1], texts[5]].map(|text| wire::encode(&text.to_owned())));
        seeds
    }

    pub(crate) fn selectors() -> Vec<Vec<u8>> {
        let signer = "0d".repeat(48);
        [
            cast::digest("text").to_string(),
            "small@>=1.2, <2".to_owned(),
            "small@=1.2.0-RC1".to_owned(),
            cast::owner().principal().to_string(),
            "group:team".to_owned(),
            cast::code().to_string(),
            cast::signer().to_string(),
            format!("snp-signer:{signer},svn>=0"),
        ]
        .map(String::into_bytes)
        .into()
    }
}
