//! States of this process: a capsule with its owner, a service that certifies writers, files; everything real.
//!
//! Always true: records are sealed, signed and chained as in a runtime, runs are sealed; the hold lasts longer than
//! the bench.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use bield_capsule::{
    Change, GenerationKey, Head, KeyRing, Metadata, Suite, VerifierPolicy, Writer,
    WriterCertificate, WriterKey,
};
use bield_envelope::{Secret, Signed, SigningKey, Time};
use bield_ledger::{Files, MemoryFiles};
use bield_sdk::{Randomness, now};
use bield_state::{
    Author, Bucket, Clocks, Consistency, Durability, Opening, Settings, State, StateError,
};

use super::files::Folder;

/// What a function's package holds, and who certifies its writers.
pub(super) struct Capsule {
    metadata: Metadata,
    config: Vec<u8>,
    ring: Vec<u8>,
    service: SigningKey,
}

impl Capsule {
    fn new() -> Result<Self> {
        let owner = WriterKey::generate(Suite::Ed25519, &mut Randomness);
        let metadata = Metadata::new(owner.public(), Some("bench"), now(), &mut Randomness)?;
        let service = SigningKey::from_seed(Secret::generate(&mut Randomness));
        let generation = GenerationKey::generate(1, &mut Randomness);
        let changes = [
            Change::Certify(service.principal()),
            Change::Generation {
                number: 1,
                commitment: generation.commitment(&metadata),
            },
        ];
        let (_, config) = Writer::owner(owner, &metadata, &changes, now())?;
        let mut ring = KeyRing::new();
        ring.insert(generation)?;
        Ok(Self {
            metadata,
            config: config.into_bytes(),
            ring: ring.encode_secret().to_vec(),
            service,
        })
    }

    fn keys(&self) -> Result<KeyRing> {
        KeyRing::decode(&self.ring).context("the bench's own key ring")
    }

    /// A fresh key, certified for a day.
    fn author(&self) -> Author {
        let key = WriterKey::generate(Suite::Ed25519, &mut Randomness);
        let certificate = WriterCertificate {
            capsule: self.metadata.name(),
            writer: key.id(),
            code: None,
            simulated: false,
            not_before: Time::from_millis(0),
            not_after: now().plus(DAY),
        };
        let signed = Signed::sign(&self.service, certificate);
        Author {
            key,
            certificate: Some(signed.as_bytes().to_vec()),
        }
    }
}

/// Where a state's files lie.
pub(crate) enum Disk {
    /// In this process's memory: what storing costs is left out.
    Memory(MemoryFiles),
    /// In a folder, as a launcher keeps them.
    Folder(Folder),
}

impl Disk {
    fn handle(&self) -> Box<dyn Files> {
        match self {
            Self::Memory(files) => Box::new(files.clone()),
            Self::Folder(folder) => Box::new(folder.handle()),
        }
    }
}

/// A capsule on a disk, to be opened again and again.
pub(crate) struct Place {
    capsule: Capsule,
    pub(super) disk: Disk,
    pub(super) settings: Settings,
    starts: AtomicU64,
}

impl Place {
    /// With files in memory.
    pub(super) fn in_memory(settings: Settings) -> Result<Self> {
        Self::on(Disk::Memory(MemoryFiles::new()), settings)
    }

    /// On a disk that nothing of a state is on yet.
    pub(crate) fn on(disk: Disk, settings: Settings) -> Result<Self> {
        Ok(Self {
            capsule: Capsule::new()?,
            disk,
            settings,
            starts: AtomicU64::new(0),
        })
    }

    /// Opens the state as the next holder; `anchored` is what the holder before left at the key service.
    pub(super) fn open(&self, anchored: &[Head]) -> Result<State> {
        self.open_for(anchored, &[counters()])
    }

    /// As [`Place::open`], of a function that declares these buckets.
    pub(crate) fn open_for(&self, anchored: &[Head], buckets: &[Bucket]) -> Result<State> {
        let opening = Opening {
            metadata: self.capsule.metadata.clone(),
            config: vec![self.capsule.config.clone()],
            keys: self.capsule.keys()?,
            policy: VerifierPolicy::default(),
            author: self.capsule.author(),
            token: self.starts.fetch_add(1, Ordering::Relaxed) + 1,
            held: DAY,
            anchored: anchored.to_vec(),
            buckets: buckets.to_vec(),
            files: self.disk.handle(),
            reads: self.disk.handle(),
            clocks: Arc::new(Running(Instant::now())),
            entropy: [Box::new(Randomness), Box::new(Randomness)],
            settings: self.settings,
        };
        State::open(opening).map_err(|error: StateError| error.into())
    }
}

/// Settings under which nothing is flushed while little is written.
pub(super) fn roomy() -> Settings {
    Settings {
        memory_bytes: 1 << 30,
        ..Settings::default()
    }
}

/// A bucket whose writes are told of once they stand in a signed record.
pub(super) fn things() -> Bucket {
    bucket("things", Consistency::Eventual, Durability::Memory)
}

/// A bucket whose writes are told of once they are synced.
pub(super) fn synced() -> Bucket {
    bucket("synced", Consistency::Eventual, Durability::LocalSync)
}

/// A bucket with compare-and-swap and increment.
pub(super) fn counters() -> Bucket {
    bucket("counters", Consistency::Linearizable, Durability::Memory)
}

fn bucket(name: &str, consistency: Consistency, durability: Durability) -> Bucket {
    Bucket {
        name: name.to_owned(),
        consistency,
        durability,
    }
}

/// The machine's clocks.
struct Running(Instant);

impl Clocks for Running {
    fn now(&self) -> Time {
        now()
    }

    fn running(&self) -> Duration {
        self.0.elapsed()
    }
}

const DAY: Duration = Duration::from_secs(86_400);
