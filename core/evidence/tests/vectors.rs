//! `spec/vectors/02-evidence.json`: frozen bytes that a second implementation must reproduce.
//!
//! Digests and measurements are computed again and compared. Evidence is frozen *input*: it must
//! decode, verify and yield the frozen claims, and no altered byte of it may.
//! `BIELD_FREEZE_VECTORS=1` makes new evidence and writes the file.

#![expect(clippy::unwrap_used, reason = "a failed unwrap here is a failed test")]
#![expect(
    clippy::disallowed_methods,
    reason = "tests read and freeze the vectors"
)]

use bield_envelope::Time;
use bield_evidence::{
    Claims, Endorsements, Evidence, Policy, Reference, Roots, TeeKind, appraise,
    claims_report_data, configuration_digest, program_digest, root_digest, software_measurement,
    tdx_measurement, verify,
};
use bield_software_tee::{CollateralOptions, Kind, Options, Platform, SgxReport, TdxReport};
use serde_json::{Value, json};

const NOW: Time = Time::from_secs(1_795_000_000);
const CLAIMS_BUFFER: &[u8] = b"\xa1\x6bpubkey-hash\x43\x01\x02\x03";

#[test]
fn the_frozen_vectors_hold() {
    if std::env::var_os("BIELD_FREEZE_VECTORS").is_some() {
        let text = serde_json::to_string_pretty(&freeze()).unwrap() + "\n";
        std::fs::write(path(), text).unwrap();
    }
    let frozen = frozen();
    assert_eq!(frozen["derived"], derived());
    let roots = roots(&frozen);
    for vector in frozen["evidence"].as_array().unwrap() {
        let bytes = hex::decode(vector["evidence"].as_str().unwrap()).unwrap();
        let evidence = Evidence::decode(&bytes).unwrap();
        assert_eq!(evidence.encode(), bytes);
        let claims = verify(&evidence, &roots, NOW).unwrap();
        assert_eq!(vector["claims"], described(&claims), "{}", vector["name"]);
        let strict = appraise(&claims, &Policy::strict(Reference::Listed(vec![])), NOW);
        let failed: Vec<_> = strict.failed().map(|check| check.name).collect();
        assert_eq!(vector["strict_without_references_fails"], json!(failed));
    }
}

#[test]
fn no_flipped_byte_of_a_frozen_evidence_verifies() {
    let frozen = frozen();
    let roots = roots(&frozen);
    for vector in frozen["evidence"].as_array().unwrap() {
        let bytes = hex::decode(vector["evidence"].as_str().unwrap()).unwrap();
        let survives = |at: &usize| {
            let mut altered = bytes.clone();
            altered[*at] ^= 1 << (at % 8);
            Evidence::decode(&altered).is_ok_and(|it| verify(&it, &roots, NOW).is_ok())
        };
        let found: Vec<_> = (0..bytes.len()).filter(survives).collect();
        assert_eq!(found, [0; 0], "{}", vector["name"]);
    }
}

fn path() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../spec/vectors/02-evidence.json")
}

fn frozen() -> Value {
    serde_json::from_slice(&std::fs::read(path()).unwrap()).unwrap()
}

fn roots(frozen: &Value) -> Roots {
    let der = hex::decode(frozen["simulated_root"].as_str().unwrap()).unwrap();
    Roots::vendor().with_simulated_dcap(der)
}

/// What follows from public inputs alone.
fn derived() -> Value {
    let (program, configuration) = (program_digest(b"program"), configuration_digest(b"config"));
    let registers: [[u8; 48]; 5] = core::array::from_fn(|at| [at as u8 + 1; 48]);
    json!({
        "program": { "bytes": hex::encode("program"), "digest": program.to_string() },
        "configuration": { "bytes": hex::encode("config"), "digest": configuration.to_string() },
        "software_measurement": software_measurement(program, configuration).to_string(),
        "tdx": {
            "registers": registers.map(hex::encode),
            "measurement": tdx_measurement(&registers).to_string(),
        },
        "report_data": {
            "claims_buffer": hex::encode(CLAIMS_BUFFER),
            "report_data": hex::encode(claims_report_data(CLAIMS_BUFFER)),
        },
        "root": {
            "der": hex::encode(include_bytes!("../roots/intel-sgx.der")),
            "digest": root_digest(include_bytes!("../roots/intel-sgx.der")).to_string(),
        },
    })
}

fn described(claims: &Claims) -> Value {
    json!({
        "kind": claims.kind.name(),
        "simulated": claims.simulated,
        "root": claims.root.to_string(),
        "measurement": claims.measurement.to_string(),
        "product": claims.product,
        "svn": claims.svn,
        "tcb_status": claims.tcb_status,
        "evaluation_number": claims.evaluation_number,
        "platform_id": hex::encode(&claims.platform_id),
        "report_data": hex::encode(claims.report_data),
        "collateral_from": claims.collateral_from.as_millis(),
        "collateral_until": claims.collateral_until.as_millis(),
    })
}

fn freeze() -> Value {
    let machine = Platform::generate(Options::seeded([2; 32], NOW)).unwrap();
    let report_data = claims_report_data(CLAIMS_BUFFER);
    let enclave = machine.sgx_quote(&SgxReport {
        measurement: [1; 32],
        signer: [2; 32],
        product: 3,
        svn: 4,
        report_data,
        ..SgxReport::default()
    });
    let guest = TdxReport {
        mr_td: [1; 48],
        rtmr: [[2; 48], [3; 48], [4; 48], [5; 48]],
        report_data,
        ..TdxReport::default()
    };
    let roots = Roots::none().with_simulated_dcap(machine.root_der().to_vec());
    let vector = |name: &str, kind: TeeKind, quote: Vec<u8>| {
        let documents = match kind {
            TeeKind::Sgx => Kind::Sgx,
            TeeKind::Tdx | TeeKind::Snp => Kind::Tdx,
        };
        let evidence = Evidence {
            kind,
            quote,
            claims_buffer: CLAIMS_BUFFER.to_vec(),
            endorsements: Endorsements::Dcap(
                machine
                    .collateral(documents, &CollateralOptions::at(NOW))
                    .unwrap(),
            ),
        };
        let claims = verify(&evidence, &roots, NOW).unwrap();
        let strict = appraise(&claims, &Policy::strict(Reference::Listed(vec![])), NOW);
        let failed: Vec<_> = strict.failed().map(|check| check.name).collect();
        json!({
            "name": name,
            "evidence": hex::encode(evidence.encode()),
            "claims": described(&claims),
            "strict_without_references_fails": failed,
        })
    };
    json!({
        "now": NOW.as_millis(),
        "simulated_root": hex::encode(machine.root_der()),
        "derived": derived(),
        "evidence": [
            vector("sgx v3", TeeKind::Sgx, enclave),
            vector("tdx v4", TeeKind::Tdx, machine.tdx_quote_v4(&guest)),
            vector("tdx v5", TeeKind::Tdx, machine.tdx_quote_v5(&guest)),
        ],
    })
}
