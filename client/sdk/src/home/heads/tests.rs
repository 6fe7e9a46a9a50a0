//! Heads that are kept, compared, damaged and met by two programs at once.

use std::fs;

use bield_protocol::service::PlayedLog;

use super::*;
use crate::HomeError;

fn head(name: &str, size: u64) -> Head {
    Head {
        service: Principal::from_bytes([7; 32]),
        log: PlayedLog::new(name, size).head(),
    }
}

fn home() -> (tempfile::TempDir, Home) {
    let directory = tempfile::tempdir().unwrap();
    let home = Home::at(directory.path().join("home"));
    (directory, home)
}

/// Keeps `head` by a comparison with `judged`, the current head.
fn keep(home: &Home, judged: Option<&Head>, head: &Head) -> Result<bool, HomeError> {
    let same = judged.filter(|judged| judged.origin() == head.origin());
    let compared = Compared {
        current: judged.cloned(),
        met: same.cloned(),
        from: judged.cloned(),
        whole: true,
    };
    home.keep_head(&compared, head)
}

#[test]
fn a_head_is_read_back_as_it_was_kept() {
    let (_directory, home) = home();
    assert_eq!(home.head().unwrap(), None);
    let head = head("a.example/log", 5);
    assert!(keep(&home, None, &head).unwrap());
    assert_eq!(home.head().unwrap(), Some(head.clone()));
    assert_eq!(home.head_of(head.origin()).unwrap(), Some(head));
}

#[test]
fn a_head_gives_way_only_to_one_that_was_compared_with_it() {
    let (_directory, home) = home();
    let heads: Vec<_> = (1..5).map(|size| head("a.example/log", size)).collect();
    assert!(keep(&home, None, &heads[0]).unwrap());
    // Another program was faster: what was judged against the first is judged again.
    assert!(keep(&home, Some(&heads[0]), &heads[2]).unwrap());
    assert!(!keep(&home, Some(&heads[0]), &heads[1]).unwrap());
    assert!(!keep(&home, None, &heads[1]).unwrap());
    assert_eq!(home.head().unwrap().unwrap().size(), 3);
}

#[test]
fn only_trust_in_another_service_forgets_which_log_is_current_and_none_forgets_a_head() {
    let (_directory, home) = home();
    let code = |bytes: &[&str]| {
        let codes: Vec<_> = bytes
            .iter()
            .map(|byte| format!("\"sgx:{}\"", byte.repeat(32)))
            .collect();
        format!(
            "gateway = \"http://h\"\nkey_service = \"h:1\"\n[service]\nprofile = \"cloud\"\n\
             measurements = [{}]\n",
            codes.join(", ")
        )
    };
    let trust = &code(&["aa"]);
    home.create_trust(trust).unwrap();
    let kept = head("a.example/log", 5);
    assert!(keep(&home, None, &kept).unwrap());
    home.replace_trust(trust).unwrap();
    assert_eq!(home.head().unwrap(), Some(kept.clone()));
    // Another address, more code, then the older code no more: the same service.
    for same in [
        trust.replace("h:1", "h:2"),
        code(&["aa", "bb"]),
        code(&["bb"]),
    ] {
        home.replace_trust(&same).unwrap();
        assert_eq!(home.head().unwrap(), Some(kept.clone()));
    }
    home.replace_trust(&code(&["cc"])).unwrap();
    assert_eq!(home.head().unwrap(), None);
    assert_eq!(home.head_of(kept.origin()).unwrap(), Some(kept));
}

#[test]
fn a_damaged_or_missing_head_is_said_and_not_taken_for_none() {
    let (_directory, home) = home();
    let kept = head("a.example/log", 5);
    assert!(keep(&home, None, &kept).unwrap());
    let path = home.head_path(&kept.origin().path_segment());
    let whole = fs::read_to_string(&path).unwrap();
    for damaged in [
        whole.replacen("\n5\n", "\n4\n", 1),
        whole.replacen(TITLE, "other", 1),
        whole[..whole.len() - 9].to_owned(),
        String::new(),
    ] {
        files::write(&path, damaged.as_bytes(), Write::Secret).unwrap();
        assert!(matches!(home.head(), Err(HomeError::Damaged { .. })));
    }
    fs::remove_file(&path).unwrap();
    assert!(matches!(home.head(), Err(HomeError::Damaged { .. })));
}

#[test]
fn what_was_seen_of_audits_and_shares_go_along_when_a_log_is_recovered() {
    let (_directory, home) = home();
    let (before, after) = (head("a.example/log", 5), head("b.example/log", 2));
    let (me, other) = (
        Principal::from_bytes([1; 32]),
        Principal::from_bytes([2; 32]),
    );
    assert!(keep(&home, None, &before).unwrap());
    let seen = crate::audit::Seen {
        count: 3,
        digest: bield_envelope::Digest::of("test", &[]),
    };
    home.keep_audit(before.origin(), &me, &seen).unwrap();
    let less = crate::audit::Seen { count: 2, ..seen };
    home.keep_audit(before.origin(), &me, &less).unwrap();
    let share = bield_protocol::service::Share {
        generation: 1,
        number: 2,
        threshold: 2,
        bytes: zeroize::Zeroizing::new(vec![1; 33]),
    };
    home.keep_share(before.origin(), &share).unwrap();
    assert!(keep(&home, Some(&before), &after).unwrap());
    let shares = home.shares().unwrap();
    assert!(shares.len() == 1 && shares[0].current);
    assert_eq!(home.audit_seen(after.origin(), &me).unwrap(), seen);
    assert_eq!(home.audit_seen(after.origin(), &other).unwrap().count, 0);
}

#[test]
fn a_log_that_was_left_through_a_recovery_stays_left_and_a_replaced_one_is_not() {
    let (_directory, home) = home();
    let (before, after) = (head("a.example/log", 5), head("b.example/log", 2));
    assert!(keep(&home, None, &before).unwrap());
    let replaced = Compared {
        current: Some(before.clone()),
        met: None,
        from: None,
        whole: false,
    };
    assert!(home.keep_head(&replaced, &after).unwrap());
    assert!(!home.has_left(before.origin()));
    // What was compared with stands there no more.
    assert!(
        !home
            .keep_head(&replaced, &head("c.example/log", 2))
            .unwrap()
    );
    let next = head("c.example/log", 2);
    assert!(keep(&home, Some(&after), &next).unwrap());
    assert!(home.has_left(after.origin()));
    assert!(!home.has_left(next.origin()));
    assert_eq!(home.heads().unwrap().len(), 3);
}
