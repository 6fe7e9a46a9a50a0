//! Errors of other crates as the refusals that callers see: a stable code, a sentence, whether to retry.
//!
//! | code | whose move |
//! |---|---|
//! | those of `bield_grant::Refused` | as it says |
//! | `isolation-unsupported` | owner: grant `shared`, or choose an engine that forgets |
//! | `instance-taken`, `instance-in-use`, `queue-full`, `packages-busy`, `model-opening`, `run-lost` | nobody: another moment, or another instance |
//! | `no-lease`, `key-service-unreachable` | operator, as the sentence says |
//! | `malformed-body`, `input-mismatch`, `run-failed`, `answer-too-long`, `no-parts`, `read-too-slowly` | user |
//! | `answers-unread` | those who read slowly; or ask for the whole answer |
//! | `package-missing`, `package-unreadable`, `package-foreign`, `package-damaged` | operator |
//! | `models-full`, `model-too-large` | operator |
//! | `model-not-loadable`, `golden-mismatch` | owner |
//! | `internal` | vendor |
//!
//! A request admitted once is used up, so nothing refused after admission says "send it again as it is", but for requests
//! of functions whose state is elsewhere or was lost: those are forgotten here, and done once by what is in the state.

use core::fmt;
use std::time::Duration;

use bield_engine::EngineError;
use bield_grant::{Isolation, Refused};
use bield_package::PackageError;
use bield_platform::memory::NoMemory;
use bield_protocol::call::Unsealed;
use bield_protocol::refusal::{Refusal, Retry};

use crate::call::OUTPUT_BYTES_MAX;
use crate::leases::KeysError;

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

/// Isolation that the engine of this model cannot give.
pub(crate) fn isolation_unsupported(wanted: Isolation) -> Refusal {
    Refusal::new(
        "isolation-unsupported",
        format_args!(
            "the grant asks for isolation `{wanted}`, and the engine that runs this model keeps memory that cannot be \
             wiped; the package's owner can pack the model for another engine or grant `shared`"
        ),
        Retry::AfterChange,
    )
}

/// Others were served for all the time that this request may wait.
pub(crate) fn late(waited: Duration) -> Refusal {
    Refusal::new(
        "queue-full",
        format_args!(
            "the request waited {} ms for others and was not begun; seal it anew, or its operator gives this \
             runtime more to compute with (concurrency) or more time (queue_ms_max)",
            waited.as_millis(),
        ),
        Retry::Anew,
    )
}

/// Replies of a claimed instance tell the host nothing by their size.
pub(crate) fn no_parts() -> Refusal {
    Refusal::new(
        "no-parts",
        "answers under a grant with isolation `dedicated` have one of a few sizes and come whole, so that the host learns \
         nothing from how they come; ask for the whole answer",
        Retry::Never,
    )
}

/// Who asked went away.
pub(crate) fn gone() -> Refusal {
    Refusal::new(
        "cancelled",
        "whoever asked did not wait; the request was not begun",
        Retry::Anew,
    )
}

/// The run that it shared with others broke off, by the fault of none of them.
pub(crate) fn lost() -> Refusal {
    Refusal::new(
        "run-lost",
        "the run that the request shared with others broke off before its answer was there; seal it anew",
        Retry::Anew,
    )
}

/// Who asked went away while the answer left.
pub(crate) fn left() -> Refusal {
    Refusal::new(
        "cancelled",
        "whoever asked did not wait for the rest of the answer",
        Retry::Anew,
    )
}

/// Who asked takes less of the answer than it must.
pub(crate) fn read_too_slowly() -> Refusal {
    Refusal::new(
        "read-too-slowly",
        "what came of the answer was read so slowly that the rest is not sent; seal the request anew and ask for fewer \
         outputs, or for the whole answer",
        Retry::Anew,
    )
}

/// Others' turns did not come back in time between two outputs.
pub(crate) fn late_midway(waited: Duration) -> Refusal {
    Refusal::new(
        "queue-full",
        format_args!(
            "the answer was read slowly, waited {} ms for others before its next output, and ends here; seal the request \
             anew, or its operator gives this runtime more to compute with (concurrency) or more time (queue_ms_max)",
            waited.as_millis(),
        ),
        Retry::Anew,
    )
}

/// Outputs that wait to be read take all the memory that there is for them.
pub(crate) fn no_room_for_outputs() -> Refusal {
    Refusal::new(
        "answers-unread",
        "answers in parts that are read slowly take all memory for outputs that wait, or this user's take more of it \
         than is left; seal the request anew in a moment, or ask for the whole answer",
        Retry::Anew,
    )
}

/// More output than an answer has.
pub(crate) fn too_long(bytes: usize) -> Refusal {
    Refusal::new(
        "answer-too-long",
        format_args!(
            "the outputs have {} MiB, an answer at most {}; ask for fewer outputs or a smaller batch",
            bytes >> 20,
            OUTPUT_BYTES_MAX >> 20,
        ),
        Retry::Never,
    )
}

/// No lease for this one request.
pub(crate) fn no_keys(error: &KeysError) -> Refusal {
    let Unsealed {
        code,
        message,
        retry_after_ms,
    } = error.unsealed();
    let retry = match retry_after_ms {
        Some(_) => Retry::Anew,
        None => Retry::AfterChange,
    };
    Refusal::new(&code, message, retry)
}

/// The grant that allowed the request is not in a lease that was fetched for it.
pub(crate) fn withdrawn() -> Refusal {
    Refusal::new(
        "grant-revoked",
        "the grant for this request was withdrawn a moment ago; the package's owner can grant anew",
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

/// The system does not give the memory that the budget allows.
pub(crate) fn no_memory(error: &NoMemory) -> Refusal {
    Refusal::new(
        "models-full",
        format_args!("{error}; the operator gives models more than there is (models_mib_max)"),
        Retry::AfterChange,
    )
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
        | EngineError::EmptyInput { .. }
        | EngineError::UnknownOutput { .. }
        | EngineError::Range { .. }
        | EngineError::Strings { .. } => "input-mismatch",
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
