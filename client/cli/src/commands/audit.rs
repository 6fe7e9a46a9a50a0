//! `bield audit`.

mod log;

use std::path::PathBuf;

use bield_protocol::service::{Allotment, AuditEntry, AuditEvent, RefusedLease};
use bield_sdk::{AuditFrom, Home};
use clap::Args;
use serde_json::{Value, json};

use super::{counted, grant_id, key_service, plain};
use crate::failure::Failure;
use crate::output::Output;
use crate::progress;

/// Show and verify what happened to what is yours
///
/// Every change of your packages, grants and groups, every lease of their keys and every hold of your
/// functions' states: which code got them, when, until when. The entries are chained by digest; this home keeps how far it has seen the chain, so
/// an entry that was changed, left out or put in before that is found. Leases that were refused lately are
/// shown from the service's memory; nothing proves that list.
///
/// With --log: verifies a key service's own log files, without any key and without asking anybody: every
/// record's signature and place, epochs after recoveries, and that what this home has seen of that log is
/// in it. What the records say stays sealed.
#[derive(Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Audit {
    /// How many of the newest entries are shown
    #[arg(long, value_name = "N", default_value_t = 100, conflicts_with_all = ["from", "log"])]
    last: u64,

    /// Show all entries from this one on, counted from 0
    #[arg(long, value_name = "ENTRY", conflicts_with = "log")]
    from: Option<u64>,

    /// Verify log files instead: one file log-…, or a directory of them
    #[arg(long, value_name = "DIR|FILE")]
    log: Option<PathBuf>,
}

impl Audit {
    pub(crate) fn run(self, home: &Home, output: Output) -> Result<(), Failure> {
        if let Some(path) = &self.log {
            return log::run(home, path, output);
        }
        let owner = home.identity()?;
        let trust = home.trust()?;
        let from = match self.from {
            Some(from) => AuditFrom::Entry(from),
            None => AuditFrom::Last(self.last),
        };
        let mut service = key_service(home, &trust)?;
        let bar = progress::count("fetching", 2);
        let audit = service.audit(&owner, from, &mut |done, total| {
            bar.set_length(total);
            bar.set_position(done);
        });
        bar.finish_and_clear();
        let audit = audit?;
        let entries: Vec<_> = (audit.from..).zip(&audit.entries).collect();
        let value = json!({
            "principal": owner.principal().to_string(),
            "verified": true,
            "count": audit.now.count,
            "digest": audit.now.digest.to_string(),
            "seen_before": audit.before.count,
            "entries": entries.iter().map(|(number, entry)| to_json(*number, entry)).collect::<Vec<_>>(),
            "refused": audit.refused.iter().map(refused_json).collect::<Vec<_>>(),
        });
        let mut lines: Vec<String> = entries
            .iter()
            .map(|(number, entry)| {
                let AuditEntry { record, at, event } = entry;
                format!("{number:>6}  {at}  {}  (record {record})", words(event))
            })
            .collect();
        let mut refused: Vec<_> = audit.refused.iter().collect();
        refused.sort_by_key(|refused| refused.at);
        for RefusedLease {
            at,
            package,
            code,
            reason,
        } in refused
        {
            lines.push(format!(
                "     -  {at}  lease of {package} REFUSED to {code}: {} (not in the chain)",
                plain(reason)
            ));
        }
        lines.push(format!(
            "verified: {} entr{}, {} new since this home looked last; chain {}",
            audit.now.count,
            if audit.now.count == 1 { "y" } else { "ies" },
            audit.now.count.saturating_sub(audit.before.count),
            audit.now.digest
        ));
        output.show(&value, lines.join("\n"));
        Ok(())
    }
}

fn words(event: &AuditEvent) -> String {
    let allotted = |allotments: &[Allotment]| -> String {
        let parts = allotments.iter().map(|part| {
            format!(
                "; {} of grant {}",
                counted(part.requests, "request"),
                part.grant
            )
        });
        parts.collect()
    };
    match event {
        AuditEvent::Registered => "registered".to_owned(),
        AuditEvent::PackagePut(package, name, version) => format!(
            "package {package} registered as {}@{}",
            plain(name),
            plain(version)
        ),
        AuditEvent::Granted(id, _) => format!("grant {} registered", grant_id(id)),
        AuditEvent::Revoked(ids) => {
            let ids: Vec<_> = ids.iter().map(grant_id).collect();
            format!("revoked {}", ids.join(", "))
        }
        AuditEvent::GroupPut(name, revision, members) => format!(
            "group {} revision {revision} with {}",
            plain(name),
            counted(*members, "member")
        ),
        AuditEvent::GroupDeleted(name) => format!("group {} deleted", plain(name)),
        AuditEvent::PackageDeleted(package, grants) => {
            format!(
                "package {package} deleted with {}",
                counted(*grants, "grant")
            )
        }
        AuditEvent::AudienceRotated(package, generation, at_once) => {
            let when = if *at_once { ", at once" } else { "" };
            format!("audience key of {package} rotated to generation {generation}{when}")
        }
        AuditEvent::Succeeded(new) => format!("succeeded by {new}"),
        AuditEvent::Unregistered => "unregistered".to_owned(),
        AuditEvent::Leased {
            package,
            code,
            simulated,
            until,
            lease,
            allotments,
        } => {
            let tee = if *simulated { " in a SOFTWARE TEE" } else { "" };
            let allotted = allotted(allotments);
            format!("lease {lease} of {package} to {code}{tee} until {until}{allotted}")
        }
        AuditEvent::Returned { lease, unused } => {
            format!("lease {lease} returned{}", allotted(unused))
        }
        AuditEvent::IdentityRotated(new) => format!("the service's identity rotated to {new}"),
        AuditEvent::CodeAdmitted(code) => format!("code {code} may join the service"),
        AuditEvent::CodeWithdrawn(code) => format!("code {code} may not join the service any more"),
        AuditEvent::SharesMade(holders, threshold) => {
            let holders: Vec<_> = holders.iter().map(ToString::to_string).collect();
            format!(
                "recovery shared among {}, {threshold} needed",
                holders.join(", ")
            )
        }
        AuditEvent::StateTaken {
            package,
            capsule,
            code,
            simulated,
            writer,
            token,
            heads,
        } => {
            let tee = if *simulated { " in a SOFTWARE TEE" } else { "" };
            format!(
                "state {capsule} of {package} held by {code}{tee} as writer {}, token {token}, heads {}",
                writer.short(),
                heads.short()
            )
        }
        AuditEvent::StateReleased {
            capsule,
            token,
            heads,
        } => format!(
            "state {capsule} let go, token {token}, heads {}",
            heads.short()
        ),
        _ => "something that this version has no words for".to_owned(),
    }
}

fn to_json(number: u64, entry: &AuditEntry) -> Value {
    let mut value = event_json(&entry.event);
    value["number"] = number.into();
    value["record"] = entry.record.into();
    value["at"] = entry.at.to_string().into();
    value
}

fn event_json(event: &AuditEvent) -> Value {
    let allotments = |parts: &[Allotment]| -> Vec<Value> {
        let part = |part: &Allotment| json!({ "grant": part.grant.to_string(), "requests": part.requests });
        parts.iter().map(part).collect()
    };
    match event {
        AuditEvent::Registered => json!({ "event": "registered" }),
        AuditEvent::PackagePut(package, name, version) => json!({
            "event": "package-put", "package": package.to_string(), "name": name, "version": version,
        }),
        AuditEvent::Granted(id, digest) => json!({
            "event": "granted", "grant": grant_id(id), "digest": digest.to_string(),
        }),
        AuditEvent::Revoked(ids) => json!({
            "event": "revoked", "grants": ids.iter().map(grant_id).collect::<Vec<_>>(),
        }),
        AuditEvent::GroupPut(name, revision, members) => json!({
            "event": "group-put", "name": name, "revision": revision, "members": members,
        }),
        AuditEvent::GroupDeleted(name) => json!({ "event": "group-deleted", "name": name }),
        AuditEvent::PackageDeleted(package, grants) => json!({
            "event": "package-deleted", "package": package.to_string(), "grants": grants,
        }),
        AuditEvent::AudienceRotated(package, generation, at_once) => json!({
            "event": "audience-rotated", "package": package.to_string(), "generation": generation,
            "at_once": at_once,
        }),
        AuditEvent::Succeeded(new) => json!({ "event": "succeeded", "by": new.to_string() }),
        AuditEvent::Unregistered => json!({ "event": "unregistered" }),
        AuditEvent::Leased {
            package,
            code,
            simulated,
            until,
            lease,
            allotments: allotted,
        } => json!({
            "event": "leased", "package": package.to_string(), "code": code, "simulated": simulated,
            "until": until.to_string(), "lease": lease, "allotments": allotments(allotted),
        }),
        AuditEvent::Returned { lease, unused } => json!({
            "event": "returned", "lease": lease, "unused": allotments(unused),
        }),
        AuditEvent::IdentityRotated(new) => {
            json!({ "event": "identity-rotated", "service": new.to_string() })
        }
        AuditEvent::CodeAdmitted(code) => json!({ "event": "code-admitted", "code": code }),
        AuditEvent::CodeWithdrawn(code) => json!({ "event": "code-withdrawn", "code": code }),
        AuditEvent::SharesMade(holders, threshold) => json!({
            "event": "shares-made", "threshold": threshold,
            "holders": holders.iter().map(ToString::to_string).collect::<Vec<_>>(),
        }),
        AuditEvent::StateTaken {
            package,
            capsule,
            code,
            simulated,
            writer,
            token,
            heads,
        } => json!({
            "event": "state-taken", "package": package.to_string(), "capsule": capsule.to_string(),
            "code": code, "simulated": simulated, "writer": writer.to_string(), "token": token,
            "heads": heads.to_string(),
        }),
        AuditEvent::StateReleased {
            capsule,
            token,
            heads,
        } => json!({
            "event": "state-released", "capsule": capsule.to_string(), "token": token,
            "heads": heads.to_string(),
        }),
        _ => json!({ "event": "unknown" }),
    }
}

fn refused_json(refused: &RefusedLease) -> Value {
    json!({
        "at": refused.at.to_string(),
        "package": refused.package.to_string(),
        "code": refused.code,
        "reason": refused.reason,
    })
}

const EXAMPLES: &str = r#"Examples:
  bield audit
  bield audit --last 10
  bield --json audit --from 0
  bield audit --log /var/lib/bield/keys"#;
