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
//! whom (`tenancy`).

use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bield_engine::Shape;
use bield_envelope::{
    Digest, EnvelopeError, Principal, ResponseSealer, SealedRequest, Signed, SigningKey,
};
use bield_evidence::Measurement;
use bield_grant::{Admitted, GrantedRequest, Isolation, Refused, ReplayGuard, admit, audience};
use bield_package::tensor::Tensor;
use bield_platform::Randomness;
use bield_platform::memory::Wiping;
use bield_protocol::call::{Reply, Unsealed};
use bield_protocol::feedback::{Feedback, StartKind};
use bield_protocol::inference::{self, Output};
use bield_protocol::parts::{self, End, Item};
use bield_protocol::refusal::{Refusal, Retry};
use bield_receipt::{Receipt, output_commitment};
use rand_core::Rng as _;
use zeroize::Zeroizing;

use crate::batches::{Batching, Joins, NotRun, Ran};
use crate::flights::lock;
use crate::handing::{Asker, Handing};
use crate::keys::Keys;
use crate::leases::{KeysError, Leases};
use crate::loading::{How, LoadFor, LoadTimes, Loader};
use crate::metrics::Metrics;
use crate::models::{Lent, Models, Opened};
use crate::refusals;
use crate::tenancy::{self, Tenancy};
use crate::tiers::{Second, Tiers};
use crate::turns::{Gate, Turns};

/// Longest encoded output in bytes; the host carries answers of up to 80 MiB.
pub(crate) const OUTPUT_BYTES_MAX: usize = 64 << 20;
/// Most packages named in one feedback.
const RESIDENT_NAMED_MAX: usize = 64;
/// How long the reader of an answer in parts may be waited for in all, and how fast it reads at least beyond that: as slow
/// as a package may come.
const READ_WAIT: Duration = Duration::from_secs(30);
const READ_BYTES_PER_SECOND_MIN: usize = 1 << 20;

/// What answers calls; shared by all threads.
pub(crate) struct Runtime {
    /// Own measurement.
    pub(crate) code: Measurement,
    pub(crate) leases: Leases,
    pub(crate) models: Arc<Models>,
    pub(crate) loader: Arc<Loader>,
    /// Where engines are tiered.
    pub(crate) tiers: Option<Tiers>,
    /// Where requests may run together.
    pub(crate) batching: Option<Batching>,
    pub(crate) guard: Mutex<ReplayGuard>,
    pub(crate) turns: Turns,
    pub(crate) tenancy: Arc<Tenancy>,
    /// How long a request may wait for others.
    pub(crate) queue_wait: Duration,
    /// Signs receipts; the key service certified it.
    pub(crate) signer: SigningKey,
    pub(crate) gate: Arc<Gate>,
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
            self.models.forget(package);
        }
    }

    /// Does what keeps leases alive and lets go what has ended; waits for the key service, not for calls.
    pub(crate) fn tend(&self) {
        for package in self.leases.tend() {
            self.models.forget(package);
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
        let waiting = Instant::now();
        let dedicated = isolation == Isolation::Dedicated;
        let tenant = self.tenancy.enter(user, dedicated, self.queue_wait)?;
        call.phases.queue += waiting.elapsed();
        let served = match tenant.is_alone() {
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

    /// Runs the request on the model that `model` gives; `apart` leaves nothing of the run in the engine.
    fn run(
        &self,
        admitted: &Admitted<GrantedRequest>,
        keys: &Keys,
        call: &mut Call<'_>,
        apart: bool,
        model: impl FnOnce(&mut Call<'_>) -> Result<Lent, Refusal>,
    ) -> Result<inference::Answer, Refusal> {
        let (request, in_parts) = parts::decode_request(admitted.request.body())
            .map_err(|error| Refusal::new("malformed-body", error, Retry::Never))?;
        if in_parts && self.tenancy.is_claimed() {
            return Err(refusals::no_parts());
        }
        let names: Vec<&str> = request.outputs.iter().map(String::as_str).collect();
        call.must_be_there()?;
        let model = model(call)?;
        if apart && !model.wipes() {
            return Err(refusals::isolation_unsupported(admitted.isolation));
        }
        let user = admitted.request.sender();
        if in_parts {
            let tensors =
                self.run_in_parts(&model, user, (&request.inputs, &names), apart, call)?;
            drop(model);
            let output = Output { tensors }.encode();
            return Ok(self.receipted(admitted, keys, output));
        }
        let waiting = Instant::now();
        let shape = match &self.batching {
            Some(_) if !apart && model.lane.joins() => Shape::of(&**model, &request.inputs, &names),
            _ => None,
        };
        let ran = match (shape, &self.batching) {
            (Some(shape), Some(batching)) => {
                let joins = Joins {
                    user,
                    shape,
                    inputs: request.inputs,
                    wait: self.queue_wait,
                    is_alone: self.gate.inside() <= 1,
                    is_gone: call.is_gone,
                };
                let counts = &self.metrics.batches;
                let lane = &model.lane;
                lane.run(&**model, joins, &self.turns, (batching, counts))
            }
            _ => self.run_alone(&model, user, (&request.inputs, &names), apart, call),
        };
        let ran = ran.map_err(|not_run| match not_run {
            NotRun::Late => refusals::late(self.queue_wait),
            NotRun::Gone => refusals::gone(),
        });
        let took = ran.as_ref().map_or(Duration::ZERO, |ran| ran.run);
        call.phases.queue += waiting.elapsed().saturating_sub(took);
        let ran = ran?;
        call.phases.run = took;
        call.phases.engine = Some(model.engine());
        drop(model);
        let tensors = ran.answer.map_err(|error| refusals::run(&error))?;
        call.phases.session = ran.session;
        let bytes: usize = tensors.iter().map(|tensor| tensor.data().len()).sum();
        if bytes > OUTPUT_BYTES_MAX {
            return Err(too_long(bytes));
        }
        let output = Output { tensors }.encode();
        Ok(self.receipted(admitted, keys, output))
    }

    /// Runs one request when its turn comes.
    fn run_alone(
        &self,
        model: &Opened,
        user: Principal,
        (inputs, outputs): (&[Tensor], &[&str]),
        apart: bool,
        call: &Call<'_>,
    ) -> Result<Ran, NotRun> {
        let turn = model.lane.take(&self.turns, user, self.queue_wait);
        let _turn = turn.map_err(|_| NotRun::Late)?;
        if (call.is_gone)() {
            return Err(NotRun::Gone);
        }
        let started = Instant::now();
        let ran = match apart {
            true => model.run_apart(inputs, outputs),
            false => model.run_timed(inputs, outputs),
        };
        let run = started.elapsed();
        let (answer, session) = match ran {
            Ok((tensors, session)) => (Ok(tensors), session),
            Err(error) => (Err(error), None),
        };
        Ok(Ran {
            answer,
            run,
            session,
        })
    }

    /// Runs one request when its turn comes, and hands each output over as soon as it is there. Nobody holds a turn who
    /// only waits to be read, and nobody takes one to be read what is computed.
    fn run_in_parts(
        &self,
        model: &Opened,
        user: Principal,
        (inputs, outputs): (&[Tensor], &[&str]),
        apart: bool,
        call: &mut Call<'_>,
    ) -> Result<Vec<Tensor>, Refusal> {
        let late = |_| refusals::late(self.queue_wait);
        let waiting = Instant::now();
        let turn = model.lane.take(&self.turns, user, self.queue_wait);
        let (turn, place) = turn.map_err(late)?;
        let (mut turn, mut place) = (Some(turn), place);
        call.phases.queue += waiting.elapsed();
        call.must_be_there()?;
        call.phases.engine = Some(model.engine());
        let (started, began) = (Instant::now(), call.started);
        let (handing, phases) = (&mut call.handing, &mut *call.phases);
        let (mut tensors, mut bytes, mut failed) = (Vec::new(), 0, None);
        let computes_on = !apart && model.computes_in_parts();
        let asked_for = match outputs.len() {
            0 => model.outputs().len(),
            some => some,
        };
        let mut reading = Reading::default();
        let mut hand = |output: Tensor| {
            bytes += output.data().len();
            if bytes > OUTPUT_BYTES_MAX {
                return Err(too_long(bytes));
            }
            if tensors.is_empty() {
                phases.run = started.elapsed();
            }
            if !computes_on {
                (turn, place) = (None, None);
            }
            let asker = handing.asker();
            let mut pause = || {
                turn = None;
                reading.wait(asker, bytes)
            };
            if !asker.takes_more() {
                pause()?;
            }
            let feedback = || self.feedback(phases, began);
            tensors.push(handing.output(output, feedback, &mut pause)?);
            if computes_on && turn.is_none() && tensors.len() < asked_for {
                let again = self.turns.take(user, self.queue_wait);
                turn = Some(again.map_err(late)?);
            }
            Ok(())
        };
        let mut each = |output: Tensor| match hand(output) {
            Ok(()) => ControlFlow::Continue(()),
            Err(refusal) => {
                failed = Some(refusal);
                ControlFlow::Break(())
            }
        };
        let ran = match apart {
            true => model.run_apart(inputs, outputs).map(|(outputs, opened)| {
                let _ = outputs.into_iter().try_for_each(&mut each);
                opened
            }),
            false => model.run_in_parts(inputs, outputs, &mut each),
        };
        call.phases.session = ran.map_err(|error| refusals::run(&error))?;
        drop((turn, place));
        match failed {
            None => Ok(tensors),
            Some(refusal) => Err(refusal),
        }
    }

    fn receipted(
        &self,
        admitted: &Admitted<GrantedRequest>,
        keys: &Keys,
        output: Vec<u8>,
    ) -> inference::Answer {
        let mut salt = [0; 32];
        Randomness.fill_bytes(&mut salt);
        let commitment = output_commitment(&salt, &output);
        let receipt = Receipt::bind(admitted, commitment, None, keys.lease.simulated, keys.now());
        inference::Answer {
            output,
            salt,
            receipt: Signed::sign(&self.signer, receipt).into_signed(),
            certificate: keys.certificate.as_signed().clone(),
        }
    }

    fn feedback(&self, phases: &Phases, started: Instant) -> Feedback {
        let load = phases.load.unwrap_or_default();
        let models = self.models.counts();
        Feedback {
            start: phases.start(),
            lease_us: micros(phases.lease.unwrap_or_default()),
            open_us: micros(load.open),
            load_us: micros(load.load),
            run_us: micros(phases.run),
            total_us: micros(started.elapsed()),
            resident: self.models.names(RESIDENT_NAMED_MAX),
            in_flight: u32::try_from(self.gate.inside()).unwrap_or(u32::MAX),
            queue_us: micros(phases.queue + load.queue),
            free_bytes: models.free_bytes,
            engine: phases.engine.map(str::to_owned),
        }
    }
}

/// How long a reader took in all.
#[derive(Default)]
struct Reading(Duration);

impl Reading {
    /// Waits for the reader of `bytes`, as long as it reads [`READ_BYTES_PER_SECOND_MIN`], after [`READ_WAIT`].
    fn wait(&mut self, asker: &dyn Asker, bytes: usize) -> Result<(), Refusal> {
        let began = Instant::now();
        let taken = asker.wait_until_taken();
        self.0 += began.elapsed();
        let seconds = (bytes / READ_BYTES_PER_SECOND_MIN) as u64;
        match taken {
            Ok(()) if self.0 <= READ_WAIT + Duration::from_secs(seconds) => Ok(()),
            _ => Err(refusals::gone()),
        }
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

/// What a call had to wait for; what is absent was there already.
#[derive(Default)]
struct Phases {
    lease: Option<Duration>,
    load: Option<LoadTimes>,
    queue: Duration,
    run: Duration,
    /// Making the engine's state for the run.
    session: Option<Duration>,
    engine: Option<&'static str>,
}

impl Phases {
    fn lease<T>(&mut self, act: impl FnOnce() -> T) -> T {
        let started = Instant::now();
        let done = act();
        *self.lease.get_or_insert_default() += started.elapsed();
        done
    }

    const fn start(&self) -> StartKind {
        match (&self.lease, &self.load) {
            (None, None) if self.session.is_some() => StartKind::WarmRuntime,
            (None, None) => StartKind::Hot,
            (Some(_), None) => StartKind::WarmModel,
            (None, Some(_)) => StartKind::WarmKey,
            (Some(_), Some(_)) => StartKind::Cold,
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

fn too_long(bytes: usize) -> Refusal {
    Refusal::new(
        "answer-too-long",
        format_args!(
            "the outputs have {} MiB, an answer at most {}; ask for fewer outputs or a smaller batch",
            bytes >> 20,
            OUTPUT_BYTES_MAX >> 20,
        ),
        Retry::Never,
    )
}

/// Runs one request's work; `None` when it panicked. What it may have left half-done is its own: the shared
/// tables are changed under locks by code that does not panic in between.
fn quietly<T>(act: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(act)).ok()
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

const _: () = assert!(OUTPUT_BYTES_MAX < inference::BODY_BYTES_MAX);
const _: () = assert!(RESIDENT_NAMED_MAX * 40 < 64 << 10);

#[cfg(test)]
mod tests;
