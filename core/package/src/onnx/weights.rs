//! How many numbers a model's weights are, which says what they take in an engine that has other types.

use super::OnnxError;
use super::protobuf::{Fields, Value};

/// Numbers in the initializers of a model's graph, without those in graphs inside its nodes.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Weights {
    /// All of them.
    pub numbers: u64,
    /// Of these, those of 8 bits (i8, u8).
    pub bytes: u64,
}

impl Weights {
    /// Counts what the ONNX file `bytes` says of its initializers; that is not compared with their data.
    ///
    /// # Errors
    ///
    /// Bytes that are no ONNX model.
    pub fn count(bytes: &[u8]) -> Result<Self, OnnxError> {
        let mut weights = Self::default();
        for field in Fields::of(bytes) {
            // ModelProto: 7 graph
            let (7, Value::Bytes(graph)) = field? else {
                continue;
            };
            for field in Fields::of(graph) {
                // GraphProto: 5 initializer
                if let (5, Value::Bytes(tensor)) = field? {
                    weights.add(tensor)?;
                }
            }
        }
        Ok(weights)
    }

    /// `TensorProto`: 1 dims, 2 data_type (2 u8, 3 i8).
    fn add(&mut self, tensor: &[u8]) -> Result<(), OnnxError> {
        let (mut numbers, mut element) = (1_u64, 0);
        for field in Fields::of(tensor) {
            match field? {
                (1, Value::Varint(length)) => numbers = numbers.saturating_mul(length),
                (1, Value::Bytes(lengths)) => {
                    numbers = Fields::packed(lengths).fold(numbers, u64::saturating_mul);
                }
                (2, Value::Varint(code)) => element = code,
                _ => {}
            }
        }
        self.numbers = self.numbers.saturating_add(numbers);
        if matches!(element, 2 | 3) {
            self.bytes = self.bytes.saturating_add(numbers);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A field of bytes shorter than 128.
    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        [&[number << 3 | 2, bytes.len() as u8][..], bytes].concat()
    }

    #[test]
    fn numbers_are_counted_however_lengths_are_written() {
        let one_by_one = [1 << 3, 2, 1 << 3, 3, 2 << 3, 10];
        let packed = [&field(1, &[0x80, 1, 4])[..], &[2 << 3, 3]].concat();
        let scalar = [2 << 3, 1];
        let initializers = [&one_by_one[..], &packed, &scalar].map(|tensor| field(5, tensor));
        let model = field(7, &initializers.concat());
        let weights = Weights::count(&model).unwrap();
        let (numbers, bytes) = (6 + 128 * 4 + 1, 128 * 4);
        assert_eq!(weights, Weights { numbers, bytes });
    }

    #[test]
    fn lengths_that_multiply_beyond_64_bits_are_as_many_as_can_be() {
        let lengths = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, 3];
        let model = field(7, &field(5, &field(1, &lengths)));
        assert_eq!(Weights::count(&model).unwrap().numbers, u64::MAX);
        assert!(Weights::count(&[0xff]).is_err());
    }
}
