//! What 0.2.0-draft cannot say, and that it is refused then: sums below zero, and places that a request was not told of.

use std::time::Instant;

use wasmtime::component::Resource;

use super::super::cast::{Maps, Things, ask, shown};
use super::guest::Version;
use crate::bindings::draft::wasi::keyvalue::store::{Host as _, HostBucket as _, KeyResponse};
use crate::guest::Guest;
use crate::keyvalue::{Bucket, Refused};
use crate::{KvError, Limits};

#[test]
fn a_number_that_it_cannot_say_stays_as_it_was() {
    let (function, things) = (super::function(&Version::Draft), Things::default());
    let ask = |path: &str, body: &str| shown(&ask(&function, &things, path, body.as_bytes()));
    let large = "Failed: unsupported: numbers end at 2^63 - 1";
    assert_eq!(ask("ncount", ""), large, "2^64 - 1 is no step");
    assert_eq!(ask("gcount", ""), "-");
    assert_eq!(ask("scount", "-5"), "");
    let below = "Failed: unsupported: the number is below zero; use 0.2.0-draft2";
    let written = || things.lock().unwrap().values[&(0, "count".to_owned())].0;
    let before = written();
    assert_eq!(ask("icount", "++"), below);
    assert_eq!(written(), before, "not even for a moment");
    assert_eq!(ask("gcount", ""), "=-5");
    assert_eq!(ask("icount", "+++++++"), "2", "above zero again");
}

#[test]
fn a_cursor_is_good_in_the_request_that_was_given_it_and_for_its_bucket() {
    let things = Things::default();
    let mut guest = called(&things, 1);
    let bucket = guest.open("things".into()).ok().unwrap();
    for name in ["a", "b", "c", "d", "e", "f", "g"] {
        let set = guest.set(again(&bucket), name.into(), vec![]);
        set.ok().unwrap();
    }
    let first = page(&mut guest, &bucket, None).unwrap();
    let second = page(&mut guest, &bucket, first.cursor).unwrap();
    // As often as wanted, in whatever order.
    assert_eq!(
        page(&mut guest, &bucket, first.cursor).unwrap().keys,
        second.keys
    );
    let third = page(&mut guest, &bucket, second.cursor).unwrap();
    assert_eq!(
        [&second.keys[..], &third.keys].concat(),
        ["d", "e", "f", "g"]
    );
    assert!(third.cursor.is_none());
    assert!(first.cursor < Some(1 << 53));

    let loose = guest.open("loose".into()).ok().unwrap();
    assert!(page(&mut guest, &loose, first.cursor).is_none());
    for never in [0, 1, u64::MAX] {
        assert!(page(&mut guest, &bucket, Some(never)).is_none());
    }
    // Another request gives out other numbers, though it listed the same.
    let mut later = called(&things, 2);
    let bucket = later.open("things".into()).ok().unwrap();
    assert!(page(&mut later, &bucket, None).unwrap().cursor.is_some());
    assert!(page(&mut later, &bucket, first.cursor).is_none());
}

#[test]
fn the_newest_64_cursors_are_remembered_and_no_more() {
    let mut guest = called(&Things::default(), 1);
    let bucket = guest.open("things".into()).ok().unwrap();
    for name in ["a", "b", "c", "d"] {
        let set = guest.set(again(&bucket), name.into(), vec![]);
        set.ok().unwrap();
    }
    let given: Vec<_> = (0..65)
        .map(|_| page(&mut guest, &bucket, None).unwrap().cursor)
        .collect();
    assert!(page(&mut guest, &bucket, given[0]).is_none());
    for cursor in &given[1..] {
        assert_eq!(page(&mut guest, &bucket, *cursor).unwrap().keys, ["d"]);
    }
}

/// A request without code, whose calls the test makes.
fn called(things: &Things, seed: u64) -> Guest {
    let now = bield_envelope::Time::from_secs(1_000_000);
    let world = Box::new(Maps::seeded(things, seed, now));
    Guest::new(world, Limits::default(), Instant::now())
}

/// A page, or `None` where the cursor was refused.
fn page(guest: &mut Guest, bucket: &Resource<Bucket>, cursor: Option<u64>) -> Option<KeyResponse> {
    match guest.list_keys(again(bucket), cursor) {
        Ok(page) => Some(page),
        Err(Refused::Said(KvError::Other(words))) => {
            assert!(words.starts_with("unsupported: a cursor"), "{words}");
            None
        }
        Err(_) => panic!("it has another cause"),
    }
}

fn again(bucket: &Resource<Bucket>) -> Resource<Bucket> {
    Resource::new_borrow(bucket.rep())
}
