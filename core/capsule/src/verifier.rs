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
use std::collections::{BTreeMap, BTreeSet};

use bield_envelope::{Digest, Time};

pub use self::chain::Chain;
pub use self::refused::Refused;
pub use self::rules::{ARRIVAL_GRACE, CLOCK_AHEAD_MAX};
use self::rules::{Effect, State};
use self::verified::Folded;
pub use self::verified::{Applied, Verified};
use crate::{
    Config, Fork, ForkError, ForkProof, Head, Kind, Last, Metadata, Received, SignedHead,
    SkipLevels, Through, WriterId,
};

/// Most writers of a capsule unless policy says otherwise: 64 MiB of chains.
pub const WRITERS_MAX: usize = 65_536;

/// Most forks that are remembered of writers that have no chain here: 4 MiB.
pub const FORKS_MAX: usize = 65_536;

/// What a verifier accepts beyond the rules of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerifierPolicy {
    /// Certificates whose evidence came from a software TEE count.
    pub allow_simulated: bool,
    /// Most writers of whose records any count.
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
    /// When its writer sent it here, by the verifier's own clock: certificates that ended admit nothing
    /// new. `None` where that says nothing, as in an old export, or from another replica.
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

    /// From which record on a chain is here whole; its open record is here beside. None: from its first, or not at all.
    fn begins(&self, writer: &WriterId) -> Option<u64> {
        let _ = writer;
        None
    }
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

/// An author names another record as parent than the one here: it saw the other side of a fork, or lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contradiction {
    /// Whose record names it.
    pub by: WriterId,
    /// What is named.
    pub parent: Head,
    /// What is here in its place.
    pub known: Digest,
}

/// Everything that is known about one capsule's chains.
#[derive(Clone, Debug)]
pub struct Verifier {
    metadata: Metadata,
    policy: VerifierPolicy,
    config: Config,
    /// The config chain is among them.
    chains: BTreeMap<WriterId, Chain>,
    /// Chains of which anything counts, without the config chain.
    counting: usize,
    /// The lowest position known to have two records.
    forks: BTreeMap<WriterId, u64>,
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
            counting: 0,
            forks: BTreeMap::new(),
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
        let state = State {
            config: &self.config,
            chain: self.chains.get(&record.header().writer),
        };
        let folded = match self.judge(&state, &record, context, true)? {
            Effect::Configures(after) => Some(Box::new(Folded {
                before: self.config.head(),
                after: *after,
            })),
            _ => None,
        };
        Ok(Verified {
            record,
            signature_checked: true,
            folded,
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
        let mut changed: Option<Box<Config>> = None;
        let mut before = self.config.head();
        let mut verified: Vec<Verified> = Vec::with_capacity(run.len());
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
            let signature_checked =
                index == newest || matches!(record.header().kind, Kind::Open | Kind::Config);
            let effect = self
                .judge(&state, &record, context, signature_checked)
                .map_err(at)?;
            let after = self.extended(chain, &effect, &record, signature_checked);
            chain = Some(after);
            if let Effect::Configures(config) = effect {
                before = state_head(changed.as_deref(), &self.config);
                changed = Some(config);
            }
            verified.push(Verified {
                record,
                signature_checked,
                folded: None,
            });
        }
        // Only of the newest: what the others make of the configuration would add up.
        if let (Some(last), Some(after)) = (verified.last_mut(), changed) {
            let after = *after;
            last.folded = Some(Box::new(Folded { before, after }));
        }
        Ok(verified)
    }

    /// Takes a verified record into account. Whatever may have changed since it was verified, by this
    /// verifier or by another one, is judged again.
    ///
    /// # Errors
    /// The record is no longer the next of its chain, or a revocation came first.
    pub fn apply(&mut self, verified: Verified) -> Result<Applied, Refused> {
        let Verified {
            record,
            signature_checked,
            folded,
        } = verified;
        self.take(&record, signature_checked, folded)?;
        Ok(Applied {
            record,
            signature_checked,
        })
    }

    /// Takes back a record that this verifier's own process stored after applying it. **No signature is
    /// checked**: the caller vouches that nobody else could have written to that storage. All other
    /// rules hold.
    ///
    /// # Errors
    /// As [`Verifier::verify`], but for the signature.
    pub fn restore_own(&mut self, record: Received) -> Result<Applied, Refused> {
        self.take(&record, true, None)?;
        Ok(Applied {
            record,
            signature_checked: false,
        })
    }

    /// Takes back a record that this verifier, or one before it, applied and whose header `hash` the caller
    /// kept. **Nothing else is checked**: it opens, and says nothing of what is admitted now.
    ///
    /// # Errors
    /// Another record, or another capsule's.
    pub fn recall(&self, record: Received, hash: &Digest) -> Result<Applied, Refused> {
        let header = record.header();
        if header.capsule != self.metadata.name() {
            return Err(Refused::OtherCapsule {
                found: header.capsule,
            });
        }
        if record.hash() != *hash {
            return Err(Refused::Conflict {
                writer: header.writer,
                seq: header.seq,
                known: *hash,
                found: record.hash(),
            });
        }
        Ok(Applied {
            record,
            signature_checked: false,
        })
    }

    /// Moves a chain on to `tip`, where the caller's own storage proves that it leads: what lies between
    /// is **not judged again**, and parents that were named there are not remembered. `levels` are those
    /// of the chain up to `tip`. Its signature is checked.
    ///
    /// # Errors
    /// No chain of this writer, a tip before the chain's own, levels of another chain, a config record
    /// that is not known, or another one's signature. Nothing is changed then.
    pub fn skip_to(&mut self, tip: &SignedHead, levels: SkipLevels) -> Result<(), Refused> {
        let header = tip.header();
        let (have, next) = (self.config.head().map(|head| head.seq), levels.next());
        if header.capsule != self.metadata.name() {
            return Err(Refused::OtherCapsule {
                found: header.capsule,
            });
        }
        if have.is_none_or(|have| have < header.config) {
            return Err(Refused::ConfigGap {
                have,
                need: header.config,
            });
        }
        let owner = self.config.is_owner(&header.writer);
        let chain = self.chains.get_mut(&header.writer).filter(|_| !owner);
        let Some(chain) = chain.filter(|chain| header.seq >= chain.tip().seq) else {
            return Err(Refused::Gap {
                writer: header.writer,
                have: None,
                got: header.seq,
            });
        };
        if header.seq.checked_add(1) != Some(next) || levels.newest() != Some(tip.head().hash) {
            return Err(Refused::Skips);
        }
        tip.verify(chain.key()).map_err(|_| Refused::Signature)?;
        chain.skip_to(tip, levels);
        Ok(())
    }

    /// Remembers that a writer told two stories: nothing from there on is accepted until the owner names
    /// the last record that stays (`spec/06 §5`). It does not matter whether the chain is here yet. A
    /// verifier that starts again is told again, from the proofs that its caller keeps.
    ///
    /// # Errors
    /// The proof proves nothing, is about another capsule, or there is no room for one about a writer that
    /// has no chain here.
    pub fn mark_forked(&mut self, proof: &ForkProof) -> Result<Fork, ForkError> {
        let fork = proof.verify(&self.metadata.name())?;
        let known = self.forks.contains_key(&fork.writer)
            || self.chains.contains_key(&fork.writer)
            || self.config.is_owner(&fork.writer);
        if !known && self.forks.len() >= FORKS_MAX {
            return Err(ForkError::Full { max: FORKS_MAX });
        }
        let seq = self.forks.entry(fork.writer).or_insert(fork.seq);
        *seq = fork.seq.min(*seq);
        Ok(fork)
    }

    /// The lowest position of a writer that is known to have two records.
    #[must_use]
    pub fn forked(&self, writer: &WriterId) -> Option<u64> {
        self.forks.get(writer).copied()
    }

    /// Tells which record a chain has where a revocation cut it below its tip, see
    /// [`Chain::unchecked_cut`]: a chain that has another one than the owner named counts for nothing.
    /// `stored` is the caller's own, from its storage of applied records.
    pub fn compare_cut(&mut self, stored: Head) {
        let asked = |chain: &&mut Chain| {
            let last = chain.unchecked_cut(&self.config);
            last.is_some_and(|last| last.seq == stored.seq)
        };
        if let Some(chain) = self.chains.get_mut(&stored.writer).filter(asked) {
            chain.remember(stored.into());
            self.settle();
        }
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

    /// The newest records that count, ascending by writer, for a join to name: without the config chain
    /// (see [`Config::head`]), and without chains that are known to be forked and that the owner has not
    /// cut yet. A chain that was cut below its tip ends where the owner said.
    pub fn heads(&self) -> impl Iterator<Item = Head> {
        self.stated_after(None)
            .filter(|head| !self.undecided(&head.writer))
    }

    /// The heads a replica states to others, of writers after `after`, ascending: of all chains of which
    /// anything counts the newest record that does (`spec/06 §9`).
    pub fn stated_after(&self, after: Option<WriterId>) -> impl Iterator<Item = Head> {
        self.chains_after(after)
            .filter_map(|chain| self.head_of(chain))
    }

    /// Records that the newest joins of chains that count name as parents and that are not here, ascending
    /// by writer and position; what was cut off is not missed. Nothing is remembered of them: what a
    /// writer invented is gone when its chain counts no more, or names others.
    pub fn missing(&self) -> impl Iterator<Item = Gap> {
        let have = |writer: &WriterId| match self.config.is_owner(writer) {
            true => self.config.head().map(|head| head.seq),
            false => self.chains.get(writer).map(|chain| chain.tip().seq),
        };
        let named: BTreeSet<Head> = self.parents().map(|(_, parent)| parent).collect();
        named.into_iter().filter_map(move |need| {
            let have = have(&need.writer);
            (have < Some(need.seq)).then_some(Gap { have, need })
        })
    }

    /// Parents that are named by the newest joins of chains that count, where another record is here: a
    /// fact to look into, and no reason to refuse anybody. `history` gives hashes below the tips.
    pub fn contradictions(&self, history: &dyn History) -> impl Iterator<Item = Contradiction> {
        self.parents().filter_map(move |(by, parent)| {
            let known = self.hash_at(&parent.writer, parent.seq, history)?;
            (known != parent.hash).then_some(Contradiction { by, parent, known })
        })
    }

    /// What the newest joins of chains that count name, without what was cut off.
    fn parents(&self) -> impl Iterator<Item = (WriterId, Head)> {
        let joins = self.chains().filter_map(|chain| {
            let (seq, parents) = chain.joined()?;
            let counts = chain.through(&self.config).includes(seq);
            counts.then_some((chain.writer(), parents))
        });
        joins.flat_map(|(by, parents)| {
            let stays = |parent: &Head| self.config.through(&parent.writer).includes(parent.seq);
            let parents = parents.into_iter().filter(move |parent| stays(parent));
            parents.map(move |parent| (by, parent))
        })
    }

    /// The newest record of a chain that counts.
    fn head_of(&self, chain: &Chain) -> Option<Head> {
        let tip = chain.tip();
        if chain.through(&self.config) == Through::Nothing {
            return None;
        }
        Some(match self.config.last(&tip.writer) {
            Some(Last { seq, hash }) if seq <= tip.seq => Head { seq, hash, ..tip },
            _ => tip,
        })
    }

    /// Whether it is not known which records of a forked chain stay: the owner has not said so, or the
    /// chain here has not come to the record that it named.
    pub(crate) fn undecided(&self, writer: &WriterId) -> bool {
        let Some(fork) = self.forked(writer) else {
            return false;
        };
        let tip = self.chains.get(writer).map(|chain| chain.tip().seq);
        match (self.config.through(writer), self.config.last(writer)) {
            (Through::Nothing, _) => false,
            (_, Some(last)) => tip >= Some(fork) && tip < Some(last.seq),
            (_, None) => true,
        }
    }

    /// Counts anew which chains count, after the configuration changed.
    fn settle(&mut self) {
        self.counting = 0;
        for (writer, chain) in &mut self.chains {
            if self.config.is_owner(writer) {
                continue;
            }
            if chain.through(&self.config) == Through::Nothing {
                chain.shrink();
            } else {
                self.counting += 1;
            }
        }
    }

    /// Header hash of an applied record, where it is known.
    pub(crate) fn hash_at(
        &self,
        writer: &WriterId,
        seq: u64,
        history: &dyn History,
    ) -> Option<Digest> {
        if self.config.is_owner(writer) {
            return self.config.hash_at(seq);
        }
        let chain = self.chains.get(writer);
        chain
            .and_then(|chain| chain.hash_at(seq))
            .or_else(|| history.hash_at(writer, seq))
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

    fn take(
        &mut self,
        record: &Received,
        signature_known: bool,
        folded: Option<Box<Folded>>,
    ) -> Result<(), Refused> {
        let writer = record.header().writer;
        let context = Context::default();
        let state = State {
            config: &self.config,
            chain: self.chains.get(&writer),
        };
        let effect = match folded {
            Some(folded) if folded.before == self.config.head() => {
                self.fits(&state, record, &context)?;
                Effect::Configures(Box::new(folded.after))
            }
            _ => self.judge(&state, record, &context, false)?,
        };
        if let Some(chain) = self.chains.get_mut(&writer) {
            chain.extend(record, signature_known);
        } else {
            let chain = self.extended(None, &effect, record, signature_known);
            self.counting += usize::from(!self.config.is_owner(&writer));
            self.chains.insert(writer, chain);
        }
        if let Effect::Configures(config) = effect {
            self.config = *config;
            self.settle();
        }
        Ok(())
    }
}

/// The newest config record of the state in the middle of a run.
fn state_head(changed: Option<&Config>, start: &Config) -> Option<Head> {
    changed.unwrap_or(start).head()
}

#[cfg(test)]
pub(crate) mod tests;
