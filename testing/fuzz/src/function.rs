//! Functions: what callers ask and get, and what owners say of them in packages.

use std::collections::BTreeSet;

use bield_envelope::wire;
use bield_package::{
    BUCKETS_MAX, FUNCTION_MODELS_MAX, FunctionSpec, MANIFEST_BYTES_MAX, Manifest, ManifestDraft,
    ModelFormat, PackageHead, STATE_CONFIG_RECORDS_MAX, STATE_KEYRING_BYTES_MAX,
    STATE_METADATA_BYTES_MAX,
};
use bield_protocol::function::{
    CONTENT_TYPE_BYTES_MAX, FAILURE_BYTES_MAX, FunctionOutput, FunctionRequest, PATH_BYTES_MAX,
    TOKEN_BYTES_MAX, is_content_type, is_path,
};

use crate::{cast, package, vectors};

/// What a runtime reads from a caller, after opening it.
pub fn function_request(data: &[u8]) -> bool {
    let Ok(request) = FunctionRequest::decode(data) else {
        return false;
    };
    assert!(FunctionRequest::is_one(data) && request.is_well_formed());
    assert!(is_path(&request.path) && request.path.len() <= PATH_BYTES_MAX);
    assert!(is_content_type(&request.content_type));
    assert!(request.content_type.len() <= CONTENT_TYPE_BYTES_MAX);
    assert!(token_fits(request.seen.as_deref()));
    // No line of a log and no header of HTTP can be broken by what was accepted.
    let lines = [&request.path, &request.content_type].map(|text| text.contains(['\r', '\n']));
    assert_eq!(lines, [false; 2]);
    assert!(*request.encode() == *data, "a second encoding");
    true
}

/// What a caller reads from a runtime, after opening it; the bytes that a receipt commits to.
pub fn function_output(data: &[u8]) -> bool {
    let Ok(output) = FunctionOutput::decode(data) else {
        return false;
    };
    assert_ne!(output.response.is_some(), output.failure.is_some());
    assert!(token_fits(output.state.as_deref()));
    if let Some(response) = &output.response {
        assert!(is_content_type(&response.content_type));
    }
    if let Some(failure) = &output.failure {
        assert!(failure.message.len() <= FAILURE_BYTES_MAX);
    }
    assert!(*output.encode() == *data, "a second encoding");
    true
}

/// The manifest of a function whose owner is hostile: what packs is within its bounds and comes back out unchanged.
///
/// Input: the manifest in the clear (CBOR).
pub fn function_manifest(data: &[u8]) -> bool {
    let Ok(manifest) = wire::decode::<Manifest>(data, MANIFEST_BYTES_MAX as usize) else {
        return false;
    };
    let Some(function) = manifest.function else {
        return false;
    };
    let said = wire::encode_secret(&function);
    let mut draft = ManifestDraft::function(manifest.name, manifest.version, function);
    draft.format = manifest.format;
    (draft.inputs, draft.outputs, draft.golden) =
        (manifest.inputs, manifest.outputs, manifest.golden);
    let Some(file) = package::packed(draft, COMPONENT, 1) else {
        return false;
    };
    let opened = PackageHead::read(&mut &file[..])
        .and_then(|head| head.open_manifest(&cast::package_key()))
        .expect("what packs opens")
        .into_manifest();
    assert!(opened.format == ModelFormat::Component);
    assert!(opened.inputs.is_empty() && opened.outputs.is_empty() && opened.golden.is_empty());
    let function = opened.function.expect("it was packed");
    assert_eq!(*wire::encode_secret(&function), *said);
    assert_bounds(&function);
    true
}

fn assert_bounds(function: &FunctionSpec) {
    assert_eq!(function.limits.check(), Ok(()));
    let buckets: BTreeSet<&str> = function.buckets.iter().map(|b| &*b.name).collect();
    let models: BTreeSet<&str> = function.models.iter().map(|m| &*m.name).collect();
    assert_eq!(
        (buckets.len(), models.len()),
        (function.buckets.len(), function.models.len())
    );
    assert!(buckets.len() <= BUCKETS_MAX && models.len() <= FUNCTION_MODELS_MAX);
    for name in buckets.iter().chain(&models) {
        // A name stands in file names, in URLs and in keys of the table.
        let plain =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte);
        assert!((1..=63).contains(&name.len()) && name.bytes().all(plain));
        assert!(!name.contains("..") && !name.starts_with('.') && !name.ends_with('.'));
    }
    assert_eq!(function.state.is_some(), !buckets.is_empty());
    if let Some(state) = &function.state {
        assert!((1..=STATE_METADATA_BYTES_MAX).contains(&state.metadata.len()));
        assert!(state.keyring.expose().len() <= STATE_KEYRING_BYTES_MAX);
        assert!((1..=STATE_CONFIG_RECORDS_MAX).contains(&state.config.len()));
    }
}

fn token_fits(token: Option<&[u8]>) -> bool {
    token.is_none_or(|token| token.len() <= TOKEN_BYTES_MAX)
}

/// What packing does not look into.
const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";

pub(crate) mod seeds {
    use super::*;
    use bield_package::{
        BucketSpec, Consistency, Durability, FunctionLimits, NamedModel, StateKeys, StateSpec,
    };
    use bield_protocol::function::{FailureKind, FunctionFailure, FunctionResponse};

    pub(crate) fn function_request() -> Vec<Vec<u8>> {
        let request = |path: &str, content_type: &str, body: &[u8], seen| {
            let request = FunctionRequest {
                path: path.to_owned(),
                content_type: content_type.to_owned(),
                body: body.to_vec().into(),
                seen,
            };
            request.encode().to_vec()
        };
        vec![
            request("/", "", b"", None),
            request("/cart/add?é", "application/json", b"{}", Some(vec![0x80])),
            request("/visit", "text/plain; charset=utf-8", &[7; 300], None),
        ]
    }

    pub(crate) fn function_output() -> Vec<Vec<u8>> {
        let response = || FunctionResponse {
            content_type: "text/plain".to_owned(),
            body: b"3".to_vec().into(),
        };
        let failure = |kind| FunctionFailure {
            kind,
            message: "sold out".to_owned(),
        };
        let outputs = [
            FunctionOutput::answered(response(), None),
            FunctionOutput::answered(response(), Some(vec![0x80])),
            FunctionOutput::failed(failure(FailureKind::Conflict), None),
            FunctionOutput::failed(failure(FailureKind::BadRequest), Some(vec![0x80])),
        ];
        outputs.map(|output| output.encode().to_vec()).to_vec()
    }

    pub(crate) fn function_manifest() -> Vec<Vec<u8>> {
        let frozen = vectors::bytes("05-package", "/function/manifest");
        [
            spec(0, 0),
            spec(2, 1),
            spec(BUCKETS_MAX, FUNCTION_MODELS_MAX),
        ]
        .into_iter()
        .map(manifest)
        .chain(frozen)
        .collect()
    }

    /// As it stands in a package, in the clear.
    fn manifest(function: FunctionSpec) -> Vec<u8> {
        let name = "cart".parse().expect("a valid name");
        let version = "0.1.0".parse().expect("a valid version");
        let draft = ManifestDraft::function(name, version, function);
        let file = package::packed(draft, COMPONENT, 1).expect("within its bounds");
        let opened = PackageHead::read(&mut &file[..])
            .and_then(|head| head.open_manifest(&cast::package_key()))
            .expect("just packed");
        wire::encode_secret(opened.manifest()).to_vec()
    }

    fn spec(buckets: usize, models: usize) -> FunctionSpec {
        let kinds = [
            (Consistency::Linearizable, Durability::LocalSync),
            (Consistency::Eventual, Durability::Memory),
            (Consistency::Epoch, Durability::Local),
        ];
        let bucket = |(at, (consistency, durability))| BucketSpec {
            name: format!("bucket-{at}"),
            consistency,
            durability,
        };
        let model = |at: usize| NamedModel {
            name: format!("model.{at}"),
            package: cast::digest("package"),
        };
        let kinds = kinds.into_iter().cycle();
        FunctionSpec {
            component: [3; 32],
            limits: FunctionLimits::default(),
            buckets: kinds.enumerate().take(buckets).map(bucket).collect(),
            models: (0..models).map(model).collect(),
            state: (buckets > 0).then(|| StateSpec {
                metadata: vec![1; 40],
                keyring: StateKeys::new(&[2; 48]),
                config: vec![vec![3; 60].into(), vec![4; 30].into()],
            }),
        }
    }
}
