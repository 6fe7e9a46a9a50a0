//! Which workload is meant.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bield_load::{Rate, Source, Spread, Trace, Workload, parse_azure};
use clap::ValueEnum;

use crate::failure::Failure;

/// When requests come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Pattern {
    /// Independent of each other, all models alike
    Poisson,
    /// Bursts of 2 s every 10 s or so, each model's own
    Bursts,
    /// One day: least at the beginning and the end, most in the middle
    Diurnal,
    /// People who ask all models in turn, eight requests each, thinking 2 s in between
    Sessions,
    /// The first two models have 90 % of the requests, the others are rare
    Mixed,
    /// Counts of each minute from the file --counts, its busiest function for the first model
    Azure,
}

impl Pattern {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Poisson => "poisson",
            Self::Bursts => "bursts",
            Self::Diurnal => "diurnal",
            Self::Sessions => "sessions",
            Self::Mixed => "mixed",
            Self::Azure => "azure",
        }
    }
}

/// What a trace is drawn from.
pub(crate) struct Wanted<'a> {
    pub(crate) pattern: Pattern,
    pub(crate) models: Vec<String>,
    pub(crate) callers: usize,
    pub(crate) rate: f64,
    pub(crate) span: Duration,
    pub(crate) seed: u64,
    pub(crate) counts: Option<&'a PathBuf>,
    pub(crate) speed: f64,
}

impl Wanted<'_> {
    pub(crate) fn trace(self) -> Result<Trace, Failure> {
        let (models, callers, rate) = (self.models, self.callers, self.rate);
        let workload = match self.pattern {
            Pattern::Poisson => Workload::poisson(models, callers, rate),
            Pattern::Bursts => Workload::bursts(models, callers, rate),
            Pattern::Diurnal => Workload::diurnal(models, callers, rate, self.span),
            Pattern::Sessions => Workload::sessions(models, callers, rate),
            Pattern::Mixed => Workload::mixed(models, callers, rate),
            Pattern::Azure => {
                let file = self.counts.ok_or_else(|| {
                    Failure::local("--pattern azure needs --counts FILE, in the format of the Azure Functions trace")
                })?;
                azure(file, models, callers, self.speed)?
            }
        };
        workload.trace(self.seed, self.span).map_err(Failure::local)
    }
}

/// The busiest functions of a file, one for each model.
fn azure(
    file: &Path,
    models: Vec<String>,
    callers: usize,
    speed: f64,
) -> Result<Workload, Failure> {
    let at =
        |error: &dyn std::fmt::Display| Failure::local(format_args!("{}: {error}", file.display()));
    let text = std::fs::read_to_string(file).map_err(|error| at(&error))?;
    let mut functions = parse_azure(&text).map_err(|error| at(&error))?;
    if functions.len() < models.len() {
        return Err(at(&format_args!(
            "{} functions for {} models: name fewer models",
            functions.len(),
            models.len()
        )));
    }
    functions.sort_by_key(|function| std::cmp::Reverse(function.total()));
    let minute = Duration::from_secs_f64(60.0 / speed);
    let source = |(model, function): (usize, bield_load::Function)| Source::Model {
        model,
        rate: Rate::Counts {
            minutes: function.minutes,
            spread: Spread::Exact,
            minute,
        },
    };
    Ok(Workload {
        sources: (0..models.len()).zip(functions).map(source).collect(),
        models,
        callers,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_busiest_function_is_the_first_models() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text =
            "HashOwner,HashApp,HashFunction,Trigger,1,2\no,a,rare,http,1,0\no,a,busy,http,5,4\n";
        std::fs::write(file.path(), text).unwrap();
        let wanted = |models: usize| {
            Wanted {
                pattern: Pattern::Azure,
                models: (0..models).map(|n| n.to_string()).collect(),
                callers: 1,
                rate: 1.0,
                span: Duration::from_secs(100),
                seed: 1,
                counts: Some(&file.path().to_path_buf()),
                speed: 60.0,
            }
            .trace()
        };
        let trace = wanted(2).unwrap();
        let of = |model| {
            let arrivals = trace.arrivals().iter();
            arrivals.filter(|arrival| arrival.model == model).count()
        };
        assert_eq!((of(0), of(1)), (9, 1));
        assert!(
            trace
                .arrivals()
                .iter()
                .all(|arrival| arrival.at.as_secs() < 2)
        );
        assert!(
            wanted(3)
                .unwrap_err()
                .message()
                .contains("2 functions for 3 models")
        );
    }
}
