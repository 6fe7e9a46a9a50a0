//! Evidence: what verifies is evidence that a quoting platform made.

use std::sync::LazyLock;

use bield_envelope::Time;
use bield_evidence::{Evidence, Policy, Reference, Roots, appraise, verify};

use crate::{cast, vectors};

/// Evidence under a trusted (simulated) root: an altered one never verifies, and what verifies is
/// marked simulated and never passes a default policy.
pub fn evidence(data: &[u8]) -> bool {
    let Ok(decoded) = Evidence::decode(data) else {
        return false;
    };
    assert_eq!(decoded.encode(), data);
    let now = FROZEN.now;
    let Ok(claims) = verify(&decoded, &FROZEN.roots, now) else {
        return false;
    };
    cast::assert_honest(data, &seeds::evidence(), "evidence");
    assert!(claims.simulated, "only the simulated root signed these");
    for policy in [
        Policy::strict(Reference::Deferred),
        Policy::cloud(Reference::Deferred),
    ] {
        assert!(!appraise(&claims, &policy, now).passed());
    }
    true
}

/// Evidence under the vendors' roots: no input of this fuzzer leads to one.
///
/// Accepts what decodes.
pub fn evidence_vendor_roots(data: &[u8]) -> bool {
    static VENDOR: LazyLock<Roots> = LazyLock::new(Roots::vendor);
    let Ok(decoded) = Evidence::decode(data) else {
        return false;
    };
    assert!(
        verify(&decoded, &VENDOR, FROZEN.now).is_err(),
        "evidence nobody's hardware made"
    );
    true
}

struct Frozen {
    roots: Roots,
    now: Time,
    evidence: Vec<Vec<u8>>,
}

/// The evidence of `spec/vectors/02-evidence.json`, its root, and the time it holds.
static FROZEN: LazyLock<Frozen> = LazyLock::new(|| {
    let root = vectors::bytes("02-evidence", "/simulated_root");
    Frozen {
        roots: Roots::vendor()
            .with_simulated_dcap(root.expect("spec/vectors/02-evidence.json names its root")),
        now: Time::from_secs(1_795_000_000),
        evidence: vectors::all("02-evidence", "evidence"),
    }
});

pub(crate) mod seeds {
    use super::*;

    pub(crate) fn evidence() -> Vec<Vec<u8>> {
        FROZEN.evidence.clone()
    }

    pub(crate) fn evidence_vendor_roots() -> Vec<Vec<u8>> {
        FROZEN.evidence.clone()
    }
}
