//! What the host can tell of itself: no user, no key, no content.

use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use bield_launcher::{State as Life, Supervisor};
use bield_protocol::status::Status;
use serde_json::{Value, json};

use crate::http::Face;
use crate::refusal::{Refusal, json_response};

/// How long a program may take to report; a busy one is shown without its report.
const REPORT_WAIT: Duration = Duration::from_secs(2);

/// `GET /healthz`: the gateway itself runs.
pub(crate) async fn alive() -> &'static str {
    "ok\n"
}

/// `GET /readyz`: a call would be taken.
pub(crate) async fn ready(State(face): State<Face>) -> Result<&'static str, Refusal> {
    if face.is_draining() {
        return Err(Refusal::unavailable("draining", "this gateway is stopping"));
    }
    if !face.fleet.is_ready() {
        return Err(Refusal::unavailable(
            "restarting",
            "an enclave program is being restarted",
        ));
    }
    Ok("ready\n")
}

/// `GET /v1/status`: the programs with their states, start counts and own reports.
pub(crate) async fn status(State(face): State<Face>) -> Response {
    let uptime = face.started.elapsed().as_secs();
    let draining = face.is_draining();
    let fleet = face.fleet;
    let report = tokio::task::spawn_blocking(move || {
        let workers: Vec<Value> = fleet
            .workers()
            .iter()
            .map(|worker| {
                let mut shown = program(worker.supervisor());
                shown["in_flight"] = worker.in_flight().into();
                shown["waiting"] = worker.waiting().into();
                shown
            })
            .collect();
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "uptime_seconds": uptime,
            "draining": draining,
            "key_service": fleet.keys().map(program),
            "workers": workers,
        })
    });
    match report.await {
        Ok(report) => json_response(StatusCode::OK, &report),
        Err(_) => json_response(
            StatusCode::SERVICE_UNAVAILABLE,
            &json!({ "draining": true }),
        ),
    }
}

fn program(supervisor: &Supervisor) -> Value {
    let enclave = supervisor.enclave();
    let report = enclave
        .as_ref()
        .and_then(|enclave| enclave.status(REPORT_WAIT).ok());
    let report = report.and_then(|bytes| Status::decode(&bytes).ok());
    json!({
        "program": supervisor.name(),
        "state": match supervisor.state() {
            Life::Running => "running",
            Life::Stopped => "stopped",
            _ => "restarting",
        },
        "starts": supervisor.starts(),
        "pid": enclave.map(|enclave| enclave.pid()),
        "report": report,
    })
}
