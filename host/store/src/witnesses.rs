//! Checkpoints go to witnesses, and are served once they are cosigned.
//!
//! ```text
//! a sync returned ──▶ newest synced checkpoint ──┬─▶ POST W1/add-checkpoint ──▶ cosignature ┐
//!                     (old size, consistency)    └─▶ POST W2/add-checkpoint ──▶ cosignature ┴─▶ publish
//! ```
//!
//! Always true: a checkpoint is asked about only when its records are synced; a cosignature is added
//! only after it was verified with the key the operator named; a checkpoint that leaves is stored
//! before. Rounds follow each other without a timer: while witnesses think, records gather.
//!
//! What size a witness has seen last is remembered in memory only: after a start it is asked from 0,
//! and answers once with its size (409, c2sp.org/tlog-witness). Cost: one signature, one request a
//! witness and three file syncs a round and capsule; at most ten rounds a second.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bield_capsule::CapsuleName;
use bield_tlog::{AddCheckpoint, Hash, VerifiedCheckpoint, WitnessVerifier};
use tokio::runtime::Handle;
use ureq::Agent;

use crate::peers::Stop;
use crate::{Refusal, Store};

/// Longest time for one answer.
const WAIT: Duration = Duration::from_secs(5);

/// Shortest time between two rounds: three file syncs and a request each, ten times a second.
const PACE: Duration = Duration::from_millis(100);

/// The longest a witness that does not answer is left alone.
const BACKOFF_MAX: Duration = Duration::from_secs(60);

/// Longest answer in bytes: a few signature lines.
const ANSWER_BYTES_MAX: u64 = 64 << 10;

/// A witness: where it is asked, and the key of its cosignatures.
#[derive(Debug, Clone)]
pub struct WitnessAddress {
    /// Such as `http://host:8802`; `/add-checkpoint` is added.
    pub url: String,
    /// `name+id+key`, as `GET /` of `bield-witness` prints it.
    pub verifier: WitnessVerifier,
}

/// Text is no address of a witness.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "a witness is written as http://HOST:PORT=NAME+ID+KEY, the last part as the witness prints it"
)]
pub struct ParseWitnessError;

impl FromStr for WitnessAddress {
    type Err = ParseWitnessError;

    fn from_str(text: &str) -> Result<Self, ParseWitnessError> {
        let (url, verifier) = text.split_once('=').ok_or(ParseWitnessError)?;
        if !url.starts_with("http://") || url.len() > 256 {
            return Err(ParseWitnessError);
        }
        Ok(Self {
            url: url.trim_end_matches('/').to_owned(),
            verifier: verifier.parse().map_err(|_| ParseWitnessError)?,
        })
    }
}

/// The thread that speaks to witnesses.
pub(crate) struct Witnesses {
    stop: Arc<Stop>,
    thread: JoinHandle<()>,
}

impl Witnesses {
    /// Starts it. Must be called inside the runtime that serves.
    pub(crate) fn start(store: &Arc<Store>, addresses: Vec<WitnessAddress>) -> io::Result<Self> {
        let stop = Arc::new(Stop::default());
        let mut rounds = Rounds {
            store: Arc::clone(store),
            runtime: Handle::current(),
            witnesses: addresses.into_iter().map(Asked::new).collect(),
            waiting: BTreeSet::new(),
        };
        let told = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name("witnesses".to_owned())
            .spawn(move || rounds.run(&told))?;
        Ok(Self { stop, thread })
    }

    pub(crate) fn stop(&self) {
        self.stop.tell();
    }

    pub(crate) fn join(self) {
        if self.thread.join().is_err() {
            tracing::error!("the thread of the witnesses ended with a panic");
        }
    }
}

struct Rounds {
    store: Arc<Store>,
    runtime: Handle,
    witnesses: Vec<Asked>,
    /// Capsules whose newest checkpoint not every witness has cosigned.
    waiting: BTreeSet<CapsuleName>,
}

/// One witness and what is known of it.
struct Asked {
    address: WitnessAddress,
    agent: Agent,
    /// The size it last cosigned, by capsule.
    sizes: HashMap<CapsuleName, u64>,
    backoff: Duration,
    /// It is left alone until then.
    quiet_until: Option<Instant>,
}

/// What a witness said to a request.
enum Said {
    /// Signature lines.
    Cosigned(String),
    /// It has seen this size; prove from there.
    Size(u64),
    /// No.
    Refused(u16),
    /// Nothing.
    Silent,
}

impl Rounds {
    fn run(&mut self, stop: &Stop) {
        while !stop.is_told() {
            let wait = if self.waiting.is_empty() {
                Duration::from_secs(1)
            } else {
                PACE
            };
            self.waiting.extend(self.store.grown(wait));
            for capsule in std::mem::take(&mut self.waiting) {
                if stop.is_told() {
                    return;
                }
                match self.capsule(capsule) {
                    Ok(true) => {}
                    Ok(false) => drop(self.waiting.insert(capsule)),
                    Err(refusal) => {
                        tracing::debug!(%capsule, slug = refusal.slug, "a checkpoint is not cosigned now");
                        if refusal.retry {
                            self.waiting.insert(capsule);
                        }
                    }
                }
            }
            if stop.wait(PACE) {
                return;
            }
        }
    }

    /// Has the newest checkpoint of one capsule cosigned; says whether every witness has.
    fn capsule(&mut self, capsule: CapsuleName) -> Result<bool, Refusal> {
        let newest = self.runtime.block_on(self.store.ask(capsule, |replica| {
            let newest = replica
                .checkpoint()
                .ok()
                .filter(|c| c.checkpoint().size() > 0);
            Ok(newest)
        }))?;
        let Some(newest) = newest else {
            return Ok(true);
        };
        let size = newest.checkpoint().size();
        let mut cosigned = newest.clone();
        let (store, runtime) = (&self.store, &self.runtime);
        // Whoever has cosigned this size is not asked again while others are waited for.
        let had = |witness: &Asked| witness.sizes.get(&capsule) == Some(&size);
        let answers: Vec<Option<String>> = std::thread::scope(|scope| {
            let asking: Vec<_> = self
                .witnesses
                .iter_mut()
                .filter(|witness| !had(witness))
                .map(|witness| {
                    let newest = &newest;
                    scope.spawn(move || witness.cosign(store, runtime, capsule, newest))
                })
                .collect();
            let answers = asking
                .into_iter()
                .map(|asked| asked.join().unwrap_or_default());
            answers.collect()
        });
        let mut all = true;
        let asked = self.witnesses.iter_mut().filter(|witness| !had(witness));
        for (witness, answer) in asked.zip(answers) {
            let verifier = std::slice::from_ref(&witness.address.verifier);
            let added = answer.map(|lines| cosigned.add_cosignatures(&lines, verifier));
            let good = matches!(added, Some(Ok(_)));
            if let Some(Err(error)) = added {
                tracing::warn!(witness = witness.address.url, %error, "a cosignature is refused: is --witness's key right?");
            }
            witness.note(store, capsule, good.then_some(size));
            all &= good;
        }
        // One that nobody cosigned is published too: readers ask for as many lines as they need.
        let published = store.ask(capsule, move |replica| replica.publish(cosigned));
        if let Err(refusal) = self.runtime.block_on(published) {
            // Its cosignatures are lost: ask again.
            for witness in &mut self.witnesses {
                witness.sizes.remove(&capsule);
            }
            return Err(refusal);
        }
        Ok(all)
    }
}

impl Asked {
    fn new(address: WitnessAddress) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .timeout_global(Some(WAIT));
        Self {
            address,
            agent: config.build().into(),
            sizes: HashMap::new(),
            backoff: PACE,
            quiet_until: None,
        }
    }

    /// Signature lines for a checkpoint, if the witness gives any.
    fn cosign(
        &mut self,
        store: &Store,
        runtime: &Handle,
        capsule: CapsuleName,
        newest: &VerifiedCheckpoint,
    ) -> Option<String> {
        if self.quiet_until.is_some_and(|until| Instant::now() < until) {
            return None;
        }
        let new = newest.checkpoint().size();
        let mut old = self.sizes.get(&capsule).copied().unwrap_or(0);
        // The second time with the size it named; a third would mean that it contradicts itself.
        for _ in 0..2 {
            let proof = runtime.block_on(store.ask(capsule, move |replica| {
                replica
                    .consistency(old, new)
                    .map_err(|_| Refusal::no_capsule())
            }));
            match self.ask(old, proof.ok()?, newest) {
                Said::Cosigned(lines) => return Some(lines),
                Said::Size(size) if size <= new => old = size,
                Said::Size(size) => {
                    // It cosigned more than there is: this log was set back.
                    store.metrics().set_back.store(1, Relaxed);
                    tracing::error!(witness = self.address.url, %capsule, size, have = new, "a witness has seen a longer log: this store's disk was set back, or another store uses its key");
                    return None;
                }
                Said::Refused(status) => {
                    tracing::warn!(witness = self.address.url, %capsule, status, "a witness does not cosign");
                    return None;
                }
                Said::Silent => return None,
            }
        }
        None
    }

    fn ask(&self, old: u64, proof: Vec<Hash>, newest: &VerifiedCheckpoint) -> Said {
        let Ok(request) = AddCheckpoint::new(old, proof, newest) else {
            return Said::Silent;
        };
        let url = format!("{}/add-checkpoint", self.address.url);
        let answer = self.agent.post(url).send(request.to_string().as_bytes());
        let Ok(mut answer) = answer else {
            return Said::Silent;
        };
        let status = answer.status().as_u16();
        let body = answer
            .body_mut()
            .with_config()
            .limit(ANSWER_BYTES_MAX)
            .read_to_string();
        match (status, body) {
            (200, Ok(lines)) => Said::Cosigned(lines),
            (409, Ok(size)) => size
                .trim_end()
                .parse()
                .map_or(Said::Refused(409), Said::Size),
            (status, _) => Said::Refused(status),
        }
    }

    fn note(&mut self, store: &Store, capsule: CapsuleName, cosigned: Option<u64>) {
        let quiet = self.quiet_until.is_some_and(|until| Instant::now() < until);
        store
            .metrics()
            .witness(&self.address.url, |count| match cosigned {
                Some(_) => count.cosigned += 1,
                None if quiet => {}
                None => count.failures += 1,
            });
        match cosigned {
            Some(size) => {
                self.sizes.insert(capsule, size);
                (self.backoff, self.quiet_until) = (PACE, None);
            }
            None if quiet => {}
            None => {
                self.backoff = (self.backoff * 2).min(BACKOFF_MAX);
                self.quiet_until = Some(Instant::now() + self.backoff);
            }
        }
    }
}
