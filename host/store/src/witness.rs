//! `bield-witness`: cosigns the checkpoints of logs that only ever grow (c2sp.org/tlog-witness).
//!
//! ```text
//! POST /add-checkpoint ──▶ Witness::decide ──▶ DIR/logs/<hash of origin>, synced ──▶ cosignature
//! GET  /                   its verifier key
//! GET  /<hash of origin>/checkpoint            the newest one it cosigned
//! GET  /metrics  /healthz
//! ```
//!
//! Always true: one process owns the directory; a cosignature or checkpoint is given away only after it
//! was synced to the disk under its name, so a crash makes the witness forget nothing it has said; one
//! decision at a time. Its memory moves on before the name does, and when it is unknown which of two
//! checkpoints the disk will show (an error of the renaming or of the sync after it), it answers
//! nothing more until it is started again and reads what is there.
//!
//! Which logs: those named with their key; with `any_capsule` every log of a replica
//! (`bield/capsule/<name>/<key>`, spec 06 §11); with `any_keys` every log of a key service
//! (`bield/keys/<name>/<key>`, spec 09). The key is in the origin, so nobody else can speak for such a
//! log, and its *first* checkpoint is believed: trust on first use, since a witness that never saw a
//! log cannot know what it missed. A new log costs its maker nothing and the witness a place for ever,
//! so new ones are taken slowly ([`NewLogs`], 429 beyond it) and never in the last
//! [`NAMED_LOGS_KEPT`] places; whatever was cosigned once has its place from every start on. A stranger
//! can so make other strangers wait, and after a week of asking keep them out; a log that is named is
//! never kept out. Extension lines (a key service's `nonce`) are cosigned as they
//! stand, so an answer proves that the witness was asked just now. Not here: the decision itself
//! (`core/tlog`).

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Path as UrlPath, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use bield_envelope::Secret;
use bield_tlog::witness::{ADD_CHECKPOINT_BYTES_MAX, FollowError, LOGS_MAX, Refusal};
use bield_tlog::{
    AddCheckpoint, KeyName, LogVerifier, Origin, SignedCheckpoint, TreeHead, Witness, WitnessKey,
};
use tokio::net::TcpListener;

use crate::connections::{Connections, Limits};
use crate::disk::{Files, FilesError};
use crate::identity::{IdentityError, identity};
use crate::system::{self, Randomness};

/// A log to follow: its origin and its key.
#[derive(Debug, Clone)]
pub struct FollowedLog {
    /// The first line of its checkpoints.
    pub origin: Origin,
    /// The key of its checkpoints.
    pub verifier: LogVerifier,
}

/// Text is no log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a log is written as ORIGIN=NAME+ID+KEY")]
pub struct ParseLogError;

impl FromStr for FollowedLog {
    type Err = ParseLogError;

    fn from_str(text: &str) -> Result<Self, ParseLogError> {
        let (origin, verifier) = text.split_once('=').ok_or(ParseLogError)?;
        Ok(Self {
            origin: origin.parse().map_err(|_| ParseLogError)?,
            verifier: verifier.parse().map_err(|_| ParseLogError)?,
        })
    }
}

/// A witness cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WitnessError {
    /// The directory cannot be used.
    #[error("{path} cannot be used: {error}; correct the path or its permissions and start again", path = .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// Another process has the directory.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// The key file.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The name is no key name.
    #[error("--name {0} is no name of a key: no spaces and no +; choose another")]
    Name(String),
    /// It signed under another name before: that was another verifier key.
    #[error("this witness is {kept} to all who trust it, and --name says {name}: leave --name out, or remove {path} \
             and tell everybody the new verifier key", path = .path.display())]
    OtherName {
        /// What it was called.
        kept: String,
        /// What it would be called.
        name: String,
        /// Where that is kept.
        path: PathBuf,
    },
    /// A log is named twice, or there are too many.
    #[error("{0}; correct --origin")]
    Follow(#[from] FollowError),
    /// What was kept cannot be read.
    #[error("{path} is not a checkpoint this witness kept: restore it; without it, what was cosigned is unknown", path = .path.display())]
    Memory {
        /// Which.
        path: PathBuf,
    },
}

/// What a witness is made of.
#[derive(Debug, Clone)]
pub struct WitnessSettings {
    /// Directory of its key and its memory.
    pub data: PathBuf,
    /// Name of its key, by custom its domain; `None`: the one it had, at first `bield/witness/` and its public key.
    pub name: Option<String>,
    /// Logs it follows.
    pub logs: Vec<FollowedLog>,
    /// Whether it follows every capsule's log that asks.
    pub any_capsule: bool,
    /// Whether it follows every key service's log that asks.
    pub any_keys: bool,
    /// How fast it takes new logs of those kinds.
    pub new_logs: NewLogs,
}

/// How fast logs that nobody named are taken.
#[derive(Debug, Clone, Copy)]
pub struct NewLogs {
    /// This many at once.
    pub burst: u32,
    /// And then one in this time.
    pub every: Duration,
}

impl Default for NewLogs {
    fn default() -> Self {
        Self {
            burst: 64,
            every: Duration::from_secs(10),
        }
    }
}

/// Places that logs followed on first use leave to those that are named.
pub const NAMED_LOGS_KEPT: usize = 1024;

/// A witness and its memory on a disk.
pub struct WitnessServer {
    /// The directory is this process's alone.
    _own: Files,
    state: Mutex<Following>,
    /// It is unknown what the disk will show after a crash.
    stopped: AtomicBool,
    logs: PathBuf,
    /// Beginnings of the origins that are followed when they ask.
    any: Vec<&'static str>,
    verifier: String,
    cosigned: AtomicU64,
    refused: [AtomicU64; 7],
}

/// What is followed, and what more may be.
struct Following {
    witness: Witness,
    newcomers: Newcomers,
    /// Logs followed, named ones among them.
    count: usize,
}

/// Logs that may be followed on first use: a token each.
struct Newcomers {
    pace: NewLogs,
    tokens: u32,
    /// When the newest token of those that come with time was due.
    since: Instant,
}

impl Newcomers {
    fn new(pace: NewLogs, now: Instant) -> Self {
        Self {
            pace,
            tokens: pace.burst,
            since: now,
        }
    }

    /// Takes a token.
    ///
    /// # Errors
    /// How long until there is one.
    fn take(&mut self, now: Instant) -> Result<(), Duration> {
        while self.tokens < self.pace.burst {
            let Some(due) = self.since.checked_add(self.pace.every) else {
                break;
            };
            if due > now {
                break;
            }
            self.since = due;
            self.tokens += 1;
        }
        if self.tokens == self.pace.burst {
            self.since = now;
        }
        match self.tokens.checked_sub(1) {
            Some(left) => {
                self.tokens = left;
                Ok(())
            }
            None => Err((self.since + self.pace.every).saturating_duration_since(now)),
        }
    }
}

/// Why a request is not answered with a cosignature.
struct Declined {
    status: u16,
    body: String,
    kind: &'static str,
    /// When to ask again, in seconds.
    retry_after: Option<u64>,
}

impl Declined {
    fn sentence(status: u16, sentence: impl Into<String>) -> Self {
        Self {
            status,
            body: sentence.into(),
            kind: PLAIN,
            retry_after: None,
        }
    }
}

/// Media type of sentences and signature lines.
const PLAIN: &str = "text/plain; charset=utf-8";

/// How the origins of replicas' logs begin.
const CAPSULES: &str = "bield/capsule/";
/// How the origins of key services' logs begin.
const KEY_SERVICES: &str = "bield/keys/";

/// Nothing more is said after this.
const STOPPED: &str =
    "this witness's disk failed and it cosigns nothing until its operator has started it again\n";

/// To a new log when there were many of late.
const NOT_YET: &str = "this witness took many new logs of late and takes them slowly; ask again after the seconds in Retry-After, or have its operator name this log with --origin\n";

/// To a new log when too many are followed.
const FULL: &str = "this witness follows as many logs as it takes from strangers; have its operator name this log with --origin, or ask another witness\n";

/// Statuses that are counted one by one.
const STATUSES: [u16; 7] = [400, 403, 404, 409, 422, 429, 500];

impl WitnessServer {
    /// Reads key and memory.
    ///
    /// # Errors
    /// See [`WitnessError`].
    pub fn open(settings: WitnessSettings) -> Result<Self, WitnessError> {
        let own = Files::own(&settings.data)?;
        let logs = settings.data.join("logs");
        let made = fs::create_dir_all(&logs).and_then(|()| {
            // What a crash left without a sync lasts from here on, before it is believed.
            sync_directory(&logs)?;
            sync_directory(&settings.data)
        });
        made.map_err(|error| failed(&logs, error))?;
        let key = identity(&settings.data, &mut Randomness)?;
        let first = || format!("bield/witness/{}", hex::encode(key.principal().as_bytes()));
        let name = lasting_name(&settings.data, settings.name, first)?;
        let mut witness = Witness::new(WitnessKey::new(
            name,
            &Secret::from_bytes(*key.seed().expose()),
        ));
        let mut count = 0;
        for log in settings.logs {
            let latest = kept(&logs, &log.origin, std::slice::from_ref(&log.verifier))?;
            witness.follow(log.origin, vec![log.verifier], latest)?;
            count += 1;
        }
        let any = [
            (settings.any_capsule, CAPSULES),
            (settings.any_keys, KEY_SERVICES),
        ];
        let any = any.iter().filter(|(wanted, _)| *wanted);
        let any: Vec<_> = any.map(|(_, prefix)| *prefix).collect();
        if !any.is_empty() {
            count += follow_kept(&mut witness, &logs, &any)?;
        }
        Ok(Self {
            verifier: witness.verifier().to_string(),
            _own: own,
            state: Mutex::new(Following {
                witness,
                newcomers: Newcomers::new(settings.new_logs, Instant::now()),
                count,
            }),
            stopped: AtomicBool::new(false),
            logs,
            any,
            cosigned: AtomicU64::new(0),
            refused: Default::default(),
        })
    }

    /// Its verifier key: what logs and readers are told.
    #[must_use]
    pub fn verifier(&self) -> &str {
        &self.verifier
    }

    /// Decides about one request and keeps the decision. Blocks.
    ///
    /// # Errors
    /// A status and a sentence, or the size it has seen.
    fn add_checkpoint(&self, body: &[u8]) -> Result<String, Declined> {
        let refuse = |refusal: Refusal| Declined {
            status: refusal.status(),
            body: refusal.body(),
            kind: refusal.media_type(),
            retry_after: None,
        };
        // Held until the decision is kept: no other one comes between.
        let mut following = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if self.stopped.load(SeqCst) {
            return Err(Declined::sentence(500, STOPPED));
        }
        if !self.any.is_empty() {
            self.follow_first(&mut following, body)?;
        }
        let decided = following.witness.decide(body, system::now());
        let cosign = decided.map_err(refuse)?;
        let path = self.logs.join(cosign.origin().path_segment());
        let half = write_half(&path, cosign.note().to_string().as_bytes()).map_err(disk)?;
        let lines = cosign.persisted().to_string();
        let renamed = fs::rename(&half, &path).and_then(|()| sync_directory(&self.logs));
        if let Err(error) = renamed {
            self.stopped.store(true, SeqCst);
            tracing::error!(path = %path.display(), %error, "the disk may show this checkpoint or the one before; the witness answers nothing more until it is started again");
            return Err(Declined::sentence(500, STOPPED));
        }
        Ok(lines)
    }

    /// The newest checkpoint cosigned of a log that has this path segment; `None` when it is unknown
    /// whether that lasts. Blocks.
    fn latest(&self, log: &str) -> Option<io::Result<String>> {
        // Under the lock no file is between its renaming and its sync.
        let _state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let stopped = self.stopped.load(SeqCst);
        (!stopped).then(|| fs::read_to_string(self.logs.join(log)))
    }

    /// Follows a log with its key in its origin that asks for the first time.
    fn follow_first(&self, following: &mut Following, body: &[u8]) -> Result<(), Declined> {
        let Ok(request) = AddCheckpoint::parse(body) else {
            return Ok(());
        };
        let signed = request.checkpoint();
        let origin = signed.claimed().origin().clone();
        let verifier = self.any.iter().find_map(|kind| key_in(&origin, kind));
        let Some(verifier) = verifier.filter(|_| !following.witness.follows(&origin)) else {
            return Ok(());
        };
        let keys = vec![verifier];
        // Only who has the key may take one of the places.
        if signed.clone().verify(&origin, &keys).is_err() {
            return Ok(());
        }
        // What was cosigned before is followed since the start; here only if its file was unreadable then.
        let latest = kept(&self.logs, &origin, &keys)
            .map_err(io::Error::other)
            .map_err(disk)?;
        if following.count >= LOGS_MAX - NAMED_LOGS_KEPT {
            tracing::warn!(
                "{} logs are followed: a new one is only if it is named with --origin",
                following.count
            );
            return Err(Declined::sentence(404, FULL));
        }
        following
            .newcomers
            .take(Instant::now())
            .map_err(|wait| Declined {
                retry_after: Some(wait.as_secs().saturating_add(1)),
                ..Declined::sentence(429, NOT_YET)
            })?;
        // It has a key, a place, and is not followed: nothing is left that could be wrong.
        if following.witness.follow(origin, keys, latest).is_ok() {
            following.count += 1;
        }
        Ok(())
    }

    fn metrics(&self) -> String {
        let mut text = format!(
            "# HELP bield_witness_cosigned_total Checkpoints cosigned.\n# TYPE bield_witness_cosigned_total counter\n\
             bield_witness_cosigned_total {}\n\
             # HELP bield_witness_refused_total Requests refused, by status.\n# TYPE bield_witness_refused_total counter\n",
            self.cosigned.load(Relaxed)
        );
        for (status, count) in STATUSES.iter().zip(&self.refused) {
            text += &format!(
                "bield_witness_refused_total{{status=\"{status}\"}} {}\n",
                count.load(Relaxed)
            );
        }
        text
    }

    fn count(&self, status: u16) {
        if let Some(at) = STATUSES.iter().position(|known| *known == status) {
            self.refused[at].fetch_add(1, Relaxed);
        }
    }
}

/// What connections to a witness may do: its answers are short, and those who ask are few.
const LIMITS: Limits = Limits {
    connections_max: 512,
    quiet: Duration::from_secs(60),
    stall: Duration::from_secs(30),
};

/// Serves until `stop`.
///
/// # Errors
/// What the system says.
pub async fn serve(
    witness: Arc<WitnessServer>,
    listener: TcpListener,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let listener = Connections::new(listener, LIMITS, Arc::default());
    let server = axum::serve(listener, router(witness));
    server.with_graceful_shutdown(stop).await
}

/// The paths of a witness.
pub fn router(witness: Arc<WitnessServer>) -> Router {
    Router::new()
        .route(
            "/",
            get(async |State(witness): State<Arc<WitnessServer>>| {
                format!("{}\n", witness.verifier)
            }),
        )
        .route("/add-checkpoint", post(add_checkpoint))
        .route("/{log}/checkpoint", get(latest))
        .route(
            "/metrics",
            get(async |State(witness): State<Arc<WitnessServer>>| witness.metrics()),
        )
        .route("/healthz", get(async || "ok\n"))
        .with_state(witness)
}

async fn add_checkpoint(State(witness): State<Arc<WitnessServer>>, body: Body) -> Response {
    let Ok(body) = to_bytes(body, ADD_CHECKPOINT_BYTES_MAX).await else {
        witness.count(400);
        return said(
            400,
            "the request is cut off or too long\n".to_owned(),
            PLAIN,
        );
    };
    let own = Arc::clone(&witness);
    let decided = tokio::task::spawn_blocking(move || own.add_checkpoint(&body)).await;
    match decided {
        Ok(Ok(lines)) => {
            witness.cosigned.fetch_add(1, Relaxed);
            said(200, lines, PLAIN)
        }
        Ok(Err(declined)) => {
            witness.count(declined.status);
            let mut response = said(declined.status, declined.body, declined.kind);
            if let Some(seconds) = declined.retry_after {
                let headers = response.headers_mut();
                headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
            }
            response
        }
        Err(_) => {
            witness.count(500);
            said(
                500,
                "the witness is stopping; ask again later\n".to_owned(),
                PLAIN,
            )
        }
    }
}

/// The newest checkpoint cosigned of one log, for monitors.
async fn latest(
    State(witness): State<Arc<WitnessServer>>,
    UrlPath(log): UrlPath<String>,
) -> Response {
    let plain = PLAIN;
    let digits = log
        .bytes()
        .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    if log.len() != 64 || !digits {
        return said(
            404,
            "a log is named by SHA-256 of its origin, in 64 hexadecimal digits\n".to_owned(),
            plain,
        );
    }
    let read = tokio::task::spawn_blocking(move || witness.latest(&log)).await;
    match read {
        Ok(Some(Ok(note))) => said(200, note, plain),
        Ok(None) | Err(_) => said(500, STOPPED.to_owned(), plain),
        Ok(Some(Err(_))) => said(
            404,
            "nothing of that log was cosigned here\n".to_owned(),
            plain,
        ),
    }
}

fn said(status: u16, body: String, kind: &'static str) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let kind = HeaderValue::from_static(kind);
    (status, [(header::CONTENT_TYPE, kind)], body).into_response()
}

/// The key in the origin of a log of this kind: `<kind><capsule>/<key>`, both in 64 hexadecimal digits
/// (`spec/06 §11`, `spec/09`).
fn key_in(origin: &Origin, kind: &str) -> Option<LogVerifier> {
    let (capsule, key) = origin.as_str().strip_prefix(kind)?.split_once('/')?;
    let digits =
        |text: &str| text.len() == 64 && !text.bytes().any(|byte| byte.is_ascii_uppercase());
    if !digits(capsule) || !digits(key) {
        return None;
    }
    let mut bytes = [0; 32];
    hex::decode_to_slice(capsule, &mut bytes).ok()?;
    hex::decode_to_slice(key, &mut bytes).ok()?;
    Some(LogVerifier::new(origin.as_str().parse().ok()?, bytes))
}

/// Follows every log of these kinds that was cosigned before; how many.
fn follow_kept(witness: &mut Witness, logs: &Path, kinds: &[&str]) -> Result<usize, WitnessError> {
    let mut count = 0;
    let entries = fs::read_dir(logs).map_err(|error| failed(logs, error))?;
    for entry in entries {
        let path = entry.map_err(|error| failed(logs, error))?.path();
        if path.extension().is_some() {
            // Half a decision, which counts for nothing.
            continue;
        }
        let bytes = fs::read(&path).map_err(|error| failed(&path, error))?;
        // One damaged file must not silence the witness for all logs; this one stays refused.
        let damaged = || {
            tracing::error!(path = %path.display(), "this is not a checkpoint that was kept; its log is refused until it is restored");
        };
        let Ok(signed) = SignedCheckpoint::parse(&bytes) else {
            damaged();
            continue;
        };
        let origin = signed.claimed().origin().clone();
        let Some(verifier) = kinds.iter().find_map(|kind| key_in(&origin, kind)) else {
            continue;
        };
        if witness.follows(&origin) || path.file_name() != Some(origin.path_segment().as_ref()) {
            continue;
        }
        let keys = vec![verifier];
        let followed = match kept(logs, &origin, &keys) {
            Ok(latest) => witness.follow(origin, keys, latest),
            Err(WitnessError::Memory { .. }) => {
                damaged();
                continue;
            }
            Err(error) => return Err(error),
        };
        if let Err(error) = followed {
            tracing::error!(path = %path.display(), %error, "a log that was cosigned before is not followed");
            continue;
        }
        count += 1;
    }
    Ok(count)
}

fn disk(error: io::Error) -> Declined {
    tracing::error!(%error, "a decision cannot be kept, so nothing is cosigned");
    Declined::sentence(
        500,
        "this witness cannot write to its disk; ask again later\n",
    )
}

/// What was cosigned of a log last, out of the witness's memory.
fn kept(
    logs: &Path,
    origin: &Origin,
    keys: &[LogVerifier],
) -> Result<Option<TreeHead>, WitnessError> {
    let path = logs.join(origin.path_segment());
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(&path, error)),
    };
    let verified = SignedCheckpoint::parse(&bytes).and_then(|signed| signed.verify(origin, keys));
    let verified = verified.map_err(|_| WitnessError::Memory { path })?;
    Ok(Some(verified.checkpoint().head()))
}

/// The name under which this witness signs: part of the key that others trust, so it is kept.
fn lasting_name(
    data: &Path,
    given: Option<String>,
    first: impl FnOnce() -> String,
) -> Result<KeyName, WitnessError> {
    let path = data.join("name");
    let kept = match fs::read_to_string(&path) {
        Ok(kept) => Some(kept.trim_end().to_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(failed(&path, error)),
    };
    let name = match (kept.clone(), given) {
        (Some(kept), Some(name)) if kept != name => {
            return Err(WitnessError::OtherName { kept, name, path });
        }
        (Some(name), _) | (None, Some(name)) => name,
        (None, None) => first(),
    };
    let parsed = name.parse().map_err(|_| WitnessError::Name(name.clone()))?;
    if kept.is_none() {
        let written = write_half(&path, format!("{name}\n").as_bytes())
            .and_then(|half| fs::rename(half, &path))
            .and_then(|()| sync_directory(data));
        written.map_err(|error| failed(&path, error))?;
    }
    Ok(parsed)
}

/// Writes what is to be at `path` beside it, synced; it counts only once it is renamed.
fn write_half(path: &Path, bytes: &[u8]) -> io::Result<PathBuf> {
    let half = path.with_extension("half");
    let mut file = File::create(&half)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    Ok(half)
}

fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

fn failed(path: &Path, error: io::Error) -> WitnessError {
    WitnessError::File {
        path: path.to_owned(),
        error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_logs_come_in_a_burst_and_then_slowly() {
        let begin = Instant::now();
        let at = |secs| begin + Duration::from_secs(secs);
        let pace = NewLogs {
            burst: 2,
            every: Duration::from_secs(10),
        };
        let mut newcomers = Newcomers::new(pace, begin);
        assert_eq!(newcomers.take(at(100)), Ok(()));
        assert_eq!(newcomers.take(at(100)), Ok(()));
        // Nobody gets more by asking often.
        assert_eq!(newcomers.take(at(100)), Err(Duration::from_secs(10)));
        assert_eq!(newcomers.take(at(107)), Err(Duration::from_secs(3)));
        assert_eq!(newcomers.take(at(110)), Ok(()));
        assert_eq!(newcomers.take(at(111)), Err(Duration::from_secs(9)));
        // Nor by waiting long: the burst is the most.
        for _ in 0..2 {
            assert_eq!(newcomers.take(at(100_000)), Ok(()));
        }
        assert!(newcomers.take(at(100_000)).is_err());
    }

    #[test]
    fn only_origins_of_the_kind_carry_a_key() {
        let (capsule, signer) = ("ab".repeat(32), "cd".repeat(32));
        for (kind, other) in [(CAPSULES, KEY_SERVICES), (KEY_SERVICES, CAPSULES)] {
            let key = |origin: String| key_in(&origin.parse().unwrap(), kind);
            let found = key(format!("{kind}{capsule}/{signer}")).unwrap();
            assert_eq!(found.public(), &[0xcd; 32]);
            for wrong in [
                format!("{kind}{capsule}/{}", "CD".repeat(32)),
                format!("{kind}{capsule}/{}", "cd".repeat(31)),
                format!("{kind}{signer}"),
                format!("{other}{capsule}/{signer}"),
                format!("other/{capsule}/{signer}"),
                format!("{kind}{capsule}/{signer}/x"),
            ] {
                assert!(key(wrong).is_none());
            }
        }
    }
}
