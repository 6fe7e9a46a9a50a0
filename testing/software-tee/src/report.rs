//! What a guest claims about itself: the parts of a report that a caller chooses.
//!
//! Everything else in a report (patch levels, attributes, reserved bytes) follows from the machine
//! and is filled in by `quote`.

/// Whose formats: an SGX enclave's or a TDX guest's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An SGX enclave.
    Sgx,
    /// A TDX guest (trust domain).
    Tdx,
}

/// What an SGX enclave's report says.
#[derive(Clone, Debug)]
pub struct SgxReport {
    /// MRENCLAVE.
    pub measurement: [u8; 32],
    /// MRSIGNER.
    pub signer: [u8; 32],
    /// Product number chosen by the signer.
    pub product: u16,
    /// Security version chosen by the signer.
    pub svn: u16,
    /// The enclave can be read by a debugger.
    pub debug: bool,
    /// What the enclave wants signed.
    pub report_data: [u8; 64],
}

impl Default for SgxReport {
    /// Zeros everywhere: not a debug enclave.
    fn default() -> Self {
        Self {
            measurement: [0; 32],
            signer: [0; 32],
            product: 0,
            svn: 0,
            debug: false,
            report_data: [0; 64],
        }
    }
}

/// What a TDX guest's report says.
#[derive(Clone, Debug)]
pub struct TdxReport {
    /// MRTD: the initial memory.
    pub mr_td: [u8; 48],
    /// Run-time measurement registers 0 to 3.
    pub rtmr: [[u8; 48]; 4],
    /// MRCONFIGID: configuration chosen by whoever started the guest.
    pub config_id: [u8; 48],
    /// The guest can be read by the host.
    pub debug: bool,
    /// What the guest wants signed.
    pub report_data: [u8; 64],
}

impl Default for TdxReport {
    /// Zeros everywhere: not a debug guest.
    fn default() -> Self {
        Self {
            mr_td: [0; 48],
            rtmr: [[0; 48]; 4],
            config_id: [0; 48],
            debug: false,
            report_data: [0; 64],
        }
    }
}
