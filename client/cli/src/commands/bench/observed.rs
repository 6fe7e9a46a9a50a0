//! What the host says of itself meanwhile: its word, and nobody vouches for it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bield_load::plot::{Form, Panel, Series};
use bield_sdk::Gateway;
use serde_json::{Value, json};

/// How often the gateway is asked.
const EVERY: Duration = Duration::from_secs(1);

/// The pool at one moment; what a gateway does not tell is absent.
struct Moment {
    seconds: f64,
    workers: Option<f64>,
    gb_s: Option<f64>,
}

/// The pool over the time of a replay.
#[derive(Default)]
pub(super) struct Observed {
    moments: Vec<Moment>,
    first: Value,
    last: Value,
}

/// Asks the gateway every second until `ended`.
pub(super) fn watch(gateway: &Gateway, ended: &AtomicBool) -> Observed {
    let begun = Instant::now();
    let mut observed = Observed::default();
    loop {
        let last = ended.load(Ordering::Relaxed);
        if let Ok(status) = gateway.status() {
            observed.add(begun.elapsed().as_secs_f64(), &status["pool"]);
        }
        if last {
            return observed;
        }
        // In small steps, so that the end is not waited for.
        for _ in 0..20 {
            if !ended.load(Ordering::Relaxed) {
                thread::sleep(EVERY / 20);
            }
        }
    }
}

impl Observed {
    fn add(&mut self, seconds: f64, pool: &Value) {
        if pool.is_null() {
            return;
        }
        if self.moments.is_empty() {
            self.first = pool.clone();
        }
        self.last = pool.clone();
        self.moments.push(Moment {
            seconds,
            workers: pool["workers"]
                .as_array()
                .map(|workers| workers.len() as f64),
            gb_s: pool["totals"]["gb_s"].as_f64(),
        });
    }

    /// What changed from beginning to end, for the report; null when the gateway told nothing.
    pub(super) fn to_json(&self) -> Value {
        let totals = |pool: &Value, name: &str| pool["totals"][name].as_f64();
        let grown = |name: &str| Some(totals(&self.last, name)? - totals(&self.first, name)?);
        let mut told = serde_json::Map::new();
        for name in [
            "gb_s",
            "idle_gb_s",
            "unused_gb_s",
            "worker_s",
            "workers_started",
            "cold_starts",
        ] {
            if let Some(grown) = grown(name) {
                told.insert(name.to_owned(), json!(grown));
            }
        }
        if let Some(policy) = self.last["policy"].as_str() {
            told.insert("policy".to_owned(), json!(super::super::plain(policy)));
        }
        let most = self.moments.iter().filter_map(|moment| moment.workers);
        if let Some(most) = most.reduce(f64::max) {
            told.insert("workers_most".to_owned(), json!(most));
        }
        match told.is_empty() {
            true => Value::Null,
            false => Value::Object(told),
        }
    }

    /// Workers and memory over time.
    pub(super) fn panels(&self) -> Vec<Panel<'static>> {
        let of = |name, form, of: &dyn Fn(&Moment) -> Option<f64>| {
            let told = self.moments.iter();
            let points: Vec<_> = told
                .filter_map(|moment| Some((moment.seconds, of(moment)?)))
                .collect();
            let series = Series {
                name,
                form,
                colour: 0,
                points,
            };
            (!series.points.is_empty()).then_some(series)
        };
        let begin = self.moments.iter().find_map(|moment| moment.gb_s);
        let panels = [
            (
                "workers",
                of("workers, as the host says", Form::Step, &|moment| {
                    moment.workers
                }),
            ),
            (
                "GB·s since the beginning",
                of(
                    "memory over time, as the host says",
                    Form::Line,
                    &|moment| Some(moment.gb_s? - begin?),
                ),
            ),
        ];
        let panel = |(y, series): (_, Option<_>)| {
            Some(Panel {
                y,
                series: vec![series?],
            })
        };
        panels.into_iter().filter_map(panel).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_gateway_does_not_tell_is_absent_and_not_zero() {
        let mut observed = Observed::default();
        observed.add(0.0, &Value::Null);
        assert_eq!(observed.to_json(), Value::Null);
        assert!(observed.panels().is_empty());
        observed.add(1.0, &json!({"workers": [1, 2]}));
        assert_eq!(observed.to_json(), json!({"workers_most": 2.0}));
        assert_eq!(observed.panels().len(), 1);
    }

    #[test]
    fn sums_are_of_the_replay_alone() {
        let mut observed = Observed::default();
        for (seconds, gb_s) in [(0.0, 10.0), (1.0, 12.5)] {
            observed.add(
                seconds,
                &json!({"totals": {"gb_s": gb_s}, "policy": "a\u{1b}"}),
            );
        }
        let told = observed.to_json();
        assert_eq!(told, json!({"gb_s": 2.5, "policy": "a\u{fffd}"}));
        assert_eq!(
            observed.panels()[0].series[0].points,
            [(0.0, 0.0), (1.0, 2.5)]
        );
    }
}
