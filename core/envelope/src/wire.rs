//! Strict deterministic CBOR: for every value exactly one byte string is accepted.
//!
//! `decode` bounds the length first, decodes, refuses trailing bytes, encodes again and compares.
//! So unknown keys, long-form integers, other key orders, indefinite lengths and any flipped byte
//! that does not change the value are refused, and a signature over bytes is a signature over the
//! value. Cost: one extra encoding and a comparison, about 0.1 ns a byte.

use minicbor::{Decode, Encode};
use zeroize::Zeroizing;

use crate::Wiped;

/// Why bytes were not accepted as a message; contents are never quoted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// Longer than the message may be.
    #[error("message of {found} bytes is longer than the {max} bytes allowed; do not retry")]
    TooLong {
        /// Bytes received.
        found: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// Not the CBOR this message is made of.
    #[error("message does not decode as {what}: malformed, or of another version; do not retry")]
    Malformed {
        /// The message's type.
        what: &'static str,
    },
    /// Decodes, but is not the one canonical encoding of its value.
    #[error("message decodes as {what} but is not its canonical encoding; do not retry")]
    NotCanonical {
        /// The message's type.
        what: &'static str,
    },
}

/// Encodes a value.
#[must_use]
pub fn encode<T: Encode<()>>(value: &T) -> Vec<u8> {
    minicbor::to_vec(value).expect("encoding to memory cannot fail")
}

/// Encodes a value that holds secrets, into a buffer that is wiped on drop.
///
/// The buffer is sized before it is filled: growing would leave unwiped copies behind.
#[must_use]
pub fn encode_secret<T: Encode<()>>(value: &T) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(encode_sized(value))
}

/// As [`encode_secret`], for values of many bytes.
#[must_use]
pub fn encode_wiped<T: Encode<()>>(value: &T) -> Wiped {
    Wiped::from(encode_sized(value))
}

fn encode_sized<T: Encode<()>>(value: &T) -> Vec<u8> {
    let mut count = Count(0);
    minicbor::encode(value, &mut count).expect("counting cannot fail");
    let mut bytes = Vec::with_capacity(count.0);
    minicbor::encode(value, &mut bytes).expect("encoding to memory cannot fail");
    bytes
}

/// Decodes exactly one canonical value of at most `bytes_max` bytes.
///
/// # Errors
/// Too long, malformed, trailing bytes, or not canonical.
pub fn decode<T>(bytes: &[u8], bytes_max: usize) -> Result<T, WireError>
where
    T: Encode<()> + for<'b> Decode<'b, ()>,
{
    let what = short_name::<T>();
    if bytes.len() > bytes_max {
        return Err(WireError::TooLong {
            found: bytes.len(),
            max: bytes_max,
        });
    }
    let mut decoder = minicbor::Decoder::new(bytes);
    let value: T = decoder
        .decode()
        .map_err(|_| WireError::Malformed { what })?;
    if decoder.position() != bytes.len() {
        return Err(WireError::NotCanonical { what });
    }
    let mut compare = Compare {
        rest: bytes,
        same: true,
    };
    minicbor::encode(&value, &mut compare).expect("comparing cannot fail");
    if !compare.same || !compare.rest.is_empty() {
        return Err(WireError::NotCanonical { what });
    }
    Ok(value)
}

/// Decodes an array of at most `MAX` items, for `#[cbor(decode_with = …)]`: a list that is too long is
/// refused before memory is spent on it, whatever the message's own limit is.
///
/// # Errors
/// More items, an array of indefinite length, or an item that does not decode.
pub fn at_most<'b, const MAX: usize, C, T: Decode<'b, C>>(
    d: &mut minicbor::Decoder<'b>,
    context: &mut C,
) -> Result<Vec<T>, minicbor::decode::Error> {
    match d.array()? {
        Some(items) if items <= MAX as u64 => (0..items).map(|_| d.decode_with(context)).collect(),
        _ => Err(minicbor::decode::Error::message("a list that is too long")),
    }
}

/// The type's name without its path and parameters.
fn short_name<T>() -> &'static str {
    let name = core::any::type_name::<T>();
    let name = name.split('<').next().unwrap_or(name);
    name.rsplit("::").next().unwrap_or(name)
}

/// Counts what is written.
struct Count(usize);

impl minicbor::encode::Write for Count {
    type Error = core::convert::Infallible;

    fn write_all(&mut self, bytes: &[u8]) -> Result<(), Self::Error> {
        self.0 += bytes.len();
        Ok(())
    }
}

/// Compares what is written with what was read, without a second buffer.
struct Compare<'a> {
    rest: &'a [u8],
    same: bool,
}

impl minicbor::encode::Write for Compare<'_> {
    type Error = core::convert::Infallible;

    fn write_all(&mut self, bytes: &[u8]) -> Result<(), Self::Error> {
        match self.rest.split_at_checked(bytes.len()) {
            Some((head, rest)) => {
                self.same &= head == bytes;
                self.rest = rest;
            }
            None => self.same = false,
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Encode, Decode)]
    #[cbor(map)]
    struct Pair {
        #[n(0)]
        left: u32,
        #[n(1)]
        right: Option<String>,
    }

    #[test]
    fn only_the_canonical_encoding_is_accepted() {
        let pair = Pair {
            left: 7,
            right: None,
        };
        let bytes = encode(&pair);
        assert_eq!(decode::<Pair>(&bytes, 64), Ok(pair));
        for other in [
            [&bytes[..], &[0]].concat(),        // trailing byte
            vec![0xa1, 0x00, 0x18, 0x07],       // long-form integer
            vec![0xbf, 0x00, 0x07, 0xff],       // indefinite length
            vec![0xa2, 0x00, 0x07, 0x05, 0x01], // unknown key
            vec![0xa2, 0x00, 0x07, 0x00, 0x07], // key twice
        ] {
            assert!(decode::<Pair>(&other, 64).is_err(), "{other:02x?}");
        }
        assert_eq!(
            decode::<Pair>(&bytes, 1),
            Err(WireError::TooLong {
                found: bytes.len(),
                max: 1
            })
        );
    }

    #[test]
    fn encoding_a_secret_allocates_once() {
        let pair = Pair {
            left: 7,
            right: Some("x".repeat(1000)),
        };
        let bytes = encode_secret(&pair);
        assert_eq!(bytes.len(), bytes.capacity());
        assert_eq!(*bytes, encode(&pair));
    }
}
