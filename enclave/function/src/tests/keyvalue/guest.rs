//! A guest in text that does what each request says to a bucket, by either version of the interface.

use super::super::cast;

/// The versions, and how a page of keys differs in them.
pub(super) enum Version {
    Draft,
    Draft2,
}

/// The first letter of the path says what is done, to the bucket `things` or, as a capital, `loose`; the rest of the path is
/// a key, or several of one letter each.
///
/// `o`pen the bucket of that name; `s`et, `g`et, `d`elete, `e`xists; `l`ist all keys, page by page; `i`ncrement by as many
/// as the body has bytes, `n` by -1 as 64 bits; `w`rite, `m` read and `r`emove many. In draft2, `c` is a swap that loses
/// once and then wins.
pub(super) fn component(version: &Version) -> Vec<u8> {
    let (name, cursor, more_imports, pages, more) = match version {
        Version::Draft => ("0.2.0-draft", "i32 i64", "", DRAFT_PAGES, ""),
        Version::Draft2 => (
            "0.2.0-draft2",
            "i32 i32 i32",
            DRAFT2_IMPORTS,
            DRAFT2_PAGES,
            DRAFT2_SWAP,
        ),
    };
    let imports = format!("{IMPORTS}{more_imports}")
        .replace("VERSION", name)
        .replace("CURSOR", cursor);
    let handle = HANDLE.replace("MORE", more);
    cast::guest(&imports, &format!("{MORE}{pages}"), &handle)
}

const IMPORTS: &str = r#"
  (import "wasi:keyvalue/store@VERSION" "open" (func $open (param i32 i32 i32)))
  (import "wasi:keyvalue/store@VERSION" "[method]bucket.get" (func $get (param i32 i32 i32 i32)))
  (import "wasi:keyvalue/store@VERSION" "[method]bucket.set" (func $set (param i32 i32 i32 i32 i32 i32)))
  (import "wasi:keyvalue/store@VERSION" "[method]bucket.delete" (func $delete (param i32 i32 i32 i32)))
  (import "wasi:keyvalue/store@VERSION" "[method]bucket.exists" (func $exists (param i32 i32 i32 i32)))
  (import "wasi:keyvalue/store@VERSION" "[method]bucket.list-keys" (func $list_keys (param i32 CURSOR i32)))
  (import "wasi:keyvalue/store@VERSION" "[resource-drop]bucket" (func $drop (param i32)))
  (import "wasi:keyvalue/atomics@VERSION" "increment" (func $increment (param i32 i32 i32 i64 i32)))
  (import "wasi:keyvalue/batch@VERSION" "get-many" (func $get_many (param i32 i32 i32 i32)))
  (import "wasi:keyvalue/batch@VERSION" "set-many" (func $set_many (param i32 i32 i32 i32)))
  (import "wasi:keyvalue/batch@VERSION" "delete-many" (func $delete_many (param i32 i32 i32 i32)))"#;

const DRAFT2_IMPORTS: &str = r#"
  (import "wasi:keyvalue/atomics@VERSION" "[static]cas.new" (func $cas (param i32 i32 i32 i32)))
  (import "wasi:keyvalue/atomics@VERSION" "[method]cas.current" (func $current (param i32 i32)))
  (import "wasi:keyvalue/atomics@VERSION" "swap" (func $swap (param i32 i32 i32 i32)))"#;

/// Results lie at 2048, lists that are handed over at 4096, what is answered at 16384.
const MORE: &str = r#"
  (data (i32.const 32) "things") (data (i32.const 40) "loose")
  (data (i32.const 64) "behind") (data (i32.const 72) "mine")
  (data (i32.const 80) "no such store") (data (i32.const 96) "access denied")
  (global $out (mut i32) (i32.const 16384))
  (func $byte (param $byte i32)
    (i32.store8 (global.get $out) (local.get $byte))
    (global.set $out (i32.add (global.get $out) (i32.const 1))))
  (func $bytes (param $at i32) (param $len i32)
    (memory.copy (global.get $out) (local.get $at) (local.get $len))
    (global.set $out (i32.add (global.get $out) (local.get $len))))
  (func $number (param $n i64)
    (if (i64.ge_u (local.get $n) (i64.const 10))
      (then (call $number (i64.div_u (local.get $n) (i64.const 10)))))
    (call $byte (i32.add (i32.const 48) (i32.wrap_i64 (i64.rem_u (local.get $n) (i64.const 10))))))
  (func $said (result i32)
    (call $answer (i32.const 16384) (i32.sub (global.get $out) (i32.const 16384))))
  ;; Keys of one page, then a bar.
  (func $keys (param $at i32) (param $count i32)
    (loop $next
      (if (local.get $count) (then
        (call $bytes (i32.load (local.get $at)) (i32.load offset=4 (local.get $at)))
        (local.set $at (i32.add (local.get $at) (i32.const 8)))
        (local.set $count (i32.sub (local.get $count) (i32.const 1)))
        (br $next))))
    (call $byte (i32.const 124)))
  ;; Strings of one letter each, 8 bytes apart.
  (func $letters (param $at i32) (param $count i32) (param $to i32) (param $step i32)
    (loop $next
      (if (local.get $count) (then
        (i32.store (local.get $to) (local.get $at))
        (i32.store offset=4 (local.get $to) (i32.const 1))
        (local.set $at (i32.add (local.get $at) (i32.const 1)))
        (local.set $to (i32.add (local.get $to) (local.get $step)))
        (local.set $count (i32.sub (local.get $count) (i32.const 1)))
        (br $next)))))
  ;; The value of each pair, and a bar; a dash where there is none.
  (func $pairs (param $at i32) (param $count i32)
    (loop $next
      (if (local.get $count) (then
        (if (i32.load8_u (local.get $at))
          (then
            (call $bytes (i32.load offset=4 (local.get $at)) (i32.load offset=8 (local.get $at)))
            (call $byte (i32.const 61))
            (call $bytes (i32.load offset=12 (local.get $at)) (i32.load offset=16 (local.get $at))))
          (else (call $byte (i32.const 45))))
        (call $byte (i32.const 124))
        (local.set $at (i32.add (local.get $at) (i32.const 20)))
        (local.set $count (i32.sub (local.get $count) (i32.const 1)))
        (br $next)))))
  (func $error (param $at i32) (result i32)
    (if (i32.eqz (i32.load8_u (local.get $at)))
      (then (return (call $refuse (i32.const 1) (i32.const 80) (i32.const 13)))))
    (if (i32.eq (i32.load8_u (local.get $at)) (i32.const 1))
      (then (return (call $refuse (i32.const 2) (i32.const 96) (i32.const 13)))))
    (call $refuse (i32.const 4) (i32.load offset=4 (local.get $at)) (i32.load offset=8 (local.get $at))))"#;

/// Appends all pages; returns 0, or where an error lies.
const DRAFT_PAGES: &str = r#"
  (func $pages (param $bucket i32) (param $some i32) (param $cursor i64) (result i32)
    (call $list_keys (local.get $bucket) (local.get $some) (local.get $cursor) (i32.const 2048))
    (if (i32.load8_u (i32.const 2048)) (then (return (i32.const 2056))))
    (call $keys (i32.load (i32.const 2056)) (i32.load (i32.const 2060)))
    (if (i32.load8_u (i32.const 2064))
      (then (return (call $pages (local.get $bucket) (i32.const 1) (i64.load (i32.const 2072))))))
    (i32.const 0))"#;

/// As [`DRAFT_PAGES`]; the cursor is where its text lies and, above, how long it is.
const DRAFT2_PAGES: &str = r#"
  (func $pages (param $bucket i32) (param $some i32) (param $cursor i64) (result i32)
    (call $list_keys (local.get $bucket) (local.get $some) (i32.wrap_i64 (local.get $cursor))
      (i32.wrap_i64 (i64.shr_u (local.get $cursor) (i64.const 32))) (i32.const 2048))
    (if (i32.load8_u (i32.const 2048)) (then (return (i32.const 2052))))
    (call $keys (i32.load (i32.const 2052)) (i32.load (i32.const 2056)))
    (if (i32.load8_u (i32.const 2060))
      (then (return (call $pages (local.get $bucket) (i32.const 1) (i64.load (i32.const 2064))))))
    (i32.const 0))"#;

const HANDLE: &str = r#"
  (local.set $b (i32.load8_u (local.get $path)))
  (local.set $path (i32.add (local.get $path) (i32.const 1)))
  (local.set $path_len (i32.sub (local.get $path_len) (i32.const 1)))
  (if (i32.eq (local.get $b) (i32.const 111)) ;; o
    (then (call $open (local.get $path) (local.get $path_len) (i32.const 2048)))
    (else (if (i32.lt_u (local.get $b) (i32.const 97))
      (then (call $open (i32.const 40) (i32.const 5) (i32.const 2048)))
      (else (call $open (i32.const 32) (i32.const 6) (i32.const 2048))))))
  (if (i32.load8_u (i32.const 2048)) (then (return (call $error (i32.const 2052)))))
  (local.set $a (i32.load (i32.const 2052)))
  (i32.store8 (i32.const 2048) (i32.const 0))
  (local.set $b (i32.or (local.get $b) (i32.const 32)))
  (if (i32.eq (local.get $b) (i32.const 103)) (then ;; g
    (call $get (local.get $a) (local.get $path) (local.get $path_len) (i32.const 2048))
    (if (i32.load8_u (i32.const 2048)) (then (return (call $error (i32.const 2052)))))
    (if (i32.load8_u (i32.const 2052))
      (then (call $byte (i32.const 61)) (call $bytes (i32.load (i32.const 2056)) (i32.load (i32.const 2060))))
      (else (call $byte (i32.const 45))))))
  (if (i32.eq (local.get $b) (i32.const 115)) (then ;; s
    (call $set (local.get $a) (local.get $path) (local.get $path_len)
      (local.get $body) (local.get $body_len) (i32.const 2048))))
  (if (i32.eq (local.get $b) (i32.const 100)) (then ;; d
    (call $delete (local.get $a) (local.get $path) (local.get $path_len) (i32.const 2048))))
  (if (i32.eq (local.get $b) (i32.const 101)) (then ;; e
    (call $exists (local.get $a) (local.get $path) (local.get $path_len) (i32.const 2048))
    (if (i32.load8_u (i32.const 2048)) (then (return (call $error (i32.const 2052)))))
    (call $number (i64.load8_u (i32.const 2052)))))
  (if (i32.eq (local.get $b) (i32.const 108)) (then ;; l
    (local.set $b (call $pages (local.get $a) (i32.const 0) (i64.const 0)))
    (if (local.get $b) (then (return (call $error (local.get $b)))))))
  (if (i32.or (i32.eq (local.get $b) (i32.const 105)) (i32.eq (local.get $b) (i32.const 110))) (then ;; i, n
    (call $increment (local.get $a) (local.get $path) (local.get $path_len)
      (select (i64.extend_i32_u (local.get $body_len)) (i64.const -1) (i32.eq (local.get $b) (i32.const 105)))
      (i32.const 2048))
    (if (i32.load8_u (i32.const 2048)) (then (return (call $error (i32.const 2056)))))
    (call $number (i64.load (i32.const 2056)))))
  (if (i32.eq (local.get $b) (i32.const 109)) (then ;; m
    (call $letters (local.get $path) (local.get $path_len) (i32.const 4096) (i32.const 8))
    (call $get_many (local.get $a) (i32.const 4096) (local.get $path_len) (i32.const 2048))
    (if (i32.load8_u (i32.const 2048)) (then (return (call $error (i32.const 2052)))))
    (call $pairs (i32.load (i32.const 2052)) (i32.load (i32.const 2056)))))
  (if (i32.eq (local.get $b) (i32.const 119)) (then ;; w
    (call $letters (local.get $path) (local.get $path_len) (i32.const 4096) (i32.const 16))
    (local.set $b (i32.const 0))
    (loop $next
      (if (i32.lt_u (local.get $b) (local.get $path_len)) (then
        (i32.store offset=4104 (i32.mul (local.get $b) (i32.const 16)) (local.get $body))
        (i32.store offset=4108 (i32.mul (local.get $b) (i32.const 16)) (local.get $body_len))
        (local.set $b (i32.add (local.get $b) (i32.const 1)))
        (br $next))))
    (call $set_many (local.get $a) (i32.const 4096) (local.get $path_len) (i32.const 2048))))
  (if (i32.eq (local.get $b) (i32.const 114)) (then ;; r
    (call $letters (local.get $path) (local.get $path_len) (i32.const 4096) (i32.const 8))
    (call $delete_many (local.get $a) (i32.const 4096) (local.get $path_len) (i32.const 2048))))
  MORE
  (if (i32.load8_u (i32.const 2048)) (then (return (call $error (i32.const 2052)))))
  (call $drop (local.get $a))
  (call $said)"#;

const DRAFT2_SWAP: &str = r#"
  (if (i32.eq (local.get $b) (i32.const 99)) (then ;; c
    (call $cas (local.get $a) (local.get $path) (local.get $path_len) (i32.const 2048))
    (if (i32.load8_u (i32.const 2048)) (then (return (call $error (i32.const 2052)))))
    (call $set (local.get $a) (local.get $path) (local.get $path_len) (i32.const 64) (i32.const 6) (i32.const 2560))
    (call $swap (i32.load (i32.const 2052)) (i32.const 72) (i32.const 4) (i32.const 2048))
    (if (i32.ne (i32.load8_u (i32.const 2048)) (i32.const 1)) (then unreachable))
    (if (i32.ne (i32.load8_u (i32.const 2052)) (i32.const 1)) (then unreachable))
    (local.set $b (i32.load (i32.const 2056)))
    (call $current (local.get $b) (i32.const 2560))
    (call $swap (local.get $b) (i32.const 72) (i32.const 4) (i32.const 2048))
    (if (i32.load8_u (i32.const 2048)) (then unreachable))
    (call $bytes (i32.load (i32.const 2568)) (i32.load (i32.const 2572)))))"#;
