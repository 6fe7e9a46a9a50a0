//! What a proof is a proof *of*: this TLS session, these two ends, in these roles.
//!
//! ```text
//! H = SHA-512( LP(label) LP(version) LP(prover side) LP(prover role) LP(verifier role)
//!              LP(TLS exporter) LP(connector hello) LP(acceptor hello)
//!              LP(prover key) LP(verifier key) LP(prover's service) LP(prover's hardening) )
//! ```
//!
//! Each part is preceded by its length as u64 big endian, so no two inputs share bytes. The exporter
//! stops relay (a man in the middle has other sessions); side, roles and the order of keys stop
//! reflection; the service stops diversion; the hardening is there because a fresh quote covers nothing else of
//! the claims; the hellos, which carry both nonces, stop replay and any change to what was asked for. spec/03 §4.

use bield_envelope::Principal;
use bield_evidence::HardeningStatement;
use sha2::{Digest as _, Sha512};

use crate::{Role, Side};

/// The inputs of H, from the prover's point of view.
#[derive(Debug, Clone, Copy)]
pub struct Binding<'a> {
    /// The side of the end that proves.
    pub side: Side,
    /// The role of the end that proves.
    pub prover: Role,
    /// The role of the end that checks.
    pub verifier: Role,
    /// TLS exporter (RFC 8446 §7.5) under [`GATE_EXPORTER_LABEL`] with context = both nonces.
    pub exporter: &'a [u8; 32],
    /// The hello of the end that opened the connection, as sent.
    pub connector_hello: &'a [u8],
    /// The hello of the end that accepted it, as sent.
    pub acceptor_hello: &'a [u8],
    /// SubjectPublicKeyInfo of the prover's certificate.
    pub prover_key: &'a [u8],
    /// SubjectPublicKeyInfo of the verifier's certificate; empty when it has none.
    pub verifier_key: &'a [u8],
    /// The service identity of the prover's claims; empty when it has none.
    pub service: Option<&'a Principal>,
    /// What the prover's claims state of its process.
    pub hardening: &'a HardeningStatement,
}

impl Binding<'_> {
    /// H: report data of a fresh quote, and what a cached identity signs.
    #[must_use]
    pub fn digest(&self) -> [u8; 64] {
        let hardening = self.hardening.encode();
        let parts: [&[u8]; 12] = [
            LABEL,
            &VERSION.to_be_bytes(),
            self.side.name().as_bytes(),
            self.prover.name().as_bytes(),
            self.verifier.name().as_bytes(),
            self.exporter,
            self.connector_hello,
            self.acceptor_hello,
            self.prover_key,
            self.verifier_key,
            self.service.map_or(&[][..], |service| service.as_bytes()),
            &hardening,
        ];
        let mut hash = Sha512::new();
        for part in parts {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        hash.finalize().into()
    }
}

/// The bytes under a Bind's signature; the prefix keeps them apart from TLS and X.509 signatures.
#[must_use]
pub fn signed_bytes(digest: &[u8; 64]) -> Vec<u8> {
    [SIGNATURE_PREFIX, digest].concat()
}

/// Label of the TLS exporter that goes into H.
pub const GATE_EXPORTER_LABEL: &str = "EXPORTER-bield-session-gate-v1";
/// Label of the TLS exporter handed out by `Session::binding`.
pub const BINDING_EXPORTER_LABEL: &str = "EXPORTER-bield-session-binding-v1";

const LABEL: &[u8] = b"bield session bind";
const VERSION: u32 = 2;
const SIGNATURE_PREFIX: &[u8] = b"bield session bind signature v1";
