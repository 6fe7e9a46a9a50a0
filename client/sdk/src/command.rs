//! What an owner orders: statements signed by the owner, bound to one session and one place in it.
//!
//! So a key service can show them later as the owner's will, and nobody can replay one, move it to
//! another session or swap its key: the statement commits to the key that travels beside it.

use bield_envelope::{Secret, Signed, SigningKey, Verified};
use bield_grant::Grant;
use bield_package::{PackageHeader, PackageKey};
use bield_protocol::service::{Command, Operation, PackageOffer, Reply, Request, key_commitment};
use bield_protocol::tensor::TensorSpec;

use crate::{KeyService, ServiceError};

impl KeyService<'_> {
    /// Makes `owner` known to the service.
    ///
    /// # Errors
    /// The session broke, or the service refuses.
    pub fn register(&mut self, owner: &SigningKey) -> Result<(), ServiceError> {
        let command = self.command(owner, Operation::Register);
        self.order(&Request::Command(command))
    }

    /// Registers a package of `owner` with its key.
    ///
    /// # Errors
    /// The session broke, or the service refuses.
    pub fn put_package(
        &mut self,
        owner: &SigningKey,
        header: Signed<PackageHeader>,
        inputs: Vec<TensorSpec>,
        outputs: Vec<TensorSpec>,
        key: &PackageKey,
    ) -> Result<(), ServiceError> {
        let commitment = key_commitment(key.seed());
        let offer = PackageOffer {
            header,
            inputs,
            outputs,
            key: commitment,
        };
        let command = self.command(owner, Operation::PutPackage(offer));
        let key = Secret::from_bytes(*key.seed().expose());
        self.order(&Request::PutPackage(command, key))
    }

    /// Registers a grant that `owner` signed.
    ///
    /// # Errors
    /// The session broke, or the service refuses.
    pub fn grant(
        &mut self,
        owner: &SigningKey,
        grant: &Verified<Grant>,
    ) -> Result<(), ServiceError> {
        let command = self.command(owner, Operation::Grant(grant.as_signed().clone()));
        self.order(&Request::Command(command))
    }

    fn command(&mut self, owner: &SigningKey, operation: Operation) -> Signed<Command> {
        let sequence = self.sequence;
        self.sequence += 1;
        let command = Command {
            session: self.binding(),
            sequence,
            operation,
        };
        Signed::sign(owner, command).into_signed()
    }

    fn order(&mut self, request: &Request) -> Result<(), ServiceError> {
        match self.exchange(request)? {
            Reply::Done => Ok(()),
            _ => Err(ServiceError::OtherAnswer),
        }
    }
}
