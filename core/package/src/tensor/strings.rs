//! Strings as bytes of a tensor: each as a little-endian `u32` of its bytes, then those.
//!
//! Always true: what is read was checked to be whole strings of UTF-8 without U+0000, which C libraries would end a
//! text at. Not here: how many a tensor may hold.

/// Bytes of an empty string.
pub(super) const BYTES_LEAST: u64 = 4;

/// Whether `data` is exactly `count` strings.
pub(super) fn are(mut data: &[u8], count: u64) -> bool {
    for _ in 0..count {
        let Some((text, rest)) = first(data) else {
            return false;
        };
        if text.contains(&0) || str::from_utf8(text).is_err() {
            return false;
        }
        data = rest;
    }
    data.is_empty()
}

/// The strings of data that [`are`] some.
pub(super) fn read(mut data: &[u8]) -> impl Iterator<Item = &str> {
    std::iter::from_fn(move || {
        let (text, rest) = first(data)?;
        data = rest;
        str::from_utf8(text).ok()
    })
}

/// The bytes of `strings`. One that is longer than a `u32` can say is more than a tensor may hold anyway.
pub(super) fn write(strings: &[impl AsRef<str>]) -> Vec<u8> {
    let texts = strings.iter().map(AsRef::as_ref);
    let bytes = texts.clone().map(|text| text.len() + 4).sum();
    let mut data = Vec::with_capacity(bytes);
    for text in texts {
        let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
        data.extend(length.to_le_bytes());
        data.extend(text.as_bytes());
    }
    data
}

/// The bytes of the first string, and what comes after.
fn first(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = data.split_first_chunk()?;
    rest.split_at_checked(u32::from_le_bytes(*length) as usize)
}
