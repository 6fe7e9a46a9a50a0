//! One request of a function, from its admission to its answer.
//!
//! ```text
//! Admitted ─▶ owner's turn to be inside ─▶ function ─▶ state: has all that the caller saw? was it done before?
//!    ─▶ turn ─▶ fresh instance runs ─▶ state is as safe as its buckets say ─▶ output, heads before and after ─▶ receipt
//! ```
//!
//! Always true: nothing is answered from a state that is behind what the caller has seen, or after its hold ended; what a
//! request wrote is as durable as its buckets say before its answer leaves; a request that changed something is
//! done once, also when the host gives its bytes to another start of the runtime: its id is in the state from its first
//! change on, in the same record, and the answer beside it where that is short, until it could not be admitted any more; a
//! kept answer is given to the same bytes only, so that no receipt is of a request that did not run. So
//! whatever ends in "as it is, after …" may come again, to this runtime too. A function that is stopped keeps what it wrote
//! before. Not here: what it reaches (`functions::world`), limits (`bield-function`).

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bield_envelope::{Digest, Principal, Time, Wiped};
use bield_function::Stopped;
use bield_grant::{Admitted, CLOCK_SKEW_MAX, GrantedRequest, REQUEST_AGE_MAX};
use bield_protocol::feedback::StatePlace;
use bield_protocol::function::{
    FailureKind, FunctionFailure, FunctionOutput, FunctionRequest, FunctionResponse,
};
use bield_protocol::inference;
use bield_protocol::refusal::{Refusal, Retry};
use bield_receipt::{StateHeads, StateSpan};
use bield_state::{Bucket, Change, Cut};

use super::{Call, Runtime};
use crate::flights::lock;
use crate::functions::{self, HeldState, Left, OpenFunction, RequestWorld};
use crate::keys::Keys;
use crate::refusals;

/// Where a function's owner reads its newest lines; the function itself is not asked.
const LOG_PATH: &str = "/~log";
/// The bucket of requests that were done: no manifest can name it.
const DONE: &str = "~done";
/// The longest answer that is kept beside what a request changed.
const KEPT_BYTES_MAX: usize = 64 << 10;
/// The longest words of a function's own refusal.
const WORDS_BYTES_MAX: usize = bield_protocol::function::FAILURE_BYTES_MAX;

impl Runtime {
    /// Runs an admitted request of a function.
    pub(super) fn run_function(
        &self,
        admitted: &Admitted<GrantedRequest>,
        keys: &Keys,
        call: &mut Call<'_>,
    ) -> Result<inference::Answer, Refusal> {
        let ran = self.run_admitted(admitted, keys, call);
        if let Err(refusal) = &ran
            && let Retry::After(wait) = refusal.retry
            && call.phases.state.is_some()
        {
            let request = &admitted.request;
            lock(&self.guard).withdraw(request.sender(), request.header().id);
            call.phases.state = Some(StatePlace::Elsewhere(wait));
        }
        ran
    }

    fn run_admitted(
        &self,
        admitted: &Admitted<GrantedRequest>,
        keys: &Keys,
        call: &mut Call<'_>,
    ) -> Result<inference::Answer, Refusal> {
        let functions = self.functions.as_ref().ok_or_else(functions::off)?;
        let request = FunctionRequest::decode(admitted.request.body())
            .map_err(|error| Refusal::new("malformed-body", error, Retry::Never))?;
        call.must_be_there()?;
        let waiting = Instant::now();
        let _inside = functions.enter(admitted.owner, self.queue_wait)?;
        call.phases.queue += waiting.elapsed();
        let function = functions.get(keys, self.queue_wait, &mut call.phases.load)?;
        call.phases.state = function.spec.state.is_some().then_some(StatePlace::Here);
        let held = {
            let package = keys.lease.package;
            functions
                .states
                .lend(admitted.owner, package, &function.spec)?
        };
        let user = admitted.request.sender();
        let now = keys.now();
        let state = match &held {
            Some(held) => Some(begin(held, &request)?),
            None => None,
        };
        let left = Arc::new(Mutex::new(Left::of(state)));
        if request.path == LOG_PATH && user == admitted.owner {
            let lines = ("text/plain; charset=utf-8".to_owned(), function.log.read());
            let cut = end(held.as_deref(), &left)?;
            return self.function_answer(admitted, keys, Outcome(Ok(lines)), cut, held.as_deref());
        }
        let once = Once {
            key: once_key(user, admitted.request.header().id),
            request: admitted.request.digest(),
            until: admitted
                .request
                .header()
                .created
                .plus(REQUEST_AGE_MAX + CLOCK_SKEW_MAX),
        };
        if let Some(done) = once.begin(&left)? {
            let cut = end(held.as_deref(), &left)?;
            return self.function_answer(admitted, keys, done, cut, held.as_deref());
        }

        let waiting = Instant::now();
        let turn = functions.reach.turns.take_own(user, self.queue_wait);
        let turn = turn.map_err(|_| refusals::late(self.queue_wait))?;
        call.phases.queue += waiting.elapsed();
        call.must_be_there()?;
        let started = Instant::now();
        let world = RequestWorld::new(
            Arc::clone(&functions.reach),
            Arc::clone(&function),
            user,
            now,
            started + function.limits.deadline,
            turn,
            Arc::clone(&left),
        );
        let asked = bield_function::Request {
            path: request.path,
            content_type: request.content_type,
            body: request.body,
            caller: hex::encode(user.as_bytes()),
        };
        let answered = function
            .function
            .call(asked, Box::new(world), &function.limits);
        call.phases.run = started.elapsed();
        call.phases.engine = Some(functions::ENGINE);
        let failed = {
            let mut left = lock(&left);
            let wrote = left.wrote;
            left.failed.take().map(|refusal| unsure(refusal, wrote))
        };
        if let Some(refusal) = failed {
            held.as_deref().inspect(|held| held.give_up());
            return Err(refusal);
        }
        let outcome = match answered {
            Ok(answer) => Outcome::of(answer),
            Err(error) => {
                // What it wrote before counts, is not done again, and is told to nobody as an answer.
                once.note(&left, None)?;
                end(held.as_deref(), &left)?;
                return Err(stopped(&function, &error));
            }
        };
        once.note(&left, Some(&outcome))?;
        let cut = end(held.as_deref(), &left)?;
        self.function_answer(admitted, keys, outcome, cut, held.as_deref())
    }

    fn function_answer(
        &self,
        admitted: &Admitted<GrantedRequest>,
        keys: &Keys,
        outcome: Outcome,
        cut: Option<Cut>,
        held: Option<&HeldState>,
    ) -> Result<inference::Answer, Refusal> {
        let span = match (cut, held) {
            (Some(cut), Some(held)) => Some(span(cut, held)?),
            _ => None,
        };
        let token = span.as_ref().map(|(_, after)| after.encode());
        let output = outcome.output(token).encode();
        if output.len() > super::OUTPUT_BYTES_MAX {
            return Err(refusals::too_long(output.len()));
        }
        let span = span.map(|(span, _)| span);
        Ok(self.receipted_output(admitted, keys, output.to_vec(), span))
    }
}

/// What a function said, before it is known which state it left.
struct Outcome(Result<(String, Wiped), FunctionFailure>);

impl Outcome {
    fn of(answer: bield_function::Answer) -> Self {
        Self(match answer {
            Ok(response) => Ok((printable(response.content_type), response.body)),
            Err(failure) => Err(FunctionFailure {
                kind: match failure.kind {
                    bield_function::FailureKind::BadRequest => FailureKind::BadRequest,
                    bield_function::FailureKind::NotFound => FailureKind::NotFound,
                    bield_function::FailureKind::Denied => FailureKind::Denied,
                    bield_function::FailureKind::Conflict => FailureKind::Conflict,
                    bield_function::FailureKind::Failed => FailureKind::Failed,
                },
                message: shortened(failure.message, WORDS_BYTES_MAX),
            }),
        })
    }

    fn output(self, state: Option<Vec<u8>>) -> FunctionOutput {
        match self.0 {
            Ok((content_type, body)) => {
                FunctionOutput::answered(FunctionResponse { content_type, body }, state)
            }
            Err(failure) => FunctionOutput::failed(failure, state),
        }
    }

    /// As it is kept: an output without a state.
    fn kept(&self) -> Wiped {
        let copy = match &self.0 {
            Ok((content_type, body)) => Ok((content_type.clone(), Wiped::from(body.to_vec()))),
            Err(failure) => Err(failure.clone()),
        };
        Self(copy).output(None).encode()
    }
}

/// What makes a request one that is done once.
struct Once {
    key: Vec<u8>,
    /// Of its bytes: the id is the caller's to choose.
    request: Digest,
    until: Time,
}

impl Once {
    fn bucket() -> Bucket {
        Bucket {
            name: DONE.to_owned(),
            consistency: bield_table::Consistency::Eventual,
            durability: bield_state::Durability::Memory,
        }
    }

    /// The answer of the first time; else the request's first change will say that it was begun, in the same record.
    ///
    /// # Errors
    /// It was done, and the answer was too long to be kept, or it was begun and ended with its runtime.
    fn begin(&self, left: &Mutex<Left>) -> Result<Option<Outcome>, Refusal> {
        let mut left = lock(left);
        let Some(state) = &mut left.state else {
            return Ok(None);
        };
        let files = |error| functions::states::of_files(&error);
        let found = state.get(&Self::bucket(), &self.key).map_err(files)?;
        let Some(found) = found else {
            let marked = state.mark(DONE, &self.key, self.until);
            return marked.map_err(files).map(|()| None);
        };
        let Some((request, output)) = found.value.split_first_chunk() else {
            return Err(done_before());
        };
        if *request != *self.request.as_bytes() {
            return Err(other_request());
        }
        let output = FunctionOutput::decode(output).map_err(|_| done_before())?;
        Ok(Some(Outcome(match (output.response, output.failure) {
            (Some(response), _) => Ok((response.content_type, response.body)),
            (None, Some(failure)) => Err(failure),
            (None, None) => return Err(done_before()),
        })))
    }

    /// Keeps that it was done, with the answer if there is one, if the request changed anything.
    fn note(&self, left: &Mutex<Left>, outcome: Option<&Outcome>) -> Result<(), Refusal> {
        let mut left = lock(left);
        if !left.wrote {
            return Ok(());
        }
        let Some(state) = &mut left.state else {
            return Ok(());
        };
        let kept = outcome
            .map(Outcome::kept)
            .filter(|kept| kept.len() <= KEPT_BYTES_MAX);
        let value = Wiped::from(match &kept {
            Some(kept) => [&self.request.as_bytes()[..], kept].concat(),
            None => Vec::new(),
        });
        let note = Change::Set {
            key: &self.key,
            value: &value,
            expires: Some(self.until),
        };
        let noted = state.write(&Self::bucket(), &[note]);
        noted.map_err(|error| unsure(functions::states::of_files(&error), true))
    }
}

fn once_key(user: Principal, id: [u8; 16]) -> Vec<u8> {
    [&user.as_bytes()[..], &id].concat()
}

fn begin(held: &HeldState, request: &FunctionRequest) -> Result<bield_state::Request, Refusal> {
    let seen = match &request.seen {
        Some(token) => StateHeads::decode(token)
            .map_err(|error| Refusal::new("malformed-token", error, Retry::Never))?,
        None => StateHeads::default(),
    };
    held.state()
        .request(seen.heads())
        .map_err(|error| functions::states::of_files(&error))
}

/// Waits until what the request wrote and saw is as safe as its buckets say.
fn end(held: Option<&HeldState>, left: &Mutex<Left>) -> Result<Option<Cut>, Refusal> {
    let (state, wrote) = {
        let mut left = lock(left);
        (left.state.take(), left.wrote)
    };
    let Some(state) = state else {
        return Ok(None);
    };
    let cut = state.finish().map_err(|error| {
        held.inspect(|held| held.give_up());
        unsure(functions::states::of_files(&error), wrote)
    });
    cut.map(Some)
}

fn span(cut: Cut, held: &HeldState) -> Result<(StateSpan, StateHeads), Refusal> {
    let heads = |heads| StateHeads::new(heads).ok_or_else(refusals::internal);
    let (before, after) = (heads(cut.before)?, heads(cut.after)?);
    let span = StateSpan {
        capsule: held.capsule(),
        before: before.digest(),
        after: after.digest(),
    };
    Ok((span, after))
}

fn stopped(function: &OpenFunction, error: &Stopped) -> Refusal {
    function.log.write(
        bield_platform::now(),
        bield_function::Level::Error,
        &error.to_string(),
    );
    let (code, retry) = match error {
        Stopped::Busy => ("queue-full", Retry::Anew),
        Stopped::Deadline(_) => ("function-late", Retry::AfterChange),
        _ => ("function-stopped", Retry::AfterChange),
    };
    Refusal::new(code, error, retry)
}

fn done_before() -> Refusal {
    Refusal::new(
        "done-before",
        "this request was done before, whole or until its runtime ended, and its answer was not kept; what it changed stays, \
         and nothing was done again",
        Retry::Never,
    )
}

fn other_request() -> Refusal {
    Refusal::new(
        "replayed",
        "another request of its sender has its id and was done; nothing was done for this one: seal it anew",
        Retry::Anew,
    )
}

/// What became of a request that wrote is known to who asks for the same again; sealed anew, it would be another.
fn unsure(refusal: Refusal, wrote: bool) -> Refusal {
    match refusal.retry {
        Retry::After(_) if wrote => Refusal::new(
            "state-lost",
            format_args!(
                "whether the request counts is not known ({}); send the same sealed request again: it is done once",
                refusal.message
            ),
            refusal.retry,
        ),
        _ => refusal,
    }
}

/// A content type as an output has it: a guest may say anything.
fn printable(text: String) -> String {
    match bield_protocol::function::is_content_type(&text) {
        true => text,
        false => String::new(),
    }
}

fn shortened(mut text: String, bytes: usize) -> String {
    text.truncate(text.floor_char_boundary(bytes));
    text
}

/// Nothing of a function waits for longer than a request may.
const _: () = assert!(REQUEST_AGE_MAX.as_secs() > Duration::from_secs(60).as_secs());

#[cfg(test)]
mod tests;
