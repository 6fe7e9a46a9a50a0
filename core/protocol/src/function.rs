//! What a caller asks of a function and what it gets: the plaintext inside sealed requests and responses.
//!
//! ```text
//! request   2 ‖ FunctionRequest                     (what models are asked begins with a map or with 1)
//! reply     as of a model: Reply, whose output is a FunctionOutput, encoded
//! ```
//!
//! Always true: a request says whether it is for a function or a model, under the seal; the receipt commits to the bytes
//! of the output, the state in it included. Layout: spec/10 §5.

use bield_envelope::{Wiped, wire};
use minicbor::{Decode, Encode};

use crate::inference::{Answer, BODY_BYTES_MAX};

/// Longest path of a request, in bytes.
pub const PATH_BYTES_MAX: usize = 2048;

/// Longest content type, in bytes.
pub const CONTENT_TYPE_BYTES_MAX: usize = 256;

/// Longest sentence with which a function refuses, in bytes.
pub const FAILURE_BYTES_MAX: usize = 4096;

/// Longest session token, in bytes: heads of 8192 writers.
pub const TOKEN_BYTES_MAX: usize = bield_receipt::STATE_HEADS_BYTES_MAX;

/// One call of a function.
#[derive(Encode, Decode)]
#[cbor(map)]
pub struct FunctionRequest {
    /// Which of the things that the function does; begins with `/`, at most [`PATH_BYTES_MAX`].
    #[n(0)]
    pub path: String,
    /// What the body is, at most [`CONTENT_TYPE_BYTES_MAX`]; empty when that is not said.
    #[n(1)]
    pub content_type: String,
    /// What the function is given.
    #[cbor(n(2), with = "body")]
    pub body: Wiped,
    /// The session token of the newest answer that the caller has, at most [`TOKEN_BYTES_MAX`]: the function's state
    /// must not be behind it.
    #[cbor(n(3), with = "minicbor::bytes")]
    pub seen: Option<Vec<u8>>,
}

impl FunctionRequest {
    /// Whether the limits of its parts hold and the path begins as a path does.
    #[must_use]
    pub fn is_well_formed(&self) -> bool {
        is_path(&self.path)
            && is_content_type(&self.content_type)
            && self
                .seen
                .as_ref()
                .is_none_or(|seen| seen.len() <= TOKEN_BYTES_MAX)
    }

    /// Encodes the request's body.
    #[must_use]
    pub fn encode(&self) -> Wiped {
        let request = wire::encode_wiped(self);
        let mut bytes = Wiped::with_capacity(1 + request.len());
        bytes.extend_from_slice(&[FUNCTION]);
        bytes.extend_from_slice(&request);
        bytes
    }

    /// Whether a request's body is one for a function, before it is decoded.
    #[must_use]
    pub fn is_one(bytes: &[u8]) -> bool {
        bytes.first() == Some(&FUNCTION)
    }

    /// Decodes a request's body.
    ///
    /// # Errors
    /// Malformed, not for a function, too long, or a part of it is.
    pub fn decode(bytes: &[u8]) -> Result<Self, wire::WireError> {
        let malformed = wire::WireError::Malformed {
            what: "function request",
        };
        let Some((&FUNCTION, rest)) = bytes.split_first() else {
            return Err(malformed);
        };
        let request: Self = wire::decode(rest, BODY_BYTES_MAX)?;
        request.is_well_formed().then_some(request).ok_or(malformed)
    }
}

/// Whether it could be the path of a request: `/`, then anything but control characters.
#[must_use]
pub fn is_path(text: &str) -> bool {
    text.starts_with('/') && text.len() <= PATH_BYTES_MAX && !text.contains(char::is_control)
}

/// Whether it could be a content type: printable ASCII, perhaps none.
#[must_use]
pub fn is_content_type(text: &str) -> bool {
    let printable = |byte| (b' '..=b'~').contains(&byte);
    text.len() <= CONTENT_TYPE_BYTES_MAX && text.bytes().all(printable)
}

/// What a function answered; what an output commitment in a receipt is made over, encoded.
#[derive(Encode, Decode)]
#[cbor(map)]
pub struct FunctionOutput {
    /// It succeeded; exactly one of this and [`failure`](Self::failure) is there.
    #[n(0)]
    pub response: Option<FunctionResponse>,
    /// It refused, in its own words.
    #[n(1)]
    pub failure: Option<FunctionFailure>,
    /// The session token of the state afterwards; none when the function has no state.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub state: Option<Vec<u8>>,
}

/// What a function gave.
#[derive(Encode, Decode)]
#[cbor(map)]
pub struct FunctionResponse {
    /// What the body is; empty when the function does not say.
    #[n(0)]
    pub content_type: String,
    /// What the caller is given.
    #[cbor(n(1), with = "body")]
    pub body: Wiped,
}

/// Why a function refused: its own doing, with a receipt like any answer. Its words are the caller's: no `Debug`.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct FunctionFailure {
    /// Which kind.
    #[n(0)]
    pub kind: FailureKind,
    /// The function's words, at most [`FAILURE_BYTES_MAX`].
    #[n(1)]
    pub message: String,
}

/// The kinds of refusals that a function has (`error` of `bield:function/types`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum FailureKind {
    /// The request makes no sense to it.
    #[n(0)]
    BadRequest,
    /// There is no such thing.
    #[n(1)]
    NotFound,
    /// Not for this caller.
    #[n(2)]
    Denied,
    /// Something else came first.
    #[n(3)]
    Conflict,
    /// It could not do it.
    #[n(4)]
    Failed,
}

impl FailureKind {
    /// Its stable name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::BadRequest => "bad-request",
            Self::NotFound => "not-found",
            Self::Denied => "denied",
            Self::Conflict => "conflict",
            Self::Failed => "failed",
        }
    }
}

impl FunctionOutput {
    /// A function's answer.
    #[must_use]
    pub const fn answered(response: FunctionResponse, state: Option<Vec<u8>>) -> Self {
        Self {
            response: Some(response),
            failure: None,
            state,
        }
    }

    /// A function's refusal.
    #[must_use]
    pub const fn failed(failure: FunctionFailure, state: Option<Vec<u8>>) -> Self {
        Self {
            response: None,
            failure: Some(failure),
            state,
        }
    }

    /// The bytes an output commitment covers.
    #[must_use]
    pub fn encode(&self) -> Wiped {
        wire::encode_wiped(self)
    }

    /// The output in an answer.
    ///
    /// # Errors
    /// Malformed or too long.
    pub fn of(answer: &Answer) -> Result<Self, wire::WireError> {
        Self::decode(&answer.output)
    }

    /// Decodes what [`encode`](Self::encode) made.
    ///
    /// # Errors
    /// Malformed or too long.
    pub fn decode(bytes: &[u8]) -> Result<Self, wire::WireError> {
        let output: Self = wire::decode(bytes, BODY_BYTES_MAX)?;
        let one = output.response.is_some() != output.failure.is_some();
        let fits = output
            .state
            .as_ref()
            .is_none_or(|state| state.len() <= TOKEN_BYTES_MAX)
            && output
                .response
                .as_ref()
                .is_none_or(|response| is_content_type(&response.content_type))
            && output
                .failure
                .as_ref()
                .is_none_or(|failure| failure.message.len() <= FAILURE_BYTES_MAX);
        (one && fits)
            .then_some(output)
            .ok_or(wire::WireError::Malformed {
                what: "function output",
            })
    }
}

/// A byte string that is wiped on drop.
mod body {
    use bield_envelope::Wiped;
    use minicbor::decode::{self, Decoder};
    use minicbor::encode::{self, Encoder, Write};

    pub(super) fn encode<C, W: Write>(
        body: &Wiped,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), encode::Error<W::Error>> {
        e.bytes(body)?.ok()
    }

    pub(super) fn decode<C>(d: &mut Decoder<'_>, _: &mut C) -> Result<Wiped, decode::Error> {
        Ok(d.bytes()?.to_vec().into())
    }
}

/// First byte of a request for a function.
const FUNCTION: u8 = 2;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parts::decode_request;

    fn request(path: &str, content_type: &str) -> FunctionRequest {
        FunctionRequest {
            path: path.to_owned(),
            content_type: content_type.to_owned(),
            body: b"body".to_vec().into(),
            seen: None,
        }
    }

    #[test]
    fn a_request_for_a_function_is_none_for_a_model() {
        let bytes = request("/add", "text/plain").encode();
        assert!(FunctionRequest::is_one(&bytes));
        assert!(decode_request(&bytes).is_err());
        let again = FunctionRequest::decode(&bytes).unwrap();
        assert_eq!((&*again.path, &again.body[..]), ("/add", &b"body"[..]));
        let model = crate::inference::Request {
            inputs: Vec::new(),
            outputs: Vec::new(),
        };
        for bytes in [&model.encode()[..], &bytes[1..], &[]] {
            assert!(!FunctionRequest::is_one(bytes));
            assert!(FunctionRequest::decode(bytes).is_err());
        }
    }

    #[test]
    fn a_path_begins_with_a_slash_and_nothing_hides_in_it() {
        let long = format!("/{}", "x".repeat(PATH_BYTES_MAX));
        for (path, content_type) in [
            ("", ""),
            ("add", ""),
            ("/a\nb", ""),
            (&*long, ""),
            ("/", "text/plain\r\nX: y"),
            ("/", "tëxt"),
            ("/", &"x".repeat(CONTENT_TYPE_BYTES_MAX + 1)),
        ] {
            let bytes = request(path, content_type).encode();
            assert!(
                FunctionRequest::decode(&bytes).is_err(),
                "{path:?} {content_type:?}"
            );
        }
        assert!(FunctionRequest::decode(&request("/ü?a=b#c", "").encode()).is_ok());
    }

    #[test]
    fn an_output_is_an_answer_or_a_refusal_and_never_both() {
        let response = || FunctionResponse {
            content_type: "text/plain".to_owned(),
            body: b"3".to_vec().into(),
        };
        let failure = |message: String| FunctionFailure {
            kind: FailureKind::Conflict,
            message,
        };
        let answered = FunctionOutput::answered(response(), Some(vec![0x80])).encode();
        let output = FunctionOutput::decode(&answered).unwrap();
        assert_eq!(&output.response.unwrap().body[..], b"3");
        assert_eq!(output.state, Some(vec![0x80]));
        let refused = FunctionOutput::failed(failure("sold out".to_owned()), None).encode();
        let output = FunctionOutput::decode(&refused).unwrap();
        assert!(output.failure == Some(failure("sold out".to_owned())));
        let both = FunctionOutput {
            response: Some(response()),
            failure: Some(failure(String::new())),
            state: None,
        };
        let neither = FunctionOutput {
            response: None,
            failure: None,
            state: None,
        };
        let long = FunctionOutput::failed(failure("x".repeat(FAILURE_BYTES_MAX + 1)), None);
        for output in [both, neither, long] {
            assert!(FunctionOutput::decode(&output.encode()).is_err());
        }
    }
}
