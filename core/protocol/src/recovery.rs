//! Shares of the recovery key.

use bield_envelope::{Digest, Principal};
use minicbor::{Decode, Encode};
use zeroize::Zeroizing;

/// One holder's share. A secret: encode with [`Reply::encode`](crate::service::Reply::encode) or
/// [`Request::encode`](crate::service::Request::encode) only.
#[derive(Clone, Encode, Decode)]
#[cbor(map)]
pub struct Share {
    /// Which recovery key: counts `MakeShares`.
    #[n(0)]
    pub generation: u32,
    /// The holder's number, from 1.
    #[n(1)]
    pub number: u8,
    /// How many are needed.
    #[n(2)]
    pub threshold: u8,
    /// The share's bytes, at most [`SHARE_BYTES_MAX`].
    #[cbor(
        n(3),
        encode_with = "share_bytes::encode",
        decode_with = "share_bytes::decode"
    )]
    pub bytes: Zeroizing<Vec<u8>>,
}

impl Share {
    /// Commits to the share without showing it: at least 128 bits of it cannot be guessed.
    #[must_use]
    pub fn commitment(&self) -> Digest {
        Digest::of(
            "bield recovery share commitment v1",
            &[
                &self.generation.to_be_bytes(),
                &[self.number, self.threshold],
                &self.bytes,
            ],
        )
    }
}

mod share_bytes {
    use minicbor::bytes::ByteVec;
    use minicbor::decode::Error;
    use minicbor::encode::{self, Write};
    use minicbor::{Decoder, Encoder};
    use zeroize::Zeroizing;

    pub(super) fn encode<C, W: Write>(
        bytes: &Zeroizing<Vec<u8>>,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), encode::Error<W::Error>> {
        e.bytes(bytes)?.ok()
    }

    pub(super) fn decode<C>(d: &mut Decoder<'_>, _: &mut C) -> Result<Zeroizing<Vec<u8>>, Error> {
        let bytes = d.bytes()?;
        if bytes.len() > super::SHARE_BYTES_MAX {
            return Err(Error::message("share is too long"));
        }
        Ok(Zeroizing::new(ByteVec::from(bytes.to_vec()).into()))
    }
}

/// How far recovery is.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct ShareProgress {
    /// Holders whose shares are here.
    #[cbor(
        n(0),
        decode_with = "bield_envelope::wire::at_most::<{ crate::service::HOLDERS_MAX }, _, _>"
    )]
    pub given: Vec<Principal>,
    /// How many are needed.
    #[n(1)]
    pub needed: u8,
    /// The shares were enough and opened the box: recovered, or rehearsed.
    #[n(2)]
    pub opened: bool,
    /// Records that were found in the log, once opened.
    #[n(3)]
    pub size: Option<u64>,
    /// The log's origin, once opened.
    #[n(4)]
    pub origin: Option<String>,
}

/// The most bytes of a share.
pub const SHARE_BYTES_MAX: usize = 256;
