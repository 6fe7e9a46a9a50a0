//! Stories of the whole service in one process: durability, rollback, recovery, fairness.

mod durability;
mod recovery;
mod rollback;
mod states;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bield_envelope::{Digest, Principal, Secret, Signed, SigningKey, Time};
use bield_ledger::{Files, MemoryFiles};
use bield_package::PackageHeader;
use bield_protocol::service::{
    Command, Freshness, GrantId, Inspection, LeaseRequest, LeasedKeys, Operation, Reply, Request,
    Share, ShareProgress,
};

use crate::service::Conversation;
use crate::service::cast::{self, NOON, key, principal};
use crate::state::RecoveryLimits;
use crate::testing::{InProcess, Options};

/// A service, a disk, a clock, and one session after the other.
pub(crate) struct World {
    pub(crate) disk: MemoryFiles,
    pub(crate) options: Options,
    pub(crate) clock: Arc<AtomicU64>,
    pub(crate) service: Option<InProcess>,
}

impl World {
    /// An empty disk and no service yet.
    pub(crate) fn new() -> Self {
        let clock = Arc::new(AtomicU64::new(NOON.as_millis()));
        let shown = Arc::clone(&clock);
        let mut options = Options::new(move || Time::from_millis(shown.load(Ordering::SeqCst)));
        options.administrators = vec![principal(99)];
        options.recovery = Some(RecoveryLimits {
            holders: (21..=24).map(principal).collect(),
            threshold_min: 2,
        });
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

    pub(crate) fn start(&mut self) -> Result<(), String> {
        self.service = Some(InProcess::start(self.disk.clone(), &self.options)?);
        Ok(())
    }

    /// Another instance, on its own files.
    pub(crate) fn start_on(&self, files: impl Files + 'static) -> Result<InProcess, String> {
        InProcess::start(files, &self.options)
    }

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

    pub(crate) fn restart(&mut self) {
        self.kill();
        self.start().unwrap();
    }

    pub(crate) fn order(&self, by: &SigningKey, operation: Operation) -> Result<Reply, String> {
        order_of(self.service(), by, operation)
    }

    pub(crate) fn size(&self) -> u64 {
        inspect(self.service()).size
    }

    pub(crate) fn checkpoint(&self) -> String {
        freshness(self.service(), None).unwrap().checkpoint
    }

    /// Owner 1, its package, and a grant of it to code 5.
    pub(crate) fn with_grant() -> (Self, Digest) {
        let world = Self::started();
        let package = world.put_and_grant();
        (world, package)
    }

    pub(crate) fn put_and_grant(&self) -> Digest {
        let owner = key(1);
        self.order(&owner, Operation::Register).unwrap();
        let header = cast::header(&owner, "shelter", "1.0.0");
        let mut session = session();
        let command = sign(&session, &owner, cast::offer(&header, 9));
        let put = Request::PutPackage(command, Secret::from_bytes([9; 32]));
        done(self.service().answer(&mut session, put)).unwrap();
        let package = PackageHeader::package(&header);
        let grant = Signed::sign(&owner, cast::grant(1, package)).into_signed();
        self.order(&owner, Operation::Grant(grant)).unwrap();
        package
    }

    pub(crate) fn lease(&self, runtime: u8, package: Digest) -> Result<LeasedKeys, String> {
        let mut session = session();
        session.runtime = Some(cast::appraised(runtime));
        let returned = None;
        let request = Request::Lease(LeaseRequest { package, returned });
        match done(self.service().answer(&mut session, request))? {
            Reply::Lease(keys) => Ok(keys),
            _ => panic!("no lease"),
        }
    }

    pub(crate) fn revoke(&self) -> Result<Reply, String> {
        self.order(&key(1), Operation::Revoke(vec![GrantId([1; 16])]))
    }
}

pub(crate) fn session() -> Conversation {
    static BINDINGS: AtomicU64 = AtomicU64::new(0);
    let number = BINDINGS.fetch_add(1, Ordering::SeqCst);
    Conversation {
        runtime: None,
        binding: *Digest::of("test session", &[&number.to_be_bytes()]).as_bytes(),
        sequence: 0,
    }
}

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

pub(crate) fn order_of(
    service: &InProcess,
    by: &SigningKey,
    operation: Operation,
) -> Result<Reply, String> {
    let mut session = session();
    let command = sign(&session, by, operation);
    done(service.answer(&mut session, Request::Command(command)))
}

pub(crate) fn done(reply: Reply) -> Result<Reply, String> {
    match reply {
        Reply::Refused(refusal) => Err(format!("{}: {}", refusal.code, refusal.message)),
        reply => Ok(reply),
    }
}

pub(crate) fn inspect(service: &InProcess) -> Inspection {
    match service.answer(&mut session(), Request::Inspect) {
        Reply::Inspection(inspection) => inspection,
        _ => panic!("no inspection"),
    }
}

pub(crate) fn freshness(service: &InProcess, kept: Option<&str>) -> Result<Freshness, String> {
    let request = Request::Freshness(kept.map(str::to_owned));
    match done(service.answer(&mut session(), request))? {
        Reply::Freshness(freshness) => Ok(freshness),
        _ => panic!("no freshness"),
    }
}

pub(crate) fn take_share(service: &InProcess, by: &SigningKey) -> Result<Share, String> {
    match order_of(service, by, Operation::TakeShare)? {
        Reply::Share(share) => Ok(share),
        _ => panic!("no share"),
    }
}

pub(crate) fn give_share(
    service: &InProcess,
    by: &SigningKey,
    share: &Share,
    rehearse: bool,
) -> Result<ShareProgress, String> {
    let mut session = session();
    let operation = Operation::GiveShare {
        share: share.commitment(),
        rehearse,
    };
    let command = sign(&session, by, operation);
    let reply = service.answer(&mut session, Request::GiveShare(command, share.clone()));
    match done(reply)? {
        Reply::ShareProgress(progress) => Ok(progress),
        _ => panic!("no progress"),
    }
}

pub(crate) fn code_of<T>(outcome: Result<T, String>) -> String {
    match outcome {
        Ok(_) => "done".to_owned(),
        Err(refusal) => refusal.split(':').next().unwrap_or_default().to_owned(),
    }
}

pub(crate) fn principals(numbers: &[u8]) -> Vec<Principal> {
    numbers.iter().map(|number| principal(*number)).collect()
}
