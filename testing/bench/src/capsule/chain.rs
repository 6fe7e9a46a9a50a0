//! A capsule of this process: keys, configuration, one admitted writer, everything real.

use anyhow::{Context as _, Result};
use bield_capsule::{
    Batch, Change, GenerationKey, KeyRing, Metadata, Received, Suite, Verifier, VerifierPolicy,
    Writer, WriterKey,
};
use bield_envelope::Secret;
use bield_sdk::{Randomness, now};

/// A capsule and what its one writer needs to go on.
pub(crate) struct Chain {
    pub(crate) metadata: Metadata,
    /// The owner's config record and the writer's open record.
    pub(crate) before: [Received; 2],
    pub(crate) writer: Writer,
    pub(crate) generation: GenerationKey,
    /// Opens what the writer seals.
    pub(crate) ring: KeyRing,
}

impl Chain {
    /// Makes a capsule and opens its writer's chain.
    pub(crate) fn new(suite: Suite) -> Result<Self> {
        let owner = WriterKey::generate(suite, &mut Randomness);
        let metadata = Metadata::new(owner.public(), Some("bench"), now(), &mut Randomness)?;
        let generation = GenerationKey::generate(1, &mut Randomness);
        let key = WriterKey::generate(suite, &mut Randomness);
        let changes = [
            Change::admit(key.public()),
            Change::Generation {
                number: 1,
                commitment: generation.commitment(&metadata),
            },
        ];
        let (_, config) = Writer::owner(owner, &metadata, &changes, now())?;
        let (writer, open) = Writer::open(key, &metadata, config.head(), None, now())?;
        let mut ring = KeyRing::new();
        let secret = Secret::from_bytes(*generation.secret().expose());
        ring.insert(GenerationKey::from_secret(1, secret))?;
        Ok(Self {
            metadata,
            before: [config, open],
            writer,
            generation,
            ring,
        })
    }

    /// Seals the next record.
    pub(crate) fn seal(&mut self, batch: &Batch) -> Result<Received> {
        let (generation, now) = (&self.generation, now());
        let sealed = self
            .writer
            .seal(batch, generation, &[], now, &mut Randomness);
        sealed.context("sealing")
    }

    /// A receiver that has seen the records before the first data record.
    pub(crate) fn verifier(&self) -> Result<Verifier> {
        let mut verifier = Verifier::new(self.metadata.clone(), VerifierPolicy::default());
        for record in self.before.clone() {
            let verified = verifier.verify(record)?;
            verifier.apply(verified)?;
        }
        Ok(verifier)
    }
}

/// A batch of `count` puts.
pub(crate) fn batch(count: usize, put: &mut Put) -> Result<Batch> {
    let mut batch = Batch::new();
    for _ in 0..count {
        batch.push(put.next())?;
    }
    Ok(batch)
}

/// Key and value of a put as one entry; every one is another.
pub(crate) struct Put {
    bytes: Vec<u8>,
    number: u64,
}

impl Put {
    /// Puts with values of so many bytes.
    pub(crate) fn of(value_bytes: usize) -> Self {
        let bytes = (0..KEY_BYTES + value_bytes).map(|at| (at * 151 % 251) as u8);
        Self {
            bytes: bytes.collect(),
            number: 0,
        }
    }

    /// The next put.
    #[inline]
    pub(crate) fn next(&mut self) -> &[u8] {
        self.number += 1;
        self.bytes[..8].copy_from_slice(&self.number.to_be_bytes());
        &self.bytes
    }
}

/// Bytes of a put's key.
pub(crate) const KEY_BYTES: usize = 16;
