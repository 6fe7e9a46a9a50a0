//! What the host can tell of itself: no user, no key, no content.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use bield_engines::Embedded;
use bield_face::{Refusal, json_response};
use bield_launcher::{State as Life, Supervisor};
use bield_packer::View;
use bield_protocol::status::{Metric, STATES, Status};
use serde_json::{Value, json};

use crate::fleet::{Fleet, Workers};
use crate::http::Face;
use crate::metrics::{Program, Text};

/// How long a program may take to report; a busy one is shown without its report.
const REPORT_WAIT: Duration = Duration::from_secs(2);

/// Packages, and callers, that are shown at most: 64 KB of each.
const SHOWN_MAX: usize = 256;

/// `GET /healthz`: the gateway itself runs.
pub(crate) async fn alive() -> &'static str {
    "ok\n"
}

/// `GET /readyz`: a call would be taken, and the key service that this gateway starts, if it does, leads
/// or follows. Says which.
pub(crate) async fn ready(State(face): State<Face>) -> Result<&'static str, Refusal> {
    if face.is_draining() {
        return Err(Refusal::unavailable("draining", "this gateway is stopping"));
    }
    let restarting = |words: Option<String>| {
        Refusal::unavailable(
            "restarting",
            said("an enclave program is being restarted", words),
        )
    };
    let stopping = |_| Refusal::unavailable("draining", "this gateway is stopping");
    let fleet = face.fleet;
    if fleet
        .workers()
        .is_some_and(|workers| !workers.would_take_a_call())
    {
        let words = tokio::task::spawn_blocking(move || fleet.workers()?.trouble());
        return Err(restarting(words.await.map_err(stopping)?));
    }
    let keys = tokio::task::spawn_blocking(move || {
        let supervisor = &fleet.keys()?.supervisor;
        Some((seen(supervisor), supervisor.last_words()))
    });
    let Some((keys, words)) = keys.await.map_err(stopping)? else {
        return Ok("ready\n");
    };
    if !keys.running {
        return Err(restarting(words));
    }
    let report = keys.report.ok_or_else(|| {
        Refusal::unavailable(
            "key-service-silent",
            "the key service does not report; wait for it",
        )
    })?;
    match word(&report) {
        "" => Ok("ready\n"),
        "serving" => Ok("ready, key service serving\n"),
        "following" => Ok("ready, key service following\n"),
        state => Err(Refusal::unavailable(
            "key-service-not-ready",
            said(&format!("the key service is {state}"), words),
        )),
    }
}

/// A sentence with what the program itself said last of it.
fn said(what: &str, words: Option<String>) -> String {
    match words {
        Some(words) => format!("{what}; its last words: {words}"),
        None => format!("{what}; its log says what it waits for"),
    }
}

/// `GET /v1/status`: the programs with their states, start counts, own reports and last words; of the pool what the packer
/// sees, and the last quarter of an hour.
pub(crate) async fn status(State(face): State<Face>) -> Response {
    let uptime = face.started.elapsed().as_secs();
    let draining = face.is_draining();
    let report = told(face.fleet, move |fleet| {
        let pool = fleet.workers().map(Seen::of);
        let workers = fleet.workers().zip(pool.as_ref());
        let workers = workers.map_or_else(Vec::new, |(workers, seen)| shown(workers, seen));
        let key_service = fleet.keys().map(|keys| {
            let mut shown = program(&keys.supervisor);
            let ports = [&keys.outside, &keys.members, &keys.own];
            let open = ports.map(|sessions| sessions.counts().open);
            shown["sessions"] = open.iter().sum::<usize>().into();
            shown
        });
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "uptime_seconds": uptime,
            "draining": draining,
            "key_service": key_service,
            "workers": workers,
            "pool": pool.map(|seen| seen.to_json()),
        })
    });
    match report.await {
        Some(report) => json_response(StatusCode::OK, &report),
        None => json_response(
            StatusCode::SERVICE_UNAVAILABLE,
            &json!({ "draining": true }),
        ),
    }
}

/// `GET /metrics`: see [`Text`].
pub(crate) async fn metrics(State(face): State<Face>) -> Response {
    let text = told(face.fleet, |fleet| {
        let mut text = Text::default();
        if let Some(keys) = fleet.keys() {
            text.keys(&seen(&keys.supervisor));
            text.sessions("outside", &keys.outside.counts());
            text.sessions("members", &keys.members.counts());
            text.sessions("own", &keys.own.counts());
        }
        if let Some(workers) = fleet.workers() {
            for (group, _, _) in workers.driver.places() {
                let supervisor = workers.here().and_then(|here| here.supervisor(group));
                if let Some(supervisor) = supervisor {
                    text.runtime(group.0, &seen(&supervisor));
                }
            }
            text.pool(&workers.driver.view());
            text.calls(workers.driver.lock_series().sums());
        }
        text.finish()
    });
    let kind = [(
        header::CONTENT_TYPE,
        "text/plain; version=0.0.4; charset=utf-8",
    )];
    match text.await {
        Some(text) => (kind, text).into_response(),
        None => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}

/// What the driver sees of its pool, at one moment.
struct Seen {
    view: View,
    series: Value,
    memory_limit: Option<String>,
}

impl Seen {
    fn of(workers: &Workers) -> Seen {
        let mut view = workers.driver.view();
        // The busiest of them are enough for people.
        view.packages
            .sort_by_key(|package| Reverse((package.in_flight, package.arrived)));
        view.packages.truncate(SHOWN_MAX);
        view.callers.truncate(SHOWN_MAX);
        let memory_limit = workers.here().and_then(Embedded::memory_limit);
        let memory_limit = memory_limit.map(|limit| match limit {
            Ok(()) => "in force".to_owned(),
            Err(why) => format!("not in force: {why}"),
        });
        Seen {
            view,
            series: workers.driver.lock_series().to_json(),
            memory_limit,
        }
    }

    fn to_json(&self) -> Value {
        let mut shown = serde_json::to_value(&self.view).unwrap_or_default();
        shown["series"] = self.series.clone();
        shown["memory_limit"] = self.memory_limit.clone().into();
        shown
    }
}

/// Each place that has or had something: its program, or the address of its worker.
fn shown(workers: &Workers, seen: &Seen) -> Vec<Value> {
    let mut all = Vec::new();
    for (group, wanted, there) in workers.driver.places() {
        let here = workers.here();
        let supervisor = here.and_then(|here| here.supervisor(group));
        let mut shown = match here.zip(supervisor) {
            Some((here, supervisor)) => {
                let mut shown = program(&supervisor);
                shown["starts"] = here.starts(group).into();
                shown["last_words"] = here.last_words(group).into();
                shown
            }
            None if wanted => json!({
                "program": there.endpoints.first().map_or("worker", |endpoint| &endpoint.name),
                "state": if there.endpoints.is_empty() { "starting" } else { "running" },
                "last_words": there.trouble,
            }),
            None => continue,
        };
        let own = seen
            .view
            .workers
            .iter()
            .filter(|worker| worker.slot.0 == group.0);
        shown["slot"] = group.0.into();
        shown["in_flight"] = own.map(|worker| worker.in_flight).sum::<u32>().into();
        all.push(shown);
    }
    all
}

/// Asks the programs on a thread that may wait; `None` when the gateway ends.
async fn told<T: Send + 'static>(
    fleet: Arc<Fleet>,
    ask: impl FnOnce(&Fleet) -> T + Send + 'static,
) -> Option<T> {
    tokio::task::spawn_blocking(move || ask(&fleet)).await.ok()
}

/// A program and its report. Blocks up to [`REPORT_WAIT`].
fn seen(supervisor: &Supervisor) -> Program {
    let enclave = supervisor.enclave();
    let report = enclave
        .as_ref()
        .and_then(|enclave| enclave.status(REPORT_WAIT).ok());
    Program {
        running: supervisor.state() == Life::Running,
        starts: supervisor.starts(),
        report: report.and_then(|bytes| Status::decode(&bytes).ok()),
    }
}

/// The program's state, if it is one of the words that there are.
fn word(report: &Status) -> &'static str {
    let known = STATES.iter().find(|state| **state == report.state);
    known.copied().unwrap_or_default()
}

fn program(supervisor: &Supervisor) -> Value {
    let Program {
        starts, mut report, ..
    } = seen(supervisor);
    if let Some(report) = &mut report {
        report.state = word(report).to_owned();
        report.metrics.retain(Metric::is_well_named);
    }
    json!({
        "program": supervisor.name(),
        "state": match supervisor.state() {
            Life::Running => "running",
            Life::Stopped => "stopped",
            _ => "restarting",
        },
        "starts": starts,
        "pid": supervisor.enclave().map(|enclave| enclave.pid()),
        "report": report,
        "last_words": supervisor.last_words(),
    })
}
