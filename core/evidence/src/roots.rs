//! The certificates evidence may lead to, and which of them stand for no hardware.
//!
//! "Simulated" is decided here and nowhere else: by the root that validated the evidence, never by a
//! field the evidence carries (spec/02 §5). Certificates and their provenance: `roots/README.md`.

use bield_envelope::Digest;

/// Trust anchors for verification.
#[derive(Clone)]
pub struct Roots {
    dcap: Vec<Root>,
    amd: Vec<Root>,
}

/// One trusted self-signed certificate.
#[derive(Clone)]
pub(crate) struct Root {
    pub(crate) der: Vec<u8>,
    pub(crate) simulated: bool,
}

impl Roots {
    /// The CPU vendors' roots: Intel SGX root, AMD ARKs of Milan, Genoa and Turin.
    #[must_use]
    pub fn vendor() -> Self {
        Self {
            dcap: vec![Root::vendor(include_bytes!("../roots/intel-sgx.der"))],
            amd: vec![
                Root::vendor(include_bytes!("../roots/ark-milan.der")),
                Root::vendor(include_bytes!("../roots/ark-genoa.der")),
                Root::vendor(include_bytes!("../roots/ark-turin.der")),
            ],
        }
    }

    /// No root at all: every piece of evidence is refused.
    #[must_use]
    pub const fn none() -> Self {
        Self {
            dcap: Vec::new(),
            amd: Vec::new(),
        }
    }

    /// Adds the root of a software TEE (DER); what it validates is marked simulated.
    ///
    /// A certificate that is also a vendor's stays the vendor's: the first match decides.
    #[must_use]
    pub fn with_simulated_dcap(mut self, der: Vec<u8>) -> Self {
        self.dcap.push(Root::simulated(der));
        self
    }

    /// Adds a simulated AMD root key (DER), for tests that build their own chain.
    #[must_use]
    pub fn with_simulated_snp(mut self, der: Vec<u8>) -> Self {
        self.amd.push(Root::simulated(der));
        self
    }

    /// The DCAP root with exactly these bytes.
    pub(crate) fn dcap(&self, der: &[u8]) -> Option<&Root> {
        self.dcap.iter().find(|root| root.der == der)
    }

    /// All AMD roots.
    pub(crate) fn amd(&self) -> &[Root] {
        &self.amd
    }
}

impl Root {
    fn vendor(der: &[u8]) -> Self {
        Self {
            der: der.to_vec(),
            simulated: false,
        }
    }

    const fn simulated(der: Vec<u8>) -> Self {
        Self {
            der,
            simulated: true,
        }
    }

    pub(crate) fn digest(&self) -> Digest {
        root_digest(&self.der)
    }
}

/// The name of a root in claims and refusals: a digest of its certificate.
#[must_use]
pub fn root_digest(der: &[u8]) -> Digest {
    Digest::of("bield evidence root v1", &[der])
}
