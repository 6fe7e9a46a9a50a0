//! The log: one chain a holder, on the host's files, verified before it is used.
//!
//! ```text
//! files ─▶ Reader ─▶ chains ─▶ Line ─▶ records that count, oldest first
//!                                         │ the newest record
//! holder ─▶ Log::begin ─ fence(token, before) ─▶ records ─▶ segment files
//! ```
//!
//! In: files, the capsule's configuration, the key service's token. Out: records. Always true: one holder
//! writes at a time, every start is a new chain under a fresh key, and its first record names the newest one
//! that it found: so all chains are one line, and its newest head stands for all of it.

pub(crate) mod append;
pub(crate) mod chain;
pub(crate) mod line;
pub(crate) mod segment;

use std::collections::BTreeMap;

use bield_capsule::{KeyRing, Metadata, Received, Verifier, VerifierPolicy};

use self::chain::{Chain, Reader, Segment};
use crate::StateError;
use crate::disk::Disk;
use crate::error::Flawed;
use crate::names::{FileName, Names};

/// A verifier that knows the package's configuration, whose keys the ring holds.
pub(crate) fn verifier(
    metadata: &Metadata,
    config: &[Vec<u8>],
    keys: &KeyRing,
    policy: VerifierPolicy,
) -> Result<Verifier, StateError> {
    let mut verifier = Verifier::new(metadata.clone(), policy);
    for (index, record) in config.iter().enumerate() {
        let refused = |why: Flawed| StateError::Config {
            index,
            why: Box::new(why),
        };
        let record = Received::decode(record.clone()).map_err(|why| refused(why.into()))?;
        let verified = verifier.verify(record).map_err(|why| refused(why.into()))?;
        verifier
            .apply(verified)
            .map_err(|why| refused(why.into()))?;
    }
    for number in keys.generations() {
        if let Some(key) = keys.generation(number) {
            key.check(metadata, verifier.config())?;
        }
    }
    Ok(verifier)
}

/// Reads and verifies all chains; says as well which files hold nothing.
pub(crate) fn read(
    disk: &Disk,
    names: &Names,
    verifier: &mut Verifier,
    keys: &KeyRing,
) -> Result<(Vec<Chain>, Vec<Segment>), StateError> {
    let mut by_writer: BTreeMap<String, Vec<(String, u64)>> = BTreeMap::new();
    for (name, _) in disk.list()? {
        if let Some(FileName::Segment { writer, first }) = names.parse(&name) {
            by_writer.entry(writer).or_default().push((name, first));
        }
    }
    let mut chains = Vec::new();
    let mut reader = Reader {
        disk,
        names,
        verifier,
        keys,
        torn: Vec::new(),
    };
    for files in by_writer.values_mut() {
        files.sort_by_key(|(_, first)| *first);
        chains.extend(reader.chain(files)?);
    }
    Ok((chains, reader.torn))
}
