//! Checkpoints: the examples of the specification, other spellings, other logs.

use bield_envelope::Secret;
use proptest::prelude::*;

use super::*;
use crate::text::base64;

/// tlog-checkpoint, first page.
const SOFA: &str = "example.com/behind-the-sofa\n20852163\n\
                    CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n";
const SOFA_LINE: &str = "— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJur\
                         mRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n";

fn key(number: u8) -> LogKey {
    let name = format!("example.com/log{number}").parse().unwrap();
    LogKey::new(name, &Secret::from_bytes([number; 32]))
}

fn signed(number: u8) -> String {
    let key = key(number);
    let origin = Origin::from(key.verifier().name());
    Checkpoint::new(origin, 5, Hash::from_bytes([number; 32]))
        .sign(&key)
        .to_string()
}

#[test]
fn the_example_of_the_specification_is_read() {
    let signed = SignedCheckpoint::parse(format!("{SOFA}\n{SOFA_LINE}").as_bytes()).unwrap();
    let checkpoint = signed.claimed();
    assert_eq!(checkpoint.origin().as_str(), "example.com/behind-the-sofa");
    assert_eq!(checkpoint.size(), 20_852_163);
    assert_eq!(checkpoint.to_string(), SOFA);
    assert_eq!(signed.note().signatures()[0].id().to_string(), "033de0ae");
    assert_eq!(signed.to_string(), format!("{SOFA}\n{SOFA_LINE}"));
}

#[test]
fn a_text_that_is_not_three_good_lines_is_refused() {
    let root = Hash::EMPTY_ROOT;
    for text in [
        String::new(),
        "\n".into(),
        "log\n".into(),
        "log\n1\n".into(),
        format!("log\n1\n{root}"),
        format!("\n1\n{root}\n"),
        format!("log\n\n{root}\n"),
        format!("log\n01\n{root}\n"),
        format!("log\n+1\n{root}\n"),
        format!("log\n-1\n{root}\n"),
        format!("log\n 1\n{root}\n"),
        format!("log\n1 \n{root}\n"),
        format!("log\n00\n{root}\n"),
        format!("log\n18446744073709551616\n{root}\n"),
        "log\n1\n\n".into(),
        format!("log\n1\n{}\n", base64([0; 31])),
        format!("log\n1\n{}\n", base64([0; 33])),
        format!("log\n1\n {root}\n"),
        format!("log\n1\n{}\n", root.to_string().trim_end_matches('=')),
        format!("log\n1\n{root}\n\n"),
        format!("log\n1\n{root}\n\next\n"),
        format!("log\r\n1\n{root}\n"),
        format!("{}\n1\n{root}\n", "l".repeat(ORIGIN_BYTES_MAX + 1)),
    ] {
        assert!(Checkpoint::parse(&text).is_err(), "{text:?}");
    }
    let text = format!("a log + spaces\n18446744073709551615\n{root}\none\ntwo\n");
    let checkpoint = Checkpoint::parse(&text).unwrap();
    assert_eq!(checkpoint.extensions(), ["one", "two"]);
    assert_eq!(checkpoint.size(), u64::MAX);
    assert_eq!(checkpoint.to_string(), text);
}

#[test]
fn a_checkpoint_with_one_bit_changed_is_refused() {
    let (origin, keys) = (
        "example.com/log1".parse().unwrap(),
        [key(1).verifier().clone()],
    );
    let good = signed(1).into_bytes();
    let verify = |bytes: &[u8]| {
        SignedCheckpoint::parse(bytes).and_then(|signed| signed.verify(&origin, &keys))
    };
    assert!(verify(&good).is_ok());
    for bit in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(verify(&bad).is_err(), "bit {bit}");
    }
}

#[test]
fn another_logs_checkpoint_is_refused_even_under_a_trusted_key() {
    let keys = [key(1).verifier().clone(), key(2).verifier().clone()];
    let origin: Origin = "example.com/log1".parse().unwrap();
    let other = SignedCheckpoint::parse(signed(2).as_bytes()).unwrap();
    assert!(matches!(
        other.clone().verify(&origin, &keys),
        Err(CheckpointError::OtherLog { .. })
    ));
    assert_eq!(
        other.verify(&"example.com/log2".parse().unwrap(), &keys[..1]),
        Err(CheckpointError::Note(NoteError::Unsigned))
    );
}

#[test]
fn an_origin_has_an_address_at_a_witness() {
    let origin: Origin = "abc".parse().unwrap();
    assert_eq!(
        origin.path_segment(),
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    );
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic_or_has_two_readings(
        text in "([a-z ]{0,3}\n|[0-9]{1,21}\n|[A-Za-z0-9+/]{43}=\n|.{0,5}\n){0,6}",
    ) {
        if let Ok(checkpoint) = Checkpoint::parse(&text) {
            prop_assert_eq!(checkpoint.to_string(), text);
        }
    }

    #[test]
    fn no_bytes_make_the_parser_panic(bytes: Vec<u8>) {
        let _ = SignedCheckpoint::parse(&bytes);
    }
}
