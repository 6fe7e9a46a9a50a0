//! Trees against the vectors of Certificate Transparency, an oracle written as the RFC defines it,
//! and another implementation.

use ct_merkle::mem_backed_tree::MemoryBackedTree;
use proptest::prelude::*;
use sha2::{Digest as _, Sha256};

use super::*;

/// All sizes below are tried with every pair; crosses six powers of two.
const SIZES: u64 = 70;

fn entry(index: u64) -> Vec<u8> {
    index.to_be_bytes()[..(index % 9) as usize].to_vec()
}

fn entries(size: u64) -> Vec<Vec<u8>> {
    (0..size).map(entry).collect()
}

fn tree_of(entries: &[Vec<u8>]) -> Tree {
    let mut tree = Tree::new();
    for (index, entry) in entries.iter().enumerate() {
        assert_eq!(tree.append(entry), index as u64);
    }
    tree
}

/// RFC 6962 §2.1, word for word.
mod rfc {
    use super::*;

    pub(super) fn sha(parts: &[&[u8]]) -> Hash {
        let mut hasher = Sha256::new();
        parts.iter().for_each(|part| hasher.update(part));
        Hash(hasher.finalize().into())
    }

    fn k(n: usize) -> usize {
        let mut k = 1;
        while k * 2 < n {
            k *= 2;
        }
        k
    }

    pub(super) fn mth(d: &[Vec<u8>]) -> Hash {
        match d {
            [] => sha(&[]),
            [one] => sha(&[&[0], one]),
            _ => {
                let (left, right) = d.split_at(k(d.len()));
                sha(&[&[1], &mth(left).0, &mth(right).0])
            }
        }
    }

    pub(super) fn path(m: usize, d: &[Vec<u8>]) -> Vec<Hash> {
        if d.len() == 1 {
            return Vec::new();
        }
        let (left, right) = d.split_at(k(d.len()));
        let (mut path, other) = if m < left.len() {
            (path(m, left), mth(right))
        } else {
            (path(m - left.len(), right), mth(left))
        };
        path.push(other);
        path
    }

    pub(super) fn proof(m: usize, d: &[Vec<u8>]) -> Vec<Hash> {
        subproof(m, d, true)
    }

    fn subproof(m: usize, d: &[Vec<u8>], b: bool) -> Vec<Hash> {
        if m == d.len() {
            return if b { Vec::new() } else { vec![mth(d)] };
        }
        let (left, right) = d.split_at(k(d.len()));
        let (mut proof, other) = if m <= left.len() {
            (subproof(m, left, b), mth(right))
        } else {
            (subproof(m - left.len(), right, false), mth(left))
        };
        proof.push(other);
        proof
    }
}

const CT_LEAVES: [&str; 8] = [
    "",
    "00",
    "10",
    "2021",
    "3031",
    "40414243",
    "5051525354555657",
    "606162636465666768696a6b6c6d6e6f",
];

const CT_ROOTS: [&str; 9] = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
];

fn unhex(text: &str) -> Hash {
    Hash(hex::decode(text).unwrap().try_into().unwrap())
}

fn ct_tree() -> Tree {
    tree_of(&CT_LEAVES.map(|leaf| hex::decode(leaf).unwrap()))
}

#[test]
fn the_roots_of_certificate_transparency_hold() {
    let tree = ct_tree();
    for (size, root) in CT_ROOTS.iter().enumerate() {
        assert_eq!(tree.root_at(size as u64), Ok(unhex(root)));
    }
    assert_eq!(Tree::new().root(), Hash::EMPTY_ROOT);
    assert_eq!(tree.leaf(0), Some(leaf_hash(b"")));
    assert_eq!(tree.leaf(8), None);
}

#[test]
fn an_entry_of_any_length_is_hashed_behind_a_zero_byte() {
    for length in (0..300).chain([65_535, 1 << 20]) {
        let entry = vec![0xa5; length];
        assert_eq!(leaf_hash(&entry), rfc::sha(&[&[0], &entry]), "{length}");
    }
}

#[test]
fn the_proofs_of_certificate_transparency_hold() {
    let [a, b, c, d] = [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ];
    let e = "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0";
    let f = "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a";
    let tree = ct_tree();
    let inclusions: [(u64, u64, &[&str]); 7] = [
        (0, 1, &[]),
        (0, 2, &[a]),
        (1, 2, &[CT_ROOTS[1]]),
        (2, 3, &[CT_ROOTS[2]]),
        (1, 5, &[CT_ROOTS[1], b, d]),
        (0, 8, &[a, b, c]),
        (5, 8, &[d, e, CT_ROOTS[4]]),
    ];
    for (index, size, expected) in inclusions {
        let expected: Vec<Hash> = expected.iter().map(|hash| unhex(hash)).collect();
        assert_eq!(tree.inclusion_proof(index, size).unwrap(), expected);
    }
    let consistencies: [(u64, u64, &[&str]); 4] = [
        (1, 1, &[]),
        (1, 8, &[a, b, c]),
        (2, 5, &[b, d]),
        (6, 8, &[f, e, CT_ROOTS[4]]),
    ];
    for (old, new, expected) in consistencies {
        let expected: Vec<Hash> = expected.iter().map(|hash| unhex(hash)).collect();
        assert_eq!(tree.consistency_proof(old, new).unwrap(), expected);
    }
}

#[test]
fn every_root_and_proof_is_the_one_the_rfc_defines() {
    let entries = entries(SIZES);
    let tree = tree_of(&entries);
    for size in 0..=SIZES {
        let prefix = &entries[..size as usize];
        let root = rfc::mth(prefix);
        assert_eq!(tree.root_at(size), Ok(root), "size {size}");
        if let Some((last, before)) = prefix.split_last() {
            let with = tree_of(before).root_with(leaf_hash(last));
            assert_eq!(with, root, "size {size}");
        }
        for index in 0..size {
            let proof = tree.inclusion_proof(index, size).unwrap();
            assert_eq!(
                proof,
                rfc::path(index as usize, prefix),
                "{index} of {size}"
            );
            let leaf = leaf_hash(&entry(index));
            assert_eq!(verify_inclusion(&leaf, index, size, &proof, &root), Ok(()));
        }
        for old in 1..=size {
            let proof = tree.consistency_proof(old, size).unwrap();
            assert_eq!(proof, rfc::proof(old as usize, prefix), "{old} to {size}");
        }
        for old in 0..=size {
            let proof = tree.consistency_proof(old, size).unwrap();
            let old_root = tree.root_at(old).unwrap();
            assert_eq!(
                verify_consistency(old, &old_root, size, &root, &proof),
                Ok(())
            );
        }
    }
}

#[test]
fn another_implementation_makes_the_same_proofs() {
    let mut theirs = MemoryBackedTree::<Sha256, Vec<u8>>::new();
    let mut ours = Tree::new();
    for size in 1..=SIZES {
        theirs.push(entry(size - 1));
        ours.append(&entry(size - 1));
        assert_eq!(theirs.root().as_bytes().as_slice(), ours.root().0);
        for index in 0..size {
            let proof = ours.inclusion_proof(index, size).unwrap();
            let proof: Vec<u8> = proof.iter().flat_map(|hash| hash.0).collect();
            assert_eq!(theirs.prove_inclusion(index as usize).as_bytes(), proof);
        }
        for old in 1..=size {
            let proof = ours.consistency_proof(old, size).unwrap();
            let proof: Vec<u8> = proof.iter().flat_map(|hash| hash.0).collect();
            let added = (size - old) as usize;
            assert_eq!(theirs.prove_consistency(added).as_bytes(), proof);
        }
    }
}

/// Every proof that differs from `proof` by one bit, one hash more or one hash less.
fn neighbours(proof: &[Hash]) -> Vec<Vec<Hash>> {
    let mut all = Vec::new();
    for place in 0..proof.len() {
        for bit in 0..256 {
            let mut other = proof.to_vec();
            other[place].0[bit / 8] ^= 1 << (bit % 8);
            all.push(other);
        }
        let mut shorter = proof.to_vec();
        shorter.remove(place);
        all.push(shorter);
    }
    for place in 0..=proof.len() {
        for extra in [
            Hash([0; 32]),
            proof.first().copied().unwrap_or(Hash::EMPTY_ROOT),
        ] {
            let mut longer = proof.to_vec();
            longer.insert(place, extra);
            if longer[..] != *proof {
                all.push(longer);
            }
        }
    }
    all
}

fn flips(hash: Hash) -> impl Iterator<Item = Hash> {
    (0..256).map(move |bit| {
        let mut other = hash;
        other.0[bit / 8] ^= 1 << (bit % 8);
        other
    })
}

#[test]
fn one_bit_more_or_less_in_an_inclusion_proof_is_refused() {
    let tree = tree_of(&entries(21));
    for size in [1, 2, 3, 5, 8, 11, 21] {
        let root = tree.root_at(size).unwrap();
        for index in 0..size {
            let leaf = tree.leaf(index).unwrap();
            let proof = tree.inclusion_proof(index, size).unwrap();
            for other in neighbours(&proof) {
                assert!(verify_inclusion(&leaf, index, size, &other, &root).is_err());
            }
            for other in flips(root) {
                assert!(verify_inclusion(&leaf, index, size, &proof, &other).is_err());
            }
            for other in flips(leaf) {
                assert!(verify_inclusion(&other, index, size, &proof, &root).is_err());
            }
            for other in (0..70).filter(|other| *other != index) {
                assert!(verify_inclusion(&leaf, other, size, &proof, &root).is_err());
            }
        }
    }
}

#[test]
fn one_bit_more_or_less_in_a_consistency_proof_is_refused() {
    let tree = tree_of(&entries(21));
    for new in [0, 1, 2, 3, 5, 8, 11, 21] {
        let root = tree.root_at(new).unwrap();
        for old in 0..=new {
            let old_root = tree.root_at(old).unwrap();
            let proof = tree.consistency_proof(old, new).unwrap();
            for other in neighbours(&proof) {
                assert!(verify_consistency(old, &old_root, new, &root, &other).is_err());
            }
            // Any tree of one leaf or more may follow the empty one; nothing else is that free.
            for other in flips(root).filter(|_| old != 0 || new == 0) {
                assert!(verify_consistency(old, &old_root, new, &other, &proof).is_err());
            }
            for other in flips(old_root) {
                assert!(verify_consistency(old, &other, new, &root, &proof).is_err());
            }
            for other in (1..70).filter(|other| *other != old) {
                assert!(verify_consistency(other, &old_root, new, &root, &proof).is_err());
            }
        }
    }
}

#[test]
fn a_tree_names_what_it_does_not_have() {
    let tree = tree_of(&entries(3));
    assert_eq!(
        tree.root_at(4),
        Err(TreeError::NotYet { asked: 4, size: 3 })
    );
    assert_eq!(
        tree.inclusion_proof(0, 4),
        Err(TreeError::NotYet { asked: 4, size: 3 })
    );
    assert_eq!(
        tree.inclusion_proof(2, 2),
        Err(TreeError::NoSuchLeaf { index: 2, size: 2 })
    );
    assert_eq!(
        tree.inclusion_proof(0, 0),
        Err(TreeError::NoSuchLeaf { index: 0, size: 0 })
    );
    assert_eq!(
        tree.consistency_proof(3, 2),
        Err(TreeError::Backwards { old: 3, new: 2 })
    );
    assert_eq!(
        tree.consistency_proof(1, u64::MAX),
        Err(TreeError::NotYet {
            asked: u64::MAX,
            size: 3
        })
    );
}

#[test]
fn a_tree_comes_back_from_its_leaf_hashes() {
    let tree = tree_of(&entries(37));
    let mut back = Tree::new();
    for hash in tree.level(0) {
        back.append_hash(*hash);
    }
    assert_eq!(back.root(), tree.root());
    assert_eq!(back.inclusion_proof(20, 37), tree.inclusion_proof(20, 37));
}

#[test]
fn proof_sizes_are_as_promised() {
    let mut tree = Tree::new();
    for index in 0..5000u64 {
        tree.append(&index.to_be_bytes());
    }
    for size in [1u64, 2, 3, 1023, 1024, 1025, 4999, 5000] {
        let bits = u64::BITS as usize - (size - 1).leading_zeros() as usize;
        for index in [0, size / 2, size - 1] {
            assert!(tree.inclusion_proof(index, size).unwrap().len() <= bits);
        }
        for old in [1, size / 2, size - 1] {
            if old >= 1 {
                assert!(tree.consistency_proof(old, size).unwrap().len() <= bits + 1);
            }
        }
    }
}

fn any_hash() -> impl Strategy<Value = Hash> {
    any::<[u8; 32]>().prop_map(Hash)
}

/// Sizes at the edges of arithmetic as well as small ones.
fn any_size() -> impl Strategy<Value = u64> {
    prop_oneof![
        any::<u64>(),
        0..100u64,
        Just(u64::MAX),
        Just(1 << 63),
        Just((1 << 63) - 1)
    ]
}

proptest! {
    #[test]
    fn no_input_makes_a_verifier_panic_or_accept(
        a in any_size(),
        b in any_size(),
        one in any_hash(),
        two in any_hash(),
        proof in proptest::collection::vec(any_hash(), 0..80),
    ) {
        prop_assert!(verify_inclusion(&one, a, b, &proof, &two).is_err());
        // Every tree follows the empty one.
        if a != 0 {
            prop_assert!(verify_consistency(a, &one, b, &two, &proof).is_err());
        }
    }

    #[test]
    fn larger_trees_prove_every_leaf_and_every_past(size in 71..2000u64, at in any::<u64>()) {
        let tree = tree_of(&entries(size));
        let (index, root) = (at % size, tree.root());
        let proof = tree.inclusion_proof(index, size).unwrap();
        prop_assert!(verify_inclusion(&leaf_hash(&entry(index)), index, size, &proof, &root).is_ok());
        let old_root = rfc::mth(&entries(index));
        let proof = tree.consistency_proof(index, size).unwrap();
        prop_assert!(verify_consistency(index, &old_root, size, &root, &proof).is_ok());
    }

    #[test]
    fn a_hash_has_one_spelling(bytes in any::<[u8; 32]>()) {
        let text = Hash(bytes).to_string();
        prop_assert_eq!(text.parse(), Ok(Hash(bytes)));
        prop_assert!(text[..43].parse::<Hash>().is_err());
    }
}
