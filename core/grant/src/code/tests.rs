//! What may name a signer, and what a signer may name.

use bield_envelope::wire;
use minicbor::Encoder;

use super::*;
use crate::cast::{code, measured, signed_by};

#[test]
fn a_signer_is_named_only_where_hardware_checks_one() {
    let new = |kind, length: usize, product| CodeSigner::new(kind, &vec![1; length], product, 0);
    assert!(new(TeeKind::Sgx, 32, Some(7)).is_ok());
    assert!(new(TeeKind::Snp, 48, None).is_ok());
    for (kind, length, product) in [
        (TeeKind::Sgx, 48, None),
        (TeeKind::Sgx, 0, None),
        (TeeKind::Snp, 32, None),
        (TeeKind::Snp, 48, Some(7)),
        (TeeKind::Tdx, 48, None),
    ] {
        assert_eq!(new(kind, length, product), Err(InvalidSigner));
    }
    let nobody = CodeSigner::new(TeeKind::Sgx, &[0; 32], None, 0);
    assert_eq!(
        nobody,
        Err(InvalidSigner),
        "an unsigned enclave is nobody's"
    );
}

#[test]
fn decoding_checks_what_making_checks() {
    let bytes = |kind: u8, signer: &[u8], product: Option<u16>| {
        let mut e = Encoder::new(Vec::new());
        e.array(2).unwrap().u8(1).unwrap().array(1).unwrap();
        e.map(if product.is_some() { 4 } else { 3 }).unwrap();
        e.u8(0).unwrap().u8(kind).unwrap();
        e.u8(1).unwrap().bytes(signer).unwrap();
        if let Some(product) = product {
            e.u8(2).unwrap().u16(product).unwrap();
        }
        e.u8(3).unwrap().u32(5).unwrap();
        e.into_writer()
    };
    let decode = |bytes: Vec<u8>| wire::decode::<CodeSelector>(&bytes, 128);
    assert_eq!(
        decode(bytes(1, &[1; 32], Some(1))),
        Ok(signed_by(1, Some(1), 5))
    );
    assert_eq!(decode(bytes(1, &[1; 32], None)), Ok(signed_by(1, None, 5)));
    for (why, bad) in [
        ("tdx", bytes(2, &[1; 48], None)),
        ("an unknown kind", bytes(4, &[1; 48], None)),
        ("zeros", bytes(1, &[0; 32], None)),
        ("another length", bytes(1, &[1; 48], None)),
        ("a product of snp", bytes(3, &[1; 48], Some(1))),
        (
            "an unknown selector",
            [&[0x82, 0x02][..], &bytes(1, &[1; 32], None)[2..]].concat(),
        ),
        (
            "a third element",
            [&[0x83, 0x01][..], &bytes(1, &[1; 32], None)[2..], &[0]].concat(),
        ),
    ] {
        assert!(decode(bad).is_err(), "{why}");
    }
}

#[test]
fn every_part_of_a_signers_word_counts() {
    let allowed = signed_by(1, Some(1), 3);
    let found = code(3);
    assert!(allowed.admits(&found));
    let other = |change: fn(&mut CodeIdentity)| {
        let mut found = found.clone();
        change(&mut found);
        allowed.admits(&found)
    };
    assert!(other(|code| code.svn = Some(u32::MAX)));
    assert!(!other(|code| code.svn = Some(2)));
    assert!(!other(|code| code.svn = None));
    assert!(!other(|code| code.product = Some(2)));
    assert!(!other(|code| code.product = None));
    assert!(!other(|code| code.signer = None));
    assert!(!other(
        |code| code.signer = SignerId::new(TeeKind::Sgx, &[2; 32]).ok()
    ));
    let tdx = Measurement::new(TeeKind::Tdx, &[1; 48]).unwrap();
    let found_tdx = CodeIdentity {
        measurement: tdx,
        ..found.clone()
    };
    assert!(!allowed.admits(&found_tdx), "another kind");
    assert!(measured(3).admits(&CodeIdentity::measured(found.measurement.clone())));
    assert!(!signed_by(1, None, 0).admits(&CodeIdentity::measured(found.measurement)));
}

#[test]
fn selectors_survive_their_text_and_their_cbor() {
    let snp = CodeSigner::new(TeeKind::Snp, &[0xab; 48], None, 7).unwrap();
    for selector in [
        measured(1),
        signed_by(1, None, 0),
        signed_by(0xfe, Some(65_535), u32::MAX),
        CodeSelector::Signed(snp),
    ] {
        assert_eq!(selector.to_string().parse(), Ok(selector.clone()));
        assert_eq!(wire::decode(&wire::encode(&selector), 128), Ok(selector));
    }
    let signer = "01".repeat(32);
    for bad in [
        format!("sgx-signer:{signer}"),
        format!("sgx-signer:{signer},svn>=03"),
        format!("sgx-signer:{signer},svn>=+3"),
        format!("sgx-signer:{signer},svn>=4294967296"),
        format!("sgx-signer:{signer},product=65536,svn>=1"),
        format!("sgx-signer:{signer},svn>=1,product=1"),
        format!("sgx-signer:{signer},product=1,svn>=1,"),
        format!("tdx-signer:{},svn>=0", "01".repeat(48)),
        format!("sgx-signer:{},svn>=0", "00".repeat(32)),
        "*".to_owned(),
    ] {
        assert_eq!(
            bad.parse::<CodeSelector>(),
            Err(InvalidCodeSelector),
            "{bad}"
        );
    }
}

#[test]
fn an_identity_survives_its_cbor() {
    for identity in [code(1), CodeIdentity::measured(code(1).measurement)] {
        assert_eq!(wire::decode(&wire::encode(&identity), 128), Ok(identity));
    }
}
