//! Every rule a record must obey, in the order of their cost: fields first, hashes that are known
//! already, signatures last, so that a forger spends more than it makes others spend.

use core::time::Duration;

use bield_envelope::{Time, Verified as VerifiedStatement};

use super::chain::{Chain, admission};
use super::{Context, Verifier};
use crate::{
    CertificateError, Config, Kind, Opening, Received, Refused, Through, WriterCertificate,
    decode_changes,
};

/// How far ahead of a replica's clock that of a writer without a certificate may be (`spec/06 §6`): a day
/// is more than any time zone, and small against what a wrong clock would cost its chain.
pub const CLOCK_AHEAD_MAX: Duration = Duration::from_secs(24 * 3600);

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
    /// Every rule; the record's own signature where `signed` says so.
    pub(super) fn judge(
        &self,
        state: &State<'_>,
        record: &Received,
        context: &Context<'_>,
        signed: bool,
    ) -> Result<Effect, Refused> {
        self.fits(state, record, context)?;
        let header = record.header();
        let State { config, chain } = *state;
        let by = |key| {
            let verified = if signed {
                record.verify_signature(key)
            } else {
                Ok(())
            };
            verified.map_err(|_| Refused::Signature)
        };
        let effect = match (header.kind, chain) {
            (Kind::Config, _) => {
                // Before the changes are looked at: they can be many, and only the owner may make work.
                by(self.metadata.owner())?;
                let changes = decode_changes(record.body(), header.count)?;
                let config = config.after(record.hash(), &changes)?;
                return Ok(Effect::Configures(Box::new(config)));
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
        config_parents(config, record)?;
        match (&effect, chain) {
            (Effect::Opens(opening), _) => by(opening.key())?,
            (_, Some(chain)) => by(chain.key())?,
            (_, None) => return Err(gap(chain, record)),
        }
        Ok(effect)
    }

    /// Whether the record belongs here, is the next of its chain, and neither cut off nor too early.
    pub(super) fn fits(
        &self,
        state: &State<'_>,
        record: &Received,
        context: &Context<'_>,
    ) -> Result<(), Refused> {
        let header = record.header();
        let config = state.config;
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
        if let Some(last) = config.last(&header.writer)
            && !config.includes(&record.head())
        {
            let writer = header.writer;
            return Err(Refused::OtherLast { writer, last });
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
        Ok(())
    }

    /// Whether the record is the next one of its chain (`spec/06 §3`).
    fn place(
        &self,
        state: &State<'_>,
        record: &Received,
        context: &Context<'_>,
    ) -> Result<(), Refused> {
        let header = record.header();
        let next = state.chain.map_or(0, |chain| chain.levels().next());
        if let Some(chain) = state.chain
            && header.seq < next
        {
            return Err(self.seen(state, chain, record, context));
        }
        // spec/06 §5: from the fork on nothing is accepted but the record that the owner named
        let named = state.config.last(&header.writer) == Some(record.head().into());
        if let Some(seq) = self.forked(&header.writer)
            && header.seq >= seq
            && !named
        {
            return Err(Refused::Forked {
                writer: header.writer,
                seq,
            });
        }
        if header.seq > next {
            return Err(gap(state.chain, record));
        }
        state.chain.map_or(Ok(()), |chain| chain.precedes(record))
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
        let known = match state.config.is_owner(&writer) {
            true => state.config.hash_at(seq),
            false => chain
                .hash_at(seq)
                .or_else(|| context.history.hash_at(&writer, seq)),
        };
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
        if self.counting >= self.policy.writers_max {
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
        let clock = record.header().clock;
        let Some(certificate) = bounds else {
            let ahead = |now: &Time| clock.time() > now.plus(CLOCK_AHEAD_MAX);
            return match context.arrived.filter(ahead) {
                Some(now) => Err(Refused::ClockAhead {
                    writer,
                    found: clock,
                    now,
                }),
                None => Ok(()),
            };
        };
        if certificate.simulated && !self.policy.allow_simulated {
            return Err(Refused::Simulated { writer });
        }
        if !certificate.holds_at(clock.time()) {
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
}

/// Whether the config records among the parents are those applied here, as far as the record's own
/// `config` reaches: these are known by now, so that the answer does not depend on what came first. Other
/// parents are the author's word, see [`Verifier::contradictions`].
fn config_parents(config: &Config, record: &Received) -> Result<(), Refused> {
    let header = record.header();
    let mut parents = header.parents.iter();
    let parent = parents.find(|parent| config.is_owner(&parent.writer));
    let known = parent
        .filter(|parent| parent.seq <= header.config)
        .and_then(|parent| Some((parent, config.hash_at(parent.seq)?)));
    match known {
        Some((parent, known)) if known != parent.hash => Err(Refused::OtherConfig {
            parent: *parent,
            known,
        }),
        _ => Ok(()),
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
