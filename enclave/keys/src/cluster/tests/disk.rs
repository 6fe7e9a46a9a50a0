//! A disk that outlives its members, and an auditor that sees what is committed on all of them.

use std::sync::{Arc, Mutex, MutexGuard};

use bield_capsule::Received;
use bield_envelope::{Digest, Principal, Time};
use zeroize::Zeroizing;

use crate::cluster::{Apply, ApplyError, Head, Transfer};

/// The one sequence.
#[derive(Default)]
pub(super) struct Auditor(Mutex<Vec<Digest>>);

impl Auditor {
    fn committed(&self, place: usize, record: Digest) {
        let mut sequence = self.0.lock().unwrap();
        if place == sequence.len() {
            assert!(!sequence.contains(&record), "a record counts twice");
            sequence.push(record);
        }
        assert_eq!(
            sequence.get(place),
            Some(&record),
            "two records at place {place}"
        );
    }

    pub(super) fn sequence(&self) -> Vec<Digest> {
        self.0.lock().unwrap().clone()
    }
}

#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Contents {
    service: Option<[u8; 32]>,
    term: u64,
    pub(super) committed: Vec<Digest>,
    prepared: Option<Digest>,
    /// Other code wrote it: who starts on it now cannot tell what it holds.
    sealed: bool,
}

#[derive(Clone, Default)]
pub(super) struct Disk(Arc<Mutex<(Contents, u32)>>);

impl Disk {
    pub(super) fn snapshot(&self) -> Contents {
        self.lock().0.clone()
    }

    pub(super) fn restore(&self, contents: Contents) {
        self.lock().0 = contents;
    }

    pub(super) fn wipe(&self) {
        self.lock().0 = Contents::default();
    }

    pub(super) fn seal(&self) {
        self.lock().0.sealed = true;
    }

    pub(super) fn is_sealed(&self) -> bool {
        self.lock().0.sealed
    }

    pub(super) fn fail_next(&self, times: u32) {
        self.lock().1 = times;
    }

    fn lock(&self) -> MutexGuard<'_, (Contents, u32)> {
        self.0.lock().unwrap()
    }

    /// The contents, unless the storage fails now.
    fn write(&self) -> Result<MutexGuard<'_, (Contents, u32)>, ApplyError> {
        let mut state = self.lock();
        if state.1 > 0 {
            state.1 -= 1;
            return Err(ApplyError::Storage("the disk is full".into()));
        }
        Ok(state)
    }
}

/// What a member does with its disk. A member that was killed does nothing any more.
pub(super) struct Sink {
    pub(super) disk: Disk,
    pub(super) auditor: Arc<Auditor>,
    pub(super) service: [u8; 32],
    pub(super) dead: Arc<std::sync::atomic::AtomicBool>,
}

impl Sink {
    fn alive(&self) -> Result<(), ApplyError> {
        if self.dead.load(std::sync::atomic::Ordering::SeqCst) {
            return Err(ApplyError::Refused("killed".into()));
        }
        Ok(())
    }
}

impl Apply for Sink {
    fn head(&mut self) -> Result<Option<Head>, ApplyError> {
        self.alive()?;
        let state = self.disk.lock();
        let disk = &state.0;
        let newest = disk.prepared.or(disk.committed.last().copied());
        let undecided = u64::from(disk.prepared.is_some());
        let service = disk.service.filter(|_| !disk.sealed);
        Ok(service.map(|service| Head {
            service: Principal::from_bytes(service),
            epoch: 0,
            term: disk.term,
            size: disk.committed.len() as u64 + undecided,
            root: newest.map_or([0; 32], |digest| *digest.as_bytes()),
        }))
    }

    fn is_sealed(&mut self) -> bool {
        self.disk.is_sealed()
    }

    fn clock(&mut self) -> Option<Time> {
        None
    }

    fn begin(&mut self) -> Result<(), ApplyError> {
        self.alive()?;
        self.disk.write()?.0.service = Some(self.service);
        Ok(())
    }

    fn settle(&mut self) -> Result<(), ApplyError> {
        self.alive()?;
        let mut state = self.disk.write()?;
        let prepared = state.0.prepared.take();
        state.0.committed.extend(prepared);
        Ok(())
    }

    fn prepare(&mut self, term: u64, record: Option<&Received>) -> Result<(), ApplyError> {
        self.alive()?;
        let mut state = self.disk.write()?;
        assert!(term >= state.0.term, "a term goes back");
        state.0.term = term;
        state.0.prepared = record.map(Received::hash);
        Ok(())
    }

    fn commit(&mut self, record: &Received) -> Result<(), ApplyError> {
        self.alive()?;
        let mut state = self.disk.write()?;
        state.0.committed.push(record.hash());
        state.0.prepared = None;
        let sequence = &state.0.committed;
        let before = sequence.len().saturating_sub(3);
        for (place, record) in sequence.iter().enumerate().skip(before) {
            self.auditor.committed(place, *record);
        }
        Ok(())
    }

    fn transfer(&mut self, _: Option<&Head>) -> Result<Box<dyn Transfer>, ApplyError> {
        self.alive()?;
        let disk = self.disk.lock().0.clone();
        let mut pieces = vec![Zeroizing::new(disk.service.unwrap_or_default().to_vec())];
        let hashes = disk.committed.iter();
        pieces.extend(hashes.map(|hash| Zeroizing::new(hash.as_bytes().to_vec())));
        pieces.reverse();
        Ok(Box::new(Pieces(pieces)))
    }

    fn install(&mut self, term: u64, pieces: &mut dyn Transfer) -> Result<(), ApplyError> {
        self.alive()?;
        let mut read = Vec::new();
        while let Some(piece) = pieces.next()? {
            let bytes: [u8; 32] = piece.as_slice().try_into().unwrap();
            read.push(bytes);
        }
        self.alive()?;
        let mut state = self.disk.write()?;
        state.0 = Contents {
            service: Some(read[0]),
            term,
            committed: read[1..].iter().map(|b| Digest::from_bytes(*b)).collect(),
            prepared: None,
            sealed: false,
        };
        Ok(())
    }
}

/// Pieces in reverse order.
struct Pieces(Vec<Zeroizing<Vec<u8>>>);

impl Transfer for Pieces {
    fn next(&mut self) -> Result<Option<Zeroizing<Vec<u8>>>, ApplyError> {
        Ok(self.0.pop())
    }
}
