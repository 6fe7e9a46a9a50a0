//! Services that are honest, set back, copied, wiped or recovered.

use super::*;

const LOG: &str = "keys.example/log";
const NEXT: &str = "keys.example/next";

fn met(name: &str, records: u64) -> LogHead {
    let answer = PlayedLog::new(name, records).answer();
    answer.head_after(None).unwrap()
}

fn judged(log: &PlayedLog, kept: &LogHead) -> Result<LogHead, NotContinued> {
    log.answer_after(Some(kept)).head_after(Some(kept))
}

fn recovered(found: PlayedLog) -> PlayedLog {
    PlayedLog::new(NEXT, 4).recovered_from(found)
}

#[test]
fn a_log_that_grew_or_stands_still_is_followed_from_every_size_it_had() {
    let now = PlayedLog::new(LOG, 21);
    for size in 1..=21 {
        assert_eq!(judged(&now, &met(LOG, size)), Ok(now.head()));
    }
}

#[test]
fn a_log_that_was_set_back_is_refused_with_how_far() {
    let refused = judged(&PlayedLog::new(LOG, 18), &met(LOG, 21));
    let (seen, shown, by) = (21, 18, None);
    assert_eq!(refused, Err(NotContinued::SetBack { seen, shown, by }));
}

#[test]
fn another_history_is_a_fork_whatever_its_size() {
    let kept = met(LOG, 21);
    for shown in [21, 22, 100] {
        let refused = judged(&PlayedLog::forked(LOG, shown, 20), &kept);
        let (seen, by) = (21, None);
        assert_eq!(refused, Err(NotContinued::Forked { seen, shown, by }));
    }
    // Another one from a place on that was never seen is none.
    assert!(judged(&PlayedLog::forked(LOG, 40, 21), &kept).is_ok());
}

#[test]
fn every_missing_altered_or_superfluous_hash_is_a_fork() {
    let kept = met(LOG, 13);
    let honest = PlayedLog::new(LOG, 21).answer_after(Some(&kept));
    let mut wrong = Vec::new();
    for place in 0..honest.consistency.len() {
        let mut altered = honest.clone();
        altered.consistency[place][0] ^= 1;
        let mut missing = honest.clone();
        missing.consistency.remove(place);
        wrong.extend([altered, missing]);
    }
    let mut still = PlayedLog::new(LOG, 13).answer();
    still.consistency.push([1; 32].into());
    wrong.push(still);
    assert!(wrong.len() > 6);
    for answer in wrong {
        let refused = answer.head_after(Some(&kept)).unwrap_err();
        assert!(matches!(refused, NotContinued::Forked { .. }), "{refused}");
    }
}

#[test]
fn another_log_is_refused_however_long_it_is() {
    for size in [1, 5, 50] {
        let refused = judged(&PlayedLog::new(NEXT, size), &met(LOG, 5));
        let origin = NEXT.parse().unwrap();
        assert_eq!(refused, Err(NotContinued::OtherLog { origin }));
    }
}

#[test]
fn the_pinned_key_of_a_log_stays_also_when_a_recovery_is_told() {
    let kept = met(LOG, 5);
    let origin: Origin = LOG.parse().unwrap();
    let other = PlayedLog::new(LOG, 6).under_another_key();
    let mut told = other.answer_after(Some(&kept));
    told.recovered = recovered(PlayedLog::new(LOG, 6))
        .answer_after(Some(&kept))
        .recovered;
    told.recovered[0].next = LOG.to_owned();
    for answer in [other.answer_after(Some(&kept)), told] {
        let origin = origin.clone();
        let refused = answer.head_after(Some(&kept));
        assert_eq!(refused, Err(NotContinued::OtherKey { origin }));
    }
}

#[test]
fn what_the_named_key_did_not_sign_is_refused() {
    let honest = PlayedLog::new(LOG, 5).answer();
    let read = |log: &str, checkpoint: &str| LogHead::read(log, checkpoint).unwrap_err();
    let forged = honest.checkpoint.replacen("\n5\n", "\n6\n", 1);
    let stranger = PlayedLog::new(LOG, 5).under_another_key().answer();
    for checkpoint in [
        &forged,
        &stranger.checkpoint,
        &PlayedLog::new(NEXT, 5).answer().checkpoint,
    ] {
        let refused = read(&honest.log, checkpoint);
        assert!(matches!(refused, NotContinued::Unsigned(_)), "{refused}");
    }
    for checkpoint in ["", "no note"] {
        let refused = read(&honest.log, checkpoint);
        assert!(matches!(refused, NotContinued::Malformed(_)), "{refused}");
    }
    let refused = read("no key", &honest.checkpoint);
    assert!(matches!(refused, NotContinued::Key(_)), "{refused}");
}

#[test]
fn a_recovery_from_at_least_what_was_seen_is_followed() {
    let after = recovered(PlayedLog::new(LOG, 21));
    for size in [1, 13, 21] {
        assert_eq!(judged(&after, &met(LOG, size)), Ok(after.head()));
    }
    // Two in a row are as good as one.
    let last = PlayedLog::new("keys.example/last", 1).recovered_from(after);
    for kept in [met(LOG, 13), met(NEXT, 3)] {
        assert_eq!(judged(&last, &kept), Ok(last.head()));
    }
}

#[test]
fn a_recovery_from_less_or_another_history_is_refused_with_both_sizes_and_by_whom() {
    let less = judged(&recovered(PlayedLog::new(LOG, 19)), &met(LOG, 21));
    let Err(NotContinued::SetBack {
        seen: 21,
        shown: 19,
        by: Some(less),
    }) = less
    else {
        panic!("{less:?}")
    };
    let elsewhere = judged(&recovered(PlayedLog::forked(LOG, 21, 5)), &met(LOG, 13));
    let Err(NotContinued::Forked {
        seen: 13,
        shown: 21,
        by: Some(elsewhere),
    }) = elsewhere
    else {
        panic!("{elsewhere:?}")
    };
    for by in [less, elsewhere] {
        assert_eq!(
            (by.origin.as_str(), by.holders[0]),
            (LOG, PlayedLog::HOLDER)
        );
    }
}

#[test]
fn recoveries_have_to_connect_the_known_log_with_the_shown_one() {
    let kept = met(LOG, 5);
    let after = recovered(PlayedLog::new(LOG, 7));
    let last = PlayedLog::new("keys.example/last", 1).recovered_from(after);
    let honest = last.answer_after(Some(&kept));
    assert!(honest.head_after(Some(&kept)).is_ok());
    let mut strange = honest.clone();
    strange.recovered[1].origin = "keys.example/strange".to_owned();
    let mut wrong = vec![strange];
    for place in 0..2 {
        let mut gap = honest.clone();
        gap.recovered.remove(place);
        wrong.push(gap);
    }
    for answer in wrong {
        let refused = answer.head_after(Some(&kept));
        assert_eq!(refused, Err(NotContinued::Recoveries));
    }
    let untold = Freshness {
        recovered: Vec::new(),
        ..honest
    };
    let refused = untold.head_after(Some(&kept)).unwrap_err();
    assert!(
        matches!(refused, NotContinued::OtherLog { .. }),
        "{refused}"
    );
}

#[test]
fn a_checkpoint_of_more_than_its_maximum_does_not_decode() {
    let of = |bytes| {
        let answer = Freshness {
            checkpoint: "x".repeat(bytes),
            ..PlayedLog::new(LOG, 5).answer()
        };
        wire::decode::<Freshness>(&wire::encode(&answer), 1 << 20)
    };
    assert!(of(CHECKPOINT_BYTES_MAX).is_ok());
    assert!(of(CHECKPOINT_BYTES_MAX + 1).is_err());
}
