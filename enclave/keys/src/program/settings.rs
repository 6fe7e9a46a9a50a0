//! The measured configuration, checked once.
//!
//! In: the text that was measured. Out: [`Settings`], in which nothing needs checking again, or one sentence
//! that says what must be changed. Always true: what would only show at the first runtime, the first witness
//! or the first election is refused here; unknown keys are refused by the parser.

use bield_envelope::Principal;
use bield_evidence::{Measurement, PolicyConfig};
use bield_protocol::configuration::{KeyServiceConfiguration, RecoveryConfiguration};
use bield_protocol::service::HOLDERS_MAX;
use bield_tlog::{Quorum, WitnessVerifier};

use crate::state::{Limits, RecoveryLimits};

/// Whom a member takes for another one.
#[derive(Clone)]
pub(crate) struct Peers {
    /// What its evidence must satisfy; its code is compared apart, so no measurements are in it.
    pub(crate) policy: PolicyConfig,
    /// Other code beside which this code serves, and from which it takes the state.
    pub(crate) codes: Vec<Measurement>,
    /// Its machine, by slot; empty when any machine will do, since witnesses tell groups apart.
    pub(crate) platforms: Vec<Vec<u8>>,
}

/// What the configuration says.
pub(crate) struct Settings {
    pub(crate) runtimes: PolicyConfig,
    pub(crate) peers: Option<Peers>,
    pub(crate) sessions_max: usize,
    pub(crate) orders_per_minute: u32,
    pub(crate) limits: Limits,
    pub(crate) members: u8,
    pub(crate) witnesses: Vec<WitnessVerifier>,
    pub(crate) needed: usize,
}

impl Settings {
    /// Reads and checks a configuration.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub(crate) fn read(configuration: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(configuration)
            .map_err(|_| "the configuration is not UTF-8 text".to_owned())?;
        let parsed = KeyServiceConfiguration::parse(text).map_err(|error| error.to_string())?;
        holds("runtimes", &parsed.runtimes)?;
        let peers = parsed.peers.map(peers).transpose()?;
        range("lease_secs", parsed.lease_secs.into(), 10, 600)?;
        range("sessions_max", parsed.sessions_max as u64, 1, SESSIONS_MAX)?;
        range(
            "orders_per_minute",
            parsed.orders_per_minute.into(),
            1,
            u64::from(u32::MAX),
        )?;
        if ![1, 3, 5].contains(&parsed.members) {
            return Err(format!(
                "members is {}; a group has 1, 3 or 5 (an even one survives no more than the odd one below it)",
                parsed.members
            ));
        }
        if parsed.members > 1 && peers.is_none() {
            return Err(format!(
                "members is {} and [peers] is missing; say what the evidence of the others must satisfy",
                parsed.members
            ));
        }
        if parsed.members == 1 && peers.as_ref().is_some_and(|(_, codes)| !codes.is_empty()) {
            return Err(
                "members is 1 and [peers] lists measurements: nobody joins a single instance; other code takes its \
                 place by recovery shares"
                    .to_owned(),
            );
        }
        let administrators =
            principals("administrator", &parsed.administrators, ADMINISTRATORS_MAX)?;
        let recovery = parsed.recovery.as_ref().map(recovery).transpose()?;
        let (witnesses, needed) = witnesses(&parsed.witnesses.keys, parsed.witnesses.needed)?;
        let platforms = platforms(&parsed.member_platforms, parsed.members)?;
        if parsed.members > 1 && platforms.is_empty() && needed == 0 {
            return Err(format!(
                "members is {}, and neither member_platforms nor witnesses are given: one host could run a \
                 whole group by itself; name the platform of each member, or witnesses of which at least one \
                 is needed",
                parsed.members
            ));
        }
        Ok(Self {
            runtimes: parsed.runtimes,
            peers: peers.map(|(policy, codes)| Peers {
                policy,
                codes,
                platforms,
            }),
            sessions_max: parsed.sessions_max,
            orders_per_minute: parsed.orders_per_minute,
            limits: Limits {
                lease_secs: parsed.lease_secs,
                administrators,
                recovery,
                admits_code: parsed.admits_code,
            },
            members: parsed.members,
            witnesses,
            needed,
        })
    }
}

/// Whether a policy can accept anything at all.
fn holds(name: &str, policy: &PolicyConfig) -> Result<(), String> {
    let refuse = |error: &dyn core::fmt::Display| format!("[{name}]: {error}");
    let deferred = policy.clone().into_deferred_policy();
    deferred.map_err(|error| refuse(&error))?;
    policy.roots().map_err(|error| refuse(&error))?;
    Ok(())
}

/// Takes the measurements out of the policy for members: they are compared with more than that list.
fn peers(mut policy: PolicyConfig) -> Result<(PolicyConfig, Vec<Measurement>), String> {
    let texts = std::mem::take(&mut policy.measurements);
    holds("peers", &policy)?;
    if texts.len() > CODES_MAX {
        return Err(format!(
            "[peers] lists {} measurements; at most {CODES_MAX} are taken",
            texts.len()
        ));
    }
    let mut codes = Vec::with_capacity(texts.len());
    for (number, text) in (1..).zip(&texts) {
        let code = text.parse();
        let code =
            code.map_err(|error| format!("measurement {number} of [peers] is not one: {error}"))?;
        if codes.contains(&code) {
            return Err(format!("measurement {number} of [peers] is there twice"));
        }
        codes.push(code);
    }
    Ok((policy, codes))
}

fn range(name: &str, value: u64, min: u64, max: u64) -> Result<(), String> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    Err(format!("{name} is {value}; it must be {min} to {max}"))
}

fn principals(what: &str, texts: &[String], max: usize) -> Result<Vec<Principal>, String> {
    if texts.len() > max {
        return Err(format!(
            "there are {} {what}s; at most {max} are taken",
            texts.len()
        ));
    }
    let mut principals = Vec::with_capacity(texts.len());
    for (number, text) in (1..).zip(texts) {
        let principal = text
            .parse()
            .map_err(|error| format!("{what} {number} of the configuration is not one: {error}"))?;
        if principals.contains(&principal) {
            return Err(format!(
                "{what} {number} of the configuration is there twice"
            ));
        }
        principals.push(principal);
    }
    Ok(principals)
}

/// Whether anybody can recover, and nobody alone where there are several.
fn recovery(parsed: &RecoveryConfiguration) -> Result<RecoveryLimits, String> {
    let holders = principals("holder", &parsed.holders, HOLDERS_MAX)?;
    if holders.is_empty() {
        return Err("[recovery] names no holders; name some or leave it out".to_owned());
    }
    let least = if holders.len() == 1 { 1 } else { 2 };
    range(
        "threshold_min of [recovery]",
        parsed.threshold_min.into(),
        least,
        holders.len() as u64,
    )?;
    Ok(RecoveryLimits {
        holders,
        threshold_min: parsed.threshold_min,
    })
}

fn platforms(texts: &[String], members: u8) -> Result<Vec<Vec<u8>>, String> {
    if texts.is_empty() {
        return Ok(Vec::new());
    }
    if members == 1 || texts.len() != usize::from(members) {
        return Err(format!(
            "member_platforms names {} platforms and members is {members}; a group of several names one for \
             each, in the order of their slots",
            texts.len()
        ));
    }
    let mut platforms = Vec::with_capacity(texts.len());
    for (slot, text) in texts.iter().enumerate() {
        let platform = hex::decode(text).ok();
        let platform = platform.filter(|bytes| (1..=PLATFORM_BYTES_MAX).contains(&bytes.len()));
        let platform = platform.ok_or_else(|| {
            format!("member_platforms[{slot}] is not a platform identity in hexadecimal")
        })?;
        if platforms.contains(&platform) {
            return Err(format!(
                "member_platforms[{slot}] is there twice: members on one machine fail and lie together"
            ));
        }
        platforms.push(platform);
    }
    Ok(platforms)
}

fn witnesses(texts: &[String], needed: u8) -> Result<(Vec<WitnessVerifier>, usize), String> {
    if texts.len() > WITNESSES_MAX {
        return Err(format!(
            "there are {} witnesses; at most {WITNESSES_MAX} are taken",
            texts.len()
        ));
    }
    let mut keys = Vec::with_capacity(texts.len());
    for (number, text) in (1..).zip(texts) {
        let key = text.parse().map_err(|error| {
            format!("witness {number} of the configuration is not one: {error}")
        })?;
        keys.push(key);
    }
    let needed = usize::from(needed);
    Quorum::new(keys.clone(), needed).map_err(|error| error.to_string())?;
    if 2 * needed <= keys.len() && !keys.is_empty() {
        // With half of them, one copy of the service could go on with one half and another with the other.
        return Err(format!(
            "{needed} of {} witnesses would let two copies of the service go on; need {} or more",
            keys.len(),
            keys.len() / 2 + 1
        ));
    }
    Ok((keys, needed))
}

/// The most sessions: each has a thread and two file descriptors.
const SESSIONS_MAX: u64 = 16_384;
/// The most administrators.
const ADMINISTRATORS_MAX: usize = 64;
/// The most other codes beside which one serves: an upgrade has one before it, now and then two.
const CODES_MAX: usize = 16;
/// The longest platform identity: an SNP chip's.
const PLATFORM_BYTES_MAX: usize = 64;
/// The most witnesses.
const WITNESSES_MAX: usize = 15;

#[cfg(test)]
mod tests {
    use super::*;

    const RUNTIMES: &str = "[runtimes]\nprofile = \"cloud\"\n";

    fn refusal(head: &str, tail: &str) -> String {
        match Settings::read(format!("{head}\n{RUNTIMES}\n{tail}").as_bytes()) {
            Ok(_) => panic!("accepted: {head} {tail}"),
            Err(sentence) => sentence,
        }
    }

    fn witness(number: u8) -> String {
        let name = format!("w{number}").parse().unwrap();
        bield_tlog::WitnessKey::new(name, &bield_envelope::Secret::from_bytes([number; 32]))
            .verifier()
            .to_string()
    }

    #[test]
    fn a_short_configuration_has_sensible_values() {
        let settings = Settings::read(RUNTIMES.as_bytes()).unwrap();
        assert_eq!((settings.sessions_max, settings.members), (4096, 1));
        assert_eq!((settings.limits.lease_secs, settings.needed), (600, 0));
    }

    #[test]
    fn numbers_out_of_range_are_refused_by_name() {
        for (head, name) in [
            ("lease_secs = 9", "lease_secs"),
            ("lease_secs = 601", "lease_secs"),
            ("sessions_max = 0", "sessions_max"),
            ("sessions_max = 100000", "sessions_max"),
            ("orders_per_minute = 0", "orders_per_minute"),
            ("members = 0", "members"),
            ("members = 2", "members"),
            ("members = 4", "members"),
            ("members = 7", "members"),
        ] {
            let sentence = refusal(head, "");
            assert!(sentence.contains(name), "{head}: {sentence}");
        }
    }

    #[test]
    fn several_members_need_a_policy_for_each_other() {
        assert!(refusal("members = 3", "").contains("[peers]"));
        let peers = RUNTIMES.replace("[runtimes]", "[peers]");
        let platforms = "member_platforms = [\"aa\", \"ab\", \"ac\"]";
        let both = format!("members = 3\n{platforms}\n{RUNTIMES}\n{peers}");
        assert_eq!(Settings::read(both.as_bytes()).unwrap().members, 3);
    }

    #[test]
    fn code_beside_which_members_serve_is_listed_once_and_only_for_several() {
        let code = |number: u8| format!("\"sgx:{}\"", hex::encode([number; 32]));
        let head = "members = 3\nmember_platforms = [\"aa\", \"ab\", \"ac\"]";
        let peers = |codes: &str| format!("[peers]\nprofile = \"cloud\"\nmeasurements = [{codes}]");
        let read = |codes: &str| {
            let text = format!("{head}\n{RUNTIMES}\n{}", peers(codes));
            Settings::read(text.as_bytes()).unwrap().peers.unwrap()
        };
        let both = read(&format!("{}, {}", code(1), code(2)));
        assert_eq!((both.codes.len(), both.policy.measurements.len()), (2, 0));
        assert!(read("").codes.is_empty());

        let many: Vec<_> = (0..17).map(code).collect();
        for (codes, sentence) in [
            (
                format!("{}, {}", code(1), code(1)),
                "measurement 2 of [peers]",
            ),
            ("\"sgx:00\"".to_owned(), "measurement 1 of [peers]"),
            (many.join(","), "17 measurements"),
        ] {
            let refused = refusal(head, &peers(&codes));
            assert!(refused.contains(sentence), "{refused}");
        }
        assert!(refusal("", &peers(&code(1))).contains("members is 1"));
        // Runtimes' code is what owners grant to, and nothing else.
        let runtimes = format!(
            "[runtimes]\nprofile = \"cloud\"\nmeasurements = [{}]",
            code(1)
        );
        assert!(Settings::read(runtimes.as_bytes()).is_err());
    }

    #[test]
    fn several_members_need_their_machines_named_or_witnesses() {
        let peers = RUNTIMES.replace("[runtimes]", "[peers]");
        let sentence = refusal("members = 3", &peers);
        assert!(sentence.contains("member_platforms") && sentence.contains("witnesses"));
        let witnessed = format!(
            "{peers}\n[witnesses]\nkeys = [\"{}\"]\nneeded = 1",
            witness(1)
        );
        let text = format!("members = 3\n{RUNTIMES}\n{witnessed}");
        let settings = Settings::read(text.as_bytes()).unwrap();
        assert!(settings.peers.unwrap().platforms.is_empty());
        for (members, platforms, sentence) in [
            (3, "[\"aa\", \"ab\"]", "names 2 platforms"),
            (3, "[\"aa\", \"ab\", \"AA\"]", "twice"),
            (3, "[\"aa\", \"ab\", \"x\"]", "member_platforms[2]"),
            (3, "[\"aa\", \"ab\", \"\"]", "member_platforms[2]"),
            (1, "[\"aa\"]", "members is 1"),
        ] {
            let head = format!("members = {members}\nmember_platforms = {platforms}");
            // Also beside witnesses: what is said is meant.
            for tail in [&peers, &witnessed] {
                let refused = refusal(&head, tail);
                assert!(refused.contains(sentence), "{head}: {refused}");
            }
        }
    }

    #[test]
    fn administrators_are_principals_each_once() {
        let one = Principal::from_bytes([1; 32]);
        assert!(refusal("administrators = [\"root\"]", "").contains("administrator 1"));
        let twice = format!("administrators = [\"{one}\", \"{one}\"]");
        assert!(refusal(&twice, "").contains("twice"));
        let many: Vec<_> = (0..65)
            .map(|n| format!("\"{}\"", Principal::from_bytes([n; 32])))
            .collect();
        assert!(refusal(&format!("administrators = [{}]", many.join(",")), "").contains("65"));
    }

    #[test]
    fn several_holders_never_recover_alone() {
        let table = |count: u8, more: &str| {
            let holders: Vec<_> = (0..count)
                .map(|n| format!("\"{}\"", Principal::from_bytes([n; 32])))
                .collect();
            format!("[recovery]\nholders = [{}]\n{more}", holders.join(","))
        };
        for (count, more) in [(1, ""), (2, "threshold_min = 1"), (3, "threshold_min = 4")] {
            let sentence = refusal("", &table(count, more));
            assert!(sentence.contains("threshold_min"), "{sentence}");
        }
        assert!(refusal("", &table(0, "")).contains("no holders"));
        assert!(refusal("", &table(17, "")).contains("17 holders"));
        for (count, more, min) in [
            (1, "threshold_min = 1", 1),
            (3, "", 2),
            (3, "threshold_min = 3", 3),
        ] {
            let text = format!("admits_code = true\n{RUNTIMES}\n{}", table(count, more));
            let limits = Settings::read(text.as_bytes()).unwrap().limits;
            let recovery = limits.recovery.unwrap();
            assert_eq!(
                (recovery.holders.len(), recovery.threshold_min),
                (count.into(), min)
            );
            assert!(limits.admits_code);
        }
        let none = Settings::read(RUNTIMES.as_bytes()).unwrap().limits;
        assert!(none.recovery.is_none() && !none.admits_code);
    }

    #[test]
    fn witnesses_must_outvote_a_split() {
        let keys = |count: u8| -> String {
            let keys: Vec<_> = (1..=count).map(|n| format!("\"{}\"", witness(n))).collect();
            keys.join(",")
        };
        let table =
            |count, needed| format!("[witnesses]\nkeys = [{}]\nneeded = {needed}", keys(count));
        assert!(refusal("", &table(3, 1)).contains("two copies"));
        assert!(refusal("", &table(2, 1)).contains("two copies"));
        assert!(refusal("", &table(1, 0)).contains("two copies"));
        assert!(refusal("", &table(0, 1)).contains("1 of 0"));
        assert!(refusal("", &table(2, 3)).contains("3 of 2"));
        assert!(refusal("", "[witnesses]\nkeys = [\"x\"]\nneeded = 1").contains("witness 1"));
        let one = witness(1);
        let twice = format!("[witnesses]\nkeys = [\"{one}\", \"{one}\"]\nneeded = 2");
        assert!(refusal("", &twice).contains("twice"));
        for (count, needed) in [(1, 1), (2, 2), (3, 2), (5, 3)] {
            let text = format!("{RUNTIMES}\n{}", table(count, needed));
            assert_eq!(Settings::read(text.as_bytes()).unwrap().needed, needed);
        }
    }

    #[test]
    fn unknown_words_and_bytes_are_refused() {
        assert!(refusal("witneses = 3", "").contains("witneses"));
        assert!(Settings::read(&[0xff]).is_err());
        assert!(Settings::read(b"").is_err());
    }
}
