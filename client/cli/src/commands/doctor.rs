//! `bield doctor`: everything that can be found out about why it does not work, and whose move it is.

use bield_envelope::Principal;
use bield_evidence::{Check, Mover, Outcome};
use bield_sdk::{
    Acceptance, Gateway, Home, HomeError, KeyService, Kind, Randomness, ServiceError, Trust,
    Verification, accept, now, verify_at,
};
use clap::Args;
use serde_json::json;

use super::{counted, log_json, plain};
use crate::failure::Failure;
use crate::output::Output;
use crate::progress;
use crate::show::Checks;

/// Find out what is wrong, line by line, and whose move it is
///
/// This home, the gateway and what its programs gave up, each address of the key service: whether it can be
/// reached, its evidence, its log against what this home has seen, witnesses, members, recovery shares, how long leases last, and
/// what you are there. Exit code 1 when a line failed that trying again does not help, 3 when somebody
/// was not there.
///
/// A key service is refused when its log was set back, forked, or is another one than this home knows.
/// Two of these can be meant, and only a person can say so: --accept-service for a new service in the
/// place of the known one, --accept-recovery for one that was recovered from less than this home has seen
/// or from another branch than it saw. Ask its operator first, on another way. A service that was rolled
/// back or forked, or an instance from before a recovery, cannot be accepted.
#[derive(Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Doctor {
    /// Go on with this new key service in the place of the one this home knows
    #[arg(long, value_name = "PRINCIPAL", conflicts_with = "accept_recovery")]
    accept_service: Option<Principal>,

    /// Go on with a key service that was recovered from less than this home has seen, or another branch
    #[arg(long)]
    accept_recovery: bool,
}

impl Doctor {
    pub(crate) fn run(self, home: &Home, output: Output) -> Result<(), Failure> {
        let mut found = Findings::default();
        let trust = here(home, &mut found);
        if let Some(trust) = &trust {
            let acceptance = match self.accept_service {
                Some(principal) => Some(Acceptance::Service(principal)),
                None => self.accept_recovery.then_some(Acceptance::Recovery),
            };
            if let Some(acceptance) = acceptance {
                let done = accept(home, trust, acceptance, now(), &mut Randomness)?;
                let fresh = &done.fresh;
                output.note(if done.needed {
                    format!("accepted: {fresh}")
                } else {
                    format!("there was nothing to accept: {fresh}")
                });
            }
            gateway(trust, &mut found);
            let spinner = progress::spinner("asking every member of the key service");
            let served = members(home, trust, &mut found);
            me(home, trust, served, &mut found);
            spinner.finish_and_clear();
        }
        found.conclude(output)
    }
}

/// The lines, and what is behind them.
#[derive(Default)]
struct Findings {
    checks: Vec<Check>,
    unreachable: bool,
    refused: bool,
    local: bool,
    log: Option<serde_json::Value>,
    simulated: bool,
}

impl Findings {
    fn passed(&mut self, name: &'static str, have: impl ToString) {
        let have = have.to_string();
        self.add(name, Outcome::Passed, have, "the same", Mover::User);
    }

    fn open(&mut self, name: &'static str, have: impl ToString, need: &str, mover: Mover) {
        self.add(name, Outcome::NotChecked, have.to_string(), need, mover);
    }

    fn failed(
        &mut self,
        name: &'static str,
        kind: Kind,
        have: impl ToString,
        need: &str,
        mover: Mover,
    ) {
        match kind {
            Kind::Unreachable => self.unreachable = true,
            Kind::Local => self.local = true,
            Kind::Refused => self.refused = true,
        }
        self.add(name, Outcome::Failed, have.to_string(), need, mover);
    }

    fn add(
        &mut self,
        name: &'static str,
        outcome: Outcome,
        have: String,
        need: &str,
        mover: Mover,
    ) {
        self.checks.push(Check {
            name,
            outcome,
            have,
            need: need.to_owned(),
            mover,
        });
    }

    fn conclude(self, output: Output) -> Result<(), Failure> {
        let shown = Checks(&self.checks);
        let mut value = shown.to_json();
        let failed = self.refused || self.local || self.unreachable;
        value["passed"] = (!failed).into();
        value["subject"] = "doctor".into();
        value["simulated"] = self.simulated.into();
        value["log"] = json!(self.log);
        let mut text = shown.to_string();
        if self.simulated {
            text += "\nSOFTWARE TEE: no hardware protects this key service";
        }
        if !failed {
            output.show(&value, text);
            return Ok(());
        }
        if !output.is_json() {
            output.show(&value, text);
        }
        // What does not pass by itself is told first.
        let kind = if self.refused {
            Kind::Refused
        } else if self.local {
            Kind::Local
        } else {
            Kind::Unreachable
        };
        Err(Failure::new(kind, "something is wrong; see the lines that FAILED").with(value))
    }
}

/// What lies in this home.
fn here(home: &Home, found: &mut Findings) -> Option<Trust> {
    match home.identity() {
        Ok(key) => found.passed("identity", key.principal()),
        Err(error) => found.failed("identity", Kind::Local, error, "a key", Mover::User),
    }
    if let Ok(Some(next)) = home.begun_identity() {
        found.failed(
            "succession",
            Kind::Local,
            format_args!("begun, to {}, and not ended", next.principal()),
            "`bield rotate identity` again: it goes on where it stopped",
            Mover::User,
        );
    }
    match home.head() {
        Ok(Some(head)) => found.passed(
            "kept head",
            format_args!("{} of {}", counted(head.size(), "record"), head.origin()),
        ),
        Ok(None) => found.open(
            "kept head",
            "none: no key service was met yet",
            "a first contact",
            Mover::User,
        ),
        Err(error) => found.failed("kept head", Kind::Local, error, "a whole file", Mover::User),
    }
    match home.shares() {
        Ok(shares) if shares.is_empty() => {}
        Ok(shares) => {
            let current = shares.iter().filter(|kept| kept.current).count();
            let have = format!("{} here, {current} of this service", shares.len());
            found.passed("shares here", have);
        }
        Err(error) => {
            let need = "files that you alone can read";
            found.failed("shares here", Kind::Local, error, need, Mover::User);
        }
    }
    match home.trust() {
        Ok(trust) => {
            let addresses = trust.key_services();
            let have = format!("key service at {}", addresses.join(", "));
            found.passed("trust file", have);
            Some(trust)
        }
        Err(error) => {
            let need = match error {
                HomeError::NoTrust { .. } => "bield init --trust FILE",
                _ => "a trust file that can be used",
            };
            found.failed("trust file", Kind::Local, error, need, Mover::User);
            None
        }
    }
}

fn gateway(trust: &Trust, found: &mut Findings) {
    match Gateway::new(trust.gateway()).status() {
        Ok(status) => {
            found.passed("gateway", format_args!("{} answers", trust.gateway()));
            hardening(&status, found);
        }
        Err(error) => found.failed(
            "gateway",
            error.kind(),
            &error,
            "an answer",
            Mover::Operator,
        ),
    }
}

/// What the gateway says that its programs gave up, and what their kernel refused: the host's word. What evidence covers is
/// a check of the key service, and of each receipt.
fn hardening(status: &serde_json::Value, found: &mut Findings) {
    let workers = status["workers"].as_array().into_iter().flatten();
    for program in std::iter::once(&status["key_service"]).chain(workers) {
        let report = &program["report"];
        let (Some(applied), Some(missing)) =
            (report["hardening"].as_array(), report["missing"].as_array())
        else {
            continue;
        };
        let words = |list: &[serde_json::Value]| {
            let words: Vec<String> = list
                .iter()
                .filter_map(|word| word.as_str().map(plain))
                .collect();
            words.join(", ")
        };
        let name = plain(report["program"].as_str().unwrap_or_default());
        if missing.is_empty() {
            let have = format!("{name}, by its host's word: {}", words(applied));
            found.open("hardening", have, STATED, Mover::User);
        } else {
            let have = format!(
                "{name} runs without: {}, by its host's word",
                words(missing)
            );
            found.open("hardening", have, HARDENING, Mover::Operator);
        }
    }
}

/// Each address of the key service. One that serves is enough; others may follow it. Comes out with whether one does.
fn members(home: &Home, trust: &Trust, found: &mut Findings) -> bool {
    let mut served = false;
    let mut recovering = false;
    let mut missing = Vec::new();
    for address in trust.key_services() {
        match verify_at(home, trust, address, now(), &mut Randomness) {
            Ok(verification) => {
                served |= serves(&verification);
                member(address, verification, found);
            }
            Err(error) if error.code() == Some("not-leader") => {
                found.passed(
                    "member",
                    format_args!("{address}: attested, follows another"),
                );
            }
            Err(error) => missing.push((address, error)),
        }
    }
    for (address, error) in missing {
        recovering |= waits_for_shares(&error);
        // A sentence that names it already is enough.
        let have = error.to_string();
        let have = if have.contains(address.as_str()) {
            have
        } else {
            format!("{address}: {have}")
        };
        if served {
            let need = "an answer; another member serves meanwhile";
            found.open("member", have, need, Mover::Operator);
        } else if waits_for_shares(&error) {
            found.failed("member", error.kind(), have, SHARES, Mover::Operator);
        } else {
            found.failed("member", error.kind(), have, "an answer", Mover::Operator);
        }
    }
    if !served && !recovering {
        let have = match trust.key_services().len() {
            1 => "it does not serve".to_owned(),
            number => format!("no member leads: none of {number} addresses serves"),
        };
        let need = "a member that serves: retry in a few seconds, while they choose one; if it stays so, its \
                    operator must look";
        found.failed("serving", Kind::Unreachable, have, need, Mover::Operator);
    }
    served
}

/// Whether it is an instance that people must recover: trying again is no help.
fn waits_for_shares(error: &ServiceError) -> bool {
    matches!(error, ServiceError::Nameless { state: Some(state), .. } if state == "recovering")
}

/// Whether that member passed and says that it serves.
fn serves(verification: &Verification) -> bool {
    let state = verification
        .inspection
        .as_ref()
        .map(|said| said.state.as_str());
    verification.passed() && state == Some("serving")
}

fn member(address: &str, verification: Verification, found: &mut Findings) {
    let passed = verification.passed();
    found.simulated |= verification.simulated;
    if let Some(fresh) = &verification.fresh {
        found.log = Some(log_json(fresh));
    }
    if passed {
        let count = verification.with(Outcome::Passed).count();
        found.passed("evidence", format_args!("{address}: {count} checks passed"));
    }
    let shown = |check: &Check| matches!(check.name, "hardening" | "log" | "witnesses");
    for check in verification.checks {
        if check.outcome == Outcome::Failed {
            // A witness that is away, or a write under way, passes by itself.
            if verification.retry {
                found.unreachable = true;
            } else {
                found.refused = true;
            }
        }
        // Of the evidence only what failed, and what was given up: `bield verify` lists the rest.
        if shown(&check) || check.outcome == Outcome::Failed {
            found.checks.push(check);
        }
    }
    let Some(inspection) = verification.inspection else {
        return;
    };
    let trouble = inspection.trouble.as_deref().map(plain);
    match (inspection.state.as_str(), trouble) {
        ("serving", None) => found.passed("state", "serving"),
        (state, trouble) => found.failed(
            "state",
            // What troubles one that serves is tried again by itself: a disk, too few witnesses.
            if matches!(state, "serving" | "forming" | "following") {
                Kind::Unreachable
            } else {
                Kind::Refused
            },
            format_args!("{}: {}", plain(state), trouble.unwrap_or_default()),
            "serving, and no trouble",
            Mover::Operator,
        ),
    }
    match inspection.members {
        1 => found.open(
            "members",
            "1",
            "3 or 5, when it has to go on while a machine is down",
            Mover::Operator,
        ),
        members => found.passed("members", members),
    }
    let (witnesses, needed) = inspection.witnesses;
    match needed {
        0 => found.open(
            "its witnesses",
            "none",
            "witnesses in its measured configuration: without them a host that sets all its disks back is \
             found out only by callers who have seen more",
            Mover::Operator,
        ),
        _ => found.passed("its witnesses", format_args!("{needed} of {witnesses} cosign")),
    }
    match inspection.shares {
        Some((holders, threshold)) => {
            found.passed("recovery", format_args!("{threshold} of {holders} holders"));
        }
        None => found.open(
            "recovery",
            "nobody could recover it",
            "an administrator's `bield recover make`",
            Mover::Operator,
        ),
    }
    let lease = inspection.lease_secs;
    found.passed(
        "leases",
        format_args!("a revocation holds within {lease} s"),
    );
}

/// What this identity is at the service.
fn me(home: &Home, trust: &Trust, served: bool, found: &mut Findings) {
    let Ok(identity) = home.identity() else {
        return;
    };
    let need = "bield register";
    let row = KeyService::connect(home, trust, now(), &mut Randomness)
        .and_then(|mut service| service.me(&identity));
    match row {
        Ok(row) => {
            let mut roles = vec![if row.registered {
                "registered"
            } else {
                "not registered"
            }];
            roles.extend(row.administrator.then_some("administrator"));
            roles.extend(row.holder.then_some("holder of a share"));
            found.passed("you", roles.join(", "));
            let kept = home.shares().unwrap_or_default();
            if row.holder && !kept.iter().any(|kept| kept.current) {
                found.failed(
                    "your share",
                    Kind::Local,
                    "it is not in this home",
                    "bield recover take",
                    Mover::User,
                );
            }
        }
        Err(ServiceError::Refused(refusal)) if refusal.code == "not-registered" => {
            found.open("you", "not registered", need, Mover::User);
        }
        // The lines above say why.
        Err(_) if !served => {
            let have = "not known: no key service serves";
            found.open("you", have, "one that serves", Mover::Operator);
        }
        Err(error) => found.open("you", error, "a key service that serves", Mover::Operator),
    }
}

const HARDENING: &str = "a kernel with seccomp, and `ulimit -l unlimited` for locked memory";
const STATED: &str = "what its evidence states: `bield verify`, and the receipt of a call";
const SHARES: &str = "its holders' shares: each of them `bield recover give`";

const EXAMPLES: &str = r#"Examples:
  bield doctor
  bield --json doctor
  bield doctor --accept-service ed25519:...     # after asking its operator on another way
  bield doctor --accept-recovery"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_for_shares_is_told_from_who_waits_for_others() {
        let said = |state: Option<&str>| ServiceError::Nameless {
            address: "a:1".to_owned(),
            state: state.map(str::to_owned),
        };
        assert!(waits_for_shares(&said(Some("recovering"))));
        for state in [Some("forming"), Some("serving"), None] {
            assert!(!waits_for_shares(&said(state)), "{state:?}");
        }
    }
}
