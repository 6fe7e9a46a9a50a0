//! One replica over HTTP: what it sends is verified before anybody sees it.
//!
//! ```text
//!            records ──────▶ POST …/records ─▶ acknowledgements ─ signed by this replica? of ours? ─▶
//!   caller   nonce ────────▶ GET …/heads ────▶ statement ──────── signed? this nonce? ──────────────▶
//!            writer, range ▶ GET …/records ──▶ records ────────── decode, of that writer, in order ─▶
//! ```
//!
//! In: records, nonces, ranges. Out: answers whose form, signature and subject were checked; who may
//! sign and whether a record belongs where it stands is for [`bield_capsule::Verifier`] to say.
//! Always true: every answer is bounded in bytes and every wait in time; a lie is an error that
//! names the replica, and nothing of a lying answer is returned.
//!
//! Cost: one exchange on a connection that is kept open, 40 µs of signature check an answer.

use std::io::BufReader;
use std::time::Duration;

use bield_capsule::{
    Acknowledgement, CapsuleName, ForkProof, HeadsStatement, Kept, METADATA_BYTES_MAX, Metadata,
    RECORD_BYTES_MAX, Received, WriterId,
};
use bield_envelope::{Principal, Signed, Statement, Verified};
use serde_json::Value;
use ureq::http::{HeaderMap, Response};
use ureq::{Agent, Body, BodyReader};

use super::error::{Lie, ReplicaError};
use super::frames;

/// One replica; connections are kept open between exchanges.
pub struct ReplicaClient {
    url: String,
    principal: Principal,
    agent: Agent,
    wait: Duration,
}

/// A run of one writer's records, in order and without gaps; nothing else about them is known yet.
#[derive(Debug)]
pub struct Page {
    /// The records.
    pub records: Vec<Received>,
    /// Whether the replica says that it has more.
    pub more: bool,
}

/// What a replica kept of what it was sent.
pub struct Appended {
    /// How many records it took, from the first.
    pub accepted: usize,
    /// Its word for the newest one of every writer among them.
    pub acknowledgements: Vec<Verified<Acknowledgement>>,
    /// Why it did not take the rest.
    pub refused: Option<ReplicaError>,
}

impl ReplicaClient {
    /// The replica `principal` at `url`, such as `http://127.0.0.1:8801`; nothing is sent yet.
    #[must_use]
    pub fn new(url: &str, principal: Principal) -> Self {
        Self::with_wait(url, principal, ANSWER_WAIT)
    }

    /// The same with another longest wait for an answer.
    #[must_use]
    pub fn with_wait(url: &str, principal: Principal, wait: Duration) -> Self {
        Self {
            url: url.trim_end_matches('/').to_owned(),
            principal,
            agent: agent(wait, Some(wait + BODY_WAIT)),
            wait,
        }
    }

    /// Asks whoever is at `url` for its principal: only its word, to be shown to somebody or compared
    /// with a configuration.
    ///
    /// # Errors
    /// Nobody there, or no replica.
    pub fn introduce(url: &str) -> Result<Self, ReplicaError> {
        let mut replica = Self::new(url, Principal::from_bytes([0; 32]));
        let answer = replica.agent.get(replica.at("/v1/identity")).call();
        let (_, body) = replica.accept(answer, SMALL_BYTES_MAX)?;
        let said: Value = serde_json::from_slice(&body).unwrap_or_default();
        let principal = said["principal"]
            .as_str()
            .and_then(|text| text.parse().ok());
        replica.principal = principal.ok_or_else(|| replica.lied(Lie::Form))?;
        Ok(replica)
    }

    /// Its URL.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Who must sign what it states.
    #[must_use]
    pub const fn principal(&self) -> Principal {
        self.principal
    }

    /// Hands it a capsule's metadata; `true` when it did not have the capsule.
    ///
    /// # Errors
    /// Nobody there, or a refusal: this replica keeps no capsules of this owner.
    pub fn put_capsule(&self, metadata: &Metadata) -> Result<bool, ReplicaError> {
        let url = self.capsule(&metadata.name(), "");
        let answer = self.agent.put(url).send(metadata.as_bytes());
        let made = answer
            .as_ref()
            .is_ok_and(|answer| answer.status().as_u16() == 201);
        self.accept(answer, SMALL_BYTES_MAX).map(|_| made)
    }

    /// A capsule's metadata, checked against its name.
    ///
    /// # Errors
    /// Nobody there, a refusal, or metadata of another capsule.
    pub fn metadata(&self, name: &CapsuleName) -> Result<Metadata, ReplicaError> {
        let answer = self.agent.get(self.capsule(name, "")).call();
        let (_, body) = self.accept(answer, METADATA_BYTES_MAX as u64)?;
        Metadata::decode_named(&body, name).map_err(|error| self.lied(error))
    }

    /// Sends records, which must be in an order that the replica can verify them in, and returns what
    /// it acknowledged. A refusal after the first records is part of the answer.
    ///
    /// # Errors
    /// Nobody there, a refusal of all, or acknowledgements that are not this replica's for this
    /// capsule.
    pub fn append<'a>(
        &self,
        name: &CapsuleName,
        records: impl IntoIterator<Item = &'a [u8]>,
        kept: Kept,
    ) -> Result<Appended, ReplicaError> {
        let mut body = Vec::new();
        let mut count = 0;
        for record in records {
            frames::push(&mut body, record);
            count += 1;
        }
        self.append_frames(name, &body, count, kept)
    }

    /// As [`ReplicaClient::append`], of `count` records that are framed already.
    pub(super) fn append_frames(
        &self,
        name: &CapsuleName,
        body: &[u8],
        count: usize,
        kept: Kept,
    ) -> Result<Appended, ReplicaError> {
        let word = match kept {
            Kept::Memory => "memory",
            Kept::Written => "written",
            Kept::Synced => "synced",
        };
        let url = self.capsule(name, &format!("/records?kept={word}"));
        let answer = self.agent.post(url).send(body);
        let answer = answer.map_err(|error| self.unreachable(error))?;
        let status = answer.status().as_u16();
        let (headers, body) = self.read(answer, ANSWER_BYTES_MAX)?;
        if status == 200 {
            return Ok(Appended {
                accepted: count,
                acknowledgements: self.acknowledgements(name, &body)?,
                refused: None,
            });
        }
        let refused = self.refusal(status, &headers, &body);
        let said: Value = serde_json::from_slice(&body).unwrap_or_default();
        let accepted = said["accepted"].as_u64().unwrap_or(0);
        if accepted == 0 {
            return Err(refused);
        }
        let sent = said["acknowledgements"].as_str().unwrap_or_default();
        let sent = base64(sent).ok_or_else(|| self.lied(Lie::Form))?;
        Ok(Appended {
            accepted: usize::try_from(accepted).unwrap_or(count).min(count),
            acknowledgements: self.acknowledgements(name, &sent)?,
            refused: Some(refused),
        })
    }

    /// Records of one writer from `from` to `to`, both included; as many as fit in a page.
    ///
    /// # Errors
    /// Nobody there, a refusal, or other records than those asked for.
    pub fn records(
        &self,
        name: &CapsuleName,
        writer: &WriterId,
        from: u64,
        to: Option<u64>,
    ) -> Result<Page, ReplicaError> {
        let mut path = format!("/records/{writer}?from={from}");
        if let Some(to) = to {
            path += &format!("&to={to}");
        }
        let answer = self.agent.get(self.capsule(name, &path)).call();
        let (headers, body) = self.accept(answer, PAGE_BYTES_MAX)?;
        let frames = frames::split(&body, RECORD_BYTES_MAX).ok_or_else(|| self.lied(Lie::Form))?;
        let mut records = Vec::with_capacity(frames.len());
        for (frame, seq) in frames.into_iter().zip(from..) {
            let record = Received::decode(frame.to_vec()).map_err(|error| self.lied(error))?;
            let header = record.header();
            if header.capsule != *name || header.writer != *writer || header.seq != seq {
                let writer = *writer;
                return Err(self.lied(Lie::OtherRecord { writer, seq }));
            }
            records.push(record);
        }
        let more = headers.get(MORE).is_some_and(|value| value == "true");
        // A page that says there is more and brings nothing would be asked for without end.
        let more = more && !records.is_empty();
        Ok(Page { records, more })
    }

    /// Its statement of every writer's head, for this nonce; `after` starts a later page.
    ///
    /// # Errors
    /// Nobody there, a refusal, or a statement by somebody else or for another nonce or capsule.
    pub fn heads(
        &self,
        name: &CapsuleName,
        nonce: [u8; 16],
        after: Option<WriterId>,
    ) -> Result<Verified<HeadsStatement>, ReplicaError> {
        let mut path = format!("/heads?nonce={}", hex::encode(nonce));
        if let Some(after) = after {
            path += &format!("&after={after}");
        }
        let asked = self.agent.get(self.capsule(name, &path));
        let asked = asked.config().timeout_global(Some(self.wait)).build();
        let (_, body) = self.accept(asked.call(), HEADS_BYTES_MAX)?;
        let statement = self.statement::<HeadsStatement>(&body)?;
        if statement.capsule != *name {
            return Err(self.lied(Lie::OtherStatement("another capsule's heads")));
        }
        if statement.nonce != nonce {
            return Err(self.lied(Lie::OtherStatement("heads for another nonce: a replay")));
        }
        if statement.after != after {
            return Err(self.lied(Lie::OtherStatement("another page of heads")));
        }
        Ok(statement)
    }

    /// All pages of [`ReplicaClient::heads`].
    ///
    /// # Errors
    /// As there, or pages without end.
    pub fn all_heads(
        &self,
        name: &CapsuleName,
        nonce: [u8; 16],
    ) -> Result<Vec<Verified<HeadsStatement>>, ReplicaError> {
        let mut pages = vec![self.heads(name, nonce, None)?];
        while let Some(page) = pages.last().filter(|page| page.more) {
            let last = page.heads.last().map(|head| head.writer);
            if last.is_none() || pages.len() >= HEADS_PAGES_MAX {
                return Err(self.lied(Lie::OtherStatement("pages of heads without end")));
            }
            pages.push(self.heads(name, nonce, last)?);
        }
        Ok(pages)
    }

    /// Records in the order in which they arrived there, from log index `from`, without end: after the
    /// last one it waits for the next.
    ///
    /// # Errors
    /// Nobody there, or a refusal.
    pub fn subscribe(&self, name: &CapsuleName, from: u64) -> Result<Subscription, ReplicaError> {
        // An agent of its own: the stream is silent for as long as nobody writes, but for a sign of
        // life every ten seconds.
        let agent = agent(self.wait.max(STREAM_WAIT), None);
        let url = self.capsule(name, &format!("/subscribe?from={from}"));
        let answer = agent.get(url).call();
        let answer = answer.map_err(|error| self.unreachable(error))?;
        if !answer.status().is_success() {
            let status = answer.status().as_u16();
            let (headers, body) = self.read(answer, SMALL_BYTES_MAX)?;
            return Err(self.refusal(status, &headers, &body));
        }
        let reader = answer
            .into_body()
            .into_with_config()
            .limit(u64::MAX)
            .reader();
        Ok(Subscription {
            replica: self.url.clone(),
            capsule: *name,
            stream: BufReader::with_capacity(1 << 16, reader),
        })
    }

    /// Every fork it knows of, each one proven.
    ///
    /// # Errors
    /// Nobody there, a refusal, or a proof that does not hold.
    pub fn forks(&self, name: &CapsuleName) -> Result<Vec<ForkProof>, ReplicaError> {
        let answer = self.agent.get(self.capsule(name, "/forks")).call();
        let (_, body) = self.accept(answer, PAGE_BYTES_MAX)?;
        let frames = frames::split(&body, FORK_BYTES_MAX).ok_or_else(|| self.lied(Lie::Form))?;
        let mut proofs = Vec::with_capacity(frames.len());
        for frame in frames {
            let proof = ForkProof::decode(frame).map_err(|error| self.no_proof(error))?;
            proof.verify(name).map_err(|error| self.no_proof(error))?;
            proofs.push(proof);
        }
        Ok(proofs)
    }

    /// Shows it a fork.
    ///
    /// # Errors
    /// Nobody there, or a refusal.
    pub fn report_fork(&self, name: &CapsuleName, proof: &[u8]) -> Result<(), ReplicaError> {
        let answer = self.agent.post(self.capsule(name, "/forks")).send(proof);
        self.accept(answer, SMALL_BYTES_MAX).map(drop)
    }

    /// Bytes below the capsule's path in its transparency log, such as `checkpoint`; unverified.
    ///
    /// # Errors
    /// Nobody there, or a refusal.
    pub fn log_part(&self, name: &CapsuleName, part: &str) -> Result<Vec<u8>, ReplicaError> {
        let answer = self
            .agent
            .get(self.capsule(name, &format!("/log/{part}")))
            .call();
        Ok(self.accept(answer, SMALL_BYTES_MAX)?.1)
    }

    pub(super) fn lied(&self, lie: impl Into<Lie>) -> ReplicaError {
        ReplicaError::Lied {
            replica: self.url.clone(),
            lie: lie.into(),
        }
    }

    fn no_proof(&self, error: impl ToString) -> ReplicaError {
        self.lied(Lie::Proof(error.to_string()))
    }

    fn at(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    fn capsule(&self, name: &CapsuleName, path: &str) -> String {
        format!("{}/v1/capsules/{name}{path}", self.url)
    }

    fn acknowledgements(
        &self,
        name: &CapsuleName,
        body: &[u8],
    ) -> Result<Vec<Verified<Acknowledgement>>, ReplicaError> {
        let frames = frames::split(body, ACKNOWLEDGEMENT_BYTES_MAX);
        let frames = frames.ok_or_else(|| self.lied(Lie::Form))?;
        frames
            .into_iter()
            .map(|frame| {
                let said = self.statement::<Acknowledgement>(frame)?;
                if said.capsule == *name {
                    Ok(said)
                } else {
                    Err(self.lied(Lie::OtherStatement("another capsule's record")))
                }
            })
            .collect()
    }

    fn statement<T: Statement>(&self, bytes: &[u8]) -> Result<Verified<T>, ReplicaError> {
        let signed = Signed::decode(bytes).map_err(|error| self.lied(error))?;
        signed
            .verify(&self.principal)
            .map_err(|error| self.lied(error))
    }

    fn unreachable(&self, error: ureq::Error) -> ReplicaError {
        ReplicaError::Unreachable {
            replica: self.url.clone(),
            error: Box::new(error),
        }
    }

    /// Reads a bounded body; anything but success is a refusal.
    fn accept(
        &self,
        answer: Result<Response<Body>, ureq::Error>,
        bytes_max: u64,
    ) -> Result<(HeaderMap, Vec<u8>), ReplicaError> {
        let answer = answer.map_err(|error| self.unreachable(error))?;
        let status = answer.status();
        if status.is_success() {
            return self.read(answer, bytes_max);
        }
        let (headers, body) = self.read(answer, SMALL_BYTES_MAX)?;
        Err(self.refusal(status.as_u16(), &headers, &body))
    }

    fn read(
        &self,
        answer: Response<Body>,
        bytes_max: u64,
    ) -> Result<(HeaderMap, Vec<u8>), ReplicaError> {
        let (head, mut body) = answer.into_parts();
        let bytes = body.with_config().limit(bytes_max).read_to_vec();
        Ok((
            head.headers,
            bytes.map_err(|error| self.unreachable(error))?,
        ))
    }

    /// Reads `{"error", "message", "retry", "have"}`; whatever is missing is made up for.
    fn refusal(&self, status: u16, _: &HeaderMap, body: &[u8]) -> ReplicaError {
        let said: Value = serde_json::from_slice(body).unwrap_or_default();
        let text = |key: &str, otherwise: &str| {
            let text = said[key].as_str().unwrap_or(otherwise);
            text.chars()
                .filter(|c| !c.is_control())
                .take(TEXT_CHARS_MAX)
                .collect::<String>()
        };
        ReplicaError::Refused {
            replica: self.url.clone(),
            status,
            code: text("error", "unexplained"),
            message: text("message", "no reason was given; is this a bield store?"),
            retry: said["retry"]
                .as_bool()
                .unwrap_or(matches!(status, 429 | 502..=504)),
            have: said["have"].as_u64(),
        }
    }
}

/// Records as they arrive at a replica; a break ends it, and who wants more subscribes again.
pub struct Subscription {
    replica: String,
    capsule: CapsuleName,
    stream: BufReader<BodyReader<'static>>,
}

impl Iterator for Subscription {
    /// `None` inside is a sign of life: nothing new for ten seconds.
    type Item = Result<Option<Received>, ReplicaError>;

    fn next(&mut self) -> Option<Self::Item> {
        let frame = match frames::read(&mut self.stream, RECORD_BYTES_MAX) {
            Ok(frame) => frame?,
            Err(error) => {
                return Some(Err(ReplicaError::Unreachable {
                    replica: self.replica.clone(),
                    error: Box::new(ureq::Error::Io(error)),
                }));
            }
        };
        if frame.is_empty() {
            return Some(Ok(None));
        }
        let lie = match Received::decode(frame) {
            Ok(record) if record.header().capsule == self.capsule => {
                return Some(Ok(Some(record)));
            }
            Ok(_) => Lie::OtherStatement("another capsule's record"),
            Err(error) => error.into(),
        };
        Some(Err(ReplicaError::Lied {
            replica: self.replica.clone(),
            lie,
        }))
    }
}

/// `wait` without a byte, and `whole` for all of an exchange.
fn agent(wait: Duration, whole: Option<Duration>) -> Agent {
    let mut config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .timeout_connect(Some(CONNECT_WAIT.min(wait)))
        .timeout_per_write(Some(wait))
        .timeout_recv_response(Some(wait))
        .timeout_per_read(Some(wait))
        // Who is asked stands in the configuration; nothing in the environment puts itself between.
        .proxy(None);
    if let Some(whole) = whole {
        config = config.timeout_global(Some(whole));
    }
    config.build().new_agent()
}

fn base64(text: &str) -> Option<Vec<u8>> {
    use base64::Engine as _;

    base64::engine::general_purpose::STANDARD.decode(text).ok()
}

const MORE: &str = "bield-more";
const CONNECT_WAIT: Duration = Duration::from_secs(3);
/// Longest wait for an answer: a full body, verified and synced, takes a replica well below a second.
const ANSWER_WAIT: Duration = Duration::from_secs(15);
/// A body of 16 MiB at 512 KiB/s: one that trickles is given up.
const BODY_WAIT: Duration = Duration::from_secs(32);
/// A stream gives a sign of life every 10 s.
const STREAM_WAIT: Duration = Duration::from_secs(30);
const SMALL_BYTES_MAX: u64 = 64 << 10;
/// Acknowledgements of one request: one for each writer among at most 8 MiB of records.
const ANSWER_BYTES_MAX: u64 = 16 << 20;
/// A page is at most 8 MiB, or one longest record.
const PAGE_BYTES_MAX: u64 = 16 << 20;
/// A statement of at most 1 MiB and its signature.
const HEADS_BYTES_MAX: u64 = (1 << 20) + 1024;
/// Eight million writers.
const HEADS_PAGES_MAX: usize = 1024;
const ACKNOWLEDGEMENT_BYTES_MAX: usize = 1024;
/// `spec/06 §10`.
const FORK_BYTES_MAX: usize = 200_000;
/// Characters of a refusal that are shown.
const TEXT_CHARS_MAX: usize = 600;
