//! Witnesses of the log: nothing counts before enough of them have seen it grow.
//!
//! ```text
//! checkpoint ──▶ a thread for each witness ──POST add-checkpoint──▶ W1 ──▶ cosignature ┐
//!                (old size, consistency)                            W2 ──▶ cosignature ┴─ needed ─▶ counts
//!                                                                   W3      (may come later)
//! ```
//!
//! Goes in: a checkpoint and the tree it stands for. Comes out: the same checkpoint with at least
//! `needed` cosignatures, or why not ([`NotCosigned`]). Always true: a cosignature counts after it was
//! verified with the witness's key from the measured configuration; one that a witness knows more than
//! this log, or another one, is never outvoted when cosignatures are missing; a round ends by its
//! deadline. As `2 × needed > n` (checked with the configuration), two instances that both go on need a
//! witness that lies.
//!
//! A cosignature's time is the witness's word and is not used: what makes one fresh is the nonce in the
//! text that it covers. Left to others: what is done about a refusal (`sequencer`, `program`); HTTP
//! ([`http`]). Answers travel through the host in clear; it can withhold or forge a "no", which stops the
//! service and gives nothing away.
//!
//! On paper: a round trip and an fsync of a witness for each record; all witnesses at once.

mod http;

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bield_tlog::{AddCheckpoint, Hash, Tree, VerifiedCheckpoint, WitnessVerifier};

use crate::limits::lock;
pub(crate) use http::Pipe;

/// Connects to witnesses: through the host, which alone knows their addresses.
pub(crate) trait Dial: Send + Sync {
    /// Opens a pipe to the witness of this number in the configuration.
    ///
    /// # Errors
    /// Why it cannot, in a few words.
    fn dial(&self, witness: u8) -> Result<Box<dyn Pipe>, String>;
}

/// The tree that a checkpoint stands for.
pub(crate) trait Proofs: Send + Sync {
    /// Proves that the tree of `new` leaves begins with that of `old`; `None` when it cannot.
    fn consistency(&self, old: u64, new: u64) -> Option<Vec<Hash>>;
}

impl Proofs for Tree {
    fn consistency(&self, old: u64, new: u64) -> Option<Vec<Hash>> {
        self.consistency_proof(old, new).ok()
    }
}

/// Why a checkpoint has not enough cosignatures.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotCosigned {
    /// A witness has seen more than this log has.
    #[error(
        "the state is {behind} record{s} behind what witness {witness} saw: an older one was put back; \
         restore the newest state and start again, or recover with shares",
        s = if *.behind == 1 { "" } else { "s" }
    )]
    RolledBack {
        /// The witness.
        witness: String,
        /// How many records are missing.
        behind: u64,
    },
    /// A witness has seen another log of this name.
    #[error(
        "witness {witness} saw another history of this log: the state was copied or put back, and both \
         went on; keep the one that clients follow, stop the other"
    )]
    Forked {
        /// The witness.
        witness: String,
    },
    /// Not enough answered.
    #[error(
        "{cosigned} of the {needed} needed witnesses cosigned ({why}); the operator must look at them"
    )]
    TooFew {
        /// How many did.
        cosigned: usize,
        /// How many must.
        needed: usize,
        /// What those that did not said.
        why: String,
    },
}

/// The witnesses, asked all at once.
pub(crate) struct Witnesses {
    keys: Vec<WitnessVerifier>,
    desks: Vec<Arc<Desk>>,
    needed: usize,
}

/// Where a witness's thread finds what to ask: the newest only.
#[derive(Default)]
struct Desk {
    slot: Mutex<Slot>,
    changed: Condvar,
}

#[derive(Default)]
struct Slot {
    question: Option<Arc<Question>>,
    ended: bool,
}

struct Question {
    checkpoint: VerifiedCheckpoint,
    proofs: Arc<dyn Proofs>,
    deadline: Instant,
    answers: Mutex<Vec<Said>>,
    answered: Condvar,
}

/// What one witness said to one question.
#[derive(Debug, Clone)]
struct Said {
    witness: String,
    what: Verdict,
}

#[derive(Debug, Clone)]
enum Verdict {
    /// Verified signature lines.
    Cosigned(String),
    /// It has seen this size.
    Ahead(u64),
    /// It has seen another tree.
    Other,
    /// Anything else, in words.
    Not(String),
}

impl Witnesses {
    /// Starts a thread for each of `keys`; `needed` of them must cosign.
    pub(crate) fn start(keys: Vec<WitnessVerifier>, needed: usize, dial: &Arc<dyn Dial>) -> Self {
        let desks = keys.iter().zip(0..=u8::MAX).map(|(key, number)| {
            let desk = Arc::new(Desk::default());
            let mut client = Client {
                desk: Arc::clone(&desk),
                dial: Arc::clone(dial),
                key: key.clone(),
                number,
                seen: 0,
                pipe: None,
            };
            let started = std::thread::Builder::new()
                .name("witness".into())
                .spawn(move || client.serve());
            // One that is never asked never cosigns, and is counted as silent.
            drop(started);
            desk
        });
        Self {
            desks: desks.collect(),
            keys,
            needed,
        }
    }

    /// How many must cosign; none means that there are no witnesses to ask.
    pub(crate) const fn needed(&self) -> usize {
        self.needed
    }

    /// Has a checkpoint cosigned.
    ///
    /// # Errors
    /// [`NotCosigned`]; the checkpoint may be asked about again.
    pub(crate) fn cosign(
        &self,
        mut checkpoint: VerifiedCheckpoint,
        proofs: &Arc<dyn Proofs>,
    ) -> Result<VerifiedCheckpoint, NotCosigned> {
        if self.needed == 0 {
            return Ok(checkpoint);
        }
        let question = Arc::new(Question {
            checkpoint: checkpoint.clone(),
            proofs: Arc::clone(proofs),
            deadline: Instant::now() + ROUND,
            answers: Mutex::default(),
            answered: Condvar::new(),
        });
        for desk in &self.desks {
            lock(&desk.slot).question = Some(Arc::clone(&question));
            desk.changed.notify_all();
        }
        let answers = question.wait(self.desks.len(), self.needed);
        for said in &answers {
            if let Verdict::Cosigned(lines) = &said.what {
                // Verified when it came; there is room, since the configuration bounds the witnesses.
                drop(checkpoint.add_cosignatures(lines, &self.keys));
            }
        }
        judge(&answers, self.needed, checkpoint.checkpoint().size())?;
        Ok(checkpoint)
    }
}

/// What a round of answers comes to.
fn judge(answers: &[Said], needed: usize, size: u64) -> Result<(), NotCosigned> {
    let (mut cosigned, mut why) = (0, Vec::new());
    let (mut ahead, mut other) = (None, None);
    for said in answers {
        match &said.what {
            Verdict::Cosigned(_) => cosigned += 1,
            Verdict::Ahead(seen) => ahead = ahead.max(Some((*seen, said.witness.clone()))),
            Verdict::Other => other = Some(said.witness.clone()),
            Verdict::Not(words) => why.push(format!("{}: {words}", said.witness)),
        }
    }
    if cosigned >= needed {
        return Ok(());
    }
    if let Some((seen, witness)) = ahead {
        let behind = seen.saturating_sub(size);
        return Err(NotCosigned::RolledBack { witness, behind });
    }
    if let Some(witness) = other {
        return Err(NotCosigned::Forked { witness });
    }
    let why = if why.is_empty() {
        "no answer".to_owned()
    } else {
        why.join("; ")
    };
    Err(NotCosigned::TooFew {
        cosigned,
        needed,
        why,
    })
}

impl Drop for Witnesses {
    fn drop(&mut self) {
        // Threads end by themselves, at the latest when their exchange does; nobody waits for a witness.
        for desk in &self.desks {
            lock(&desk.slot).ended = true;
            desk.changed.notify_all();
        }
    }
}

impl Question {
    /// Waits until enough cosigned, all answered, or the time is over.
    fn wait(&self, asked: usize, needed: usize) -> Vec<Said> {
        let mut answers = lock(&self.answers);
        loop {
            let cosigned = |said: &&Said| matches!(said.what, Verdict::Cosigned(_));
            let left = self.deadline.saturating_duration_since(Instant::now());
            if answers.iter().filter(cosigned).count() >= needed
                || answers.len() >= asked
                || left.is_zero()
            {
                return answers.clone();
            }
            let waited = self.answered.wait_timeout(answers, left);
            answers = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// One witness's side of the rounds.
struct Client {
    desk: Arc<Desk>,
    dial: Arc<dyn Dial>,
    key: WitnessVerifier,
    number: u8,
    /// The size it last cosigned, as far as is known; its 409 says so when it is another.
    seen: u64,
    pipe: Option<Box<dyn Pipe>>,
}

impl Client {
    fn serve(&mut self) {
        while let Some(question) = self.next() {
            let what = self.ask(&question);
            let witness = self.key.name().to_string();
            lock(&question.answers).push(Said { witness, what });
            question.answered.notify_all();
        }
    }

    fn next(&self) -> Option<Arc<Question>> {
        let mut slot = lock(&self.desk.slot);
        loop {
            if slot.ended {
                return None;
            }
            if let Some(question) = slot.question.take() {
                return Some(question);
            }
            let waited = self.desk.changed.wait(slot);
            slot = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn ask(&mut self, question: &Question) -> Verdict {
        let size = question.checkpoint.checkpoint().size();
        for _ in 0..TRIES {
            if self.seen > size {
                // Not its word: what it said to an earlier question, or a size of an earlier log.
                self.seen = size;
            }
            let Some(proof) = question.proofs.consistency(self.seen, size) else {
                return Verdict::Not("this log cannot prove what it asks for".to_owned());
            };
            let body = match AddCheckpoint::new(self.seen, proof, &question.checkpoint) {
                Ok(body) => body.to_string(),
                Err(error) => return Verdict::Not(error.to_string()),
            };
            let answer = match self.exchange(&body, question.deadline) {
                Ok(answer) => answer,
                Err(why) => return Verdict::Not(why),
            };
            match answer.status {
                200 => return self.cosigned(question, answer.body, size),
                409 => match answer.body.trim_end().parse() {
                    Ok(seen) if seen > size => return Verdict::Ahead(seen),
                    Ok(seen) => self.seen = seen,
                    Err(_) => return Verdict::Not("it answered 409 without a size".to_owned()),
                },
                422 => return Verdict::Other,
                404 => {
                    let log = question.checkpoint.checkpoint().origin();
                    let words = format!("it does not follow {log} yet; its operator must add it");
                    return Verdict::Not(words);
                }
                status => return Verdict::Not(format!("it answered {status}")),
            }
        }
        Verdict::Not("it names another size each time".to_owned())
    }

    fn cosigned(&mut self, question: &Question, lines: String, size: u64) -> Verdict {
        let mut checkpoint = question.checkpoint.clone();
        match checkpoint.add_cosignatures(&lines, std::slice::from_ref(&self.key)) {
            Ok(_) => {
                self.seen = size;
                Verdict::Cosigned(lines)
            }
            Err(error) => Verdict::Not(format!("its cosignature does not verify: {error}")),
        }
    }

    /// One exchange; once more on a new pipe when the old one turns out to be closed.
    fn exchange(&mut self, body: &str, deadline: Instant) -> Result<http::Answer, String> {
        if let Some(mut pipe) = self.pipe.take()
            && let Ok(answer) = http::post(&mut *pipe, body, deadline)
        {
            self.pipe = answer.reusable.then_some(pipe);
            return Ok(answer);
        }
        let mut pipe = self.dial.dial(self.number)?;
        let answer = http::post(&mut *pipe, body, deadline).map_err(|error| {
            if error.kind() == std::io::ErrorKind::InvalidData {
                return error.to_string();
            }
            "it does not answer".to_owned()
        })?;
        self.pipe = answer.reusable.then_some(pipe);
        Ok(answer)
    }
}

/// Longest time for a round, and hence for one exchange with a witness.
const ROUND: Duration = Duration::from_secs(5);
/// Exchanges of one round: its size is asked, told, and perhaps outrun once.
const TRIES: usize = 3;

#[cfg(test)]
pub(crate) mod tests;
