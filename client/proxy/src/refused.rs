//! "No", once, for every face: an HTTP status, a stable short name, a sentence, and when to come again.
//!
//! ```text
//! CallError, ServiceError, bad requests ─▶ Refused ─▶ {"error": "…"} │ gRPC status │ OpenAI's error object
//! ```
//!
//! Always true: 4xx is the caller's move, 503 and 429 mean that trying again may help, 502 that something
//! beyond this proxy did not verify or misbehaved. No contents of requests stand in a sentence.

use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use bield_protocol::refusal::Retry;
use bield_sdk::{CallError, GatewayError, HomeError, Kind, ServiceError};

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Refused {
    pub(crate) status: StatusCode,
    /// Stable short name.
    pub(crate) code: String,
    /// What happened, whose move it is.
    pub(crate) message: String,
    pub(crate) retry_after: Option<Duration>,
}

impl Refused {
    pub(crate) fn new(status: StatusCode, code: &str, message: impl ToString) -> Self {
        Self {
            status,
            code: code.to_owned(),
            message: message.to_string(),
            retry_after: None,
        }
    }

    /// The request is not one that can be answered.
    pub(crate) fn bad(message: impl ToString) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-request", message)
    }

    /// Nothing of this name is here.
    pub(crate) fn unknown(message: impl ToString) -> Self {
        Self::new(StatusCode::NOT_FOUND, "unknown", message)
    }

    /// This proxy is at a limit.
    pub(crate) fn busy(message: impl ToString) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "proxy-busy", message)
            .after(Duration::from_secs(1))
    }

    pub(crate) const fn after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// Adds what every face says in headers: when to come again, and the short name.
    pub(crate) fn mark(&self, response: &mut Response) {
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        if let Some(wait) = self.retry_after {
            // RFC 9110 §10.2.3: whole seconds; never sooner than said.
            let secs = wait.as_millis().div_ceil(1000).max(1);
            if let Ok(value) = HeaderValue::try_from(secs.to_string()) {
                headers.insert(header::RETRY_AFTER, value);
            }
        }
        if let Ok(value) = HeaderValue::try_from(self.code.as_str()) {
            headers.insert("bield-refusal", value);
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
    }
}

impl From<CallError> for Refused {
    fn from(error: CallError) -> Self {
        let message = error.to_string();
        let of = |status, code: &str| Self::new(status, code, &message);
        match &error {
            CallError::Input(_) => of(StatusCode::BAD_REQUEST, "bad-input"),
            CallError::Seal(_) => of(StatusCode::PAYLOAD_TOO_LARGE, "not-sealed"),
            CallError::Refused(refusal) => match refusal.retry {
                Retry::After(millis) => of(StatusCode::SERVICE_UNAVAILABLE, &refusal.code)
                    .after(Duration::from_millis(millis)),
                Retry::Anew => {
                    of(StatusCode::SERVICE_UNAVAILABLE, &refusal.code).after(Duration::from_secs(1))
                }
                Retry::AfterChange if OPERATORS.contains(&&*refusal.code) => {
                    of(StatusCode::BAD_GATEWAY, &refusal.code)
                }
                Retry::AfterChange => of(StatusCode::FORBIDDEN, &refusal.code),
                _ => of(StatusCode::BAD_REQUEST, &refusal.code),
            },
            CallError::Gateway(error) => of_gateway(error, &message),
            CallError::Ended(_) => {
                of(StatusCode::SERVICE_UNAVAILABLE, "key-ended").after(Duration::from_secs(1))
            }
            // The receipt, the seal or the encoding does not hold: nothing is handed on.
            _ => of(StatusCode::BAD_GATEWAY, "not-verified"),
        }
    }
}

/// What the gateway said, which is only its word; statuses that mean something to clients pass.
fn of_gateway(error: &GatewayError, message: &str) -> Refused {
    let GatewayError::Refused {
        status,
        code,
        retry_after_ms,
        ..
    } = error
    else {
        return Refused::new(StatusCode::BAD_GATEWAY, "gateway-unreachable", message);
    };
    let passed = match status {
        413 | 429 | 503 | 504 => StatusCode::from_u16(*status).unwrap_or(StatusCode::BAD_GATEWAY),
        _ => StatusCode::BAD_GATEWAY,
    };
    let code = code
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || *c == '-')
        .take(CODE_CHARS_MAX)
        .collect::<String>();
    Refused {
        retry_after: retry_after_ms.map(|millis| Duration::from_millis(millis).min(RETRY_MAX)),
        ..Refused::new(passed, &code, message)
    }
}

impl From<ServiceError> for Refused {
    fn from(error: ServiceError) -> Self {
        let code = error.code().unwrap_or("key-service").to_owned();
        match error.kind() {
            Kind::Unreachable => Self::new(StatusCode::SERVICE_UNAVAILABLE, &code, error)
                .after(Duration::from_secs(1)),
            Kind::Refused => match error {
                ServiceError::Refused(_) => Self::new(StatusCode::FORBIDDEN, &code, error),
                error => Self::new(StatusCode::BAD_GATEWAY, "not-verified", error),
            },
            Kind::Local => Self::new(StatusCode::INTERNAL_SERVER_ERROR, "local", error),
        }
    }
}

impl From<HomeError> for Refused {
    fn from(error: HomeError) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "local", error)
    }
}

/// Refusals of a runtime that are its operator's move, not the caller's or the owner's.
const OPERATORS: [&str; 4] = [
    "package-missing",
    "package-unreadable",
    "package-foreign",
    "package-damaged",
];
/// The longest wait that a gateway can make this proxy ask for.
const RETRY_MAX: Duration = Duration::from_secs(60);
/// Characters of a gateway's short name that are passed on.
const CODE_CHARS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use bield_protocol::refusal::Refusal;

    use super::*;

    fn runtime_says(retry: Retry) -> Refused {
        CallError::Refused(Refusal::new("some-name", "because", retry)).into()
    }

    #[test]
    fn what_the_operator_has_to_mend_is_no_callers_fault() {
        let says = |code| {
            let refusal = Refusal::new(code, "because", Retry::AfterChange);
            Refused::from(CallError::Refused(refusal)).status
        };
        assert_eq!(says("package-damaged"), 502);
        assert_eq!(says("not-granted"), 403);
    }

    #[test]
    fn whose_move_it_is_shows_in_the_status() {
        assert_eq!(runtime_says(Retry::Never).status, 400);
        assert_eq!(runtime_says(Retry::AfterChange).status, 403);
        assert_eq!(runtime_says(Retry::Anew).status, 503);
        let later = runtime_says(Retry::After(1200));
        assert_eq!(
            (later.status.as_u16(), later.code.as_str()),
            (503, "some-name")
        );
        assert_eq!(later.retry_after, Some(Duration::from_millis(1200)));
    }

    #[test]
    fn a_gateways_status_passes_only_where_clients_act_on_it() {
        let says = |status| {
            let refused = GatewayError::Refused {
                status,
                code: "queue full\r\n".to_owned(),
                message: "later".to_owned(),
                retry_after_ms: Some(u64::MAX),
            };
            Refused::from(CallError::Gateway(refused))
        };
        assert_eq!(says(429).status, 429);
        assert_eq!(says(401).status, 502);
        assert_eq!(says(200).status, 502);
        assert_eq!(says(503).code, "queuefull");
        assert_eq!(says(503).retry_after, Some(RETRY_MAX));
    }

    #[test]
    fn retry_after_is_in_whole_seconds_and_never_sooner() {
        let mut response = Response::default();
        let refused = Refused::busy("full").after(Duration::from_millis(1001));
        refused.mark(&mut response);
        assert_eq!(response.headers()["retry-after"], "2");
        assert_eq!(response.headers()["bield-refusal"], "proxy-busy");
    }
}
