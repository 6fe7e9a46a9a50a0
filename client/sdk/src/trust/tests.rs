//! Trust files that are complete, and every way to write one that is not.

use super::*;

fn with(line: &str) -> String {
    format!(
        "gateway = \"http://127.0.0.1:8790/\"\nkey_service = \"127.0.0.1:8791\"\n{line}\n\
         code = [\"sgx:{code}\"]\n[service]\nprofile = \"cloud\"\nmeasurements = []\n",
        code = "ab".repeat(32)
    )
}

#[test]
fn a_complete_file_is_trusted_as_written() {
    let owner = format!("ed25519:{}", "01".repeat(32));
    let trust = Trust::parse(&with(&format!("owner = \"{owner}\""))).unwrap();
    assert_eq!(trust.gateway(), "http://127.0.0.1:8790");
    assert_eq!(trust.key_service(), "127.0.0.1:8791");
    assert_eq!(trust.owner().unwrap().to_string(), owner);
    assert_eq!(trust.code().len(), 1);
    assert!(!trust.allows_simulated());
}

#[test]
fn only_services_of_accepted_code_and_protection_count() {
    let code = format!("sgx:{}", "cd".repeat(32));
    let cloud = with("").replace("= []", &format!("= [\"{code}\"]"));
    let dev = cloud.replace("\"cloud\"", "\"dev\"\nallow_simulated = true");
    let known = |measurement: &str, simulated| KnownService {
        principal: Principal::from_bytes([1; 32]),
        measurement: measurement.to_owned(),
        simulated,
    };
    let other = format!("sgx:{}", "ce".repeat(32));
    let (cloud, dev) = (Trust::parse(&cloud).unwrap(), Trust::parse(&dev).unwrap());
    assert!(cloud.accepts(&known(&code, false)));
    assert!(!cloud.accepts(&known(&code, true)));
    assert!(!cloud.accepts(&known(&other, false)));
    assert!(dev.accepts(&known(&code, true)));
    assert!(!dev.accepts(&known(&other, true)));
    let pinned = with(&format!("principal = \"ed25519:{}\"", "01".repeat(32)));
    let pinned = pinned.replace("= []", &format!("= [\"{code}\"]"));
    assert!(Trust::parse(&pinned).unwrap().accepts(&known(&code, false)));
    let pinned = pinned.replace(&"01".repeat(32), &"02".repeat(32));
    assert!(!Trust::parse(&pinned).unwrap().accepts(&known(&code, false)));
}

#[test]
fn a_misspelt_key_is_refused() {
    let refused = Trust::parse(&with("ownr = \"x\"")).err().unwrap();
    assert!(refused.to_string().contains("ownr"), "{refused}");
}

#[test]
fn a_software_tee_outside_the_dev_profile_is_refused() {
    let text = with("").replace("measurements = []", "allow_simulated = true");
    assert!(matches!(Trust::parse(&text), Err(TrustError::Policy(_))));
}

#[test]
fn addresses_that_cannot_work_are_named() {
    let tls = with("").replace("http://", "https://");
    assert!(matches!(
        Trust::parse(&tls),
        Err(TrustError::Gateway { .. })
    ));
    let portless = with("").replace("\"127.0.0.1:8791\"", "\"127.0.0.1\"");
    assert!(matches!(
        Trust::parse(&portless),
        Err(TrustError::Address { .. })
    ));
    let nobody = with("owner = \"bob\"");
    assert!(matches!(
        Trust::parse(&nobody),
        Err(TrustError::Principal { key: "owner" })
    ));
}

#[test]
fn several_addresses_are_kept_in_their_order_and_bounded() {
    let several = |list: &str| with("").replace("\"127.0.0.1:8791\"", list);
    let trust = Trust::parse(&several("[\"a:1\", \"b:2\"]")).unwrap();
    assert_eq!(trust.key_services(), ["a:1", "b:2"]);
    assert_eq!(trust.key_service(), "a:1");
    for wrong in ["[]", "[\"a:1\", \"a:1\"]"] {
        let refused = Trust::parse(&several(wrong)).err().unwrap();
        assert!(
            matches!(refused, TrustError::Addresses { .. }),
            "{wrong}: {refused}"
        );
    }
    let many: Vec<_> = (0..=ADDRESSES_MAX).map(|n| format!("\"h:{n}\"")).collect();
    assert!(Trust::parse(&several(&format!("[{}]", many.join(",")))).is_err());
    let refused = Trust::parse(&several("[\"a:1\", \"b\"]")).err().unwrap();
    assert!(refused.to_string().contains("\"b\""), "{refused}");
}

#[test]
fn witnesses_that_could_not_be_counted_on_are_refused() {
    let secret = |byte| bield_envelope::Secret::from_bytes([byte; 32]);
    let key = |name: &str, byte| {
        let key = bield_tlog::WitnessKey::new(name.parse().unwrap(), &secret(byte));
        key.verifier().to_string()
    };
    let (a, b) = (key("a.example/w", 1), key("b.example/w", 2));
    let log = bield_tlog::LogKey::new("a.example/w".parse().unwrap(), &secret(1));
    let with = |keys: &str, needed: &str| {
        Trust::parse(&format!(
            "{}[witnesses]\nkeys = [{keys}]\nneeded = {needed}\n",
            with("")
        ))
    };
    let trust = with(&format!("\"{a}\", \"{b}\""), "2").unwrap();
    assert_eq!(trust.witnesses().unwrap().needed(), 2);
    let refused = |keys: &str, needed| with(keys, needed).err().unwrap().to_string();
    assert!(refused(&format!("\"{a}\""), "0").contains("none would count"));
    for (keys, needed) in [
        (format!("\"{a}\""), "2"),
        (format!("\"{a}\", \"{a}\""), "1"),
        (format!("\"{}\"", log.verifier()), "1"),
        ("\"w\"".to_owned(), "1"),
        (String::new(), "1"),
    ] {
        let sentence = refused(&keys, needed);
        assert!(sentence.contains("[witnesses]"), "{sentence}");
    }
    assert!(with(&format!("\"{a}\""), "-1").is_err());
}

#[test]
fn signers_of_code_are_read_and_measurements_do_not_pass_for_them() {
    let text = format!("sgx-signer:{},product=1,svn>=3", "ab".repeat(32));
    let trust = Trust::parse(&with(&format!("signers = [\"{text}\"]"))).unwrap();
    assert_eq!(trust.signers()[0].to_string(), text);
    assert!(trust.lists(&trust.signers()[0]));
    let code = CodeSelector::Measurement(trust.code()[0].clone());
    assert!(trust.lists(&code));
    let other = format!("sgx-signer:{},svn>=3", "ab".repeat(32));
    assert!(!trust.lists(&other.parse().unwrap()));
    for wrong in [
        format!("sgx:{}", "ab".repeat(32)),
        "sgx-signer:ab".to_owned(),
    ] {
        let refused = Trust::parse(&with(&format!("signers = [\"{wrong}\"]"))).err();
        assert!(
            matches!(refused, Some(TrustError::Signer { .. })),
            "{wrong}"
        );
    }
}

fn hardening(service: &str, runtimes: &str) -> Result<Trust, TrustError> {
    let asked = |list: &str| match list {
        "-" => String::new(),
        names => {
            let names = names.split_whitespace().map(|name| format!("{name:?}"));
            format!("hardening = [{}]\n", names.collect::<Vec<_>>().join(", "))
        }
    };
    let mut text = with("") + &asked(service);
    if runtimes != "-" {
        text = format!("{text}[runtimes]\n{}", asked(runtimes));
    }
    Trust::parse(&text)
}

#[test]
fn one_list_counts_for_the_key_service_and_for_runtimes() {
    let trust = hardening("no-core-file listed-system-calls", "-").unwrap();
    let both = [Protection::NoCoreFile, Protection::ListedSystemCalls];
    assert_eq!(*trust.runtime_hardening(), HardeningDemand::exactly(both));
    assert_eq!(trust.runtime_hardening(), trust.policy().hardening());
    let usual = hardening("-", "-").unwrap();
    assert_eq!(usual.runtime_hardening(), usual.policy().hardening());
}

#[test]
fn runtimes_are_asked_for_what_their_own_list_says() {
    let trust = hardening("locked-memory", "locked-regions").unwrap();
    let demand = |one| HardeningDemand::exactly([one]);
    assert_eq!(
        *trust.policy().hardening(),
        demand(Protection::LockedMemory)
    );
    assert_eq!(
        *trust.runtime_hardening(),
        demand(Protection::LockedRegions)
    );
    // Each counts alone.
    let trust = hardening("-", "").unwrap();
    assert_eq!(*trust.runtime_hardening(), HardeningDemand::exactly([]));
    assert_ne!(trust.policy().hardening(), trust.runtime_hardening());
}

#[test]
fn a_protection_that_a_program_never_states_is_not_asked_of_it() {
    for (service, runtimes, said) in [
        (
            "locked-regions",
            "locked-regions",
            "the trust file's [service]: `hardening` asks for locked-regions, which a key service never states; \
             runtimes do: ask for it in [runtimes]",
        ),
        (
            "locked-memory",
            "locked-memory",
            "the trust file's [runtimes]: `hardening` asks for locked-memory, which runtimes never state; a key \
             service does: ask for it in [service]",
        ),
        (
            "locked-memory",
            "-",
            "the trust file's [service]: `hardening` asks for locked-memory, which runtimes never state, and \
             without a list of their own they are asked for it as well: add [runtimes] with `hardening`",
        ),
    ] {
        let refused = hardening(service, runtimes).err().unwrap();
        assert_eq!(refused.to_string(), said);
    }
}
