//! What 0.2.0-draft2 alone has: swaps, and sums below zero.

use std::time::Instant;

use wasmtime::component::Resource;

use super::super::cast::{Maps, Things, ask, shown};
use super::guest::Version;
use crate::Limits;
use crate::bindings::wasi::keyvalue::store::{Host as _, HostBucket as _};
use crate::bindings::wasi::keyvalue::{atomics, atomics::Host as _, atomics::HostCas as _};
use crate::guest::Guest;
use crate::keyvalue::Swap;

#[test]
fn a_swap_that_lost_hands_out_what_is_there_now_and_then_wins() {
    let (function, things) = (super::function(&Version::Draft2), Things::default());
    assert_eq!(shown(&ask(&function, &things, "cname", b"")), "behind");
    assert_eq!(shown(&ask(&function, &things, "gname", b"")), "=mine");
    let eventual = "Failed: unsupported: the bucket is eventual";
    assert_eq!(shown(&ask(&function, &things, "Cname", b"")), eventual);
}

#[test]
fn a_sum_may_go_below_zero() {
    let (function, things) = (super::function(&Version::Draft2), Things::default());
    let below = u64::MAX.to_string();
    assert_eq!(shown(&ask(&function, &things, "ncount", b"")), below);
    assert_eq!(shown(&ask(&function, &things, "gcount", b"")), "=-1");
}

#[test]
fn a_swap_of_a_value_that_came_back_still_loses() {
    let world = Box::new(Maps::new(&Things::default()));
    let mut guest = Guest::new(world, Limits::default(), Instant::now());
    let bucket = guest.open("things".into()).ok().unwrap();
    let again = || Resource::new_borrow(bucket.rep());
    let set = |guest: &mut Guest, value: u8| {
        guest.set(again(), "k".into(), vec![value]).ok().unwrap();
    };
    set(&mut guest, 1);
    let cas: Resource<Swap> = guest.new(again(), "k".into()).ok().unwrap();
    let current = guest.current(Resource::new_borrow(cas.rep()));
    assert_eq!(current.ok().unwrap(), Some(vec![1]));
    set(&mut guest, 2);
    set(&mut guest, 1);
    let lost = guest.swap(cas, vec![3]).unwrap().unwrap_err();
    let atomics::CasError::CasFailed(newer) = lost else {
        panic!("it has another cause");
    };
    guest.swap(newer, vec![3]).unwrap().unwrap();
    let value = guest.get(again(), "k".into()).ok().unwrap();
    assert_eq!(value, Some(vec![3]));
}
