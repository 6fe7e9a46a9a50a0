//! Heads that are kept, compared, damaged and met by two programs at once.

use std::fs;

use bield_envelope::Secret;
use bield_tlog::{Checkpoint, LogKey, Tree};

use super::*;
use crate::HomeError;

fn head(name: &str, size: u64) -> Head {
    let key = LogKey::new(name.parse().unwrap(), &Secret::from_bytes([1; 32]));
    let mut tree = Tree::new();
    for entry in 0..size {
        tree.append(&entry.to_be_bytes());
    }
    let origin = Origin::from(key.verifier().name());
    Head {
        service: Principal::from_bytes([7; 32]),
        log: key.verifier().clone(),
        checkpoint: Checkpoint::new(origin, size, tree.root()).sign(&key),
    }
}

fn home() -> (tempfile::TempDir, Home) {
    let directory = tempfile::tempdir().unwrap();
    let home = Home::at(directory.path().join("home"));
    (directory, home)
}

#[test]
fn a_head_is_read_back_as_it_was_kept() {
    let (_directory, home) = home();
    assert_eq!(home.head().unwrap(), None);
    let head = head("a.example/log", 5);
    assert!(home.keep_head(None, &head).unwrap());
    assert_eq!(home.head().unwrap(), Some(head.clone()));
    assert_eq!(home.head_of(head.origin()).unwrap(), Some(head));
}

#[test]
fn a_head_gives_way_only_to_one_that_was_compared_with_it() {
    let (_directory, home) = home();
    let heads: Vec<_> = (1..5).map(|size| head("a.example/log", size)).collect();
    assert!(home.keep_head(None, &heads[0]).unwrap());
    // Another program was faster: what was judged against the first is judged again.
    assert!(home.keep_head(Some(&heads[0]), &heads[2]).unwrap());
    assert!(!home.keep_head(Some(&heads[0]), &heads[1]).unwrap());
    assert!(!home.keep_head(None, &heads[1]).unwrap());
    assert_eq!(home.head().unwrap().unwrap().size(), 3);
}

#[test]
fn other_trust_forgets_which_log_is_current_and_no_head() {
    let (_directory, home) = home();
    let trust = "gateway = \"http://h\"\nkey_service = \"h:1\"\n[service]\nprofile = \"cloud\"\n";
    home.create_trust(trust).unwrap();
    let kept = head("a.example/log", 5);
    assert!(home.keep_head(None, &kept).unwrap());
    home.replace_trust(trust).unwrap();
    assert_eq!(home.head().unwrap(), Some(kept.clone()));
    home.replace_trust(&trust.replace("h:1", "h:2")).unwrap();
    assert_eq!(home.head().unwrap(), None);
    assert_eq!(home.head_of(kept.origin()).unwrap(), Some(kept));
}

#[test]
fn a_damaged_or_missing_head_is_said_and_not_taken_for_none() {
    let (_directory, home) = home();
    let kept = head("a.example/log", 5);
    assert!(home.keep_head(None, &kept).unwrap());
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
    assert!(home.keep_head(None, &before).unwrap());
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
    assert!(home.keep_head(Some(&before), &after).unwrap());
    let shares = home.shares().unwrap();
    assert!(shares.len() == 1 && shares[0].current);
    assert_eq!(home.audit_seen(after.origin(), &me).unwrap(), seen);
    assert_eq!(home.audit_seen(after.origin(), &other).unwrap().count, 0);
}
