//! The package as a function: it gives back what it is given, and writes one record a call.

use bield_capsule::{CapsuleName, Head, WriterId};
use bield_envelope::Digest;
use bield_protocol::function::{
    FailureKind, FunctionFailure, FunctionOutput, FunctionRequest, FunctionResponse,
};
use bield_receipt::{StateHeads, StateSpan};

/// What the function, or its host, does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deed {
    /// All is well.
    Honest,
    /// It has no state.
    Stateless,
    /// Its host brings yesterday's files back after the first call, and nobody inside notices.
    SetBack,
    /// The answer lacks the token of the state that the receipt names.
    NoToken,
    /// The token is of another state than the receipt names.
    OtherToken,
    /// The function refuses, in its own words.
    Refuses,
}

pub(crate) const CAPSULE: CapsuleName = CapsuleName::from_bytes([0xca; 32]);

/// The state after so many calls.
pub(crate) fn state(calls: u64) -> StateHeads {
    let head = Head {
        writer: WriterId::from_bytes([1; 32]),
        seq: calls,
        hash: Digest::of("test record", &[&calls.to_be_bytes()]),
    };
    StateHeads::new(vec![head]).unwrap()
}

/// The output of the call after `calls` others, and what the receipt says of the state.
pub(super) fn run(deed: Deed, request: &[u8], calls: u64) -> (Vec<u8>, Option<StateSpan>) {
    let request = FunctionRequest::decode(request).unwrap();
    let calls = match deed {
        Deed::SetBack => 4 - calls,
        _ => calls,
    };
    let (before, after) = (state(calls), state(calls + 1));
    let span = (deed != Deed::Stateless).then(|| StateSpan {
        capsule: CAPSULE,
        before: before.digest(),
        after: after.digest(),
    });
    let token = match deed {
        Deed::Stateless | Deed::NoToken => None,
        Deed::OtherToken => Some(before.encode()),
        _ => Some(after.encode()),
    };
    let output = match deed {
        Deed::Refuses => {
            let (kind, message) = (FailureKind::Conflict, "sold out".to_owned());
            FunctionOutput::failed(FunctionFailure { kind, message }, token)
        }
        _ => {
            let response = FunctionResponse {
                content_type: request.content_type,
                body: request.body,
            };
            FunctionOutput::answered(response, token)
        }
    };
    (output.encode().to_vec(), span)
}
