//! What a verifier remembers of one writer: enough to judge the next record, and no record.

use bield_envelope::{Digest, Verified};

use crate::record::Received;
use crate::{
    CertificateError, Clock, Config, Head, Kind, PublicKey, Refused, SignedHead, SkipLevels,
    Through, WriterCertificate, WriterId,
};

/// One writer's chain, as far as it was applied. About 1 KiB.
#[derive(Clone, Debug)]
pub struct Chain {
    key: PublicKey,
    certificate: Option<Verified<WriterCertificate>>,
    levels: SkipLevels,
    signed: SignedHead,
    epoch: u64,
    clock: Clock,
    config: u64,
    closed: bool,
    forked: Option<u64>,
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
            signed: record.signed_head(),
            epoch: 0,
            clock: Clock::default(),
            config: 0,
            closed: false,
            forked: None,
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
        if signature_checked {
            self.signed = record.signed_head();
        }
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

    pub(super) fn mark_forked(&mut self, seq: u64) {
        self.forked = Some(self.forked.map_or(seq, |known| known.min(seq)));
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

    /// The newest record whose own signature was checked: the tip, unless the last run was applied in
    /// part.
    #[must_use]
    pub const fn signed_head(&self) -> &SignedHead {
        &self.signed
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

    /// The lowest position known to have two records.
    #[must_use]
    pub const fn forked(&self) -> Option<u64> {
        self.forked
    }

    /// How much of the chain counts under `config`: what was revoked, or lost its certifier, counts no
    /// more, although it was applied.
    #[must_use]
    pub fn through(&self, config: &Config) -> Through {
        match admission(config, &self.writer(), self.certificate.as_ref()) {
            Ok(_) => config.through(&self.writer()),
            Err(_) => Through::Nothing,
        }
    }

    /// Header hash at `seq`, when it is the tip.
    pub(super) fn hash_at(&self, seq: u64) -> Option<Digest> {
        let tip = self.tip();
        (tip.seq == seq).then_some(tip.hash)
    }
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
