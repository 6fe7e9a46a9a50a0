//! Checkpoints: a log's word on its tree (c2sp.org/tlog-checkpoint@v1.0.0).
//!
//! ```text
//! example.com/behind-the-sofa                        origin: which log
//! 20852163                                           tree size
//! CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=       root hash
//! …                                                  extension lines: kept, signed, never used
//!
//! bytes ──parse──▶ SignedCheckpoint ──verify(origin, keys)──▶ VerifiedCheckpoint
//!                   .claimed()                                  .checkpoint()
//! ```
//!
//! Always true: a checkpoint prints as the text it was read from; a [`VerifiedCheckpoint`] was
//! signed by a trusted key of the log it names. That it is the only one the log signed for its
//! size is what witnesses are for ([`crate::quorum`]).
//!
//! Cost: about 64 bytes of text plus the origin twice, one Ed25519 signature to make or check.

use core::fmt;
use core::str::FromStr;

use aws_lc_rs::digest::{SHA256, digest};

use crate::note::{
    KeyName, LogKey, LogVerifier, Note, NoteError, SignatureLine, WitnessVerifier, parse_signatures,
};
use crate::quorum::Witnessed;
use crate::text::decimal;
use crate::tree::Hash;

/// Bytes of the longest origin: what the next cosignature format can carry in its length byte
/// (tlog-cosignature, "ML-DSA-44 signed message").
pub const ORIGIN_BYTES_MAX: usize = 255;

/// Which log: one line of text, by custom the name of the log's key.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin(String);

impl Origin {
    /// The line, without its newline.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// SHA-256 of the line in hexadecimal: where a witness serves this log's latest checkpoint
    /// (tlog-witness, "Monitor Retrieval Mechanism").
    #[must_use]
    pub fn path_segment(&self) -> String {
        let hash = digest(&SHA256, self.0.as_bytes());
        hash.as_ref()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }
}

impl FromStr for Origin {
    type Err = CheckpointError;

    fn from_str(text: &str) -> Result<Self, CheckpointError> {
        let control = text.bytes().any(|byte| byte < 0x20);
        if text.is_empty() || text.len() > ORIGIN_BYTES_MAX || control {
            return Err(CheckpointError::Origin);
        }
        Ok(Self(text.to_owned()))
    }
}

/// The origin a log should have: the name of its key (tlog-checkpoint, "Signatures").
impl From<&KeyName> for Origin {
    fn from(name: &KeyName) -> Self {
        Self(name.as_str().to_owned())
    }
}

/// A tree's size and root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TreeHead {
    /// Leaves of the tree.
    pub size: u64,
    /// Root hash at that size.
    pub root: Hash,
}

/// What a checkpoint says; prints as the note text, final newline included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    origin: Origin,
    head: TreeHead,
    extensions: Vec<String>,
}

impl Checkpoint {
    /// States the size and root of a log, without extension lines.
    #[must_use]
    pub const fn new(origin: Origin, size: u64, root: Hash) -> Self {
        Self {
            origin,
            head: TreeHead { size, root },
            extensions: Vec::new(),
        }
    }

    /// Reads a note's text.
    ///
    /// # Errors
    /// [`CheckpointError`] naming the line that is wrong.
    pub fn parse(text: &str) -> Result<Self, CheckpointError> {
        let text = text.strip_suffix('\n').ok_or(CheckpointError::Lines)?;
        let mut lines = text.split('\n');
        let mut line = || lines.next().ok_or(CheckpointError::Lines);
        let origin = line()?.parse()?;
        let size = decimal(line()?).ok_or(CheckpointError::Size)?;
        let root = line()?.parse().map_err(|_| CheckpointError::Root)?;
        let extensions: Vec<String> = lines.map(str::to_owned).collect();
        let control = |line: &String| line.bytes().any(|byte| byte < 0x20);
        if extensions
            .iter()
            .any(|line| line.is_empty() || control(line))
        {
            return Err(CheckpointError::Lines);
        }
        Ok(Self {
            origin,
            head: TreeHead { size, root },
            extensions,
        })
    }

    /// Which log.
    #[must_use]
    pub const fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Size and root.
    #[must_use]
    pub const fn head(&self) -> TreeHead {
        self.head
    }

    /// Leaves of the tree.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.head.size
    }

    /// Root of the tree at that size.
    #[must_use]
    pub const fn root(&self) -> Hash {
        self.head.root
    }

    /// Lines after the root: opaque, not recommended, never set here.
    #[must_use]
    pub fn extensions(&self) -> &[String] {
        &self.extensions
    }

    /// Signs as the log.
    ///
    /// A log must never sign two checkpoints of which neither tree begins with the other, so it
    /// keeps what it signed before it gives it away.
    ///
    /// ```
    /// use bield_envelope::Secret;
    /// use bield_tlog::{Checkpoint, LogKey, SignedCheckpoint, Tree};
    ///
    /// let key = LogKey::new("example.com/log".parse()?, &Secret::from_bytes([7; 32]));
    /// let origin = key.verifier().name().into();
    /// let mut tree = Tree::new();
    /// tree.append(b"entry");
    /// let note = Checkpoint::new(origin, tree.size(), tree.root()).sign(&key).to_string();
    ///
    /// let signed = SignedCheckpoint::parse(note.as_bytes())?;
    /// let verified = signed.verify(&"example.com/log".parse()?, &[key.verifier().clone()])?;
    /// assert_eq!(verified.checkpoint().size(), 1);
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn sign(self, key: &LogKey) -> VerifiedCheckpoint {
        VerifiedCheckpoint(SignedCheckpoint {
            note: Note::sign(self.to_string(), key),
            checkpoint: self,
        })
    }
}

impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n{}\n{}", self.origin, self.size(), self.root())?;
        self.extensions
            .iter()
            .try_for_each(|line| writeln!(f, "{line}"))
    }
}

/// A checkpoint whose signatures nobody checked; prints as a note.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedCheckpoint {
    note: Note,
    checkpoint: Checkpoint,
}

impl SignedCheckpoint {
    /// Reads a note whose text is a checkpoint.
    ///
    /// # Errors
    /// [`CheckpointError`] when it is not exactly that.
    pub fn parse(bytes: &[u8]) -> Result<Self, CheckpointError> {
        let note = Note::parse(bytes)?;
        let checkpoint = Checkpoint::parse(note.text())?;
        debug_assert_eq!(checkpoint.to_string(), note.text());
        Ok(Self { note, checkpoint })
    }

    /// What the note says before anyone checked who says it: to find the log's keys, no more.
    #[must_use]
    pub const fn claimed(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// The note as it is.
    #[must_use]
    pub const fn note(&self) -> &Note {
        &self.note
    }

    /// Checks that this is about `origin` and that one of the log's `keys` signed it.
    ///
    /// # Errors
    /// [`CheckpointError::OtherLog`], or what [`Note::verify`] finds.
    pub fn verify(
        self,
        origin: &Origin,
        keys: &[LogVerifier],
    ) -> Result<VerifiedCheckpoint, CheckpointError> {
        if self.checkpoint.origin != *origin {
            return Err(CheckpointError::OtherLog {
                found: self.checkpoint.origin,
                wanted: origin.clone(),
            });
        }
        self.note.verify(keys)?;
        Ok(VerifiedCheckpoint(self))
    }
}

impl fmt::Display for SignedCheckpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.note.fmt(f)
    }
}

/// A checkpoint that its log signed; prints as a note.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedCheckpoint(SignedCheckpoint);

impl VerifiedCheckpoint {
    /// What the log says.
    #[must_use]
    pub const fn checkpoint(&self) -> &Checkpoint {
        &self.0.checkpoint
    }

    /// The note with all its lines, those of strangers included.
    #[must_use]
    pub const fn note(&self) -> &Note {
        &self.0.note
    }

    /// The same for someone who has to check it anew.
    #[must_use]
    pub const fn as_signed(&self) -> &SignedCheckpoint {
        &self.0
    }

    /// Adds a line of this crate's making; one by the same key gives way.
    ///
    /// # Errors
    /// [`NoteError`] when the note is full.
    pub fn add(&mut self, line: SignatureLine) -> Result<(), NoteError> {
        self.0.note.put(line)
    }

    /// Adds the cosignatures in a witness's answer that are by one of `witnesses`, and tells whose
    /// they are and of when. Lines of others are left out (tlog-witness, "add-checkpoint").
    ///
    /// # Errors
    /// [`NoteError`] when the answer is not signature lines, holds none by `witnesses`, or one that
    /// does not verify; the checkpoint is unchanged then.
    pub fn add_cosignatures(
        &mut self,
        answer: &str,
        witnesses: &[WitnessVerifier],
    ) -> Result<Vec<Witnessed>, NoteError> {
        let mut note = self.0.note.clone();
        let mut added = Vec::new();
        for line in parse_signatures(answer)? {
            let by = |key: &&WitnessVerifier| *key.name() == *line.name() && key.id() == line.id();
            let Some(key) = witnesses.iter().find(by) else {
                continue;
            };
            added.push(Witnessed {
                witness: key.name().clone(),
                at: key.cosigned_at(note.text(), &line)?,
            });
            note.put(line)?;
        }
        if added.is_empty() {
            return Err(NoteError::Unsigned);
        }
        self.0.note = note;
        Ok(added)
    }

    /// The same with only the lines by `keys`: what a witness keeps and serves.
    pub(crate) fn only_by(mut self, keys: &[LogVerifier]) -> Self {
        self.0.note.retain(|line| {
            let by = |key: &LogVerifier| key.name() == line.name() && key.id() == line.id();
            keys.iter().any(by)
        });
        self
    }
}

impl fmt::Display for VerifiedCheckpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// Why a checkpoint is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// Not a signed note, or not by a trusted key.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// Fewer than three lines, or an empty one.
    #[error("a checkpoint has three lines or more and none is empty")]
    Lines,
    /// The first line names no log.
    #[error("an origin has 1 to {ORIGIN_BYTES_MAX} bytes on one line; choose another")]
    Origin,
    /// The second line is not a tree size.
    #[error("a tree size is a decimal number below 2^64 without leading zeros")]
    Size,
    /// The third line is not a root hash.
    #[error("a root hash is 32 bytes in base64")]
    Root,
    /// A good checkpoint of another log.
    #[error("a checkpoint of {found} where one of {wanted} is needed; ask {wanted}")]
    OtherLog {
        /// The log in the note.
        found: Origin,
        /// The log the caller wants.
        wanted: Origin,
    },
}

#[cfg(test)]
mod tests;
