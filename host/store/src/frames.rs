//! `u32 length ‖ item`, again and again: how records, acknowledgements and proofs travel in bodies.
//!
//! In: a body from anyone. Out: its items as slices, without a copy. Always true: a length is
//! compared with what is there before it is believed; what is left over is an error, not dropped.

/// Longest item in bytes: a record; proofs and statements are shorter or pages of them are.
pub const ITEM_BYTES_MAX: usize = 1_200_000;

/// A body is not a sequence of whole items.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "item {item} of the body, at byte {offset}, is cut off or longer than {ITEM_BYTES_MAX} bytes; send it whole"
)]
pub struct BadFrame {
    /// Its number, from 0.
    pub item: usize,
    /// Where its length stands.
    pub offset: usize,
}

/// Appends one item.
pub fn push(body: &mut Vec<u8>, item: &[u8]) {
    debug_assert!(item.len() <= ITEM_BYTES_MAX);
    body.extend_from_slice(&(item.len() as u32).to_be_bytes());
    body.extend_from_slice(item);
}

/// Walks over the items.
pub const fn items(body: &[u8]) -> Items<'_> {
    Items {
        body,
        offset: 0,
        item: 0,
    }
}

/// The items of a body, in order; ends after the first error.
#[derive(Debug, Clone)]
pub struct Items<'a> {
    body: &'a [u8],
    offset: usize,
    item: usize,
}

impl<'a> Iterator for Items<'a> {
    type Item = Result<&'a [u8], BadFrame>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = &self.body[self.offset..];
        if rest.is_empty() {
            return None;
        }
        let found = rest.split_first_chunk::<4>().and_then(|(length, rest)| {
            let length = u32::from_be_bytes(*length) as usize;
            rest.get(..length).filter(|_| length <= ITEM_BYTES_MAX)
        });
        let bad = BadFrame {
            item: self.item,
            offset: self.offset,
        };
        match found {
            Some(item) => {
                self.offset += 4 + item.len();
                self.item += 1;
                Some(Ok(item))
            }
            None => {
                self.offset = self.body.len();
                Some(Err(bad))
            }
        }
    }
}

const _: () = assert!(ITEM_BYTES_MAX >= bield_capsule::RECORD_BYTES_MAX);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_come_back_and_a_cut_is_named() {
        let mut body = Vec::new();
        for item in [&b"one"[..], b"", b"three"] {
            push(&mut body, item);
        }
        let whole: Vec<_> = items(&body).collect();
        assert_eq!(whole, [Ok(&b"one"[..]), Ok(b""), Ok(b"three")]);
        let boundaries = [0, 7, 11, body.len()];
        for cut in 0..body.len() {
            let last = items(&body[..cut]).last();
            let bad = matches!(last, Some(Err(_)));
            assert_eq!(bad, !boundaries.contains(&cut), "cut at {cut}");
        }
    }

    #[test]
    fn a_length_beyond_the_body_is_not_believed() {
        let body = u32::MAX.to_be_bytes();
        let first = items(&body).next();
        assert_eq!(first, Some(Err(BadFrame { item: 0, offset: 0 })));
    }
}
