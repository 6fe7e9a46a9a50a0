//! What stands in a single file: an export, a proof, a receipt, a fork proof.

use std::path::Path;

use bield_capsule::{
    ExportError, ExportReader, ForkProof, NotChecked, Proof, Proven, VerifierPolicy,
};

use super::walk::Walk;
use super::{Audit, AuditOptions, Bad, claimed, name_bad};

pub(super) fn export(
    path: &Path,
    bytes: &[u8],
    options: &AuditOptions<'_>,
    progress: &mut dyn FnMut(u64),
) -> Audit {
    let mut audit = Audit::new("export", path);
    let reader = match ExportReader::new(bytes) {
        Ok(reader) => reader,
        Err(error) => {
            audit.fail("form", &error.to_string(), "an export");
            return audit;
        }
    };
    if !audit.name(reader.metadata().name(), options) {
        return audit;
    }
    let mut walk = Walk::new(reader.metadata().clone(), options);
    for exported in reader {
        let bad = |number, offset, (writer, seq), why| Bad {
            file: path.to_owned(),
            offset,
            number,
            writer,
            seq,
            why,
        };
        let exported = match exported {
            Ok(exported) => exported,
            Err(error) => {
                let why = error.to_string();
                let (number, offset) = match error {
                    ExportError::Record { number, offset, .. }
                    | ExportError::TooLong { number, offset, .. }
                    | ExportError::Cut { number, offset } => (number, offset),
                    _ => (walk.records, bytes.len() as u64),
                };
                let place = walk.expected(claimed(bytes, offset as usize + 4));
                audit.bad = Some(bad(number, offset, place, why));
                break;
            }
        };
        let (number, offset) = (exported.number, exported.offset);
        let head = exported.record.head();
        if let Err(why) = walk.take(exported.record) {
            let place = (Some(head.writer), Some(head.seq));
            audit.bad = Some(bad(number, offset, place, why));
            break;
        }
        progress(walk.records);
    }
    name_bad(&mut audit, &walk);
    walk.conclude(&mut audit);
    audit
}

pub(super) fn proof(path: &Path, proof: &Proof, options: &AuditOptions<'_>) -> Audit {
    let mut audit = Audit::new("proof", path);
    let name = proof.capsule();
    if !audit.name(name, options) {
        return audit;
    }
    let policy = VerifierPolicy {
        allow_simulated: options.allow_simulated,
        ..VerifierPolicy::default()
    };
    let proven = match proof.verify(&name, policy) {
        Ok(proven) => proven,
        Err(error) => {
            audit.fail("proof", &error.to_string(), "everything in it holds");
            return audit;
        }
    };
    audit.pass(
        "configuration",
        &format!("config chain up to record {}", proven.config.seq),
    );
    audit.pass(
        "writer",
        &format!(
            "{} may write: {}",
            proven.head.writer.short(),
            authority(&proven)
        ),
    );
    audit.pass("head", &format!("{}, signed", proven.head));
    audit.pass(
        "inclusion",
        &format!(
            "record {}/{} is in its chain",
            proven.target.writer.short(),
            proven.target.seq
        ),
    );
    if let Some(entry) = &proven.entry {
        audit.pass(
            "entry",
            &format!("entry {} stands in the record", entry.place().index),
        );
    }
    let (synced, quorum) = (proven.synced(), usize::from(proven.quorum.replicas));
    let have = format!("{synced} replicas of the configuration synced it");
    if synced >= quorum {
        audit.pass(
            "durability",
            &format!("{have}, the owner asks for {quorum}"),
        );
    } else {
        audit.open(
            "durability",
            &have,
            &format!("the signed words of {quorum}"),
        );
    }
    for open in &proven.not_checked {
        let text = open.to_string();
        let (_, have) = text.split_once(": ").unwrap_or(("", &text));
        audit.open(not_checked(*open), have, "more than this file");
    }
    if proven.entry.is_none() {
        audit.subject = "receipt";
    }
    audit.heads = vec![proven.head];
    audit.records = 1;
    audit.proven = Some(proven);
    audit
}

const fn not_checked(open: NotChecked) -> &'static str {
    match open {
        NotChecked::Freshness => "newest",
        NotChecked::Forks => "forks",
        NotChecked::Arrival => "arrival",
        NotChecked::Between => "between",
        NotChecked::Parents => "parents",
        NotChecked::Body => "body",
        NotChecked::OtherEntries => "other entries",
        NotChecked::Seal => "seal",
        NotChecked::ErasableContent => "content",
        _ => "beyond",
    }
}

fn authority(proven: &Proven) -> String {
    use bield_capsule::Authority;

    match &proven.authority {
        Authority::Owner => "it is the owner".to_owned(),
        Authority::Admitted => "the owner admitted its key".to_owned(),
        Authority::Certified { by, simulated, .. } => {
            let tee = if *simulated {
                " for a SOFTWARE TEE"
            } else {
                ""
            };
            format!("certified by {by}{tee}")
        }
    }
}

pub(super) fn fork(path: &Path, proof: &ForkProof, options: &AuditOptions<'_>) -> Audit {
    let mut audit = Audit::new("fork proof", path);
    let name = proof.capsule();
    if !audit.name(name, options) {
        return audit;
    }
    match proof.verify(&name) {
        Ok(fork) => {
            let have = format!(
                "writer {} signed {} and {} for position {}: it, or whoever has its key, told two stories",
                fork.writer,
                fork.first.hash.short(),
                fork.second.hash.short(),
                fork.seq
            );
            audit.pass("fork", &have);
            audit.heads = vec![fork.first, fork.second];
            let have = "whether the owner ever admitted the writer, or has revoked it";
            audit.open("admission", have, "the configuration");
        }
        Err(error) => audit.fail(
            "fork",
            &error.to_string(),
            "two signed heads of one position",
        ),
    }
    audit
}
