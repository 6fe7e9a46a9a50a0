//! One run for several requests, and what it tells of the model.
//!
//! ```text
//! requests ─▶ joint run ─▶ answers
//!               │ one of many ─▶ each by itself as well ─▶ the same? ─ no ─▶ Found::Differs
//!               └ failed ─▶ each by itself ─ all answered ─▶ Found::TooMuch
//!                                    └ some failed alone, too ─▶ Found::AtFault
//! ```
//!
//! Always true: where both were computed, what is answered is what each request gets alone, as soon as that is there. Not
//! here: who runs together.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bield_engine::{EngineError, Model, Rows, Shape, prove_rows, run_together, same_answers};
use bield_package::GoldenPair;
use bield_package::tensor::Tensor;

use super::{BatchCounts, Ran};

/// How long a trial may take, in a turn that others wait for. What is proven by then counts; one run is not broken off.
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
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Found {
    Nothing,
    /// Some request got another answer than alone.
    Differs,
    /// It failed with so many bytes of inputs, and each request was answered alone.
    TooMuch(u64),
    /// It failed, and so did these requests alone.
    AtFault(Vec<usize>),
}

pub(super) type Answer = Result<Vec<Tensor>, EngineError>;

/// What there is besides single runs.
enum Joint {
    None,
    Failed,
    Gave(Option<Vec<Vec<Tensor>>>),
}

/// Computes all requests in their order, and hands each what it gets as soon as it is there.
pub(super) fn compute(
    model: &dyn Model,
    shape: &Shape,
    requests: &[Vec<Tensor>],
    (is_compared, counts): (bool, &BatchCounts),
    hand: &mut dyn FnMut(usize, Ran),
) -> Found {
    let started = Instant::now();
    let mut session = None;
    let mut hand = |at, answer: Answer, session: Option<Duration>| {
        let ran = Ran {
            answer,
            run: started.elapsed(),
            session,
        };
        hand(at, ran);
    };
    let mut joint = Joint::None;
    if requests.len() > 1 {
        counts.note(requests.len());
        let borrowed: Vec<&[Tensor]> = requests.iter().map(Vec::as_slice).collect();
        match run_together(model, shape, &borrowed) {
            Ok((Some(answers), opened)) if !is_compared => {
                for (at, answer) in answers.into_iter().enumerate() {
                    hand(at, Ok(answer), opened);
                }
                return Found::Nothing;
            }
            Ok((answers, opened)) => {
                session = opened;
                joint = Joint::Gave(answers);
            }
            Err(_) => {
                counts.retried.fetch_add(1, Ordering::Relaxed);
                joint = Joint::Failed;
            }
        }
    }
    let outputs = shape.outputs();
    let (mut differs, mut failed) = (matches!(joint, Joint::Gave(None)), Vec::new());
    for (at, inputs) in requests.iter().enumerate() {
        let answer = model.run_timed(inputs, &outputs).map(|(answer, opened)| {
            session = session.or(opened);
            answer
        });
        if let Joint::Gave(Some(together)) = &joint {
            differs |= differ(&answer, &together[at]);
        }
        if answer.is_err() {
            failed.push(at);
        }
        hand(at, answer, session);
    }
    match joint {
        _ if differs => Found::Differs,
        Joint::Failed if failed.is_empty() => {
            Found::TooMuch(shape.row_bytes() * requests.len() as u64)
        }
        Joint::Failed => Found::AtFault(failed),
        _ => Found::Nothing,
    }
}

/// Whether a request got something else together than alone.
pub(super) fn differ(single: &Answer, together: &[Tensor]) -> bool {
    let same = single.as_ref().map(|single| same_answers(single, together));
    // What is no number alone tells nothing.
    !matches!(same, Ok(Some(true) | None))
}

impl BatchCounts {
    fn note(&self, requests: usize) {
        self.batches.fetch_add(1, Ordering::Relaxed);
        self.requests.fetch_add(requests as u64, Ordering::Relaxed);
        self.largest.fetch_max(requests as u64, Ordering::Relaxed);
    }
}
