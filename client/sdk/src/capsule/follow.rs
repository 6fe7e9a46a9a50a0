//! Records as they are written, for as long as anybody wants them.
//!
//! ```text
//! replica i: size of its log ─▶ heads ─▶ what is missing ─▶ stream from size ─▶ records ─▶ verified
//!     └── breaks, lies ─▶ replica i + 1 …
//! ```
//!
//! Always true: nothing is lost between reading and following, because the stream starts where the
//! replica's log stood before its heads were asked for; every record is verified; records that come
//! twice are shown once. A single replica can delay: freshness is asked for, not streamed.

use std::collections::VecDeque;
use std::thread;
use std::time::Duration;

use bield_capsule::{Applied, Received, Refused, Verifier};
use rand_core::Rng as _;

use super::error::{Lie, LogError, ReplicaError};
use super::log::{Log, extend_with};
use super::reader::Reader;
use super::replica::{ReplicaClient, Subscription};
use crate::Randomness;

/// Follows a capsule; never ends by itself.
pub struct Follower<'a> {
    log: &'a Log,
    verifier: Verifier,
    /// Of the log's replicas: which one is asked.
    replica: usize,
    stream: Option<Subscription>,
    ready: VecDeque<Applied>,
    failures: usize,
}

/// What happened.
#[derive(Debug)]
#[non_exhaustive]
pub enum Followed {
    /// A new record.
    Record(Box<Applied>),
    /// Nothing for a while; the stream is alive.
    Quiet,
    /// A replica was given up, for this reason; the next one is asked.
    Switched(String),
}

impl<'a> Reader<'a> {
    /// Goes on with what is written from now on.
    #[must_use]
    pub fn follow(self) -> Follower<'a> {
        let (log, verifier) = self.into_verifier();
        Follower {
            log,
            verifier,
            replica: 0,
            stream: None,
            ready: VecDeque::new(),
            failures: 0,
        }
    }
}

impl Follower<'_> {
    /// Waits for what happens next.
    ///
    /// # Errors
    /// No replica of the capsule answered in several rounds.
    pub fn next_event(&mut self) -> Result<Followed, LogError> {
        loop {
            if let Some(record) = self.ready.pop_front() {
                self.failures = 0;
                return Ok(Followed::Record(Box::new(record)));
            }
            let step = match &mut self.stream {
                None => self.connect().map(|()| None),
                Some(stream) => match stream.next() {
                    Some(Ok(Some(record))) => self.take(record).map(|()| None),
                    Some(Ok(None)) => Ok(Some(Followed::Quiet)),
                    Some(Err(error)) => Err(error),
                    None => Err(ReplicaError::Unreachable {
                        replica: self.client().url().to_owned(),
                        error: Box::new(ureq::Error::Io(std::io::ErrorKind::UnexpectedEof.into())),
                    }),
                },
            };
            match step {
                Ok(None) => {}
                Ok(Some(event)) => return Ok(event),
                Err(error) => return self.give_up(error),
            }
        }
    }

    fn client(&self) -> &ReplicaClient {
        let replicas = self.log.replicas();
        &replicas[self.replica % replicas.len()]
    }

    fn give_up(&mut self, error: ReplicaError) -> Result<Followed, LogError> {
        self.stream = None;
        self.replica += 1;
        self.failures += 1;
        let count = self.log.replicas().len();
        if self.failures > count * ROUNDS {
            return Err(error.into());
        }
        if self.failures.is_multiple_of(count) {
            thread::sleep(ROUND_PAUSE);
        }
        Ok(Followed::Switched(error.to_string()))
    }

    /// Catches up with a replica, then subscribes to it.
    fn connect(&mut self) -> Result<(), ReplicaError> {
        let name = self.verifier.metadata().name();
        // Before the heads: whatever arrives in between is in the stream as well.
        let size = log_size(self.client(), &name);
        let mut nonce = [0; 16];
        Randomness.fill_bytes(&mut nonce);
        let pages = self.client().all_heads(&name, nonce)?;
        let config = pages.first().and_then(|page| page.config);
        let have = self.verifier.config().head().map(|head| head.seq);
        if config.map(|head| head.seq) > have {
            self.extend(&self.verifier.metadata().owner_id(), None)?;
        }
        for head in pages.iter().flat_map(|page| &page.heads) {
            let chain = self.verifier.chain(&head.writer);
            let counts = self
                .verifier
                .config()
                .through(&head.writer)
                .includes(head.seq);
            if counts && chain.is_none_or(|chain| chain.tip().seq < head.seq) {
                self.extend(&head.writer, Some(head.seq))?;
            }
        }
        self.stream = Some(self.client().subscribe(&name, size)?);
        Ok(())
    }

    fn take(&mut self, record: Received) -> Result<(), ReplicaError> {
        let head = record.head();
        match self.verifier.verify(record) {
            Ok(verified) => {
                let applied = self.verifier.apply(verified);
                self.ready
                    .push_back(applied.map_err(|error| self.refused(&head, error))?);
                Ok(())
            }
            Err(Refused::Known { .. } | Refused::Earlier { .. }) => Ok(()),
            Err(Refused::ConfigGap { .. }) => {
                self.extend(&self.verifier.metadata().owner_id(), None)?;
                self.extend(&head.writer, Some(head.seq))
            }
            Err(Refused::Gap { .. }) => self.extend(&head.writer, Some(head.seq)),
            // A writer that may not write this is the owner's business; the others go on.
            Err(error) if super::reader::is_rule(&error) => Ok(()),
            Err(error) => Err(self.refused(&head, error)),
        }
    }

    fn extend(
        &mut self,
        writer: &bield_capsule::WriterId,
        to: Option<u64>,
    ) -> Result<(), ReplicaError> {
        let replicas = self.log.replicas();
        let client = &replicas[self.replica % replicas.len()];
        let ready = &mut self.ready;
        extend_with(&mut self.verifier, client, writer, to, |applied| {
            ready.push_back(applied)
        })
    }

    fn refused(&self, head: &bield_capsule::Head, error: Refused) -> ReplicaError {
        self.client().lied(Lie::Refused {
            writer: head.writer,
            seq: head.seq,
            error: Box::new(error),
        })
    }
}

/// Records in the replica's log as of its newest checkpoint: only a place to start from.
fn log_size(client: &ReplicaClient, name: &bield_capsule::CapsuleName) -> u64 {
    let checkpoint = client.log_part(name, "checkpoint").unwrap_or_default();
    let text = String::from_utf8_lossy(&checkpoint);
    let size = text.lines().nth(1).and_then(|line| line.parse().ok());
    size.unwrap_or(0)
}

/// Rounds through all replicas before nobody is there.
const ROUNDS: usize = 3;
const ROUND_PAUSE: Duration = Duration::from_secs(1);
