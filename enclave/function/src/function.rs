//! One call: an instance that nobody had before and nobody has after.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Instant;

use bield_envelope::Wiped;
use bield_platform::memory::Wiping;
use wasmtime::{Store, Trap, UpdateDeadline};

use crate::bindings::FunctionPre;
use crate::bindings::exports::bield::function::handler;
use crate::guest::Guest;
use crate::ticker::Ticker;
use crate::{Answer, Failure, FailureKind, Limits, Request, Response, Stopped, World};

/// A function that can be called, by several threads at once.
#[derive(Clone)]
pub struct Function {
    ready: FunctionPre<Guest>,
    ticker: Arc<Ticker>,
}

impl Function {
    pub(crate) fn new(ready: FunctionPre<Guest>, ticker: Arc<Ticker>) -> Self {
        Self { ready, ticker }
    }

    /// Handles one request in an instance of its own, on the calling thread; all that instance had is gone when it
    /// returns.
    ///
    /// Bodies wipe themselves; the words beside them (media type, a refusal's) are wiped when they are dropped while the
    /// caller holds a [`Wiping`] of its own.
    ///
    /// The world is dropped with it: keep what is needed afterwards behind an `Arc`. What a guest wrote before it was
    /// [`Stopped`] is written, unless the world holds it back.
    ///
    /// # Errors
    /// The guest took more than its limits, did what it may not, or there is no room now.
    pub fn call(
        &self,
        request: Request,
        world: Box<dyn World>,
        limits: &Limits,
    ) -> Result<Answer, Stopped> {
        let begun = Instant::now();
        let running = self.ticker.run().ok_or(Stopped::Busy)?;
        // Copies of the request, of values and of the answer pass through blocks that the engine frees.
        let wiping = Wiping::begin();
        let mut store = Store::new(self.ready.engine(), Guest::new(world, *limits, begun));
        let done = self.handle(&mut store, request, limits);
        let answer = done.map_err(|error| stopped(&error, &store, limits));
        drop((store, running));
        let answer = answer?;
        drop(wiping);
        Ok(answer)
    }

    fn handle(
        &self,
        store: &mut Store<Guest>,
        request: Request,
        limits: &Limits,
    ) -> wasmtime::Result<Answer> {
        store.limiter(|guest| guest);
        store.set_hostcall_fuel(at_once(limits));
        store.set_max_component_handles(limits.handles as usize * 2);
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(|store| {
            store.data().in_time()?;
            Ok(UpdateDeadline::Continue(1))
        });
        let Request {
            path,
            content_type,
            body,
            caller,
        } = request;
        let mut request = handler::Request {
            path,
            content_type,
            body: body.to_vec(),
            caller,
        };
        drop(body);
        let outcome = finish(async {
            let instance = self.ready.instantiate_async(&mut *store).await?;
            let handler = instance.bield_function_handler();
            handler.call_handle(&mut *store, &request).await
        });
        drop(Wiped::from(std::mem::take(&mut request.body)));
        let answer = match outcome? {
            Ok(response) => Ok(Response {
                content_type: response.content_type,
                body: response.body.into(),
            }),
            Err(error) => Err(failure(error)),
        };
        let bytes = match &answer {
            Ok(response) => response.content_type.len() + response.body.len(),
            Err(failure) => failure.message.len(),
        };
        if bytes as u64 > limits.output_bytes {
            return Err(Stopped::Output(limits.output_bytes).into());
        }
        Ok(answer)
    }
}

/// Most bytes that one call out of the guest, or its answer, may carry: they are copied in before they are counted.
fn at_once(limits: &Limits) -> usize {
    let bytes = limits
        .output_bytes
        .max(AT_ONCE_BYTES.min(limits.host_bytes));
    usize::try_from(bytes)
        .unwrap_or(usize::MAX)
        .saturating_add(1 << 10)
}

/// See [`at_once`]: room for a tensor of an image, 64 times over.
const AT_ONCE_BYTES: u64 = 32 << 20;

/// Drives a future that waits for nothing: host functions run to their end, and guests are stopped, never suspended.
/// It is a future so that the guest runs on a stack of its own, which is zeroed after it.
fn finish<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(done) => return done,
            Poll::Pending => thread::yield_now(),
        }
    }
}

fn failure(error: handler::Error) -> Failure {
    let (kind, message) = match error {
        handler::Error::BadRequest(message) => (FailureKind::BadRequest, message),
        handler::Error::NotFound(message) => (FailureKind::NotFound, message),
        handler::Error::Denied(message) => (FailureKind::Denied, message),
        handler::Error::Conflict(message) => (FailureKind::Conflict, message),
        handler::Error::Failed(message) => (FailureKind::Failed, message),
    };
    Failure { kind, message }
}

/// Why the engine gave up. Its own words may quote the guest, so they stay here.
fn stopped(error: &wasmtime::Error, store: &Store<Guest>, limits: &Limits) -> Stopped {
    if let Some(stopped) = error.downcast_ref::<Stopped>() {
        return stopped.clone();
    }
    if let Some(trap) = error.downcast_ref::<Trap>() {
        return match trap {
            Trap::Interrupt => Stopped::Deadline(limits.deadline),
            Trap::StackOverflow => Stopped::Stack,
            Trap::StringOutOfBounds
            | Trap::ListOutOfBounds
            | Trap::InvalidDiscriminant
            | Trap::InvalidChar
            | Trap::UnalignedPointer => Stopped::Malformed,
            trap => Stopped::Trapped(trapped(*trap)),
        };
    }
    // The engine's type for it is private; a test holds on to the words.
    if error
        .root_cause()
        .to_string()
        .contains("fuel allocated for hostcalls")
    {
        return Stopped::AtOnce(at_once(limits) as u64);
    }
    if store.data().was_refused_memory() {
        return Stopped::Memory;
    }
    Stopped::Malformed
}

const fn trapped(trap: Trap) -> &'static str {
    match trap {
        Trap::UnreachableCodeReached => "it gave up (unreachable)",
        Trap::MemoryOutOfBounds => "memory access out of bounds",
        Trap::TableOutOfBounds => "table access out of bounds",
        Trap::IndirectCallToNull => "call of nothing",
        Trap::BadSignature => "call of a function of another type",
        Trap::IntegerOverflow => "integer overflow",
        Trap::IntegerDivisionByZero => "division by zero",
        Trap::BadConversionToInteger => "a number that is no integer",
        Trap::CannotEnterComponent | Trap::CannotLeaveComponent => "a call at the wrong time",
        _ => "it broke a rule of WebAssembly",
    }
}
