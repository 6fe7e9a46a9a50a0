//! Whether a model keeps the rows of one run apart, found out on its golden pairs before anybody's request is joined.
//!
//! ```text
//! golden row ─▶ louder, negated, moved, zero; other golden rows ─▶ those whose single answers differ ─┐
//!                    joint runs of them: by twos, three, four, eight … to the most ─▶ the same? ◀─────┘
//! ```
//!
//! Always true: what is [`Rows::Apart`] gave each row of every joint run what that row gets alone, among rows whose single
//! answers are numbers and differ beyond the tolerance, in each output; all rows come from the owner's pairs, none from
//! requests; integers and booleans are moved within a tensor, so that they stay what the owner had there. This shows what
//! happens by construction (a mean over the batch, one scale for all of it, rows that are not requests), for rows of the
//! first pair's shape. Not here: what a model does on purpose, which no trial shows.
//!
//! On paper: at most [`ROWS_TOLD_MAX`] + 6 single runs, and joint ones of 2 · ([`ROWS_TOLD_MAX`] - 1) + 3 rows and less than
//! three times the most. A run has at most twice the rows of one that there was time for.

use std::iter::{once, successors};

use bield_package::tensor::{ElementType, Tensor};
use bield_package::{GoldenPair, TOLERANCE_PPM};

use super::{Shape, run_together, same_answers};
use crate::{Model, agree};

/// Most rows that are compared: each of those made from a golden one, and the other pairs'.
const ROWS_TOLD_MAX: usize = 8;

/// What is known of rows that run together.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Rows {
    /// Nothing: no golden pair tells.
    #[default]
    Unproven,
    /// Their answers are not those of single runs.
    Differ,
    /// Their answers are, in runs of so many at most, at least two.
    Apart(usize),
}

/// Compares joint runs, of at most `rows_max`, with single ones on rows that are made from `golden`. What is proven when
/// `goes_on` says no counts if all rows were compared by twos and three by then.
pub fn prove_rows(
    model: &dyn Model,
    golden: &[GoldenPair],
    rows_max: usize,
    goes_on: &dyn Fn() -> bool,
) -> Rows {
    let candidates = candidates(golden);
    let shape = candidates.first().map(|row| Shape::of(model, row, &[]));
    let Some(shape) = shape.flatten() else {
        return Rows::Unproven;
    };
    let told = told_apart(model, &shape, &candidates, goes_on);
    let outputs = model.outputs().len();
    if told.len() < 2 || !(0..outputs).all(|at| tells(&told, at)) {
        return Rows::Unproven;
    }
    let mut proven = 1;
    for order in orders(told.len(), rows_max) {
        if !goes_on() {
            return match proven {
                0..3 => Rows::Unproven,
                most => Rows::Apart(most),
            };
        }
        let rows: Vec<&[Tensor]> = order.iter().map(|at| told[*at].0).collect();
        let count = rows.len();
        match run_together(model, &shape, &rows) {
            Ok((Some(answers), _)) => {
                let mut each = order.iter().zip(&answers);
                if !each.all(|(at, together)| same_answers(&told[*at].1, together) == Some(true)) {
                    return Rows::Differ;
                }
                proven = proven.max(count);
            }
            // More than it takes at once.
            Err(_) if proven > 1 && count > proven => break,
            _ => return Rows::Differ,
        }
    }
    match proven {
        1 => Rows::Unproven,
        most => Rows::Apart(most),
    }
}

/// A row, and what it gets alone.
type Told<'a> = (&'a [Tensor], Vec<Tensor>);

/// Rows of `shape` whose single answers are numbers, no two of them the same.
fn told_apart<'a>(
    model: &dyn Model,
    shape: &Shape,
    candidates: &'a [Vec<Tensor>],
    goes_on: &dyn Fn() -> bool,
) -> Vec<Told<'a>> {
    let mut told: Vec<Told<'a>> = Vec::new();
    for row in candidates {
        if told.len() == ROWS_TOLD_MAX || !goes_on() {
            break;
        }
        if Shape::of(model, row, &[]).as_ref() != Some(shape) {
            continue;
        }
        // One that was made may be none that the model takes.
        let Ok(answer) = model.run(row, &[]) else {
            continue;
        };
        let mut others = told.iter();
        if same_answers(&answer, &answer) == Some(true)
            && others.all(|(_, other)| other.iter().zip(&answer).any(differ))
        {
            told.push((row, answer));
        }
    }
    told
}

/// Whether an output is not the same for all rows.
fn tells(told: &[Told<'_>], output: usize) -> bool {
    let mut pairs = told.windows(2);
    pairs.any(|pair| differ((&pair[0].1[output], &pair[1].1[output])))
}

fn differ((one, other): (&Tensor, &Tensor)) -> bool {
    !agree(one, other, TOLERANCE_PPM) && !agree(other, one, TOLERANCE_PPM)
}

/// Which rows run together: the golden one beside each other one, then several, never more than twice as many as before.
fn orders(rows: usize, rows_max: usize) -> Vec<Vec<usize>> {
    let beside = |at| match at % 2 {
        0 => vec![at, 0],
        _ => vec![0, at],
    };
    let doubled =
        successors(Some(4), |count| Some(2 * count)).take_while(|count| *count < rows_max);
    let mut counts: Vec<usize> = once(3).chain(doubled).chain([rows_max]).collect();
    counts.retain(|count| (3..=rows_max).contains(count));
    counts.dedup();
    let turned = |(by, count): (usize, usize)| (0..count).map(|at| (at + by) % rows).collect();
    let several = (1..).zip(counts).map(turned);
    (1..rows).map(beside).chain(several).collect()
}

/// A golden row, what is made from it, and the other golden rows.
fn candidates(golden: &[GoldenPair]) -> Vec<Vec<Tensor>> {
    let mut rows = golden.iter().flat_map(|pair| cut(&pair.inputs));
    let Some(first) = rows.next() else {
        return Vec::new();
    };
    let made = Change::ALL.into_iter().filter_map(|change| {
        let tensors = first.iter().map(|tensor| change.of(tensor));
        tensors.collect::<Option<Vec<_>>>()
    });
    let made: Vec<_> = made.collect();
    let rows: Vec<_> = rows.take(ROWS_TOLD_MAX).collect();
    [vec![first], made, rows].concat()
}

/// The first rows of what may be several, each by itself.
fn cut(inputs: &[Tensor]) -> Vec<Vec<Tensor>> {
    let rows = inputs.first().and_then(|input| input.shape().first());
    let rows = rows.map_or(0, |rows| *rows as usize);
    let row = |at| inputs.iter().map(|input| row_of(input, rows, at)).collect();
    (0..rows.min(ROWS_TOLD_MAX)).map_while(row).collect()
}

fn row_of(tensor: &Tensor, rows: usize, at: usize) -> Option<Tensor> {
    let shape = super::row_shape(tensor, rows as u64)?;
    let bytes = tensor.data().len() / rows;
    let data = tensor.data()[at * bytes..][..bytes].to_vec();
    Tensor::new(tensor.name(), tensor.element(), shape, data).ok()
}

/// What is done to a golden row to make another.
#[derive(Clone, Copy)]
enum Change {
    /// A thousand times as large; what is no floating-point number is moved on by a third.
    Louder,
    /// The other sign; else reversed.
    Negated,
    Reversed,
    /// Moved on by one.
    Moved,
    /// Zero; else all as the first.
    Flat,
}

impl Change {
    const ALL: [Self; 5] = [
        Self::Louder,
        Self::Negated,
        Self::Reversed,
        Self::Moved,
        Self::Flat,
    ];

    fn of(self, tensor: &Tensor) -> Option<Tensor> {
        let (element, mut data) = (tensor.element(), tensor.data().to_vec());
        let size = element.size_bytes()?;
        let is_float = tensor.to_f64().is_some();
        match self {
            Self::Louder if is_float => louder(element, &mut data),
            Self::Negated if is_float => {
                // The sign is the highest bit of each.
                let highest = data.iter_mut().skip(size - 1).step_by(size);
                highest.for_each(|byte| *byte ^= 0x80);
            }
            Self::Flat if is_float => data.fill(0),
            Self::Louder => data.rotate_left(tensor.len() / 3 * size),
            Self::Negated | Self::Reversed => {
                data = data.rchunks(size).flatten().copied().collect();
            }
            Self::Moved if data.is_empty() => {}
            Self::Moved => data.rotate_left(size),
            Self::Flat => {
                let first = data.get(..size)?.to_vec();
                data = first.repeat(tensor.len());
            }
        }
        Tensor::new(tensor.name(), element, tensor.shape().to_vec(), data).ok()
    }
}

/// Half precision stays: a thousand times as large is often more than it holds.
fn louder(element: ElementType, data: &mut [u8]) {
    match element {
        ElementType::F32 => {
            for word in data.as_chunks_mut().0 {
                *word = (f32::from_le_bytes(*word) * 1e3).to_le_bytes();
            }
        }
        ElementType::F64 => {
            for word in data.as_chunks_mut().0 {
                *word = (f64::from_le_bytes(*word) * 1e3).to_le_bytes();
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests;
