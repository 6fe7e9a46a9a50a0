//! Steps over the fields of one protobuf message.
//!
//! ```text
//! tag varint (number << 3 | wire type) ‖ payload ──▶ (number, Varint | Bytes | Fixed)
//! ```
//!
//! Always true: borrows, never allocates; every step moves forward; a length never reaches past
//! the message. Groups (wire types 3 and 4) are refused: proto3 has none.
//! Source: <https://protobuf.dev/programming-guides/encoding/>.

/// The bytes are no protobuf message.
pub(super) struct Malformed {
    pub(super) offset: usize,
}

/// The payload of one field.
pub(super) enum Value<'a> {
    /// Wire type 0.
    Varint(u64),
    /// Wire type 2: a string, a message, bytes or packed numbers.
    Bytes(&'a [u8]),
    /// Wire types 1 and 5; nothing here needs the number.
    Fixed,
}

/// The fields of a message, in the order in which they lie.
pub(super) struct Fields<'a> {
    message: &'a [u8],
    at: usize,
}

impl<'a> Fields<'a> {
    pub(super) fn of(message: &'a [u8]) -> Self {
        Self { message, at: 0 }
    }

    /// The numbers of a packed field; what is cut off at its end is none.
    pub(super) fn packed(bytes: &'a [u8]) -> impl Iterator<Item = u64> {
        let mut numbers = Self::of(bytes);
        std::iter::from_fn(move || numbers.varint())
    }

    fn field(&mut self) -> Option<(u64, Value<'a>)> {
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => Value::Varint(self.varint()?),
            1 => self.take(8).map(|_| Value::Fixed)?,
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                Value::Bytes(self.take(length)?)
            }
            5 => self.take(4).map(|_| Value::Fixed)?,
            _ => return None,
        };
        Some((tag >> 3, value))
    }

    fn varint(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = *self.message.get(self.at)?;
            self.at += 1;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let end = self.at.checked_add(length)?;
        let bytes = self.message.get(self.at..end)?;
        self.at = end;
        Some(bytes)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Value<'a>), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.message.len() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            // Nothing after a broken field can be read.
            let offset = std::mem::replace(&mut self.at, self.message.len());
            return Some(Err(Malformed { offset }));
        }
        field.map(Ok)
    }
}
