//! Whether a state is the newest one, and where a restarted writer goes on (`spec/06 §9`).
//!
//! ```text
//!            nonce ──▶ replica A ──▶ pages of heads ──┐
//! caller ──┤                                          ├─▶ n − q + 1 distinct replicas?
//!            nonce ──▶ replica C ──▶ pages of heads ──┘   state contains all they name?
//! ```
//!
//! In: the caller's nonce and clock, and signed statements from anyone. Out: the proof that the state
//! contains every record that a quorum had acknowledged when the nonce was drawn, or what is missing.
//! Always true: a record that `q` of `n` replicas hold is held by one of any `n − q + 1`; replicas are
//! counted, never messages; one outside of the configuration counts nothing; silence about a writer
//! counts only from a page that speaks about it. A replica that names what nobody has is outvoted by
//! `n − q + 1` others; it can delay a caller, never mislead it.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use bield_envelope::{Digest, Principal, Signed, Time, Verified};

use crate::{
    CapsuleName, Config, Gap, Head, HeadsStatement, History, Nonce, Through, Verifier, WriterId,
};

/// How far in the future of the caller's clock a replica's may be.
pub const AT_GRACE: Duration = Duration::from_secs(60);

/// What the caller asked, and when.
#[derive(Clone, Copy, Debug)]
pub struct Question {
    /// Drawn for this question.
    pub nonce: Nonce,
    /// The caller's clock now.
    pub now: Time,
    /// How old an answer may be, by the replica's clock.
    pub age_max: Duration,
}

/// A state contains everything that a quorum had acknowledged when the question was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Freshness {
    /// The replicas whose statements say so.
    pub replicas: Vec<Principal>,
    /// The earliest of their clocks.
    pub at: Time,
    /// Writers that these replicas name and about whom nothing is said: their chains are forked and the
    /// owner has not said what stays, or end otherwise than the owner said, or the caller refuses them.
    pub except: Vec<WriterId>,
}

/// Why a replica's statement does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Uncounted {
    /// The signature is not by the principal it names.
    #[error("its signature does not verify")]
    Signature,
    /// The principal is no replica of the configuration.
    #[error("its signer is no replica of the capsule")]
    NotReplica,
    /// It is about another capsule.
    #[error("it is about another capsule")]
    OtherCapsule,
    /// It answers another question.
    #[error("it answers another question")]
    OtherNonce,
    /// The replica's clock says that it is old.
    #[error("it was made at {at}, too long ago")]
    Old {
        /// By the replica's clock.
        at: Time,
    },
    /// The replica's clock is ahead.
    #[error("it was made at {at}, in the future")]
    Future {
        /// By the replica's clock.
        at: Time,
    },
    /// Heads out of order, or the owner's among them.
    #[error("its heads are not in order")]
    Malformed,
    /// Pages of the answer are missing.
    #[error("pages of it are missing")]
    Pages,
    /// It names another record than the state has at that position: a fork, or a lie.
    #[error("it names {theirs}, where the state has {ours}: ask it for that record, and compare")]
    Conflict {
        /// What the state has.
        ours: Digest,
        /// What the replica names.
        theirs: Head,
    },
    /// It names records that the state does not have.
    #[error("it names records that the state lacks")]
    Ahead,
    /// It does not give out the record that it names.
    #[error("it names {head} and does not give it out")]
    Withheld {
        /// What it names.
        head: Head,
    },
}

/// Why a state is not known to be fresh.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotFresh {
    /// The quorum is larger than the configuration: nothing can be durable, and nothing fresh.
    #[error("the quorum is larger than the number of replicas: the owner must configure more")]
    NoQuorum,
    /// Not enough distinct replicas of the configuration answered this question.
    #[error("{counted} replicas answered, {need} are needed: ask again")]
    TooFew {
        /// `n − q + 1`.
        need: usize,
        /// Distinct replicas whose answer counts.
        counted: usize,
        /// Whose does not, and why.
        uncounted: Vec<(Principal, Uncounted)>,
    },
    /// The state lacks records that replicas name.
    #[error("replicas name {} heads that the state lacks: fetch them, then ask again", missing.len())]
    Behind {
        /// What is missing.
        missing: Vec<Gap>,
        /// Whose answer does not count, and why.
        uncounted: Vec<(Principal, Uncounted)>,
    },
}

/// Whether everything that a quorum acknowledged before `question` was asked is in `verifier`.
/// `history` gives hashes below the tips; without it, positions below a tip are compared by number.
/// `refused` are writers whose records the caller refuses by its own policy: heads of theirs are left out.
///
/// A chain that is forked, or that ends otherwise here than the owner said, says nothing about the others:
/// it is left out and listed ([`Freshness::except`]).
///
/// # Errors
/// Not enough answers count, or the state lacks what they name.
pub fn fresh(
    verifier: &Verifier,
    statements: &[Signed<HeadsStatement>],
    question: &Question,
    history: &dyn History,
    refused: &[WriterId],
) -> Result<Freshness, NotFresh> {
    let config = verifier.config();
    let need = config.answers().ok_or(NotFresh::NoQuorum)?;
    let (answers, mut uncounted) = answers(config, statements, question);
    let mut replicas = Vec::new();
    let mut at = Time::from_millis(u64::MAX);
    let mut missing = BTreeMap::new();
    let mut except = BTreeSet::new();
    let state = State {
        verifier,
        history,
        refused,
    };
    for (replica, pages) in &answers {
        let contained = whole(pages).and_then(|pages| {
            for page in &pages {
                contains(&state, page, &mut missing, &mut except)?;
            }
            Ok(pages)
        });
        match contained {
            Ok(pages) => {
                replicas.push(*replica);
                at = pages.iter().map(|page| page.at).fold(at, Time::min);
            }
            Err(reason) => uncounted.push((*replica, reason)),
        }
    }
    if replicas.len() >= need {
        let except = except.into_iter().collect();
        return Ok(Freshness {
            replicas,
            at,
            except,
        });
    }
    if missing.is_empty() {
        return Err(NotFresh::TooFew {
            need,
            counted: replicas.len(),
            uncounted,
        });
    }
    Err(NotFresh::Behind {
        missing: missing.into_values().collect(),
        uncounted,
    })
}

/// What the caller found when it fetched a head from one replica and checked it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fetched {
    /// The record is there, and its chain verifies.
    Right,
    /// What is there is not a record of the chain, or nothing came.
    Wrong,
}

/// What a writer knows of its own chain when its program starts again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remembered {
    /// The newest record it ever made: each one was on its own disk before it left the machine, or is known
    /// to have reached a quorum. Whatever the replicas lack of it is sent again first. This does not
    /// survive a disk that is set back to an earlier state and looks whole.
    Newest(Option<Head>),
    /// A record that it made, perhaps not the newest. Any replica may hold a newer one.
    Perhaps(Option<Head>),
}

/// Why a writer must not write.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotResumed {
    /// Not enough replicas answered.
    #[error(transparent)]
    NotFresh(#[from] NotFresh),
    /// The replicas' newest record is older than what the writer remembers.
    #[error(
        "the replicas were rolled back: the writer wrote {remembered}, and they end at {found:?}; do \
         not write; restore them, or open a new chain"
    )]
    RolledBack {
        /// What the writer remembers.
        remembered: Head,
        /// The newest position that verifies.
        found: Option<u64>,
    },
    /// Two records of the writer's own for one position: somebody else writes with its key.
    #[error(
        "the chain of {writer} is forked at {seq}; do not write; the owner must revoke the key"
    )]
    Forked {
        /// The writer itself.
        writer: WriterId,
        /// Where.
        seq: u64,
        /// One record.
        first: Digest,
        /// The other.
        second: Digest,
    },
}

/// Where the chain of `writer` goes on: the newest of its heads that replicas name and give out, checked
/// by `fetch`; `None` when there is no such chain yet. A writer that starts again should draw a new key
/// instead: this is for those that cannot (`spec/06 §9`).
///
/// How many must answer depends on what the writer remembers: all replicas, because its newest record may
/// be at any one alone; or as many as reveal what a quorum holds, when it remembers its newest record and
/// they name no newer one. An answer counts when its replica gives out itself what it names, so that one
/// that invents a head stops nobody as long as others answer.
///
/// The caller still has to see that its remembered head, when it is older, lies on the chain of the
/// one returned: its verifier, which applies the records between, does that.
///
/// # Errors
/// The writer must not write, and why.
pub fn resume_head(
    writer: &WriterId,
    remembered: Remembered,
    config: &Config,
    statements: &[Signed<HeadsStatement>],
    question: &Question,
    mut fetch: impl FnMut(&Principal, &Head) -> Fetched,
) -> Result<Option<Head>, NotResumed> {
    let quorum = config.answers().ok_or(NotFresh::NoQuorum)?;
    let (answers, mut uncounted) = answers(config, statements, question);
    let mut counted = answers.len();
    let mut named: BTreeMap<Head, Vec<Principal>> = BTreeMap::new();
    let mut newer = None;
    for (replica, pages) in &answers {
        let mut speaking = pages.iter().filter(|page| page.covers(writer)).peekable();
        if speaking.peek().is_none() {
            uncounted.push((*replica, Uncounted::Pages));
            counted -= 1;
            continue;
        }
        newer = newer.or_else(|| pages.iter().find_map(|page| other_config(config, page)));
        if let Some(head) = speaking.find_map(|page| page.head_of(writer)) {
            named.entry(head).or_default().push(*replica);
        }
    }
    // What the answers say of quorums and replicas, a newer configuration may take back.
    if let Some(gap) = newer {
        let missing = vec![gap];
        return Err(NotFresh::Behind { missing, uncounted }.into());
    }
    let mut found: Option<Head> = None;
    for (head, replicas) in named.iter().rev() {
        if found.is_some_and(|found| head.seq < found.seq) {
            break;
        }
        let mut right = false;
        for replica in replicas {
            if fetch(replica, head) == Fetched::Right {
                right = true;
            } else {
                uncounted.push((*replica, Uncounted::Withheld { head: *head }));
                counted -= 1;
            }
        }
        match found {
            Some(first) if right => return Err(forked(&first, head)),
            None if right => found = Some(*head),
            _ => {}
        }
    }
    let (need, remembered) = match remembered {
        Remembered::Newest(remembered) if seq(found) <= seq(remembered) => (quorum, remembered),
        Remembered::Newest(remembered) | Remembered::Perhaps(remembered) => {
            (config.replicas().len(), remembered)
        }
    };
    if counted < need {
        return Err(NotFresh::TooFew {
            need,
            counted,
            uncounted,
        }
        .into());
    }
    match (remembered, found) {
        (Some(remembered), found) if seq(found) < Some(remembered.seq) => {
            let found = seq(found);
            Err(NotResumed::RolledBack { remembered, found })
        }
        (Some(first), Some(second)) if first.seq == second.seq && first != second => {
            Err(forked(&first, &second))
        }
        (_, found) => Ok(found),
    }
}

fn seq(head: Option<Head>) -> Option<u64> {
    head.map(|head| head.seq)
}

/// The config head that a page names, when the configuration here does not contain it.
fn other_config(config: &Config, page: &HeadsStatement) -> Option<Gap> {
    let theirs = page.config?;
    (config.hash_at(theirs.seq) != Some(theirs.hash)).then(|| Gap {
        have: seq(config.head()),
        need: Head {
            writer: config.owner(),
            seq: theirs.seq,
            hash: theirs.hash,
        },
    })
}

fn forked(first: &Head, second: &Head) -> NotResumed {
    NotResumed::Forked {
        writer: first.writer,
        seq: first.seq,
        first: first.hash,
        second: second.hash,
    }
}

type Answers = BTreeMap<Principal, Vec<Verified<HeadsStatement>>>;

/// The statements that answer the question, by replica, and of the others whose they claim to be.
fn answers(
    config: &Config,
    statements: &[Signed<HeadsStatement>],
    question: &Question,
) -> (Answers, Vec<(Principal, Uncounted)>) {
    let mut answers = Answers::new();
    let mut uncounted = Vec::new();
    for signed in statements {
        let claimed = signed.claimed_signer();
        match answer(config, signed, question) {
            Ok(page) => answers.entry(claimed).or_default().push(page),
            Err(reason) => uncounted.push((claimed, reason)),
        }
    }
    (answers, uncounted)
}

fn answer(
    config: &Config,
    signed: &Signed<HeadsStatement>,
    question: &Question,
) -> Result<Verified<HeadsStatement>, Uncounted> {
    // Before the signature: strangers cost nothing.
    if !config.is_replica(&signed.claimed_signer()) {
        return Err(Uncounted::NotReplica);
    }
    let page = signed
        .clone()
        .verify_claimed()
        .map_err(|_| Uncounted::Signature)?;
    let capsule: CapsuleName = config.capsule();
    if page.capsule != capsule {
        return Err(Uncounted::OtherCapsule);
    }
    if page.nonce != question.nonce {
        return Err(Uncounted::OtherNonce);
    }
    let at = page.at;
    if at > question.now.plus(AT_GRACE) {
        return Err(Uncounted::Future { at });
    }
    if at < question.now.minus(question.age_max) {
        return Err(Uncounted::Old { at });
    }
    if !page.is_well_formed() || page.heads.iter().any(|head| config.is_owner(&head.writer)) {
        return Err(Uncounted::Malformed);
    }
    Ok(page)
}

/// The pages of one replica that follow each other from the first to the last.
fn whole(pages: &[Verified<HeadsStatement>]) -> Result<Vec<&Verified<HeadsStatement>>, Uncounted> {
    let by_start: BTreeMap<_, _> = pages.iter().map(|page| (page.after, page)).collect();
    let mut answer = Vec::new();
    let mut after = None;
    loop {
        let page = *by_start.get(&after).ok_or(Uncounted::Pages)?;
        answer.push(page);
        if !page.more {
            return Ok(answer);
        }
        // Ascends with every page, because heads do: this ends.
        after = page.heads.last().map(|head| head.writer);
    }
}

/// What a caller asks about.
struct State<'a> {
    verifier: &'a Verifier,
    history: &'a dyn History,
    refused: &'a [WriterId],
}

/// Whether the state has every head of the page; notes those it lacks, and the writers that are left out.
fn contains(
    state: &State<'_>,
    page: &HeadsStatement,
    missing: &mut BTreeMap<WriterId, Gap>,
    except: &mut BTreeSet<WriterId>,
) -> Result<(), Uncounted> {
    let verifier = state.verifier;
    let config = page.config.map(|config| Head {
        writer: verifier.metadata().owner_id(),
        seq: config.seq,
        hash: config.hash,
    });
    let mut ahead = false;
    for theirs in config.iter().chain(&page.heads) {
        if state.leaves_out(&theirs.writer) {
            except.insert(theirs.writer);
            continue;
        }
        let chain = verifier.chain(&theirs.writer);
        let through = chain.map_or_else(
            || verifier.config().through(&theirs.writer),
            |chain| chain.through(verifier.config()),
        );
        // What was cut off is not missed; what stays below the cut is.
        let need = match through {
            Through::Nothing => continue,
            Through::Last(last) => theirs.seq.min(last),
            Through::Everything => theirs.seq,
        };
        let have = chain.map(|chain| chain.tip().seq);
        if have.is_none_or(|have| have < need) {
            ahead = true;
            let gap = Gap {
                have,
                need: *theirs,
            };
            let known = missing.entry(theirs.writer).or_insert(gap);
            if known.need.seq < theirs.seq {
                *known = gap;
            }
            continue;
        }
        // The owner decided which record is at a cut; a replica that names another has not heard of it.
        let cut = through == Through::Last(need);
        let ours = verifier.hash_at(&theirs.writer, theirs.seq, state.history);
        if let Some(ours) = ours
            && ours != theirs.hash
            && need == theirs.seq
            && !cut
        {
            return Err(Uncounted::Conflict {
                ours,
                theirs: *theirs,
            });
        }
    }
    if ahead { Err(Uncounted::Ahead) } else { Ok(()) }
}

impl State<'_> {
    /// Whether nothing can be said about this writer, and the others do not depend on it.
    fn leaves_out(&self, writer: &WriterId) -> bool {
        let config = self.verifier.config();
        let other = config.last(writer).is_some_and(|last| {
            let ours = self.verifier.hash_at(writer, last.seq, self.history);
            ours.is_some_and(|ours| ours != last.hash)
        });
        other || self.verifier.undecided(writer) || self.refused.contains(writer)
    }
}

#[cfg(test)]
mod tests;
