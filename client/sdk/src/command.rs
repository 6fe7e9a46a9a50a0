//! What people order: statements signed by their principal, bound to one session and one place in it.
//!
//! So a key service can show them later as their principal's will, and nobody can replay one, move it to
//! another session or swap the secret that travels beside it: the statement commits to that.
//!
//! Each order returns the size of the log that contains it: acknowledged means durable. When the session
//! ends ([`KeyService::close`]) the home's head contains it too, so a service that lost it is found out.

use bield_envelope::{Digest, Principal, Secret, Signed, SigningKey, Time, Verified};
use bield_evidence::Measurement;
use bield_grant::{Grant, Group, GroupName, Succession, VerifiedSuccession};
use bield_package::{PackageHeader, PackageKey};
use bield_protocol::service::{
    GrantId, Operation, PackageOffer, REVOKED_AT_ONCE_MAX, Reply, Request, key_commitment,
};
use bield_protocol::tensor::TensorSpec;

use crate::{KeyService, ServiceError};

impl KeyService<'_> {
    /// Makes `owner` known to the service.
    ///
    /// # Errors
    /// The session broke, or the service refuses.
    pub fn register(&mut self, owner: &SigningKey) -> Result<u64, ServiceError> {
        self.order(owner, Operation::Register)
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
    ) -> Result<u64, ServiceError> {
        let offer = PackageOffer {
            header,
            inputs,
            outputs,
            key: key_commitment(key.seed()),
        };
        let command = self.wire.command(owner, Operation::PutPackage(offer));
        let key = Secret::from_bytes(*key.seed().expose());
        self.done(&Request::PutPackage(command, key))
    }

    /// Registers a grant that `owner` signed.
    ///
    /// # Errors
    /// The session broke, or the service refuses.
    pub fn grant(
        &mut self,
        owner: &SigningKey,
        grant: &Verified<Grant>,
    ) -> Result<u64, ServiceError> {
        self.order(owner, Operation::Grant(grant.as_signed().clone()))
    }

    /// Ends grants of `owner`: all or none of each [`REVOKED_AT_ONCE_MAX`]. Runtimes that hold a lease
    /// learn of it when they renew it, at the latest when it ends ([`Inspection`](crate::Inspection)).
    ///
    /// # Errors
    /// The session broke, or the service refuses.
    pub fn revoke(&mut self, owner: &SigningKey, ids: &[GrantId]) -> Result<u64, ServiceError> {
        let mut size = 0;
        for ids in ids.chunks(REVOKED_AT_ONCE_MAX) {
            size = self.order(owner, Operation::Revoke(ids.to_vec()))?;
        }
        Ok(size)
    }

    /// Registers a group that `owner` signed, or a newer revision of it.
    ///
    /// # Errors
    /// The session broke, or the service refuses.
    pub fn put_group(
        &mut self,
        owner: &SigningKey,
        group: &Verified<Group>,
    ) -> Result<u64, ServiceError> {
        self.order(owner, Operation::PutGroup(group.as_signed().clone()))
    }

    /// Makes the service forget a group of `owner`: grants to it admit nobody from then on.
    ///
    /// # Errors
    /// The session broke, or the service refuses.
    pub fn delete_group(
        &mut self,
        owner: &SigningKey,
        name: &GroupName,
    ) -> Result<u64, ServiceError> {
        self.order(owner, Operation::DeleteGroup(name.to_string()))
    }

    /// Makes the service forget a package of `owner` with its key, and grants for exactly this package.
    ///
    /// # Errors
    /// The session broke, or the service refuses.
    pub fn delete_package(
        &mut self,
        owner: &SigningKey,
        package: Digest,
    ) -> Result<u64, ServiceError> {
        self.order(owner, Operation::DeletePackage(package))
    }

    /// Replaces the key that requests for a package of `owner` are sealed to; `at_once` also refuses
    /// requests that were sealed to the one before.
    ///
    /// # Errors
    /// The session broke, or the service refuses.
    pub fn rotate_audience(
        &mut self,
        owner: &SigningKey,
        package: Digest,
        at_once: bool,
    ) -> Result<u64, ServiceError> {
        self.order(owner, Operation::RotateAudience { package, at_once })
    }

    /// Puts `new` in the place of `old`, by the word of both.
    ///
    /// # Errors
    /// The session broke, or the service refuses.
    ///
    /// # Panics
    /// Never for two different keys; one key cannot succeed itself.
    pub fn succeed(
        &mut self,
        old: &SigningKey,
        new: &SigningKey,
        at: Time,
    ) -> Result<u64, ServiceError> {
        let succession = Succession {
            from: old.principal(),
            to: new.principal(),
            at,
        };
        let by_old = Signed::sign(old, succession.clone());
        let by_new = Signed::sign(new, succession);
        let both = VerifiedSuccession::new(by_old, by_new).expect("two keys sign the same");
        self.order(old, Operation::Succeed(both.to_succeeded()))
    }

    /// Makes the service forget `owner`, who must own no package and no group.
    ///
    /// # Errors
    /// The session broke, or the service refuses.
    pub fn unregister(&mut self, owner: &SigningKey) -> Result<u64, ServiceError> {
        self.order(owner, Operation::Unregister)
    }

    /// Administrators: replaces the key that signs workers' certificates.
    ///
    /// # Errors
    /// The session broke, or the service refuses.
    pub fn rotate_identity(&mut self, administrator: &SigningKey) -> Result<u64, ServiceError> {
        self.order(administrator, Operation::RotateIdentity)
    }

    /// Administrators: lets key-service code of another measurement join and receive the state.
    ///
    /// # Errors
    /// The session broke, or the service refuses.
    pub fn admit_code(
        &mut self,
        administrator: &SigningKey,
        code: &Measurement,
    ) -> Result<u64, ServiceError> {
        self.order(administrator, Operation::AdmitCode(code.clone()))
    }

    /// Administrators: takes that back.
    ///
    /// # Errors
    /// The session broke, or the service refuses.
    pub fn withdraw_code(
        &mut self,
        administrator: &SigningKey,
        code: &Measurement,
    ) -> Result<u64, ServiceError> {
        self.order(administrator, Operation::WithdrawCode(code.clone()))
    }

    /// Administrators: shares a new recovery key among `holders`; earlier shares are worth nothing then.
    ///
    /// # Errors
    /// The session broke, or the service refuses.
    pub fn make_shares(
        &mut self,
        administrator: &SigningKey,
        holders: Vec<Principal>,
        threshold: u8,
    ) -> Result<u64, ServiceError> {
        self.order(administrator, Operation::MakeShares { holders, threshold })
    }

    /// Gives an order that carries no secret.
    fn order(&mut self, by: &SigningKey, operation: Operation) -> Result<u64, ServiceError> {
        let command = self.wire.command(by, operation);
        self.done(&Request::Command(command))
    }

    fn done(&mut self, request: &Request) -> Result<u64, ServiceError> {
        let answer = self.exchange(request).map_err(|error| match error {
            // The order was on its way.
            ServiceError::Session { address, error } => ServiceError::Unanswered { address, error },
            error => error,
        });
        match answer? {
            Reply::Done(size) => {
                self.acknowledge(size);
                Ok(size)
            }
            _ => Err(ServiceError::OtherAnswer),
        }
    }

    /// Asks something that only its principal may know.
    pub(crate) fn question(
        &mut self,
        by: &SigningKey,
        operation: Operation,
    ) -> Result<Reply, ServiceError> {
        let command = self.wire.command(by, operation);
        self.exchange(&Request::Command(command))
    }
}
