//! What one file shows to someone who has nothing but the capsule's name (`spec/06 §7`).
//!
//! ```text
//! name ─▶ metadata ─▶ owner ─▶ config records ─▶ who may write, replicas
//!                                    │
//!                     opening ─▶ writer's key ─▶ head ─▶ path ─▶ record ─▶ slice ─▶ entry
//!                                                 └─ acknowledgements by replicas
//! ```
//!
//! In: records, a path and a record's secret to make a proof; a name and policy to check one. Out:
//! [`Proven`], which says what was proven and lists what was not. Always true: nothing is believed
//! that does not lead back to the name; the entry shown is decrypted under the one key that the
//! record commits to; the secret in a proof opens one record and no other. Left to others: whether
//! the head is the newest ([`crate::fresh`]).
//!
//! Cost: a signature per config record, three more, one per acknowledgement, the hashes of the
//! path, and the slice. About 2 KiB beside config records and slice.

use core::fmt;
use core::ops::Range;

use aws_lc_rs::cipher::{AES_256, DecryptingKey, DecryptionContext, UnboundCipherKey};
use aws_lc_rs::iv::FixedLength;
use bield_envelope::{Digest, Principal, Signed, StatementError, Time, wire, wire::WireError};
use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};
use zeroize::Zeroizing;

use crate::batch::END_BYTES;
use crate::record::TAG_BYTES;
use crate::{
    Acknowledgement, CONFIG_RECORDS_MAX, CapsuleName, Config, Entry, EntryPlace, Head, Header,
    Kept, Kind, Metadata, MetadataError, OpenError, PATH_HEADERS_MAX, PathError, PublicKey, Quorum,
    REPLICAS_MAX, Received, RecordError, RecordSecret, Refused, SignedHead, SliceError, Suite,
    Verifier, VerifierPolicy, body, open_slice, slice, verify_path,
};

/// Longest proof file in bytes: a body, a long configuration, and room.
pub const PROOF_BYTES_MAX: usize = 16 << 20;

/// A proof file: its structure is right, nothing else is known until [`Proof::verify`].
pub struct Proof {
    metadata: Metadata,
    config: Vec<Received>,
    opening: Option<Received>,
    head: SignedHead,
    path: Vec<Header>,
    entry: Option<EntryProof>,
    acknowledgements: Vec<Signed<Acknowledgement>>,
}

struct EntryProof {
    index: u32,
    secret: RecordSecret,
    slice: Vec<u8>,
    start: u32,
    end: u32,
}

/// Everything a proof file proved.
#[derive(Debug)]
pub struct Proven {
    /// The capsule: the one that was asked for.
    pub capsule: CapsuleName,
    /// The newest config record that was shown; its rules are those applied.
    pub config: Head,
    /// The signed head that everything hangs on.
    pub head: Head,
    /// The record proven to be in the head's chain.
    pub target: Header,
    /// The record's name.
    pub target_hash: Digest,
    /// Why the writer may write.
    pub authority: Authority,
    /// The entry that was shown.
    pub entry: Option<ProvenEntry>,
    /// Replicas of the configuration that hold the chain up to the head, each once.
    pub acknowledged: Vec<Acknowledged>,
    /// How many of them the owner asks for.
    pub quorum: Quorum,
    /// What this proof cannot show, or does not.
    pub not_checked: Vec<NotChecked>,
}

impl Proven {
    /// Distinct replicas that synced the chain up to the head to their disks.
    #[must_use]
    pub fn synced(&self) -> usize {
        let synced = |said: &&Acknowledged| said.kept == Kept::Synced;
        self.acknowledged.iter().filter(synced).count()
    }
}

/// Why a writer may write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Authority {
    /// It is the owner, writing configuration.
    Owner,
    /// The owner admitted its key.
    Admitted,
    /// A principal that the owner certifies says so.
    Certified {
        /// Who says so.
        by: Principal,
        /// Encoded measurement of the code that holds the key.
        code: Option<Vec<u8>>,
        /// The evidence came from a software TEE: there is no hardware protection.
        simulated: bool,
        /// First moment of the window, by the writer's clock.
        not_before: Time,
        /// First moment after it.
        not_after: Time,
    },
}

/// A replica's word, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acknowledged {
    /// Who.
    pub replica: Principal,
    /// How safely it keeps the chain.
    pub kept: Kept,
    /// When, by its own clock.
    pub at: Time,
}

/// An entry that was shown to stand in a record; wiped on drop.
pub struct ProvenEntry {
    bytes: Zeroizing<Vec<u8>>,
    capsule: CapsuleName,
    suite: Suite,
    place: EntryPlace,
}

impl ProvenEntry {
    /// Where it stands.
    #[must_use]
    pub const fn place(&self) -> EntryPlace {
        self.place
    }

    /// What it says; an erasable one opens with its own key only.
    #[must_use]
    pub fn entry(&self) -> Entry<'_> {
        Entry::parse(&self.bytes, self.suite, self.capsule, self.place)
            .expect("the form was checked when the entry was proven")
    }
}

impl fmt::Debug for ProvenEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "ProvenEntry({:?}, {} bytes)",
            self.place,
            self.bytes.len()
        )
    }
}

/// Something a reader might think was proven, and was not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NotChecked {
    /// Newer records, and newer configuration that takes the writer's right away.
    Freshness,
    /// A second record signed for the same position.
    Forks,
    /// The certificate's window against any clock but the writer's.
    Arrival,
    /// Records of the chain that are not on the path, their signatures and bodies.
    Between,
    /// Records that the target names as parents.
    Parents,
    /// The target's body: no entry of it is shown.
    Body,
    /// Other entries of the target, and its layout as a whole.
    OtherEntries,
    /// What the erasable entry says: its key is elsewhere, or destroyed.
    ErasableContent,
}

impl fmt::Display for NotChecked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Freshness => {
                "freshness: there may be newer records, and newer configuration; ask the replicas"
            }
            Self::Forks => "forks: the writer may have signed another record for the same position",
            Self::Arrival => {
                "arrival: the certificate's window was compared with the writer's clock"
            }
            Self::Between => "records of the chain that are not on the path",
            Self::Parents => "records of other chains that the record names",
            Self::Body => "the body: no entry is shown",
            Self::OtherEntries => "other entries of the record",
            Self::ErasableContent => "the content of the entry, which opens with its own key only",
        })
    }
}

/// Why a proof file proves nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProofError {
    /// Not the CBOR of a proof file.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The metadata is none, or of another capsule.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// A part is no record, head or header.
    #[error("{what} of the proof: {why}")]
    Record {
        /// Which part.
        what: &'static str,
        /// What is wrong with it.
        why: RecordError,
    },
    /// A config record does not hold.
    #[error("config record {number} of the proof is refused: {why}")]
    Config {
        /// Its place in the proof, from 0.
        number: usize,
        /// Why.
        why: Refused,
    },
    /// The writer's open record does not hold.
    #[error("the writer's open record is refused: {0}")]
    Opening(Refused),
    /// A part does not fit the others.
    #[error("the proof does not fit together: {0}; do not retry, ask for another proof")]
    Rule(&'static str),
    /// The head's signature is not the writer's.
    #[error("the head is not signed by its writer; do not retry")]
    Signature,
    /// The writer's right ends before the head.
    #[error(
        "the owner does not count the head: its writer is revoked or no longer certified; ask for a \
         proof from an earlier head"
    )]
    Revoked,
    /// The head or the record lies outside of the certificate's window.
    #[error(
        "a record's clock lies outside of the window of its writer's certificate; do not retry"
    )]
    Window,
    /// The path does not lead from the head to the record.
    #[error(transparent)]
    Path(#[from] PathError),
    /// The slice is not one of this record's body.
    #[error(transparent)]
    Slice(#[from] SliceError),
    /// The secret is not the record's, or the entry is none.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// An acknowledgement that says nothing about the head.
    #[error("acknowledgement {number} of the proof is refused: {why}")]
    Acknowledgement {
        /// Its place in the proof, from 0.
        number: usize,
        /// Why.
        why: AcknowledgementError,
    },
}

/// Why an acknowledgement in a proof counts for nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AcknowledgementError {
    /// Not signed by whom it names, or not an acknowledgement.
    #[error(transparent)]
    Statement(#[from] StatementError),
    /// It is about another head.
    #[error("it is about another head")]
    OtherHead,
    /// The configuration does not have this replica.
    #[error("its signer is not a replica of the configuration")]
    NotReplica,
    /// The replica spoke already.
    #[error("its signer spoke already: replicas ascend, each once")]
    Repeated,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct Fields {
    #[cbor(n(0), with = "minicbor::bytes")]
    metadata: Vec<u8>,
    #[cbor(n(1), decode_with = "wire::at_most::<CONFIG_RECORDS_MAX, _, _>")]
    config: Vec<ByteVec>,
    #[n(2)]
    opening: Option<ByteVec>,
    #[cbor(n(3), with = "minicbor::bytes")]
    head: Vec<u8>,
    #[cbor(n(4), decode_with = "wire::at_most::<PATH_HEADERS_MAX, _, _>")]
    path: Vec<ByteVec>,
    #[n(5)]
    entry: Option<EntryFields>,
    #[cbor(n(6), decode_with = "wire::at_most::<REPLICAS_MAX, _, _>")]
    acknowledgements: Vec<Signed<Acknowledgement>>,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct EntryFields {
    #[n(0)]
    index: u32,
    #[cbor(n(1), with = "minicbor::bytes")]
    secret: [u8; 32],
    #[cbor(n(2), with = "minicbor::bytes")]
    slice: Vec<u8>,
    #[n(3)]
    start: u32,
    #[n(4)]
    end: u32,
}

impl Proof {
    /// A proof that the last header of `path` (the head itself, when it is empty) is a record of the
    /// chain that `head` ends. `config` are the config records from 0 to one that the head names, or
    /// later; `opening` is the writer's open record, none for the owner.
    #[must_use]
    pub fn new(
        metadata: Metadata,
        config: Vec<Received>,
        opening: Option<Received>,
        head: SignedHead,
        path: Vec<Header>,
    ) -> Self {
        Self {
            metadata,
            config,
            opening,
            head,
            path,
            entry: None,
            acknowledgements: Vec::new(),
        }
    }

    /// Also shows an entry of the target. Whoever gets the proof can open `record` and no other.
    ///
    /// # Errors
    /// Not the target, not its secret, or no such entry.
    pub fn show(
        mut self,
        record: &Received,
        secret: RecordSecret,
        index: u32,
    ) -> Result<Self, ProofError> {
        if self.target().hash() != record.hash() {
            return Err(ProofError::Rule("the entry is of another record"));
        }
        let range = body::open(record, &secret)?
            .range(index as usize)
            .ok_or(ProofError::Rule("the record has no such entry"))?;
        let header = record.header();
        let ends = ends_around(header, index).ok_or(ProofError::Rule(NO_ENTRY))?;
        let cut = slice(header.suite, record.body(), &[range.clone(), ends])?;
        self.entry = Some(EntryProof {
            index,
            secret,
            slice: cut,
            // Positions in a body, which is far shorter than 4 GiB.
            start: range.start as u32,
            end: range.end as u32,
        });
        Ok(self)
    }

    /// Also shows that replicas hold the chain up to the head: at most one word of each is kept.
    #[must_use]
    pub fn acknowledged(
        mut self,
        words: impl IntoIterator<Item = Signed<Acknowledgement>>,
    ) -> Self {
        self.acknowledgements.extend(words);
        self.acknowledgements.sort_by_key(Signed::claimed_signer);
        self.acknowledgements
            .dedup_by_key(|word| word.claimed_signer());
        self
    }

    /// The canonical bytes. They hold the secret of the record that is shown.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let bytes = |record: &Received| ByteVec::from(record.as_bytes().to_vec());
        wire::encode(&Fields {
            metadata: self.metadata.as_bytes().to_vec(),
            config: self.config.iter().map(bytes).collect(),
            opening: self.opening.as_ref().map(bytes),
            head: self.head.as_bytes().to_vec(),
            path: self
                .path
                .iter()
                .map(|header| ByteVec::from(header.encode()))
                .collect(),
            entry: self.entry.as_ref().map(|entry| EntryFields {
                index: entry.index,
                secret: *entry.secret.expose(),
                slice: entry.slice.clone(),
                start: entry.start,
                end: entry.end,
            }),
            acknowledgements: self.acknowledgements.clone(),
        })
    }

    /// Reads a proof file; proves nothing yet.
    ///
    /// # Errors
    /// Too long, or not the one encoding of its parts.
    pub fn decode(bytes: &[u8]) -> Result<Self, ProofError> {
        let fields: Fields = wire::decode(bytes, PROOF_BYTES_MAX)?;
        let record = |what| {
            move |bytes: ByteVec| {
                Received::decode(bytes.into()).map_err(|why| ProofError::Record { what, why })
            }
        };
        Ok(Self {
            metadata: Metadata::decode(&fields.metadata)?,
            config: fields
                .config
                .into_iter()
                .map(record("a config record"))
                .collect::<Result<_, _>>()?,
            opening: fields.opening.map(record("the open record")).transpose()?,
            head: SignedHead::decode(&fields.head).map_err(|why| ProofError::Record {
                what: "the head",
                why,
            })?,
            path: fields
                .path
                .iter()
                .map(|bytes| whole_header(bytes))
                .collect::<Result<_, _>>()?,
            entry: fields.entry.map(|entry| EntryProof {
                index: entry.index,
                secret: RecordSecret::from_bytes(entry.secret),
                slice: entry.slice,
                start: entry.start,
                end: entry.end,
            }),
            acknowledgements: fields.acknowledgements,
        })
    }

    /// The capsule it claims to be about.
    #[must_use]
    pub const fn capsule(&self) -> CapsuleName {
        self.metadata.name()
    }

    /// Checks everything, from the capsule's name alone.
    ///
    /// # Errors
    /// The part that does not hold.
    pub fn verify(&self, name: &CapsuleName, policy: VerifierPolicy) -> Result<Proven, ProofError> {
        let found = self.metadata.name();
        if found != *name {
            let expected = *name;
            return Err(MetadataError::OtherName { expected, found }.into());
        }
        let mut verifier = Verifier::new(self.metadata.clone(), policy);
        for (number, record) in self.config.iter().enumerate() {
            let why = |why| ProofError::Config { number, why };
            if record.header().kind != Kind::Config {
                return Err(ProofError::Rule("a config record is of another kind"));
            }
            let verified = verifier.verify(record.clone()).map_err(why)?;
            verifier.apply(verified).map_err(why)?;
        }
        let head = self.head.header();
        let (authority, key) = self.authority(&mut verifier)?;
        self.head.verify(&key).map_err(|_| ProofError::Signature)?;
        let config = verifier.config();
        let target = self.target();
        verify_path(head, &self.path)?;
        self.check_chain(config)?;
        for header in [head, target] {
            self.check_rights(&authority, config, header)?;
        }
        let entry = self
            .entry
            .as_ref()
            .map(|entry| entry.open(target))
            .transpose()?;
        Ok(Proven {
            capsule: *name,
            config: config
                .head()
                .ok_or(ProofError::Rule("it has no config record"))?,
            head: self.head.head(),
            target: target.clone(),
            target_hash: target.hash(),
            acknowledged: self.acknowledged_by(config)?,
            quorum: config.quorum(),
            not_checked: not_checked(target, &authority, entry.as_ref()),
            authority,
            entry,
        })
    }

    /// The record that is proven.
    fn target(&self) -> &Header {
        self.path.last().unwrap_or(self.head.header())
    }

    /// The head's writer: why it may write, and its key.
    fn authority(&self, verifier: &mut Verifier) -> Result<(Authority, PublicKey), ProofError> {
        let writer = self.head.header().writer;
        let Some(opening) = &self.opening else {
            if writer != self.metadata.owner_id() {
                return Err(ProofError::Rule("the writer's open record is missing"));
            }
            return Ok((Authority::Owner, self.metadata.owner().clone()));
        };
        if opening.header().kind != Kind::Open || opening.header().writer != writer {
            return Err(ProofError::Rule(
                "the open record is not the head's writer's",
            ));
        }
        let verified = verifier
            .verify(opening.clone())
            .map_err(ProofError::Opening)?;
        verifier.apply(verified).map_err(ProofError::Opening)?;
        let chain = verifier
            .chain(&writer)
            .ok_or(ProofError::Rule("the open record opens no chain"))?;
        let authority = match chain.certificate() {
            Some(said) if !verifier.config().admits(&writer) => Authority::Certified {
                by: said.signer(),
                code: said.code.clone(),
                simulated: said.simulated,
                not_before: said.not_before,
                not_after: said.not_after,
            },
            _ => Authority::Admitted,
        };
        // spec/06 §5: a head beyond a revocation proves nothing about what lies before it
        if !chain
            .through(verifier.config())
            .includes(self.head.header().seq)
        {
            return Err(ProofError::Revoked);
        }
        Ok((authority, chain.key().clone()))
    }

    /// What the headers of one chain owe each other and the first record (`spec/06 §3`).
    fn check_chain(&self, config: &Config) -> Result<(), ProofError> {
        let rule = |holds: bool, rule| holds.then_some(()).ok_or(ProofError::Rule(rule));
        let head = self.head.header();
        rule(
            head.capsule == self.metadata.name() && head.suite == self.metadata.suite(),
            "the head is of another capsule",
        )?;
        let newest = config.head().map(|head| head.seq);
        rule(
            newest.is_some_and(|newest| head.config <= newest),
            "config records that the head names are missing",
        )?;
        let owned = config.is_owner(&head.writer);
        let mut above = head;
        for header in core::iter::once(head).chain(&self.path) {
            rule(
                header.clock <= above.clock
                    && header.epoch <= above.epoch
                    && header.config <= above.config,
                "clock, epoch or config runs backwards",
            )?;
            rule(
                owned == (header.kind == Kind::Config),
                "a record is in the wrong chain",
            )?;
            let close_within = header.kind == Kind::Close && header.seq != head.seq;
            rule(!close_within, "records follow a close")?;
            above = header;
        }
        for header in [head, self.target()] {
            let known = match &self.opening {
                // The verifier compared the config chain with its predecessors already.
                None => config.hash_at(header.seq),
                Some(opening) => (header.seq == 0).then(|| opening.hash()),
            };
            rule(
                known.is_none_or(|known| known == header.hash()),
                "a record contradicts one that the proof itself holds",
            )?;
        }
        Ok(())
    }

    /// Whether the writer had the right to write a record with this header.
    fn check_rights(
        &self,
        authority: &Authority,
        config: &Config,
        header: &Header,
    ) -> Result<(), ProofError> {
        if let Authority::Certified {
            not_before,
            not_after,
            ..
        } = authority
        {
            let time = header.clock.time();
            if time < *not_before || time >= *not_after {
                return Err(ProofError::Window);
            }
        }
        if header.kind == Kind::Data && header.generation != config.generation_at(header.config) {
            return Err(ProofError::Rule(
                "a record is sealed under another generation",
            ));
        }
        Ok(())
    }

    fn acknowledged_by(&self, config: &Config) -> Result<Vec<Acknowledged>, ProofError> {
        let mut counted: Vec<Acknowledged> = Vec::with_capacity(self.acknowledgements.len());
        for (number, word) in self.acknowledgements.iter().enumerate() {
            let refuse = |why| Err(ProofError::Acknowledgement { number, why });
            let said = match word.clone().verify_claimed() {
                Ok(said) => said,
                Err(why) => return refuse(why.into()),
            };
            if said.capsule != self.metadata.name() || said.head() != self.head.head() {
                return refuse(AcknowledgementError::OtherHead);
            }
            if !config.is_replica(&said.signer()) {
                return refuse(AcknowledgementError::NotReplica);
            }
            if counted
                .last()
                .is_some_and(|last| last.replica >= said.signer())
            {
                return refuse(AcknowledgementError::Repeated);
            }
            counted.push(Acknowledged {
                replica: said.signer(),
                kept: said.kept,
                at: said.at,
            });
        }
        Ok(counted)
    }
}

impl fmt::Debug for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Proof(of {}/{} from {})",
            self.target().writer.short(),
            self.target().seq,
            self.head.head()
        )
    }
}

impl EntryProof {
    /// Checks and decrypts the entry: its bytes, and the ends that say where it lies.
    fn open(&self, target: &Header) -> Result<ProvenEntry, ProofError> {
        if target.kind != Kind::Data {
            return Err(OpenError::NotData(target.kind).into());
        }
        // Before decrypting: else one ciphertext would open under two keys (spec/06 §4).
        let key = self.secret.body_key(target)?;
        let ends = ends_around(target, self.index).ok_or(ProofError::Rule(NO_ENTRY))?;
        let range = self.start as usize..self.end as usize;
        let ends_at = ends_at(target).ok_or(ProofError::Rule(NO_ENTRY))?;
        if range.is_empty() || range.end > ends_at {
            return Err(ProofError::Rule("the entry does not lie among the entries"));
        }
        let mut shown = open_slice(
            target.suite,
            &target.root,
            target.body_bytes as usize,
            &[range.clone(), ends.clone()],
            &self.slice,
        )?;
        let (Some(mut said), Some(bytes)) = (shown.pop(), shown.pop()) else {
            return Err(ProofError::Rule(NO_ENTRY));
        };
        let mut bytes = Zeroizing::new(bytes);
        decrypt(&key, ends.start, &mut said);
        decrypt(&key, range.start, &mut bytes);
        let claimed = match self.index {
            0 if self.start == 0 => self.end.to_be_bytes().to_vec(),
            0 => return Err(ProofError::Rule(OTHER_PLACE)),
            _ => [self.start.to_be_bytes(), self.end.to_be_bytes()].concat(),
        };
        if said != claimed {
            return Err(ProofError::Rule(OTHER_PLACE));
        }
        let place = EntryPlace {
            writer: target.writer,
            seq: target.seq,
            index: self.index,
        };
        let (suite, capsule) = (target.suite, target.capsule);
        if Entry::parse(&bytes, suite, capsule, place).is_none() {
            return Err(OpenError::Layout("an entry has no known form").into());
        }
        Ok(ProvenEntry {
            bytes,
            capsule,
            suite,
            place,
        })
    }
}

/// Where the ends begin in the plaintext, and so in the body.
fn ends_at(header: &Header) -> Option<usize> {
    let plaintext = (header.body_bytes as usize).checked_sub(TAG_BYTES)?;
    plaintext.checked_sub(header.count as usize * END_BYTES)
}

/// The two ends around an entry; one for entry 0. `None` when the record has no such entry.
fn ends_around(header: &Header, index: u32) -> Option<Range<usize>> {
    if index >= header.count {
        return None;
    }
    let (ends, index) = (ends_at(header)?, index as usize);
    Some(ends + index.saturating_sub(1) * END_BYTES..ends + (index + 1) * END_BYTES)
}

/// Decrypts what stands at `offset` of a body sealed with AES-256-GCM under nonce `0¹²`: that mode
/// counts blocks from 2 (NIST SP 800-38D §7.1). The root vouches for the bytes instead of the tag.
fn decrypt(key: &[u8; 32], offset: usize, bytes: &mut Vec<u8>) {
    let block = (2 + offset / BLOCK_BYTES) as u32;
    let mut counter = [0; BLOCK_BYTES];
    counter[12..].copy_from_slice(&block.to_be_bytes());
    let mut padded = Zeroizing::new(vec![0; offset % BLOCK_BYTES]);
    padded.extend_from_slice(bytes);
    let key = UnboundCipherKey::new(&AES_256, key).expect("AES-256 takes 32 bytes");
    DecryptingKey::ctr(key)
        .and_then(|key| {
            let context = DecryptionContext::Iv128(FixedLength::from(counter));
            key.decrypt(&mut padded, context).map(drop)
        })
        .expect("counter mode decrypts bytes of any length");
    bytes.copy_from_slice(&padded[offset % BLOCK_BYTES..]);
}

fn whole_header(bytes: &[u8]) -> Result<Header, ProofError> {
    let what = "a header of the path";
    let refuse = |why| ProofError::Record { what, why };
    let (header, used) = Header::decode_prefix(bytes).map_err(refuse)?;
    match bytes.len() - used {
        0 => Ok(header),
        extra => Err(refuse(RecordError::Trailing { extra })),
    }
}

fn not_checked(
    target: &Header,
    authority: &Authority,
    entry: Option<&ProvenEntry>,
) -> Vec<NotChecked> {
    let mut list = vec![NotChecked::Freshness, NotChecked::Forks];
    let mut also = |when: bool, what| {
        if when {
            list.push(what);
        }
    };
    also(
        matches!(authority, Authority::Certified { .. }),
        NotChecked::Arrival,
    );
    also(*authority != Authority::Owner, NotChecked::Between);
    also(
        !target.parents.is_empty() && target.kind != Kind::Open,
        NotChecked::Parents,
    );
    let data = target.kind == Kind::Data;
    also(data && entry.is_none(), NotChecked::Body);
    also(data && entry.is_some(), NotChecked::OtherEntries);
    also(
        entry.is_some_and(|entry| matches!(entry.entry(), Entry::Erasable(_))),
        NotChecked::ErasableContent,
    );
    list
}

const BLOCK_BYTES: usize = 16;
const NO_ENTRY: &str = "the record has no such entry";
const OTHER_PLACE: &str = "the entry lies elsewhere than the proof says";
