//! What asks: sources of requests, each drawn from its own stream of the seed.
//!
//! Goes in: models, callers, sources, a seed, a span. Comes out: a [`Trace`]. Always true: at most [`ARRIVALS_MAX`] requests;
//! a source's requests do not depend on the other sources.

use std::f64::consts::TAU;
use std::time::Duration;

use crate::random::Random;
use crate::trace::{Arrival, Trace, micros};

/// Most requests of a trace: 24 bytes each, and what a replay keeps of each is of that order.
pub const ARRIVALS_MAX: usize = 5_000_000;

/// Everything that asks.
#[derive(Debug, Clone)]
pub struct Workload {
    /// Names of the models.
    pub models: Vec<String>,
    /// Callers, at least 1. A request that belongs to no session is of any of them.
    pub callers: usize,
    /// What asks.
    pub sources: Vec<Source>,
}

/// Something that asks.
#[derive(Debug, Clone)]
pub enum Source {
    /// One model at a rate.
    Model {
        /// Index of the model.
        model: usize,
        /// How often.
        rate: Rate,
    },
    /// Two models, of which the second tends to be asked soon after the first.
    Pair {
        /// Index of the model that is asked at `rate`.
        first: usize,
        /// Index of the one that follows.
        second: usize,
        /// How often the first is asked.
        rate: Rate,
        /// How likely the second follows, from 0 to 1.
        follows: f64,
        /// The mean time until it does, exponentially distributed.
        after: Duration,
    },
    /// People who ask several models in turn.
    Sessions(Sessions),
}

/// People who open a session, ask models in turn, and think in between.
#[derive(Debug, Clone)]
pub struct Sessions {
    /// Indices of the models; a session begins with any of them and goes on in this order, round and round.
    pub models: Vec<usize>,
    /// Sessions that begin in a second.
    pub per_second: f64,
    /// Mean number of requests of a session, at least 1; geometrically distributed.
    pub requests: f64,
    /// Mean time to think between two requests, exponentially distributed.
    pub think: Duration,
}

/// How often something is asked; rates are requests a second.
#[derive(Debug, Clone)]
pub enum Rate {
    /// Independent requests.
    Poisson {
        /// Mean rate.
        per_second: f64,
    },
    /// Phases of two rates, each exponentially distributed in length.
    Bursts {
        /// Rate in a burst.
        busy: f64,
        /// Rate between bursts.
        quiet: f64,
        /// Mean length of a burst.
        on: Duration,
        /// Mean time between bursts.
        off: Duration,
    },
    /// A rate like that of days: least at the beginning, most after half a period.
    Diurnal {
        /// Mean rate over a period.
        mean: f64,
        /// From 0, always the mean, to 1, between none and twice the mean.
        swing: f64,
        /// Length of a day.
        period: Duration,
    },
    /// Counts of each minute.
    Counts {
        /// Requests in each minute; nothing afterwards.
        minutes: Vec<u32>,
        /// Where in its minute a request is.
        spread: Spread,
        /// How long a minute takes: less than 60 s replays faster.
        minute: Duration,
    },
}

/// Where in its minute a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spread {
    /// Anywhere; each minute has exactly its count.
    Exact,
    /// A Poisson process with the count as its mean.
    Poisson,
}

/// Why there is no trace.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WorkloadError {
    /// A number makes no sense.
    #[error("source {source_number} of the workload: {why}")]
    Source {
        /// Counted from 1.
        source_number: usize,
        /// What is wrong.
        why: &'static str,
    },
    /// There would be too much.
    #[error("more than {ARRIVALS_MAX} requests: choose a lower rate or a shorter time")]
    TooMany,
    /// Nobody asks.
    #[error("a workload has at least one caller and one model")]
    Nobody,
}

impl Workload {
    /// All models together at `rate`, each the same part of it, Poisson.
    #[must_use]
    pub fn poisson(models: Vec<String>, callers: usize, rate: f64) -> Self {
        Self::each(models, callers, rate, |per_second| Rate::Poisson {
            per_second,
        })
    }

    /// As [`poisson`](Self::poisson), in bursts of 2 s every 10 s on average, in which nine tenths of all requests are.
    #[must_use]
    pub fn bursts(models: Vec<String>, callers: usize, rate: f64) -> Self {
        let (on, off) = (Duration::from_secs(2), Duration::from_secs(8));
        Self::each(models, callers, rate, |mean| Rate::Bursts {
            busy: 4.5 * mean,
            quiet: 0.125 * mean,
            on,
            off,
        })
    }

    /// As [`poisson`](Self::poisson), over days of `period`, between a tenth of the rate and nineteen tenths.
    #[must_use]
    pub fn diurnal(models: Vec<String>, callers: usize, rate: f64, period: Duration) -> Self {
        Self::each(models, callers, rate, |mean| Rate::Diurnal {
            mean,
            swing: 0.9,
            period,
        })
    }

    /// People who ask all models in turn, eight requests a session, 2 s of thinking: `rate` requests a second together. The
    /// shape of SeSeMI's experiment with many models.
    #[must_use]
    pub fn sessions(models: Vec<String>, callers: usize, rate: f64) -> Self {
        const REQUESTS: f64 = 8.0;
        let sessions = Sessions {
            models: (0..models.len()).collect(),
            per_second: rate / REQUESTS,
            requests: REQUESTS,
            think: Duration::from_secs(2),
        };
        Self {
            models,
            callers,
            sources: vec![Source::Sessions(sessions)],
        }
    }

    /// Two busy models and the rest rare: each busy one has 45 % of `rate`, all rare ones together 10 %, Poisson. With one or
    /// two models all are busy.
    #[must_use]
    pub fn mixed(models: Vec<String>, callers: usize, rate: f64) -> Self {
        const BUSY: usize = 2;
        let (busy, rare) = match models.len() {
            few if few <= BUSY => (rate / few.max(1) as f64, 0.0),
            many => (0.45 * rate, 0.1 * rate / (many - BUSY) as f64),
        };
        let source = |model| Source::Model {
            model,
            rate: Rate::Poisson {
                per_second: if model < BUSY { busy } else { rare },
            },
        };
        Self {
            sources: (0..models.len()).map(source).collect(),
            models,
            callers,
        }
    }

    fn each(models: Vec<String>, callers: usize, rate: f64, of: impl Fn(f64) -> Rate) -> Self {
        let share = rate / models.len().max(1) as f64;
        let source = |model| Source::Model {
            model,
            rate: of(share),
        };
        Self {
            sources: (0..models.len()).map(source).collect(),
            models,
            callers,
        }
    }

    /// The requests of `span` for this seed: the same ones for ever.
    ///
    /// # Errors
    /// See [`WorkloadError`].
    pub fn trace(&self, seed: u64, span: Duration) -> Result<Trace, WorkloadError> {
        if self.callers == 0 || self.models.is_empty() {
            return Err(WorkloadError::Nobody);
        }
        let mut arrivals = Vec::new();
        for (number, source) in self.sources.iter().enumerate() {
            source
                .check(self.models.len())
                .map_err(|why| WorkloadError::Source {
                    source_number: number + 1,
                    why,
                })?;
            let random = Random::new(seed, number as u64);
            let mut draw = Draw {
                random,
                span: span.as_secs_f64(),
                callers: self.callers,
                arrivals: &mut arrivals,
            };
            draw.source(source)?;
        }
        Ok(Trace::new(self.models.clone(), span, arrivals))
    }
}

impl Source {
    fn check(&self, models: usize) -> Result<(), &'static str> {
        let known = |model: usize| match model < models {
            true => Ok(()),
            false => Err("it names a model that there is not"),
        };
        match self {
            Source::Model { model, rate } => known(*model).and(rate.check()),
            Source::Pair {
                first,
                second,
                rate,
                follows,
                ..
            } => {
                known(*first).and(known(*second)).and(rate.check())?;
                match (0.0..=1.0).contains(follows) {
                    true => Ok(()),
                    false => Err("a likelihood is between 0 and 1"),
                }
            }
            Source::Sessions(sessions) => {
                sessions.models.iter().try_for_each(|model| known(*model))?;
                is_rate(sessions.per_second)?;
                if sessions.models.is_empty() {
                    return Err("a session has at least one model");
                }
                match (1.0..=1e6).contains(&sessions.requests) {
                    true => Ok(()),
                    false => Err("a session has between 1 and a million requests"),
                }
            }
        }
    }
}

impl Rate {
    fn check(&self) -> Result<(), &'static str> {
        match self {
            Rate::Poisson { per_second } => is_rate(*per_second),
            Rate::Bursts {
                busy,
                quiet,
                on,
                off,
            } => {
                is_rate(*busy).and(is_rate(*quiet))?;
                match on.is_zero() || off.is_zero() {
                    true => Err("a phase takes time"),
                    false => Ok(()),
                }
            }
            Rate::Diurnal {
                mean,
                swing,
                period,
            } => {
                is_rate(*mean)?;
                match (0.0..=1.0).contains(swing) && !period.is_zero() {
                    true => Ok(()),
                    false => Err("a swing is between 0 and 1 and a period takes time"),
                }
            }
            Rate::Counts { minute, .. } => match minute.is_zero() {
                true => Err("a minute takes time"),
                false => Ok(()),
            },
        }
    }
}

fn is_rate(rate: f64) -> Result<(), &'static str> {
    match rate.is_finite() && rate >= 0.0 {
        true => Ok(()),
        false => Err("a rate is finite and not negative"),
    }
}

/// One source being drawn.
struct Draw<'a> {
    random: Random,
    /// Seconds.
    span: f64,
    callers: usize,
    arrivals: &'a mut Vec<Arrival>,
}

impl Draw<'_> {
    fn source(&mut self, source: &Source) -> Result<(), WorkloadError> {
        match source {
            Source::Model { model, rate } => {
                for at in self.times(rate)? {
                    let caller = self.random.below(self.callers);
                    self.push(at, *model, caller)?;
                }
            }
            Source::Pair {
                first,
                second,
                rate,
                follows,
                after,
            } => {
                for at in self.times(rate)? {
                    let caller = self.random.below(self.callers);
                    self.push(at, *first, caller)?;
                    if self.random.unit() < *follows {
                        let later = self.random.exponential(after.as_secs_f64());
                        self.push(at + later, *second, caller)?;
                    }
                }
            }
            Source::Sessions(sessions) => self.sessions(sessions)?,
        }
        Ok(())
    }

    fn sessions(&mut self, sessions: &Sessions) -> Result<(), WorkloadError> {
        let rate = Rate::Poisson {
            per_second: sessions.per_second,
        };
        let go_on = 1.0 - 1.0 / sessions.requests;
        for begin in self.times(&rate)? {
            let caller = self.random.below(self.callers);
            let mut turn = self.random.below(sessions.models.len());
            let mut at = begin;
            // What is after the end would be left out.
            while at < self.span {
                self.push(at, sessions.models[turn % sessions.models.len()], caller)?;
                if self.random.unit() >= go_on {
                    break;
                }
                turn += 1;
                at += self.random.exponential(sessions.think.as_secs_f64());
            }
        }
        Ok(())
    }

    /// Seconds at which something happens at this rate, in order.
    fn times(&mut self, rate: &Rate) -> Result<Vec<f64>, WorkloadError> {
        let mut times = Vec::new();
        match rate {
            Rate::Poisson { per_second } => {
                self.poisson(0.0, self.span, *per_second, &mut times)?
            }
            Rate::Bursts {
                busy,
                quiet,
                on,
                off,
            } => {
                let (on, off) = (on.as_secs_f64(), off.as_secs_f64());
                let (mut at, mut is_on) = (0.0, self.random.unit() < on / (on + off));
                while at < self.span {
                    let (rate, mean) = if is_on { (*busy, on) } else { (*quiet, off) };
                    let end = at + self.random.exponential(mean);
                    self.poisson(at, end.min(self.span), rate, &mut times)?;
                    (at, is_on) = (end, !is_on);
                }
            }
            Rate::Diurnal {
                mean,
                swing,
                period,
            } => {
                // Thinning: drawn at the highest rate, kept in proportion to the rate at that time.
                let most = mean * (1.0 + swing);
                let mut drawn = Vec::new();
                self.poisson(0.0, self.span, most, &mut drawn)?;
                for at in drawn {
                    let phase = TAU * at / period.as_secs_f64();
                    let now = mean * (1.0 - swing * libm::cos(phase));
                    if self.random.unit() * most < now {
                        times.push(at);
                    }
                }
            }
            Rate::Counts {
                minutes,
                spread,
                minute,
            } => {
                let minute = minute.as_secs_f64();
                for (number, count) in minutes.iter().enumerate() {
                    let begin = number as f64 * minute;
                    if begin >= self.span {
                        break;
                    }
                    match spread {
                        Spread::Exact => {
                            bounded(times.len() + *count as usize)?;
                            for _ in 0..*count {
                                times.push(begin + self.random.unit() * minute);
                            }
                        }
                        Spread::Poisson => {
                            let rate = f64::from(*count) / minute;
                            self.poisson(begin, begin + minute, rate, &mut times)?;
                        }
                    }
                }
                times.sort_by(f64::total_cmp);
            }
        }
        Ok(times)
    }

    /// A Poisson process from `begin` to `end`.
    fn poisson(
        &mut self,
        begin: f64,
        end: f64,
        rate: f64,
        times: &mut Vec<f64>,
    ) -> Result<(), WorkloadError> {
        if rate <= 0.0 {
            return Ok(());
        }
        let mut at = begin + self.random.exponential(1.0 / rate);
        while at < end {
            bounded(times.len() + 1)?;
            times.push(at);
            at += self.random.exponential(1.0 / rate);
        }
        Ok(())
    }

    fn push(&mut self, at: f64, model: usize, caller: usize) -> Result<(), WorkloadError> {
        bounded(self.arrivals.len() + 1)?;
        let at = micros(at);
        self.arrivals.push(Arrival { at, model, caller });
        Ok(())
    }
}

fn bounded(arrivals: usize) -> Result<(), WorkloadError> {
    match arrivals > ARRIVALS_MAX {
        true => Err(WorkloadError::TooMany),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests;
