//! A store that alters, cuts, exchanges, loses and sets back: every run, every byte.

mod cast;

use bield_levels::{
    Blobs, Changes, Levels, LevelsError, Manifest, ManifestError, Part, RunId, RunMeta,
};
use cast::{CACHE_BYTES, Cast, all, at, capsule, forty, keys, put, range};

/// Which part of a run a byte belongs to, by the manifest alone.
fn part_of(run: &RunMeta, byte: u64) -> &'static str {
    let mut begin = run.data_bytes();
    if byte < begin {
        return "block";
    }
    for (bytes, part) in run.sections.iter().zip(["index", "filter", "properties"]) {
        begin += u64::from(*bytes);
        if byte < begin {
            return part;
        }
    }
    "nothing"
}

fn named(part: Part) -> &'static str {
    match part {
        Part::Block(_) => "block",
        Part::Index => "index",
        Part::Filter => "filter",
        Part::Properties => "properties",
        Part::Whole => "whole",
    }
}

#[test]
fn every_flipped_byte_of_a_run_is_refused_and_its_part_is_named() {
    let mut cast = Cast::new();
    let run = cast.flush(&mut forty(1), &[]).remove(0);
    assert!(run.blocks > 5);
    let truth = all(&cast.fresh().unwrap()).unwrap();
    for byte in 0..run.bytes {
        cast.blobs.kept().get_mut(&run.id).unwrap()[byte as usize] ^= 1 << (byte % 8);
        let levels = cast.fresh().unwrap();
        match all(&levels).unwrap_err() {
            LevelsError::Altered { run: found, part } => {
                assert_eq!((found, named(part)), (run.id, part_of(&run, byte)));
            }
            other => panic!("byte {byte}: {other}"),
        }
        let checked = levels.check(&run.id).unwrap_err();
        assert_eq!(checked, LevelsError::NotTheRun { run: run.id });
        // A get reads one block only: it answers with the truth or refuses.
        for cell in truth.iter().step_by(7) {
            if let Ok(found) = levels.newest(&cell.key) {
                assert_eq!(found.unwrap().as_cell(), cell.as_cell());
            }
        }
        cast.blobs.kept().get_mut(&run.id).unwrap()[byte as usize] ^= 1 << (byte % 8);
    }
    assert_eq!(all(&cast.fresh().unwrap()).unwrap().len(), truth.len());
}

#[test]
fn every_flipped_byte_of_a_manifest_is_refused_by_itself_or_by_its_successor() {
    let mut cast = Cast::new();
    cast.flush(&mut forty(1), &[range("a", "b", 5)]);
    cast.flush(&mut forty(100), &[]);
    cast.compact(3);
    let manifest = cast.levels.manifest().clone();
    let bytes = manifest.encode();
    let successor = manifest.after(Changes::default(), at(2000)).unwrap();
    let again = Manifest::decode(&bytes, &capsule(1)).unwrap();
    assert!(again == manifest && successor.follows(&again).is_ok());
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << bit;
            if let Ok(other) = Manifest::decode(&flipped, &capsule(1)) {
                assert!(successor.follows(&other).is_err(), "byte {at}, bit {bit}");
                assert_ne!(other.digest(), manifest.digest());
            }
        }
        assert!(Manifest::decode(&bytes[..at], &capsule(1)).is_err());
    }
    assert!(matches!(
        Manifest::decode(&bytes, &capsule(2)),
        Err(ManifestError::Capsule)
    ));
}

/// Where blocks lie follows from their sealed lengths; here from opening ever longer beginnings.
fn block_lengths(cast: &Cast, run: &RunMeta) -> Vec<u64> {
    // Blocks of equal content have equal lengths in this test.
    let bytes = run.data_bytes() / u64::from(run.blocks);
    assert_eq!(
        bytes * u64::from(run.blocks),
        run.data_bytes(),
        "equal blocks"
    );
    assert!(cast.blobs.kept().contains_key(&run.id));
    vec![bytes; run.blocks as usize]
}

/// Cells whose blocks all have the same length.
fn equal(clock: u64) -> Vec<bield_levels::OwnedCell> {
    let cell = |n: u64| {
        put(
            &format!("key {n:02}"),
            clock + n,
            &format!("{:015}", clock + n),
        )
    };
    (0..40).map(cell).collect()
}

#[test]
fn blocks_exchanged_within_a_run_are_refused() {
    let mut cast = Cast::new();
    cast.settings = cast.settings.with_block_bytes(90);
    let run = cast.flush(&mut equal(1), &[]).remove(0);
    let bytes = block_lengths(&cast, &run)[0] as usize;
    for (left, right) in [(0, 1), (1, 5), (3, 4)] {
        let original = cast.blobs.kept()[&run.id].clone();
        let mut swapped = original.clone();
        let (one, two) = swapped.split_at_mut(right * bytes);
        one[left * bytes..(left + 1) * bytes].swap_with_slice(&mut two[..bytes]);
        assert_ne!(swapped, original);
        cast.blobs.kept().insert(run.id, swapped);
        let (run, part) = (run.id, Part::Block(left as u32));
        let refused = all(&cast.fresh().unwrap()).unwrap_err();
        assert_eq!(refused, LevelsError::Altered { run, part });
        cast.blobs.kept().insert(run, original);
    }
    assert!(all(&cast.fresh().unwrap()).is_ok());
}

#[test]
fn blocks_and_tails_of_another_run_are_refused() {
    let mut cast = Cast::new();
    cast.settings = cast.settings.with_block_bytes(90);
    let first = cast.flush(&mut equal(1), &[]).remove(0);
    let second = cast.flush(&mut equal(100), &[]).remove(0);
    assert_eq!(
        (first.bytes, first.sections),
        (second.bytes, second.sections)
    );
    let bytes = block_lengths(&cast, &first)[0] as usize;
    let (ours, theirs) = {
        let kept = cast.blobs.kept();
        (kept[&first.id].clone(), kept[&second.id].clone())
    };
    // The same block of an older run, under the same generation, for the same keys.
    let mut mixed = ours.clone();
    mixed[..bytes].copy_from_slice(&theirs[..bytes]);
    let run = first.id;
    cast.blobs.kept().insert(run, mixed);
    let part = Part::Block(0);
    let refused = all(&cast.fresh().unwrap()).unwrap_err();
    assert_eq!(refused, LevelsError::Altered { run, part });
    // Its whole tail, and all of it.
    let mut mixed = ours.clone();
    let tail = first.data_bytes() as usize;
    mixed[tail..].copy_from_slice(&theirs[tail..]);
    for bytes in [mixed, theirs] {
        cast.blobs.kept().insert(run, bytes);
        let part = Part::Index;
        let refused = all(&cast.fresh().unwrap()).unwrap_err();
        assert_eq!(refused, LevelsError::Altered { run, part });
    }
    cast.blobs.kept().insert(run, ours);
    assert!(all(&cast.fresh().unwrap()).is_ok());
}

#[test]
fn runs_of_another_capsule_or_generation_do_not_open() {
    let mut cast = Cast::new();
    let run = cast.flush(&mut forty(1), &[]).remove(0);
    let ours = cast.levels.manifest().encode();
    // The same manifest in another capsule, or with a generation whose key is another one.
    let mut theirs = Cast::of(capsule(2), keys(&[1]));
    theirs.flush(&mut forty(1), &[]);
    let meta = theirs.levels.manifest().runs().next().unwrap().clone();
    let stolen = cast.blobs.kept()[&run.id].clone();
    theirs.blobs.kept().insert(meta.id, stolen);
    let refused = all(&theirs.fresh().unwrap()).unwrap_err();
    assert!(matches!(refused, LevelsError::Altered { .. }), "{refused}");

    let manifest = Manifest::decode(&ours, &capsule(1)).unwrap();
    let other_key = {
        let mut ring = bield_capsule::KeyRing::new();
        let secret = bield_envelope::Secret::from_bytes([99; 32]);
        let key = bield_capsule::GenerationKey::from_secret(1, secret);
        ring.insert(key).unwrap();
        ring
    };
    let blobs = cast.blobs.clone();
    let levels = Levels::open(manifest.clone(), &other_key, blobs.clone(), CACHE_BYTES).unwrap();
    let refused = all(&levels).unwrap_err();
    assert!(matches!(refused, LevelsError::Altered { .. }), "{refused}");
    let refused = Levels::open(manifest, &keys(&[2]), blobs, CACHE_BYTES);
    let (run, generation) = (run.id, 1);
    assert_eq!(refused.err(), Some(LevelsError::NoKey { run, generation }));
}

#[test]
fn a_run_that_was_cut_or_lost_says_so_and_no_key_looks_absent() {
    let mut cast = Cast::new();
    let run = cast.flush(&mut forty(1), &[]).remove(0);
    let whole = cast.blobs.kept()[&run.id].clone();
    for bytes in (0..whole.len()).step_by(13) {
        cast.blobs.kept().insert(run.id, whole[..bytes].to_vec());
        let levels = cast.fresh().unwrap();
        match levels.newest(b"key 00").unwrap_err() {
            LevelsError::Cut { missing, .. } => assert!(missing > 0),
            other => panic!("{other}"),
        }
        let checked = levels.check(&run.id).unwrap_err();
        assert!(matches!(
            checked,
            LevelsError::Cut {
                part: Part::Whole,
                ..
            }
        ));
    }
    cast.blobs.remove(&run.id).unwrap();
    let refused = cast.fresh().unwrap().newest(b"key 00").unwrap_err();
    assert_eq!(refused, LevelsError::Missing { run: run.id });
    cast.blobs.kept().insert(run.id, whole);
    assert!(cast.value("key 00").is_some());
}

#[test]
fn bytes_behind_the_end_of_a_run_are_refused() {
    let mut cast = Cast::new();
    let run = cast.flush(&mut forty(1), &[]).remove(0);
    let whole = cast.blobs.kept()[&run.id].clone();
    for more in [1, 16, whole.len()] {
        let longer = [&whole[..], &vec![0; more]].concat();
        cast.blobs.kept().insert(run.id, longer);
        let refused = LevelsError::NotTheRun { run: run.id };
        let levels = cast.fresh().unwrap();
        assert_eq!(levels.newest(b"key 00").unwrap_err(), refused);
        assert_eq!(levels.check(&run.id).unwrap_err(), refused);
    }
    cast.blobs.kept().insert(run.id, whole);
    assert!(cast.value("key 00").is_some());
}

#[test]
fn a_manifest_that_is_not_the_next_one_is_refused() {
    let mut cast = Cast::new();
    cast.flush(&mut forty(1), &[]);
    let first = cast.levels.clone();
    cast.flush(&mut forty(100), &[]);
    let second = cast.levels.clone();
    let refused = |known: &Levels, manifest: &Manifest| {
        let next = known.next(manifest.clone(), &cast.keys);
        next.err().unwrap()
    };
    for (known, manifest) in [
        (&second, first.manifest()),  // an older one
        (&second, second.manifest()), // the same again
        (&first, first.manifest()),
    ] {
        let refused = refused(known, manifest);
        assert!(
            matches!(
                refused,
                LevelsError::Manifest(ManifestError::NotNext { .. })
            ),
            "{refused}"
        );
    }
    // A fork: the right number after another predecessor.
    let fork = first.manifest().after(Changes::default(), at(5)).unwrap();
    let fork = fork.after(Changes::default(), at(6)).unwrap();
    assert_eq!(fork.number(), second.manifest().number() + 1);
    let error = refused(&second, &fork);
    assert!(error.to_string().contains("another predecessor"), "{error}");
}

#[test]
fn a_store_that_keeps_something_else_is_caught_before_a_manifest_is_made() {
    struct Liar(bield_levels::Memory);
    impl Blobs for Liar {
        fn put(&self, name: &RunId, bytes: &[u8]) -> Result<(), bield_levels::BlobError> {
            let mut bytes = bytes.to_vec();
            bytes[0] ^= 1;
            self.0.put(name, &bytes)
        }
        fn read(
            &self,
            name: &RunId,
            offset: u64,
            length: usize,
        ) -> Result<Vec<u8>, bield_levels::BlobError> {
            self.0.read(name, offset, length)
        }
        fn remove(&self, name: &RunId) -> Result<(), bield_levels::BlobError> {
            self.0.remove(name)
        }
        fn list(&self) -> Result<Vec<RunId>, bield_levels::BlobError> {
            self.0.list()
        }
    }
    let manifest = Manifest::begin(capsule(1), std::time::Duration::ZERO);
    let blobs = std::sync::Arc::new(Liar(bield_levels::Memory::default()));
    let levels = Levels::open(manifest, &keys(&[1]), blobs, CACHE_BYTES).unwrap();
    let mut flush = bield_levels::Flush::begin(&levels, Vec::new(), cast::small()).unwrap();
    let mut entropy = bield_envelope::Seeded::new(1);
    for cell in forty(1) {
        flush.push(&cell.as_cell(), &mut entropy).unwrap();
    }
    let refused = flush.finish(&mut entropy).unwrap_err();
    assert!(
        matches!(refused, LevelsError::NotTheRun { .. }),
        "{refused}"
    );
}
