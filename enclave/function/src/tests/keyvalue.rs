//! What `wasi:keyvalue` promises a guest: through a real one where handles and memory matter, and else at the host's
//! functions, as the guest calls them.

use std::time::Instant;

use wasmtime::component::Resource;

use super::cast::{Maps, Things, ask, guest, host, load, shown};
use crate::bindings::wasi::keyvalue::store::HostBucket as _;
use crate::bindings::wasi::keyvalue::{atomics, atomics::Host as _, atomics::HostCas as _};
use crate::bindings::wasi::keyvalue::{batch::Host as _, store, store::Host as _};
use crate::guest::Guest;
use crate::keyvalue::{Bucket, Swap};
use crate::{Function, Limits};

/// The first byte of the path says what is done, with the bucket `things` or, in capitals, `loose`: `g`et, `s`et,
/// `i`ncrement of the key in the rest of it, `o`pen the bucket of that name, `c` a swap that loses once and then wins.
fn store_guest() -> Function {
    let wasm = guest(
        r#"(import "wasi:keyvalue/store@0.2.0-draft2" "open" (func $open (param i32 i32 i32)))
           (import "wasi:keyvalue/store@0.2.0-draft2" "[method]bucket.get" (func $get (param i32 i32 i32 i32)))
           (import "wasi:keyvalue/store@0.2.0-draft2" "[method]bucket.set" (func $set (param i32 i32 i32 i32 i32 i32)))
           (import "wasi:keyvalue/store@0.2.0-draft2" "[resource-drop]bucket" (func $drop (param i32)))
           (import "wasi:keyvalue/atomics@0.2.0-draft2" "increment" (func $increment (param i32 i32 i32 i64 i32)))
           (import "wasi:keyvalue/atomics@0.2.0-draft2" "[static]cas.new" (func $cas (param i32 i32 i32 i32)))
           (import "wasi:keyvalue/atomics@0.2.0-draft2" "[method]cas.current" (func $current (param i32 i32)))
           (import "wasi:keyvalue/atomics@0.2.0-draft2" "swap" (func $swap (param i32 i32 i32 i32)))"#,
        r#"(data (i32.const 32) "things") (data (i32.const 40) "loose")
           (data (i32.const 48) "none") (data (i32.const 56) "done")
           (data (i32.const 64) "behind") (data (i32.const 72) "mine")
           (data (i32.const 80) "no such store") (data (i32.const 96) "access denied")
           (func $error (param $at i32) (result i32)
             (if (i32.eqz (i32.load8_u (local.get $at)))
               (then (return (call $refuse (i32.const 1) (i32.const 80) (i32.const 13)))))
             (if (i32.eq (i32.load8_u (local.get $at)) (i32.const 1))
               (then (return (call $refuse (i32.const 2) (i32.const 96) (i32.const 13)))))
             (call $refuse (i32.const 4) (i32.load offset=4 (local.get $at)) (i32.load offset=8 (local.get $at))))"#,
        r#"(local.set $b (i32.load8_u (local.get $path)))
           (local.set $path (i32.add (local.get $path) (i32.const 1)))
           (local.set $path_len (i32.sub (local.get $path_len) (i32.const 1)))
           (if (i32.eq (local.get $b) (i32.const 111)) ;; o
             (then (call $open (local.get $path) (local.get $path_len) (i32.const 2048)))
             (else (if (i32.lt_u (local.get $b) (i32.const 97))
               (then (call $open (i32.const 40) (i32.const 5) (i32.const 2048)))
               (else (call $open (i32.const 32) (i32.const 6) (i32.const 2048))))))
           (if (i32.load8_u (i32.const 2048)) (then (return (call $error (i32.const 2052)))))
           (local.set $a (i32.load (i32.const 2052)))
           (local.set $b (i32.or (local.get $b) (i32.const 32)))
           (if (i32.eq (local.get $b) (i32.const 103)) (then ;; g
             (call $get (local.get $a) (local.get $path) (local.get $path_len) (i32.const 2048))
             (call $drop (local.get $a))
             (if (i32.eqz (i32.load8_u (i32.const 2052)))
               (then (return (call $refuse (i32.const 1) (i32.const 48) (i32.const 4)))))
             (return (call $answer (i32.load (i32.const 2056)) (i32.load (i32.const 2060))))))
           (if (i32.eq (local.get $b) (i32.const 115)) (then ;; s
             (call $set (local.get $a) (local.get $path) (local.get $path_len)
               (local.get $body) (local.get $body_len) (i32.const 2048))))
           (if (i32.eq (local.get $b) (i32.const 105)) (then ;; i
             (call $increment (local.get $a) (local.get $path) (local.get $path_len) (i64.const 2) (i32.const 2048))
             (if (i32.load8_u (i32.const 2048)) (then (return (call $error (i32.const 2056)))))
             (return (call $answer (i32.const 2056) (i32.const 8)))))
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
             (return (call $answer (i32.load (i32.const 2568)) (i32.load (i32.const 2572))))))
           (call $drop (local.get $a))
           (call $answer (i32.const 56) (i32.const 4))"#,
    );
    load(&host(), &wasm)
}

#[test]
fn what_one_request_writes_another_reads() {
    let (function, things) = (store_guest(), Things::default());
    let ask = |path: &str, body: &str| shown(&ask(&function, &things, path, body.as_bytes()));
    assert_eq!(ask("gname", ""), "NotFound: none");
    assert_eq!(ask("sname", "a value"), "done");
    assert_eq!(ask("gname", ""), "a value");
    assert_eq!(ask("Gname", ""), "NotFound: none", "the other bucket");
    assert_eq!(ask("sname", ""), "done");
    assert_eq!(ask("gname", ""), "", "empty is a value");
}

#[test]
fn buckets_are_those_the_world_has() {
    let (function, things) = (store_guest(), Things::default());
    let ask = |path: &str| shown(&ask(&function, &things, path, b""));
    assert_eq!(ask("othings"), "done");
    assert_eq!(ask("otheirs"), "Denied: access denied");
    assert_eq!(ask("onothing"), "NotFound: no such store");
}

#[test]
fn numbers_add_up_where_the_bucket_is_atomic_and_nowhere_else() {
    let (function, things) = (store_guest(), Things::default());
    for sum in [2_u64, 4, 6] {
        let answer = ask(&function, &things, "icount", b"")
            .unwrap()
            .ok()
            .unwrap();
        assert_eq!(*answer.body, sum.to_le_bytes());
    }
    let eventual = "Failed: unsupported: the bucket is eventual";
    assert_eq!(shown(&ask(&function, &things, "Icount", b"")), eventual);
    assert_eq!(shown(&ask(&function, &things, "Ccount", b"")), eventual);
}

#[test]
fn a_swap_that_lost_hands_out_what_is_there_now_and_then_wins() {
    let (function, things) = (store_guest(), Things::default());
    assert_eq!(shown(&ask(&function, &things, "cname", b"")), "behind");
    assert_eq!(shown(&ask(&function, &things, "gname", b"")), "mine");
}

/// A guest without code, whose calls the test makes.
fn called(limits: Limits) -> Guest {
    let world = Box::new(Maps::new(&Things::default()));
    Guest::new(world, limits, Instant::now())
}

fn again<T: 'static>(handle: &Resource<T>) -> Resource<T> {
    Resource::new_borrow(handle.rep())
}

fn things(guest: &mut Guest) -> Resource<Bucket> {
    guest.open("things".into()).unwrap().unwrap()
}

#[test]
fn keys_are_listed_page_by_page_in_order() {
    let mut guest = called(Limits::default());
    let bucket = things(&mut guest);
    let empty = guest.list_keys(again(&bucket), None).unwrap().unwrap();
    assert!(empty.keys.is_empty() && empty.cursor.is_none());
    let names = ["g", "a", "c", "e", "b", "d", "f"];
    for name in names {
        guest
            .set(again(&bucket), name.into(), vec![])
            .unwrap()
            .unwrap();
    }
    let (mut listed, mut cursor) = (Vec::new(), None);
    loop {
        let page = guest.list_keys(again(&bucket), cursor).unwrap().unwrap();
        listed.extend(page.keys);
        cursor = page.cursor;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(listed, ["a", "b", "c", "d", "e", "f", "g"]);
}

#[test]
fn what_is_deleted_does_not_exist() {
    let mut guest = called(Limits::default());
    let bucket = things(&mut guest);
    let exists = |guest: &mut Guest| guest.exists(again(&bucket), "k".into()).unwrap().unwrap();
    assert!(!exists(&mut guest));
    guest
        .set(again(&bucket), "k".into(), vec![1])
        .unwrap()
        .unwrap();
    assert!(exists(&mut guest));
    for _ in 0..2 {
        guest.delete(again(&bucket), "k".into()).unwrap().unwrap();
        assert!(!exists(&mut guest));
    }
}

#[test]
fn batches_keep_the_order_they_were_asked_in() {
    let mut guest = called(Limits::default());
    let bucket = things(&mut guest);
    let pairs = [("a", 1), ("b", 2), ("c", 3)].map(|(key, value)| (key.to_owned(), vec![value]));
    guest
        .set_many(again(&bucket), pairs.to_vec())
        .unwrap()
        .unwrap();
    let keys = |names: &[&str]| {
        names
            .iter()
            .map(|name| (*name).to_owned())
            .collect::<Vec<_>>()
    };
    let read = |guest: &mut Guest| {
        let asked = keys(&["c", "missing", "a"]);
        guest.get_many(again(&bucket), asked).unwrap().unwrap()
    };
    let a = Some(("a".to_owned(), vec![1]));
    let c = Some(("c".to_owned(), vec![3]));
    assert_eq!(read(&mut guest), [c, None, a.clone()]);
    let gone = keys(&["c", "missing"]);
    guest.delete_many(again(&bucket), gone).unwrap().unwrap();
    assert_eq!(read(&mut guest), [None, None, a]);
}

#[test]
fn a_swap_of_a_value_that_came_back_still_loses() {
    let mut guest = called(Limits::default());
    let bucket = things(&mut guest);
    let set = |guest: &mut Guest, value: u8| {
        guest
            .set(again(&bucket), "k".into(), vec![value])
            .unwrap()
            .unwrap();
    };
    set(&mut guest, 1);
    let cas: Resource<Swap> = (guest.new(again(&bucket), "k".into())).unwrap().unwrap();
    assert_eq!(guest.current(again(&cas)).unwrap().unwrap(), Some(vec![1]));
    set(&mut guest, 2);
    set(&mut guest, 1);
    let lost = guest.swap(cas, vec![3]).unwrap().unwrap_err();
    let atomics::CasError::CasFailed(newer) = lost else {
        panic!("it has another cause");
    };
    guest.swap(newer, vec![3]).unwrap().unwrap();
    let value = guest.get(again(&bucket), "k".into()).unwrap().unwrap();
    assert_eq!(value, Some(vec![3]));
}

#[test]
fn a_number_that_is_none_is_not_added_to() {
    let mut guest = called(Limits::default());
    let bucket = things(&mut guest);
    guest
        .set(again(&bucket), "k".into(), b"x".to_vec())
        .unwrap()
        .unwrap();
    let refused = guest.increment(again(&bucket), "k".into(), 1).unwrap();
    assert!(matches!(refused, Err(store::Error::Other(words)) if words == "not a number"));
}
