//! Guests that mean harm, or are broken: each ends in a typed stop, and the next request is answered.

use std::time::Duration;

use super::cast::{Maps, Things, ask, component, echo, guest, host, load, request, shown};
use crate::{Answer, Function, Host, Limits, Stopped, TABLE_ELEMENTS_MAX};

const TIGHT: Limits = Limits {
    memory_bytes: 4 << 20,
    deadline: Duration::from_millis(300),
    host_calls: 1000,
    host_bytes: 1 << 20,
    handles: 16,
    output_bytes: 64 << 10,
    log_bytes: 4 << 10,
};

const LOG: &str = r#"(import "bield:function/log@0.1.0" "write" (func $log (param i32 i32 i32)))"#;
const OPEN: &str = r#"(import "wasi:keyvalue/store@0.2.0-draft2" "open" (func $open (param i32 i32 i32)))
   (import "wasi:keyvalue/store@0.2.0-draft2" "[resource-drop]bucket" (func $drop (param i32)))"#;
const THINGS: &str = r#"(data (i32.const 32) "things")"#;

fn call(function: &Function, limits: &Limits) -> Result<Answer, Stopped> {
    let world = Box::new(Maps::new(&Things::default()));
    function.call(request("/", b"hello"), world, limits)
}

/// Calls it twice and then something well-behaved on the same host; says how the first two ended.
fn ended(host: &Host, wasm: &[u8]) -> Stopped {
    let function = load(host, wasm);
    let first = call(&function, &TIGHT).err().unwrap();
    assert_eq!(call(&function, &TIGHT).err(), Some(first.clone()));
    let next = load(host, &echo());
    assert_eq!(shown(&call(&next, &TIGHT)), "hello");
    first
}

fn stopped(wasm: &[u8]) -> Stopped {
    ended(&host(), wasm)
}

#[test]
fn a_loop_ends_at_its_deadline() {
    let deadline = Stopped::Deadline(TIGHT.deadline);
    assert_eq!(
        stopped(&guest("", "", "(loop $l (br $l)) unreachable")),
        deadline
    );
    let starts = guest("", "(func $s (loop $l (br $l))) (start $s)", "unreachable");
    assert_eq!(stopped(&starts), deadline);
    let copies = "(loop $l (memory.fill (i32.const 0) (i32.const 1) (i32.const 131072)) (br $l)) unreachable";
    assert_eq!(stopped(&guest("", "", copies)), deadline);
    let calls = "(loop $l (drop (call $realloc (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 0))) (br $l)) unreachable";
    assert_eq!(stopped(&guest("", "", calls)), deadline);
}

#[test]
fn a_loop_in_the_allocator_ends_too() {
    let wasm = component(
        r#"(module (memory (export "memory") 1)
             (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (loop $l (br $l)) unreachable)
             (func (export "bield:function/handler@0.1.0#handle")
               (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32) (i32.const 0)))"#,
    );
    assert_eq!(stopped(&wasm), Stopped::Deadline(TIGHT.deadline));
}

#[test]
fn deep_recursion_ends() {
    let recurses = "(func $r (param i64) (result i64)
        (i64.add (call $r (i64.add (local.get 0) (i64.const 1))) (local.get 0)))";
    let wasm = guest("", recurses, "(drop (call $r (i64.const 0))) unreachable");
    assert_eq!(stopped(&wasm), Stopped::Stack);
}

#[test]
fn memory_grows_to_its_limit_and_no_further() {
    // Grows page by page until it is refused, and answers with how many pages it has.
    let wasm = guest(
        "",
        "",
        "(loop $l (br_if $l (i32.ne (memory.grow (i32.const 1)) (i32.const -1))))
         (i32.store (i32.const 2048) (memory.size))
         (call $answer (i32.const 2048) (i32.const 4))",
    );
    let function = load(&host(), &wasm);
    let answer = call(&function, &TIGHT).unwrap().ok().unwrap();
    assert_eq!(*answer.body, 64_u32.to_le_bytes());
}

#[test]
fn memory_beyond_the_limit_from_the_start_is_said() {
    let large = guest("", "(memory 65)", "unreachable");
    let wasm = component(
        r#"(module (memory (export "memory") 100)
             (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) unreachable)
             (func (export "bield:function/handler@0.1.0#handle")
               (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32) unreachable))"#,
    );
    assert_eq!(stopped(&wasm), Stopped::Memory);
    assert_eq!(stopped(&large), Stopped::Memory, "two memories together");
}

#[test]
fn tables_grow_to_their_limit_and_no_further() {
    let wasm = guest(
        "",
        "(table $t 1 funcref)",
        "(loop $l (br_if $l (i32.ne (table.grow $t (ref.null func) (i32.const 512)) (i32.const -1))))
         (i32.store (i32.const 2048) (table.size $t))
         (call $answer (i32.const 2048) (i32.const 4))",
    );
    let function = load(&host(), &wasm);
    let answer = call(&function, &TIGHT).unwrap().ok().unwrap();
    let size = u32::from_le_bytes((*answer.body).try_into().unwrap());
    assert!(
        size <= TABLE_ELEMENTS_MAX && size > TABLE_ELEMENTS_MAX - 512,
        "{size}"
    );
}

#[test]
fn a_flood_of_calls_handles_lines_or_bytes_ends() {
    let opens =
        "(loop $l (call $open (i32.const 32) (i32.const 6) (i32.const 2048)) (br $l)) unreachable";
    assert_eq!(
        stopped(&guest(OPEN, THINGS, opens)),
        Stopped::Handles(TIGHT.handles)
    );
    let drops = "(loop $l (call $open (i32.const 32) (i32.const 6) (i32.const 2048))
        (call $drop (i32.load (i32.const 2052))) (br $l)) unreachable";
    assert_eq!(
        stopped(&guest(OPEN, THINGS, drops)),
        Stopped::HostCalls(TIGHT.host_calls)
    );
    let lines =
        "(loop $l (call $log (i32.const 1) (i32.const 8) (i32.const 10)) (br $l)) unreachable";
    assert_eq!(
        stopped(&guest(LOG, "", lines)),
        Stopped::Log(TIGHT.log_bytes)
    );
    let names = "(loop $l (call $open (i32.const 0) (i32.const 100000) (i32.const 2048)) (br $l)) unreachable";
    assert_eq!(
        stopped(&guest(OPEN, "", names)),
        Stopped::HostBytes(TIGHT.host_bytes)
    );
    let random =
        r#"(import "wasi:random/random@0.2.0" "get-random-bytes" (func $random (param i64 i32)))"#;
    let asks = "(call $random (i64.const -1) (i32.const 2048)) unreachable";
    assert_eq!(
        stopped(&guest(random, "", asks)),
        Stopped::HostBytes(TIGHT.host_bytes)
    );
}

#[test]
fn more_than_may_be_handed_over_at_once_is_not_taken() {
    let line = "(drop (memory.grow (i32.const 32)))
        (call $log (i32.const 1) (i32.const 0) (i32.const 2000000)) unreachable";
    assert!(matches!(stopped(&guest(LOG, "", line)), Stopped::AtOnce(_)));
    let answer =
        "(drop (memory.grow (i32.const 32))) (call $answer (i32.const 0) (i32.const 2000000))";
    assert!(matches!(
        stopped(&guest("", "", answer)),
        Stopped::AtOnce(_)
    ));
}

#[test]
fn an_answer_above_its_limit_is_not_given() {
    let answer = "(call $answer (i32.const 0) (i32.const 70000))";
    assert_eq!(
        stopped(&guest("", "", answer)),
        Stopped::Output(TIGHT.output_bytes)
    );
}

#[test]
fn malformed_answers_are_no_answers() {
    for (what, handle) in [
        ("a pointer beyond the memory", "(i32.const -16)"),
        ("an unaligned one", "(i32.const 1027)"),
        (
            "a variant that there is not",
            "(i32.store8 (i32.const 1024) (i32.const 7)) (i32.const 1024)",
        ),
        (
            "bytes beyond the memory",
            "(call $answer (i32.const -8) (i32.const 100))",
        ),
        (
            "words that are not UTF-8",
            "(i32.store8 (i32.const 3000) (i32.const 255)) (call $refuse (i32.const 4) (i32.const 3000) (i32.const 1))",
        ),
        (
            "a refusal of no kind",
            "(call $refuse (i32.const 9) (i32.const 8) (i32.const 1))",
        ),
    ] {
        assert_eq!(
            stopped(&guest("", "", handle)),
            Stopped::Malformed,
            "{what}"
        );
    }
    let forged = "(call $drop (i32.const 12345)) unreachable";
    assert_eq!(stopped(&guest(OPEN, "", forged)), Stopped::Malformed);
    let level = "(call $log (i32.const 99) (i32.const 8) (i32.const 1)) unreachable";
    assert_eq!(stopped(&guest(LOG, "", level)), Stopped::Malformed);
}

#[test]
fn traps_are_told_apart() {
    for (handle, why) in [
        ("unreachable", "it gave up (unreachable)"),
        ("(i32.load (i32.const -8))", "memory access out of bounds"),
        (
            "(i32.div_u (i32.const 1) (i32.const 0))",
            "division by zero",
        ),
        (
            "(call_indirect (result i32) (i32.const 0))",
            "call of nothing",
        ),
        (
            "(call_indirect (result i32) (i32.const 9))",
            "table access out of bounds",
        ),
    ] {
        let wasm = guest("", "(table 1 funcref)", handle);
        assert_eq!(stopped(&wasm), Stopped::Trapped(why));
    }
}

#[test]
fn what_functions_do_not_have_is_denied_when_it_is_called() {
    let import = r#"(import "wasi:cli/exit@0.2.0" "exit" (func $exit (param i32)))"#;
    let wasm = guest(
        import,
        "",
        "(if (i32.eq (local.get $path_len) (i32.const 1)) (then (call $exit (i32.const 0))))
         (call $answer (local.get $body) (local.get $body_len))",
    );
    let host = host();
    let denied = "wasi:cli/exit@0.2.0#exit";
    assert_eq!(ended(&host, &wasm), Stopped::Denied(denied.into()));
    let function = load(&host, &wasm);
    assert_eq!(
        shown(&ask(&function, &Things::default(), "/other", b"hello")),
        "hello"
    );
}

#[test]
fn there_are_no_arguments_and_no_environment() {
    for asked in ["get-arguments", "get-environment"] {
        let import =
            format!(r#"(import "wasi:cli/environment@0.2.0" "{asked}" (func $ask (param i32)))"#);
        let wasm = guest(
            &import,
            "",
            "(call $ask (i32.const 2048))
             (if (i32.load (i32.const 2052)) (then unreachable))
             (call $answer (local.get $body) (local.get $body_len))",
        );
        let function = load(&host(), &wasm);
        let said = ask(&function, &Things::default(), "/", b"hello");
        assert_eq!(shown(&said), "hello", "{asked}");
    }
}

#[test]
fn as_many_run_at_once_as_there_is_room_for() {
    let host = host();
    let slow = load(&host, &guest("", "", "(loop $l (br $l)) unreachable"));
    let ends: Vec<Stopped> = std::thread::scope(|scope| {
        let calls: Vec<_> = (0..12)
            .map(|_| scope.spawn(|| call(&slow, &TIGHT).err().unwrap()))
            .collect();
        calls.into_iter().map(|call| call.join().unwrap()).collect()
    });
    let known = [Stopped::Busy, Stopped::Deadline(TIGHT.deadline)];
    assert!(ends.iter().all(|end| known.contains(end)), "{ends:?}");
    assert!(ends.contains(&known[1]));
    assert_eq!(shown(&call(&load(&host, &echo()), &TIGHT)), "hello");
}
