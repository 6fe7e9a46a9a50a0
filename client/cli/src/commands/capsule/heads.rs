//! `bield capsule heads`.

use std::fmt::Write as _;

use bield_capsule::Head;
use bield_sdk::Home;
use bield_sdk::capsule::Log;
use clap::Args;
use serde_json::{Value, json};

use super::open;
use crate::failure::Failure;
use crate::output::Output;

/// Show every chain's newest record, replica by replica
///
/// Asks every replica for its heads with a fresh nonce, and shows who lags behind, whether enough answered
/// to know what is newest, the configuration, and every proven fork. A fork is two records signed for one
/// position: exit code 1, and the proof is kept with --forks.
#[derive(Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Heads {
    /// Label, name, or first digits of the capsule
    capsule: String,

    /// Write each fork proof that a replica knows to DIR
    #[arg(long, value_name = "DIR")]
    forks: Option<std::path::PathBuf>,
}

impl Heads {
    pub(crate) fn run(self, home: &Home, output: Output) -> Result<(), Failure> {
        let log = open(home, &self.capsule)?;
        let forks = self.forks(&log)?;
        let newest = log.newest_heads();
        let config = log.config();
        let quorum = config.quorum();
        let head = config.head();
        let mut text = format!(
            "capsule   {}\nconfig    record {}, generation {}, durable with {} of {} replicas",
            log.metadata().name(),
            head.map_or(0, |head| head.seq),
            config.generation(),
            quorum.replicas,
            config.replicas().len(),
        );
        if quorum.witnesses > 0 {
            let _ = write!(text, " and {} witnesses", quorum.witnesses);
        }
        let mut writers = Vec::new();
        for head in &newest {
            text.push_str(&writer_text(&log, head));
            writers.push(writer_json(&log, head));
        }
        for error in log.silent() {
            let _ = write!(text, "\nsilent    {error}");
        }
        let need = config.answers().unwrap_or(0);
        let answered = log.answers().len();
        let losses = log.losses();
        for loss in &losses {
            let found = loss
                .found
                .map_or("nothing".to_owned(), |seq| seq.to_string());
            let _ = write!(
                text,
                "\nROLLED BACK  {}: a quorum shows {found}, {} {} was seen from here before",
                loss.seen.writer.short(),
                loss.seen.seq,
                loss.seen.hash.short()
            );
        }
        let _ = match log.is_fresh() {
            true if !losses.is_empty() => write!(text, "\nNOT FRESH something was lost or hidden"),
            true => write!(
                text,
                "\nfresh     {answered} replicas answered, {need} are needed"
            ),
            false => write!(
                text,
                "\nNOT FRESH {answered} replicas answered, {need} are needed: newer records may be hidden"
            ),
        };
        for fork in &forks {
            let _ = write!(
                text,
                "\nFORK      {}",
                fork["message"].as_str().unwrap_or_default()
            );
        }
        let value = json!({
            "capsule": log.metadata().name().to_string(),
            "config": { "seq": head.map(|head| head.seq), "generation": config.generation(),
                "quorum": quorum.replicas, "witnesses": quorum.witnesses, "replicas": config.replicas().len() },
            "writers": writers,
            "fresh": log.is_fresh() && losses.is_empty(),
            "rolled_back": losses.iter().map(|loss| json!({
                "writer": loss.seen.writer.to_string(),
                "seen": loss.seen.seq,
                "found": loss.found,
            })).collect::<Vec<_>>(),
            "answered": answered,
            "needed": need,
            "silent": log.silent().iter().map(ToString::to_string).collect::<Vec<_>>(),
            "forks": forks,
        });
        if let Err(loss) = log.need_whole() {
            if !output.is_json() {
                output.show(&value, text);
            }
            return Err(Failure::from(loss).with(value));
        }
        if forks.is_empty() {
            output.show(&value, text);
            return Ok(());
        }
        if !output.is_json() {
            output.show(&value, text);
        }
        let failure = format!(
            "{} forks are proven: the owner must revoke their writers",
            forks.len()
        );
        Err(Failure::refused(failure).with(value))
    }

    /// Every fork that any replica knows, once.
    fn forks(&self, log: &Log) -> Result<Vec<Value>, Failure> {
        let name = log.metadata().name();
        let mut found = std::collections::BTreeMap::new();
        for replica in log.replicas() {
            for proof in replica.forks(&name).unwrap_or_default() {
                if let Ok(fork) = proof.verify(&name) {
                    found.insert((fork.writer, fork.seq), (fork, proof.encode()));
                }
            }
        }
        let mut values = Vec::new();
        for ((writer, seq), (fork, bytes)) in found {
            let revoked = !log.config().through(&writer).includes(seq);
            if revoked {
                continue;
            }
            let mut message = format!(
                "{}/{seq} is signed twice, as {} and {}",
                writer.short(),
                fork.first.hash.short(),
                fork.second.hash.short()
            );
            let mut file = None;
            if let Some(directory) = &self.forks {
                let path = directory.join(format!("{}-{seq}.fork", writer.short()));
                std::fs::create_dir_all(directory).map_err(Failure::local)?;
                bield_sdk::write_atomically(&path, &bytes)?;
                let _ = write!(message, "; proof: {}", path.display());
                file = Some(path.display().to_string());
            }
            values.push(json!({
                "writer": writer.to_string(),
                "seq": seq,
                "first": fork.first.hash.to_string(),
                "second": fork.second.hash.to_string(),
                "proof": file,
                "message": message,
            }));
        }
        Ok(values)
    }
}

fn writer_text(log: &Log, newest: &Head) -> String {
    let counts = log.config().through(&newest.writer).includes(newest.seq);
    let word = if counts { "" } else { "  REVOKED" };
    let mut text = format!("\nwriter    {}  newest {}{word}", newest.writer, newest.seq);
    for answer in log.answers() {
        let url = log.replicas()[answer.replica].url();
        let _ = match answer.head(&newest.writer) {
            None => write!(text, "\n  {url}  has nothing"),
            Some(head) if head == *newest => {
                write!(text, "\n  {url}  {} {}", head.seq, head.hash.short())
            }
            Some(head) if head.seq == newest.seq => write!(
                text,
                "\n  {url}  {} {}: ANOTHER RECORD at this position",
                head.seq,
                head.hash.short()
            ),
            Some(head) => write!(
                text,
                "\n  {url}  {} {}, {} behind",
                head.seq,
                head.hash.short(),
                newest.seq - head.seq
            ),
        };
    }
    text
}

fn writer_json(log: &Log, newest: &Head) -> Value {
    let replicas: Vec<_> = log
        .answers()
        .iter()
        .map(|answer| {
            let head = answer.head(&newest.writer);
            json!({
                "replica": log.replicas()[answer.replica].url(),
                "seq": head.map(|head| head.seq),
                "hash": head.map(|head| head.hash.to_string()),
                "behind": newest.seq - head.map_or(0, |head| head.seq),
            })
        })
        .collect();
    json!({
        "writer": newest.writer.to_string(),
        "seq": newest.seq,
        "hash": newest.hash.to_string(),
        "counts": log.config().through(&newest.writer).includes(newest.seq),
        "replicas": replicas,
    })
}

const EXAMPLES: &str = r#"Examples:
  bield capsule heads notes
  bield capsule heads notes --forks ./evidence"#;
