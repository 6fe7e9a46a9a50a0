//! One round with one peer: find what is missing here, fetch it, take it in.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bield_capsule::{CapsuleName, Head, Kept, WriterId};
use rand_core::Rng as _;
use tokio::runtime::Handle;

use super::Stop;
use super::client::{Listed, PeerClient, PeerError};
use crate::replica::{PAGE_RECORDS_MAX, Replica, Source, Standing};
use crate::system::Randomness;
use crate::{Refusal, Store, frames};

/// How long a capsule is left out that took the peer too long.
const SLOW: Duration = Duration::from_secs(60);

/// What is remembered between rounds with one peer.
pub(super) struct Repair {
    store: Arc<Store>,
    runtime: Handle,
    peer: PeerClient,
    stop: Arc<Stop>,
    follow: bool,
    /// What stood in the peer's list and in ours when they last differed nowhere.
    equal: HashMap<CapsuleName, (Listed, Standing)>,
    /// Capsules about which the peer did not answer on time, and until when it is not asked again.
    slow: HashMap<CapsuleName, Instant>,
}

/// A range of a writer's records that is not here, or not the same.
#[derive(Debug, Clone, Copy)]
struct Missing {
    writer: WriterId,
    from: u64,
    to: u64,
}

impl Missing {
    /// How many records; a peer may have named any seq.
    const fn len(&self) -> u64 {
        self.to.saturating_sub(self.from).saturating_add(1)
    }
}

/// What became of one range.
enum Fetched {
    /// It is here now.
    All,
    /// Something the peer served was refused, or it withheld.
    Part,
}

impl Repair {
    pub(super) fn new(
        store: Arc<Store>,
        runtime: Handle,
        peer: PeerClient,
        stop: Arc<Stop>,
        follow: bool,
    ) -> Self {
        Self {
            store,
            runtime,
            peer,
            stop,
            follow,
            equal: HashMap::new(),
            slow: HashMap::new(),
        }
    }

    pub(super) fn url(&self) -> &str {
        self.peer.url()
    }

    /// Compares all capsules that both have.
    pub(super) fn round(&mut self) -> Result<(), PeerError> {
        let mut lag = 0;
        let round = self.capsules(&mut lag);
        self.count(|count| {
            count.lag = lag;
            match round {
                Ok(()) => count.rounds += 1,
                Err(_) => count.failures += 1,
            }
        });
        round
    }

    fn capsules(&mut self, lag: &mut u64) -> Result<(), PeerError> {
        self.slow.retain(|_, until| Instant::now() < *until);
        let mut after = None;
        loop {
            let (listed, more) = self.peer.list(after)?;
            for line in &listed {
                if self.stop.is_told() {
                    return Ok(());
                }
                if self.slow.contains_key(&line.name) {
                    continue;
                }
                match self.capsule(line) {
                    Ok(missing) => *lag = lag.saturating_add(missing),
                    // One bad capsule keeps none of the others from being repaired.
                    Err(PeerError::Lied(lie)) => self.refuse(&line.name, &lie),
                    Err(PeerError::Refused(status)) => {
                        tracing::debug!(peer = self.url(), capsule = %line.name, status, "a peer refuses");
                    }
                    // Neither does one that does not open here, or has met an error of its disk.
                    Err(PeerError::Here(slug)) if slug != "draining" => {
                        tracing::debug!(capsule = %line.name, slug, "a capsule here cannot be repaired");
                    }
                    // Nor one that takes the peer too long: it is left out for a while.
                    Err(PeerError::Slow) => {
                        tracing::debug!(peer = self.url(), capsule = %line.name, "a peer is slow");
                        self.count(|count| count.failures += 1);
                        if self.store.standing(&line.name).is_some() {
                            self.slow.insert(line.name, Instant::now() + SLOW);
                        }
                    }
                    Err(other) => return Err(other),
                }
            }
            let last = listed.last().map(|line| line.name);
            if !more || last <= after {
                return Ok(());
            }
            after = last;
        }
    }

    /// Compares one capsule; says how many records are still missing.
    fn capsule(&mut self, line: &Listed) -> Result<u64, PeerError> {
        let Some(standing) = self.store.standing(&line.name) else {
            if !self.follow {
                return Ok(0);
            }
            let metadata = self.peer.metadata(&line.name)?;
            return match self.runtime.block_on(self.store.create(metadata)) {
                Ok(_) => self.compare(line),
                Err(refusal) => {
                    // Whom --owners does not admit is not followed: nothing is wrong.
                    tracing::debug!(capsule = %line.name, slug = refusal.slug, "a peer's capsule is not followed");
                    Ok(0)
                }
            };
        };
        if self.equal.get(&line.name) == Some(&(*line, standing)) {
            return Ok(0);
        }
        self.compare(line)
    }

    fn compare(&mut self, line: &Listed) -> Result<u64, PeerError> {
        let name = line.name;
        let before = self.store.standing(&name).unwrap_or_default();
        let mut missing = 0;
        let mut complete = true;
        let mut after = None;
        loop {
            let mut nonce = [0; 16];
            Randomness.fill_bytes(&mut nonce);
            let said = self.peer.heads(&name, nonce, after)?;
            // The config chain first: it says who may write, and which replicas vouch.
            if let Some(config) = said.config.filter(|_| after.is_none()) {
                let owner =
                    self.ask(name, |replica| Ok(replica.verifier().metadata().owner_id()))?;
                let head = Head {
                    writer: owner,
                    seq: config.seq,
                    hash: config.hash,
                };
                complete &= self.fetch_all(name, vec![head], Source::Sender, &mut missing)?;
            }
            let signer = said.signer();
            let vouched = self.ask(name, move |replica| {
                Ok(replica.verifier().config().is_replica(&signer))
            })?;
            let source = if vouched {
                Source::Replica
            } else {
                Source::Sender
            };
            complete &= self.fetch_all(name, said.heads.clone(), source, &mut missing)?;
            after = said.heads.last().map(|head| head.writer);
            if !said.more || after.is_none() {
                break;
            }
        }
        complete &= self.exchange_forks(line)?;
        let standing = self.store.standing(&name).unwrap_or_default();
        if complete && standing == before {
            self.equal.insert(name, (*line, standing));
        }
        Ok(missing)
    }

    /// Fetches what is missing below `heads`; says whether all of it is here now.
    fn fetch_all(
        &self,
        name: CapsuleName,
        heads: Vec<Head>,
        source: Source,
        missing: &mut u64,
    ) -> Result<bool, PeerError> {
        let ranges = self.ask(name, move |replica| {
            Ok(heads
                .iter()
                .filter_map(|head| below(replica, head))
                .collect::<Vec<_>>())
        })?;
        let mut complete = true;
        for range in ranges {
            if let Fetched::Part = self.fetch(name, range, source)? {
                complete = false;
                *missing = missing.saturating_add(range.len());
            }
        }
        Ok(complete)
    }

    fn fetch(
        &self,
        name: CapsuleName,
        range: Missing,
        source: Source,
    ) -> Result<Fetched, PeerError> {
        let Missing {
            writer,
            mut from,
            to,
        } = range;
        while from <= to {
            if self.stop.is_told() {
                return Ok(Fetched::Part);
            }
            let end = to.min(from.saturating_add(PAGE_RECORDS_MAX as u64 - 1));
            let (records, bytes) = self.peer.records(&name, &writer, from, end)?;
            self.count(|count| count.bytes += bytes);
            if records.is_empty() {
                self.refuse(&name, "it names a head and withholds the records below");
                return Ok(Fetched::Part);
            }
            let count = records.len() as u64;
            let appended = self.store.append(name, records, None, Kept::Synced, source);
            let appended = self.runtime.block_on(appended).map_err(here)?;
            self.count(|count| count.records += appended.new as u64);
            match appended.refused {
                None => match from.checked_add(count) {
                    Some(next) => from = next,
                    None => break,
                },
                // Its chain left ours earlier: the record before shows where, and proves it.
                Some(refusal) if refusal.slug == "prev" && appended.accepted == 0 && from > 0 => {
                    let before = Missing {
                        writer,
                        from: from - 1,
                        to: from - 1,
                    };
                    self.refuse(&name, &refusal.message);
                    return self.fetch_one(name, before, source);
                }
                Some(refusal) => {
                    self.refuse(&name, &refusal.message);
                    return Ok(Fetched::Part);
                }
            }
        }
        Ok(Fetched::All)
    }

    /// Shows the replica one record that should conflict with its own.
    fn fetch_one(
        &self,
        name: CapsuleName,
        place: Missing,
        source: Source,
    ) -> Result<Fetched, PeerError> {
        let (records, bytes) = self
            .peer
            .records(&name, &place.writer, place.from, place.to)?;
        self.count(|count| count.bytes += bytes);
        let appended = self.store.append(name, records, None, Kept::Synced, source);
        self.runtime.block_on(appended).map_err(here)?;
        Ok(Fetched::Part)
    }

    /// Takes the peer's fork proofs and gives it ours; says whether both have the same now.
    fn exchange_forks(&self, line: &Listed) -> Result<bool, PeerError> {
        let name = line.name;
        let ours = self.store.standing(&name).unwrap_or_default().forks;
        if line.forks == 0 && ours == 0 {
            return Ok(true);
        }
        let theirs: BTreeSet<Vec<u8>> = self.peer.forks(&name)?.into_iter().collect();
        let mut complete = true;
        for proof in theirs.clone() {
            if let Err(refusal) = self.ask(name, move |replica| Ok(replica.add_fork(&proof)))? {
                complete = false;
                if !refusal.retry {
                    self.refuse(&name, &refusal.message);
                }
            }
        }
        let ours = self.ask(name, |replica| Ok(replica.forks()))?;
        for proof in frames::items(&ours).filter_map(Result::ok) {
            // It may hold another proof about the same writer; it then says that it needs no more.
            if !theirs.contains(proof) && self.peer.add_fork(&name, proof).is_err() {
                complete = false;
            }
        }
        Ok(complete)
    }

    fn ask<T: Send + 'static>(
        &self,
        name: CapsuleName,
        question: impl FnOnce(&mut Replica) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, PeerError> {
        self.runtime
            .block_on(self.store.ask(name, question))
            .map_err(here)
    }

    fn count(&self, change: impl FnOnce(&mut crate::metrics::PeerCount)) {
        self.store.metrics().peer(self.peer.url(), change);
    }

    fn refuse(&self, capsule: &CapsuleName, what: &str) {
        tracing::info!(peer = self.url(), %capsule, what, "what a peer served is refused");
        self.count(|count| count.refused += 1);
    }
}

/// What of a writer's chain up to `head` is not here.
fn below(replica: &Replica, head: &Head) -> Option<Missing> {
    let (writer, to) = (head.writer, head.seq);
    if replica.is_forked(&writer) {
        return None;
    }
    let from = match replica.head_of(&writer) {
        None => 0,
        Some(tip) if tip.seq < to => tip.seq + 1,
        // Held, or held with another hash: then the peer's record makes the proof.
        Some(_) if replica.hash_at(&writer, to) == Some(head.hash) => return None,
        Some(_) => to,
    };
    Some(Missing { writer, from, to })
}

fn here(refusal: Refusal) -> PeerError {
    PeerError::Here(refusal.slug)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_of_all_numbers_there_are_has_a_length() {
        let writer = WriterId::from_bytes([7; 32]);
        let all = Missing {
            writer,
            from: 0,
            to: u64::MAX,
        };
        let one = Missing {
            from: 3,
            to: 3,
            ..all
        };
        assert_eq!((all.len(), one.len()), (u64::MAX, 1));
    }
}
