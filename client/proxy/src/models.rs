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
//! ended; what ended is never used because nobody could be asked. While the key service does not answer, calls
//! go on until the configuration at hand ends, and it is asked at most every [`ASK_PAUSE`].
//!
//! Not here: how many calls run at once (the faces), what answers look like.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use bield_envelope::{Digest, SigningKey};
use bield_grant::{CodeSelector, PackageSelector};
use bield_sdk::{
    Answered, Awaited, CallError, CallOptions, Home, KeyService, PackageReference, Randomness,
    ServiceError, Target, Tensor, Trust, now,
};

use crate::ProxyError;
use crate::openers::Openers;
use crate::refused::Refused;
use crate::upstream::{About, Carried, Done, Upstream};

/// How long before its end a configuration is asked for anew.
const RENEW_BEFORE: Duration = Duration::from_secs(60);

/// Shortest time between two attempts at a key service that does not answer.
const ASK_PAUSE: Duration = Duration::from_secs(5);

/// Times a request is sent at most, when the gateway says to come back.
const ATTEMPTS_MAX: u32 = 4;

/// Models by the names under which they are served.
pub struct Models {
    home: Home,
    trust: Trust,
    user: SigningKey,
    served: BTreeMap<String, Served>,
    openers: Openers<Waiting>,
    simulated: AtomicBool,
}

/// One model.
struct Served {
    asked: PackageReference,
    target: RwLock<Arc<Target>>,
    /// Held while the key service is asked: by one at a time. Since when it did not answer, and what was wrong.
    asking: Mutex<Option<(Instant, Refused)>>,
}

/// A call that somebody else carries.
struct Waiting {
    model: String,
    target: Arc<Target>,
    awaited: Awaited,
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
        let served = if wanted.is_empty() {
            granted(&mut service, &trust, &user)?
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
            home,
            trust,
            user,
            served,
            openers: Openers::new(),
            simulated: AtomicBool::new(simulated),
        })
    }

    /// What is served: name, package and its owner's name and version of it.
    #[must_use]
    pub fn list(&self) -> Vec<(String, Digest, String)> {
        let each = self.served.iter().map(|(name, served)| {
            let target = served.current();
            let called = format!("{}@{}", target.name(), target.version());
            (name.clone(), target.package(), called)
        });
        each.collect()
    }

    /// Whether the key service's evidence is of a software TEE.
    #[must_use]
    pub fn simulated(&self) -> bool {
        self.simulated.load(Ordering::Relaxed)
    }

    fn served(&self, model: &str) -> Result<&Served, Refused> {
        self.served.get(model).ok_or_else(|| {
            Refused::unknown(
                "no model of that name is served here; GET /v1/models lists those that are",
            )
        })
    }

    /// The target to seal to, asked for anew when its end is near.
    fn target(&self, served: &Served) -> Result<Arc<Target>, Refused> {
        let current = served.current();
        let left = |wait| now().plus(wait) < current.not_after();
        if left(RENEW_BEFORE) {
            return Ok(current);
        }
        match self.renewed(served, &current) {
            Err(_) if left(Duration::ZERO) => Ok(current),
            renewed => renewed,
        }
    }

    /// Another target than `seen`, which is used up: verifies the key service again.
    fn renewed(&self, served: &Served, seen: &Arc<Target>) -> Result<Arc<Target>, Refused> {
        let mut asking = served.asking.lock().unwrap_or_else(PoisonError::into_inner);
        let current = served.current();
        if !Arc::ptr_eq(&current, seen) {
            return Ok(current); // somebody else asked meanwhile
        }
        if let Some((since, refused)) = &*asking
            && since.elapsed() < ASK_PAUSE
        {
            return Err(refused.clone());
        }
        match self.ask(&served.asked) {
            Ok(target) => {
                let target = Arc::new(target);
                *served
                    .target
                    .write()
                    .unwrap_or_else(PoisonError::into_inner) = target.clone();
                *asking = None;
                Ok(target)
            }
            Err(error) => {
                let refused = Refused::from(error);
                *asking = Some((Instant::now(), refused.clone()));
                Err(refused)
            }
        }
    }

    fn ask(&self, asked: &PackageReference) -> Result<Target, ServiceError> {
        let mut service = KeyService::connect(&self.home, &self.trust, now(), &mut Randomness)?;
        // Once simulated, the label stays: what was answered before was.
        let simulated = service.appraised().simulated();
        self.simulated.fetch_or(simulated, Ordering::Relaxed);
        let target = target(&mut service, &self.trust, asked)?;
        service.close()?;
        Ok(target)
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

    /// Keeps the receipt; only then is there an answer.
    fn done(&self, model: &str, target: &Target, answered: Answered) -> Result<Done, Refused> {
        let receipt = answered.receipt.receipt().request;
        self.home.keep_receipt(receipt, &answered.bundle)?;
        let start = answered.feedback.as_ref().and_then(|feedback| {
            let said = feedback["start"].as_str()?;
            STARTS.into_iter().find(|start| *start == said)
        });
        Ok(Done {
            model: model.to_owned(),
            version: target.version().to_owned(),
            simulated: answered.receipt.simulated(),
            tensors: answered.tensors,
            receipt,
            start,
        })
    }
}

impl Served {
    fn new(asked: PackageReference, target: Target) -> Self {
        Self {
            asked,
            target: RwLock::new(Arc::new(target)),
            asking: Mutex::new(None),
        }
    }

    fn current(&self) -> Arc<Target> {
        let target = self.target.read().unwrap_or_else(PoisonError::into_inner);
        target.clone()
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
        model: &str,
        inputs: Vec<Tensor>,
        outputs: Vec<String>,
    ) -> Result<Done, Refused> {
        let served = self.served(model)?;
        let target = self.target(served)?;
        match self.send(&target, inputs.clone(), outputs.clone()) {
            // The key or the clock moved on: once more with the new one.
            Err(error) if error.wants_fresh_target() => {
                let target = self.renewed(served, &target)?;
                let answered = self.send(&target, inputs, outputs)?;
                self.done(model, &target, answered)
            }
            sent => self.done(model, &target, sent?),
        }
    }

    fn seal(
        &self,
        model: &str,
        inputs: Vec<Tensor>,
        outputs: Vec<String>,
    ) -> Result<Carried, Refused> {
        let target = self.target(self.served(model)?)?;
        let entropy = &mut Randomness;
        let (sealed, awaited) = target.seal_call(&self.user, inputs, outputs, now(), entropy)?;
        let id = awaited.request();
        let waiting = Waiting {
            model: model.to_owned(),
            target,
            awaited,
        };
        self.openers.keep(id, waiting, Instant::now())?;
        Ok(Carried { id, sealed })
    }

    fn open(&self, id: Digest, sealed: &[u8]) -> Result<Done, Refused> {
        let waiting = self.openers.take(id, Instant::now())?;
        let target = &waiting.target;
        let answered = target.open_answer(waiting.awaited, sealed, now)?;
        self.done(&waiting.model, target, answered)
    }

    fn simulated(&self) -> bool {
        Self::simulated(self)
    }
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
            Err(ServiceError::Refused(_)) => {}
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
            PackageSelector::Named(name, _) => {
                PackageReference::Named(owner, name.as_str().to_owned(), None)
            }
        };
        let target = match target(service, trust, &asked) {
            // In code that this trust does not list, or deleted since.
            Err(ServiceError::Refused(_)) => continue,
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
