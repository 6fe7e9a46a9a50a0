//! Names of a capsule's files, in a directory that other capsules' files may share.
//!
//! ```text
//! <capsule, 11 digits>-log-<writer, 16 hex>-<first record, 16 hex>       49 bytes
//! <capsule, 11 digits>-<run, 52 digits>                                  64 bytes
//! <capsule, 11 digits>-head                                              16 bytes
//! ```
//!
//! In: ids. Out: names of `[a-z0-9-]`, at most 64 bytes; digits are those of base 32 (RFC 4648 §6, lower
//! case). Always true: a name says where to look and is not believed: what a file is for stands in the file.
//! The host learns which capsule, how many starts, how many records and runs, and nothing else.

use bield_capsule::{CapsuleName, WriterId};

/// The names of one capsule's files.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    capsule: String,
}

/// What a name is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FileName {
    /// A piece of a writer's chain.
    Segment {
        /// The first hexadecimal digits of the writer's id.
        writer: String,
        /// Its first record.
        first: u64,
    },
    /// A run, by its id.
    Run([u8; 32]),
}

impl Names {
    pub(crate) fn of(capsule: &CapsuleName) -> Self {
        let mut digits = base32(capsule.as_bytes());
        digits.truncate(CAPSULE_DIGITS);
        Self { capsule: digits }
    }

    pub(crate) fn segment(&self, writer: &WriterId, first: u64) -> String {
        let mut digits = writer.to_string();
        digits.truncate(WRITER_DIGITS);
        format!("{}-log-{digits}-{first:016x}", self.capsule)
    }

    /// What the capsule is, for who exports its log: nothing here reads it.
    pub(crate) fn head(&self) -> String {
        format!("{}-head", self.capsule)
    }

    pub(crate) fn run(&self, run: &[u8; 32]) -> String {
        format!("{}-{}", self.capsule, base32(run))
    }

    /// What a file of this capsule is; none for every other name.
    pub(crate) fn parse(&self, name: &str) -> Option<FileName> {
        let rest = name.strip_prefix(&self.capsule)?.strip_prefix('-')?;
        let Some(segment) = rest.strip_prefix("log-") else {
            return from_base32(rest).map(FileName::Run);
        };
        let (writer, first) = segment.split_once('-')?;
        if !is_hex(writer, WRITER_DIGITS) || !is_hex(first, 16) {
            return None;
        }
        let (writer, first) = (writer.to_owned(), u64::from_str_radix(first, 16).ok()?);
        Some(FileName::Segment { writer, first })
    }
}

fn is_hex(text: &str, digits: usize) -> bool {
    let lower = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    text.len() == digits && text.bytes().all(lower)
}

fn base32(bytes: &[u8; 32]) -> String {
    let bit = |at: usize| bytes.get(at / 8).map_or(0, |byte| byte >> (7 - at % 8) & 1);
    let digit = |at: usize| (at..at + 5).fold(0, |digit, at| digit << 1 | bit(at));
    let digits = (0..256).step_by(5).map(|at| DIGITS[usize::from(digit(at))]);
    digits.map(char::from).collect()
}

fn from_base32(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    for (at, digit) in text.bytes().enumerate() {
        let digit = DIGITS.iter().position(|known| *known == digit)?;
        for bit in (0..5).filter(|bit| digit >> (4 - bit) & 1 == 1) {
            let at = 5 * at + bit;
            *bytes.get_mut(at / 8)? |= 0x80 >> (at % 8);
        }
    }
    // One spelling: every digit is there, and the bits beyond the last byte are zero.
    (base32(&bytes) == text).then_some(bytes)
}

const DIGITS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
/// 55 bits: enough that no two capsules of one machine share them by accident. A file that has another
/// capsule's name is refused by what stands in it.
const CAPSULE_DIGITS: usize = 11;
const WRITER_DIGITS: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_back_and_nothing_else_is_one() {
        let names = Names::of(&CapsuleName::from_bytes([0xff; 32]));
        let writer = WriterId::from_bytes([0x1f; 32]);
        let segment = names.segment(&writer, 300);
        assert_eq!(segment, "77777777777-log-1f1f1f1f1f1f1f1f-000000000000012c");
        let parsed = FileName::Segment {
            writer: "1f1f1f1f1f1f1f1f".to_owned(),
            first: 300,
        };
        assert_eq!(names.parse(&segment), Some(parsed));
        for id in [[0; 32], [7; 32], [0xff; 32]] {
            let run = names.run(&id);
            assert_eq!(
                (run.len(), names.parse(&run)),
                (64, Some(FileName::Run(id)))
            );
            let other = Names::of(&CapsuleName::from_bytes([0xac; 32]));
            assert_eq!(other.parse(&run), None);
            let twice = format!("{}b", &run[..63]);
            for wrong in [&run[..63], &twice, &run.to_uppercase()] {
                assert_eq!(names.parse(wrong), None, "{wrong}");
            }
        }
        let head = names.head();
        for wrong in [&segment[..48], &segment.to_uppercase(), "root", &head] {
            assert_eq!(names.parse(wrong), None, "{wrong}");
        }
    }
}
