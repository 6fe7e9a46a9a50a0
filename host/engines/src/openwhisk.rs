//! Apache OpenWhisk, or what speaks its REST interface: each place of the pool is an action.
//!
//! ```text
//!  ensure ─▶ GET …/limits (once) ─▶ PUT …/actions/NAME-N: the worker's image, its limits
//!  invoke ─▶ POST …/actions/NAME-N?blocking=true {"sealed"} ─ 200 ─▶ response.result {"sealed", "feedback"}
//!                                └─ 202 ─▶ GET …/activations/ID every [`POLL_EVERY`] until it is there
//!  delete ─▶ DELETE …/actions/NAME-N
//! ```
//!
//! | the platform says | for the caller |
//! |---|---|
//! | 429 | [`EngineError::Full`] |
//! | 503, or 404 for the action | [`EngineError::Cold`]: it was not run |
//! | 400, 401, 403, 413 | [`EngineError::Denied`] |
//! | an activation that ended in an *application error* | the worker's public refusal, passed on |
//! | … in its time limit | [`EngineError::Timeout`] |
//! | … in any other error | [`EngineError::Broken`]; of the platform itself: [`EngineError::Lost`] |
//!
//! Always true: the platform runs instances as it likes, so that scaling does nothing; what it is too small for is said
//! before anything is sent to it; a caller waits at most one poll longer than the platform took, because polls do not grow
//! apart; an answer is whole.
//!
//! Not here: TLS (what travels is sealed, but the namespace's key is not: the way to the platform's controller must be
//! private), and telling an activation that nobody waits, for which the platform has no way.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bield_launcher::ANSWER_BYTES_MAX;
use futures_util::future::{self, BoxFuture, FutureExt as _};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::header::{self, HeaderValue};
use hyper::{Method, Request, StatusCode};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::remote::{Http, client, feedback_of};
use crate::{Answer, Body, Bytes, Endpoint, Engine, EngineError, Group, Place, Refusal, Seen};

/// Between two questions whether an activation has ended.
const POLL_EVERY: Duration = Duration::from_millis(100);
/// How long the platform may take to make or remove an action.
const MANAGE_WAIT: Duration = Duration::from_secs(30);
/// Longest answer of the platform: the largest sealed one in base64, and what stands around it.
const REPLY_BYTES_MAX: usize = ANSWER_BYTES_MAX / 3 * 4 + (1 << 20);

/// What is asked of the platform.
#[derive(Clone)]
pub struct Platform {
    /// `host:port` of its controller.
    pub host: String,
    /// Who we are there.
    pub auth: PlatformAuth,
    /// The first part of the actions' names.
    pub name: String,
    /// The worker's image, with a tag other than `latest`: without one the platform asks a registry each time.
    pub image: String,
    /// How many actions.
    pub places: u32,
    /// Requests that one instance has at once.
    pub concurrency: u32,
    /// Memory of one instance in MiB, the enclave's included.
    pub memory_mib: u32,
    /// Longest time of one activation, cold start included.
    pub timeout: Duration,
}

/// A namespace's `uuid:key`, as the header that carries it.
#[derive(Clone)]
pub struct PlatformAuth(HeaderValue);

impl PlatformAuth {
    /// Of the text `uuid:key`; `None` when it is not of that form.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let (uuid, key) = text.split_once(':')?;
        if uuid.is_empty() || key.is_empty() {
            return None;
        }
        let mut header = HeaderValue::try_from(format!("Basic {}", STANDARD.encode(text))).ok()?;
        header.set_sensitive(true);
        Some(Self(header))
    }
}

/// The engine of an OpenWhisk platform.
pub struct Openwhisk {
    http: Http,
    platform: Platform,
    checked: tokio::sync::OnceCell<()>,
    groups: Mutex<HashMap<Group, watch::Sender<Seen>>>,
    next: AtomicU64,
}

impl Openwhisk {
    /// Nothing is asked of the platform until the first group is.
    #[must_use]
    pub fn new(platform: Platform) -> Self {
        Self {
            http: client(),
            platform,
            checked: tokio::sync::OnceCell::new(),
            groups: Mutex::default(),
            next: AtomicU64::new(0),
        }
    }

    fn action(&self, group: Group) -> String {
        format!("{}-{}", self.platform.name, group.0)
    }

    fn groups(&self) -> MutexGuard<'_, HashMap<Group, watch::Sender<Seen>>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn show(&self, group: Group, endpoint: Option<Endpoint>) {
        let mut groups = self.groups();
        groups.entry(group).or_default().send_modify(|seen| {
            seen.endpoints = endpoint.into_iter().collect();
        });
    }

    fn is_shown(&self, group: Group) -> bool {
        let groups = self.groups();
        groups
            .get(&group)
            .is_some_and(|seen| !seen.borrow().endpoints.is_empty())
    }

    /// Asks the platform what it allows, and says what of it is too small.
    async fn preflight(&self) -> Result<(), EngineError> {
        let path = "/api/v1/namespaces/_/limits";
        let (status, limits) = self.ask(Method::GET, path, None, MANAGE_WAIT).await?;
        match status {
            StatusCode::OK => {}
            // Platforms of before this route; what is too much, they say when the action is made.
            StatusCode::NOT_FOUND => return Ok(()),
            status => return Err(denied_or_lost(status, &limits)),
        }
        let platform = &self.platform;
        let timeout_ms = u64::try_from(platform.timeout.as_millis()).unwrap_or(u64::MAX);
        for (name, wanted, what) in [
            (
                "maxActionConcurrency",
                platform.concurrency.into(),
                "requests at once in one instance (its concurrency-limit.max; it also needs the Pekko container client)",
            ),
            (
                "maxActionMemory",
                platform.memory_mib.into(),
                "MiB of memory of one instance (its memory.max)",
            ),
            (
                "maxActionTimeout",
                timeout_ms,
                "ms for one activation (its time-limit.max)",
            ),
        ] {
            if let Some(allowed) = limits[name].as_u64()
                && allowed < wanted
            {
                return Err(EngineError::Denied(format!(
                    "it allows {allowed} {what} and {wanted} are asked for; raise its limit, or ask for less"
                )));
            }
        }
        Ok(())
    }

    async fn make(&self, group: Group) -> Result<(), EngineError> {
        self.known(group)?;
        self.checked.get_or_try_init(|| self.preflight()).await?;
        let platform = &self.platform;
        let action = json!({
            "exec": { "kind": "blackbox", "image": platform.image },
            "limits": {
                "concurrency": platform.concurrency,
                "memory": platform.memory_mib,
                "timeout": u64::try_from(platform.timeout.as_millis()).unwrap_or(u64::MAX),
            },
        });
        let path = format!(
            "/api/v1/namespaces/_/actions/{}?overwrite=true",
            self.action(group)
        );
        let (status, said) = self
            .ask(
                Method::PUT,
                &path,
                Some(action.to_string().into()),
                MANAGE_WAIT,
            )
            .await?;
        if status != StatusCode::OK {
            return Err(denied_or_lost(status, &said));
        }
        if !self.is_shown(group) {
            let endpoint = Endpoint {
                group,
                id: self.next.fetch_add(1, Ordering::Relaxed),
                name: self.action(group),
            };
            self.show(group, Some(endpoint));
        }
        Ok(())
    }

    async fn remove(&self, group: Group) -> Result<(), EngineError> {
        self.show(group, None);
        let path = format!("/api/v1/namespaces/_/actions/{}", self.action(group));
        match self.ask(Method::DELETE, &path, None, MANAGE_WAIT).await? {
            (StatusCode::OK | StatusCode::NOT_FOUND, _) => Ok(()),
            (status, said) => Err(denied_or_lost(status, &said)),
        }
    }

    async fn run(
        &self,
        endpoint: &Endpoint,
        sealed: &[u8],
        within: Duration,
    ) -> Result<Answer, EngineError> {
        let until = Instant::now() + within;
        let left = || until.saturating_duration_since(Instant::now());
        let body = json!({ "sealed": STANDARD.encode(sealed) }).to_string();
        let path = format!(
            "/api/v1/namespaces/_/actions/{}?blocking=true",
            endpoint.name
        );
        let (status, said) = self
            .ask(Method::POST, &path, Some(body.into()), left())
            .await?;
        match status {
            StatusCode::OK | StatusCode::BAD_GATEWAY if said["response"].is_object() => {
                ended(&said["response"], within)
            }
            StatusCode::ACCEPTED => {
                let id = said["activationId"].as_str().filter(|id| is_plain(id));
                let id = id.ok_or_else(|| broken("an activation without an id"))?;
                let path = format!("/api/v1/namespaces/_/activations/{id}");
                loop {
                    if left().is_zero() {
                        return Err(EngineError::Timeout(within));
                    }
                    match self.ask(Method::GET, &path, None, left()).await? {
                        (StatusCode::OK, record) => return ended(&record["response"], within),
                        // Written when it ends.
                        (StatusCode::NOT_FOUND, _) => {}
                        // The activation goes on whatever becomes of a question after it.
                        (StatusCode::TOO_MANY_REQUESTS, _) => {}
                        (status, said) => return Err(denied_or_lost(status, &said)),
                    }
                    tokio::time::sleep(POLL_EVERY.min(left())).await;
                }
            }
            StatusCode::NOT_FOUND => {
                // Somebody removed the action; it is made again when the place is wanted again.
                self.show(endpoint.group, None);
                Err(EngineError::Cold)
            }
            status => Err(denied_or_lost(status, &said)),
        }
    }

    /// Sends a question and reads all of the answer.
    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<Bytes>,
        within: Duration,
    ) -> Result<(StatusCode, Value), EngineError> {
        let request = Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.platform.host))
            .header(header::AUTHORIZATION, self.platform.auth.0.clone())
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body.unwrap_or_default()))
            .map_err(|error| EngineError::Broken(error.to_string()))?;
        let asked = async {
            let response = self.http.request(request).await.map_err(|error| {
                tracing::warn!(platform = self.platform.host, %error, "not reached");
                EngineError::Lost
            })?;
            let status = response.status();
            let body = Limited::new(response.into_body(), REPLY_BYTES_MAX).collect();
            let body = body.await.map_err(|_| EngineError::Lost)?.to_bytes();
            Ok((status, serde_json::from_slice(&body).unwrap_or_default()))
        };
        let answered = tokio::time::timeout(within, asked).await;
        answered.unwrap_or(Err(EngineError::Timeout(within)))
    }

    fn known(&self, group: Group) -> Result<(), EngineError> {
        match group.0 < self.platform.places {
            true => Ok(()),
            false => Err(EngineError::Denied(format!(
                "there is no place {}",
                group.0
            ))),
        }
    }
}

impl Engine for Openwhisk {
    fn ensure(&self, group: Group) -> BoxFuture<'_, Result<(), EngineError>> {
        self.make(group).boxed()
    }

    fn scale(&self, group: Group, _want: u32) -> BoxFuture<'_, Result<(), EngineError>> {
        future::ready(self.known(group)).boxed()
    }

    fn endpoints(&self, group: Group) -> watch::Receiver<Seen> {
        self.groups().entry(group).or_default().subscribe()
    }

    fn invoke<'a>(
        &'a self,
        endpoint: &'a Endpoint,
        sealed: Bytes,
        within: Duration,
        place: Place,
    ) -> BoxFuture<'a, Result<Answer, EngineError>> {
        async move {
            let answer = self.run(endpoint, &sealed, within).await;
            drop(place);
            answer
        }
        .boxed()
    }

    fn delete(&self, group: Group) -> BoxFuture<'_, Result<(), EngineError>> {
        self.remove(group).boxed()
    }
}

/// What an activation came to, from its record's `response`.
fn ended(response: &Value, within: Duration) -> Result<Answer, EngineError> {
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
    let sentence = error["message"].as_str().or(error.as_str());
    let sentence = sentence.unwrap_or("an error without a sentence");
    match (response["status"].as_str(), error["code"].as_str()) {
        (Some("application error"), Some(code)) => Ok(Answer {
            feedback: None,
            body: Body::Refused(Refusal::passed_on(
                StatusCode::BAD_REQUEST,
                code,
                sentence,
                None,
            )),
        }),
        (Some("whisk internal error"), _) => Err(EngineError::Lost),
        _ if sentence.contains("exceeded its time limits") => Err(EngineError::Timeout(within)),
        _ => Err(broken(sentence)),
    }
}

fn denied_or_lost(status: StatusCode, said: &Value) -> EngineError {
    let sentence = said["error"].as_str().unwrap_or("no sentence");
    match status {
        StatusCode::TOO_MANY_REQUESTS => EngineError::Full,
        StatusCode::SERVICE_UNAVAILABLE => EngineError::Cold,
        status if status.is_client_error() => {
            EngineError::Denied(format!("{} {sentence}", status.as_u16()))
        }
        StatusCode::BAD_GATEWAY => broken(sentence),
        _ => EngineError::Lost,
    }
}

fn broken(what: &str) -> EngineError {
    EngineError::Broken(format!(
        "the platform answered with {what}; its operator must look at the action"
    ))
}

/// Whether it can stand in a path as it is.
fn is_plain(id: &str) -> bool {
    !id.is_empty() && id.len() <= 64 && id.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests;
