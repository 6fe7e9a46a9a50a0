//! Changes fold into a configuration, or contradict it and are refused.

use bield_envelope::{Secret, Seeded, Time};

use super::*;
use crate::{CODE_BYTES_MAX, WriterKey};

/// Two witnesses of one name, as C2SP writes them.
const WITNESS: &str = "w+ae4f3a9a+BNuZX+JRadFByrm7upK6oB+fLh7OffTLKsBRkPN/zB+d";
const OTHER_WITNESS: &str = "w+2a8bd9ee+BCFS+NGbeR0kRTJC4V8uq2y3z/p7al7TAJeWDgaYgdsS";

fn config() -> Config {
    let key = WriterKey::generate(Suite::Ed25519, &mut Seeded::new(1));
    let metadata = Metadata::new(
        key.public(),
        None,
        Time::from_millis(1),
        &mut Seeded::new(2),
    );
    Config::new(&metadata.unwrap())
}

fn after(config: &Config, changes: &[Change]) -> Result<Config, ConfigError> {
    config.after(Digest::from_bytes([1; 32]), changes)
}

fn principal(byte: u8) -> Principal {
    Principal::from_bytes([byte; 32])
}

fn writer(byte: u8) -> WriterId {
    WriterId::from_bytes([byte; 32])
}

fn generation(number: u32) -> Change {
    Change::Generation {
        number,
        commitment: Digest::from_bytes([number as u8; 32]),
    }
}

fn replica(byte: u8) -> Change {
    Change::Replica {
        principal: principal(byte),
        address: format!("http://replica-{byte}"),
    }
}

fn revoke(byte: u8, last: Option<u64>) -> Change {
    let hash = Digest::from_bytes([byte; 32]);
    Change::Revoke {
        writer: writer(byte),
        last: last.map(|seq| Last { seq, hash }),
    }
}

fn uncertify(byte: u8, keep: &[u8]) -> Change {
    Change::Uncertify {
        principal: principal(byte),
        keep: keep.iter().copied().map(writer).collect(),
    }
}

fn codes(codes: &[&[u8]]) -> Change {
    Change::Codes {
        principal: principal(1),
        codes: codes.iter().map(|code| code.to_vec()).collect(),
    }
}

fn witness(key: &str) -> Change {
    Change::Witness(key.into())
}

/// A key of this name, as C2SP writes it; nobody holds the private half.
fn verifier_key(name: &str, key: u8) -> String {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let key = [&[4; 1], &[key; 32][..]].concat();
    let text = [name.as_bytes(), b"\n", &key].concat();
    let id = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &text);
    let id = hex::encode(&id.as_ref()[..4]);
    format!("{name}+{id}+{}", STANDARD.encode(key))
}

#[test]
fn changes_fold_in_order() {
    let first = after(&config(), &[Change::Certify(principal(1)), generation(1)]).unwrap();
    let second = after(
        &first,
        &[
            replica(1),
            replica(2),
            replica(3),
            Change::Quorum {
                replicas: 2,
                witnesses: 1,
            },
            witness(WITNESS),
            Change::Quota(9),
        ],
    )
    .unwrap();
    let third = after(
        &second,
        &[
            generation(2),
            Change::Erase(1),
            Change::Unreplica(principal(3)),
            Change::Unwitness("w".into()),
        ],
    )
    .unwrap();
    assert_eq!(third.head().unwrap().seq, 2);
    assert_eq!(
        [0, 1, 2, 9].map(|config| third.generation_at(config)),
        [1, 1, 2, 2]
    );
    assert_eq!(third.commitment(2), Some(Digest::from_bytes([2; 32])));
    assert_eq!(third.commitment(0).or(third.commitment(3)), None);
    assert!(third.erased(1) && !third.erased(2));
    assert_eq!((second.answers(), third.answers()), (Some(2), Some(1)));
    assert_eq!((second.witnesses().len(), third.witnesses().len()), (1, 0));
    assert_eq!(third.replicas().len(), 2);
    assert_eq!(third.quota(), Some(9));
    assert_eq!(config().quorum(), Quorum::default());
    assert_eq!(config().answers(), None, "one of no replicas");
    let more = Change::Quorum {
        replicas: 3,
        witnesses: 0,
    };
    assert_eq!(after(&third, &[more]).unwrap().answers(), None);
}

#[test]
fn contradictions_and_broken_rules_are_refused_where_they_stand() {
    let key = WriterKey::from_seed(Suite::Ed25519, Secret::from_bytes([9; 32])).unwrap();
    let admit = Change::admit(key.public());
    let start = after(
        &config(),
        &[
            Change::Certify(principal(1)),
            Change::Certify(principal(2)),
            uncertify(2, &[]),
            generation(1),
            replica(1),
            admit.clone(),
            witness(WITNESS),
            revoke(7, Some(5)),
        ],
    )
    .unwrap();
    let owner = start.owner;
    let owners = WriterKey::generate(Suite::Ed25519, &mut Seeded::new(1));
    let contradictions = [
        Change::Certify(principal(1)),
        Change::Certify(principal(2)), // uncertified before: never again
        uncertify(3, &[]),
        uncertify(2, &[]),
        generation(1),
        generation(3),
        Change::Erase(0),
        Change::Erase(2),
        replica(1),
        Change::Unreplica(principal(2)),
        witness(OTHER_WITNESS),
        Change::Unwitness("v".into()),
        admit,
        Change::admit(owners.public()),
        revoke(7, Some(5)),
        revoke(7, Some(6)), // revocations only ever take more
        Change::Revoke {
            writer: owner,
            last: None,
        },
        Change::Codes {
            principal: principal(2),
            codes: vec![vec![1]],
        },
    ];
    for change in contradictions {
        let refused = after(&start, &[Change::Quota(1), change.clone()]);
        assert!(
            matches!(refused, Err(ConfigError::Contradiction { index: 1, .. })),
            "{change:?}: {refused:?}"
        );
    }
    let broken = [
        uncertify(1, &[2, 1]),
        uncertify(1, &[1, 1]),
        Change::Admit(vec![1; 31]),
        Change::Quorum {
            replicas: 0,
            witnesses: 0,
        },
        Change::Replica {
            principal: principal(4),
            address: "a".repeat(TEXT_BYTES_MAX + 1),
        },
        codes(&[]),
        codes(&[&[2], &[1]]),
        codes(&[&[1], &[1]]),
        codes(&[&[0; CODE_BYTES_MAX + 1]]),
        witness("w"),
        witness(&WITNESS[1..]),
        witness(&WITNESS.replace("ae4f", "ae4")),
        witness(&WITNESS.replace("ae4f", "AE4F")),
        witness(&WITNESS.replace("ae4f", "ae40")),
        witness(WITNESS.trim_end_matches('d')),
        witness(&format!("{WITNESS}AA==")),
        witness(&WITNESS.replace("w+", "w w+")),
    ];
    for change in broken {
        let refused = after(&start, std::slice::from_ref(&change));
        assert!(
            matches!(refused, Err(ConfigError::Rule { index: 0, .. })),
            "{change:?}: {refused:?}"
        );
    }
    let agreeing = [
        revoke(7, Some(4)),
        revoke(7, None),
        revoke(8, Some(u64::MAX)),
        uncertify(1, &[1, 2]),
        codes(&[&[1], &[2]]),
        Change::Erase(1),
    ];
    for change in agreeing {
        assert!(
            after(&start, std::slice::from_ref(&change)).is_ok(),
            "{change:?}"
        );
    }
}

#[test]
fn a_revoked_writer_is_not_admitted_afterwards() {
    let key = WriterKey::from_seed(Suite::Ed25519, Secret::from_bytes([9; 32])).unwrap();
    let (last, writer) = (None, key.id());
    let refused = after(
        &config(),
        &[Change::Revoke { writer, last }, Change::admit(key.public())],
    );
    assert!(matches!(
        refused,
        Err(ConfigError::Contradiction { index: 1, .. })
    ));
}

#[test]
fn a_full_table_refuses_and_stays_as_it_was() {
    let many = |max: usize, change: fn(u8) -> Change| {
        let full: Vec<Change> = (0..max as u8).map(change).collect();
        let full = after(&config(), &full).unwrap();
        let refused = after(&full, &[change(max as u8)]);
        assert!(
            matches!(refused, Err(ConfigError::Full { .. })),
            "{refused:?}"
        );
    };
    many(REPLICAS_MAX, replica);
    many(CERTIFIERS_MAX, |byte| Change::Certify(principal(byte)));
    many(WITNESSES_MAX, |byte| {
        witness(&verifier_key(&format!("w{byte}"), byte))
    });
}

#[test]
fn one_witness_does_not_count_twice_under_two_names() {
    let first = after(&config(), &[witness(&verifier_key("a", 1))]).unwrap();
    let refused = after(&first, &[witness(&verifier_key("b", 1))]);
    assert!(matches!(refused, Err(ConfigError::Contradiction { .. })));
    assert!(after(&first, &[witness(&verifier_key("b", 2))]).is_ok());
    let again = [
        Change::Unwitness("a".into()),
        witness(&verifier_key("b", 1)),
    ];
    assert!(after(&first, &again).is_ok());
}

#[test]
fn copies_keep_what_they_were_made_with() {
    let mut config = config();
    let digest = |n: u64| Digest::of("test", &[&n.to_be_bytes()]);
    let mut copies = Vec::new();
    for n in 0..1200 {
        config = config.after(digest(n), &[Change::Quota(n)]).unwrap();
        copies.push(config.clone());
    }
    for (n, copy) in (0u64..).zip(&copies) {
        assert_eq!(copy.head().map(|head| head.hash), Some(digest(n)));
        assert_eq!(copy.hash_at(n / 2), Some(digest(n / 2)));
        assert_eq!((copy.hash_at(n + 1), copy.quota()), (None, Some(n)));
    }
}

#[test]
fn what_a_config_record_began_holds_from_its_own_seq() {
    let first = after(&config(), &[Change::Quota(1)]).unwrap();
    let second = after(&first, &[generation(1), generation(2)]).unwrap();
    assert_eq!([0, 1].map(|config| second.generation_at(config)), [0, 2]);
    assert_eq!(second.hash_at(1), Some(Digest::from_bytes([1; 32])));
    assert_eq!(second.hash_at(2), None);
}
