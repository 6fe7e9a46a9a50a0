//! Paths and what they share.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::{get, post, put};
use bield_face::{Bodies, Refusal};
use futures_util::FutureExt as _;
use tokio::sync::Semaphore;

use crate::fleet::Fleet;
use crate::openwhisk::{self, Openwhisk};
use crate::page::Page;
use crate::status::Reports;
use crate::{Arguments, calls, packages, status, why};

/// Package uploads at once: two fill a disk's queue.
const UPLOADS_MAX: usize = 4;

/// What every handler sees.
#[derive(Clone)]
pub(crate) struct Face {
    pub(crate) arguments: Arc<Arguments>,
    pub(crate) fleet: Arc<Fleet>,
    /// Directory of sealed packages.
    pub(crate) packages: Arc<Path>,
    pub(crate) bodies: Bodies,
    pub(crate) uploads: Arc<Semaphore>,
    pub(crate) upload_number: Arc<AtomicU64>,
    pub(crate) started: Instant,
    pub(crate) reports: Arc<Reports>,
    draining: Arc<AtomicBool>,
}

impl Face {
    pub(crate) fn new(
        arguments: Arc<Arguments>,
        fleet: Arc<Fleet>,
        draining: Arc<AtomicBool>,
    ) -> Face {
        Face {
            // Empty where no path leads to it.
            packages: arguments.packages.clone().unwrap_or_default().into(),
            bodies: Bodies::new("gateway", arguments.body_bytes_max(), arguments.bodies_mib),
            uploads: Arc::new(Semaphore::new(UPLOADS_MAX)),
            upload_number: Arc::default(),
            started: Instant::now(),
            reports: Arc::default(),
            arguments,
            fleet,
            draining,
        }
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::SeqCst)
    }
}

pub(crate) fn router(face: Face) -> Router {
    let page = Page::new();
    let openwhisk = openwhisk_of(&face);
    let mut router = Router::new()
        .route("/", get(async move || page.answer()))
        .route("/v1/status", get(status::status))
        .route("/metrics", get(status::metrics))
        .route("/healthz", get(status::alive))
        .route("/readyz", get(status::ready));
    // Where only the key service runs, there is nobody to call and nothing to keep packages for.
    if face.arguments.has_workers() {
        router = router
            .route("/v1/call", post(calls::call))
            .route("/v1/why/{request}", get(why::why));
    }
    if face.arguments.packages.is_some() {
        let packages = put(packages::upload).get(packages::download);
        router = router.route("/v1/packages/{digest}", packages);
    }
    let router = router
        .fallback(async || {
            Refusal::new(
                StatusCode::NOT_FOUND,
                "no-such-path",
                "nothing is here; the paths are /, /v1/status, /metrics, /healthz and /readyz, and where runtimes run /v1/call, /v1/why/<request> and /v1/packages/<digest>",
            )
        })
        .method_not_allowed_fallback(async || {
            Refusal::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "other-method",
                "this path takes another method: POST /v1/call, PUT or GET /v1/packages/<digest>, GET the others",
            )
        })
        .with_state(face);
    match openwhisk {
        Some(openwhisk) => router.merge(openwhisk::router(openwhisk)),
        None => router,
    }
}

/// What clients of OpenWhisk see, where an account is named.
fn openwhisk_of(face: &Face) -> Option<Arc<Openwhisk>> {
    let arguments = &face.arguments;
    if arguments.openwhisk_auth.is_empty() {
        return None;
    }
    let answers = {
        let face = face.clone();
        let bytes_max = arguments.openwhisk_limits().sealed_bytes_max();
        move |caller, sealed| {
            let face = face.clone();
            async move { calls::whole(&face, caller, sealed, bytes_max).await }.boxed()
        }
    };
    Some(Arc::new(Openwhisk::new(
        arguments.openwhisk_auth.clone(),
        arguments.openwhisk_limits(),
        &face.bodies,
        Box::new(answers),
    )))
}
