//! Audits: chained, in pages, each principal's own.

use bield_envelope::Digest;
use bield_protocol::service::{
    AUDIT_PAGE_MAX, AUDIT_START, AuditEvent, GrantId, Operation, chained,
};

use crate::service::cast::{Scene, code, grant, group, key};

#[test]
fn an_owner_reads_what_happened_and_nobody_elses() {
    let (mut scene, package) = Scene::with_package();
    let owner = key(1);
    let granted = scene.grant(&owner, grant(1, package)).unwrap();
    scene.lease(5, package).unwrap();
    scene.lease(6, package).map(drop).unwrap_err();
    scene
        .order(&owner, Operation::Revoke(vec![GrantId([1; 16])]))
        .unwrap();
    scene.order(&key(3), Operation::Register).unwrap();
    let page = scene.audit(&owner, 0).unwrap();
    let events: Vec<_> = page.entries.iter().map(|entry| &entry.event).collect();
    assert_eq!(events[0], &AuditEvent::Registered);
    assert_eq!(
        events[1],
        &AuditEvent::PackagePut(package, "shelter".into(), "1.0.0".into())
    );
    assert_eq!(
        events[2],
        &AuditEvent::Granted(GrantId([1; 16]), granted.digest())
    );
    assert!(matches!(events[3], AuditEvent::Leased { lease: 0, .. }));
    assert_eq!(events[4], &AuditEvent::Revoked(vec![GrantId([1; 16])]));
    assert_eq!((page.count, events.len()), (5, 5));
    assert_eq!(page.refused.len(), 1);
    assert_eq!(
        (&page.refused[0].code, page.refused[0].reason.as_str()),
        (&code(6), "code-not-granted")
    );
    let others = scene.audit(&key(3), 0).unwrap();
    assert_eq!(others.count, 1);
    assert!(others.refused.is_empty());
}

#[test]
fn pages_continue_one_chain() {
    let mut scene = Scene::new();
    let owner = key(1);
    scene.order(&owner, Operation::Register).unwrap();
    let revisions = 2 * AUDIT_PAGE_MAX as u64 + 100;
    for revision in 1..=revisions {
        let group = group(&owner, "readers", revision, &[]);
        scene.order(&owner, Operation::PutGroup(group)).unwrap();
    }
    for begin in [
        0,
        1,
        255,
        256,
        257,
        511,
        512,
        1000,
        revisions,
        revisions + 1,
        revisions + 9,
    ] {
        let (mut from, mut chain) = (0, Digest::from_bytes(AUDIT_START));
        let mut next = begin;
        loop {
            let page = scene.audit(&owner, next).unwrap();
            assert_eq!(page.from, next.min(page.count));
            if from == page.from {
                assert_eq!(page.before, chain, "from {next}");
            }
            chain = page
                .entries
                .iter()
                .fold(page.before, |chain, entry| chained(&chain, entry));
            from = page.from + page.entries.len() as u64;
            next = from;
            if from == page.count {
                assert_eq!(chain, page.digest, "from {begin}");
                break;
            }
        }
    }
}

#[test]
fn administrators_orders_stand_in_their_audit() {
    let mut scene = Scene::new();
    let administrator = key(99);
    scene.order(&administrator, Operation::Register).unwrap();
    scene
        .order(&administrator, Operation::AdmitCode(code(7)))
        .unwrap();
    scene
        .order(&administrator, Operation::WithdrawCode(code(7)))
        .unwrap();
    scene
        .order(&administrator, Operation::RotateIdentity)
        .unwrap();
    let service = scene.desk.state().service();
    let page = scene.audit(&administrator, 1).unwrap();
    let events: Vec<_> = page.entries.into_iter().map(|entry| entry.event).collect();
    assert_eq!(
        events,
        [
            AuditEvent::CodeAdmitted(code(7)),
            AuditEvent::CodeWithdrawn(code(7)),
            AuditEvent::IdentityRotated(service)
        ]
    );
}
