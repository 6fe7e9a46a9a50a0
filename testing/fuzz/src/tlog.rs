//! Transparency logs: notes, checkpoints, tiles and what witnesses are asked.

use bield_envelope::{Secret, Time};
use bield_tlog::tile::{TilePath, push_entry, read_entries};
use bield_tlog::{
    AddCheckpoint, Checkpoint, KeyName, LogKey, Note, Origin, SignedCheckpoint, Tree, Witness,
    WitnessKey,
};

use crate::cast;

/// Signed notes.
pub fn tlog_note(data: &[u8]) -> bool {
    Note::parse(data).is_ok_and(|note| {
        assert_eq!(note.to_string().as_bytes(), data);
        true
    })
}

/// Checkpoints: what verifies was signed by the log.
pub fn tlog_checkpoint(data: &[u8]) -> bool {
    let Ok(signed) = SignedCheckpoint::parse(data) else {
        return false;
    };
    let verified = signed.verify(&origin(), &[log().verifier().clone()]);
    verified.is_ok_and(|verified| {
        assert_eq!(verified.checkpoint().size(), SIZE);
        true
    })
}

/// What a witness is asked: it cosigns what continues the history it knows, and nothing else.
pub fn tlog_add_checkpoint(data: &[u8]) -> bool {
    let parsed = AddCheckpoint::parse(data).is_ok();
    let name = "witness.example".parse::<KeyName>().expect("a name");
    let mut witness = Witness::new(WitnessKey::new(name, &Secret::from_bytes([6; 32])));
    let followed = witness.follow(origin(), vec![log().verifier().clone()], None);
    followed.expect("one origin");
    let now = Time::from_secs(1_800_000_000);
    if let Ok(cosign) = witness.decide(data, now) {
        assert!(parsed, "cosigned what does not parse");
        assert_eq!(cosign.head().size, SIZE);
        assert_eq!(cosign.head().root, tree().root());
    }
    parsed
}

/// Paths of tiles.
pub fn tlog_tile_path(data: &[u8]) -> bool {
    let Ok(text) = core::str::from_utf8(data) else {
        return false;
    };
    text.parse::<TilePath>().is_ok_and(|path| {
        assert_eq!(path.to_string(), text);
        true
    })
}

/// Bundles of entries.
pub fn tlog_entries(data: &[u8]) -> bool {
    read_entries(data, 3).is_ok_and(|entries| {
        let mut again = Vec::new();
        for entry in &entries {
            push_entry(&mut again, entry).expect("it was one");
        }
        assert_eq!(again, data);
        true
    })
}

const SIZE: u64 = 5;

fn origin() -> Origin {
    "bield/capsule/fuzz".parse().expect("an origin")
}

fn log() -> LogKey {
    let name = "bield/capsule/fuzz".parse::<KeyName>().expect("a name");
    LogKey::new(name, &Secret::from_bytes([5; 32]))
}

fn tree() -> Tree {
    let mut tree = Tree::new();
    for n in 0..SIZE {
        tree.append(cast::digest(&n.to_string()).as_bytes());
    }
    tree
}

pub(crate) mod seeds {
    use super::*;

    pub(crate) fn tlog_note() -> Vec<Vec<u8>> {
        tlog_checkpoint()
    }

    pub(crate) fn tlog_checkpoint() -> Vec<Vec<u8>> {
        let signed = Checkpoint::new(origin(), SIZE, tree().root()).sign(&log());
        vec![signed.note().to_string().into_bytes()]
    }

    pub(crate) fn tlog_add_checkpoint() -> Vec<Vec<u8>> {
        let signed = Checkpoint::new(origin(), SIZE, tree().root()).sign(&log());
        let request = AddCheckpoint::new(0, Vec::new(), &signed).expect("a first");
        let proof = tree()
            .consistency_proof(2, SIZE)
            .expect("sizes of the tree");
        let grown = AddCheckpoint::new(2, proof, &signed).expect("a later");
        vec![
            request.to_string().into_bytes(),
            grown.to_string().into_bytes(),
        ]
    }

    pub(crate) fn tlog_tile_path() -> Vec<Vec<u8>> {
        [
            "tile/0/x001/x234/067",
            "tile/3/255.p/7",
            "tile/entries/000",
            "tile/entries/x001/000.p/255",
        ]
        .map(|path| path.as_bytes().to_vec())
        .into()
    }

    pub(crate) fn tlog_entries() -> Vec<Vec<u8>> {
        let mut bundle = Vec::new();
        for entry in [&b""[..], b"one", &[7; 300]] {
            push_entry(&mut bundle, entry).expect("short");
        }
        vec![bundle]
    }
}
