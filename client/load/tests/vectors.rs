//! Frozen traces: a seed means the same requests for ever, so that figures of different versions compare.
//!
//! `BIELD_FREEZE_VECTORS=1 cargo test -p bield-load --test vectors` writes them; that breaks every seed, so it is a change for
//! the changelog.

use std::path::Path;
use std::time::Duration;

use bield_load::{Rate, Source, Spread, Workload};

fn names(number: usize) -> Vec<String> {
    (0..number).map(|n| format!("m{n}")).collect()
}

fn workloads() -> Vec<(&'static str, Workload)> {
    let counts = Rate::Counts {
        minutes: vec![4, 0, 6],
        spread: Spread::Exact,
        minute: Duration::from_secs(2),
    };
    let drawn = Rate::Counts {
        minutes: vec![4, 0, 6],
        spread: Spread::Poisson,
        minute: Duration::from_secs(2),
    };
    let of = |rate| Workload {
        models: names(1),
        callers: 2,
        sources: vec![Source::Model { model: 0, rate }],
    };
    let pair = Workload {
        models: names(2),
        callers: 2,
        sources: vec![Source::Pair {
            first: 0,
            second: 1,
            rate: Rate::Poisson { per_second: 1.0 },
            follows: 0.7,
            after: Duration::from_millis(300),
        }],
    };
    let day = Duration::from_secs(10);
    vec![
        ("poisson", Workload::poisson(names(3), 4, 2.0)),
        ("bursts", Workload::bursts(names(2), 4, 2.0)),
        ("diurnal", Workload::diurnal(names(2), 4, 2.0, day)),
        ("sessions", Workload::sessions(names(4), 4, 3.0)),
        ("mixed", Workload::mixed(names(10), 4, 4.0)),
        ("counts", of(counts)),
        ("counts-poisson", of(drawn)),
        ("pair", pair),
    ]
}

#[test]
fn a_seed_means_the_same_trace_for_ever() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors");
    let freeze = std::env::var_os("BIELD_FREEZE_VECTORS").is_some_and(|set| set == "1");
    for (name, workload) in workloads() {
        let trace = workload.trace(42, Duration::from_secs(10)).unwrap();
        assert!(!trace.arrivals().is_empty(), "{name}");
        let file = folder.join(format!("{name}.csv"));
        if freeze {
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(&file, trace.to_csv()).unwrap();
        }
        let frozen = std::fs::read_to_string(&file).unwrap();
        assert_eq!(trace.to_csv(), frozen, "{name}");
    }
}
