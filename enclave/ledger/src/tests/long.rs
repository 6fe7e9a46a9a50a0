//! Many records, and states of several chunks.

use super::*;

#[test]
fn a_hundred_thousand_records_load() {
    let mut service = service(0);
    // Stored by the hundred, as by a member that lags.
    let ledger = &service.ledger;
    let mut writer = ledger.chain.writer(&ledger.keys).unwrap();
    let generation = ledger.keys.generation(0, &ledger.capsule());
    let mut batch = bield_capsule::Batch::new();
    for group in 0_u32..1000 {
        let mut records = Vec::new();
        for number in 0_u32..100 {
            batch.clear();
            batch.push(&(group * 100 + number).to_be_bytes()).unwrap();
            let entropy = &mut service.entropy;
            let record = writer.seal(&batch, &generation, &[], at(1), entropy);
            records.push(record.unwrap());
        }
        for committed in service.ledger.catch_up(records).unwrap() {
            service
                .state
                .extend(committed.entries.iter().map(|entry| entry.to_vec()));
        }
        if group == 500 {
            assert!(!service.ledger.wants_snapshot());
            service.snapshot().unwrap();
        }
    }
    let (state, head) = (service.state.clone(), service.ledger.head());
    let mut loaded = service.restart();
    assert_eq!((loaded.state, loaded.ledger.head()), (state.clone(), head));
    for from in [2, 300, 50_000, 99_999] {
        let read = loaded.ledger.read(from, 10_000).unwrap();
        assert!(read.len() > 10 || from > 99_990);
        assert_eq!(*read[0].entries[0], state[from as usize - 2]);
    }
}

#[test]
fn states_of_every_length_around_a_chunk_survive() {
    let mut service = service(1);
    for length in [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 3 << 20] {
        let state: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
        service
            .ledger
            .snapshot(&state, &mut service.entropy)
            .unwrap();
        let found = find(&service.disk).unwrap();
        assert_eq!(found.snapshot.as_ref().unwrap().as_slice(), state);
        service.put(&[b"next place"]).unwrap();
    }
    // A chunk of one snapshot in the place of another one's.
    let contents = service.disk.contents();
    let snapshots = names(&contents, "snapshot-");
    let (short, long) = (&contents[&snapshots[0]], &contents[&snapshots[1]]);
    let mut mixed = contents.clone();
    let file = mixed.get_mut(&snapshots[1]).unwrap();
    let chunk = short.len() - (1 << 20) - 33..short.len() - 17;
    let place = long.len() - 3 * ((1 << 20) + 16);
    let length = chunk.len();
    file[place..place + length].copy_from_slice(&short[chunk]);
    let found = find(&MemoryFiles::with(mixed)).unwrap();
    assert_eq!(found.report().passed_over.len(), 1);
}
