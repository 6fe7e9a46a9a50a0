//! Whether processes that nobody kills grow: resident memory, descriptors, threads.
//!
//! What they have when the load has been gone for a while is compared with the most that they had in the plateau: the
//! first minute, or the first half of a shorter run.

use std::fmt;
use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::deployment::status;

/// Memory at the end, to the plateau's.
const MEMORY_RATIO: f64 = 1.25;
/// What an allocator may keep of it in any case, in bytes.
const MEMORY_SLACK: u64 = 8 << 20;
/// What a deployment sets up at its beginning is not growth.
const PLATEAU: Duration = Duration::from_secs(60);

/// What a process has.
#[derive(Clone, Copy, Default)]
struct Size {
    resident: u64,
    descriptors: u64,
    threads: u64,
}

impl Size {
    fn of(process: u32) -> Result<Self> {
        let folder = format!("/proc/{process}");
        let entries = |name: &str| -> Result<u64> {
            let path = format!("{folder}/{name}");
            Ok(fs::read_dir(&path).context(path)?.count() as u64)
        };
        Ok(Self {
            resident: status(&format!("{folder}/status"), "VmRSS:")?,
            descriptors: entries("fd")?,
            threads: entries("task")?,
        })
    }

    fn most(self, other: Self) -> Self {
        Self {
            resident: self.resident.max(other.resident),
            descriptors: self.descriptors.max(other.descriptors),
            threads: self.threads.max(other.threads),
        }
    }
}

/// The processes, and what they had when.
pub(super) struct Growth {
    plateau_ends: Duration,
    processes: Vec<Watched>,
}

struct Watched {
    name: &'static str,
    process: u32,
    plateau: Size,
    most: Size,
    end: Size,
}

impl Growth {
    /// Watches these from now on, for a load of this length.
    pub(super) fn new(processes: Vec<(&'static str, u32)>, load: Duration) -> Result<Self> {
        let watched = processes.into_iter().map(|(name, process)| {
            let now = Size::of(process)?;
            Ok(Watched {
                name,
                process,
                plateau: now,
                most: now,
                end: now,
            })
        });
        Ok(Self {
            plateau_ends: PLATEAU.min(load / 2),
            processes: watched.collect::<Result<_>>()?,
        })
    }

    /// Looks at them, so long after the beginning.
    ///
    /// One that is gone has died, which nobody caused.
    pub(super) fn look(&mut self, at: Duration) -> Result<()> {
        for one in &mut self.processes {
            let now = Size::of(one.process).context(one.name)?;
            one.most = one.most.most(now);
            if at <= self.plateau_ends {
                one.plateau = one.plateau.most(now);
            }
        }
        Ok(())
    }

    /// Looks for the last time, and says what has grown.
    pub(super) fn judge(&mut self) -> Result<Vec<String>> {
        let mut grown = Vec::new();
        for one in &mut self.processes {
            one.end = Size::of(one.process).context(one.name)?;
            let allowed = (one.plateau.resident as f64 * MEMORY_RATIO) as u64 + MEMORY_SLACK;
            let (name, plateau, end) = (one.name, one.plateau, one.end);
            if end.resident > allowed {
                grown.push(format!(
                    "{name}: {} MB at the end, {} in the plateau",
                    end.resident / 1_000_000,
                    plateau.resident / 1_000_000
                ));
            }
            for (what, end, plateau) in [
                ("descriptors", end.descriptors, plateau.descriptors),
                ("threads", end.threads, plateau.threads),
            ] {
                if end > plateau {
                    grown.push(format!(
                        "{name}: {end} {what} at the end, {plateau} in the plateau"
                    ));
                }
            }
        }
        Ok(grown)
    }

    /// The same as JSON.
    pub(super) fn table(&self) -> Value {
        let size = |size: &Size| {
            json!({
                "resident_bytes": size.resident,
                "descriptors": size.descriptors,
                "threads": size.threads,
            })
        };
        let rows = self.processes.iter().map(|one| {
            json!({
                "program": one.name,
                "plateau": size(&one.plateau),
                "most": size(&one.most),
                "end": size(&one.end),
            })
        });
        rows.collect()
    }
}

impl fmt::Display for Growth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:20}{:>24}{:>24}{:>24}", "", "plateau", "most", "end")?;
        for one in &self.processes {
            write!(f, "{:20}", one.name)?;
            for size in [one.plateau, one.most, one.end] {
                let megabytes = size.resident as f64 / 1e6;
                let told = format!(
                    "{megabytes:.0} MB {} fd {} thr",
                    size.descriptors, size.threads
                );
                write!(f, "{told:>24}")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_keeps_descriptors_has_grown() {
        let own = std::process::id();
        let mut growth = Growth::new(vec![("this", own)], Duration::from_secs(2)).unwrap();
        growth.processes[0].plateau.descriptors = 0;
        growth.processes[0].plateau.threads = u64::MAX;
        growth.processes[0].plateau.resident = u64::MAX >> 8;
        let grown = growth.judge().unwrap();
        assert_eq!(grown.len(), 1, "{grown:?}");
        assert!(grown[0].contains("descriptors"), "{grown:?}");
    }
}
