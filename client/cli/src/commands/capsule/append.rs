//! `bield capsule append`.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read};
use std::path::PathBuf;
use std::time::Duration;

use bield_capsule::{Batch, Durability, Head, PAYLOAD_BYTES_MAX};
use bield_sdk::Home;
use bield_sdk::capsule::{Appender, AppenderOptions, Finished, Health, Log};
use clap::Args;
use serde_json::json;

use super::open;
use crate::failure::Failure;
use crate::output::Output;
use crate::progress;

/// Append entries, and wait until they are durable
///
/// Reads FILE, or standard input: all of it is one entry, or every line with --lines. Entries are
/// encrypted, signed and sent to every replica; what arrives while one record is under way becomes the
/// next one, so many lines cost few records.
///
/// Done means that the durability asked for is reached, by the signed word of so many replicas. A replica
/// that is slow or dead holds nothing up as long as a quorum of others answers; it is named.
///
/// Durability: memory (queued in this process), sent, local and local-sync (the first replica on this
/// machine has written or synced it), replicated(q) (q replicas have synced it), witnessed(q,w) (the same,
/// and w witnesses cosigned the log of each of them with the record in it).
#[derive(Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Append {
    /// Label, name, or first digits of the capsule
    capsule: String,

    /// What to append; - is standard input
    #[arg(default_value = "-")]
    file: PathBuf,

    /// Every line is an entry
    #[arg(long)]
    lines: bool,

    /// Wait until this is reached [default: the capsule's quorum]
    #[arg(long, value_name = "LEVEL")]
    durability: Option<Durability>,

    /// Give every entry a key of its own, which `bield capsule erase --entry` can destroy
    #[arg(long)]
    erasable: bool,

    /// How long to wait for a replica that does not answer
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    wait: u64,

    /// Write a durability receipt: a file that proves offline which replicas keep these entries
    #[arg(long, value_name = "FILE")]
    receipt: Option<PathBuf>,
}

/// What is appended.
type Source = BufReader<Box<dyn Read>>;

/// Entries appended so far.
#[derive(Default)]
struct Count {
    entries: u64,
    bytes: u64,
    /// Records of erasable entries: each one's head, and how many entries are in it.
    erasable: Vec<(Head, u64)>,
}

/// How many entries, from the first, have come how far.
struct Fate {
    read: u64,
    sealed: u64,
    reached: u64,
    level: Durability,
    /// How many the capsule's quorum keeps.
    counts: u64,
    quorum: Durability,
}

impl Fate {
    fn of(appender: &Appender, level: Durability, quorum: u8, count: &Count) -> Self {
        let erasable = |level| {
            let records = count.erasable.iter();
            let reached = records.filter(|(head, _)| appender.has_reached(head.seq, level));
            reached.map(|(_, entries)| entries).sum::<u64>()
        };
        let at = |level| appender.reached(level).position() + erasable(level);
        Self {
            read: count.entries,
            sealed: at(Durability::Sent),
            reached: at(level),
            level,
            counts: at(Durability::Replicated(quorum)),
            quorum: Durability::Replicated(quorum),
        }
    }

    /// Says it after why it failed.
    fn failure(&self, failure: Failure) -> Failure {
        let Self {
            read,
            sealed,
            reached,
            level,
            counts,
            quorum,
        } = self;
        let mut text = format!(
            "of {}, {reached} reached {level}",
            plural(*read, "entry", "entries")
        );
        let safe = reached.max(counts);
        if counts > reached {
            let _ = write!(
                text,
                "; {} more are at {quorum} and stay: do not append them again",
                counts - reached
            );
        }
        if sealed > safe {
            let _ = write!(
                text,
                "; {} more are signed and kept in this home: the next append sends them again first, so do \
                 not append them again",
                sealed - safe
            );
        }
        if read > sealed {
            let _ = write!(text, "; the last {} were not appended", read - sealed);
        }
        failure.and(&text).with(json!({
            "entries": read,
            "signed": sealed,
            "reached": reached,
            "at_quorum": counts,
            "level": level.to_string(),
        }))
    }
}

impl Append {
    pub(crate) fn run(self, home: &Home, output: Output) -> Result<(), Failure> {
        let mut source = self.source()?;
        let mut log = open(home, &self.capsule)?;
        let level = self
            .durability
            .unwrap_or_else(|| Durability::of(log.config().quorum()));
        // Witnesses speak after replicas have.
        let first = match level {
            Durability::Witnessed(replicas, _) => Durability::Replicated(replicas),
            level => level,
        };
        let mut appender = log.appender(AppenderOptions {
            patience: Duration::from_secs(self.wait),
            ..AppenderOptions::default()
        })?;
        let quorum = log.config().quorum().replicas;
        let before = appender.head().map(|head| head.seq);
        let bar = progress::bytes("appending");
        let mut count = Count::default();
        let appended = if self.erasable {
            self.append_erasable(&mut log, &appender, &mut source, &mut count)
        } else {
            self.append(&appender, &mut source, &mut count, &bar)
        };
        // Also when reading failed: what was queued before is still worth sending.
        let flushed = appender.flush(first);
        if flushed.is_err() {
            // What a quorum keeps counts, whatever was asked for.
            let _ = appender.flush(Durability::Replicated(quorum));
        }
        let fate = Fate::of(&appender, first, quorum, &count);
        let finished = appender.finish(first);
        bar.finish_and_clear();
        if let Err(error) = flushed {
            return Err(fate.failure(Failure::from(error)));
        }
        if let Err(failure) = appended {
            return Err(fate.failure(failure));
        }
        let finished = finished?;
        if let (Durability::Witnessed(replicas, witnesses), Some(head)) = (level, finished.head) {
            let spinner = progress::spinner("waiting for witnesses");
            let witnessed = log.wait_witnessed(&head, replicas, witnesses, WITNESS_PATIENCE);
            spinner.finish_and_clear();
            witnessed.map_err(|error| fate.failure(Failure::from(error)))?;
        }
        self.show(&log, &finished, before, &count, level, output)
    }

    fn source(&self) -> Result<Source, Failure> {
        if self.file.as_os_str() == "-" {
            return Ok(BufReader::with_capacity(
                BUFFER_BYTES,
                Box::new(io::stdin()),
            ));
        }
        let file = File::open(&self.file).map_err(|error| self.unreadable(error))?;
        Ok(BufReader::with_capacity(BUFFER_BYTES, Box::new(file)))
    }

    fn unreadable(&self, error: io::Error) -> Failure {
        Failure::local(format_args!("{}: {error}", self.file.display()))
    }

    fn append(
        &self,
        appender: &Appender,
        source: &mut Source,
        count: &mut Count,
        bar: &indicatif::ProgressBar,
    ) -> Result<(), Failure> {
        let mut entry = Vec::new();
        let mut batch = Batch::new();
        let flush = |batch: &mut Batch| -> Result<(), Failure> {
            if !batch.is_empty() {
                appender.append_batch(batch)?;
                batch.clear();
            }
            Ok(())
        };
        while self.next(source, &mut entry, count)? {
            if batch.push(&entry).is_err() {
                flush(&mut batch)?;
                appender.append(&entry)?;
            }
            count.entries += 1;
            count.bytes += entry.len() as u64;
            // What came in one piece goes out in one; whoever types line by line does not wait.
            if source.buffer().is_empty() || batch.bytes() > BUFFER_BYTES {
                flush(&mut batch)?;
                bar.set_position(count.bytes);
            }
        }
        flush(&mut batch)
    }

    /// Reads the next entry; says whether there was one.
    fn next(
        &self,
        source: &mut Source,
        entry: &mut Vec<u8>,
        count: &Count,
    ) -> Result<bool, Failure> {
        entry.clear();
        // One byte more than fits tells a long entry from the longest.
        let mut bounded = source.by_ref().take(PAYLOAD_BYTES_MAX as u64 + 2);
        if !self.lines {
            bounded
                .read_to_end(entry)
                .map_err(|error| self.unreadable(error))?;
            if entry.len() > PAYLOAD_BYTES_MAX {
                return Err(Failure::local(format_args!(
                    "an entry has at most {PAYLOAD_BYTES_MAX} bytes: split it, or use --lines"
                )));
            }
            return Ok(count.entries == 0);
        }
        let read = bounded
            .read_until(b'\n', entry)
            .map_err(|error| self.unreadable(error))?;
        if entry.last() == Some(&b'\n') {
            entry.pop();
        }
        if entry.len() > PAYLOAD_BYTES_MAX {
            return Err(Failure::local(format_args!(
                "line {} has more than {PAYLOAD_BYTES_MAX} bytes: split it",
                count.entries + 1
            )));
        }
        Ok(read > 0)
    }

    fn append_erasable(
        &self,
        log: &mut Log,
        appender: &Appender,
        source: &mut Source,
        count: &mut Count,
    ) -> Result<(), Failure> {
        let metadata = log.metadata().clone();
        loop {
            let (mut entries, mut bytes) = (Vec::new(), 0);
            while bytes < ERASABLE_BYTES && entries.len() < ERASABLE_ENTRIES {
                let mut entry = Vec::new();
                if !self.next(source, &mut entry, count)? {
                    break;
                }
                bytes += entry.len();
                count.entries += 1;
                count.bytes += entry.len() as u64;
                entries.push(entry);
            }
            if entries.is_empty() {
                return Ok(());
            }
            let head = appender.append_erasable(&metadata, &entries, |keys| {
                log.update_ring(|ring| {
                    let mut keys = keys.into_iter();
                    keys.try_for_each(|(place, key)| ring.keep_entry(place, key))
                })
            })??;
            count.erasable.push((head, entries.len() as u64));
        }
    }

    fn show(
        &self,
        log: &Log,
        finished: &Finished,
        before: Option<u64>,
        count: &Count,
        level: Durability,
        output: Output,
    ) -> Result<(), Failure> {
        let head = finished.head;
        let records = head.map_or(0, |head| head.seq.saturating_sub(before.unwrap_or(0)));
        let mut receipt = None;
        if let (Some(path), Some(newest)) = (&self.receipt, &finished.newest) {
            let (proof, proven) = log.receipt(newest)?;
            bield_sdk::write_atomically(path, &proof.encode())?;
            receipt = Some((path.display().to_string(), proven.synced()));
        }
        let mut text = match head {
            Some(head) => format!(
                "{} in {}, {level}\n  newest    {}/{}",
                plural(count.entries, "entry", "entries"),
                plural(records, "record", "records"),
                head.writer.short(),
                head.seq
            ),
            None => "nothing to append".to_owned(),
        };
        for (head, entries) in &count.erasable {
            let (writer, seq, last) = (head.writer.short(), head.seq, entries.saturating_sub(1));
            let _ = match last {
                0 => write!(text, "\n  erasable  {writer}/{seq}/0"),
                last => write!(
                    text,
                    "\n  erasable  {writer}/{seq}/0 to {writer}/{seq}/{last}"
                ),
            };
        }
        let mut sinks = Vec::new();
        for sink in &finished.sinks {
            let (mut word, why) = health(&sink.health);
            if why.is_none() && sink.kept.is_none() {
                word = "silent";
            }
            if let Some(why) = &why {
                let _ = write!(text, "\n  {:8}  {why}", word.to_uppercase());
            } else {
                let kept = sink
                    .kept
                    .map_or("has kept nothing yet", bield_capsule::Kept::name);
                let _ = write!(text, "\n  {word:8}  {} {kept}", sink.name);
            }
            sinks.push(json!({
                "replica": sink.name,
                "principal": sink.principal.map(|principal| principal.to_string()),
                "health": word,
                "why": why,
                "seq": sink.head.map(|head| head.seq),
                "kept": sink.kept.map(bield_capsule::Kept::name),
            }));
        }
        if let Some((path, synced)) = &receipt {
            let _ = write!(
                text,
                "\n  receipt   {path}: {synced} replicas have synced it"
            );
        }
        output.show(
            &json!({
                "capsule": log.metadata().name().to_string(),
                "entries": count.entries,
                "bytes": count.bytes,
                "records": records,
                "writer": head.map(|head| head.writer.to_string()),
                "seq": head.map(|head| head.seq),
                "hash": head.map(|head| head.hash.to_string()),
                "durability": level.to_string(),
                "replicas": sinks,
                "erasable": count.erasable.iter().map(|(head, entries)| json!({
                    "writer": head.writer.to_string(),
                    "seq": head.seq,
                    "entries": entries,
                })).collect::<Vec<_>>(),
                "receipt": receipt.map(|(path, _)| path),
            }),
            text,
        );
        Ok(())
    }
}

fn plural(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

fn health(health: &Health) -> (&'static str, Option<String>) {
    match health {
        Health::Live => ("kept", None),
        Health::CatchingUp => ("behind", None),
        Health::Down(why) => ("down", Some(why.clone())),
        Health::Out(why) => ("out", Some(why.clone())),
    }
}

/// Bytes read at once.
const BUFFER_BYTES: usize = 64 << 10;
/// How long witnesses may take: replicas ask them about once a second.
const WITNESS_PATIENCE: Duration = Duration::from_secs(20);
/// Erasable entries of one record: their keys are stored before it is sent.
const ERASABLE_ENTRIES: usize = 1024;
const ERASABLE_BYTES: usize = PAYLOAD_BYTES_MAX / 4;

const EXAMPLES: &str = r#"Examples:
  echo "first entry" | bield capsule append notes
  bield capsule append notes --lines access.log
  bield capsule append notes invoice.pdf --durability "replicated(3)" --receipt invoice.receipt
  bield capsule append people --lines --erasable visitors.txt"#;
