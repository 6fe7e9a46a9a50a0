//! A service's state, made to show itself: before every session, and when a person accepts by hand.
//!
//! Always true: nothing else is asked before this; what is kept afterwards was compared with what was kept
//! before, or accepted by a person for exactly the reason that was told.

use bield_envelope::{Principal, Time};
use bield_protocol::service::{Freshness, Reply, Request};
use bield_tlog::Origin;
use rand_core::CryptoRng;

use super::{attested, in_turn};
use crate::freshness::{Fresh, Head, NotFresh, judge};
use crate::home::Compared;
use crate::wire::Wire;
use crate::{Home, ServiceError, Trust};

/// Makes the service show its newest head, compares it with the home's, and keeps it.
pub(crate) fn freshen(
    wire: &mut Wire,
    home: &Home,
    trust: &Trust,
    service: Principal,
    now: Time,
) -> Result<Fresh, ServiceError> {
    for _ in 0..TRIES_MAX {
        let (compared, judged) = compare(wire, home, trust, service, now)?;
        let fresh = judged.map_err(|error| not_fresh(wire, error))?;
        if home.keep_head(&compared, &fresh.head)? {
            return Ok(fresh);
        }
    }
    Err(not_fresh(wire, NotFresh::Overtaken { tries: TRIES_MAX }))
}

/// Makes the service show its newest head and judges it against all that this home keeps of it: the current
/// head, or any when there is none, and the head that was met of the very log that is shown.
fn compare(
    wire: &mut Wire,
    home: &Home,
    trust: &Trust,
    service: Principal,
    now: Time,
) -> Result<(Compared, Result<Fresh, NotFresh>), ServiceError> {
    let current = home.head()?;
    let (from, answer) = match &current {
        Some(kept) => (current.clone(), ask(wire, Some(kept))?),
        None => first_contact(wire, home, service)?,
    };
    let mut judged = judge(from.as_ref(), &answer, service, trust.witnesses(), now);
    let shown = origin(&answer);
    let met = match &shown {
        Some(origin) => home.head_of(origin)?,
        None => None,
    };
    if let Some(origin) = &shown
        && home.has_left(origin)
    {
        judged = Err(NotFresh::Left {
            found: service,
            origin: origin.clone(),
        });
    }
    if let (Ok(fresh), Some(met)) = (&judged, &met)
        && fresh.recovered_from.is_some()
    {
        // Met before, too: then it must also continue that.
        let answer = ask(wire, Some(met))?;
        let again = judge(Some(met), &answer, service, trust.witnesses(), now);
        judged = again.and_then(|again| {
            if again.recovered_from.is_some() {
                return Err(NotFresh::Recoveries);
            }
            Ok(Fresh {
                seen: fresh.seen,
                recovered_from: fresh.recovered_from.clone(),
                ..again
            })
        });
    }
    let whole = true;
    let compared = Compared {
        current,
        met,
        from,
        whole,
    };
    Ok((compared, judged))
}

/// Without a current head every kept one is shown: the log may be one that was met under other trust, or
/// one that was recovered from such.
fn first_contact(
    wire: &mut Wire,
    home: &Home,
    service: Principal,
) -> Result<(Option<Head>, Freshness), ServiceError> {
    let answer = ask(wire, None)?;
    let Some(shown) = origin(&answer) else {
        return Ok((None, answer));
    };
    if let Some(met) = home.head_of(&shown)? {
        let answer = ask(wire, Some(&met))?;
        return Ok((Some(met), answer));
    }
    for kept in home.heads()? {
        if home.has_left(kept.origin()) {
            continue;
        }
        let answer = ask(wire, Some(&kept))?;
        if !answer.recovered.is_empty() || kept.service() == service {
            return Ok((Some(kept), answer));
        }
    }
    Ok((None, answer))
}

/// The log that is shown at `address` to somebody who kept nothing.
pub(super) fn named(wire: &mut Wire) -> Result<Option<Origin>, ServiceError> {
    Ok(origin(&ask(wire, None)?))
}

/// A service that does not know the kept checkpoint is asked for its head without it: whether that is a
/// new service or a lying one, the comparison says.
fn ask(wire: &mut Wire, kept: Option<&Head>) -> Result<Freshness, ServiceError> {
    let note = kept.map(|head| head.checkpoint().to_string());
    let answer = match wire.exchange(&Request::Freshness(note)) {
        Err(ServiceError::Refused(refusal)) if kept.is_some() && refusal.code == FOREIGN => {
            wire.exchange(&Request::Freshness(None))
        }
        answer => answer,
    };
    match answer? {
        Reply::Freshness(answer) => Ok(answer),
        _ => Err(ServiceError::OtherAnswer),
    }
}

fn origin(answer: &Freshness) -> Option<Origin> {
    let log: bield_tlog::LogVerifier = answer.log.parse().ok()?;
    Some(Origin::from(log.name()))
}

/// What a person accepts by hand, after [`NotFresh`] has said what there is to accept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acceptance {
    /// The service was recovered from less than this home has seen, or from another branch: what this home
    /// saw beyond that is void.
    Recovery,
    /// This service takes the place of the one that this home knows.
    Service(Principal),
}

/// What came of an [`Acceptance`].
#[derive(Debug, Clone)]
pub struct Accepted {
    /// The state that this home goes on with.
    pub fresh: Fresh,
    /// Whether there was something to accept; `false` when the service is as it should be.
    pub needed: bool,
}

/// Goes on with a service that [`super::KeyService::connect`] refuses, by the explicit word of a person: only for
/// exactly the reason that is accepted, never for one that was rolled back, forked, or left.
///
/// # Errors
/// Nobody there, somebody who does not pass, or a reason that this does not accept.
pub fn accept(
    home: &Home,
    trust: &Trust,
    acceptance: Acceptance,
    now: Time,
    entropy: &mut impl CryptoRng,
) -> Result<Accepted, ServiceError> {
    in_turn(trust.key_services(), |address| {
        let (mut wire, service) = attested(trust, address, now, entropy)?;
        for _ in 0..TRIES_MAX {
            let (mut compared, judged) = compare(&mut wire, home, trust, service, now)?;
            let (fresh, needed) = match judged {
                Ok(fresh) => (fresh, false),
                Err(error) => {
                    if !acceptance.covers(&error) {
                        return Err(not_fresh(&wire, error));
                    }
                    if let Acceptance::Service(_) = acceptance {
                        compared.from = None;
                    }
                    compared.whole = false;
                    // A log that was met before must continue that, whatever is accepted.
                    let met = compared.met.as_ref();
                    let answer = ask(&mut wire, met)?;
                    let judged = judge(met, &answer, service, trust.witnesses(), now);
                    (judged.map_err(|error| not_fresh(&wire, error))?, true)
                }
            };
            if home.keep_head(&compared, &fresh.head)? {
                return Ok(Accepted { fresh, needed });
            }
        }
        Err(not_fresh(&wire, NotFresh::Overtaken { tries: TRIES_MAX }))
    })
}

impl Acceptance {
    fn covers(self, error: &NotFresh) -> bool {
        match (error, self) {
            (NotFresh::Recovered { .. } | NotFresh::RecoveredElsewhere { .. }, Self::Recovery) => {
                true
            }
            (NotFresh::OtherService { found, .. }, Self::Service(named)) => *found == named,
            _ => false,
        }
    }
}

pub(super) fn not_fresh(wire: &Wire, error: NotFresh) -> ServiceError {
    ServiceError::NotFresh {
        address: wire.address().to_owned(),
        error: Box::new(error),
    }
}

/// What a service says of a checkpoint that none of its logs signed.
const FOREIGN: &str = "foreign-checkpoint";
/// How often a head is compared anew because another program kept a newer one meanwhile.
const TRIES_MAX: u32 = 8;
