//! A member joins: everything over a session, nothing believed unchecked.

use super::*;
use crate::{Receiver, Taken, TransferError};

fn pieces(giver: &mut Service) -> Vec<Vec<u8>> {
    let mut transfer = giver.ledger.transfer(None).unwrap();
    let mut pieces = Vec::new();
    while let Some(piece) = giver.ledger.transfer_piece(&mut transfer).unwrap() {
        assert!(piece.len() <= crate::PIECE_BYTES_MAX);
        pieces.push(piece.to_vec());
    }
    pieces
}

fn join_seal() -> Secret {
    Secret::from_bytes([77; 32])
}

fn receive(
    disk: &MemoryFiles,
    pieces: &[Vec<u8>],
    promised: bield_tlog::TreeHead,
) -> Result<Service, TransferError> {
    let mut receiver = Receiver::new(Box::new(disk.clone()), join_seal(), promised);
    let mut state = Vec::new();
    for piece in pieces {
        match receiver.put(piece)? {
            Taken::More => {}
            Taken::Snapshot(bytes) => state = decode(&bytes),
            Taken::Records(records) => {
                let entries = records.iter().flat_map(|record| &record.entries);
                state.extend(entries.map(|entry| entry.to_vec()));
            }
        }
    }
    let mut entropy = Seeded::new(60);
    let ledger = receiver.finish(0, &mut entropy)?;
    Ok(Service {
        disk: disk.clone(),
        ledger,
        state,
        entropy,
    })
}

#[test]
fn a_joiner_has_the_same_log_and_goes_on_from_it() {
    for records in [3, 4, 8] {
        let mut giver = service(records);
        let promised = giver.ledger.head();
        let disk = MemoryFiles::new();
        let pieces = pieces(&mut giver);
        let mut joiner = receive(&disk, &pieces, promised).unwrap();
        assert_eq!(
            (&joiner.state, joiner.ledger.head()),
            (&giver.state, promised)
        );
        // The giver committed more meanwhile.
        giver.put(&[b"meanwhile"]).unwrap();
        giver.put(&[b"and then"]).unwrap();
        let behind = giver
            .ledger
            .records(joiner.ledger.size(), usize::MAX)
            .unwrap();
        for committed in joiner.ledger.catch_up(behind).unwrap() {
            joiner
                .state
                .extend(committed.entries.iter().map(|entry| entry.to_vec()));
        }
        assert_eq!(joiner.ledger.head(), giver.ledger.head());
        joiner.put(&[b"as leader"]).unwrap();
        joiner.snapshot().unwrap();
        joiner.put(&[b"and on"]).unwrap();
        let state = joiner.state.clone();
        drop(joiner);
        let Loaded::Found(found) = Ledger::load(Box::new(disk.clone()), join_seal()).unwrap()
        else {
            panic!("it loads under its own seal key");
        };
        let (opened, loaded) = open(found).unwrap();
        assert_eq!(loaded, state);
        // It can give the log on, and knows what it does not have.
        let mut ledger = opened.ledger;
        assert!(matches!(
            ledger.records(0, 1),
            Err(LedgerError::NotHere { first }) if first >= 5
        ));
        let mut giver = Service {
            disk,
            ledger,
            state: loaded,
            entropy: Seeded::new(61),
        };
        let promised = giver.ledger.head();
        let pieces = self::pieces(&mut giver);
        let third = receive(&MemoryFiles::new(), &pieces, promised).unwrap();
        assert_eq!(third.state, giver.state);
    }
}

#[test]
fn nothing_altered_swapped_or_cut_is_taken() {
    let mut giver = service(5);
    let promised = giver.ledger.head();
    let good = pieces(&mut giver);
    assert_eq!(good.len(), 3);
    let attempt = |pieces: &[Vec<u8>]| {
        let disk = MemoryFiles::new();
        let refused = receive(&disk, pieces, promised).is_err();
        assert!(!disk.contents().contains_key("root") || !refused);
        refused
    };
    assert!(!attempt(&good));
    for (number, piece) in good.iter().enumerate() {
        for at in (0..piece.len()).step_by(11) {
            let mut bad = good.clone();
            bad[number][at] ^= 1;
            // The length of the root secret's bytes is all that no later check sees altered.
            assert!(attempt(&bad), "piece {number} at {at}");
        }
        let mut bad = good.clone();
        bad[number].pop();
        assert!(attempt(&bad));
        bad.remove(number);
        assert!(attempt(&bad));
        let mut bad = good.clone();
        bad.insert(number, good[number].clone());
        assert!(attempt(&bad));
    }
    assert!(attempt(&[]));
    // A giver that is behind what it promised, or on another branch.
    let mut behind = service(4);
    let pieces = pieces(&mut behind);
    assert!(matches!(
        receive(&MemoryFiles::new(), &pieces, promised).map(|_| ()),
        Err(TransferError::OtherTree { size: 7 })
    ));
}

#[test]
fn a_transfer_that_breaks_off_leaves_nothing_that_loads() {
    let mut giver = service(5);
    let promised = giver.ledger.head();
    let good = pieces(&mut giver);
    let probe = MemoryFiles::with(service(2).disk.contents());
    receive(&probe, &good, promised).unwrap();
    for write in 0..probe.writes() {
        for bytes in [0, 1, 500] {
            let disk = MemoryFiles::with(service(2).disk.contents());
            disk.fail(crate::Fault::Crash { write, bytes });
            assert!(receive(&disk, &good, promised).is_err());
            disk.restart();
            match Ledger::load(Box::new(disk.clone()), join_seal()).unwrap() {
                Loaded::Found(found) => {
                    let (opened, _) = open(found).unwrap();
                    assert_eq!(opened.ledger.head(), promised);
                }
                Loaded::Empty(..) | Loaded::Sealed(_) => {}
            }
            assert!(receive(&disk, &good, promised).is_ok());
        }
    }
}

#[test]
fn without_a_snapshot_there_is_nothing_to_begin_with() {
    let mut service = service(1);
    assert!(matches!(
        service.ledger.transfer(None).map(|_| ()),
        Err(LedgerError::NoSnapshot)
    ));
}

#[test]
fn a_snapshot_that_is_gone_ends_the_transfer() {
    let mut giver = service(3);
    let mut transfer = giver.ledger.transfer(None).unwrap();
    giver.ledger.transfer_piece(&mut transfer).unwrap();
    for _ in 0..2 {
        giver.put(&[b"on"]).unwrap();
        giver.snapshot().unwrap();
    }
    assert!(matches!(
        giver.ledger.transfer_piece(&mut transfer).map(|_| ()),
        Err(LedgerError::Gone)
    ));
}

/// A copy of a member's disk as another member's own: the same log under another seal key.
fn member(giver: &mut Service) -> (MemoryFiles, Service) {
    let (promised, disk) = (giver.ledger.head(), MemoryFiles::new());
    let pieces = pieces(giver);
    let joined = receive(&disk, &pieces, promised).unwrap();
    (disk, joined)
}

/// A service's state.
type State = Vec<Vec<u8>>;

fn put_all(
    mut receiver: Receiver,
    giver: &mut Service,
    have: Option<bield_tlog::TreeHead>,
    term: u64,
) -> Result<(Ledger, Option<State>, State), TransferError> {
    let mut transfer = giver.ledger.transfer(have).unwrap();
    let (mut snapshot, mut entries) = (None, Vec::new());
    while let Some(piece) = giver.ledger.transfer_piece(&mut transfer).unwrap() {
        match receiver.put(&piece)? {
            Taken::More => {}
            Taken::Snapshot(bytes) => snapshot = Some(decode(&bytes)),
            Taken::Records(records) => {
                let given = records.iter().flat_map(|record| &record.entries);
                entries.extend(given.map(|entry| entry.to_vec()));
            }
        }
    }
    let ledger = receiver.finish(term, &mut Seeded::new(62))?;
    Ok((ledger, snapshot, entries))
}

#[test]
fn a_member_that_was_away_is_given_the_records_since() {
    for prepared in [false, true] {
        let mut giver = service(4);
        let (disk, mut away) = member(&mut giver);
        let record = giver
            .ledger
            .seal(&[b"first missed"], at(5), &mut giver.entropy)
            .unwrap();
        let mut have = away.ledger.head();
        if prepared {
            have = away.ledger.head_with(&record);
            away.ledger.prepare(2, Some(&record)).unwrap();
        }
        giver.ledger.commit(&record).unwrap();
        giver.put(&[b"second missed"]).unwrap();
        let promised = giver.ledger.head();
        let receiver = Receiver::with(away.ledger, promised);
        let (ledger, snapshot, entries) = put_all(receiver, &mut giver, Some(have), 3).unwrap();
        assert!(snapshot.is_none());
        assert_eq!(entries, [&b"first missed"[..], b"second missed"]);
        assert_eq!((ledger.head(), ledger.term()), (promised, 3));
        drop(ledger);
        let Loaded::Found(found) = Ledger::load(Box::new(disk), join_seal()).unwrap() else {
            panic!("it loads");
        };
        let (opened, _) = open(found).unwrap();
        assert_eq!((opened.ledger.head(), opened.ledger.term()), (promised, 3));
        assert!(opened.prepared.is_none());
    }
}

#[test]
fn a_member_with_another_story_is_given_everything_anew() {
    let mut giver = service(4);
    let (disk, mut away) = member(&mut giver);
    away.put(&[b"never counted"]).unwrap();
    giver.put(&[b"counted"]).unwrap();
    let have = away.ledger.head();
    let promised = giver.ledger.head();
    let receiver = Receiver::with(away.ledger, promised);
    let (ledger, snapshot, entries) = put_all(receiver, &mut giver, Some(have), 9).unwrap();
    assert_eq!(
        snapshot.unwrap().len() + entries.len(),
        giver.state.len() - 1 + 1
    );
    assert_eq!((ledger.head(), ledger.term()), (promised, 9));
    assert!(disk.contents().contains_key("root"));
    // What it says it has, and has not: the records do not fit, and nothing is taken.
    let (_, away) = member(&mut service(3));
    giver.put(&[b"more"]).unwrap();
    let receiver = Receiver::with(away.ledger, giver.ledger.head());
    let refused = put_all(receiver, &mut giver, Some(promised), 1);
    assert!(matches!(
        refused.map(|_| ()),
        Err(TransferError::Piece { .. })
    ));
    // A term that is over on this disk.
    let (_, mut away) = member(&mut giver);
    away.ledger.prepare(8, None).unwrap();
    let have = away.ledger.head();
    let receiver = Receiver::with(away.ledger, giver.ledger.head());
    let refused = put_all(receiver, &mut giver, Some(have), 7);
    assert!(matches!(
        refused.map(|_| ()),
        Err(TransferError::Term { term: 7, newest: 8 })
    ));
}
