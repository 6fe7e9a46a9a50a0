//! Errors of other crates as the refusals that callers see: a stable code, a sentence, whether to retry.
//!
//! | code | whose move |
//! |---|---|
//! | those of `bield_grant::Refused` | as it says |
//! | `isolation-unsupported` | owner: grant `shared`, or the operator runs a version that can more |
//! | `malformed-body`, `input-mismatch`, `run-failed`, `answer-too-long` | user |
//! | `package-missing`, `package-unreadable`, `package-foreign`, `package-damaged` | operator |
//! | `models-full`, `model-too-large` | operator |
//! | `model-not-loadable`, `golden-mismatch` | owner |
//! | `internal` | vendor |
//!
//! A request admitted once is used up, so nothing refused after admission says "send it again as it is".

use core::fmt;

use bield_engine::EngineError;
use bield_grant::{Isolation, Refused};
use bield_package::PackageError;
use bield_protocol::call::Unsealed;
use bield_protocol::refusal::{Refusal, Retry};

/// A public refusal; long sentences are cut.
pub(crate) fn unsealed(
    code: &str,
    message: impl fmt::Display,
    retry_after_ms: Option<u64>,
) -> Unsealed {
    let mut message = message.to_string();
    message.truncate(message.floor_char_boundary(UNSEALED_TEXT_BYTES_MAX));
    Unsealed {
        code: code.to_owned(),
        message,
        retry_after_ms,
    }
}

/// Whether a younger lease, with younger grants, may decide otherwise.
pub(crate) const fn may_change_with_the_lease(refused: &Refused) -> bool {
    matches!(
        refused,
        Refused::CodeNotGranted { .. }
            | Refused::UserNotGranted { .. }
            | Refused::Expired { .. }
            | Refused::NotYetValid { .. }
            | Refused::LeaseEnded { .. }
            | Refused::QuotaUsed { .. }
    )
}

/// Isolation that this version cannot give.
pub(crate) fn isolation_unsupported(wanted: Isolation) -> Refusal {
    Refusal::new(
        "isolation-unsupported",
        format_args!(
            "the grant asks for isolation `{wanted}`, and this runtime gives `shared` only; \
             the package's owner can grant `shared`"
        ),
        Retry::AfterChange,
    )
}

/// A package that does not open.
pub(crate) fn package(error: &PackageError) -> Refusal {
    let (code, whose) = match error {
        PackageError::Io(_) => ("package-unreadable", "the operator must look"),
        PackageError::WrongKey => (
            "package-wrong-key",
            "the package's owner must register the key it was packed with",
        ),
        _ => (
            "package-damaged",
            "the operator must fetch the package anew",
        ),
    };
    Refusal::new(code, format_args!("{error}; {whose}"), Retry::AfterChange)
}

/// A model that an engine does not take, or computes wrongly.
pub(crate) fn load(error: &EngineError) -> Refusal {
    let code = match error {
        EngineError::Golden { .. } => "golden-mismatch",
        _ => "model-not-loadable",
    };
    Refusal::new(
        code,
        format_args!("{error}; the package's owner must look"),
        Retry::AfterChange,
    )
}

/// A run that the inputs do not allow, or that failed.
pub(crate) fn run(error: &EngineError) -> Refusal {
    let code = match error {
        EngineError::MissingInput { .. }
        | EngineError::UnknownInput { .. }
        | EngineError::Input(_)
        | EngineError::UnknownOutput { .. }
        | EngineError::Range { .. } => "input-mismatch",
        _ => "run-failed",
    };
    Refusal::new(code, error, Retry::Never)
}

/// A fault of this program.
pub(crate) fn internal() -> Refusal {
    Refusal::new(
        "internal",
        "this runtime failed at the request; seal it anew once, and tell the operator if that fails too",
        Retry::Never,
    )
}

/// The most bytes of a public sentence, well inside what `Unsealed` may have.
const UNSEALED_TEXT_BYTES_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_public_sentence_is_cut_between_characters() {
        let refusal = unsealed("test", "ä".repeat(1000), None);
        assert_eq!(refusal.message.len(), UNSEALED_TEXT_BYTES_MAX);
        let odd = unsealed("test", format!("x{}", "ä".repeat(1000)), None);
        assert_eq!(odd.message.len(), UNSEALED_TEXT_BYTES_MAX - 1);
    }

    #[test]
    fn a_tampered_package_names_its_chunk() {
        let refusal = package(&PackageError::ChunkAltered { index: 3, count: 9 });
        assert_eq!(refusal.code, "package-damaged");
        assert!(refusal.message.contains("chunk 3 of 9"), "{refusal}");
    }
}
