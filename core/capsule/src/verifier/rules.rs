//! Every rule a record must obey, in the order of their cost: fields first, hashes that are known
//! already, signatures last, so that a forger spends more than it makes others spend.

use core::time::Duration;

use bield_envelope::Verified as VerifiedStatement;

use super::chain::{Chain, admission};
use super::{Context, Verifier};
use crate::{
    CertificateError, Config, Kind, Opening, Received, Refused, Through, WriterCertificate,
    decode_changes,
};

/// How far a replica's clock may be from the writer's when it compares arrivals (`spec/06 §6`).
pub const ARRIVAL_GRACE: Duration = Duration::from_secs(60);

/// What a record that obeys the rules does.
pub(super) enum Effect {
    /// Begins a writer's chain.
    Opens(Box<Opening>),
    /// Begins or continues the config chain.
    Configures(Box<Config>),
    /// Continues a chain.
    Extends,
}

/// The state that a record is judged against: the verifier's, or that in the middle of a run.
pub(super) struct State<'a> {
    pub(super) config: &'a Config,
    pub(super) chain: Option<&'a Chain>,
}

impl Verifier {
    /// Everything but the record's own signature.
    pub(super) fn judge(
        &self,
        state: &State<'_>,
        record: &Received,
        context: &Context<'_>,
    ) -> Result<Effect, Refused> {
        let header = record.header();
        let State { config, chain } = *state;
        if header.capsule != self.metadata.name() {
            return Err(Refused::OtherCapsule {
                found: header.capsule,
            });
        }
        // spec/06 §1: a capsule has one suite for its whole life
        if header.suite != self.metadata.suite() {
            return Err(Refused::OtherSuite);
        }
        // spec/06 §3: the owner's chain has config records and no others, and no other chain has any
        if config.is_owner(&header.writer) != (header.kind == Kind::Config) {
            return Err(Refused::OwnerKind);
        }
        // spec/06 §5: revocations count whatever the record's own `config` says
        match config.through(&header.writer) {
            through if through.includes(header.seq) => {}
            Through::Last(last) => return Err(revoked(record, Some(last))),
            _ => return Err(revoked(record, None)),
        }
        self.place(state, record, context)?;
        // spec/06 §5: a record whose `config` is larger than the newest known waits. A config record
        // names itself.
        let have = config.head().map(|head| head.seq);
        if header.kind != Kind::Config && have.is_none_or(|have| have < header.config) {
            return Err(Refused::ConfigGap {
                have,
                need: header.config,
            });
        }
        let effect = match (header.kind, chain) {
            (Kind::Config, _) => {
                let changes = decode_changes(record.body(), header.count)?;
                Effect::Configures(Box::new(config.after(record.hash(), &changes)?))
            }
            (Kind::Open, None) => self.opening(config, record, context)?,
            (_, Some(chain)) => {
                self.admits(config, chain.certificate(), record, context)?;
                Effect::Extends
            }
            // `place` let through only what has seq 0, and that is an open or a config record.
            (_, None) => return Err(gap(chain, record)),
        };
        // spec/06 §5: data is sealed under the newest generation as of its config
        let expected = config.generation_at(header.config);
        if header.kind == Kind::Data && header.generation != expected {
            return Err(Refused::Generation {
                expected,
                found: header.generation,
            });
        }
        self.parents(config, record, context)?;
        Ok(effect)
    }

    /// Whether the record is the next one of its chain (`spec/06 §3`).
    fn place(
        &self,
        state: &State<'_>,
        record: &Received,
        context: &Context<'_>,
    ) -> Result<(), Refused> {
        let header = record.header();
        let Some(chain) = state.chain else {
            return if header.seq == 0 {
                Ok(())
            } else {
                Err(gap(None, record))
            };
        };
        let next = chain.levels().next();
        if header.seq < next {
            return Err(self.seen(state, chain, record, context));
        }
        // spec/06 §5: nothing follows a fork until a revocation cuts the chain before it
        let cut = state.config.through(&header.writer);
        if let Some(seq) = chain.forked()
            && !matches!(cut, Through::Last(last) if last < seq)
        {
            return Err(Refused::Forked {
                writer: header.writer,
                seq,
            });
        }
        if header.seq > next {
            return Err(gap(Some(chain), record));
        }
        chain.precedes(record)
    }

    /// What to say of a record for a position that is taken.
    fn seen(
        &self,
        state: &State<'_>,
        chain: &Chain,
        record: &Received,
        context: &Context<'_>,
    ) -> Refused {
        let (writer, seq, found) = (record.header().writer, record.header().seq, record.hash());
        let known = chain
            .hash_at(seq)
            .or_else(|| self.hash_at(state.config, &writer, seq, context.history));
        match known {
            None => Refused::Earlier { writer, seq },
            Some(known) if known == found => Refused::Known {
                head: record.head(),
            },
            // Whoever sends bytes can claim a conflict; only the writer can sign one.
            Some(_) if record.verify_signature(chain.key()).is_err() => Refused::Signature,
            Some(known) => Refused::Conflict {
                writer,
                seq,
                known,
                found,
            },
        }
    }

    fn opening(
        &self,
        config: &Config,
        record: &Received,
        context: &Context<'_>,
    ) -> Result<Effect, Refused> {
        let header = record.header();
        // spec/06 §3: exactly one parent, a config record, with seq equal to `config`
        if header
            .parents
            .iter()
            .any(|parent| !config.is_owner(&parent.writer))
        {
            return Err(Refused::OpenParent);
        }
        let opening =
            Opening::decode(header.suite, &header.capsule, &header.writer, record.body())?;
        self.admits(config, opening.certificate(), record, context)?;
        if self.chains.len() > self.policy.writers_max {
            return Err(Refused::Writers {
                max: self.policy.writers_max,
            });
        }
        Ok(Effect::Opens(Box::new(opening)))
    }

    /// Whether the writer may write this record (`spec/06 §5, §6`).
    fn admits(
        &self,
        config: &Config,
        certificate: Option<&VerifiedStatement<WriterCertificate>>,
        record: &Received,
        context: &Context<'_>,
    ) -> Result<(), Refused> {
        let writer = record.header().writer;
        let bounds = admission(config, &writer, certificate)
            .map_err(|reason| Refused::NotAdmitted { writer, reason })?;
        let Some(certificate) = bounds else {
            return Ok(());
        };
        if certificate.simulated && !self.policy.allow_simulated {
            return Err(Refused::Simulated { writer });
        }
        if !certificate.holds_at(record.header().clock.time()) {
            let reason = CertificateError::Clock;
            return Err(Refused::Certificate { writer, reason });
        }
        let late = |now| {
            now >= certificate.not_after.plus(ARRIVAL_GRACE)
                || now < certificate.not_before.minus(ARRIVAL_GRACE)
        };
        if context.arrived.is_some_and(late) {
            let reason = CertificateError::Arrival;
            return Err(Refused::Certificate { writer, reason });
        }
        Ok(())
    }

    /// Whether parents that are known here are the records that the author saw.
    fn parents(
        &self,
        config: &Config,
        record: &Received,
        context: &Context<'_>,
    ) -> Result<(), Refused> {
        for parent in &record.header().parents {
            // What was cut off a chain binds nobody: else a forked writer would stop all who had
            // seen its other side, even after its revocation.
            if !config.through(&parent.writer).includes(parent.seq) {
                continue;
            }
            let known = self.hash_at(config, &parent.writer, parent.seq, context.history);
            if let Some(known) = known
                && known != parent.hash
            {
                return Err(Refused::ParentConflict {
                    parent: *parent,
                    known,
                });
            }
        }
        Ok(())
    }
}

fn revoked(record: &Received, last: Option<u64>) -> Refused {
    let writer = record.header().writer;
    Refused::Revoked { writer, last }
}

fn gap(chain: Option<&Chain>, record: &Received) -> Refused {
    Refused::Gap {
        writer: record.header().writer,
        have: chain.map(|chain| chain.tip().seq),
        got: record.header().seq,
    }
}
