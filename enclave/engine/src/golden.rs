//! Golden pairs: the proof that this engine on this processor computes what the owner measured.
//!
//! Always true: a number that is not finite never agrees; integers and booleans agree only when
//! equal; a floating-point output agrees when no element differs by more than the tolerance
//! times the largest expected magnitude of that output. Relative to the largest rather than to
//! each element, because rounding errors of a sum do not shrink with its result.

use bield_package::GoldenPair;
use bield_package::tensor::Tensor;

use crate::{EngineError, Model};

/// Runs every pair and compares.
///
/// # Errors
///
/// [`EngineError::Golden`] for the first output that differs, and as [`Model::run`].
pub fn check_golden(model: &dyn Model, pairs: &[GoldenPair]) -> Result<(), EngineError> {
    check_golden_while(model, pairs, &|| true).map(drop)
}

/// Like [`check_golden`], asking `goes_on` before each pair and after the last; whether it never said no.
///
/// # Errors
///
/// As [`check_golden`].
pub(crate) fn check_golden_while(
    model: &dyn Model,
    pairs: &[GoldenPair],
    goes_on: &dyn Fn() -> bool,
) -> Result<bool, EngineError> {
    check(pairs, goes_on, |inputs, outputs| model.run(inputs, outputs))
}

/// Like [`check_golden`], on threads that end with each run.
///
/// # Errors
///
/// As [`check_golden`].
pub(crate) fn check_golden_apart(
    model: &dyn Model,
    pairs: &[GoldenPair],
) -> Result<(), EngineError> {
    let run = |inputs: &[Tensor], outputs: &[&str]| Ok(model.run_apart(inputs, outputs)?.0);
    check(pairs, &|| true, run).map(drop)
}

fn check(
    pairs: &[GoldenPair],
    goes_on: &dyn Fn() -> bool,
    run: impl Fn(&[Tensor], &[&str]) -> Result<Vec<Tensor>, EngineError>,
) -> Result<bool, EngineError> {
    for (index, pair) in pairs.iter().enumerate() {
        if !goes_on() {
            return Ok(false);
        }
        let names: Vec<&str> = pair.outputs.iter().map(Tensor::name).collect();
        let computed = run(&pair.inputs, &names)?;
        for (expected, computed) in pair.outputs.iter().zip(&computed) {
            if !agree(expected, computed, pair.tolerance_ppm) {
                return Err(EngineError::Golden {
                    pair: index,
                    output: expected.name().to_owned(),
                });
            }
        }
    }
    Ok(goes_on())
}

/// Runs a model to make a golden pair of it. Only as good as the engine it ran on: an owner who
/// has another engine records there.
///
/// # Errors
///
/// As [`Model::run`].
pub fn record_golden(
    model: &dyn Model,
    inputs: Vec<Tensor>,
    tolerance_ppm: u32,
) -> Result<GoldenPair, EngineError> {
    let outputs = model.run(&inputs, &[])?;
    Ok(GoldenPair {
        inputs,
        outputs,
        tolerance_ppm,
    })
}

/// Whether `computed` is `expected`, with a tolerance in parts per million of the largest expected magnitude.
pub fn agree(expected: &Tensor, computed: &Tensor, tolerance_ppm: u32) -> bool {
    if expected.shape() != computed.shape() || expected.element() != computed.element() {
        return false;
    }
    let (Some(expected), Some(computed)) = (expected.to_f64(), computed.to_f64()) else {
        return expected.data() == computed.data();
    };
    let largest = expected.iter().fold(0.0_f64, |max, x| max.max(x.abs()));
    let allowed = largest * f64::from(tolerance_ppm) / 1e6;
    let near = |e: f64, c: f64| (e - c).abs() <= allowed;
    expected
        .iter()
        .zip(&computed)
        .all(|(e, c)| e.is_finite() && c.is_finite() && near(*e, *c))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agrees(expected: &[f32], computed: &[f32]) -> bool {
        let tensor = |v: &[f32]| Tensor::from_f32("x", &[v.len() as u64], v).unwrap();
        agree(&tensor(expected), &tensor(computed), 1_000)
    }

    #[test]
    fn rounding_agrees_and_another_answer_does_not() {
        assert!(agrees(&[0.0, 2.0], &[0.0019, 2.0]));
        assert!(!agrees(&[0.0, 2.0], &[0.0021, 2.0]));
        assert!(agrees(&[], &[]));
    }

    #[test]
    fn what_is_not_a_number_never_agrees() {
        for bad in [f32::NAN, f32::INFINITY] {
            assert!(!agrees(&[1.0], &[bad]));
            assert!(!agrees(&[bad], &[1.0]));
            assert!(!agrees(&[bad], &[bad]));
        }
    }

    #[test]
    fn another_shape_never_agrees() {
        let wide = Tensor::from_f32("x", &[1, 2], &[1.0, 2.0]).unwrap();
        let flat = Tensor::from_f32("x", &[2], &[1.0, 2.0]).unwrap();
        assert!(!agree(&wide, &flat, 1_000));
    }

    #[test]
    fn integers_agree_only_when_equal() {
        let tensor = |v| Tensor::from_i64("x", &[1], &[v]).unwrap();
        assert!(agree(&tensor(1_000_000), &tensor(1_000_000), 1_000));
        assert!(!agree(&tensor(1_000_000), &tensor(1_000_001), 1_000));
    }
}
