//! Audits that are whole, and services that alter them in every way there is.

use bield_envelope::Time;
use bield_protocol::service::{AuditEvent, GrantId};

use super::*;

/// So many entries a page, to have several.
const PAGE: usize = 4;

fn entry(number: u64) -> AuditEntry {
    AuditEntry {
        record: 2 + number,
        at: Time::from_secs(1_800_000_000 + number),
        event: AuditEvent::Revoked(vec![GrantId([number as u8; 16])]),
    }
}

fn audit_of(count: u64) -> Vec<AuditEntry> {
    (0..count).map(entry).collect()
}

fn digest(entries: &[AuditEntry]) -> Digest {
    let start = Seen::default().digest;
    entries
        .iter()
        .fold(start, |digest, entry| chained(&digest, entry))
}

fn seen(entries: &[AuditEntry]) -> Seen {
    Seen {
        count: entries.len() as u64,
        digest: digest(entries),
    }
}

/// What a service that has exactly these entries answers.
fn page(entries: &[AuditEntry], from: u64) -> AuditPage {
    let at = (from as usize).min(entries.len());
    AuditPage {
        from,
        before: digest(&entries[..at]),
        entries: entries[at..].iter().take(PAGE).cloned().collect(),
        count: entries.len() as u64,
        digest: digest(entries),
        refused: Vec::new(),
    }
}

fn collected(
    before: Seen,
    from: AuditFrom,
    entries: &[AuditEntry],
    mut lie: impl FnMut(&mut AuditPage),
) -> Result<Audit, AuditError> {
    let fetch = |from| {
        let mut page = page(entries, from);
        lie(&mut page);
        Ok(page)
    };
    match collect(before, from, fetch, &mut |_, _| {}) {
        Ok(audit) => Ok(audit),
        Err(ServiceError::Audit(error)) => Err(error),
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn every_part_of_an_audit_leads_to_the_same_end() {
    let entries = audit_of(11);
    for known in 0..=11 {
        let before = seen(&entries[..known]);
        for from in 0..=12 {
            let audit = collected(before, AuditFrom::Entry(from), &entries, |_| {}).unwrap();
            assert_eq!(audit.now, seen(&entries));
            let wanted = &entries[(from as usize).min(11)..];
            assert_eq!(audit.entries, wanted, "{known} known, from {from}");
        }
        let audit = collected(before, AuditFrom::Last(3), &entries, |_| {}).unwrap();
        assert_eq!((audit.from, audit.entries.len()), (8, 3));
    }
    let none = collected(Seen::default(), AuditFrom::Last(3), &[], |_| {}).unwrap();
    assert_eq!((none.now, none.entries.len()), (Seen::default(), 0));
}

#[test]
fn what_was_seen_before_cannot_be_altered_left_out_or_added_to() {
    let entries = audit_of(11);
    let before = seen(&entries[..9]);
    let mut altered = entries.clone();
    altered[5].record += 1;
    let mut missing = entries.clone();
    missing.remove(5);
    let mut added = entries.clone();
    added.insert(5, entry(200));
    for wrong in [altered, missing, added] {
        for from in [AuditFrom::Entry(0), AuditFrom::Entry(9), AuditFrom::Last(1)] {
            let refused = collected(before, from, &wrong, |_| {}).unwrap_err();
            assert_eq!(refused, AuditError::Altered { seen: 9 });
        }
    }
}

#[test]
fn an_audit_that_lost_entries_is_refused_with_how_many_there_were() {
    let entries = audit_of(11);
    let before = seen(&entries);
    let refused = collected(before, AuditFrom::Entry(0), &entries[..9], |_| {}).unwrap_err();
    assert_eq!(refused, AuditError::Shorter { seen: 11, shown: 9 });
}

#[test]
fn pages_that_do_not_hang_together_are_refused() {
    type Lie = fn(&mut AuditPage);
    let entries = audit_of(11);
    let lies: [Lie; 6] = [
        |page| page.digest = Digest::of("other", &[]),
        |page| page.before = Digest::of("other", &[]),
        |page| page.from += 1,
        |page| {
            page.entries.pop();
            page.count = page.from + page.entries.len() as u64;
        },
        |page| page.entries.clear(),
        |page| page.count = 2,
    ];
    for (number, lie) in lies.into_iter().enumerate() {
        let refused = collected(Seen::default(), AuditFrom::Entry(0), &entries, lie);
        assert!(refused.is_err(), "lie {number}");
    }
}
