//! Elements of tensors between JSON and the little-endian bytes of a [`Tensor`].
//!
//! ```text
//! [[1, 2], [3, 4]] ─ seed with a datatype ─▶ 01 00 00 00 02 … (row-major, as the protocol flattens)
//! ```
//!
//! Always true: a number that its datatype cannot hold exactly (300 as UINT8, 1.5 as INT64) is an error and
//! never rounded; only FP32 and FP64 round, to the nearest. Not-a-number and infinities, which JSON cannot
//! write, are the strings "NaN", "Infinity" and "-Infinity" in both directions. FP16 travels raw only.
//!
//! On paper: each element goes from text to its bytes at once; no tree of values is built, so that reading
//! takes the body and the tensor, no more.

use std::fmt;

use bield_package::tensor::TENSOR_RANK_MAX;
use bield_sdk::{ElementType, Tensor};
use serde::de::{DeserializeSeed, Deserializer, Error, SeqAccess, Visitor};
use serde::ser::{SerializeSeq as _, Serializer};

/// The protocol's name of a datatype.
pub(crate) const fn datatype(element: ElementType) -> &'static str {
    match element {
        ElementType::Bool => "BOOL",
        ElementType::U8 => "UINT8",
        ElementType::U16 => "UINT16",
        ElementType::U32 => "UINT32",
        ElementType::U64 => "UINT64",
        ElementType::I8 => "INT8",
        ElementType::I16 => "INT16",
        ElementType::I32 => "INT32",
        ElementType::I64 => "INT64",
        ElementType::F16 => "FP16",
        ElementType::F32 => "FP32",
        ElementType::F64 => "FP64",
        ElementType::String => "BYTES",
    }
}

/// The datatype of this name; `None` for one that bield does not carry, such as BF16.
pub(crate) fn element(datatype: &str) -> Option<ElementType> {
    let named = |element: &ElementType| self::datatype(*element) == datatype;
    ElementType::ALL.into_iter().find(named)
}

/// Reads a JSON array, nested or flat, into bytes.
pub(crate) struct Elements<'a> {
    pub(crate) element: ElementType,
    pub(crate) into: &'a mut Vec<u8>,
    depth: usize,
}

impl<'a> Elements<'a> {
    pub(crate) const fn of(element: ElementType, into: &'a mut Vec<u8>) -> Self {
        Self {
            element,
            into,
            depth: 0,
        }
    }

    fn cannot_hold<T, E: Error>(&self) -> Result<T, E> {
        let datatype = datatype(self.element);
        Err(E::custom(format_args!(
            "a value is not one that {datatype} can hold"
        )))
    }

    fn whole<E: Error>(&mut self, value: i128) -> Result<(), E> {
        let into = &mut *self.into;
        macro_rules! exactly {
            ($type:ty) => {
                <$type>::try_from(value)
                    .map(|value| into.extend(value.to_le_bytes()))
                    .is_ok()
            };
        }
        let held = match self.element {
            ElementType::Bool => (0..=1).contains(&value) && exactly!(u8),
            ElementType::U8 => exactly!(u8),
            ElementType::U16 => exactly!(u16),
            ElementType::U32 => exactly!(u32),
            ElementType::U64 => exactly!(u64),
            ElementType::I8 => exactly!(i8),
            ElementType::I16 => exactly!(i16),
            ElementType::I32 => exactly!(i32),
            ElementType::I64 => exactly!(i64),
            #[expect(
                clippy::cast_precision_loss,
                reason = "rounding to the nearest is the promise"
            )]
            ElementType::F32 | ElementType::F64 => return self.real(value as f64),
            ElementType::F16 | ElementType::String => false,
        };
        if held { Ok(()) } else { self.cannot_hold() }
    }

    fn real<E: Error>(&mut self, value: f64) -> Result<(), E> {
        match self.element {
            ElementType::F64 => self.into.extend(value.to_le_bytes()),
            ElementType::F32 => {
                #[expect(
                    clippy::cast_possible_truncation,
                    reason = "rounding to the nearest is the promise"
                )]
                let single = value as f32;
                if single.is_infinite() && value.is_finite() {
                    return self.cannot_hold();
                }
                self.into.extend(single.to_le_bytes());
            }
            _ => return self.cannot_hold(),
        }
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Elements<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<(), D::Error> {
        if self.element == ElementType::F16 {
            return Err(D::Error::custom(
                "FP16 travels as raw bytes only: use the binary tensor data extension",
            ));
        }
        input.deserialize_seq(self)
    }
}

/// One element, or a nested array.
struct Element<'a, 'b>(&'b mut Elements<'a>);

impl<'de> DeserializeSeed<'de> for Element<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<(), D::Error> {
        input.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Elements<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an array of {}", datatype(self.element))
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut elements: A) -> Result<(), A::Error> {
        while elements.next_element_seed(Element(&mut self))?.is_some() {}
        Ok(())
    }
}

impl<'de> Visitor<'de> for Element<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} or an array of them", datatype(self.0.element))
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        if self.0.element != ElementType::Bool {
            return self.0.cannot_hold();
        }
        self.0.whole(i128::from(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.0.whole(i128::from(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.0.whole(i128::from(value))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        self.0.real(value)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        match (self.0.element, text) {
            (ElementType::String, text) => {
                let length = u32::try_from(text.len());
                let length = length.map_err(|_| E::custom("a string is too long"))?;
                self.0.into.extend(length.to_le_bytes());
                self.0.into.extend(text.as_bytes());
                Ok(())
            }
            (_, "NaN") => self.0.real(f64::NAN),
            (_, "Infinity") => self.0.real(f64::INFINITY),
            (_, "-Infinity") => self.0.real(f64::NEG_INFINITY),
            _ => self.0.cannot_hold(),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        if self.0.depth + 1 >= TENSOR_RANK_MAX {
            return Err(A::Error::custom(
                "arrays are nested deeper than a tensor can be",
            ));
        }
        self.0.depth += 1;
        while elements.next_element_seed(Element(self.0))?.is_some() {}
        self.0.depth -= 1;
        Ok(())
    }
}

/// Writes a tensor's elements as one flat JSON array.
///
/// # Errors
/// FP16, which has no JSON form; or the serializer's.
pub(crate) fn write<S: Serializer>(tensor: &Tensor, out: S) -> Result<S::Ok, S::Error> {
    use serde::ser::Error as _;

    if let Some(strings) = tensor.to_strings() {
        return out.collect_seq(strings);
    }
    let Some(size) = tensor.element().size_bytes() else {
        return Err(S::Error::custom("elements have no size"));
    };
    let elements = tensor.data().chunks_exact(size);
    let mut list = out.serialize_seq(Some(elements.len()))?;
    macro_rules! each {
        ($type:ty) => {
            for bytes in elements {
                let mut word = [0; size_of::<$type>()];
                word.copy_from_slice(bytes);
                list.serialize_element(&<$type>::from_le_bytes(word))?;
            }
        };
    }
    macro_rules! each_real {
        ($type:ty) => {
            for bytes in elements {
                let mut word = [0; size_of::<$type>()];
                word.copy_from_slice(bytes);
                match <$type>::from_le_bytes(word) {
                    value if value.is_nan() => list.serialize_element("NaN")?,
                    <$type>::INFINITY => list.serialize_element("Infinity")?,
                    <$type>::NEG_INFINITY => list.serialize_element("-Infinity")?,
                    value => list.serialize_element(&value)?,
                }
            }
        };
    }
    match tensor.element() {
        ElementType::Bool => {
            for byte in tensor.data() {
                list.serialize_element(&(*byte == 1))?;
            }
        }
        ElementType::U8 => each!(u8),
        ElementType::U16 => each!(u16),
        ElementType::U32 => each!(u32),
        ElementType::U64 => each!(u64),
        ElementType::I8 => each!(i8),
        ElementType::I16 => each!(i16),
        ElementType::I32 => each!(i32),
        ElementType::I64 => each!(i64),
        ElementType::F32 => each_real!(f32),
        ElementType::F64 => each_real!(f64),
        ElementType::F16 | ElementType::String => {
            return Err(S::Error::custom(
                "FP16 travels as raw bytes only: ask for this output with binary_data",
            ));
        }
    }
    list.end()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(element: ElementType, json: &str) -> Result<Vec<u8>, String> {
        let mut bytes = Vec::new();
        let mut input = serde_json::Deserializer::from_str(json);
        let read = Elements::of(element, &mut bytes).deserialize(&mut input);
        read.map(|()| bytes).map_err(|error| error.to_string())
    }

    fn written(tensor: &Tensor) -> String {
        let mut out = Vec::new();
        write(tensor, &mut serde_json::Serializer::new(&mut out)).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_datatype_but_fp16_comes_back_as_it_was_written() {
        for (name, count, json) in [
            ("BOOL", 2, "[true,false]"),
            ("UINT8", 2, "[0,255]"),
            ("UINT16", 2, "[0,65535]"),
            ("UINT32", 2, "[0,4294967295]"),
            ("UINT64", 2, "[0,18446744073709551615]"),
            ("INT8", 2, "[-128,127]"),
            ("INT16", 2, "[-32768,32767]"),
            ("INT32", 2, "[-2147483648,2147483647]"),
            ("INT64", 2, "[-9223372036854775808,9223372036854775807]"),
            ("FP32", 5, r#"[0.5,-1.0,"NaN","Infinity","-Infinity"]"#),
            ("FP64", 4, r#"[0.1,1e+300,"NaN","-Infinity"]"#),
            ("BYTES", 2, r#"["","zwölf \"12\""]"#),
        ] {
            let element = element(name).unwrap();
            assert_eq!(datatype(element), name);
            let data = read(element, json).unwrap();
            let tensor = Tensor::new("x", element, vec![count], data).unwrap();
            assert_eq!(written(&tensor), json, "{name}");
        }
        assert_eq!(element("BF16"), None);
    }

    #[test]
    fn nested_arrays_are_flattened_and_no_deeper_than_tensors() {
        let flat = read(ElementType::I8, "[1, 2, 3, 4]");
        assert_eq!(read(ElementType::I8, "[[1, 2], [3, 4]]"), flat);
        assert_eq!(read(ElementType::I8, "[[[[[[[[5]]]]]]]]"), Ok(vec![5]));
        let deep = "[".repeat(100_000);
        assert!(read(ElementType::I8, &deep).unwrap_err().contains("nested"));
    }

    #[test]
    fn what_a_datatype_cannot_hold_is_an_error_that_does_not_quote_it() {
        for (name, json) in [
            ("UINT8", "[256]"),
            ("UINT8", "[-1]"),
            ("INT8", "[128]"),
            ("INT64", "[1.5]"),
            ("INT64", "[9223372036854775808]"),
            ("UINT64", "[18446744073709551616]"),
            ("BOOL", "[2]"),
            ("FP32", "[1e300]"),
            ("FP32", "[true]"),
            ("FP32", r#"["4711"]"#),
            ("INT32", r#"["NaN"]"#),
            ("BYTES", "[4711]"),
            ("FP16", "[1.0]"),
        ] {
            let error = read(element(name).unwrap(), json).unwrap_err();
            assert!(
                !error.contains("4711") && !error.is_empty(),
                "{name}: {error}"
            );
        }
        assert!(read(ElementType::I8, "{}").is_err());
        assert!(read(ElementType::I8, "[null]").is_err());
    }
}
