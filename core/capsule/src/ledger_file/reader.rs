//! One log file, as its bytes come.

use super::{FRAME_HEAD_BYTES, FileHead, FileHeadError, FrameHead};

/// What the next bytes were.
#[derive(Debug)]
pub enum Item {
    /// The file's head; comes once and first.
    Head(Box<FileHead>),
    /// A record: its checksum held, nothing else is known.
    Record {
        /// Its index in the log.
        index: u64,
        /// Where its frame begins in the file.
        offset: u64,
        /// Its bytes.
        record: Vec<u8>,
    },
    /// More bytes are needed; push them, or finish.
    Wants,
}

/// What is wrong with a frame, or with a file's head.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Flaw {
    /// The file ends inside it.
    #[error("the file ends inside the frame")]
    Short,
    /// The head of the frame is altered.
    #[error("the head of the frame is altered")]
    Head,
    /// The record is altered.
    #[error("the bytes of the record are altered")]
    Record,
    /// An intact frame for another place: records are missing, or stand there twice.
    #[error("the frame there is that of record {found}")]
    Index {
        /// The index in the frame.
        found: u64,
    },
    /// The head of the file.
    #[error(transparent)]
    File(#[from] FileHeadError),
}

/// Why there are no more records in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileEnd {
    /// The file ends exactly behind a frame, or behind its head.
    Clean {
        /// Its length in bytes: where the next frame belongs.
        bytes: u64,
    },
    /// The last append did not arrive whole; nobody was told that it had.
    Torn {
        /// Where the file is to be cut; 0: not even the head is whole.
        bytes: u64,
    },
    /// Something that was whole once is not any more.
    Damaged {
        /// Where it begins.
        offset: u64,
        /// Which record should stand there, when the file's head is known.
        index: Option<u64>,
        /// What is wrong there.
        flaw: Flaw,
    },
}

/// Reads one log file; does no I/O.
#[derive(Debug, Default)]
pub struct FileReader {
    /// Pushed and not yet consumed.
    buffer: Vec<u8>,
    /// Of the buffer: consumed.
    at: usize,
    /// Where `buffer[at]` stands in the file.
    offset: u64,
    /// The next record's index, once the head is known.
    next: Option<u64>,
    /// The first flaw, and where.
    flaw: Option<(u64, Flaw)>,
    /// An intact head of a later frame stands behind the flaw.
    proven: bool,
}

impl FileReader {
    /// Starts at the beginning of a file.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts behind record `next - 1`, at `offset` of a file whose head is known.
    #[must_use]
    pub fn resume(offset: u64, next: u64) -> Self {
        Self {
            offset,
            next: Some(next),
            ..Self::default()
        }
    }

    /// Takes the next bytes of the file.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.at);
        self.at = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The next item. Once something is wrong it only wants more, until the end of the file.
    pub fn next_item(&mut self) -> Item {
        if self.flaw.is_some() {
            self.search();
            return Item::Wants;
        }
        match self.next {
            None => self.head(),
            Some(next) => self.record(next),
        }
    }

    /// Whether a flaw was found that is no torn end: the rest of the file need not be read.
    #[must_use]
    pub const fn is_damaged(&self) -> bool {
        self.proven
    }

    /// The index of the record that follows, once the head is known.
    #[must_use]
    pub const fn next_index(&self) -> Option<u64> {
        self.next
    }

    /// Where the next frame begins.
    #[must_use]
    pub const fn offset(&self) -> u64 {
        self.offset
    }

    /// Says how the file ends, after its last bytes were pushed and every item was taken.
    #[must_use]
    pub fn finish(self) -> FileEnd {
        match self.flaw {
            Some((offset, flaw)) if self.proven => FileEnd::Damaged {
                offset,
                index: self.next,
                flaw,
            },
            Some((bytes, _)) => FileEnd::Torn { bytes },
            None if self.at < self.buffer.len() || self.next.is_none() => {
                FileEnd::Torn { bytes: self.offset }
            }
            None => FileEnd::Clean { bytes: self.offset },
        }
    }

    fn head(&mut self) -> Item {
        match FileHead::decode(&self.buffer[self.at..]) {
            Ok(None) => Item::Wants,
            Ok(Some((head, bytes))) => {
                self.next = Some(head.first);
                self.consume(bytes);
                Item::Head(Box::new(head))
            }
            Err(why) => self.fail(why.into(), 1),
        }
    }

    fn record(&mut self, next: u64) -> Item {
        let rest = &self.buffer[self.at..];
        let Some(bytes) = rest.first_chunk::<FRAME_HEAD_BYTES>() else {
            return Item::Wants;
        };
        let Some(head) = FrameHead::parse(bytes) else {
            return self.fail(Flaw::Head, 1);
        };
        if head.index != next {
            // Nobody's torn append: this head was written for another place.
            self.proven = true;
            return self.fail(Flaw::Index { found: head.index }, 1);
        }
        let whole = FRAME_HEAD_BYTES + head.length;
        let Some(record) = rest.get(FRAME_HEAD_BYTES..whole) else {
            return Item::Wants;
        };
        if !head.covers(record) {
            return self.fail(Flaw::Record, whole);
        }
        let item = Item::Record {
            index: next,
            offset: self.offset,
            record: record.to_vec(),
        };
        self.next = next.checked_add(1);
        self.consume(whole);
        item
    }

    /// Remembers the flaw and looks for a later frame `skip` bytes behind it.
    fn fail(&mut self, flaw: Flaw, skip: usize) -> Item {
        self.flaw = Some((self.offset, flaw));
        self.consume(skip);
        self.search();
        Item::Wants
    }

    /// Looks for an intact frame head behind the flaw; keeps what may be the start of one.
    fn search(&mut self) {
        let least = self.next.unwrap_or(0);
        let rest = &self.buffer[self.at..];
        self.proven |= rest.windows(FRAME_HEAD_BYTES).any(|window| {
            window
                .first_chunk()
                .and_then(FrameHead::parse)
                .is_some_and(|head| head.index >= least)
        });
        let searched = rest.len().saturating_sub(FRAME_HEAD_BYTES - 1);
        self.consume(searched);
    }

    fn consume(&mut self, bytes: usize) {
        self.at += bytes;
        self.offset += bytes as u64;
    }
}
