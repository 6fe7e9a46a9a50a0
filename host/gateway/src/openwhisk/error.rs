//! Errors as OpenWhisk says them, and the names it gives to requests.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use bield_face::{Refusal, json_response};
use serde_json::json;

/// `{"error": sentence, "code": name of the request}`.
#[derive(Debug)]
pub(super) struct WhiskError {
    status: StatusCode,
    message: String,
    retry: Option<Duration>,
}

impl WhiskError {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> WhiskError {
        WhiskError {
            status,
            message: message.into(),
            retry: None,
        }
    }

    /// 400, in the words of a body that does not fit.
    pub(super) fn malformed(why: &str) -> WhiskError {
        let message = format!("The request content was malformed:\n{why}");
        WhiskError::new(StatusCode::BAD_REQUEST, message)
    }

    pub(super) fn not_found() -> WhiskError {
        WhiskError::new(
            StatusCode::NOT_FOUND,
            "The requested resource does not exist.",
        )
    }
}

impl From<Refusal> for WhiskError {
    fn from(refusal: Refusal) -> WhiskError {
        WhiskError {
            status: refusal.status(),
            message: refusal.message().to_owned(),
            retry: refusal.retry(),
        }
    }
}

impl IntoResponse for WhiskError {
    fn into_response(self) -> Response {
        let body = json!({ "error": self.message, "code": name() });
        let mut response = json_response(self.status, &body);
        let headers = response.headers_mut();
        if self.status == StatusCode::UNAUTHORIZED {
            let basic = header::HeaderValue::from_static("Basic");
            headers.insert(header::WWW_AUTHENTICATE, basic);
        }
        if let Some(wait) = self.retry {
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            headers.insert(header::RETRY_AFTER, seconds.max(1).into());
        }
        response
    }
}

/// A name that no other request or activation of this process has: 32 hexadecimal digits, the form of OpenWhisk's ids. It is
/// no secret; what it names is shown to its namespace alone.
pub(super) fn name() -> String {
    static KEYS: LazyLock<[RandomState; 2]> =
        LazyLock::new(|| [RandomState::new(), RandomState::new()]);
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let [first, second] = KEYS.each_ref().map(|key| key.hash_one(number));
    format!("{first:016x}{second:016x}")
}
