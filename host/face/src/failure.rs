//! How a call to a runtime fails without an answer.

use std::time::Duration;

use axum::http::StatusCode;

use crate::Refusal;

/// Why a runtime did not answer.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Failure {
    /// It ended before the first of an answer came, or is being started.
    Lost,
    /// It did not answer within this long.
    TimedOut(Duration),
    /// What it answered is against the rules; the launcher's sentence.
    Broken(String),
    /// This process is stopping.
    Stopping,
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Lost => Self::unavailable(
                "runtime-lost",
                "the runtime ended and is being restarted; send the request again",
            ),
            Failure::TimedOut(wait) => Self::new(
                StatusCode::GATEWAY_TIMEOUT,
                "timed-out",
                format!(
                    "the runtime did not answer within {} ms; come back when it is less busy",
                    wait.as_millis()
                ),
            )
            .retry_after(Duration::from_secs(1)),
            Failure::Broken(why) => Self::new(StatusCode::BAD_GATEWAY, "bad-answer", why),
            Failure::Stopping => {
                Self::unavailable("stopping", "this host is stopping; try another one")
            }
        }
    }
}
