//! Signs what no writer would: any header over any body, with the seeds of the cast. Suite 1 only.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::signature::Ed25519KeyPair;
use bield_capsule::{Header, Kind, Metadata, Received, Suite, skips_at};
use bield_envelope::{Digest, Statement, wire};
use minicbor::Encoder;

use crate::cast::generation;

pub(super) const SUITE: Suite = Suite::Ed25519;
pub(super) const OWNER: u8 = 0x11;
pub(super) const ALICE: u8 = 0x12;
pub(super) const BOB: u8 = 0x13;

/// Header bytes, signed, and a body.
pub(super) fn signed(seed: u8, header: &[u8], body: &[u8]) -> Vec<u8> {
    let hash = SUITE.hash("bield capsule header v1", &[header]);
    let message = [b"bield capsule record v1\0", &hash.as_bytes()[..]].concat();
    [header, &sign(seed, &message), body].concat()
}

fn sign(seed: u8, message: &[u8]) -> Vec<u8> {
    let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
    pair.sign(message).as_ref().to_vec()
}

/// `record` with an altered header, and the same body.
pub(super) fn altered(seed: u8, record: &Received, alter: impl FnOnce(&mut Header)) -> Vec<u8> {
    let mut header = record.header().clone();
    alter(&mut header);
    signed(seed, &header.encode(), record.body())
}

/// `record` with altered header bytes, and the same body.
pub(super) fn patched(seed: u8, record: &Received, at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut header = record.header_bytes().to_vec();
    header[at..][..bytes.len()].copy_from_slice(bytes);
    signed(seed, &header, record.body())
}

/// The end of a chain, to which any record can be added.
pub(super) struct Line {
    pub(super) seed: u8,
    pub(super) hashes: Vec<Digest>,
    last: Header,
}

impl Line {
    pub(super) fn of(seed: u8, records: &[&Received]) -> Self {
        Self {
            seed,
            hashes: records.iter().map(|record| record.hash()).collect(),
            last: records[records.len() - 1].header().clone(),
        }
    }

    /// The next header: like the last one, without what its kind may not have.
    pub(super) fn header(&self, kind: Kind, body: &[u8]) -> Header {
        let seq = self.hashes.len() as u64;
        let back = |level: usize| self.hashes[self.hashes.len() - (1 << level)];
        let skips = (1..=skips_at(seq)).map(back).collect();
        Header {
            kind,
            seq,
            config: if kind == Kind::Config {
                seq
            } else {
                self.last.config
            },
            generation: 0,
            count: 0,
            body_bytes: body.len() as u32,
            prev: back(0),
            salt: [0; 16],
            commitment: [0; 32],
            root: SUITE.root(body),
            parents: Vec::new(),
            skips,
            ..self.last.clone()
        }
    }

    pub(super) fn make(&self, kind: Kind, body: &[u8], alter: impl FnOnce(&mut Header)) -> Vec<u8> {
        let mut header = self.header(kind, body);
        alter(&mut header);
        signed(self.seed, &header.encode(), body)
    }

    /// A config record with `count` changes in `body`.
    pub(super) fn config(&self, count: u32, body: &[u8]) -> Vec<u8> {
        self.make(Kind::Config, body, |header| header.count = count)
    }

    /// A data record with any plaintext, under a generation of the cast.
    pub(super) fn sealed(&self, number: u8, count: u32, plaintext: &[u8]) -> Vec<u8> {
        let (header, body) = self.seal(number, count, plaintext);
        signed(self.seed, &header.encode(), &body)
    }

    pub(super) fn seal(&self, number: u8, count: u32, plaintext: &[u8]) -> (Header, Vec<u8>) {
        let mut header = self.header(Kind::Data, &[]);
        header.generation = number.into();
        header.count = count;
        header.body_bytes = plaintext.len() as u32 + 16;
        header.salt = [7; 16];
        let mut secret = [0; 32];
        let label = "bield capsule record v1";
        derive(
            generation(number).secret().expose(),
            label,
            &[&header.encode()[..168]],
            &mut secret,
        );
        let mut both = [0; 64];
        derive(&secret, "bield capsule open v1", &[], &mut both);
        header.commitment.copy_from_slice(&both[32..]);
        let bytes = header.encode();
        let aad = [&bytes[..200], &bytes[232..]].concat();
        let mut body = plaintext.to_vec();
        let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &both[..32]).unwrap());
        let nonce = Nonce::assume_unique_for_key([0; 12]);
        key.seal_in_place_append_tag(nonce, Aad::from(aad), &mut body)
            .unwrap();
        header.root = SUITE.root(&body);
        (header, body)
    }
}

/// Suite 1's derivation, once more.
fn derive(key: &[u8; 32], label: &str, parts: &[&[u8]], output: &mut [u8]) {
    let mut hasher = blake3::Hasher::new_keyed(key);
    for part in [&[label.as_bytes()], parts].concat() {
        hasher.update(&(part.len() as u64).to_be_bytes());
        hasher.update(part);
    }
    hasher.finalize_xof().fill(output);
}

/// A statement by the holder of `seed` with any payload (spec 01 §4).
pub(super) fn said<T: Statement>(seed: u8, payload: &[u8]) -> Vec<u8> {
    let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
    let public = aws_lc_rs::signature::KeyPair::public_key(&pair)
        .as_ref()
        .to_vec();
    let protected = cbor(|e| e.map(2)?.u8(1)?.i8(-8)?.u8(4)?.bytes(&public)?.ok());
    let covered = cbor(|e| {
        e.array(4)?.str("Signature1")?.bytes(&protected)?;
        e.bytes(T::DOMAIN.as_bytes())?.bytes(payload)?.ok()
    });
    cbor(|e| {
        e.tag(minicbor::data::Tag::new(18))?
            .array(4)?
            .bytes(&protected)?
            .map(0)?;
        e.bytes(payload)?.bytes(&sign(seed, &covered))?.ok()
    })
}

pub(super) fn say<T: Statement>(seed: u8, statement: &T) -> Vec<u8> {
    said::<T>(seed, &wire::encode(statement))
}

/// CBOR by hand.
pub(super) fn cbor(
    write: impl FnOnce(
        &mut Encoder<&mut Vec<u8>>,
    ) -> Result<(), minicbor::encode::Error<core::convert::Infallible>>,
) -> Vec<u8> {
    let mut bytes = Vec::new();
    write(&mut Encoder::new(&mut bytes)).unwrap();
    bytes
}

/// Index, secret, slice, start, end.
pub(super) type Shown = (u32, [u8; 32], Vec<u8>, u32, u32);

/// The parts of a proof file, each to be replaced.
#[derive(Clone)]
pub(super) struct Parts {
    pub(super) metadata: Vec<u8>,
    pub(super) config: Vec<Vec<u8>>,
    pub(super) opening: Option<Vec<u8>>,
    pub(super) head: Vec<u8>,
    pub(super) path: Vec<Vec<u8>>,
    pub(super) entry: Option<Shown>,
    pub(super) words: Vec<Vec<u8>>,
}

impl Parts {
    pub(super) fn encode(&self) -> Vec<u8> {
        let fields = 5 + u64::from(self.opening.is_some()) + u64::from(self.entry.is_some());
        cbor(|e| {
            e.map(fields)?.u8(0)?.bytes(&self.metadata)?;
            e.u8(1)?.array(self.config.len() as u64)?;
            self.config
                .iter()
                .try_for_each(|one| e.bytes(one).map(drop))?;
            if let Some(opening) = &self.opening {
                e.u8(2)?.bytes(opening)?;
            }
            e.u8(3)?
                .bytes(&self.head)?
                .u8(4)?
                .array(self.path.len() as u64)?;
            self.path
                .iter()
                .try_for_each(|one| e.bytes(one).map(drop))?;
            if let Some((index, secret, slice, start, end)) = &self.entry {
                e.u8(5)?.map(5)?.u8(0)?.u32(*index)?.u8(1)?.bytes(secret)?;
                e.u8(2)?
                    .bytes(slice)?
                    .u8(3)?
                    .u32(*start)?
                    .u8(4)?
                    .u32(*end)?;
            }
            e.u8(6)?.array(self.words.len() as u64)?;
            self.words.iter().try_for_each(|one| e.bytes(one).map(drop))
        })
    }
}

pub(super) fn fork(metadata: &[u8], key: &[u8], first: &[u8], second: &[u8]) -> Vec<u8> {
    cbor(|e| {
        e.map(4)?.u8(0)?.bytes(metadata)?.u8(1)?.bytes(key)?;
        e.u8(2)?.bytes(first)?.u8(3)?.bytes(second)?.ok()
    })
}

/// An export of these records, in this order.
pub(super) fn export(metadata: &Metadata, records: &[&[u8]]) -> Vec<u8> {
    let mut file = bield_capsule::export_header(metadata);
    for record in records {
        file.extend_from_slice(&(record.len() as u32).to_be_bytes());
        file.extend_from_slice(record);
    }
    file
}
