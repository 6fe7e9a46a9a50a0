//! `bield bench load`.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use bield_grant::CodeSelector;
use bield_load::{Arrival, Pace, Random, Report, Trace, replay};
use bield_sdk::{Gateway, Home, KeyService, PackageReference, Reference, Target, Tensor, Trust};
use clap::Args;
use serde_json::json;

use super::inputs;
use super::observed::watch;
use super::outcome::Outcome;
use super::pattern::{Pattern, Wanted};
use super::targets::{Asked, Caller};
use crate::commands::{counted, key_service, principal};
use crate::failure::Failure;
use crate::output::Output;
use crate::{progress, tensors};

/// Replay a workload against a deployment: latencies by kind of start, cold starts, failures
///
/// Draws requests from a seed and sends each at its time, whatever became of those before it (an open loop);
/// a latency counts from that time. Every request is sealed and every answer verified, as with `bield call`,
/// but nothing is sent twice and no receipt is kept. The same pattern, models, rate, seed and time are the
/// same requests at the same times for ever.
///
/// Kinds of start, and what the gateway says of its workers and their memory over time, are the host's word:
/// nobody vouches for them. What it does not say is absent from the report.
///
/// A request that is told to come back later (429, or 503 with a time) is turned away, which is what a full
/// service should do; any other end without a verified answer is a failure, and makes the exit code 1.
///
/// The client costs about 1 ms of a core a request (sealing, opening, verifying three signatures), and more
/// where tensors are large. Sealing is done up to 5 s before a request's time by threads that wait for it;
/// on a machine that also runs the deployment the rest takes from what is measured. `client_late` in the
/// report says how late requests left: beyond a few milliseconds, raise --in-flight, or the client is the
/// limit.
#[derive(Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Load {
    /// A package, as for `bield call`; repeat for more [default: every package of this home's identity]
    #[arg(long = "model", value_name = "REFERENCE")]
    models: Vec<Reference>,

    /// Whose packages names mean: a principal, or `me` [default: `owner` of trust.toml]
    #[arg(long, value_name = "PRINCIPAL")]
    owner: Option<String>,

    /// File with the inputs of the --model at the same place; repeat for more [default: random tensors of
    /// the attested kind]
    #[arg(long = "input", value_name = "INPUTS.json")]
    inputs: Vec<PathBuf>,

    /// Length of free dimensions of random tensors, other than the first, which is 1
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u64).range(1..=65_536))]
    free_dimension: u64,

    /// When requests come
    #[arg(long, value_enum, default_value_t = Pattern::Poisson)]
    pattern: Pattern,

    /// Requests of each minute, in the format of the Azure Functions trace (HashOwner, HashApp,
    /// HashFunction, Trigger, 1, 2, …), for --pattern azure
    #[arg(long, value_name = "FILE.csv")]
    counts: Option<PathBuf>,

    /// How many minutes of --counts pass in one
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0, value_parser = positive)]
    speed: f64,

    /// Requests a second, all models together; not for --pattern azure
    #[arg(long, value_name = "RATE", default_value_t = 5.0, value_parser = positive)]
    rate: f64,

    /// How long, in seconds
    #[arg(long, value_name = "S", conflicts_with = "minutes", default_value_t = 30.0, value_parser = positive)]
    seconds: f64,

    /// How long, in minutes
    #[arg(long, value_name = "MIN", value_parser = positive)]
    minutes: Option<f64>,

    /// What the requests are drawn from
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,

    /// How many callers the trace tells apart; all are this home's identity to the deployment
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    callers: u16,

    /// Requests under way at most, each with a thread; one that finds no thread free leaves late
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=1024))]
    in_flight: u16,

    /// Directory for report.json, latency.svg, load.svg and trace.csv; files of these names are replaced
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

impl Load {
    pub(crate) fn run(self, home: &Home, output: Output) -> Result<(), Failure> {
        let user = home.identity()?;
        let trust = home.trust()?;
        let caller = Caller {
            home,
            trust: &trust,
            user: &user,
        };
        if self.inputs.len() > self.models.len() {
            return Err(Failure::local(
                "--input goes with the --model at the same place: there are more of them",
            ));
        }
        let asked = self.find(home, &trust, &caller)?;
        let trace = self.trace(&asked)?;
        if trace.arrivals().is_empty() {
            return Err(Failure::local(
                "no request in this time: raise --rate or --seconds",
            ));
        }
        output.note(format_args!(
            "{} over {:.0} s to {}, seed {}",
            counted(trace.arrivals().len(), "request"),
            trace.span().as_secs_f64(),
            counted(asked.len(), "model"),
            self.seed
        ));
        let outcome = self.replay(&asked, &trace, &caller);
        let files = match &self.out {
            Some(folder) => outcome.write(folder)?,
            None => Vec::new(),
        };
        self.say(&outcome, &files, output)
    }

    /// The models, each with its key, code and inputs.
    fn find(&self, home: &Home, trust: &Trust, caller: &Caller<'_>) -> Result<Vec<Asked>, Failure> {
        let mut service = key_service(home, trust)?;
        let measured = trust.code().iter().cloned().map(CodeSelector::Measurement);
        let codes: Vec<_> = measured.chain(trust.signers().iter().cloned()).collect();
        let packages = self.packages(home, trust, caller, &mut service)?;
        let mut random = Random::new(self.seed, INPUTS_STREAM);
        let mut asked = Vec::with_capacity(packages.len());
        for (at, package) in packages.into_iter().enumerate() {
            let inputs = |target: &Target| -> Result<Vec<Tensor>, Failure> {
                match self.inputs.get(at) {
                    Some(file) => tensors::read_inputs(file),
                    None => inputs::random(target.inputs(), self.free_dimension, &mut random),
                }
            };
            asked.push(Asked::find(
                &mut service,
                package,
                &codes,
                caller.user,
                inputs,
            )?);
        }
        service.close()?;
        Ok(asked)
    }

    fn packages(
        &self,
        home: &Home,
        trust: &Trust,
        caller: &Caller<'_>,
        service: &mut KeyService<'_>,
    ) -> Result<Vec<PackageReference>, Failure> {
        if self.models.is_empty() {
            let rows = service.packages(caller.user)?;
            if rows.is_empty() {
                return Err(Failure::local(
                    "this home's identity owns no package; name some with --model",
                ));
            }
            let own = rows.iter().map(|row| PackageReference::Digest(row.package));
            return Ok(own.collect());
        }
        let owner = self.owner.as_ref().map(|owner| principal(home, owner));
        let owner = owner.transpose()?.or(trust.owner());
        let named = self.models.iter().map(|model| Ok(model.of(owner)?));
        named.collect()
    }

    fn trace(&self, asked: &[Asked]) -> Result<Trace, Failure> {
        let seconds = self.minutes.map_or(self.seconds, |minutes| minutes * 60.0);
        let wanted = Wanted {
            pattern: self.pattern,
            models: asked.iter().map(Asked::name).collect(),
            callers: usize::from(self.callers),
            rate: self.rate,
            span: Duration::from_secs_f64(seconds),
            seed: self.seed,
            counts: self.counts.as_ref(),
            speed: self.speed,
        };
        wanted.trace()
    }

    fn replay<'t>(&self, asked: &[Asked], trace: &'t Trace, caller: &Caller<'_>) -> Outcome<'t> {
        let ended = AtomicBool::new(false);
        let bar = progress::count("replaying", trace.arrivals().len());
        let gateway = Gateway::new(caller.trust.gateway());
        let pace = Pace {
            in_flight: usize::from(self.in_flight),
            ahead: AHEAD,
        };
        let (done, observed) = thread::scope(|scope| {
            let watching = scope.spawn(|| watch(&gateway, &ended));
            let done = replay(
                trace,
                pace,
                // One that cannot be sealed may be when its time has come: its key is asked for again then.
                |arrival: &Arrival| Ok(asked[arrival.model].prepare(caller)),
                |arrival, prepared| asked[arrival.model].send(caller, prepared),
                |done| bar.set_position(done as u64),
            );
            ended.store(true, Ordering::Relaxed);
            (done, watching.join().unwrap_or_default())
        });
        bar.finish_and_clear();
        let settings = json!({
            "pattern": self.pattern.name(),
            "models": trace.models(),
            "rate": (self.pattern != Pattern::Azure).then_some(self.rate),
            "speed": (self.pattern == Pattern::Azure).then_some(self.speed),
            "seconds": trace.span().as_secs_f64(),
            "seed": self.seed,
            "callers": self.callers,
            "in_flight": self.in_flight,
        });
        Outcome {
            title: format!("{}, seed {}", self.pattern.name(), self.seed),
            settings,
            report: Report::of(trace, &done),
            trace,
            done,
            observed,
        }
    }

    fn say(&self, outcome: &Outcome<'_>, files: &[PathBuf], output: Output) -> Result<(), Failure> {
        let mut value = outcome.to_json();
        let written: Vec<_> = files
            .iter()
            .map(|file| file.display().to_string())
            .collect();
        value["files"] = json!(written);
        let text = match written.is_empty() {
            true => outcome.to_string(),
            false => format!("{outcome}\nwritten: {}", written.join(", ")),
        };
        if outcome.report.failed == 0 {
            output.show(&value, text);
            return Ok(());
        }
        let failed = Failure::refused(format_args!(
            "{} of {} requests failed; the kinds are in the report",
            outcome.report.failed, outcome.report.requests
        ));
        if output.is_json() {
            return Err(failed.with(value));
        }
        output.show(&value, text);
        Err(failed)
    }
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number > 0.0 && number <= 1e6 => Ok(number),
        _ => Err("a number above 0 and at most a million is needed".to_owned()),
    }
}

/// How long before its time a request is sealed at most; runtimes take requests that are minutes old.
const AHEAD: Duration = Duration::from_secs(5);
/// Apart from the streams of sources, which count from 0.
const INPUTS_STREAM: u64 = u64::MAX;

const EXAMPLES: &str = "\
Examples:
  bield bench load --seconds 60 --rate 5 --out load
  bield bench load --model magika --input inputs.json --model minilm@1 --input text.json --pattern sessions
  bield --json bench load --pattern mixed --rate 20 --minutes 5 --seed 7
  bield bench load --pattern azure --counts invocations_per_function_md.anon.d01.csv --speed 60 --minutes 24";
