//! The protocol over gRPC.
//!
//! Always true: elements arrive either raw for all inputs or typed for all; answers are raw, which every
//! client reads and which alone carries FP16. A message has at most [`BODY_BYTES_MAX`] bytes, and
//! [`MESSAGES_MAX`] are read at a time, whoever sends them.
//!
//! On paper, per call: raw inputs are copied once out of the message, outputs not at all until they are sent.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request as HttpRequest, State};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response as HttpResponse;
use bield_protocol::inference::TENSORS_MAX;
use bield_sdk::{ElementType, Tensor, TensorSpec};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tonic::{Code, Request, Response, Status};

use super::elements;
use crate::front::{BODY_BYTES_MAX, Front};
use crate::guard;
use crate::refused::Refused;
use crate::upstream::Done;

use proto::grpc_inference_service_server::{GrpcInferenceService, GrpcInferenceServiceServer};
use proto::model_infer_request::InferInputTensor;
use proto::model_infer_response::InferOutputTensor;
use proto::model_metadata_response::TensorMetadata;
use proto::repository_index_response::ModelIndex;
use proto::{InferParameter, InferTensorContents, ModelInferRequest, ModelInferResponse};

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

/// Messages that are read or answered at a time.
const MESSAGES_MAX: usize = 16;
/// Longest wait for one of those places.
const PLACE_WAIT: Duration = Duration::from_secs(30);
/// Longest time for one exchange; the longest call takes less.
const EXCHANGE_WAIT: Duration = Duration::from_secs(300);

/// The service's paths, guarded.
pub(crate) fn router(front: Arc<Front>) -> Router {
    let service = GrpcInferenceServiceServer::new(Face {
        front: front.clone(),
    })
    .max_decoding_message_size(BODY_BYTES_MAX)
    .max_encoding_message_size(usize::MAX);
    let places = Arc::new(Semaphore::new(MESSAGES_MAX));
    tonic::service::Routes::new(service)
        .into_axum_router()
        .layer(from_fn_with_state((front, places), guarded))
}

async fn guarded(
    State((front, places)): State<(Arc<Front>, Arc<Semaphore>)>,
    request: HttpRequest,
    next: Next,
) -> HttpResponse {
    if let Err(refused) = guard::check(front.token.as_ref(), request.uri(), request.headers()) {
        return Status::from(refused).into_http();
    }
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
            if let Some(version) = version(&request.model_version) {
                super::about(upstream, &model, Some(version))?;
            }
            let (inputs, outputs) = read(request)?;
            upstream.call(&model, inputs, outputs)
        });
        let done = done.await?;
        let headers = self.front.headers(std::slice::from_ref(&done));
        let mut response = Response::new(write(done, id));
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

/// The inputs, and the names of the outputs that are wanted.
fn read(request: ModelInferRequest) -> Result<(Vec<Tensor>, Vec<String>), Refused> {
    if request.inputs.len() > TENSORS_MAX || request.outputs.len() > TENSORS_MAX {
        return Err(Refused::bad(format_args!(
            "more than {TENSORS_MAX} tensors"
        )));
    }
    let raw = request.raw_input_contents;
    if !raw.is_empty() && raw.len() != request.inputs.len() {
        return Err(Refused::bad(
            "raw_input_contents has another number of entries than there are inputs",
        ));
    }
    let mut raw = raw.into_iter();
    let mut inputs = Vec::with_capacity(request.inputs.len());
    for input in request.inputs {
        inputs.push(tensor(input, raw.next().map(Vec::from))?);
    }
    let mut outputs = Vec::with_capacity(request.outputs.len());
    for output in request.outputs {
        if output.parameters.contains_key("shared_memory_region")
            || output.parameters.contains_key("classification")
        {
            return Err(Refused::bad(
                "shared memory and classification are not supported here",
            ));
        }
        if outputs.contains(&output.name) {
            return Err(Refused::bad("an output is asked for twice"));
        }
        outputs.push(output.name);
    }
    Ok((inputs, outputs))
}

fn tensor(input: InferInputTensor, raw: Option<Vec<u8>>) -> Result<Tensor, Refused> {
    if input.parameters.contains_key("shared_memory_region") {
        return Err(Refused::bad("shared memory is not supported here"));
    }
    let element = elements::element(&input.datatype).ok_or_else(|| {
        Refused::bad(
            "an input's datatype is none of BOOL, UINT8 to UINT64, INT8 to INT64, FP16, FP32, FP64, BYTES",
        )
    })?;
    let shape: Result<Vec<u64>, _> = input.shape.into_iter().map(u64::try_from).collect();
    let shape = shape.map_err(|_| Refused::bad("a dimension of an input is negative"))?;
    let data = match (raw, input.contents) {
        (Some(raw), None) => raw,
        (None, contents) => typed(element, &contents.unwrap_or_default())?,
        _ => {
            return Err(Refused::bad(
                "an input has both raw_input_contents and contents; the protocol allows one of them",
            ));
        }
    };
    Tensor::new(input.name, element, shape, data).map_err(Refused::bad)
}

/// The bytes of typed contents, which stand in the field of their datatype and no other.
fn typed(element: ElementType, contents: &InferTensorContents) -> Result<Vec<u8>, Refused> {
    let InferTensorContents {
        bool_contents: bools,
        int_contents: ints,
        int64_contents: longs,
        uint_contents: naturals,
        uint64_contents: long_naturals,
        fp32_contents: singles,
        fp64_contents: doubles,
        bytes_contents: texts,
    } = contents;
    let counts = [
        bools.len(),
        ints.len(),
        longs.len(),
        naturals.len(),
        long_naturals.len(),
        singles.len(),
        doubles.len(),
        texts.len(),
    ];
    let given: usize = counts.iter().sum();
    let narrow = || Refused::bad("a value is not one that the input's datatype can hold");
    macro_rules! narrowed {
        ($values:expr, $type:ty) => {{
            let mut bytes = Vec::with_capacity($values.len() * size_of::<$type>());
            for value in $values {
                bytes.extend(
                    <$type>::try_from(*value)
                        .map_err(|_| narrow())?
                        .to_le_bytes(),
                );
            }
            ($values.len(), bytes)
        }};
    }
    macro_rules! as_is {
        ($values:expr) => {
            (
                $values.len(),
                $values
                    .iter()
                    .flat_map(|value| value.to_le_bytes())
                    .collect(),
            )
        };
    }
    let (taken, bytes): (usize, Vec<u8>) = match element {
        ElementType::Bool => (bools.len(), bools.iter().map(|b| u8::from(*b)).collect()),
        ElementType::I8 => narrowed!(ints, i8),
        ElementType::I16 => narrowed!(ints, i16),
        ElementType::I32 => as_is!(ints),
        ElementType::I64 => as_is!(longs),
        ElementType::U8 => narrowed!(naturals, u8),
        ElementType::U16 => narrowed!(naturals, u16),
        ElementType::U32 => as_is!(naturals),
        ElementType::U64 => as_is!(long_naturals),
        ElementType::F32 => as_is!(singles),
        ElementType::F64 => as_is!(doubles),
        ElementType::F16 => {
            return Err(Refused::bad(
                "FP16 has no typed contents; use raw_input_contents",
            ));
        }
        ElementType::String => {
            let mut bytes = Vec::new();
            for text in texts {
                bytes.extend(
                    u32::try_from(text.len())
                        .map_err(|_| narrow())?
                        .to_le_bytes(),
                );
                bytes.extend_from_slice(text);
            }
            (texts.len(), bytes)
        }
    };
    if taken != given {
        return Err(Refused::bad(
            "an input's contents stand in a field of another datatype",
        ));
    }
    Ok(bytes)
}

fn write(done: Done, id: String) -> ModelInferResponse {
    let receipt = InferParameter {
        parameter_choice: Some(proto::infer_parameter::ParameterChoice::StringParam(
            done.receipt.to_string(),
        )),
    };
    let length = |n: &u64| i64::try_from(*n).unwrap_or(i64::MAX);
    let output = |tensor: &Tensor| InferOutputTensor {
        name: tensor.name().to_owned(),
        datatype: elements::datatype(tensor.element()).to_owned(),
        shape: tensor.shape().iter().map(length).collect(),
        ..InferOutputTensor::default()
    };
    ModelInferResponse {
        model_name: done.model,
        model_version: done.version,
        id,
        parameters: [("bield_receipt".to_owned(), receipt)].into(),
        outputs: done.tensors.iter().map(output).collect(),
        raw_output_contents: done
            .tensors
            .into_iter()
            .map(|tensor| tensor.into_data().into())
            .collect(),
    }
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
