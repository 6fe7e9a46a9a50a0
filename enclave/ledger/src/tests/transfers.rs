//! A member joins: everything over a session, nothing believed unchecked.

use super::*;
use crate::{Receiver, Taken, TransferError};

fn pieces(giver: &mut Service) -> Vec<Vec<u8>> {
    let mut transfer = giver.ledger.transfer().unwrap();
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
    let mut receiver = Receiver::new(Box::new(disk.clone()), join_seal(), promised)?;
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
    let ledger = receiver.finish(&mut entropy)?;
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
    let service = service(1);
    assert!(matches!(
        service.ledger.transfer().map(|_| ()),
        Err(LedgerError::NoSnapshot)
    ));
}

#[test]
fn a_snapshot_that_is_gone_ends_the_transfer() {
    let mut giver = service(3);
    let mut transfer = giver.ledger.transfer().unwrap();
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
