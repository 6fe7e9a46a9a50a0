//! A service's state, made to show itself: before every session, and when a person accepts by hand.
//!
//! Always true: nothing else is asked before this; what is kept afterwards was compared with what was kept
//! before, or accepted by a person for exactly the reason that was told.

use bield_envelope::{Principal, Time};
use bield_protocol::service::{Freshness, Reply, Request};
use rand_core::CryptoRng;

use super::{attested, in_turn};
use crate::freshness::{Fresh, Head, NotFresh, judge};
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
        let mut kept = home.head()?;
        let mut answer = ask(wire, kept.as_ref())?;
        if kept.is_none()
            && let Some(met) = met_before(home, &answer)?
        {
            // A log from under earlier trust is compared too.
            answer = ask(wire, Some(&met))?;
            kept = Some(met);
        }
        let judged = judge(kept.as_ref(), &answer, service, trust.witnesses(), now);
        let fresh = judged.map_err(|error| not_fresh(wire, error))?;
        if fresh.recovered_from.is_some()
            && let Some(met) = home.head_of(fresh.head.origin())?
            && met.size() > fresh.head.size()
        {
            let (seen, shown) = (met.size(), fresh.head.size());
            return Err(not_fresh(wire, NotFresh::RolledBack { seen, shown }));
        }
        if home.keep_head(kept.as_ref(), &fresh.head)? {
            return Ok(fresh);
        }
    }
    Err(not_fresh(wire, NotFresh::Overtaken { tries: TRIES_MAX }))
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

fn met_before(home: &Home, answer: &Freshness) -> Result<Option<Head>, ServiceError> {
    let Ok(log) = answer.log.parse::<bield_tlog::LogVerifier>() else {
        return Ok(None);
    };
    Ok(home.head_of(&log.name().into())?)
}

/// What a person accepts by hand, after [`NotFresh`] has said what there is to accept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acceptance {
    /// The service was recovered from less than this home has seen: what came after is void.
    Recovery,
    /// This service takes the place of the one that this home knows.
    Service(Principal),
}

/// Goes on with a service that [`KeyService::connect`] refuses, by the explicit word of a person: only for
/// exactly the reason that is accepted, never for one that was rolled back or forked.
///
/// # Errors
/// Nobody there, somebody who does not pass, or a reason that this does not accept.
pub fn accept(
    home: &Home,
    trust: &Trust,
    acceptance: Acceptance,
    now: Time,
    entropy: &mut impl CryptoRng,
) -> Result<Fresh, ServiceError> {
    in_turn(trust.key_services(), |address| {
        let (mut wire, service) = attested(trust, address, now, entropy)?;
        let kept = home.head()?;
        let answer = ask(&mut wire, kept.as_ref())?;
        let judge = |kept| judge(kept, &answer, service, trust.witnesses(), now);
        let error = match judge(kept.as_ref()) {
            Err(error) => error,
            // Nothing to accept: it is as it should be.
            Ok(fresh) => {
                home.keep_head(kept.as_ref(), &fresh.head)?;
                return Ok(fresh);
            }
        };
        let accepted = match (&error, acceptance) {
            (NotFresh::Recovered { .. }, Acceptance::Recovery) => true,
            (NotFresh::OtherService { found, .. }, Acceptance::Service(named)) => *found == named,
            _ => false,
        };
        if !accepted {
            return Err(not_fresh(&wire, error));
        }
        let before = match acceptance {
            Acceptance::Recovery => kept.as_ref().map(Head::origin),
            Acceptance::Service(_) => None,
        };
        let fresh = judge(None).map_err(|error| not_fresh(&wire, error))?;
        if let Some(met) = home.head_of(fresh.head.origin())? {
            // It was met before, under earlier trust: then it must continue that.
            let answer = ask(&mut wire, Some(&met))?;
            let judged =
                crate::freshness::judge(Some(&met), &answer, service, trust.witnesses(), now);
            let fresh = judged.map_err(|error| not_fresh(&wire, error))?;
            home.replace_head(&fresh.head, before)?;
            return Ok(fresh);
        }
        home.replace_head(&fresh.head, before)?;
        Ok(fresh)
    })
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
