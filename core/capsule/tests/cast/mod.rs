//! Who and what the vectors tell of: an owner, two writers, three replicas, and a fork.
//!
//! Everything but signatures follows from the seeds below. Suites 2 and 3 sign with randomness of
//! their own, so their frozen signatures are put under the headers that are made again.

use bield_capsule::{
    Acknowledgement, Batch, CapsuleName, Change, Entry, ForkProof, GenerationKey, Head, Header,
    HeadsStatement, Kept, KeyRing, Kind, Metadata, Proof, Received, RecordSecret, Suite, Verifier,
    VerifierPolicy, Writer, WriterCertificate, WriterKey, export_header, export_record, path,
    record_secret,
};
use bield_envelope::{Principal, Secret, Seeded, Signed, SigningKey, Time};

/// The cast's certificate says that its evidence is simulated.
pub(crate) const POLICY: VerifierPolicy = VerifierPolicy {
    allow_simulated: true,
    writers_max: 16,
};
pub(crate) const NONCE: [u8; 16] = [0x5a; 16];
/// An encoded measurement (spec 02): SGX, 32 bytes.
pub(crate) const CODE: [u8; 36] = {
    let mut code = [0xc0; 36];
    [code[0], code[1], code[2], code[3]] = [0x82, 0x01, 0x58, 0x20];
    code
};
/// A C2SP verifier key for cosignatures: seed 0x41…41; `bield-tlog` prints the same.
pub(crate) const WITNESS: &str =
    "witness.example/w1+a89e55c6+BNuZX+JRadFByrm7upK6oB+fLh7OffTLKsBRkPN/zB+d";

/// A record and what it is for.
pub(crate) struct Told {
    pub(crate) what: &'static str,
    pub(crate) record: Received,
}

pub(crate) struct Cast {
    pub(crate) suite: Suite,
    pub(crate) metadata: Metadata,
    pub(crate) owner: WriterKey,
    pub(crate) alice: WriterKey,
    pub(crate) bob: WriterKey,
    pub(crate) certifier: SigningKey,
    pub(crate) replicas: [SigningKey; 3],
    pub(crate) keys: KeyRing,
    pub(crate) entry_key: Secret,
    pub(crate) certificate: Signed<WriterCertificate>,
    /// In an order in which each comes after what it builds on.
    pub(crate) told: Vec<Told>,
    /// Bob's other story for seq 2.
    pub(crate) forked: Received,
}

/// Puts frozen signatures under records, in the order in which they are made.
struct Signatures<'a>(Option<&'a [Vec<u8>]>, usize);

impl Signatures<'_> {
    fn under(&mut self, record: Received) -> Received {
        let Some(signature) = self.0.and_then(|frozen| frozen.get(self.1)) else {
            return record;
        };
        self.1 += 1;
        let bytes = [record.header_bytes(), signature, record.body()].concat();
        Received::decode(bytes).unwrap()
    }
}

impl Cast {
    pub(crate) fn new(suite: Suite, frozen: Option<&[Vec<u8>]>) -> Self {
        let mut signatures = Signatures(frozen, 0);
        let mut entropy = Seeded::new(u64::from(suite.number()));
        let key = |byte| WriterKey::from_seed(suite, Secret::from_bytes([byte; 32])).unwrap();
        let principal = |byte| SigningKey::from_seed(Secret::from_bytes([byte; 32]));
        let (certifier, replicas) = (principal(0x21), [0x31, 0x32, 0x33].map(principal));
        let metadata =
            Metadata::new(key(0x11).public(), Some("vectors"), at(0), &mut entropy).unwrap();
        let capsule = metadata.name();
        let certificate = Signed::sign(
            &certifier,
            WriterCertificate {
                capsule,
                writer: key(0x12).id(),
                code: Some(CODE.to_vec()),
                simulated: true,
                not_before: at(0),
                not_after: at(1000),
            },
        )
        .into_signed();
        let mut told = Vec::new();
        let mut tell = |what, record: Received| {
            told.push(Told {
                what,
                record: signatures.under(record),
            });
        };

        // The owner opens the capsule.
        let mut changes = vec![
            Change::Certify(certifier.principal()),
            Change::admit(key(0x13).public()),
            Change::Generation {
                number: 1,
                commitment: generation(1).commitment(&metadata),
            },
        ];
        for (n, replica) in replicas.iter().enumerate() {
            changes.push(Change::Replica {
                principal: replica.principal(),
                address: format!("https://replica-{n}.example"),
            });
        }
        changes.push(Change::Quorum {
            replicas: 2,
            witnesses: 0,
        });
        let (mut owner, record) = Writer::owner(key(0x11), &metadata, &changes, at(1)).unwrap();
        let first = record.head();
        tell(
            "config: certify, admit, generation 1, three replicas, quorum",
            record,
        );

        // Two writers, one with a certificate, one without.
        let signed = certificate.as_bytes();
        let (mut alice, record) =
            Writer::open(key(0x12), &metadata, first, Some(signed), at(2)).unwrap();
        tell("open: alice, with a certificate", record);
        let [bob_open, bob_one, bob_two] = bobs_story(&metadata, first, b"one story");
        let [_, _, forked] = bobs_story(&metadata, first, b"another story");
        let bobs = bob_one.head();
        tell("open: bob, whose key the owner admitted", bob_open);

        let mut seal = |writer: &mut Writer, batch: &Batch, n: u8, parents: &[Head], now| {
            let generation = generation(n);
            writer
                .seal(batch, &generation, parents, at(now), &mut entropy)
                .unwrap()
        };
        let record = seal(&mut alice, &batch(&[b"hello"]), 1, &[], 4);
        tell("data: one entry", record);
        let several = batch(&[b"first", b"", &[7; 40]]);
        let record = seal(&mut alice, &several, 1, &[], 5);
        tell("data: several entries, one empty", record);
        tell("data: bob's", bob_one);

        let mut erasable = batch(&[b"stays"]);
        let mut draw = Seeded::new(77);
        let entry_key = erasable
            .push_erasable(suite, &capsule, b"may be erased", &mut draw)
            .unwrap();
        let record = seal(&mut alice, &erasable, 1, &[bobs], 7);
        tell("data: an erasable entry; names bob's head", record);

        let mut configure = |changes: &[Change], now| owner.configure(changes, at(now)).unwrap();
        let record = configure(
            &[
                Change::Codes {
                    principal: certifier.principal(),
                    codes: vec![CODE.to_vec()],
                },
                Change::Witness(WITNESS.to_owned()),
                Change::Quota(1 << 30),
            ],
            8,
        );
        tell("config: codes, witness, quota", record);
        let commitment = generation(2).commitment(&metadata);
        let record = configure(
            &[Change::Generation {
                number: 2,
                commitment,
            }],
            9,
        );
        alice.adopt_config(record.head()).unwrap();
        tell("config: generation 2", record);

        let record = seal(&mut alice, &batch(&[b"generation 2"]), 2, &[], 10);
        tell("data: generation 2", record);
        let record = alice.join(vec![bobs], 1, at(11)).unwrap();
        tell("join: epoch 1", record);
        // Suite 3 has signatures of 2420 bytes: its chain is shorter, to keep the file small.
        if suite != Suite::MlDsa44 {
            for now in [12, 13, 14] {
                let record = seal(&mut alice, &batch(&[&[now as u8; 3]]), 2, &[], now);
                tell("data", record);
            }
            let large = batch(&[&[1; 1500], &[2; 1500], &[3; 1500], b"last"]);
            let record = seal(&mut alice, &large, 2, &[], 15);
            tell("data: a body of several chunks and pieces", record);
        }
        let record = alice.close(at(16)).unwrap();
        tell("close", record);

        // Bob tells two stories; the owner cuts his chain before them.
        tell("data: bob's seq 2, one story", bob_two);
        let record = configure(
            &[
                Change::Revoke {
                    writer: key(0x13).id(),
                    last: Some(bobs.into()),
                },
                Change::Erase(1),
                Change::Unreplica(replicas[2].principal()),
            ],
            18,
        );
        tell(
            "config: bob revoked after seq 1, generation 1 erased",
            record,
        );
        let forked = signatures.under(forked);

        let mut keys = KeyRing::new();
        keys.insert(generation(1)).unwrap();
        keys.insert(generation(2)).unwrap();
        Self {
            suite,
            metadata,
            owner: key(0x11),
            alice: key(0x12),
            bob: key(0x13),
            certifier,
            replicas,
            keys,
            entry_key,
            certificate,
            told,
            forked,
        }
    }

    pub(crate) fn name(&self) -> CapsuleName {
        self.metadata.name()
    }

    pub(crate) fn chain(&self, key: &WriterKey) -> Vec<&Received> {
        let mut chain: Vec<_> = self.told.iter().map(|told| &told.record).collect();
        chain.retain(|record| record.header().writer == key.id());
        chain
    }

    /// From alice's close down to `seq`.
    pub(crate) fn path(&self, seq: u64) -> Vec<Header> {
        let chain = self.chain(&self.alice);
        let headers = |seq: u64| Some(chain.get(seq as usize)?.header().clone());
        path(chain.last().unwrap().header(), seq, &headers).unwrap()
    }

    /// A proof that alice wrote `entry` of `seq`, from her close.
    pub(crate) fn proof(&self, seq: u64, entry: Option<u32>) -> Proof {
        let chain = self.chain(&self.alice);
        let cloned = |records: Vec<&Received>| records.into_iter().cloned().collect();
        let proof = Proof::new(
            self.metadata.clone(),
            cloned(self.chain(&self.owner)),
            Some(chain[0].clone()),
            chain.last().unwrap().signed_head(),
            self.path(seq),
        )
        .acknowledged(self.acknowledgements());
        let record = chain[seq as usize];
        match entry {
            None => proof,
            Some(index) => proof.show(record, self.secret(record), index).unwrap(),
        }
    }

    pub(crate) fn secret(&self, record: &Received) -> RecordSecret {
        record_secret(record, &self.keys).unwrap()
    }

    /// What a reader sees in a record that is told of: form and payload of each entry.
    pub(crate) fn entries(&self, record: &Received) -> Vec<(u8, Vec<u8>)> {
        let mut verifier = Verifier::new(self.metadata.clone(), POLICY);
        for told in &self.told {
            let verified = verifier.verify(told.record.clone()).unwrap();
            if told.record == *record {
                let entries = verified.open(&self.keys).unwrap();
                let seen = |entry| match entry {
                    Entry::Plain(payload) => (0, payload.to_vec()),
                    Entry::Erasable(sealed) => {
                        (1, sealed.open_with(&self.entry_key).unwrap().to_vec())
                    }
                };
                return entries.iter().map(seen).collect();
            }
            verifier.apply(verified).unwrap();
        }
        Vec::new()
    }

    /// Two replicas on alice's close.
    pub(crate) fn acknowledgements(&self) -> Vec<Signed<Acknowledgement>> {
        let head = self.chain(&self.alice).last().unwrap().head();
        let words = self.replicas[..2].iter().zip([Kept::Synced, Kept::Written]);
        words
            .map(|(replica, kept)| {
                let word = Acknowledgement::of(self.name(), head, kept, at(20));
                Signed::sign(replica, word).into_signed()
            })
            .collect()
    }

    /// One replica's answer to a nonce.
    pub(crate) fn heads(&self) -> Signed<HeadsStatement> {
        let mut heads = [&self.alice, &self.bob].map(|key| self.chain(key).last().unwrap().head());
        heads.sort();
        let config = self.chain(&self.owner).last().map(|record| record.head());
        let page = HeadsStatement::page(self.name(), NONCE, at(21), config, None, heads);
        Signed::sign(&self.replicas[0], page).into_signed()
    }

    pub(crate) fn fork(&self) -> ForkProof {
        let one = self.chain(&self.bob)[2].signed_head();
        let other = self.forked.signed_head();
        ForkProof::new(&self.metadata, self.bob.public(), one, other).unwrap()
    }

    /// What counts with the whole configuration, its records first.
    pub(crate) fn exported(&self) -> Vec<&Received> {
        let mut verifier = Verifier::new(self.metadata.clone(), POLICY);
        let mut counts = |record: &&Received| {
            let verified = verifier.verify(Received::clone(record));
            verified.is_ok_and(|verified| verifier.apply(verified).is_ok())
        };
        let (config, other): (Vec<_>, Vec<_>) = self
            .told
            .iter()
            .map(|told| &told.record)
            .partition(|record| record.header().kind == Kind::Config);
        let records = config.into_iter().chain(other);
        records.filter(|record| counts(record)).collect()
    }

    pub(crate) fn export(&self) -> Vec<u8> {
        let mut file = export_header(&self.metadata);
        for record in self.exported() {
            export_record(record, &mut file);
        }
        file
    }

    pub(crate) fn principals(&self) -> Vec<Principal> {
        self.replicas.iter().map(SigningKey::principal).collect()
    }
}

/// Bob's chain up to seq 2; the same up to seq 1 whatever `last` is.
fn bobs_story(metadata: &Metadata, config: Head, last: &[u8]) -> [Received; 3] {
    let suite = metadata.suite();
    let key = WriterKey::from_seed(suite, Secret::from_bytes([0x13; 32])).unwrap();
    let mut entropy = Seeded::new(500);
    let (mut bob, open) = Writer::open(key, metadata, config, None, at(3)).unwrap();
    let mut seal = |entry, now| {
        let generation = generation(1);
        bob.seal(&batch(&[entry]), &generation, &[], at(now), &mut entropy)
            .unwrap()
    };
    [open, seal(b"from bob", 6), seal(last, 17)]
}

pub(crate) fn generation(number: u8) -> GenerationKey {
    GenerationKey::from_secret(number.into(), Secret::from_bytes([0x60 + number; 32]))
}

fn batch(entries: &[&[u8]]) -> Batch {
    let mut batch = Batch::new();
    entries.iter().for_each(|entry| batch.push(entry).unwrap());
    batch
}

/// `n` seconds after the capsule was made.
pub(crate) fn at(n: u64) -> Time {
    Time::from_secs(1_800_000_000 + n)
}
