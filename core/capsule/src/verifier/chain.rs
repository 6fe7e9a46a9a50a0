//! What a verifier remembers of one writer: enough to judge the next record, and no record.

use std::sync::Arc;

use bield_envelope::{Digest, Verified};

use crate::record::Received;
use crate::{
    CertificateError, Clock, Config, Head, Header, Kind, Last, PublicKey, Refused, SignedHead,
    SkipLevels, Through, WriterCertificate, WriterId,
};

/// One writer's chain, as far as it was applied. About 1 KiB; 75 KiB more when its newest record that
/// names parents names as many as it may.
#[derive(Clone, Debug)]
pub struct Chain {
    key: PublicKey,
    certificate: Option<Verified<WriterCertificate>>,
    levels: SkipLevels,
    /// Header and signature of the newest record whose signature was checked.
    signed: Arc<[u8]>,
    /// The newest record that named parents after the opening; often the same bytes.
    joined: Option<Arc<[u8]>>,
    epoch: u64,
    clock: Clock,
    config: u64,
    closed: bool,
    /// What storage said of the position where a revocation cut the chain below its tip.
    stored: Option<Last>,
}

impl Chain {
    /// The chain after its first record.
    pub(super) fn start(
        key: PublicKey,
        certificate: Option<Verified<WriterCertificate>>,
        record: &Received,
    ) -> Self {
        let mut chain = Self {
            key,
            certificate,
            levels: SkipLevels::new(),
            signed: signed_bytes(record),
            joined: None,
            epoch: 0,
            clock: Clock::default(),
            config: 0,
            closed: false,
            stored: None,
        };
        chain.extend(record, true);
        chain
    }

    /// Moves on to the next record, which was checked with [`Chain::precedes`].
    pub(super) fn extend(&mut self, record: &Received, signature_checked: bool) {
        let header = record.header();
        self.levels.push(header.seq, record.hash());
        self.epoch = header.epoch;
        self.clock = header.clock;
        self.config = header.config;
        self.closed = header.kind == Kind::Close;
        let joins = header.kind != Kind::Open && !header.parents.is_empty();
        if signature_checked {
            self.signed = signed_bytes(record);
        }
        if joins && signature_checked {
            self.joined = Some(Arc::clone(&self.signed));
        } else if joins {
            self.joined = Some(record.header_bytes().into());
        }
    }

    /// Moves on to a later record, whose signature was checked; `levels` end with it.
    pub(super) fn skip_to(&mut self, tip: &SignedHead, levels: SkipLevels) {
        let header = tip.header();
        self.levels = levels;
        self.signed = tip.as_bytes().into();
        self.epoch = header.epoch;
        self.clock = header.clock;
        self.config = header.config;
        self.closed = header.kind == Kind::Close;
    }

    /// Whether `record` continues the chain (`spec/06 §3`); it has the next seq.
    pub(super) fn precedes(&self, record: &Received) -> Result<(), Refused> {
        let header = record.header();
        if self.closed {
            return Err(Refused::Closed {
                writer: self.writer(),
            });
        }
        if header.prev != self.levels.prev() {
            return Err(Refused::Prev);
        }
        if !self.levels.are(&header.skips) {
            return Err(Refused::Skips);
        }
        if header.clock < self.clock {
            return Err(Refused::Clock {
                before: self.clock,
                found: header.clock,
            });
        }
        if header.epoch < self.epoch {
            return Err(Refused::Epoch {
                before: self.epoch,
                found: header.epoch,
            });
        }
        if header.config < self.config {
            return Err(Refused::ConfigBackwards {
                before: self.config,
                found: header.config,
            });
        }
        Ok(())
    }

    /// Forgets what a chain that counts for nothing needs no more.
    pub(super) fn shrink(&mut self) {
        self.joined = None;
    }

    /// What storage says of a position of this chain.
    pub(super) const fn remember(&mut self, stored: Last) {
        self.stored = Some(stored);
    }

    /// The newest record that named parents after the opening: its position, and they.
    pub(super) fn joined(&self) -> Option<(u64, Vec<Head>)> {
        let (header, _) = Header::decode_prefix(self.joined.as_deref()?).ok()?;
        Some((header.seq, header.parents))
    }

    /// Whose chain.
    #[must_use]
    pub const fn writer(&self) -> WriterId {
        self.key.id()
    }

    /// The key that signs it.
    #[must_use]
    pub const fn key(&self) -> &PublicKey {
        &self.key
    }

    /// The certificate in its open record.
    #[must_use]
    pub const fn certificate(&self) -> Option<&Verified<WriterCertificate>> {
        self.certificate.as_ref()
    }

    /// The newest record applied.
    #[must_use]
    pub fn tip(&self) -> Head {
        Head {
            writer: self.writer(),
            seq: self.levels.next() - 1,
            hash: self.levels.prev(),
        }
    }

    /// The newest record whose own signature was checked, or that came from own storage: the tip, unless
    /// the last run was applied in part.
    ///
    /// # Panics
    /// Never: these bytes were decoded before.
    #[must_use]
    pub fn signed_head(&self) -> SignedHead {
        SignedHead::decode(&self.signed).expect("bytes of a decoded record")
    }

    /// Skip hashes for the next record, for [`crate::Writer::resume`].
    #[must_use]
    pub const fn levels(&self) -> &SkipLevels {
        &self.levels
    }

    /// The clock of the tip.
    #[must_use]
    pub const fn clock(&self) -> Clock {
        self.clock
    }

    /// The epoch of the tip.
    #[must_use]
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The newest config record that the writer had verified.
    #[must_use]
    pub const fn config(&self) -> u64 {
        self.config
    }

    /// Whether the writer said that nothing follows.
    #[must_use]
    pub const fn closed(&self) -> bool {
        self.closed
    }

    /// How much of the chain counts under `config`: what was revoked, or lost its certifier, counts no
    /// more, although it was applied; and nothing counts when the owner names another record at the cut
    /// than the chain has.
    #[must_use]
    pub fn through(&self, config: &Config) -> Through {
        let writer = self.writer();
        let admitted = admission(config, &writer, self.certificate.as_ref()).is_ok();
        let other = |last: Last| self.hash_at(last.seq).is_some_and(|hash| hash != last.hash);
        if admitted && !config.last(&writer).is_some_and(other) {
            config.through(&writer)
        } else {
            Through::Nothing
        }
    }

    /// Where the chain is cut below its tip, when it is not known whether its record there is the one
    /// that the owner named: see [`crate::Verifier::compare_cut`].
    #[must_use]
    pub fn unchecked_cut(&self, config: &Config) -> Option<Last> {
        let last = config.last(&self.writer())?;
        let below = last.seq < self.tip().seq;
        (below && self.hash_at(last.seq).is_none()).then_some(last)
    }

    /// Header hash at `seq`, where it is known without storage.
    pub(super) fn hash_at(&self, seq: u64) -> Option<Digest> {
        let stored = self.stored.filter(|stored| stored.seq == seq);
        let stored = stored.map(|stored| stored.hash);
        stored.or_else(|| self.levels.hash_at(seq))
    }
}

fn signed_bytes(record: &Received) -> Arc<[u8]> {
    let length = record.header_bytes().len() + record.signature().len();
    record.as_bytes()[..length].into()
}

/// Whether a writer is admitted, and the certificate that bounds it: none when the owner admitted its
/// key (`spec/06 §5`).
pub(super) fn admission<'a>(
    config: &Config,
    writer: &WriterId,
    certificate: Option<&'a Verified<WriterCertificate>>,
) -> Result<Option<&'a WriterCertificate>, CertificateError> {
    if config.admits(writer) || config.is_owner(writer) {
        return Ok(None);
    }
    let certificate = certificate.ok_or(CertificateError::Absent)?;
    config.counts(&certificate.signer(), certificate)?;
    Ok(Some(certificate))
}
