//! The cast of this crate's tests: a service at its desk, principals, packages, runtimes with evidence.
//!
//! Every scene ends by comparing the state that lived with the one replayed from its log and the one
//! read from its snapshot, byte for byte.

use core::time::Duration;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use bield_envelope::{Digest, Principal, Secret, Signed, SigningKey, Time, Verified};
use bield_evidence::{
    Appraised, Evidence, Measurement, Policy, Reference, Roots, TeeKind, appraise, canonical_dcap,
    claims_report_data, verify,
};
use bield_grant::{
    CodeSelector, CodeSigner, Grant, Group, Isolation, PackageSelector, Succeeded, Succession,
    UserSelector,
};
use bield_package::{PackageHeader, Suite};
use bield_protocol::service::{
    AuditPage, Command, KeyConfiguration, LeaseRequest, LeasedKeys, Listing, ListingPage,
    Operation, PackageOffer, PackageReference, Reply, Request, Returned, key_commitment,
};
use bield_software_tee::{CollateralOptions, Kind, Options, Platform, SgxReport};

use super::{Conversation, Desk};
use crate::state::{Limits, RecoveryLimits, State};

/// When every story begins.
pub(crate) const NOON: Time = Time::from_secs(1_795_000_000);
pub(crate) const HOUR: Duration = Duration::from_secs(3600);
pub(crate) const MINUTE: Duration = Duration::from_secs(60);
/// The signer of all code in these stories.
pub(crate) const SIGNER: [u8; 32] = [3; 32];

pub(crate) fn key(number: u8) -> SigningKey {
    SigningKey::from_seed(Secret::from_bytes([number; 32]))
}

pub(crate) fn principal(number: u8) -> Principal {
    key(number).principal()
}

/// Code `number`, of [`SIGNER`], with that number as its security version.
pub(crate) fn code(number: u8) -> Measurement {
    Measurement::new(TeeKind::Sgx, &[number; 32]).unwrap()
}

pub(crate) fn root() -> Secret {
    Secret::from_bytes([42; 32])
}

/// Principal 99 administers, and may share with 1 to 3 and let code join.
pub(crate) fn limits() -> Limits {
    Limits {
        lease_secs: 600,
        administrators: vec![principal(99)],
        recovery: Some(RecoveryLimits {
            holders: (1..=3).map(principal).collect(),
            threshold_min: 2,
        }),
        admits_code: true,
    }
}

/// Evidence of a runtime with code `number`.
pub(crate) fn appraised(number: u8) -> Arc<Appraised> {
    static MADE: Mutex<BTreeMap<u8, Arc<Appraised>>> = Mutex::new(BTreeMap::new());
    let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    Arc::clone(
        made.entry(number)
            .or_insert_with(|| appraise_runtime(number)),
    )
}

fn appraise_runtime(number: u8) -> Arc<Appraised> {
    let platform = Platform::generate(Options::seeded([4; 32], NOON)).unwrap();
    let claims_buffer = b"claims".to_vec();
    let report = SgxReport {
        measurement: [number; 32],
        signer: SIGNER,
        svn: u16::from(number),
        report_data: claims_report_data(&claims_buffer),
        ..SgxReport::default()
    };
    let collateral = platform
        .collateral(Kind::Sgx, &CollateralOptions::at(NOON))
        .unwrap();
    let evidence = Evidence {
        claims_buffer,
        ..canonical_dcap(&platform.sgx_quote(&report), &collateral).unwrap()
    };
    let roots = Roots::none().with_simulated_dcap(platform.root_der().to_vec());
    let claims = verify(&evidence, &roots, NOON).unwrap();
    let appraisal = appraise(&claims, &Policy::dev(Reference::Deferred), NOON);
    Arc::new(appraisal.admit(claims).unwrap())
}

/// A package of `owner`.
pub(crate) fn header(owner: &SigningKey, name: &str, version: &str) -> Verified<PackageHeader> {
    let header = PackageHeader {
        id: Digest::of("test package", &[name.as_bytes(), version.as_bytes()]),
        suite: Suite::Aes256Gcm,
        name: name.parse().unwrap(),
        version: version.parse().unwrap(),
        owner: owner.principal(),
        manifest_bytes: 100,
        manifest: Digest::of("test manifest", &[]),
        chunk_bytes: 1 << 20,
        chunk_count: 1,
        model_bytes: 1000,
    };
    Signed::sign(owner, header)
}

pub(crate) fn offer(header: &Verified<PackageHeader>, key: u8) -> Operation {
    Operation::PutPackage(PackageOffer {
        header: header.as_signed().clone(),
        inputs: Vec::new(),
        outputs: Vec::new(),
        key: key_commitment(&Secret::from_bytes([key; 32])),
    })
}

/// User 2 may use this package in code 5, from a minute before noon to an hour after.
pub(crate) fn grant(id: u8, package: Digest) -> Grant {
    Grant {
        id: [id; 16],
        package: PackageSelector::Digest(package),
        user: UserSelector::Principal(principal(2)),
        code: CodeSelector::Measurement(code(5)),
        isolation: Isolation::Shared,
        not_before: NOON.minus(MINUTE),
        not_after: NOON.plus(HOUR),
        requests: None,
    }
}

/// What [`SIGNER`] released from this version on.
pub(crate) fn signed_code(svn_min: u32) -> CodeSelector {
    CodeSelector::Signed(CodeSigner::new(TeeKind::Sgx, &SIGNER, None, svn_min).unwrap())
}

pub(crate) fn group(by: &SigningKey, name: &str, revision: u64, members: &[u8]) -> Signed<Group> {
    let members = members.iter().map(|member| principal(*member)).collect();
    let group = Group::new(name.parse().unwrap(), revision, members).unwrap();
    Signed::sign(by, group).into_signed()
}

pub(crate) fn succession(from: &SigningKey, to: &SigningKey, at: Time) -> Succeeded {
    let says = Succession {
        from: from.principal(),
        to: to.principal(),
        at,
    };
    Succeeded {
        by_old: Signed::sign(from, says.clone()).into_signed(),
        by_new: Signed::sign(to, says).into_signed(),
    }
}

/// A service, its clock, and one session of somebody who proved nothing.
pub(crate) struct Scene {
    pub(crate) desk: Desk,
    pub(crate) now: Time,
    pub(crate) session: Conversation,
}

impl Scene {
    pub(crate) fn new() -> Self {
        Self {
            desk: Desk::new(root(), limits()),
            now: NOON,
            session: Conversation {
                runtime: None,
                binding: [7; 32],
                sequence: 0,
            },
        }
    }

    /// Owner 1 with package `shelter` 1.0.0, whose key is nines.
    pub(crate) fn with_package() -> (Self, Digest) {
        let mut scene = Self::new();
        let owner = key(1);
        scene.order(&owner, Operation::Register).unwrap();
        let package = scene.put(&owner, "shelter", "1.0.0").unwrap();
        (scene, package)
    }

    pub(crate) fn answer(&mut self, request: Request) -> Result<Reply, String> {
        match self.desk.answer(&mut self.session, request, self.now) {
            Reply::Refused(refusal) => Err(refusal.code),
            reply => Ok(reply),
        }
    }

    pub(crate) fn sign(&self, by: &SigningKey, operation: Operation) -> Signed<Command> {
        let command = Command {
            session: self.session.binding,
            sequence: self.session.sequence,
            operation,
        };
        Signed::sign(by, command).into_signed()
    }

    pub(crate) fn order(&mut self, by: &SigningKey, operation: Operation) -> Result<Reply, String> {
        let command = self.sign(by, operation);
        self.answer(Request::Command(command))
    }

    /// Orders, and tells whether anything was written into the log.
    pub(crate) fn changes(
        &mut self,
        by: &SigningKey,
        operation: Operation,
    ) -> Result<bool, String> {
        let before = self.size();
        match self.order(by, operation)? {
            Reply::Done(size) => {
                assert_eq!(size, self.size());
                Ok(size > before)
            }
            _ => panic!("no change"),
        }
    }

    fn size(&self) -> u64 {
        self.desk.size()
    }

    pub(crate) fn put_header(
        &mut self,
        by: &SigningKey,
        header: &Verified<PackageHeader>,
        package_key: u8,
    ) -> Result<Digest, String> {
        let command = self.sign(by, offer(header, package_key));
        self.answer(Request::PutPackage(
            command,
            Secret::from_bytes([package_key; 32]),
        ))?;
        Ok(PackageHeader::package(header))
    }

    pub(crate) fn put(
        &mut self,
        by: &SigningKey,
        name: &str,
        version: &str,
    ) -> Result<Digest, String> {
        let header = header(by, name, version);
        self.put_header(by, &header, 9)
    }

    pub(crate) fn grant(
        &mut self,
        by: &SigningKey,
        grant: Grant,
    ) -> Result<Verified<Grant>, String> {
        let grant = Signed::sign(by, grant);
        self.order(by, Operation::Grant(grant.as_signed().clone()))?;
        Ok(grant)
    }

    pub(crate) fn lease(&mut self, runtime: u8, package: Digest) -> Result<LeasedKeys, String> {
        self.lease_returning(runtime, package, None)
    }

    pub(crate) fn lease_returning(
        &mut self,
        runtime: u8,
        package: Digest,
        returned: Option<Returned>,
    ) -> Result<LeasedKeys, String> {
        let request = Request::Lease(LeaseRequest { package, returned });
        match self.as_runtime(runtime, request)? {
            Reply::Lease(leased) => Ok(leased),
            _ => panic!("no lease"),
        }
    }

    /// Asks in a session of a runtime.
    pub(crate) fn as_runtime(&mut self, runtime: u8, request: Request) -> Result<Reply, String> {
        let mut session = Conversation {
            runtime: Some(appraised(runtime)),
            binding: [8; 32],
            sequence: 0,
        };
        match self.desk.answer(&mut session, request, self.now) {
            Reply::Refused(refusal) => Err(refusal.code),
            reply => Ok(reply),
        }
    }

    pub(crate) fn find(
        &mut self,
        reference: PackageReference,
        choice: CodeSelector,
    ) -> Result<KeyConfiguration, String> {
        match self.answer(Request::KeyConfiguration(reference, choice))? {
            Reply::KeyConfiguration(found) => Ok(found),
            _ => panic!("no key configuration"),
        }
    }

    pub(crate) fn list(
        &mut self,
        by: &SigningKey,
        listing: Listing,
    ) -> Result<ListingPage, String> {
        match self.order(by, Operation::List(listing))? {
            Reply::Listing(page) => Ok(page),
            _ => panic!("no listing"),
        }
    }

    pub(crate) fn audit(&mut self, by: &SigningKey, from: u64) -> Result<AuditPage, String> {
        match self.order(by, Operation::Audit { from })? {
            Reply::Audit(page) => Ok(page),
            _ => panic!("no audit"),
        }
    }

    /// The state that lived is the one that is replayed, and the one that a snapshot brings back.
    pub(crate) fn is_repeated(&self) {
        let lived = self.desk.state().to_bytes();
        let replayed = self.desk.replayed(root(), limits()).unwrap();
        assert!(*replayed.to_bytes() == *lived, "a replay differs");
        let read = State::decode(&lived, root(), limits()).unwrap();
        assert!(*read.to_bytes() == *lived, "a snapshot differs");
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.is_repeated();
        }
    }
}
