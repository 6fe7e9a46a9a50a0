//! A capsule with its owner, a key service that certifies writers, and runtimes that open it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bield_capsule::{
    Batch, Change, GenerationKey, Head, KeyRing, Kind, Metadata, Suite, Verifier, VerifierPolicy,
    Writer, WriterCertificate, WriterKey,
};
use bield_envelope::{Secret, Seeded, Signed, SigningKey, Time};
use bield_ledger::{Files, MemoryFiles};

use crate::control::{Control, Fence};
use crate::disk::Disk;
use crate::log::append::{Log, Place};
use crate::log::chain::Chain;
use crate::log::line::Line;
use crate::names::Names;
use crate::{
    Author, Bucket, Clocks, Consistency, Durability, Opening, Settings, State, StateError,
};

pub(super) fn at(millis: u64) -> Time {
    Time::from_millis(1_000_000 + millis)
}

/// What the function's package holds, and who certifies.
pub(super) struct Capsule {
    pub(super) metadata: Metadata,
    pub(super) config: Vec<Vec<u8>>,
    ring: Vec<u8>,
    service: SigningKey,
}

impl Capsule {
    pub(super) fn new(seed: u64) -> Self {
        let entropy = &mut Seeded::new(seed);
        let owner = WriterKey::generate(Suite::Ed25519, entropy);
        let metadata = Metadata::new(owner.public(), None, at(0), entropy).unwrap();
        let service = SigningKey::from_seed(Secret::from_bytes([9; 32]));
        let generation = GenerationKey::generate(1, entropy);
        let changes = [
            Change::Certify(service.principal()),
            Change::Generation {
                number: 1,
                commitment: generation.commitment(&metadata),
            },
        ];
        let (_, config) = Writer::owner(owner, &metadata, &changes, at(0)).unwrap();
        let mut ring = KeyRing::new();
        ring.insert(generation).unwrap();
        Self {
            metadata,
            config: vec![config.into_bytes()],
            ring: ring.encode_secret().to_vec(),
            service,
        }
    }

    pub(super) fn keys(&self) -> KeyRing {
        KeyRing::decode(&self.ring).unwrap()
    }

    /// A fresh key with a certificate for a day.
    pub(super) fn author(&self, seed: u64) -> Author {
        let key = WriterKey::generate(Suite::Ed25519, &mut Seeded::new(AUTHORS + seed));
        let certificate = WriterCertificate {
            capsule: self.metadata.name(),
            writer: key.id(),
            code: None,
            simulated: false,
            not_before: at(0),
            not_after: at(86_400_000),
        };
        let signed = Signed::sign(&self.service, certificate);
        Author {
            key,
            certificate: Some(signed.as_bytes().to_vec()),
        }
    }

    pub(super) fn verifier(&self) -> Verifier {
        let policy = VerifierPolicy::default();
        crate::log::verifier(&self.metadata, &self.config, &self.keys(), policy).unwrap()
    }
}

/// The bucket that most tests use.
pub(super) fn bucket() -> Bucket {
    Bucket {
        name: "things".to_owned(),
        consistency: Consistency::Eventual,
        durability: Durability::LocalSync,
    }
}

/// A bucket of counters.
pub(super) fn counters() -> Bucket {
    Bucket {
        name: "counters".to_owned(),
        consistency: Consistency::Linearizable,
        durability: Durability::LocalSync,
    }
}

/// Clocks that a test sets.
#[derive(Default)]
pub(super) struct TestClocks(AtomicU64);

impl TestClocks {
    pub(super) fn pass(&self, millis: u64) {
        self.0.fetch_add(millis, Ordering::Relaxed);
    }
}

impl Clocks for TestClocks {
    fn now(&self) -> Time {
        at(self.0.load(Ordering::Relaxed))
    }

    fn running(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed))
    }
}

/// A machine that starts the function again and again, each time as another writer.
pub(super) struct Machine {
    pub(super) capsule: Capsule,
    pub(super) clocks: Arc<TestClocks>,
    pub(super) settings: Settings,
    starts: AtomicU64,
}

impl Machine {
    pub(super) fn new(capsule: Capsule, seed: u64) -> Self {
        Self {
            capsule,
            clocks: Arc::default(),
            settings: small(),
            starts: AtomicU64::new(seed << 16),
        }
    }

    pub(super) fn open(
        &self,
        files: &(impl Files + Clone + 'static),
        anchored: &[Head],
    ) -> Result<State, StateError> {
        State::open(self.opening(files, anchored))
    }

    pub(super) fn opening(
        &self,
        files: &(impl Files + Clone + 'static),
        anchored: &[Head],
    ) -> Opening {
        let start = self.starts.fetch_add(1, Ordering::Relaxed);
        let entropy = |n: u64| -> crate::Entropy { Box::new(Seeded::new(start * 2 + n)) };
        Opening {
            metadata: self.capsule.metadata.clone(),
            config: self.capsule.config.clone(),
            keys: self.capsule.keys(),
            policy: VerifierPolicy::default(),
            author: self.capsule.author(start),
            token: start,
            held: HELD,
            anchored: anchored.to_vec(),
            buckets: vec![bucket(), counters()],
            files: Box::new(files.clone()),
            reads: Box::new(files.clone()),
            clocks: Arc::clone(&self.clocks) as Arc<dyn Clocks>,
            entropy: [entropy(0), entropy(1)],
            settings: self.settings,
        }
    }
}

/// Tells the key service, which takes it, and the state that it did.
pub(super) fn anchor(state: &State) -> Vec<Head> {
    let heads = state.anchoring().unwrap().heads;
    state.anchored(&heads);
    heads
}

/// Until when a test's hold lasts, by its running clock.
pub(super) const HELD: Duration = Duration::from_secs(3600);

/// So little memory, so short runs, that a test sees flushes and compactions.
fn small() -> Settings {
    Settings {
        memory_bytes: 8 << 10,
        cache_bytes: 16 << 10,
        retention: Duration::ZERO,
        levels: bield_levels::Settings::default()
            .with_block_bytes(256)
            .with_run_bytes(2 << 10)
            .with_tier_runs(3),
    }
}

/// A holder's own chain.
pub(super) struct Opened {
    pub(super) log: Log,
}

pub(super) fn disk(files: &MemoryFiles) -> Disk {
    Disk::new(Box::new(files.clone()), Box::new(files.clone()))
}

pub(super) fn chains(capsule: &Capsule, files: &MemoryFiles) -> Result<Vec<Chain>, StateError> {
    let names = Names::of(&capsule.metadata.name());
    let mut verifier = capsule.verifier();
    let read = crate::log::read(&disk(files), &names, &mut verifier, &capsule.keys());
    read.map(|(chains, _)| chains)
}

/// Opens the log as holder `token`.
pub(super) fn open(
    capsule: &Capsule,
    files: &MemoryFiles,
    token: u64,
    seed: u64,
) -> Result<Opened, StateError> {
    let line = Line::of(chains(capsule, files)?)?;
    line.whole(&Default::default())?;
    let verifier = capsule.verifier();
    let fence = Fence {
        token,
        before: line.tip(),
    };
    let place = Place {
        disk: &disk(files),
        names: &Names::of(&capsule.metadata.name()),
        metadata: &capsule.metadata,
        config: verifier.config(),
        keys: &capsule.keys(),
        fence,
    };
    let log = Log::begin(
        &place,
        capsule.author(seed),
        at(seed),
        &mut Seeded::new(seed),
    )?;
    Ok(Opened { log })
}

/// The entries of the line, fences left out.
pub(super) fn entries(capsule: &Capsule, line: &Line) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    let records = line.records().map(|(_, _, stored)| &stored.record);
    for record in records.filter(|record| record.record().header().kind == Kind::Data) {
        for entry in record.open(&capsule.keys()).unwrap().iter() {
            let entry = entry.plain().unwrap();
            if Control::decode(entry) == Ok(None) {
                found.push(entry.to_vec());
            }
        }
    }
    found
}

pub(super) fn append(
    capsule: &Capsule,
    log: &mut Log,
    entry: &[u8],
    seed: u64,
) -> Result<Head, StateError> {
    let mut batch = Batch::new();
    batch.push(entry).unwrap();
    let record = log.seal(&batch, &capsule.keys(), at(seed), &mut Seeded::new(seed))?;
    log.write(&record, true)?;
    Ok(log.head())
}

/// Seeds of writers' keys begin here: owners have others.
const AUTHORS: u64 = 1 << 32;
