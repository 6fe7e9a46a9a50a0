//! Inputs nobody prepared: random ones of the kind that an attested package takes.

use bield_load::Random;
use bield_sdk::{ElementType, Tensor, TensorSpec};

use crate::failure::Failure;

/// Values of one input at most: 16 MiB of floats.
const VALUES_MAX: u64 = 4 << 20;

/// One tensor for each spec. A free dimension is 1 where it is the first, and `free` otherwise. Floats are from 0 to 1, bytes
/// anything, longer integers 0 or 1 (which most models take for a token, a mask and a kind alike), strings `a`.
pub(super) fn random(
    specs: &[TensorSpec],
    free: u64,
    random: &mut Random,
) -> Result<Vec<Tensor>, Failure> {
    specs
        .iter()
        .map(|spec| tensor(spec, free, random))
        .collect()
}

fn tensor(spec: &TensorSpec, free: u64, random: &mut Random) -> Result<Tensor, Failure> {
    let dimensions = spec.shape().iter().enumerate();
    let usual = |(at, length): (usize, &Option<u64>)| match (at, length) {
        (_, Some(length)) => *length,
        (0, None) => 1,
        (_, None) => free,
    };
    let shape: Vec<u64> = dimensions.map(usual).collect();
    let values = shape
        .iter()
        .try_fold(1_u64, |product, length| product.checked_mul(*length))
        .filter(|values| *values <= VALUES_MAX);
    let values = values.ok_or_else(|| {
        Failure::local(format_args!(
            "input {spec} is too long to be made up; give --input FILE"
        ))
    })?;
    let mut data = Vec::new();
    for _ in 0..values {
        push(spec.element(), random, &mut data);
    }
    Tensor::new(spec.name(), spec.element(), shape, data).map_err(Failure::local)
}

/// Appends one value's little-endian bytes.
#[expect(
    clippy::cast_possible_truncation,
    reason = "a random float of fewer bits, and numbers below 256"
)]
fn push(element: ElementType, random: &mut Random, data: &mut Vec<u8>) {
    let bit = random.below(2) as u8;
    let whole = |bytes: usize, data: &mut Vec<u8>| {
        data.push(bit);
        data.resize(data.len() + bytes - 1, 0);
    };
    match element {
        ElementType::F16 => {
            data.extend(half::f16::from_f64(random.unit()).to_le_bytes());
        }
        ElementType::F32 => data.extend((random.unit() as f32).to_le_bytes()),
        ElementType::F64 => data.extend(random.unit().to_le_bytes()),
        ElementType::U8 | ElementType::I8 => data.push(random.below(256) as u8),
        ElementType::Bool => data.push(bit),
        ElementType::I16 | ElementType::U16 => whole(2, data),
        ElementType::I32 | ElementType::U32 => whole(4, data),
        ElementType::I64 | ElementType::U64 => whole(8, data),
        ElementType::String => {
            data.extend(1_u32.to_le_bytes());
            data.push(b'a');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_made_up_is_what_the_package_takes() {
        use ElementType::*;
        for element in [
            F16, F32, F64, U8, I8, U16, I16, U32, I32, U64, I64, Bool, String,
        ] {
            let shape = vec![None, Some(3), None];
            let spec = TensorSpec::new("x", element, shape).unwrap();
            let made = random(std::slice::from_ref(&spec), 5, &mut Random::new(1, 0)).unwrap();
            assert_eq!(made[0].shape(), [1, 3, 5]);
            spec.accepts(&made[0]).unwrap();
        }
    }

    #[test]
    fn what_is_too_long_is_left_to_the_person() {
        let spec = TensorSpec::new("x", ElementType::F32, vec![None, None]).unwrap();
        let refused = random(&[spec], VALUES_MAX + 1, &mut Random::new(1, 0)).unwrap_err();
        assert!(
            refused.message().contains("--input"),
            "{}",
            refused.message()
        );
    }
}
