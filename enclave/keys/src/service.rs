//! One message in, one reply out: who may ask what, and what is made durable before it is said.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bield_capsule::{CapsuleName, WriterCertificate, WriterId};
use bield_envelope::{Digest, Principal, Secret, Signed, SigningKey, Time, wire};
use bield_evidence::{Appraised, Measurement};
use bield_grant::{Admitted, Lease, Revocations, admit_lease, audience};
use bield_protocol::refusal::{Refusal, Retry};
use bield_protocol::service::{
    Command, Inspection, KeyConfiguration, LeasedKeys, Operation, PackageReference, Reply, Request,
    key_commitment,
};
use bield_receipt::{CERTIFICATE_BACKDATE, CERTIFICATE_TIME_MAX, WorkerCertificate};
use rand_core::CryptoRng;

use crate::state::{Change, STATE_BYTES_MAX, State};
use crate::store::{Store, StoreError};

/// How long a published audience key may be sealed to before a client must ask again: one hour.
pub const KEY_CONFIGURATION_SECS: u64 = 3600;

/// The most bytes of a package's tensor specs, encoded: a hundred tensors of a hundred bytes, thrice.
pub const SPECS_BYTES_MAX: usize = 32 << 10;

/// The key service, shared by all sessions.
pub struct Service {
    state: Mutex<State>,
    /// Held while a change is made durable; the state itself is free for readers meanwhile.
    changing: Mutex<()>,
    state_bytes_max: usize,
    identity: SigningKey,
    store: Box<dyn Store>,
}

/// What one session is: who the peer is, which commands came already.
pub(crate) struct Conversation<'a> {
    /// The runtime's appraised evidence; `None` for anybody else.
    pub(crate) runtime: Option<&'a Appraised>,
    /// Names this session in commands.
    pub(crate) binding: [u8; 32],
    /// Commands so far.
    pub(crate) sequence: u64,
}

impl Service {
    /// Loads the state, or begins one and makes it durable.
    ///
    /// # Errors
    /// The state cannot be loaded or saved.
    pub fn start(store: Box<dyn Store>, entropy: &mut impl CryptoRng) -> Result<Self, StoreError> {
        let state = match store.load()? {
            Some(bytes) => State::decode(&bytes).ok_or(StoreError::Altered)?,
            None => {
                let state = State::new(entropy);
                store.save(&state.encode())?;
                state
            }
        };
        Ok(Self {
            identity: state.identity(),
            state: Mutex::new(state),
            changing: Mutex::new(()),
            state_bytes_max: STATE_BYTES_MAX,
            store,
        })
    }

    /// Who signs workers' certificates.
    #[must_use]
    pub fn principal(&self) -> Principal {
        self.identity.principal()
    }

    /// Answers one message of a conversation.
    pub(crate) fn answer(&self, with: &mut Conversation<'_>, request: Request, now: Time) -> Reply {
        let outcome = match request {
            Request::Command(command) => self.command(with, command, None, now),
            Request::PutPackage(command, key) => self.command(with, command, Some(key), now),
            Request::KeyConfiguration(package, code) => self
                .key_configuration(&package, code, now)
                .map(Reply::KeyConfiguration),
            Request::Lease(package) => self.lease(with, package, now).map(Reply::Lease),
            Request::Certify(worker) => self.certify(with, worker, now).map(Reply::Certificate),
            Request::CertifyWriter(capsule, writer) => self
                .certify_writer(with, capsule, writer, now)
                .map(Reply::WriterCertificate),
            Request::Inspect => Ok(Reply::Inspection(self.inspect())),
            _ => Err(Refusal::new(
                "unsupported",
                "a question of another version",
                Retry::Never,
            )),
        };
        outcome.unwrap_or_else(Reply::Refused)
    }

    fn command(
        &self,
        with: &mut Conversation<'_>,
        command: Signed<Command>,
        key: Option<Secret>,
        now: Time,
    ) -> Result<Reply, Refusal> {
        let command = command
            .verify_claimed()
            .map_err(|error| invalid("command", &error))?;
        if command.session != with.binding || command.sequence != with.sequence {
            let message = "the command was signed for another session or another place in it";
            return Err(Refusal::new("replayed", message, Retry::Never));
        }
        with.sequence += 1;
        let by = command.signer();
        self.change(by, proposed(by, &command.operation, key)?, now)
    }

    /// Applies a change, makes it durable, then says so; takes it back when it cannot be kept.
    ///
    /// One change at a time, but leases never wait for the host's disk: a grant may count a moment
    /// before it is durable, never before its owner signed it.
    fn change(&self, by: Principal, change: Change, now: Time) -> Result<Reply, Refusal> {
        let _alone = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let (undo, bytes) = {
            let mut state = self.lock();
            let undo = state.apply(by, change, now)?;
            if matches!(undo, crate::Undo::Nothing) {
                return Ok(Reply::Done);
            }
            (undo, state.encode())
        };
        if bytes.len() > self.state_bytes_max {
            self.lock().undo(undo);
            let message = "this key service is full; its operator must make room";
            return Err(Refusal::new("full", message, Retry::AfterChange));
        }
        if let Err(error) = self.store.save(&bytes) {
            self.lock().undo(undo);
            let message = format!(
                "{error}. The change does not count now; if the host kept it all the same, it may \
                 after a restart"
            );
            return Err(Refusal::new("not-durable", message, Retry::After(1000)));
        }
        Ok(Reply::Done)
    }

    fn key_configuration(
        &self,
        package: &PackageReference,
        code: Measurement,
        now: Time,
    ) -> Result<KeyConfiguration, Refusal> {
        let state = self.lock();
        let digest = state.resolve(package)?;
        let package = state.package(digest)?;
        if !package
            .grants
            .iter()
            .any(|grant| grant.code == code && now < grant.not_after)
        {
            let message = format!(
                "no runtime with code {code} is granted for package {digest}; its owner must grant it"
            );
            return Err(Refusal::new(
                "code-not-granted",
                message,
                Retry::AfterChange,
            ));
        }
        Ok(KeyConfiguration {
            audience: audience(digest, &code),
            package: digest,
            key: state.audience_key(digest, &code).public().clone(),
            code,
            not_after: now.plus(core::time::Duration::from_secs(KEY_CONFIGURATION_SECS)),
            owner: package.header.owner,
            name: package.header.name.as_str().to_owned(),
            version: package.header.version.as_str().to_owned(),
            inputs: package.inputs.clone(),
            outputs: package.outputs.clone(),
            service: self.principal(),
        })
    }

    fn lease(
        &self,
        with: &Conversation<'_>,
        package: Digest,
        now: Time,
    ) -> Result<LeasedKeys, Refusal> {
        let appraised = with.runtime.ok_or_else(not_a_runtime)?;
        let state = self.lock();
        let known = state.package(package)?;
        let (owner, revoked) = (known.header.owner, Revocations::new());
        let admitted = admit_lease(appraised, package, owner, &known.grants, &revoked, now)
            .map_err(|refused| Refusal::from(&refused))?;
        leased_keys(&state, admitted, now)
    }

    fn certify(
        &self,
        with: &Conversation<'_>,
        worker: Principal,
        now: Time,
    ) -> Result<Signed<WorkerCertificate>, Refusal> {
        let appraised = with.runtime.ok_or_else(not_a_runtime)?;
        let certificate =
            WorkerCertificate::for_worker(worker, appraised, self.principal(), None, now);
        Ok(Signed::sign(&self.identity, certificate).into_signed())
    }

    /// Says which code holds a capsule writer's key, and nothing about whether that code may write:
    /// the capsule's configuration names this service and the codes it counts (`spec/06 §5`, 0 and 12).
    fn certify_writer(
        &self,
        with: &Conversation<'_>,
        capsule: CapsuleName,
        writer: WriterId,
        now: Time,
    ) -> Result<Signed<WriterCertificate>, Refusal> {
        let appraised = with.runtime.ok_or_else(not_a_runtime)?;
        let not_before = now.minus(CERTIFICATE_BACKDATE);
        let certificate = WriterCertificate {
            capsule,
            writer,
            code: Some(wire::encode(appraised.measurement())),
            simulated: appraised.simulated(),
            not_before,
            not_after: not_before.plus(CERTIFICATE_TIME_MAX),
        };
        Ok(Signed::sign(&self.identity, certificate).into_signed())
    }

    fn inspect(&self) -> Inspection {
        let (principals, packages, grants) = self.lock().counts();
        Inspection {
            principals: principals as u64,
            packages: packages as u64,
            grants: grants as u64,
            service: self.principal(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves the state whole: changes are applied by inserting one checked value.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The only way a key leaves: it takes the admission as an argument.
fn leased_keys(state: &State, admitted: Admitted<Lease>, now: Time) -> Result<LeasedKeys, Refusal> {
    let lease = admitted.into_inner();
    let package = state.package(lease.package)?;
    let revoked = Revocations::new();
    let grants = lease.relevant(&package.grants, &revoked, now);
    Ok(LeasedKeys {
        grants: grants.map(|grant| grant.as_signed().clone()).collect(),
        package_key: Secret::from_bytes(*package.key.expose()),
        audience_key: Secret::from_bytes(
            *state
                .audience_key(lease.package, &lease.code)
                .seed()
                .expose(),
        ),
        issued: now,
        lease,
    })
}

/// Checks what can be checked without the state.
fn proposed(by: Principal, operation: &Operation, key: Option<Secret>) -> Result<Change, Refusal> {
    match (operation, key) {
        (Operation::Register, None) => Ok(Change::Register(by)),
        (Operation::Grant(grant), None) => {
            let grant = grant
                .clone()
                .verify(&by)
                .map_err(|error| invalid("grant", &error))?;
            Ok(Change::Grant(grant))
        }
        (Operation::PutPackage(offer), Some(key)) => {
            let header = offer
                .header
                .clone()
                .verify(&by)
                .map_err(|error| invalid("package header", &error))?;
            if key_commitment(&key) != offer.key {
                let message = "the key beside the command is not the one it commits to";
                return Err(Refusal::new("other-key", message, Retry::Never));
            }
            let (inputs, outputs) = (offer.inputs.clone(), offer.outputs.clone());
            let specs = wire::encode(&inputs).len() + wire::encode(&outputs).len();
            if specs > SPECS_BYTES_MAX {
                let message =
                    format!("{specs} bytes of tensor specs; {SPECS_BYTES_MAX} are allowed");
                return Err(Refusal::new("too-many-tensors", message, Retry::Never));
            }
            Ok(Change::PutPackage {
                header,
                inputs,
                outputs,
                key,
            })
        }
        _ => Err(Refusal::new(
            "malformed",
            "a key where none belongs, or none",
            Retry::Never,
        )),
    }
}

fn invalid(what: &str, error: &dyn core::error::Error) -> Refusal {
    Refusal::new(
        "invalid-signature",
        format!("the {what} does not verify: {error}"),
        Retry::Never,
    )
}

fn not_a_runtime() -> Refusal {
    let message = "only a runtime that proved its code in this session may ask for this";
    Refusal::new("not-a-runtime", message, Retry::Never)
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod writer_tests;
