//! What the gateway says when it does not answer: `{"error": {"code", "message", "retry"}}`.

use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// A refusal by the host. It never speaks of contents: the host has none.
#[derive(Debug)]
pub(crate) struct Refusal {
    status: StatusCode,
    code: &'static str,
    message: String,
    retry: Option<Duration>,
}

impl Refusal {
    /// A refusal that the same request will meet again.
    pub(crate) fn new(
        status: StatusCode,
        code: &'static str,
        message: impl Into<String>,
    ) -> Refusal {
        Refusal {
            status,
            code,
            message: message.into(),
            retry: None,
        }
    }

    /// The same request may succeed after this long.
    pub(crate) fn retry_after(mut self, wait: Duration) -> Refusal {
        self.retry = Some(wait);
        self
    }

    /// No worker can take the request now; a second is enough for a restart.
    pub(crate) fn unavailable(code: &'static str, message: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::SERVICE_UNAVAILABLE, code, message)
            .retry_after(Duration::from_secs(1))
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let retry_ms = self
            .retry
            .map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
        tracing::debug!(status = self.status.as_u16(), code = self.code, "refused");
        refuse(self.status, self.code, &self.message, retry_ms)
    }
}

/// Builds the refusal's response; `Retry-After` is in whole seconds, at least one (RFC 9110 §10.2.3).
pub(crate) fn refuse(
    status: StatusCode,
    code: &str,
    message: &str,
    retry_ms: Option<u64>,
) -> Response {
    let retry = match retry_ms {
        Some(after_ms) => json!({ "after_ms": after_ms }),
        None => json!("never"),
    };
    let body = json!({ "error": { "code": code, "message": message, "retry": retry } });
    let mut response = json_response(status, &body);
    if let Some(after_ms) = retry_ms {
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, after_ms.div_ceil(1000).max(1).into());
    }
    response
}

/// A JSON response.
pub(crate) fn json_response(status: StatusCode, body: &serde_json::Value) -> Response {
    let kind = HeaderValue::from_static("application/json");
    (status, [(header::CONTENT_TYPE, kind)], format!("{body}\n")).into_response()
}
