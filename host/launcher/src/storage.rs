//! Serves storage visits: a program's files in a directory of its own.
//!
//! ```text
//! program ─ operation ─▶ serve ─▶ Directory ─▶ file, synced ─▶ answer ─▶ program ─ next operation …
//! ```
//!
//! Always true: the program hears OK only after the change survives a crash; one visit serves one
//! operation at a time, in order; what is malformed ends the visit; what the disk refuses does not.
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
        match perform(directory, operation) {
            Ok(bytes) => Answer::write(Status::Ok, &bytes, &mut answers)?,
            Err(DirectoryError::Gap) => {
                Answer::write(Status::Bad, &[], &mut answers)?;
                return Err(io::Error::other("an append beyond the file's end"));
            }
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
        } => directory.append(&name, offset, &bytes)?,
        Operation::Replace { name, bytes } => directory.replace(&name, &bytes)?,
        Operation::Remove { name } => directory.remove(&name)?,
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
