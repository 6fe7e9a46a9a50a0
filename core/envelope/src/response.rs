//! The sealed response: chunks that only the sender of the request can open.
//!
//! ```text
//! "blda" ‖ 1 ‖ nonce (32) │ u32 (last:1 ‖ length:31) ‖ sealed chunk │ …
//! ```
//!
//! Always true: the key is derived from the request's own HPKE context (RFC 9180 §5.3) and a random
//! nonce, so a response opens only for the request it answers and never shares a key with another,
//! even when one request is answered twice; a chunk opens only in its place; the end is authenticated.

use rand_core::CryptoRng;

use crate::request::EnvelopeError;
use crate::stream::{StreamKey, TAG_BYTES};
use crate::{Digest, Secret, Wiped};

/// Seals the answer to one opened request.
pub struct ResponseSealer {
    exported: Secret,
    request: Digest,
}

impl ResponseSealer {
    pub(crate) const fn new(exported: Secret, request: Digest) -> Self {
        Self { exported, request }
    }

    /// Seals a whole answer.
    #[must_use]
    pub fn seal(self, body: &[u8], entropy: &mut impl CryptoRng) -> Vec<u8> {
        let chunks = body.len() / RESPONSE_CHUNK_BYTES_MAX + 1;
        let mut out = Vec::with_capacity(HEAD_BYTES + body.len() + chunks * (4 + TAG_BYTES));
        let mut writer = self.begin(entropy, &mut out);
        let mut rest = body;
        while rest.len() > RESPONSE_CHUNK_BYTES_MAX {
            let (chunk, after) = rest.split_at(RESPONSE_CHUNK_BYTES_MAX);
            writer.chunk(chunk, &mut out);
            rest = after;
        }
        writer.finish(rest, &mut out);
        out
    }

    /// Starts an answer that is sealed chunk by chunk; writes its head to `out`.
    #[must_use]
    pub fn begin(self, entropy: &mut impl CryptoRng, out: &mut Vec<u8>) -> ResponseWriter {
        let mut nonce = [0; NONCE_BYTES];
        entropy.fill_bytes(&mut nonce);
        out.extend(MAGIC);
        out.push(VERSION);
        out.extend(nonce);
        ResponseWriter {
            stream: Stream::new(&self.exported, &self.request, &nonce),
        }
    }
}

/// An answer being sealed.
pub struct ResponseWriter {
    stream: Stream,
}

impl ResponseWriter {
    /// Appends one chunk to `out`.
    ///
    /// # Panics
    /// When the chunk is longer than [`RESPONSE_CHUNK_BYTES_MAX`].
    pub fn chunk(&mut self, plain: &[u8], out: &mut Vec<u8>) {
        self.write(plain, false, out);
    }

    /// Appends the last chunk to `out`.
    ///
    /// # Panics
    /// When the chunk is longer than [`RESPONSE_CHUNK_BYTES_MAX`].
    pub fn finish(mut self, plain: &[u8], out: &mut Vec<u8>) {
        self.write(plain, true, out);
    }

    fn write(&mut self, plain: &[u8], last: bool, out: &mut Vec<u8>) {
        assert!(
            plain.len() <= RESPONSE_CHUNK_BYTES_MAX,
            "response chunk too long"
        );
        let length = u32::try_from(plain.len() + TAG_BYTES).expect("bounded above");
        out.extend((u32::from(last) << 31 | length).to_be_bytes());
        self.stream
            .key
            .seal(self.stream.index, last, &self.stream.aad, plain, out);
        self.stream.index += 1;
    }
}

/// Opens the answer to one request. Kept by whoever sealed it.
pub struct ResponseOpener {
    exported: Secret,
    request: Digest,
}

impl ResponseOpener {
    pub(crate) const fn new(exported: Secret, request: Digest) -> Self {
        Self { exported, request }
    }

    /// Digest of the sealed request this opens the answer to.
    #[must_use]
    pub const fn request(&self) -> Digest {
        self.request
    }

    /// Another one, for when the same request is sent again: each answer has keys of its own.
    #[must_use]
    pub const fn again(&self) -> Self {
        Self {
            exported: Secret::from_bytes(*self.exported.expose()),
            request: self.request,
        }
    }

    /// Opens a whole sealed answer.
    ///
    /// # Errors
    /// Malformed, truncated, altered, or the answer to another request.
    pub fn open(self, sealed: &[u8]) -> Result<Wiped, EnvelopeError> {
        let mut plain = Vec::with_capacity(sealed.len());
        let mut reader = self.begin();
        let opened = reader
            .push(sealed, &mut plain)
            .and_then(|()| reader.finish());
        // Whatever became of it, it is wiped.
        let plain = Wiped::from(plain);
        opened.map(|()| plain)
    }

    /// Starts opening an answer that arrives in pieces.
    #[must_use]
    pub const fn begin(self) -> ResponseReader {
        ResponseReader {
            opener: self,
            stream: None,
            pending: Vec::new(),
            ended: false,
        }
    }
}

/// An answer being opened. Plaintext is released chunk by chunk, each after its tag was checked;
/// only [`ResponseReader::finish`] says that nothing is missing.
pub struct ResponseReader {
    opener: ResponseOpener,
    stream: Option<Stream>,
    pending: Vec<u8>,
    ended: bool,
}

impl ResponseReader {
    /// Takes the next bytes off the wire and appends what they open to `plain`.
    ///
    /// # Errors
    /// Malformed or altered bytes, or bytes after the last chunk. The answer is then lost.
    pub fn push(&mut self, bytes: &[u8], plain: &mut Vec<u8>) -> Result<(), EnvelopeError> {
        self.pending.extend(bytes);
        let mut at = 0;
        while let Some(taken) = self.step(at, plain)? {
            at += taken;
        }
        self.pending.drain(..at);
        Ok(())
    }

    /// Confirms that the last chunk arrived.
    ///
    /// # Errors
    /// The answer was cut short.
    pub fn finish(self) -> Result<(), EnvelopeError> {
        if self.ended && self.pending.is_empty() {
            Ok(())
        } else {
            Err(EnvelopeError::Truncated)
        }
    }

    /// Consumes the head or one whole chunk at `at`; says how many bytes, or `None` for "need more".
    fn step(&mut self, at: usize, plain: &mut Vec<u8>) -> Result<Option<usize>, EnvelopeError> {
        let pending = &self.pending[at..];
        if self.ended {
            return if pending.is_empty() {
                Ok(None)
            } else {
                Err(malformed("bytes follow its end"))
            };
        }
        let Some(stream) = &mut self.stream else {
            let Some(head) = pending.first_chunk::<HEAD_BYTES>() else {
                return Ok(None);
            };
            let nonce = head
                .strip_prefix(MAGIC)
                .and_then(|rest| rest.strip_prefix(&[VERSION]))
                .and_then(|rest| rest.first_chunk())
                .ok_or(malformed(
                    "it does not start with `blda` and a known version",
                ))?;
            self.stream = Some(Stream::new(
                &self.opener.exported,
                &self.opener.request,
                nonce,
            ));
            return Ok(Some(HEAD_BYTES));
        };
        let Some((word, rest)) = pending.split_first_chunk() else {
            return Ok(None);
        };
        let word = u32::from_be_bytes(*word);
        let (last, length) = (word >> 31 == 1, (word & !(1 << 31)) as usize);
        if !(TAG_BYTES..=RESPONSE_CHUNK_BYTES_MAX + TAG_BYTES).contains(&length) {
            return Err(malformed("a chunk has an impossible length"));
        }
        let Some(sealed) = rest.get(..length) else {
            return Ok(None);
        };
        let from = plain.len();
        plain.resize(from + length - TAG_BYTES, 0);
        let opened =
            stream
                .key
                .open_into(stream.index, last, &stream.aad, sealed, &mut plain[from..]);
        if opened.is_err() {
            plain.truncate(from);
            return Err(EnvelopeError::Altered);
        }
        stream.index += 1;
        self.ended = last;
        Ok(Some(4 + length))
    }
}

/// Key and position of one response's chunks.
struct Stream {
    key: StreamKey,
    aad: [u8; 33],
    index: u32,
}

impl Stream {
    fn new(exported: &Secret, request: &Digest, nonce: &[u8; NONCE_BYTES]) -> Self {
        let key = exported.derive("bield response key v1", &[request.as_bytes(), nonce]);
        let mut aad = [DIRECTION_RESPONSE; 33];
        aad[1..].copy_from_slice(request.as_bytes());
        Self {
            key: StreamKey::new(&key, [0; 7]),
            aad,
            index: 0,
        }
    }
}

const fn malformed(why: &'static str) -> EnvelopeError {
    EnvelopeError::Malformed {
        what: "sealed response",
        why,
    }
}

/// The most plaintext in one chunk: small enough to buffer, large enough that its tag costs nothing.
pub const RESPONSE_CHUNK_BYTES_MAX: usize = 1 << 20;

const MAGIC: &[u8] = b"blda";
const VERSION: u8 = 1;
const NONCE_BYTES: usize = 32;
const HEAD_BYTES: usize = 4 + 1 + NONCE_BYTES;
/// First byte of the AAD: towards the user.
const DIRECTION_RESPONSE: u8 = 2;
