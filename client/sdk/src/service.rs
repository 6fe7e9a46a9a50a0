//! The key service, after it has proved its code and its state.
//!
//! ```text
//! addresses of trust.toml, in turn: unreachable, not attested, not the leader ─▶ next
//!   TCP ─▶ TLS 1.3 ─▶ gate: evidence appraised against Trust, bound to this session
//!     ─▶ freshness: its log continues the head that the home keeps ─▶ KeyService
//! ```
//!
//! Always true: a value of this type is a live session with code that meets the trust and whose log
//! begins with everything this home has seen; there is no other way to make one. What was ordered and
//! acknowledged is in the home's head when the session ends well, so that a service that loses it is
//! found out. Commands are numbered from 0, each number used once. Any broken exchange ends it.

use std::thread;
use std::time::{Duration, Instant};

use bield_envelope::{Principal, Time};
use bield_evidence::{Appraised, Check, Measurement};
use bield_grant::CodeSelector;
use bield_protocol::service::{Inspection, PackageReference, Reply, Request};
use bield_tlog::Origin;
use rand_core::CryptoRng;

use crate::freshness::{Fresh, NotFresh};
use crate::verification;
use crate::wire::{Demands, Wire};
use crate::{Home, KnownService, ServiceError, Target, TargetError, Trust};

mod state;

pub(crate) use state::freshen;
pub use state::{Acceptance, Accepted, accept};

/// An attested session with the key service, whose state is no older than what the home has seen.
pub struct KeyService<'a> {
    home: &'a Home,
    trust: &'a Trust,
    pub(crate) wire: Wire,
    principal: Principal,
    fresh: Fresh,
    /// Size of the log at the latest acknowledged change that the home's head may not contain yet.
    acknowledged: Option<u64>,
    since: (Time, Instant),
}

impl<'a> KeyService<'a> {
    /// Connects to the first member that serves, and returns only once its evidence has met `trust` and
    /// its log was shown to continue the head that `home` keeps, which is then replaced by the newer one.
    ///
    /// # Errors
    /// Nobody there, somebody who does not pass, or a service whose state is not the newest known.
    pub fn connect(
        home: &'a Home,
        trust: &'a Trust,
        now: Time,
        entropy: &mut impl CryptoRng,
    ) -> Result<Self, ServiceError> {
        let start = Instant::now();
        agree(home, trust, now, entropy)?;
        in_turn(trust.key_services(), |address| {
            Self::connect_at(home, trust, address, now.plus(start.elapsed()), entropy)
        })
    }

    fn connect_at(
        home: &'a Home,
        trust: &'a Trust,
        address: &str,
        now: Time,
        entropy: &mut impl CryptoRng,
    ) -> Result<Self, ServiceError> {
        let (mut wire, principal) = attested(trust, address, now, entropy)?;
        let fresh = freshen(&mut wire, home, trust, principal, now)?;
        let service = Self {
            home,
            trust,
            wire,
            principal,
            fresh,
            acknowledged: None,
            since: (now, Instant::now()),
        };
        home.remember_service(&service.known())?;
        Ok(service)
    }

    /// Who it is: signs workers' certificates, anchors receipts.
    #[must_use]
    pub const fn principal(&self) -> Principal {
        self.principal
    }

    /// What this session was opened under.
    #[must_use]
    pub const fn trust(&self) -> &'a Trust {
        self.trust
    }

    /// `host:port` of the member that serves.
    #[must_use]
    pub fn address(&self) -> &str {
        self.wire.address()
    }

    /// How its state was found to be.
    #[must_use]
    pub const fn fresh(&self) -> &Fresh {
        &self.fresh
    }

    /// Its evidence, verified and accepted.
    ///
    /// # Panics
    /// Never: no value is made without it.
    #[must_use]
    pub fn appraised(&self) -> &Appraised {
        let appraised = self.wire.peer().appraised.as_ref();
        appraised.expect("checked when the session was opened")
    }

    /// What the home remembers of it, to check receipts offline.
    #[must_use]
    pub fn known(&self) -> KnownService {
        KnownService {
            principal: self.principal,
            measurement: self.appraised().measurement().to_string(),
            simulated: self.appraised().simulated(),
        }
    }

    /// Every check that was made of it, and those that were not.
    #[must_use]
    pub fn checks(&self) -> Vec<Check> {
        let mut checks =
            verification::evidence(self.trust, self.appraised().checks(), Some(self.principal));
        checks.extend(verification::state(self.trust, &self.fresh));
        checks
    }

    /// How it is.
    ///
    /// # Errors
    /// The session broke, or it refuses.
    pub fn inspect(&mut self) -> Result<Inspection, ServiceError> {
        inspect(&mut self.wire)
    }

    /// The verified way to call one package inside one code.
    ///
    /// # Errors
    /// The code is not trusted, the service refuses, or what it names is not what was asked for.
    pub fn target(
        &mut self,
        package: &PackageReference,
        code: &Measurement,
        now: Time,
    ) -> Result<Target, ServiceError> {
        self.target_in(package, &CodeSelector::Measurement(code.clone()), now)
    }

    /// The verified way to call one package inside code that `code` selects: the service names the newest
    /// that the package's owner grants too, and requests are sealed to exactly that code.
    ///
    /// # Errors
    /// As [`target`](Self::target).
    pub fn target_in(
        &mut self,
        package: &PackageReference,
        code: &CodeSelector,
        now: Time,
    ) -> Result<Target, ServiceError> {
        if !self.trust.lists(code) {
            return Err(TargetError::CodeNotTrusted { code: code.clone() }.into());
        }
        let asked = Request::KeyConfiguration(package.clone(), code.clone());
        match self.exchange(&asked)? {
            Reply::KeyConfiguration(named) => Ok(Target::verify(
                named,
                package,
                code,
                self.principal,
                self.trust,
                now,
            )?),
            _ => Err(ServiceError::OtherAnswer),
        }
    }

    /// Asks for the newest head again and keeps it: what was acknowledged until now must be in it.
    ///
    /// # Errors
    /// The session broke, or the service shows a state that may not be relied on.
    pub fn settle(&mut self) -> Result<&Fresh, ServiceError> {
        let now = self.since.0.plus(self.since.1.elapsed());
        let before = self.fresh.clone();
        let after = freshen(&mut self.wire, self.home, self.trust, self.principal, now)?;
        if let Some(said) = self.acknowledged
            && after.head.size() < said
        {
            let shown = after.head.size();
            return Err(state::not_fresh(
                &self.wire,
                NotFresh::Unacknowledged { said, shown },
            ));
        }
        self.acknowledged = None;
        // What "last time" means stays what it was before this session.
        self.fresh = Fresh {
            seen: before.seen,
            recovered_from: before.recovered_from,
            ..after
        };
        Ok(&self.fresh)
    }

    /// Ends the session, after [`settle`](Self::settle) when something was changed in it.
    ///
    /// # Errors
    /// As `settle`: the changes hold by the service's word, but could not be seen in its log.
    pub fn close(mut self) -> Result<(), ServiceError> {
        if self.acknowledged.is_some() {
            self.settle()?;
        }
        Ok(())
    }

    /// Sends one message and receives its answer; a refusal is an error.
    pub(crate) fn exchange(&mut self, request: &Request) -> Result<Reply, ServiceError> {
        self.wire.exchange(request)
    }

    /// Notes that a change was acknowledged in a log of this size.
    pub(crate) fn acknowledge(&mut self, size: u64) {
        self.acknowledged = self.acknowledged.max(Some(size));
    }

    pub(crate) const fn home(&self) -> &'a Home {
        self.home
    }
}

/// Whoever forgets to close has the change in the home's head all the same, if the line still stands.
impl Drop for KeyService<'_> {
    fn drop(&mut self) {
        if self.acknowledged.is_some() && !self.wire.is_broken() {
            let _ = self.settle();
        }
    }
}

/// A session with code that meets the trust, and the name it gives itself; its state is not known yet.
fn attested(
    trust: &Trust,
    address: &str,
    now: Time,
    entropy: &mut impl CryptoRng,
) -> Result<(Wire, Principal), ServiceError> {
    let demands = Demands {
        policy: trust.policy().clone(),
        roots: trust.roots().clone(),
        service: trust.principal(),
    };
    let mut wire = Wire::open(address, demands, now, entropy)?;
    match wire.peer().service {
        Some(principal) if wire.peer().appraised.is_some() => Ok((wire, principal)),
        _ => Err(nameless(&mut wire)),
    }
}

/// Why an instance names no identity: by its own word, once its code is known.
pub(crate) fn nameless(wire: &mut Wire) -> ServiceError {
    let attested = wire.peer().appraised.is_some();
    let said = attested.then(|| inspect(wire).ok()).flatten();
    ServiceError::Nameless {
        address: wire.address().to_owned(),
        state: said.map(|said| said.state),
    }
}

/// At first contact, when nothing can be compared with, all addresses that answer must name one log.
pub(crate) fn agree(
    home: &Home,
    trust: &Trust,
    now: Time,
    entropy: &mut impl CryptoRng,
) -> Result<(), ServiceError> {
    if trust.key_services().len() < 2 || home.head()?.is_some() {
        return Ok(());
    }
    let mut named: Option<(String, Origin)> = None;
    for address in trust.key_services() {
        // Who does not answer, or follows another one, names no log; connecting says why.
        let Ok((mut wire, _)) = attested(trust, address, now, entropy) else {
            continue;
        };
        let Ok(Some(origin)) = state::named(&mut wire) else {
            continue;
        };
        match &named {
            Some((one, first)) if *first != origin => {
                let error = NotFresh::TwoLogs {
                    one: one.clone(),
                    first: first.clone(),
                    other: address.clone(),
                    second: origin,
                };
                return Err(state::not_fresh(&wire, error));
            }
            Some(_) => {}
            None => named = Some((address.clone(), origin)),
        }
    }
    Ok(())
}

/// Asks the members in turn until one serves. While they choose a leader, all are asked again. One with
/// another log than the known one is told of only when none serves the known one.
pub(crate) fn in_turn<T>(
    addresses: &[String],
    mut ask: impl FnMut(&str) -> Result<T, ServiceError>,
) -> Result<T, ServiceError> {
    for round in 1.. {
        let mut errors = Vec::new();
        let mut another = None;
        for address in addresses {
            match ask(address) {
                Err(error) if error.is_of_another_log() => {
                    another.get_or_insert(error);
                }
                Err(error) if error.is_of_member() => errors.push(error),
                done => return done,
            }
        }
        let electing = addresses.len() > 1 && errors.iter().any(ServiceError::is_not_leader);
        if electing && round < ROUNDS_MAX {
            thread::sleep(ROUND_PAUSE);
            continue;
        }
        if let Some(another) = another {
            return Err(another);
        }
        return Err(match errors.pop() {
            Some(error) if errors.is_empty() => error,
            Some(error) => {
                errors.push(error);
                ServiceError::NoneServes(errors)
            }
            None => ServiceError::NoneServes(errors),
        });
    }
    Err(ServiceError::NoneServes(Vec::new()))
}

pub(crate) fn inspect(wire: &mut Wire) -> Result<Inspection, ServiceError> {
    match wire.exchange(&Request::Inspect)? {
        Reply::Inspection(inspection) => Ok(inspection),
        _ => Err(ServiceError::OtherAnswer),
    }
}

/// How often all members are asked while they choose a leader, and the pause between: an election takes
/// about a second.
const ROUNDS_MAX: u32 = 20;
const ROUND_PAUSE: Duration = Duration::from_millis(250);
