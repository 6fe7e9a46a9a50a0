//! Reads tables of a FlatBuffers message that may be hostile.
//!
//! ```text
//! root u32 ─▶ table: i32 back to its vtable ─▶ u16 per field: offset of the field in the table, 0 = absent
//! ```
//!
//! Always true: borrows, never allocates; a place outside of the message is an error, never a panic; references
//! only lead forward, so that no walk goes round. Source: <https://flatbuffers.dev/internals/>.

use super::PreparedError;

/// One table.
#[derive(Clone, Copy)]
pub(super) struct Table<'a> {
    message: &'a [u8],
    at: usize,
}

/// A vector of references or numbers, whose first element is at `at`.
#[derive(Clone, Copy)]
pub(super) struct Vector<'a> {
    message: &'a [u8],
    at: usize,
    length: usize,
}

impl<'a> Table<'a> {
    /// The outermost table.
    pub(super) fn root(message: &'a [u8]) -> Result<Self, PreparedError> {
        let at = follow(message, 0, "its start")?;
        Ok(Self { message, at })
    }

    /// The table in field `index`.
    pub(super) fn table(
        self,
        index: usize,
        what: &'static str,
    ) -> Result<Option<Self>, PreparedError> {
        let target = self.target(index, what)?;
        Ok(target.map(|at| Self { at, ..self }))
    }

    /// The text in field `index`.
    pub(super) fn text(
        self,
        index: usize,
        what: &'static str,
    ) -> Result<Option<&'a str>, PreparedError> {
        let Some(bytes) = self.vector(index, 1, what)? else {
            return Ok(None);
        };
        text(&bytes.message[bytes.at..bytes.at + bytes.length], what).map(Some)
    }

    /// The vector in field `index`, whose elements have `size` bytes.
    pub(super) fn vector(
        self,
        index: usize,
        size: usize,
        what: &'static str,
    ) -> Result<Option<Vector<'a>>, PreparedError> {
        let Some(at) = self.target(index, what)? else {
            return Ok(None);
        };
        let length = u32::from_le_bytes(read(self.message, at, what)?) as usize;
        let at = at + 4;
        let end = length
            .checked_mul(size)
            .and_then(|bytes| at.checked_add(bytes));
        match end {
            Some(end) if end <= self.message.len() => Ok(Some(Vector {
                message: self.message,
                at,
                length,
            })),
            _ => Err(PreparedError::Malformed { what }),
        }
    }

    /// The number in field `index`.
    pub(super) fn number<const N: usize>(
        self,
        index: usize,
        what: &'static str,
    ) -> Result<Option<[u8; N]>, PreparedError> {
        let place = self.field(index, what)?;
        place.map(|at| read(self.message, at, what)).transpose()
    }

    fn target(self, index: usize, what: &'static str) -> Result<Option<usize>, PreparedError> {
        let place = self.field(index, what)?;
        place.map(|at| follow(self.message, at, what)).transpose()
    }

    /// Where field `index` lies.
    fn field(self, index: usize, what: &'static str) -> Result<Option<usize>, PreparedError> {
        let malformed = PreparedError::Malformed { what };
        let back = i32::from_le_bytes(read(self.message, self.at, what)?);
        let vtable = i64::try_from(self.at)
            .ok()
            .and_then(|at| usize::try_from(at - i64::from(back)).ok())
            .ok_or(malformed)?;
        let vtable_bytes = u16::from_le_bytes(read(self.message, vtable, what)?) as usize;
        let entry = VTABLE_HEADER_BYTES + 2 * index;
        if entry + 2 > vtable_bytes {
            return Ok(None);
        }
        match u16::from_le_bytes(read(self.message, vtable.saturating_add(entry), what)?) {
            0 => Ok(None),
            offset => Ok(Some(self.at.saturating_add(offset.into()))),
        }
    }
}

impl<'a> Vector<'a> {
    pub(super) fn length(self) -> usize {
        self.length
    }

    /// Its elements as tables.
    pub(super) fn tables(
        self,
        what: &'static str,
    ) -> impl Iterator<Item = Result<Table<'a>, PreparedError>> {
        (0..self.length).map(move |index| {
            let at = follow(self.message, self.at + 4 * index, what)?;
            Ok(Table {
                message: self.message,
                at,
            })
        })
    }

    /// Its elements as texts.
    pub(super) fn texts(
        self,
        what: &'static str,
    ) -> impl Iterator<Item = Result<&'a str, PreparedError>> {
        (0..self.length).map(move |index| {
            let malformed = PreparedError::Malformed { what };
            let at = follow(self.message, self.at + 4 * index, what)?;
            let length = u32::from_le_bytes(read(self.message, at, what)?) as usize;
            let end = at.saturating_add(4).saturating_add(length);
            text(self.message.get(at + 4..end).ok_or(malformed)?, what)
        })
    }

    /// Its elements as unsigned numbers of 32 bits.
    pub(super) fn words(self) -> impl Iterator<Item = u32> {
        let bytes = &self.message[self.at..self.at + 4 * self.length];
        bytes
            .as_chunks::<4>()
            .0
            .iter()
            .map(|word| u32::from_le_bytes(*word))
    }

    /// One element as a table.
    pub(super) fn table_at(
        self,
        index: usize,
        what: &'static str,
    ) -> Result<Table<'a>, PreparedError> {
        if index >= self.length {
            return Err(PreparedError::Malformed { what });
        }
        let at = follow(self.message, self.at + 4 * index, what)?;
        Ok(Table {
            message: self.message,
            at,
        })
    }
}

/// Many references may lead to the same bytes, so that without a limit a small file could hold much text.
fn text<'a>(bytes: &'a [u8], what: &'static str) -> Result<&'a str, PreparedError> {
    let short = Some(bytes).filter(|bytes| bytes.len() <= TEXT_BYTES_MAX);
    short
        .and_then(|bytes| std::str::from_utf8(bytes).ok())
        .ok_or(PreparedError::Malformed { what })
}

/// Where the reference at `at` leads.
fn follow(message: &[u8], at: usize, what: &'static str) -> Result<usize, PreparedError> {
    let offset = u32::from_le_bytes(read(message, at, what)?) as usize;
    let target = at.checked_add(offset);
    target
        .filter(|target| *target > at && *target < message.len())
        .ok_or(PreparedError::Malformed { what })
}

fn read<const N: usize>(
    message: &[u8],
    at: usize,
    what: &'static str,
) -> Result<[u8; N], PreparedError> {
    let bytes = at
        .checked_add(N)
        .and_then(|end| message.get(at..end))
        .and_then(|bytes| bytes.try_into().ok());
    bytes.ok_or(PreparedError::Malformed { what })
}

/// Longest name, in bytes; exporters write paths of up to some hundred.
const TEXT_BYTES_MAX: usize = 4096;

/// A vtable begins with its own length and that of the table, in bytes.
const VTABLE_HEADER_BYTES: usize = 4;
