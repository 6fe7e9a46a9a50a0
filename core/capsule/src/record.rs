//! The record: header, signature, body, byte by byte (`spec/06 §3`).
//!
//! ```text
//! bytes ──decode──▶ Received { header, hash, … } ──Verifier::verify──▶ Verified ──apply──▶ Applied
//!                   structure is right,             signed by an admitted writer,
//!                   nothing else is known           linked to the chain
//! ```
//!
//! In: bytes from anyone. Out: [`Received`], whose structure obeys every rule of the format that can
//! be judged from the record alone, including that the body has the root the header names. Always
//! true: one value has one encoding; no length is believed before it was compared with what is
//! there; nothing here says who wrote it.
//!
//! Cost: one pass of the hash over header and one over the body (5 GB/s in suites 1 and 3), no copy
//! but the caller's own bytes.

use bield_envelope::{Digest, SignatureInvalid};

use crate::{
    CHANGES_BYTES_MAX, CapsuleName, Clock, Head, Metadata, OPENING_BYTES_MAX, PublicKey, Suite,
    WriterId, WriterKey,
};

/// Longest body in bytes: what a writer holds in memory twice, and a replica at once.
pub const BODY_BYTES_MAX: usize = 1 << 20;

/// Most entries in a record: their ends stay within a quarter of the body.
pub const ENTRIES_MAX: usize = 65_535;

/// Most heads one record names.
pub const PARENTS_MAX: usize = 1024;

/// Longest header in bytes.
pub const HEADER_BYTES_MAX: usize = HEADER_BYTES + PARENTS_MAX * PARENT_BYTES + 63 * 32;

/// Longest record in bytes.
pub const RECORD_BYTES_MAX: usize =
    HEADER_BYTES_MAX + Suite::MlDsa44.signature_bytes() + BODY_BYTES_MAX;

/// Bytes of a header without parents and skip pointers.
pub const HEADER_BYTES: usize = 232;

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// The owner's: who may write, keys, revocations (`spec/06 §5`).
    Config = 1,
    /// A writer's first: its key and certificate (`spec/06 §6`).
    Open = 2,
    /// Sealed entries.
    Data = 3,
    /// Names heads of other chains: an agreed cut.
    Join = 4,
    /// A writer's last.
    Close = 5,
}

impl Kind {
    const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Config),
            2 => Some(Self::Open),
            3 => Some(Self::Data),
            4 => Some(Self::Join),
            5 => Some(Self::Close),
            _ => None,
        }
    }
}

/// Everything a header says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The capsule's suite.
    pub suite: Suite,
    /// What the record is.
    pub kind: Kind,
    /// Which capsule.
    pub capsule: CapsuleName,
    /// Whose chain.
    pub writer: WriterId,
    /// Position in the chain, from 0.
    pub seq: u64,
    /// Agreement interval, non-decreasing.
    pub epoch: u64,
    /// Hybrid logical time, non-decreasing.
    pub clock: Clock,
    /// Newest config record the writer had verified.
    pub config: u64,
    /// Key generation of the body; 0 in clear.
    pub generation: u32,
    /// Entries in the body (changes, in a config record).
    pub count: u32,
    /// Length of the body in bytes.
    pub body_bytes: u32,
    /// Header hash of the predecessor; zero at seq 0.
    pub prev: Digest,
    /// Makes the record key unique.
    pub salt: [u8; 16],
    /// Fixes the record key.
    pub commitment: [u8; 32],
    /// Root of the body.
    pub root: Digest,
    /// Heads of other chains, ascending by writer.
    pub parents: Vec<Head>,
    /// Header hashes at seq − 2^j, j = 1 … trailing zeros of seq.
    pub skips: Vec<Digest>,
}

/// Why bytes are no record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// Fewer bytes than the header announces.
    #[error("record ends after {found} bytes, {need} are needed: cut off; fetch it again")]
    Truncated {
        /// Bytes needed.
        need: usize,
        /// Bytes there.
        found: usize,
    },
    /// More bytes than the header announces.
    #[error("{extra} bytes follow the record; do not retry")]
    Trailing {
        /// Bytes too many.
        extra: usize,
    },
    /// Not a record of this version and a known suite and kind.
    #[error("not a capsule record of a known version, suite and kind; do not retry")]
    Unknown,
    /// A rule of the format is broken.
    #[error("record breaks the format: {0}; do not retry")]
    Rule(&'static str),
    /// The body is not the one the header commits to.
    #[error(
        "body does not have the root that its header names: altered; fetch it from another replica"
    )]
    Body,
}

/// Number of skip pointers at `seq`.
#[must_use]
pub const fn skips_at(seq: u64) -> usize {
    if seq == 0 {
        0
    } else {
        seq.trailing_zeros() as usize
    }
}

impl Header {
    /// Length of the encoding in bytes.
    #[must_use]
    pub const fn encoded_bytes(&self) -> usize {
        HEADER_BYTES + self.parents.len() * PARENT_BYTES + self.skips.len() * 32
    }

    /// Encodes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.encoded_bytes());
        self.encode_to(&mut bytes);
        bytes
    }

    /// Appends the encoding.
    pub(crate) fn encode_to(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&[
            VERSION,
            self.suite.number(),
            self.kind as u8,
            self.skips.len() as u8,
        ]);
        bytes.extend_from_slice(self.capsule.as_bytes());
        bytes.extend_from_slice(self.writer.as_bytes());
        for word in [self.seq, self.epoch, self.clock.bits(), self.config] {
            bytes.extend_from_slice(&word.to_be_bytes());
        }
        for word in [self.generation, self.count, self.body_bytes] {
            bytes.extend_from_slice(&word.to_be_bytes());
        }
        bytes.extend_from_slice(&(self.parents.len() as u16).to_be_bytes());
        bytes.extend_from_slice(&[0; 2]);
        bytes.extend_from_slice(self.prev.as_bytes());
        bytes.extend_from_slice(&self.salt);
        bytes.extend_from_slice(&self.commitment);
        bytes.extend_from_slice(self.root.as_bytes());
        for parent in &self.parents {
            bytes.extend_from_slice(parent.writer.as_bytes());
            bytes.extend_from_slice(&parent.seq.to_be_bytes());
            bytes.extend_from_slice(parent.hash.as_bytes());
        }
        for skip in &self.skips {
            bytes.extend_from_slice(skip.as_bytes());
        }
    }

    /// Reads the header at the start of `bytes`, and says how long it is.
    ///
    /// # Errors
    /// Too short, unknown, or against a rule of `spec/06 §3`.
    pub fn decode_prefix(bytes: &[u8]) -> Result<(Self, usize), RecordError> {
        let mut fields = Fields(bytes);
        let fixed = bytes.get(..HEADER_BYTES).ok_or(RecordError::Truncated {
            need: HEADER_BYTES,
            found: bytes.len(),
        })?;
        let parents = usize::from(u16::from_be_bytes([fixed[116], fixed[117]]));
        let skips = usize::from(fixed[7]);
        let need = HEADER_BYTES + parents * PARENT_BYTES + skips * 32;
        if fields.take::<4>() != *MAGIC || fields.take() != [VERSION] {
            return Err(RecordError::Unknown);
        }
        let [suite, kind, _] = fields.take();
        let suite = Suite::from_number(suite).ok_or(RecordError::Unknown)?;
        let kind = Kind::from_number(kind).ok_or(RecordError::Unknown)?;
        if parents > PARENTS_MAX {
            return Err(RecordError::Rule("more parents than allowed"));
        }
        if bytes.len() < need {
            return Err(RecordError::Truncated {
                need,
                found: bytes.len(),
            });
        }
        let mut header = Self {
            suite,
            kind,
            capsule: CapsuleName::from_bytes(fields.take()),
            writer: WriterId::from_bytes(fields.take()),
            seq: fields.u64(),
            epoch: fields.u64(),
            clock: Clock::from_bits(fields.u64()),
            config: fields.u64(),
            generation: fields.u32(),
            count: fields.u32(),
            body_bytes: fields.u32(),
            prev: {
                let [_, _, high, low] = fields.take();
                if [high, low] != [0, 0] {
                    return Err(RecordError::Rule("reserved bytes are not zero"));
                }
                Digest::from_bytes(fields.take())
            },
            salt: fields.take(),
            commitment: fields.take(),
            root: Digest::from_bytes(fields.take()),
            parents: Vec::with_capacity(parents),
            skips: Vec::with_capacity(skips),
        };
        for _ in 0..parents {
            header.parents.push(Head {
                writer: WriterId::from_bytes(fields.take()),
                seq: fields.u64(),
                hash: Digest::from_bytes(fields.take()),
            });
        }
        for _ in 0..skips {
            header.skips.push(Digest::from_bytes(fields.take()));
        }
        header.check()?;
        Ok((header, need))
    }

    /// The rules of `spec/06 §3` that a header can break by itself.
    fn check(&self) -> Result<(), RecordError> {
        let rule = |holds: bool, rule| {
            if holds {
                Ok(())
            } else {
                Err(RecordError::Rule(rule))
            }
        };
        let clear = self.generation == 0;
        rule(
            self.skips.len() == skips_at(self.seq),
            "skip pointers do not fit seq",
        )?;
        rule(
            (self.seq == 0) == (self.prev == ZERO),
            "prev is zero at seq 0 and only there",
        )?;
        rule(
            self.parents.is_sorted_by(|a, b| a.writer < b.writer)
                && self
                    .parents
                    .iter()
                    .all(|parent| parent.writer != self.writer),
            "parents ascend by writer, each once, none the record's own",
        )?;
        rule(
            !clear || (self.salt == [0; 16] && self.commitment == [0; 32]),
            "salt and commitment are zero in clear",
        )?;
        rule(
            self.body_bytes as usize <= BODY_BYTES_MAX,
            "body is too long",
        )?;
        rule(self.count as usize <= ENTRIES_MAX, "too many entries")?;
        match self.kind {
            Kind::Config => {
                rule(
                    clear && self.count >= 1 && self.parents.is_empty(),
                    "shape of a config record",
                )?;
                rule(
                    self.body_bytes as usize <= CHANGES_BYTES_MAX,
                    "changes are too long",
                )?;
                rule(self.config == self.seq, "a config record names itself")
            }
            Kind::Open => rule(
                clear
                    && self.seq == 0
                    && self.count == 0
                    && self.body_bytes as usize <= OPENING_BYTES_MAX
                    && self.parents.len() == 1
                    && self.parents[0].seq == self.config,
                "shape of an open record",
            ),
            Kind::Data => rule(
                !clear
                    && self.seq >= 1
                    && self.count >= 1
                    && self.body_bytes as usize >= self.count as usize * 5 + TAG_BYTES,
                "shape of a data record",
            ),
            Kind::Join => rule(
                clear
                    && self.seq >= 1
                    && self.count == 0
                    && self.body_bytes == 0
                    && self.root == self.suite.root(&[])
                    && !self.parents.is_empty(),
                "shape of a join record",
            ),
            Kind::Close => rule(
                clear
                    && self.seq >= 1
                    && self.count == 0
                    && self.body_bytes == 0
                    && self.root == self.suite.root(&[])
                    && self.parents.is_empty(),
                "shape of a close record",
            ),
        }
    }

    /// Whether it is a header of this capsule, and of a chain where its kind belongs: what a header can
    /// break when the metadata is known and nothing else (`spec/06 §3`).
    pub(crate) fn belongs(&self, metadata: &Metadata) -> bool {
        let owner = metadata.owner_id();
        (self.capsule, self.suite) == (metadata.name(), metadata.suite())
            && (self.writer == owner) == (self.kind == Kind::Config)
            && (self.kind != Kind::Open || self.parents[0].writer == owner)
    }

    /// The position this header takes.
    #[must_use]
    pub fn head(&self) -> Head {
        Head {
            writer: self.writer,
            seq: self.seq,
            hash: self.hash(),
        }
    }

    /// The header hash.
    #[must_use]
    pub fn hash(&self) -> Digest {
        header_hash(self.suite, &self.encode())
    }

    /// The header hash that the header gives for an earlier `seq` of its chain, when it has one.
    #[must_use]
    pub fn pointer_to(&self, seq: u64) -> Option<Digest> {
        match self.seq.checked_sub(seq)? {
            0 => None,
            1 => Some(self.prev),
            distance if distance.is_power_of_two() => self
                .skips
                .get(distance.trailing_zeros() as usize - 1)
                .copied(),
            _ => None,
        }
    }
}

pub(crate) fn header_hash(suite: Suite, header: &[u8]) -> Digest {
    suite.hash(HEADER_DOMAIN, &[header])
}

/// A record whose structure is right. Who wrote it, and whether it belongs where it says, is not
/// known: that is for [`crate::Verifier`].
#[derive(Clone, PartialEq, Eq)]
pub struct Received {
    bytes: Vec<u8>,
    header: Header,
    header_bytes: usize,
    hash: Digest,
}

impl Received {
    /// Reads exactly one record.
    ///
    /// # Errors
    /// Not one record in the one accepted encoding, or a body without the root its header names.
    pub fn decode(bytes: Vec<u8>) -> Result<Self, RecordError> {
        let (header, header_bytes) = Header::decode_prefix(&bytes)?;
        let need = header_bytes + header.suite.signature_bytes() + header.body_bytes as usize;
        match bytes.len() {
            found if found < need => return Err(RecordError::Truncated { need, found }),
            found if found > need => {
                return Err(RecordError::Trailing {
                    extra: found - need,
                });
            }
            _ => {}
        }
        let hash = header_hash(header.suite, &bytes[..header_bytes]);
        let received = Self {
            bytes,
            header,
            header_bytes,
            hash,
        };
        if received.header.suite.root(received.body()) != received.header.root {
            return Err(RecordError::Body);
        }
        Ok(received)
    }

    /// Signs a header whose body has the root it names.
    pub(crate) fn sign(key: &WriterKey, header: &Header, body: &[u8]) -> Result<Self, RecordError> {
        let header_bytes = header.encoded_bytes();
        let body_at = header_bytes + header.suite.signature_bytes();
        let mut bytes = Vec::with_capacity(body_at + body.len());
        header.encode_to(&mut bytes);
        bytes.resize(body_at, 0);
        bytes.extend_from_slice(body);
        Self::sign_in_place(key, header.clone(), bytes)
    }

    /// Signs a record that is whole but for its signature: `header ‖ room ‖ body`. What the writer
    /// makes is what receivers check: the header goes through the same rules.
    pub(crate) fn sign_in_place(
        key: &WriterKey,
        header: Header,
        mut bytes: Vec<u8>,
    ) -> Result<Self, RecordError> {
        header.check()?;
        let header_bytes = header.encoded_bytes();
        let body_at = header_bytes + header.suite.signature_bytes();
        debug_assert_eq!(bytes[..header_bytes], header.encode());
        debug_assert_eq!(bytes.len(), body_at + header.body_bytes as usize);
        debug_assert_eq!(header.suite.root(&bytes[body_at..]), header.root);
        let hash = header_hash(header.suite, &bytes[..header_bytes]);
        bytes[header_bytes..body_at].copy_from_slice(&key.sign(&hash));
        Ok(Self {
            bytes,
            header,
            header_bytes,
            hash,
        })
    }

    /// What the header says.
    #[must_use]
    pub const fn header(&self) -> &Header {
        &self.header
    }

    /// The header hash: the record's name.
    #[must_use]
    pub const fn hash(&self) -> Digest {
        self.hash
    }

    /// The position the record takes.
    #[must_use]
    pub const fn head(&self) -> Head {
        Head {
            writer: self.header.writer,
            seq: self.header.seq,
            hash: self.hash,
        }
    }

    /// The whole record.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8] {
        self.bytes.as_slice()
    }

    /// The whole record, by value.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// The encoded header.
    #[must_use]
    pub fn header_bytes(&self) -> &[u8] {
        &self.bytes[..self.header_bytes]
    }

    /// The signature over the header hash.
    #[must_use]
    pub fn signature(&self) -> &[u8] {
        &self.bytes[self.header_bytes..][..self.header.suite.signature_bytes()]
    }

    /// The body: sealed in a data record, else in clear.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        &self.bytes[self.header_bytes + self.header.suite.signature_bytes()..]
    }

    /// Header and signature: all that proofs need.
    #[must_use]
    pub fn signed_head(&self) -> SignedHead {
        SignedHead {
            bytes: self.bytes[..self.header_bytes + self.header.suite.signature_bytes()].to_vec(),
            header: self.header.clone(),
            header_bytes: self.header_bytes,
            hash: self.hash,
        }
    }

    /// Checks the signature by `key`; whether that key may write is another question.
    pub(crate) fn verify_signature(&self, key: &PublicKey) -> Result<(), SignatureInvalid> {
        key.verify(&self.hash, self.signature())
    }
}

impl core::fmt::Debug for Received {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Received({:?} {})", self.header.kind, self.head())
    }
}

/// A header and its signature: fixes the writer's chain up to there. Not yet verified.
#[derive(Clone, PartialEq, Eq)]
pub struct SignedHead {
    bytes: Vec<u8>,
    header: Header,
    header_bytes: usize,
    hash: Digest,
}

impl SignedHead {
    /// Reads exactly one signed head.
    ///
    /// # Errors
    /// Not a header and a signature and nothing else.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let (header, header_bytes) = Header::decode_prefix(bytes)?;
        let need = header_bytes + header.suite.signature_bytes();
        match bytes.len() {
            found if found < need => return Err(RecordError::Truncated { need, found }),
            found if found > need => {
                return Err(RecordError::Trailing {
                    extra: found - need,
                });
            }
            _ => {}
        }
        Ok(Self {
            hash: header_hash(header.suite, &bytes[..header_bytes]),
            bytes: bytes.to_vec(),
            header,
            header_bytes,
        })
    }

    /// What the header says.
    #[must_use]
    pub const fn header(&self) -> &Header {
        &self.header
    }

    /// The position it fixes.
    #[must_use]
    pub const fn head(&self) -> Head {
        Head {
            writer: self.header.writer,
            seq: self.header.seq,
            hash: self.hash,
        }
    }

    /// Header and signature.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8] {
        self.bytes.as_slice()
    }

    /// Checks that `key` signed this: the id in the header is the key's, and so is the signature.
    ///
    /// # Errors
    /// Another key's id, or a signature that does not verify.
    pub fn verify(&self, key: &PublicKey) -> Result<(), SignatureInvalid> {
        if key.id() != self.header.writer || key.suite() != self.header.suite {
            return Err(SignatureInvalid);
        }
        key.verify(&self.hash, &self.bytes[self.header_bytes..])
    }
}

impl core::fmt::Debug for SignedHead {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "SignedHead({})", self.head())
    }
}

/// Reads fields off a slice that is known to be long enough.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let (field, rest) = self
            .0
            .split_first_chunk::<N>()
            .expect("the caller compared the length");
        self.0 = rest;
        *field
    }

    fn u64(&mut self) -> u64 {
        u64::from_be_bytes(self.take())
    }

    fn u32(&mut self) -> u32 {
        u32::from_be_bytes(self.take())
    }
}

pub(crate) const ZERO: Digest = Digest::from_bytes([0; 32]);
pub(crate) const TAG_BYTES: usize = 16;
/// Header bytes the record key is derived from: all that is known before sealing but the parents
/// and skip pointers, which are associated data.
pub(crate) const KEYED_BYTES: usize = 168;
/// Header bytes before the body root.
pub(crate) const ROOT_AT: usize = 200;
/// Header bytes before the salt.
pub(crate) const SALT_AT: usize = 152;

const PARENT_BYTES: usize = 72;
const MAGIC: &[u8; 4] = b"bldr";
const VERSION: u8 = 1;
const HEADER_DOMAIN: &str = "bield capsule header v1";

const _: () = assert!(SALT_AT + 16 == KEYED_BYTES && KEYED_BYTES + 32 == ROOT_AT);
const _: () = assert!(ROOT_AT + 32 == HEADER_BYTES);
const _: () = assert!(
    RECORD_BYTES_MAX <= 1_200_000,
    "a segment frame holds every record"
);

#[cfg(test)]
mod tests {
    use super::*;
    use bield_envelope::Seeded;
    use proptest::prelude::*;

    fn header(suite: Suite, seq: u64) -> Header {
        Header {
            suite,
            kind: Kind::Join,
            capsule: CapsuleName::from_bytes([1; 32]),
            writer: WriterId::from_bytes([2; 32]),
            seq,
            epoch: 1,
            clock: Clock::from_bits(77),
            config: 3,
            generation: 0,
            count: 0,
            body_bytes: 0,
            prev: Digest::from_bytes([3; 32]),
            salt: [0; 16],
            commitment: [0; 32],
            root: suite.root(&[]),
            parents: vec![Head {
                writer: WriterId::from_bytes([4; 32]),
                seq: 9,
                hash: Digest::from_bytes([5; 32]),
            }],
            skips: vec![Digest::from_bytes([6; 32]); skips_at(seq)],
        }
    }

    #[test]
    fn a_record_survives_its_own_bytes_and_every_flip_changes_or_breaks_it() {
        for suite in Suite::ALL {
            let key = WriterKey::generate(suite, &mut Seeded::new(1));
            let header = Header {
                writer: key.id(),
                ..header(suite, 8)
            };
            let record = Received::sign(&key, &header, &[]).unwrap();
            let again = Received::decode(record.as_bytes().to_vec()).unwrap();
            assert!(again == record && again.verify_signature(key.public()).is_ok());
            for at in 0..record.as_bytes().len() {
                let mut bytes = record.as_bytes().to_vec();
                bytes[at] ^= 1;
                let refused = Received::decode(bytes)
                    .map_or(true, |other| other.verify_signature(key.public()).is_err());
                assert!(refused, "{suite:?} byte {at}");
            }
            for cut in 0..record.as_bytes().len() {
                assert!(Received::decode(record.as_bytes()[..cut].to_vec()).is_err());
            }
            let mut longer = record.as_bytes().to_vec();
            longer.push(0);
            assert_eq!(
                Received::decode(longer),
                Err(RecordError::Trailing { extra: 1 })
            );
        }
    }

    #[test]
    fn pointers_lead_back_by_powers_of_two() {
        let mut header = header(Suite::Ed25519, 8);
        header.skips = (1..=3).map(|n| Digest::from_bytes([n; 32])).collect();
        assert_eq!(header.pointer_to(7), Some(header.prev));
        assert_eq!(header.pointer_to(6), Some(Digest::from_bytes([1; 32])));
        assert_eq!(header.pointer_to(4), Some(Digest::from_bytes([2; 32])));
        assert_eq!(header.pointer_to(0), Some(Digest::from_bytes([3; 32])));
        for seq in [1, 2, 3, 5, 8, 9] {
            assert_eq!(header.pointer_to(seq), None);
        }
    }

    #[test]
    fn headers_that_break_a_rule_are_refused() {
        let good = header(Suite::Ed25519, 8);
        assert!(Header::decode_prefix(&good.encode()).is_ok());
        let breaks: [fn(&mut Header); 12] = [
            |h| h.skips.push(ZERO),
            |h| h.skips.truncate(2),
            |h| h.prev = ZERO,
            |h| h.parents[0].writer = h.writer,
            |h| h.parents.push(h.parents[0]),
            |h| h.parents.clear(),
            |h| h.salt[0] = 1,
            |h| h.commitment[0] = 1,
            |h| h.body_bytes = 1,
            |h| h.count = 1,
            |h| h.kind = Kind::Close,
            |h| h.generation = 1,
        ];
        for (n, break_it) in breaks.iter().enumerate() {
            let mut header = good.clone();
            break_it(&mut header);
            assert!(Header::decode_prefix(&header.encode()).is_err(), "rule {n}");
        }
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600), prefix in 0usize..7) {
            let mut bytes = bytes;
            let start = b"bldr\x01\x01\x03";
            for (at, byte) in start.iter().enumerate().take(prefix.min(bytes.len())) {
                bytes[at] = *byte;
            }
            let _ = Received::decode(bytes);
        }
    }
}
