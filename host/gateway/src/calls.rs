//! `POST /v1/call`: a sealed request in, a sealed answer out, at once or as it comes.
//!
//! Whether it comes in parts is the runtime's word. A connection that breaks is all that tells a client of an answer that
//! was cut; who verifies needs no telling.

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use bield_face::{Outcome, Refusal, package_of};

use crate::http::Face;

pub(crate) async fn call(State(face): State<Face>, body: Body) -> Result<Response, Refusal> {
    if face.is_draining() {
        return Err(Refusal::unavailable(
            "draining",
            "this gateway is stopping; try another one or come back",
        ));
    }
    let (sealed, _memory) = face.bodies.read(body).await?;
    let package = package_of(&sealed)?;
    let answer = face.fleet.call(&package, sealed).await?;
    Ok(Outcome::of(answer)?.into_response())
}
