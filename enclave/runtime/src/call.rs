//! The path of one call, from sealed bytes to a sealed answer.
//!
//! ```text
//! &[u8] ─parse─▶ SealedRequest ─lease─▶ Keys ─audience ours?─open─▶ Opened ─admit─▶ Admitted ─▶ Reply::Answered ─┐
//!    └────────── Unsealed ◀────────┴──────────────┴─────┘        └─▶ Reply::Refused ─────────── seal ◀─────┘
//! ```
//!
//! An answer that was asked for in parts leaves output by output, and ends with its receipt (`handing`).
//!
//! What the grant's isolation changes on the way:
//!
//! | | keys | model | run | what is freed | answers |
//! |---|---|---|---|---|---|
//! | shared | cached | cached | the engine's threads | is free | as long as they are |
//! | wiped | cached | cached | threads that end with it | is zeroed | as long as they are |
//! | dedicated | fetched | opened | threads that end with it | is zeroed | padded |
//!
//! Always true: before a request is open, refusals are public and short; afterwards everything is sealed for
//! its sender, answer and refusal alike. Only an `Admitted` request reaches a model. Memory is wiped from before a request
//! is opened until its answer is sealed, if any grant of its package asks for that. A panic is a refusal of
//! this one request. Not here: reading and writing bytes, and the bound on calls (`program`); who may be inside beside
//! whom (`tenancy`); running the request (`whole`, `parts`).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bield_envelope::{Digest, EnvelopeError, Principal, ResponseSealer, SealedRequest, SigningKey};
use bield_evidence::Measurement;
use bield_grant::{Admitted, GrantedRequest, Isolation, Refused, ReplayGuard, admit, audience};
use bield_platform::memory::Wiping;
use bield_protocol::call::{Reply, Unsealed};
use bield_protocol::function::FunctionRequest;
use bield_protocol::inference;
use bield_protocol::parts::{End, Item};
use bield_protocol::refusal::Refusal;
use zeroize::Zeroizing;

use crate::batches::Batching;
use crate::flights::lock;
use crate::functions::Functions;
use crate::handing::{Asker, Handing};
use crate::keys::Keys;
use crate::leases::{KeysError, Leases};
use crate::loading::{How, LoadFor, LoadTimes, Loader};
use crate::metrics::Metrics;
use crate::models::{Lent, Models};
use crate::refusals;
use crate::tenancy::{self, Tenancy};
use crate::tiers::{Second, Tiers};
use crate::turns::{Gate, Turns};
use crate::unsent::Unsent;

mod function;
mod parts;
mod phases;
mod whole;

use phases::Phases;

/// Longest encoded output in bytes; the host carries answers of up to 80 MiB.
pub(crate) const OUTPUT_BYTES_MAX: usize = 64 << 20;

/// What answers calls; shared by all threads.
pub(crate) struct Runtime {
    /// Own measurement.
    pub(crate) code: Measurement,
    pub(crate) leases: Arc<Leases>,
    pub(crate) models: Arc<Models>,
    pub(crate) loader: Arc<Loader>,
    /// Where engines are tiered.
    pub(crate) tiers: Option<Tiers>,
    /// Where functions run.
    pub(crate) functions: Option<Functions>,
    /// Where requests may run together.
    pub(crate) batching: Option<Batching>,
    pub(crate) guard: Mutex<ReplayGuard>,
    pub(crate) turns: Arc<Turns>,
    pub(crate) tenancy: Arc<Tenancy>,
    /// How long a request may wait for others.
    pub(crate) queue_wait: Duration,
    /// Signs receipts; the key service certified it.
    pub(crate) signer: SigningKey,
    pub(crate) gate: Arc<Gate>,
    /// Outputs that wait to be read.
    pub(crate) unsent: Unsent,
    pub(crate) metrics: Metrics,
}

impl Runtime {
    /// Answers the bytes of one call for `asker`. Who is gone by the time that it could begin is not begun for. Never
    /// panics.
    pub(crate) fn answer_to(&self, sealed: &[u8], asker: &dyn Asker) -> Answer {
        let started = Instant::now();
        let mut phases = Phases::default();
        let mut call = Call {
            is_gone: &|| asker.is_gone(),
            phases: &mut phases,
            second: None,
            started,
            handing: Handing::new(asker),
        };
        let answered = quietly(|| self.try_answer(sealed, &mut call)).unwrap_or_else(|| {
            Err(refusals::unsealed(
                "internal",
                refusals::internal().message,
                None,
            ))
        });
        if let (Some(tiers), Some(second)) = (&self.tiers, call.second.take()) {
            tiers.open(second);
        }
        let in_parts = call.handing.has_begun();
        let feedback = self.feedback(&phases, started);
        if answered.is_ok() {
            self.metrics.note_answer(&feedback);
        }
        match (answered, in_parts) {
            (answered, true) => Answer::Rest(answered.ok().flatten()),
            (Ok(Some(answer)), false) => Answer::Whole(Reply::Sealed(feedback, answer)),
            (Ok(None), false) => Answer::Rest(None),
            (Err(unsealed), false) => Answer::Whole(Reply::Unsealed(feedback, unsealed)),
        }
    }

    /// Turns a call away whose bytes were not even read.
    pub(crate) fn turn_away(&self, unsealed: Unsealed) -> Reply {
        Reply::Unsealed(self.feedback(&Phases::default(), Instant::now()), unsealed)
    }

    /// The sealed answer, or the last of it, or `None` when some of it could not be sent.
    fn try_answer(&self, sealed: &[u8], call: &mut Call<'_>) -> Result<Option<Vec<u8>>, Unsealed> {
        let request = SealedRequest::parse(sealed)
            .map_err(|error| refusals::unsealed("malformed", error, None))?;
        let package = request.header().package;
        // Bound first and hence dropped last: all that follows is freed while it lives.
        let Decided {
            wiping: _wiping,
            keys,
            sealer,
            verdict,
        } = self.decide(&request, package, call)?;
        call.handing.open(sealer);
        let reply = match verdict {
            Ok(admitted) => quietly(|| self.serve(&admitted, &keys, call))
                .unwrap_or_else(|| Err(refusals::internal())),
            Err(No::Taken) => Err(tenancy::taken()),
            Err(No::Gone) => Err(refusals::gone()),
            Err(No::Refused(refused)) => Err(Refusal::from(&refused)),
        };
        if call.handing.has_begun() {
            let last = match reply {
                Ok(answer) => Item::End(End {
                    salt: answer.salt,
                    receipt: answer.receipt,
                    certificate: answer.certificate,
                }),
                Err(refusal) => Item::Refused(refusal),
            };
            return Ok(call.handing.rest(&last));
        }
        let reply = match reply {
            Ok(answer) => inference::Reply::Answered(answer),
            Err(refusal) => inference::Reply::Refused(refusal),
        };
        let body = Zeroizing::new(match self.tenancy.is_claimed() {
            true => reply.encode_padded(),
            false => reply.encode(),
        });
        Ok(call.handing.whole(&body))
    }

    /// Opens the request and decides about it, a second time with a younger lease when that may matter: grants
    /// and keys may be younger than the lease at hand.
    fn decide(
        &self,
        request: &SealedRequest<'_>,
        package: Digest,
        call: &mut Call<'_>,
    ) -> Result<Decided, Unsealed> {
        let keys = match self.leases.cached(package) {
            Some(keys) => keys,
            None => call
                .phases
                .lease(|| self.leases.get(package))
                .inspect_err(|error| self.note_refusal(package, error))
                .map_err(|error| error.unsealed())?,
        };
        // After the lease: when this code is not granted at all, that is what an operator must read.
        if request.header().audience != audience(package, &self.code) {
            return Err(other_audience(&self.code));
        }
        let first = self.decide_with(request, keys.clone(), call.is_gone);
        if !may_change_with_the_lease(&first) {
            return first.map_err(not_opened);
        }
        match call.phases.lease(|| self.leases.renew(package, &keys)) {
            Ok(newer) => self
                .decide_with(request, newer, call.is_gone)
                .map_err(not_opened),
            Err(error) => {
                self.note_refusal(package, &error);
                first.map_err(not_opened)
            }
        }
    }

    /// A runtime that gets no keys of a package any more keeps no model of it either.
    fn note_refusal(&self, package: Digest, error: &KeysError) {
        if *error == KeysError::NotGranted {
            self.forget(package);
        }
    }

    /// Does what keeps leases alive and lets go what has ended; waits for the key service, not for calls.
    pub(crate) fn tend(&self) {
        for package in self.leases.tend() {
            self.forget(package);
        }
    }

    /// Does what keeps functions' states held and anchored; waits for the key service, not for calls.
    pub(crate) fn tend_states(&self) {
        if let Some(functions) = &self.functions {
            functions.tend();
        }
    }

    fn forget(&self, package: Digest) {
        self.models.forget(package);
        if let Some(functions) = &self.functions {
            functions.forget(package);
        }
    }

    fn decide_with(
        &self,
        request: &SealedRequest<'_>,
        keys: Arc<Keys>,
        is_gone: &dyn Fn() -> bool,
    ) -> Result<Decided, EnvelopeError> {
        let wiping = keys.asks_for_wiping().then(Wiping::begin);
        let (opened, sealer) = keys.open(request)?;
        let now = keys.now();
        let audience = keys.audience_ids(now);
        let leased = keys.leased(&audience);
        // Before admission, so that another runtime, or this one started anew, takes the same bytes.
        let verdict = match self.tenancy.serves(opened.sender()) {
            // Nor does it take room that others need.
            true if is_gone() => Err(No::Gone),
            true => admit(opened, leased, &mut lock(&self.guard), now).map_err(No::Refused),
            false => Err(No::Taken),
        };
        if verdict.is_ok() {
            keys.note_use();
        }
        Ok(Decided {
            wiping,
            keys,
            sealer,
            verdict,
        })
    }

    fn serve(
        &self,
        admitted: &Admitted<GrantedRequest>,
        keys: &Arc<Keys>,
        call: &mut Call<'_>,
    ) -> Result<inference::Answer, Refusal> {
        let (user, isolation) = (admitted.request.sender(), admitted.isolation);
        let is_function = FunctionRequest::is_one(admitted.request.body());
        if is_function && isolation == Isolation::Dedicated {
            // Before it claims the process: instances are fresh and wiped, a process of its own is more than that.
            return Err(refusals::isolation_unsupported(isolation));
        }
        let waiting = Instant::now();
        let dedicated = isolation == Isolation::Dedicated;
        let tenant = self.tenancy.enter(user, dedicated, self.queue_wait)?;
        call.phases.queue += waiting.elapsed();
        let served = match tenant.is_alone() {
            _ if is_function => self.run_function(admitted, keys, call),
            true => self.serve_alone(admitted, keys, call),
            false => {
                let model = |call: &mut Call<'_>| self.model(user, keys, call);
                let apart = isolation != Isolation::Shared;
                self.run(admitted, keys, call, apart, model)
            }
        };
        drop(tenant);
        served
    }

    /// Serves a request with nothing that was here before, and keeps nothing of it.
    fn serve_alone(
        &self,
        admitted: &Admitted<GrantedRequest>,
        keys: &Arc<Keys>,
        call: &mut Call<'_>,
    ) -> Result<inference::Answer, Refusal> {
        let package = keys.lease.package;
        let _let_go = LetGo(&self.leases, package);
        self.models.forget_all();
        let fetched = match call.phases.lease {
            Some(_) => Arc::clone(keys),
            None => call
                .phases
                .lease(|| self.leases.fetch_anew(package))
                .map_err(|error| refusals::no_keys(&error))?,
        };
        match fetched.has_grant(admitted.grant) {
            true => self.run(admitted, &fetched, call, true, |call| {
                let user = admitted.request.sender();
                let mut times = LoadTimes::default();
                let loaded = self.load(user, &fetched, How::Apart, &mut times);
                call.phases.load = Some(times);
                Ok(self.models.lend_apart(loaded?))
            }),
            false => Err(refusals::withdrawn()),
        }
    }

    fn model(
        &self,
        user: Principal,
        keys: &Arc<Keys>,
        call: &mut Call<'_>,
    ) -> Result<Lent, Refusal> {
        let model = match self.models.resident(keys.lease.package) {
            Some(model) => model,
            None => self.opened(user, keys, call)?,
        };
        call.second = Second::due(&model, keys);
        Ok(model)
    }

    /// A model that is not there: opened here, or by another thread meanwhile.
    fn opened(
        &self,
        user: Principal,
        keys: &Arc<Keys>,
        call: &mut Call<'_>,
    ) -> Result<Lent, Refusal> {
        let package = keys.lease.package;
        let started = Instant::now();
        // Which engine runs a model decides what isolation it can give: where that matters, there is one.
        let how = match self.tiers.is_some() && !keys.asks_for_wiping() {
            true => How::Tiered,
            false => How::Shared,
        };
        let mut times = None;
        let model = self.models.get(package, self.queue_wait, || {
            let times = times.insert(LoadTimes::default());
            self.load(user, keys, how, times)
        });
        // They may have been refused since this request was admitted, when there was no model to forget.
        if self.leases.cached(package).is_none() {
            self.models.forget(package);
        }
        // Whoever waited for another thread's load waited that long for the opening and more.
        call.phases.load = Some(times.unwrap_or(LoadTimes {
            open: started.elapsed(),
            ..LoadTimes::default()
        }));
        model
    }

    fn load(
        &self,
        user: Principal,
        keys: &Keys,
        how: How,
        times: &mut LoadTimes,
    ) -> Result<crate::models::Loaded, Refusal> {
        let load = LoadFor {
            user,
            keys,
            wait: self.queue_wait,
            how,
        };
        self.loader.load(&load, &self.models, &self.turns, times)
    }
}

/// Lets go the keys of a package that are kept for nobody, however the request ends that they were fetched for.
struct LetGo<'a>(&'a Leases, Digest);

impl Drop for LetGo<'_> {
    fn drop(&mut self) {
        self.0.let_go(self.1);
    }
}

/// An opened request and the verdict on it.
struct Decided {
    /// What is freed while it lives is zeroed.
    wiping: Option<Wiping>,
    keys: Arc<Keys>,
    sealer: ResponseSealer,
    verdict: Result<Admitted<GrantedRequest>, No>,
}

/// Why an opened request is not served.
enum No {
    Refused(Refused),
    /// This process serves another user alone.
    Taken,
    /// Who asked went away.
    Gone,
}

/// What becomes of a call.
pub(crate) enum Answer {
    /// One message.
    Whole(Reply),
    /// Parts went out, and this is the last; without it, some of them could not be sent.
    Rest(Option<Vec<u8>>),
}

/// One call under way.
struct Call<'a> {
    is_gone: &'a dyn Fn() -> bool,
    phases: &'a mut Phases,
    /// What is to be opened when it is answered.
    second: Option<Second>,
    started: Instant,
    handing: Handing<'a>,
}

impl Call<'_> {
    fn must_be_there(&self) -> Result<(), Refusal> {
        match (self.is_gone)() {
            true => Err(refusals::gone()),
            false => Ok(()),
        }
    }
}

fn may_change_with_the_lease(decided: &Result<Decided, EnvelopeError>) -> bool {
    match decided {
        Ok(Decided { verdict, .. }) => match verdict {
            Err(No::Refused(refused)) => refusals::may_change_with_the_lease(refused),
            _ => false,
        },
        Err(error) => matches!(error, EnvelopeError::OtherKey { .. }),
    }
}

fn not_opened(error: EnvelopeError) -> Unsealed {
    refusals::unsealed("not-opened", error, None)
}

fn other_audience(code: &Measurement) -> Unsealed {
    refusals::unsealed(
        "not-opened",
        format_args!(
            "the request is sealed for other code than this runtime's, which is {code}; \
             fetch the key configuration for that code, if its owner granted it"
        ),
        None,
    )
}

/// Runs one request's work; `None` when it panicked. What it may have left half-done is its own: the shared
/// tables are changed under locks by code that does not panic in between.
fn quietly<T>(act: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(act)).ok()
}

const _: () = assert!(OUTPUT_BYTES_MAX < inference::BODY_BYTES_MAX);

#[cfg(test)]
mod tests;
