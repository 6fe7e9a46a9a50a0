//! The HTTP container's probes.

use std::sync::Arc;

use axum::extract::State;
use bield_face::Refusal;

use super::Faces;

/// `GET /healthz`: this process runs.
pub(super) async fn alive() -> &'static str {
    "ok\n"
}

/// `GET /readyz`: the runtime is up and reports, and new work is taken.
pub(super) async fn ready(State(faces): State<Arc<Faces>>) -> Result<&'static str, Refusal> {
    faces.worker.is_ready().await?;
    Ok("ready\n")
}
