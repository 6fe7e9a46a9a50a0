//! A fresh instance, its call and its end: every request of the product has one.
//!
//! A guest in a process of its own would cost at least a process's start: that of `/bin/true`, waited for, is measured
//! beside it.

use std::process::Command;
use std::time::Instant;

use anyhow::{Result, ensure};

use super::cast::{Cast, Guest};
use super::table::Table;
use super::{Effort, micros};
use crate::bars::{Bar, median, ratio};
use crate::runtime::load::percentile;

/// One kind of request.
struct Subject<'a> {
    guest: &'a Guest,
    what: &'static str,
    path: &'static str,
    body: &'static [u8],
    /// Most microseconds, as issue 7 has it.
    micros_max: f64,
    /// Most of a process's start.
    share_max: f64,
}

/// What an instance of native size may take.
const SMALL: (f64, f64) = (60.0, 0.1);
/// What one with a language's engine inside may take.
const ENGINE: (f64, f64) = (500.0, 1.0);

pub(super) fn measured(cast: &Cast, effort: Effort, bars: &mut Vec<Bar>) -> Result<()> {
    let subjects = [
        subject(&cast.echo, "text, echo", "/echo", b"hello", SMALL),
        subject(&cast.c, "C, echo", "/echo", b"hello", SMALL),
        subject(&cast.c, "C, adds in a bucket", "/add", b"n", SMALL),
        subject(
            &cast.counter,
            "QuickJS, adds in a bucket",
            "/add",
            br#"{"name":"clicks","by":1}"#,
            ENGINE,
        ),
    ];
    let table = Table::open(&cast.folder, &["counters"])?;
    let (mut took, mut ended) = (
        vec![Vec::new(); subjects.len()],
        vec![Vec::new(); subjects.len()],
    );
    let (mut middles, mut starts) = (vec![Vec::new(); subjects.len()], Vec::new());
    // The first round warms up.
    for round in 0..=effort.rounds() {
        for (at, subject) in subjects.iter().enumerate() {
            let calls = (0..effort.calls()).map(|_| once(&table, subject));
            let calls = calls.collect::<Result<Vec<_>>>()?;
            if round > 0 {
                let (calls, ends): (Vec<f64>, Vec<f64>) = calls.into_iter().unzip();
                middles[at].push(median(calls.clone()));
                took[at].extend(calls);
                ended[at].extend(ends);
            }
        }
        let processes = (0..effort.starts()).map(|_| process());
        let processes = processes.collect::<Result<Vec<_>>>()?;
        if round > 0 {
            starts.push(median(processes));
        }
    }
    let process = median(starts.clone());
    let rows = subjects.iter().zip(took).zip(ended).zip(middles);
    for (((subject, took), ended), middles) in rows {
        let name = format!("fresh: {}", subject.what);
        let (middle, late) = (median(took.clone()), percentile(took.clone(), 0.99));
        let note = format!(
            "p50 of {} requests, each in an instance of its own; p99 {late:.0} µs; the request's end, which waits for a \
             signature where it wrote, then {:.0} µs",
            took.len(),
            median(ended)
        );
        bars.push(Bar::at_most(name.clone(), middle, subject.micros_max, note).of("µs"));
        let note = format!("{middle:.0} µs; /bin/true started and waited for: {process:.0} µs");
        bars.push(Bar::at_most(
            format!("{name} ÷ a process's start"),
            ratio(&middles, &starts),
            subject.share_max,
            note,
        ));
    }
    Ok(())
}

fn subject<'a>(
    guest: &'a Guest,
    what: &'static str,
    path: &'static str,
    body: &'static [u8],
    (micros_max, share_max): (f64, f64),
) -> Subject<'a> {
    Subject {
        guest,
        what,
        path,
        body,
        micros_max,
        share_max,
    }
}

/// The microseconds of one request of the counter in JavaScript.
pub(super) fn counter(cast: &Cast, table: &Table) -> Result<f64> {
    let (world, left) = table.begin()?;
    let (_, took) = cast.counter.ask("/add", b"{}", world)?;
    left.finish()?;
    Ok(took)
}

/// The microseconds of a call, and those of its request's end.
fn once(table: &Table, subject: &Subject<'_>) -> Result<(f64, f64)> {
    let (world, left) = table.begin()?;
    let (answer, took) = subject.guest.ask(subject.path, subject.body, world)?;
    ensure!(!answer.is_empty(), "{}: an empty answer", subject.what);
    let begun = Instant::now();
    left.finish()?;
    Ok((took, micros(begun)))
}

fn process() -> Result<f64> {
    let begun = Instant::now();
    let status = Command::new("/bin/true").status()?;
    let took = micros(begun);
    ensure!(status.success(), "/bin/true: {status}");
    Ok(took)
}
