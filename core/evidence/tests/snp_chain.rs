//! A made-up AMD chain signs reports no real machine would: each must be refused for its own reason.
//!
//! Certificates are written byte by byte, with AMD's spelling of the PSS parameters.

#![expect(clippy::unwrap_used, reason = "a failed unwrap here is a failed test")]
#![expect(
    clippy::disallowed_types,
    reason = "throw-away keys of a test need the system's randomness"
)]

use std::sync::LazyLock;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PSS_SHA384, RsaKeyPair,
};
use bield_envelope::Time;
use bield_evidence::{
    Claims, Endorsements, Evidence, EvidenceError, HardeningDemand, HardeningStatement, Policy,
    Reference, Roots, SnpTcb, TeeKind, appraise, verify,
};

/// Inside the certificates' validity, 2020 to 2045.
const NOW: Time = Time::from_secs(1_763_769_600);
const TCB: [u8; 8] = [3, 0, 0, 0, 0, 0, 8, 115];
const CHIP: [u8; 64] = [0x5A; 64];

#[test]
fn a_made_up_chain_verifies_under_its_own_root_and_is_marked_simulated() {
    let mut claims = accepted(&Vek::default(), |_| {});
    claims.hardening = Some(HardeningStatement::new(HardeningDemand::GUEST, []));
    assert!(claims.simulated);
    assert_eq!(claims.platform_id, CHIP);
    let policy = Policy::cloud(Reference::Listed(vec![claims.measurement.clone()]));
    assert_eq!(failures(&claims, &policy), ["root"]);
    let evidence = evidence(&Vek::default(), |_| {});
    assert!(verify(&evidence, &Roots::vendor(), NOW).is_err());
}

#[test]
fn a_report_claiming_newer_firmware_than_its_certificate_is_refused() {
    for at in [0, 1, 6, 7] {
        let refused = refused(&Vek::default(), |report| report[0x180 + at] += 1);
        assert!(
            matches!(&refused, EvidenceError::NotGenuine { reason } if reason.contains("firmware")),
            "{refused}"
        );
    }
    let reserved = refused(&Vek::default(), |report| report[0x183] = 1);
    assert!(matches!(reserved, EvidenceError::Malformed { .. }));
}

#[test]
fn a_report_of_another_chip_is_refused_and_a_masked_one_takes_the_certified_identity() {
    let other = refused(&Vek::default(), |report| report[0x1A0] ^= 1);
    assert!(matches!(&other, EvidenceError::NotGenuine { reason } if reason.contains("chip")));
    let masked = accepted(&Vek::default(), |report| report[0x1A0..0x1E0].fill(0));
    assert_eq!(masked.platform_id, CHIP);
}

#[test]
fn debug_migration_vmpl_and_smt_are_claims_that_policies_refuse() {
    type Change = fn(&mut [u8]);
    let cases: [(Change, &str); 4] = [
        (|report| report[0x0A] |= 1 << 3, "debug"),
        (|report| report[0x0A] |= 1 << 2, "migration agent"),
        (|report| report[0x30] = 1, "vmpl"),
        (|report| report[0x40] = 1, "smt"),
    ];
    for (change, name) in cases {
        let mut claims = accepted(&Vek::default(), change);
        claims.hardening = Some(HardeningStatement::new(HardeningDemand::GUEST, []));
        let policy = Policy::strict(Reference::Listed(vec![claims.measurement.clone()]))
            .with_snp_tcb_min(SnpTcb::default());
        assert_eq!(failures(&claims, &policy), ["root", name]);
    }
    let debug = accepted(&Vek::default(), |report| report[0x0A] |= 1 << 3);
    let dev = Policy::dev(Reference::Deferred);
    assert_eq!(failures(&debug, &dev), ["debug"]);
}

#[test]
fn a_loaded_key_has_no_chip_of_its_own() {
    let vlek = Vek {
        subject: "SEV-VLEK",
        ..Vek::default()
    };
    let claims = accepted(&vlek, |report| report[0x48] = 1 << 2);
    assert_eq!(
        claims.platform_id, CHIP,
        "reported, signed by the loaded key"
    );
    let masked = accepted(&vlek, |report| {
        report[0x48] = 1 << 2;
        report[0x1A0..0x1E0].fill(0);
    });
    assert!(masked.platform_id.is_empty());
    // The report names one kind of key, the certificate is of the other.
    assert!(matches!(
        refused(&vlek, |_| {}),
        EvidenceError::NotGenuine { .. }
    ));
    assert!(matches!(
        refused(&Vek::default(), |report| report[0x48] = 1 << 2),
        EvidenceError::NotGenuine { .. }
    ));
}

#[test]
fn unknown_products_and_keys_fail_closed() {
    for vek in [
        Vek {
            product: "Rome-B0",
            ..Vek::default()
        },
        Vek {
            subject: "SEV-XYZ",
            ..Vek::default()
        },
    ] {
        assert!(matches!(
            refused(&vek, |_| {}),
            EvidenceError::Malformed { .. }
        ));
    }
}

#[test]
fn a_version_3_report_must_come_from_the_certified_family() {
    let version_3 = |family: u8| {
        move |report: &mut [u8]| {
            report[0] = 3;
            report[0x188] = family;
        }
    };
    accepted(&Vek::default(), version_3(0x19));
    assert!(matches!(
        refused(&Vek::default(), version_3(0x1A)),
        EvidenceError::NotGenuine { .. }
    ));
}

#[test]
fn reserved_bytes_inside_the_signature_fail_closed() {
    for at in [0x4C, 0x190, 0x1EB, 0x1F8, 0x208, 0x29F] {
        assert!(matches!(
            refused(&Vek::default(), |report| report[at] = 1),
            EvidenceError::NotCanonical { .. }
        ));
    }
}

#[test]
fn expired_certificates_are_refused() {
    let genuine = evidence(&Vek::default(), |_| {});
    for now in [
        Time::from_secs(1_500_000_000),
        Time::from_secs(2_500_000_000),
    ] {
        assert!(matches!(
            verify(&genuine, &roots(), now),
            Err(EvidenceError::OutsideValidity { .. })
        ));
    }
}

// The made-up chain.

struct Vek {
    subject: &'static str,
    product: &'static str,
}

impl Default for Vek {
    fn default() -> Self {
        Self {
            subject: "SEV-VCEK",
            product: "Milan-B0",
        }
    }
}

struct Authority {
    signer: RsaKeyPair,
    chip: EcdsaKeyPair,
    root_der: Vec<u8>,
    signer_der: Vec<u8>,
}

static AUTHORITY: LazyLock<Authority> = LazyLock::new(|| {
    let root = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let signer = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let chip = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap();
    let ca = |path: u8| {
        [
            extension(BASIC_CONSTRAINTS, true, &[0x30, 6, 1, 1, 0xFF, 2, 1, path]),
            extension(KEY_USAGE, true, &[3, 2, 2, 4]),
        ]
        .concat()
    };
    let root_der = certificate("ARK-Made-Up", "ARK-Made-Up", &rsa_key(&root), &ca(1), &root);
    let signer_der = certificate(
        "ARK-Made-Up",
        "SEV-Made-Up",
        &rsa_key(&signer),
        &ca(0),
        &root,
    );
    Authority {
        signer,
        chip,
        root_der,
        signer_der,
    }
});

fn roots() -> Roots {
    Roots::vendor().with_simulated_snp(AUTHORITY.root_der.clone())
}

fn evidence(vek: &Vek, change: impl FnOnce(&mut [u8])) -> Evidence {
    let mut report = vec![0; 1184];
    report[0] = 2;
    report[0x0A] = 3; // guest policy: SMT allowed, reserved bit 17
    report[0x34] = 1;
    for at in [0x38, 0x180, 0x1E0, 0x1F0] {
        report[at..at + 8].copy_from_slice(&TCB);
    }
    report[0x1A0..0x1E0].copy_from_slice(&CHIP);
    change(&mut report);
    let signature = AUTHORITY
        .chip
        .sign(&SystemRandom::new(), &report[..0x2A0])
        .unwrap();
    let (r, s) = signature.as_ref().split_at(48);
    for (at, number) in [(0x2A0, r), (0x2A0 + 72, s)] {
        report[at..at + 48].copy_from_slice(number);
        report[at..at + 48].reverse();
    }
    Evidence {
        kind: TeeKind::Snp,
        quote: report,
        claims_buffer: Vec::new(),
        endorsements: Endorsements::Snp {
            ask: AUTHORITY.signer_der.clone(),
            vek: vek.der(),
        },
    }
}

fn accepted(vek: &Vek, change: impl FnOnce(&mut [u8])) -> Claims {
    verify(&evidence(vek, change), &roots(), NOW).unwrap()
}

fn refused(vek: &Vek, change: impl FnOnce(&mut [u8])) -> EvidenceError {
    verify(&evidence(vek, change), &roots(), NOW).unwrap_err()
}

fn failures(claims: &Claims, policy: &Policy) -> Vec<&'static str> {
    let appraisal = appraise(claims, policy, NOW);
    appraisal.failed().map(|check| check.name).collect()
}

impl Vek {
    fn der(&self) -> Vec<u8> {
        let [bootloader, tee, _, _, _, _, snp, microcode] = TCB;
        let amd = |suffix: &[u8], value: &[u8]| extension(&[AMD, suffix].concat(), false, value);
        let mut extensions = [
            amd(&[2], &tlv(0x16, self.product.as_bytes())),
            amd(&[3, 1], &[2, 1, bootloader]),
            amd(&[3, 2], &[2, 1, tee]),
            amd(&[3, 3], &[2, 1, snp]),
            amd(&[3, 8], &[2, 1, microcode]),
        ]
        .concat();
        if self.subject == "SEV-VCEK" {
            extensions.extend(amd(&[4], &CHIP));
        }
        let key = sequence(&[
            &sequence(&[&tlv(6, EC_PUBLIC_KEY), &tlv(6, SECP384R1)]),
            &bit_string(AUTHORITY.chip.public_key().as_ref()),
        ]);
        certificate(
            "SEV-Made-Up",
            self.subject,
            &key,
            &extensions,
            &AUTHORITY.signer,
        )
    }
}

fn certificate(
    issuer: &str,
    subject: &str,
    key: &[u8],
    extensions: &[u8],
    signer: &RsaKeyPair,
) -> Vec<u8> {
    let name = |text: &str| {
        let attribute = sequence(&[&tlv(6, COMMON_NAME), &tlv(0x0C, text.as_bytes())]);
        sequence(&[&tlv(0x31, &attribute)])
    };
    let algorithm = sequence(&[AMD_PSS]);
    let validity = sequence(&[&tlv(0x17, b"200101000000Z"), &tlv(0x17, b"450101000000Z")]);
    let body = sequence(&[
        &tlv(0xA0, &[2, 1, 2]),
        &[2, 1, 1],
        &algorithm,
        &name(issuer),
        &validity,
        &name(subject),
        key,
        &tlv(0xA3, &sequence(&[extensions])),
    ]);
    let mut signature = vec![0; signer.public_modulus_len()];
    signer
        .sign(&RSA_PSS_SHA384, &SystemRandom::new(), &body, &mut signature)
        .unwrap();
    sequence(&[&body, &algorithm, &bit_string(&signature)])
}

fn rsa_key(key: &RsaKeyPair) -> Vec<u8> {
    sequence(&[
        &sequence(&[&tlv(6, RSA_ENCRYPTION), &[5, 0]]),
        &bit_string(key.public_key().as_ref()),
    ])
}

fn extension(oid: &[u8], critical: bool, value: &[u8]) -> Vec<u8> {
    let critical: &[u8] = if critical { &[1, 1, 0xFF] } else { &[] };
    sequence(&[&tlv(6, oid), critical, &tlv(4, value)])
}

fn bit_string(bytes: &[u8]) -> Vec<u8> {
    tlv(3, &[&[0], bytes].concat())
}

fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    tlv(0x30, &parts.concat())
}

fn tlv(tag: u8, body: &[u8]) -> Vec<u8> {
    let [high, low] = u16::try_from(body.len()).unwrap().to_be_bytes();
    let header = match body.len() {
        0..128 => vec![tag, low],
        128..256 => vec![tag, 0x81, low],
        _ => vec![tag, 0x82, high, low],
    };
    [&header, body].concat()
}

const COMMON_NAME: &[u8] = &[0x55, 4, 3];
const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1D, 0x13];
const KEY_USAGE: &[u8] = &[0x55, 0x1D, 0x0F];
const RSA_ENCRYPTION: &[u8] = &[42, 134, 72, 134, 247, 13, 1, 1, 1];
const EC_PUBLIC_KEY: &[u8] = &[42, 134, 72, 206, 61, 2, 1];
const SECP384R1: &[u8] = &[43, 129, 4, 0, 34];
/// 1.3.6.1.4.1.3704.1
const AMD: &[u8] = &[43, 6, 1, 4, 1, 0x9C, 0x78, 1];
/// RSASSA-PSS with SHA-384 and the default trailer field spelt out, as AMD's certificates have it.
#[rustfmt::skip]
const AMD_PSS: &[u8] = &[
    6, 9, 42, 134, 72, 134, 247, 13, 1, 1, 10, 48, 57,
    160, 15, 48, 13, 6, 9, 96, 134, 72, 1, 101, 3, 4, 2, 2, 5, 0,
    161, 28, 48, 26, 6, 9, 42, 134, 72, 134, 247, 13, 1, 1, 8,
    48, 13, 6, 9, 96, 134, 72, 1, 101, 3, 4, 2, 2, 5, 0,
    162, 3, 2, 1, 48, 163, 3, 2, 1, 1,
];
