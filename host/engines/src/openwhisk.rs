//! Apache OpenWhisk, or what speaks its REST interface: each place of the pool is an action.
//!
//! ```text
//!  ensure ─▶ GET …/limits (once) ─▶ GET …/actions/NAME-N ─ other or none ─▶ PUT: the worker's image, its limits
//!  invoke ─▶ POST …/actions/NAME-N?blocking=true {"sealed"} ─ 200 ─▶ response.result {"sealed", "feedback"}
//!                                └─ 202 ─▶ GET …/activations/ID every [`POLL_EVERY`] until it is there
//!  delete ─▶ DELETE …/actions/NAME-N
//! ```
//!
//! | the platform says | for the caller |
//! |---|---|
//! | 429 | [`EngineError::Full`] |
//! | 503, or 404 for the action | [`EngineError::Cold`]: it was not run |
//! | 413 | its refusal, passed on: the request is longer than the platform takes |
//! | 400, 401, 403 | [`EngineError::Denied`] |
//! | an activation that ended in an *application error* | the worker's public refusal, passed on |
//! | … in its time limit, or the runtime's | [`EngineError::Timeout`] |
//! | … in any other error | [`EngineError::Broken`]; of the platform itself, or without a record: [`EngineError::Lost`] |
//!
//! Always true: the platform runs instances as it likes, so that scaling does nothing; what it is too small for is said
//! before anything is sent to it; an action that is as it should be is not written again, which would end its instances; a
//! caller waits at most one poll longer than the platform took, because polls do not grow apart; an activation that was
//! accepted is asked after until it has ended or its time is over, whatever becomes of one question, and whether or not
//! somebody waits; an answer is whole.
//!
//! Not here: TLS (what travels is sealed, but the namespace's key is not: the way to the platform's controller must be
//! private), telling an activation that nobody waits, for which the platform has no way, and sharing actions: who deletes one
//! does so for everybody, so that each gateway of a namespace has names of its own.

mod record;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bield_launcher::ANSWER_BYTES_MAX;
use futures_util::future::{self, BoxFuture, FutureExt as _};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::header::{self, HeaderValue};
use hyper::{Method, Request, StatusCode};
use serde_json::{Value, json};
use tokio::sync::{oneshot, watch};

use crate::remote::{Http, client};
use crate::{Answer, Body, Bytes, Endpoint, Engine, EngineError, Group, Place, Refusal, Seen};
use record::{broken, denied_or_lost, ended, has_all, is_plain, sentence};

/// Between two questions whether an activation has ended.
const POLL_EVERY: Duration = Duration::from_millis(100);
/// Longest wait for the answer to one of these questions.
const POLL_WAIT: Duration = Duration::from_secs(5);
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
    /// The first part of the actions' names: of no other gateway's in this namespace.
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
pub struct Openwhisk(Arc<Actions>);

/// What is known of the platform.
struct Actions {
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
        Self(Arc::new(Actions {
            http: client(),
            platform,
            checked: tokio::sync::OnceCell::new(),
            groups: Mutex::default(),
            next: AtomicU64::new(0),
        }))
    }
}

impl Actions {
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

    /// This one, if it is still there, and no later one.
    fn is_gone(&self, gone: &Endpoint) {
        if let Some(seen) = self.groups().get(&gone.group) {
            seen.send_modify(|seen| seen.endpoints.retain(|there| there.id != gone.id));
        }
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
        if self.is_shown(group) {
            return Ok(());
        }
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
        let path = format!("/api/v1/namespaces/_/actions/{}", self.action(group));
        let there = self.ask(Method::GET, &path, None, MANAGE_WAIT).await?;
        if there.0 != StatusCode::OK || !has_all(&there.1, &action) {
            let path = format!("{path}?overwrite=true");
            let action = Bytes::from(action.to_string());
            match self
                .ask(Method::PUT, &path, Some(action), MANAGE_WAIT)
                .await?
            {
                (StatusCode::OK, _) => {}
                (status, said) => return Err(denied_or_lost(status, &said)),
            }
        }
        let endpoint = Endpoint {
            group,
            id: self.next.fetch_add(1, Ordering::Relaxed),
            name: self.action(group),
        };
        self.show(group, Some(endpoint));
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
        let posted = self.ask(Method::POST, &path, Some(body.into()), left());
        let (status, said) = posted.await.map_err(|error| match error {
            EngineError::Timeout(_) => EngineError::Timeout(within),
            error => error,
        })?;
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
                    let asked = self.ask(Method::GET, &path, None, left().min(POLL_WAIT));
                    match asked.await {
                        Ok((StatusCode::OK, record)) => return ended(&record["response"], within),
                        Ok((status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN), said)) => {
                            return Err(denied_or_lost(status, &said));
                        }
                        // It is written when it ends, and goes on whatever becomes of a question after it.
                        Ok(_) | Err(_) => {}
                    }
                    tokio::time::sleep(POLL_EVERY.min(left())).await;
                }
            }
            StatusCode::NOT_FOUND => {
                // Somebody removed the action; it is made again when the place is wanted again.
                self.is_gone(endpoint);
                Err(EngineError::Cold)
            }
            StatusCode::PAYLOAD_TOO_LARGE => Ok(Answer {
                feedback: None,
                body: Body::Refused(Refusal::new(
                    status,
                    "too-long",
                    format!(
                        "the request is longer than this platform takes ({}); send less",
                        sentence(&said)
                    ),
                )),
            }),
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
        self.0.make(group).boxed()
    }

    fn scale(&self, group: Group, _want: u32) -> BoxFuture<'_, Result<(), EngineError>> {
        future::ready(self.0.known(group)).boxed()
    }

    fn endpoints(&self, group: Group) -> watch::Receiver<Seen> {
        match self.0.known(group) {
            Ok(()) => self.0.groups().entry(group).or_default().subscribe(),
            Err(_) => watch::Sender::default().subscribe(),
        }
    }

    fn invoke<'a>(
        &'a self,
        endpoint: &'a Endpoint,
        sealed: Bytes,
        within: Duration,
        place: Place,
    ) -> BoxFuture<'a, Result<Answer, EngineError>> {
        let (actions, endpoint) = (Arc::clone(&self.0), endpoint.clone());
        let (tell, told) = oneshot::channel();
        // A task of its own: the activation goes on when nobody waits, and so does what it holds.
        tokio::spawn(async move {
            let answer = actions.run(&endpoint, &sealed, within).await;
            drop(place);
            let _ = tell.send(answer);
        });
        async move { told.await.unwrap_or(Err(EngineError::Lost)) }.boxed()
    }

    fn delete(&self, group: Group) -> BoxFuture<'_, Result<(), EngineError>> {
        self.0.remove(group).boxed()
    }
}

#[cfg(test)]
mod tests;
