//! `POST /v1/call`: a sealed request in, a sealed answer out, at once or as it comes.
//!
//! Whether it comes in parts is the runtime's word. A connection that breaks is all that tells a client of an answer that
//! was cut; who verifies needs no telling. Every answer and every refusal carries the gateway's number of the request, by
//! which `/v1/why` knows it for a while.

use std::hash::{BuildHasher as _, RandomState};
use std::net::SocketAddr;
use std::sync::LazyLock;

use axum::body::Body as HttpBody;
use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use bield_engines::{Answer, Body, Bytes};
use bield_face::{FEEDBACK, Failure, Refusal, SEALED, feedback_header, package_of};
use bield_packer::Caller;
use bield_protocol::feedback::{Feedback, StatePlace};
use futures_util::StreamExt as _;

use crate::fleet::Workers;
use crate::http::Face;
use crate::openwhisk::TOO_LONG;
use crate::places;

/// Carries the gateway's number of a request.
const REQUEST: HeaderName = HeaderName::from_static("bield-request");

pub(crate) async fn call(
    State(face): State<Face>,
    ConnectInfo(from): ConnectInfo<SocketAddr>,
    body: HttpBody,
) -> Response {
    let Some(workers) = face.fleet.workers() else {
        return no_runtime().into_response();
    };
    let number = workers.driver.number();
    let mut response = match answer(&face, workers, number, from, body).await {
        Ok(answer) => into_response(answer),
        Err(refusal) => refusal.into_response(),
    };
    response.headers_mut().insert(REQUEST, number.into());
    response
}

async fn answer(
    face: &Face,
    workers: &Workers,
    number: u64,
    from: SocketAddr,
    body: HttpBody,
) -> Result<Answer, Refusal> {
    let may_begin = match face.is_draining() {
        true => Err(draining()),
        false => Ok(()),
    };
    let body = face.bodies.unless(may_begin, body).await?;
    let (sealed, _memory) = face.bodies.read(body).await?;
    let package = package_of(&sealed)?;
    workers
        .driver
        .call(number, package, caller(from), sealed)
        .await
}

/// Answers a sealed request in one piece: the feedback, and the sealed answer of at most so many bytes.
pub(crate) async fn whole(
    face: &Face,
    caller: Caller,
    sealed: Bytes,
    bytes_max: usize,
) -> Result<(Option<Feedback>, Bytes), Refusal> {
    if face.is_draining() {
        return Err(draining());
    }
    let driver = face.fleet.workers().map(|workers| &workers.driver);
    let driver = driver.ok_or_else(no_runtime)?;
    let package = package_of(&sealed)?;
    let Answer { feedback, body } = driver
        .call(driver.number(), package, caller, sealed)
        .await?;
    let bytes = match body {
        Body::Whole(bytes) if bytes.len() > bytes_max => return Err(too_long()),
        Body::Whole(bytes) => bytes,
        Body::Refused(refusal) => return Err(refusal),
        Body::InParts(mut parts) => {
            let mut answer = Vec::new();
            while let Some(part) = parts.next().await {
                let part = part.map_err(|_| Failure::Lost)?;
                if answer.len() + part.len() > bytes_max {
                    return Err(too_long());
                }
                answer.extend_from_slice(&part);
            }
            answer.into()
        }
    };
    Ok((feedback, bytes))
}

fn too_long() -> Refusal {
    Refusal::new(
        StatusCode::BAD_GATEWAY,
        TOO_LONG,
        "the sealed answer is longer than a result may be; ask for less",
    )
}

fn draining() -> Refusal {
    Refusal::unavailable(
        "draining",
        "this gateway is stopping; try another one or come back",
    )
}

fn no_runtime() -> Refusal {
    Refusal::unavailable("no-runtime", "this gateway runs no runtimes")
}

/// Who calls, as far as this host knows: their network, under a key of this process, so that what the status shows of them
/// tells nobody who they are.
fn caller(from: SocketAddr) -> Caller {
    static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    Caller(KEY.hash_one(places::peer(from.ip())))
}

fn into_response(answer: Answer) -> Response {
    let kind = [(header::CONTENT_TYPE, SEALED)];
    let mut response = match answer.body {
        Body::Whole(bytes) => (kind, bytes).into_response(),
        Body::InParts(parts) => (kind, HttpBody::from_stream(parts)).into_response(),
        Body::Refused(refusal) => refusal.into_response(),
    };
    if let Some(feedback) = &answer.feedback {
        let headers = response.headers_mut();
        headers.insert(FEEDBACK, feedback_header(feedback));
        if let Some(StatePlace::Elsewhere(millis)) = feedback.state {
            headers.insert(header::RETRY_AFTER, millis.div_ceil(1000).max(1).into());
        }
    }
    response
}

#[cfg(test)]
mod tests {
    use bield_protocol::feedback::StartKind;

    use super::*;

    #[test]
    fn a_caller_is_a_network_and_not_a_connection() {
        let of = |address: &str| caller(address.parse().unwrap());
        assert_eq!(of("10.0.0.1:1"), of("10.0.0.1:2"));
        assert_ne!(of("10.0.0.1:1"), of("10.0.0.2:1"));
        assert_eq!(of("[2001:db8:0:1::1]:1"), of("[2001:db8:0:2::9]:1"));
    }

    #[test]
    fn an_answer_that_another_runtime_could_give_says_when_to_come_back() {
        let retry_after = |state| {
            let feedback = Feedback {
                start: StartKind::Hot,
                lease_us: 0,
                open_us: 0,
                load_us: 0,
                run_us: 0,
                total_us: 0,
                resident: Vec::new(),
                in_flight: 0,
                queue_us: 0,
                free_bytes: 0,
                engine: None,
                state,
            };
            let response = into_response(Answer {
                feedback: Some(feedback),
                body: Body::Whole(Bytes::new()),
            });
            let value = response.headers().get(header::RETRY_AFTER);
            value.map(|value| value.to_str().unwrap().to_owned())
        };
        assert_eq!(retry_after(None), None);
        assert_eq!(retry_after(Some(StatePlace::Here)), None);
        let away = retry_after(Some(StatePlace::Elsewhere(1500)));
        assert_eq!(away.as_deref(), Some("2"));
    }
}
