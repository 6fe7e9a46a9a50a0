//! From a host's files to a state that serves, or a sentence.
//!
//! ```text
//! package: metadata, config, key ring ─▶ Verifier ┐
//! files ──────────────────────────────▶ chains ───┴▶ line ─▶ newest checkpoint ─▶ levels, opened lazily
//!                                                     │  └─▶ nothing is missing that it does not cover
//! key service: anchored heads ────────────────────────┴▶ all are in the line, or RolledBack
//!              token, certificate ─▶ own chain, fence ─▶ records after the checkpoint ─▶ table
//! ```
//!
//! In: [`Opening`]. Out: [`Parts`] of a state. Always true: nothing is written before everything that is there
//! was verified and compared with what is anchored; what is not covered by the newest checkpoint is in
//! memory again. Cost: the log behind the newest checkpoint, which a flush keeps short; runs are opened when
//! they are first read.

use std::sync::Arc;
use std::time::Duration;

use bield_capsule::{
    Head, KeyRing, Metadata, Received, VerifierPolicy, WriterId, export_header, export_record,
};
use bield_ledger::Files;
use bield_table::{Consistency, Leases, Options, Table, bucket_range};

use crate::clocks::Present;
use crate::cold::Cold;
use crate::control::Fence;
use crate::disk::Disk;
use crate::history::History;
use crate::log::append::{Author, Log, Place};
use crate::log::chain::Segment;
use crate::log::line::{Covered, Line};
use crate::names::Names;
use crate::runs::RunFiles;
use crate::writing::{Entropy, Writing};
use crate::{Bucket, Clocks, Lacking, Settings, StateError};

/// What a state is opened from.
pub struct Opening {
    /// The capsule, from the function's package.
    pub metadata: Metadata,
    /// The owner's chain from its first record, from the package.
    pub config: Vec<Vec<u8>>,
    /// The capsule's keys, from the package.
    pub keys: KeyRing,
    /// Whose certificates count beyond the configuration.
    pub policy: VerifierPolicy,
    /// A fresh key and its certificate. The same writer asked the key service for the hold.
    pub author: Author,
    /// The key service's token of that hold.
    pub token: u64,
    /// The end of the hold, by [`Clocks::running`].
    pub held: Duration,
    /// All heads that are anchored at the key service.
    pub anchored: Vec<Head>,
    /// The function's buckets: of those that are linearizable the state takes a lease.
    pub buckets: Vec<Bucket>,
    /// The host's directory, for writing.
    pub files: Box<dyn Files>,
    /// The same directory, for reads beside writes.
    pub reads: Box<dyn Files>,
    /// The machine's clocks.
    pub clocks: Arc<dyn Clocks>,
    /// Randomness: for the signer, and for the levels.
    pub entropy: [Entropy; 2],
    /// Memory and disk.
    pub settings: Settings,
}

/// An opened state before its threads run.
pub(crate) struct Parts {
    pub(crate) writing: Writing,
    pub(crate) table: Table,
    pub(crate) cold: Cold,
    pub(crate) disk: Disk,
    /// For the levels.
    pub(crate) entropy: Entropy,
    /// Segments of earlier starts: removable once a checkpoint covers them.
    pub(crate) former: Vec<Segment>,
    /// Where the chains of the line ended.
    pub(crate) ended: Vec<Head>,
    /// Whose anchored heads the own chain's first record covers.
    pub(crate) covered: Vec<WriterId>,
    /// To be leased: from the first key to the second, exclusive.
    pub(crate) leased: Vec<(Vec<u8>, Vec<u8>)>,
    /// The key service's token.
    pub(crate) token: u64,
    /// How many starts the files hold.
    pub(crate) chains: usize,
}

impl Opening {
    pub(crate) fn open(self) -> Result<Parts, StateError> {
        let disk = Disk::new(self.files, self.reads);
        let capsule = self.metadata.name();
        let names = Names::of(&capsule);
        let mut verifier =
            crate::log::verifier(&self.metadata, &self.config, &self.keys, self.policy)?;
        let (chains, torn) = crate::log::read(&disk, &names, &mut verifier, &self.keys)?;
        let line = Line::of(chains)?;
        let (checkpoint, covered) = match line.checkpoint() {
            Some((checkpoint, covered)) => (Some(checkpoint.clone()), covered),
            None => (None, Covered::default()),
        };
        line.whole(&covered)?;
        let mut history = History::default();
        for head in checkpoint.iter().flat_map(|checkpoint| &checkpoint.covered) {
            history.add(*head);
        }
        for (writer, seq, stored) in line.records() {
            let hash = stored.hash();
            // Files of long ago that somebody put back.
            if !covered.is_forgotten(&writer) {
                history.add(Head { writer, seq, hash });
            }
        }
        let writers = history.lacking(&self.anchored)?;
        if !writers.is_empty() {
            let behind = Lacking::sum(&writers);
            return Err(StateError::RolledBack { behind, writers });
        }

        describe(&self.metadata, &self.config, &disk, &names);
        // What the own chain follows has to outlast it: a holder that ended may have left it in the machine's memory.
        if let Some(newest) = line.chains.last() {
            newest
                .chain
                .segments
                .last()
                .map_or(Ok(()), |segment| disk.sync(&segment.name))?;
        }
        let place = Place {
            disk: &disk,
            names: &names,
            metadata: &self.metadata,
            config: verifier.config(),
            keys: &self.keys,
            fence: Fence {
                token: self.token,
                before: line.tip(),
            },
        };
        let clocks = Present::of(&self.author, &self.metadata, self.clocks)?;
        let now = clocks.now();
        let [mut signer, upkeep] = self.entropy;
        let log = Log::begin(&place, self.author, now, &mut signer)?;
        history.add(log.head());
        let runs = RunFiles::new(disk.clone(), names);
        let cold = Cold::open(checkpoint, &capsule, &self.keys, runs, &self.settings)?;
        let heads: Vec<Head> = covered.heads().copied().collect();
        let options = Options {
            // The state looks at its memory itself: what was in a former holder's fits.
            memtable_bytes: usize::MAX / 2,
            // There is one writer at a time, and each one's clock is bounded by its certificate ([`Present`]): what is in
            // the log is gone on from, so that a newer write always wins.
            clock_ahead: Duration::MAX,
            epochs: Vec::new(),
        };
        let writer = log.head().writer;
        let leases = Leases::default();
        let table = Table::open(writer, options, cold.levels(), &heads, leases)?;
        let mut logged = 0;
        for (writer, seq, stored) in line.records() {
            if !covered.covers(&writer, seq) {
                table.apply(&stored.record, &self.keys, now)?;
                logged += stored.record.record().as_bytes().len() as u64;
            }
        }
        let chains = line.chains.len();
        cold.removal.anchored_before(line.behind(&self.anchored));
        let ended = line.chains.iter().map(|counted| counted.through);
        let ended = ended.filter(|head| !covered.is_forgotten(&head.writer));
        let ended = ended.collect();
        let mut leased = Vec::new();
        for bucket in &self.buckets {
            let (from, to) = bucket_range(&bucket.name)?;
            // What an earlier version of the function declared linearizable changes under leases for good.
            if bucket.consistency == Consistency::Linearizable || table.is_leased(&from, &to) {
                leased.push((from, to));
            }
        }
        let segments = line
            .chains
            .into_iter()
            .flat_map(|counted| counted.chain.segments);
        let former = segments.chain(line.aside).chain(torn).collect();
        let covered = self.anchored.iter().map(|head| head.writer).collect();
        let writing = Writing::new(log, history, self.keys, Arc::new(clocks), signer, self.held);
        writing.counts(logged);
        Ok(Parts {
            writing,
            table,
            cold,
            disk,
            entropy: upkeep,
            former,
            ended,
            covered,
            leased,
            token: self.token,
            chains,
        })
    }
}

/// Leaves the public half of what the package says of the capsule beside its log, so that who has the log can verify it
/// without the package. Nothing here reads it again, and the state serves without it.
fn describe(metadata: &Metadata, config: &[Vec<u8>], disk: &Disk, names: &Names) {
    let mut bytes = export_header(metadata);
    for record in config {
        match Received::decode(record.clone()) {
            Ok(record) => export_record(&record, &mut bytes),
            Err(_) => return,
        }
    }
    let name = names.head();
    let files = disk.list().unwrap_or_default();
    let length = bytes.len() as u64;
    if !files.contains(&(name.clone(), length)) {
        let _ = disk.append(&name, 0, &bytes);
    }
}
