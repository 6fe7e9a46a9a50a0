//! A disk that keeps what it said was durable, perhaps some of what it did not, and is full when a test says so.
//!
//! In: the operations of a state. Out: what a machine's disk gives after power was lost: of bytes that were written and not
//! made durable any first part. A clone is another handle on the same disk.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use bield_ledger::{Files, FilesError};

use crate::disk::lock;

#[derive(Clone, Default)]
pub(super) struct TornFiles(Arc<Mutex<Disk>>);

#[derive(Default)]
struct Disk {
    files: BTreeMap<String, File>,
    writes: u64,
    fault: Option<Fault>,
    is_dead: bool,
    /// Bytes of all files that fit; none: any.
    room: Option<usize>,
}

#[derive(Default)]
struct File {
    bytes: Vec<u8>,
    /// So many of them outlive a crash.
    durable: usize,
}

/// What goes wrong at the writing operation of a number, counted from 0.
#[derive(Clone, Copy)]
pub(super) enum Fault {
    /// Power is lost when so many of its bytes are written.
    Crash(u64, usize),
    /// It is refused.
    Refuse(u64),
    /// It happens, and nobody hears of it.
    LoseAnswer(u64),
}

impl TornFiles {
    pub(super) fn writes(&self) -> u64 {
        lock(&self.0).writes
    }

    pub(super) fn fail(&self, fault: Fault) {
        lock(&self.0).fault = Some(fault);
    }

    /// Nothing is taken beyond `room` bytes in all from now on.
    pub(super) fn limit(&self, room: Option<usize>) {
        lock(&self.0).room = room;
    }

    pub(super) fn bytes(&self) -> usize {
        lock(&self.0).bytes()
    }

    pub(super) fn names(&self) -> Vec<String> {
        lock(&self.0).files.keys().cloned().collect()
    }

    /// Nothing more goes wrong, unless power is lost already.
    pub(super) fn calm(&self) -> bool {
        let mut disk = lock(&self.0);
        (disk.fault, disk.room) = (None, None);
        !disk.is_dead
    }

    /// Power is lost.
    pub(super) fn crash(&self) {
        lock(&self.0).is_dead = true;
    }

    /// Power is back, after a crash or without one; `draw` says how much of what was not durable is there.
    pub(super) fn restart(&self, mut draw: impl FnMut(usize) -> usize) {
        let mut disk = lock(&self.0);
        if disk.is_dead {
            for file in disk.files.values_mut() {
                let loose = file.bytes.len() - file.durable;
                file.bytes.truncate(file.durable + draw(loose + 1));
                file.durable = file.bytes.len();
            }
        }
        (disk.is_dead, disk.fault, disk.room) = (false, None, None);
    }

    fn alive(&self) -> Result<MutexGuard<'_, Disk>, FilesError> {
        let disk = lock(&self.0);
        match disk.is_dead {
            true => Err(lost()),
            false => Ok(disk),
        }
    }

    fn put(&self, name: &str, offset: u64, bytes: &[u8], durably: bool) -> Result<(), FilesError> {
        let mut disk = self.alive()?;
        let number = disk.writes;
        disk.writes += 1;
        let (mut take, mut answer) = (bytes.len(), Ok(()));
        match disk.fault {
            Some(Fault::Crash(write, part)) if write == number => {
                disk.is_dead = true;
                (take, answer) = (part.min(take), Err(lost()));
            }
            Some(Fault::Refuse(write)) if write == number => return Err(FilesError::Refused),
            Some(Fault::LoseAnswer(write)) if write == number => answer = Err(lost()),
            _ => {}
        }
        let offset = usize::try_from(offset).unwrap();
        let old = disk.files.get(name).map_or(0, |file| file.bytes.len());
        assert!(offset <= old, "a gap in {name}");
        if let Some(room) = disk.room {
            let fits = room.saturating_sub(disk.bytes() - old + offset);
            if fits < take {
                (take, answer) = (fits, Err(FilesError::Refused));
            }
        }
        let file = disk.files.entry(name.to_owned()).or_default();
        file.bytes.truncate(offset);
        file.bytes.extend_from_slice(&bytes[..take]);
        file.durable = file.durable.min(offset);
        if durably && answer.is_ok() {
            file.durable = file.bytes.len();
        }
        answer
    }
}

impl Disk {
    fn bytes(&self) -> usize {
        self.files.values().map(|file| file.bytes.len()).sum()
    }
}

impl Files for TornFiles {
    fn list(&mut self) -> Result<Vec<(String, u64)>, FilesError> {
        let disk = self.alive()?;
        let each = disk.files.iter();
        Ok(each
            .map(|(name, file)| (name.clone(), file.bytes.len() as u64))
            .collect())
    }

    fn read(&mut self, name: &str, offset: u64, length: u64) -> Result<Vec<u8>, FilesError> {
        let disk = self.alive()?;
        let bytes = disk.files.get(name).map_or(&[][..], |file| &file.bytes);
        let start = bytes.len().min(offset as usize);
        let end = bytes.len().min(start + length as usize);
        Ok(bytes[start..end].to_vec())
    }

    fn append(&mut self, name: &str, offset: u64, bytes: &[u8]) -> Result<(), FilesError> {
        self.put(name, offset, bytes, true)
    }

    fn write(&mut self, name: &str, offset: u64, bytes: &[u8]) -> Result<(), FilesError> {
        self.put(name, offset, bytes, false)
    }

    fn replace(&mut self, name: &str, bytes: &[u8]) -> Result<(), FilesError> {
        self.put(name, 0, bytes, true)
    }

    fn remove(&mut self, name: &str) -> Result<(), FilesError> {
        let mut disk = self.alive()?;
        let number = disk.writes;
        disk.writes += 1;
        match disk.fault {
            Some(Fault::Crash(write, part)) if write == number => {
                if part > 0 {
                    disk.files.remove(name);
                }
                disk.is_dead = true;
                Err(lost())
            }
            Some(Fault::Refuse(write)) if write == number => Err(FilesError::Refused),
            _ => {
                disk.files.remove(name);
                Ok(())
            }
        }
    }
}

fn lost() -> FilesError {
    FilesError::Unreachable("power was lost".to_owned())
}
