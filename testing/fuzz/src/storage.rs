//! The storage visit: what a host hears from a program it does not trust, and the other way round.

use bield_protocol::visit::storage::{
    Answer, Name, Operation, PIECE_BYTES_MAX, Status, decode_list, encode_list,
};

/// Operations as the host reads them, one after another. What was read is written again as it was.
pub fn storage_operations(data: &[u8]) -> bool {
    let mut rest = data;
    loop {
        let before = rest;
        match Operation::read_from(&mut rest) {
            Ok(Some(operation)) => {
                let mut again = Vec::new();
                let written = operation.write_to(&mut again);
                assert!(written.is_ok(), "read beyond what may be written");
                let read = &before[..before.len() - rest.len()];
                assert!(again == read, "a second encoding of one operation");
                within_bounds(&operation);
            }
            Ok(None) => return true,
            Err(_) => return false,
        }
    }
}

/// An answer as the program reads it, once for each thing it may have asked.
pub fn storage_answer(data: &[u8]) -> bool {
    let mut accepted = false;
    for asked in asked() {
        let mut rest = data;
        let Ok(answer) = Answer::read_from(&asked, &mut rest) else {
            continue;
        };
        accepted = true;
        let mut again = Vec::new();
        let written = Answer::write(answer.status, &answer.bytes, &mut again);
        assert!(written.is_ok() && data.starts_with(&again));
        match asked {
            Operation::List => {
                if let Ok(files) = decode_list(&answer.bytes) {
                    assert!(encode_list(&files) == answer.bytes, "a second encoding");
                }
            }
            Operation::Read { length, .. } => assert!(answer.bytes.len() <= length as usize),
            _ => assert!(answer.bytes.is_empty(), "bytes nobody asked for"),
        }
        assert!(answer.status == Status::Ok || answer.bytes.is_empty());
    }
    accepted
}

fn within_bounds(operation: &Operation<'_>) {
    match operation {
        Operation::Append { bytes, .. }
        | Operation::Write { bytes, .. }
        | Operation::Replace { bytes, .. } => {
            assert!(bytes.len() <= PIECE_BYTES_MAX);
        }
        Operation::Read { length, .. } => assert!(*length as usize <= PIECE_BYTES_MAX),
        Operation::List | Operation::Remove { .. } => {}
    }
}

fn name(text: &str) -> Option<Name> {
    Name::new(text)
}

/// One operation of each kind of answer.
fn asked() -> Vec<Operation<'static>> {
    let mut asked = vec![Operation::List];
    if let Some(name) = name("log-0") {
        asked.push(Operation::Read {
            name: name.clone(),
            offset: 3,
            length: 40,
        });
        asked.push(Operation::Remove { name });
    }
    asked
}

pub(crate) mod seeds {
    use super::*;

    pub(crate) fn storage_operations() -> Vec<Vec<u8>> {
        let mut operations = asked();
        for name in name("root").into_iter().chain(name("log-1")) {
            operations.push(Operation::Append {
                name: name.clone(),
                offset: 12,
                bytes: b"frame"[..].into(),
            });
            operations.push(Operation::Write {
                name: name.clone(),
                offset: 17,
                bytes: b"frame"[..].into(),
            });
            operations.push(Operation::Replace {
                name,
                bytes: b"sealed"[..].into(),
            });
        }
        let mut all = Vec::new();
        let mut seeds = Vec::new();
        for operation in operations {
            let mut wire = Vec::new();
            if operation.write_to(&mut wire).is_ok() {
                all.extend_from_slice(&wire);
                seeds.push(wire);
            }
        }
        seeds.push(all);
        seeds
    }

    pub(crate) fn storage_answer() -> Vec<Vec<u8>> {
        let files: Vec<_> = ["root", "log-0"]
            .into_iter()
            .filter_map(|file| Some((name(file)?, 9)))
            .collect();
        let answers = [
            (Status::Ok, Vec::new()),
            (Status::Ok, b"bytes of a file".to_vec()),
            (Status::Ok, encode_list(&files)),
            (Status::Refused, Vec::new()),
            (Status::Bad, Vec::new()),
        ];
        let wires = answers.into_iter().filter_map(|(status, bytes)| {
            let mut wire = Vec::new();
            Answer::write(status, &bytes, &mut wire).ok()?;
            Some(wire)
        });
        wires.collect()
    }
}
