//! The function that tests of packages pack.

use bield_envelope::Digest;
use bield_package::{
    BucketSpec, Consistency, Durability, FunctionLimits, FunctionSpec, NamedModel, StateKeys,
    StateSpec, component_digest,
};

/// Bytes that begin as a component does.
pub(crate) const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0and what a toolchain makes";

/// One with two buckets, a model and a state.
pub(crate) fn function() -> FunctionSpec {
    let bucket = |name: &str, consistency, durability| BucketSpec {
        name: name.to_owned(),
        consistency,
        durability,
    };
    FunctionSpec {
        component: component_digest(COMPONENT).unwrap(),
        limits: FunctionLimits::default(),
        buckets: vec![
            bucket("shop", Consistency::Linearizable, Durability::LocalSync),
            bucket("results", Consistency::Eventual, Durability::Memory),
        ],
        models: vec![NamedModel {
            name: "classify".to_owned(),
            package: Digest::from_bytes([7; 32]),
        }],
        state: Some(StateSpec {
            metadata: vec![1; 90],
            keyring: StateKeys::new(&[2; 43]),
            config: vec![vec![3; 300].into(), vec![4; 200].into()],
        }),
    }
}
