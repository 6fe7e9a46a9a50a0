//! Files over the storage visits that the host keeps open.
//!
//! ```text
//! ledger ──Files──▶ HostFiles ──one visit, one operation at a time──▶ host's directory
//!                      └─ broken? take the next offer, ask once more, then tell the caller
//! ```
//!
//! Goes in: names and bytes of the ledger, already sealed or meant to be public. Comes out: what the host
//! answers, believed by nobody. Always true: one visit at a time, the old one closed before the next is
//! taken; an operation is asked at most twice, which is harmless, as each says for itself where its bytes
//! belong; every wait ends.
//!
//! Left to others: what to do about a host that does not answer (the sequencer repeats the same record),
//! and checking what comes back (`bield-ledger`). On paper: an operation is two writes and two reads of a
//! socket.

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::Duration;

use bield_door::{Offers, Stream};
use bield_protocol::visit::Visit;
use bield_protocol::visit::storage::{Name, Operation, Status, ask, decode_list};

use crate::{Files, FilesError};

/// The host's directory.
pub struct HostFiles {
    offers: Arc<Offers>,
    visit: Option<Stream>,
}

impl HostFiles {
    /// Uses the storage visits among `offers`.
    #[must_use]
    pub const fn new(offers: Arc<Offers>) -> Self {
        Self {
            offers,
            visit: None,
        }
    }

    fn ask(&mut self, operation: &Operation<'_>) -> Result<Vec<u8>, FilesError> {
        let known = self.visit.is_some();
        match self.try_once(operation) {
            // The host restarted or closed an idle visit: a new one may do.
            Err(error) if known && !is_timeout(&error) => self.try_once(operation),
            outcome => outcome,
        }
        .map_err(|error| FilesError::Unreachable(error.to_string()))?
        .ok_or(FilesError::Refused)
    }

    /// Asks on the open visit, or on a new one; `None` when the host refuses. A visit that failed is not
    /// used again: a late answer would be taken for that of the next operation.
    fn try_once(&mut self, operation: &Operation<'_>) -> io::Result<Option<Vec<u8>>> {
        let mut visit = match self.visit.take() {
            Some(visit) => visit,
            None => self.open()?,
        };
        let answer = ask(operation, &mut visit)?;
        match answer.status {
            Status::Ok => {
                self.visit = Some(visit);
                Ok(Some(answer.bytes))
            }
            Status::Refused => {
                self.visit = Some(visit);
                Ok(None)
            }
            Status::Bad => Err(io::Error::new(
                ErrorKind::InvalidInput,
                "the host has another file than was written",
            )),
        }
    }

    fn open(&self) -> io::Result<Stream> {
        let visit = self.offers.take(Visit::Storage, OFFER_WAIT);
        let visit =
            visit.map_err(|error| io::Error::new(ErrorKind::TimedOut, error.to_string()))?;
        visit.limit_waits(ANSWER_WAIT)?;
        Ok(visit)
    }
}

impl Files for HostFiles {
    fn list(&mut self) -> Result<Vec<(String, u64)>, FilesError> {
        let bytes = self.ask(&Operation::List)?;
        let files = decode_list(&bytes).map_err(|error| unreachable(&error))?;
        let plain = |(name, length): (Name, u64)| (name.as_str().to_owned(), length);
        Ok(files.into_iter().map(plain).collect())
    }

    fn read(&mut self, name: &str, offset: u64, length: u64) -> Result<Vec<u8>, FilesError> {
        let name = named(name)?;
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        self.ask(&Operation::Read {
            name,
            offset,
            length,
        })
    }

    fn append(&mut self, name: &str, offset: u64, bytes: &[u8]) -> Result<(), FilesError> {
        let (name, bytes) = (named(name)?, bytes.into());
        self.ask(&Operation::Append {
            name,
            offset,
            bytes,
        })
        .map(drop)
    }

    fn write(&mut self, name: &str, offset: u64, bytes: &[u8]) -> Result<(), FilesError> {
        let (name, bytes) = (named(name)?, bytes.into());
        self.ask(&Operation::Write {
            name,
            offset,
            bytes,
        })
        .map(drop)
    }

    fn replace(&mut self, name: &str, bytes: &[u8]) -> Result<(), FilesError> {
        let (name, bytes) = (named(name)?, bytes.into());
        self.ask(&Operation::Replace { name, bytes }).map(drop)
    }

    fn remove(&mut self, name: &str) -> Result<(), FilesError> {
        let name = named(name)?;
        self.ask(&Operation::Remove { name }).map(drop)
    }
}

fn named(name: &str) -> Result<Name, FilesError> {
    Name::new(name).ok_or_else(|| FilesError::Unreachable(format!("{name} names no file")))
}

fn unreachable(error: &io::Error) -> FilesError {
    FilesError::Unreachable(error.to_string())
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// How long an operation waits for the host to offer a visit.
const OFFER_WAIT: Duration = Duration::from_secs(5);
/// How long one write or read of a visit waits: a busy disk takes seconds to sync.
const ANSWER_WAIT: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Write as _;
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::path::PathBuf;
    use std::sync::{Mutex, PoisonError};

    use bield_door::Door;
    use bield_protocol::visit::storage::{Answer, encode_list};

    use super::*;

    type Disk = Arc<Mutex<BTreeMap<Name, Vec<u8>>>>;

    /// A host that keeps files in memory and closes each visit after `patience` operations.
    struct Host {
        disk: Disk,
        path: PathBuf,
        _directory: tempfile::TempDir,
    }

    fn host(patience: usize, visits: usize) -> (Host, HostFiles) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("door");
        let door = Door::new(UnixListener::bind(&path).unwrap());
        let host = Host {
            disk: Disk::default(),
            path,
            _directory: directory,
        };
        let offers = Arc::new(Offers::new());
        for _ in 0..visits {
            host.offer(patience);
            let (visit, stream) = door.accept().unwrap();
            offers.keep(visit, stream);
        }
        (host, HostFiles::new(offers))
    }

    impl Host {
        fn offer(&self, patience: usize) {
            let mut visit = UnixStream::connect(&self.path).unwrap();
            visit.write_all(&[Visit::Storage.byte()]).unwrap();
            let disk = Arc::clone(&self.disk);
            std::thread::spawn(move || {
                for _ in 0..patience {
                    let Ok(Some(operation)) = Operation::read_from(&mut visit) else {
                        return;
                    };
                    let (status, bytes) = perform(&disk, operation);
                    drop(Answer::write(status, &bytes, &mut visit));
                }
            });
        }
    }

    fn perform(disk: &Disk, operation: Operation<'_>) -> (Status, Vec<u8>) {
        let mut disk = disk.lock().unwrap_or_else(PoisonError::into_inner);
        match operation {
            Operation::List => {
                let files: Vec<_> = disk
                    .iter()
                    .map(|(name, bytes)| (name.clone(), bytes.len() as u64))
                    .collect();
                (Status::Ok, encode_list(&files))
            }
            Operation::Read {
                name,
                offset,
                length,
            } => {
                let bytes = disk.get(&name).cloned().unwrap_or_default();
                let from = bytes.iter().skip(usize::try_from(offset).unwrap());
                (Status::Ok, from.take(length as usize).copied().collect())
            }
            Operation::Append {
                name,
                offset,
                bytes,
            }
            | Operation::Write {
                name,
                offset,
                bytes,
            } => {
                let file = disk.entry(name).or_default();
                let offset = usize::try_from(offset).unwrap();
                if file.len() < offset {
                    return (Status::Bad, Vec::new());
                }
                file.truncate(offset);
                file.extend_from_slice(&bytes);
                (Status::Ok, Vec::new())
            }
            Operation::Replace { name, bytes } if name.as_str() != "full" => {
                disk.insert(name, bytes.into_owned());
                (Status::Ok, Vec::new())
            }
            Operation::Replace { .. } => (Status::Refused, Vec::new()),
            Operation::Remove { name } => {
                disk.remove(&name);
                (Status::Ok, Vec::new())
            }
        }
    }

    #[test]
    fn files_are_kept_by_the_host_over_one_visit() {
        let (_host, mut files) = host(100, 1);
        files.append("log-0", 0, b"one").unwrap();
        files.write("log-0", 3, b"two").unwrap();
        files.append("log-0", 4, b"xyz").unwrap();
        files.replace("root", b"sealed").unwrap();
        assert_eq!(files.read("log-0", 1, 100).unwrap(), b"netxyz");
        assert_eq!(files.read("nothing", 0, 9).unwrap(), b"");
        let listed = files.list().unwrap();
        assert_eq!(listed, [("log-0".to_owned(), 7), ("root".to_owned(), 6)]);
        files.remove("root").unwrap();
        assert_eq!(files.list().unwrap().len(), 1);
    }

    #[test]
    fn a_visit_that_the_host_closed_is_taken_again() {
        let (_host, mut files) = host(1, 4);
        for round in 0..4 {
            files.append("log-0", round, b"x").unwrap();
        }
        assert!(matches!(files.list(), Err(FilesError::Unreachable(_))));
    }

    #[test]
    fn a_full_disk_is_told_from_a_host_that_is_gone() {
        let (_host, mut files) = host(100, 1);
        assert_eq!(files.replace("full", b"x"), Err(FilesError::Refused));
        assert!(files.replace("other", b"x").is_ok(), "the visit goes on");
        let gap = files.append("log-9", 5, b"x");
        assert!(matches!(gap, Err(FilesError::Unreachable(_))));
    }
}
