//! Offline verification, from files alone: nobody is asked, nobody is believed.
//!
//! ```text
//! export ────────┐
//! replica folder ├──▶ records one by one ──▶ Verifier ──▶ checks: passed, FAILED, NOT CHECKED
//! proof, receipt │                              │
//! fork proof ────┘                              └─▶ the first bad record: file, offset, writer, seq
//! ```
//!
//! In: files that anybody may have touched. Out: an [`Audit`]. Always true: every signature is checked,
//! not only the newest of a run, so that the first bad record is named and not the first bad run;
//! what no file can show, such as records missing at the end, is listed as not checked.
//!
//! Cost: 40 µs a record (its signature), two hash passes over every byte.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use bield_capsule::segment::{End, FRAME_HEAD_BYTES, Flaw, SegmentHeader};
use bield_capsule::{
    CapsuleName, ExportError, ExportReader, ForkProof, Head, Header, KeyRing, Kind, Metadata,
    NotChecked, OpenError, Proof, Proven, Received, Verifier, VerifierPolicy, WriterId,
};
use bield_evidence::{Check, Mover, Outcome};
use bield_tlog::{Hash, LogVerifier, SignedCheckpoint, Tree};

/// What is expected, and what helps.
#[derive(Clone, Copy, Default)]
pub struct AuditOptions<'a> {
    /// The capsule it must be about; without it the file's own word is taken for the name.
    pub name: Option<CapsuleName>,
    /// Keys to open bodies with.
    pub keys: Option<&'a KeyRing>,
    /// Certificates whose evidence came from a software TEE count.
    pub allow_simulated: bool,
}

/// What was found.
#[derive(Debug)]
pub struct Audit {
    /// What kind of thing it is, in words.
    pub subject: &'static str,
    /// Where it is.
    pub path: PathBuf,
    /// Which capsule.
    pub capsule: Option<CapsuleName>,
    /// Everything that was checked, and what was not.
    pub checks: Vec<Check>,
    /// The first record that does not hold.
    pub bad: Option<Bad>,
    /// Records that hold.
    pub records: u64,
    /// The newest of every chain, the configuration's included.
    pub heads: Vec<Head>,
    /// What a proof or receipt proved.
    pub proven: Option<Proven>,
}

/// A record that does not hold.
#[derive(Debug, Clone)]
pub struct Bad {
    /// In which file.
    pub file: PathBuf,
    /// Where in it the record begins, with its length or frame head.
    pub offset: u64,
    /// Its number in the file or folder, from 0.
    pub number: u64,
    /// Whose it says that it is, as far as that can be read.
    pub writer: Option<WriterId>,
    /// Which position it says that it has.
    pub seq: Option<u64>,
    /// What is wrong.
    pub why: String,
}

/// Why nothing could be checked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuditError {
    /// A file could not be read.
    #[error("{path}: {error}", path = .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        error: io::Error,
    },
    /// It is nothing that is known here.
    #[error(
        "{path} is no export, proof, receipt, fork proof or folder of a replica; is it the right file?",
        path = .path.display()
    )]
    Unknown {
        /// The file.
        path: PathBuf,
    },
}

/// Checks whatever is at `path`; a folder may hold several capsules. `progress` receives records so far.
///
/// # Errors
/// It cannot be read, or is nothing known. What is known and does not hold is no error but an
/// [`Audit`] that did not pass.
pub fn audit(
    path: &Path,
    options: &AuditOptions<'_>,
    progress: &mut dyn FnMut(u64),
) -> Result<Vec<Audit>, AuditError> {
    let at = |error| AuditError::Io {
        path: path.to_owned(),
        error,
    };
    if fs::metadata(path).map_err(at)?.is_dir() {
        return folder(path, options, progress);
    }
    let bytes = fs::read(path).map_err(at)?;
    let audit = if bytes.starts_with(EXPORT_MAGIC) {
        export(path, &bytes, options, progress)
    } else if let Ok(proof) = ForkProof::decode(&bytes) {
        fork(path, &proof, options)
    } else {
        match Proof::decode(&bytes) {
            Ok(found) => proof(path, &found, options),
            Err(bield_capsule::ProofError::Wire(_)) => {
                return Err(AuditError::Unknown {
                    path: path.to_owned(),
                });
            }
            Err(error) => {
                let mut audit = Audit::new("proof", path);
                audit.fail("form", &error.to_string(), "the parts of a proof");
                audit
            }
        }
    };
    Ok(vec![audit])
}

impl Audit {
    /// Whether nothing failed.
    #[must_use]
    pub fn passed(&self) -> bool {
        let mut checks = self.checks.iter();
        checks.all(|check| check.outcome != Outcome::Failed)
    }

    fn new(subject: &'static str, path: &Path) -> Self {
        Self {
            subject,
            path: path.to_owned(),
            capsule: None,
            checks: Vec::new(),
            bad: None,
            records: 0,
            heads: Vec::new(),
            proven: None,
        }
    }

    fn add(&mut self, name: &'static str, outcome: Outcome, have: &str, need: &str, mover: Mover) {
        self.checks.push(Check {
            name,
            outcome,
            have: have.to_owned(),
            need: need.to_owned(),
            mover,
        });
    }

    fn pass(&mut self, name: &'static str, have: &str) {
        self.add(name, Outcome::Passed, have, "the same", Mover::Operator);
    }

    fn fail(&mut self, name: &'static str, have: &str, need: &str) {
        self.add(name, Outcome::Failed, have, need, Mover::Operator);
    }

    fn open(&mut self, name: &'static str, have: &str, need: &str) {
        self.add(name, Outcome::NotChecked, have, need, Mover::User);
    }

    /// Compares the name with the one that is expected.
    fn name(&mut self, found: CapsuleName, options: &AuditOptions<'_>) -> bool {
        self.capsule = Some(found);
        match options.name {
            Some(wanted) if wanted == found => self.pass("name", &found.to_string()),
            Some(wanted) => {
                self.fail("name", &found.to_string(), &wanted.to_string());
                return false;
            }
            None => self.open(
                "name",
                &format!("{found}, by its own metadata"),
                "a name from somebody you believe (--name)",
            ),
        }
        true
    }
}

/// Verifies records one after another, and opens them where it can.
struct Walk<'a> {
    verifier: Verifier,
    keys: Option<&'a KeyRing>,
    records: u64,
    opened: u64,
    entries: u64,
    erased: u64,
    without_key: u64,
    sealed: u64,
    tree: Tree,
    unreadable: Option<(Head, OpenError)>,
}

impl<'a> Walk<'a> {
    fn new(metadata: Metadata, options: &AuditOptions<'a>) -> Self {
        let policy = VerifierPolicy {
            allow_simulated: options.allow_simulated,
            ..VerifierPolicy::default()
        };
        Self {
            verifier: Verifier::new(metadata, policy),
            keys: options.keys,
            records: 0,
            opened: 0,
            entries: 0,
            erased: 0,
            without_key: 0,
            sealed: 0,
            tree: Tree::new(),
            unreadable: None,
        }
    }

    fn take(&mut self, record: Received) -> Result<(), String> {
        let (head, kind) = (record.head(), record.header().kind);
        let verified = self.verifier.verify(record);
        let applied = verified.and_then(|verified| self.verifier.apply(verified));
        let applied = applied.map_err(|error| error.to_string())?;
        self.records += 1;
        self.tree.append(head.hash.as_bytes());
        if kind != Kind::Data {
            return Ok(());
        }
        self.sealed += 1;
        let Some(keys) = self.keys else {
            return Ok(());
        };
        let generation = applied.record().header().generation;
        match applied.open(keys) {
            Ok(entries) => {
                self.opened += 1;
                self.entries += entries.len() as u64;
            }
            Err(OpenError::NoKey { .. }) if self.verifier.config().erased(generation) => {
                self.erased += 1
            }
            Err(OpenError::NoKey { .. }) => self.without_key += 1,
            Err(error) => {
                self.unreadable.get_or_insert((head, error));
            }
        }
        Ok(())
    }

    /// Whose record belongs where bytes that do not hold say `claim`: what they say may be what was
    /// changed.
    fn expected(&self, claim: Option<Head>) -> (Option<WriterId>, Option<u64>) {
        let next = |writer: &WriterId| Some(self.verifier.chain(writer)?.tip().seq + 1);
        if let Some(claim) = claim {
            if let Some(next) = next(&claim.writer) {
                return (Some(claim.writer), Some(next));
            }
            if claim.seq == 0 {
                return (Some(claim.writer), Some(0));
            }
        }
        let mut chains = self.verifier.chains();
        match (chains.next(), chains.next()) {
            (Some(only), None) => (Some(only.writer()), next(&only.writer())),
            _ => (None, None),
        }
    }

    /// Says what the walk found, after the records themselves.
    fn conclude(&self, audit: &mut Audit) {
        audit.records = self.records;
        let config = self.verifier.config();
        audit.heads = config
            .head()
            .into_iter()
            .chain(self.verifier.chains().map(|chain| chain.tip()))
            .collect();
        let writers = self.verifier.chains().count();
        let missing: Vec<_> = self.verifier.missing().collect();
        if audit.bad.is_none() {
            let have = format!(
                "{} records of {writers} writers: signatures, chains, rights, bodies' roots",
                self.records
            );
            audit.pass("records", &have);
        }
        if let Some(gap) = missing.first() {
            let have = format!("{} is named and not here", gap.need);
            audit.add(
                "parents",
                Outcome::NotChecked,
                &have,
                "the records that others name",
                Mover::Operator,
            );
        }
        match (self.keys, &self.unreadable) {
            (None, _) if self.sealed > 0 => {
                let have = format!("{} sealed bodies are not opened", self.sealed);
                audit.open("contents", &have, "the key ring (--keys)");
            }
            (None, _) => {}
            (Some(_), Some((head, error))) => {
                audit.fail(
                    "contents",
                    &format!("{head}: {error}"),
                    "every body opens with its key",
                );
            }
            (Some(_), None) => {
                if self.opened > 0 {
                    let have = format!("{} records open, {} entries", self.opened, self.entries);
                    audit.pass("contents", &have);
                }
                if self.erased > 0 {
                    let have =
                        format!("{} records are erased: provable, not readable", self.erased);
                    audit.open("erased", &have, "nothing: the owner destroyed the key");
                }
                if self.without_key > 0 {
                    let have =
                        format!("{} records: the ring has no key for them", self.without_key);
                    audit.open("keys", &have, "keys of their generations");
                }
            }
        }
        audit.open(
            "newest",
            "no file shows what came after it",
            "the replicas' answers (bield capsule heads)",
        );
    }
}

fn export(
    path: &Path,
    bytes: &[u8],
    options: &AuditOptions<'_>,
    progress: &mut dyn FnMut(u64),
) -> Audit {
    let mut audit = Audit::new("export", path);
    let reader = match ExportReader::new(bytes) {
        Ok(reader) => reader,
        Err(error) => {
            audit.fail("form", &error.to_string(), "an export");
            return audit;
        }
    };
    if !audit.name(reader.metadata().name(), options) {
        return audit;
    }
    let mut walk = Walk::new(reader.metadata().clone(), options);
    for exported in reader {
        let bad = |number, offset, (writer, seq), why| Bad {
            file: path.to_owned(),
            offset,
            number,
            writer,
            seq,
            why,
        };
        let exported = match exported {
            Ok(exported) => exported,
            Err(error) => {
                let why = error.to_string();
                let (number, offset) = match error {
                    ExportError::Record { number, offset, .. }
                    | ExportError::TooLong { number, offset, .. }
                    | ExportError::Cut { number, offset } => (number, offset),
                    _ => (walk.records, bytes.len() as u64),
                };
                let place = walk.expected(claimed(bytes, offset as usize + 4));
                audit.bad = Some(bad(number, offset, place, why));
                break;
            }
        };
        let (number, offset) = (exported.number, exported.offset);
        let head = exported.record.head();
        if let Err(why) = walk.take(exported.record) {
            let place = (Some(head.writer), Some(head.seq));
            audit.bad = Some(bad(number, offset, place, why));
            break;
        }
        progress(walk.records);
    }
    name_bad(&mut audit, &walk);
    walk.conclude(&mut audit);
    audit
}

/// The bad record as a failed check.
fn name_bad(audit: &mut Audit, walk: &Walk<'_>) {
    if let Some(bad) = &audit.bad {
        let have = format!("{}; {} records before it hold", bad.text(), walk.records);
        audit.fail("records", &have, "every record verifies");
    }
}

impl Bad {
    /// The record and what is wrong with it, in one sentence.
    #[must_use]
    pub fn text(&self) -> String {
        let place = match (self.writer, self.seq) {
            (Some(writer), Some(seq)) => format!("writer {} seq {seq}", writer.short()),
            _ => "whose header cannot be read".to_owned(),
        };
        let file = self.file.file_name().unwrap_or_default().to_string_lossy();
        format!(
            "FIRST BAD: {file} offset {} (record {}, {place}): {}",
            self.offset, self.number, self.why
        )
    }
}

/// What bytes that do not hold say of themselves.
fn claimed(bytes: &[u8], at: usize) -> Option<Head> {
    let (header, _) = Header::decode_prefix(bytes.get(at..)?).ok()?;
    Some(header.head())
}

fn proof(path: &Path, proof: &Proof, options: &AuditOptions<'_>) -> Audit {
    let mut audit = Audit::new("proof", path);
    let name = proof.capsule();
    if !audit.name(name, options) {
        return audit;
    }
    let policy = VerifierPolicy {
        allow_simulated: options.allow_simulated,
        ..VerifierPolicy::default()
    };
    let proven = match proof.verify(&name, policy) {
        Ok(proven) => proven,
        Err(error) => {
            audit.fail("proof", &error.to_string(), "everything in it holds");
            return audit;
        }
    };
    audit.pass(
        "configuration",
        &format!("config chain up to record {}", proven.config.seq),
    );
    audit.pass(
        "writer",
        &format!(
            "{} may write: {}",
            proven.head.writer.short(),
            authority(&proven)
        ),
    );
    audit.pass("head", &format!("{}, signed", proven.head));
    audit.pass(
        "inclusion",
        &format!(
            "record {}/{} is in its chain",
            proven.target.writer.short(),
            proven.target.seq
        ),
    );
    if let Some(entry) = &proven.entry {
        audit.pass(
            "entry",
            &format!("entry {} stands in the record", entry.place().index),
        );
    }
    let (synced, quorum) = (proven.synced(), usize::from(proven.quorum.replicas));
    let have = format!("{synced} replicas of the configuration synced it");
    if synced >= quorum {
        audit.pass(
            "durability",
            &format!("{have}, the owner asks for {quorum}"),
        );
    } else {
        audit.open(
            "durability",
            &have,
            &format!("the signed words of {quorum}"),
        );
    }
    for open in &proven.not_checked {
        let text = open.to_string();
        let (_, have) = text.split_once(": ").unwrap_or(("", &text));
        audit.open(not_checked(*open), have, "more than this file");
    }
    if proven.entry.is_none() {
        audit.subject = "receipt";
    }
    audit.heads = vec![proven.head];
    audit.records = 1;
    audit.proven = Some(proven);
    audit
}

const fn not_checked(open: NotChecked) -> &'static str {
    match open {
        NotChecked::Freshness => "newest",
        NotChecked::Forks => "forks",
        NotChecked::Arrival => "arrival",
        NotChecked::Between => "between",
        NotChecked::Parents => "parents",
        NotChecked::Body => "body",
        NotChecked::OtherEntries => "other entries",
        NotChecked::ErasableContent => "content",
        _ => "beyond",
    }
}

fn authority(proven: &Proven) -> String {
    use bield_capsule::Authority;

    match &proven.authority {
        Authority::Owner => "it is the owner".to_owned(),
        Authority::Admitted => "the owner admitted its key".to_owned(),
        Authority::Certified { by, simulated, .. } => {
            let tee = if *simulated {
                " for a SOFTWARE TEE"
            } else {
                ""
            };
            format!("certified by {by}{tee}")
        }
    }
}

fn fork(path: &Path, proof: &ForkProof, options: &AuditOptions<'_>) -> Audit {
    let mut audit = Audit::new("fork proof", path);
    let name = proof.capsule();
    if !audit.name(name, options) {
        return audit;
    }
    match proof.verify(&name) {
        Ok(fork) => {
            let have = format!(
                "writer {} signed {} and {} for position {}: it, or whoever has its key, told two stories",
                fork.writer,
                fork.first.hash.short(),
                fork.second.hash.short(),
                fork.seq
            );
            audit.pass("fork", &have);
            audit.heads = vec![fork.first, fork.second];
            let have = "whether the owner ever admitted the writer, or has revoked it";
            audit.open("admission", have, "the configuration");
        }
        Err(error) => audit.fail(
            "fork",
            &error.to_string(),
            "two signed heads of one position",
        ),
    }
    audit
}

/// A store's directory, or one capsule's in it.
fn folder(
    path: &Path,
    options: &AuditOptions<'_>,
    progress: &mut dyn FnMut(u64),
) -> Result<Vec<Audit>, AuditError> {
    let mut found = Vec::new();
    if path.join(METADATA).is_file() {
        found.push(path.to_owned());
    } else {
        let inner = path.join(CAPSULES);
        let place = if inner.is_dir() {
            inner
        } else {
            path.to_owned()
        };
        let at = |error| AuditError::Io {
            path: place.clone(),
            error,
        };
        for entry in fs::read_dir(&place).map_err(at)? {
            let entry = entry.map_err(at)?.path();
            if entry.join(METADATA).is_file() {
                found.push(entry);
            }
        }
        found.sort();
    }
    if let Some(name) = options.name {
        // Of a store with many capsules only the one that is meant.
        let named = |path: &PathBuf| {
            path.file_name()
                .is_some_and(|file| *file == *name.to_string())
        };
        if found.len() > 1 && found.iter().any(named) {
            found.retain(named);
        }
    }
    if found.is_empty() {
        return Err(AuditError::Unknown {
            path: path.to_owned(),
        });
    }
    found
        .iter()
        .map(|path| capsule_folder(path, options, progress))
        .collect()
}

fn capsule_folder(
    path: &Path,
    options: &AuditOptions<'_>,
    progress: &mut dyn FnMut(u64),
) -> Result<Audit, AuditError> {
    let mut audit = Audit::new("replica's folder", path);
    let read = |path: &Path| {
        fs::read(path).map_err(|error| AuditError::Io {
            path: path.to_owned(),
            error,
        })
    };
    let metadata = match Metadata::decode(&read(&path.join(METADATA))?) {
        Ok(metadata) => metadata,
        Err(error) => {
            audit.fail("metadata", &error.to_string(), "a capsule's metadata");
            return Ok(audit);
        }
    };
    let name = metadata.name();
    if !audit.name(name, options) {
        return Ok(audit);
    }
    let mut walk = Walk::new(metadata, options);
    let mut segments: Vec<_> = fs::read_dir(path)
        .map_err(|error| AuditError::Io {
            path: path.to_owned(),
            error,
        })?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == SEGMENT)
        })
        .collect();
    segments.sort();
    let mut torn = None;
    for (number, segment) in segments.iter().enumerate() {
        let bytes = read(segment)?;
        let last = number + 1 == segments.len();
        match one_segment(
            segment,
            &bytes,
            &name,
            number as u64,
            last,
            &mut walk,
            progress,
        ) {
            Ok(None) => {}
            Ok(Some(end)) => torn = Some(end),
            Err(bad) => {
                audit.bad = Some(bad);
                break;
            }
        }
    }
    let checkpoint = read(&path.join(CHECKPOINT)).ok();
    compare_checkpoint(
        &mut audit,
        &walk,
        checkpoint.as_deref(),
        &name,
        torn.as_ref(),
    );
    if audit.bad.is_none() {
        audit.pass(
            "checksums",
            &format!("{} segments, every frame", segments.len()),
        );
        if let Some(torn) = &torn {
            audit.open(
                "tail",
                &torn.why,
                "nothing: it was never synced, and is cut off at the next start",
            );
        }
    }
    name_bad(&mut audit, &walk);
    walk.conclude(&mut audit);
    if let Ok(bytes) = read(&path.join(FORKS)) {
        known_forks(&mut audit, &bytes, &name);
    }
    Ok(audit)
}

/// Takes a segment's records; `Some`: the file ends in a torn frame.
fn one_segment(
    file: &Path,
    bytes: &[u8],
    name: &CapsuleName,
    number: u64,
    last: bool,
    walk: &mut Walk<'_>,
    progress: &mut dyn FnMut(u64),
) -> Result<Option<Bad>, Bad> {
    let bad = |offset: u32, index, (writer, seq), why| Bad {
        file: file.to_owned(),
        offset: offset.into(),
        number: index,
        writer,
        seq,
        why,
    };
    let nowhere = (None, None);
    let first = walk.records;
    // A file that the next start would use, and that was made just before a power cut.
    if last && bytes.iter().all(|byte| *byte == 0) {
        return Ok(None);
    }
    let header = SegmentHeader::parse(bytes).map_err(|error| {
        bad(
            0,
            first,
            nowhere,
            format!("{error}: altered, or not this store's"),
        )
    })?;
    if header.capsule != *name.as_bytes() || header.segment != number || header.first != first {
        let why = format!(
            "is segment {} from record {}, where segment {number} from record {first} belongs: a file is \
             missing or of another store",
            header.segment, header.first
        );
        return Err(bad(0, first, nowhere, why));
    }
    let mut frames = header.frames(bytes);
    for frame in frames.by_ref() {
        let record = Received::decode(frame.payload.to_vec()).map_err(|error| {
            let place = walk.expected(claimed(frame.payload, 0));
            bad(frame.offset, frame.index, place, error.to_string())
        })?;
        let head = record.head();
        let place = (Some(head.writer), Some(head.seq));
        walk.take(record)
            .map_err(|why| bad(frame.offset, frame.index, place, why))?;
        progress(walk.records);
    }
    let place = |offset: u32| {
        let claim = claimed(bytes, offset as usize + FRAME_HEAD_BYTES);
        walk.expected(claim)
    };
    match frames.end() {
        Some(End::Damaged { offset, index, why }) => {
            let why = format!("{}: bytes that had been synced have changed", flaw(why));
            Err(bad(offset, index, place(offset), why))
        }
        Some(End::Torn { offset, why }) => {
            let why = format!("{} at offset {offset}", flaw(why));
            let found = bad(offset, walk.records, place(offset), why);
            if last { Ok(Some(found)) } else { Err(found) }
        }
        Some(End::Clean { .. } | End::Preallocated { .. }) if !last => {
            let why = "the segment ends without a seal, and another one follows".to_owned();
            Err(bad(
                u32::try_from(bytes.len()).unwrap_or(u32::MAX),
                walk.records,
                nowhere,
                why,
            ))
        }
        _ => Ok(None),
    }
}

const fn flaw(why: Flaw) -> &'static str {
    match why {
        Flaw::Short => "the frame is cut short",
        Flaw::Head => "the frame's head is not what was written",
        Flaw::Payload => "the record's checksum does not hold",
        Flaw::BehindSeal => "something follows the seal",
    }
}

/// What the replica signed of its log must still be there.
fn compare_checkpoint(
    audit: &mut Audit,
    walk: &Walk<'_>,
    checkpoint: Option<&[u8]>,
    name: &CapsuleName,
    torn: Option<&Bad>,
) {
    let Some(bytes) = checkpoint else {
        let have = "this replica never published one";
        return audit.open(
            "checkpoint",
            have,
            "its signed word on how many records there are",
        );
    };
    let signed = match own_checkpoint(bytes, name) {
        Ok(signed) => signed,
        Err(why) => return audit.fail("checkpoint", &why, "a checkpoint that this replica signed"),
    };
    let (size, root) = signed;
    match walk.tree.root_at(size) {
        Ok(found) if found == root => {
            audit.pass(
                "checkpoint",
                &format!("the first {size} records are those it signed for"),
            );
        }
        Ok(_) => audit.fail(
            "checkpoint",
            &format!("the first {size} records are others than it signed for"),
            "the same records in the same order",
        ),
        Err(_) if audit.bad.is_some() => {
            let have = format!("it signed for {size} records, {} were read", walk.records);
            audit.open("checkpoint", &have, "records that verify");
        }
        Err(_) => {
            if audit.bad.is_none() {
                audit.bad = torn.cloned();
            }
            audit.fail(
                "checkpoint",
                &format!("it signed for {size} records, {} are here", walk.records),
                "all of them: the newest were cut off or altered",
            );
        }
    }
}

/// Size and root of a checkpoint that is signed by the key its own origin names.
fn own_checkpoint(bytes: &[u8], name: &CapsuleName) -> Result<(u64, Hash), String> {
    let signed = SignedCheckpoint::parse(bytes).map_err(|error| error.to_string())?;
    let origin = signed.claimed().origin().clone();
    let key = origin
        .as_str()
        .strip_prefix(&format!("bield/capsule/{name}/"))
        .and_then(|digits| hex::decode(digits).ok())
        .and_then(|key| <[u8; 32]>::try_from(key).ok())
        .ok_or_else(|| format!("it is about the log {}", origin.as_str()))?;
    let log = origin
        .as_str()
        .parse()
        .map_err(|error| format!("{error}"))?;
    let verifier = LogVerifier::new(log, key);
    let verified = signed
        .verify(&origin, &[verifier])
        .map_err(|error| error.to_string())?;
    Ok((verified.checkpoint().size(), verified.checkpoint().root()))
}

fn known_forks(audit: &mut Audit, bytes: &[u8], name: &CapsuleName) {
    let Some(proofs) = super::frames::split(bytes, bield_capsule::FORK_PROOF_BYTES_MAX) else {
        return audit.fail("forks", "the file is damaged", "fork proofs");
    };
    for proof in proofs {
        let found = ForkProof::decode(proof).and_then(|proof| proof.verify(name));
        match found {
            Ok(fork) => {
                let have = format!(
                    "writer {} told two stories at {}: proven",
                    fork.writer.short(),
                    fork.seq
                );
                audit.add("forks", Outcome::Passed, &have, "the same", Mover::Owner);
            }
            Err(error) => audit.fail("forks", &error.to_string(), "fork proofs that hold"),
        }
    }
}

const EXPORT_MAGIC: &[u8] = b"bldc";
const METADATA: &str = "metadata";
const CAPSULES: &str = "capsules";
const CHECKPOINT: &str = "checkpoint";
const FORKS: &str = "forks";
const SEGMENT: &str = "segment";
