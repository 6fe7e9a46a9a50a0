//! The log alone: crashes at every operation, every byte flipped, files swapped, taken away and put back.

use bield_capsule::Head;
use bield_envelope::Seeded;
use bield_ledger::{Contents, Fault, MemoryFiles};

use super::cast::{Capsule, Opened, append, at, chains, disk, entries, open};
use crate::control::{Checkpoint, Fence};
use crate::history::History;
use crate::log::append::{Log, Place};
use crate::log::line::Line;
use crate::names::Names;
use crate::{Lacking, StateError};

fn rotate(capsule: &Capsule, opened: &mut Opened, seed: u64) -> Result<Head, StateError> {
    let entropy = &mut Seeded::new(seed);
    opened.log.rotate(&capsule.keys(), at(seed), entropy)
}

/// Three starts of one function, some files each; what was acknowledged goes to `told`.
fn script(
    capsule: &Capsule,
    files: &MemoryFiles,
    told: &mut Vec<Vec<u8>>,
    heads: &mut Vec<Head>,
) -> Result<(), StateError> {
    for start in 1..=3u8 {
        let mut opened = open(capsule, files, u64::from(start), 100 * u64::from(start))?;
        heads.push(opened.log.head());
        for number in 0..5u8 {
            let seed = 100 * u64::from(start) + u64::from(number) + 1;
            heads.push(append(capsule, &mut opened.log, &[start, number], seed)?);
            told.push(vec![start, number]);
            if number % 2 == 1 {
                rotate(capsule, &mut opened, seed)?;
                heads.push(opened.log.head());
            }
        }
    }
    Ok(())
}

fn written(capsule: &Capsule) -> (MemoryFiles, Vec<Vec<u8>>, Vec<Head>) {
    let files = MemoryFiles::new();
    let (mut told, mut heads) = (Vec::new(), Vec::new());
    script(capsule, &files, &mut told, &mut heads).unwrap();
    (files, told, heads)
}

/// The entries that a start finds, and whether these heads are among what it finds.
fn found(
    capsule: &Capsule,
    contents: &Contents,
    anchored: &[Head],
) -> Result<Vec<Vec<u8>>, StateError> {
    let files = MemoryFiles::with(contents.clone());
    let line = Line::of(chains(capsule, &files)?)?;
    line.whole(&Default::default())?;
    let mut history = History::default();
    for (writer, seq, stored) in line.records() {
        let hash = stored.hash();
        history.add(Head { writer, seq, hash });
    }
    let writers = history.lacking(anchored)?;
    let behind = Lacking::sum(&writers);
    match behind {
        0 => Ok(entries(capsule, &line)),
        _ => Err(StateError::RolledBack { behind, writers }),
    }
}

#[test]
fn every_start_finds_all_that_was_told_before() {
    let capsule = Capsule::new(1);
    let (files, told, heads) = written(&capsule);
    assert_eq!(found(&capsule, &files.contents(), &heads).unwrap(), told);
}

#[test]
fn a_crash_at_any_byte_of_any_write_loses_nothing_that_was_told() {
    let capsule = Capsule::new(1);
    let (whole, ..) = written(&capsule);
    let mut lost = 0;
    for write in 0..whole.writes() {
        for bytes in [0, 1, 12, 100, 300, 600, u64::MAX] {
            let files = MemoryFiles::new();
            files.fail(Fault::Crash { write, bytes });
            let (mut told, mut heads) = (Vec::new(), Vec::new());
            assert!(script(&capsule, &files, &mut told, &mut heads).is_err());
            files.restart();
            let now = found(&capsule, &files.contents(), &heads).unwrap();
            // The write that was under way may have arrived.
            assert!(
                now.starts_with(&told) && now.len() <= told.len() + 1,
                "{write} {bytes}"
            );
            lost += usize::from(now == told);
            let mut opened = open(&capsule, &files, 9, 900).unwrap();
            append(&capsule, &mut opened.log, b"more", 901).unwrap();
            let after = found(&capsule, &files.contents(), &heads).unwrap();
            assert_eq!(after, [now, vec![b"more".to_vec()]].concat());
        }
    }
    assert!(lost > 0);
}

#[test]
fn a_refused_write_stops_the_log_and_a_lost_answer_does_not() {
    let capsule = Capsule::new(1);
    let (whole, told, _) = written(&capsule);
    for write in 0..whole.writes() {
        let files = MemoryFiles::new();
        files.fail(Fault::LoseAnswer { write });
        let mut again = Vec::new();
        script(&capsule, &files, &mut again, &mut Vec::new()).unwrap();
        assert_eq!(found(&capsule, &files.contents(), &[]).unwrap(), told);
    }
    let files = MemoryFiles::new();
    let mut opened = open(&capsule, &files, 1, 1).unwrap();
    append(&capsule, &mut opened.log, b"kept", 2).unwrap();
    files.fail(Fault::Crash {
        write: files.writes(),
        bytes: 30,
    });
    let stopped = append(&capsule, &mut opened.log, b"lost", 3);
    assert!(matches!(stopped, Err(StateError::Stopped { .. })));
    files.restart();
    let still = append(&capsule, &mut opened.log, b"also", 4);
    assert!(matches!(still, Err(StateError::Stopped { .. })));
    assert_eq!(found(&capsule, &files.contents(), &[]).unwrap(), [b"kept"]);
}

#[test]
fn no_flipped_byte_is_believed() {
    let capsule = Capsule::new(1);
    let (files, told, heads) = written(&capsule);
    let whole = files.contents();
    let (mut refused, mut shorter) = (0, 0);
    for name in whole.keys() {
        for byte in (0..whole[name].len()).step_by(5) {
            let mut contents = whole.clone();
            contents.get_mut(name).unwrap()[byte] ^= 1 << (byte % 8);
            match found(&capsule, &contents, &[]) {
                Err(_) => refused += 1,
                // The very last append looks like one that nobody was told of.
                Ok(now) => {
                    assert!(
                        told.starts_with(&now) && now.len() < told.len(),
                        "{name} {byte}"
                    );
                    shorter += 1;
                    let told = found(&capsule, &contents, &heads);
                    assert!(matches!(told, Err(StateError::RolledBack { .. })));
                }
            }
        }
    }
    assert!(refused > 10 * shorter && shorter > 0, "{refused} {shorter}");
}

#[test]
fn yesterdays_files_say_how_far_back_they_are() {
    let capsule = Capsule::new(1);
    let files = MemoryFiles::new();
    let mut opened = open(&capsule, &files, 1, 1).unwrap();
    append(&capsule, &mut opened.log, b"yesterday", 2).unwrap();
    let yesterday = files.contents();
    let mut head = opened.log.head();
    for number in 0..7 {
        head = append(&capsule, &mut opened.log, b"today", 3 + number).unwrap();
    }
    let rolled = found(&capsule, &yesterday, &[head]).unwrap_err();
    assert!(matches!(rolled, StateError::RolledBack { behind: 7, .. }));
    assert!(rolled.to_string().contains("7 records"), "{rolled}");
    let gone = found(&capsule, &Contents::new(), &[head]);
    assert!(matches!(
        gone,
        Err(StateError::RolledBack { behind: 10, .. })
    ));
    assert!(found(&capsule, &files.contents(), &[head]).is_ok());
}

#[test]
fn no_single_file_can_be_taken_away_or_put_back() {
    let capsule = Capsule::new(1);
    let (files, told, heads) = written(&capsule);
    let whole = files.contents();
    for name in whole.keys() {
        let mut contents = whole.clone();
        contents.remove(name);
        assert!(found(&capsule, &contents, &heads).is_err(), "{name}");
        // Without what the key service knows only the newest file can go.
        if let Ok(now) = found(&capsule, &contents, &[]) {
            assert!(told.starts_with(&now) && now.len() < told.len());
        }
        let mut contents = whole.clone();
        let half = contents[name].len() / 2;
        contents.get_mut(name).unwrap().truncate(half);
        assert!(found(&capsule, &contents, &heads).is_err(), "{name}");
    }
}

#[test]
fn files_of_another_capsule_or_place_are_named() {
    let (one, two) = (Capsule::new(1), Capsule::new(2));
    let (files, ..) = written(&one);
    let (others, ..) = written(&two);
    let (whole, others) = (files.contents(), others.contents());
    for (name, bytes) in whole.keys().zip(others.values()) {
        let mut contents = whole.clone();
        contents.insert(name.clone(), bytes.clone());
        let refused = found(&one, &contents, &[]).unwrap_err();
        assert!(matches!(&refused, StateError::OtherFile { file, .. } if file == name));
    }
    // One directory for both is fine.
    let both: Contents = whole.clone().into_iter().chain(others).collect();
    assert_eq!(found(&one, &both, &[]), found(&one, &whole, &[]));
    let names: Vec<&String> = whole.keys().collect();
    for pair in names.windows(2) {
        let mut contents = whole.clone();
        contents.insert(pair[0].clone(), whole[pair[1]].clone());
        contents.insert(pair[1].clone(), whole[pair[0]].clone());
        assert!(found(&one, &contents, &[]).is_err());
    }
}

#[test]
fn what_a_former_holder_writes_after_its_successor_began_does_not_count() {
    let capsule = Capsule::new(1);
    let files = MemoryFiles::new();
    let mut former = open(&capsule, &files, 1, 1).unwrap();
    append(&capsule, &mut former.log, b"before", 2).unwrap();
    let mut holder = open(&capsule, &files, 2, 3).unwrap();
    let late = append(&capsule, &mut former.log, b"late", 4).unwrap();
    append(&capsule, &mut holder.log, b"after", 5).unwrap();
    let now = found(&capsule, &files.contents(), &[holder.log.head()]).unwrap();
    assert_eq!(now, [b"before".to_vec(), b"after".to_vec()]);
    // Whoever was told of the late one hears that it is not there.
    let told = found(&capsule, &files.contents(), &[late]).unwrap_err();
    assert!(matches!(told, StateError::RolledBack { behind: 1, .. }));
    let sentence = "from before: 1 record that the key service knows of is missing";
    assert!(told.to_string().contains(sentence), "{told}");
}

#[test]
fn copies_that_both_went_on_are_a_fork() {
    let capsule = Capsule::new(1);
    let files = MemoryFiles::new();
    let mut opened = open(&capsule, &files, 1, 1).unwrap();
    append(&capsule, &mut opened.log, b"common", 2).unwrap();
    let copy = MemoryFiles::with(files.contents());
    let mut one = open(&capsule, &files, 2, 3).unwrap();
    let mut two = open(&capsule, &copy, 2, 4).unwrap();
    append(&capsule, &mut one.log, b"one", 5).unwrap();
    append(&capsule, &mut two.log, b"two", 6).unwrap();
    let both: Contents = files
        .contents()
        .into_iter()
        .chain(copy.contents())
        .collect();
    let forked = found(&capsule, &both, &[]);
    assert!(matches!(forked, Err(StateError::Forked { .. })));
    // With a larger token one of them is the holder, and the anchor says whether it is the right one.
    let mut later = open(&capsule, &copy, 3, 7).unwrap();
    append(&capsule, &mut later.log, b"later", 8).unwrap();
    let both: Contents = files
        .contents()
        .into_iter()
        .chain(copy.contents())
        .collect();
    let lost = found(&capsule, &both, &[one.log.head()]);
    assert!(matches!(
        lost,
        Err(StateError::RolledBack { behind: 3, .. })
    ));
}

#[test]
fn a_certificate_that_ended_signs_nothing() {
    let capsule = Capsule::new(1);
    let files = MemoryFiles::new();
    let mut opened = open(&capsule, &files, 1, 1).unwrap();
    let late = append(&capsule, &mut opened.log, b"late", 86_400_000);
    assert!(matches!(late, Err(StateError::CertificateEnded { .. })));
    assert!(append(&capsule, &mut opened.log, b"now", 86_399_999).is_ok());
}

/// Checkpoints name the newest 256 chains: an older one that is put back is covered all the same, else what was deleted since
/// would come back.
#[test]
fn what_lies_before_the_holder_of_the_newest_checkpoint_is_covered() {
    let capsule = Capsule::new(1);
    let files = MemoryFiles::new();
    let mut heads = Vec::new();
    for start in 1..=4 {
        let mut opened = open(&capsule, &files, start, 100 * start).unwrap();
        heads.push(append(&capsule, &mut opened.log, b"entry", 100 * start + 1).unwrap());
        // Of a flush, and of a compaction of the next holder, which says the same again.
        if start >= 3 {
            let checkpoint = Checkpoint {
                covered: heads[1..3].to_vec(),
                manifest: Vec::new(),
            };
            append(
                &capsule,
                &mut opened.log,
                &checkpoint.encode(),
                100 * start + 2,
            )
            .unwrap();
        }
    }
    let line = Line::of(chains(&capsule, &files).unwrap()).unwrap();
    let (_, covered) = line.checkpoint().unwrap();
    let [first, second, third, fourth] = heads[..] else {
        panic!("four starts");
    };
    assert!(covered.covers(&first.writer, first.seq) && covered.is_forgotten(&first.writer));
    assert!(covered.covers(&second.writer, second.seq + 9));
    assert!(covered.covers(&third.writer, third.seq));
    assert!(!covered.covers(&third.writer, third.seq + 1));
    assert!(!covered.covers(&fourth.writer, 0));
    // Its files may be there or not.
    line.whole(&covered).unwrap();
    assert!(line.behind(&[]).is_empty() && line.behind(&[third]).is_empty());
    let tip = line.tip().unwrap();
    let behind = line.behind(&[tip]);
    assert_eq!(behind.len(), 2);
    let mut contents = files.contents();
    for segment in behind {
        contents.remove(&segment.name).unwrap();
    }
    let files = MemoryFiles::with(contents);
    let line = Line::of(chains(&capsule, &files).unwrap()).unwrap();
    let (_, covered) = line.checkpoint().unwrap();
    line.whole(&covered).unwrap();
}

/// Any attested runtime gets a certificate for any capsule: what it seals without the capsule's key is nobody's.
#[test]
fn a_chain_that_is_sealed_under_another_key_is_put_aside() {
    let (capsule, other) = (Capsule::new(1), Capsule::new(2));
    let files = MemoryFiles::new();
    let mut opened = open(&capsule, &files, 1, 1).unwrap();
    append(&capsule, &mut opened.log, b"own", 2).unwrap();
    let verifier = capsule.verifier();
    let place = Place {
        disk: &disk(&files),
        names: &Names::of(&capsule.metadata.name()),
        metadata: &capsule.metadata,
        config: verifier.config(),
        keys: &other.keys(),
        fence: Fence {
            token: 99,
            before: None,
        },
    };
    let author = capsule.author(77);
    Log::begin(&place, author, at(5), &mut Seeded::new(5)).unwrap();
    let line = Line::of(chains(&capsule, &files).unwrap()).unwrap();
    assert_eq!(line.aside.len(), 1);
    assert_eq!(entries(&capsule, &line), [b"own"]);
}
