//! The state's refusals: what happened, whose move it is.

use bield_envelope::{Digest, Principal, Time};
use bield_protocol::refusal::{Refusal, Retry};

pub(crate) fn not_registered(by: Principal) -> Refusal {
    let message = format!("{by} is not registered with this key service; register first");
    Refusal::new("not-registered", message, Retry::AfterChange)
}

pub(crate) fn succeeded(by: Principal, successor: Principal) -> Refusal {
    let message = format!("{by} was replaced by {successor}; only that key can order this now");
    Refusal::new("succeeded", message, Retry::Never)
}

pub(crate) fn unknown_package(digest: &Digest) -> Refusal {
    let message = format!("package {digest} is not registered here; its owner must register it");
    Refusal::new("unknown-package", message, Retry::AfterChange)
}

pub(crate) fn unknown_name(owner: Principal, name: &str, version: Option<&str>) -> Refusal {
    let version = version.map_or_else(String::new, |version| format!("@{version}"));
    let message =
        format!("{owner} has no package called {name}{version} here; its owner must register it");
    Refusal::new("unknown-package", message, Retry::AfterChange)
}

pub(crate) fn not_owner(by: Principal, what: &str) -> Refusal {
    let message = format!("{what} is not {by}'s; its owner must order this");
    Refusal::new("not-owner", message, Retry::Never)
}

pub(crate) fn invalid(what: &str, error: &dyn core::error::Error) -> Refusal {
    let message = format!("the {what} does not verify: {error}");
    Refusal::new("invalid-signature", message, Retry::Never)
}

pub(crate) fn not_administrator(by: Principal) -> Refusal {
    let message = format!(
        "{by} is not an administrator of this key service; its measured configuration names them"
    );
    Refusal::new("not-administrator", message, Retry::Never)
}

/// What the measured configuration does not allow; `what` says how it is instead.
pub(crate) fn not_configured(what: &str) -> Refusal {
    let message = format!(
        "by this key service's measured configuration {what}; only its operator can change that"
    );
    Refusal::new("not-configured", message, Retry::Never)
}

pub(crate) fn not_holder(by: Principal) -> Refusal {
    let message = format!("no recovery share is here for {by}; an administrator makes shares");
    Refusal::new("not-holder", message, Retry::AfterChange)
}

pub(crate) fn ended(until: Time, now: Time) -> Refusal {
    let message = format!("the grant ended at {until}, it is {now}; make a new one");
    Refusal::new("grant-expired", message, Retry::Never)
}

/// A table that is full: of one principal, who can make room, or of the service, where only its operator can.
pub(crate) fn room(have: usize, max: usize, what: &str, whose: Whose) -> Result<(), Refusal> {
    if have < max {
        return Ok(());
    }
    let message = match whose {
        Whose::Signer => format!(
            "{max} {what} are allowed and there; whoever ordered this must remove some first"
        ),
        Whose::Operator => {
            format!("this key service holds its {max} {what}; its operator must make room")
        }
    };
    Err(Refusal::new("full", message, Retry::AfterChange))
}

/// So many already; `what` says of what. They end by themselves.
pub(crate) fn busy(max: usize, what: &str) -> Refusal {
    let message = format!("{max} {what}, and no more are given until some end; try again");
    Refusal::new("busy", message, Retry::After(5000))
}

/// `what` says what is full and who can make room.
pub(crate) fn full(what: &str, max: usize) -> Refusal {
    Refusal::new("full", format!("{what} {max}"), Retry::AfterChange)
}

/// Whose move it is when a table is full.
#[derive(Clone, Copy)]
pub(crate) enum Whose {
    Signer,
    Operator,
}

pub(crate) fn malformed(what: &str) -> Refusal {
    Refusal::new("malformed", what, Retry::Never)
}

pub(crate) fn unsupported(what: &str) -> Refusal {
    let message = format!("{what} of another version; use a client of this service's version");
    Refusal::new("unsupported", message, Retry::Never)
}
