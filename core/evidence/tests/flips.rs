//! No altered byte of real evidence verifies: quote, endorsements and encoding alike.
//!
//! SNP and the encodings around quotes are tried exhaustively; DCAP with one flip per byte, which
//! takes about a minute of one core for the three samples.

mod common;

use bield_envelope::Time;
use bield_evidence::{Endorsements, Evidence, Roots, verify};
use common::{SGX, SNP_NOW, TDX, TDX_15EX};

/// Bits to flip: value, letter case and sign, turn by turn.
const MASKS: [u8; 3] = [0x01, 0x20, 0x80];

/// Tries `count` alterations and names those that still verify.
fn survivors(
    count: usize,
    now: Time,
    altered: impl Fn(usize) -> Option<Evidence> + Sync,
) -> Vec<usize> {
    let roots = Roots::vendor();
    let survives =
        |at: &usize| altered(*at).is_some_and(|evidence| verify(&evidence, &roots, now).is_ok());
    std::thread::scope(|scope| {
        let halves: Vec<_> = (0..2)
            .map(|half| {
                let survives = &survives;
                scope.spawn(move || {
                    (half..count)
                        .step_by(2)
                        .filter(survives)
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        halves
            .into_iter()
            .flat_map(|half| half.join().unwrap())
            .collect()
    })
}

fn flipped(bytes: &[u8], at: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at] ^= MASKS[at % MASKS.len()];
    bytes
}

#[test]
fn no_flipped_bit_of_the_real_snp_report_verifies() {
    let genuine = common::milan();
    let bits = genuine.quote.len() * 8;
    let found = survivors(bits, SNP_NOW, |bit| {
        let mut evidence = genuine.clone();
        evidence.quote[bit / 8] ^= 1 << (bit % 8);
        Some(evidence)
    });
    assert_eq!(found, [0; 0]);
}

#[test]
fn no_flipped_byte_of_the_real_snp_certificates_verifies() {
    let genuine = common::milan();
    let Endorsements::Snp { ask, vek } = &genuine.endorsements else {
        unreachable!()
    };
    let found = survivors(ask.len() + vek.len(), SNP_NOW, |at| {
        let (mut ask, mut vek) = (ask.clone(), vek.clone());
        match at.checked_sub(ask.len()) {
            None => ask = flipped(&ask, at),
            Some(at) => vek = flipped(&vek, at),
        }
        Some(Evidence {
            endorsements: Endorsements::Snp { ask, vek },
            ..genuine.clone()
        })
    });
    assert_eq!(found, [0; 0]);
}

#[test]
fn no_flipped_byte_of_real_dcap_evidence_verifies() {
    for sample in [SGX, TDX, TDX_15EX] {
        let encoded = sample.evidence().encode();
        let found = survivors(encoded.len(), sample.now, |at| {
            Evidence::decode(&flipped(&encoded, at)).ok()
        });
        assert_eq!(found, [0; 0], "{}", sample.name);
    }
}

#[test]
fn no_flipped_byte_of_the_encoding_around_snp_evidence_verifies() {
    let encoded = common::milan().encode();
    let found = survivors(encoded.len(), SNP_NOW, |at| {
        Evidence::decode(&flipped(&encoded, at)).ok()
    });
    assert_eq!(found, [0; 0]);
}

#[test]
fn no_truncated_or_extended_real_evidence_verifies() {
    for (genuine, now) in [
        (SGX.evidence(), SGX.now),
        (TDX.evidence(), TDX.now),
        (common::milan(), SNP_NOW),
    ] {
        let length = genuine.quote.len();
        let found = survivors(length + 8, now, |to| {
            let mut evidence = genuine.clone();
            // Every shorter quote, then a few longer ones; never the genuine length.
            evidence
                .quote
                .resize(if to < length { to } else { to + 1 }, 0);
            Some(evidence)
        });
        assert_eq!(found, [0; 0]);
    }
}
