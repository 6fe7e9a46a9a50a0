//! The cast of these tests: a key service, a certified worker, one answer.

use bield_capsule::{CapsuleName, Head, WriterId};
use bield_envelope::{Digest, Secret, Seeded, Signed, SigningKey, Time};
use bield_evidence::{
    HardeningDemand, HardeningStatement, Measurement, Protection, Reference, TeeKind,
};
use bield_receipt::{
    Anchor, CERTIFICATE_TIME_MAX, Expected, ExpectedOutput, Receipt, ReceiptBundle, StateHeads,
    StateSpan, WorkerCertificate, output_commitment, service_evidence_digest,
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
            state: None,
            simulated: true,
        }
    }

    /// The receipt of a function that wrote.
    pub(crate) fn receipt_on_state(&self) -> Receipt {
        Receipt {
            state: Some(StateSpan {
                capsule: CAPSULE,
                before: before().digest(),
                after: after().digest(),
            }),
            ..self.receipt()
        }
    }

    pub(crate) fn bundle_on_state(&self) -> ReceiptBundle {
        ReceiptBundle {
            state: Some(after()),
            ..self.bundle_of(self.certificate(), self.receipt_on_state())
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
        ReceiptBundle::new(
            Signed::sign(&self.worker, receipt).into_signed(),
            Signed::sign(&self.service, certificate).into_signed(),
            None,
        )
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
            ..Expected::default()
        }
    }

    pub(crate) fn now(&self) -> Time {
        NOON.plus(CERTIFICATE_TIME_MAX * 24 * 365)
    }
}

pub(crate) const CAPSULE: CapsuleName = CapsuleName::from_bytes([0xca; 32]);

pub(crate) fn head(writer: u8, seq: u64) -> Head {
    Head {
        writer: WriterId::from_bytes([writer; 32]),
        seq,
        hash: Digest::of("bield test vector v1", &[&[writer], &seq.to_be_bytes()]),
    }
}

pub(crate) fn heads(of: &[(u8, u64)]) -> StateHeads {
    let heads = of.iter().map(|(writer, seq)| head(*writer, *seq));
    StateHeads::new(heads.collect()).unwrap()
}

/// What the function found.
pub(crate) fn before() -> StateHeads {
    heads(&[(1, 7), (2, 3)])
}

/// What it left: two records more.
pub(crate) fn after() -> StateHeads {
    heads(&[(1, 7), (2, 5)])
}

pub(crate) fn code(byte: u8) -> Measurement {
    Measurement::new(TeeKind::Sgx, &[byte; 32]).unwrap()
}

pub(crate) fn digest(name: &[u8]) -> Digest {
    Digest::of("bield test vector v1", &[name])
}
