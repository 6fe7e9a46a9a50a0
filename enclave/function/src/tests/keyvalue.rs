//! What `wasi:keyvalue` promises a guest: one list of cases for both versions, through guests; then what each version has
//! of its own, where values matter more than memory at the host's functions, as the guest calls them.

mod draft;
mod draft2;
mod guest;

use super::cast::{Maps, Things, ask, host, load, request, shown};
use crate::{Function, Limits, Stopped};
use guest::Version;

/// What is asked for, with which body, and what is answered: requests one after the other, on one state.
type Case = (
    &'static str,
    &'static [(&'static str, &'static str, &'static str)],
);

/// In whatever words.
const FAILED: &str = "Failed: ";

const CASES: &[Case] = &[
    (
        "what one request writes, another reads",
        &[
            ("gname", "", "-"),
            ("sname", "a value", ""),
            ("gname", "", "=a value"),
            ("Gname", "", "-"),
            ("sname", "", ""),
            ("gname", "", "="),
        ],
    ),
    (
        "buckets are those that the world has",
        &[
            ("othings", "", ""),
            ("otheirs", "", "Denied: access denied"),
            ("onothing", "", "NotFound: no such store"),
            ("o", "", "NotFound: no such store"),
        ],
    ),
    (
        "what is deleted does not exist, and may be deleted again",
        &[
            ("ek", "", "0"),
            ("sk", "", ""),
            ("ek", "", "1"),
            ("dk", "", ""),
            ("ek", "", "0"),
            ("dk", "", ""),
            ("gk", "", "-"),
        ],
    ),
    (
        "numbers add up where the bucket is atomic",
        &[
            ("icount", "++", "2"),
            ("icount", "", "2"),
            ("icount", "+++", "5"),
            ("gcount", "", "=5"),
        ],
    ),
    (
        "on an eventual bucket there is nothing atomic",
        &[
            ("Icount", "+", "Failed: unsupported: the bucket is eventual"),
            ("Gcount", "", "-"),
        ],
    ),
    (
        "what is no number is not added to",
        &[("sk", "x", ""), ("ik", "+", FAILED), ("gk", "", "=x")],
    ),
    (
        "a sum has its bounds, and what is beyond did not happen",
        &[
            ("sk", "9223372036854775806", ""),
            ("ik", "+", "9223372036854775807"),
            ("ik", "+", FAILED),
            ("gk", "", "=9223372036854775807"),
        ],
    ),
    (
        "keys are listed page by page, in order",
        &[
            ("l", "", "|"),
            ("wgaceb", "v", ""),
            ("l", "", "abc|eg|"),
            ("wdf", "v", ""),
            ("l", "", "abc|def|g|"),
            ("wé", "v", "Malformed"),
            ("L", "", "|"),
            ("rabcdefg", "", ""),
            ("l", "", "|"),
        ],
    ),
    (
        "batches keep the order in which they are asked",
        &[
            ("wabc", "v", ""),
            ("mcxab", "", "c=v|-|a=v|b=v|"),
            ("ma", "", "a=v|"),
            ("m", "", ""),
            ("rcx", "", ""),
            ("mcab", "", "-|a=v|b=v|"),
            ("Mab", "", "-|-|"),
            ("r", "", ""),
            ("w", "v", ""),
        ],
    ),
];

#[test]
fn cases_of_draft() {
    run(&Version::Draft);
}

#[test]
fn cases_of_draft2() {
    run(&Version::Draft2);
}

#[test]
fn both_versions_see_the_same_buckets() {
    let (older, newer) = (function(&Version::Draft), function(&Version::Draft2));
    let things = Things::default();
    for (by, path, body, expected) in [
        (&older, "sk", "v", ""),
        (&newer, "gk", "", "=v"),
        (&newer, "icount", "++", "2"),
        (&older, "icount", "+", "3"),
        (&newer, "wab", "v", ""),
        (&older, "l", "", "abcount|k|"),
        (&older, "rab", "", ""),
        (&newer, "l", "", "countk|"),
    ] {
        let said = shown(&ask(by, &things, path, body.as_bytes()));
        assert_eq!(said, expected, "{path}");
    }
}

#[test]
fn a_batch_of_one_key_many_times_is_not_read_beyond_what_a_request_may_carry() {
    for version in [Version::Draft, Version::Draft2] {
        let (function, things) = (function(&version), Things::default());
        ask(&function, &things, "sk", &[b'v'; 60_000])
            .unwrap()
            .ok()
            .unwrap();
        let limits = Limits {
            host_bytes: 1 << 20,
            ..Limits::default()
        };
        let world = Box::new(Maps::new(&things));
        let path = format!("m{}", "k".repeat(1000));
        let answer = function.call(request(&path, b""), world, &limits);
        assert_eq!(answer.err(), Some(Stopped::HostBytes(1 << 20)));
        let reads = things.lock().unwrap().reads;
        assert!((1..=18).contains(&reads), "{reads} of 60 kB each");
    }
}

fn run(version: &Version) {
    let function = function(version);
    for (case, steps) in CASES {
        let things = Things::default();
        for (step, (path, body, expected)) in steps.iter().enumerate() {
            let said = shown(&ask(&function, &things, path, body.as_bytes()));
            let same = said == *expected || *expected == FAILED && said.starts_with(FAILED);
            assert!(same, "{case}: step {step}, {path}: {said}, not {expected}");
        }
    }
}

fn function(version: &Version) -> Function {
    load(&host(), &guest::component(version))
}
