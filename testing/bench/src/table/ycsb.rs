//! YCSB A to F: one seeded driver, the same operations for every store.
//!
//! ```text
//!    A: half reads, half updates    B: 5 % updates      C: reads          Zipf's law, 0.99
//!    D: reads of the newest, 5 % inserts     E: scans of 1 to 100, 5 % inserts     F: half reads, half read-then-write
//! ```
//!
//! One caller. An operation through the API is a call in a request of the state, an operation through a function is a
//! call out of the guest, as a function on Redis would ask it once for each: both do 100 of them, then end and are
//! awaited. `a call each` is a function that is called anew for each operation: a fresh instance and, where it wrote, a
//! signature. Redis answers one after the other, fjall is called as it is. Stores take turns of a slice each; a ratio is
//! the median of its turns.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use bield_state::Settings;

use super::Effort;
use super::draw::{Draw, Zipf, key};
use super::redis::Redis;
use super::stores::{Client, Lsm, Ours, Through};
use super::timed::{short, slice};
use crate::bars::{Bar, median, ratio};

/// Both sets of records, all workloads.
pub(super) fn workloads(folder: &Path, effort: &Effort, bars: &mut Vec<Bar>) -> Result<()> {
    for (keys, value) in [(2_000, 16), (effort.records(1_000_000) as u64, 100)] {
        let set = format!("{} × {value} B", short(keys as f64));
        eprintln!("  YCSB, {set}: filling");
        let mut runners = vec![
            Runner::new(API, GROUP, Ours::new(folder, settings())?),
            Runner::new(FUNCTION, GROUP, Through::new(folder, settings(), value)?),
            Runner::new(CALLED, 1, Through::new(folder, settings(), value)?),
            Runner::new(FJALL, GROUP, Lsm::new(folder)?),
        ];
        match Redis::start(folder)? {
            Some(redis) => runners.push(Runner::new(REDIS, 1, redis)),
            None => bars.push(Bar::missing(
                format!("YCSB, {set}: ÷ Redis"),
                "redis-server is not installed: apt-get install redis-server",
            )),
        }
        let bytes = vec![b'v'; value];
        for runner in &mut runners {
            runner.client.fill(keys, &bytes)?;
            runner.session.keys = keys;
        }
        let zipf = Zipf::new(keys);
        for workload in Workload::ALL {
            eprintln!("  YCSB {}, {set}", workload.name());
            let does = |runner: &Runner| workload != Workload::E || !runner.by_function();
            if workload == Workload::E {
                for runner in runners.iter_mut().filter(|runner| does(runner)) {
                    runner.client.scannable(runner.session.keys)?;
                }
            }
            let mut rates = vec![Vec::new(); runners.len()];
            for _ in 0..effort.turns() {
                let turns = runners.iter_mut().zip(&mut rates);
                for (runner, rates) in turns.filter(|(runner, _)| does(runner)) {
                    let (zipf, bytes) = (&zipf, &bytes);
                    let turn = |runner: &mut Runner| runner.operation(workload, zipf, bytes);
                    let end = |runner: &mut Runner| runner.client.end();
                    rates.push(slice(runner, effort.slice(), runner.group, turn, end)?);
                }
            }
            told(&set, workload, &runners, &rates, bars);
        }
    }
    Ok(())
}

/// Those of a function, but that runs go once they are replaced: an hour of them would fill disks.
fn settings() -> Settings {
    Settings {
        retention: Duration::ZERO,
        ..Settings::default()
    }
}

fn told(
    set: &str,
    workload: Workload,
    runners: &[Runner],
    rates: &[Vec<f64>],
    bars: &mut Vec<Bar>,
) {
    let all = runners.iter().zip(rates);
    let all = all.filter(|(_, rates)| !rates.is_empty());
    let note =
        all.map(|(runner, rates)| format!("{} {}/s", runner.name, short(median(rates.clone()))));
    let note = note.collect::<Vec<_>>().join(", ");
    let of = |name: &str| {
        let at = runners.iter().position(|runner| runner.name == name)?;
        rates.get(at).filter(|rates| !rates.is_empty())
    };
    for (ours, theirs) in [
        (API, REDIS),
        (FUNCTION, REDIS),
        (CALLED, REDIS),
        (API, FJALL),
    ] {
        let name = format!("YCSB {}, {set}: {ours} ÷ {theirs}", workload.name());
        if let (Some(own), Some(peer)) = (of(ours), of(theirs)) {
            bars.push(Bar::told(name, ratio(own, peer), "ratio", note.clone()));
        } else if workload == Workload::E && ours == FUNCTION {
            let why = "wasi:keyvalue lists from the first key on, not from any";
            bars.push(Bar::missing(name, why));
        }
    }
}

/// A store under the driver.
struct Runner {
    name: &'static str,
    /// Operations that end together.
    group: usize,
    client: Box<dyn Client>,
    session: Session,
}

/// Where a store's driver is.
struct Session {
    /// Keys it holds.
    keys: u64,
    draw: Draw,
}

impl Runner {
    fn new(name: &'static str, group: usize, client: impl Client + 'static) -> Self {
        let draw = Draw::new(17);
        Self {
            name,
            group,
            client: Box::new(client),
            session: Session { keys: 0, draw },
        }
    }

    fn by_function(&self) -> bool {
        [FUNCTION, CALLED].contains(&self.name)
    }

    fn operation(&mut self, workload: Workload, zipf: &Zipf, value: &[u8]) -> Result<()> {
        let Session { keys, draw } = &mut self.session;
        let client = &mut self.client;
        let other = draw.below(100) < workload.others();
        match workload {
            Workload::D | Workload::E if other => {
                let number = *keys;
                *keys += 1;
                client.insert(&key(number), value)
            }
            Workload::D => client.read(&key(*keys - 1 - zipf.rank(draw))),
            Workload::E => {
                let from = key(zipf.key(draw));
                let count = 1 + draw.below(SCAN_MAX);
                client.scan(&from, count as usize)
            }
            Workload::F if other => {
                let key = key(zipf.key(draw));
                client.read(&key)?;
                client.update(&key, value)
            }
            _ if other => client.update(&key(zipf.key(draw)), value),
            _ => client.read(&key(zipf.key(draw))),
        }
    }
}

/// A mix of operations.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Workload {
    A,
    B,
    C,
    D,
    E,
    F,
}

impl Workload {
    /// In the order YCSB asks for: those that insert come last.
    const ALL: [Self; 6] = [Self::A, Self::B, Self::C, Self::F, Self::D, Self::E];

    const fn name(self) -> &'static str {
        match self {
            Self::A => "A",
            Self::B => "B",
            Self::C => "C",
            Self::D => "D",
            Self::E => "E",
            Self::F => "F",
        }
    }

    /// How many in a hundred are not its reads or scans.
    const fn others(self) -> u64 {
        match self {
            Self::A | Self::F => 50,
            Self::B | Self::D | Self::E => 5,
            Self::C => 0,
        }
    }
}

const API: &str = "API";
const FUNCTION: &str = "function";
const CALLED: &str = "function, a call each";
const FJALL: &str = "fjall";
const REDIS: &str = "Redis";
/// Operations of a request, and of a call of the function.
const GROUP: usize = 100;
/// Most keys of a scan.
const SCAN_MAX: u64 = 100;
