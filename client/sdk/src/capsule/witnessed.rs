//! `witnessed(q, w)`: that w witnesses saw a record in the logs of q replicas (`spec/06 §8, §11`).
//!
//! ```text
//! replica ─▶ checkpoint ── signed by it? cosigned by w witnesses of the configuration?
//!         └▶ index, hashes ── do they lead from the record's header hash to the checkpoint's root?
//! ```
//!
//! Always true: a replica counts once; a witness counts as `bield_tlog::Quorum` counts it; nothing a
//! replica says is believed beyond what it signed and what the hashes show.

use std::thread;
use std::time::{Duration, Instant};

use bield_capsule::{CapsuleName, Durability, Head};
use bield_tlog::{
    Hash, LogVerifier, Quorum, SignedCheckpoint, VerifiedCheckpoint, leaf_hash, verify_inclusion,
};
use serde_json::Value;

use super::error::{Lie, LogError, ReplicaError};
use super::log::{Log, at_all};
use super::replica::ReplicaClient;
use super::window::NotReached;
use crate::now;

/// A checkpoint of a replica that witnesses cosigned and that contains a record.
#[derive(Debug, Clone)]
pub struct WitnessedBy {
    /// The replica's URL.
    pub replica: String,
    /// Names of the witnesses that count.
    pub witnesses: Vec<String>,
    /// The checkpoint, as text.
    pub checkpoint: String,
}

impl Log {
    /// Waits until `replicas` replicas have shown that `witnesses` witnesses of the configuration saw
    /// the record at `head`.
    ///
    /// # Errors
    /// Too few have within `patience`.
    pub fn wait_witnessed(
        &self,
        head: &Head,
        replicas: u8,
        witnesses: u8,
        patience: Duration,
    ) -> Result<Vec<WitnessedBy>, LogError> {
        let named = self.config().witnesses().len();
        if named < usize::from(witnesses) {
            return Err(LogError::Argument(format!(
                "the configuration names {named} witnesses, {witnesses} can never be reached; the entries \
                 are appended at replicated({replicas})"
            )));
        }
        let keys: Result<Vec<_>, _> = self
            .config()
            .witnesses()
            .map(|(_, key)| key.parse())
            .collect();
        let quorum = keys
            .map_err(|error| LogError::Argument(format!("a witness of the configuration: {error}")))
            .and_then(|keys| {
                Quorum::new(keys, usize::from(witnesses))
                    .map_err(|error| LogError::Argument(error.to_string()))
            })?;
        let name = self.metadata().name();
        let counted: Vec<_> = self.counted_replicas().cloned().collect();
        let until = Instant::now() + patience;
        loop {
            let found = at_all(&counted, |replica| shown(replica, &name, head, &quorum));
            let (found, missing): (Vec<_>, Vec<_>) = found.into_iter().partition(Result::is_ok);
            if found.len() >= usize::from(replicas) {
                return Ok(found.into_iter().filter_map(Result::ok).collect());
            }
            if Instant::now() > until {
                let why: Vec<_> = missing
                    .into_iter()
                    .filter_map(Result::err)
                    .map(|error| error.to_string())
                    .collect();
                let level = Durability::Witnessed(replicas, witnesses);
                let why = why.join("; ");
                let error = NotReached::TooFew {
                    level,
                    reached: Durability::Replicated(replicas),
                    why,
                };
                return Err(super::appender::AppendError::from(error).into());
            }
            thread::sleep(PAUSE);
        }
    }
}

fn shown(
    replica: &ReplicaClient,
    name: &CapsuleName,
    head: &Head,
    quorum: &Quorum,
) -> Result<WitnessedBy, ReplicaError> {
    let wrong = |error: String| replica.lied(Lie::Proof(error));
    let bytes = replica.log_part(name, "checkpoint")?;
    let checkpoint = verified(replica, name, &bytes).map_err(wrong)?;
    let (size, root) = (
        checkpoint.checkpoint().size(),
        checkpoint.checkpoint().root(),
    );
    let part = format!("proof?hash={}&size={size}", head.hash);
    let said: Value = serde_json::from_slice(&replica.log_part(name, &part)?).unwrap_or_default();
    let hashes = said["hashes"].as_array().into_iter().flatten();
    let hashes: Option<Vec<Hash>> = hashes.map(|hash| hash.as_str()?.parse().ok()).collect();
    let (index, hashes) = said["index"]
        .as_u64()
        .zip(hashes)
        .ok_or_else(|| replica.lied(Lie::Form))?;
    verify_inclusion(
        &leaf_hash(head.hash.as_bytes()),
        index,
        size,
        &hashes,
        &root,
    )
    .map_err(|error| wrong(error.to_string()))?;
    let seen = quorum.check(&checkpoint, now(), COSIGNED_AGE_MAX);
    let seen = seen.map_err(|error| ReplicaError::Refused {
        replica: replica.url().to_owned(),
        status: 200,
        code: "not-witnessed".to_owned(),
        message: error.to_string(),
        retry: true,
        have: None,
    })?;
    Ok(WitnessedBy {
        replica: replica.url().to_owned(),
        witnesses: seen.iter().map(|seen| seen.witness.to_string()).collect(),
        checkpoint: checkpoint.note().to_string(),
    })
}

fn verified(
    replica: &ReplicaClient,
    name: &CapsuleName,
    bytes: &[u8],
) -> Result<VerifiedCheckpoint, String> {
    let principal = replica.principal();
    let origin = format!("bield/capsule/{name}/{}", hex::encode(principal.as_bytes()));
    let key = origin.parse().map_err(|error| format!("{error}"))?;
    let log = LogVerifier::new(key, *principal.as_bytes());
    let signed = SignedCheckpoint::parse(bytes).map_err(|error| error.to_string())?;
    let origin = log.name().into();
    signed
        .verify(&origin, &[log])
        .map_err(|error| error.to_string())
}

/// How old a cosignature may be: replicas ask for one after every new record.
const COSIGNED_AGE_MAX: Duration = Duration::from_secs(600);
const PAUSE: Duration = Duration::from_millis(100);
