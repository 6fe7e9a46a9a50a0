//! Proofs that stand by themselves: for one entry, or for durability.
//!
//! In: an opened [`Log`]. Out: [`Proof`] files (`spec/06 §7`), verified before they are handed out,
//! because what they are made of came from replicas. Always true: a proof shows one record's secret
//! at most; nothing of the key ring is in it.

use bield_capsule::{
    Acknowledgement, Head, Header, Kept, Proof, Proven, Received, VerifierPolicy, WriterId, path,
    record_secret,
};
use bield_envelope::Signed;

use super::error::LogError;
use super::log::{Log, at_all};

/// The newest record of a chain with the words of those who keep exactly it: what a receipt is made of.
#[derive(Debug, Clone)]
pub struct Kepts {
    /// The record.
    pub record: Received,
    /// Signed words.
    pub acknowledgements: Vec<Signed<Acknowledgement>>,
}

impl Log {
    /// A proof that `writer`'s record at `seq` is in the capsule, with the words of replicas that hold
    /// it; with `entry`, also what that entry says.
    ///
    /// # Errors
    /// There is no such record, no key for it, or no replica gives out what verifies.
    pub fn prove(
        &self,
        writer: &WriterId,
        seq: u64,
        entry: Option<u32>,
    ) -> Result<(Proof, Proven), LogError> {
        let owner = *writer == self.metadata().owner_id();
        let newest = if owner {
            self.config().head()
        } else {
            let mut heads = self.newest_heads().into_iter();
            heads.find(|head| head.writer == *writer)
        };
        let Some(newest) = newest.filter(|newest| newest.seq >= seq) else {
            return Err(LogError::Argument(format!(
                "no replica names a record {}/{seq}; `bield capsule heads` shows what there is",
                writer.short()
            )));
        };
        let newest = match self.config().through(writer) {
            bield_capsule::Through::Last(last) if last < newest.seq => Head {
                seq: last,
                ..newest
            },
            _ => newest,
        };
        let head = self.one(&newest, newest.seq)?;
        let target = if seq == newest.seq {
            head.clone()
        } else {
            self.one(&newest, seq)?
        };
        let headers = |at: u64| -> Option<Header> {
            let record = self.one(&newest, at).ok()?;
            Some(record.header().clone())
        };
        let path = path(head.header(), seq, &headers).ok_or_else(|| LogError::Withheld {
            writer: *writer,
            seq,
            why: "a record on the way is missing".to_owned(),
        })?;
        let opening = if owner {
            None
        } else {
            Some(self.one(&newest, 0)?)
        };
        let words = self.words(&head);
        let config = self.config_records().to_vec();
        let metadata = self.metadata().clone();
        let mut proof =
            Proof::new(metadata, config, opening, head.signed_head(), path).acknowledged(words);
        if let Some(index) = entry {
            let secret = record_secret(&target, self.ring()).map_err(|error| LogError::Open {
                writer: *writer,
                seq,
                error,
            })?;
            proof = proof.show(&target, secret, index).map_err(proof_error)?;
        }
        let proven = self.checked(&proof)?;
        Ok((proof, proven))
    }

    /// A durability receipt: the proof that these replicas keep everything up to this record.
    ///
    /// # Errors
    /// The record or a word does not verify, or the chain's first record is not given out.
    pub fn receipt(&self, kept: &Kepts) -> Result<(Proof, Proven), LogError> {
        let head = kept.record.head();
        let opening = match head.seq {
            0 => kept.record.clone(),
            _ => self.one(&head, 0)?,
        };
        let config = self.config_records().to_vec();
        let signed = kept.record.signed_head();
        let proof = Proof::new(
            self.metadata().clone(),
            config,
            Some(opening),
            signed,
            Vec::new(),
        )
        .acknowledged(kept.acknowledgements.iter().cloned());
        let proven = self.checked(&proof)?;
        Ok((proof, proven))
    }

    fn checked(&self, proof: &Proof) -> Result<Proven, LogError> {
        let policy = VerifierPolicy {
            allow_simulated: true,
            ..VerifierPolicy::default()
        };
        proof
            .verify(&self.metadata().name(), policy)
            .map_err(proof_error)
    }

    /// One record from whichever replica has it.
    fn one(&self, newest: &Head, seq: u64) -> Result<Received, LogError> {
        let (name, writer) = (self.metadata().name(), newest.writer);
        let mut why = Vec::new();
        // The owner's chain is not among the heads: everybody may have it.
        for replica in self.counted_replicas() {
            match replica.records(&name, &writer, seq, Some(seq)) {
                Ok(page) => {
                    if let Some(record) = page.records.into_iter().next() {
                        return Ok(record);
                    }
                }
                Err(error) => why.push(error.to_string()),
            }
        }
        Err(LogError::Withheld {
            writer,
            seq,
            why: why.join("; "),
        })
    }

    /// Who keeps exactly this record: a replica that is sent what it has says so again.
    fn words(&self, head: &Received) -> Vec<Signed<Acknowledgement>> {
        let name = self.metadata().name();
        let replicas: Vec<_> = self.counted_replicas().cloned().collect();
        let said = at_all(&replicas, |replica| {
            replica.append(&name, [head.as_bytes()], Kept::Synced)
        });
        said.into_iter()
            .flatten()
            .flat_map(|kept| kept.acknowledgements)
            .filter(|said| said.head() == head.head())
            .map(|said| said.as_signed().clone())
            .collect()
    }
}

fn proof_error(error: bield_capsule::ProofError) -> LogError {
    LogError::Proof(Box::new(error))
}
