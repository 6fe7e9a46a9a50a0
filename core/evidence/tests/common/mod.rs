//! Evidence captured from real hardware by others, read out of the packages that ship it.
//!
//! | sample | package, licence | time it is judged at | expected |
//! |---|---|---|---|
//! | SGX v3 | `dcap-qvl` 0.7.1, MIT | 2025-06-20 | ConfigurationAndSWHardeningNeeded |
//! | TDX v4 TD 1.0 | same | 2025-06-20 | UpToDate, dynamic platform |
//! | TDX v5 | same | 2026-03-01 | no matching TCB level: refused |
//! | TDX v5 TD 1.5ex | same | 2026-10-15 | UpToDate |
//! | TDX v4 ×2, no collateral | same | – | parse, refused for want of endorsements |
//! | SNP v2 Milan + VCEK; Turin VCEK | `sev` 8.0.0, Apache-2.0 | 2025-11-22 | verifies |
//! | SNP v2 (Azure), no VCEK | `az-cvm-vtpm` 0.8.2, MIT | – | parses, refused for want of endorsements |

#![allow(
    dead_code,
    clippy::allow_attributes,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "each test file uses its part; tests may read files and unwrap"
)]

use std::path::PathBuf;
use std::sync::LazyLock;

use bield_envelope::Time;
use bield_evidence::{Endorsements, Evidence, TeeKind, canonical_dcap};
use cargo_metadata::{CargoOpt, MetadataCommand};

/// 2025-11-22, a day on which the Milan sample's certificates hold.
pub(crate) const SNP_NOW: Time = Time::from_secs(1_763_769_600);

/// One DCAP sample: name, kind, judging time.
pub(crate) struct Dcap {
    pub(crate) name: &'static str,
    pub(crate) kind: TeeKind,
    pub(crate) now: Time,
}

/// The samples with collateral, in the order of the table above.
pub(crate) const SGX: Dcap = dcap("sgx_quote", TeeKind::Sgx, MIDSUMMER_2025);
pub(crate) const TDX: Dcap = dcap("tdx_quote", TeeKind::Tdx, MIDSUMMER_2025);
pub(crate) const TDX_OUTDATED: Dcap = dcap("tdx_quote_outdated", TeeKind::Tdx, 1_772_323_200);
pub(crate) const TDX_15EX: Dcap = dcap("tdx_quote_td15ex", TeeKind::Tdx, 1_792_022_400);

/// 2025-06-20, within the collateral of the two oldest samples.
const MIDSUMMER_2025: u64 = 1_750_377_600;

const fn dcap(name: &'static str, kind: TeeKind, now: u64) -> Dcap {
    Dcap {
        name,
        kind,
        now: Time::from_secs(now),
    }
}

impl Dcap {
    /// The quote and collateral as shipped.
    pub(crate) fn raw(&self) -> (Vec<u8>, Vec<u8>) {
        let folder = package("dcap-qvl").join("sample");
        (
            std::fs::read(folder.join(self.name)).unwrap(),
            std::fs::read(folder.join(format!("{}_collateral.json", self.name))).unwrap(),
        )
    }

    /// Canonical evidence.
    pub(crate) fn evidence(&self) -> Evidence {
        let (quote, collateral) = self.raw();
        canonical_dcap(&quote, &collateral).unwrap()
    }
}

/// A hexadecimal sample of `dcap-qvl` without collateral.
pub(crate) fn dcap_hex(name: &str) -> Vec<u8> {
    let text = std::fs::read_to_string(package("dcap-qvl").join("sample").join(name)).unwrap();
    hex::decode(text.trim().trim_start_matches("0x")).unwrap()
}

/// The Milan report with its VCEK and ASK.
pub(crate) fn milan() -> Evidence {
    let sev = package("sev");
    let report = std::fs::read_to_string(sev.join("tests/certs_data/report_milan.hex")).unwrap();
    Evidence {
        kind: TeeKind::Snp,
        quote: hex::decode(report.trim()).unwrap(),
        claims_buffer: Vec::new(),
        endorsements: Endorsements::Snp {
            ask: builtin("milan", "ask"),
            vek: std::fs::read(sev.join("tests/certs_data/vcek_milan.der")).unwrap(),
        },
    }
}

/// A Turin VCEK, for mixing chains.
pub(crate) fn turin_vcek() -> Vec<u8> {
    std::fs::read(package("sev").join("tests/certs_data/vcek_turin.der")).unwrap()
}

/// A built-in AMD certificate of the `sev` package, DER.
pub(crate) fn builtin(product: &str, name: &str) -> Vec<u8> {
    let path = format!("src/certs/snp/builtin/{product}/{name}.pem");
    let pem = std::fs::read(package("sev").join(path)).unwrap();
    sev::certs::snp::Certificate::from_pem(&pem)
        .unwrap()
        .to_der()
        .unwrap()
}

/// The SNP report inside an Azure paravisor report: after a 32-byte header.
pub(crate) fn azure_report() -> Vec<u8> {
    let path = package("az-cvm-vtpm").join("test/hcl-report-snp.bin");
    std::fs::read(path).unwrap()[32..32 + 1184].to_vec()
}

/// The source folder of a package: one of ours, or one named by `testing/samples`.
pub(crate) fn package(name: &str) -> PathBuf {
    static FOLDERS: LazyLock<Vec<(String, PathBuf)>> = LazyLock::new(|| {
        let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        let samples = here.join("../../testing/samples/Cargo.toml");
        [here.join("Cargo.toml"), samples]
            .into_iter()
            .flat_map(|manifest| {
                let metadata = MetadataCommand::new()
                    .manifest_path(manifest)
                    .features(CargoOpt::SomeFeatures(Vec::new()))
                    .other_options(vec!["--locked".into()])
                    .exec()
                    .unwrap();
                metadata.packages.into_iter().map(|package| {
                    let folder = package.manifest_path.parent().unwrap().to_owned();
                    (package.name.to_string(), folder.into_std_path_buf())
                })
            })
            .collect()
    });
    let found = FOLDERS.iter().find(|(found, _)| found == name);
    found
        .unwrap_or_else(|| panic!("no package {name}"))
        .1
        .clone()
}
