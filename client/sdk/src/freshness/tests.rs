//! What people are told of services that were set back, wiped, recovered or are honest; the rules themselves
//! are shown in `bield-protocol`.

use bield_envelope::Secret;
use bield_protocol::service::PlayedLog;
use bield_tlog::WitnessKey;

use super::*;

const ME: Principal = Principal::from_bytes([8; 32]);
const OTHER: Principal = Principal::from_bytes([9; 32]);
const LOG: &str = "keys.example/log";
const NEXT: &str = "keys.example/next";

/// Judges what `log` answers in the name of `service`.
fn judged(kept: Option<&Head>, log: &PlayedLog, service: Principal) -> Result<Fresh, NotFresh> {
    let answer = log.answer_after(kept.map(|kept| &kept.log));
    judge(kept, &answer, service, None, PlayedLog::RECOVERED_AT)
}

fn met(name: &str, records: u64) -> Head {
    let log = PlayedLog::new(name, records);
    judged(None, &log, ME).unwrap().head
}

#[test]
fn a_log_that_grew_is_accepted_also_from_a_service_that_was_renamed() {
    let now = PlayedLog::new(LOG, 21);
    assert_eq!(judged(None, &now, ME).unwrap().seen, None);
    for service in [ME, OTHER] {
        let fresh = judged(Some(&met(LOG, 13)), &now, service).unwrap();
        assert_eq!((fresh.seen, fresh.head.size()), (Some(13), 21));
        assert_eq!(
            (fresh.head.service(), fresh.recovered_from),
            (service, None)
        );
    }
}

#[test]
fn each_reason_has_its_code_and_its_sentence_for_people() {
    let kept = met(LOG, 21);
    let told = |log: &PlayedLog, service, code: &str, parts: &[&str]| {
        let refused = judged(Some(&kept), log, service).unwrap_err();
        let sentence = refused.to_string();
        assert_eq!(refused.code(), code, "{sentence}");
        for part in parts {
            assert!(sentence.contains(part), "{sentence}");
        }
        sentence.contains("--accept")
    };
    let log = PlayedLog::new;
    let back = ["ROLLED BACK by 3 records"];
    assert!(!told(&log(LOG, 18), ME, "rolled-back", &back));
    let one = ["ROLLED BACK by 1 record: "];
    assert!(!told(&log(LOG, 20), ME, "rolled-back", &one));
    let forked = PlayedLog::forked(LOG, 22, 20);
    assert!(!told(&forked, ME, "forked", &["22 records", "the 21"]));
    let stranger = log(LOG, 22).under_another_key();
    assert!(!told(&stranger, ME, "other-log-key", &[LOG]));
    let beside = ["switch it off", NEXT];
    assert!(!told(&log(NEXT, 3), ME, "left-log", &beside));
    let accept = format!("--accept-service {OTHER}");
    let new = ["with 21 records", &accept];
    assert!(told(&log(NEXT, 3), OTHER, "other-service", &new));
    let holder = &PlayedLog::HOLDER.to_string();
    let recovered = |found| log(NEXT, 4).recovered_from(found);
    let less = ["2 records are gone", "2027-01-15", holder];
    let found = recovered(log(LOG, 19));
    assert!(told(&found, ME, "recovered-from-less", &less));
    let one = ["1 record is gone"];
    let found = recovered(log(LOG, 20));
    assert!(told(&found, ME, "recovered-from-less", &one));
    let branch = ["the 30 records", "ANOTHER BRANCH", "may be lost", holder];
    let found = recovered(PlayedLog::forked(LOG, 30, 5));
    assert!(told(&found, ME, "recovered-elsewhere", &branch));
}

#[test]
fn what_is_no_signed_head_is_refused_at_first_contact() {
    let honest = PlayedLog::new(LOG, 5).answer();
    let [mut forged, mut broken, mut keyless] = [(); 3].map(|()| honest.clone());
    forged.checkpoint = honest.checkpoint.replacen("\n5\n", "\n6\n", 1);
    broken.checkpoint = "no note".to_owned();
    keyless.log = "no key".to_owned();
    let refused = |answer| judge(None, answer, ME, None, PlayedLog::RECOVERED_AT).unwrap_err();
    for answer in [&forged, &broken] {
        assert!(matches!(refused(answer), NotFresh::Checkpoint(_)));
    }
    assert!(matches!(refused(&keyless), NotFresh::Key(_)));
}

#[test]
fn a_recovery_from_at_least_what_was_seen_is_silent() {
    let after = PlayedLog::new(NEXT, 4).recovered_from(PlayedLog::new(LOG, 21));
    let fresh = judged(Some(&met(LOG, 13)), &after, ME).unwrap();
    assert_eq!(fresh.recovered_from.unwrap().to_string(), LOG);
    assert_eq!(
        fresh.head.size(),
        4,
        "the new log is counted from its own beginning"
    );
}

#[test]
fn recoveries_that_do_not_connect_are_told_as_such() {
    let kept = met(LOG, 5);
    let after = PlayedLog::new(NEXT, 4).recovered_from(PlayedLog::new(LOG, 7));
    let mut answer = after.answer_after(Some(&kept.log));
    answer.recovered[0].next = "keys.example/strange".to_owned();
    let judged = judge(Some(&kept), &answer, ME, None, PlayedLog::RECOVERED_AT);
    assert_eq!(judged.unwrap_err(), NotFresh::Recoveries);
}

#[test]
fn as_many_witnesses_as_the_trust_file_wants_must_have_cosigned() {
    let witness =
        |name: &str, byte| WitnessKey::new(name.parse().unwrap(), &Secret::from_bytes([byte; 32]));
    let (a, b) = (witness("a.example/w", 2), witness("b.example/w", 3));
    let quorum = Quorum::new(vec![a.verifier().clone(), b.verifier().clone()], 2).unwrap();
    let service = PlayedLog::new(LOG, 5);
    let judged = |cosigners: &[&WitnessKey]| {
        let mut checkpoint = service.checkpoint();
        for cosigner in cosigners {
            checkpoint
                .add(cosigner.cosign(&checkpoint, PlayedLog::RECOVERED_AT))
                .unwrap();
        }
        let answer = Freshness {
            checkpoint: checkpoint.to_string(),
            ..service.answer()
        };
        // Years later: what an idle service said last is as good as then.
        let later = PlayedLog::RECOVERED_AT.plus(Duration::from_secs(86_400 * 1000));
        judge(None, &answer, ME, Some(&quorum), later)
    };
    assert_eq!(judged(&[&a, &b]).unwrap().witnesses.len(), 2);
    for too_few in [&[][..], &[&a], &[&b]] {
        let refused = judged(too_few).unwrap_err();
        assert!(matches!(refused, NotFresh::Unwitnessed { .. }), "{refused}");
    }
}
