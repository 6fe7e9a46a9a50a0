//! What a byte of hostile input can cost in memory, counted by the allocator of this process.
//!
//! ```text
//! bomb of 1 MiB ──▶ target ──▶ peak of live bytes ≤ AMPLIFICATION_MAX × 1 MiB
//! ```
//!
//! Bombs are well-formed up to the place where they repeat: arrays of one-byte elements, lengths
//! that announce more than follows, nesting. One test, because the counter is the process's.

use bield_fixtures::Counting;
use bield_fuzz::TARGETS;

#[test]
fn no_byte_of_input_costs_more_than_the_stated_memory() {
    // Warm: seeds, keys and lookup tables are made once and stay.
    for target in TARGETS {
        (target.seeds)().iter().for_each(|seed| {
            (target.run)(seed);
        });
    }
    for target in TARGETS {
        for (bomb, input) in bombs() {
            let before = MEMORY.begin();
            (target.run)(&input);
            let cost = MEMORY.peak().saturating_sub(before);
            let allowed = amplification_max(target.name) * input.len() + FIXED_BYTES_MAX;
            assert!(
                cost <= allowed,
                "{} under {bomb}: {cost} bytes for {} of input",
                target.name,
                input.len()
            );
        }
    }
}

/// Inputs of a mebibyte that a careless decoder pays dearly for.
fn bombs() -> Vec<(&'static str, Vec<u8>)> {
    let filled = |head: &[u8], byte: u8| {
        let mut bytes = head.to_vec();
        bytes.resize(BOMB_BYTES, byte);
        bytes
    };
    let many = [0x9a, 0x00, 0x10, 0x00, 0x00]; // array of 2^20 elements
    let huge = [0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
    let bytes = [0x5b, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
    vec![
        ("zeros", filled(&[], 0)),
        ("nested arrays", filled(&[], 0x81)),
        ("nested maps", filled(&[], 0xa1)),
        ("nested tags", filled(&[], 0xd8)),
        ("an endless array", filled(&huge, 0)),
        ("an endless byte string", filled(&bytes, 0)),
        // inference::Request { inputs: [], outputs: [ "", "", … ] }
        (
            "empty names of outputs",
            filled(&[&[0xa2, 0x00, 0x80, 0x01][..], &many].concat(), 0x60),
        ),
        // inference::Request { inputs: [ Tensor { name: "", element: 0, shape: [ 0, 0, …
        (
            "a shape of a million dimensions",
            filled(
                &[
                    &[0xa2, 0x00, 0x81, 0xa4, 0x00, 0x61, b'x', 0x01, 0x00, 0x02][..],
                    &many,
                ]
                .concat(),
                0,
            ),
        ),
        // Status { … hardening: [ "", "", … ] }
        (
            "empty words of a status",
            filled(
                &[
                    &[0xac, 0x00, 0x60, 0x01, 0x60, 0x02, 0x60, 0x03, 0xf5, 0x04][..],
                    &many,
                ]
                .concat(),
                0x60,
            ),
        ),
        ("nested TOML arrays", filled(b"measurements = ", b'[')),
        ("a TOML list", filled(b"measurements = [", b',')),
        ("a wall of brackets", filled(b"[", b'[')),
        (
            "protobuf of empty nodes",
            b"\x0a\x00".repeat(BOMB_BYTES / 2),
        ),
        (
            "DER of endless length",
            filled(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff], 0x30),
        ),
    ]
}

/// Bytes of one bomb.
const BOMB_BYTES: usize = 1 << 20;

/// Live bytes per byte of input.
///
/// Messages: lists are bounded before they are built, so what is left is a copy of the input and, for a
/// program's status, its words (24 bytes each and a growing list's old buffer: 36 measured). TOML, which only a program's own host or user writes:
/// the parser notes an event for every bracket (101 measured).
fn amplification_max(target: &str) -> usize {
    if target.ends_with("_toml") { 112 } else { 40 }
}

/// Live bytes that no input length explains: keys, a TLS connection, a manifest's seal.
const FIXED_BYTES_MAX: usize = 2 << 20;

#[global_allocator]
static MEMORY: Counting = Counting::new();
