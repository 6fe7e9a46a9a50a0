//! The checks, one function each, in the order they are listed (spec/02 §6 has the same table).

use bield_envelope::Time;

use super::{Check, Mover, Outcome};
use crate::claims::{Claims, TcbStatus};
use crate::measurement::{Measurement, TeeKind};
use crate::policy::{Policy, Profile, Reference};

/// Makes every check that applies to this kind of TEE.
pub(super) fn all(claims: &Claims, policy: &Policy, now: Time) -> Vec<Check> {
    let mut checks = vec![
        root(claims, policy),
        debug(claims),
        measurement(claims, policy),
        tcb(claims, policy, now),
        advisories(claims, policy),
        evaluation(claims, policy),
        collateral(claims, now),
        revocation(claims),
        platform(claims, policy),
        flag(
            DYNAMIC,
            claims.dynamic_platform,
            policy.allow_dynamic_platform,
        ),
        flag(CACHED, claims.cached_keys, policy.allow_cached_keys),
        flag("smt", claims.smt, policy.allow_smt),
        flag(MIGRATION, Some(claims.migratable), policy.allow_migration),
        vmpl(claims),
        hardening(claims, policy),
        configuration(claims),
        report_data(),
    ];
    // Facts a kind of TEE does not have are not open questions about it.
    checks.retain(|check| applies(check.name, claims.kind));
    checks
}

fn root(claims: &Claims, policy: &Policy) -> Check {
    let (have, met) = if claims.simulated {
        (
            format!(
                "SIMULATED root {}: no hardware protects this",
                claims.root.short()
            ),
            policy.allow_simulated,
        )
    } else {
        (format!("vendor root {}", claims.root.short()), true)
    };
    let need = if policy.allow_simulated {
        "a vendor root, or a configured simulated one"
    } else {
        "a vendor root"
    };
    judged("root", met, have, need.into(), Mover::Operator)
}

fn debug(claims: &Claims) -> Check {
    let have = if claims.debug { "on" } else { "off" };
    judged(
        "debug",
        !claims.debug,
        have.into(),
        "off".into(),
        Mover::Operator,
    )
}

fn measurement(claims: &Claims, policy: &Policy) -> Check {
    let have = claims.measurement.to_string();
    match &policy.reference {
        Reference::Listed(list) if list.is_empty() => failed(
            "measurement",
            have,
            "a reference value, but the policy lists none".into(),
            Mover::Owner,
        ),
        Reference::Listed(list) => judged(
            "measurement",
            list.contains(&claims.measurement),
            have,
            format!(
                "one of {}",
                listing(list.iter().map(Measurement::to_string))
            ),
            Mover::Owner,
        ),
        Reference::Deferred => not_checked(
            "measurement",
            have,
            "comparison by the caller, for instance with a grant",
            Mover::Owner,
        ),
    }
}

fn tcb(claims: &Claims, policy: &Policy, now: Time) -> Check {
    const NAME: &str = "tcb";
    if let Some(found) = &claims.snp_tcb {
        let have = found.to_string();
        return match (&policy.snp_tcb_min, policy.profile) {
            (Some(minimum), _) => judged(
                NAME,
                found.meets(minimum),
                have,
                format!("at least {minimum}"),
                Mover::Operator,
            ),
            (None, Profile::Strict) => failed(
                NAME,
                have,
                "a minimum, but the policy names none (snp_tcb_min)".into(),
                Mover::User,
            ),
            (None, Profile::Cloud | Profile::Dev) => {
                not_checked(NAME, have, "a minimum in the policy", Mover::User)
            }
        };
    }
    let status = claims.tcb_status;
    let date = claims
        .tcb_date
        .map_or_else(|| "unknown date".to_owned(), |date| date.to_string());
    let out_of_date = matches!(
        status,
        TcbStatus::OutOfDate | TcbStatus::OutOfDateConfigurationNeeded
    );
    // The grace runs from the date of the level the platform still meets.
    let in_grace = claims
        .tcb_date
        .is_some_and(|date| now.since(date) <= policy.out_of_date_grace);
    let met = policy.statuses.contains(&status) && (!out_of_date || in_grace);
    let days = policy.out_of_date_grace.as_secs() / 86_400;
    let need = listing(policy.statuses.iter().map(|status| match status {
        TcbStatus::OutOfDate | TcbStatus::OutOfDateConfigurationNeeded
            if policy.profile != Profile::Dev =>
        {
            format!("{status} for at most {days} days")
        }
        status => status.to_string(),
    }));
    judged(
        NAME,
        met,
        format!("{status} of {date}"),
        need,
        Mover::Operator,
    )
}

fn advisories(claims: &Claims, policy: &Policy) -> Check {
    let have = listing(claims.advisories.iter().cloned());
    if policy.blocked_advisories.is_empty() {
        return not_checked(
            ADVISORIES,
            have,
            "a list of blocked advisories",
            Mover::User,
        );
    }
    let met = !claims.advisories.iter().any(|found| {
        policy
            .blocked_advisories
            .iter()
            .any(|blocked| blocked.eq_ignore_ascii_case(found))
    });
    let need = format!(
        "none of {}",
        listing(policy.blocked_advisories.iter().cloned())
    );
    judged(ADVISORIES, met, have, need, Mover::Operator)
}

fn evaluation(claims: &Claims, policy: &Policy) -> Check {
    let have = claims
        .evaluation_number
        .map_or_else(|| "none".to_owned(), |number| number.to_string());
    let Some(minimum) = policy.evaluation_number_min else {
        return not_checked(EVALUATION, have, "a minimum in the policy", Mover::User);
    };
    let met = claims
        .evaluation_number
        .is_some_and(|number| number >= minimum);
    judged(
        EVALUATION,
        met,
        have,
        format!("at least {minimum}"),
        Mover::Operator,
    )
}

fn collateral(claims: &Claims, now: Time) -> Check {
    let (from, until) = (claims.collateral_from, claims.collateral_until);
    judged(
        "collateral",
        from <= now && now <= until,
        format!("valid {from} to {until}"),
        format!("valid at {now}"),
        Mover::Operator,
    )
}

fn revocation(claims: &Claims) -> Check {
    if claims.revocation_checked {
        passed(
            "revocation",
            "not on the vendor's lists",
            "the same",
            Mover::Vendor,
        )
    } else {
        not_checked(
            "revocation",
            "no revocation list in the evidence".into(),
            "the vendor's list",
            Mover::Operator,
        )
    }
}

fn platform(claims: &Claims, policy: &Policy) -> Check {
    let have = if claims.platform_id.is_empty() {
        "masked".to_owned()
    } else {
        hex::encode(&claims.platform_id)
    };
    match &policy.platforms {
        None => not_checked("platform", have, "an allow-list of platforms", Mover::User),
        Some(allowed) => judged(
            "platform",
            !claims.platform_id.is_empty() && allowed.contains(&claims.platform_id),
            have,
            format!("one of {}", listing(allowed.iter().map(hex::encode))),
            Mover::User,
        ),
    }
}

fn flag(name: &'static str, found: Option<bool>, allowed: bool) -> Check {
    let need = if allowed { "on or off" } else { "off" };
    match found {
        Some(on) => {
            let have = if on { "on" } else { "off" };
            judged(
                name,
                !on || allowed,
                have.into(),
                need.into(),
                Mover::Operator,
            )
        }
        None => not_checked(name, "not said by the platform".into(), need, Mover::Vendor),
    }
}

fn vmpl(claims: &Claims) -> Check {
    let have = claims
        .vmpl
        .map_or_else(|| "none".to_owned(), |level| level.to_string());
    judged(
        VMPL,
        claims.vmpl == Some(0),
        have,
        "0".into(),
        Mover::Vendor,
    )
}

fn hardening(claims: &Claims, policy: &Policy) -> Check {
    const NAME: &str = "hardening";
    let stated = claims.hardening.as_ref();
    let have = stated.map_or_else(|| "nothing stated".to_owned(), ToString::to_string);
    let asked = policy.hardening.of_kind(claims.kind);
    if asked.is_empty() {
        let need = "protections asked for by the policy (hardening)";
        return not_checked(NAME, have, need, Mover::User);
    }
    let unmet = policy.hardening.unmet(claims.kind, stated);
    let names = asked.iter().map(ToString::to_string);
    let need = format!("in force: {}", names.collect::<Vec<_>>().join(", "));
    judged(NAME, unmet.is_empty(), have, need, Mover::Operator)
}

fn configuration(claims: &Claims) -> Check {
    let have = if claims.configuration.iter().all(|byte| *byte == 0) {
        "none".to_owned()
    } else {
        hex::encode(&claims.configuration)
    };
    not_checked(
        "configuration",
        have,
        "comparison by the caller",
        Mover::Owner,
    )
}

fn report_data() -> Check {
    not_checked(
        "report data",
        "64 bytes chosen by the TEE".into(),
        "binding to a key or session by the caller",
        Mover::Vendor,
    )
}

fn applies(name: &str, kind: TeeKind) -> bool {
    match kind {
        TeeKind::Sgx | TeeKind::Tdx => name != VMPL && name != MIGRATION,
        TeeKind::Snp => ![ADVISORIES, EVALUATION, DYNAMIC, CACHED].contains(&name),
    }
}

const ADVISORIES: &str = "advisories";
const EVALUATION: &str = "evaluation number";
const VMPL: &str = "vmpl";
const DYNAMIC: &str = "dynamic platform";
const CACHED: &str = "cached keys";
const MIGRATION: &str = "migration agent";

fn judged(name: &'static str, met: bool, have: String, need: String, mover: Mover) -> Check {
    let outcome = if met {
        Outcome::Passed
    } else {
        Outcome::Failed
    };
    Check {
        name,
        outcome,
        have,
        need,
        mover,
    }
}

fn passed(name: &'static str, have: &str, need: &str, mover: Mover) -> Check {
    judged(name, true, have.into(), need.into(), mover)
}

fn failed(name: &'static str, have: String, need: String, mover: Mover) -> Check {
    judged(name, false, have, need, mover)
}

fn not_checked(name: &'static str, have: String, need: &str, mover: Mover) -> Check {
    Check {
        name,
        outcome: Outcome::NotChecked,
        have,
        need: need.into(),
        mover,
    }
}

/// Names the first few items and counts the rest, so that a refusal stays readable.
fn listing(items: impl ExactSizeIterator<Item = String>) -> String {
    const SHOWN: usize = 8;
    let total = items.len();
    if total == 0 {
        return "nothing".into();
    }
    let mut text = items.take(SHOWN).collect::<Vec<_>>().join(", ");
    if total > SHOWN {
        text.push_str(&format!(" and {} more", total - SHOWN));
    }
    text
}
