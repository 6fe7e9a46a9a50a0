//! The one tensor, as JSON or as bytes behind it.
//!
//! ```text
//! JSON:    {"inputs": [{"name": "sealed", "datatype": "BYTES", "shape": [1], "data": ["<base64>"]}]}
//! binary:  JSON of Inference-Header-Content-Length bytes ‖ u32 length, little-endian ‖ sealed bytes
//! ```
//!
//! A JSON string cannot hold any bytes, so there they are base64. The answer is binary when the request asks for that
//! (`binary_data` of the output, or `binary_data_output`), else JSON.

use std::borrow::Cow;

use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderName, StatusCode};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bield_face::Refusal;
use serde::Deserialize;
use serde_json::{Value, json};

/// The tensor's name, in and out.
pub(super) const NAME: &str = "sealed";
/// Length of the JSON before the binary tensors.
pub(super) const LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");

/// How the answer is wanted.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Asked {
    id: Option<String>,
    binary: bool,
}

#[derive(Deserialize)]
struct Request<'a> {
    id: Option<String>,
    #[serde(borrow)]
    inputs: Vec<Input<'a>>,
    #[serde(default)]
    outputs: Vec<Output>,
    #[serde(default)]
    parameters: Parameters,
}

#[derive(Deserialize)]
struct Input<'a> {
    name: String,
    datatype: String,
    shape: Vec<u64>,
    #[serde(default)]
    parameters: Parameters,
    #[serde(borrow, default)]
    data: Vec<Text<'a>>,
}

/// Borrowed from the body wherever nothing in it is escaped.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

#[derive(Deserialize)]
struct Output {
    name: String,
    #[serde(default)]
    parameters: Parameters,
}

#[derive(Default, Deserialize)]
struct Parameters {
    binary_data_size: Option<usize>,
    binary_data: Option<bool>,
    binary_data_output: Option<bool>,
}

/// The sealed request in the body, and how the answer is wanted.
pub(super) fn read(headers: &HeaderMap, body: &[u8]) -> Result<(Bytes, Asked), Refusal> {
    let length = match headers.get(LENGTH) {
        None => body.len(),
        Some(length) => {
            let length = length.to_str().ok().and_then(|text| text.parse().ok());
            length.ok_or_else(|| malformed("Inference-Header-Content-Length is not a number"))?
        }
    };
    let (json, binary) = body
        .split_at_checked(length)
        .ok_or_else(|| malformed("the body is shorter than Inference-Header-Content-Length"))?;
    let request: Request<'_> =
        serde_json::from_slice(json).map_err(|error| malformed(&error.to_string()))?;
    let [input] = &request.inputs[..] else {
        return Err(malformed("there is one input"));
    };
    if input.name != NAME || input.datatype != "BYTES" || input.shape != [1] {
        return Err(malformed(
            "the input is named `sealed`, of datatype BYTES and shape [1]",
        ));
    }
    if request.outputs.iter().any(|output| output.name != NAME) {
        return Err(malformed("the only output is named `sealed`"));
    }
    let sealed = match (input.parameters.binary_data_size, &input.data[..]) {
        (Some(size), []) if size == binary.len() => element(binary)?.to_vec(),
        (None, [Text(text)]) if binary.is_empty() => STANDARD
            .decode(&**text)
            .map_err(|_| malformed("`data` holds one string in base64"))?,
        _ => {
            return Err(malformed(
                "the input's bytes stand in `data` as one string in base64, or behind the JSON with their `binary_data_size`",
            ));
        }
    };
    let by_output = request
        .outputs
        .first()
        .and_then(|output| output.parameters.binary_data);
    let binary = by_output.or(request.parameters.binary_data_output);
    let asked = Asked {
        id: request.id,
        binary: binary.unwrap_or(false),
    };
    Ok((sealed.into(), asked))
}

/// The one element of a BYTES tensor.
fn element(tensor: &[u8]) -> Result<&[u8], Refusal> {
    let (length, bytes) = tensor
        .split_first_chunk()
        .ok_or_else(|| malformed("a BYTES element begins with its length in four bytes"))?;
    match u32::from_le_bytes(*length) as usize == bytes.len() {
        true => Ok(bytes),
        false => Err(malformed("the tensor is one element of the length it says")),
    }
}

/// The answer's JSON, and the bytes behind it if the answer is wanted that way.
pub(super) fn write(model: &str, asked: &Asked, sealed: Vec<u8>) -> (Value, Vec<u8>) {
    let mut output = json!({ "name": NAME, "datatype": "BYTES", "shape": [1] });
    let mut binary = Vec::new();
    if asked.binary {
        output["parameters"] = json!({ "binary_data_size": 4 + sealed.len() });
        // No sealed answer is near 4 GiB.
        let length = u32::try_from(sealed.len()).unwrap_or(u32::MAX);
        binary.reserve_exact(4 + sealed.len());
        binary.extend(length.to_le_bytes());
        binary.extend(sealed);
    } else {
        output["data"] = json!([STANDARD.encode(sealed)]);
    }
    let mut body = json!({ "model_name": model, "outputs": [output] });
    if let Some(id) = &asked.id {
        body["id"] = json!(id);
    }
    (body, binary)
}

fn malformed(why: &str) -> Refusal {
    Refusal::new(
        StatusCode::BAD_REQUEST,
        "malformed",
        format!("not an inference request this server takes: {why}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asks(json: &Value, behind: &[u8]) -> Result<(Bytes, Asked), Refusal> {
        let mut body = json.to_string().into_bytes();
        let mut headers = HeaderMap::new();
        headers.insert(LENGTH, body.len().into());
        body.extend(behind);
        read(&headers, &body)
    }

    fn input(more: &Value) -> Value {
        let mut input = json!({ "name": "sealed", "datatype": "BYTES", "shape": [1] });
        for (name, value) in more.as_object().unwrap() {
            input[name] = value.clone();
        }
        json!({ "id": "7", "inputs": [input] })
    }

    #[test]
    fn what_is_written_behind_the_json_is_read_and_so_is_base64() {
        let json = input(&json!({ "parameters": { "binary_data_size": 7 } }));
        let (sealed, asked) = asks(&json, b"\x03\0\0\0abc").unwrap();
        assert_eq!(&sealed[..], b"abc");
        assert!(!asked.binary);
        let (sealed, _) = asks(&input(&json!({ "data": ["YWJj"] })), b"").unwrap();
        assert_eq!(&sealed[..], b"abc");

        let (json, behind) = write("m", &asked, b"abc".to_vec());
        assert_eq!((&json["id"], behind.len()), (&json!("7"), 0));
        assert_eq!(json["outputs"][0]["data"][0], "YWJj");
        let binary = Asked {
            id: None,
            binary: true,
        };
        let (json, behind) = write("m", &binary, b"abc".to_vec());
        assert_eq!(behind, b"\x03\0\0\0abc");
        assert_eq!(json["outputs"][0]["parameters"]["binary_data_size"], 7);
    }

    #[test]
    fn the_answer_comes_as_it_is_asked_for() {
        for (field, asked_for) in [
            (
                json!({ "outputs": [{ "name": "sealed", "parameters": { "binary_data": true } }] }),
                true,
            ),
            (
                json!({ "parameters": { "binary_data_output": true } }),
                true,
            ),
            (
                json!({ "outputs": [{ "name": "sealed", "parameters": { "binary_data": false } }], "parameters": { "binary_data_output": true } }),
                false,
            ),
        ] {
            let mut json = input(&json!({ "data": ["YWJj"] }));
            for (name, value) in field.as_object().unwrap() {
                json[name] = value.clone();
            }
            assert_eq!(asks(&json, b"").unwrap().1.binary, asked_for, "{json}");
        }
    }

    #[test]
    fn lengths_that_do_not_agree_and_other_tensors_are_refused() {
        let sized = |size: u64| input(&json!({ "parameters": { "binary_data_size": size } }));
        for (json, behind) in [
            (sized(8), &b"\x03\0\0\0abc"[..]),
            (sized(7), b"\x04\0\0\0abc"),
            (sized(7), b"\xff\xff\xff\xffabc"),
            (sized(2), b"ab"),
            (sized(u64::MAX), b"\x03\0\0\0abc"),
            (input(&json!({ "data": ["YWJj"] })), b"more"),
            (input(&json!({ "data": ["YWJj", "YWJj"] })), b""),
            (input(&json!({ "data": ["not base64"] })), b""),
            (input(&json!({ "data": ["YWJj"], "name": "input" })), b""),
            (input(&json!({ "data": ["YWJj"], "shape": [1, 1] })), b""),
            (input(&json!({ "data": ["YWJj"], "datatype": "FP32" })), b""),
            (input(&json!({})), b""),
            (json!({ "inputs": [] }), b""),
            (json!({}), b""),
        ] {
            assert!(asks(&json, behind).is_err(), "{json}");
        }
        let mut headers = HeaderMap::new();
        headers.insert(LENGTH, 100.into());
        assert!(read(&headers, b"{}").is_err());
    }
}
