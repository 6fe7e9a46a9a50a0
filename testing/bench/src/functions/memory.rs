//! Memory of instances: what the process grows by when it holds many.
//!
//! Always true: each round has an engine of its own, so that no page was there before; code and images, which instances
//! share, are there when it is begun to count.

use anyhow::Result;
use bield_function::{Host, Settings};

use super::Effort;
use super::cast::Cast;
use super::kept::Ready;
use crate::bars::{Bar, median};
use crate::deployment::own_status;

/// Instances that are held.
const HELD: u32 = 64;

pub(super) fn measured(cast: &Cast, effort: Effort, bars: &mut Vec<Bar>) -> Result<()> {
    let subjects = [(&cast.c, "/echo", 64.0), (&cast.counter, "/none", 512.0)];
    for (guest, path, most) in subjects {
        let (mut idle, mut live, mut left) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..effort.compilations() {
            let host = Host::new(Settings::Machine, HELD + 1)?;
            let ready = Ready::new(&host, &guest.compiled)?;
            // Shared pages of code and image are touched by this one.
            let mut first = ready.instantiate(&host)?;
            first.call(path, b"hello", 1)?;
            let before = resident()?;
            let held = (0..HELD).map(|_| ready.instantiate(&host));
            let mut held = held.collect::<Result<Vec<_>>>()?;
            let instantiated = resident()?;
            for kept in &mut held {
                kept.call(path, b"hello", 1)?;
            }
            let called = resident()?;
            drop(held);
            let dropped = resident()?;
            let each = |bytes: f64| (bytes - before) / 1024.0 / f64::from(HELD);
            idle.push(each(instantiated));
            live.push(each(called));
            left.push(each(dropped));
            drop(first);
        }
        let (idle, live, left) = (median(idle), median(live), median(left));
        let row = |what: &str| format!("memory: {}, {what}", guest.name);
        let note = format!(
            "resident, {HELD} held; the median of {}",
            effort.compilations()
        );
        let bar = Bar::at_most(row("an instance not called yet"), idle, most, note.clone());
        bars.push(bar.of("KiB"));
        let bar = Bar::at_most(row("an instance after a call"), live, most, note);
        bars.push(bar.of("KiB"));
        let note =
            "what the reserved place keeps for the next one, zeroed or as in the image".to_owned();
        bars.push(Bar::told(row("after its end"), left, "KiB", note));
    }
    Ok(())
}

fn resident() -> Result<f64> {
    Ok(own_status("VmRSS")? as f64)
}
