//! The one way a key enters a message: `#[cbor(with = "bield_envelope::transport")]`.
//!
//! Only for messages that travel inside an attested session or a sealed blob, encoded with
//! [`wire::encode_secret`](crate::wire::encode_secret) so that the buffer is wiped.

use minicbor::encode::Write;
use minicbor::{Decoder, Encoder};

use crate::Secret;
use crate::digest::bytes32;

/// Writes the secret as a byte string of 32 bytes.
///
/// # Errors
/// Those of the writer.
pub fn encode<C, W: Write>(
    secret: &Secret,
    e: &mut Encoder<W>,
    _: &mut C,
) -> Result<(), minicbor::encode::Error<W::Error>> {
    e.bytes(secret.expose())?.ok()
}

/// Reads a secret.
///
/// # Errors
/// Anything but a byte string of 32 bytes.
pub fn decode<C>(d: &mut Decoder<'_>, _: &mut C) -> Result<Secret, minicbor::decode::Error> {
    bytes32(d).map(Secret::from_bytes)
}
