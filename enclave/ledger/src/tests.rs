//! A scripted service on a disk that fails, against what it was told.

mod altered;
mod apart;
mod crashes;
mod epochs;
mod group;
mod long;
mod random;
mod transfers;

use bield_envelope::{Digest, Secret, Seeded, Time};

use crate::{Contents, Found, Ledger, LedgerError, LoadError, Loaded, MemoryFiles, Opened};

/// The TEE's seal key.
pub(crate) fn seal() -> Secret {
    Secret::from_bytes([1; 32])
}

pub(crate) fn root() -> Secret {
    Secret::from_bytes([2; 32])
}

pub(crate) fn at(millis: u64) -> Time {
    Time::from_millis(1_000_000 + millis)
}

/// A service whose state is the list of its entries.
pub(crate) struct Service {
    pub(crate) disk: MemoryFiles,
    pub(crate) ledger: Ledger,
    pub(crate) state: Vec<Vec<u8>>,
    pub(crate) entropy: Seeded,
}

pub(crate) fn encode(state: &[Vec<u8>]) -> Vec<u8> {
    bield_envelope::wire::encode(&state.to_vec())
}

pub(crate) fn decode(bytes: &[u8]) -> Vec<Vec<u8>> {
    minicbor::decode(bytes).unwrap()
}

impl Service {
    pub(crate) fn new(disk: MemoryFiles) -> Result<Self, LedgerError> {
        let mut entropy = Seeded::new(7);
        let ledger = Ledger::create(Box::new(disk.clone()), seal(), root(), at(0), &mut entropy)?;
        Ok(Self {
            disk,
            ledger,
            state: Vec::new(),
            entropy,
        })
    }

    /// One record of these entries.
    pub(crate) fn put(&mut self, entries: &[&[u8]]) -> Result<(), LedgerError> {
        let record = self.ledger.seal(entries, at(1), &mut self.entropy)?;
        for entry in self.ledger.commit(&record)? {
            self.state.push(entry.to_vec());
        }
        Ok(())
    }

    pub(crate) fn snapshot(&mut self) -> Result<(), LedgerError> {
        let state = encode(&self.state);
        self.ledger.snapshot(&state, &mut self.entropy)
    }

    /// What a new process makes of the disk.
    pub(crate) fn restart(self) -> Self {
        let disk = self.disk.clone();
        drop(self);
        load(&disk).unwrap_or_else(|error| panic!("{error}"))
    }
}

/// A service with records, a snapshot after every third.
pub(crate) fn service(records: u64) -> Service {
    let mut service = Service::new(MemoryFiles::new()).unwrap();
    for number in 0..records {
        service
            .put(&[format!("entry {number}").as_bytes()])
            .unwrap();
        if number % 3 == 2 {
            service.snapshot().unwrap();
        }
    }
    service
}

pub(crate) fn find(disk: &MemoryFiles) -> Result<Found, LoadError> {
    match Ledger::load(Box::new(disk.clone()), seal())? {
        Loaded::Found(found) => Ok(found),
        Loaded::Empty(..) => panic!("nothing there"),
        Loaded::Sealed(_) => panic!("no root"),
    }
}

pub(crate) fn open(mut found: Found) -> Result<(Opened, Vec<Vec<u8>>), LoadError> {
    let mut state = found
        .snapshot
        .take()
        .map_or_else(Vec::new, |bytes| decode(&bytes));
    let opened = found.replay(&mut |committed| {
        state.extend(committed.entries.iter().map(|entry| entry.to_vec()));
        Ok(())
    })?;
    Ok((opened, state))
}

pub(crate) fn load(disk: &MemoryFiles) -> Result<Service, LoadError> {
    let (opened, state) = open(find(disk)?)?;
    Ok(Service {
        disk: disk.clone(),
        ledger: opened.ledger,
        state,
        entropy: Seeded::new(8),
    })
}

/// The sentence that loading these files gives.
pub(crate) fn refused(contents: &Contents) -> LoadError {
    match load(&MemoryFiles::with(contents.clone())) {
        Ok(service) => panic!("loads with {} records", service.ledger.size()),
        Err(error) => error,
    }
}

/// Names of files that begin so, ascending.
pub(crate) fn names(contents: &Contents, start: &str) -> Vec<String> {
    let names = contents.keys().filter(|name| name.starts_with(start));
    names.cloned().collect()
}

#[test]
fn what_was_committed_is_there_after_a_restart() {
    let mut service = service(7);
    let (state, head) = (service.state.clone(), service.ledger.head());
    for _ in 0..3 {
        service = service.restart();
        assert_eq!(service.state, state);
        assert_eq!(service.ledger.head(), head);
    }
    service.put(&[b"one more", b"and another"]).unwrap();
    let service = service.restart();
    assert_eq!(service.state.len(), 9);
    assert_eq!(service.ledger.size(), 10);
}

#[test]
fn a_checkpoint_is_signed_and_carries_its_nonce() {
    let service = service(4);
    let ledger = &service.ledger;
    for nonce in [None, Some([0xab; 32])] {
        let note = ledger.checkpoint(nonce).to_string();
        let signed = bield_tlog::SignedCheckpoint::parse(note.as_bytes()).unwrap();
        let verified = signed
            .verify(ledger.origin(), &[ledger.verifier().clone()])
            .unwrap();
        assert_eq!(verified.checkpoint().head(), ledger.head());
        let line = nonce.map(|_| format!("nonce {}", "ab".repeat(32)));
        assert_eq!(verified.checkpoint().extensions().first(), line.as_ref());
    }
    let name = ledger.capsule().to_string();
    let key = Digest::from_bytes(*ledger.verifier().public());
    let origin = format!("bield/keys/{name}/{key}");
    assert_eq!(ledger.origin().as_str(), origin);
    assert_eq!(ledger.verifier().name().as_str(), origin);
}

#[test]
fn an_older_head_is_contained_and_proven_and_a_newer_one_is_not() {
    let old = service(3);
    let (then, copy) = (old.ledger.head(), old.disk.contents());
    let mut now = old;
    now.put(&[b"later"]).unwrap();
    let newer = now.ledger.head();
    let proof = now.ledger.consistency(then.size).unwrap();
    bield_tlog::verify_consistency(then.size, &then.root, newer.size, &newer.root, &proof).unwrap();
    assert!(now.ledger.contains(then) && now.ledger.contains(newer));
    // The disk is set back: it loads, and whoever kept the newer head sees it.
    let back = load(&MemoryFiles::with(copy)).unwrap();
    assert!(!back.ledger.contains(newer));
    assert!(back.ledger.consistency(newer.size).is_err());
    // Two clones go on differently: neither contains the other's head.
    let (mut one, mut two) = (back, now);
    one.put(&[b"another story"]).unwrap();
    assert!(!two.ledger.contains(one.ledger.head()));
    assert!(!one.ledger.contains(two.ledger.head()));
    two.put(&[b"goes on"]).unwrap();
    assert!(!two.ledger.contains(one.ledger.head()));
}

#[test]
fn time_never_runs_backwards() {
    let mut service = service(0);
    let record = service
        .ledger
        .seal(&[b"late"], at(5000), &mut service.entropy)
        .unwrap();
    service.ledger.commit(&record).unwrap();
    let service = service.restart();
    assert_eq!(service.ledger.now(at(10)), at(5000));
    assert_eq!(service.ledger.now(at(6000)), at(6000));
}

#[test]
fn a_place_gets_one_record() {
    let mut service = service(1);
    let record = service
        .ledger
        .seal(&[b"a"], at(2), &mut service.entropy)
        .unwrap();
    assert!(matches!(
        service.ledger.seal(&[b"b"], at(2), &mut service.entropy),
        Err(LedgerError::Uncommitted { index: 3 })
    ));
    assert!(service.ledger.is_pending());
    // The same place, written by a clone of this instance.
    let mut other = load(&MemoryFiles::with(service.disk.contents())).unwrap();
    let foreign = other
        .ledger
        .seal(&[b"b"], at(2), &mut other.entropy)
        .unwrap();
    assert!(matches!(
        service.ledger.commit(&foreign),
        Err(LedgerError::Reserved { index: 3 })
    ));
    service.ledger.commit(&record).unwrap();
    assert!(matches!(
        service.ledger.commit(&record),
        Err(LedgerError::Known { index: 3 })
    ));
    assert!(matches!(
        service.ledger.commit(&foreign),
        Err(LedgerError::Refused(_))
    ));
}

#[test]
fn records_are_read_back_by_place_and_bounded() {
    let mut service = service(10);
    for from in 0..14 {
        let read = service.ledger.read(from, usize::MAX).unwrap();
        let first = from.max(2);
        let entries: Vec<_> = read
            .iter()
            .map(|record| record.entries[0].to_vec())
            .collect();
        assert_eq!(
            entries,
            service.state[service.state.len().min(first as usize - 2)..]
        );
        assert!(
            read.iter()
                .zip(first..)
                .all(|(record, index)| record.index == index)
        );
        let one = service.ledger.read(from, 1).unwrap();
        assert_eq!(one.len(), read.len().min(1));
    }
    let raw = service.ledger.records(0, usize::MAX).unwrap();
    assert_eq!(raw.len() as u64, service.ledger.size());
    // A record that was altered after it was written is not shown.
    let name = names(&service.disk.contents(), "log-")[1].clone();
    service.disk.alter(&name, |bytes| {
        let at = bytes.len() - 20;
        bytes[at] ^= 1;
    });
    assert!(service.ledger.read(0, usize::MAX).is_err());
}

#[test]
fn entries_that_do_not_fit_are_refused_and_nothing_is_reserved() {
    let mut service = service(1);
    let long = vec![0; bield_capsule::PAYLOAD_BYTES_MAX + 1];
    let sealed = service.ledger.seal(&[&long], at(3), &mut service.entropy);
    assert!(matches!(sealed, Err(LedgerError::Full(_))));
    let sealed = service.ledger.seal(&[], at(3), &mut service.entropy);
    assert!(matches!(sealed, Err(LedgerError::Write(_))));
    service.put(&[&long[2..]]).unwrap();
    assert_eq!(service.restart().state[1].len(), long.len() - 2);
}

#[test]
fn another_machine_or_other_code_does_not_open_the_root() {
    let service = service(4);
    let other = Secret::from_bytes([9; 32]);
    let loaded = Ledger::load(Box::new(service.disk.clone()), other).unwrap();
    assert!(matches!(loaded, Loaded::Sealed(sealed) if sealed.why == crate::Unavailable::Foreign));
    let mut contents = service.disk.contents();
    contents.remove("root");
    let disk = MemoryFiles::with(contents);
    let loaded = Ledger::load(Box::new(disk.clone()), seal()).unwrap();
    assert!(matches!(loaded, Loaded::Sealed(sealed) if sealed.why == crate::Unavailable::Missing));
    let created = Ledger::create(Box::new(disk), seal(), root(), at(0), &mut Seeded::new(1));
    assert!(matches!(created, Err(LedgerError::NotEmpty)));
    let created = Ledger::create(
        Box::new(service.disk.clone()),
        seal(),
        root(),
        at(0),
        &mut Seeded::new(1),
    );
    assert!(matches!(created, Err(LedgerError::NotEmpty)));
    let nothing = Ledger::load(Box::new(MemoryFiles::new()), seal()).unwrap();
    assert!(matches!(nothing, Loaded::Empty(..)));
}
