//! The untrusted HTTP face: what goes there is sealed, what it says of itself is only its word.
//!
//! In: sealed requests, sealed packages. Out: sealed answers, or a typed refusal whose text was made
//! safe to print. Every answer is bounded in bytes, every wait in time.

use std::io::{self, Read};
use std::time::Duration;

use bield_envelope::{Digest, SEALED_REQUEST_BYTES_MAX};
use ureq::http::{HeaderMap, Response};
use ureq::{Agent, Body, BodyReader, SendBody};

use crate::GatewayError;

/// One gateway; connections are kept open between exchanges.
pub struct Gateway {
    url: String,
    agent: Agent,
}

/// What became of an upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    /// It was sent.
    Uploaded,
    /// It was there already, in full length.
    AlreadyThere,
}

/// A sealed answer and what came beside it in the clear.
pub(crate) struct Sealed {
    pub(crate) answer: Vec<u8>,
    pub(crate) feedback: Option<serde_json::Value>,
}

/// A sealed answer that is on its way.
pub(crate) struct Coming {
    pub(crate) feedback: Option<serde_json::Value>,
    body: BodyReader<'static>,
    gateway: String,
}

impl Coming {
    /// The next bytes of it; none at its end.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> Result<usize, GatewayError> {
        loop {
            match self.body.read(buffer) {
                Ok(count) => return Ok(count),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    return Err(GatewayError::Unreachable {
                        gateway: self.gateway.clone(),
                        error: Box::new(error.into()),
                    });
                }
            }
        }
    }
}

impl Gateway {
    /// The gateway at `url`, such as `http://127.0.0.1:8790`; nothing is sent yet.
    #[must_use]
    pub fn new(url: &str) -> Self {
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_connect(Some(CONNECT_WAIT))
            .timeout_per_write(Some(SILENCE_WAIT))
            .timeout_recv_response(Some(ANSWER_WAIT))
            .timeout_per_read(Some(ANSWER_WAIT));
        if is_loopback(url) {
            config = config.proxy(None); // a proxy cannot reach this machine's loopback
        }
        Self {
            url: url.trim_end_matches('/').to_owned(),
            agent: config.build().new_agent(),
        }
    }

    /// Its URL.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// What it says of itself, as JSON.
    ///
    /// # Errors
    /// Nobody there, or a refusal.
    pub fn status(&self) -> Result<serde_json::Value, GatewayError> {
        let answer = self.agent.get(format!("{}/v1/status", self.url)).call();
        let body = self.accept(answer, STATUS_BYTES_MAX)?.1;
        json(&body, "status")
    }

    /// Why it sent the request of this number where it did, as JSON: its own word. An answer's feedback has the number as
    /// `request`.
    ///
    /// # Errors
    /// Nobody there, or a refusal: it remembers the last few thousand only.
    pub fn why(&self, request: u64) -> Result<serde_json::Value, GatewayError> {
        let answer = self.agent.get(format!("{}/v1/why/{request}", self.url));
        let body = self.accept(answer.call(), STATUS_BYTES_MAX)?.1;
        json(&body, "explanation")
    }

    /// Whether it would take a call now.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let answer = self.agent.get(format!("{}/readyz", self.url)).call();
        answer.is_ok_and(|answer| answer.status().is_success())
    }

    /// Uploads the package `digest` of `bytes` bytes from `source`, unless it is there already.
    ///
    /// `progress` receives bytes sent and bytes in total.
    ///
    /// # Errors
    /// Nobody there, a refusal, or `source` fails.
    pub fn put_package(
        &self,
        digest: Digest,
        source: &mut impl Read,
        bytes: u64,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Stored, GatewayError> {
        if self.has_package(digest, bytes)? {
            return Ok(Stored::AlreadyThere);
        }
        let mut counted = Counted {
            source,
            done: 0,
            bytes,
            progress,
            failed: None,
        };
        let answer = self
            .agent
            .put(self.package_url(digest))
            .header("content-type", "application/vnd.bield.package")
            .header("content-length", bytes.to_string())
            .send(SendBody::from_reader(&mut counted));
        if let Some(error) = counted.failed {
            return Err(GatewayError::Read(error));
        }
        self.accept(answer, REFUSAL_BYTES_MAX)
            .map(|_| Stored::Uploaded)
    }

    /// Whether the package is there in full length.
    ///
    /// # Errors
    /// Nobody there, or a refusal other than "not here".
    pub fn has_package(&self, digest: Digest, bytes: u64) -> Result<bool, GatewayError> {
        let answer = self.agent.head(self.package_url(digest)).call();
        let answer = answer.map_err(|error| self.unreachable(error))?;
        let length = answer
            .headers()
            .get("content-length")
            .and_then(|value| value.to_str().ok());
        Ok(answer.status().as_u16() == 200
            && length.and_then(|text| text.parse().ok()) == Some(bytes))
    }

    /// Sends a sealed request and returns what came back.
    pub(crate) fn call(&self, sealed: &[u8]) -> Result<Sealed, GatewayError> {
        let answer = self
            .agent
            .post(format!("{}/v1/call", self.url))
            .header("content-type", SEALED)
            .header("accept", SEALED)
            .config()
            .timeout_recv_body(Some(WHOLE_ANSWER_WAIT))
            .build()
            .send(sealed);
        let (headers, answer) = self.accept(answer, ANSWER_BYTES_MAX)?;
        Ok(Sealed {
            answer,
            feedback: feedback(&headers),
        })
    }

    /// Sends a sealed request; the answer is read as it comes.
    pub(crate) fn call_in_parts(&self, sealed: &[u8]) -> Result<Coming, GatewayError> {
        let answer = self
            .agent
            .post(format!("{}/v1/call", self.url))
            .header("content-type", SEALED)
            .header("accept", SEALED)
            .send(sealed);
        match answer {
            Ok(answer) if answer.status().is_success() => {
                let (head, body) = answer.into_parts();
                Ok(Coming {
                    feedback: feedback(&head.headers),
                    body: body.into_with_config().limit(ANSWER_BYTES_MAX).reader(),
                    gateway: self.url.clone(),
                })
            }
            refused => Err(self
                .accept(refused, REFUSAL_BYTES_MAX)
                .err()
                .unwrap_or_else(|| refusal(0, &HeaderMap::new(), &[]))),
        }
    }

    fn package_url(&self, digest: Digest) -> String {
        format!("{}/v1/packages/{digest}", self.url)
    }

    fn unreachable(&self, error: ureq::Error) -> GatewayError {
        GatewayError::Unreachable {
            gateway: self.url.clone(),
            error: Box::new(error),
        }
    }

    /// Reads a bounded body; anything but success is a refusal.
    fn accept(
        &self,
        answer: Result<Response<Body>, ureq::Error>,
        bytes_max: u64,
    ) -> Result<(HeaderMap, Vec<u8>), GatewayError> {
        let (head, mut body) = answer
            .map_err(|error| self.unreachable(error))?
            .into_parts();
        let bytes_max = if head.status.is_success() {
            bytes_max
        } else {
            REFUSAL_BYTES_MAX
        };
        let bytes = body.with_config().limit(bytes_max).read_to_vec();
        if !head.status.is_success() {
            // A refusal without a readable reason is still a refusal.
            let status = head.status.as_u16();
            return Err(refusal(status, &head.headers, &bytes.unwrap_or_default()));
        }
        Ok((
            head.headers,
            bytes.map_err(|error| self.unreachable(error))?,
        ))
    }
}

/// What the host says of a call beside its answer, with the number it gave it as `request`.
fn feedback(headers: &HeaderMap) -> Option<serde_json::Value> {
    let feedback = headers.get(FEEDBACK)?.as_bytes();
    let mut feedback: serde_json::Value = serde_json::from_slice(feedback).ok()?;
    let request = headers.get(REQUEST).and_then(|value| value.to_str().ok());
    if let (Some(request), true) = (
        request.and_then(|text| text.parse::<u64>().ok()),
        feedback.is_object(),
    ) {
        feedback["request"] = request.into();
    }
    Some(feedback)
}

fn json(body: &[u8], what: &str) -> Result<serde_json::Value, GatewayError> {
    serde_json::from_slice(body).map_err(|_| GatewayError::Refused {
        status: 200,
        code: "other-protocol".to_owned(),
        message: format!("the {what} is not JSON; is this a bield gateway?"),
        retry_after_ms: None,
    })
}

/// Reads `{"error": {"code", "message", "retry"}}`; whatever is missing is made up for.
fn refusal(status: u16, headers: &HeaderMap, body: &[u8]) -> GatewayError {
    let body: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let error = &body["error"];
    let text = |key: &str, otherwise: &str| {
        let text = error[key].as_str().unwrap_or(otherwise);
        text.chars()
            .filter(|c| !c.is_control())
            .take(TEXT_CHARS_MAX)
            .collect::<String>()
    };
    let header = headers
        .get("retry-after")
        .and_then(|value| value.to_str().ok()?.parse().ok());
    GatewayError::Refused {
        status,
        code: text("code", "unexplained"),
        message: text("message", "no reason was given; is this a bield gateway?"),
        retry_after_ms: error["retry"]["after_ms"]
            .as_u64()
            .or(header.map(|secs: u64| secs.saturating_mul(1000))),
    }
}

pub(crate) fn is_loopback(url: &str) -> bool {
    let authority = url
        .strip_prefix("http://")
        .unwrap_or(url)
        .split('/')
        .next()
        .unwrap_or_default();
    let host = authority
        .rsplit_once(':')
        .map_or(authority, |(host, _)| host);
    host == "localhost"
        || host
            .trim_matches(['[', ']'])
            .parse()
            .is_ok_and(|address: std::net::IpAddr| address.is_loopback())
}

/// Counts what is read, ends where announced, and keeps the reader's own error apart from the network's.
struct Counted<'a, R> {
    source: &'a mut R,
    done: u64,
    bytes: u64,
    progress: &'a mut dyn FnMut(u64, u64),
    failed: Option<io::Error>,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.bytes - self.done).unwrap_or(usize::MAX);
        let most = buffer.len().min(left);
        let read = match self.source.read(&mut buffer[..most]) {
            Ok(0) if most > 0 => Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
            read => read,
        };
        match read {
            Ok(count) => {
                self.done += count as u64;
                (self.progress)(self.done, self.bytes);
                Ok(count)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            Err(error) => {
                let shown = io::Error::new(error.kind(), "the file to send");
                self.failed = Some(error);
                Err(shown)
            }
        }
    }
}

const SEALED: &str = "application/vnd.bield.sealed";
const FEEDBACK: &str = "bield-feedback";
const REQUEST: &str = "bield-request";
const CONNECT_WAIT: Duration = Duration::from_secs(10);
/// Longest standstill while sending.
const SILENCE_WAIT: Duration = Duration::from_secs(30);
/// Longest wait for an answer: a gateway gives a call 120 s after up to 10 s in its queue.
const ANSWER_WAIT: Duration = Duration::from_secs(150);
/// A sealed answer is a little longer than its plaintext, which is bounded like a request's.
/// Longest time for the whole body of an answer, however steadily it comes: the largest at 1 MiB a second.
const WHOLE_ANSWER_WAIT: Duration = Duration::from_secs(300);
const ANSWER_BYTES_MAX: u64 = SEALED_REQUEST_BYTES_MAX as u64 + (1 << 20);
const STATUS_BYTES_MAX: u64 = 4 << 20;
const REFUSAL_BYTES_MAX: u64 = 64 << 10;
/// Characters of a refusal that are shown.
const TEXT_CHARS_MAX: usize = 600;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_read_bounded_and_safe_to_print() {
        let message = format!("\u{1b}[31m{}", "x".repeat(10_000));
        let body = serde_json::json!({
            "error": {"code": "busy", "message": message, "retry": {"after_ms": 1500}}
        });
        let refused = refusal(503, &HeaderMap::new(), body.to_string().as_bytes());
        let GatewayError::Refused {
            code,
            message,
            retry_after_ms,
            ..
        } = refused
        else {
            panic!("{refused}");
        };
        assert_eq!((code.as_str(), retry_after_ms), ("busy", Some(1500)));
        assert_eq!(message.chars().count(), TEXT_CHARS_MAX);
        assert!(!message.contains('\u{1b}'));
    }

    #[test]
    fn a_refusal_without_a_body_is_still_typed() {
        let mut headers = HeaderMap::new();
        headers.insert("retry-after", "2".parse().unwrap());
        let refused = refusal(429, &headers, b"<html>");
        assert!(matches!(
            refused,
            GatewayError::Refused {
                status: 429,
                retry_after_ms: Some(2000),
                ..
            }
        ));
    }

    #[test]
    fn only_this_machine_is_reached_without_a_proxy() {
        for url in [
            "http://127.0.0.1:1/x",
            "http://localhost",
            "http://[::1]:80",
        ] {
            assert!(is_loopback(url), "{url}");
        }
        for url in [
            "http://10.0.0.1",
            "http://localhost.example.org:80",
            "http://h",
        ] {
            assert!(!is_loopback(url), "{url}");
        }
    }
}
