//! Signed notes: text with signature lines (c2sp.org/signed-note@v1.0.0).
//!
//! ```text
//! example.com/log                     ┐
//! 20852163                            │ text: what is signed, final newline included
//! CsUYapGGPo4dkMgIAUqom/…             ┘
//!                                       one empty line, the last of the note
//! — example.com/log Az3grlgtzPICa5OS…   signature: key name, base64(key id ‖ signature)
//! ```
//!
//! Always true: a note prints as the bytes it was read from; lines of keys nobody asked about are
//! kept and never believed; when a line carries the name and id of a trusted key and does not
//! verify, the whole note is refused, even if another line does ("SHOULD", made a must here).
//!
//! Left to others: what the text says ([`crate::checkpoint`]); cosignatures, which sign more than
//! the text ([`crate::cosignature`]).
//!
//! Cost: one Ed25519 verification per line of a trusted key; an Ed25519 line is 96 bytes plus the
//! name, a cosignature's 108.

use core::fmt;

use crate::text::{base64, from_base64};

mod key;

pub use key::{
    CosignatureV1, Ed25519Note, KEY_NAME_BYTES_MAX, KeyError, KeyId, KeyName, LogKey, LogVerifier,
    NoteKey, SignatureType, VerifierKey, WitnessKey, WitnessVerifier,
};

/// Bytes of the longest note: 16 post-quantum signatures, which every verifier must take
/// (signed-note, "Format"), are 110 kB in base64; doubled for text and growth.
pub const NOTE_BYTES_MAX: usize = 256 * 1024;

/// Most signature lines of a note; a verifier must take 16, and four times that is a large crowd
/// of witnesses.
pub const SIGNATURES_MAX: usize = 64;

/// A text and the signature lines under it; whether they hold is what [`Note::verify`] tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    text: String,
    signatures: Vec<SignatureLine>,
}

impl Note {
    /// Reads a note.
    ///
    /// # Errors
    /// [`NoteError`] when the bytes are not exactly one note within the limits.
    pub fn parse(bytes: &[u8]) -> Result<Self, NoteError> {
        if bytes.len() > NOTE_BYTES_MAX {
            return Err(NoteError::TooLong { bytes: bytes.len() });
        }
        let note = core::str::from_utf8(bytes).map_err(|_| NoteError::NotText)?;
        if note.bytes().any(|byte| byte < 0x20 && byte != b'\n') {
            return Err(NoteError::NotText);
        }
        let end = note.rfind("\n\n").ok_or(NoteError::Unsigned)? + 1;
        Ok(Self {
            text: note[..end].to_owned(),
            signatures: parse_signatures(&note[end + 1..])?,
        })
    }

    /// Reads the text. It says nothing until a signature was verified.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The signature lines in their order.
    #[must_use]
    pub fn signatures(&self) -> &[SignatureLine] {
        &self.signatures
    }

    /// Checks that one of `keys` signed the text.
    ///
    /// # Errors
    /// [`NoteError::Unsigned`] when no line is by any of them; [`NoteError::Forged`] when a line
    /// with the name and id of one of them does not verify.
    pub fn verify(&self, keys: &[LogVerifier]) -> Result<(), NoteError> {
        let mut verified = false;
        for key in keys {
            for line in self.by(key) {
                let signature = line.bytes();
                if !key.accepts(self.text.as_bytes(), signature) {
                    return Err(NoteError::Forged {
                        name: key.name().clone(),
                    });
                }
                verified = true;
            }
        }
        if verified {
            Ok(())
        } else {
            Err(NoteError::Unsigned)
        }
    }

    /// The lines that carry the name and id of `key`, unverified.
    pub(crate) fn by<'n, T: SignatureType>(
        &'n self,
        key: &'n VerifierKey<T>,
    ) -> impl Iterator<Item = &'n SignatureLine> {
        let named = |line: &&SignatureLine| line.name == *key.name() && line.id == key.id();
        self.signatures.iter().filter(named)
    }

    /// Signs `text`, which ends in a newline and holds no other control character.
    ///
    /// Not public: a log's key signs checkpoints and nothing else.
    pub(crate) fn sign(text: String, key: &LogKey) -> Self {
        debug_assert!(text.ends_with('\n'));
        let signature = key.signature(text.as_bytes());
        Self {
            signatures: vec![SignatureLine::new(key.verifier(), signature.to_vec())],
            text,
        }
    }

    /// Adds a line; lines of the same name and id give way, so that cosigning again does not fill
    /// the note.
    ///
    /// # Errors
    /// As [`Self::add`]; the note is unchanged then.
    pub(crate) fn put(&mut self, line: SignatureLine) -> Result<(), NoteError> {
        let mut note = self.clone();
        note.retain(|other| other.name != line.name || other.id != line.id);
        note.add(line)?;
        *self = note;
        Ok(())
    }

    /// Drops the lines that are not wanted.
    pub(crate) fn retain(&mut self, wanted: impl FnMut(&SignatureLine) -> bool) {
        self.signatures.retain(wanted);
    }

    /// Adds a line, unless it is there already.
    ///
    /// # Errors
    /// [`NoteError::TooManySignatures`] or [`NoteError::TooLong`]; the note is unchanged.
    pub fn add(&mut self, line: SignatureLine) -> Result<(), NoteError> {
        if self.signatures.contains(&line) {
            return Ok(());
        }
        if self.signatures.len() == SIGNATURES_MAX {
            return Err(NoteError::TooManySignatures);
        }
        self.signatures.push(line);
        let bytes = self.to_string().len();
        if bytes > NOTE_BYTES_MAX {
            self.signatures.pop();
            return Err(NoteError::TooLong { bytes });
        }
        Ok(())
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.text)?;
        self.signatures.iter().try_for_each(|line| line.fmt(f))
    }
}

/// One signature line; prints with its newline. Nothing about it is verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignatureLine {
    name: KeyName,
    id: KeyId,
    bytes: Vec<u8>,
}

impl SignatureLine {
    pub(crate) fn new<T: SignatureType>(key: &VerifierKey<T>, bytes: Vec<u8>) -> Self {
        Self {
            name: key.name().clone(),
            id: key.id(),
            bytes,
        }
    }

    /// The name of the key that the line claims.
    #[must_use]
    pub const fn name(&self) -> &KeyName {
        &self.name
    }

    /// The id of the key that the line claims.
    #[must_use]
    pub const fn id(&self) -> KeyId {
        self.id
    }

    /// The signature without the key id; never empty.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Reads one line without its newline.
    fn parse(line: &str) -> Option<Self> {
        let (name, signature) = line.strip_prefix(DASH)?.split_once(' ')?;
        let signature = from_base64(signature)?;
        let (id, bytes) = signature.split_first_chunk::<4>()?;
        if bytes.is_empty() {
            return None;
        }
        Some(Self {
            name: name.parse().ok()?,
            id: KeyId::from_bytes(*id),
            bytes: bytes.to_vec(),
        })
    }
}

impl fmt::Display for SignatureLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let signature = [self.id.as_bytes().as_slice(), &self.bytes].concat();
        writeln!(f, "{DASH}{} {}", self.name, base64(signature))
    }
}

/// Reads one or more signature lines, each with its newline: the end of a note, or a witness's
/// answer (tlog-witness, "add-checkpoint").
///
/// # Errors
/// [`NoteError::Line`] naming the first bad line; [`NoteError::TooManySignatures`];
/// [`NoteError::Unsigned`] when there is none.
pub fn parse_signatures(lines: &str) -> Result<Vec<SignatureLine>, NoteError> {
    if lines.len() > NOTE_BYTES_MAX {
        return Err(NoteError::TooLong { bytes: lines.len() });
    }
    if lines.is_empty() {
        return Err(NoteError::Unsigned);
    }
    let mut signatures = Vec::new();
    for (index, line) in lines.split_inclusive('\n').enumerate() {
        if index == SIGNATURES_MAX {
            return Err(NoteError::TooManySignatures);
        }
        let parsed = line.strip_suffix('\n').and_then(SignatureLine::parse);
        signatures.push(parsed.ok_or(NoteError::Line { line: index + 1 })?);
    }
    Ok(signatures)
}

/// Why a note is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoteError {
    /// Longer than any note may be.
    #[error("a note of {bytes} bytes; at most {NOTE_BYTES_MAX} are read")]
    TooLong {
        /// Bytes given.
        bytes: usize,
    },
    /// Not UTF-8, or with control characters.
    #[error("a note is UTF-8 text without control characters; this is not one")]
    NotText,
    /// A signature line that is none.
    #[error("signature line {line} is not `— <key name> <base64>`")]
    Line {
        /// Which line after the empty one, from 1.
        line: usize,
    },
    /// More lines than are looked at.
    #[error("more than {SIGNATURES_MAX} signatures; the log leaves some out")]
    TooManySignatures,
    /// No signature, or none by a trusted key.
    #[error("no signature by a trusted key; ask the log, or check the keys you trust")]
    Unsigned,
    /// A line claims a trusted key and does not verify.
    #[error(
        "a signature in the name of {name} does not verify: altered text or forged line; do not retry"
    )]
    Forged {
        /// Whose key.
        name: KeyName,
    },
}

/// How a signature line begins: em dash, space.
const DASH: &str = "\u{2014} ";

#[cfg(test)]
mod tests;
