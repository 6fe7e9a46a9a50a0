//! Looks for secrets in files, in the forms in which programs let them slip.
//!
//! ```text
//! secret ─▶ pieces of 16 bytes ─▶ raw │ hex │ HEX │ base64 at each alignment │ [1, 2, 3] ─▶ needles
//! every file under a directory, and its name ─▶ every position ─▶ findings
//! ```
//!
//! Always true: a secret of 16 bytes or more that stands in a file in one of these forms is found, and so is any
//! aligned 16-byte piece of it; a piece with fewer than eight different bytes is not looked for, since it proves nothing.
//!
//! Speed on paper: one table look-up a byte, whatever the number of needles.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};

/// Bytes of a piece: long enough never to occur by chance.
const PIECE_BYTES: usize = 16;
/// Different bytes a piece must have to be a secret's and not a file format's.
const DISTINCT_MIN: usize = 8;
/// Bytes that select the needles to compare with.
const KEY_BYTES: usize = 8;

/// A secret by name.
pub struct Canary {
    name: String,
    pieces: Vec<Vec<u8>>,
}

impl Canary {
    /// The secret `bytes`.
    ///
    /// # Panics
    /// It is too short or too plain to be looked for: a test that plants it would prove nothing.
    pub fn new(name: &str, bytes: &[u8]) -> Self {
        let telling = |piece: &&[u8]| {
            let mut bytes = piece.to_vec();
            bytes.sort_unstable();
            bytes.dedup();
            bytes.len() >= DISTINCT_MIN
        };
        let pieces = bytes.chunks_exact(PIECE_BYTES).filter(telling);
        let pieces: Vec<_> = pieces.map(<[u8]>::to_vec).collect();
        assert!(!pieces.is_empty(), "canary {name} cannot be told apart");
        Self {
            name: name.to_owned(),
            pieces,
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// One piece in every form, as a careless program would write it, each with the form's name.
    pub fn slips(&self) -> Vec<(&'static str, Vec<u8>)> {
        let piece = &self.pieces[self.pieces.len() / 2];
        let mut slips = forms(piece);
        // Inside a longer text in base64, where the piece starts at any of three alignments.
        for (form, before) in [("base64 of more (1)", 1), ("base64 of more (2)", 2)] {
            let longer: Vec<u8> = [&vec![7; before], &piece[..], &[9; 4]].concat();
            slips.push((form, STANDARD.encode(longer).into_bytes()));
        }
        slips
    }
}

/// Where a secret stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Which one.
    pub canary: String,
    /// In which form.
    pub form: &'static str,
    /// In which file, or in whose name.
    pub file: PathBuf,
}

/// Looks for the canaries in every file under `directory` and in the files' names.
///
/// # Errors
/// A file cannot be read: what was not read is not clean.
pub fn scan(directory: &Path, canaries: &[Canary]) -> io::Result<Vec<Finding>> {
    let needles = Needles::of(canaries);
    let mut findings = Vec::new();
    for file in files(directory)? {
        let mut bytes = fs::read(&file)?;
        bytes.extend(file.as_os_str().as_encoded_bytes());
        for (canary, form) in needles.find(&bytes) {
            let finding = Finding {
                canary: canary.to_owned(),
                form,
                file: file.clone(),
            };
            if !findings.contains(&finding) {
                findings.push(finding);
            }
        }
    }
    Ok(findings)
}

/// Every file under `directory`, in order. Sockets are no files.
///
/// # Errors
/// A directory cannot be read.
pub fn files(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut due = vec![directory.to_owned()];
    while let Some(directory) = due.pop() {
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                due.push(entry.path());
            } else if kind.is_file() {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    Ok(found)
}

fn forms(piece: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let listed = format!("{piece:?}");
    let mut forms = vec![
        ("raw", piece.to_vec()),
        ("hex", hex::encode(piece).into_bytes()),
        ("HEX", hex::encode_upper(piece).into_bytes()),
        ("list", listed.trim_matches(['[', ']']).as_bytes().to_vec()),
    ];
    for before in 0..3 {
        // Only the characters that no neighbouring byte has a part in.
        let padded = [&vec![0; before], piece].concat();
        let (from, to) = ((before * 8).div_ceil(6), padded.len() * 8 / 6);
        for alphabet in [&STANDARD, &URL_SAFE] {
            let text = alphabet.encode(&padded).into_bytes();
            forms.push(("base64", text[from..to].to_vec()));
        }
    }
    forms
}

/// All forms of all pieces, found by their first bytes.
struct Needles<'a> {
    /// Whether any needle starts with these two bytes.
    starts: Vec<bool>,
    by_key: HashMap<[u8; KEY_BYTES], Vec<Needle<'a>>>,
}

struct Needle<'a> {
    canary: &'a str,
    form: &'static str,
    bytes: Vec<u8>,
}

impl<'a> Needles<'a> {
    fn of(canaries: &'a [Canary]) -> Self {
        let mut needles = Self {
            starts: vec![false; 1 << 16],
            by_key: HashMap::new(),
        };
        for canary in canaries {
            for (form, bytes) in canary.pieces.iter().flat_map(|piece| forms(piece)) {
                let Some(key) = bytes.first_chunk().copied() else {
                    continue;
                };
                needles.starts[start(&bytes)] = true;
                let canary = canary.name();
                let needle = Needle {
                    canary,
                    form,
                    bytes,
                };
                needles.by_key.entry(key).or_default().push(needle);
            }
        }
        needles
    }

    fn find(&self, bytes: &[u8]) -> Vec<(&'a str, &'static str)> {
        let mut found = Vec::new();
        for (at, pair) in bytes.windows(2).enumerate() {
            if !self.starts[start(pair)] {
                continue;
            }
            let rest = &bytes[at..];
            let Some(key) = rest.first_chunk::<KEY_BYTES>() else {
                break;
            };
            let needles = self.by_key.get(key).into_iter().flatten();
            for needle in needles.filter(|needle| rest.starts_with(&needle.bytes)) {
                found.push((needle.canary, needle.form));
            }
        }
        found
    }
}

fn start(bytes: &[u8]) -> usize {
    usize::from(bytes[0]) << 8 | usize::from(bytes[1])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret() -> Vec<u8> {
        (0..48u8)
            .map(|n| n.wrapping_mul(37).wrapping_add(200))
            .collect()
    }

    #[test]
    fn each_form_is_found_inside_other_text() {
        let canaries = [Canary::new("secret", &secret())];
        for (form, slip) in canaries[0].slips() {
            let text = [b"before ", &slip[..], b" after"].concat();
            let found = Needles::of(&canaries).find(&text);
            assert!(!found.is_empty(), "{form}");
        }
    }

    #[test]
    fn an_aligned_piece_is_found_and_other_bytes_are_not() {
        let canaries = [Canary::new("secret", &secret())];
        let needles = Needles::of(&canaries);
        assert_eq!(needles.find(&secret()[16..33]), [("secret", "raw")]);
        let mut other = secret();
        for byte in &mut other {
            *byte ^= 1;
        }
        assert_eq!(needles.find(&other), []);
    }

    #[test]
    #[should_panic(expected = "cannot be told apart")]
    fn a_canary_that_occurs_by_chance_is_not_taken() {
        let _ = Canary::new("zeros", &[0; 64]);
    }
}
