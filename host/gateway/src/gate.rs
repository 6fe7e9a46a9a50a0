//! One answer for all who wait for it.
//!
//! Goes in: askers, as many as like, and how the answer is made. Comes out: an answer that was begun after the asker came.
//! Always true: one is made at a time, with [`PAUSE`] between one and the next, so that askers cost what a few of them cost;
//! what was begun goes on when who asked first hangs up.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

/// From the beginning of one answer to that of the next, at least.
const PAUSE: Duration = Duration::from_millis(250);

/// Makes answers for those who come.
pub(crate) struct Gate<T>(Arc<Mutex<Option<Made<T>>>>);

struct Made<T> {
    began: Instant,
    answer: T,
}

impl<T> Default for Gate<T> {
    fn default() -> Gate<T> {
        Gate(Arc::default())
    }
}

impl<T: Clone + Send + 'static> Gate<T> {
    /// The next answer; `None` when the process ends.
    pub(crate) async fn ask(&self, make: impl Future<Output = T> + Send + 'static) -> Option<T> {
        let came = Instant::now();
        let mut last = Arc::clone(&self.0).lock_owned().await;
        if let Some(made) = last.as_ref().filter(|made| made.began >= came) {
            return Some(made.answer.clone());
        }
        let made = tokio::spawn(async move {
            if let Some(made) = last.as_ref() {
                tokio::time::sleep_until((made.began + PAUSE).into()).await;
            }
            let began = Instant::now();
            let answer = make.await;
            *last = Some(Made {
                began,
                answer: answer.clone(),
            });
            answer
        });
        made.await.ok()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::future::join_all;

    use super::*;

    #[tokio::test]
    async fn all_who_wait_hear_one_answer_and_who_comes_later_a_new_one() {
        let (gate, count) = (Gate::default(), Arc::<AtomicUsize>::default());
        let ask = || {
            let count = Arc::clone(&count);
            gate.ask(async move { count.fetch_add(1, Ordering::Relaxed) })
        };
        // On one thread: all have come before the first answer is begun.
        let heard = join_all((0..100).map(|_| ask())).await;
        assert!(heard.iter().all(|heard| *heard == Some(0)), "{heard:?}");
        assert_eq!(ask().await, Some(1));
    }

    #[tokio::test]
    async fn who_hangs_up_stops_nothing() {
        let gate = Gate::default();
        let (go, gone) = tokio::sync::oneshot::channel::<()>();
        let asked = gate.ask(async move { gone.await.is_ok() });
        tokio::select! {
            biased;
            _ = asked => unreachable!("nobody let it go"),
            () = tokio::task::yield_now() => {}
        }
        go.send(()).unwrap();
        let last = gate.0.lock().await;
        assert!(last.as_ref().is_some_and(|made| made.answer));
    }
}
