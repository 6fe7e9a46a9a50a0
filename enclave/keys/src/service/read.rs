//! What changes nothing, answered from the state.
//!
//! Certificates need no entry in the log: they repeat what fresh evidence proved in this very session, they end
//! within the hour, and nothing is remembered of them. A clone of the service could sign them too, but only for
//! code that proved itself to it; who may do what is decided elsewhere (a lease, a capsule's configuration).

use std::sync::Arc;

use bield_capsule::{CapsuleName, WriterCertificate, WriterId};
use bield_envelope::{Principal, Signed, SigningKey, Time, wire};
use bield_evidence::Appraised;
use bield_grant::CodeSelector;
use bield_protocol::refusal::Refusal;
use bield_protocol::service::{Listing, PackageReference, Reply};
use bield_receipt::{CERTIFICATE_BACKDATE, CERTIFICATE_TIME_MAX, WorkerCertificate};

use crate::state::State;

/// A question that changes nothing.
pub enum Read {
    /// The key to seal to.
    KeyConfiguration(PackageReference, CodeSelector),
    /// What the signer has here.
    List(Principal, Listing),
    /// The signer's recovery share.
    Share(Principal),
    /// A certificate for a runtime's signing key.
    Certify {
        /// The runtime's evidence.
        appraised: Arc<Appraised>,
        /// Its key.
        worker: Principal,
    },
    /// A certificate for a capsule writer's key.
    CertifyWriter {
        /// The program's evidence.
        appraised: Arc<Appraised>,
        /// The capsule.
        capsule: CapsuleName,
        /// The writer's key.
        writer: WriterId,
    },
}

/// Answers a question. What it shows may not be durable yet: say it when it is.
///
/// # Errors
/// Why not, and whose move it is.
pub fn read(state: &State, question: &Read, now: Time) -> Result<Reply, Refusal> {
    Ok(match question {
        Read::KeyConfiguration(package, code) => {
            Reply::KeyConfiguration(state.key_configuration(package, code, now)?)
        }
        Read::List(by, listing) => Reply::Listing(state.list(*by, listing, now)?),
        Read::Share(by) => Reply::Share(state.take_share(*by)?),
        Read::Certify { appraised, worker } => {
            Reply::Certificate(certify(&state.identity(), appraised, *worker, now))
        }
        Read::CertifyWriter {
            appraised,
            capsule,
            writer,
        } => {
            let identity = state.identity();
            Reply::WriterCertificate(certify_writer(&identity, appraised, *capsule, *writer, now))
        }
    })
}

fn certify(
    identity: &SigningKey,
    appraised: &Appraised,
    worker: Principal,
    now: Time,
) -> Signed<WorkerCertificate> {
    let service = identity.principal();
    let certificate = WorkerCertificate::for_worker(worker, appraised, service, None, now);
    Signed::sign(identity, certificate).into_signed()
}

/// Says which code holds a capsule writer's key, and nothing about whether that code may write:
/// the capsule's configuration names this service and the codes it counts (`spec/06 §5`, 0 and 12).
fn certify_writer(
    identity: &SigningKey,
    appraised: &Appraised,
    capsule: CapsuleName,
    writer: WriterId,
    now: Time,
) -> Signed<WriterCertificate> {
    let not_before = now.minus(CERTIFICATE_BACKDATE);
    let certificate = WriterCertificate {
        capsule,
        writer,
        code: Some(wire::encode(appraised.measurement())),
        simulated: appraised.simulated(),
        not_before,
        not_after: not_before.plus(CERTIFICATE_TIME_MAX),
    };
    Signed::sign(identity, certificate).into_signed()
}
