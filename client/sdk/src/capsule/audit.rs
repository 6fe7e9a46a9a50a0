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

mod file;
mod folder;
mod walk;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use bield_capsule::{
    CapsuleName, ForkProof, Head, Header, KeyRing, Proof, ProofError, Proven, WriterId,
};
use bield_evidence::{Check, Mover, Outcome};

use crate::words::counted;
use file::{export, fork, proof};
use folder::folder;
use walk::Walk;

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
            Err(ProofError::Wire(_)) => {
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

/// The bad record as a failed check.
fn name_bad(audit: &mut Audit, walk: &Walk<'_>) {
    if let Some(bad) = &audit.bad {
        let have = format!(
            "{}; {} before it verified",
            bad.text(),
            counted(walk.records, "record")
        );
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

const EXPORT_MAGIC: &[u8] = b"bldc";
