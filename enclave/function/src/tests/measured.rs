//! How long a request takes: `cargo test --release -p bield-function -- --ignored measured --nocapture`.

use std::time::{Duration, Instant};

use super::cast::{Maps, Things, echo, host, load, request, shown};
use crate::{Host, Limits, Settings};

#[test]
#[ignore = "a measurement; figures mean something in a release build"]
fn a_fresh_instance_its_call_and_its_end() {
    let pooled = host();
    let own = Host::new(Settings::Library, 4).unwrap();
    for (name, host) in [("reserved ahead", pooled), ("of its own, checked", own)] {
        let function = load(&host, &echo());
        let things = Things::default();
        let mut times: Vec<Duration> = (0..5000)
            .map(|_| {
                let (request, world) = (request("/", b"hello"), Box::new(Maps::new(&things)));
                let begun = Instant::now();
                let answer = function.call(request, world, &Limits::default());
                let took = begun.elapsed();
                assert_eq!(shown(&answer), "hello");
                took
            })
            .collect();
        times.sort_unstable();
        let at = |hundredth: usize| times[times.len() * hundredth / 100].as_nanos() as f64 / 1000.0;
        println!("{name}: median {:.1} us, p99 {:.1} us", at(50), at(99));
    }
}
