//! No altered byte of real evidence verifies: quote, endorsements and encoding alike.
//!
//! Every bit of the SNP report, every byte of its certificates and of the SGX evidence, every seventh of
//! the TDX evidence: about 40 s of one core.

#![expect(clippy::unwrap_used, reason = "a failed unwrap here is a failed test")]

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
    // The three have the same structure: all of one, a sample of the others.
    for (sample, stride) in [(SGX, 1), (TDX, 7), (TDX_15EX, 7)] {
        let encoded = sample.evidence().encode();
        let count = encoded.len().div_ceil(stride);
        let found = survivors(count, sample.now, |step| {
            Evidence::decode(&flipped(&encoded, (step * stride).min(encoded.len() - 1))).ok()
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
