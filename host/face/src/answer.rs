//! An answer on its way from a runtime to a client.
//!
//! One that comes in parts is passed on as it comes, in pieces of at most `PIECE_BYTES_MAX`: two wait here for a client,
//! and up to 3 MiB before them (`bield_launcher`). A client that takes no piece for [`TAKE_WAIT`] loses the rest, and sees
//! its connection break; of one that goes away, before the first part as well, the runtime is told at once. How long the
//! client may take until the runtime has sent all, the runtime bounds; for what is then still here, it has [`TAIL_WAIT`] in
//! all. Such a tail has a place of its own, as many as the face gave, so that the request's place is free; without one it
//! keeps it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use bield_launcher::{Answering, Enclave, Stop, VisitError};
use futures_util::stream::{self, Stream};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::Instant;

use crate::Failure;

/// How long a client may take for a piece of an answer before the rest is cancelled.
const TAKE_WAIT: Duration = Duration::from_secs(30);

/// How long a client may take in all for what is left when the runtime has sent everything: 3 MiB at 26 KB/s.
const TAIL_WAIT: Duration = Duration::from_secs(120);

/// Hands a sealed request over and waits for the answer, or for the first of it, at most `wait`.
///
/// The `place` is what the request holds until the runtime has sent all of its answer, and is dropped then: a client that
/// hangs up does not free it before the runtime is done.
///
/// # Errors
/// See [`Failure`]; the place is free again.
pub async fn hand_over(
    enclave: Arc<Enclave>,
    sealed: Bytes,
    wait: Duration,
    place: Box<dyn Send>,
    tails: Arc<Semaphore>,
) -> Result<Answer, Failure> {
    let (begun, stop) = oneshot::channel();
    let waits = TellsWhenDropped(Some(stop));
    let asked = Instant::now();
    let answer = tokio::task::spawn_blocking(move || {
        // Waiting for a thread counts.
        let left = wait.saturating_sub(asked.elapsed());
        let mut answering = enclave.begin_call(&sealed, left)?;
        if let Err(stop) = begun.send(answering.stop()) {
            stop.tell();
        }
        let first = answering.next_part()?.unwrap_or_default();
        let rest = (!answering.is_over()).then_some(Rest {
            answering,
            place,
            tails,
        });
        Ok(Answer { first, rest })
    });
    let answer = answer.await;
    waits.no_longer();
    match answer {
        Ok(Ok(answer)) if answer.first.is_empty() => Err(Failure::Lost),
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(VisitError::Lost(_))) => Err(Failure::Lost),
        Ok(Err(VisitError::TimedOut { .. })) => Err(Failure::TimedOut(wait)),
        Ok(Err(error)) => Err(Failure::Broken(error.to_string())),
        // What became of it is not known.
        Err(error) if error.is_panic() => Err(Failure::Lost),
        Err(_) => Err(Failure::Stopping),
    }
}

/// An answer, or the first of it.
pub struct Answer {
    /// What came at once, in the form of `bield_protocol::call`.
    pub first: Vec<u8>,
    /// What is still to come.
    pub rest: Option<Rest>,
}

/// The parts that are still to come.
pub struct Rest {
    answering: Answering,
    /// Dropped when the runtime has sent all.
    place: Box<dyn Send>,
    tails: Arc<Semaphore>,
}

impl Rest {
    /// Passes the parts on as they come. An error is the last: what came is then not all.
    pub fn into_stream(self) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
        let stops = StopsWhenDropped(self.answering.stop());
        let (parts, taken) = mpsc::channel(1);
        let runtime = Handle::current();
        tokio::task::spawn_blocking(move || self.pass_on(parts, &runtime));
        as_stream(taken, stops)
    }

    /// Waits for one part after the other. What is dropped early is cancelled.
    fn pass_on(mut self, parts: mpsc::Sender<Part>, runtime: &Handle) {
        let tail = loop {
            let Ok(Some(bytes)) = self.answering.next_part() else {
                return;
            };
            if self.answering.has_come() {
                break bytes;
            }
            let part = Part::new(bytes, false);
            if runtime
                .block_on(parts.send_timeout(part, TAKE_WAIT))
                .is_err()
            {
                return;
            }
        };
        let tail = pass_on_tail(tail, self.answering, parts);
        match self.tails.try_acquire_owned() {
            Ok(place) => {
                drop(self.place);
                runtime.spawn(async move {
                    let _place = place;
                    tail.await;
                });
            }
            Err(_) => {
                let _place = self.place;
                runtime.block_on(tail);
            }
        }
    }
}

/// Passes on what is left when the runtime has sent all; nothing is waited for but the client.
async fn pass_on_tail(mut bytes: Vec<u8>, mut answering: Answering, parts: mpsc::Sender<Part>) {
    let until = Instant::now() + TAIL_WAIT;
    loop {
        let is_last = answering.is_over();
        let left = until.saturating_duration_since(Instant::now());
        let part = Part::new(bytes, is_last);
        let sent = parts.send_timeout(part, TAKE_WAIT.min(left)).await;
        if sent.is_err() || is_last {
            return;
        }
        let Ok(Some(next)) = answering.next_part() else {
            return;
        };
        bytes = next;
    }
}

/// Some of an answer on its way to the client.
struct Part {
    bytes: Bytes,
    is_last: bool,
}

impl Part {
    fn new(bytes: Vec<u8>, is_last: bool) -> Self {
        let bytes = bytes.into();
        Self { bytes, is_last }
    }
}

/// The parts, and an error unless the last one came: the client must not take them for all.
fn as_stream<G>(taken: mpsc::Receiver<Part>, held: G) -> impl Stream<Item = io::Result<Bytes>> {
    stream::unfold(Some((taken, held)), async |state| {
        let (mut taken, held) = state?;
        Some(match taken.recv().await {
            Some(Part { bytes, is_last }) => (Ok(bytes), (!is_last).then_some((taken, held))),
            None => (Err(io::Error::other("the answer broke off")), None),
        })
    })
}

/// Held by who waits for the first of an answer: a runtime is told when the client goes meanwhile.
struct TellsWhenDropped(Option<oneshot::Receiver<Stop>>);

impl TellsWhenDropped {
    fn no_longer(mut self) {
        self.0 = None;
    }
}

impl Drop for TellsWhenDropped {
    fn drop(&mut self) {
        if let Some(stop) = &mut self.0 {
            // What comes later goes back to its sender, who tells.
            stop.close();
            if let Ok(stop) = stop.try_recv() {
                stop.tell();
            }
        }
    }
}

/// Held by what a client reads: goes when all was read, or when the client does.
struct StopsWhenDropped(Stop);

impl Drop for StopsWhenDropped {
    fn drop(&mut self) {
        self.0.stop();
    }
}

#[cfg(test)]
mod tests {
    use bield_launcher::{Enclave, Launch};
    use futures_util::StreamExt as _;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn enclave() -> Enclave {
        let test = std::env::current_exe().unwrap();
        let built = test.parent().and_then(|deps| deps.parent()).unwrap();
        Enclave::start(&Launch {
            program: built.join("examples/echo-face"),
            ..Launch::default()
        })
        .unwrap()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_slot_is_free_as_soon_as_the_runtime_has_sent_all() {
        let enclave = enclave();
        for places in [1, 0] {
            let [slots, tails] = [1, places].map(|places| Arc::new(Semaphore::new(places)));
            let mut answering = enclave.begin_call(b"ahead:", LONG).unwrap();
            while !answering.has_come() {
                // Whoever waits for another call reads for this one, too.
                enclave.call(b"next", LONG).unwrap();
            }
            let mut length = answering.next_part().unwrap().unwrap().len();
            let rest = Rest {
                answering,
                place: Box::new(Arc::clone(&slots).try_acquire_owned().unwrap()),
                tails: Arc::clone(&tails),
            };
            let mut rest = Box::pin(rest.into_stream());
            // The client has taken nothing.
            match places {
                0 => assert_eq!(slots.available_permits(), 0),
                _ => drop(slots.acquire().await.unwrap()),
            }
            while let Some(part) = rest.next().await {
                length += part.unwrap().len();
            }
            assert!(length > 1_500_000);
            drop(slots.acquire().await.unwrap());
        }
    }

    #[tokio::test]
    async fn an_answer_that_is_cut_does_not_end_as_a_whole_one() {
        for is_last in [true, false] {
            let (parts, taken) = mpsc::channel(1);
            let part = Part::new(b"some".to_vec(), is_last);
            parts.try_send(part).ok().unwrap();
            drop(parts);
            let read: Vec<_> = as_stream(taken, ()).collect().await;
            let (some, end) = read.split_first().unwrap();
            assert_eq!(some.as_ref().unwrap(), &b"some"[..]);
            assert_eq!(end.len(), usize::from(!is_last));
            assert!(end.iter().all(Result::is_err));
        }
    }
}
