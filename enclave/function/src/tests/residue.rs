//! After a request nothing of it is left in the process: it is scanned, all of it, for secrets planted in the body,
//! the buckets' keys and values, the log, the answer, a refusal, globals, and the stack that guests run on. What tables hold is
//! no bytes of a request: `slots` looks at them.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::cast::{Maps, Things, echo, guest, host, load, request, shown};
use crate::{Answer, Function, Host, Limits, Settings, Stopped};

/// A secret that the process holds only in disguise until it is spelled out, [`TIMES`] over: of the size of a register, so that
/// it is found wherever a part of what was spelled stays.
#[derive(Clone)]
struct Planted([u8; 16]);

/// How often it is spelled.
const TIMES: usize = 3;

impl Planted {
    fn new(seed: u64) -> Self {
        let mut state = seed ^ 0x9e37_79b9_7f4a_7c15;
        Self(std::array::from_fn(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            // Letters in disguise: the secret is also text.
            (b'a' + (state % 26) as u8) ^ 0xa5
        }))
    }

    fn spell(&self, into: &mut Vec<u8>) {
        for _ in 0..TIMES {
            into.extend(self.0.iter().map(|byte| byte ^ 0xa5));
        }
    }

    /// How often it stands in the process's memory.
    fn found(&self) -> usize {
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        let memory = File::open("/proc/self/mem").unwrap();
        let mut window = vec![0; WINDOW];
        let own = window.as_ptr_range();
        let mut found = 0;
        for line in maps.lines() {
            let mut fields = line.split_whitespace();
            let (range, access) = (fields.next().unwrap(), fields.next().unwrap());
            if !access.starts_with('r') || line.contains("[v") {
                continue;
            }
            let (from, to) = range.split_once('-').unwrap();
            let mut at = u64::from_str_radix(from, 16).unwrap();
            let end = u64::from_str_radix(to, 16).unwrap();
            while at < end {
                let length = WINDOW.min((end - at) as usize);
                if memory.read_exact_at(&mut window[..length], at).is_err() {
                    break;
                }
                for (offset, bytes) in window[..length].windows(self.0.len()).enumerate() {
                    let place = at as usize + offset;
                    let outside = !(own.start as usize..own.end as usize).contains(&place);
                    if bytes[0] == self.0[0] ^ 0xa5 && outside && self.is(bytes) {
                        found += 1;
                    }
                }
                if length < WINDOW {
                    break;
                }
                at += (length - self.0.len()) as u64;
            }
        }
        window.fill(0);
        found
    }

    fn is(&self, bytes: &[u8]) -> bool {
        bytes
            .iter()
            .zip(&self.0)
            .all(|(byte, disguised)| *byte == disguised ^ 0xa5)
    }
}

const WINDOW: usize = 1 << 20;

fn call(function: &Function, things: &Things, planted: &Planted) -> Result<Answer, Stopped> {
    call_in(function, Maps::new(things), planted)
}

fn call_in(function: &Function, world: Maps, planted: &Planted) -> Result<Answer, Stopped> {
    // Only what is wiped on its way may hold it.
    let _wiping = bield_platform::memory::Wiping::begin();
    let mut body = vec![b'.'; 5000];
    planted.spell(&mut body);
    let request = request("/", &body);
    drop(body);
    // A scan while the guest waits is part of its time.
    let limits = Limits {
        deadline: Limits::MAX.deadline,
        ..Limits::default()
    };
    function.call(request, Box::new(world), &limits)
}

fn nothing_is_left_of(function: &Function, seed: u64) {
    let planted = Planted::new(seed);
    assert_eq!(planted.found(), 0);
    let things = Things::default();
    {
        let answer = call(function, &things, &planted);
        assert!(
            planted.found() > 0,
            "it finds what there is: {}",
            shown(&answer).len()
        );
        let _wiping = bield_platform::memory::Wiping::begin();
        drop(answer);
        drop(things);
    }
    assert_eq!(planted.found(), 0);
}

#[test]
fn nothing_of_an_echo_is_left() {
    nothing_is_left_of(&load(&host(), &echo()), 1);
    let host = Host::new(Settings::Library, 2).unwrap();
    nothing_is_left_of(&load(&host, &echo()), 2);
}

#[test]
fn nothing_of_what_passes_through_buckets_and_log_is_left() {
    // Sets a key to the body, reads it back, logs it, and answers with what it read.
    let wasm = guest(
        r#"(import "wasi:keyvalue/store@0.2.0-draft2" "open" (func $open (param i32 i32 i32)))
           (import "wasi:keyvalue/store@0.2.0-draft2" "[method]bucket.get" (func $get (param i32 i32 i32 i32)))
           (import "wasi:keyvalue/store@0.2.0-draft2" "[method]bucket.set" (func $set (param i32 i32 i32 i32 i32 i32)))
           (import "bield:function/log@0.1.0" "write" (func $log (param i32 i32 i32)))"#,
        r#"(data (i32.const 32) "things")"#,
        "(call $open (i32.const 32) (i32.const 6) (i32.const 2048))
         (local.set $a (i32.load (i32.const 2052)))
         (call $set (local.get $a) (i32.const 8) (i32.const 4) (local.get $body) (local.get $body_len) (i32.const 2048))
         (call $get (local.get $a) (i32.const 8) (i32.const 4) (i32.const 2048))
         (call $log (i32.const 1) (local.get $body) (local.get $body_len))
         (call $answer (i32.load (i32.const 2056)) (i32.load (i32.const 2060)))",
    );
    nothing_is_left_of(&load(&host(), &wasm), 3);
}

#[test]
fn nothing_is_left_of_a_request_that_was_stopped() {
    let wasm = guest("", "", "unreachable");
    let function = load(&host(), &wasm);
    let planted = Planted::new(4);
    let ended = call(&function, &Things::default(), &planted);
    assert!(matches!(ended, Err(Stopped::Trapped(_))));
    assert_eq!(planted.found(), 0);
}

#[test]
fn nothing_of_keys_and_refusals_is_left() {
    // Sets the key that is the body, and refuses with the body as its words.
    let wasm = guest(
        r#"(import "wasi:keyvalue/store@0.2.0-draft2" "open" (func $open (param i32 i32 i32)))
           (import "wasi:keyvalue/store@0.2.0-draft2" "[method]bucket.set" (func $set (param i32 i32 i32 i32 i32 i32)))"#,
        r#"(data (i32.const 32) "things")"#,
        "(call $open (i32.const 32) (i32.const 6) (i32.const 2048))
         (local.set $a (i32.load (i32.const 2052)))
         (call $set (local.get $a) (local.get $body) (local.get $body_len) (i32.const 8) (i32.const 4) (i32.const 2048))
         (call $refuse (i32.const 4) (local.get $body) (local.get $body_len))",
    );
    nothing_is_left_of(&load(&host(), &wasm), 5);
}

/// A guest that takes the secret out of its memory, into a global and into so many frames of its stack, and then logs.
fn keeping(frames: usize) -> Vec<u8> {
    let keep = match frames {
        0 => "",
        _ => "(global.set $kept (local.get $secret))",
    };
    guest(
        r#"(import "bield:function/log@0.1.0" "write" (func $log (param i32 i32 i32)))"#,
        &format!(
            r#"(global $kept (mut v128) (v128.const i64x2 0 0))
               (func $frames (param $left i32) (param $secret v128) (result i32)
                 (if (result i32) (i32.eqz (local.get $left))
                   (then (call $log (i32.const 1) (i32.const 8) (i32.const 4)) (i32.const 0))
                   (else
                     (i32.add
                       (call $frames (i32.sub (local.get $left) (i32.const 1)) (local.get $secret))
                       (v128.any_true (local.get $secret))))))
               (func $keep (param $at i32) (param $len i32) (local $secret v128)
                 (local.set $secret (v128.load (i32.sub (i32.add (local.get $at) (local.get $len)) (i32.const 16))))
                 (memory.fill (local.get $at) (i32.const 0) (local.get $len))
                 {keep}
                 (drop (call $frames (i32.const {frames})
                   (select (local.get $secret) (v128.const i64x2 0 0) (i32.const {frames})))))"#
        ),
        "(call $keep (local.get $body) (local.get $body_len))
         (call $answer (i32.const 8) (i32.const 4))",
    )
}

#[test]
fn nothing_of_globals_and_of_the_stack_is_left() {
    const FRAMES: usize = 20;
    let host = host();
    // How often it is there while the guest waits for its line to be taken, and afterwards.
    let found = |frames: usize, seed: u64| {
        let function = load(&host, &keeping(frames));
        let planted = Planted::new(seed);
        let during = Arc::new(AtomicUsize::new(0));
        let (noted, sought) = (Arc::clone(&during), planted.clone());
        let world = Maps::new(&Things::default())
            .telling(move || noted.store(sought.found(), Ordering::Relaxed));
        let answer = call_in(&function, world, &planted);
        assert_eq!(shown(&answer), "text");
        (during.load(Ordering::Relaxed), planted.found())
    };
    let (without, left) = found(0, 6);
    assert!(
        without >= TIMES,
        "the host's copy of the request is there: {without}"
    );
    assert_eq!(left, 0);
    let (with, left) = found(FRAMES, 7);
    // Otherwise the scan would not see what it is for.
    assert!(with > without + FRAMES, "{with} and {without}");
    assert_eq!(left, 0);
}
