//! The cast of these tests: a service in this process on a disk and a clock of the test's, principals,
//! packages, runtimes with appraised evidence.

#![allow(
    dead_code,
    clippy::allow_attributes,
    clippy::unwrap_used,
    clippy::must_use_candidate,
    reason = "each test file uses its part; a failed unwrap in the cast is a failed test"
)]

use core::time::Duration;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
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
use bield_keys::service::Conversation;
use bield_keys::testing::{InProcess, Options};
use bield_ledger::MemoryFiles;
use bield_package::{PackageHeader, Suite};
use bield_protocol::service::{
    AuditPage, Command, Freshness, GrantId, Inspection, KeyConfiguration, LeaseRequest, LeasedKeys,
    Listing, ListingPage, Operation, PackageOffer, PackageReference, Reply, Request, Returned,
    key_commitment,
};
use bield_software_tee::{
    CollateralOptions, Kind, Options as PlatformOptions, Platform, SgxReport,
};

/// When every story begins.
pub(crate) const NOON: Time = Time::from_secs(1_795_000_000);
pub(crate) const HOUR: Duration = Duration::from_secs(3600);
pub(crate) const MINUTE: Duration = Duration::from_secs(60);
/// The signer of all code in these stories.
pub(crate) const SIGNER: [u8; 32] = [3; 32];
/// Administers every service here.
pub(crate) const ADMINISTRATOR: u8 = 99;

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

pub(crate) fn exactly(number: u8) -> CodeSelector {
    CodeSelector::Measurement(code(number))
}

/// What [`SIGNER`] released from this version on.
pub(crate) fn from_version(svn_min: u8) -> CodeSelector {
    let signer = CodeSigner::new(TeeKind::Sgx, &SIGNER, None, svn_min.into());
    CodeSelector::Signed(signer.unwrap())
}

/// A machine with a software TEE, made at noon.
pub(crate) fn platform() -> Platform {
    Platform::generate(PlatformOptions::seeded([4; 32], NOON)).unwrap()
}

/// Evidence of code with this report on that machine.
pub(crate) fn evidence(platform: &Platform, report: &SgxReport, claims: &[u8]) -> Evidence {
    let collateral = platform.collateral(Kind::Sgx, &CollateralOptions::at(NOON));
    Evidence {
        claims_buffer: claims.to_vec(),
        ..canonical_dcap(&platform.sgx_quote(report), &collateral.unwrap()).unwrap()
    }
}

pub(crate) fn roots(platform: &Platform) -> Roots {
    Roots::none().with_simulated_dcap(platform.root_der().to_vec())
}

/// The report of a runtime with code `number`.
pub(crate) fn report(number: u8) -> SgxReport {
    SgxReport {
        measurement: [number; 32],
        signer: SIGNER,
        svn: u16::from(number),
        report_data: claims_report_data(b"claims"),
        ..SgxReport::default()
    }
}

/// Appraised evidence of a runtime with code `number`, as a session brings it.
pub(crate) fn appraised(number: u8) -> Arc<Appraised> {
    static MADE: Mutex<BTreeMap<u8, Arc<Appraised>>> = Mutex::new(BTreeMap::new());
    let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    Arc::clone(
        made.entry(number)
            .or_insert_with(|| Arc::new(appraised_of(&report(number)))),
    )
}

pub(crate) fn appraised_of(report: &SgxReport) -> Appraised {
    let platform = platform();
    let evidence = evidence(&platform, report, b"claims");
    let claims = verify(&evidence, &roots(&platform), NOON).unwrap();
    let appraisal = appraise(&claims, &Policy::dev(Reference::Deferred), NOON);
    appraisal.admit(claims).unwrap()
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

/// What registers it; the key is this byte 32 times.
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
        code: exactly(5),
        isolation: Isolation::Shared,
        not_before: NOON.minus(MINUTE),
        not_after: NOON.plus(HOUR),
        requests: None,
    }
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

/// A session with nothing said in it yet, of a peer that proved nothing.
pub(crate) fn session() -> Conversation {
    static BINDINGS: AtomicU64 = AtomicU64::new(0);
    let number = BINDINGS.fetch_add(1, Ordering::SeqCst);
    Conversation {
        runtime: None,
        binding: *Digest::of("test session", &[&number.to_be_bytes()]).as_bytes(),
        sequence: 0,
    }
}

/// A session of a runtime with code `number`.
pub(crate) fn runtime(number: u8) -> Conversation {
    Conversation {
        runtime: Some(appraised(number)),
        ..session()
    }
}

/// The next command of a session.
pub(crate) fn sign(
    session: &Conversation,
    by: &SigningKey,
    operation: Operation,
) -> Signed<Command> {
    let command = Command {
        session: session.binding,
        sequence: session.sequence,
        operation,
    };
    Signed::sign(by, command).into_signed()
}

/// A service, its disk and its clock.
pub(crate) struct World {
    pub(crate) disk: MemoryFiles,
    pub(crate) options: Options,
    pub(crate) clock: Arc<AtomicU64>,
    service: Option<InProcess>,
}

impl World {
    /// A disk without a service yet.
    pub(crate) fn new() -> Self {
        let clock = Arc::new(AtomicU64::new(NOON.as_millis()));
        let shown = Arc::clone(&clock);
        let mut options = Options::new(move || Time::from_millis(shown.load(Ordering::SeqCst)));
        options.administrators = vec![principal(ADMINISTRATOR)];
        Self {
            disk: MemoryFiles::new(),
            options,
            clock,
            service: None,
        }
    }

    pub(crate) fn started() -> Self {
        let mut world = Self::new();
        world.start().unwrap();
        world
    }

    /// Owner 1 with package `shelter` 1.0.0, whose key is nines.
    pub(crate) fn with_package() -> (Self, Digest) {
        let world = Self::started();
        world.order(&key(1), Operation::Register).unwrap();
        let package = world.put(&key(1), "shelter", "1.0.0").unwrap();
        (world, package)
    }

    /// The same, granted by [`grant`] under id 1.
    pub(crate) fn with_grant() -> (Self, Digest) {
        let (world, package) = Self::with_package();
        world.grant(&key(1), grant(1, package)).unwrap();
        (world, package)
    }

    pub(crate) fn start(&mut self) -> Result<(), String> {
        self.service = Some(InProcess::start(self.disk.clone(), &self.options)?);
        Ok(())
    }

    /// Ends it as `kill -9` does; a crash of the disk ends too.
    pub(crate) fn kill(&mut self) {
        self.service.take().unwrap().kill();
        self.disk.restart();
    }

    pub(crate) fn end(&mut self) {
        self.service.take().unwrap().end();
    }

    pub(crate) fn service(&self) -> &InProcess {
        self.service.as_ref().unwrap()
    }

    pub(crate) fn now(&self) -> Time {
        Time::from_millis(self.clock.load(Ordering::SeqCst))
    }

    pub(crate) fn set_clock(&self, at: Time) {
        self.clock.store(at.as_millis(), Ordering::SeqCst);
    }

    pub(crate) fn pass(&self, time: Duration) {
        self.set_clock(self.now().plus(time));
    }

    /// Says it in `session`; a refusal is its short name.
    pub(crate) fn say(
        &self,
        session: &mut Conversation,
        request: Request,
    ) -> Result<Reply, String> {
        match self.service().answer(session, request) {
            Reply::Refused(refusal) => Err(refusal.code),
            reply => Ok(reply),
        }
    }

    /// Orders in a session of its own.
    pub(crate) fn order(&self, by: &SigningKey, operation: Operation) -> Result<Reply, String> {
        let mut session = session();
        let command = sign(&session, by, operation);
        self.say(&mut session, Request::Command(command))
    }

    pub(crate) fn put(&self, by: &SigningKey, name: &str, version: &str) -> Result<Digest, String> {
        let header = header(by, name, version);
        let mut session = session();
        let command = sign(&session, by, offer(&header, 9));
        let request = Request::PutPackage(command, Secret::from_bytes([9; 32]));
        self.say(&mut session, request)?;
        Ok(PackageHeader::package(&header))
    }

    pub(crate) fn grant(&self, by: &SigningKey, says: Grant) -> Result<Verified<Grant>, String> {
        let signed = Signed::sign(by, says);
        self.order(by, Operation::Grant(signed.as_signed().clone()))?;
        Ok(signed)
    }

    pub(crate) fn revoke(&self, by: &SigningKey, id: u8) -> Result<Reply, String> {
        self.order(by, Operation::Revoke(vec![GrantId([id; 16])]))
    }

    pub(crate) fn lease(&self, number: u8, package: Digest) -> Result<LeasedKeys, String> {
        self.lease_in(&mut runtime(number), package, None)
    }

    pub(crate) fn lease_in(
        &self,
        session: &mut Conversation,
        package: Digest,
        returned: Option<Returned>,
    ) -> Result<LeasedKeys, String> {
        let request = Request::Lease(LeaseRequest { package, returned });
        match self.say(session, request)? {
            Reply::Lease(keys) => Ok(keys),
            _ => panic!("no lease"),
        }
    }

    pub(crate) fn find(
        &self,
        package: Digest,
        choice: CodeSelector,
    ) -> Result<KeyConfiguration, String> {
        let request = Request::KeyConfiguration(PackageReference::Digest(package), choice);
        match self.say(&mut session(), request)? {
            Reply::KeyConfiguration(found) => Ok(found),
            _ => panic!("no key configuration"),
        }
    }

    pub(crate) fn list(&self, by: &SigningKey, listing: Listing) -> Result<ListingPage, String> {
        match self.order(by, Operation::List(listing))? {
            Reply::Listing(page) => Ok(page),
            _ => panic!("no listing"),
        }
    }

    pub(crate) fn audit(&self, by: &SigningKey, from: u64) -> Result<AuditPage, String> {
        match self.order(by, Operation::Audit { from })? {
            Reply::Audit(page) => Ok(page),
            _ => panic!("no audit"),
        }
    }

    pub(crate) fn freshness(&self, kept: Option<&str>) -> Result<Freshness, String> {
        let request = Request::Freshness(kept.map(str::to_owned));
        match self.say(&mut session(), request)? {
            Reply::Freshness(freshness) => Ok(freshness),
            _ => panic!("no freshness"),
        }
    }

    pub(crate) fn inspect(&self) -> Inspection {
        match self.service().answer(&mut session(), Request::Inspect) {
            Reply::Inspection(inspection) => inspection,
            _ => panic!("no inspection"),
        }
    }
}

/// What a runtime can open and serve with: a lease, its statements checked as a runtime does.
pub(crate) mod material {
    use bield_envelope::{AudienceKey, AudiencePublicKey, SealedRequest, Seeded, seal_request};
    use bield_envelope::{RequestHeader, Statement};
    use bield_grant::{
        Allotment, Groups, Lease, Leased, Meter, ReplayGuard, Successions, VerifiedSuccession,
        admit,
    };

    use super::{Digest, Grant, LeasedKeys, Signed, SigningKey, Time, Verified};

    pub(crate) struct Material {
        pub(crate) lease: Lease,
        pub(crate) issued: Time,
        pub(crate) keys: Vec<(AudienceKey, Option<Time>)>,
        pub(crate) grants: Vec<Verified<Grant>>,
        pub(crate) allotments: Vec<Allotment>,
        groups: Groups,
        successions: Successions,
    }

    fn verified<T>(signed: Vec<Signed<T>>) -> Vec<Verified<T>>
    where
        T: Statement + minicbor::Encode<()> + for<'b> minicbor::Decode<'b, ()>,
    {
        let each = signed.into_iter();
        each.map(|signed| signed.verify_claimed().unwrap())
            .collect()
    }

    impl Material {
        pub(crate) fn new(leased: LeasedKeys) -> Self {
            let successions: Vec<VerifiedSuccession> = leased
                .successions
                .into_iter()
                .map(|succeeded| succeeded.verify().unwrap())
                .collect();
            let keys = leased.audience_keys.into_iter();
            Self {
                lease: leased.lease,
                issued: leased.issued,
                keys: keys
                    .map(|key| (AudienceKey::from_seed(key.seed), key.not_after))
                    .collect(),
                grants: verified(leased.grants),
                allotments: leased.allotments,
                groups: verified(leased.groups).into_iter().collect(),
                successions: successions.iter().collect(),
            }
        }

        /// Ids of the keys that open requests now.
        fn ids(&self, now: Time) -> Vec<Digest> {
            let open = self.keys.iter();
            let open = open.filter(|(_, until)| until.is_none_or(|until| now < until));
            open.map(|(key, _)| key.public().id()).collect()
        }

        /// Opens and admits a sealed request; the refusal's short name otherwise.
        pub(crate) fn serve(&self, sealed: &[u8], now: Time) -> Result<Digest, String> {
            self.serve_with(sealed, now, &Meter::new(self.allotments.clone()))
        }

        /// The same, counting in this meter.
        pub(crate) fn serve_with(
            &self,
            sealed: &[u8],
            now: Time,
            meter: &Meter,
        ) -> Result<Digest, String> {
            let sealed = SealedRequest::parse(sealed).unwrap();
            let keys = self.ids(now);
            let opener = self.keys.iter().find(|(key, _)| {
                let id = key.public().id();
                id == sealed.header().key && keys.contains(&id)
            });
            let Some((key, _)) = opener else {
                return Err("other-key".to_owned());
            };
            let (opened, _) = key.open(&sealed).map_err(|error| error.to_string())?;
            let leased = Leased {
                lease: &self.lease,
                keys: &keys,
                grants: &self.grants,
                groups: &self.groups,
                successions: &self.successions,
                meter,
            };
            let admitted = admit(opened, leased, &mut ReplayGuard::new(16), now);
            match admitted {
                Ok(admitted) => Ok(admitted.grant),
                Err(refused) => Err(refused.code().to_owned()),
            }
        }
    }

    /// A request of `user` for a package in the code that this key belongs to.
    pub(crate) fn seal(
        to: &AudiencePublicKey,
        audience: Digest,
        package: Digest,
        user: &SigningKey,
        created: Time,
    ) -> Vec<u8> {
        let header = RequestHeader {
            audience,
            key: to.id(),
            package,
            id: [7; 16],
            created,
        };
        let mut entropy = Seeded::new(created.as_millis());
        seal_request(to, &header, user, b"request", &mut entropy)
            .unwrap()
            .0
    }
}
