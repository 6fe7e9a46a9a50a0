//! A capsule's beginning: made here, or met for the first time.
//!
//! Always true: keys are in the home before anybody is told of them; nothing is said to be made before
//! a quorum keeps it, synced; what failed leaves no directory behind.

use std::sync::Arc;

use bield_capsule::{
    CapsuleName, Change, GenerationKey, Kept, KeyRing, Metadata, Received, Suite, Verifier,
    VerifierPolicy, Writer, WriterKey,
};
use bield_envelope::Principal;

use super::write::enough;
use super::{Log, apply, at_all, known, refused};
use crate::capsule::error::LogError;
use crate::capsule::home::CapsuleHome;
use crate::capsule::replica::ReplicaClient;
use crate::capsule::sink::introduce;
use crate::{Home, Randomness, now};

/// What a new capsule is to be.
#[derive(Debug, Clone)]
pub struct CreateOptions {
    /// What people call it; public.
    pub label: Option<String>,
    /// Its cipher suite, for ever.
    pub suite: Suite,
    /// Where its replicas are.
    pub replicas: Vec<String>,
    /// How many replicas make a record durable; a majority when `None`.
    pub quorum: Option<u8>,
    /// Principals whose certificates admit writers.
    pub certifiers: Vec<Principal>,
    /// Verifier keys of witnesses, in C2SP form.
    pub witnesses: Vec<String>,
    /// How many witnesses must cosign.
    pub witness_quorum: u8,
}

impl Log {
    /// Makes a capsule: its keys in the home, its first records at a quorum of replicas.
    ///
    /// # Errors
    /// A replica does not introduce itself, or too few store it; then nothing is left behind in the
    /// home.
    pub fn create(home: &Home, options: &CreateOptions) -> Result<Self, LogError> {
        let count = options.replicas.len();
        let quorum = options.quorum.map_or(count / 2 + 1, usize::from);
        if count == 0 || quorum == 0 || quorum > count {
            return Err(LogError::Argument(format!(
                "a quorum of {quorum} among {count} replicas is none: name more replicas, or a smaller \
                 quorum"
            )));
        }
        let replicas = introduce_all(&options.replicas)?;
        let owner = WriterKey::generate(options.suite, &mut Randomness);
        let writer = WriterKey::generate(options.suite, &mut Randomness);
        let label = options.label.as_deref();
        let metadata = Metadata::new(owner.public(), label, now(), &mut Randomness)?;
        let generation = GenerationKey::generate(1, &mut Randomness);
        let changes = first_changes(options, &metadata, &writer, &generation, &replicas, quorum);
        let mut ring = KeyRing::new();
        ring.insert(generation)?;
        let known: Vec<_> = replicas.iter().map(|replica| known(replica)).collect();
        let place = CapsuleHome::create(home, &metadata, &owner, &writer, &ring, &known)?;
        let made = Self::first_records(&place, metadata, &changes, owner, writer, replicas, quorum);
        if made.is_err() {
            // Nobody was told of it, and its keys open nothing: what a replica keeps of it is empty.
            let _ = std::fs::remove_dir_all(place.path());
        }
        made
    }

    fn first_records(
        home: &CapsuleHome,
        metadata: Metadata,
        changes: &[Change],
        owner: WriterKey,
        writer: WriterKey,
        replicas: Vec<Arc<ReplicaClient>>,
        quorum: usize,
    ) -> Result<Self, LogError> {
        let (_, config) = Writer::owner(owner, &metadata, changes, now())?;
        let (_, open) = Writer::open(writer, &metadata, config.head(), None, now())?;
        let mut base = Verifier::new(metadata.clone(), VerifierPolicy::default());
        // What receivers would refuse is better noticed before anybody has it.
        apply(&mut base, config.clone())?;
        let opened = base
            .verify(open.clone())
            .map_err(|error| refused(&open, error))?;
        drop(opened);
        let config: Arc<[Received]> = [config].into();
        let stored = at_all(&replicas, |replica| {
            introduce(replica, &metadata, &config, Kept::Synced)?;
            replica.append(&metadata.name(), [open.as_bytes()], Kept::Synced)?;
            Ok(())
        });
        enough("the new capsule", stored, quorum)?;
        home.see([config[0].head(), open.head()])?;
        Self::open(home.clone())
    }

    /// Fetches a capsule that somebody else owns, by its full name, and remembers where it is. Replicas
    /// that its configuration names beside `urls` are asked as well; those of this machine or its network
    /// only with `allow_private`.
    ///
    /// # Errors
    /// No replica has it, or none has a configuration that verifies.
    pub fn adopt(
        home: &Home,
        name: &CapsuleName,
        urls: &[String],
        allow_private: bool,
    ) -> Result<Self, LogError> {
        let replicas = introduce_all(urls)?;
        let mut metadata = None;
        for replica in &replicas {
            match replica.metadata(name) {
                Ok(found) => metadata = Some(found),
                Err(error) if metadata.is_none() && replicas.len() == 1 => return Err(error.into()),
                Err(_) => {}
            }
        }
        let metadata = metadata.ok_or_else(|| LogError::NoConfiguration {
            name: *name,
            why: "none of these replicas has it".to_owned(),
        })?;
        let known: Vec<_> = replicas.iter().map(|replica| known(replica)).collect();
        let place = CapsuleHome::adopt(home, &metadata, &known)?;
        Self::open_at(place, VerifierPolicy::default(), allow_private)
    }
}

fn first_changes(
    options: &CreateOptions,
    metadata: &Metadata,
    writer: &WriterKey,
    generation: &GenerationKey,
    replicas: &[Arc<ReplicaClient>],
    quorum: usize,
) -> Vec<Change> {
    let mut changes = vec![
        Change::admit(writer.public()),
        Change::Generation {
            number: 1,
            commitment: generation.commitment(metadata),
        },
    ];
    changes.extend(options.certifiers.iter().copied().map(Change::Certify));
    changes.extend(replicas.iter().map(|replica| Change::Replica {
        principal: replica.principal(),
        address: replica.url().to_owned(),
    }));
    changes.extend(options.witnesses.iter().cloned().map(Change::Witness));
    changes.push(Change::Quorum {
        replicas: u8::try_from(quorum).unwrap_or(u8::MAX),
        witnesses: options.witness_quorum,
    });
    changes
}

/// Asks everybody at `urls` who they are; two names of one replica are refused.
pub(in crate::capsule) fn introduce_all(
    urls: &[String],
) -> Result<Vec<Arc<ReplicaClient>>, LogError> {
    let mut replicas: Vec<Arc<ReplicaClient>> = Vec::with_capacity(urls.len());
    for url in urls {
        let replica = ReplicaClient::introduce(url)?;
        let principal = replica.principal();
        if let Some(same) = replicas.iter().find(|other| other.principal() == principal) {
            return Err(LogError::Argument(format!(
                "{url} and {} are one replica, {principal}: name each one once",
                same.url()
            )));
        }
        replicas.push(Arc::new(replica));
    }
    Ok(replicas)
}
