//! From the kill of a leader to the next change that is acknowledged, over real processes.
//!
//! ```text
//! owner ──grant grant grant──▶ leader ✗        members wait one election time, elect
//!       └─ next address ─ next address ─▶ new leader ──▶ acknowledged
//! ```
//!
//! Told in election timeouts: what a leader's silence costs by the protocol, at least one. In the path: the
//! election, the new leader's first record on a majority, the client's attempts and its attested handshake.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use bield_end_to_end::{Instance, Package, Person, Plan, Site, tiny_model, wait_until};
use bield_envelope::Signed;
use bield_keys::cluster::Timing;
use bield_sdk::ServiceError;

use super::Effort;
use crate::bars::{Bar, median};

const MEMBERS: usize = 3;
/// As the program's own: `Settings::new` in `enclave/keys/src/cluster/handle.rs`.
const TICK: Duration = Duration::from_millis(50);
const SOON: Duration = Duration::from_secs(60);
/// Between two attempts of the client.
const PAUSE: Duration = Duration::from_millis(20);

/// Kills leaders.
pub(super) fn measured(effort: &Effort, bars: &mut Vec<Bar>) -> Result<()> {
    eprintln!("  failover");
    let plan = Plan {
        machines: MEMBERS,
        members: MEMBERS as u8,
        ..Plan::default()
    };
    let site = Site::new(plan, |config| config.orders_per_minute = 1_000_000)?;
    let start = |slot: usize| site.start_member(slot, &format!("member-{slot}"));
    let mut members = (0..MEMBERS)
        .map(|slot| start(slot).map(Some))
        .collect::<Result<Vec<_>>>()?;
    leader(&members)?;
    let owner = site.person("owner")?;
    let model = tiny_model("failover");
    let package = owner.pack("failover", &model)?;
    owner.offer(&package, &model)?;
    let mut took = Vec::new();
    for _ in 0..effort.rounds() {
        all_take_part(&members)?;
        for _ in 0..5 {
            order(&owner, &package)?;
        }
        let first = leader(&members)?;
        let killed = members[first].take().context("it runs")?;
        let begin = Instant::now();
        killed.power_off()?;
        while let Err(error) = order(&owner, &package) {
            ensure!(
                begin.elapsed() < SOON,
                "no change was acknowledged: {error}"
            );
            std::thread::sleep(PAUSE);
        }
        took.push(begin.elapsed().as_secs_f64());
        members[first] = Some(start(first)?);
    }
    let election = (TICK * u32::try_from(Timing::default().election)?).as_secs_f64();
    let worst = took.iter().copied().fold(0.0, f64::max);
    bars.push(Bar::told(
        "leader killed → first acknowledged change, in election timeouts".to_owned(),
        median(took.clone()) / election,
        "ratio",
        format!(
            "3 members, real processes, software TEE; timeout {election:.1} s; {} kills, worst {worst:.2} s; \
             election, a record on a majority, the client's next address and handshake",
            took.len()
        ),
    ));
    Ok(())
}

fn order(owner: &Person, package: &Package) -> Result<(), ServiceError> {
    let mut service = owner.service()?;
    let grant = Signed::sign(&owner.key, owner.draft(package, owner));
    service.grant(&owner.key, &grant)?;
    service.close()
}

fn leader(members: &[Option<Instance>]) -> Result<usize> {
    let mut found = None;
    wait_until(SOON, || {
        found = members.iter().position(|member| {
            let member = member.as_ref();
            member.is_some_and(|member| member.state() == "serving")
        });
        found.is_some()
    });
    found.context("no member leads")
}

fn all_take_part(members: &[Option<Instance>]) -> Result<()> {
    for member in members.iter().flatten() {
        let takes_part = || ["serving", "following"].contains(&member.state().as_str());
        ensure!(wait_until(SOON, takes_part), "{}", member.process.said());
    }
    Ok(())
}
