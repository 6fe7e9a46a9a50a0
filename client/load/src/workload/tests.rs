//! Properties of drawn traces.

use proptest::prelude::*;

use super::*;

const DAY: Duration = Duration::from_secs(3600);

fn names(number: usize) -> Vec<String> {
    (0..number).map(|n| format!("m{n}")).collect()
}

fn one(rate: Rate) -> Workload {
    Workload {
        models: names(1),
        callers: 3,
        sources: vec![Source::Model { model: 0, rate }],
    }
}

fn count(workload: &Workload, span: Duration) -> usize {
    workload.trace(7, span).unwrap().arrivals().len()
}

#[test]
fn rates_are_met_within_four_standard_deviations() {
    let (on, off) = (Duration::from_secs(5), Duration::from_secs(15));
    let rates = [
        (Rate::Poisson { per_second: 2.0 }, 7200.0, 85.0),
        (
            Rate::Diurnal {
                mean: 2.0,
                swing: 1.0,
                period: DAY,
            },
            7200.0,
            85.0,
        ),
        // Most of its variance is that of the bursts' lengths.
        (
            Rate::Bursts {
                busy: 8.0,
                quiet: 0.0,
                on,
                off,
            },
            7200.0,
            700.0,
        ),
    ];
    for (rate, expected, deviation) in rates {
        let found = count(&one(rate.clone()), DAY) as f64;
        let off = (found - expected).abs();
        assert!(off < 4.0 * deviation, "{rate:?}: {found}");
    }
}

#[test]
fn a_day_is_quiet_at_its_ends_and_busy_in_its_middle() {
    let rate = Rate::Diurnal {
        mean: 2.0,
        swing: 0.9,
        period: DAY,
    };
    let trace = one(rate).trace(1, DAY).unwrap();
    let mut thirds = [0; 3];
    for arrival in trace.arrivals() {
        thirds[(arrival.at.as_secs() / 1200) as usize] += 1;
    }
    assert!(thirds[1] > 2 * thirds[0], "{thirds:?}");
    assert!(thirds[1] > 2 * thirds[2], "{thirds:?}");
}

#[test]
fn counts_of_minutes_are_exact_and_replayed_at_the_speed_asked_for() {
    let minutes = vec![3, 0, 5];
    let minute = Duration::from_secs(1);
    let spread = Spread::Exact;
    let rate = Rate::Counts {
        minutes,
        spread,
        minute,
    };
    let trace = one(rate).trace(1, DAY).unwrap();
    let mut found = [0; 3];
    for arrival in trace.arrivals() {
        found[arrival.at.as_secs() as usize] += 1;
    }
    assert_eq!(found, [3, 0, 5]);
}

#[test]
fn a_session_asks_its_models_in_turn() {
    let sessions = Sessions {
        models: vec![0, 1, 2],
        per_second: 0.001,
        requests: 9.0,
        think: Duration::from_millis(10),
    };
    let workload = Workload {
        models: names(3),
        callers: 1,
        sources: vec![Source::Sessions(sessions)],
    };
    let trace = workload.trace(3, DAY).unwrap();
    let pairs = trace.arrivals().windows(2);
    let close = pairs.filter(|pair| pair[1].at - pair[0].at < Duration::from_secs(1));
    let mut turns = 0;
    for pair in close {
        assert_eq!(pair[1].model, (pair[0].model + 1) % 3);
        turns += 1;
    }
    assert!(turns > 3, "{turns}");
}

#[test]
fn who_always_follows_does_so_each_time() {
    let workload = Workload {
        models: names(2),
        callers: 1,
        sources: vec![Source::Pair {
            first: 0,
            second: 1,
            rate: Rate::Poisson { per_second: 1.0 },
            follows: 1.0,
            after: Duration::ZERO,
        }],
    };
    let trace = workload.trace(3, DAY).unwrap();
    for pair in trace.arrivals().chunks(2) {
        assert_eq!((pair[0].model, pair[1].model), (0, 1));
        assert_eq!(pair[0].at, pair[1].at);
    }
}

#[test]
fn the_mixture_has_two_busy_models() {
    let trace = Workload::mixed(names(10), 4, 10.0).trace(1, DAY).unwrap();
    let mut found = [0; 10];
    for arrival in trace.arrivals() {
        found[arrival.model] += 1;
    }
    for (model, found) in found.into_iter().enumerate() {
        // 4.5 and 0.0125 · 10 a second; four standard deviations are 510 and 85.
        let (expected, off) = if model < 2 { (16_200, 510) } else { (450, 85) };
        assert!(
            (expected - off..expected + off).contains(&found),
            "{model}: {found}"
        );
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    let rates = [
        Rate::Poisson { per_second: -1.0 },
        Rate::Poisson {
            per_second: f64::NAN,
        },
        Rate::Bursts {
            busy: 1.0,
            quiet: 1.0,
            on: Duration::ZERO,
            off: DAY,
        },
        Rate::Diurnal {
            mean: 1.0,
            swing: 1.5,
            period: DAY,
        },
        Rate::Counts {
            minutes: vec![1],
            spread: Spread::Exact,
            minute: Duration::ZERO,
        },
    ];
    for rate in rates {
        let refused = one(rate).trace(1, DAY).unwrap_err();
        assert!(
            matches!(
                refused,
                WorkloadError::Source {
                    source_number: 1,
                    ..
                }
            ),
            "{refused}"
        );
    }
    let many = one(Rate::Poisson { per_second: 1e9 });
    assert_eq!(many.trace(1, DAY), Err(WorkloadError::TooMany));
    let many = one(Rate::Counts {
        minutes: vec![u32::MAX],
        spread: Spread::Exact,
        minute: DAY,
    });
    assert_eq!(many.trace(1, DAY), Err(WorkloadError::TooMany));
    let nobody = Workload::poisson(names(1), 0, 1.0);
    assert_eq!(nobody.trace(1, DAY), Err(WorkloadError::Nobody));
    let unknown = Workload {
        models: names(1),
        callers: 1,
        sources: vec![Source::Model {
            model: 1,
            rate: Rate::Poisson { per_second: 1.0 },
        }],
    };
    assert!(unknown.trace(1, DAY).is_err());
}

proptest! {
    #[test]
    fn a_trace_is_its_seeds_and_in_order(seed: u64, rate in 0.0..20.0, seconds in 1_u64..100) {
        let span = Duration::from_secs(seconds);
        for workload in [
            Workload::poisson(names(3), 5, rate),
            Workload::bursts(names(3), 5, rate),
            Workload::diurnal(names(3), 5, rate, span),
            Workload::sessions(names(3), 5, rate),
            Workload::mixed(names(3), 5, rate),
        ] {
            let trace = workload.trace(seed, span).unwrap();
            prop_assert_eq!(&trace, &workload.trace(seed, span).unwrap());
            prop_assert!(trace.arrivals().is_sorted());
            prop_assert!(trace.arrivals().iter().all(|a| a.at < span && a.model < 3 && a.caller < 5));
        }
    }

    #[test]
    fn one_more_source_changes_nothing_of_the_others(seed: u64) {
        let span = Duration::from_secs(100);
        let less = Workload::poisson(names(3), 5, 3.0);
        let mut more = less.clone();
        more.models.push("another".into());
        more.sources.push(Source::Model { model: 3, rate: Rate::Poisson { per_second: 9.0 } });
        let mut arrivals = more.trace(seed, span).unwrap().arrivals().to_vec();
        arrivals.retain(|arrival| arrival.model < 3);
        let less = less.trace(seed, span).unwrap();
        prop_assert_eq!(arrivals, less.arrivals());
    }
}
