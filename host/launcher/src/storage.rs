//! Serves storage visits: a program's files in a directory of its own.
//!
//! ```text
//! program ─ operation ─▶ serve ─▶ Directory ─▶ file, synced ─▶ answer ─▶ program ─ next operation …
//! ```
//!
//! Always true: the program hears OK only after the change survives a crash; one visit serves one
//! operation at a time, in order; what is malformed ends the visit; what the disk refuses does not. An
//! operation of a visit that the program has closed, or after which it began another one, changes nothing
//! any more: the program may have asked again there and gone on, and a late append would cut off what came
//! after.
//! Whether the files are the newest ones, the program must check itself: a host can bring back old ones.
//!
//! On paper: an APPEND costs an open, a write and an `fdatasync`; the sync is nearly all of it.

mod directory;

use std::io::{self, BufReader, ErrorKind, Read};
use std::sync::Arc;

use bield_protocol::visit::storage::{Answer, Operation, Status, encode_list};

pub(crate) use directory::Directory;
use directory::DirectoryError;

use crate::record::Pipe;

/// Answers the operations of one visit whose first byte is already here, until the program closes it.
pub(crate) fn serve(visit: Pipe, first: u8, directory: &Arc<Directory>) -> io::Result<()> {
    let mut answers = visit.second()?;
    let number = directory.begin(&answers)?;
    let mut operations = BufReader::new(visit);
    let mut next = Some(first);
    while let Some(first) = next {
        let operation = match Operation::read_after(first, &mut operations) {
            Ok(operation) => operation,
            Err(error) if error.kind() == ErrorKind::InvalidData => {
                Answer::write(Status::Bad, &[], &mut answers)?;
                return Err(error);
            }
            Err(error) => return Err(error),
        };
        match perform(directory, operation, number, &answers) {
            Ok(bytes) => Answer::write(Status::Ok, &bytes, &mut answers)?,
            Err(DirectoryError::Gap) => {
                Answer::write(Status::Bad, &[], &mut answers)?;
                return Err(io::Error::other("an append beyond the file's end"));
            }
            Err(DirectoryError::Over) => return Err(ErrorKind::BrokenPipe.into()),
            Err(DirectoryError::System(error)) => {
                tracing::error!(directory = %directory.path().display(), %error,
                    "the program's storage was not served; free space or fix the disk");
                Answer::write(Status::Refused, &[], &mut answers)?;
            }
        }
        next = first_byte(&mut operations)?;
    }
    Ok(())
}

fn perform(
    directory: &Directory,
    operation: Operation<'static>,
    number: u64,
    visit: &Pipe,
) -> Result<Vec<u8>, DirectoryError> {
    match operation {
        Operation::List => return Ok(encode_list(&directory.list()?)),
        Operation::Read {
            name,
            offset,
            length,
        } => return Ok(directory.read(&name, offset, length as usize)?),
        Operation::Append {
            name,
            offset,
            bytes,
        } => directory
            .turn_of(number, visit)?
            .append(&name, offset, &bytes)?,
        Operation::Write {
            name,
            offset,
            bytes,
        } => directory
            .turn_of(number, visit)?
            .write(&name, offset, &bytes)?,
        Operation::Replace { name, bytes } => {
            directory.turn_of(number, visit)?.replace(&name, &bytes)?
        }
        Operation::Remove { name } => directory.turn_of(number, visit)?.remove(&name)?,
    }
    Ok(Vec::new())
}

/// Waits for the next operation as long as the program lives: the visit's time limit counts within an
/// operation only.
fn first_byte(operations: &mut impl Read) -> io::Result<Option<u8>> {
    let mut byte = [0];
    loop {
        match operations.read(&mut byte) {
            Ok(0) => return Ok(None),
            Ok(_) => return Ok(Some(byte[0])),
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::Interrupted | ErrorKind::WouldBlock | ErrorKind::TimedOut
                ) => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use bield_protocol::visit::Visit;
    use bield_protocol::visit::storage::{Name, ask};

    use super::*;
    use crate::record::Recorder;

    /// A visit that is being served: the program's end, and the host's thread.
    fn served(directory: &Arc<Directory>) -> (UnixStream, std::thread::JoinHandle<()>) {
        let (host, mut program) = UnixStream::pair().unwrap();
        let recorder = Recorder::new(None, "program").unwrap();
        let mut visit = recorder.pipe(host, Visit::Storage).unwrap();
        program.read_exact(&mut [0]).unwrap();
        let directory = Arc::clone(directory);
        let thread = std::thread::spawn(move || {
            let mut first = [0];
            visit.read_exact(&mut first).unwrap();
            let _ = serve(visit, first[0], &directory);
        });
        (program, thread)
    }

    #[test]
    fn a_late_append_of_a_closed_visit_cuts_nothing_off() {
        let at = tempfile::tempdir().unwrap();
        let directory = Arc::new(Directory::open(at.path()).unwrap());
        let name = Name::new("log").unwrap();
        let append = |offset, bytes: &'static [u8]| Operation::Append {
            name: name.clone(),
            offset,
            bytes: bytes.into(),
        };
        // The program asks, hears nothing in time, and closes the visit.
        let mut busy = directory.turn();
        let (mut late, thread) = served(&directory);
        append(0, b"first").write_to(&mut late).unwrap();
        drop(late);
        // Meanwhile it has asked again and gone on.
        for (offset, bytes) in [(0, &b"first"[..]), (5, b", second")] {
            assert!(busy.append(&name, offset, bytes).is_ok());
        }
        drop(busy);
        thread.join().unwrap();
        assert_eq!(directory.read(&name, 0, 99).unwrap(), b"first, second");

        let (mut visit, thread) = served(&directory);
        let answer = ask(&append(13, b"."), &mut visit).unwrap();
        assert_eq!(answer.status, Status::Ok);
        drop(visit);
        thread.join().unwrap();
        assert_eq!(directory.read(&name, 13, 9).unwrap(), b".");
    }

    #[test]
    fn a_new_visit_ends_the_one_before_even_if_that_is_not_closed() {
        let at = tempfile::tempdir().unwrap();
        let directory = Arc::new(Directory::open(at.path()).unwrap());
        let name = Name::new("log").unwrap();
        let append = |offset, bytes: &'static [u8]| Operation::Append {
            name: name.clone(),
            offset,
            bytes: bytes.into(),
        };
        let (mut before, first) = served(&directory);
        assert_eq!(
            ask(&append(0, b"first"), &mut before).unwrap().status,
            Status::Ok
        );
        let (mut after, second) = served(&directory);
        assert_eq!(
            ask(&append(5, b", second"), &mut after).unwrap().status,
            Status::Ok
        );
        assert!(ask(&append(0, b"late"), &mut before).is_err());
        first.join().unwrap();
        drop(after);
        second.join().unwrap();
        assert_eq!(directory.read(&name, 0, 99).unwrap(), b"first, second");
    }

    #[test]
    fn visits_to_a_shared_directory_go_on_beside_each_other() {
        let at = tempfile::tempdir().unwrap();
        let directory = Arc::new(Directory::open(at.path()).unwrap().shared());
        let write = |name: &str, offset, bytes: &'static [u8]| Operation::Write {
            name: Name::new(name).unwrap(),
            offset,
            bytes: bytes.into(),
        };
        let (mut one, first) = served(&directory);
        let (mut other, second) = served(&directory);
        for (visit, name) in [(&mut one, "log-a"), (&mut other, "log-b")] {
            let answer = ask(&write(name, 0, b"first"), visit).unwrap();
            assert_eq!(answer.status, Status::Ok);
        }
        for (visit, name) in [(&mut one, "log-a"), (&mut other, "log-b")] {
            let answer = ask(&write(name, 3, b"m one to last"), visit).unwrap();
            assert_eq!(answer.status, Status::Ok);
            let read = directory.read(&Name::new(name).unwrap(), 0, 99).unwrap();
            assert_eq!(read, b"firm one to last");
        }
        assert_eq!(
            ask(&write("log-c", 1, b"gap"), &mut other).unwrap().status,
            Status::Bad
        );
        drop((one, other));
        first.join().unwrap();
        second.join().unwrap();
    }

    #[test]
    fn a_closed_visit_is_seen_to_be_closed_behind_bytes_that_nobody_read() {
        let (host, mut program) = UnixStream::pair().unwrap();
        let recorder = Recorder::new(None, "program").unwrap();
        let visit = recorder.pipe(host, Visit::Storage).unwrap();
        io::Write::write_all(&mut program, b"unread").unwrap();
        assert!(!visit.is_closed());
        drop(program);
        assert!(visit.is_closed());
    }
}
