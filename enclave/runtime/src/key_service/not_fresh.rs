//! Why a key service gets no question, in sentences that leave the enclave: they say nothing of who or what.
//!
//! The rules are [`Freshness::head_after`](bield_protocol::service::Freshness::head_after). What is known only goes
//! forward, and is kept as long as the process lives: a runtime that starts anew believes the first service that
//! its configuration accepts. Who has the log's key is the same service, though it may change the name that it
//! signs certificates with. Who witnessed a checkpoint is not asked: the key service itself cannot go on without
//! its witnesses.

use bield_protocol::service::NotContinued;

/// Why a key service gets no question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotFresh {
    #[error("its checkpoint is malformed")]
    Malformed,
    #[error("its checkpoint is not signed by its log's key")]
    Unsigned,
    #[error("it is another key service than the one that this runtime began with")]
    OtherService,
    #[error("its log is {0} record{s} behind what this runtime has seen: its state was set back", s = if *.0 == 1 { "" } else { "s" })]
    SetBack(u64),
    #[error("its state was set back behind what this runtime has seen, as it says itself")]
    SetBackByItsWord,
    #[error("its log does not continue what this runtime has seen: its state was forked")]
    Forked,
}

impl From<NotContinued> for NotFresh {
    fn from(why: NotContinued) -> Self {
        match why {
            NotContinued::Key(_) | NotContinued::Malformed(_) => Self::Malformed,
            NotContinued::Unsigned(_) => Self::Unsigned,
            NotContinued::OtherKey { .. }
            | NotContinued::OtherLog { .. }
            | NotContinued::Recoveries => Self::OtherService,
            NotContinued::SetBack { seen, shown, .. } => Self::SetBack(seen - shown),
            NotContinued::Forked { .. } => Self::Forked,
        }
    }
}

#[cfg(test)]
mod tests {
    use bield_protocol::service::{LogHead, PlayedLog};

    use super::*;

    const LOG: &str = "bield/keys/1";

    #[test]
    fn each_reason_has_a_sentence_and_records_are_counted() {
        let kept = PlayedLog::new(LOG, 9).head();
        let log = PlayedLog::new;
        let recovered = |found| log("bield/keys/2", 50).recovered_from(found);
        for (log, why) in [
            (log(LOG, 5), NotFresh::SetBack(4)),
            (PlayedLog::forked(LOG, 9, 3), NotFresh::Forked),
            (log(LOG, 9).under_another_key(), NotFresh::OtherService),
            (log("bield/keys/2", 50), NotFresh::OtherService),
            (recovered(log(LOG, 7)), NotFresh::SetBack(2)),
            (recovered(PlayedLog::forked(LOG, 20, 3)), NotFresh::Forked),
        ] {
            let answer = log.answer_after(Some(&kept));
            let refused = answer.head_after(Some(&kept)).unwrap_err();
            assert_eq!(NotFresh::from(refused), why);
        }
    }

    #[test]
    fn what_is_no_head_is_told_from_what_its_log_did_not_sign() {
        let (one, other) = (
            PlayedLog::new(LOG, 5),
            PlayedLog::new(LOG, 5).under_another_key(),
        );
        let read = |log: &str, note: &str| NotFresh::from(LogHead::read(log, note).unwrap_err());
        let (key, note) = (one.answer().log, other.answer().checkpoint);
        assert_eq!(read(&key, &note), NotFresh::Unsigned);
        assert_eq!(read(&key, ""), NotFresh::Malformed);
        assert_eq!(read("", &note), NotFresh::Malformed);
    }
}
