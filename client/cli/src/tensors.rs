//! Tensors as JSON: what people write in input files and golden pairs.
//!
//! ```json
//! {"inputs": {"bytes": {"element": "i32", "shape": [1, 4], "data": [35, 33, 47, 98]}}}
//! ```
//!
//! Always true: a number that its element type cannot hold exactly (300 as u8, 1.5 as i64) is an error,
//! never rounded; only f32 rounds, to the nearest. Not-a-number and infinities, which JSON cannot write,
//! are the strings "NaN", "Infinity" and "-Infinity".

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;

use bield_package::{GoldenPair, TOLERANCE_PPM};
use bield_sdk::{ElementType, Tensor};
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
    let element = element(&text.element)
        .ok_or_else(|| format!("{name}: element {:?} is none of {ELEMENTS}", text.element))?;
    let mut data = Vec::with_capacity(text.data.len() * element.size_bytes());
    for (at, value) in text.data.iter().enumerate() {
        push(element, value, &mut data)
            .ok_or_else(|| format!("{name}: value {at} is not one that {element} can hold"))?;
    }
    Tensor::new(name, element, text.shape, data).map_err(|error| error.to_string())
}

fn element(text: &str) -> Option<ElementType> {
    Some(match text {
        "f32" => ElementType::F32,
        "i32" => ElementType::I32,
        "i64" => ElementType::I64,
        "i8" => ElementType::I8,
        "u8" => ElementType::U8,
        "bool" => ElementType::Bool,
        _ => return None,
    })
}

/// Appends one value's little-endian bytes; `None` when the type cannot hold it.
fn push(element: ElementType, value: &Value, data: &mut Vec<u8>) -> Option<()> {
    match element {
        ElementType::F32 => data.extend(single(value)?.to_le_bytes()),
        ElementType::I64 => data.extend(value.as_i64()?.to_le_bytes()),
        ElementType::I32 => data.extend(i32::try_from(value.as_i64()?).ok()?.to_le_bytes()),
        ElementType::I8 => data.extend(i8::try_from(value.as_i64()?).ok()?.to_le_bytes()),
        ElementType::U8 => data.push(u8::try_from(value.as_u64()?).ok()?),
        ElementType::Bool => {
            let one = value.as_bool().or_else(|| match value.as_u64()? {
                0 => Some(false),
                1 => Some(true),
                _ => None,
            });
            data.push(u8::from(one?));
        }
    }
    Some(())
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "rounding to the nearest f32 is the promise"
)]
fn single(value: &Value) -> Option<f32> {
    match value {
        Value::String(text) if text == "NaN" => Some(f32::NAN),
        Value::String(text) if text == "Infinity" => Some(f32::INFINITY),
        Value::String(text) if text == "-Infinity" => Some(f32::NEG_INFINITY),
        value => Some(value.as_f64()? as f32).filter(|single| single.is_finite()),
    }
}

fn tensor_to_json(tensor: &Tensor) -> Value {
    let size = tensor.element().size_bytes();
    let data: Vec<Value> = tensor
        .data()
        .chunks_exact(size)
        .map(|bytes| number(tensor.element(), bytes))
        .collect();
    json!({ "element": tensor.element().to_string(), "shape": tensor.shape(), "data": data })
}

fn number(element: ElementType, bytes: &[u8]) -> Value {
    match (element, bytes) {
        (ElementType::F32, &[a, b, c, d]) => match f32::from_le_bytes([a, b, c, d]) {
            single if single.is_nan() => json!("NaN"),
            f32::INFINITY => json!("Infinity"),
            f32::NEG_INFINITY => json!("-Infinity"),
            single => json!(single),
        },
        (ElementType::I32, &[a, b, c, d]) => json!(i32::from_le_bytes([a, b, c, d])),
        (ElementType::I64, bytes) => {
            json!(bytes.try_into().map(i64::from_le_bytes).unwrap_or_default())
        }
        (ElementType::I8, &[byte]) => json!(byte.cast_signed()),
        (ElementType::Bool, &[byte]) => json!(byte == 1),
        (_, bytes) => json!(bytes.first()),
    }
}

const fn usual_tolerance() -> u32 {
    TOLERANCE_PPM
}

const ELEMENTS: &str = "f32, i32, i64, i8, u8, bool";
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
        assert!(one("f16", "[1]").unwrap_err().contains(ELEMENTS));
        assert!(
            golden(r#"{"inputs": {}}"#)
                .unwrap_err()
                .contains("expected")
        );
    }
}
