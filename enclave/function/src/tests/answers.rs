//! Requests in, answers out; what they share, which is nothing but buckets.

use bield_envelope::Time;

use super::cast::{Maps, Things, ask, echo, guest, host, load, request, shown};
use crate::{CompileError, FunctionError, Host, Limits, Settings};

#[test]
fn a_body_comes_back_whole() {
    let host = host();
    assert!(host.is_pooled());
    let function = load(&host, &echo());
    for body in [&b""[..], b"hello", &[7; 300_000]] {
        let answer = ask(&function, &Things::default(), "/", body)
            .unwrap()
            .ok()
            .unwrap();
        assert_eq!(&*answer.body, body);
        assert_eq!(answer.content_type, "text/plain");
    }
}

#[test]
fn a_refusal_of_the_function_is_its_own() {
    let wasm = guest(
        "",
        "",
        "(call $refuse (i32.const 3) (local.get $path) (local.get $path_len))",
    );
    let function = load(&host(), &wasm);
    let answer = ask(&function, &Things::default(), "/taken", b"");
    assert_eq!(shown(&answer), "Conflict: /taken");
}

#[test]
fn it_runs_without_reserving_memory_or_catching_faults() {
    let host = Host::new(Settings::Library, 4).unwrap();
    assert!(!host.is_pooled());
    let function = load(&host, &echo());
    assert_eq!(
        shown(&ask(&function, &Things::default(), "/", b"hello")),
        "hello"
    );
}

#[test]
fn two_requests_share_nothing() {
    // Counts in its memory and in a global, and looks for what the last request left there.
    let wasm = guest(
        "",
        "(global $seen (mut i32) (i32.const 0))",
        "(global.set $seen (i32.add (global.get $seen) (i32.const 1)))
         (i32.store (i32.const 4096) (i32.add (i32.load (i32.const 4096)) (i32.const 1)))
         (i32.store8 (i32.const 5000) (i32.add (i32.const 48) (global.get $seen)))
         (i32.store8 (i32.const 5001) (i32.add (i32.const 48) (i32.load (i32.const 4096))))
         (call $answer (i32.const 5000) (i32.const 2))",
    );
    let function = load(&host(), &wasm);
    for _ in 0..20 {
        assert_eq!(shown(&ask(&function, &Things::default(), "/", b"")), "11");
    }
}

#[test]
fn the_same_request_moment_and_randomness_give_the_same_answer() {
    // 16 random bytes, then the wall clock's seconds, then the monotonic clock.
    let wasm = guest(
        r#"(import "wasi:random/random@0.2.0" "get-random-bytes" (func $random (param i64 i32)))
           (import "wasi:clocks/wall-clock@0.2.0" "now" (func $wall (param i32)))
           (import "wasi:clocks/monotonic-clock@0.2.0" "now" (func $clock (result i64)))"#,
        "",
        "(call $random (i64.const 16) (i32.const 2048))
         (memory.copy (i32.const 3000) (i32.load (i32.const 2048)) (i32.const 16))
         (call $wall (i32.const 2048))
         (memory.copy (i32.const 3016) (i32.const 2048) (i32.const 8))
         (i64.store (i32.const 3024) (call $clock))
         (call $answer (i32.const 3000) (i32.const 32))",
    );
    let (host, things) = (host(), Things::default());
    let function = load(&host, &wasm);
    let run = |seed, now| {
        let world = Box::new(Maps::seeded(&things, seed, Time::from_secs(now)));
        let answer = function.call(request("/", b""), world, &Limits::default());
        answer.unwrap().ok().unwrap().body.to_vec()
    };
    let first = run(1, 5);
    assert_eq!(first, run(1, 5));
    assert_ne!(first[..16], run(2, 5)[..16]);
    assert_eq!(first[16..24], 5_u64.to_le_bytes());
    assert_eq!(first[24..], 5_000_000_000_u64.to_le_bytes());
    assert_eq!(run(1, 6)[16..24], 6_u64.to_le_bytes());
}

#[test]
fn only_components_are_compiled() {
    let host = host();
    let refused = |wasm: &[u8]| host.compile(wasm).err().unwrap();
    let module = wat::parse_str("(module)").unwrap();
    assert_eq!(refused(&module), CompileError::Module);
    assert_eq!(refused(b"\x7fELF\x02\x01\x01\xc8"), CompileError::Native);
    assert_eq!(refused(b"hello"), CompileError::NotWebAssembly);
    let mut broken = echo();
    broken.truncate(broken.len() / 2);
    assert!(matches!(refused(&broken), CompileError::Invalid { .. }));
}

#[test]
fn unknown_imports_are_refused_by_name_when_loading() {
    let host = host();
    for (component, named) in [
        (
            r#"(component (import "acme:printer/paper@1.0.0" (instance (export "print" (func)))))"#,
            "acme:printer/paper@1.0.0",
        ),
        (r#"(component (import "shout" (func)))"#, "shout"),
        (
            r#"(component (import "wasi:config/store@0.2.0-rc.1" (instance)))"#,
            "wasi:config/store@0.2.0-rc.1",
        ),
    ] {
        let compiled = host.compile(&wat::parse_str(component).unwrap()).unwrap();
        let refused = host.load(&compiled).err().unwrap();
        assert_eq!(refused, FunctionError::Import(named.into()));
    }
    let empty = host
        .compile(&wat::parse_str("(component)").unwrap())
        .unwrap();
    assert_eq!(host.load(&empty).err().unwrap(), FunctionError::NoHandler);
}
