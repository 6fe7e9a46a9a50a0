//! The protocol over gRPC.
//!
//! Always true: elements arrive either raw for all inputs or typed for all; answers are raw, which every
//! client reads and which alone carries FP16. A message has at most [`MESSAGE_BYTES_MAX`] bytes and is looked at before
//! anything is made of it (`grpc/bounded.rs`); [`CALLS_MAX`] calls and [`OTHERS_MAX`] other messages are read at a time,
//! whoever sends them. Larger calls go over REST.
//!
//! On paper, per call: raw inputs are copied once out of the message, outputs not at all until they are sent.

mod bounded;
mod messages;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request as HttpRequest, State};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response as HttpResponse;
use bield_sdk::TensorSpec;
use http_body_util::Limited;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tonic::{Code, Request, Response, Status};

use super::elements;
use crate::front::Front;
use crate::guard;
use crate::refused::Refused;

use proto::grpc_inference_service_server::{GrpcInferenceService, GrpcInferenceServiceServer};
use proto::model_metadata_response::TensorMetadata;
use proto::repository_index_response::ModelIndex;
use proto::{ModelInferRequest, ModelInferResponse};

/// Messages of `proto/inference.proto`.
pub(crate) mod proto {
    #![expect(
        unreachable_pub,
        unused_qualifications,
        clippy::allow_attributes,
        clippy::enum_variant_names,
        reason = "made by tonic-prost-build"
    )]
    tonic::include_proto!("inference");
}

/// Largest message.
const MESSAGE_BYTES_MAX: usize = 64 << 20;
/// Largest message that is no call.
const OTHER_BYTES_MAX: usize = 64 << 10;
/// Calls that are read or answered at a time.
const CALLS_MAX: usize = 8;
/// Other messages that are.
const OTHERS_MAX: usize = 16;
/// Longest wait for one of those places.
const PLACE_WAIT: Duration = Duration::from_secs(30);
/// Longest time for one exchange: a call that takes longer goes on, and its answer is not told.
const EXCHANGE_WAIT: Duration = Duration::from_secs(300);

/// The service's paths, guarded.
pub(crate) fn router(front: Arc<Front>) -> Router {
    let service = GrpcInferenceServiceServer::new(Face {
        front: front.clone(),
    })
    .max_decoding_message_size(MESSAGE_BYTES_MAX)
    .max_encoding_message_size(usize::MAX);
    let places = Arc::new(Places {
        calls: Semaphore::new(CALLS_MAX),
        others: Semaphore::new(OTHERS_MAX),
    });
    tonic::service::Routes::new(service)
        .into_axum_router()
        .layer(from_fn_with_state((front, places), guarded))
}

/// Who may be read at a time.
struct Places {
    calls: Semaphore,
    others: Semaphore,
}

async fn guarded(
    State((front, places)): State<(Arc<Front>, Arc<Places>)>,
    request: HttpRequest,
    next: Next,
) -> HttpResponse {
    if let Err(refused) = guard::check(front.token.as_ref(), request.uri(), request.headers()) {
        return Status::from(refused).into_http();
    }
    let (places, request) = if request.uri().path().ends_with("/ModelInfer") {
        (&places.calls, request)
    } else {
        let bounded = |body| Body::new(Limited::new(body, OTHER_BYTES_MAX));
        (&places.others, request.map(bounded))
    };
    let Ok(Ok(_place)) = timeout(PLACE_WAIT, places.acquire()).await else {
        return Status::from(Refused::busy("too many messages at once; retry")).into_http();
    };
    match timeout(EXCHANGE_WAIT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Status::deadline_exceeded("this took too long; retry").into_http(),
    }
}

struct Face {
    front: Arc<Front>,
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl GrpcInferenceService for Face {
    async fn server_live(
        &self,
        _: Request<proto::ServerLiveRequest>,
    ) -> Answer<proto::ServerLiveResponse> {
        Ok(Response::new(proto::ServerLiveResponse { live: true }))
    }

    async fn server_ready(
        &self,
        _: Request<proto::ServerReadyRequest>,
    ) -> Answer<proto::ServerReadyResponse> {
        let models = self
            .front
            .run(|upstream| Ok(super::listed(upstream)))
            .await?;
        let ready = models.iter().all(|model| model.reason.is_none());
        Ok(Response::new(proto::ServerReadyResponse { ready }))
    }

    async fn model_ready(
        &self,
        request: Request<proto::ModelReadyRequest>,
    ) -> Answer<proto::ModelReadyResponse> {
        let asked = request.into_inner();
        let told = self.front.run(move |upstream| {
            super::about(upstream, &asked.name, version(&asked.version)).map(drop)
        });
        match told.await {
            Ok(()) => Ok(Response::new(proto::ModelReadyResponse { ready: true })),
            Err(refused) if refused.status == StatusCode::NOT_FOUND => Err(refused.into()),
            Err(_) => Ok(Response::new(proto::ModelReadyResponse { ready: false })),
        }
    }

    async fn server_metadata(
        &self,
        _: Request<proto::ServerMetadataRequest>,
    ) -> Answer<proto::ServerMetadataResponse> {
        Ok(Response::new(proto::ServerMetadataResponse {
            name: super::PLATFORM.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            extensions: super::EXTENSIONS.map(str::to_owned).to_vec(),
        }))
    }

    async fn model_metadata(
        &self,
        request: Request<proto::ModelMetadataRequest>,
    ) -> Answer<proto::ModelMetadataResponse> {
        let asked = request.into_inner();
        let told = self
            .front
            .run(move |upstream| super::about(upstream, &asked.name, version(&asked.version)));
        let about = told.await?;
        let tensor = |spec: &TensorSpec| TensorMetadata {
            name: spec.name().to_owned(),
            datatype: elements::datatype(spec.element()).to_owned(),
            shape: super::shape(spec),
        };
        Ok(Response::new(proto::ModelMetadataResponse {
            name: about.name,
            versions: vec![about.version],
            platform: super::PLATFORM.to_owned(),
            inputs: about.inputs.iter().map(tensor).collect(),
            outputs: about.outputs.iter().map(tensor).collect(),
        }))
    }

    async fn model_infer(&self, request: Request<ModelInferRequest>) -> Answer<ModelInferResponse> {
        let request = request.into_inner();
        let id = request.id.clone();
        let done = self.front.run(move |upstream| {
            let model = request.model_name.clone();
            let about = super::about(upstream, &model, version(&request.model_version))?;
            let (inputs, outputs) = messages::read(request)?;
            upstream.call(&about, inputs, outputs)
        });
        let done = done.await?;
        let headers = self.front.headers(std::slice::from_ref(&done));
        let mut response = Response::new(messages::write(done, id));
        *response.metadata_mut() = tonic::metadata::MetadataMap::from_headers(headers);
        Ok(response)
    }

    async fn repository_index(
        &self,
        request: Request<proto::RepositoryIndexRequest>,
    ) -> Answer<proto::RepositoryIndexResponse> {
        let only_ready = request.into_inner().ready;
        let models = self
            .front
            .run(|upstream| Ok(super::listed(upstream)))
            .await?;
        let models = models
            .into_iter()
            .filter(|model| !only_ready || model.reason.is_none());
        let models = models.map(|model| ModelIndex {
            state: model.state().to_owned(),
            name: model.name,
            version: model.version,
            reason: model.reason.unwrap_or_default(),
        });
        Ok(Response::new(proto::RepositoryIndexResponse {
            models: models.collect(),
        }))
    }
}

fn version(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

impl From<Refused> for Status {
    fn from(refused: Refused) -> Self {
        let code = match refused.status.as_u16() {
            401 => Code::Unauthenticated,
            403 => Code::PermissionDenied,
            404 => Code::NotFound,
            408 | 504 => Code::DeadlineExceeded,
            413 | 429 => Code::ResourceExhausted,
            503 => Code::Unavailable,
            502 if refused.code == "not-verified" => Code::DataLoss,
            502 => Code::Unavailable,
            status if status < 500 => Code::InvalidArgument,
            _ => Code::Internal,
        };
        let mut response = HttpResponse::default();
        refused.mark(&mut response);
        let mut headers = std::mem::take(response.headers_mut());
        headers.remove(axum::http::header::WWW_AUTHENTICATE);
        let metadata = tonic::metadata::MetadataMap::from_headers(headers);
        Self::with_metadata(code, refused.message, metadata)
    }
}
