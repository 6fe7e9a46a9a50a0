//! Every instance begins as its component's image, whatever had its place before: the guest itself says what it finds, before
//! and after others wrote over all that they had, in a pool with one place.
//!
//! Compared byte for byte: the whole memory, and what it grows by; each element of the table; a global.

use super::cast::{Things, ask, guest_of_pages, load, shown};
use crate::{Function, Host, Settings};

/// What a guest begins with.
struct Image {
    text: &'static str,
    pages: usize,
    elements: usize,
}

/// More elements than are zeroed in place, so that both ways of undoing are seen.
const LARGE: Image = Image {
    text: "an image that lies across two pages",
    pages: 4,
    elements: 8192,
};
const SMALL: Image = Image {
    text: "another one",
    pages: 2,
    elements: 16,
};

/// Where the text is, where the handler says what the table and the global hold, which elements there are, where requests go.
const TEXT: usize = 65_530 - 4096;
const SAID: usize = 4096;
const FIRST: usize = 3;
const HEAP: usize = 65_536;
/// Pages that are there after the guest grew.
const GROWN: usize = 40;

impl Image {
    /// `/show` answers with all of its memory; `/fill` writes over everything; `/fillup` does, and gives up.
    fn wasm(&self) -> Vec<u8> {
        let more = format!(
            r#"(table $table {elements} 16384 funcref)
               (elem (i32.const {FIRST}) $one $two)
               (type $number (func (result i32)))
               (global $global (mut i64) (i64.const 77))
               (func $one (type $number) (i32.const 1))
               (func $two (type $number) (i32.const 2))
               (data (i32.const {TEXT}) "{text}")
               (func $grow
                 (if (i32.lt_u (memory.size) (i32.const {GROWN}))
                   (then (drop (memory.grow (i32.sub (i32.const {GROWN}) (memory.size)))))))
               (func $say (local $at i32)
                 (i64.store (i32.const {global}) (global.get $global))
                 (loop $next
                   (if (i32.eqz (ref.is_null (table.get $table (local.get $at))))
                     (then (i32.store8 (i32.add (i32.const {SAID}) (local.get $at))
                       (call_indirect $table (type $number) (local.get $at)))))
                   (local.set $at (i32.add (local.get $at) (i32.const 1)))
                   (br_if $next (i32.lt_u (local.get $at) (table.size $table)))))
               (func $fill
                 (call $grow)
                 (drop (table.grow $table (ref.func $two) (i32.const 100)))
                 (table.fill $table (i32.const 0) (ref.func $two) (table.size $table))
                 (global.set $global (i64.const -1))
                 (memory.fill (i32.const 0) (i32.const 0xaa) (i32.mul (memory.size) (i32.const 65536))))"#,
            elements = self.elements,
            text = self.text,
            global = SAID - 8,
        );
        let handle =
            "(if (i32.eq (local.get $path_len) (i32.const 7)) (then (call $fill) unreachable))
             (if (i32.eq (local.get $path_len) (i32.const 6)) (then
               (call $fill)
               (drop (call $answer (i32.const 70000) (i32.const 8)))
               (i32.store (i32.const 1032) (i32.const 0)) ;; no media type: its text is gone
               (return (i32.const 1024))))
             (call $say)
             (call $grow)
             (call $answer (i32.const 0) (i32.mul (memory.size) (i32.const 65536)))";
        guest_of_pages(self.pages, "", &more, handle)
    }

    /// What `/show` has to answer with.
    fn expected(&self) -> Vec<u8> {
        let mut memory = vec![0; GROWN * 65_536];
        let mut put = |at: usize, bytes: &[u8]| memory[at..at + bytes.len()].copy_from_slice(bytes);
        put(8, b"text/plain");
        put(TEXT, self.text.as_bytes());
        put(SAID - 8, &77i64.to_le_bytes());
        put(SAID + FIRST, &[1, 2]);
        memory
    }
}

/// Where the answer's own record is, and where the request was put: not the image.
fn without_request(mut memory: Vec<u8>) -> Vec<u8> {
    memory[1024..1044].fill(0);
    memory[HEAP..HEAP + 128].fill(0);
    memory
}

fn body(function: &Function, path: &str) -> Vec<u8> {
    let answer = ask(function, &Things::default(), path, b"");
    match answer {
        Ok(Ok(response)) => response.body.to_vec(),
        other => panic!("{path}: {}", shown(&other)),
    }
}

fn begins_as_its_image(function: &Function, image: &Image) {
    let found = without_request(body(function, "/show"));
    let expected = image.expected();
    assert_eq!(found.len(), expected.len());
    if found != expected {
        let at = found
            .iter()
            .zip(&expected)
            .position(|(a, b)| a != b)
            .unwrap();
        panic!("at {at}: {} and not {}", found[at], expected[at]);
    }
}

fn fills(function: &Function) {
    assert_eq!(body(function, "/fill!"), [0xaa; 8], "it wrote");
    let stopped = ask(function, &Things::default(), "/fillup", b"");
    assert!(
        shown(&stopped).contains("unreachable"),
        "{}",
        shown(&stopped)
    );
}

fn all_begin_as_their_images(host: &Host) {
    let large = load(host, &LARGE.wasm());
    let small = load(host, &SMALL.wasm());
    for _ in 0..3 {
        begins_as_its_image(&large, &LARGE);
        fills(&large);
        begins_as_its_image(&large, &LARGE);
        fills(&large);
        begins_as_its_image(&small, &SMALL);
        fills(&small);
        begins_as_its_image(&small, &SMALL);
        fills(&small);
    }
}

#[test]
fn an_instance_in_a_used_place_begins_as_its_image() {
    let host = Host::new(Settings::Machine, 1).unwrap();
    assert!(host.is_pooled(), "this system reserves no addresses");
    all_begin_as_their_images(&host);
}

#[test]
fn an_instance_with_a_place_of_its_own_begins_as_its_image() {
    all_begin_as_their_images(&Host::new(Settings::Library, 1).unwrap());
}
