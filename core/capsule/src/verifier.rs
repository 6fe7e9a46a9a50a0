//! Records become facts here, one way only (`spec/06 §3, §5, §6`).
//!
//! ```text
//!              ┌────────── judged against, nothing changed ─────────┐
//! Received ──verify──▶ Verified ──apply──▶ Applied          config, one Chain per writer
//!              signature, chain,             │
//!              rights of the writer          ├─ open(key ring) ──▶ entries
//! ```
//!
//! In: records from anyone, in an order in which each comes after what it builds on; anything else is
//! refused with what is missing. Out: [`Verified`] and [`Applied`], which nothing else makes: a record
//! that was not verified cannot be opened. Always true: a chain has no gap, a position has one
//! record, a revoked writer writes nothing after its cut whatever its record claims, and whether a
//! record is accepted depends on the records applied before it, never on who sent it. [`Verifier::apply`]
//! judges again what may have changed since [`Verifier::verify`], so verifying can run on many threads.
//!
//! Memory: about 1 KiB a writer plus the configuration; no record is kept, so hashes below a chain's
//! tip come from the caller's storage ([`History`]) where it has one. Cost of a record: one signature
//! ([`Verifier::verify`]) or one a run ([`Verifier::verify_run`]), two map look-ups, no hashing.
//!
//! Not here: fetching ([`Verifier::missing`] says what), storing, and fork proofs
//! ([`Verifier::mark_forked`] takes them).

mod chain;
mod refused;
mod rules;
mod verified;

use core::ops::Bound;
use std::collections::BTreeMap;

use bield_envelope::{Digest, Time};

pub use self::chain::Chain;
pub use self::refused::Refused;
pub use self::rules::ARRIVAL_GRACE;
use self::rules::{Effect, State};
pub use self::verified::{Applied, Verified};
use crate::{
    Config, Fork, ForkError, ForkProof, Head, Kind, Metadata, PublicKey, Received, Through,
    WriterId,
};

/// Most writers of a capsule unless policy says otherwise: 64 MiB of chains.
pub const WRITERS_MAX: usize = 65_536;

/// Most writers whose missing records are remembered. Beyond it [`Verifier::missing`] is a hint; the
/// heads that replicas state are the complete list.
pub const WANTED_MAX: usize = 65_536;

/// What a verifier accepts beyond the rules of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerifierPolicy {
    /// Certificates whose evidence came from a software TEE count.
    pub allow_simulated: bool,
    /// Most writers.
    pub writers_max: usize,
}

impl Default for VerifierPolicy {
    fn default() -> Self {
        Self {
            allow_simulated: false,
            writers_max: WRITERS_MAX,
        }
    }
}

/// What the caller knows when a record comes in.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// When it arrived, by the verifier's own clock: certificates that ended admit nothing new. `None`
    /// where that says nothing, as in an old export.
    pub arrived: Option<Time>,
    /// The records applied so far.
    pub history: &'a dyn History,
}

impl Default for Context<'_> {
    fn default() -> Self {
        Self {
            arrived: None,
            history: &NoHistory,
        }
    }
}

/// Storage of applied records, as far as the verifier needs it.
pub trait History {
    /// Header hash of the applied record of `writer` at `seq`.
    fn hash_at(&self, writer: &WriterId, seq: u64) -> Option<Digest>;
}

/// A verifier without storage: what lies below the tips is not compared.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoHistory;

impl History for NoHistory {
    fn hash_at(&self, _: &WriterId, _: u64) -> Option<Digest> {
        None
    }
}

/// Records that are not here although applied records name them, or build on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The newest record applied of this writer; none: nothing.
    pub have: Option<u64>,
    /// A record that an admitted writer says it has seen.
    pub need: Head,
}

/// Everything that is known about one capsule's chains.
#[derive(Clone, Debug)]
pub struct Verifier {
    metadata: Metadata,
    policy: VerifierPolicy,
    config: Config,
    /// The config chain is among them.
    chains: BTreeMap<WriterId, Chain>,
    wanted: BTreeMap<WriterId, Head>,
}

impl Verifier {
    /// A verifier that has seen no record of the capsule.
    #[must_use]
    pub fn new(metadata: Metadata, policy: VerifierPolicy) -> Self {
        Self {
            config: Config::new(&metadata),
            metadata,
            policy,
            chains: BTreeMap::new(),
            wanted: BTreeMap::new(),
        }
    }

    /// Checks one record against everything applied so far, its signature included.
    ///
    /// # Errors
    /// [`Refused`] names the rule; [`Refused::retry`] says whether it can be accepted later.
    pub fn verify(&self, record: Received) -> Result<Verified, Refused> {
        self.verify_in(record, &Context::default())
    }

    /// As [`Verifier::verify`], knowing when the record arrived and what is in storage.
    ///
    /// # Errors
    /// As [`Verifier::verify`].
    pub fn verify_in(&self, record: Received, context: &Context<'_>) -> Result<Verified, Refused> {
        let chain = self.chains.get(&record.header().writer);
        let state = State {
            config: &self.config,
            chain,
        };
        let effect = self.judge(&state, &record, context)?;
        self.check_signature(&effect, chain, &record)?;
        Ok(Verified {
            record,
            signature_checked: true,
        })
    }

    /// Checks a run of records of one writer that follow each other. Only the newest one's signature is
    /// checked, because its hash covers all the others, and that of each open and config record. All
    /// other rules hold for every record.
    ///
    /// # Errors
    /// Which record is refused, from 0, and why. Nothing of the run is verified then.
    pub fn verify_run(&self, run: Vec<Received>) -> Result<Vec<Verified>, (usize, Refused)> {
        self.verify_run_in(run, &Context::default())
    }

    /// As [`Verifier::verify_run`], knowing when the run arrived and what is in storage.
    ///
    /// # Errors
    /// As [`Verifier::verify_run`].
    pub fn verify_run_in(
        &self,
        run: Vec<Received>,
        context: &Context<'_>,
    ) -> Result<Vec<Verified>, (usize, Refused)> {
        let Some(writer) = run.first().map(|record| record.header().writer) else {
            return Ok(Vec::new());
        };
        let mut chain = self.chains.get(&writer).cloned();
        let mut changed = None;
        let mut verified = Vec::with_capacity(run.len());
        let newest = run.len() - 1;
        for (index, record) in run.into_iter().enumerate() {
            let at = |refused| (index, refused);
            if record.header().writer != writer {
                let found = record.header().writer;
                return Err(at(Refused::OtherWriter { found }));
            }
            let state = State {
                config: changed.as_deref().unwrap_or(&self.config),
                chain: chain.as_ref(),
            };
            let effect = self.judge(&state, &record, context).map_err(at)?;
            let signature_checked =
                index == newest || matches!(record.header().kind, Kind::Open | Kind::Config);
            if signature_checked {
                self.check_signature(&effect, chain.as_ref(), &record)
                    .map_err(at)?;
            }
            let after = self.extended(chain, &effect, &record, signature_checked);
            chain = Some(after);
            if let Effect::Configures(config) = effect {
                changed = Some(config);
            }
            verified.push(Verified {
                record,
                signature_checked,
            });
        }
        Ok(verified)
    }

    /// Takes a verified record into account. Whatever may have changed since it was verified, by this
    /// verifier or by another one, is judged again.
    ///
    /// # Errors
    /// The record is no longer the next of its chain, or a revocation came first.
    pub fn apply(&mut self, verified: Verified) -> Result<Applied, Refused> {
        self.take(verified.record, verified.signature_checked)
    }

    /// Takes back a record that this verifier's own process stored after applying it. **No signature is
    /// checked**: the caller vouches that nobody else could have written to that storage. All other
    /// rules hold.
    ///
    /// # Errors
    /// As [`Verifier::verify`], but for the signature.
    pub fn restore_own(&mut self, record: Received) -> Result<Applied, Refused> {
        self.take(record, true)
    }

    /// Remembers that a writer told two stories: nothing that follows from it is accepted until the
    /// owner cuts its chain before the fork (`spec/06 §5`).
    ///
    /// # Errors
    /// The proof proves nothing, or is about a capsule or writer that is not known here.
    pub fn mark_forked(&mut self, proof: &ForkProof) -> Result<Fork, ForkError> {
        let fork = proof.verify(&self.metadata.name())?;
        let chain = self.chains.get_mut(&fork.writer);
        chain.ok_or(ForkError::Key)?.mark_forked(fork.seq);
        Ok(fork)
    }

    /// The capsule.
    #[must_use]
    pub const fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// What is accepted beyond the rules of the format.
    #[must_use]
    pub const fn policy(&self) -> VerifierPolicy {
        self.policy
    }

    /// The configuration after the newest config record applied.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// What is known of a writer; the owner's id gives the config chain.
    #[must_use]
    pub fn chain(&self, writer: &WriterId) -> Option<&Chain> {
        self.chains.get(writer)
    }

    /// All chains but the config chain, ascending by writer, those that count no more included: what a
    /// replica holds.
    pub fn chains(&self) -> impl Iterator<Item = &Chain> {
        self.chains_after(None)
    }

    /// The chains of writers after `after`, ascending, without the config chain.
    pub fn chains_after(&self, after: Option<WriterId>) -> impl Iterator<Item = &Chain> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.chains
            .range((from, Bound::Unbounded))
            .filter(|(writer, _)| !self.config.is_owner(writer))
            .map(|(_, chain)| chain)
    }

    /// The newest records that count, ascending by writer: without the config chain (see
    /// [`Config::head`]), and without chains that were cut below their tip by a revocation.
    pub fn heads(&self) -> impl Iterator<Item = Head> {
        self.chains()
            .filter(|chain| chain.through(&self.config).includes(chain.tip().seq))
            .map(Chain::tip)
    }

    /// Records that applied records name as parents and that are not here, ascending by writer; what
    /// was cut off is not missed.
    pub fn missing(&self) -> impl Iterator<Item = Gap> {
        let counts = |head: &&Head| self.config.through(&head.writer).includes(head.seq);
        self.wanted.values().filter(counts).map(|need| Gap {
            have: self.chains.get(&need.writer).map(|chain| chain.tip().seq),
            need: *need,
        })
    }

    /// The heads a replica states to others, of writers after `after`, ascending: the tips of all chains
    /// of which anything counts (`spec/06 §9`).
    pub fn stated_after(&self, after: Option<WriterId>) -> impl Iterator<Item = Head> {
        self.chains_after(after)
            .filter(|chain| chain.through(&self.config) != Through::Nothing)
            .map(Chain::tip)
    }

    /// Header hash of an applied record, where it is known.
    pub(crate) fn hash_at(
        &self,
        config: &Config,
        writer: &WriterId,
        seq: u64,
        history: &dyn History,
    ) -> Option<Digest> {
        if config.is_owner(writer) {
            return config.hash_at(seq);
        }
        let chain = self.chains.get(writer);
        chain
            .and_then(|chain| chain.hash_at(seq))
            .or_else(|| history.hash_at(writer, seq))
    }

    fn check_signature(
        &self,
        effect: &Effect,
        chain: Option<&Chain>,
        record: &Received,
    ) -> Result<(), Refused> {
        let key = self.key(effect, chain);
        record.verify_signature(key).map_err(|_| Refused::Signature)
    }

    fn key<'a>(&'a self, effect: &'a Effect, chain: Option<&'a Chain>) -> &'a PublicKey {
        match (effect, chain) {
            (Effect::Opens(opening), _) => opening.key(),
            (_, Some(chain)) => chain.key(),
            (_, None) => self.metadata.owner(),
        }
    }

    fn extended(
        &self,
        chain: Option<Chain>,
        effect: &Effect,
        record: &Received,
        signature_checked: bool,
    ) -> Chain {
        match (chain, effect) {
            (Some(mut chain), _) => {
                chain.extend(record, signature_checked);
                chain
            }
            (None, Effect::Opens(opening)) => Chain::start(
                opening.key().clone(),
                opening.certificate().cloned(),
                record,
            ),
            (None, _) => Chain::start(self.metadata.owner().clone(), None, record),
        }
    }

    fn take(&mut self, record: Received, signature_checked: bool) -> Result<Applied, Refused> {
        let writer = record.header().writer;
        let state = State {
            config: &self.config,
            chain: self.chains.get(&writer),
        };
        let effect = self.judge(&state, &record, &Context::default())?;
        if let Some(chain) = self.chains.get_mut(&writer) {
            chain.extend(&record, signature_checked);
        } else {
            let chain = self.extended(None, &effect, &record, signature_checked);
            self.chains.insert(writer, chain);
        }
        if let Effect::Configures(config) = effect {
            self.config = *config;
        }
        self.want(&record);
        Ok(Applied {
            record,
            signature_checked,
        })
    }

    /// Notes the parents that are not here, and that this record is.
    fn want(&mut self, record: &Received) {
        let header = record.header();
        if self
            .wanted
            .get(&header.writer)
            .is_some_and(|want| want.seq <= header.seq)
        {
            self.wanted.remove(&header.writer);
        }
        for parent in &header.parents {
            let here = self.chains.get(&parent.writer);
            if here.is_some_and(|chain| chain.tip().seq >= parent.seq) {
                continue;
            }
            let room = self.wanted.len() < WANTED_MAX;
            match self.wanted.get_mut(&parent.writer) {
                Some(want) if want.seq < parent.seq => *want = *parent,
                Some(_) => {}
                None if room => drop(self.wanted.insert(parent.writer, *parent)),
                None => {}
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
