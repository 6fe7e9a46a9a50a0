//! Sealed requests and what a runtime answered to one, as a face passes it on.

use std::pin::pin;

use axum::body::{Body, Bytes};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use bield_envelope::{Digest, SealedRequest};
use bield_launcher::ANSWER_BYTES_MAX;
use bield_protocol::call::Reply;
use bield_protocol::feedback::Feedback;
use futures_util::{StreamExt as _, stream};

use crate::{Answer, Failure, Refusal, Rest};

/// Media type of sealed requests and answers.
pub const SEALED: HeaderValue = HeaderValue::from_static("application/vnd.bield.sealed");
/// Carries the runtime's unsealed feedback for the packer, as JSON.
pub const FEEDBACK: HeaderName = HeaderName::from_static("bield-feedback");

/// The package that a sealed request names.
///
/// # Errors
/// 400 `unsealed`.
pub fn package_of(sealed: &[u8]) -> Result<Digest, Refusal> {
    match SealedRequest::parse(sealed) {
        Ok(request) => Ok(request.header().package),
        Err(error) => Err(Refusal::new(
            StatusCode::BAD_REQUEST,
            "unsealed",
            format!(
                "this endpoint takes sealed requests only ({error}); use `bield call` or the SDK, which verify the \
                 key service and seal the request before it leaves your machine"
            ),
        )),
    }
}

/// The feedback as the header [`FEEDBACK`] carries it.
#[must_use]
pub fn feedback_header(feedback: &Feedback) -> HeaderValue {
    let json = serde_json::to_string(feedback).unwrap_or_default();
    HeaderValue::try_from(json).unwrap_or(HeaderValue::from_static("{}"))
}

/// What a runtime answered.
pub enum Outcome {
    /// Sealed for the sender, whole.
    Sealed(Feedback, Vec<u8>),
    /// Sealed for the sender, of which this is the first and more may come.
    InParts(Feedback, Vec<u8>, Option<Rest>),
    /// It could not open the request.
    Refused(Feedback, Refusal),
}

impl Outcome {
    /// Reads an answer.
    ///
    /// # Errors
    /// 502 `other-version`.
    pub fn of(answer: Answer) -> Result<Self, Refusal> {
        let Answer { first, rest } = answer;
        match (Reply::decode(&first), rest) {
            (Ok(Reply::Streamed(feedback, first)), rest) => {
                Ok(Self::InParts(feedback, first, rest))
            }
            // A whole answer is one message.
            (_, Some(_)) => Err(other_version()),
            (Ok(Reply::Sealed(feedback, answer)), None) => Ok(Self::Sealed(feedback, answer)),
            (Ok(Reply::Unsealed(feedback, refusal)), None) => {
                Ok(Self::Refused(feedback, Refusal::of_runtime(refusal)))
            }
            (Ok(_) | Err(_), None) => Err(other_version()),
        }
    }

    /// What the runtime says of this call beside the answer.
    #[must_use]
    pub const fn feedback(&self) -> &Feedback {
        let (Self::Sealed(feedback, _)
        | Self::InParts(feedback, _, _)
        | Self::Refused(feedback, _)) = self;
        feedback
    }

    /// The sealed answer in one piece, however it comes, of at most [`ANSWER_BYTES_MAX`] bytes.
    ///
    /// # Errors
    /// The runtime's refusal; an answer that broke off (503), or that is longer than any (502).
    pub async fn whole(self) -> Result<(Feedback, Vec<u8>), Refusal> {
        match self {
            Self::Sealed(feedback, answer) => Ok((feedback, answer)),
            Self::Refused(_, refusal) => Err(refusal),
            Self::InParts(feedback, mut answer, rest) => {
                let Some(rest) = rest else {
                    return Ok((feedback, answer));
                };
                let mut parts = pin!(rest.into_stream());
                while let Some(part) = parts.next().await {
                    let part = part.map_err(|_| Failure::Lost)?;
                    if answer.len() + part.len() > ANSWER_BYTES_MAX {
                        return Err(Failure::Broken(format!(
                            "the runtime answered more than {ANSWER_BYTES_MAX} bytes; report it to the operator"
                        ))
                        .into());
                    }
                    answer.extend_from_slice(&part);
                }
                Ok((feedback, answer))
            }
        }
    }

    /// The plain HTTP response: sealed bytes, as they come, or the refusal; the feedback beside either.
    #[must_use]
    pub fn into_response(self) -> Response {
        let beside = feedback_header(self.feedback());
        let mut response = match self {
            Self::Sealed(_, answer) => ([(header::CONTENT_TYPE, SEALED)], answer).into_response(),
            Self::InParts(_, first, rest) => {
                let first = stream::once(async { Ok(Bytes::from(first)) });
                let body = match rest {
                    Some(rest) => Body::from_stream(first.chain(rest.into_stream())),
                    None => Body::from_stream(first),
                };
                ([(header::CONTENT_TYPE, SEALED)], body).into_response()
            }
            Self::Refused(_, refusal) => axum::response::IntoResponse::into_response(refusal),
        };
        response.headers_mut().insert(FEEDBACK, beside);
        response
    }
}

fn other_version() -> Refusal {
    Refusal::new(
        StatusCode::BAD_GATEWAY,
        "other-version",
        "the runtime's answer is not one this program knows; the operator should run both from one release",
    )
}
