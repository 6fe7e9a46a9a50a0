//! What a face says when it does not answer: `{"error": {"code", "message", "retry"}}`.

use std::borrow::Cow;
use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bield_protocol::call::Unsealed;
use serde_json::json;

/// Longest code and sentence of another program that is passed on, in bytes.
const CODE_BYTES_MAX: usize = 64;
const MESSAGE_BYTES_MAX: usize = 1024;

/// A refusal by the host, or one that a runtime makes in public. It never speaks of contents: the host has none.
#[derive(Debug, Clone)]
pub struct Refusal {
    status: StatusCode,
    code: Cow<'static, str>,
    message: String,
    retry: Option<Duration>,
}

impl Refusal {
    /// A refusal that the same request will meet again.
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code: code.into(),
            message: message.into(),
            retry: None,
        }
    }

    /// The same request may succeed after this long.
    #[must_use]
    pub const fn retry_after(mut self, wait: Duration) -> Self {
        self.retry = Some(wait);
        self
    }

    /// No worker can take the request now (503); a second is enough for a restart.
    pub fn unavailable(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, code, message)
            .retry_after(Duration::from_secs(1))
    }

    /// What a runtime says that could not open the request, so that it cannot seal either: come back (503), or seal it
    /// anew (400).
    #[must_use]
    pub fn of_runtime(unsealed: Unsealed) -> Self {
        let status = match unsealed.retry_after_ms {
            Some(_) => StatusCode::SERVICE_UNAVAILABLE,
            None => StatusCode::BAD_REQUEST,
        };
        Self {
            status,
            code: unsealed.code.into(),
            message: unsealed.message,
            retry: unsealed.retry_after_ms.map(Duration::from_millis),
        }
    }

    /// What another face said, in its words, of which too many are cut.
    #[must_use]
    pub fn passed_on(
        status: StatusCode,
        code: &str,
        message: &str,
        retry: Option<Duration>,
    ) -> Self {
        Self {
            status,
            code: first(code, CODE_BYTES_MAX).to_owned().into(),
            message: first(message, MESSAGE_BYTES_MAX).to_owned(),
            retry,
        }
    }

    /// The HTTP status.
    #[must_use]
    pub const fn status(&self) -> StatusCode {
        self.status
    }

    /// The short stable name.
    #[must_use]
    pub fn code(&self) -> &str {
        &self.code
    }

    /// The sentence.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// After how long the same request may succeed; `None` when it will not.
    #[must_use]
    pub const fn retry(&self) -> Option<Duration> {
        self.retry
    }

    /// Whether and when to come back: `{"after_ms": …}` or `"never"`.
    #[must_use]
    pub fn retry_json(&self) -> serde_json::Value {
        match self.retry_ms() {
            Some(after_ms) => json!({ "after_ms": after_ms }),
            None => json!("never"),
        }
    }

    /// The same in whole seconds, at least one, as `Retry-After` says it (RFC 9110 §10.2.3).
    #[must_use]
    pub fn retry_seconds(&self) -> Option<u64> {
        self.retry_ms().map(|ms| ms.div_ceil(1000).max(1))
    }

    fn retry_ms(&self) -> Option<u64> {
        let ms = |wait: Duration| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        self.retry.map(ms)
    }
}

/// The first of a text, at most so many bytes.
fn first(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        tracing::debug!(status = self.status.as_u16(), code = &*self.code, "refused");
        let body = json!({
            "error": { "code": self.code, "message": self.message, "retry": self.retry_json() },
        });
        let mut response = json_response(self.status, &body);
        if let Some(seconds) = self.retry_seconds() {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

/// A JSON response.
#[must_use]
pub fn json_response(status: StatusCode, body: &serde_json::Value) -> Response {
    let kind = HeaderValue::from_static("application/json");
    (status, [(header::CONTENT_TYPE, kind)], format!("{body}\n")).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runtime_that_says_come_back_is_unavailable_and_one_that_does_not_is_right() {
        for (retry_after_ms, status, seconds) in [
            (Some(1), StatusCode::SERVICE_UNAVAILABLE, Some("1")),
            (Some(1001), StatusCode::SERVICE_UNAVAILABLE, Some("2")),
            (None, StatusCode::BAD_REQUEST, None),
        ] {
            let response = Refusal::of_runtime(Unsealed {
                code: "busy".to_owned(),
                message: "as many are inside as fit".to_owned(),
                retry_after_ms,
            })
            .into_response();
            assert_eq!(response.status(), status);
            let said = response.headers().get(header::RETRY_AFTER);
            assert_eq!(said.map(|value| value.to_str().unwrap()), seconds);
        }
    }
}
