//! Pictures of a replay.

use std::collections::BTreeMap;

use super::{Chart, Form, Panel, Scale, Series};
use crate::report::{START_KINDS, start_name};
use crate::{Done, Ending};

/// Bars over time at most; each is a whole number of a round width.
const BINS_MAX: f64 = 90.0;

/// Which part of the answers had come after how long: one curve for each kind of start, over milliseconds by factors.
#[must_use]
pub fn latency_by_start(title: &str, done: &[Done]) -> String {
    let mut by_start: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for one in done {
        if let Ending::Answered { start } = one.ending {
            let name = start.map_or("unknown", start_name);
            let ms = one.latency.as_secs_f64() * 1e3;
            by_start.entry(name).or_default().push(ms);
        }
    }
    let mut described =
        String::from("Part of answers over latency in milliseconds, by kind of start.");
    let mut series = Vec::new();
    for (colour, name) in names().enumerate() {
        let Some(mut times) = by_start.remove(name) else {
            continue;
        };
        times.sort_by(f64::total_cmp);
        let middle = times[times.len() / 2];
        described.push_str(&format!(
            " {name}: {} answers, median {middle:.1} ms.",
            times.len()
        ));
        let count = times.len() as f64;
        let rising = times
            .iter()
            .zip(1..)
            .map(|(ms, n)| (*ms, 100.0 * f64::from(n) / count));
        // From the bottom, so that a single answer is seen as well.
        let bottom = times.first().map(|ms| (*ms, 0.0));
        series.push(Series {
            name,
            form: Form::Step,
            colour,
            points: bottom.into_iter().chain(rising).collect(),
        });
    }
    let chart = Chart {
        title,
        description: &described,
        x: "latency from the intended time, ms",
        scale: Scale::Log,
        panels: vec![Panel {
            y: "% of answers",
            series,
        }],
    };
    chart.svg()
}

/// Requests, how answers started, and what failed, over time; below them what else is known over time.
#[must_use]
pub fn over_time<'a>(title: &'a str, done: &[Done], mut more: Vec<Panel<'a>>) -> String {
    let end = done
        .iter()
        .map(|one| one.at.as_secs_f64())
        .fold(0.0, f64::max);
    let width = bin(end);
    let mut bins: BTreeMap<&str, BTreeMap<u64, f64>> = BTreeMap::new();
    let mut requests: BTreeMap<u64, f64> = BTreeMap::new();
    for one in done {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a number of a bin"
        )]
        let at = (one.at.as_secs_f64() / width) as u64;
        *requests.entry(at).or_default() += 1.0 / width;
        let name = match &one.ending {
            Ending::Answered { start } => start.map_or("unknown", start_name),
            Ending::TurnedAway { .. } => TURNED_AWAY,
            Ending::Failed { .. } => FAILED,
        };
        *bins.entry(name).or_default().entry(at).or_default() += 1.0;
    }
    let place = |at: u64| at as f64 * width;
    let rate = |at: u64| (place(at), requests.get(&at).copied().unwrap_or(0.0));
    let last = requests.keys().next_back().copied().unwrap_or(0);
    let of = |(colour, name): (usize, &'static str), wanted: &dyn Fn(&str) -> bool| {
        let found = bins.get(name).filter(|_| wanted(name))?;
        let points = found.iter().map(|(at, count)| (place(*at), *count));
        Some(Series {
            name,
            form: Form::Bars(width),
            colour,
            points: points.collect(),
        })
    };
    let warm = |name: &str| name != "hot";
    let mut panels = vec![
        Panel {
            y: "requests a second",
            series: vec![Series {
                name: "requests",
                form: Form::Step,
                colour: 5,
                points: (0..=last + 1).map(rate).collect(),
            }],
        },
        Panel {
            y: "starts that were not hot, and requests without an answer",
            series: names()
                .enumerate()
                .filter_map(|one| of(one, &warm))
                .collect(),
        },
    ];
    panels.append(&mut more);
    let description = format!(
        "{} requests over {end:.0} s: requests a second, and in bars of {width} s the starts that were not hot and the \
         requests without an answer.",
        done.len()
    );
    let chart = Chart {
        title,
        description: &description,
        x: "seconds",
        scale: Scale::Linear,
        panels,
    };
    chart.svg()
}

/// All words in the legend; the place is the colour, the same as on the gateway's page.
fn names() -> impl Iterator<Item = &'static str> {
    let [hot, runtime, model, key, cold] = START_KINDS.map(start_name);
    let words = [
        model,
        key,
        hot,
        FAILED,
        cold,
        "unknown",
        runtime,
        TURNED_AWAY,
    ];
    words.into_iter()
}

const FAILED: &str = "failed";
const TURNED_AWAY: &str = "turned away";

/// A round width of at most so many bars.
fn bin(seconds: f64) -> f64 {
    const WIDTHS: [f64; 12] = [
        0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0,
    ];
    let fits = WIDTHS.into_iter().find(|width| seconds / width <= BINS_MAX);
    fits.unwrap_or(seconds / BINS_MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bield_protocol::feedback::StartKind;

    use super::*;

    fn done(ms: u64, ending: Ending) -> Done {
        Done {
            at: Duration::from_millis(ms),
            model: 0,
            latency: Duration::from_millis(5 + ms / 100),
            late: Duration::ZERO,
            ending,
        }
    }

    #[test]
    fn each_kind_of_start_has_its_curve_and_what_failed_its_bars() {
        let answered = |start| Ending::Answered { start: Some(start) };
        let all = [
            done(0, answered(StartKind::Cold)),
            done(900, answered(StartKind::Hot)),
            done(1100, Ending::Failed { kind: "x".into() }),
        ];
        let svg = latency_by_start("Latency", &all);
        assert_eq!(svg.matches("class=\"curve").count(), 2, "{svg}");
        assert!(svg.contains("cold: 1 answers"), "{svg}");
        let workers = Panel {
            y: "workers",
            series: vec![Series {
                name: "workers",
                form: Form::Step,
                colour: 0,
                points: vec![(0.0, 1.0), (1.0, 2.0)],
            }],
        };
        let svg = over_time("Load", &all, vec![workers]);
        assert_eq!(svg.matches("class=\"curve").count(), 2, "{svg}");
        assert!(svg.contains(">failed<") && svg.contains(">cold<"), "{svg}");
        assert!(!svg.contains(">hot<"), "{svg}");
    }

    #[test]
    fn few_bars_of_round_widths_hold_any_time() {
        assert_eq!(bin(0.0), 0.1);
        assert_eq!(bin(60.0), 1.0);
        assert_eq!(bin(3600.0), 60.0);
        assert!(1e9 / bin(1e9) <= BINS_MAX);
    }
}
