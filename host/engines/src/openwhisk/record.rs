//! What the platform's records and errors mean to the caller.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::StatusCode;
use serde_json::Value;

use crate::remote::{feedback_of, retry_of};
use crate::{Answer, Body, EngineError, Refusal};

/// Longest sentence of the platform that is passed on, in bytes.
const SENTENCE_BYTES_MAX: usize = 512;

/// Whether everything that is wanted stands in what is there, beside whatever else does.
pub(super) fn has_all(there: &Value, wanted: &Value) -> bool {
    match wanted.as_object() {
        Some(wanted) => wanted
            .iter()
            .all(|(name, value)| has_all(&there[name], value)),
        None => there == wanted,
    }
}

/// What an activation came to, from its record's `response`.
pub(super) fn ended(response: &Value, within: Duration) -> Result<Answer, EngineError> {
    let result = &response["result"];
    if response["success"] == true {
        let sealed = result["sealed"].as_str();
        let sealed = sealed.and_then(|text| STANDARD.decode(text).ok());
        let sealed = sealed.ok_or_else(|| broken("a result that is not sealed"))?;
        return Ok(Answer {
            feedback: feedback_of(&result["feedback"]),
            body: Body::Whole(sealed.into()),
        });
    }
    let error = &result["error"];
    let words = sentence(result);
    match (response["status"].as_str(), error["code"].as_str()) {
        // Of the worker, which says so of its runtime as an error of the action.
        (_, Some("timed-out")) => Err(EngineError::Timeout(within)),
        (Some("application error"), Some(code)) => {
            let retry = retry_of(error);
            let status = match (code, retry) {
                ("too-late", _) => StatusCode::GATEWAY_TIMEOUT,
                (_, Some(_)) => StatusCode::SERVICE_UNAVAILABLE,
                (_, None) => StatusCode::BAD_REQUEST,
            };
            Ok(Answer {
                feedback: None,
                body: Body::Refused(Refusal::passed_on(status, code, words, retry)),
            })
        }
        (Some("whisk internal error"), _) => Err(EngineError::Lost),
        _ if words.contains("exceeded its time limits") => Err(EngineError::Timeout(within)),
        _ => Err(broken(words)),
    }
}

/// What is said in an error, which is text or has a message.
pub(super) fn sentence(said: &Value) -> &str {
    let error = &said["error"];
    let words = error["message"].as_str().or(error.as_str());
    let words = words.unwrap_or("an error without a sentence");
    &words[..words.floor_char_boundary(SENTENCE_BYTES_MAX)]
}

pub(super) fn denied_or_lost(status: StatusCode, said: &Value) -> EngineError {
    match status {
        StatusCode::TOO_MANY_REQUESTS => EngineError::Full,
        StatusCode::SERVICE_UNAVAILABLE => EngineError::Cold,
        status if status.is_client_error() => {
            EngineError::Denied(format!("{} {}", status.as_u16(), sentence(said)))
        }
        // A 502 of the platform says of what; without a word it is of something in between.
        StatusCode::BAD_GATEWAY if !said["error"].is_null() => broken(sentence(said)),
        _ => EngineError::Lost,
    }
}

pub(super) fn broken(what: &str) -> EngineError {
    EngineError::Broken(format!(
        "the platform answered with {what}; its operator must look at the action"
    ))
}

/// Whether it can stand in a path as it is.
pub(super) fn is_plain(id: &str) -> bool {
    !id.is_empty() && id.len() <= 64 && id.bytes().all(|byte| byte.is_ascii_alphanumeric())
}
