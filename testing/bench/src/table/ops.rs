//! What one call costs: puts, gets, scans, swaps and additions of a state, one caller.
//!
//! ```text
//! Request ─▶ table in memory ─▶ queue ─▶ signer's thread: seal, hash, sign ─▶ file
//!        └─▶ levels: block cache, or a sealed block from a file
//! ```
//!
//! A call is one of a request under way, as a function makes it; how often a request ends is said in the row. Keys
//! are 16 B of text, 100 000 of them, drawn evenly.

use std::path::Path;

use anyhow::Result;
use bield_state::Settings;

use super::Effort;
use super::calls::{CALLS, Calls, KEYS, VALUES};
use super::files::Folder;
use super::place::{Disk, Place, counters, roomy, synced, things};
use super::timed::Took;
use crate::bars::Bar;

/// Calls on what lies in memory.
pub(super) fn memory(effort: &Effort, bars: &mut Vec<Bar>) -> Result<()> {
    for value in VALUES {
        eprintln!("  calls in memory, {value} B");
        let place = Place::in_memory(roomy())?;
        let state = place.open(&[])?;
        let mut calls = Calls::new(&state, things(), value)?;
        calls.fill(KEYS)?;
        let what = |name: &str| format!("{name}, {value} B, memory");
        let took = calls.get(effort)?;
        bars.push(told(what("get"), &took, "from the memtable"));
        let took = calls.put(effort)?;
        let note = format!("a request's end after {CALLS} of them, awaited; files in memory");
        bars.push(told(what("put"), &took, &note));
        let took = calls.page(effort)?;
        bars.push(told(
            what("scan of 100"),
            &took,
            "a page of 100 keys and values",
        ));
        let took = calls.whole_requests(effort)?;
        let note = "begin, one put, end: waits for the record that it stands in to be signed";
        bars.push(told(what("a request of one put"), &took, note));
        let took = calls.whole_reads(effort)?;
        bars.push(told(
            what("a request of one get"),
            &took,
            "begin, one get, end",
        ));

        let mut calls = Calls::new(&state, counters(), value)?;
        calls.fill(KEYS)?;
        let took = calls.swap(effort)?;
        let note = "read with its handle, then swap: two calls; linearizable bucket";
        bars.push(told(what("read and compare-and-swap"), &took, note));
        calls.number()?;
        let took = calls.increment(effort)?;
        bars.push(told(what("increment"), &took, "linearizable bucket"));
    }
    Ok(())
}

/// Calls that go to a disk: synced puts, gets out of the block cache, gets of sealed blocks.
pub(super) fn disk(folder: &Path, effort: &Effort, bars: &mut Vec<Bar>) -> Result<()> {
    for value in VALUES {
        eprintln!("  calls on a disk, {value} B");
        let what = |name: &str| format!("{name}, {value} B");
        let place = Place::on(Disk::Folder(Folder::new(folder)?), roomy())?;
        let state = place.open(&[])?;
        let took = Calls::new(&state, synced(), value)?.whole_requests(effort)?;
        let note = "begin, one put, end: write and fdatasync of a record of its own";
        bars.push(told(what("a request of one put, local-sync"), &took, note));

        let mut calls = Calls::new(&state, things(), value)?;
        calls.fill(KEYS)?;
        state.flush()?;
        // Opens every block once.
        calls.sweep()?;
        let took = calls.get(effort)?;
        bars.push(told(
            what("get, block cache"),
            &took,
            "every block opened before",
        ));
        state.close()?;

        // Room for indexes and filters, and for one block in some fifty.
        let settings = Settings {
            cache_bytes: 512 << 10,
            ..roomy()
        };
        let disk = Folder::new(folder)?;
        let place = Place::on(Disk::Folder(disk.clone()), settings)?;
        let state = place.open(&[])?;
        let mut calls = Calls::new(&state, things(), value)?;
        calls.fill(KEYS)?;
        state.flush()?;
        calls.get(effort)?;
        let before = disk.reads();
        let took = calls.get(effort)?;
        let reads = disk.reads().since(&before);
        let note = format!(
            "sealed blocks out of a file in the page cache; {:.2} reads of {:.0} B a get",
            reads.count / calls.made as f64,
            reads.bytes / reads.count.max(1.0)
        );
        bars.push(told(what("get, cold levels"), &took, &note));
    }
    Ok(())
}

fn told(name: String, took: &Took, note: &str) -> Bar {
    Bar::told(
        name,
        took.rate,
        "calls/s",
        format!("{}; {note}", took.told()),
    )
}
