//! The fixed layout of an SNP attestation report, by offset.
//!
//! Always true after `parse`: the length is right, version and signature algorithm are known,
//! every reserved byte and every undefined policy bit is zero.

use crate::verify::EvidenceError;

/// Bytes of a report.
pub(crate) const REPORT_BYTES: usize = 1184;
/// Bytes covered by the signature.
const SIGNED_BYTES: usize = 0x2A0;

/// A parsed report, not verified.
pub(crate) struct Report<'a>(&'a [u8; REPORT_BYTES]);

impl<'a> Report<'a> {
    /// Checks the layout.
    ///
    /// # Errors
    /// Wrong length, unknown version or algorithm, a reserved byte that is not zero.
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, EvidenceError> {
        let report = Self(bytes.try_into().map_err(|_| MALFORMED_LENGTH)?);
        if !VERSIONS.contains(&report.version()) {
            return Err(EvidenceError::Malformed {
                what: "unknown SNP report version",
            });
        }
        if report.u32(0x34) != SIGNATURE_ECDSA_P384_SHA384 {
            return Err(EvidenceError::Malformed {
                what: "unknown SNP signature algorithm",
            });
        }
        if report.policy() >> POLICY_BITS != 0 || report.policy() & POLICY_MUST_BE_ONE == 0 {
            return Err(EvidenceError::Malformed {
                what: "undefined SNP guest policy bits",
            });
        }
        if report.u32(0x48) >> KEY_INFO_BITS != 0 {
            return Err(EvidenceError::Malformed {
                what: "undefined SNP key flags",
            });
        }
        report.check_reserved()?;
        Ok(report)
    }

    fn check_reserved(&self) -> Result<(), EvidenceError> {
        let by_version: &[(usize, usize)] = match self.version() {
            2 => &[(0x188, 0x1A0), (0x1F8, 0x208)],
            3 | 4 => &[(0x18B, 0x1A0), (0x1F8, 0x208)],
            _ => &[(0x18B, 0x1A0)],
        };
        for &(from, to) in RESERVED.iter().chain(by_version) {
            if self.0[from..to].iter().any(|byte| *byte != 0) {
                return Err(EvidenceError::NotCanonical {
                    what: "reserved bytes of the SNP report are not zero",
                });
            }
        }
        Ok(())
    }

    pub(crate) fn version(&self) -> u32 {
        self.u32(0)
    }

    pub(crate) fn guest_svn(&self) -> u32 {
        self.u32(0x04)
    }

    fn policy(&self) -> u64 {
        u64::from_le_bytes(self.array(0x08))
    }

    /// Guest policy bit 19: the host may read the guest's memory.
    pub(crate) fn debug(&self) -> bool {
        self.policy() >> 19 & 1 == 1
    }

    /// Guest policy bit 18: a migration agent may be associated.
    pub(crate) fn migration_agent(&self) -> bool {
        self.policy() >> 18 & 1 == 1
    }

    pub(crate) fn vmpl(&self) -> u32 {
        self.u32(0x30)
    }

    /// PLATFORM_INFO bit 0.
    pub(crate) fn smt(&self) -> bool {
        self.0[0x40] & 1 == 1
    }

    /// Key flags bits 4:2: 0 is VCEK, 1 is VLEK.
    pub(crate) fn signing_key(&self) -> u32 {
        self.u32(0x48) >> 2 & 7
    }

    pub(crate) fn report_data(&self) -> [u8; 64] {
        self.array(0x50)
    }

    pub(crate) fn measurement(&self) -> &[u8] {
        &self.0[0x90..0xC0]
    }

    pub(crate) fn host_data(&self) -> &[u8] {
        &self.0[0xC0..0xE0]
    }

    pub(crate) fn id_key_digest(&self) -> &[u8] {
        &self.0[0xE0..0x110]
    }

    pub(crate) fn reported_tcb(&self) -> [u8; 8] {
        self.array(0x180)
    }

    /// CPUID family, combined; reports from version 3.
    pub(crate) fn cpu_family(&self) -> Option<u8> {
        (self.version() >= 3).then(|| self.0[0x188])
    }

    pub(crate) fn chip_id(&self) -> &[u8] {
        &self.0[0x1A0..0x1E0]
    }

    pub(crate) fn signed(&self) -> &[u8] {
        &self.0[..SIGNED_BYTES]
    }

    /// The signature as r ‖ s, 48 big-endian bytes each.
    ///
    /// # Errors
    /// The 72-byte little-endian fields hold more than 48 bytes.
    pub(crate) fn signature(&self) -> Result<[u8; 96], EvidenceError> {
        let mut signature = [0; 96];
        for (part, at) in [(0, SIGNED_BYTES), (48, SIGNED_BYTES + 72)] {
            let (number, rest) = self.0[at..at + 72].split_at(48);
            if rest.iter().any(|byte| *byte != 0) {
                return Err(EvidenceError::NotCanonical {
                    what: "SNP signature component is too long",
                });
            }
            signature[part..part + 48].copy_from_slice(number);
            signature[part..part + 48].reverse();
        }
        Ok(signature)
    }

    fn u32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.array(at))
    }

    fn array<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut array = [0; N];
        array.copy_from_slice(&self.0[at..at + N]);
        array
    }
}

/// Report versions whose layout is known here.
const VERSIONS: core::ops::RangeInclusive<u32> = 2..=5;
const SIGNATURE_ECDSA_P384_SHA384: u32 = 1;
/// Defined guest policy bits: ABI version (15:0), then flags up to page swap disable (25).
const POLICY_BITS: u32 = 26;
/// Guest policy bit 17 is reserved and must be one.
const POLICY_MUST_BE_ONE: u64 = 1 << 17;
/// Defined key flags: author key (0), chip key masked (1), signing key (4:2).
const KEY_INFO_BITS: u32 = 5;
/// Reserved in every version: after the key flags, around the build numbers, before and after the
/// signature's two 72-byte numbers.
const RESERVED: &[(usize, usize)] = &[
    (0x4C, 0x50),
    (0x1EB, 0x1EC),
    (0x1EF, 0x1F0),
    (0x208, SIGNED_BYTES),
    (SIGNED_BYTES + 144, REPORT_BYTES),
];
const MALFORMED_LENGTH: EvidenceError = EvidenceError::Malformed {
    what: "an SNP report has 1184 bytes",
};

const _: () = assert!(SIGNED_BYTES + 512 == REPORT_BYTES);
