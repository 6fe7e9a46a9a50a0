//! A second opinion: whatever our SNP verifier accepts, the `sev` crate accepts too.
//!
//! Not the other way round: that crate does not pin the root, looks at no dates, accepts debug guests
//! and ignores some reserved bytes.

mod common;

use bield_evidence::{Endorsements, Evidence, Roots, verify};
use common::SNP_NOW;
use proptest::prelude::*;
use sev::certs::snp::{Certificate, Chain, Verifiable, ca};
use sev::firmware::guest::AttestationReport;
use sev::parser::ByteParser;

fn theirs(evidence: &Evidence) -> Option<()> {
    let Endorsements::Snp { ask, vek } = &evidence.endorsements else {
        return None;
    };
    let chain = Chain {
        ca: ca::Chain {
            ark: Certificate::from_der(&common::builtin("milan", "ark")).ok()?,
            ask: Certificate::from_der(ask).ok()?,
        },
        vek: Certificate::from_der(vek).ok()?,
    };
    let report = AttestationReport::from_bytes(&evidence.quote).ok()?;
    (&chain, &report).verify().ok()
}

fn ours(evidence: &Evidence) -> bool {
    verify(evidence, &Roots::vendor(), SNP_NOW).is_ok()
}

#[test]
fn both_accept_the_genuine_report() {
    let genuine = common::milan();
    assert!(ours(&genuine));
    assert!(theirs(&genuine).is_some());
}

#[test]
fn ours_refuses_reserved_bytes_theirs_ignores() {
    let mut ignored = 0;
    for at in [0x2DC, 0x400] {
        let mut evidence = common::milan();
        evidence.quote[at] ^= 0x40;
        ignored += usize::from(theirs(&evidence).is_some());
        assert!(!ours(&evidence), "{at:#x}");
    }
    assert_eq!(ignored, 2, "the oracle has become stricter: drop this test");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_ours_accepts_theirs_accepts(
        edits in prop::collection::vec((0usize..1184 + 3000, any::<u8>()), 0..3),
    ) {
        let mut evidence = common::milan();
        let Endorsements::Snp { ask, vek } = &mut evidence.endorsements else { unreachable!() };
        for (at, value) in edits {
            let all = evidence.quote.iter_mut().chain(ask.iter_mut()).chain(vek.iter_mut());
            if let Some(byte) = all.skip(at).step_by(1).next() {
                *byte = value;
            }
        }
        prop_assert!(!ours(&evidence) || theirs(&evidence).is_some());
    }
}
