//! What verified evidence says, in one vocabulary for every vendor.
//!
//! Always true: a `Claims` is only made by [`crate::verify`]; unknown values never reach it, because
//! verification refuses them. It says what is, not whether that is good enough ([`crate::appraise`]).

use core::fmt;

use bield_envelope::{Digest, Time};
use serde::{Deserialize, Serialize};

use crate::hardening::HardeningStatement;
use crate::measurement::{Measurement, TeeKind};

/// Facts about one TEE, established by signatures that lead to `root`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Claims {
    /// The hardware family.
    pub kind: TeeKind,
    /// The validating root stands for no hardware: there is no protection.
    pub simulated: bool,
    /// Which root certificate validated the evidence ([`crate::root_digest`]).
    pub root: Digest,
    /// Identity of the code.
    pub measurement: Measurement,
    /// Registers behind a TDX measurement (MRTD, RTMR0 to RTMR3); empty for other kinds.
    pub registers: Vec<Vec<u8>>,
    /// Who signed the code: MRSIGNER, MROWNER or the SNP id key digest; `None` when absent.
    pub signer: Option<Vec<u8>>,
    /// ISVPRODID (SGX only).
    pub product: Option<u16>,
    /// The code's own security version: ISVSVN (SGX), guest SVN (SNP).
    pub svn: Option<u32>,
    /// The host may read this TEE's memory.
    pub debug: bool,
    /// The guest may be moved to another machine by a migration agent (SNP).
    pub migratable: bool,
    /// Host-chosen, hardware-recorded configuration: CONFIGID, MRCONFIGID or HOST_DATA.
    pub configuration: Vec<u8>,
    /// The vendor's verdict on the platform's firmware level.
    pub tcb_status: TcbStatus,
    /// Security advisories that apply at that level.
    pub advisories: Vec<String>,
    /// Date of the matched firmware level; the oldest where several count. `None` for SNP.
    pub tcb_date: Option<Time>,
    /// Firmware security versions proven by the signing certificate (SNP only).
    pub snp_tcb: Option<SnpTcb>,
    /// Stable identity of the physical platform: PPID or chip id; empty when masked.
    pub platform_id: Vec<u8>,
    /// Packages can be added to the platform after provisioning.
    pub dynamic_platform: Option<bool>,
    /// The vendor's registration service keeps the platform's root keys.
    pub cached_keys: Option<bool>,
    /// Simultaneous multithreading is on.
    pub smt: Option<bool>,
    /// The 64 bytes the TEE asked to be signed.
    pub report_data: [u8; 64],
    /// What the program stated of its process, from the claims that the report data commits to: set by whoever checked
    /// that (`bield-session`). `None` when nothing was stated.
    pub hardening: Option<HardeningStatement>,
    /// Privilege level that asked for the report (SNP): 0 is the most privileged.
    pub vmpl: Option<u32>,
    /// Number of the vendor's TCB evaluation the collateral comes from (DCAP).
    pub evaluation_number: Option<u32>,
    /// Whether revocation lists were part of the verification.
    pub revocation_checked: bool,
    /// The endorsements hold from here.
    pub collateral_from: Time,
    /// The last second in which the endorsements hold; a cached verdict must not outlive it.
    pub collateral_until: Time,
}

/// The vendor's verdict on a platform's firmware and microcode level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum TcbStatus {
    /// The newest level known to the collateral.
    UpToDate,
    /// Up to date; the software must carry its own mitigations.
    SWHardeningNeeded,
    /// Up to date; firmware settings leave it open to an advisory.
    ConfigurationNeeded,
    /// Both of the above.
    ConfigurationAndSWHardeningNeeded,
    /// Below the newest level.
    OutOfDate,
    /// Below the newest level, and settings need attention.
    OutOfDateConfigurationNeeded,
    /// The TD started on an old level; the platform has been updated under it since.
    TDRelaunchAdvised,
    /// As above, and settings need attention.
    TDRelaunchAdvisedConfigurationNeeded,
    /// The vendor publishes no verdict (AMD): compare [`Claims::snp_tcb`] with a minimum.
    NotRated,
}

impl fmt::Display for TcbStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Security versions of an AMD platform's firmware parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnpTcb {
    /// Firmware microcontroller; 0 before Turin.
    #[serde(default)]
    pub fmc: u8,
    /// Boot loader of the security processor.
    #[serde(default)]
    pub bootloader: u8,
    /// Operating system of the security processor.
    #[serde(default)]
    pub tee: u8,
    /// SNP firmware.
    #[serde(default)]
    pub snp: u8,
    /// CPU microcode.
    #[serde(default)]
    pub microcode: u8,
}

impl SnpTcb {
    /// Whether every part is at least that of `minimum`.
    #[must_use]
    pub const fn meets(&self, minimum: &Self) -> bool {
        self.fmc >= minimum.fmc
            && self.bootloader >= minimum.bootloader
            && self.tee >= minimum.tee
            && self.snp >= minimum.snp
            && self.microcode >= minimum.microcode
    }
}

impl fmt::Display for SnpTcb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            fmc,
            bootloader,
            tee,
            snp,
            microcode,
        } = self;
        write!(
            f,
            "fmc {fmc}, bootloader {bootloader}, tee {tee}, snp {snp}, microcode {microcode}"
        )
    }
}
