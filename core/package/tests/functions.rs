//! Packages of functions: what is packed opens, and what makes no sense is not packed.

#![expect(clippy::unwrap_used, reason = "tests may stop where they stand")]

#[path = "support/function.rs"]
mod function;
#[path = "support/open.rs"]
mod opening;
mod support;

use std::io::Cursor;

use bield_envelope::{Digest, Seeded};
use bield_package::{
    BUCKETS_MAX, BucketSpec, Consistency, Durability, FunctionError, FunctionLimits, FunctionSpec,
    ManifestDraft, ManifestError, ModelFormat, NamedModel, PackError, STATE_CONFIG_BYTES_MAX,
    STATE_KEYRING_BYTES_MAX, StateKeys, pack,
};
use function::{COMPONENT, function};
use opening::{open, open_head};
use support::{draft, key, owner, packed};

fn packed_as(draft: ManifestDraft) -> Result<Vec<u8>, PackError> {
    let mut file = Vec::new();
    pack(
        &mut Cursor::new(COMPONENT),
        draft,
        &owner(),
        &key(),
        &mut Seeded::new(3),
        &mut file,
        &mut |_, _| {},
    )
    .map(|_| file)
}

fn function_of(change: impl FnOnce(&mut FunctionSpec)) -> ManifestDraft {
    let mut spec = function();
    change(&mut spec);
    ManifestDraft::function("cart".parse().unwrap(), "1.0.0".parse().unwrap(), spec)
}

#[test]
fn a_function_opens_with_everything_that_it_may_use() {
    let file = packed_as(function_of(|_| ())).unwrap();
    assert_eq!(open(&file, &key()).unwrap(), COMPONENT);
    let package = open_head(&file, &key()).unwrap();
    let manifest = package.manifest();
    assert_eq!(manifest.format, ModelFormat::Component);
    assert!(manifest.inputs.is_empty() && manifest.outputs.is_empty());
    let (found, need) = (manifest.function.as_ref().unwrap(), function());
    assert_eq!(found.component, need.component);
    assert_eq!(found.limits, need.limits);
    assert_eq!(found.buckets, need.buckets);
    assert_eq!(found.bucket("shop"), Some(&need.buckets[0]));
    assert_eq!(found.bucket("shops"), None);
    assert_eq!(found.model("classify"), Some(Digest::from_bytes([7; 32])));
    let (found, need) = (found.state.as_ref().unwrap(), need.state.unwrap());
    assert_eq!(found.metadata, need.metadata);
    assert_eq!(found.keyring.expose(), need.keyring.expose());
    assert_eq!(found.config, need.config);
    let (model, _) = packed(100, "1.0.0", 256, 3);
    assert!(
        open_head(&model, &key())
            .unwrap()
            .manifest()
            .function
            .is_none()
    );
}

#[test]
fn the_keys_of_its_state_are_not_in_the_file_in_clear() {
    let file = packed_as(function_of(|_| ())).unwrap();
    for secret in [&[2; 43][..], &COMPONENT[8..], b"shop"] {
        assert!(!file.windows(secret.len()).any(|bytes| bytes == secret));
    }
}

#[test]
fn a_function_is_no_model_and_a_model_no_function() {
    let model = || draft("1.0.0", 256);
    for draft in [
        ManifestDraft {
            function: Some(function()),
            ..model()
        },
        ManifestDraft {
            format: ModelFormat::Component,
            ..model()
        },
        ManifestDraft {
            function: None,
            ..function_of(|_| ())
        },
        ManifestDraft {
            outputs: model().outputs,
            ..function_of(|_| ())
        },
        ManifestDraft {
            golden: model().golden,
            ..function_of(|_| ())
        },
    ] {
        let refused = packed_as(draft);
        assert!(matches!(
            refused,
            Err(PackError::Manifest(ManifestError::FunctionAndModel))
        ));
    }
}

#[test]
fn what_makes_no_sense_is_not_packed() {
    let bucket = |name: &str| BucketSpec {
        name: name.to_owned(),
        consistency: Consistency::Eventual,
        durability: Durability::Local,
    };
    let model = |name: &str| NamedModel {
        name: name.to_owned(),
        package: Digest::from_bytes([1; 32]),
    };
    let refused = |change: &dyn Fn(&mut FunctionSpec)| match packed_as(function_of(change)) {
        Err(PackError::Manifest(ManifestError::Function(error))) => error,
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("packed"),
    };
    let limit =
        |change: &dyn Fn(&mut FunctionLimits)| refused(&|function| change(&mut function.limits));
    for (error, name) in [
        (limit(&|limits| limits.memory_bytes = 0), "memory"),
        (limit(&|limits| limits.memory_bytes = u64::MAX), "memory"),
        (limit(&|limits| limits.deadline_ms = 0), "deadline"),
        (limit(&|limits| limits.host_calls = 0), "host_calls"),
        (limit(&|limits| limits.output_bytes = 1 << 40), "output"),
        (limit(&|limits| limits.log_bytes = 1 << 40), "log"),
    ] {
        assert_eq!(error, FunctionError::Limit { limit: name });
    }
    for name in ["", "a/b", "Shop", "..", &"x".repeat(64)] {
        let need = FunctionError::Name {
            name: name.to_owned(),
        };
        assert_eq!(
            refused(&|function| function.buckets.push(bucket(name))),
            need
        );
        assert_eq!(refused(&|function| function.models.push(model(name))), need);
    }
    let twice = refused(&|function| function.buckets.push(bucket("shop")));
    assert!(matches!(twice, FunctionError::Duplicate { .. }));
    let many = refused(&|function| {
        let more = (0..=BUCKETS_MAX).map(|n| bucket(&format!("b{n}")));
        function.buckets = more.collect();
    });
    assert!(matches!(many, FunctionError::TooMany { .. }));
    assert_eq!(
        refused(&|function| function.state = None),
        FunctionError::State
    );
    assert_eq!(
        refused(&|function| function.buckets.clear()),
        FunctionError::State
    );
    let state = |change: &dyn Fn(&mut bield_package::StateSpec)| {
        refused(&|function| change(function.state.as_mut().unwrap()))
    };
    for error in [
        state(&|state| state.metadata.clear()),
        state(&|state| state.config.clear()),
        state(&|state| state.keyring = StateKeys::new(&vec![0; STATE_KEYRING_BYTES_MAX + 1])),
        state(&|state| state.config.push(vec![0; STATE_CONFIG_BYTES_MAX].into())),
    ] {
        assert_eq!(error, FunctionError::StateSize);
    }
    let bare = function_of(|function| (function.buckets.clear(), function.state = None).1);
    assert!(packed_as(bare).is_ok(), "a function without state");
}
