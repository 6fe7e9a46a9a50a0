//! Tiles: the examples of the specification, other spellings, growth in steps.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::tree::leaf_hash;

fn hashes(level: u8, index: u64, width: u16) -> TilePath {
    TilePath::new(TileKind::Hashes(level), index, width).unwrap()
}

fn tree_of(size: u64) -> Tree {
    let mut tree = Tree::new();
    for index in 0..size {
        tree.append(&index.to_be_bytes());
    }
    tree
}

#[test]
fn paths_are_written_as_specified() {
    for (path, text) in [
        (hashes(0, 0, 256), "tile/0/000"),
        (hashes(0, 999, 1), "tile/0/999.p/1"),
        (hashes(63, 1000, 255), "tile/63/x001/000.p/255"),
        (hashes(1, 1_234_067, 256), "tile/1/x001/x234/067"),
        (
            hashes(0, u64::MAX, 256),
            "tile/0/x018/x446/x744/x073/x709/x551/615",
        ),
        (
            TilePath::new(TileKind::Entries, 5, 112).unwrap(),
            "tile/entries/005.p/112",
        ),
    ] {
        assert_eq!(path.to_string(), text);
        assert_eq!(text.parse(), Ok(path));
    }
}

#[test]
fn other_spellings_of_a_path_are_refused() {
    for text in [
        "",
        "tile",
        "tile/0",
        "tile/0/",
        "tile/0/00",
        "tile/0/0000",
        "tile/0/x000",
        "tile/0/x000/000",
        "tile/0/x001000",
        "tile/0/001/000",
        "tile/0/x001/x000",
        "tile/0/x001//000",
        "tile/0/000/",
        "tile/0/+00",
        "tile/00/000",
        "tile/64/000",
        "tile/-1/000",
        "tile/0/000.p/0",
        "tile/0/000.p/256",
        "tile/0/000.p/01",
        "tile/0/000.p/",
        "tile/0/000.p/1.p/1",
        "tile/entry/000",
        "tile/8/000/x000",
        "/tile/0/000",
        "tile/0/../000",
        "tile/0/x018/x446/x744/x073/x709/x551/616",
        "tile/0/x999/x999/x999/x999/x999/x999/x999/999",
    ] {
        assert_eq!(text.parse::<TilePath>(), Err(TileError::Path), "{text}");
    }
    assert!(TilePath::new(TileKind::Hashes(64), 0, 1).is_err());
    assert!(TilePath::new(TileKind::Entries, 0, 257).is_err());
}

/// The example of tlog-tiles, "Partial Tiles".
#[test]
fn a_tree_of_70_000_has_the_tiles_of_the_specification() {
    let mut count = BTreeMap::<_, u32>::new();
    for tile in tiles_between(0, 70_000) {
        *count.entry((tile.kind(), tile.width())).or_default() += 1;
    }
    let expected = [
        ((TileKind::Hashes(0), 112), 1),
        ((TileKind::Hashes(0), 256), 273),
        ((TileKind::Hashes(1), 17), 1),
        ((TileKind::Hashes(1), 256), 1),
        ((TileKind::Hashes(2), 1), 1),
        ((TileKind::Entries, 112), 1),
        ((TileKind::Entries, 256), 273),
    ];
    assert_eq!(count, BTreeMap::from(expected));
    let of_256: Vec<String> = tiles_between(0, 256).map(|tile| tile.to_string()).collect();
    assert_eq!(of_256, ["tile/entries/000", "tile/0/000", "tile/1/000.p/1"]);
    assert_eq!(tiles_between(7, 7).count(), 0);
    assert_eq!(tiles_between(8, 7).count(), 0);
    assert_eq!(tiles_between(u64::MAX - 1, u64::MAX).count(), 2);
}

#[test]
fn growing_in_steps_writes_the_tiles_of_growing_at_once() {
    let tree = tree_of(1000);
    let mut store = BTreeMap::new();
    let mut size = 0;
    for step in [1u64, 2, 100, 152, 1, 0, 256, 257, 231] {
        for path in tiles_between(size, size + step) {
            store.insert(path.to_string(), tree.tile(&path));
        }
        size += step;
    }
    assert_eq!(size, 1000);
    for path in tiles_between(0, 1000) {
        assert!(store.contains_key(&path.to_string()), "{path}");
    }
}

#[test]
fn a_tile_above_holds_the_roots_of_the_full_tiles_below() {
    let tree = tree_of(70_000);
    let above = tree.tile(&hashes(1, 0, 256)).unwrap();
    for (index, hash) in read_hashes(&above, 256).unwrap().iter().enumerate() {
        let below = tree.tile(&hashes(0, index as u64, 256)).unwrap();
        let mut small = Tree::new();
        for leaf in read_hashes(&below, 256).unwrap() {
            small.append_hash(leaf);
        }
        assert_eq!(small.root(), *hash);
    }
    let top = tree.tile(&hashes(2, 0, 1)).unwrap();
    assert_eq!(top, tree.root_at(65_536).unwrap().as_bytes());
    let last = tree.tile(&hashes(0, 273, 112)).unwrap();
    assert_eq!(
        last[111 * 32..],
        *leaf_hash(&69_999u64.to_be_bytes()).as_bytes()
    );
    assert_eq!(tree.tile(&hashes(0, 273, 113)), None);
    assert_eq!(tree.tile(&hashes(2, 0, 2)), None);
    assert_eq!(tree.tile(&hashes(63, 0, 1)), None);
    assert_eq!(tree.tile(&hashes(0, u64::MAX, 1)), None);
    assert_eq!(tree.tile(&"tile/entries/000".parse().unwrap()), None);
}

#[test]
fn an_entry_longer_than_its_length_field_is_refused() {
    let mut bundle = vec![1];
    let longest = vec![7; ENTRY_BYTES_MAX];
    assert!(push_entry(&mut bundle, &vec![7; ENTRY_BYTES_MAX + 1]).is_err());
    assert_eq!(bundle, [1]);
    bundle.clear();
    push_entry(&mut bundle, &longest).unwrap();
    push_entry(&mut bundle, b"").unwrap();
    assert_eq!(read_entries(&bundle, 2), Ok(vec![&longest[..], b""]));
    assert!(read_entries(&bundle, 1).is_err());
    assert!(read_entries(&bundle, 3).is_err());
    assert!(read_entries(&bundle[..bundle.len() - 1], 2).is_err());
}

#[test]
fn a_tile_of_another_length_is_refused() {
    assert_eq!(read_hashes(&[0; 64], 2).unwrap().len(), 2);
    for (bytes, width) in [(63, 2), (65, 2), (64, 1), (0, 1)] {
        assert!(read_hashes(&vec![0; bytes], width).is_err());
    }
}

proptest! {
    #[test]
    fn a_path_has_one_spelling(level in 0..64u8, index: u64, width in 1..=256u16, entries: bool) {
        let kind = if entries { TileKind::Entries } else { TileKind::Hashes(level) };
        let path = TilePath::new(kind, index, width).unwrap();
        prop_assert_eq!(path.to_string().parse(), Ok(path));
    }

    #[test]
    fn no_path_makes_the_parser_panic(text in "(tile/)?[0-9x/.p]{0,40}|.{0,40}") {
        if let Ok(path) = text.parse::<TilePath>() {
            prop_assert_eq!(path.to_string(), text);
        }
    }

    #[test]
    fn no_bundle_makes_the_reader_panic(bytes: Vec<u8>, width: u16) {
        if let Ok(entries) = read_entries(&bytes, width) {
            let mut again = Vec::new();
            entries.iter().for_each(|entry| push_entry(&mut again, entry).unwrap());
            prop_assert_eq!(again, bytes);
        }
    }
}
