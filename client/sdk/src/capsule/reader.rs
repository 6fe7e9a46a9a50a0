//! Reads verified records, of one writer or of all in the order of their clocks.
//!
//! ```text
//! heads named by replicas ─▶ one lane a writer: page ─▶ verify_run ─▶ apply ─▶ front
//!                                                                               │ least clock first
//!                                              Applied ◀────────────────────────┘
//! ```
//!
//! In: an opened [`Log`]. Out: [`Applied`] records, and afterwards a statement of how complete they
//! are. Always true: every record is verified from the chain's first one on, also when only later
//! ones are asked for; a replica that lies or withholds costs a question to another one; what no
//! replica gives out is an error, never silence; a writer whose records are refused is named and
//! does not hide the others.
//!
//! Cost: one signature a page (at most 256 records), two hash passes over every byte. Whoever passes
//! records on asks for every signature ([`ReadOptions::every_signature`]): in a page those below the
//! newest may be ruined, and others would refuse them.

use std::collections::{BTreeMap, VecDeque};

use bield_capsule::{
    Applied, Clock, Freshness, Head, NoHistory, NotFresh, Received, Refused, Through, Verifier,
    WriterId, fresh,
};

use super::error::{Lie, LogError};
use super::log::Log;

/// What to read.
#[derive(Debug, Clone, Copy, Default)]
pub struct ReadOptions {
    /// Of this writer only.
    pub writer: Option<WriterId>,
    /// From this position of each chain.
    pub from: u64,
    /// To this position of each chain, included.
    pub to: Option<u64>,
    /// Check every record's own signature, so that it may be stored and passed on
    /// (`Applied::storable`); a signature a record instead of one a page.
    pub every_signature: bool,
}

/// Reads records until the newest that any replica named.
pub struct Reader<'a> {
    log: &'a Log,
    verifier: Verifier,
    lanes: Vec<Lane>,
    options: ReadOptions,
    skipped: Vec<Skipped>,
    /// The newest records that verified and that a quorum named.
    settled: BTreeMap<WriterId, Head>,
}

/// A writer whose records are not read, or not all.
#[derive(Debug, Clone)]
pub struct Skipped {
    /// The first record that is not read.
    pub writer: WriterId,
    /// Its position.
    pub seq: u64,
    /// Why.
    pub why: String,
}

/// How complete what was read is.
#[derive(Debug, Clone)]
pub struct Completeness {
    /// Whether it contains everything that a quorum acknowledged before it was asked for, and by whose
    /// word.
    pub fresh: Result<Freshness, NotFresh>,
    /// How many replicas answered.
    pub answered: usize,
    /// Why the others did not.
    pub silent: Vec<String>,
}

struct Lane {
    target: Head,
    front: VecDeque<Applied>,
    ended: bool,
}

impl Log {
    /// Reads records up to the newest that any replica named when the log was opened.
    #[must_use]
    pub fn read(&self, options: ReadOptions) -> Reader<'_> {
        let mut skipped = Vec::new();
        let mut lanes = Vec::new();
        for mut target in self.newest_heads() {
            let writer = target.writer;
            if options.writer.is_some_and(|only| only != writer) {
                continue;
            }
            match self.config().through(&writer) {
                Through::Everything => {}
                Through::Last(last) if last >= target.seq => {}
                through => {
                    let seq = match through {
                        Through::Last(last) => last + 1,
                        _ => 0,
                    };
                    let why = "the owner revoked the writer before it".to_owned();
                    skipped.push(Skipped { writer, seq, why });
                    let Some(last) = seq.checked_sub(1) else {
                        continue;
                    };
                    target.seq = last;
                }
            }
            lanes.push(Lane {
                target,
                front: VecDeque::new(),
                ended: false,
            });
        }
        Reader {
            log: self,
            verifier: self.verifier(),
            lanes,
            options,
            skipped,
            settled: BTreeMap::new(),
        }
    }
}

impl Log {
    /// The verified head of `writer` at `seq`, whichever replica names it.
    ///
    /// # Errors
    /// No replica gives out records that verify up to there.
    pub fn head_at(&self, writer: &WriterId, seq: u64) -> Result<Head, LogError> {
        let mut reader = self.read(ReadOptions {
            writer: Some(*writer),
            from: seq,
            to: Some(seq),
            every_signature: false,
        });
        match reader.next() {
            Some(applied) => Ok(applied?.record().head()),
            None => Err(LogError::Withheld {
                writer: *writer,
                seq,
                why: "no replica names it, or it does not count".to_owned(),
            }),
        }
    }
}

impl<'a> Reader<'a> {
    /// Writers that were not read, or not to their end, so far.
    #[must_use]
    pub fn skipped(&self) -> &[Skipped] {
        &self.skipped
    }

    /// How complete what was read is; to be asked at the end.
    #[must_use]
    pub fn completeness(&self) -> Completeness {
        let log = self.log;
        let silent = log.silent().iter().map(ToString::to_string).collect();
        let statements = log.statements();
        // A part is complete as the whole is: every head of it that was named was reached, or an error.
        let partial = self.options.writer.is_some() || self.options.to.is_some();
        let fresh = if partial {
            let answers = log.answers().len();
            match log.config().answers() {
                Some(need) if answers >= need => Ok(Freshness {
                    replicas: log
                        .answers()
                        .iter()
                        .map(|answer| log.replicas()[answer.replica].principal())
                        .collect(),
                    at: log.question().now,
                    except: Vec::new(),
                }),
                Some(need) => Err(NotFresh::TooFew {
                    need,
                    counted: answers,
                    uncounted: Vec::new(),
                }),
                None => Err(NotFresh::NoQuorum),
            }
        } else {
            let refused: Vec<_> = self.skipped.iter().map(|skipped| skipped.writer).collect();
            fresh(
                &self.verifier,
                &statements,
                log.question(),
                &NoHistory,
                &refused,
            )
        };
        Completeness {
            fresh,
            answered: log.answers().len(),
            silent,
        }
    }

    /// Remembers how far every chain was read that a quorum named so far: whoever shows less later rolled
    /// it back. This home's own chain is remembered by its writer alone.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn remember(&self) -> Result<(), LogError> {
        let own = self.log.home().writer_key().ok().map(|key| key.id());
        let others = self.settled.values().copied();
        self.log
            .home()
            .see(others.filter(|head| Some(head.writer) != own))?;
        Ok(())
    }

    /// Everything verified so far, for whoever goes on from here.
    pub(super) fn into_verifier(self) -> (&'a Log, Verifier) {
        (self.log, self.verifier)
    }

    /// The newest position of the lane that is read.
    fn end(&self, lane: &Lane) -> u64 {
        self.options
            .to
            .map_or(lane.target.seq, |to| to.min(lane.target.seq))
    }

    /// Fetches the next page of a lane.
    fn fill(&mut self, at: usize) -> Result<(), LogError> {
        while self.lanes[at].front.is_empty() && !self.lanes[at].ended {
            let (target, end) = (self.lanes[at].target, self.end(&self.lanes[at]));
            let chain = self.verifier.chain(&target.writer);
            let from = chain.map_or(0, |chain| chain.tip().seq + 1);
            if from > end {
                self.lanes[at].ended = true;
                break;
            }
            let to = end.min(from + PAGE_RECORDS - 1);
            let settled = self.log.settled(&target.writer);
            for applied in self.page(at, &target, from, to)? {
                let head = applied.record().head();
                if Some(head.seq) <= settled {
                    self.settled.insert(head.writer, head);
                }
                if applied.record().header().seq >= self.options.from {
                    self.lanes[at].front.push_back(applied);
                }
            }
        }
        Ok(())
    }

    /// Records `from` to `to` of one writer, or some of them, from whichever replica has them right.
    fn page(
        &mut self,
        lane: usize,
        target: &Head,
        from: u64,
        to: u64,
    ) -> Result<Vec<Applied>, LogError> {
        let writer = target.writer;
        let name = self.verifier.metadata().name();
        let mut why = Vec::new();
        let wanted = Head {
            seq: from,
            ..*target
        };
        let holders = self.log.holders(&wanted);
        let replicas = holders
            .iter()
            .map(|answer| &self.log.replicas()[answer.replica]);
        for replica in replicas {
            let page = match replica.records(&name, &writer, from, Some(to)) {
                Ok(page) if page.records.is_empty() => {
                    why.push(format!("{} gives out nothing", replica.url()));
                    continue;
                }
                Ok(page) => page,
                Err(error) => {
                    why.push(error.to_string());
                    continue;
                }
            };
            let applied = match self.take(page.records)? {
                Ok(applied) => applied,
                Err((0, refused)) if is_rule(&refused) => {
                    self.lanes[lane].ended = true;
                    let why = refused.to_string();
                    self.skipped.push(Skipped {
                        writer,
                        seq: from,
                        why,
                    });
                    return Ok(Vec::new());
                }
                // Those before it may be right: only now is it worth to ask for them alone.
                Err((index, refused)) if is_rule(&refused) => {
                    return self.page(lane, target, from, from + index as u64 - 1);
                }
                Err((index, refused)) => {
                    let lie = Lie::Refused {
                        writer,
                        seq: from + index as u64,
                        error: Box::new(refused),
                    };
                    why.push(replica.lied(lie).to_string());
                    continue;
                }
            };
            return Ok(applied);
        }
        Err(LogError::Withheld {
            writer,
            seq: from,
            why: if why.is_empty() {
                "the replica that named it is silent".to_owned()
            } else {
                why.join("; ")
            },
        })
    }

    /// Verifies and applies a page: in one run, or each record in a run of its own, whose signature is
    /// checked then. Of records that are taken one by one those before a refused one stay.
    fn take(
        &mut self,
        mut records: Vec<Received>,
    ) -> Result<Result<Vec<Applied>, (usize, Refused)>, LogError> {
        let one = if self.options.every_signature {
            1
        } else {
            records.len()
        };
        let mut applied = Vec::with_capacity(records.len());
        while !records.is_empty() {
            let rest = records.split_off(one.min(records.len()));
            let verified = match self
                .verifier
                .verify_run(core::mem::replace(&mut records, rest))
            {
                Ok(verified) => verified,
                Err(refused) if applied.is_empty() => return Ok(Err(refused)),
                // Asked for anew from there, and judged then.
                Err(_) => break,
            };
            for record in verified {
                let head = record.record().head();
                let taken = self
                    .verifier
                    .apply(record)
                    .map_err(|error| LogError::Refused {
                        writer: head.writer,
                        seq: head.seq,
                        error: Box::new(error),
                    })?;
                applied.push(taken);
            }
        }
        Ok(Ok(applied))
    }
}

impl Iterator for Reader<'_> {
    type Item = Result<Applied, LogError>;

    fn next(&mut self) -> Option<Self::Item> {
        for at in 0..self.lanes.len() {
            if let Err(error) = self.fill(at) {
                self.lanes[at].ended = true;
                return Some(Err(error));
            }
        }
        self.lanes
            .retain(|lane| !lane.ended || !lane.front.is_empty());
        let least = self.lanes.iter_mut().min_by_key(|lane| rank(lane))?;
        least.front.pop_front().map(Ok)
    }
}

fn rank(lane: &Lane) -> (Option<Clock>, WriterId) {
    let front = lane.front.front();
    let clock = front.map(|applied| applied.record().header().clock);
    (clock, lane.target.writer)
}

/// Whether it is the writer who may not write this, and not a replica that sent something wrong.
pub(super) const fn is_rule(refused: &Refused) -> bool {
    matches!(
        refused,
        Refused::Revoked { .. }
            | Refused::NotAdmitted { .. }
            | Refused::Simulated { .. }
            | Refused::Certificate { .. }
            | Refused::Forked { .. }
            | Refused::Generation { .. }
    )
}

/// Records of a page: one signature check for so many.
const PAGE_RECORDS: u64 = 256;
