//! The cast of these tests: a key service, a certified worker, one answer.

use bield_envelope::{Digest, Secret, Seeded, Signed, SigningKey, Time};
use bield_evidence::{
    HardeningDemand, HardeningStatement, Measurement, Protection, Reference, TeeKind,
};
use bield_receipt::{
    Anchor, CERTIFICATE_TIME_MAX, Expected, ExpectedOutput, Receipt, ReceiptBundle,
    WorkerCertificate, output_commitment, service_evidence_digest,
};

pub(crate) const NOON: Time = Time::from_secs(1_800_000_000);
pub(crate) const SALT: [u8; 32] = [0x5a; 32];
pub(crate) const OUTPUT: &[u8] = b"python source";
pub(crate) const SERVICE_EVIDENCE: &[u8] = b"evidence of the key service";

pub(crate) struct Cast {
    pub(crate) service: SigningKey,
    pub(crate) worker: SigningKey,
}

impl Cast {
    pub(crate) fn new() -> Self {
        let mut entropy = Seeded::new(8);
        let mut key = || SigningKey::from_seed(Secret::generate(&mut entropy));
        Self {
            service: key(),
            worker: key(),
        }
    }

    pub(crate) fn certificate(&self) -> WorkerCertificate {
        WorkerCertificate {
            worker: self.worker.principal(),
            code: code(0xc0),
            simulated: true,
            not_before: NOON,
            not_after: NOON.plus(CERTIFICATE_TIME_MAX),
            service: self.service.principal(),
            service_evidence: Some(service_evidence_digest(SERVICE_EVIDENCE)),
            hardening: HardeningStatement::new(HardeningDemand::GUEST, [Protection::LockedMemory]),
        }
    }

    pub(crate) fn receipt(&self) -> Receipt {
        Receipt {
            request: digest(b"request"),
            package: digest(b"package"),
            code: code(0xc0),
            grant: digest(b"grant"),
            output: output_commitment(&SALT, OUTPUT),
            at: NOON,
            head: None,
            simulated: true,
        }
    }

    pub(crate) fn bundle(&self) -> ReceiptBundle {
        self.bundle_of(self.certificate(), self.receipt())
    }

    pub(crate) fn bundle_with_evidence(&self) -> ReceiptBundle {
        ReceiptBundle {
            service_evidence: Some(SERVICE_EVIDENCE.to_vec()),
            ..self.bundle()
        }
    }

    pub(crate) fn bundle_of(
        &self,
        certificate: WorkerCertificate,
        receipt: Receipt,
    ) -> ReceiptBundle {
        ReceiptBundle {
            receipt: Signed::sign(&self.worker, receipt).into_signed(),
            certificate: Signed::sign(&self.service, certificate).into_signed(),
            service_evidence: None,
        }
    }

    /// A reader who knows everything and allows the software TEE.
    pub(crate) fn anchor(&self) -> Anchor {
        Anchor {
            service: self.service.principal(),
            code: Reference::Listed(vec![code(0xc0)]),
            allow_simulated: true,
            hardening: HardeningDemand::exactly(HardeningDemand::GUEST),
        }
    }

    pub(crate) fn expected(&self) -> Expected<'static> {
        Expected {
            request: Some(digest(b"request")),
            package: Some(digest(b"package")),
            output: Some(ExpectedOutput {
                salt: &SALT,
                output: OUTPUT,
            }),
        }
    }

    pub(crate) fn now(&self) -> Time {
        NOON.plus(CERTIFICATE_TIME_MAX * 24 * 365)
    }
}

pub(crate) fn code(byte: u8) -> Measurement {
    Measurement::new(TeeKind::Sgx, &[byte; 32]).unwrap()
}

pub(crate) fn digest(name: &[u8]) -> Digest {
    Digest::of("bield test vector v1", &[name])
}
