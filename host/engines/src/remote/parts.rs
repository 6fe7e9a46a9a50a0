//! An answer in parts on its way from a worker to a client.
//!
//! ```text
//!  worker ── a part within `part` ──▶ task, one part ── taken within `take` ──▶ client
//! ```
//!
//! Always true: neither a worker that falls silent nor a client that does not read holds the place in the worker for
//! longer; a client that goes ends the connection to the worker, which is how that hears of it; what was cut ends with an
//! error.

use std::io;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use http_body_util::BodyExt as _;
use hyper::body::Body;
use tokio::sync::mpsc;

use crate::{Bytes, Place};

/// Longest answer in parts, in bytes (spec 10 §4).
const ANSWER_BYTES_MAX: usize = 256 << 20;

/// How long to wait.
#[derive(Debug, Clone, Copy)]
pub(super) struct Waits {
    /// For the worker's next part.
    pub(super) part: Duration,
    /// For the client to take one.
    pub(super) take: Duration,
}

/// Passes parts on as they come; `place` is free when the worker has sent all, or nobody takes it.
pub(super) fn pass_on<B>(
    body: B,
    waits: Waits,
    place: Place,
) -> BoxStream<'static, io::Result<Bytes>>
where
    B: Body<Data = Bytes> + Unpin + Send + 'static,
    B::Error: Send,
{
    let (parts, taken) = mpsc::channel(1);
    tokio::spawn(async move {
        let _ = carry(body, waits, &parts).await;
        drop(place);
    });
    stream::unfold(Some(taken), async |taken| {
        let mut taken = taken?;
        match taken.recv().await {
            Some(Some(part)) => Some((Ok(part), Some(taken))),
            Some(None) => None,
            None => Some((Err(io::Error::other("the answer broke off")), None)),
        }
    })
    .boxed()
}

/// Sends each part, and `None` after the last; `None` is returned when there is no going on.
async fn carry<B>(mut body: B, waits: Waits, parts: &mpsc::Sender<Option<Bytes>>) -> Option<()>
where
    B: Body<Data = Bytes> + Unpin,
{
    let mut total = 0_usize;
    loop {
        let frame = tokio::select! {
            frame = tokio::time::timeout(waits.part, body.frame()) => frame.ok()?,
            () = parts.closed() => return None,
        };
        let part = match frame {
            Some(frame) => Some(frame.ok()?.into_data().unwrap_or_default()),
            None => None,
        };
        let is_last = part.is_none();
        total += part.as_ref().map_or(0, Bytes::len);
        if total > ANSWER_BYTES_MAX {
            return None;
        }
        if part.as_ref().is_some_and(Bytes::is_empty) {
            continue;
        }
        parts.send_timeout(part, waits.take).await.ok()?;
        if is_last {
            return Some(());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http_body_util::StreamBody;
    use hyper::body::Frame;
    use tokio::sync::{OwnedSemaphorePermit, Semaphore};

    use super::*;

    const SHORT: Duration = Duration::from_millis(50);
    const LONG: Duration = Duration::from_secs(60);
    const PATIENT: Waits = Waits {
        part: LONG,
        take: LONG,
    };

    /// A body whose parts a test sends; it ends when the sender does.
    fn body() -> (
        mpsc::UnboundedSender<io::Result<Bytes>>,
        impl Body<Data = Bytes, Error = io::Error> + Unpin + Send + 'static,
    ) {
        let (say, mut said) = mpsc::unbounded_channel::<io::Result<Bytes>>();
        let frames = stream::poll_fn(move |context| said.poll_recv(context));
        (
            say,
            StreamBody::new(frames.map(|part| part.map(Frame::data))),
        )
    }

    fn place() -> (Arc<Semaphore>, OwnedSemaphorePermit) {
        let places = Arc::new(Semaphore::new(1));
        let place = Arc::clone(&places).try_acquire_owned().unwrap();
        (places, place)
    }

    #[tokio::test]
    async fn parts_come_as_they_are_sent_and_free_the_place_with_the_last() {
        let (say, body) = body();
        let (places, place) = place();
        let mut parts = pass_on(body, PATIENT, Box::new(place));
        for part in ["one", "", "two"] {
            say.send(Ok(part.into())).unwrap();
        }
        assert_eq!(&parts.next().await.unwrap().unwrap()[..], b"one");
        assert_eq!(&parts.next().await.unwrap().unwrap()[..], b"two");
        assert_eq!(places.available_permits(), 0);
        drop(say);
        assert!(parts.next().await.is_none());
        drop(places.acquire().await.unwrap());
    }

    #[tokio::test]
    async fn what_breaks_off_or_falls_silent_ends_with_an_error_and_frees_the_place() {
        for is_silent in [false, true] {
            let (say, body) = body();
            let (places, place) = place();
            let waits = match is_silent {
                true => Waits {
                    part: SHORT,
                    ..PATIENT
                },
                false => PATIENT,
            };
            let mut parts = pass_on(body, waits, Box::new(place));
            say.send(Ok("one".into())).unwrap();
            if !is_silent {
                say.send(Err(io::ErrorKind::ConnectionReset.into()))
                    .unwrap();
            }
            assert!(parts.next().await.unwrap().is_ok());
            assert!(parts.next().await.unwrap().is_err());
            assert!(parts.next().await.is_none());
            drop(places.acquire().await.unwrap());
        }
    }

    #[tokio::test]
    async fn a_client_that_takes_nothing_or_goes_frees_the_place_and_ends_the_connection() {
        for goes in [false, true] {
            let (say, body) = body();
            let (places, place) = place();
            let waits = match goes {
                true => PATIENT,
                false => Waits {
                    take: SHORT,
                    ..PATIENT
                },
            };
            let parts = pass_on(body, waits, Box::new(place));
            for _ in 0..3 {
                say.send(Ok("part".into())).unwrap();
            }
            let mut kept = Some(parts);
            if goes {
                kept = None;
            }
            drop(places.acquire().await.unwrap());
            say.closed().await;
            if let Some(mut parts) = kept {
                let mut last = parts.next().await;
                while let Some(Ok(_)) = last {
                    last = parts.next().await;
                }
                assert!(last.is_some_and(|end| end.is_err()), "not all of it");
            }
        }
    }

    #[tokio::test]
    async fn an_answer_longer_than_any_is_cut() {
        let (say, body) = body();
        let (_, place) = place();
        let parts = pass_on(body, PATIENT, Box::new(place));
        let part = Bytes::from(vec![7; ANSWER_BYTES_MAX / 2]);
        for part in [part.clone(), part, Bytes::from_static(b"x")] {
            say.send(Ok(part)).unwrap();
        }
        let read: Vec<_> = parts.collect().await;
        assert_eq!(read.iter().filter(|part| part.is_ok()).count(), 2);
        assert!(read.last().unwrap().is_err());
    }
}
