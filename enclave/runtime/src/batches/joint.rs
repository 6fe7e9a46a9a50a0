//! One run for several requests, and what it tells of the model.
//!
//! ```text
//! requests ─▶ joint run ─▶ answers
//!               │ one of many ─▶ each by itself as well ─▶ the same? ─ no ─▶ Found::Differs
//!               └ failed ─▶ each by itself ─ all answered ─▶ Found::TooMuch
//! ```
//!
//! Always true: where both were computed, what is answered is what each request gets alone. Not here: who runs together.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bield_engine::{EngineError, Model, Rows, Shape, prove_rows, run_together, same_answers};
use bield_package::GoldenPair;
use bield_package::tensor::Tensor;

use super::{BatchCounts, Ran};

/// How long a trial may take, in a turn that others wait for. What is too slow for it stays unproven; one run is not broken
/// off.
const TRIAL_TIME_MAX: Duration = Duration::from_secs(5);

/// Finds out, before anybody's request is joined, whether a model keeps rows apart.
pub(crate) struct Trial {
    /// Most requests in one run.
    pub(crate) requests_max: usize,
    pub(crate) counts: Arc<BatchCounts>,
}

impl Trial {
    /// Tries a model on its golden pairs, as long as `goes_on` and there is time.
    pub(crate) fn of(
        &self,
        model: &dyn Model,
        golden: &[GoldenPair],
        goes_on: &dyn Fn() -> bool,
    ) -> Rows {
        let started = Instant::now();
        let in_time = || goes_on() && started.elapsed() < TRIAL_TIME_MAX;
        let rows = prove_rows(model, golden, self.requests_max, &in_time);
        let count = match rows {
            Rows::Unproven if goes_on() => &self.counts.unproven,
            Rows::Differ => &self.counts.refused,
            Rows::Apart(_) | Rows::Unproven => return rows,
        };
        count.fetch_add(1, Ordering::Relaxed);
        rows
    }
}

/// What a joint run tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Found {
    Nothing,
    /// Some request got another answer than alone.
    Differs,
    /// It failed with so many bytes of inputs, and each request was answered alone.
    TooMuch(u64),
}

pub(super) type Answer = Result<Vec<Tensor>, EngineError>;

/// Answers of all requests in their order, and what was found.
pub(super) fn compute(
    model: &dyn Model,
    shape: &Shape,
    requests: &[Vec<Tensor>],
    is_compared: bool,
    counts: &BatchCounts,
) -> (Vec<Ran>, Found) {
    let started = Instant::now();
    let outputs = shape.outputs();
    let mut session = None;
    let singly = |session: &mut Option<Duration>| -> Vec<Answer> {
        let run = |inputs: &Vec<Tensor>| {
            let (answer, opened) = model.run_timed(inputs, &outputs)?;
            *session = session.or(opened);
            Ok(answer)
        };
        requests.iter().map(run).collect()
    };
    let (answers, found) = if requests.len() < 2 {
        (singly(&mut session), Found::Nothing)
    } else {
        counts.note(requests.len());
        let borrowed: Vec<&[Tensor]> = requests.iter().map(Vec::as_slice).collect();
        match run_together(model, shape, &borrowed) {
            Ok((Some(answers), opened)) if !is_compared => {
                session = opened;
                (answers.into_iter().map(Ok).collect(), Found::Nothing)
            }
            Ok((together, opened)) => {
                session = opened;
                let single = singly(&mut session);
                let differs = together.is_none_or(|together| differ(&single, &together));
                let found = match differs {
                    true => Found::Differs,
                    false => Found::Nothing,
                };
                (single, found)
            }
            Err(_) => {
                counts.retried.fetch_add(1, Ordering::Relaxed);
                let single = singly(&mut session);
                // Where one request is at fault, it fails by itself as well.
                let found = match single.iter().all(Result::is_ok) {
                    true => Found::TooMuch(shape.row_bytes() * requests.len() as u64),
                    false => Found::Nothing,
                };
                (single, found)
            }
        }
    };
    let run = started.elapsed();
    let ran = |answer| Ran {
        answer,
        run,
        session,
    };
    (answers.into_iter().map(ran).collect(), found)
}

/// Whether any request got something else together than alone.
pub(super) fn differ(single: &[Answer], together: &[Vec<Tensor>]) -> bool {
    single.iter().zip(together).any(|(single, together)| {
        let same = single.as_ref().map(|single| same_answers(single, together));
        // What is no number alone tells nothing.
        !matches!(same, Ok(Some(true) | None))
    })
}

impl BatchCounts {
    fn note(&self, requests: usize) {
        self.batches.fetch_add(1, Ordering::Relaxed);
        self.requests.fetch_add(requests as u64, Ordering::Relaxed);
        self.largest.fetch_max(requests as u64, Ordering::Relaxed);
    }
}
