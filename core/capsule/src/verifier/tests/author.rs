//! Authors that write whatever they are told, right or wrong: the writers of `crate::Writer` cannot
//! break a rule, and tests must.

use bield_envelope::{Digest, Secret, Seeded, Signed, SigningKey, Time};

use crate::{
    Applied, CapsuleName, Change, Clock, Head, Header, Kind, Metadata, Opening, Received, Refused,
    SkipLevels, Suite, Verifier, VerifierPolicy, WriterCertificate, WriterId, WriterKey,
    encode_changes,
};

pub(crate) const START: u64 = 1_000_000;

/// One key and the chain it has written so far.
#[derive(Clone)]
pub(crate) struct Author {
    seed: u8,
    suite: Suite,
    capsule: CapsuleName,
    pub(crate) levels: SkipLevels,
    pub(crate) config: u64,
    pub(crate) millis: u64,
}

impl Author {
    pub(crate) fn new(suite: Suite, capsule: CapsuleName, seed: u8) -> Self {
        Self {
            seed,
            suite,
            capsule,
            levels: SkipLevels::new(),
            config: 0,
            millis: START,
        }
    }

    pub(crate) fn key(&self) -> WriterKey {
        WriterKey::from_seed(self.suite, Secret::from_bytes([self.seed; 32])).unwrap()
    }

    pub(crate) fn id(&self) -> WriterId {
        self.key().id()
    }

    pub(crate) fn head(&self) -> Head {
        Head {
            writer: self.id(),
            seq: self.levels.next() - 1,
            hash: self.levels.newest().unwrap(),
        }
    }

    /// The next header of the chain, right in everything.
    pub(crate) fn header(&self, kind: Kind, body: &[u8]) -> Header {
        let sealed = kind == Kind::Data;
        Header {
            suite: self.suite,
            kind,
            capsule: self.capsule,
            writer: self.id(),
            seq: self.levels.next(),
            epoch: 0,
            clock: Clock::at(Time::from_millis(self.millis)),
            config: if kind == Kind::Config {
                self.levels.next()
            } else {
                self.config
            },
            generation: u32::from(sealed),
            count: u32::from(sealed),
            body_bytes: body.len() as u32,
            prev: self.levels.prev(),
            salt: [u8::from(sealed); 16],
            commitment: [u8::from(sealed); 32],
            root: self.suite.root(body),
            parents: Vec::new(),
            skips: self.levels.skips(),
        }
    }

    /// Signs what it is given and moves on.
    pub(crate) fn write(&mut self, header: &Header, body: &[u8]) -> Received {
        let record = Received::sign(&self.key(), header, body).unwrap();
        self.levels.push(header.seq, record.hash());
        record
    }

    pub(crate) fn configure(&mut self, changes: &[Change]) -> Received {
        let body = encode_changes(changes);
        let mut header = self.header(Kind::Config, &body);
        header.count = changes.len() as u32;
        self.write(&header, &body)
    }

    pub(crate) fn open(&mut self, config: Head, certificate: Option<&[u8]>) -> Received {
        let body = Opening::encode(self.key().public(), certificate);
        self.config = config.seq;
        let mut header = self.header(Kind::Open, &body);
        header.parents = vec![config];
        self.write(&header, &body)
    }

    pub(crate) fn data(&mut self) -> Received {
        self.data_of(b"0123456789 0123456789 0123456789")
    }

    pub(crate) fn data_of(&mut self, body: &[u8]) -> Received {
        self.write(&self.header(Kind::Data, body), body)
    }

    pub(crate) fn join(&mut self, parents: &[Head]) -> Received {
        let mut header = self.header(Kind::Join, &[]);
        header.parents = parents.to_vec();
        header.parents.sort();
        self.write(&header, &[])
    }

    pub(crate) fn close(&mut self) -> Received {
        self.write(&self.header(Kind::Close, &[]), &[])
    }

    /// The certificate of `certifier` for this key, from `START` for one second.
    pub(crate) fn certificate(&self) -> WriterCertificate {
        WriterCertificate {
            capsule: self.capsule,
            writer: self.id(),
            code: None,
            simulated: false,
            not_before: Time::from_millis(START),
            not_after: Time::from_millis(START + 1000),
        }
    }
}

pub(crate) fn certifier(seed: u8) -> SigningKey {
    SigningKey::from_seed(Secret::from_bytes([seed; 32]))
}

pub(crate) fn certified(by: u8, certificate: WriterCertificate) -> Vec<u8> {
    Signed::sign(&certifier(by), certificate)
        .as_bytes()
        .to_vec()
}

/// A capsule, its owner, and a verifier that has its first config record: generation 1, and the
/// changes given.
pub(crate) struct Stage {
    pub(crate) owner: Author,
    pub(crate) verifier: Verifier,
}

impl Stage {
    pub(crate) fn new(suite: Suite, changes: &[Change]) -> Self {
        let owner = Author::new(suite, CapsuleName::from_bytes([0; 32]), 200);
        let metadata = Metadata::new(
            owner.key().public(),
            None,
            Time::from_millis(START),
            &mut Seeded::new(1),
        )
        .unwrap();
        let capsule = metadata.name();
        let mut stage = Self {
            owner: Author { capsule, ..owner },
            verifier: Verifier::new(metadata, VerifierPolicy::default()),
        };
        let mut all = vec![Change::Generation {
            number: 1,
            commitment: Digest::from_bytes([1; 32]),
        }];
        all.extend_from_slice(changes);
        stage.configure(&all);
        stage
    }

    /// A stage with one author whose key is admitted and whose chain is open.
    pub(crate) fn with_author() -> (Self, Author) {
        let mut stage = Self::new(Suite::Ed25519, &[]);
        let author = stage.admitted(1);
        (stage, author)
    }

    pub(crate) fn author(&self, seed: u8) -> Author {
        let metadata = self.verifier.metadata();
        Author::new(metadata.suite(), metadata.name(), seed)
    }

    /// Admits a new author by key, and applies its open record.
    pub(crate) fn admitted(&mut self, seed: u8) -> Author {
        let mut author = self.author(seed);
        self.configure(&[Change::admit(author.key().public())]);
        let open = author.open(self.owner.head(), None);
        self.accept(open);
        author
    }

    pub(crate) fn configure(&mut self, changes: &[Change]) -> Applied {
        let record = self.owner.configure(changes);
        self.accept(record)
    }

    pub(crate) fn take(&mut self, record: Received) -> Result<Applied, Refused> {
        let verified = self.verifier.verify(record)?;
        self.verifier.apply(verified)
    }

    pub(crate) fn accept(&mut self, record: Received) -> Applied {
        self.take(record).expect("a right record is accepted")
    }

    pub(crate) fn refusal(&self, record: &Received) -> Refused {
        self.verifier
            .verify(record.clone())
            .expect_err("a wrong record is refused")
    }
}

/// A record with its signature broken.
pub(crate) fn forged(record: &Received) -> Received {
    let mut bytes = record.as_bytes().to_vec();
    bytes[record.header_bytes().len() + 3] ^= 1;
    Received::decode(bytes).unwrap()
}
