//! What the host can tell of itself: no user, no key, no content.
//!
//! Always true: however many ask, programs and driver are asked by one at a time, a few times a second, and all programs at
//! once, so that those which do not answer cost [`REPORT_WAIT`] together.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use bield_engines::{Embedded, Group};
use bield_face::{Refusal, json_response};
use bield_launcher::{State as Life, Supervisor};
use bield_packer::View;
use bield_protocol::status::{Metric, STATES, Status};
use futures_util::FutureExt as _;
use futures_util::future::{OptionFuture, join, join_all};
use serde_json::{Value, json};

use crate::fleet::{Fleet, Workers};
use crate::gate::Gate;
use crate::http::Face;
use crate::metrics::{Program, Text};
use crate::series::Sums;

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
    let stopping = |()| Refusal::unavailable("draining", "this gateway is stopping");
    let fleet = face.fleet;
    if fleet
        .workers()
        .is_some_and(|workers| !workers.would_take_a_call())
    {
        let words = tokio::task::spawn_blocking(move || fleet.workers()?.trouble());
        return Err(restarting(words.await.map_err(|_| stopping(()))?));
    }
    let Some(keys) = fleet.keys() else {
        return Ok("ready\n");
    };
    let (supervisor, words) = (Arc::clone(&keys.supervisor), keys.supervisor.last_words());
    let keys = face.reports.keys.ask(reported(supervisor)).await;
    let keys = keys.ok_or_else(|| stopping(()))?;
    if !keys.running {
        return Err(restarting(words));
    }
    let report = keys.report.as_ref().ok_or_else(|| {
        Refusal::unavailable(
            "key-service-silent",
            "the key service does not report; wait for it",
        )
    })?;
    match word(report) {
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
    let Some(report) = face.reports.all(&face.fleet).await else {
        return json_response(
            StatusCode::SERVICE_UNAVAILABLE,
            &json!({ "draining": true }),
        );
    };
    let workers = face.fleet.workers().zip(report.pool.as_ref());
    let workers = workers.map_or_else(Vec::new, |(workers, pool)| shown(workers, pool, &report));
    let keys = face.fleet.keys().zip(report.keys.as_deref());
    let key_service = keys.map(|(keys, seen)| {
        let mut shown = program(&keys.supervisor, seen);
        let ports = [&keys.outside, &keys.members, &keys.own];
        let open = ports.map(|sessions| sessions.counts().open);
        shown["sessions"] = open.iter().sum::<usize>().into();
        shown
    });
    let shown = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_seconds": uptime,
        "draining": draining,
        "key_service": key_service,
        "workers": workers,
        "pool": report.pool.as_ref().map(Pool::to_json),
    });
    json_response(StatusCode::OK, &shown)
}

/// `GET /metrics`: see [`Text`].
pub(crate) async fn metrics(State(face): State<Face>) -> Response {
    let Some(report) = face.reports.all(&face.fleet).await else {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    };
    let mut text = Text::default();
    if let Some((keys, seen)) = face.fleet.keys().zip(report.keys.as_deref()) {
        text.keys(seen);
        text.sessions("outside", &keys.outside.counts());
        text.sessions("members", &keys.members.counts());
        text.sessions("own", &keys.own.counts());
    }
    for (group, seen) in &report.workers {
        text.runtime(group.0, seen);
    }
    if let Some(pool) = &report.pool {
        text.pool(&pool.view);
        text.calls(&pool.sums);
    }
    let kind = [(
        header::CONTENT_TYPE,
        "text/plain; version=0.0.4; charset=utf-8",
    )];
    (kind, text.finish()).into_response()
}

/// What is asked of programs and of the driver, for all who want to see it.
#[derive(Default)]
pub(crate) struct Reports {
    keys: Gate<Arc<Program>>,
    all: Gate<Arc<Report>>,
}

/// What programs and the driver said, within [`REPORT_WAIT`] of each other.
struct Report {
    keys: Option<Arc<Program>>,
    workers: BTreeMap<Group, Arc<Program>>,
    pool: Option<Pool>,
}

impl Reports {
    /// Asks all of them at once; `None` when the gateway ends.
    async fn all(&self, fleet: &Arc<Fleet>) -> Option<Arc<Report>> {
        let fleet = Arc::clone(fleet);
        let report = async move {
            let keys = fleet
                .keys()
                .map(|keys| reported(Arc::clone(&keys.supervisor)));
            let workers = fleet.workers().into_iter().flat_map(|workers| {
                let places = workers.driver.places().into_iter();
                places.filter_map(|(group, _, _)| Some((group, workers.here()?.supervisor(group)?)))
            });
            let workers = workers
                .map(|(group, supervisor)| reported(supervisor).map(move |seen| (group, seen)));
            let (keys, workers) = join(OptionFuture::from(keys), join_all(workers)).await;
            Arc::new(Report {
                keys,
                workers: workers.into_iter().collect(),
                pool: fleet.workers().map(Pool::of),
            })
        };
        self.all.ask(report).await
    }
}

/// What the driver sees of its pool, at one moment.
struct Pool {
    view: View,
    series: Value,
    sums: Sums,
    memory_limit: Option<String>,
}

impl Pool {
    fn of(workers: &Workers) -> Pool {
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
        let series = workers.driver.lock_series();
        Pool {
            view,
            series: series.to_json(),
            sums: series.sums().clone(),
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
fn shown(workers: &Workers, pool: &Pool, report: &Report) -> Vec<Value> {
    let mut all = Vec::new();
    for (group, wanted, there) in workers.driver.places() {
        let here = workers.here();
        let supervisor = here.and_then(|here| here.supervisor(group));
        let seen = report.workers.get(&group);
        let mut shown = match here.zip(supervisor).zip(seen) {
            Some(((here, supervisor), seen)) => {
                let mut shown = program(&supervisor, seen);
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
        let own = pool
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

/// A program and its report, asked for on a thread that may wait.
async fn reported(supervisor: Arc<Supervisor>) -> Arc<Program> {
    let asked = Arc::clone(&supervisor);
    let seen = tokio::task::spawn_blocking(move || seen(&asked)).await;
    // Without its thread the gateway is ending.
    Arc::new(seen.unwrap_or_else(|_| Program {
        running: false,
        starts: supervisor.starts(),
        report: None,
    }))
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

fn program(supervisor: &Supervisor, seen: &Program) -> Value {
    let (starts, mut report) = (seen.starts, seen.report.clone());
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
