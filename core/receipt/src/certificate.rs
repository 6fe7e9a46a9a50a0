//! The worker certificate: the key service's word that a signing key lives inside measured code.
//!
//! It spares the reader of a receipt the runtime's evidence and its collateral: the key service
//! appraised them when it leased the keys.

use core::time::Duration;

use bield_envelope::{Digest, Principal, Statement, Time};
use bield_evidence::{Appraised, HardeningStatement, Measurement};
use minicbor::{Decode, Encode};

/// Longest encoded statement in bytes, before signing: under 210 with today's longest
/// measurement (48 bytes) and all of today's protections, and 247 with the longest hardening statement that decodes.
pub const CERTIFICATE_BYTES_MAX: usize = 256;

/// All but the hardening statement: head of the map, 8 keys, 3 times 32 bytes, the longest measurement, a flag, two times.
const REST_BYTES_MAX: usize = 1 + 8 + 3 * (2 + 32) + (1 + 1 + 2 + 48) + 1 + 2 * 9;

// Signing panics above the limit: no runtime may state so much that the key service does.
const _: () = assert!(REST_BYTES_MAX + HardeningStatement::BYTES_MAX <= CERTIFICATE_BYTES_MAX);

/// Longest life of a certificate: a runtime whose platform falls out of favour stops being
/// believed within the hour, without any revocation list.
pub const CERTIFICATE_TIME_MAX: Duration = Duration::from_secs(60 * 60);

/// How far the beginning lies before the time of issue, so that a runtime whose clock is a little
/// behind the key service's can use its certificate at once.
pub const CERTIFICATE_BACKDATE: Duration = Duration::from_secs(60);

/// What the key service says about a runtime's signing key (`spec/08 §2`).
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct WorkerCertificate {
    /// The signing key that the runtime made inside its enclave.
    #[n(0)]
    pub worker: Principal,
    /// The code that holds the key, from its evidence.
    #[n(1)]
    pub code: Measurement,
    /// The evidence came from a software TEE: there is no hardware protection.
    #[n(2)]
    pub simulated: bool,
    /// First moment of the certificate's life.
    #[n(3)]
    pub not_before: Time,
    /// First moment after the certificate's life.
    #[n(4)]
    pub not_after: Time,
    /// The key service that signs; the same as the signer.
    #[n(5)]
    pub service: Principal,
    /// Digest of the key service's own evidence at the time of issue, when it offers any
    /// ([`service_evidence_digest`]).
    #[n(6)]
    pub service_evidence: Option<Digest>,
    /// What the runtime stated of its process under that evidence.
    #[n(7)]
    pub hardening: HardeningStatement,
}

impl Statement for WorkerCertificate {
    const DOMAIN: &'static str = "bield worker certificate v2";
    const BYTES_MAX: usize = CERTIFICATE_BYTES_MAX;
}

impl WorkerCertificate {
    /// Writes the certificate for the runtime whose evidence was appraised, from
    /// [`CERTIFICATE_BACKDATE`] before `now` and [`CERTIFICATE_TIME_MAX`] long.
    ///
    /// Code, hardening and the simulated flag come from the evidence and nowhere else; when nothing was stated,
    /// the certificate says that nothing is in force. The key service
    /// signs the result; that `worker` is held by the appraised peer is for the attested session
    /// to prove.
    pub fn for_worker(
        worker: Principal,
        appraised: &Appraised,
        service: Principal,
        service_evidence: Option<&[u8]>,
        now: Time,
    ) -> Self {
        let not_before = now.minus(CERTIFICATE_BACKDATE);
        Self {
            worker,
            code: appraised.measurement().clone(),
            simulated: appraised.simulated(),
            not_before,
            not_after: not_before.plus(CERTIFICATE_TIME_MAX),
            service,
            service_evidence: service_evidence.map(service_evidence_digest),
            hardening: appraised.claims().hardening.clone().unwrap_or_default(),
        }
    }
}

/// Names the key service's evidence by its bytes.
pub fn service_evidence_digest(evidence: &[u8]) -> Digest {
    Digest::of(SERVICE_EVIDENCE_DOMAIN, &[evidence])
}

const SERVICE_EVIDENCE_DOMAIN: &str = "bield service evidence v1";

#[cfg(test)]
mod tests {
    use bield_envelope::wire;

    use super::*;

    #[test]
    fn the_largest_certificate_is_as_large_as_was_reckoned() {
        let numbers = (0..16_u8).flat_map(|number| [0x18, 0xf0 + number, 0x18, 0xff]);
        let stated: Vec<u8> = [0xb0].into_iter().chain(numbers).collect();
        assert_eq!(stated.len(), HardeningStatement::BYTES_MAX);
        let certificate = WorkerCertificate {
            worker: Principal::from_bytes([1; 32]),
            code: format!("tdx:{}", "ab".repeat(48)).parse().unwrap(),
            simulated: true,
            not_before: Time::from_secs(u64::MAX),
            not_after: Time::from_secs(u64::MAX),
            service: Principal::from_bytes([2; 32]),
            service_evidence: Some(service_evidence_digest(b"evidence")),
            hardening: wire::decode(&stated, stated.len()).unwrap(),
        };
        let bytes = wire::encode(&certificate);
        assert_eq!(bytes.len(), REST_BYTES_MAX + HardeningStatement::BYTES_MAX);
    }
}
