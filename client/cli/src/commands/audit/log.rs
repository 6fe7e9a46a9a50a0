//! `bield audit --log`: a key service's log files, verified without any key.
//!
//! Always true: every record's signature and place was checked; the tree over them was built anew and
//! compared with what the next epoch says of it and with what this home has seen. What cannot be seen
//! here is what was never in these files; a newer checkpoint shows that.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use bield_capsule::ledger_file::{EpochReport, LogAudit, parse_log_name};
use bield_evidence::{Check, Mover, Outcome};
use bield_sdk::Home;
use bield_tlog::{Tree, TreeHead};
use serde_json::json;

use crate::commands::counted;
use crate::commands::pack::at;
use crate::commands::verify::conclude;
use crate::failure::Failure;
use crate::output::Output;
use crate::progress;
use crate::show::Checks;

pub(super) fn run(home: &Home, path: &Path, output: Output) -> Result<(), Failure> {
    let files = log_files(path)?;
    let bar = progress::count("verifying", files.len());
    let mut audit = LogAudit::new();
    let mut trees: Vec<Tree> = Vec::new();
    let mut fault = None;
    for file in &files {
        if let Err(error) = take(&mut audit, file, &mut trees)? {
            fault = Some(error);
            break;
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    let mut checks = Vec::new();
    let records: u64 = audit.epochs().iter().map(|epoch| epoch.records).sum();
    let (outcome, have) = match &fault {
        None => (Outcome::Passed, format!("all {records} hold")),
        Some(fault) => (Outcome::Failed, format!("{records} hold, then: {fault}")),
    };
    let need = "each signed by the log's key and linked to the one before";
    checks.push(check("records", outcome, have, need));
    if let Some(torn) = audit.torn() {
        let have = format!("{torn} ends inside a record that nobody was told of");
        checks.push(check("end", Outcome::NotChecked, have, "a whole record"));
    }
    for (epoch, before) in audit.epochs().iter().skip(1).zip(&trees) {
        checks.push(continued(epoch, before));
    }
    checks.push(seen(home, audit.epochs(), &trees)?);
    let passed = checks.iter().all(|check| check.outcome != Outcome::Failed);
    let shown = Checks(&checks);
    let mut value = shown.to_json();
    value["passed"] = passed.into();
    value["subject"] = "key service log".into();
    value["files"] = files.len().into();
    let mut text = String::new();
    let mut epochs = Vec::new();
    for (epoch, tree) in audit.epochs().iter().zip(&trees) {
        let origin = origin(epoch);
        text += &format!(
            "epoch {}: {}\n  log   {origin}\n  root  {}\n",
            epoch.epoch,
            counted(epoch.records, "record"),
            tree.root()
        );
        epochs.push(json!({
            "epoch": epoch.epoch,
            "log": origin,
            "size": epoch.records,
            "root": tree.root().to_string(),
        }));
    }
    value["epochs"] = epochs.into();
    let verdict = if passed {
        "verified as far as checked"
    } else {
        "NOT verified"
    };
    let text = format!("{text}{shown}\nlog {} {verdict}", path.display());
    let failure = format!("log {} does not verify", path.display());
    conclude(passed, value, &text, failure, output)
}

/// The log's files in order: those of a directory, or the one named.
fn log_files(path: &Path) -> Result<Vec<PathBuf>, Failure> {
    if path.is_file() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(path).map_err(|error| at(path, error))? {
        let entry = entry.map_err(|error| at(path, error))?;
        let place = entry.file_name().to_str().and_then(parse_log_name);
        files.extend(place.map(|place| (place, entry.path())));
    }
    if files.is_empty() {
        return Err(Failure::local(format_args!(
            "{}: no log files (log-…) here: give the directory that the gateway was started with as --storage",
            path.display()
        )));
    }
    files.sort();
    Ok(files.into_iter().map(|(_, path)| path).collect())
}

/// Feeds one file; the inner error is what is wrong with the log.
fn take(
    audit: &mut LogAudit,
    path: &Path,
    trees: &mut Vec<Tree>,
) -> Result<Result<(), bield_capsule::ledger_file::LogFault>, Failure> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if let Err(fault) = audit.begin(&name) {
        return Ok(Err(fault));
    }
    let mut file = File::open(path).map_err(|error| at(path, error))?;
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let read = file.read(&mut piece).map_err(|error| at(path, error))?;
        if read == 0 {
            return Ok(audit.end());
        }
        let pushed = audit.push(&piece[..read], &mut |index, applied| {
            if index == 0 {
                trees.push(Tree::new());
            }
            if let Some(tree) = trees.last_mut() {
                tree.append(applied.record().hash().as_bytes());
            }
        });
        if let Err(fault) = pushed {
            return Ok(Err(fault));
        }
    }
}

/// Whether an epoch says the truth of the one before.
fn continued(epoch: &EpochReport, before: &Tree) -> Check {
    let need = "the records before, up to where it says that it was recovered";
    let Some(previous) = epoch.previous else {
        return check("recovery", Outcome::Failed, "nothing said".to_owned(), need);
    };
    let same = before
        .root_at(previous.size)
        .is_ok_and(|root| *root.as_bytes() == previous.root);
    let outcome = if same {
        Outcome::Passed
    } else {
        Outcome::Failed
    };
    let void = before.size().saturating_sub(previous.size);
    let have = format!(
        "epoch {} goes on from {}; {void} after that {} void",
        epoch.epoch,
        counted(previous.size, "record"),
        if void == 1 { "is" } else { "are" }
    );
    check("recovery", outcome, have, need)
}

/// Whether what this home has seen of one of these logs is in it.
fn seen(home: &Home, epochs: &[EpochReport], trees: &[Tree]) -> Result<Check, Failure> {
    let need = "everything that this home has seen of the log";
    let Some(head) = home.head()? else {
        let have = "this home has met no key service".to_owned();
        return Ok(check("seen", Outcome::NotChecked, have, need));
    };
    let mut logs = epochs.iter().zip(trees);
    // The origin goes on with the log's key, which nothing in the files names.
    let is_of = |epoch: &EpochReport| {
        let rest = head.origin().as_str().strip_prefix(&origin(epoch));
        rest.is_some_and(|rest| rest.starts_with('/'))
    };
    let Some((_, tree)) = logs.find(|(epoch, _)| is_of(epoch)) else {
        let have = format!("this home knows another log, {}", head.origin());
        return Ok(check("seen", Outcome::NotChecked, have, need));
    };
    let TreeHead { size, root } = head.checkpoint().checkpoint().head();
    let (outcome, have) = match tree.root_at(size) {
        Ok(found) if found == root => {
            let more = tree.size() - size;
            (
                Outcome::Passed,
                format!("{} seen, {more} more here", counted(size, "record")),
            )
        }
        Ok(_) => (
            Outcome::Failed,
            format!("FORKED: the first {size} records are not those seen"),
        ),
        Err(_) => (
            Outcome::Failed,
            format!(
                "{} here, {size} seen: records are gone",
                counted(tree.size(), "record")
            ),
        ),
    };
    Ok(check("seen", outcome, have, need))
}

/// How the origin of the epoch's checkpoints begins.
fn origin(epoch: &EpochReport) -> String {
    format!("bield/keys/{}", epoch.metadata.name())
}

fn check(name: &'static str, outcome: Outcome, have: String, need: &str) -> Check {
    Check {
        name,
        outcome,
        have,
        need: need.to_owned(),
        mover: Mover::Operator,
    }
}

const PIECE_BYTES: usize = 1 << 20;
