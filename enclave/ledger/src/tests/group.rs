//! Records that are prepared before they are committed.

use super::*;

#[test]
fn a_prepared_record_is_reported_until_it_is_committed() {
    let mut leader = service(4);
    let follower = MemoryFiles::with(leader.disk.contents());
    let mut follower = load(&follower).unwrap();
    for (term, number) in [(1, 0_u8), (1, 1), (4, 2)] {
        let record = leader
            .ledger
            .seal(&[&[number]], at(9), &mut leader.entropy)
            .unwrap();
        for member in [&mut leader, &mut follower] {
            member.ledger.prepare(term, Some(&record)).unwrap();
            member.ledger.prepare(term, Some(&record)).unwrap();
            // A crash now: the record is known and is not in the log.
            let copy = MemoryFiles::with(member.disk.contents());
            let (opened, state) = open(find(&copy).unwrap()).unwrap();
            let prepared = opened.prepared.unwrap();
            assert_eq!(
                (prepared.term, prepared.index),
                (term, opened.ledger.size())
            );
            assert_eq!(prepared.record.as_bytes(), record.as_bytes());
            assert_eq!(state.len(), 4 + usize::from(number));
            // It can be committed there, as by a group that formed anew.
            let mut ledger = opened.ledger;
            ledger.commit(&prepared.record).unwrap();
        }
        for member in [&mut leader, &mut follower] {
            member.ledger.commit(&record).unwrap();
            let copy = MemoryFiles::with(member.disk.contents());
            let (opened, _) = open(find(&copy).unwrap()).unwrap();
            assert!(opened.prepared.is_none());
        }
    }
    assert_eq!(leader.ledger.head(), follower.ledger.head());
    // The follower takes over.
    follower.put(&[b"new leader"]).unwrap();
}

#[test]
fn a_later_term_wins_and_an_earlier_one_is_refused() {
    let service = service(2);
    let member = || load(&MemoryFiles::with(service.disk.contents())).unwrap();
    let (mut one, mut two, mut here) = (member(), member(), member());
    let first = one.ledger.seal(&[b"1"], at(5), &mut one.entropy).unwrap();
    let second = two.ledger.seal(&[b"2"], at(6), &mut two.entropy).unwrap();
    here.ledger.prepare(3, Some(&first)).unwrap();
    let refused = |result| matches!(result, Err(LedgerError::Term { newest: 3, .. }));
    assert!(refused(here.ledger.prepare(2, Some(&second))));
    assert!(refused(here.ledger.prepare(3, Some(&second))));
    here.ledger.prepare(5, Some(&second)).unwrap();
    let (opened, _) = open(find(&here.disk).unwrap()).unwrap();
    let prepared = opened.prepared.unwrap();
    assert_eq!((prepared.term, prepared.record.hash()), (5, second.hash()));
    // What was committed is another one: the file is written anew.
    here.ledger.commit(&first).unwrap();
    let third = one.ledger.commit(&first).map(|_| ());
    third.unwrap();
    let next = one.ledger.seal(&[b"3"], at(7), &mut one.entropy).unwrap();
    here.ledger.prepare(6, Some(&next)).unwrap();
    let (opened, _) = open(find(&here.disk).unwrap()).unwrap();
    assert_eq!(opened.prepared.unwrap().record.hash(), next.hash());
}

#[test]
fn the_host_sees_no_prepared_record_and_may_only_lose_it() {
    let mut service = service(2);
    let record = service
        .ledger
        .seal(&[b"secret until committed"], at(5), &mut service.entropy)
        .unwrap();
    service.ledger.prepare(1, Some(&record)).unwrap();
    let whole = service.disk.contents();
    let file = whole["prepared"].clone();
    let shown = |part: &[u8]| file.windows(part.len()).any(|window| window == part);
    assert!(!shown(&record.header_bytes()[..64]) && !shown(record.hash().as_bytes()));
    for at in 0..file.len() {
        let mut contents = whole.clone();
        contents.get_mut("prepared").unwrap()[at] ^= 1;
        let (opened, state) = open(find(&MemoryFiles::with(contents)).unwrap()).unwrap();
        assert!(opened.prepared.is_none(), "{at}");
        assert_eq!(state.len(), 2);
        let mut contents = whole.clone();
        contents.get_mut("prepared").unwrap().truncate(at);
        let (opened, _) = open(find(&MemoryFiles::with(contents)).unwrap()).unwrap();
        assert!(opened.prepared.is_none());
    }
}

#[test]
fn a_prepared_record_proves_that_the_log_was_longer() {
    let mut service = service(0);
    service.put(&[b"1"]).unwrap();
    let old = service.disk.contents();
    service.put(&[b"2"]).unwrap();
    service.put(&[b"3"]).unwrap();
    let record = service
        .ledger
        .seal(&[b"4"], at(5), &mut service.entropy)
        .unwrap();
    service.ledger.prepare(1, Some(&record)).unwrap();
    let mut contents = old;
    contents.insert(
        "prepared".into(),
        service.disk.contents()["prepared"].clone(),
    );
    assert_eq!(
        refused(&contents),
        LoadError::BehindPrepared {
            log: 3,
            prepared: 5
        }
    );
}

#[test]
fn the_term_outlives_the_record_and_a_restart() {
    let mut service = service(2);
    let term = |service: &Service| {
        let copy = MemoryFiles::with(service.disk.contents());
        open(find(&copy).unwrap()).unwrap().0.ledger.term()
    };
    assert_eq!(term(&service), 0);
    service.ledger.prepare(4, None).unwrap();
    service.ledger.prepare(4, None).unwrap();
    assert_eq!((service.ledger.term(), term(&service)), (4, 4));
    let record = service
        .ledger
        .seal(&[b"1"], at(5), &mut service.entropy)
        .unwrap();
    let with = service.ledger.head_with(&record);
    service.ledger.prepare(4, Some(&record)).unwrap();
    service.ledger.commit(&record).unwrap();
    assert_eq!(service.ledger.head(), with);
    assert_eq!(term(&service), 4);
    assert!(service.ledger.prepare(3, None).is_err());
    // Many records: the file is begun anew, and never without a term.
    for number in 0..40 {
        let entry = vec![number; 300_000];
        let record = service
            .ledger
            .seal(&[&entry], at(6), &mut service.entropy)
            .unwrap();
        service.ledger.prepare(5, Some(&record)).unwrap();
        assert!(service.disk.contents()["prepared"].len() <= 8 << 20);
        service.ledger.commit(&record).unwrap();
    }
    assert_eq!(term(&service), 5);
    // Nothing takes the place of a record that was prepared.
    let record = service
        .ledger
        .seal(&[b"2"], at(7), &mut service.entropy)
        .unwrap();
    service.ledger.prepare(6, Some(&record)).unwrap();
    service.ledger.prepare(7, None).unwrap();
    let (opened, _) = open(find(&service.disk).unwrap()).unwrap();
    assert!(opened.prepared.is_none());
    assert_eq!(opened.ledger.term(), 7);
}

#[test]
fn a_crash_in_a_prepare_leaves_what_was_prepared_before() {
    let mut here = service(2);
    let member = || load(&MemoryFiles::with(here.disk.contents())).unwrap();
    let (mut one, mut two) = (member(), member());
    let first = one.ledger.seal(&[b"1"], at(5), &mut one.entropy).unwrap();
    let second = two.ledger.seal(&[b"2"], at(6), &mut two.entropy).unwrap();
    here.ledger.prepare(1, Some(&first)).unwrap();
    let before = here.disk.contents();
    for bytes in 0..500 {
        let disk = MemoryFiles::with(before.clone());
        let mut here = load(&disk).unwrap();
        let write = disk.writes();
        disk.fail(crate::Fault::Crash { write, bytes });
        assert!(here.ledger.prepare(2, Some(&second)).is_err());
        disk.restart();
        let (opened, _) = open(find(&disk).unwrap()).unwrap();
        let prepared = opened.prepared.unwrap();
        let whole = prepared.record.hash() == second.hash();
        assert!(whole || prepared.record.hash() == first.hash());
        assert_eq!(prepared.term, if whole { 2 } else { 1 });
    }
}
