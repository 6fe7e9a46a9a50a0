//! Storage operations and answers: the frozen bytes, every cut, every limit.

use super::*;

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn every_operation() -> Vec<Operation<'static>> {
    vec![
        Operation::List,
        Operation::Read {
            name: name("root"),
            offset: 7,
            length: 9,
        },
        Operation::Append {
            name: name("log-00000000000000000000"),
            offset: OFFSET_MAX,
            bytes: b"frame".to_vec().into(),
        },
        Operation::Replace {
            name: name("a"),
            bytes: Vec::new().into(),
        },
        Operation::Remove { name: name("z-9") },
    ]
}

#[test]
fn operations_arrive_as_they_were_sent_one_after_another() {
    let mut wire = Vec::new();
    for operation in every_operation() {
        operation.write_to(&mut wire).unwrap();
    }
    let mut stream = &wire[..];
    for operation in every_operation() {
        let heard = Operation::read_from(&mut stream).unwrap();
        assert_eq!(heard, Some(operation));
    }
    assert_eq!(Operation::read_from(&mut stream).unwrap(), None);
}

#[test]
fn the_bytes_are_those_of_the_format() {
    let mut wire = Vec::new();
    let append = Operation::Append {
        name: name("log-0"),
        offset: 258,
        bytes: b"xy"[..].into(),
    };
    append.write_to(&mut wire).unwrap();
    assert_eq!(wire, b"\x04\x05log-0\0\0\0\0\0\0\x01\x02\0\0\0\x02xy");
    let mut wire = Vec::new();
    Answer::write(Status::Refused, b"", &mut wire).unwrap();
    assert_eq!(wire, b"\x01\0\0\0\0");
}

#[test]
fn an_operation_cut_short_anywhere_is_an_error_and_not_another_one() {
    for operation in every_operation() {
        let mut wire = Vec::new();
        operation.write_to(&mut wire).unwrap();
        for length in 1..wire.len() {
            let heard = Operation::read_from(&mut &wire[..length]);
            assert!(heard.is_err(), "{operation:?} cut to {length}");
        }
    }
}

#[test]
fn a_name_is_never_a_path() {
    let long = "a".repeat(65);
    for bad in [
        "", ".", "..", "a/b", "../a", "A", "a.b", "a_b", "a\0", "é", &long,
    ] {
        assert!(Name::new(bad).is_none(), "{bad:?}");
        let mut wire = vec![REMOVE, u8::try_from(bad.len()).unwrap()];
        wire.extend(bad.as_bytes());
        let error = Operation::read_from(&mut &wire[..]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData, "{bad:?}");
    }
    assert!(Name::new(&"a".repeat(64)).is_some());
}

#[test]
fn lengths_and_offsets_beyond_their_limit_are_refused_on_both_sides() {
    let too_much = vec![0; PIECE_BYTES_MAX + 1];
    let replace = Operation::Replace {
        name: name("a"),
        bytes: too_much.into(),
    };
    let read = |offset, length| Operation::Read {
        name: name("a"),
        offset,
        length,
    };
    for operation in [
        replace,
        read(OFFSET_MAX + 1, 1),
        read(0, 1 + u32::try_from(PIECE_BYTES_MAX).unwrap()),
    ] {
        let mut wire = Vec::new();
        let error = operation.write_to(&mut wire).unwrap_err();
        assert_eq!((error.kind(), wire.len()), (ErrorKind::InvalidInput, 0));
    }
    for wire in [
        &b"\x05\x01a\xff\xff\xff\xff"[..],
        b"\x04\x01a\0\0\0\0\0\0\0\0\xff\xff\xff\xff",
        b"\x04\x01a\xff\xff\xff\xff\xff\xff\xff\xff\0\0\0\0",
        b"\x03\x01a\0\0\0\0\0\0\0\0\x00\x40\x00\x01",
        b"\x00",
        b"\x01",
        b"\x07\x01a\0\0\0\0\0\0\0\0\xff\xff\xff\xff",
        b"\x08",
    ] {
        let error = Operation::read_from(&mut &wire[..]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData, "{wire:x?}");
    }
}

#[test]
fn an_answer_never_brings_more_than_was_asked_for() {
    let read = Operation::Read {
        name: name("a"),
        offset: 0,
        length: 2,
    };
    let answer = |status, bytes: &[u8]| {
        let mut wire = Vec::new();
        Answer::write(status, bytes, &mut wire).unwrap();
        wire
    };
    let fits = Answer::read_from(&read, &mut &answer(Status::Ok, b"xy")[..]).unwrap();
    assert_eq!((fits.status, &fits.bytes[..]), (Status::Ok, &b"xy"[..]));
    assert!(Answer::read_from(&read, &mut &answer(Status::Ok, b"xyz")[..]).is_err());
    assert!(Answer::read_from(&read, &mut &answer(Status::Bad, b"x")[..]).is_err());
    let remove = Operation::Remove { name: name("a") };
    assert!(Answer::read_from(&remove, &mut &answer(Status::Ok, b"x")[..]).is_err());
    assert!(Answer::read_from(&remove, &mut &b"\x03\0\0\0\0"[..]).is_err());
}

#[test]
fn a_list_comes_back_and_a_damaged_one_does_not() {
    let files = vec![(name("log-0"), 12), (name("root"), u64::MAX)];
    let bytes = encode_list(&files);
    assert_eq!(decode_list(&bytes).unwrap(), files);
    assert_eq!(decode_list(&[]).unwrap(), []);
    assert!(decode_list(&bytes[..bytes.len() - 1]).is_err());
    let many: Vec<_> = std::iter::repeat_n((name("a"), 0), NAMES_MAX + 1).collect();
    assert!(decode_list(&encode_list(&many)).is_err());
    assert_eq!(
        decode_list(&encode_list(&many[1..])).unwrap().len(),
        NAMES_MAX
    );
}
