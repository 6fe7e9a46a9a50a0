//! Keys as they stand in entries: the bucket's name before the key, so that buckets never mix.
//!
//! ```text
//! u8 length of the bucket's name ‖ name ‖ key            1 … 64 first, 1024 bytes in all
//! 0x00 ‖ …                                               the table's own
//! ```
//!
//! Always true: full keys sort by bucket first; the keys of a bucket are one range.

use crate::{KEY_BYTES_MAX, TableError};

/// Longest name of a bucket in bytes.
pub const BUCKET_BYTES_MAX: usize = 64;

/// The full key of `key` in `bucket`.
///
/// # Errors
/// A bucket's name that is empty or too long, or both together too long.
pub fn full_key(bucket: &str, key: &[u8]) -> Result<Vec<u8>, TableError> {
    let name = bucket.as_bytes();
    if name.is_empty() || name.len() > BUCKET_BYTES_MAX {
        return Err(TableError::Bucket);
    }
    let length = 1 + name.len() + key.len();
    if length > KEY_BYTES_MAX {
        return Err(TableError::Key { found: length });
    }
    let mut full = Vec::with_capacity(length);
    full.push(name.len() as u8);
    full.extend_from_slice(name);
    full.extend_from_slice(key);
    Ok(full)
}

/// The keys of a bucket: from the first, to the second exclusive.
///
/// # Errors
/// As [`full_key`].
pub fn bucket_range(bucket: &str) -> Result<(Vec<u8>, Vec<u8>), TableError> {
    let from = full_key(bucket, &[])?;
    let to = end_of(&from);
    Ok((from, to))
}

/// Bucket's name and key of a full key; `None` when it is none.
#[must_use]
pub fn split_key(full: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&length, rest) = full.split_first()?;
    let fits = (1..=BUCKET_BYTES_MAX).contains(&usize::from(length)) && full.len() <= KEY_BYTES_MAX;
    if !fits {
        return None;
    }
    rest.split_at_checked(usize::from(length))
}

/// Whether a full key is in this bucket.
pub(crate) fn in_bucket(full: &[u8], bucket: &str) -> bool {
    split_key(full).is_some_and(|(name, _)| name == bucket.as_bytes())
}

/// Whether a range lies within one bucket: from one of its keys, to one of them or its end.
pub(crate) fn is_range(from: &[u8], to: &[u8]) -> bool {
    let Some((name, _)) = split_key(from) else {
        return false;
    };
    from < to && to.len() <= KEY_BYTES_MAX && to <= end_of(&from[..=name.len()]).as_slice()
}

/// The first key after all that begin so; the prefix is not all 0xff.
fn end_of(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while end.last() == Some(&0xff) {
        end.pop();
    }
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_do_not_mix() {
        let key = full_key("cart", b"apples").unwrap();
        assert_eq!(split_key(&key), Some((&b"cart"[..], &b"apples"[..])));
        let (from, to) = bucket_range("cart").unwrap();
        assert!(from <= key && key < to && is_range(&from, &to));
        for other in ["car", "carts", "caru", "d"] {
            let other = full_key(other, b"t\xff\xff").unwrap();
            assert!(other < from || other >= to);
        }
        assert!(!is_range(&from, &full_key("zart", b"").unwrap()));
        assert!(!is_range(&to, &from) && !is_range(&[0], &[1]));
    }

    #[test]
    fn names_and_keys_have_lengths() {
        assert!(full_key("", b"k").is_err() && full_key(&"x".repeat(65), b"k").is_err());
        assert!(full_key("b", &[0; KEY_BYTES_MAX - 2]).is_ok());
        assert!(full_key("b", &[0; KEY_BYTES_MAX - 1]).is_err());
        assert!(split_key(b"").is_none() && split_key(b"\x00x").is_none());
        assert!(split_key(b"\x05abc").is_none());
    }
}
