//! Models that were verified, and are again before what was verified ends.
//!
//! ```text
//! trust ─▶ key service proves itself ─▶ one Target a model ─▶ calls, sealed ─▶ receipts verified and kept
//!   ▲                                       │ key configuration ends, or the runtime asks for a newer one
//!   └───────────────────────────────────────┘
//! ```
//!
//! Always true: a value exists only after the key service's evidence met the trust and every model's key
//! configuration was compared with what was asked for; a call is sealed to a configuration that has not
//! ended (`renewal.rs`). Each renewal reads trust.toml again, so that what was taken out of it is trusted an hour
//! at most. While the key service does not answer, calls go on until the configuration at hand ends; when it
//! refuses or does not prove itself, they end at once.
//!
//! Not here: how many calls run at once (the faces), what answers look like.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bield_envelope::{Digest, SigningKey, Time};
use bield_grant::{CodeSelector, PackageSelector};
use bield_sdk::{
    Answered, Awaited, CallError, CallOptions, Home, KeyService, Kind, PackageReference,
    Randomness, ServiceError, Target, Tensor, Trust, now,
};
use rand_core::Rng as _;

use crate::ProxyError;
use crate::oip::infer::Form;
use crate::openers::Openers;
use crate::refused::Refused;
use crate::renewal::{At, Failure, Now, Renewal};
use crate::upstream::{About, Carried, Done, Upstream};

/// Pause before a runtime that asked for a newer key is tried again with one that is new, and what chance adds.
const PAUSE: Duration = Duration::from_millis(200);
const PAUSE_MORE_MILLIS: u64 = 400;

/// Times a request is sent at most, when the gateway says to come back.
const ATTEMPTS_MAX: u32 = 4;

/// Models by the names under which they are served.
pub struct Models {
    asker: Arc<Asker>,
    user: SigningKey,
    served: BTreeMap<String, Served>,
    skipped: Vec<(String, String)>,
    openers: Openers<Waiting>,
}

/// What it takes to ask the key service.
struct Asker {
    home: Home,
    simulated: AtomicBool,
}

/// One model.
struct Served {
    asked: PackageReference,
    /// What its owner called it when this began.
    package: Digest,
    called: String,
    target: Arc<Renewal<Target>>,
}

/// A call that somebody else carries.
struct Waiting {
    model: String,
    target: Arc<Target>,
    awaited: Awaited,
    form: Form,
}

impl Models {
    /// Verifies the key service and asks it for each of the packages `wanted`, by the name under which it will
    /// be served; when there are none, for every package of the trust's owner that `user` has a grant for,
    /// under the owner's name for it.
    ///
    /// # Errors
    /// The key service does not pass, a package is not to be had in trusted code, or there is none.
    pub fn verify(
        home: Home,
        trust: Trust,
        user: SigningKey,
        wanted: Vec<(String, PackageReference)>,
    ) -> Result<Self, ProxyError> {
        let mut service = KeyService::connect(&home, &trust, now(), &mut Randomness)?;
        let simulated = service.appraised().simulated();
        let mut skipped = Vec::new();
        let served = if wanted.is_empty() {
            granted(&mut service, &trust, &user, &mut skipped)?
        } else {
            let mut served = BTreeMap::new();
            for (name, asked) in wanted {
                let target = target(&mut service, &trust, &asked)?;
                if served
                    .insert(name.clone(), Served::new(asked, target))
                    .is_some()
                {
                    return Err(ProxyError::TwoOfOneName(name));
                }
            }
            served
        };
        service.close()?;
        Ok(Self {
            asker: Arc::new(Asker {
                home,
                simulated: AtomicBool::new(simulated),
            }),
            user,
            served,
            skipped,
            openers: Openers::new(),
        })
    }

    /// What is served: name, package and its owner's name and version of it.
    #[must_use]
    pub fn list(&self) -> Vec<(String, Digest, String)> {
        let each = self
            .served
            .iter()
            .map(|(name, served)| (name.clone(), served.package, served.called.clone()));
        each.collect()
    }

    /// What is granted and not served: the package, and why.
    #[must_use]
    pub fn skipped(&self) -> &[(String, String)] {
        &self.skipped
    }

    /// Whether the key service's evidence is of a software TEE.
    #[must_use]
    pub fn simulated(&self) -> bool {
        self.asker.simulated.load(Ordering::Relaxed)
    }

    fn served(&self, model: &str) -> Result<&Served, Refused> {
        self.served.get(model).ok_or_else(|| {
            Refused::unknown(
                "no model of that name is served here; GET /v1/models lists those that are",
            )
        })
    }

    /// The target to seal to. When its end is near it is asked for anew beside, and nobody waits.
    fn target(&self, served: &Served) -> Result<Arc<Target>, Refused> {
        match served.target.get(At::now()) {
            Now::Good(target) => Ok(target),
            Now::Due(target) => {
                if served.target.may_ask(At::now()) {
                    let (renewal, asked) = (served.target.clone(), served.asked.clone());
                    let (asker, seen) = (self.asker.clone(), target.clone());
                    // What was wrong is remembered, and told when there is nothing left to call with.
                    std::thread::spawn(move || {
                        drop(renewal.renew(Some(&seen), At::now, || asker.ask(&asked)));
                    });
                }
                Ok(target)
            }
            Now::Nothing => self.renewed(served, None),
        }
    }

    /// Another target than `seen`, which is used up: verifies the key service again.
    fn renewed(&self, served: &Served, seen: Option<&Arc<Target>>) -> Result<Arc<Target>, Refused> {
        let ask = || self.asker.ask(&served.asked);
        served.target.renew(seen, At::now, ask)
    }

    /// The target for a call of the package that somebody was told of.
    fn target_of(&self, about: &About) -> Result<(&Served, Arc<Target>), Refused> {
        let served = self.served(&about.name)?;
        let target = self.target(served)?;
        is_same(about, &target)?;
        Ok((served, target))
    }

    fn send(
        &self,
        target: &Target,
        inputs: Vec<Tensor>,
        outputs: Vec<String>,
    ) -> Result<Answered, CallError> {
        let options = CallOptions {
            attempts_max: ATTEMPTS_MAX,
            waiting: &mut |_| {},
            clock: now,
        };
        target.call_with(&self.user, inputs, outputs, options, &mut Randomness)
    }

    /// Keeps the receipt, which was verified, if the disk lets it.
    fn done(&self, model: &str, target: &Target, answered: Answered) -> Done {
        let receipt = answered.receipt.receipt().request;
        let kept = self.asker.home.keep_receipt(receipt, &answered.bundle);
        let start = answered.feedback.as_ref().and_then(|feedback| {
            let said = feedback["start"].as_str()?;
            STARTS.into_iter().find(|start| *start == said)
        });
        Done {
            model: model.to_owned(),
            version: target.version().to_owned(),
            simulated: answered.receipt.simulated(),
            tensors: answered.tensors,
            receipt,
            kept: kept.is_ok(),
            start,
        }
    }
}

impl Asker {
    fn ask(&self, asked: &PackageReference) -> Result<(Target, Time), Failure> {
        let trust = self
            .home
            .trust()
            .map_err(|error| Failure::No(error.into()))?;
        let target = self
            .ask_by(&trust, asked)
            .map_err(|error| match error.kind() {
                Kind::Unreachable => Failure::Silence(error.into()),
                _ => Failure::No(error.into()),
            })?;
        let not_after = target.not_after();
        Ok((target, not_after))
    }

    fn ask_by(&self, trust: &Trust, asked: &PackageReference) -> Result<Target, ServiceError> {
        let mut service = KeyService::connect(&self.home, trust, now(), &mut Randomness)?;
        // Once simulated, the label stays: what was answered before was.
        let simulated = service.appraised().simulated();
        self.simulated.fetch_or(simulated, Ordering::Relaxed);
        let target = target(&mut service, trust, asked)?;
        service.close()?;
        Ok(target)
    }
}

/// Refuses another package than the one that somebody was told of.
fn is_same(about: &About, target: &Target) -> Result<(), Refused> {
    if target.package() == about.package {
        return Ok(());
    }
    let status = axum::http::StatusCode::SERVICE_UNAVAILABLE;
    let why = "the owner serves another package under this name since just now; retry";
    Err(Refused::new(status, "model-changed", why).after(Duration::from_secs(1)))
}

/// A pause that differs, so that callers that were turned away together do not come back together.
fn pause() {
    let mut chance = [0; 8];
    Randomness.fill_bytes(&mut chance);
    let more = u64::from_le_bytes(chance) % PAUSE_MORE_MILLIS;
    std::thread::sleep(PAUSE + Duration::from_millis(more));
}

impl Served {
    fn new(asked: PackageReference, target: Target) -> Self {
        let not_after = target.not_after();
        Self {
            asked,
            package: target.package(),
            called: format!("{}@{}", target.name(), target.version()),
            target: Arc::new(Renewal::new(target, not_after, At::now())),
        }
    }
}

impl Upstream for Models {
    fn names(&self) -> Vec<String> {
        self.served.keys().cloned().collect()
    }

    fn about(&self, model: &str) -> Result<About, Refused> {
        let target = self.target(self.served(model)?)?;
        Ok(About {
            name: model.to_owned(),
            version: target.version().to_owned(),
            package: target.package(),
            owner: target.owner().to_string(),
            inputs: target.inputs().to_vec(),
            outputs: target.outputs().to_vec(),
        })
    }

    fn call(
        &self,
        about: &About,
        inputs: Vec<Tensor>,
        outputs: Vec<String>,
    ) -> Result<Done, Refused> {
        let (served, mut target) = self.target_of(about)?;
        let mut sent = self.send(&target, inputs.clone(), outputs.clone());
        if wants_another(&sent) && served.target.is_young(&target, At::now()) {
            // Another key would be the same: it is a queue or a start that is meant.
            pause();
            sent = self.send(&target, inputs.clone(), outputs.clone());
        }
        if wants_another(&sent)
            && let Ok(newer) = self.renewed(served, Some(&target))
        {
            is_same(about, &newer)?;
            target = newer;
            sent = self.send(&target, inputs, outputs);
        }
        Ok(self.done(&about.name, &target, sent?))
    }

    fn seal(
        &self,
        about: &About,
        inputs: Vec<Tensor>,
        outputs: Vec<String>,
        form: Form,
    ) -> Result<Carried, Refused> {
        let (_, target) = self.target_of(about)?;
        let entropy = &mut Randomness;
        let (sealed, awaited) = target.seal_call(&self.user, inputs, outputs, now(), entropy)?;
        let receipt = awaited.request();
        let waiting = Waiting {
            model: about.name.clone(),
            target,
            awaited,
            form,
        };
        let id = self.openers.keep(waiting, Instant::now(), entropy)?;
        Ok(Carried {
            id,
            receipt,
            sealed,
        })
    }

    fn open(&self, id: Digest, sealed: &[u8]) -> Result<(Done, Form), Refused> {
        let waiting = self.openers.take(id, Instant::now())?;
        let target = &waiting.target;
        let answered = target.open_answer(waiting.awaited, sealed, now)?;
        Ok((self.done(&waiting.model, target, answered), waiting.form))
    }

    fn simulated(&self) -> bool {
        Self::simulated(self)
    }
}

/// Whether the runtime asked for a newer key or clock, which it also does when it is full.
fn wants_another(sent: &Result<Answered, CallError>) -> bool {
    sent.as_ref().is_err_and(CallError::wants_fresh_target)
}

/// The package in the first of the trusted codes that it is granted to.
fn target(
    service: &mut KeyService<'_>,
    trust: &Trust,
    asked: &PackageReference,
) -> Result<Target, ServiceError> {
    let measured = trust.code().iter().cloned().map(CodeSelector::Measurement);
    let mut codes: Vec<_> = measured.chain(trust.signers().iter().cloned()).collect();
    let last = codes.pop();
    for code in codes {
        match service.target_in(asked, &code, now()) {
            // Not granted to this code; perhaps to the next.
            Err(error @ ServiceError::Refused(_)) if error.kind() == Kind::Refused => {}
            found => return found,
        }
    }
    match last {
        Some(code) => service.target_in(asked, &code, now()),
        // A trust names at least one code; one that does not lets nothing be sealed.
        None => Err(ServiceError::OtherAnswer),
    }
}

/// Every package of the trust's owner that `user` has a grant for which has not ended.
fn granted(
    service: &mut KeyService<'_>,
    trust: &Trust,
    user: &SigningKey,
    skipped: &mut Vec<(String, String)>,
) -> Result<BTreeMap<String, Served>, ProxyError> {
    let owner = trust.owner().ok_or(ProxyError::NoOwner)?;
    let mut rows = service.grants_to_me(user)?;
    if owner == user.principal() {
        // What one grants oneself is listed among what one granted.
        rows.extend(service.grants(user, None, Some(owner))?);
    }
    let mut served = BTreeMap::new();
    let mut packages = Vec::new();
    for row in rows {
        if row.owner != owner || row.grant.not_after <= now() {
            continue;
        }
        let asked = match &row.grant.package {
            PackageSelector::Digest(digest) => PackageReference::Digest(*digest),
            PackageSelector::Named(name, versions) => {
                // One version, where the grant is for one; the newest of a range.
                let versions = versions.to_string();
                let version = versions.strip_prefix('=').map(str::to_owned);
                PackageReference::Named(owner, name.as_str().to_owned(), version)
            }
        };
        let target = match target(service, trust, &asked) {
            // In code that this trust does not list, or deleted since.
            Err(error @ ServiceError::Refused(_)) if error.kind() == Kind::Refused => {
                skipped.push((row.grant.package.to_string(), error.to_string()));
                continue;
            }
            found => found?,
        };
        if packages.contains(&target.package()) {
            continue;
        }
        packages.push(target.package());
        let mut name = target.name().to_owned();
        if served.contains_key(&name) {
            name = format!("{name}@{}", target.version());
        }
        if served
            .insert(name.clone(), Served::new(asked, target))
            .is_some()
        {
            return Err(ProxyError::TwoOfOneName(name));
        }
    }
    if served.is_empty() {
        return Err(ProxyError::NothingGranted);
    }
    Ok(served)
}

/// What a gateway may call a start (`core/protocol/src/feedback.rs`).
const STARTS: [&str; 5] = ["hot", "warm-model", "warm-key", "warm-runtime", "cold"];
