//! Tensors as JSON: what people write in input files and golden pairs.
//!
//! ```json
//! {"inputs": {"bytes": {"element": "i32", "shape": [1, 4], "data": [35, 33, 47, 98]}}}
//! ```
//!
//! Always true: a number that its element type cannot hold exactly (300 as u8, 1.5 as i64) is an error,
//! never rounded; only f16 and f32 round, to the nearest. Not-a-number and infinities, which JSON cannot write,
//! are the strings "NaN", "Infinity" and "-Infinity". Elements of type string are strings.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;

use bield_package::{GoldenPair, TOLERANCE_PPM};
use bield_sdk::{ElementType, Tensor};
use half::f16;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::failure::Failure;

/// An input file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct InputFile {
    inputs: BTreeMap<String, TensorText>,
    /// So that a golden pair's file can be called with; not sent.
    #[serde(default)]
    expected: Option<serde::de::IgnoredAny>,
    #[serde(default)]
    tolerance_ppm: Option<serde::de::IgnoredAny>,
}

/// A golden pair's file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GoldenFile {
    inputs: BTreeMap<String, TensorText>,
    expected: BTreeMap<String, TensorText>,
    #[serde(default = "usual_tolerance")]
    tolerance_ppm: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TensorText {
    element: String,
    shape: Vec<u64>,
    data: Vec<Value>,
}

/// Reads the inputs of a call from a file, or from standard input for `-`.
pub(crate) fn read_inputs(path: &Path) -> Result<Vec<Tensor>, Failure> {
    let text = if path == Path::new("-") {
        let mut text = String::new();
        std::io::stdin()
            .take(FILE_BYTES_MAX)
            .read_to_string(&mut text)
            .map(|_| text)
    } else {
        read_bounded(path)
    };
    let text = text.map_err(|error| Failure::local(format_args!("{}: {error}", path.display())))?;
    inputs(&text).map_err(|why| Failure::local(format_args!("{}: {why}", path.display())))
}

/// Reads a golden pair.
pub(crate) fn read_golden(path: &Path) -> Result<GoldenPair, Failure> {
    let text = read_bounded(path)
        .map_err(|error| Failure::local(format_args!("{}: {error}", path.display())))?;
    golden(&text).map_err(|why| Failure::local(format_args!("{}: {why}", path.display())))
}

/// Tensors in the same form.
pub(crate) fn to_json(tensors: &[Tensor]) -> Value {
    let named = tensors
        .iter()
        .map(|tensor| (tensor.name().to_owned(), tensor_to_json(tensor)));
    Value::Object(named.collect())
}

fn read_bounded(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(path)?
        .take(FILE_BYTES_MAX)
        .read_to_string(&mut text)?;
    Ok(text)
}

fn inputs(text: &str) -> Result<Vec<Tensor>, String> {
    let file: InputFile = parse(text)?;
    let _ = (file.expected, file.tolerance_ppm);
    tensors(file.inputs)
}

fn golden(text: &str) -> Result<GoldenPair, String> {
    let file: GoldenFile = parse(text)?;
    Ok(GoldenPair {
        inputs: tensors(file.inputs)?,
        outputs: tensors(file.expected)?,
        tolerance_ppm: file.tolerance_ppm,
    })
}

fn parse<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, String> {
    // serde_json names line and column but may quote a key; keys are names, values are not quoted.
    serde_json::from_str(text).map_err(|error| format!("{error}; see `bield call --help`"))
}

fn tensors(named: BTreeMap<String, TensorText>) -> Result<Vec<Tensor>, String> {
    named
        .into_iter()
        .map(|(name, text)| tensor(name, text))
        .collect()
}

fn tensor(name: String, text: TensorText) -> Result<Tensor, String> {
    let element: ElementType = text
        .element
        .parse()
        .map_err(|error| format!("{name}: {error}, not {:?}", text.element))?;
    let least = element.size_bytes().unwrap_or(size_of::<u32>());
    let mut data = Vec::with_capacity(text.data.len() * least);
    for (at, value) in text.data.iter().enumerate() {
        push(element, value, &mut data)
            .ok_or_else(|| format!("{name}: value {at} is not one that {element} can hold"))?;
    }
    Tensor::new(name, element, text.shape, data).map_err(|error| error.to_string())
}

/// Appends one value's little-endian bytes; `None` when the type cannot hold it.
fn push(element: ElementType, value: &Value, data: &mut Vec<u8>) -> Option<()> {
    let whole = || value.as_i64();
    let natural = || value.as_u64();
    match element {
        ElementType::F32 => data.extend(single(value)?.to_le_bytes()),
        ElementType::F16 => data.extend(half(value)?.to_le_bytes()),
        ElementType::F64 => data.extend(double(value)?.to_le_bytes()),
        ElementType::I8 => data.extend(i8::try_from(whole()?).ok()?.to_le_bytes()),
        ElementType::I16 => data.extend(i16::try_from(whole()?).ok()?.to_le_bytes()),
        ElementType::I32 => data.extend(i32::try_from(whole()?).ok()?.to_le_bytes()),
        ElementType::I64 => data.extend(whole()?.to_le_bytes()),
        ElementType::U8 => data.push(u8::try_from(natural()?).ok()?),
        ElementType::U16 => data.extend(u16::try_from(natural()?).ok()?.to_le_bytes()),
        ElementType::U32 => data.extend(u32::try_from(natural()?).ok()?.to_le_bytes()),
        ElementType::U64 => data.extend(natural()?.to_le_bytes()),
        ElementType::Bool => {
            let one = value.as_bool().or_else(|| match value.as_u64()? {
                0 => Some(false),
                1 => Some(true),
                _ => None,
            });
            data.push(u8::from(one?));
        }
        ElementType::String => {
            // Its length in bytes, then those.
            let text = value.as_str().filter(|text| !text.contains('\0'))?;
            data.extend(u32::try_from(text.len()).ok()?.to_le_bytes());
            data.extend(text.as_bytes());
        }
    }
    Some(())
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "rounding to the nearest f32 is the promise"
)]
fn single(value: &Value) -> Option<f32> {
    let single = double(value)? as f32;
    (single.is_finite() || value.is_string()).then_some(single)
}

fn half(value: &Value) -> Option<f16> {
    let half = f16::from_f64(double(value)?);
    (half.is_finite() || value.is_string()).then_some(half)
}

fn double(value: &Value) -> Option<f64> {
    match value {
        Value::String(text) if text == "NaN" => Some(f64::NAN),
        Value::String(text) if text == "Infinity" => Some(f64::INFINITY),
        Value::String(text) if text == "-Infinity" => Some(f64::NEG_INFINITY),
        value => value.as_f64(),
    }
}

fn tensor_to_json(tensor: &Tensor) -> Value {
    let data = values(tensor, usize::MAX);
    json!({ "element": tensor.element().to_string(), "shape": tensor.shape(), "data": data })
}

/// The first elements as JSON, `most` at most.
pub(crate) fn values(tensor: &Tensor, most: usize) -> Vec<Value> {
    if let Some(strings) = tensor.to_strings() {
        return strings
            .into_iter()
            .take(most)
            .map(|text| json!(text))
            .collect();
    }
    let size = tensor.element().size_bytes().unwrap_or(1);
    let elements = tensor.data().chunks_exact(size).take(most);
    elements
        .map(|bytes| number(tensor.element(), bytes))
        .collect()
}

/// One element, little-endian, as JSON.
fn number(element: ElementType, bytes: &[u8]) -> Value {
    match element {
        ElementType::F32 => real(f32::from_le_bytes(word(bytes)).into(), single_json),
        ElementType::F16 => real(f16::from_le_bytes(word(bytes)).into(), |half| json!(half)),
        ElementType::F64 => real(f64::from_le_bytes(word(bytes)), |double| json!(double)),
        ElementType::I8 => json!(i8::from_le_bytes(word(bytes))),
        ElementType::I16 => json!(i16::from_le_bytes(word(bytes))),
        ElementType::I32 => json!(i32::from_le_bytes(word(bytes))),
        ElementType::I64 => json!(i64::from_le_bytes(word(bytes))),
        ElementType::U8 => json!(u8::from_le_bytes(word(bytes))),
        ElementType::U16 => json!(u16::from_le_bytes(word(bytes))),
        ElementType::U32 => json!(u32::from_le_bytes(word(bytes))),
        ElementType::U64 => json!(u64::from_le_bytes(word(bytes))),
        ElementType::Bool => json!(word(bytes) == [1]),
        ElementType::String => json!(String::from_utf8_lossy(bytes)),
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "it was an f32, whose shortest digits are wanted"
)]
fn single_json(number: f64) -> Value {
    json!(number as f32)
}

fn real(number: f64, finite: impl Fn(f64) -> Value) -> Value {
    match number {
        number if number.is_nan() => json!("NaN"),
        f64::INFINITY => json!("Infinity"),
        f64::NEG_INFINITY => json!("-Infinity"),
        number => finite(number),
    }
}

/// The bytes of one element, whose number the caller took from its type.
fn word<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.try_into().unwrap_or([0; N])
}

const fn usual_tolerance() -> u32 {
    TOLERANCE_PPM
}

/// JSON takes up to ten times the bytes of the largest tensor one would write by hand or script.
const FILE_BYTES_MAX: u64 = 2 << 30;

#[cfg(test)]
mod tests {
    use super::*;

    fn one(element: &str, data: &str) -> Result<Vec<Tensor>, String> {
        let shape = serde_json::from_str::<Vec<Value>>(data).unwrap().len();
        inputs(&format!(
            r#"{{"inputs": {{"x": {{"element": "{element}", "shape": [{shape}], "data": {data}}}}}}}"#
        ))
    }

    #[test]
    fn every_element_type_comes_back_as_it_was_written() {
        for (element, data) in [
            ("f32", r#"[0.5, -1.0, "NaN", "Infinity", "-Infinity"]"#),
            ("i32", "[-2147483648, 2147483647]"),
            ("i64", "[-9223372036854775808, 9223372036854775807]"),
            ("i8", "[-128, 127]"),
            ("u8", "[0, 255]"),
            ("bool", "[true, false]"),
            ("f16", r#"[0.5, -65504.0, "NaN", "Infinity", "-Infinity"]"#),
            ("f64", r#"[0.1, 1e300, "NaN", "Infinity", "-Infinity"]"#),
            ("i16", "[-32768, 32767]"),
            ("u16", "[0, 65535]"),
            ("u32", "[0, 4294967295]"),
            ("u64", "[0, 18446744073709551615]"),
            ("string", r#"["", "NaN", "zwölf \"12\""]"#),
        ] {
            let tensors = one(element, data).unwrap();
            let written = to_json(&tensors);
            let expected: Value = serde_json::from_str(data).unwrap();
            assert_eq!(written["x"]["data"], expected, "{element}");
            assert_eq!(written["x"]["element"], element);
        }
    }

    #[test]
    fn a_value_that_its_type_cannot_hold_is_refused_by_place_not_by_value() {
        for (element, data) in [
            ("u8", "[0, 256]"),
            ("u8", "[0, -1]"),
            ("i8", "[0, 128]"),
            ("i32", "[0, 2147483648]"),
            ("i64", "[0, 1.5]"),
            ("bool", "[true, 2]"),
            ("f32", "[0, 1e300]"),
            ("f32", "[0, \"1\"]"),
            ("f16", "[0, 65520]"),
            ("i16", "[0, 32768]"),
            ("u16", "[0, -1]"),
            ("u32", "[0, 4294967296]"),
            ("u64", "[0, 0.5]"),
            ("string", "[\"\", 1]"),
            ("string", r#"["", "a\u0000b"]"#),
        ] {
            let refused = one(element, data).unwrap_err();
            assert!(refused.starts_with("x: value 1 "), "{refused}");
        }
    }

    #[test]
    fn a_golden_pair_reads_with_its_usual_tolerance() {
        let text = r#"{"inputs": {"x": {"element": "u8", "shape": [2], "data": [1, 2]}},
                       "expected": {"y": {"element": "f32", "shape": [1], "data": [0.5]}}}"#;
        let pair = golden(text).unwrap();
        assert_eq!(pair.tolerance_ppm, TOLERANCE_PPM);
        assert_eq!(pair.outputs[0].to_f32(), Some(vec![0.5]));
        assert_eq!(inputs(text).unwrap(), pair.inputs);
    }

    #[test]
    fn a_misspelt_key_a_wrong_count_and_an_unknown_type_are_errors() {
        let key = r#"{"inputs": {"x": {"element": "u8", "shapes": [2], "data": [1, 2]}}}"#;
        assert!(inputs(key).unwrap_err().contains("shapes"));
        let count = r#"{"inputs": {"x": {"element": "u8", "shape": [3], "data": [1, 2]}}}"#;
        assert!(inputs(count).unwrap_err().contains("2 bytes"));
        assert!(one("str", "[1]").unwrap_err().contains("u64, bool"));
        assert!(
            golden(r#"{"inputs": {}}"#)
                .unwrap_err()
                .contains("expected")
        );
    }
}
