//! A call and its answer in the protocol's REST form: JSON, and raw bytes after it.
//!
//! ```text
//! {"inputs": [{"name", "datatype", "shape", "data" │ "parameters": {"binary_data_size": n}}], "outputs": […]}
//! └ Inference-Header-Content-Length bytes ┘ n bytes of the first such input, then of the next, …
//! ```
//!
//! Always true: what is read has every input's elements exactly once, from the JSON or from the bytes
//! behind it, and no byte is left over. A parameter that would change what is computed and that nobody here
//! obeys (shared memory, classification, sequences) is refused, not ignored.
//!
//! On paper, per call: raw inputs are copied once out of the body, raw outputs once into the answer.

use axum::http::StatusCode;
use bield_protocol::inference::TENSORS_MAX;
use bield_sdk::{ElementType, Tensor};
use serde::de::{DeserializeSeed as _, Deserializer, Error as _, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;

use super::elements::{self, Elements};
use crate::refused::Refused;
use crate::upstream::{About, Done};

/// Most bytes of JSON, and of tensors that are written as JSON: text takes several times what elements do.
const JSON_BYTES_MAX: usize = 32 << 20;

/// Bytes of JSON before the raw ones.
pub(crate) const HEADER_LENGTH: &str = "inference-header-content-length";

/// A call as asked for.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) inputs: Vec<Tensor>,
    /// Empty for all.
    pub(crate) outputs: Vec<String>,
    pub(crate) form: Form,
}

/// How the answer is to be written.
#[derive(Debug, Default)]
pub(crate) struct Form {
    id: Option<String>,
    /// Outputs without a word of their own are raw.
    raw: bool,
    /// Outputs with one.
    by_name: Vec<(String, bool)>,
}

#[derive(Deserialize)]
struct RequestText<'a> {
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    parameters: Parameters,
    #[serde(borrow, deserialize_with = "few")]
    inputs: Vec<InputText<'a>>,
    #[serde(default, deserialize_with = "few")]
    outputs: Vec<OutputText>,
}

#[derive(Deserialize)]
struct InputText<'a> {
    name: String,
    #[serde(deserialize_with = "few")]
    shape: Vec<u64>,
    datatype: String,
    #[serde(default)]
    parameters: Parameters,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct OutputText {
    name: String,
    #[serde(default)]
    parameters: Parameters,
}

/// A list of at most [`TENSORS_MAX`], so that few bytes do not become many.
fn few<'de, T: Deserialize<'de>, D: Deserializer<'de>>(input: D) -> Result<Vec<T>, D::Error> {
    struct Few<T>(std::marker::PhantomData<T>);
    impl<'de, T: Deserialize<'de>> Visitor<'de> for Few<T> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an array")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Vec<T>, A::Error> {
            let mut few = Vec::new();
            while let Some(item) = items.next_element()? {
                if few.len() == TENSORS_MAX {
                    return Err(A::Error::custom(format_args!(
                        "more than {TENSORS_MAX} tensors or dimensions"
                    )));
                }
                few.push(item);
            }
            Ok(few)
        }
    }
    input.deserialize_seq(Few(std::marker::PhantomData))
}

/// Parameters that mean something here; others are hints, which the protocol lets a server ignore.
#[derive(Deserialize, Default)]
struct Parameters {
    binary_data_size: Option<u64>,
    binary_data: Option<bool>,
    binary_data_output: Option<bool>,
    shared_memory_region: Option<IgnoredAny>,
    classification: Option<u64>,
    sequence_id: Option<Sequence>,
}

/// Clients send 0 or nothing where no sequence is meant.
#[derive(Deserialize)]
#[serde(untagged)]
enum Sequence {
    Number(u64),
    Name(String),
}

impl Parameters {
    /// Refuses what nobody here obeys.
    fn obeyed(&self) -> Result<(), Refused> {
        let of_sequence = match &self.sequence_id {
            Some(Sequence::Number(number)) => *number != 0,
            Some(Sequence::Name(name)) => !name.is_empty(),
            None => false,
        };
        let what = match self {
            _ if of_sequence => "sequences are",
            Self {
                shared_memory_region: Some(_),
                ..
            } => "shared memory is",
            Self {
                classification: Some(count),
                ..
            } if *count > 0 => "classification is",
            _ => return Ok(()),
        };
        Err(Refused::bad(format_args!(
            "{what} not supported here; leave the parameter out"
        )))
    }
}

/// Reads a call from a body whose first `header` bytes are JSON; all of it when `None`.
///
/// # Errors
/// What is wrong with it; no contents are quoted.
pub(crate) fn read(body: &[u8], header: Option<usize>) -> Result<Asked, Refused> {
    let (json, mut raw) = body
        .split_at_checked(header.unwrap_or(body.len()))
        .ok_or_else(|| Refused::bad("Inference-Header-Content-Length is longer than the body"))?;
    if json.len() > JSON_BYTES_MAX {
        return Err(Refused::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "too-large",
            format_args!("JSON has at most {JSON_BYTES_MAX} bytes: send tensors as binary data"),
        ));
    }
    let request: RequestText<'_> = serde_json::from_slice(json).map_err(malformed)?;
    request.parameters.obeyed()?;
    let mut inputs = Vec::with_capacity(request.inputs.len());
    for input in request.inputs {
        inputs.push(input.read(&mut raw)?);
    }
    if !raw.is_empty() {
        return Err(Refused::bad(format_args!(
            "{} bytes follow the JSON and the inputs that announce binary_data_size",
            raw.len()
        )));
    }
    let mut form = Form {
        id: request.id,
        raw: request.parameters.binary_data_output.unwrap_or(false),
        by_name: Vec::new(),
    };
    let mut outputs = Vec::with_capacity(request.outputs.len());
    for output in request.outputs {
        output.parameters.obeyed()?;
        if let Some(raw) = output.parameters.binary_data {
            form.by_name.push((output.name.clone(), raw));
        }
        if outputs.contains(&output.name) {
            return Err(Refused::bad("an output is asked for twice"));
        }
        outputs.push(output.name);
    }
    Ok(Asked {
        inputs,
        outputs,
        form,
    })
}

impl InputText<'_> {
    fn read(self, raw: &mut &[u8]) -> Result<Tensor, Refused> {
        self.parameters.obeyed()?;
        let Some(element) = elements::element(&self.datatype) else {
            return Err(Refused::bad(
                "an input's datatype is none of BOOL, UINT8 to UINT64, INT8 to INT64, FP16, FP32, FP64, BYTES",
            ));
        };
        let data = match (self.parameters.binary_data_size, self.data) {
            (Some(size), None) => {
                let split = usize::try_from(size)
                    .ok()
                    .and_then(|size| raw.split_at_checked(size));
                let (own, rest) = split.ok_or_else(|| {
                    Refused::bad("an input's binary_data_size is more than what follows the JSON")
                })?;
                *raw = rest;
                own.to_vec()
            }
            (None, Some(json)) => {
                let mut data = Vec::new();
                let mut json = serde_json::Deserializer::from_str(json.get());
                Elements::of(element, &mut data)
                    .deserialize(&mut json)
                    .map_err(malformed)?;
                data
            }
            _ => {
                return Err(Refused::bad(
                    "an input needs either `data` or the parameter binary_data_size",
                ));
            }
        };
        Tensor::new(self.name, element, self.shape, data).map_err(Refused::bad)
    }
}

/// An answer's body; `header` bytes of it are JSON when raw bytes follow.
#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) body: Vec<u8>,
    pub(crate) header: Option<usize>,
}

#[derive(Serialize)]
struct ResponseText<'a> {
    model_name: &'a str,
    model_version: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    parameters: ResponseParameters,
    outputs: Vec<AnswerText<'a>>,
}

/// For clients that do not show headers.
#[derive(Serialize)]
struct ResponseParameters {
    bield_receipt: String,
}

#[derive(Serialize)]
struct AnswerText<'a> {
    name: &'a str,
    datatype: &'static str,
    shape: &'a [u64],
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<RawSize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Data<'a>>,
}

#[derive(Serialize)]
struct RawSize {
    binary_data_size: usize,
}

struct Data<'a>(&'a Tensor);

impl Serialize for Data<'_> {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        elements::write(self.0, out)
    }
}

impl Form {
    fn is_raw(&self, output: &str) -> bool {
        let own = self.by_name.iter().find(|(name, _)| name == output);
        own.map_or(self.raw, |(_, raw)| *raw)
    }

    /// Refuses before the call what could not be written after it.
    ///
    /// # Errors
    /// An output that has no JSON form is not asked for raw.
    pub(crate) fn fits(&self, about: &About, outputs: &[String]) -> Result<(), Refused> {
        let wanted = about
            .outputs
            .iter()
            .filter(|spec| outputs.is_empty() || outputs.iter().any(|name| name == spec.name()));
        let mut unwritten =
            wanted.filter(|spec| spec.element() == ElementType::F16 && !self.is_raw(spec.name()));
        match unwritten.next() {
            Some(spec) => Err(Refused::bad(format_args!(
                "output {} is FP16, which travels as raw bytes only: ask for it with the parameter binary_data",
                spec.name()
            ))),
            None => Ok(()),
        }
    }

    /// Writes an answer as it was asked for.
    ///
    /// # Errors
    /// An output that has no JSON form.
    pub(crate) fn write(&self, done: &Done) -> Result<Written, Refused> {
        let as_text = done
            .tensors
            .iter()
            .filter(|tensor| !self.is_raw(tensor.name()));
        if as_text.map(|tensor| tensor.data().len()).sum::<usize>() > JSON_BYTES_MAX {
            return Err(Refused::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "too-large",
                "the answer is too large for JSON: ask for outputs with the parameter binary_data",
            ));
        }
        let outputs = done.tensors.iter().map(|tensor| {
            let raw = self.is_raw(tensor.name());
            AnswerText {
                name: tensor.name(),
                datatype: elements::datatype(tensor.element()),
                shape: tensor.shape(),
                parameters: raw.then(|| RawSize {
                    binary_data_size: tensor.data().len(),
                }),
                data: (!raw).then_some(Data(tensor)),
            }
        });
        let text = ResponseText {
            model_name: &done.model,
            model_version: &done.version,
            id: self.id.as_deref(),
            parameters: ResponseParameters {
                bield_receipt: done.receipt.to_string(),
            },
            outputs: outputs.collect(),
        };
        let mut body = serde_json::to_vec(&text).map_err(Refused::bad)?;
        let json = body.len();
        let raw = done
            .tensors
            .iter()
            .filter(|tensor| self.is_raw(tensor.name()));
        let mut any = false;
        for tensor in raw {
            any = true;
            body.extend_from_slice(tensor.data());
        }
        Ok(Written {
            body,
            header: any.then_some(json),
        })
    }
}

/// Where JSON goes wrong; serde_json's messages name fields and kinds, and quote strings, so only the place
/// is told for those.
fn malformed(error: serde_json::Error) -> Refused {
    let (line, column) = (error.line(), error.column());
    let why = match error.classify() {
        serde_json::error::Category::Data => {
            let text = error.to_string();
            // "invalid type: string \"…\", expected …" quotes what was sent.
            match text.find("invalid ") {
                Some(0) => text.rfind(", expected ").map_or_else(
                    || "of another kind than expected".to_owned(),
                    |at| text[at + 2..].to_owned(),
                ),
                _ => text,
            }
        }
        _ => "not JSON".to_owned(),
    };
    Refused::bad(format_args!(
        "the request at line {line}, column {column}: {why}"
    ))
}
