//! OpenAI's interface: models and embeddings.
//!
//! ```text
//! GET /v1/models, /v1/models/{model}       POST /v1/embeddings {model, input, encoding_format}
//! ```
//!
//! Always true: text becomes tokens in this process; what leaves it is a sealed call of the model, in batches
//! of at most [`ROWS_MAX`] inputs, whose receipts are all named in the answer's body, the first in its header. `dimensions` is taken
//! only when it is what the model gives anyway.
//!
//! Source: the API reference of OpenAI, and what its Python client sends (base64 of little-endian FP32 unless
//! told otherwise).

use std::fmt;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};
use serde_json::{Value, json};

use crate::front::{Front, Json, Reading};
use crate::oip::read;
use crate::refused::Refused;
use crate::text::{Pooling, ROW_TOKENS_MAX, Shape};
use crate::upstream::{About, Done, Upstream};

/// Largest request: as many inputs as may be, of some thousand characters each.
const BODY_BYTES_MAX: usize = 8 << 20;
/// Inputs of one request, as OpenAI bounds them.
const INPUTS_MAX: usize = 2048;
/// Inputs of one sealed call: as sentence-transformers cuts them, so that no call grows without end.
const ROWS_MAX: usize = 32;

/// A refusal in OpenAI's form.
pub(crate) struct Failed(pub(crate) Refused);

impl From<Refused> for Failed {
    fn from(refused: Refused) -> Self {
        Self(refused)
    }
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        let kind = match self.0.status.as_u16() {
            401 => "authentication_error",
            403 => "permission_error",
            404 => "not_found_error",
            429 => "rate_limit_error",
            status if status < 500 => "invalid_request_error",
            _ => "api_error",
        };
        let error = json!({
            "message": self.0.message, "type": kind, "param": null, "code": self.0.code,
        });
        let mut response = Json(json!({"error": error})).into_response();
        self.0.mark(&mut response);
        response
    }
}

type Answer = Result<Response, Failed>;
type Shared = State<Arc<Front>>;

/// The interface's paths.
pub(crate) fn router() -> Router<Arc<Front>> {
    Router::new()
        .route("/v1/models", get(models))
        .route("/v1/models/{model}", get(model))
        .route("/v1/embeddings", post(embeddings))
}

async fn models(State(front): Shared) -> Answer {
    let models = front.run(|upstream| {
        let each = upstream
            .names()
            .into_iter()
            .map(|name| upstream.about(&name));
        // One that cannot be verified now is not listed, and does not hide the others.
        Ok(each
            .flatten()
            .map(|about| object(&about))
            .collect::<Vec<_>>())
    });
    let value = json!({"object": "list", "data": models.await?});
    Ok((front.headers(&[]), Json(value)).into_response())
}

async fn model(State(front): Shared, Path(model): Path<String>) -> Answer {
    let about = front.run(move |upstream| upstream.about(&model)).await?;
    Ok((front.headers(&[]), Json(object(&about))).into_response())
}

fn object(about: &About) -> Value {
    // The key configuration says nothing of when a package was made.
    json!({
        "id": about.name, "object": "model", "created": 0, "owned_by": about.owner,
        "bield_package": about.package.to_string(), "bield_version": about.version,
    })
}

#[derive(serde::Deserialize)]
struct RequestText {
    model: String,
    input: Input,
    #[serde(default)]
    encoding_format: Encoding,
    #[serde(default)]
    dimensions: Option<usize>,
}

/// One text or several, or tokens of one or of several.
enum Input {
    Text(String),
    Texts(Vec<String>),
    Tokens(Vec<u32>),
    TokenLists(Vec<Vec<u32>>),
}

/// Reads without keeping anything but what it becomes, and no more than [`INPUTS_MAX`] and [`ROW_TOKENS_MAX`] of it.
struct Inputs;

/// What stands in the outer list.
enum Item {
    Text(String),
    Token(u32),
    Tokens(Vec<u32>),
}

impl<'de> Deserialize<'de> for Input {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        input.deserialize_any(Inputs)
    }
}

impl<'de> Visitor<'de> for Inputs {
    type Value = Input;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, texts, token ids or lists of them")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Input, E> {
        Ok(Input::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Input, A::Error> {
        let mut input = match items.next_element()? {
            None => Input::Texts(Vec::new()),
            Some(Item::Text(text)) => Input::Texts(vec![text]),
            Some(Item::Token(token)) => Input::Tokens(vec![token]),
            Some(Item::Tokens(tokens)) => Input::TokenLists(vec![tokens]),
        };
        while let Some(item) = items.next_element()? {
            match (&mut input, item) {
                (Input::Texts(texts), Item::Text(text)) if texts.len() < INPUTS_MAX => {
                    texts.push(text);
                }
                (Input::Tokens(tokens), Item::Token(token)) if tokens.len() < ROW_TOKENS_MAX => {
                    tokens.push(token);
                }
                (Input::TokenLists(lists), Item::Tokens(tokens)) if lists.len() < INPUTS_MAX => {
                    lists.push(tokens);
                }
                _ => return Err(A::Error::custom("mixed or too many")),
            }
        }
        Ok(input)
    }
}

impl<'de> Deserialize<'de> for Item {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct Items;
        impl<'de> Visitor<'de> for Items {
            type Value = Item;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text, a token id or a list of them")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Item, E> {
                Ok(Item::Text(text.to_owned()))
            }

            fn visit_u64<E: Error>(self, token: u64) -> Result<Item, E> {
                u32::try_from(token).map(Item::Token).map_err(E::custom)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut ids: A) -> Result<Item, A::Error> {
                let mut tokens = Vec::new();
                while let Some(token) = ids.next_element()? {
                    if tokens.len() == ROW_TOKENS_MAX {
                        return Err(A::Error::custom("too many"));
                    }
                    tokens.push(token);
                }
                Ok(Item::Tokens(tokens))
            }
        }
        input.deserialize_any(Items)
    }
}

#[derive(serde::Deserialize, Default, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum Encoding {
    #[default]
    Float,
    Base64,
}

async fn embeddings(State(front): Shared, headers: HeaderMap, body: Body) -> Answer {
    let held = read(&front, &headers, body, BODY_BYTES_MAX).await?;
    let own = front.clone();
    let embedded = front.run(move |upstream| {
        let held = held; // whole, so that it counts until the call ends
        let request: RequestText = serde_json::from_slice(&held.bytes).map_err(|_| {
            Refused::bad(format_args!(
                "the request is not JSON with model, input (a text, texts, token ids or lists of them; at most \
                 {INPUTS_MAX} inputs of {ROW_TOKENS_MAX} tokens), and perhaps encoding_format (float or base64) \
                 and dimensions",
            ))
        })?;
        let about = upstream.about(&request.model)?;
        let reading = own.readings.get(&request.model);
        let embedded = embed(upstream, &about, reading, request.input, request.dimensions)?;
        let value = written(&request.model, &embedded, request.encoding_format);
        Ok((value.to_string(), embedded.done))
    });
    let (json, done) = embedded.await?;
    let kind = [(header::CONTENT_TYPE, "application/json")];
    Ok((front.headers(&done), kind, json).into_response())
}

fn written(model: &str, embedded: &Embedded, encoding: Encoding) -> Value {
    let Embedded {
        vectors,
        tokens,
        done,
    } = embedded;
    let data = vectors.iter().enumerate().map(|(index, vector)| {
        let embedding = match encoding {
            Encoding::Float => json!(vector),
            Encoding::Base64 => {
                let bytes: Vec<u8> = vector
                    .iter()
                    .flat_map(|value| value.to_le_bytes())
                    .collect();
                STANDARD.encode(bytes).into()
            }
        };
        json!({"object": "embedding", "index": index, "embedding": embedding})
    });
    let receipts = done.iter().map(|done| done.receipt.to_string());
    json!({
        "object": "list", "data": data.collect::<Vec<_>>(), "model": model,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        "bield_receipts": receipts.collect::<Vec<_>>(),
    })
}

struct Embedded {
    vectors: Vec<Vec<f32>>,
    tokens: usize,
    /// The calls it took, without their outputs.
    done: Vec<Done>,
}

fn embed(
    upstream: &dyn Upstream,
    about: &About,
    reading: Option<&Reading>,
    input: Input,
    dimensions: Option<usize>,
) -> Result<Embedded, Refused> {
    let rows = tokens(about, reading, input)?;
    let shape = Shape::of(
        about,
        reading.map_or(Pooling::default(), |reading| reading.pooling),
    )?;
    let mut embedded = Embedded {
        vectors: vec![Vec::new(); rows.len()],
        tokens: rows.iter().map(Vec::len).sum(),
        done: Vec::new(),
    };
    for batch in shape.batches(&rows, ROWS_MAX) {
        let own: Vec<_> = batch.iter().map(|row| &rows[*row][..]).collect();
        let inputs = shape.inputs(&own)?;
        let mut done = upstream.call(about, inputs, vec![shape.output().to_owned()])?;
        let [output] = &done.tensors[..] else {
            let status = StatusCode::BAD_GATEWAY;
            return Err(Refused::new(
                status,
                "other-shape",
                "the model answered another output",
            ));
        };
        let vectors = shape.embeddings(output, &own)?;
        if let Some(dim) = vectors.first().map(Vec::len)
            && dimensions.is_some_and(|wanted| wanted != dim)
        {
            return Err(Refused::bad(format_args!(
                "model {} gives {dim} dimensions and no others; leave `dimensions` out",
                about.name
            )));
        }
        for (row, vector) in batch.into_iter().zip(vectors) {
            embedded.vectors[row] = vector;
        }
        done.tensors.clear();
        embedded.done.push(done);
    }
    Ok(embedded)
}

/// Token ids, one list an input.
fn tokens(
    about: &About,
    reading: Option<&Reading>,
    input: Input,
) -> Result<Vec<Vec<u32>>, Refused> {
    let text = |text: &String| {
        let reading = reading.and_then(|reading| reading.text.as_ref()).ok_or_else(|| {
            Refused::bad(format_args!(
                "this proxy has no tokenizer for {name}: start it with --tokenizer {name}=tokenizer.json, or \
                 send token ids",
                name = about.name
            ))
        })?;
        reading.tokens(text)
    };
    let rows = match input {
        Input::Text(one) => vec![text(&one)?],
        Input::Texts(texts) => texts.iter().map(text).collect::<Result<_, _>>()?,
        Input::Tokens(one) => vec![one],
        Input::TokenLists(lists) => lists,
    };
    if rows.is_empty() || rows.iter().any(Vec::is_empty) {
        return Err(Refused::bad("an input is empty"));
    }
    Ok(rows)
}
