//! Notes against the examples of the specification and of Go's `note` package, and another
//! implementation.

use bield_envelope::Secret;
use proptest::prelude::*;
use signed_note::{StandardSigner, StandardVerifier, VerifierList};

use super::*;

/// The key, text and signature of Go's `golang.org/x/mod/sumdb/note`.
const PETER: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
const PETER_SECRET: &str = "AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz";
const PETER_TEXT: &str = "If you think cryptography is the answer to your problem,\n\
                          then you don't know what your problem is.\n";
const PETER_LINE: &str = "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN\
                          1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";

fn peter_key() -> LogKey {
    let secret = from_base64(PETER_SECRET).unwrap();
    assert_eq!(secret[0], 0x01);
    let seed = Secret::from_bytes(secret[1..].try_into().unwrap());
    LogKey::new("PeterNeumann".parse().unwrap(), &seed)
}

fn peter_note() -> String {
    format!("{PETER_TEXT}\n{PETER_LINE}")
}

fn key(name: &str, number: u8) -> LogKey {
    LogKey::new(name.parse().unwrap(), &Secret::from_bytes([number; 32]))
}

fn verifiers(keys: &[&LogKey]) -> Vec<LogVerifier> {
    keys.iter().map(|key| key.verifier().clone()).collect()
}

#[test]
fn the_example_of_go_is_read_and_signed_byte_for_byte() {
    let verifier: LogVerifier = PETER.parse().unwrap();
    let note = Note::parse(peter_note().as_bytes()).unwrap();
    assert_eq!(note.text(), PETER_TEXT);
    assert_eq!(note.verify(&[verifier]), Ok(()));
    assert_eq!(note.to_string(), peter_note());

    assert_eq!(peter_key().verifier().to_string(), PETER);
    let ours = Note::sign(PETER_TEXT.to_owned(), &peter_key());
    assert_eq!(ours.to_string(), peter_note());
}

/// signed-note, "Verifier keys", "Example".
#[test]
fn the_example_of_the_specification_verifies() {
    let verifier: LogVerifier =
        "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
            .parse()
            .unwrap();
    let note = "This is an example message.\n\n— example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq\
                6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n";
    let note = Note::parse(note.as_bytes()).unwrap();
    assert_eq!(note.verify(core::slice::from_ref(&verifier)), Ok(()));
    assert_eq!(verifier.id().to_string(), "530d903a");
    assert_eq!(verifier.name().as_str(), "example.com/foo");
}

/// signed-note, first page: a text with an empty line in it.
#[test]
fn a_text_may_hold_empty_lines() {
    let text = "Ognuno sta solo sul cuor della terra\ntrafitto da un raggio di sole:\n\ned è subito \
                sera.\n";
    let line = "— quasimodo.example/salvatore NnugSzTjtVAewIS+Z/iJhUPeFDkO/5QQ2i5ddnGITLlC+EhfLW9o\
                JKONrMouFSQU0xMcXxj99ihAQwaqP3ZekRwNtIc=\n";
    let note = Note::parse(format!("{text}\n{line}").as_bytes()).unwrap();
    assert_eq!(note.text(), text);
    assert_eq!(note.signatures().len(), 1);
    for text in ["\n", "\n\n", "a\n\n\n"] {
        let note = Note::parse(format!("{text}\n{PETER_LINE}").as_bytes()).unwrap();
        assert_eq!(note.text(), text);
    }
}

#[test]
fn another_implementation_reads_ours_and_signs_the_same() {
    let key = key("example.com/log", 9);
    let text = "example.com/log\n1\nAAAA\n";
    let ours = Note::sign(text.to_owned(), &key).to_string();
    let theirs = signed_note::Note::from_bytes(ours.as_bytes()).unwrap();
    let known = StandardVerifier::new(&key.verifier().to_string()).unwrap();
    theirs
        .verify(&VerifierList::new(vec![Box::new(known)]))
        .unwrap();

    let secret = base64([&[1], [9u8; 32].as_slice()].concat());
    let secret = format!(
        "PRIVATE+KEY+{}+{}+{secret}",
        key.verifier().name(),
        key.verifier().id()
    );
    let mut theirs = signed_note::Note::new(text.as_bytes(), &[]).unwrap();
    theirs
        .add_sigs(&[&StandardSigner::new(&secret).unwrap()])
        .unwrap();
    assert_eq!(theirs.to_bytes(), ours.as_bytes());
}

#[test]
fn a_note_with_one_bit_changed_is_refused() {
    let verifier = [PETER.parse().unwrap()];
    let good = peter_note().into_bytes();
    for bit in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        let verdict = Note::parse(&bad).and_then(|note| note.verify(&verifier));
        assert!(verdict.is_err(), "bit {bit}");
    }
    for end in 0..good.len() {
        let verdict = Note::parse(&good[..end]).and_then(|note| note.verify(&verifier));
        assert!(verdict.is_err(), "cut at {end}");
    }
}

#[test]
fn malformed_notes_are_refused() {
    let text = PETER_TEXT;
    for note in [
        String::new(),
        "\n".into(),
        "\n\n".into(),
        text.to_owned(),
        format!("{text}\n"),
        format!("{text}{PETER_LINE}"),
        format!("\n{PETER_LINE}"),
        format!("{text}\n{}", PETER_LINE.trim_end()),
        format!("{text}\n{PETER_LINE}\n"),
        format!("{text}\n{PETER_LINE}x\n"),
        format!("{text}\n {PETER_LINE}"),
        format!("{text}\n{}", PETER_LINE.replace('—', "-")),
        format!("{text}\n{}", PETER_LINE.replace("— ", "—")),
        format!("{text}\n{}", PETER_LINE.replace("n x", "n  x")),
        format!("{text}\n{}", PETER_LINE.replace(" PeterNeumann", "")),
        format!(
            "{text}\n{}",
            PETER_LINE.replace("PeterNeumann", "Peter+Neumann")
        ),
        format!(
            "{text}\n{}",
            PETER_LINE.replace("PeterNeumann", "Peter\u{a0}Neumann")
        ),
        format!("{text}\n{}", PETER_LINE.replace('=', "")),
        format!("{text}\n{}", PETER_LINE.replace('\n', "\r\n")),
        format!("{text}\n— PeterNeumann x08gow==\n"),
        format!("{text}\n— PeterNeumann x08g\n"),
        format!("{text}\n— PeterNeumann \n"),
        format!("a\tb\n\n{PETER_LINE}"),
        format!("a\0b\n\n{PETER_LINE}"),
    ] {
        assert!(Note::parse(note.as_bytes()).is_err(), "{note}");
        let theirs = signed_note::Note::from_bytes(note.as_bytes());
        assert!(theirs.is_err(), "{note}");
    }
    assert_eq!(Note::parse(b"\xff\n\n"), Err(NoteError::NotText));
}

#[test]
fn lines_of_strangers_are_kept_and_not_believed() {
    let (log, stranger) = (key("log", 1), key("stranger", 2));
    let text = "text\n".to_owned();
    let mut note = Note::sign(text.clone(), &log);
    let strange = Note::sign("other text\n".to_owned(), &stranger).signatures()[0].clone();
    note.add(strange).unwrap();
    assert_eq!(note.verify(&verifiers(&[&log])), Ok(()));
    assert_eq!(Note::parse(note.to_string().as_bytes()).unwrap(), note);

    // Same name and another key: a stranger.
    let namesake = key("log", 3);
    assert_eq!(
        note.verify(&verifiers(&[&namesake])),
        Err(NoteError::Unsigned)
    );
    assert_eq!(note.verify(&[]), Err(NoteError::Unsigned));
    // Trusted as well, and its line is over another text: the whole note is refused.
    assert!(matches!(
        note.verify(&verifiers(&[&log, &stranger])),
        Err(NoteError::Forged { name }) if name.as_str() == "stranger"
    ));
}

#[test]
fn the_number_of_lines_and_bytes_is_bounded() {
    let log = key("log", 1);
    let mut note = Note::sign("text\n".to_owned(), &log);
    for number in 1..SIGNATURES_MAX {
        let line = SignatureLine::new(log.verifier(), vec![number as u8; 64]);
        note.add(line).unwrap();
    }
    let line = note.signatures()[5].clone();
    assert_eq!(note.add(line), Ok(()), "known already");
    let line = SignatureLine::new(log.verifier(), vec![200; 64]);
    assert_eq!(note.add(line.clone()), Err(NoteError::TooManySignatures));
    assert_eq!(note.signatures().len(), SIGNATURES_MAX);
    assert!(Note::parse(note.to_string().as_bytes()).is_ok());
    let one_more = format!("{note}{line}");
    assert_eq!(
        Note::parse(one_more.as_bytes()),
        Err(NoteError::TooManySignatures)
    );

    // What every verifier must take: 16 post-quantum signatures.
    let mut note = Note::sign("text\n".to_owned(), &log);
    for number in 0..15 {
        let line = SignatureLine::new(log.verifier(), vec![number; 5000]);
        note.add(line).unwrap();
    }
    assert!(Note::parse(note.to_string().as_bytes()).is_ok());
    let huge = SignatureLine::new(log.verifier(), vec![1; NOTE_BYTES_MAX]);
    assert!(matches!(note.add(huge), Err(NoteError::TooLong { .. })));
    assert_eq!(note.signatures().len(), 16);
    assert!(matches!(
        Note::parse(&vec![b'a'; NOTE_BYTES_MAX + 1]),
        Err(NoteError::TooLong { .. })
    ));
}

#[test]
fn a_verifier_key_has_one_spelling() {
    for start in 0..PETER.len() {
        for end in start..=PETER.len() {
            if (start, end) != (0, PETER.len()) {
                assert!(PETER[start..end].parse::<LogVerifier>().is_err());
            }
        }
    }
    for bit in 0..PETER.len() * 8 {
        let mut bad = PETER.as_bytes().to_vec();
        bad[bit / 8] ^= 1 << (bit % 8);
        if let Ok(bad) = core::str::from_utf8(&bad) {
            assert!(bad.parse::<LogVerifier>().is_err(), "{bad}");
        }
    }
    // Each with its own right id: a key of 34 bytes, a type nobody assigned (Go's examples).
    for bad in [
        "PeterNeumann+cc469956+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TWBADKEY==",
        "PeterNeumann+173116ae+ZRpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
        "PeterNeumann+C74F20A3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
    ] {
        assert!(bad.parse::<LogVerifier>().is_err(), "{bad}");
    }
    assert_eq!(
        PETER.parse::<WitnessVerifier>(),
        Err(KeyError::Kind {
            found: 1,
            wanted: 4
        })
    );
}

#[test]
fn names_follow_the_rules() {
    for name in [
        "",
        " ",
        "a b",
        "a+b",
        "a\tb",
        "a\nb",
        "a\u{2003}b",
        "a\u{85}",
        "a\0b",
    ] {
        assert_eq!(name.parse::<KeyName>(), Err(KeyError::Name), "{name:?}");
    }
    assert!("a".repeat(KEY_NAME_BYTES_MAX).parse::<KeyName>().is_ok());
    assert!(
        "a".repeat(KEY_NAME_BYTES_MAX + 1)
            .parse::<KeyName>()
            .is_err()
    );
    assert!("日本.example/ログ".parse::<KeyName>().is_ok());
}

proptest! {
    #[test]
    fn no_bytes_make_the_parser_panic(bytes: Vec<u8>) {
        if let Ok(note) = Note::parse(&bytes) {
            prop_assert_eq!(note.to_string().into_bytes(), bytes);
        }
    }

    #[test]
    fn we_read_what_another_implementation_reads(
        text in "[a\n —]{0,12}\n",
        lines in proptest::collection::vec("(— )?[aé+ ]{1,3} [A-Za-z+/]{4,8}(AA==|A=)?\n?", 0..3),
    ) {
        let note = format!("{text}\n{}", lines.concat());
        let ours = Note::parse(note.as_bytes());
        let theirs = signed_note::Note::from_bytes(note.as_bytes());
        prop_assert_eq!(ours.is_ok(), theirs.is_ok(), "{:?}", note);
        if let (Ok(ours), Ok(theirs)) = (ours, theirs) {
            prop_assert_eq!(ours.text().as_bytes(), theirs.text());
            prop_assert_eq!(ours.to_string().into_bytes(), theirs.to_bytes());
        }
    }
}
